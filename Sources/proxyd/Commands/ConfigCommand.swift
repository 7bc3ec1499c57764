/// `proxyd config`: the table of keys, for people.

internal import ArgumentParser

struct ConfigCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "config", abstract: "Explain the configuration's keys, or print a commented sample.",
    subcommands: [Explain.self, Sample.self, Manual.self])

  struct Explain: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Explain one key and those below it, or all.")
    @Argument(help: "A key, as timeouts.idle or listeners.") var key: String?

    func run() throws {
      let wanted = key.map { ConfigText.pattern($0) }
      let keys = ConfigKeys.all.filter { key in
        wanted.map { key.path == $0 || key.path.hasPrefix($0 + ".") || key.path.hasPrefix($0 + "[") } ?? true
      }
      guard !keys.isEmpty else { throw ValidationError("there is no key \"\(key ?? "")\"") }
      Console.say(keys.map(ConfigText.explain).joined(separator: "\n\n"))
    }
  }

  struct Sample: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Print a commented sample configuration.")
    func run() { Console.say(ConfigText.sample) }
  }

  struct Manual: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Print the manual page proxyd.yaml(5).", shouldDisplay: false)
    func run() { Console.say(ConfigText.manual) }
  }
}

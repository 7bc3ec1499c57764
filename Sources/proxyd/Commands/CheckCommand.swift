/// `proxyd check`: says what is wrong with a configuration before anybody depends on it.

internal import ArgumentParser
internal import ProxyCore

struct CheckCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "check", abstract: "Validate a configuration with its certificates, maps and patterns.",
    discussion: "Prints file:line:column: key: problem for each error and ends with status 1 if there is any.")

  @OptionGroup var config: ConfigOption

  func run() throws {
    let file = try config.load()
    do throws(SettingsErrors) {
      for warning in try Proxy.check(file.settings) { Console.say("warning: \(file.locate(warning))") }
    } catch { throw fail(file.locate(error)) }
    Console.say("\(config.file): ok")
  }
}

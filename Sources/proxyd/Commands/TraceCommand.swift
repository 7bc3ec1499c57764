/// `proxyd trace`: one user's logins as they happen, without secrets.

internal import ArgumentParser

struct TraceCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "trace", abstract: "Show how a user's logins go, as they happen.",
    discussion: """
      Shows what sources answer, which backend is chosen and why it fails, and the dialogue with it up to its verdict. Of \
      what could hold a password only the command and the number of bytes are shown. It ends by itself after a time or a \
      number of lines, and with the command.
      """)

  @Argument(help: "The user's name as the client says it or the log has it; * and ? stand for any bytes and for one.")
  var user: String

  @Option(help: "How long, up to an hour. (default: 300)") var seconds: Int?
  @Option(help: "How many lines, up to 100000. (default: 10000)") var lines: Int?
  @OptionGroup var control: ControlOption

  func run() throws {
    let arguments: [String: ControlValue?] = [
      "user": .text(user), "seconds": seconds.map { .number($0) }, "lines": lines.map { .number($0) },
    ]
    try control.follow(.trace, arguments, rows: ToldEvent.self) { event in
      let line = "\(event.time) \(event.session) \(event.kind) \(event.text)"
      Console.write(Array((ShownText(line).text + "\n").utf8))
    }
  }
}

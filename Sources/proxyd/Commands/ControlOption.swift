/// What the commands have in common that speak to the running proxy: where it is, and how its answers are shown.

internal import ArgumentParser
internal import ProxyCore

/// Where the running proxy is.
struct PlaceOption: ParsableArguments {
  @Option(help: "The control socket. (default: \(ControlKeys.usualSocket))", completion: .file())
  var socket: String?

  @Option(
    name: [.short, .customLong("config")], help: "A configuration file, whose control.socket it is.",
    completion: .file(extensions: ["yaml"]))
  var config: String?

  /// Nobody can be asked.
  static let unreachable = ExitCode(2)

  /// The socket's path.
  func path() throws -> String {
    if let socket { return socket }
    guard let config else { return ControlKeys.usualSocket }
    do throws(ConfigErrors) {
      if let control = try ConfigFile(config).settings.control { return control.socket }
    } catch {
      _ = fail(error)
      throw PlaceOption.unreachable
    }
    Console.error("\(config): control.socket: this key is missing, there is no socket to speak to proxyd by")
    throw PlaceOption.unreachable
  }

  /// Connects, or says why not and ends the program.
  func connect() throws -> ControlClient {
    let path = try path()
    do throws(ControlClient.Unreachable) { return try ControlClient(path) } catch {
      Console.error(error.words)
      throw PlaceOption.unreachable
    }
  }

}

/// Where the running proxy is, and how its answer is shown.
struct ControlOption: ParsableArguments {
  @OptionGroup var place: PlaceOption

  @Flag(help: "Print the answer as it comes: JSON, an object a line.")
  var json = false

  /// Nobody can be asked.
  static var unreachable: ExitCode { PlaceOption.unreachable }

  /// Connects, or says why not and ends the program.
  func connect() throws -> ControlClient { try place.connect() }

  /// Asks, and shows what `table` makes of the answer; or the answer itself, if that is wanted.
  func show<Row: Codable, Done: Codable>(
    _ command: ControlCommand, _ arguments: [String: ControlValue?] = [:], rows: Row.Type, done: Done.Type,
    _ table: ([Row], Done) -> [String]
  ) throws {
    let arguments = arguments.compactMapValues { $0 }
    var client = try connect()
    do {
      if json { return try printAnswer(&client, command, arguments) }
      switch try client.all(command, arguments, row: rows, done: done) {
      case .success(let answer): for line in table(answer.rows, answer.done) { Console.say(line) }
      case .failure(let problem): throw ControlOption.refused(problem)
      }
    } catch let error as ControlClient.Unreachable {
      Console.error(error.words)
      throw ControlOption.unreachable
    }
  }

  /// Hands out rows as they come.
  func follow<Row: Codable>(
    _ command: ControlCommand, _ arguments: [String: ControlValue?], rows: Row.Type, _ body: (Row) -> Void
  ) throws {
    let arguments = arguments.compactMapValues { $0 }
    var client = try connect()
    let reader = AnswerReader()
    do {
      if json { return try printAnswer(&client, command, arguments) }
      let problem = try client.ask(command, arguments) { kind, line in
        if kind == .row, let row = reader.value(line, Row.self) { body(row) }
        return true
      }
      if let problem { throw ControlOption.refused(problem) }
    } catch let error as ControlClient.Unreachable {
      Console.error(error.words)
      throw ControlOption.unreachable
    }
  }

  private func printAnswer(
    _ client: inout ControlClient, _ command: ControlCommand, _ arguments: [String: ControlValue]
  ) throws {
    // Whoever reads it page by page keeps nobody waiting: the proxy lets go of a client that takes nothing.
    var waiting: [UInt8] = []
    defer { Console.write(waiting) }
    let problem = try client.ask(command, arguments) { _, line in
      waiting += (Console.isTerminal ? ShownText.json(line) : line) + [0x0A]
      guard command == .trace else { return true }
      Console.write(waiting)
      waiting = []
      return true
    }
    if problem != nil { throw ExitCode.failure }
  }

  /// Says it; throw what it returns.
  static func refused(_ problem: ControlProblem) -> ExitCode {
    Console.error(ShownText(problem.message).text)
    return .failure
  }
}

/// Which sessions are meant.
struct FilterOption: ParsableArguments {
  @Option(help: "The user's name as the log has it, in any case; * and ? stand for any bytes and for one.")
  var user: String?

  @Option(help: "The backend's name.")
  var backend: String?

  @Option(help: "The client's address, or its network.")
  var address: String?

  @Option(name: .customLong("where"), help: "A part of what the session is doing, as relaying.")
  var place: String?

  @Option(help: "The session's name in the log.")
  var session: String?

  var arguments: [String: ControlValue?] {
    [
      "user": user.map { .text($0) }, "backend": backend.map { .text($0) }, "address": address.map { .text($0) },
      "where": place.map { .text($0) }, "session": session.map { .text($0) },
    ]
  }
}

/// Speaks to the running proxy over its control socket.

internal import Glibc
internal import ProxyCore

struct ControlClient {
  private let stream: UnixStream
  private var lines: UnixLines
  private let writer = AnswerWriter()
  private let reader = AnswerReader()

  /// Why nobody answers.
  struct Unreachable: Error {
    let words: String
  }

  /// A row is no longer than this.
  private static let longestLine = 64 << 20
  /// An answer may take as long as a trace does, and some: whoever waits can stop.
  private static let patience = Timeouts.seconds(2 * 3_600)
  /// For the request to be taken.
  private static let requestPatience = Timeouts.seconds(10)

  /// Connects to the socket at the path.
  init(_ path: String) throws(Unreachable) {
    switch UnixStream.connect(path) {
    case .success(let stream):
      self.stream = stream
      lines = UnixLines(stream, longest: ControlClient.longestLine)
    case .failure(let error): throw Unreachable(words: "\(path): \(ControlClient.words(error, path))")
    }
  }

  private static func words(_ error: SystemError, _ path: String) -> String {
    switch error.code {
    case ENOENT: "there is no socket: does proxyd run, and does its configuration have control.socket?"
    case ECONNREFUSED: "nobody answers: proxyd does not run, or was killed"
    case EACCES, EPERM:
      if let group = UnixListener.group(of: path) {
        "permission denied: the socket is for its owner and the group \(group)"
      } else {
        "permission denied: the socket is for its owner and its group"
      }
    case EAGAIN: "too many wait to be answered"
    default: "\(error)"
    }
  }

  /// Asks, and hands each line of the answer to `each`; false from it ends that, and the connection can't be used again.
  /// Returns the proxy's objection, if it has one.
  mutating func ask(
    _ command: ControlCommand, _ arguments: [String: ControlValue] = [:],
    _ each: (AnswerKind, [UInt8]) throws -> Bool
  ) throws -> ControlProblem? {
    // Whoever is not let in is told why, before the request is heard: that is read below.
    _ = stream.write(writer.request(command, arguments), within: ControlClient.requestPatience)
    while true {
      switch lines.next(within: ControlClient.patience, idle: ControlClient.patience) {
      case .line(let line):
        guard let kind = reader.kind(line) else { throw Unreachable(words: "the answer is none of proxyd's") }
        guard try each(kind, line) else { return nil }
        switch kind {
        case .row: continue
        case .done: return nil
        case .error(let problem): return problem
        }
      case .tooLong, .late, .closed: throw Unreachable(words: "the connection ended")
      }
    }
  }

  /// The same of what can't be refused.
  mutating func value<Row: Codable, Done: Codable>(
    _ command: ControlCommand, _ arguments: [String: ControlValue], row: Row.Type, done: Done.Type
  ) throws -> (rows: [Row], done: Done) {
    switch try all(command, arguments, row: row, done: done) {
    case .success(let answer): return answer
    case .failure(let problem): throw Unreachable(words: problem.message)
    }
  }

  /// Asks, and returns all rows with the last line's value.
  mutating func all<Row: Codable, Done: Codable>(
    _ command: ControlCommand, _ arguments: [String: ControlValue] = [:], row: Row.Type, done: Done.Type
  ) throws -> Result<(rows: [Row], done: Done), ControlProblem> {
    var rows: [Row] = []
    var last: Done?
    let reader = reader
    let problem = try ask(command, arguments) { kind, line in
      switch kind {
      case .row:
        guard let row = reader.value(line, Row.self) else {
          throw Unreachable(words: "the answer is another version's")
        }
        rows.append(row)
      case .done: last = reader.value(line, Done.self)
      case .error: break
      }
      return true
    }
    if let problem { return .failure(problem) }
    guard let last else { throw Unreachable(words: "the answer is another version's") }
    return .success((rows, last))
  }
}

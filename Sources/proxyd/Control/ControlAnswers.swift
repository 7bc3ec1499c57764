/// The rows and closing words of the control protocol's answers, as they are written and read (docs/Control.md).

internal import FoundationEssentials

/// How the process is.
struct ToldStatus: Equatable, Sendable, Codable {
  var version: String
  var pid: Int
  /// `running`, or `stopping`.
  var state: String
  /// Seconds.
  var uptime: Int
  var loops: Int
  var sessions: Int
  /// Sessions at once.
  var limit: Int
  var logins: Int
  var failedLogins: Int
  /// Bytes of relays, from clients.
  var `in`: Int
  /// Bytes of relays, to clients.
  var out: Int
  /// Users remembered by pools with affinity.
  var users: Int
  var logLevel: String
  /// Backends of the configuration.
  var backends: Int?
  /// Those of them that are lost.
  var lostBackends: Int?
  /// Where the state file is; nil if there is none.
  var stateFile: String?
  /// Why what is new is remembered in memory only; nil if it is soon in the state file.
  var stateTrouble: String?
}

/// A listener.
struct ToldListener: Equatable, Sendable, Codable {
  var listener: String
  var `protocol`: String
  var tls: String
  var sessions: Int
  var accepted: Int
  var handshakes: Int
  var failedHandshakes: Int
  var logins: Int
  var refusedLogins: Int
  var `in`: Int
  var out: Int
}

/// A session.
struct ToldSession: Equatable, Sendable, Codable {
  /// Its name in the log.
  var session: String
  /// The name the client last gave; empty before.
  var user: String
  var loggedIn: Bool
  var `protocol`: String
  /// The client's address.
  var client: String
  var listener: String
  var backend: String?
  /// The backend's address.
  var address: String?
  var doing: String
  /// Milliseconds.
  var age: Int
  /// Milliseconds since the relay last carried anything; nil before the login.
  var idle: Int?
  var `in`: Int
  var out: Int
  var tls: String?
  var backendTls: String?
}

/// A user with sessions.
struct ToldUser: Equatable, Sendable, Codable {
  var user: String
  var sessions: Int
  /// Some of them, where there are many.
  var addresses: [String]
  var addressCount: Int
  var backends: [String]
  var protocols: [String]
}

/// A backend.
struct ToldBackend: Equatable, Sendable, Codable {
  var backend: String
  /// The pools it is in.
  var pools: [String] = []
  /// What the operator wants: `ready`, `drain`, `maint`, `removed`; nil for a server that a map names by its address.
  var state: String?
  /// What its agent wants, if that is stricter.
  var agent: String?
  /// `up`, `doubted` or `down`; nil as for `state`.
  var health: String?
  /// Why it is not well.
  var reason: String?
  /// Seconds since its health is that; nil if it was never otherwise.
  var since: Int?
  var sessions: Int
  /// Logins in progress.
  var entering = 0
  /// Nil if it is in no pool, or has another one in each.
  var weight: Int?
  /// Whether the operator has set it at run time.
  var weightSet = false
  /// The percentage of its weight that its agent wants.
  var share: Int?
  var triedLogins: Int
  var acceptedLogins: Int
  var refusedLogins: Int
  var failedLogins: Int
  var `in`: Int
  var out: Int
}

/// Where a user is remembered to be.
struct ToldPlace: Equatable, Sendable, Codable {
  var pool: String
  var user: String
  var backend: String
  /// Seconds since 1970; nil as long as there are sessions.
  var expires: Int?
}

/// Where a user is, and why.
struct ToldMapping: Equatable, Sendable, Codable {
  var pool: String
  /// As the pool's key has the name.
  var user: String
  /// Where the user's sessions are, or where the next will be; nil if nothing is remembered.
  var current: String?
  /// Seconds since 1970; nil as long as there are sessions, or if nothing is remembered.
  var expires: Int?
  /// Where the ring has the user with the members that take users now; nil if there are none.
  var hashed: String?
  /// Where the ring has the user with all members.
  var configured: String?
}

/// A counter, a gauge or a histogram.
struct ToldMetric: Equatable, Sendable, Codable {
  var name: String
  var labels: [String: String]
  /// `counter`, `gauge` or `histogram`.
  var type: String
  /// Of a counter or gauge.
  var value: Int?
  /// Of a histogram: how many there were.
  var count: Int?
  /// All of them together, in microseconds.
  var sum: Int?
  /// How many were in each bucket alone; one more than there are bounds.
  var buckets: [Int]?
}

/// Something that happened to a traced login.
struct ToldEvent: Equatable, Sendable, Codable {
  var time: String
  var session: String
  var kind: String
  var text: String
}

/// A line of what is wrong with a configuration.
struct ToldProblem: Equatable, Sendable, Codable {
  var problem: String
}

/// The last line of an answer that has no more to say than how many there were.
struct ToldCount: Equatable, Sendable, Codable {
  var count: Int
}

/// The last line of an answer that lists metrics.
struct ToldBounds: Equatable, Sendable, Codable {
  var count: Int
  /// The upper bounds of histograms' buckets, in microseconds.
  var bounds: [Int]
}

/// How a backend is set.
struct ToldSetting: Equatable, Sendable, Codable {
  var backend: String
  var state: String
  var weight: Int?
  /// Why it is forgotten with a restart; nil if it is kept.
  var notKept: String?
}

/// The level of the log.
struct ToldLevel: Equatable, Sendable, Codable {
  var level: String
}

// MARK: - Lines

/// One line of an answer.
private struct AnswerLine<Value: Codable>: Codable {
  var row: Value?
  var done: Value?
  var error: ControlProblem?
}

/// Writes answers.
struct AnswerWriter {
  private let encoder: JSONEncoder

  init() {
    encoder = JSONEncoder()
    encoder.keyEncodingStrategy = .convertToSnakeCase
    // One order of keys, so that people can compare.
    encoder.outputFormatting = [.sortedKeys, .withoutEscapingSlashes]
  }

  func row(_ value: some Codable) -> [UInt8] { line(AnswerLine(row: value)) }
  func done(_ value: some Codable) -> [UInt8] { line(AnswerLine(done: value)) }
  func error(_ problem: ControlProblem) -> [UInt8] { line(AnswerLine<ToldCount>(error: problem)) }

  /// A request, as a line.
  func request(_ command: ControlCommand, _ arguments: [String: ControlValue]) -> [UInt8] {
    line(arguments.merging(["command": .text(command.rawValue)]) { old, _ in old })
  }

  private func line(_ value: some Encodable) -> [UInt8] {
    // Texts, whole numbers and lists of them can't fail.
    guard let data = try? encoder.encode(value) else { preconditionFailure("an answer can't be written") }
    return Array(data) + [0x0A]
  }
}

/// What a line of an answer says.
enum AnswerKind: Equatable {
  case row
  case done
  case error(ControlProblem)
}

/// Reads answers.
struct AnswerReader {
  private let decoder: JSONDecoder

  init() {
    decoder = JSONDecoder()
    decoder.keyDecodingStrategy = .convertFromSnakeCase
  }

  /// Only its first key is looked at.
  private struct Shape: Codable {
    var row: Anything?
    var done: Anything?
    var error: ControlProblem?

    struct Anything: Codable {}
  }

  /// What the line is; nil if it is none of an answer.
  func kind(_ line: [UInt8]) -> AnswerKind? {
    guard let shape = try? decoder.decode(Shape.self, from: Data(line)) else { return nil }
    if let problem = shape.error { return .error(problem) }
    if shape.done != nil { return .done }
    return shape.row != nil ? .row : nil
  }

  /// The value in the line; nil if it is of another kind.
  func value<Value: Codable>(_ line: [UInt8], _: Value.Type) -> Value? {
    let line = try? decoder.decode(AnswerLine<Value>.self, from: Data(line))
    return line?.row ?? line?.done
  }
}

/// Reads a line of the control protocol: a command and its arguments, as one JSON object (docs/Control.md).

internal import FoundationEssentials

struct ControlRequest: Equatable, Sendable {
  let command: ControlCommand
  private var arguments: [String: ControlValue]

  /// A request is no longer than this.
  static let longestLine = 64 << 10

  /// A line without its end. Everything that is not known is an error that names it.
  init(_ line: [UInt8]) throws(ControlProblem) {
    var values = try ControlRequest.parse(line)
    // The decoder takes one of two values of the same key; which was meant is not known.
    guard ControlRequest.keys(in: line) == values.values.reduce(values.count, { $0 + $1.keys }) else {
      throw ControlProblem(.argument, "a key is given twice, expected once")
    }
    guard case .text(let name)? = values.removeValue(forKey: "command") else {
      throw ControlProblem(.command, "the key command is missing, expected a command's name")
    }
    guard let command = ControlCommand(rawValue: name) else {
      let known = ControlCommand.allCases.map(\.rawValue).joined(separator: ", ")
      throw ControlProblem(.command, "unknown command \"\(name)\", expected one of \(known)")
    }
    self.command = command
    arguments = values
    try check()
  }

  private static func parse(_ line: [UInt8]) throws(ControlProblem) -> [String: ControlValue] {
    do {
      return try JSONDecoder().decode([String: ControlValue].self, from: Data(line))
    } catch let error as DecodingError {
      switch error {
      case .dataCorrupted(let context) where context.codingPath.isEmpty,
        .typeMismatch(_, let context)
      where
        context.codingPath.isEmpty, .valueNotFound(_, let context) where context.codingPath.isEmpty:
        throw ControlProblem(.syntax, "the line is no JSON object")
      case .dataCorrupted(let context), .typeMismatch(_, let context), .valueNotFound(_, let context),
        .keyNotFound(_, let context):
        let name = context.codingPath.first?.stringValue ?? ""
        throw ControlProblem(.argument, "\(name): this is no text, number or list of users")
      @unknown default: throw ControlProblem(.syntax, "the line is no JSON object")
      }
    } catch {
      throw ControlProblem(.syntax, "the line is no JSON object")
    }
  }

  /// Keys in a text that is known to be JSON: colons outside of strings.
  private static func keys(in line: [UInt8]) -> Int {
    var (count, isInString, isEscaped) = (0, false, false)
    for byte in line {
      switch byte {
      case _ where isEscaped: isEscaped = false
      case UInt8(ascii: "\\"): isEscaped = isInString
      case UInt8(ascii: "\""): isInString.toggle()
      case UInt8(ascii: ":"): if !isInString { count += 1 }
      default: break
      }
    }
    return count
  }

  /// Whether all that is there is known, and all that is needed is there.
  private func check() throws(ControlProblem) {
    let known = command.arguments
    for (name, value) in arguments.sorted(by: { $0.key < $1.key }) {
      guard let argument = known.first(where: { $0.name == name }) else {
        let names = known.isEmpty ? "none" : known.map(\.name).joined(separator: ", ")
        throw ControlProblem(.argument, "\(name): \(command.rawValue) has no such argument, expected \(names)")
      }
      guard argument.kind.takes(value) else {
        throw ControlProblem(.argument, "\(name): expected \(argument.kind.expected)")
      }
    }
    for argument in known where argument.isRequired && arguments[argument.name] == nil {
      throw ControlProblem(
        .argument, "\(argument.name): \(command.rawValue) needs it, expected \(argument.kind.expected)")
    }
  }

  /// An argument that is a text; nil if it is not given.
  func text(_ name: String) -> String? { if case .text(let text)? = arguments[name] { text } else { nil } }

  /// An argument that is a number; nil if it is not given.
  func number(_ name: String) -> Int? { if case .number(let number)? = arguments[name] { number } else { nil } }

  /// Users with their backends; none if they are not given.
  func entries(_ name: String) -> [ControlEntry] {
    if case .entries(let entries)? = arguments[name] { entries } else { [] }
  }

  /// Whether an argument is given at all.
  func has(_ name: String) -> Bool { arguments[name] != nil }

  /// The arguments as the log tells them, in the order of the alphabet.
  var words: [(name: String, value: String)] {
    arguments.sorted { $0.key < $1.key }.map { name, value in
      switch value {
      case .text(let text): (name, text)
      case .number(let number): (name, String(number))
      case .entries(let entries): (name, String(entries.count))
      }
    }
  }
}

/// What is wrong with a request, or with doing it.
struct ControlProblem: Error, Equatable, Sendable, Codable {
  let code: Code
  let message: String

  /// The raw value is the stable name in the answer.
  enum Code: String, Equatable, Sendable, Codable, CaseIterable {
    /// The line is no JSON object.
    case syntax
    /// The line is longer than a request may be; the connection ends.
    case tooLong = "too-long"
    case command
    case argument
    /// What is named is not there.
    case notFound = "not-found"
    /// It is known, and can't be done.
    case refused
    /// As many clients are connected as may be.
    case busy
    /// The proxy does not answer: it stops, or is overloaded.
    case unavailable
  }

  init(_ code: Code, _ message: String) {
    self.code = code
    self.message = message
  }
}

/// A user and the backend that is told for it.
struct ControlEntry: Equatable, Sendable, Codable {
  let user: String
  let backend: String
}

/// What an argument may be.
enum ControlValue: Equatable, Sendable, Codable {
  case text(String)
  case number(Int)
  case entries([ControlEntry])

  /// Keys within it.
  fileprivate var keys: Int {
    switch self {
    case .text, .number: 0
    case .entries(let entries): 2 * entries.count
    }
  }

  init(from decoder: any Decoder) throws {
    let container = try decoder.singleValueContainer()
    if let text = try? container.decode(String.self) {
      self = .text(text)
    } else if let number = try? container.decode(Int.self) {
      self = .number(number)
    } else {
      self = .entries(
        try container.decode([[String: String]].self).map { object in
          guard object.count == 2, let user = object["user"], let backend = object["backend"] else {
            throw DecodingError.dataCorruptedError(in: container, debugDescription: "not a user and a backend")
          }
          return ControlEntry(user: user, backend: backend)
        })
    }
  }

  func encode(to encoder: any Encoder) throws {
    var container = encoder.singleValueContainer()
    switch self {
    case .text(let text): try container.encode(text)
    case .number(let number): try container.encode(number)
    case .entries(let entries): try container.encode(entries)
    }
  }
}

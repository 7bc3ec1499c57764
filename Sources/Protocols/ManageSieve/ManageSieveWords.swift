/// Takes ManageSieve's lines apart and renders its answers, for both sides (RFC 5804 §1.2, §4).

/// Finds where a line ends, the literals in it included, in bytes that arrive in pieces.
struct ManageSieveFramer: Equatable, Sendable {
  private var lines = LineFramer()
  /// Where the current stretch begins: behind the literals found so far.
  private var start = 0

  enum Outcome: Equatable, Sendable {
    case incomplete
    /// A literal or line beyond the limit.
    case tooLong
    /// The line without its end, and how long it is with it.
    case line(text: Int, end: Int)
  }

  /// The line at the front of `input`, which holds all bytes not consumed so far. A literal's bytes are part of its line,
  /// whatever they look like: they are never taken for commands.
  mutating func next(in input: Span<UInt8>, limit: Int) -> Outcome {
    while let line = lines.nextLine(in: input, from: start) {
      guard line.end <= limit else { return .tooLong }
      // A client's literal never waits for a go-ahead, with its "+" or without (RFC 5804 §4: literal-c2s).
      guard let literal = IMAPLiteral(endOf: input.extracting(line.text)) else {
        self = ManageSieveFramer()
        return .line(text: line.text.upperBound, end: line.end)
      }
      guard literal.size <= limit - line.end else { return .tooLong }
      start = line.end + literal.size
    }
    return input.count > limit ? .tooLong : .incomplete
  }
}

/// Walks over a whole line's words.
struct ManageSieveReader {
  private(set) var position = 0

  enum Word: Equatable, Sendable {
    case atom(Range<Int>)
    /// Between the quotes, escapes included.
    case quoted(Range<Int>)
    case literal(Range<Int>)
    /// A response code with its brackets off.
    case list(Range<Int>)
  }

  /// The next word; nil at the line's end, or where there is none.
  mutating func next(_ line: Span<UInt8>) -> Word? {
    while position < line.count, line[position] == .space { position += 1 }
    guard position < line.count else { return nil }
    switch line[position] {
    case .ascii("\""): return quoted(line).map { .quoted($0) }
    case .ascii("{"): return literal(line).map { .literal($0) }
    case .ascii("("): return list(line)
    default:
      let start = position
      while position < line.count, line[position] > .space, line[position] != .ascii("\"") { position += 1 }
      return position > start ? .atom(start..<position) : nil
    }
  }

  /// Whether all was read.
  func isAtEnd(_ line: Span<UInt8>) -> Bool { position == line.count }

  /// RFC 5804 §4: quoted = DQUOTE *QUOTED-CHAR DQUOTE, a backslash before a quote or a backslash.
  private mutating func quoted(_ line: Span<UInt8>) -> Range<Int>? {
    var index = position + 1
    while index < line.count {
      switch line[index] {
      case .ascii("\""):
        let range = (position + 1)..<index
        position = index + 1
        return range
      case .ascii("\\"):
        // What is escaped may be a quote; a line end or NUL may not be hidden so.
        guard index + 1 < line.count, !line[index + 1].isControl else { return nil }
        index += 2
      case .nul, .carriageReturn, .lineFeed: return nil
      default: index += 1
      }
    }
    return nil
  }

  private mutating func literal(_ line: Span<UInt8>) -> Range<Int>? {
    guard let end = line.firstIndex(of: .lineFeed, from: position) else { return nil }
    let textEnd = line[end - 1] == .carriageReturn ? end - 1 : end
    guard let header = IMAPLiteral(endOf: line.extracting(position..<textEnd)), header.start == 0,
      line.count - (end + 1) >= header.size
    else { return nil }
    position = end + 1 + header.size
    return (end + 1)..<position
  }

  /// Up to the bracket that closes, strings within passed over.
  private mutating func list(_ line: Span<UInt8>) -> Word? {
    let start = position + 1
    position = start
    while position < line.count {
      switch line[position] {
      case .ascii(")"):
        position += 1
        return .list(start..<(position - 1))
      case .ascii("\""): guard quoted(line) != nil else { return nil }
      case .ascii("{"): guard literal(line) != nil else { return nil }
      case .ascii("("): return nil
      default: position += 1
      }
    }
    return nil
  }

  /// A string's value; nil if the word is none.
  static func value(_ word: Word?, _ line: Span<UInt8>) -> [UInt8]? {
    switch word {
    case .literal(let range)?: return line.extracting(range).array
    case .quoted(let range)?:
      var value: [UInt8] = []
      var index = range.lowerBound
      while index < range.upperBound {
        if line[index] == .ascii("\\"), index + 1 < range.upperBound { index += 1 }
        value.append(line[index])
        index += 1
      }
      return value
    case .atom?, .list?, nil: return nil
    }
  }
}

/// The commands that have a meaning before login.
enum ManageSieveCommand: Equatable, Sendable, CaseIterable {
  case authenticate, startTLS, logout, capability, noop, xclient

  init?(_ word: Span<UInt8>) {
    for command in ManageSieveCommand.allCases where word.equalsIgnoringCase(command.word) {
      self = command
      return
    }
    return nil
  }

  private var word: StaticString {
    switch self {
    case .authenticate: "AUTHENTICATE"
    case .startTLS: "STARTTLS"
    case .logout: "LOGOUT"
    case .capability: "CAPABILITY"
    case .noop: "NOOP"
    case .xclient: "XCLIENT"
    }
  }
}

/// A server's closing line: OK, NO or BYE, a code in brackets, words for people (RFC 5804 §1.2).
enum ManageSieveStatus: Equatable, Sendable {
  case ok, no, bye

  var word: StaticString {
    switch self {
    case .ok: "OK"
    case .no: "NO"
    case .bye: "BYE"
    }
  }

  /// The status of a line and what stands behind it; nil if the line is another.
  static func read(_ line: Span<UInt8>) -> (status: ManageSieveStatus, answer: BackendAnswer)? {
    var reader = ManageSieveReader()
    guard case .atom(let range)? = reader.next(line) else { return nil }
    let word = line.extracting(range)
    let all: [ManageSieveStatus] = [.ok, .no, .bye]
    guard let status = all.first(where: { word.equalsIgnoringCase($0.word) }) else { return nil }
    var answer = BackendAnswer()
    var next = reader.next(line)
    if case .list(let code)? = next {
      append(line.extracting(code), &answer.code)
      next = reader.next(line)
    }
    if let text = ManageSieveReader.value(next, line) { answer.text.appendLineSafe(text.span) }
    return (status, answer)
  }

  /// Appends a code's words, its strings rendered anew: a literal's bytes would not stay within the answer's line.
  private static func append(_ code: Span<UInt8>, _ out: inout [UInt8]) {
    var reader = ManageSieveReader()
    while let word = reader.next(code) {
      if !out.isEmpty { out.append(.space) }
      switch word {
      case .atom(let range): out.appendLineSafe(code.extracting(range))
      case .quoted, .literal:
        var safe: [UInt8] = []
        let value = ManageSieveReader.value(word, code) ?? []
        safe.appendLineSafe(value.span)
        ManageSieveReply.appendQuoted(safe.span, &out)
      // The reader of the whole line lets no bracket within a code through.
      case .list: return
      }
    }
  }
}

/// Renders what is said.
enum ManageSieveReply {
  /// A closing line of our own.
  static func close(_ status: ManageSieveStatus, _ text: StaticString, code: StaticString = "", _ out: inout [UInt8]) {
    out.append(status.word)
    out.append(.space)
    if code.utf8CodeUnitCount > 0 {
      out.append("(")
      out.append(code)
      out.append(") ")
    }
    out.append(.ascii("\""))
    out.append(text)
    out.append("\"\r\n")
  }

  /// A closing line of the backend's.
  static func relay(_ status: ManageSieveStatus, _ answer: BackendAnswer, _ out: inout [UInt8]) {
    out.append(status.word)
    if !answer.code.isEmpty {
      out.append(" (")
      out.append(contentsOf: answer.code)
      out.append(")")
    }
    if !answer.text.isEmpty {
      out.append(.space)
      quote(answer.text.span, &out)
    }
    out.endLine()
  }

  /// A capability's line.
  static func capability(_ name: StaticString, _ value: Span<UInt8>?, _ out: inout [UInt8]) {
    out.append(.ascii("\""))
    out.append(name)
    out.append(.ascii("\""))
    if let value {
      out.append(.space)
      quote(value, &out)
    }
    out.endLine()
  }

  /// A string of a server's: quoted if it fits (RFC 5804 §4 has 1,024 bytes), else a literal.
  static func quote(_ text: Span<UInt8>, _ out: inout [UInt8]) {
    guard text.count > longestQuoted else { return appendQuoted(text, &out) }
    out.append(.ascii("{"))
    out.append(contentsOf: String(text.count).utf8)
    out.append("}\r\n")
    out.append(text)
  }

  /// RFC 5804 §4: quoted = DQUOTE *1024QUOTED-CHAR DQUOTE.
  static let longestQuoted = 1_024

  static func appendQuoted(_ text: Span<UInt8>, _ out: inout [UInt8]) {
    out.append(.ascii("\""))
    for index in text.indices {
      if text[index] == .ascii("\"") || text[index] == .ascii("\\") { out.append(.ascii("\\")) }
      out.append(text[index])
    }
    out.append(.ascii("\""))
  }

  /// Response codes: RFC 5804 §1.3.
  static func refused(_ refusal: LoginRefusal, _ out: inout [UInt8]) {
    switch refusal {
    case .credentials: close(.no, "Authentication failed.", &out)
    case .backend(let answer): relay(.no, answer, &out)
    case .unavailable: close(.no, "Account is temporarily unavailable.", code: "TRYLATER", &out)
    // Without a code it would be taken for a wrong password.
    case .misconfigured: close(.no, "Account is unavailable.", code: "TRYLATER", &out)
    case .disabled: close(.no, "Login is disabled for this account.", &out)
    case .limit: close(.no, "Too many connections for this account.", code: "TRYLATER", &out)
    case .mechanism: close(.no, "This mechanism can't be used for this account, another may.", &out)
    case .cancelled: close(.no, "Authentication cancelled.", &out)
    }
  }
}

extension [UInt8] {
  fileprivate mutating func append(_ text: String) { append(contentsOf: text.utf8) }
}

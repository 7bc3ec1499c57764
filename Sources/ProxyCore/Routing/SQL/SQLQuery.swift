/// Turns an operator's SELECT with named parameters into the text a database prepares and the list of its parameters.
///
/// Values never become part of the text. What is quoted or a comment is left as it is, by the rules of the database.

internal import Protocols

struct SQLQuery: Equatable, Sendable {
  /// With `$1` or `?` where the parameters were.
  let text: String
  /// The values the text wants, in its order.
  let parameters: [Parameter]

  /// Whose rules hold.
  enum Dialect: Sendable {
    case postgresql
    case mysql
  }

  /// The parts of a question a query can name.
  enum Parameter: String, CaseIterable, Sendable {
    case login
    case local
    case domain
    case mailProtocol = "protocol"
  }

  /// Why a query can't be used, and where.
  struct Failure: Error, Equatable {
    let problem: String
  }

  /// Fails unless the text is one SELECT with known parameters.
  init(_ sql: String, _ dialect: Dialect) throws(Failure) {
    var scanner = Scanner(Array(sql.utf8), dialect)
    try scanner.scan()
    text = String(decoding: scanner.out, as: UTF8.self)
    parameters = scanner.parameters
  }

  /// The parameters' values; nil stands for NULL, which the domain of a name without one is. No list at all if the name
  /// is no text: a database would stop at a NUL, and find somebody else.
  func values(_ query: RouteQuery) -> [ArraySlice<UInt8>?]? {
    guard !query.login.contains(0), String(validating: query.login, as: UTF8.self) != nil else { return nil }
    return parameters.map { parameter in
      switch parameter {
      case .login: query.login[...]
      case .local: query.local
      case .domain: query.domain
      case .mailProtocol: Array(query.mailProtocol.rawValue.utf8)[...]
      }
    }
  }
}

extension UInt8 {
  /// What a name, a keyword or a number goes on with.
  fileprivate var isWord: Bool { isWordStart || isDigit }
  /// What a name or a keyword begins with; letters beyond ASCII are letters.
  fileprivate var isWordStart: Bool {
    (lowercased >= .ascii("a") && lowercased <= .ascii("z")) || self == .ascii("_") || self >= 0x80
  }
  fileprivate var isBlank: Bool { self == 0x20 || (self >= 0x09 && self <= 0x0D) }
}

/// Walks over a query, token by token.
private struct Scanner {
  private let bytes: [UInt8]
  private let dialect: SQLQuery.Dialect
  private var index = 0
  private(set) var out: [UInt8] = []
  private(set) var parameters: [SQLQuery.Parameter] = []
  /// Where the statement was ended by a semicolon.
  private var end: Int?
  /// Whether the first word was seen.
  private var hasBegun = false

  init(_ bytes: [UInt8], _ dialect: SQLQuery.Dialect) {
    self.bytes = bytes
    self.dialect = dialect
  }

  mutating func scan() throws(SQLQuery.Failure) {
    while index < bytes.count {
      if try skipBlank() { continue }
      if let end { throw failure("there are several statements, expected one SELECT", at: end) }
      try token()
    }
    guard hasBegun else { throw failure("it is empty, expected a SELECT", at: 0) }
  }

  // MARK: Tokens

  /// Blanks and comments.
  private mutating func skipBlank() throws(SQLQuery.Failure) -> Bool {
    let byte = bytes[index]
    if byte.isBlank {
      copy(1)
      return true
    }
    if byte == .ascii("#"), dialect == .mysql { return skipLine() }
    if byte == .ascii("-"), byte == peek(1) {
      // To MySQL "--" without a blank behind it is minus minus.
      switch dialect {
      case .postgresql: return skipLine()
      case .mysql: if peek(2).map({ $0.isBlank || $0 < 0x20 }) ?? true { return skipLine() }
      }
    }
    guard byte == .ascii("/"), peek(1) == .ascii("*") else { return false }
    try skipComment()
    return true
  }

  private mutating func skipLine() -> Bool {
    copy((bytes[index...].firstIndex(of: .lineFeed) ?? bytes.count) - index)
    return true
  }

  /// PostgreSQL's comments nest, MySQL's do not.
  private mutating func skipComment() throws(SQLQuery.Failure) {
    let start = index
    var depth = 1
    copy(2)
    while depth > 0 {
      guard index < bytes.count else { throw failure("a comment has no end", at: start) }
      if bytes[index] == .ascii("*"), peek(1) == .ascii("/") {
        depth -= 1
        copy(2)
      } else if dialect == .postgresql, bytes[index] == .ascii("/"), peek(1) == .ascii("*") {
        depth += 1
        copy(2)
      } else {
        copy(1)
      }
    }
  }

  private mutating func token() throws(SQLQuery.Failure) {
    let byte = bytes[index]
    switch byte {
    case 0: throw failure("there is a NUL", at: index)
    case .ascii("'"), .ascii("\""): try quoted(by: byte, hasEscapes: dialect == .mysql)
    case .ascii("`") where dialect == .mysql: try quoted(by: byte, hasEscapes: false)
    case .ascii("$") where dialect == .postgresql: try dollar()
    case .ascii("?") where dialect == .mysql:
      throw failure("the parameter ? is unknown; \(Scanner.known) are given", at: index)
    case .ascii(":"): try colon()
    case .ascii(";"):
      end = index
      index += 1
    case _ where byte.isWord: try word()
    case _: copy(1)
    }
  }

  private mutating func word() throws(SQLQuery.Failure) {
    let start = index
    while index < bytes.count, bytes[index].isWord || bytes[index] == .ascii("$") { copy(1) }
    let word = String(decoding: bytes[start..<index].map(\.lowercased), as: UTF8.self)
    if !hasBegun {
      hasBegun = true
      // What else a database would run, it would run for every login.
      guard ["select", "with"].contains(word) else { throw failure("expected a SELECT", at: start) }
    }
    if dialect == .postgresql, word == "e", index < bytes.count, bytes[index] == .ascii("'") {
      try quoted(by: .ascii("'"), hasEscapes: true)
    }
  }

  /// Up to the closing quote; a doubled one stands for itself.
  private mutating func quoted(by quote: UInt8, hasEscapes: Bool) throws(SQLQuery.Failure) {
    let start = index
    copy(1)
    while index < bytes.count {
      if bytes[index] == quote {
        guard peek(1) == quote else {
          copy(1)
          return
        }
        copy(2)
      } else if hasEscapes, bytes[index] == .ascii("\\"), index + 1 < bytes.count {
        copy(2)
      } else {
        copy(1)
      }
    }
    throw failure("a quote has no end", at: start)
  }

  /// `$$…$$` or `$tag$…$tag$`.
  private mutating func dollar() throws(SQLQuery.Failure) {
    let start = index
    if let next = peek(1), next.isDigit {
      throw failure("parameters have names here: \(Scanner.known) are given", at: start)
    }
    guard let close = bytes[(start + 1)...].firstIndex(where: { !$0.isWord }), bytes[close] == .ascii("$") else {
      copy(1)
      return
    }
    let mark = bytes[start...close]
    copy(mark.count)
    while index < bytes.count {
      if bytes[index...].starts(with: mark) {
        copy(mark.count)
        return
      }
      copy(1)
    }
    throw failure("a quote has no end", at: start)
  }

  private mutating func colon() throws(SQLQuery.Failure) {
    guard let next = peek(1) else { return copy(1) }
    // A cast, or an assignment.
    if next == .ascii(":") || next == .ascii("=") { return copy(2) }
    guard next.isWordStart else { return copy(1) }
    let start = index
    index += 1
    let name = bytes[index...].prefix { $0.isWord }
    index += name.count
    guard let parameter = SQLQuery.Parameter(rawValue: String(decoding: name, as: UTF8.self)) else {
      throw failure(
        "the parameter :\(String(decoding: name, as: UTF8.self)) is unknown; \(Scanner.known) are given", at: start)
    }
    parameters.append(parameter)
    switch dialect {
    case .postgresql: out += Array("$\(parameters.count)".utf8)
    case .mysql: out.append(.ascii("?"))
    }
  }

  // MARK: Pieces

  private func peek(_ distance: Int) -> UInt8? {
    index + distance < bytes.count ? bytes[index + distance] : nil
  }

  private mutating func copy(_ count: Int) {
    out += bytes[index..<min(index + count, bytes.count)]
    index = min(index + count, bytes.count)
  }

  private static let known = SQLQuery.Parameter.allCases.map { ":\($0.rawValue)" }.joined(separator: ", ")

  /// A failure with its place; columns count characters.
  private func failure(_ problem: String, at place: Int) -> SQLQuery.Failure {
    let before = bytes[..<place]
    let line = before.count { $0 == .lineFeed } + 1
    let begin = before.lastIndex(of: .lineFeed).map { $0 + 1 } ?? 0
    let column = before[begin...].count { $0 & 0xC0 != 0x80 } + 1
    return SQLQuery.Failure(problem: "line \(line), column \(column) of the query: \(problem)")
  }
}

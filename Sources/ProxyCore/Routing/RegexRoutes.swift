/// Finds a user's backend by the first pattern that matches the whole name.

internal import CPCRE2
internal import Protocols

final class RegexRoutes {
  private let rules: RegexRules
  private let scratch: RegexScratch

  init(_ rules: RegexRules) {
    self.rules = rules
    scratch = RegexScratch(captures: rules.mostCaptures)
  }

  var file: String { rules.file }

  func answer(_ query: RouteQuery) -> SourceAnswer {
    if let perdition = rules.perdition { return perdition.answer(query.login) }
    for rule in rules.rules {
      switch rule.pattern.match(query.login, scratch) {
      case .no: continue
      case .failed(let reason): return .failed("line \(rule.line): \(reason)")
      case .yes(let groups): return rule.answer.expand(query.login, groups)
      }
    }
    return .notFound
  }
}

/// What a rule answers: text with places for the pattern's groups.
struct RegexAnswer: Equatable, Sendable {
  private let backend: [Piece]
  /// The user's name there; nil if it stays.
  private let loginAs: [Piece]?

  enum Piece: Equatable, Sendable {
    case text([UInt8])
    case group(Int)
  }

  /// From `[user@]backend`; the last "@" parts them. Nil if no backend is named.
  init?(_ text: Substring) {
    let pieces = RegexAnswer.pieces(text)
    let at = pieces.lastIndex { piece in
      if case .text(let bytes) = piece { bytes.contains(.ascii("@")) } else { false }
    }
    guard let at, case .text(let bytes) = pieces[at], let split = bytes.lastIndex(of: .ascii("@")) else {
      backend = pieces
      loginAs = nil
      if pieces.isEmpty { return nil }
      return
    }
    loginAs = RegexAnswer.joined(pieces[..<at], .text(Array(bytes[..<split])), [])
    backend = RegexAnswer.joined([], .text(Array(bytes[(split + 1)...])), pieces[(at + 1)...])
    if backend.isEmpty || loginAs?.isEmpty == true { return nil }
  }

  private static func joined(_ front: ArraySlice<Piece>, _ middle: Piece, _ back: ArraySlice<Piece>) -> [Piece] {
    (Array(front) + [middle] + Array(back)).filter { $0 != .text([]) }
  }

  /// `$0` is the whole name, `$1` to `$9` the groups, `$$` a dollar.
  private static func pieces(_ text: Substring) -> [Piece] {
    var pieces: [Piece] = []
    var plain: [UInt8] = []
    var bytes = Array(text.utf8)[...]
    while let byte = bytes.popFirst() {
      if byte == .ascii("$"), let next = bytes.first, next.isDigit {
        bytes.removeFirst()
        if !plain.isEmpty { pieces.append(.text(plain)) }
        plain = []
        pieces.append(.group(Int(next - .ascii("0"))))
      } else {
        if byte == .ascii("$"), bytes.first == .ascii("$") { bytes.removeFirst() }
        plain.append(byte)
      }
    }
    if !plain.isEmpty { pieces.append(.text(plain)) }
    return pieces
  }

  /// The highest group named.
  var mostGroup: Int {
    (backend + (loginAs ?? [])).reduce(0) { most, piece in
      if case .group(let number) = piece { max(most, number) } else { most }
    }
  }

  /// Whether a client's words alone decide which server is connected to.
  var isServerOfClient: Bool {
    guard let first = backend.first, case .group = first else { return false }
    return true
  }

  fileprivate func expand(_ name: [UInt8], _ groups: [Range<Int>?]) -> SourceAnswer {
    let backend = fill(backend, name, groups)
    guard !backend.isEmpty else { return .failed("the rule's answer is empty") }
    let loginAs = loginAs.map { fill($0, name, groups) }
    if let loginAs, loginAs.isEmpty { return .failed("the rule's user name is empty") }
    return SourceAnswer(String(decoding: backend, as: UTF8.self), loginAs: loginAs)
  }

  private func fill(_ pieces: [Piece], _ name: [UInt8], _ groups: [Range<Int>?]) -> [UInt8] {
    var out: [UInt8] = []
    for piece in pieces {
      switch piece {
      case .text(let bytes): out.append(contentsOf: bytes)
      case .group(let number): if let range = groups[number] { out.append(contentsOf: name[range]) }
      }
    }
    return out
  }
}

/// A file of rules, compiled; shared by all loops.
///
/// A line is `PATTERN: ANSWER`, parted at the last colon that a blank follows: an answer holds no blank. Empty lines are
/// passed over, and so is what begins with `#`, at the front of a line or behind the answer.
package final class RegexRules: Sendable {
  let file: String
  let rules: [Rule]
  /// The rules of a file that is read as Perdition reads it, instead of all others.
  let perdition: PerditionRules?
  /// Rules that are allowed and likely a mistake.
  package let warnings: [SettingsError]

  struct Rule: Sendable {
    let line: Int
    let pattern: RegexPattern
    let answer: RegexAnswer
  }

  /// Reads a file; `key` is what its errors are told under.
  package convenience init(file: String, key: String, perditionCompatible: Bool = false) throws(SettingsErrors) {
    switch TextFile.bytes(file) {
    case .success(let text) where perditionCompatible: self.init(try PerditionRules(text, file: file, key: key), file)
    case .success(let text): try self.init(String(decoding: text, as: UTF8.self), file: file, key: key)
    case .failure(let error): throw SettingsErrors([SettingsError(key: key, problem: "\(file): \(error)")])
    }
  }

  /// Reads rules from text; all errors are told.
  package init(_ text: String, file: String, key: String) throws(SettingsErrors) {
    var rules: [Rule] = []
    var errors: [SettingsError] = []
    var warnings: [SettingsError] = []
    for (index, line) in TextFile.lines(text).enumerated() {
      let reading = RegexRules.read(line, number: index + 1)
      func error(_ problem: String, column: Int) -> SettingsError {
        SettingsError(
          key: key, problem: problem, place: SettingsError.Place(file: file, line: index + 1, column: column))
      }
      switch reading {
      case .nothing: continue
      case .fault(let problem, let column): errors.append(error(problem, column: column))
      case .rule(let rule):
        rules.append(rule)
        if rule.answer.isServerOfClient {
          warnings.append(
            error("the backend comes from the user's name alone: any client can choose a server", column: 1))
        }
      }
    }
    guard errors.isEmpty else { throw SettingsErrors(errors) }
    self.file = file
    self.rules = rules
    self.warnings = warnings
    perdition = nil
  }

  /// Rules as Perdition has them.
  init(_ rules: PerditionRules, _ file: String) {
    self.file = file
    self.rules = []
    perdition = rules
    warnings = rules.warnings
  }

  /// The groups of the pattern that has most.
  var mostCaptures: Int { rules.map(\.pattern.captures).max() ?? 0 }

  private enum Reading {
    case nothing
    case rule(Rule)
    case fault(String, column: Int)
  }

  private static func read(_ line: Substring, number: Int) -> Reading {
    let content = line.drop(while: \.isBlank)
    guard let first = content.first, first != "#" else { return .nothing }
    func column(_ index: Substring.Index) -> Int { line.distance(from: line.startIndex, to: index) + 1 }
    guard let (patternText, answerText) = parts(content) else {
      return .fault("a rule is `PATTERN: [user@]backend`, a blank behind the colon and none in the answer", column: 1)
    }
    guard let answer = RegexAnswer(answerText) else {
      return .fault("the answer is `[user@]backend`", column: column(answerText.startIndex))
    }
    switch RegexPattern.compile(String(patternText)) {
    case .failure(let fault):
      return .fault(
        "not a regular expression: \(fault.message)", column: column(patternText.startIndex) + fault.offset)
    case .success(let pattern):
      guard answer.mostGroup <= pattern.captures else {
        return .fault(
          "the answer names group $\(answer.mostGroup), the pattern has \(pattern.captures)",
          column: column(answerText.startIndex))
      }
      return .rule(Rule(line: number, pattern: pattern, answer: answer))
    }
  }

  /// A pattern may hold a colon and a blank itself: the one that parts the rule is the first behind which stands one
  /// word and then nothing but a comment.
  private static func parts(_ content: Substring) -> (pattern: Substring, answer: Substring)? {
    for colon in content.indices where content[colon] == ":" {
      let behind = content[content.index(after: colon)...]
      guard let blank = behind.first, blank.isBlank else { continue }
      let answer = behind.drop(while: \.isBlank).prefix { !$0.isBlank }
      let rest = content[answer.endIndex...].drop(while: \.isBlank)
      if !answer.isEmpty, answer.first != "#", rest.isEmpty || rest.first == "#" { return (content[..<colon], answer) }
    }
    return nil
  }
}

extension Character {
  fileprivate var isBlank: Bool { self == " " || self == "\t" }
}

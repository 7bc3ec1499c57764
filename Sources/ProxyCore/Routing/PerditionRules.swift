/// Finds a user's backend by a popmap.re as Perdition's posix_regex reads it and answers by it, its traps included: a site's
/// file goes on to mean what it meant. What is likely a mistake is told.
///
/// A line is `PATTERN: ANSWER`, and what stands behind is a further rule. The pattern is searched for anywhere in the name.
/// The answer is what stands before the match, then the rule's answer; what stands behind the match is dropped.

internal import Protocols

final class PerditionRules: Sendable {
  private let rules: [Rule]
  /// What is allowed and likely a mistake.
  let warnings: [SettingsError]

  private struct Rule: Sendable {
    let pattern: POSIXPattern
    let answer: PerditionAnswer
    let line: Int
  }

  /// Reads rules; all errors are told.
  init(_ text: [UInt8], file: String, key: String) throws(SettingsErrors) {
    var rules: [Rule] = []
    var errors: [SettingsError] = []
    var warnings: [SettingsError] = []
    var unanchored = 0
    func problem(_ problem: String, _ line: Int, _ column: Int) -> SettingsError {
      SettingsError(key: key, problem: problem, place: SettingsError.Place(file: file, line: line, column: column))
    }
    let words = PerditionWords(text)
    warnings += words.remarks.map { problem($0.words, $0.line, 1) }
    errors += words.faults.map { problem($0.words, $0.line, $0.column) }
    for pair in words.pairs {
      let (line, column) = (pair.pattern.line, pair.pattern.column)
      var pattern = pair.pattern.bytes
      if pattern.last == .ascii(":") { pattern.removeLast() }
      guard !pattern.isEmpty else {
        warnings.append(problem("the rule has no pattern and is passed over, as Perdition does", line, column))
        continue
      }
      let compiled: POSIXPattern
      switch POSIXPattern.compile(pattern) {
      case .success(let pattern): compiled = pattern
      case .failure(let fault):
        errors.append(problem("not a regular expression of POSIX: \(fault.message)", line, column))
        continue
      }
      let answer = PerditionAnswer(pair.answer.bytes)
      rules.append(Rule(pattern: compiled, answer: answer, line: line))
      let pieces = POSIXPatternText(pattern)
      if !pieces.isAnchored {
        unanchored += 1
        if unanchored <= PerditionRules.mostRemarks {
          warnings.append(problem(PerditionRules.unanchored, line, column))
        }
      }
      if compiled.search(PerditionRules.stranger)?[0] == 0..<0 {
        warnings.append(problem(PerditionRules.empty, line, column))
      }
      if let letter = pieces.plainEscapes.first {
        let letter = Character(UnicodeScalar(letter))
        warnings.append(
          problem("\\\(letter) is the letter \(letter) in POSIX's regular expressions", line, column))
      }
      if pair.answer.bytes == [.ascii(":")] {
        warnings.append(problem("a blank stands before the colon, which is now the answer", line, column))
      }
      if answer.isServerOfClient {
        warnings.append(
          problem("the backend comes from the user's name alone: any client can choose a server", line, column))
      }
    }
    if unanchored > PerditionRules.mostRemarks {
      let more = unanchored - PerditionRules.mostRemarks
      warnings.append(SettingsError(key: key, problem: "\(file): \(more) more patterns are not anchored with ^"))
    }
    guard errors.isEmpty else { throw SettingsErrors(errors) }
    self.rules = rules
    self.warnings = warnings
  }

  /// Rules that are told to be unanchored; the others are counted.
  private static let mostRemarks = 20
  /// A name nobody has: a pattern that matches nothing of it can match nothing at all.
  private static let stranger: [UInt8] = [0x01]
  private static let unanchored = """
    the pattern is not anchored with ^: what stands before its match becomes the front of the answer, as with Perdition \
    (`flim: localhost` makes itslocalhost of itsflim)
    """
  private static let empty = """
    the pattern can match no letter at all: the next letter of the name then becomes the end of the answer, as with Perdition
    """

  /// What the first rule that matches says of a name.
  func answer(_ name: [UInt8]) -> SourceAnswer {
    guard !name.isEmpty else { return .notFound }
    for rule in rules {
      guard let groups = rule.pattern.search(name), let match = groups[0] else { continue }
      var end = match.upperBound
      if match.isEmpty {
        // Perdition goes on behind one letter, and has none at the end.
        guard end < name.count else { return .notFound }
        end += 1
      }
      let answer = name[..<match.lowerBound] + rule.answer.expand(name, groups) + name[match.upperBound..<end]
      return PerditionRules.parse(Array(answer), line: rule.line)
    }
    return .notFound
  }

  /// `[user@]host[:port]`, parted at the last "@"; a port may be a service's name.
  private static func parse(_ answer: [UInt8], line: Int) -> SourceAnswer {
    let at = answer.lastIndex(of: .ascii("@"))
    let user = at.map { Array(answer[..<$0]) }
    var place = String(decoding: at.map { answer[($0 + 1)...] } ?? answer[...], as: UTF8.self)
    if place.isEmpty { return .failed("line \(line): the rule's answer is empty") }
    if let user, user.isEmpty { return .failed("line \(line): the rule's user name is empty") }
    if let colon = place.lastIndex(of: ":"), let port = services[place[place.index(after: colon)...]] {
      place = "\(place[...colon])\(port)"
    }
    return SourceAnswer(place, loginAs: user)
  }

  /// The mail services' names in IANA's registry and in Debian's /etc/services.
  private static let services: [Substring: Int] = [
    "pop3": 110, "pop-3": 110, "imap": 143, "imap2": 143, "imaps": 993, "pop3s": 995, "sieve": 4190,
  ]
}

/// What a rule answers. A group that took no part, or that there is none of, stays as it is written.
struct PerditionAnswer: Equatable, Sendable {
  private let pieces: [Piece]

  private enum Piece: Equatable, Sendable {
    case text([UInt8])
    case group(UInt8)
  }

  init(_ text: [UInt8]) {
    var pieces: [Piece] = []
    var plain: [UInt8] = []
    var bytes = text[...]
    while let byte = bytes.popFirst() {
      guard byte == .ascii("$"), let next = bytes.first, next.isDigit else {
        plain.append(byte)
        continue
      }
      bytes.removeFirst()
      if !plain.isEmpty { pieces.append(.text(plain)) }
      plain = []
      pieces.append(.group(next - .ascii("0")))
    }
    if !plain.isEmpty { pieces.append(.text(plain)) }
    self.pieces = pieces
  }

  func expand(_ name: [UInt8], _ groups: [Range<Int>?]) -> [UInt8] {
    var out: [UInt8] = []
    for piece in pieces {
      switch piece {
      case .text(let bytes): out.append(contentsOf: bytes)
      case .group(let number):
        if let range = groups[Int(number)] {
          out.append(contentsOf: name[range])
        } else {
          out.append(.ascii("$"))
          out.append(.ascii("0") + number)
        }
      }
    }
    return out
  }

  /// Whether a client's words alone decide which server is connected to: a group stands at the place's front.
  var isServerOfClient: Bool {
    var isFront = true
    var isGroup = false
    for piece in pieces {
      switch piece {
      case .group:
        if isFront { isGroup = true }
        isFront = false
      case .text(let bytes):
        if let last = bytes.lastIndex(of: .ascii("@")) {
          isGroup = false
          isFront = last + 1 == bytes.count
        } else {
          isFront = false
        }
      }
    }
    return isGroup
  }
}

/// Takes a popmap.re apart into words by the rules of quoting that Perdition's files have.
struct PerditionWords {
  /// A pattern and its answer.
  private(set) var pairs: [(pattern: Word, answer: Word)] = []
  /// What Perdition reads otherwise than whoever wrote it may think.
  private(set) var remarks: [(line: Int, words: String)] = []
  /// What can't be read.
  private(set) var faults: [(line: Int, column: Int, words: String)] = []

  struct Word: Equatable {
    var bytes: [UInt8] = []
    /// Where it begins, from 1.
    let line: Int
    let column: Int
  }

  private enum Mode: Equatable {
    case plain, single, double, comment
  }

  /// Perdition cuts a longer line.
  private static let longestLine = 4_096

  init(_ text: [UInt8]) {
    var line = 1
    var lineStart = 0
    var mode = Mode.plain
    var words: [Word] = []
    var word: Word?
    /// Where the rules begin that are being read: lines are joined by backslashes and quotes.
    var first = 1
    var isEscaped = false
    /// A blank stands before the first word.
    var isIndented = false
    for (index, byte) in text.enumerated() {
      let isEnd = byte == .lineFeed || byte == .carriageReturn
      defer {
        // CRLF is one end to whoever counts lines.
        if byte == .lineFeed || isEnd && (index + 1 == text.count || text[index + 1] != .lineFeed) {
          line += 1
          lineStart = index + 1
        }
      }
      func open() { word = word ?? Word(line: line, column: index - lineStart + 1) }
      func append() {
        open()
        word?.bytes.append(byte)
      }
      func close() {
        words += [word].compactMap(\.self)
        word = nil
      }
      if isEscaped {
        isEscaped = false
        // A line end behind a backslash is none, within a comment too.
        if !isEnd, mode != .comment { append() }
        continue
      }
      switch (mode, byte) {
      case (_, .nul): continue
      case (.plain, .ascii("\\")), (.double, .ascii("\\")), (.comment, .ascii("\\")): isEscaped = true
      case (.comment, _) where !isEnd: continue
      case (.single, .ascii("'")), (.double, .ascii("\"")): mode = .plain
      // A line end within quotes is nothing.
      case (.single, _), (.double, _): if !isEnd { append() }
      case (.plain, .ascii("'")):
        mode = .single
        open()
      case (.plain, .ascii("\"")):
        mode = .double
        open()
      case (.plain, .ascii("#")):
        mode = .comment
        close()
      case (.plain, .space), (.plain, 0x09):
        if word == nil, words.isEmpty { isIndented = true }
        close()
      case (_, _) where isEnd:
        close()
        mode = .plain
        if isIndented, words.count % 2 == 1 {
          faults.append(
            (first, 1, "a word has no answer, and Perdition takes the next line's for it in an indented line"))
        }
        take(words, line: first)
        words = []
        isIndented = false
        first = line + 1
      case (_, _): append()
      }
    }
    // What the file's end cuts off is no word, and those before it are.
    take(words, line: first, isCut: word != nil)
    if mode == .single || mode == .double {
      remarks.append((first, "a quote is not closed: all behind it is passed over, as Perdition does"))
    } else if word != nil {
      remarks.append((first, "the last line has no end, and its last word is passed over, as Perdition does"))
    }
    checkLengths(text)
  }

  /// The rules of one line.
  private mutating func take(_ words: [Word], line: Int, isCut: Bool = false) {
    // Perdition takes an empty word for the end of a line, and at times the line's end for none.
    for word in words where word.bytes.isEmpty { faults.append((word.line, word.column, "an empty word is not taken")) }
    for index in stride(from: 0, to: words.count - 1, by: 2) { pairs.append((words[index], words[index + 1])) }
    if words.count > 2 {
      remarks.append((line, "more than two words: each two are a rule of their own, as with Perdition"))
    }
    if let last = words.last, words.count % 2 == 1, !isCut {
      let pattern = String(decoding: last.bytes, as: UTF8.self)
      remarks.append(
        (
          last.line,
          "\"\(pattern)\" has no answer and is passed over, as Perdition does: a blank stands behind the colon"
        ))
    }
  }

  private mutating func checkLengths(_ text: [UInt8]) {
    let lines = text.split(separator: .lineFeed, omittingEmptySubsequences: false)
    for (index, line) in lines.enumerated() where line.count > PerditionWords.longestLine {
      remarks.append(
        (index + 1, "Perdition cuts this line to \(PerditionWords.longestLine) bytes; here it counts whole"))
    }
  }
}

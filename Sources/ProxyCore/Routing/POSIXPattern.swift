/// POSIX's extended regular expressions with an owner: the C library's, which is what Perdition asks.
///
/// PCRE2 would take the first of several alternatives that fits, POSIX has the longest match, and what a group holds differs
/// with it. glibc's matcher goes back and forth only for references to groups; without them (they are refused) a hostile
/// name of 512 bytes takes milliseconds with the worst of patterns, and microseconds with a usual one.

internal import Glibc
internal import Protocols

@safe
final class POSIXPattern: Sendable {
  /// SAFETY: regexec(3) is MT-safe: glibc locks what it remembers within a compiled pattern.
  nonisolated(unsafe) private let code: UnsafeMutablePointer<regex_t>

  /// Groups that an answer can name: `$1` to `$9`, and the whole match.
  private static let groups = 10

  private init(_ code: UnsafeMutablePointer<regex_t>) { unsafe self.code = code }

  deinit {
    unsafe regfree(code)
    unsafe code.deallocate()
  }

  /// A pattern that is searched for anywhere in a name in lower case, letters compared without regard to case; or what is
  /// wrong with it.
  static func compile(_ pattern: [UInt8]) -> Result<POSIXPattern, POSIXPatternFault> {
    if pattern.contains(.nul) { return .failure(POSIXPatternFault(message: "it holds a NUL")) }
    let pieces = POSIXPatternText(pattern)
    if pieces.hasBackReference {
      return .failure(POSIXPatternFault(message: "a reference to a group of its own (\\1) is not taken"))
    }
    let code = UnsafeMutablePointer<regex_t>.allocate(capacity: 1)
    let text = (pieces.withoutPlainEscapes + [.nul]).map { CChar(bitPattern: $0) }
    // glibc makes capitals of both sides, which turns some ranges over ([_-z]): not where all is small already.
    let caseless = pieces.hasCapitals ? REG_ICASE : 0
    // SAFETY: the text ends with NUL; the structure is filled by the call, and freed only if that succeeded.
    let error = unsafe regcomp(code, text, REG_EXTENDED | REG_NEWLINE | caseless)
    guard error == 0 else {
      var words = [UInt8](repeating: 0, count: 256)
      // SAFETY: the buffer's size is told; the text ends with NUL.
      unsafe words.withUnsafeMutableBytes { buffer in
        _ = unsafe regerror(error, code, buffer.assumingMemoryBound(to: CChar.self).baseAddress, buffer.count)
      }
      unsafe code.deallocate()
      return .failure(POSIXPatternFault(message: String(decoding: words.prefix { $0 != 0 }, as: UTF8.self)))
    }
    return .success(unsafe POSIXPattern(code))
  }

  /// The places of the first match and its groups; nil if there is none.
  func search(_ name: [UInt8]) -> [Range<Int>?]? {
    var places = [regmatch_t](repeating: regmatch_t(), count: POSIXPattern.groups)
    // The whole name is the text, whatever bytes it has. The NUL behind it is for who stands between us and glibc, as
    // AddressSanitizer does, and looks for one.
    places[0].rm_so = 0
    places[0].rm_eo = regoff_t(name.count)
    let text = name + [0]
    // SAFETY: with REG_STARTEND the text's length is told; the vector has as many places as is said.
    let result = unsafe text.withUnsafeBytes { text in
      guard let base = unsafe text.assumingMemoryBound(to: CChar.self).baseAddress else {
        preconditionFailure("a text with a NUL has memory")
      }
      return unsafe regexec(code, base, places.count, &places, REG_STARTEND)
    }
    guard result == 0 else { return nil }
    return places.map { $0.rm_so >= 0 ? Int($0.rm_so)..<Int($0.rm_eo) : nil }
  }
}

/// Why a pattern can't be used.
struct POSIXPatternFault: Error, Equatable, Sendable {
  let message: String
}

/// A pattern's text, as far as an operator is to be warned of what it says.
struct POSIXPatternText {
  private let elements: [Element]

  private enum Element: Equatable {
    case escape(UInt8)
    case bracket([UInt8])
    case open, close, bar
    case plain(UInt8)
  }

  init(_ pattern: [UInt8]) {
    var elements: [Element] = []
    var index = 0
    while index < pattern.count {
      switch pattern[index] {
      case .ascii("\\") where index + 1 < pattern.count:
        elements.append(.escape(pattern[index + 1]))
        index += 1
      case .ascii("["):
        let end = min(POSIXPatternText.endOfBracket(pattern, index), pattern.count - 1)
        elements.append(.bracket(Array(pattern[index...end])))
        index = end
      case .ascii("("): elements.append(.open)
      case .ascii(")"): elements.append(.close)
      case .ascii("|"): elements.append(.bar)
      case let byte: elements.append(.plain(byte))
      }
      index += 1
    }
    self.elements = elements
  }

  /// Where the bracket closes that opens at `start`. A backslash means nothing within; `[:`, `[.` and `[=` have their own
  /// ends, and a bracket at the front is a member.
  private static func endOfBracket(_ pattern: [UInt8], _ start: Int) -> Int {
    var index = start + 1
    if index < pattern.count, pattern[index] == .ascii("^") { index += 1 }
    if index < pattern.count, pattern[index] == .ascii("]") { index += 1 }
    while index < pattern.count, pattern[index] != .ascii("]") {
      if pattern[index] == .ascii("["), index + 1 < pattern.count, ":.=".utf8.contains(pattern[index + 1]) {
        let kind = pattern[index + 1]
        index += 2
        while index + 1 < pattern.count, pattern[index] != kind || pattern[index + 1] != .ascii("]") { index += 1 }
        index += 1
      }
      index += 1
    }
    return index
  }

  /// Whether it refers to what a group of it has matched.
  var hasBackReference: Bool {
    elements.contains { element in
      if case .escape(let byte) = element { byte.isDigit && byte != .ascii("0") } else { false }
    }
  }

  /// Letters behind a backslash that mean themselves, whatever they mean elsewhere.
  var plainEscapes: [UInt8] {
    elements.compactMap { element in
      if case .escape(let byte) = element, POSIXPatternText.isPlain(byte) { byte } else { nil }
    }
  }

  /// Whether a letter means itself behind a backslash. `\w`, `\W`, `\s`, `\S`, `\b` and `\B` are glibc's own and mean what is
  /// expected.
  private static func isPlain(_ byte: UInt8) -> Bool { isLetter(byte) && !"wWsSbB".utf8.contains(byte) }

  /// The pattern without those backslashes: with one, glibc compares a letter as it is even where case is not regarded.
  var withoutPlainEscapes: [UInt8] {
    elements.flatMap { element -> [UInt8] in
      switch element {
      case .escape(let byte): POSIXPatternText.isPlain(byte) ? [byte] : [.ascii("\\"), byte]
      case .bracket(let bytes): bytes
      case .open: [.ascii("(")]
      case .close: [.ascii(")")]
      case .bar: [.ascii("|")]
      case .plain(let byte): [byte]
      }
    }
  }

  /// Whether it names a capital letter.
  var hasCapitals: Bool {
    elements.contains { element in
      switch element {
      case .escape(let byte): POSIXPatternText.isPlain(byte) && byte.lowercased != byte
      case .bracket(let bytes):
        bytes.contains { $0.lowercased != $0 } || String(decoding: bytes, as: UTF8.self).contains("[:upper:]")
      case .plain(let byte): byte.lowercased != byte
      case .open, .close, .bar: false
      }
    }
  }

  private static func isLetter(_ byte: UInt8) -> Bool {
    byte.lowercased >= .ascii("a") && byte.lowercased <= .ascii("z")
  }

  /// Whether every match begins at the name's front.
  var isAnchored: Bool { POSIXPatternText.isAnchored(elements[...]) }

  private static func isAnchored(_ elements: ArraySlice<Element>) -> Bool {
    var depth = 0
    let alternatives = elements.split(omittingEmptySubsequences: false) { element in
      switch element {
      case .open: depth += 1
      case .close: depth -= 1
      case .bar: return depth == 0
      case .escape, .bracket, .plain: break
      }
      return false
    }
    return alternatives.allSatisfy { isFrontAnchored($0) }
  }

  private static func isFrontAnchored(_ elements: ArraySlice<Element>) -> Bool {
    switch elements.first {
    case .plain(.ascii("^"))?: return true
    // What stands before a match would be part of a longer one, and the first begins foremost.
    case .plain(.ascii("."))?:
      let next = elements.dropFirst().first
      return next == .plain(.ascii("*")) || next == .plain(.ascii("+"))
    case .open?:
      var depth = 0
      let close = elements.firstIndex { element in
        switch element {
        case .open: depth += 1
        case .close: depth -= 1
        case .bar, .escape, .bracket, .plain: break
        }
        return depth == 0
      }
      guard let close else { return false }
      // A group that may be left out anchors nothing.
      if case .plain(let byte)? = elements[(close + 1)...].first, "*?{".utf8.contains(byte) { return false }
      return isAnchored(elements[(elements.startIndex + 1)..<close])
    case .plain?, .escape?, .bracket?, .close?, .bar?, nil: return false
    }
  }
}

/// The bytes of the mail protocols' grammars, by their names.

extension UInt8 {
  // Inlined into other modules too: they look at each byte of a line by these, and a call for each was a tenth of what a
  // line of the log cost.

  /// NUL, which no line of a mail protocol holds.
  @inlinable package static var nul: UInt8 { 0x00 }
  /// LF.
  @inlinable package static var lineFeed: UInt8 { 0x0A }
  /// CR.
  @inlinable package static var carriageReturn: UInt8 { 0x0D }
  /// SP.
  @inlinable package static var space: UInt8 { 0x20 }

  /// The byte of an ASCII character written as a literal.
  @inlinable @inline(__always)
  package static func ascii(_ character: Unicode.Scalar) -> UInt8 { UInt8(ascii: character) }

  /// A control character: RFC 5234's CTL.
  @inlinable @inline(__always)
  package var isControl: Bool { self < 0x20 || self == 0x7F }

  /// An ASCII digit: RFC 5234's DIGIT.
  @inlinable @inline(__always)
  package var isDigit: Bool { self >= 0x30 && self <= 0x39 }

  /// ASCII lower case; bytes of UTF-8 sequences and all others stay as they are.
  @inlinable @inline(__always)
  package var lowercased: UInt8 { self >= 0x41 && self <= 0x5A ? self | 0x20 : self }

  /// ASCII upper case, the form commands are compared in.
  @inlinable @inline(__always)
  package var uppercased: UInt8 { self >= 0x61 && self <= 0x7A ? self & 0xDF : self }

  /// A byte that may stand in an IMAP tag.
  /// RFC 9051 §9: tag = 1*<any ASTRING-CHAR except "+">; an ASTRING-CHAR is an ATOM-CHAR or "]".
  package var isIMAPTag: Bool {
    switch self {
    case .ascii("("), .ascii(")"), .ascii("{"), .ascii("%"), .ascii("*"), .ascii("\""), .ascii("\\"), .ascii("+"):
      false
    default: self > 0x20 && self < 0x7F
    }
  }

  /// A byte that may stand in an unquoted argument of an IMAP client.
  /// Wider than RFC 9051's astring: deployed clients send passwords with "%", "*", "\" and 8-bit bytes unquoted, and
  /// backends take them. Nothing is smuggled by it: what goes to a backend is rendered anew.
  package var isIMAPArgument: Bool {
    switch self {
    case .ascii("("), .ascii(")"), .ascii("{"), .ascii("\""): false
    default: !isControl && self != .space
    }
  }
}

extension Span<UInt8> {
  /// Whether the bytes are those of `text`, letters compared without regard to case.
  package func equalsIgnoringCase(_ text: StaticString) -> Bool {
    guard count == text.utf8CodeUnitCount else { return false }
    return text.withUTF8Buffer { wanted in
      for index in indices where unsafe self[index].lowercased != wanted[index].lowercased { return false }
      return true
    }
  }

  /// Whether the bytes begin with `text`, letters compared without regard to case.
  package func startsIgnoringCase(with text: StaticString) -> Bool {
    guard count >= text.utf8CodeUnitCount else { return false }
    return extracting(first: text.utf8CodeUnitCount).equalsIgnoringCase(text)
  }

  /// Whether other bytes stand within, letters compared without regard to case.
  func containsIgnoringCase(_ other: Span<UInt8>) -> Bool {
    guard other.count > 0, other.count <= count else { return false }
    for start in 0...(count - other.count) {
      var length = 0
      while length < other.count, self[start + length].lowercased == other[length].lowercased { length += 1 }
      if length == other.count { return true }
    }
    return false
  }

  /// Where `byte` stands first at or after `start`; nil if nowhere.
  package func firstIndex(of byte: UInt8, from start: Int = 0) -> Int? {
    var index = start
    while index < count {
      if self[index] == byte { return index }
      index += 1
    }
    return nil
  }

  /// The bytes as an array.
  package var array: [UInt8] {
    var bytes: [UInt8] = []
    bytes.append(self)
    return bytes
  }
}

extension [UInt8] {
  /// Appends the bytes of a span.
  package mutating func append(_ span: Span<UInt8>) {
    // With room for a line end: a secret that moves leaves a copy behind. At least twice what it holds, so that what
    // grows bit by bit seldom moves.
    let room = count + span.count + 2
    if capacity < room { reserveCapacity(Swift.max(room, count * 2)) }
    // SAFETY: the bytes are lent for the call.
    unsafe span.withUnsafeBufferPointer { unsafe append(contentsOf: $0) }
  }

  /// Appends text of our own.
  package mutating func append(_ text: StaticString) {
    text.withUTF8Buffer { unsafe append(contentsOf: $0) }
  }

  /// Appends a line that some peer wrote, with every control character replaced, so that it stays one line whatever it
  /// held.
  package mutating func appendLineSafe(_ span: Span<UInt8>) {
    let start = count
    append(span)
    for index in start..<count where self[index].isControl { self[index] = .ascii("?") }
  }

  /// Appends what stands between the quotes of a quoted string (RFC 9051 §4.3, RFC 5804 §4).
  mutating func appendEscaped(_ span: Span<UInt8>) {
    for index in span.indices {
      if span[index] == .ascii("\"") || span[index] == .ascii("\\") { append(.ascii("\\")) }
      append(span[index])
    }
  }

  /// Appends a line end.
  package mutating func endLine() {
    append(.carriageReturn)
    append(.lineFeed)
  }
}

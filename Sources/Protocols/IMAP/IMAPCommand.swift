/// Reads the commands an IMAP client may say before login, from bytes that hold a whole one.

/// A command line taken apart: a tag, a name, arguments. Ranges are positions in the bytes it was read from.
package struct IMAPCommand: Equatable, Sendable {
  /// The tag, echoed in the answer.
  package let tag: Range<Int>
  /// What is asked for.
  package let name: Name
  /// What stands behind the name.
  package let arguments: [Argument]

  /// The commands that have a meaning before login.
  package enum Name: Equatable, Sendable, CaseIterable {
    case capability, noop, logout, startTLS, authenticate, login, id, enable

    fileprivate init?(_ word: Span<UInt8>) {
      for name in Name.allCases where word.equalsIgnoringCase(name.word) {
        self = name
        return
      }
      return nil
    }

    private var word: StaticString {
      switch self {
      case .capability: "CAPABILITY"
      case .noop: "NOOP"
      case .logout: "LOGOUT"
      case .startTLS: "STARTTLS"
      case .authenticate: "AUTHENTICATE"
      case .login: "LOGIN"
      case .id: "ID"
      case .enable: "ENABLE"
      }
    }
  }

  /// An argument, by how it was written (RFC 9051 §4).
  package enum Argument: Equatable, Sendable {
    case atom(Range<Int>)
    /// What stands between the quotes, escapes included.
    case quoted(Range<Int>)
    /// The literal's bytes.
    case literal(Range<Int>)
    /// A list, of which only ID's is known here.
    case list([Argument])

    /// Appends the argument's value to `out`; false if it is a list.
    package func append(from bytes: Span<UInt8>, to out: inout [UInt8]) -> Bool {
      each(of: bytes) { out.append($0) }
    }

    /// Appends the argument's value to `secret`; false if it is a list.
    package func append(from bytes: Span<UInt8>, to secret: inout Secret) -> Bool {
      each(of: bytes) { secret.append($0) }
    }

    private func each(of bytes: Span<UInt8>, _ body: (UInt8) -> Void) -> Bool {
      switch self {
      case .atom(let range), .literal(let range):
        for index in range { body(bytes[index]) }
        return true
      case .quoted(let range):
        var index = range.lowerBound
        while index < range.upperBound {
          if bytes[index] == .ascii("\\") { index += 1 }
          body(bytes[index])
          index += 1
        }
        return true
      case .list: return false
      }
    }
  }

  /// Why a line is no command, with its tag where it has one, for BAD to name it.
  package enum Fault: Error, Equatable, Sendable {
    /// No tag, or one that is not allowed.
    case tag
    /// Nothing after the tag.
    case noName(tag: Range<Int>)
    case unknownName(tag: Range<Int>)
    case arguments(tag: Range<Int>)

    /// Where the tag stands; nil if there is none.
    package var tag: Range<Int>? {
      switch self {
      case .tag: nil
      case .noName(let tag), .unknownName(let tag), .arguments(let tag): tag
      }
    }
  }

  /// A command's first two words: all that is known when a literal's header comes by.
  package struct Head: Equatable, Sendable {
    /// The tag, echoed in the answer.
    package let tag: Range<Int>
    /// What is asked for.
    package let name: Name
    fileprivate let end: Int

    /// Reads the first two words; what stands behind them is not looked at.
    package static func read(_ bytes: Span<UInt8>) throws(Fault) -> Head {
      var reader = IMAPReader(position: 0)
      let tag = reader.word(bytes)
      guard !tag.isEmpty, tag.count <= Limits.tag else { throw .tag }
      for index in tag where !bytes[index].isIMAPTag { throw .tag }
      guard reader.skipSpace(bytes) else { throw .noName(tag: tag) }
      let word = reader.word(bytes)
      guard !word.isEmpty else { throw .noName(tag: tag) }
      guard let name = Name(bytes.extracting(word)) else { throw .unknownName(tag: tag) }
      return Head(tag: tag, name: name, end: reader.position)
    }
  }

  /// Reads the bytes of one whole command without its last line end. Literals stand within, behind their headers.
  package static func read(_ bytes: Span<UInt8>) throws(Fault) -> IMAPCommand {
    let head = try Head.read(bytes)
    var reader = IMAPReader(position: head.end)
    var arguments: [Argument] = []
    while reader.position < bytes.count {
      guard reader.skipSpace(bytes) else { throw .arguments(tag: head.tag) }
      // Not in RFC 9051's grammar: old clients end a line with a blank, and Dovecot does not mind.
      if reader.position == bytes.count { break }
      guard arguments.count < IMAPCommand.mostArguments, let argument = reader.argument(bytes, inList: false) else {
        throw .arguments(tag: head.tag)
      }
      arguments.append(argument)
    }
    return IMAPCommand(tag: head.tag, name: head.name, arguments: arguments)
  }

  /// LOGIN and AUTHENTICATE take two, ID one list, ENABLE as many as there are capabilities.
  private static let mostArguments = 16
}

/// Walks over a command's bytes.
private struct IMAPReader {
  var position: Int

  /// RFC 2971 §3.3: no more than 30 pairs.
  private static let mostListItems = 60

  /// The bytes up to the next space or the end.
  mutating func word(_ bytes: Span<UInt8>) -> Range<Int> {
    let start = position
    while position < bytes.count, bytes[position] != .space { position += 1 }
    return start..<position
  }

  mutating func skipSpace(_ bytes: Span<UInt8>) -> Bool {
    guard position < bytes.count, bytes[position] == .space else { return false }
    position += 1
    return true
  }

  mutating func argument(_ bytes: Span<UInt8>, inList: Bool) -> IMAPCommand.Argument? {
    guard position < bytes.count else { return nil }
    switch bytes[position] {
    case .ascii("\""): return quoted(bytes)
    case .ascii("{"): return literal(bytes)
    case .ascii("(") where !inList: return list(bytes)
    default: return atom(bytes)
    }
  }

  private mutating func atom(_ bytes: Span<UInt8>) -> IMAPCommand.Argument? {
    let start = position
    while position < bytes.count, bytes[position].isIMAPArgument { position += 1 }
    return position > start ? .atom(start..<position) : nil
  }

  /// RFC 9051 §4.3: within quotes, only a quote and a backslash may be escaped, and no line end may stand.
  private mutating func quoted(_ bytes: Span<UInt8>) -> IMAPCommand.Argument? {
    position += 1
    let start = position
    while position < bytes.count {
      switch bytes[position] {
      case .ascii("\""):
        position += 1
        return .quoted(start..<(position - 1))
      case .ascii("\\"):
        position += 1
        guard position < bytes.count, bytes[position] == .ascii("\"") || bytes[position] == .ascii("\\") else {
          return nil
        }
        position += 1
      case .carriageReturn, .lineFeed, .nul: return nil
      default: position += 1
      }
    }
    return nil
  }

  private mutating func literal(_ bytes: Span<UInt8>) -> IMAPCommand.Argument? {
    guard let end = bytes.firstIndex(of: .lineFeed, from: position) else { return nil }
    let textEnd = bytes[end - 1] == .carriageReturn ? end - 1 : end
    guard let header = IMAPLiteral(endOf: bytes.extracting(position..<textEnd)), header.start == 0,
      bytes.count - (end + 1) >= header.size
    else { return nil }
    position = end + 1 + header.size
    return .literal((end + 1)..<position)
  }

  private mutating func list(_ bytes: Span<UInt8>) -> IMAPCommand.Argument? {
    position += 1
    var items: [IMAPCommand.Argument] = []
    while position < bytes.count {
      if bytes[position] == .ascii(")") {
        position += 1
        return .list(items)
      }
      if !items.isEmpty, !skipSpace(bytes) { return nil }
      // One level only: a list within a list has no use before login, and depth is what floods are made of
      // (CVE-2026-27857 of Dovecot).
      guard items.count < IMAPReader.mostListItems, let item = argument(bytes, inList: true) else { return nil }
      items.append(item)
    }
    return nil
  }
}

/// What a client says of itself in ID, and what a proxy says of the client there (RFC 2971 §3.1).
struct IMAPIdentification: Equatable, Sendable {
  /// The client's own pairs as they are said to a backend, without the brackets; bounded.
  private(set) var pairs: [UInt8] = []
  /// What the pairs with Dovecot's keys say.
  private(set) var facts = ClientFacts()

  /// RFC 2971 §3.3.
  private static let longestKey = 30
  private static let longestValue = 1_024
  /// Of all that a client says of itself, kept for the session until its login: Dovecot keeps 256 bytes, of which long
  /// names of phones leave nothing.
  private static let longest = 1_024

  /// From ID's argument: NIL, or a list of pairs, a value of which may be NIL. Nil if it is neither.
  init?(_ argument: IMAPCommand.Argument, _ bytes: Span<UInt8>) {
    switch argument {
    case .quoted, .literal: return nil
    case .atom(let range):
      if !bytes.extracting(range).equalsIgnoringCase("NIL") { return nil }
    case .list(let items):
      guard items.count.isMultiple(of: 2) else { return nil }
      for index in stride(from: 0, to: items.count, by: 2) { take(items[index], items[index + 1], bytes) }
    }
  }

  private mutating func take(_ key: IMAPCommand.Argument, _ value: IMAPCommand.Argument, _ bytes: Span<UInt8>) {
    var name: [UInt8] = []
    var text: [UInt8] = []
    guard key.append(from: bytes, to: &name), value.append(from: bytes, to: &text),
      name.count <= IMAPIdentification.longestKey, text.count <= IMAPIdentification.longestValue
    else { return }
    var isNil = false
    if case .atom = value { isNil = text.span.equalsIgnoringCase("NIL") }
    // Keys that begin so are a proxy's to say. Those that no proxy of ours says are nobody's.
    if name.span.startsIgnoringCase(with: "x-") {
      if !isNil { facts.take(identification: name.span, text.span) }
      return
    }
    var pair: [UInt8] = []
    if !pairs.isEmpty { pair.append(.space) }
    IMAPIdentification.appendQuoted(name.span, &pair)
    pair.append(.space)
    if isNil {
      pair.append("NIL")
    } else {
      IMAPIdentification.appendQuoted(text.span, &pair)
    }
    if pairs.count + pair.count <= IMAPIdentification.longest { pairs.append(contentsOf: pair) }
  }

  /// Rendered anew: what does not fit into quotes is replaced, a program's name is not worth a literal.
  private static func appendQuoted(_ text: Span<UInt8>, _ out: inout [UInt8]) {
    out.append(.ascii("\""))
    for index in text.indices {
      let byte = text[index]
      if byte == .ascii("\"") || byte == .ascii("\\") { out.append(.ascii("\\")) }
      out.append(byte.isControl || byte >= 0x80 ? .ascii("?") : byte)
    }
    out.append(.ascii("\""))
  }
}

/// A literal's header, `{5}` or `{5+}` at the end of a line (RFC 9051 §4.3, RFC 7888).
package struct IMAPLiteral: Equatable, Sendable {
  /// Where the header begins in the line.
  package let start: Int
  /// How many bytes follow the line; cut to a size beyond every bound if it is larger.
  package let size: Int
  /// Whether the client waits for a continuation request before it sends the bytes.
  package let isSynchronizing: Bool

  /// The header at the end of `line`, if one is there.
  package init?(endOf line: Span<UInt8>) {
    var index = line.count - 1
    guard index > 0, line[index] == .ascii("}") else { return nil }
    index -= 1
    isSynchronizing = line[index] != .ascii("+")
    if !isSynchronizing { index -= 1 }
    let lastDigit = index
    while index >= 0, line[index].isDigit { index -= 1 }
    guard index >= 0, line[index] == .ascii("{"), index < lastDigit else { return nil }
    start = index
    // A size of more digits than any bound has is cut to one that is too large: no number here can overflow.
    var size = 0
    for digit in (index + 1)...lastDigit {
      size = min(size * 10 + Int(line[digit] - 0x30), IMAPLiteral.hugeSize)
    }
    self.size = size
  }

  private static let hugeSize = 1 << 40
}

/// Decides what of a dialogue with a backend may be shown: never what could be a credential.

internal import Protocols

/// A login's dialogue with one connection of a backend, for a trace.
final class TracedDialogue {
  private let mailProtocol: MailProtocol
  /// Whether anything of the credentials may have been said here.
  private var hasCredentials = false
  private var heard: [UInt8] = []

  init(_ mailProtocol: MailProtocol) { self.mailProtocol = mailProtocol }

  /// The dialogue has read that.
  func hear(_ bytes: Span<UInt8>) { heard.append(bytes) }

  // MARK: The backend's lines

  /// What was heard, line by line. `draft` knows the credentials, which a server may quote.
  func takeHeard(_ draft: borrowing LoginDraft) -> [String] {
    let bytes = heard
    heard = []
    return TracedDialogue.lines(bytes.span).map { range in
      let line = bytes.span.extracting(range)
      return draft.isRepeated(in: line) ? "(it repeats the credentials)" : shown(line)
    }
  }

  /// Behind the login, what a server asks in SASL can serve who wants to guess the password (RFC 5802 §9: salt, count and
  /// signature), so it is not shown.
  private func shown(_ line: Span<UInt8>) -> String {
    guard hasCredentials else { return TraceText.quote(line) }
    switch mailProtocol {
    case .imap, .pop3:
      guard line.startsIgnoringCase(with: "+"), line.count == 1 || line[1] == .space else {
        return TraceText.quote(line)
      }
      return line.count > 2 ? "+ " + TracedDialogue.hidden(line.count - 2) : "+"
    case .manageSieve:
      if line.count > 0, line[0] == .ascii("\"") || line[0] == .ascii("{") { return TracedDialogue.hidden(line.count) }
      // RFC 5804 §2.1: OK (SASL "…"), the server's last word in an exchange.
      for index in line.indices where line.extracting(index...).startsIgnoringCase(with: "(SASL") {
        return TraceText.quote(line.extracting(..<index)) + TracedDialogue.hidden(line.count - index)
      }
      return TraceText.quote(line)
    }
  }

  // MARK: Ours

  /// What is said to the backend, line by line: whole as long as it can't be a credential, then its command alone.
  func show(said bytes: Span<UInt8>, _ draft: borrowing LoginDraft) -> [String] {
    var shown: [String] = []
    var place = 0
    while place < bytes.count {
      let rest = bytes.extracting(place...)
      let line = rest.extracting(TracedDialogue.lines(rest).first ?? 0..<rest.count)
      guard !hasCredentials, isHarmless(line) else {
        let words = hasCredentials ? 0 : commandLength(line)
        hasCredentials = true
        let command = words > 0 ? TraceText.quote(rest.extracting(..<words)) + " " : ""
        shown.append(command + TracedDialogue.hidden(rest.count - words))
        break
      }
      shown.append(draft.isRepeated(in: line) ? "(it repeats the credentials)" : TraceText.quote(line))
      place += min(line.count + 2, rest.count)
    }
    return shown
  }

  /// Whether it is one of the commands that our dialogues say before a login.
  private func isHarmless(_ line: Span<UInt8>) -> Bool {
    let commands: [StaticString] =
      switch mailProtocol {
      case .imap: ["S STARTTLS", "C CAPABILITY", "I ID "]
      case .pop3: ["STLS", "CAPA", "XCLIENT"]
      case .manageSieve: ["STARTTLS", "XCLIENT"]
      }
    return commands.contains { line.startsIgnoringCase(with: $0) }
  }

  /// How much of a login command is the command itself, with its mechanism; 0 if it is none.
  private func commandLength(_ line: Span<UInt8>) -> Int {
    let commands: [(words: StaticString, hasMechanism: Bool)] =
      switch mailProtocol {
      case .imap: [("L LOGIN", false), ("L AUTHENTICATE ", true)]
      case .pop3: [("USER", false), ("PASS", false), ("AUTH ", true)]
      case .manageSieve: [("AUTHENTICATE \"", true)]
      }
    guard let (words, hasMechanism) = commands.first(where: { line.startsIgnoringCase(with: $0.words) }) else {
      return 0
    }
    var count = words.utf8CodeUnitCount
    guard hasMechanism else { return count }
    let rest = line.extracting(count...)
    for mechanism in SASLMechanism.allCases where rest.startsIgnoringCase(with: mechanism.name) {
      let end = mechanism.name.utf8CodeUnitCount
      // PLAIN is not PLAIN-SOMETHING: what is none of ours is not shown.
      guard rest.count == end || rest[end] == .space || rest[end] == .ascii("\"") else { continue }
      count += end
      if rest.count > end, rest[end] == .ascii("\"") { count += 1 }
      return count
    }
    return count
  }

  private static func hidden(_ count: Int) -> String { "(\(count) bytes hidden)" }

  /// The lines, without their ends.
  private static func lines(_ bytes: Span<UInt8>) -> [Range<Int>] {
    var lines: [Range<Int>] = []
    var start = 0
    for index in bytes.indices where bytes[index] == .lineFeed {
      let end = index > start && bytes[index - 1] == .carriageReturn ? index - 1 : index
      lines.append(start..<end)
      start = index + 1
    }
    if start < bytes.count { lines.append(start..<bytes.count) }
    return lines
  }
}

/// Makes a peer's bytes fit to be shown.
enum TraceText {
  /// Of a line no more is shown.
  static let longest = 500

  /// Control characters and what is not UTF-8 as `\x1b`, a backslash doubled, and the rest as it is; a long line is cut.
  static func quote(_ line: Span<UInt8>) -> String {
    var text: [UInt8] = []
    let isText = (try? UTF8Span(validating: line)) != nil
    for index in 0..<min(line.count, longest) {
      let byte = line[index]
      switch byte {
      case .ascii("\\"): text.append("\\\\")
      case 0x20..<0x7F: text.append(byte)
      // Of C1's control characters the second byte, 80 to 9F, stands behind C2.
      case 0x80... where isText && !isControl(line, index): text.append(byte)
      default:
        text.append("\\x")
        text.append(hex[Int(byte >> 4)])
        text.append(hex[Int(byte & 0xF)])
      }
    }
    if line.count > longest { text.append(contentsOf: " (\(line.count - longest) bytes more)".utf8) }
    return String(decoding: text, as: UTF8.self)
  }

  /// Whether a byte at a place is of a control character beyond ASCII.
  private static func isControl(_ line: Span<UInt8>, _ index: Int) -> Bool {
    if line[index] == 0xC2 { return index + 1 < line.count && line[index + 1] < 0xA0 }
    return index > 0 && line[index - 1] == 0xC2 && line[index] < 0xA0
  }

  private static let hex = Array("0123456789abcdef".utf8)
}

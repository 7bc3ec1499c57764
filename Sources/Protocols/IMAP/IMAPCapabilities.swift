/// What an IMAP server says it can do: ours before login, and a backend's, with the texts of its answers.

extension ClientStanding {
  /// Appends what a client is told before login.
  func appendIMAPCapabilities(_ out: inout [UInt8]) {
    if let capabilities = terms.capabilities {
      out.append(contentsOf: capabilities)
    } else {
      out.append(IMAPClientDialogue.usualCapabilities)
    }
    if startTLS == .granted { out.append(" STARTTLS") }
    guard allowsLogin else { return out.append(" LOGINDISABLED") }
    for mechanism in mechanisms {
      out.append(" AUTH=")
      out.append(mechanism.name)
    }
  }

  /// RFC 7888 §5: with LITERAL- a literal that is not waited with has at most 4,096 bytes.
  var nonSynchronizingLiteral: Int {
    guard let capabilities = terms.capabilities, !capabilities.span.hasWord("LITERAL+"),
      capabilities.span.hasWord("LITERAL-")
    else { return .max }
    return 4_096
  }
}

/// What a backend's capabilities mean for the login.
struct IMAPCapabilities: Equatable, Sendable {
  /// The list as the backend wrote it.
  let list: [UInt8]
  /// Whether it was told after the login, so that it is the one that holds for the client.
  let isFromLogin: Bool
  private(set) var allowsLogin = true
  private(set) var mechanisms = SASLMechanisms()
  private(set) var hasInitialResponse = false
  private(set) var hasLiteralPlus = false
  private(set) var hasLiteralMinus = false
  private(set) var hasIdentification = false

  init(_ words: Span<UInt8>, isFromLogin: Bool = false) {
    var list: [UInt8] = []
    list.appendLineSafe(words)
    self.list = list
    self.isFromLogin = isFromLogin
    var start = 0
    while start < words.count {
      let end = words.firstIndex(of: .space, from: start) ?? words.count
      take(words.extracting(start..<end))
      start = end + 1
    }
  }

  private mutating func take(_ word: Span<UInt8>) {
    if word.startsIgnoringCase(with: "AUTH=") {
      if let mechanism = SASLMechanism(word.extracting(5...)) { mechanisms.insert(mechanism) }
    } else if word.equalsIgnoringCase("LOGINDISABLED") {
      allowsLogin = false
    } else if word.equalsIgnoringCase("SASL-IR") {
      hasInitialResponse = true
    } else if word.equalsIgnoringCase("LITERAL+") {
      hasLiteralPlus = true
    } else if word.equalsIgnoringCase("LITERAL-") {
      hasLiteralMinus = true
    } else if word.equalsIgnoringCase("ID") {
      hasIdentification = true
    }
  }

  /// From a response code; nil if it is another.
  init?(code: Span<UInt8>) {
    guard code.startsIgnoringCase(with: "CAPABILITY ") else { return nil }
    self.init(code.extracting(11...))
  }
}

/// The text of an OK, NO or BAD: an optional code in brackets, then words for people (RFC 9051 §7.1).
struct IMAPRespText {
  /// Between the brackets; empty without a code.
  let code: Range<Int>
  let text: Range<Int>

  init(_ line: Span<UInt8>) {
    guard line.count > 0, line[0] == .ascii("["), let close = IMAPRespText.codeEnd(line) else {
      code = 0..<0
      text = 0..<line.count
      return
    }
    code = 1..<close
    let start = close + 1 < line.count && line[close + 1] == .space ? close + 2 : close + 1
    text = start..<line.count
  }

  /// The bracket that closes the code: the first that ends a word. A URL in a referral may hold others.
  private static func codeEnd(_ line: Span<UInt8>) -> Int? {
    for index in line.indices where line[index] == .ascii("]") {
      if index + 1 == line.count || line[index + 1] == .space { return index }
    }
    return nil
  }

  static func answer(_ line: Span<UInt8>) -> BackendAnswer {
    let parts = IMAPRespText(line)
    var answer = BackendAnswer()
    answer.code.appendLineSafe(line.extracting(parts.code))
    answer.text.appendLineSafe(line.extracting(parts.text))
    return answer
  }
}

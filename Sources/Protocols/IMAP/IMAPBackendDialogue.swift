/// Decides what to say to an IMAP backend to log a user in there.
///
/// One round trip after the greeting where the greeting tells what the backend can do: everything in it is rendered anew
/// from the draft, no byte of the client's is passed on.
package struct IMAPBackendDialogue: Equatable, Sendable {
  private var state = State.greeting(LineFramer())
  private var capabilities: IMAPCapabilities?
  /// Lines the backend said untagged since the login was sent.
  private var untagged: [UInt8] = []
  private let trust: ChannelTrust

  private enum State: Equatable, Sendable {
    case greeting(LineFramer)
    /// The greeting had no capabilities; they were asked for.
    case capability(LineFramer)
    /// The login was sent, all of it or the part before `missing`.
    case login(LineFramer, missing: Piece?)
    case over
  }

  /// What of a login waits for the backend's "+".
  private enum Piece: Equatable, Sendable {
    /// The response to AUTHENTICATE PLAIN.
    case plainResponse
    /// LOGIN's user name, and what comes behind it.
    case name
    /// LOGIN's password.
    case password
  }

  /// The trust is the proof that the driver took the steps which the operator wants before a secret is said.
  package init(trust: ChannelTrust) { self.trust = trust }

  /// What it waits for, for people.
  package var doing: BackendDoing {
    switch state {
    case .greeting: .greeting
    case .capability: .capability
    case .login, .over: .answer
    }
  }

  /// Takes at most one line from the front of `input`. `out` may hold the password afterwards.
  package mutating func receive(
    _ input: Span<UInt8>, _ draft: borrowing LoginDraft, _ out: inout [UInt8]
  ) -> BackendStep {
    switch state {
    case .greeting(var lines):
      guard let line = lines.nextLine(in: input) else { return needLine(input, .greeting(lines)) }
      return greeting(input.extracting(line.text), line.end, draft, &out)
    case .capability(var lines):
      guard let line = lines.nextLine(in: input) else { return needLine(input, .capability(lines)) }
      return capability(input.extracting(line.text), line.end, draft, &out)
    case .login(var lines, let missing):
      guard let line = lines.nextLine(in: input) else { return needLine(input, .login(lines, missing: missing)) }
      return answer(input.extracting(line.text), line.end, missing, draft, &out)
    case .over: preconditionFailure("bytes given to a dialogue that is over")
    }
  }

  // MARK: Lines

  private mutating func needLine(_ input: Span<UInt8>, _ next: State) -> BackendStep {
    guard input.count <= Limits.backendLine else {
      return fail(.protocolError, input.extracting(first: 80), input.count)
    }
    state = next
    return BackendStep(0, .read)
  }

  /// RFC 9051 §7.1: greeting = OK, PREAUTH or BYE. PREAUTH would give everybody somebody's mailbox; it is refused.
  private mutating func greeting(
    _ line: Span<UInt8>, _ consumed: Int, _ draft: borrowing LoginDraft, _ out: inout [UInt8]
  ) -> BackendStep {
    guard line.startsIgnoringCase(with: "* OK"), line.count == 4 || line[4] == .space else {
      return fail(.badGreeting, line, consumed)
    }
    if line.count > 5 {
      let text = IMAPRespText(line.extracting(5...))
      capabilities = IMAPCapabilities(code: line.extracting(5...).extracting(text.code))
    }
    if let known = capabilities { return logIn(known, consumed, draft, &out) }
    state = .capability(LineFramer())
    out.append("C CAPABILITY\r\n")
    return BackendStep(consumed, .proceed)
  }

  private mutating func capability(
    _ line: Span<UInt8>, _ consumed: Int, _ draft: borrowing LoginDraft, _ out: inout [UInt8]
  ) -> BackendStep {
    if line.startsIgnoringCase(with: "* CAPABILITY ") {
      capabilities = IMAPCapabilities(line.extracting(13...))
    } else if line.startsIgnoringCase(with: "C OK"), let known = capabilities {
      return logIn(known, consumed, draft, &out)
    } else if line.startsIgnoringCase(with: "* BYE") || !line.startsIgnoringCase(with: "* ") {
      return fail(.protocolError, line, consumed)
    }
    state = .capability(LineFramer())
    return BackendStep(consumed, .proceed)
  }

  private mutating func answer(
    _ line: Span<UInt8>, _ consumed: Int, _ missing: Piece?, _ draft: borrowing LoginDraft, _ out: inout [UInt8]
  ) -> BackendStep {
    if line.startsIgnoringCase(with: "+"), line.count == 1 || line[1] == .space {
      guard let missing else { return fail(.protocolError, line, consumed) }
      state = .login(LineFramer(), missing: send(missing, draft, &out))
      return BackendStep(consumed, .proceed)
    }
    if line.startsIgnoringCase(with: "* ") {
      guard keep(line) else { return fail(.protocolError, line.extracting(first: 80), consumed) }
      state = .login(LineFramer(), missing: missing)
      return BackendStep(consumed, .proceed)
    }
    if line.startsIgnoringCase(with: "L OK ") {
      state = .over
      return BackendStep(consumed, .accepted(completed(IMAPRespText.answer(line.extracting(5...)))))
    }
    if line.startsIgnoringCase(with: "L NO ") {
      state = .over
      var answer = IMAPRespText.answer(line.extracting(5...))
      answer.untagged = untagged
      return BackendStep(consumed, .refused(IMAPBackendDialogue.refusal(answer), answer))
    }
    return fail(.protocolError, line, consumed)
  }

  /// Keeps an untagged line for the client; false if it is too much.
  private mutating func keep(_ line: Span<UInt8>) -> Bool {
    if line.startsIgnoringCase(with: "* CAPABILITY ") {
      capabilities = IMAPCapabilities(line.extracting(13...), isFromLogin: true)
      return true
    }
    // Said to us, not to the client: the answer to our own ID, and a goodbye that the close tells better.
    if line.startsIgnoringCase(with: "* ID ") || line.startsIgnoringCase(with: "* BYE") { return true }
    guard untagged.count + line.count <= Limits.backendUntagged else { return false }
    untagged.appendLineSafe(line)
    untagged.endLine()
    return true
  }

  /// RFC 5530. A code other than AUTHENTICATIONFAILED says more than we know and is passed on; no code at all, from a
  /// backend that was asked for a login, means the credentials.
  private static func refusal(_ answer: BackendAnswer) -> LoginRefusal {
    switch answer.codeName {
    case "", "authenticationfailed": .credentials
    default: .backend(answer)
    }
  }

  /// The OK for the client, with the capabilities the backend told: in its code if that is free, else untagged.
  private func completed(_ answer: BackendAnswer) -> BackendAnswer {
    var answer = answer
    answer.untagged = untagged
    guard answer.codeName != "capability", let capabilities, capabilities.isFromLogin else { return answer }
    if answer.code.isEmpty {
      answer.code.append("CAPABILITY ")
      answer.code.append(contentsOf: capabilities.list)
    } else {
      // Two codes don't fit into one answer; Dovecot's proxy tries and leaves a stray bracket.
      answer.untagged.append("* CAPABILITY ")
      answer.untagged.append(contentsOf: capabilities.list)
      answer.untagged.endLine()
    }
    return answer
  }

  private mutating func fail(_ fault: BackendFault, _ line: Span<UInt8>, _ consumed: Int) -> BackendStep {
    state = .over
    var text: [UInt8] = []
    text.appendLineSafe(line)
    return BackendStep(consumed, .failed(fault, BackendAnswer(text: text)))
  }

  // MARK: The login

  private mutating func logIn(
    _ known: IMAPCapabilities, _ consumed: Int, _ draft: borrowing LoginDraft, _ out: inout [UInt8]
  ) -> BackendStep {
    let asSASL: Bool
    switch draft.method {
    case .command: asSASL = !draft.authorizationIdentity.isEmpty || !IMAPBackendDialogue.suitsLogin(draft)
    case .sasl: asSASL = true
    }
    let missing: Piece?
    if known.hasPlain, asSASL || !known.allowsLogin {
      out.append("L AUTHENTICATE PLAIN")
      if known.hasInitialResponse {
        out.append(.space)
        SASLExchange.appendPlain(draft, to: &out)
        missing = nil
      } else {
        missing = .plainResponse
      }
      out.endLine()
    } else if known.allowsLogin, draft.authorizationIdentity.isEmpty {
      out.append("L LOGIN ")
      missing = sendName(draft, &out)
    } else {
      return fail(.noMechanism, known.list.span, consumed)
    }
    state = .login(LineFramer(), missing: missing)
    return BackendStep(consumed, .proceed)
  }

  /// LOGIN is for names and passwords that fit in quotes and in the 1,024 bytes of Dovecot's line buffer.
  private static func suitsLogin(_ draft: borrowing LoginDraft) -> Bool {
    fitsQuotes(draft.name.span) && fitsQuotes(draft.password.span) && draft.name.count + draft.password.count < 500
  }

  /// RFC 9051 §9: a quoted string holds no CR, LF or NUL; 8-bit bytes only if both sides agreed on UTF-8.
  private static func fitsQuotes(_ bytes: Span<UInt8>) -> Bool {
    for index in bytes.indices where bytes[index].isControl || bytes[index] >= 0x80 { return false }
    return true
  }

  /// Says the piece the backend asked for, and what follows it up to the next wait.
  private func send(_ piece: Piece, _ draft: borrowing LoginDraft, _ out: inout [UInt8]) -> Piece? {
    switch piece {
    case .plainResponse:
      SASLExchange.appendPlain(draft, to: &out)
      out.endLine()
      return nil
    case .name:
      out.append(draft.name.span)
      return sendPassword(draft, &out)
    case .password:
      out.append(draft.password.span)
      out.endLine()
      return nil
    }
  }

  private func sendName(_ draft: borrowing LoginDraft, _ out: inout [UInt8]) -> Piece? {
    appendString(draft.name.span, &out) ? sendPassword(draft, &out) : .name
  }

  private func sendPassword(_ draft: borrowing LoginDraft, _ out: inout [UInt8]) -> Piece? {
    out.append(.space)
    guard appendString(draft.password.span, &out) else { return .password }
    out.endLine()
    return nil
  }

  /// A quoted string or a literal (RFC 9051 §4.3). False if only the header could be said and "+" must be waited for.
  private func appendString(_ bytes: Span<UInt8>, _ out: inout [UInt8]) -> Bool {
    guard !IMAPBackendDialogue.fitsQuotes(bytes) else {
      out.append(.ascii("\""))
      for index in bytes.indices {
        if bytes[index] == .ascii("\"") || bytes[index] == .ascii("\\") { out.append(.ascii("\\")) }
        out.append(bytes[index])
      }
      out.append(.ascii("\""))
      return true
    }
    let hasLiteralPlus = capabilities?.hasLiteralPlus ?? false
    out.append(.ascii("{"))
    out.append(contentsOf: String(bytes.count).utf8)
    out.append(hasLiteralPlus ? "+}\r\n" : "}\r\n")
    guard hasLiteralPlus else { return false }
    out.append(bytes)
    return true
  }
}

/// What a backend's capabilities mean for the login.
private struct IMAPCapabilities: Equatable, Sendable {
  /// The list as the backend wrote it.
  let list: [UInt8]
  /// Whether it was told after the login, so that it is the one that holds for the client.
  let isFromLogin: Bool
  private(set) var allowsLogin = true
  private(set) var hasPlain = false
  private(set) var hasInitialResponse = false
  private(set) var hasLiteralPlus = false

  init(_ words: Span<UInt8>, isFromLogin: Bool = false) {
    var list: [UInt8] = []
    list.appendLineSafe(words)
    self.list = list
    self.isFromLogin = isFromLogin
    var start = 0
    while start < words.count {
      let end = words.firstIndex(of: .space, from: start) ?? words.count
      let word = words.extracting(start..<end)
      if word.equalsIgnoringCase("LOGINDISABLED") { allowsLogin = false }
      if word.equalsIgnoringCase("AUTH=PLAIN") { hasPlain = true }
      if word.equalsIgnoringCase("SASL-IR") { hasInitialResponse = true }
      if word.equalsIgnoringCase("LITERAL+") { hasLiteralPlus = true }
      start = end + 1
    }
  }

  /// From a response code; nil if it is another.
  init?(code: Span<UInt8>) {
    guard code.startsIgnoringCase(with: "CAPABILITY ") else { return nil }
    self.init(code.extracting(11...))
  }
}

/// The text of an OK, NO or BAD: an optional code in brackets, then words for people (RFC 9051 §7.1).
private struct IMAPRespText {
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

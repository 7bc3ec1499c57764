/// Decides what to say to an IMAP backend to log a user in there.
///
/// One round trip after the greeting where the greeting tells what the backend can do: everything in it is rendered anew
/// from the draft, no byte of the client's is passed on.
package struct IMAPBackendDialogue: Equatable, Sendable {
  private var state = State.greeting(LineFramer())
  private var capabilities: IMAPCapabilities?
  /// Lines the backend said untagged since the login was sent.
  private var untagged: [UInt8] = []
  private let terms: BackendTerms

  private enum State: Equatable, Sendable {
    case greeting(LineFramer)
    /// STARTTLS was said.
    case startTLS(LineFramer)
    /// STARTTLS was granted; only `secured` may come.
    case upgrading
    /// The capabilities are not known, or were said before TLS; they were asked for.
    case capability(LineFramer)
    /// ID was said to a backend that takes one command at a time.
    case identification(LineFramer)
    /// The login was sent, all of it or the part before `missing`.
    case login(LineFramer, missing: Piece)
    case over
  }

  /// What of a login waits for the backend's "+".
  private enum Piece: Equatable, Sendable {
    case nothing
    /// LOGIN's user name, and what comes behind it.
    case name
    /// LOGIN's password.
    case password
    /// A message of a SASL exchange.
    case sasl(SASLInitiator)
  }

  /// The channel in the terms is the proof that the driver took the steps which the operator wants before a secret is
  /// said.
  package init(_ terms: BackendTerms) { self.terms = terms }

  /// What it waits for, for people.
  package var doing: BackendDoing {
    switch state {
    case .greeting: .greeting
    case .startTLS, .upgrading: .startTLS
    case .capability: .capability
    case .login(_, missing: .sasl(.asked)): .client
    case .identification, .login, .over: .answer
    }
  }

  // MARK: What the driver tells

  /// TLS is up after STARTTLS. RFC 9051 §6.2.1: the capabilities are asked for anew.
  package mutating func secured(_ out: inout [UInt8]) {
    guard case .upgrading = state else { preconditionFailure("TLS that was not asked for") }
    askForCapabilities(&out)
  }

  /// The client answered the backend's challenge; its message is in the draft.
  package mutating func respond(_ draft: borrowing LoginDraft, _ out: inout [UInt8]) {
    guard case .login(let lines, missing: .sasl(var exchange)) = state else {
      preconditionFailure("an answer without a challenge")
    }
    exchange.pass(draft, &out)
    out.endLine()
    state = .login(lines, missing: .sasl(exchange))
  }

  /// Takes at most one line from the front of `input`. `out` may hold the password afterwards.
  package mutating func receive(
    _ input: Span<UInt8>, _ draft: borrowing LoginDraft, _ out: inout [UInt8]
  ) -> BackendStep {
    switch state {
    case .greeting(var lines):
      guard let line = lines.nextLine(in: input) else { return needLine(input, .greeting(lines)) }
      return greeting(input.extracting(line.text), line.end, draft, &out)
    case .startTLS(var lines):
      guard let line = lines.nextLine(in: input) else { return needLine(input, .startTLS(lines)) }
      return startTLS(input.extracting(line.text), line.end)
    case .capability(var lines):
      guard let line = lines.nextLine(in: input) else { return needLine(input, .capability(lines)) }
      return capability(input.extracting(line.text), line.end, draft, &out)
    case .identification(var lines):
      guard let line = lines.nextLine(in: input) else { return needLine(input, .identification(lines)) }
      return identification(input.extracting(line.text), line.end, draft, &out)
    case .login(var lines, let missing):
      guard let line = lines.nextLine(in: input) else { return needLine(input, .login(lines, missing: missing)) }
      return answer(input.extracting(line.text), line.end, missing, draft, &out)
    case .upgrading, .over: preconditionFailure("bytes given to a dialogue that can't take any")
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
    switch terms.channel {
    case .startTLSFirst:
      // What the greeting lists is not believed: without TLS anybody may have written it. The answer decides.
      capabilities = nil
      out.append("S STARTTLS\r\n")
      state = .startTLS(LineFramer())
      return BackendStep(consumed, .proceed)
    case .trusted:
      if let known = capabilities { return introduce(known, consumed, draft, &out) }
      askForCapabilities(&out)
      return BackendStep(consumed, .proceed)
    }
  }

  private mutating func startTLS(_ line: Span<UInt8>, _ consumed: Int) -> BackendStep {
    if line.startsIgnoringCase(with: "S OK"), line.count == 4 || line[4] == .space {
      state = .upgrading
      return BackendStep(consumed, .upgrade)
    }
    if line.startsIgnoringCase(with: "* "), !line.startsIgnoringCase(with: "* BYE") {
      state = .startTLS(LineFramer())
      return BackendStep(consumed, .proceed)
    }
    return fail(line.startsIgnoringCase(with: "S ") ? .noTLS : .protocolError, line, consumed)
  }

  private mutating func askForCapabilities(_ out: inout [UInt8]) {
    state = .capability(LineFramer())
    out.append("C CAPABILITY\r\n")
  }

  private mutating func capability(
    _ line: Span<UInt8>, _ consumed: Int, _ draft: borrowing LoginDraft, _ out: inout [UInt8]
  ) -> BackendStep {
    if line.startsIgnoringCase(with: "* CAPABILITY ") {
      capabilities = IMAPCapabilities(line.extracting(13...))
    } else if line.startsIgnoringCase(with: "C OK"), let known = capabilities {
      return introduce(known, consumed, draft, &out)
    } else if line.startsIgnoringCase(with: "* BYE") || !line.startsIgnoringCase(with: "* ") {
      return fail(.protocolError, line, consumed)
    }
    state = .capability(LineFramer())
    return BackendStep(consumed, .proceed)
  }

  /// Says who the client is, to a backend that understands ID, and the login behind it in the same breath.
  private mutating func introduce(
    _ known: IMAPCapabilities, _ consumed: Int, _ draft: borrowing LoginDraft, _ out: inout [UInt8]
  ) -> BackendStep {
    guard known.hasIdentification, !terms.client.isEmpty || !draft.identification.isEmpty else {
      return logIn(known, consumed, draft, &out)
    }
    out.append("I ID (")
    out.append(contentsOf: draft.identification)
    terms.client.append(identificationTo: &out, isFirst: draft.identification.isEmpty)
    out.append(")\r\n")
    switch terms.pace {
    case .pipelined: return logIn(known, consumed, draft, &out)
    case .stepwise:
      state = .identification(LineFramer())
      return BackendStep(consumed, .proceed)
    }
  }

  private mutating func identification(
    _ line: Span<UInt8>, _ consumed: Int, _ draft: borrowing LoginDraft, _ out: inout [UInt8]
  ) -> BackendStep {
    if IMAPBackendDialogue.isIdentificationsEnd(line), let known = capabilities {
      return logIn(known, consumed, draft, &out)
    }
    guard line.startsIgnoringCase(with: "* "), keep(line) else { return fail(.protocolError, line, consumed) }
    state = .identification(LineFramer())
    return BackendStep(consumed, .proceed)
  }

  /// Whatever it says: a backend that refuses to hear who the client is can still be logged in to.
  private static func isIdentificationsEnd(_ line: Span<UInt8>) -> Bool {
    line.startsIgnoringCase(with: "I OK") || line.startsIgnoringCase(with: "I NO")
      || line.startsIgnoringCase(with: "I BAD")
  }

  private mutating func answer(
    _ line: Span<UInt8>, _ consumed: Int, _ missing: Piece, _ draft: borrowing LoginDraft, _ out: inout [UInt8]
  ) -> BackendStep {
    if line.startsIgnoringCase(with: "+"), line.count == 1 || line[1] == .space {
      return more(line.extracting(min(2, line.count)...), consumed, missing, draft, &out)
        ?? fail(.protocolError, line, consumed)
    }
    if line.startsIgnoringCase(with: "* ") || IMAPBackendDialogue.isIdentificationsEnd(line) {
      guard keep(line) else { return fail(.protocolError, line.extracting(first: 80), consumed) }
      state = .login(LineFramer(), missing: missing)
      return BackendStep(consumed, .proceed)
    }
    // RFC 9051 §7.1 has a text behind each; a server that leaves it out has decided all the same.
    let text = line.extracting(min(5, line.count)...)
    if line.startsIgnoringCase(with: "L OK"), line.count == 4 || line[4] == .space {
      state = .over
      return BackendStep(consumed, .accepted(completed(IMAPRespText.answer(text))))
    }
    if line.startsIgnoringCase(with: "L NO"), line.count == 4 || line[4] == .space {
      state = .over
      var answer = IMAPRespText.answer(text)
      answer.untagged = untagged
      return BackendStep(consumed, .refused(IMAPBackendDialogue.refusal(answer), answer))
    }
    return fail(.protocolError, line, consumed)
  }

  /// The backend waits for a piece of the login; nil if there is none.
  private mutating func more(
    _ challenge: Span<UInt8>, _ consumed: Int, _ missing: Piece, _ draft: borrowing LoginDraft, _ out: inout [UInt8]
  ) -> BackendStep? {
    switch missing {
    case .nothing: return nil
    case .name:
      out.append(draft.name.span)
      state = .login(LineFramer(), missing: sendPassword(draft, &out))
    case .password:
      out.append(draft.password.span)
      out.endLine()
      state = .login(LineFramer(), missing: .nothing)
    case .sasl(var exchange):
      switch exchange.answer(challenge, draft, &out) {
      case .said: out.endLine()
      case .unexpected: return nil
      case .asksClient(let bytes):
        state = .login(LineFramer(), missing: .sasl(exchange))
        return BackendStep(consumed, .challenge(bytes))
      }
      state = .login(LineFramer(), missing: .sasl(exchange))
    }
    return BackendStep(consumed, .proceed)
  }

  /// Keeps an untagged line for the client; false if it is too much.
  private mutating func keep(_ line: Span<UInt8>) -> Bool {
    if line.startsIgnoringCase(with: "* CAPABILITY ") {
      capabilities = IMAPCapabilities(line.extracting(13...), isFromLogin: true)
      return true
    }
    // Said to us, not to the client: the answer to our own ID, and a goodbye that the close tells better.
    if line.startsIgnoringCase(with: "* ID ") || line.startsIgnoringCase(with: "* BYE")
      || IMAPBackendDialogue.isIdentificationsEnd(line)
    {
      return true
    }
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

  /// The OK for the client, with the capabilities the backend told.
  private func completed(_ answer: BackendAnswer) -> BackendAnswer {
    var answer = answer
    answer.untagged = untagged
    if let told = IMAPCapabilities(code: answer.code.span) {
      answer.code = []
      answer.capabilities = told.list
    } else if let capabilities, capabilities.isFromLogin {
      answer.capabilities = capabilities.list
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
    let hasIdentity = !draft.authorizationIdentity.isEmpty
    let canCommand = draft.method.isPassword && known.allowsLogin && !hasIdentity
    let choice = known.mechanisms.choice(for: draft.method, hasAuthorizationIdentity: hasIdentity)
    let missing: Piece
    if canCommand, choice == nil || draft.method == .command && IMAPBackendDialogue.suitsLogin(draft) {
      out.append("L LOGIN ")
      missing = sendName(draft, &out)
    } else if let choice {
      var exchange = SASLInitiator.first(choice)
      out.append("L AUTHENTICATE ")
      out.append(choice.name)
      if known.hasInitialResponse, SASLInitiator.hasInitialResponse(choice) {
        out.append(.space)
        exchange.begin(draft, &out)
      }
      out.endLine()
      missing = .sasl(exchange)
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

  private func sendName(_ draft: borrowing LoginDraft, _ out: inout [UInt8]) -> Piece {
    appendString(draft.name.span, &out) ? sendPassword(draft, &out) : .name
  }

  private func sendPassword(_ draft: borrowing LoginDraft, _ out: inout [UInt8]) -> Piece {
    out.append(.space)
    guard appendString(draft.password.span, &out) else { return .password }
    out.endLine()
    return .nothing
  }

  /// A quoted string or a literal (RFC 9051 §4.3). False if only the header could be said and "+" must be waited for.
  private func appendString(_ bytes: Span<UInt8>, _ out: inout [UInt8]) -> Bool {
    guard !IMAPBackendDialogue.fitsQuotes(bytes) else {
      // Room for its escapes and the line end: a secret that moves leaves a copy behind.
      out.reserveCapacity(out.count + 2 * bytes.count + 4)
      out.append(.ascii("\""))
      out.appendEscaped(bytes)
      out.append(.ascii("\""))
      return true
    }
    // RFC 7888 §5: LITERAL- allows the same for what is no longer than 4,096 bytes.
    let goes = capabilities.map { $0.hasLiteralPlus || $0.hasLiteralMinus && bytes.count <= 4_096 } ?? false
    out.append(.ascii("{"))
    out.append(contentsOf: String(bytes.count).utf8)
    out.append(goes ? "+}\r\n" : "}\r\n")
    guard goes else { return false }
    out.append(bytes)
    return true
  }
}

/// Decides what to say to an IMAP client before login.
///
/// RFC 3501 and RFC 9051 §6.1 and §6.2, LITERAL+ (RFC 7888), SASL-IR (RFC 4959), ID (RFC 2971), response codes
/// (RFC 5530), ENABLE (RFC 5161).
package struct IMAPClientDialogue: Equatable, Sendable {
  private var state = State.command(Frame())
  private var standing: ClientStanding
  /// How the client learns of capabilities: one that asked is told untagged (Dovecot's rule), others in the OK.
  private var learns = CapabilityTelling.byCode
  private var limits: Limits { standing.terms.limits }

  private enum State: Equatable, Sendable {
    /// A command is being read.
    case command(Frame)
    /// A response of a SASL exchange is being read.
    case response(tag: [UInt8], SASLExchange, LineFramer)
    /// STARTTLS was answered; only `secured` may come.
    case upgrading
    /// The driver looks for the answer to a login.
    case authenticating(tag: [UInt8])
    /// A backend's challenge was passed on; the client's answer is being read.
    case answering(tag: [UInt8], LineFramer)
    /// The last word is said.
    case over
  }

  /// How much of a command is known already.
  private struct Frame: Equatable, Sendable {
    var lines = LineFramer()
    /// Where the command's current line begins: behind its literals, if it has any.
    var lineStart = 0
  }

  /// Where the terms ask for implicit TLS the driver tells `secured` and not `greet`.
  package init(_ terms: ClientTerms) { standing = ClientStanding(terms) }

  /// What is announced besides what the channel decides.
  package static let usualCapabilities: StaticString = "IMAP4rev1 SASL-IR LOGIN-REFERRALS ID ENABLE IDLE LITERAL+"

  // MARK: What the driver tells

  /// The connection is open, without TLS.
  package mutating func greet(_ out: inout [UInt8]) {
    out.append("* OK [CAPABILITY ")
    standing.appendIMAPCapabilities(&out)
    out.append("] ")
    out.append(contentsOf: standing.terms.greetingWords)
    out.endLine()
  }

  /// TLS is up. RFC 9051 §6.2.1: what was learned before it is forgotten. With implicit TLS this is the beginning.
  package mutating func secured(_ certificate: ClientCertificate, _ out: inout [UInt8]) {
    state = .command(Frame())
    learns = .byCode
    if standing.secure(certificate) { greet(&out) }
  }

  /// A backend asks what only the client can answer: its challenge, decoded.
  package mutating func challenge(_ challenge: Span<UInt8>, _ out: inout [UInt8]) {
    guard case .authenticating(let tag) = state else { preconditionFailure("a challenge without a login") }
    state = .answering(tag: tag, LineFramer())
    out.append("+ ")
    Base64.encode(challenge, into: &out)
    out.endLine()
  }

  /// The login's outcome. After `.accepted` the dialogue is over; after anything else the client may go on.
  package mutating func conclude(_ verdict: Verdict, _ out: inout [UInt8]) -> ClientAction {
    let tag: [UInt8]
    switch state {
    // A backend may decide, or go, before its challenge is answered.
    case .authenticating(let asked), .answering(let asked, _): tag = asked
    case .command, .response, .upgrading, .over: preconditionFailure("a verdict without a login")
    }
    switch verdict {
    case .accepted(let answer):
      state = .over
      IMAPReply.accepted(standing.terms.reworded(answer), tag: tag, learns, &out)
      return .proceed
    case .refused(let refusal):
      state = .command(Frame())
      IMAPReply.refused(refusal, tag: tag, &out)
      guard !standing.bearsRefusal(refusal) else { return .proceed }
      return end(.tooManyFailedLogins, "Too many failed logins.", &out)
    }
  }

  /// The driver ends the connection.
  package mutating func farewell(_ farewell: Farewell, _ out: inout [UInt8]) {
    state = .over
    switch farewell {
    case .inactivity: IMAPReply.bye("Disconnected for inactivity.", &out)
    case .shutdown: IMAPReply.bye("Server shutting down.", &out)
    case .ended: IMAPReply.bye("Disconnected by the server; connect again.", &out)
    // RFC 9051 §7.1: LIMIT is for an operation that ran into a limit of the server's.
    case .limit: IMAPReply.bye("[LIMIT] Too many connections.", &out)
    }
  }

  /// Takes at most one command or response from the front of `input`, which holds all bytes not consumed so far.
  package mutating func receive(_ input: Span<UInt8>, _ draft: inout LoginDraft, _ out: inout [UInt8]) -> ClientStep {
    switch state {
    case .command(let frame): return receiveCommand(frame, input, &draft, &out)
    case .response(let tag, let exchange, let lines):
      return receiveResponse(tag, exchange, lines, input, &draft, &out)
    case .answering(let tag, let lines): return receiveAnswer(tag, lines, input, &draft, &out)
    case .upgrading, .authenticating, .over: preconditionFailure("bytes given to a dialogue that can't take any")
    }
  }

  // MARK: Framing

  private mutating func receiveCommand(
    _ known: Frame, _ input: Span<UInt8>, _ draft: inout LoginDraft, _ out: inout [UInt8]
  ) -> ClientStep {
    if ForeignProtocol.isTLS(input) { return foreign(input.count, &out) }
    var frame = known
    while let line = frame.lines.nextLine(in: input, from: frame.lineStart) {
      guard line.end <= limits.command else { return tooLong(input.count, &out) }
      if frame.lineStart == 0, standing.isFirstCommand, ForeignProtocol.isRequest(input.extracting(line.text)) {
        return foreign(input.count, &out)
      }
      guard let literal = IMAPLiteral(endOf: input.extracting(line.text)) else {
        state = .command(Frame())
        return perform(input.extracting(..<line.text.upperBound), line.end, &draft, &out)
      }
      // A literal that the client sends without waiting is read whatever it belongs to, so that its bytes are never
      // taken for commands (the defects behind nginx's literal fixes of 1.29.6). One that it waits with can be refused.
      let fits =
        literal.size
        <= min(limits.command - line.end, literal.isSynchronizing ? .max : standing.nonSynchronizingLiteral)
      if literal.isSynchronizing {
        let front = input.extracting(..<(line.text.lowerBound + literal.start))
        if let step = refuseLiteral(front, fits: fits, line.end, &out) { return step }
        out.append("+ OK\r\n")
      } else if !fits {
        return tooLong(input.count, &out)
      }
      frame.lineStart = line.end + literal.size
    }
    guard input.count <= limits.command else { return tooLong(input.count, &out) }
    state = .command(frame)
    return ClientStep(0, .read)
  }

  /// Answers a command at a literal's header if it can't be granted anyway, before the client sends its secret; nil if
  /// the literal is wanted.
  private mutating func refuseLiteral(
    _ front: Span<UInt8>, fits: Bool, _ consumed: Int, _ out: inout [UInt8]
  ) -> ClientStep? {
    let head: IMAPCommand.Head
    do { head = try IMAPCommand.Head.read(front) } catch { return bad(error, front, consumed, &out) }
    let tag = front.extracting(head.tag)
    switch head.name {
    case .login where !standing.allowsLogin:
      state = .command(Frame())
      refusePlaintext(tag, &out)
      return ClientStep(consumed, .proceed)
    case .login, .id:
      return fits ? nil : bad(tag, "Literal too large.", consumed, &out)
    case .capability, .noop, .logout, .startTLS, .authenticate, .enable:
      return bad(tag, "No literal is expected here.", consumed, &out)
    }
  }

  // MARK: Commands

  private mutating func perform(
    _ bytes: Span<UInt8>, _ consumed: Int, _ draft: inout LoginDraft, _ out: inout [UInt8]
  ) -> ClientStep {
    let command: IMAPCommand
    do { command = try IMAPCommand.read(bytes) } catch { return bad(error, bytes, consumed, &out) }
    let tag = bytes.extracting(command.tag)
    switch command.name {
    case .login: return login(command, bytes, consumed, &draft, &out)
    case .authenticate: return authenticate(command, bytes, consumed, &draft, &out)
    case .id: return identify(command, bytes, consumed, &draft, &out)
    case .enable:
      guard !command.arguments.isEmpty else { return bad(tag, "ENABLE expects capabilities.", consumed, &out) }
      // Not allowed before login (RFC 5161 §3.1), and sent there nevertheless; nothing is enabled, as Dovecot answers.
      out.append("* ENABLED\r\n")
      IMAPReply.tagged(tag, "OK ENABLE ignored before login.", &out)
      return ClientStep(consumed, .proceed)
    case .capability, .noop, .logout, .startTLS:
      guard command.arguments.isEmpty else { return bad(tag, "No argument is expected here.", consumed, &out) }
    }
    switch command.name {
    case .capability:
      learns = .untagged
      out.append("* CAPABILITY ")
      standing.appendIMAPCapabilities(&out)
      out.endLine()
      IMAPReply.tagged(tag, "OK Capability completed.", &out)
    case .noop: IMAPReply.tagged(tag, "OK NOOP completed.", &out)
    case .logout:
      state = .over
      IMAPReply.bye("Logging out.", &out)
      IMAPReply.tagged(tag, "OK Logout completed.", &out)
      return ClientStep(consumed, .end(.logout))
    case .startTLS:
      switch standing.startTLS {
      case .active: return bad(tag, "TLS is already active.", consumed, &out)
      case .unavailable: return bad(tag, "STARTTLS is not available.", consumed, &out)
      case .granted:
        draft.forgetPlaintext()
        state = .upgrading
        IMAPReply.tagged(tag, "OK Begin TLS negotiation now.", &out)
        return ClientStep(consumed, .upgrade)
      }
    case .login, .authenticate, .id, .enable: break
    }
    return ClientStep(consumed, .proceed)
  }

  /// RFC 9051 §6.2.3.
  private mutating func login(
    _ command: IMAPCommand, _ bytes: Span<UInt8>, _ consumed: Int, _ draft: inout LoginDraft, _ out: inout [UInt8]
  ) -> ClientStep {
    let tag = bytes.extracting(command.tag)
    guard standing.allowsLogin else {
      refusePlaintext(tag, &out)
      return ClientStep(consumed, .proceed)
    }
    draft.reset()
    guard command.arguments.count == 2, command.arguments[0].append(from: bytes, to: &draft.name),
      command.arguments[1].append(from: bytes, to: &draft.password)
    else {
      draft.reset()
      return bad(tag, "LOGIN expects a user name and a password.", consumed, &out)
    }
    state = .authenticating(tag: tag.array)
    return ClientStep(consumed, .authenticate)
  }

  /// RFC 9051 §6.2.2 with the initial response of RFC 4959.
  private mutating func authenticate(
    _ command: IMAPCommand, _ bytes: Span<UInt8>, _ consumed: Int, _ draft: inout LoginDraft, _ out: inout [UInt8]
  ) -> ClientStep {
    let tag = bytes.extracting(command.tag)
    guard case .atom(let name)? = command.arguments.first else {
      return bad(tag, "AUTHENTICATE expects a mechanism.", consumed, &out)
    }
    guard standing.allowsLogin else {
      refusePlaintext(tag, &out)
      return ClientStep(consumed, .proceed)
    }
    guard let mechanism = SASLMechanism(bytes.extracting(name)), standing.offers(mechanism) else {
      IMAPReply.tagged(tag, "NO [CANNOT] Unsupported authentication mechanism.", &out)
      return ClientStep(consumed, .proceed)
    }
    draft.reset()
    draft.method = .sasl(mechanism)
    let exchange = SASLExchange(mechanism)
    guard command.arguments.count > 1 else { return challenge(tag.array, exchange, consumed, &out) }
    guard command.arguments.count == 2, case .atom(let response) = command.arguments[1] else {
      return bad(tag, "The initial response is not base64.", consumed, &out)
    }
    let initial = bytes.extracting(response)
    // RFC 4959 §3: "=" is an empty response.
    if initial.equalsIgnoringCase("=") {
      if mechanism.beginsWithServer { return challenge(tag.array, exchange, consumed, &out) }
      return respond(tag.array, exchange, initial.extracting(first: 0), consumed, &draft, &out)
    }
    return respond(tag.array, exchange, initial, consumed, &draft, &out)
  }

  private mutating func challenge(
    _ tag: [UInt8], _ exchange: SASLExchange, _ consumed: Int, _ out: inout [UInt8]
  ) -> ClientStep {
    state = .response(tag: tag, exchange, LineFramer())
    out.append("+ ")
    out.append(exchange.challenge)
    out.endLine()
    return ClientStep(consumed, .proceed)
  }

  private mutating func receiveResponse(
    _ tag: [UInt8], _ exchange: SASLExchange, _ known: LineFramer, _ input: Span<UInt8>, _ draft: inout LoginDraft,
    _ out: inout [UInt8]
  ) -> ClientStep {
    var lines = known
    guard let line = lines.nextLine(in: input) else {
      guard input.count <= limits.command else { return tooLong(input.count, &out) }
      state = .response(tag: tag, exchange, lines)
      return ClientStep(0, .read)
    }
    guard line.end <= limits.command else { return tooLong(input.count, &out) }
    let response = input.extracting(line.text)
    if response.equalsIgnoringCase("*") {
      // RFC 9051 §6.2.2: the client cancels.
      state = .command(Frame())
      draft.reset()
      IMAPReply.bad(tag.span, "Authentication cancelled.", &out)
      return ClientStep(line.end, .proceed)
    }
    return respond(tag, exchange, response, line.end, &draft, &out)
  }

  /// The client's answer to a challenge of the backend's.
  private mutating func receiveAnswer(
    _ tag: [UInt8], _ known: LineFramer, _ input: Span<UInt8>, _ draft: inout LoginDraft, _ out: inout [UInt8]
  ) -> ClientStep {
    var lines = known
    guard let line = lines.nextLine(in: input) else {
      guard input.count <= limits.command else { return tooLong(input.count, &out) }
      state = .answering(tag: tag, lines)
      return ClientStep(0, .read)
    }
    guard line.end <= limits.command else { return tooLong(input.count, &out) }
    state = .authenticating(tag: tag)
    let isAnswer = draft.takeAnswer(input.extracting(line.text))
    return ClientStep(line.end, isAnswer ? .respond : .cancel)
  }

  private mutating func respond(
    _ tag: [UInt8], _ exchange: SASLExchange, _ response: Span<UInt8>, _ consumed: Int, _ draft: inout LoginDraft,
    _ out: inout [UInt8]
  ) -> ClientStep {
    var exchange = exchange
    switch exchange.respond(response, draft: &draft) {
    case .challenge: return challenge(tag, exchange, consumed, &out)
    case .complete:
      state = .authenticating(tag: tag)
      return ClientStep(consumed, .authenticate)
    case .malformed:
      draft.reset()
      return bad(tag.span, "Invalid SASL response.", consumed, &out)
    }
  }

  /// RFC 2971: answered before login, so that clients which begin with it get on. What the client says of itself is kept
  /// for the backend; what a trusted proxy says of the client counts, and from anybody else is dropped.
  private mutating func identify(
    _ command: IMAPCommand, _ bytes: Span<UInt8>, _ consumed: Int, _ draft: inout LoginDraft, _ out: inout [UInt8]
  ) -> ClientStep {
    let tag = bytes.extracting(command.tag)
    guard command.arguments.count == 1, let parameters = IMAPIdentification(command.arguments[0], bytes) else {
      return bad(tag, "ID expects NIL or a list of pairs.", consumed, &out)
    }
    draft.identification = parameters.pairs
    if standing.terms.peer == .trustedProxy, draft.facts.isEmpty { draft.facts = parameters.facts }
    out.append("* ID (\"name\" \"proxyd\")\r\n")
    IMAPReply.tagged(tag, "OK ID completed.", &out)
    return ClientStep(consumed, .proceed)
  }

  // MARK: Pieces

  /// Another protocol's words are answered once, so that whoever sent them can see where they went.
  private mutating func foreign(_ consumed: Int, _ out: inout [UInt8]) -> ClientStep {
    ClientStep(consumed, end(.anotherProtocol, "This is an IMAP server.", &out))
  }

  private func refusePlaintext(_ tag: Span<UInt8>, _ out: inout [UInt8]) {
    IMAPReply.tagged(tag, "NO [PRIVACYREQUIRED] Login without TLS is refused. Use STARTTLS first.", &out)
  }

  private mutating func bad(
    _ fault: IMAPCommand.Fault, _ bytes: Span<UInt8>, _ consumed: Int, _ out: inout [UInt8]
  ) -> ClientStep {
    let tag = bytes.extracting(fault.tag ?? 0..<0)
    switch fault {
    case .tag: return bad(tag, "Invalid tag.", consumed, &out)
    case .noName: return bad(tag, "Missing command.", consumed, &out)
    case .unknownName: return bad(tag, "Unknown command, or not before login.", consumed, &out)
    case .arguments: return bad(tag, "Invalid arguments.", consumed, &out)
    }
  }

  private mutating func bad(
    _ tag: Span<UInt8>, _ text: StaticString, _ consumed: Int, _ out: inout [UInt8]
  ) -> ClientStep {
    state = .command(Frame())
    IMAPReply.bad(tag, text, &out)
    guard !standing.bearsBadCommand() else { return ClientStep(consumed, .proceed) }
    return ClientStep(consumed, end(.tooManyBadCommands, "Too many invalid commands.", &out))
  }

  /// Says BYE and gives up on the rest of the input.
  private mutating func tooLong(_ consumed: Int, _ out: inout [UInt8]) -> ClientStep {
    ClientStep(consumed, end(.commandTooLong, "Command too long.", &out))
  }

  private mutating func end(_ why: ClientEnd, _ text: StaticString, _ out: inout [UInt8]) -> ClientAction {
    state = .over
    IMAPReply.bye(text, &out)
    return .end(why)
  }
}

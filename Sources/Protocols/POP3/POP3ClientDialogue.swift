/// Decides what to say to a POP3 client before login.
///
/// RFC 1939, CAPA and response codes (RFC 2449, RFC 3206), STLS (RFC 2595 §4), AUTH (RFC 5034).
package struct POP3ClientDialogue: Equatable, Sendable {
  private var state = State.command(LineFramer(), hasUser: false)
  private var standing: ClientStanding
  private var limits: Limits { standing.terms.limits }

  private enum State: Equatable, Sendable {
    /// A command is being read. `hasUser`: USER was taken, its name is in the draft.
    case command(LineFramer, hasUser: Bool)
    /// A response of a SASL exchange is being read.
    case response(SASLExchange, LineFramer)
    /// STLS was answered; only `secured` may come.
    case upgrading
    /// The driver looks for the answer to a login.
    case authenticating
    /// A backend's challenge was passed on; the client's answer is being read.
    case answering(LineFramer)
    /// The last word is said.
    case over

    static let start = State.command(LineFramer(), hasUser: false)
  }

  /// Where the terms ask for implicit TLS the driver tells `secured` and not `greet`.
  package init(_ terms: ClientTerms) { standing = ClientStanding(terms) }

  // MARK: What the driver tells

  /// The connection is open, without TLS. No timestamp in the greeting: APOP is not offered (RFC 1939 §7).
  package mutating func greet(_ out: inout [UInt8]) {
    var answer = BackendAnswer(text: standing.terms.greetingWords)
    switch standing.terms.peer {
    case .client: break
    // Dovecot's way to say that it may be told who the client is.
    case .trustedProxy: answer.code.append("XCLIENT")
    }
    POP3Reply.accepted(answer, &out)
  }

  /// TLS is up. RFC 2595 §4: what was learned before it is forgotten. With implicit TLS this is the beginning.
  package mutating func secured(_ certificate: ClientCertificate, _ out: inout [UInt8]) {
    state = .start
    if standing.secure(certificate) { greet(&out) }
  }

  /// A backend asks what only the client can answer: its challenge, decoded.
  package mutating func challenge(_ challenge: Span<UInt8>, _ out: inout [UInt8]) {
    guard case .authenticating = state else { preconditionFailure("a challenge without a login") }
    state = .answering(LineFramer())
    out.append("+ ")
    Base64.encode(challenge, into: &out)
    out.endLine()
  }

  /// The login's outcome. After `.accepted` the dialogue is over; after anything else the client may go on.
  package mutating func conclude(_ verdict: Verdict, _ out: inout [UInt8]) -> ClientAction {
    switch state {
    // A backend may decide, or go, before its challenge is answered.
    case .authenticating, .answering: break
    case .command, .response, .upgrading, .over: preconditionFailure("a verdict without a login")
    }
    switch verdict {
    case .accepted(let answer):
      state = .over
      POP3Reply.accepted(standing.terms.reworded(answer), &out)
      return .proceed
    case .refused(let refusal):
      state = .start
      guard !standing.bearsRefusal(refusal) else {
        POP3Reply.refused(refusal, &out)
        return .proceed
      }
      // One command, one answer: the reason for the close goes where the refusal would.
      return end(.tooManyFailedLogins, "[AUTH] Too many failed logins.", &out)
    }
  }

  /// The driver ends the connection.
  package mutating func farewell(_ farewell: Farewell, _ out: inout [UInt8]) {
    state = .over
    switch farewell {
    case .inactivity: POP3Reply.error("Disconnected for inactivity.", &out)
    case .shutdown: POP3Reply.error("[SYS/TEMP] Server shutting down.", &out)
    case .ended: POP3Reply.error("[SYS/TEMP] Disconnected by the server; connect again.", &out)
    case .limit: POP3Reply.error("[SYS/TEMP] Too many connections.", &out)
    }
  }

  /// Takes at most one line from the front of `input`, which holds all bytes not consumed so far.
  package mutating func receive(_ input: Span<UInt8>, _ draft: inout LoginDraft, _ out: inout [UInt8]) -> ClientStep {
    switch state {
    case .command(var lines, let hasUser):
      if ForeignProtocol.isTLS(input) { return foreign(input.count, &out) }
      guard let line = lines.nextLine(in: input), line.end <= limits.command else {
        return needLine(input, .command(lines, hasUser: hasUser), &out)
      }
      if standing.isFirstCommand, ForeignProtocol.isRequest(input.extracting(line.text)) {
        return foreign(input.count, &out)
      }
      state = .command(LineFramer(), hasUser: hasUser)
      return perform(input.extracting(line.text), line.end, hasUser, &draft, &out)
    case .response(let exchange, var lines):
      guard let line = lines.nextLine(in: input), line.end <= limits.command else {
        return needLine(input, .response(exchange, lines), &out)
      }
      return respond(exchange, input.extracting(line.text), line.end, &draft, &out)
    case .answering(var lines):
      guard let line = lines.nextLine(in: input), line.end <= limits.command else {
        return needLine(input, .answering(lines), &out)
      }
      state = .authenticating
      let isAnswer = draft.takeAnswer(input.extracting(line.text))
      return ClientStep(line.end, isAnswer ? .respond : .cancel)
    case .upgrading, .authenticating, .over: preconditionFailure("bytes given to a dialogue that can't take any")
    }
  }

  private mutating func needLine(_ input: Span<UInt8>, _ next: State, _ out: inout [UInt8]) -> ClientStep {
    guard input.count <= limits.command else {
      return ClientStep(input.count, end(.commandTooLong, "Command too long.", &out))
    }
    state = next
    return ClientStep(0, .read)
  }

  // MARK: Commands

  private mutating func perform(
    _ line: Span<UInt8>, _ consumed: Int, _ hasUser: Bool, _ draft: inout LoginDraft, _ out: inout [UInt8]
  ) -> ClientStep {
    let words = POP3Words(line)
    let argument = line.extracting(words.argument)
    switch words.command {
    case .capa: capa(&out)
    case .stls: return startTLS(consumed, &draft, &out)
    case .user: return user(argument, consumed, &draft, &out)
    case .pass: return pass(argument, consumed, hasUser, &draft, &out)
    case .auth: return authenticate(argument, consumed, &draft, &out)
    // RFC 1939 §7: the greeting had no timestamp to digest.
    case .apop: POP3Reply.error("[AUTH] APOP is not offered.", &out)
    case .xclient: xclient(argument, &draft, &out)
    case .noop: POP3Reply.ok("NOOP completed.", &out)
    case .quit:
      state = .over
      POP3Reply.ok("Logging out.", &out)
      return ClientStep(consumed, .end(.logout))
    case nil: return bad("Unknown command, or not before login.", consumed, &out)
    }
    return ClientStep(consumed, .proceed)
  }

  /// RFC 2449 §5. USER and SASL are listed only where a password may be sent.
  private func capa(_ out: inout [UInt8]) {
    POP3Reply.ok("Capability list follows.", &out)
    out.append("CAPA\r\nTOP\r\nUIDL\r\nRESP-CODES\r\nPIPELINING\r\nAUTH-RESP-CODE\r\n")
    if standing.startTLS == .granted { out.append("STLS\r\n") }
    if standing.allowsLogin {
      out.append("USER\r\n")
      let mechanisms = standing.mechanisms
      if !mechanisms.isEmpty {
        out.append("SASL")
        for mechanism in mechanisms {
          out.append(.space)
          out.append(mechanism.name)
        }
        out.endLine()
      }
    }
    out.append(".\r\n")
  }

  /// Dovecot's command by which a proxy tells who the client is: believed for the peer's address, from others only
  /// answered, in Dovecot's words.
  private func xclient(_ arguments: Span<UInt8>, _ draft: inout LoginDraft, _ out: inout [UInt8]) {
    switch standing.terms.peer {
    case .client: POP3Reply.ok("You are not from trusted IP - ignoring", &out)
    case .trustedProxy:
      draft.facts.take(attributes: arguments)
      POP3Reply.ok("Updated", &out)
    }
  }

  private mutating func startTLS(_ consumed: Int, _ draft: inout LoginDraft, _ out: inout [UInt8]) -> ClientStep {
    switch standing.startTLS {
    case .active: return bad("TLS is already active.", consumed, &out)
    case .unavailable: return bad("STLS is not available.", consumed, &out)
    case .granted:
      draft.forgetPlaintext()
      state = .upgrading
      POP3Reply.ok("Begin TLS negotiation now.", &out)
      return ClientStep(consumed, .upgrade)
    }
  }

  private mutating func user(
    _ name: Span<UInt8>, _ consumed: Int, _ draft: inout LoginDraft, _ out: inout [UInt8]
  ) -> ClientStep {
    guard standing.allowsLogin else { return refusePlaintext(consumed, &out) }
    draft.reset()
    guard name.count > 0 else {
      state = .start
      return bad("No user name given.", consumed, &out)
    }
    draft.name.append(name)
    state = .command(LineFramer(), hasUser: true)
    // Always the same answer: who exists is not told before the password is right.
    POP3Reply.ok("Password, please.", &out)
    return ClientStep(consumed, .proceed)
  }

  /// RFC 1939 §7: the argument is the rest of the line, blanks included.
  private mutating func pass(
    _ password: Span<UInt8>, _ consumed: Int, _ hasUser: Bool, _ draft: inout LoginDraft, _ out: inout [UInt8]
  ) -> ClientStep {
    guard standing.allowsLogin else { return refusePlaintext(consumed, &out) }
    guard hasUser else { return bad("USER comes before PASS.", consumed, &out) }
    draft.password.removeAll()
    draft.password.append(password)
    state = .authenticating
    return ClientStep(consumed, .authenticate)
  }

  /// RFC 5034 §4. Without an argument it lists the mechanisms, as RFC 1734's successors in the wild expect (Outlook).
  private mutating func authenticate(
    _ argument: Span<UInt8>, _ consumed: Int, _ draft: inout LoginDraft, _ out: inout [UInt8]
  ) -> ClientStep {
    guard standing.allowsLogin else { return refusePlaintext(consumed, &out) }
    guard argument.count > 0 else {
      POP3Reply.ok("Mechanisms follow.", &out)
      for mechanism in standing.mechanisms {
        out.append(mechanism.name)
        out.endLine()
      }
      out.append(".\r\n")
      return ClientStep(consumed, .proceed)
    }
    let nameEnd = argument.firstIndex(of: .space) ?? argument.count
    guard let mechanism = SASLMechanism(argument.extracting(..<nameEnd)), standing.offers(mechanism) else {
      POP3Reply.error("[AUTH] Unsupported authentication mechanism.", &out)
      return ClientStep(consumed, .proceed)
    }
    draft.reset()
    draft.method = .sasl(mechanism)
    let exchange = SASLExchange(mechanism)
    guard nameEnd < argument.count else { return challenge(exchange, consumed, &out) }
    let initial = argument.extracting((nameEnd + 1)...)
    // RFC 5034 §4: "=" is an empty response.
    if initial.equalsIgnoringCase("=") {
      if mechanism.beginsWithServer { return challenge(exchange, consumed, &out) }
      return respond(exchange, initial.extracting(first: 0), consumed, &draft, &out)
    }
    return respond(exchange, initial, consumed, &draft, &out)
  }

  private mutating func challenge(_ exchange: SASLExchange, _ consumed: Int, _ out: inout [UInt8]) -> ClientStep {
    state = .response(exchange, LineFramer())
    out.append("+ ")
    out.append(exchange.challenge)
    out.endLine()
    return ClientStep(consumed, .proceed)
  }

  private mutating func respond(
    _ exchange: SASLExchange, _ response: Span<UInt8>, _ consumed: Int, _ draft: inout LoginDraft, _ out: inout [UInt8]
  ) -> ClientStep {
    state = .start
    if response.equalsIgnoringCase("*") {
      // RFC 5034 §4: the client cancels.
      draft.reset()
      POP3Reply.error("Authentication cancelled.", &out)
      return ClientStep(consumed, .proceed)
    }
    var exchange = exchange
    switch exchange.respond(response, draft: &draft) {
    case .challenge: return challenge(exchange, consumed, &out)
    case .complete:
      state = .authenticating
      return ClientStep(consumed, .authenticate)
    case .malformed:
      draft.reset()
      return bad("Invalid SASL response.", consumed, &out)
    }
  }

  // MARK: Pieces

  /// Another protocol's words are answered once, so that whoever sent them can see where they went.
  private mutating func foreign(_ consumed: Int, _ out: inout [UInt8]) -> ClientStep {
    ClientStep(consumed, end(.anotherProtocol, "This is a POP3 server.", &out))
  }

  private func refusePlaintext(_ consumed: Int, _ out: inout [UInt8]) -> ClientStep {
    POP3Reply.error("[AUTH] Login without TLS is refused. Use STLS first.", &out)
    return ClientStep(consumed, .proceed)
  }

  private mutating func bad(_ text: StaticString, _ consumed: Int, _ out: inout [UInt8]) -> ClientStep {
    guard !standing.bearsBadCommand() else {
      POP3Reply.error(text, &out)
      return ClientStep(consumed, .proceed)
    }
    return ClientStep(consumed, end(.tooManyBadCommands, "Too many invalid commands.", &out))
  }

  private mutating func end(_ why: ClientEnd, _ text: StaticString, _ out: inout [UInt8]) -> ClientAction {
    state = .over
    POP3Reply.error(text, &out)
    return .end(why)
  }
}

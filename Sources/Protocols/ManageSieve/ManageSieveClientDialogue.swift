/// Decides what to say to a ManageSieve client before login (RFC 5804).
package struct ManageSieveClientDialogue: Equatable, Sendable {
  private var state = State.command(ManageSieveFramer())
  private var standing: ClientStanding
  private var limits: Limits { standing.terms.limits }

  private enum State: Equatable, Sendable {
    case command(ManageSieveFramer)
    /// A response of a SASL exchange is being read.
    case response(SASLExchange, ManageSieveFramer)
    /// STARTTLS was answered; only `secured` may come.
    case upgrading
    /// The driver looks for the answer to a login.
    case authenticating
    /// A backend's challenge was passed on; the client's answer is being read.
    case answering(ManageSieveFramer)
    case over
  }

  /// Where the terms ask for implicit TLS the driver tells `secured` and not `greet`.
  package init(_ terms: ClientTerms) { standing = ClientStanding(terms) }

  /// The extensions announced in SIEVE unless the operator says others: those of Dovecot's Pigeonhole. A client asks again
  /// after its login, and then hears the backend's own.
  package static let usualExtensions: StaticString =
    "fileinto reject envelope encoded-character vacation subaddress comparator-i;ascii-numeric relational regex imap4flags copy include variables body enotify environment mailbox date index ihave duplicate mime foreverypart extracttext"

  // MARK: What the driver tells

  /// The connection is open, without TLS.
  package mutating func greet(_ out: inout [UInt8]) {
    appendCapabilities(&out)
    ManageSieveReply.relay(.ok, BackendAnswer(text: standing.terms.greetingWords), &out)
  }

  /// TLS is up. RFC 5804 §2.2: what was learned before is forgotten, and the capabilities are told again at once.
  package mutating func secured(_ certificate: ClientCertificate, _ out: inout [UInt8]) {
    state = .command(ManageSieveFramer())
    if standing.secure(certificate) { return greet(&out) }
    appendCapabilities(&out)
    ManageSieveReply.close(.ok, "TLS negotiation successful.", &out)
  }

  /// A backend asks what only the client can answer: its challenge, decoded.
  package mutating func challenge(_ challenge: Span<UInt8>, _ out: inout [UInt8]) {
    guard case .authenticating = state else { preconditionFailure("a challenge without a login") }
    state = .answering(ManageSieveFramer())
    var text: [UInt8] = []
    Base64.encode(challenge, into: &text)
    ManageSieveReply.quote(text.span, &out)
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
      ManageSieveReply.relay(.ok, standing.terms.reworded(answer), &out)
      return .proceed
    case .refused(let refusal):
      state = .command(ManageSieveFramer())
      guard !standing.bearsRefusal(refusal) else {
        ManageSieveReply.refused(refusal, &out)
        return .proceed
      }
      return end(.tooManyFailedLogins, "Too many failed logins.", &out)
    }
  }

  /// The driver ends the connection.
  package mutating func farewell(_ farewell: Farewell, _ out: inout [UInt8]) {
    state = .over
    switch farewell {
    case .inactivity: ManageSieveReply.close(.bye, "Disconnected for inactivity.", &out)
    case .shutdown: ManageSieveReply.close(.bye, "Server shutting down.", code: "TRYLATER", &out)
    case .ended: ManageSieveReply.close(.bye, "Disconnected by the server; connect again.", code: "TRYLATER", &out)
    case .limit: ManageSieveReply.close(.bye, "Too many connections.", code: "TRYLATER", &out)
    }
  }

  /// Takes at most one command or response from the front of `input`, which holds all bytes not consumed so far.
  package mutating func receive(_ input: Span<UInt8>, _ draft: inout LoginDraft, _ out: inout [UInt8]) -> ClientStep {
    var framer: ManageSieveFramer
    switch state {
    case .command(let known), .response(_, let known), .answering(let known): framer = known
    case .upgrading, .authenticating, .over: preconditionFailure("bytes given to a dialogue that can't take any")
    }
    if ForeignProtocol.isTLS(input) { return foreign(input.count, &out) }
    switch framer.next(in: input, limit: limits.command) {
    case .incomplete:
      keep(framer)
      return ClientStep(0, .read)
    case .tooLong: return ClientStep(input.count, end(.commandTooLong, "Command too long.", &out))
    case .line(let text, let end): return hear(input.extracting(..<text), end, &draft, &out)
    }
  }

  private mutating func keep(_ framer: ManageSieveFramer) {
    switch state {
    case .command: state = .command(framer)
    case .response(let exchange, _): state = .response(exchange, framer)
    case .answering: state = .answering(framer)
    case .upgrading, .authenticating, .over: break
    }
  }

  // MARK: Commands

  private mutating func hear(
    _ line: Span<UInt8>, _ consumed: Int, _ draft: inout LoginDraft, _ out: inout [UInt8]
  ) -> ClientStep {
    switch state {
    case .command:
      if standing.isFirstCommand, ForeignProtocol.isRequest(line) { return foreign(consumed, &out) }
      state = .command(ManageSieveFramer())
      return perform(line, consumed, &draft, &out)
    case .response(let exchange, _):
      state = .command(ManageSieveFramer())
      guard let response = ManageSieveClientDialogue.onlyString(line) else {
        draft.reset()
        return bad("A response is a string.", consumed, &out)
      }
      return respond(exchange, response.span, consumed, &draft, &out)
    case .answering:
      state = .authenticating
      guard let response = ManageSieveClientDialogue.onlyString(line) else { return ClientStep(consumed, .cancel) }
      return ClientStep(consumed, draft.takeAnswer(response.span) ? .respond : .cancel)
    case .upgrading, .authenticating, .over: preconditionFailure("a line for a dialogue that can't take any")
    }
  }

  private static func onlyString(_ line: Span<UInt8>) -> [UInt8]? {
    var reader = ManageSieveReader()
    guard let value = ManageSieveReader.value(reader.next(line), line), reader.next(line) == nil, reader.isAtEnd(line)
    else { return nil }
    return value
  }

  private mutating func perform(
    _ line: Span<UInt8>, _ consumed: Int, _ draft: inout LoginDraft, _ out: inout [UInt8]
  ) -> ClientStep {
    var reader = ManageSieveReader()
    guard case .atom(let word)? = reader.next(line), let command = ManageSieveCommand(line.extracting(word)) else {
      return bad("Unknown command, or not before login.", consumed, &out)
    }
    let rest = line.extracting(reader.position...)
    switch command {
    case .authenticate: return authenticate(rest, consumed, &draft, &out)
    case .noop: return noop(rest, consumed, &out)
    case .xclient:
      xclient(rest, &draft, &out)
      return ClientStep(consumed, .proceed)
    case .startTLS, .logout, .capability:
      guard reader.next(line) == nil, reader.isAtEnd(line) else {
        return bad("No argument is expected here.", consumed, &out)
      }
    }
    switch command {
    case .startTLS: return startTLS(consumed, &draft, &out)
    case .logout:
      state = .over
      ManageSieveReply.close(.ok, "Logout completed.", &out)
      return ClientStep(consumed, .end(.logout))
    case .capability:
      appendCapabilities(&out)
      ManageSieveReply.close(.ok, "Capability completed.", &out)
    case .authenticate, .noop, .xclient: break
    }
    return ClientStep(consumed, .proceed)
  }

  private mutating func startTLS(_ consumed: Int, _ draft: inout LoginDraft, _ out: inout [UInt8]) -> ClientStep {
    switch standing.startTLS {
    case .active: return bad("TLS is already active.", consumed, &out)
    case .unavailable: return bad("STARTTLS is not available.", consumed, &out)
    case .granted:
      draft.forgetPlaintext()
      state = .upgrading
      ManageSieveReply.close(.ok, "Begin TLS negotiation now.", &out)
      return ClientStep(consumed, .upgrade)
    }
  }

  /// RFC 5804 §2.13: the string given comes back in the code TAG.
  private mutating func noop(_ rest: Span<UInt8>, _ consumed: Int, _ out: inout [UInt8]) -> ClientStep {
    var reader = ManageSieveReader()
    let word = reader.next(rest)
    guard word != nil || !reader.isAtEnd(rest) else {
      ManageSieveReply.close(.ok, "NOOP completed.", &out)
      return ClientStep(consumed, .proceed)
    }
    guard let tag = ManageSieveReader.value(word, rest), tag.count <= Limits.tag, reader.isAtEnd(rest) else {
      return bad("NOOP expects a string.", consumed, &out)
    }
    var safe: [UInt8] = []
    safe.appendLineSafe(tag.span)
    var answer = BackendAnswer(text: Array("Done.".utf8))
    answer.code.append("TAG ")
    ManageSieveReply.quote(safe.span, &answer.code)
    ManageSieveReply.relay(.ok, answer, &out)
    return ClientStep(consumed, .proceed)
  }

  /// Dovecot's command by which a proxy tells who the client is: believed for the peer's address only.
  private func xclient(_ arguments: Span<UInt8>, _ draft: inout LoginDraft, _ out: inout [UInt8]) {
    switch standing.terms.peer {
    case .client: ManageSieveReply.close(.no, "You are not from trusted IP", &out)
    case .trustedProxy:
      draft.facts.take(attributes: arguments)
      ManageSieveReply.close(.ok, "Updated", &out)
    }
  }

  /// RFC 5804 §2.1.
  private mutating func authenticate(
    _ rest: Span<UInt8>, _ consumed: Int, _ draft: inout LoginDraft, _ out: inout [UInt8]
  ) -> ClientStep {
    guard standing.allowsLogin else {
      ManageSieveReply.close(
        .no, "Login without TLS is refused. Use STARTTLS first.", code: "ENCRYPT-NEEDED", &out)
      return ClientStep(consumed, .proceed)
    }
    var reader = ManageSieveReader()
    guard let name = ManageSieveReader.value(reader.next(rest), rest) else {
      return bad("AUTHENTICATE expects a mechanism.", consumed, &out)
    }
    guard let mechanism = SASLMechanism(name.span), standing.offers(mechanism) else {
      ManageSieveReply.close(.no, "Unsupported authentication mechanism.", &out)
      return ClientStep(consumed, .proceed)
    }
    draft.reset()
    draft.method = .sasl(mechanism)
    let exchange = SASLExchange(mechanism)
    guard let word = reader.next(rest) else {
      guard reader.isAtEnd(rest) else { return bad("The initial response is no string.", consumed, &out) }
      return challenge(exchange, consumed, &out)
    }
    guard let initial = ManageSieveReader.value(word, rest), reader.next(rest) == nil, reader.isAtEnd(rest) else {
      return bad("The initial response is no string.", consumed, &out)
    }
    if initial.isEmpty, mechanism.beginsWithServer { return challenge(exchange, consumed, &out) }
    return respond(exchange, initial.span, consumed, &draft, &out)
  }

  private mutating func challenge(_ exchange: SASLExchange, _ consumed: Int, _ out: inout [UInt8]) -> ClientStep {
    state = .response(exchange, ManageSieveFramer())
    out.append(.ascii("\""))
    out.append(exchange.challenge)
    out.append(.ascii("\""))
    out.endLine()
    return ClientStep(consumed, .proceed)
  }

  private mutating func respond(
    _ exchange: SASLExchange, _ response: Span<UInt8>, _ consumed: Int, _ draft: inout LoginDraft, _ out: inout [UInt8]
  ) -> ClientStep {
    if response.equalsIgnoringCase("*") {
      // RFC 5804 §2.1: the client cancels.
      draft.reset()
      ManageSieveReply.close(.no, "Authentication cancelled.", &out)
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

  /// RFC 5804 §1.7. SASL is empty where a password may not be sent yet.
  private func appendCapabilities(_ out: inout [UInt8]) {
    ManageSieveReply.capability("IMPLEMENTATION", Array("proxyd".utf8).span, &out)
    var extensions: [UInt8] = []
    if let own = standing.terms.capabilities {
      extensions = own
    } else {
      extensions.append(ManageSieveClientDialogue.usualExtensions)
    }
    ManageSieveReply.capability("SIEVE", extensions.span, &out)
    var names: [UInt8] = []
    if standing.allowsLogin {
      for mechanism in standing.mechanisms {
        if !names.isEmpty { names.append(.space) }
        names.append(mechanism.name)
      }
    }
    ManageSieveReply.capability("SASL", names.span, &out)
    if standing.startTLS == .granted { ManageSieveReply.capability("STARTTLS", nil, &out) }
    switch standing.terms.peer {
    case .client: break
    case .trustedProxy: ManageSieveReply.capability("XCLIENT", nil, &out)
    }
    ManageSieveReply.capability("VERSION", Array("1.0".utf8).span, &out)
  }

  private mutating func bad(_ text: StaticString, _ consumed: Int, _ out: inout [UInt8]) -> ClientStep {
    guard !standing.bearsBadCommand() else {
      ManageSieveReply.close(.no, text, &out)
      return ClientStep(consumed, .proceed)
    }
    return ClientStep(consumed, end(.tooManyBadCommands, "Too many invalid commands.", &out))
  }

  /// Another protocol's words are answered once, so that whoever sent them can see where they went.
  private mutating func foreign(_ consumed: Int, _ out: inout [UInt8]) -> ClientStep {
    ClientStep(consumed, end(.anotherProtocol, "This is a ManageSieve server.", &out))
  }

  private mutating func end(_ why: ClientEnd, _ text: StaticString, _ out: inout [UInt8]) -> ClientAction {
    state = .over
    ManageSieveReply.close(.bye, text, &out)
    return .end(why)
  }
}

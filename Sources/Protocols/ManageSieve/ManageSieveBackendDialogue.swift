/// Decides what to say to a ManageSieve backend to log a user in there (RFC 5804).
///
/// One round trip after the greeting, or two where it is told by XCLIENT who the client is.
package struct ManageSieveBackendDialogue: Equatable, Sendable {
  private var state = State.capabilities(ManageSieveFramer(), Capabilities(), .greeting)
  /// Whether the backend evidently does not believe us who the client is.
  package private(set) var isDistrusted = false
  private let terms: BackendTerms

  /// What a list of capabilities came for.
  private enum Occasion: Equatable, Sendable {
    case greeting
    /// TLS is up.
    case secured
  }

  /// What the backend's capabilities mean for the login.
  private struct Capabilities: Equatable, Sendable {
    var mechanisms = SASLMechanisms()
    var hasStartTLS = false
    /// The attributes announced; empty without a list. Nil if XCLIENT is not announced.
    var xclient: [UInt8]?
  }

  private enum State: Equatable, Sendable {
    case capabilities(ManageSieveFramer, Capabilities, Occasion)
    /// STARTTLS was said.
    case startTLS(ManageSieveFramer)
    /// STARTTLS was granted; only `secured` may come.
    case upgrading
    /// XCLIENT was said; the exchange is to follow.
    case xclient(ManageSieveFramer, SASLInitiator)
    case sasl(ManageSieveFramer, SASLInitiator)
    case over
  }

  /// The channel in the terms is the proof that the driver took the steps which the operator wants before a secret is
  /// said.
  package init(_ terms: BackendTerms) { self.terms = terms }

  /// What it waits for, for people.
  package var doing: BackendDoing {
    switch state {
    case .capabilities(_, _, .greeting): .greeting
    case .capabilities(_, _, .secured): .capability
    case .startTLS, .upgrading: .startTLS
    case .sasl(_, .asked): .client
    case .xclient, .sasl, .over: .answer
    }
  }

  // MARK: What the driver tells

  /// TLS is up after STARTTLS: the backend says its capabilities again by itself (RFC 5804 §2.2).
  package mutating func secured() {
    guard case .upgrading = state else { preconditionFailure("TLS that was not asked for") }
    state = .capabilities(ManageSieveFramer(), Capabilities(), .secured)
  }

  /// The client answered the backend's challenge; its message is in the draft.
  package mutating func respond(_ draft: borrowing LoginDraft, _ out: inout [UInt8]) {
    guard case .sasl(let framer, var exchange) = state else { preconditionFailure("an answer without a challenge") }
    let start = out.count
    exchange.pass(draft, &out)
    ManageSieveBackendDialogue.wrap(from: start, &out)
    out.endLine()
    state = .sasl(framer, exchange)
  }

  /// Takes at most one line from the front of `input`. `out` may hold the password afterwards.
  package mutating func receive(
    _ input: Span<UInt8>, _ draft: borrowing LoginDraft, _ out: inout [UInt8]
  ) -> BackendStep {
    var framer: ManageSieveFramer
    switch state {
    case .capabilities(let known, _, _), .startTLS(let known), .xclient(let known, _), .sasl(let known, _):
      framer = known
    case .upgrading, .over: preconditionFailure("bytes given to a dialogue that can't take any")
    }
    switch framer.next(in: input, limit: Limits.backendLine) {
    case .incomplete:
      keep(framer)
      return BackendStep(0, .read)
    case .tooLong: return fail(.protocolError, input.extracting(first: min(80, input.count)), input.count)
    case .line(let text, let end):
      keep(ManageSieveFramer())
      return hear(input.extracting(..<text), end, draft, &out)
    }
  }

  private mutating func keep(_ framer: ManageSieveFramer) {
    switch state {
    case .capabilities(_, let capabilities, let occasion): state = .capabilities(framer, capabilities, occasion)
    case .startTLS: state = .startTLS(framer)
    case .xclient(_, let exchange): state = .xclient(framer, exchange)
    case .sasl(_, let exchange): state = .sasl(framer, exchange)
    case .upgrading, .over: break
    }
  }

  // MARK: Lines

  private mutating func hear(
    _ line: Span<UInt8>, _ consumed: Int, _ draft: borrowing LoginDraft, _ out: inout [UInt8]
  ) -> BackendStep {
    switch state {
    case .capabilities(_, let known, let occasion):
      return capability(line, known, occasion, consumed, draft, &out)
    case .startTLS:
      guard let closing = ManageSieveStatus.read(line), closing.status == .ok else {
        return fail(.noTLS, line, consumed)
      }
      state = .upgrading
      return BackendStep(consumed, .upgrade)
    case .xclient(_, let exchange):
      guard let closing = ManageSieveStatus.read(line), closing.status != .bye else {
        return fail(.protocolError, line, consumed)
      }
      // A backend that refuses to hear who the client is can still be logged in to.
      if closing.status == .no { isDistrusted = true }
      authenticate(exchange, draft, &out)
      return BackendStep(consumed, .proceed)
    case .sasl(_, let exchange): return answer(line, exchange, consumed, draft, &out)
    case .upgrading, .over: preconditionFailure("a line for a dialogue that can't take any")
    }
  }

  private mutating func capability(
    _ line: Span<UInt8>, _ known: Capabilities, _ occasion: Occasion, _ consumed: Int, _ draft: borrowing LoginDraft,
    _ out: inout [UInt8]
  ) -> BackendStep {
    var reader = ManageSieveReader()
    if let name = ManageSieveReader.value(reader.next(line), line) {
      var capabilities = known
      let value = ManageSieveReader.value(reader.next(line), line) ?? []
      if name.span.equalsIgnoringCase("SASL") { capabilities.mechanisms.insert(names: value.span) }
      if name.span.equalsIgnoringCase("STARTTLS") { capabilities.hasStartTLS = true }
      if name.span.equalsIgnoringCase("XCLIENT") { capabilities.xclient = value }
      state = .capabilities(ManageSieveFramer(), capabilities, occasion)
      return BackendStep(consumed, .proceed)
    }
    guard let closing = ManageSieveStatus.read(line), closing.status == .ok else {
      return fail(occasion == .greeting ? .badGreeting : .protocolError, line, consumed)
    }
    switch (terms.channel, occasion) {
    case (.startTLSFirst, .greeting):
      guard known.hasStartTLS else { return fail(.noTLS, line, consumed) }
      out.append("STARTTLS\r\n")
      state = .startTLS(ManageSieveFramer())
      return BackendStep(consumed, .proceed)
    case (.trusted, _), (.startTLSFirst, .secured): return introduce(known, line, consumed, draft, &out)
    }
  }

  private mutating func introduce(
    _ known: Capabilities, _ line: Span<UInt8>, _ consumed: Int, _ draft: borrowing LoginDraft, _ out: inout [UInt8]
  ) -> BackendStep {
    let hasIdentity = !draft.authorizationIdentity.isEmpty
    guard let mechanism = known.mechanisms.choice(for: draft.method, hasAuthorizationIdentity: hasIdentity) else {
      return fail(.noMechanism, line, consumed)
    }
    let exchange = SASLInitiator.first(mechanism)
    guard let attributes = known.xclient, !terms.client.isEmpty else {
      authenticate(exchange, draft, &out)
      return BackendStep(consumed, .proceed)
    }
    out.append("XCLIENT")
    terms.client.append(attributesTo: &out, announced: attributes.span)
    out.endLine()
    // Whatever the pace: Dovecot's own proxy waits here too, so what comes with XCLIENT in one write is a way that
    // Pigeonhole is not walked in the wild.
    state = .xclient(ManageSieveFramer(), exchange)
    return BackendStep(consumed, .proceed)
  }

  private mutating func authenticate(_ begun: SASLInitiator, _ draft: borrowing LoginDraft, _ out: inout [UInt8]) {
    guard case .first(let mechanism) = begun else { preconditionFailure("an exchange begins twice") }
    var exchange = begun
    out.append("AUTHENTICATE \"")
    out.append(mechanism.name)
    out.append(.ascii("\""))
    if SASLInitiator.hasInitialResponse(mechanism) {
      out.append(.space)
      let start = out.count
      exchange.begin(draft, &out)
      ManageSieveBackendDialogue.wrap(from: start, &out)
    }
    out.endLine()
    state = .sasl(ManageSieveFramer(), exchange)
  }

  /// Makes a string of the base64 at the end of `out`: quoted, or a literal where it is too long for quotes, as tokens
  /// are (RFC 5804 §4).
  private static func wrap(from start: Int, _ out: inout [UInt8]) {
    let count = out.count - start
    guard count > ManageSieveReply.longestQuoted else {
      out.insert(.ascii("\""), at: start)
      return out.append(.ascii("\""))
    }
    out.insert(contentsOf: "{\(count)+}\r\n".utf8, at: start)
  }

  private mutating func answer(
    _ line: Span<UInt8>, _ exchange: SASLInitiator, _ consumed: Int, _ draft: borrowing LoginDraft,
    _ out: inout [UInt8]
  ) -> BackendStep {
    if let closing = ManageSieveStatus.read(line) {
      switch closing.status {
      case .ok:
        state = .over
        return BackendStep(consumed, .accepted(closing.answer))
      case .no:
        state = .over
        return BackendStep(consumed, .refused(ManageSieveBackendDialogue.refusal(closing.answer), closing.answer))
      // RFC 5804 §1.3: a referral may come with a goodbye too.
      case .bye where closing.answer.codeName == "referral":
        state = .over
        return BackendStep(consumed, .refused(.backend(closing.answer), closing.answer))
      case .bye: return fail(.protocolError, line, consumed)
      }
    }
    var reader = ManageSieveReader()
    guard let challenge = ManageSieveReader.value(reader.next(line), line), reader.isAtEnd(line) else {
      return fail(.protocolError, line, consumed)
    }
    var exchange = exchange
    let start = out.count
    switch exchange.answer(challenge.span, draft, &out) {
    case .said:
      ManageSieveBackendDialogue.wrap(from: start, &out)
      out.endLine()
      state = .sasl(ManageSieveFramer(), exchange)
      return BackendStep(consumed, .proceed)
    case .asksClient(let bytes):
      state = .sasl(ManageSieveFramer(), exchange)
      return BackendStep(consumed, .challenge(bytes))
    case .unexpected: return fail(.protocolError, line, consumed)
    }
  }

  /// RFC 5804 §1.3: a code says more than that the credentials are wrong, and is passed on.
  private static func refusal(_ answer: BackendAnswer) -> LoginRefusal {
    answer.code.isEmpty ? .credentials : .backend(answer)
  }

  private mutating func fail(_ fault: BackendFault, _ line: Span<UInt8>, _ consumed: Int) -> BackendStep {
    state = .over
    var text: [UInt8] = []
    text.appendLineSafe(line)
    return BackendStep(consumed, .failed(fault, BackendAnswer(text: text)))
  }
}

/// Decides what to say to a POP3 backend to log a user in there.
///
/// One round trip after the greeting: USER and PASS go in one write. For SASL the backend's mechanisms are asked for first,
/// in a round trip of their own.
package struct POP3BackendDialogue: Equatable, Sendable {
  private var state = State.greeting(LineFramer())
  /// What the greeting says of XCLIENT.
  private var introduction = Introduction.unknown
  private let terms: BackendTerms

  private enum Introduction: Equatable, Sendable {
    case unknown
    /// The attributes announced; empty if there is no list of them, as Dovecot has it.
    case announced([UInt8])
    /// A Dovecot that does not offer it does not trust our address.
    case withheld
  }

  private enum State: Equatable, Sendable {
    case greeting(LineFramer)
    /// STLS was said.
    case startTLS(LineFramer)
    /// STLS was granted; only `secured` may come.
    case upgrading
    /// XCLIENT was said, and `next` waits behind it.
    case xclient(LineFramer, Next)
    /// CAPA was said; the list has begun or not.
    case capability(LineFramer, SASLMechanisms?)
    /// USER was sent. `hasPassword`: PASS went with it.
    case user(LineFramer, hasPassword: Bool)
    /// PASS was sent; its answer decides.
    case password(LineFramer)
    case sasl(LineFramer, SASLInitiator)
    case over
  }

  /// What was said in the same write as XCLIENT, or is to be said behind its answer.
  private enum Next: Equatable, Sendable {
    case said
    case unsaid
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
    case .sasl(_, .asked): .client
    case .xclient, .user, .password, .sasl, .over: .answer
    }
  }

  /// Whether the backend evidently does not believe us who the client is.
  package var isDistrusted: Bool { introduction == .withheld && !terms.client.isEmpty }

  // MARK: What the driver tells

  /// TLS is up after STLS.
  package mutating func secured(_ draft: borrowing LoginDraft, _ out: inout [UInt8]) {
    guard case .upgrading = state else { preconditionFailure("TLS that was not asked for") }
    introduce(draft, &out)
  }

  /// The client answered the backend's challenge; its message is in the draft.
  package mutating func respond(_ draft: borrowing LoginDraft, _ out: inout [UInt8]) {
    guard case .sasl(let lines, var exchange) = state else { preconditionFailure("an answer without a challenge") }
    exchange.pass(draft, &out)
    out.endLine()
    state = .sasl(lines, exchange)
  }

  /// Takes at most one line from the front of `input`. `out` may hold the password afterwards.
  package mutating func receive(
    _ input: Span<UInt8>, _ draft: borrowing LoginDraft, _ out: inout [UInt8]
  ) -> BackendStep {
    var lines: LineFramer
    switch state {
    case .greeting(let known), .startTLS(let known), .xclient(let known, _), .capability(let known, _),
      .user(let known, _), .password(let known), .sasl(let known, _):
      lines = known
    case .upgrading, .over: preconditionFailure("bytes given to a dialogue that can't take any")
    }
    guard let line = lines.nextLine(in: input) else {
      guard input.count <= Limits.backendLine else {
        return fail(.protocolError, input.extracting(first: 80), input.count)
      }
      keep(lines)
      return BackendStep(0, .read)
    }
    keep(LineFramer())
    return hear(input.extracting(line.text), line.end, draft, &out)
  }

  /// How far the next line was looked at.
  private mutating func keep(_ lines: LineFramer) {
    switch state {
    case .greeting: state = .greeting(lines)
    case .startTLS: state = .startTLS(lines)
    case .xclient(_, let next): state = .xclient(lines, next)
    case .capability(_, let mechanisms): state = .capability(lines, mechanisms)
    case .user(_, let hasPassword): state = .user(lines, hasPassword: hasPassword)
    case .password: state = .password(lines)
    case .sasl(_, let exchange): state = .sasl(lines, exchange)
    case .upgrading, .over: break
    }
  }

  // MARK: Lines

  private mutating func hear(
    _ line: Span<UInt8>, _ consumed: Int, _ draft: borrowing LoginDraft, _ out: inout [UInt8]
  ) -> BackendStep {
    switch state {
    case .greeting: return greeting(line, consumed, draft, &out)
    case .startTLS:
      guard POP3Status(line) == .ok else { return fail(.noTLS, line, consumed) }
      state = .upgrading
      return BackendStep(consumed, .upgrade)
    case .xclient(_, let next):
      // Whatever it says: a backend that refuses to hear who the client is can still be logged in to.
      if line.hasText("not from trusted") { introduction = .withheld }
      switch next {
      case .said: afterIntroduction(draft)
      case .unsaid: logIn(draft, &out)
      }
    case .capability(_, let mechanisms): return capability(line, mechanisms, consumed, draft, &out)
    case .user(_, let hasPassword):
      guard POP3Status(line) == .ok else { return decide(line, consumed) }
      if !hasPassword { sendPassword(draft, &out) }
      state = .password(LineFramer())
    case .password: return decide(line, consumed)
    case .sasl(_, var exchange):
      guard POP3Status(line) == .more else { return decide(line, consumed) }
      switch exchange.answer(line.extracting(min(2, line.count)...), draft, &out) {
      case .said:
        out.endLine()
        state = .sasl(LineFramer(), exchange)
      case .asksClient(let challenge):
        state = .sasl(LineFramer(), exchange)
        return BackendStep(consumed, .challenge(challenge))
      case .unexpected: return fail(.protocolError, line, consumed)
      }
    case .upgrading, .over: preconditionFailure("a line for a dialogue that can't take any")
    }
    return BackendStep(consumed, .proceed)
  }

  private mutating func greeting(
    _ line: Span<UInt8>, _ consumed: Int, _ draft: borrowing LoginDraft, _ out: inout [UInt8]
  ) -> BackendStep {
    guard POP3Status(line) == .ok else { return fail(.badGreeting, line, consumed) }
    let answer = POP3Status.answer(line)
    if answer.codeName == "xclient" {
      introduction = .announced(Array(answer.code.dropFirst(8)))
    } else if line.hasText("Dovecot") {
      introduction = .withheld
    }
    switch terms.channel {
    case .trusted: introduce(draft, &out)
    case .startTLSFirst:
      out.append("STLS\r\n")
      state = .startTLS(LineFramer())
    }
    return BackendStep(consumed, .proceed)
  }

  /// Says who the client is, where that is wanted, and the login behind it in the same breath.
  private mutating func introduce(_ draft: borrowing LoginDraft, _ out: inout [UInt8]) {
    guard case .announced(let attributes) = introduction, !terms.client.isEmpty else { return logIn(draft, &out) }
    out.append("XCLIENT")
    terms.client.append(attributesTo: &out, announced: attributes.span)
    out.endLine()
    switch terms.pace {
    case .stepwise: state = .xclient(LineFramer(), .unsaid)
    case .pipelined:
      logIn(draft, &out)
      state = .xclient(LineFramer(), .said)
    }
  }

  /// What the state is once XCLIENT's answer has come: as `logIn` left it.
  private mutating func afterIntroduction(_ draft: borrowing LoginDraft) {
    switch draft.method {
    case .command where draft.authorizationIdentity.isEmpty:
      state = .user(LineFramer(), hasPassword: terms.pace == .pipelined)
    case .command, .sasl: state = .capability(LineFramer(), nil)
    }
  }

  private mutating func logIn(_ draft: borrowing LoginDraft, _ out: inout [UInt8]) {
    switch draft.method {
    case .command where draft.authorizationIdentity.isEmpty: sendUser(draft, &out)
    case .command, .sasl:
      out.append("CAPA\r\n")
      state = .capability(LineFramer(), nil)
    }
  }

  private mutating func sendUser(_ draft: borrowing LoginDraft, _ out: inout [UInt8]) {
    out.append("USER ")
    out.append(draft.name.span)
    out.endLine()
    if terms.pace == .pipelined { sendPassword(draft, &out) }
    state = .user(LineFramer(), hasPassword: terms.pace == .pipelined)
  }

  private func sendPassword(_ draft: borrowing LoginDraft, _ out: inout [UInt8]) {
    out.append("PASS ")
    out.append(draft.password.span)
    out.endLine()
  }

  /// RFC 2449 §5: a list that "." ends; -ERR where there is none.
  private mutating func capability(
    _ line: Span<UInt8>, _ known: SASLMechanisms?, _ consumed: Int, _ draft: borrowing LoginDraft,
    _ out: inout [UInt8]
  ) -> BackendStep {
    guard var mechanisms = known else {
      switch POP3Status(line) {
      case .ok:
        state = .capability(LineFramer(), SASLMechanisms())
        return BackendStep(consumed, .proceed)
      case .error: return authenticate(SASLMechanisms(), line, consumed, draft, &out)
      case .more, nil: return fail(.protocolError, line, consumed)
      }
    }
    guard !line.equalsIgnoringCase(".") else { return authenticate(mechanisms, line, consumed, draft, &out) }
    if line.startsIgnoringCase(with: "SASL ") { mechanisms.insert(names: line.extracting(5...)) }
    state = .capability(LineFramer(), mechanisms)
    return BackendStep(consumed, .proceed)
  }

  private mutating func authenticate(
    _ mechanisms: SASLMechanisms, _ line: Span<UInt8>, _ consumed: Int, _ draft: borrowing LoginDraft,
    _ out: inout [UInt8]
  ) -> BackendStep {
    let hasIdentity = !draft.authorizationIdentity.isEmpty
    guard let mechanism = mechanisms.choice(for: draft.method, hasAuthorizationIdentity: hasIdentity) else {
      guard draft.method.isPassword, !hasIdentity else { return fail(.noMechanism, line, consumed) }
      sendUser(draft, &out)
      return BackendStep(consumed, .proceed)
    }
    var exchange = SASLInitiator.first(mechanism)
    let start = out.count
    out.append("AUTH ")
    out.append(mechanism.name)
    let bare = out.count
    if SASLInitiator.hasInitialResponse(mechanism) {
      out.append(.space)
      exchange.begin(draft, &out)
      // RFC 5034 §4: a line with an initial response has at most 255 bytes, CRLF included; a longer response waits for
      // the "+".
      if out.count - start > 253 {
        for index in bare..<out.count { out[index] = 0 }
        out.removeLast(out.count - bare)
        exchange = .first(mechanism)
      }
    }
    out.endLine()
    state = .sasl(LineFramer(), exchange)
    return BackendStep(consumed, .proceed)
  }

  private mutating func decide(_ line: Span<UInt8>, _ consumed: Int) -> BackendStep {
    switch POP3Status(line) {
    case .ok:
      state = .over
      return BackendStep(consumed, .accepted(POP3Status.answer(line)))
    case .error:
      state = .over
      let answer = POP3Status.answer(line)
      return BackendStep(consumed, .refused(POP3BackendDialogue.refusal(answer), answer))
    case .more, nil: return fail(.protocolError, line, consumed)
    }
  }

  /// RFC 3206. The words of a plain refusal are replaced: some servers tell in them which users exist.
  private static func refusal(_ answer: BackendAnswer) -> LoginRefusal {
    switch answer.codeName {
    case "", "auth": .credentials
    default: .backend(answer)
    }
  }

  private mutating func fail(_ fault: BackendFault, _ line: Span<UInt8>, _ consumed: Int) -> BackendStep {
    state = .over
    var text: [UInt8] = []
    text.appendLineSafe(line)
    return BackendStep(consumed, .failed(fault, BackendAnswer(text: text)))
  }
}

/// The first word of a POP3 server's line.
private enum POP3Status: Equatable, Sendable {
  case ok, error
  /// "+": it waits for a response (RFC 5034 §4).
  case more

  init?(_ line: Span<UInt8>) {
    let word = line.extracting(..<(line.firstIndex(of: .space) ?? line.count))
    if word.equalsIgnoringCase("+OK") {
      self = .ok
    } else if word.equalsIgnoringCase("-ERR") {
      self = .error
    } else if word.equalsIgnoringCase("+") {
      self = .more
    } else {
      return nil
    }
  }

  /// Behind the status: an optional code in brackets (RFC 2449 §8), then words for people.
  static func answer(_ line: Span<UInt8>) -> BackendAnswer {
    var answer = BackendAnswer()
    guard let blank = line.firstIndex(of: .space) else { return answer }
    let text = line.extracting((blank + 1)...)
    guard text.count > 0, text[0] == .ascii("["), let close = text.firstIndex(of: .ascii("]")) else {
      answer.text.appendLineSafe(text)
      return answer
    }
    answer.code.appendLineSafe(text.extracting(1..<close))
    let rest = text.extracting((close + 1)...)
    answer.text.appendLineSafe(rest.count > 0 && rest[0] == .space ? rest.extracting(1...) : rest)
    return answer
  }
}

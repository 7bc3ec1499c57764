/// The way through a backend: TLS, the login there, and over to the relay.

internal import Protocols

extension Session {
  /// Talks to the backend until it has to wait. `side`: where something happened.
  func logIn(_ entered: consuming BackendLogin, _ side: Side?, on loop: isolated EventLoop) -> Next {
    var backend = entered
    switch backend.stage {
    case .preamble:
      if let failure = backend.flush() { return isBroken(backend, LoginFailure(backend: failure), on: loop) }
      guard backend.output.isEmpty else { return .rest(.backend(backend)) }
      switch backend.route.backend.link.manner.tls {
      case .implicit: return upgrade(backend, .implicit, on: loop)
      case .off, .startTLS:
        backend.stage = .dialogue
        return .go(.backend(backend))
      }
    case .handshake(let occasion, _): return shakeHands(backend, occasion, on: loop)
    case .client where side != .backend: return hearClient(backend, on: loop)
    case .connecting, .dialogue, .client: return read(backend, on: loop)
    }
  }

  // MARK: TLS

  private func upgrade(
    _ entered: consuming BackendLogin, _ occasion: BackendLogin.Handshake, on loop: isolated EventLoop
  ) -> Next {
    var backend = entered
    let target = backend.route.backend
    guard let context = target.link.context(record.listener.mailProtocol) else {
      preconditionFailure("TLS with a backend that has no context for it")
    }
    guard backend.transport.upgrade(context, target.peerName) else { return .end(SessionEnd(.outOfMemory)) }
    backend.stage = .handshake(occasion, writes: false)
    return .go(.backend(backend))
  }

  private func shakeHands(
    _ entered: consuming BackendLogin, _ occasion: BackendLogin.Handshake, on loop: isolated EventLoop
  ) -> Next {
    var backend = entered
    switch backend.transport.handshake() {
    case .done: break
    case .blocked(let why):
      backend.stage = .handshake(occasion, writes: why == .writable)
      return .rest(.backend(backend))
    case .closed: return isBroken(backend, LoginFailure(.backendTLS, "it closed in the handshake"), on: loop)
    case .failed(let failure): return isBroken(backend, LoginFailure(backend: failure), on: loop)
    }
    record.backendTLS = backend.transport.tlsFacts?.version
    traceTLS(backend)
    backend.stage = .dialogue
    switch occasion {
    case .implicit: break
    case .startTLS:
      loop.reply.removeAll(keepingCapacity: true)
      backend.dialogue.secured(backend.login.draft, &loop.reply)
      backend.noteCommitment()
      traceTurn(backend, loop.reply.span)
      let failure = backend.say(loop.reply.span)
      loop.reply.wipe()
      if let failure { return isBroken(backend, LoginFailure(backend: failure), on: loop) }
    }
    return .go(.backend(backend))
  }

  // MARK: Dialogue

  private func read(_ entered: consuming BackendLogin, on loop: isolated EventLoop) -> Next {
    var backend = entered
    if !backend.output.isEmpty, let failure = backend.flush() {
      return isBroken(backend, LoginFailure(backend: failure), on: loop)
    }
    switch backend.transport.read(into: &loop.scratch) {
    case .bytes(let count):
      if backend.stage == .connecting {
        backend.stage = .dialogue
        meterPart(.connect, backend.login, on: loop)
      }
      return hear(backend, count, on: loop)
    case .blocked: return .rest(.backend(backend))
    case .closed: return isBroken(backend, LoginFailure(.backendClosed, backend.doing), on: loop)
    case .failed(let failure): return isBroken(backend, LoginFailure(backend: failure), on: loop)
    }
  }

  /// Lets the dialogue answer what the backend said, `count` bytes of it in the loop's scratch.
  private func hear(_ heard: consuming BackendLogin, _ count: Int, on loop: isolated EventLoop) -> Next {
    var backend = heard
    loop.reply.removeAll(keepingCapacity: true)
    var action = BackendAction.read
    if backend.stage == .client {
      // Nothing is due before the client has answered; what comes early waits, within bounds.
      backend.input.append(loop.scratch.span(count))
      guard backend.input.count <= Limits.backendUntagged else {
        return refuse(backend.login, .unavailable, LoginFailure(.backendProtocol, "it says too much"), on: loop)
      }
      return .rest(.backend(backend))
    }
    if backend.input.isEmpty {
      let consumed = backend.listen(loop.scratch.span(count), &loop.reply, &action)
      backend.input.append(loop.scratch.span(count).extracting(consumed...))
    } else {
      backend.input.append(loop.scratch.span(count))
      backend.listenAgain(&loop.reply, &action)
    }
    return act(backend, action, on: loop)
  }

  /// Says what the dialogue said, then does what it decided.
  private func act(
    _ decided: consuming BackendLogin, _ action: BackendAction, on loop: isolated EventLoop
  ) -> Next {
    var backend = decided
    traceTurn(backend, loop.reply.span)
    // The reply may hold the password.
    let failure = backend.say(loop.reply.span)
    loop.reply.wipe()
    switch action {
    case .read, .proceed:
      if let failure { return isBroken(backend, LoginFailure(backend: failure), on: loop) }
      if backend.transport.hasPending { loop.again(token) }
      return .rest(.backend(backend))
    case .upgrade:
      // What stands behind the answer to STARTTLS was not said by a TLS server (CVE-2021-38084 and its kin).
      guard backend.input.isEmpty, backend.output.isEmpty, !backend.transport.hasPending else {
        return isBroken(backend, LoginFailure(.backendProtocol, "bytes behind its answer to STARTTLS"), on: loop)
      }
      return upgrade(backend, .startTLS, on: loop)
    case .challenge(let challenge): return ask(backend, challenge, on: loop)
    case .accepted(let answer):
      guard backend.output.isEmpty else {
        return isBroken(backend, LoginFailure(.backendProtocol, "it accepts a login it has not heard"), on: loop)
      }
      return relay(backend, answer, on: loop)
    case .refused(let refusal, let answer): return isRefused(backend, refusal, answer, on: loop)
    case .failed(let fault, let answer): return hasFailed(backend, fault, answer, on: loop)
    }
  }

  /// What a backend said, for the log: never a server's quotation of the credentials.
  private func quote(_ answer: BackendAnswer, _ login: PreLogin) -> String {
    let words = answer.words
    let bytes = Array(words.utf8)
    return login.draft.isRepeated(in: bytes.span) ? "(it repeats the credentials)" : words
  }

  private func hasFailed(
    _ failed: consuming BackendLogin, _ fault: BackendFault, _ answer: BackendAnswer, on loop: isolated EventLoop
  ) -> Next {
    let backend = failed
    let failure = LoginFailure(backend: fault, said: quote(answer, backend.login))
    switch fault {
    case .badGreeting, .protocolError: return isBroken(backend, failure, on: loop)
    case .noTLS: return isBroken(backend, failure, .misconfigured, on: loop)
    case .noMechanism:
      let refusal: LoginRefusal =
        switch backend.login.draft.method {
        // A password goes in by one way or the other: if it does not, the operator has something to mend.
        case .command, .sasl(.plain), .sasl(.login), .sasl(.external): .misconfigured
        case .sasl(.xoauth2), .sasl(.oauthBearer), .sasl(.scramSHA256), .sasl(.scramSHA1): .mechanism
        }
      return refuse(backend.login, refusal, failure, on: loop)
    }
  }

  /// The connection can't go on. As long as no password was said, another address may do better.
  private func isBroken(
    _ broken: consuming BackendLogin, _ failure: LoginFailure, _ refusal: LoginRefusal? = nil,
    on loop: isolated EventLoop
  ) -> Next {
    let backend = broken
    let isConnecting = backend.stage == .connecting
    let failure =
      isConnecting && failure.reason == .backendError
      ? LoginFailure(.backendUnreachable, failure.detail) : failure
    guard !backend.isCommitted, !backend.others.isEmpty, loop.now < backend.deadline else {
      let known = refusal ?? (failure.reason == .backendCertificate ? .misconfigured : .unavailable)
      return failed(
        backend.login, backend.route, known, failure, isCommitted: backend.isCommitted, on: loop)
    }
    meterAttempt(failure)
    traceFailure(failure)
    return connect(backend.login, backend.route, backend.others, deadline: backend.deadline, failure, on: loop)
  }

  /// A deadline of the backend's was reached.
  func backendIsLate(_ late: consuming BackendLogin, on loop: isolated EventLoop) -> Next {
    var backend = late
    if backend.stage == .client {
      return refuse(backend.login, .cancelled, LoginFailure(.cancelled, "the client did not answer in time"), on: loop)
    }
    // That it connected causes no event of its own: the backend speaks first, and that is waited for.
    if backend.stage == .connecting, Syscall.peerAddress(backend.transport.descriptor) != nil {
      backend.stage = .dialogue
      if loop.now < backend.deadline {
        meterPart(.connect, backend.login, on: loop)
        return .rest(.backend(backend))
      }
    }
    let isConnecting = backend.stage == .connecting
    return isBroken(
      backend, LoginFailure(isConnecting ? .connectTimeout : .backendTimeout, backend.doing), on: loop)
  }

  // MARK: The client's part

  /// Passes a challenge on that only the client can answer.
  private func ask(_ asking: consuming BackendLogin, _ challenge: [UInt8], on loop: isolated EventLoop) -> Next {
    var backend = asking
    let login = backend.login
    loop.reply.removeAll(keepingCapacity: true)
    login.dialogue.challenge(challenge.span, &loop.reply)
    login.output.append(loop.reply.span)
    backend.stage = .client
    // It may have said its answer already.
    return hearClient(backend, on: loop)
  }

  /// Writes the challenge to the client and reads its answer.
  private func hearClient(_ asking: consuming BackendLogin, on loop: isolated EventLoop) -> Next {
    var backend = asking
    let login = backend.login
    switch converse(login, on: loop) {
    case .rest: return .rest(.backend(backend))
    case .end(let end): return .end(end)
    case .outcome(let outcome):
      switch outcome {
      case .respond:
        backend.stage = .dialogue
        loop.reply.removeAll(keepingCapacity: true)
        backend.dialogue.respond(login.draft, &loop.reply)
        login.draft.message.removeAll()
        var action = BackendAction.read
        if !backend.input.isEmpty { backend.listenAgain(&loop.reply, &action) }
        return act(backend, action, on: loop)
      case .cancel: return refuse(login, .cancelled, LoginFailure(.cancelled), on: loop)
      case .end(let why): return .go(.closing(Closing(login, SessionEnd(dialogue: why), at: loop.now)))
      case .failed(let failure): return .end(SessionEnd(client: failure))
      case .wantsMore, .isBlocked, .upgrade, .authenticate: return .rest(.backend(backend))
      }
    }
  }

  // MARK: Verdict

  private func isRefused(
    _ refused: consuming BackendLogin, _ refusal: LoginRefusal, _ answer: BackendAnswer, on loop: isolated EventLoop
  ) -> Next {
    let backend = refused
    let login = backend.login
    lease?.note(mayBeIn: false)
    var refusal = refusal
    // A master user's password is not the client's to hear.
    if case .backend(let said) = refusal, record.method == .sasl(.external) {
      let isClean = !login.draft.isRepeated(in: said.code.span)
      refusal = .backend(BackendAnswer(code: isClean ? said.code : []))
    }
    switch refusal {
    case .credentials:
      learn(.loginAnswered, on: loop)
      return refuse(login, refusal, LoginFailure(.refused, quote(answer, login)), on: loop)
    case .backend:
      if let target = referral(backend, answer, on: loop) {
        login.referrals += 1
        return follow(login, backend.route, to: target, on: loop)
      }
      learn(
        answer.blamesServer ? .loginRefused(answer.codeName, of: Session.userNumber(login)) : .loginAnswered, on: loop)
      return refuse(login, refusal, LoginFailure(.refusedOtherwise, quote(answer, login)), on: loop)
    case .unavailable, .misconfigured, .disabled, .limit, .mechanism, .cancelled:
      return refuse(login, refusal, LoginFailure(.refusedOtherwise, quote(answer, login)), on: loop)
    }
  }

  /// Referrals followed for one login.
  private static let mostReferrals = 3

  /// The backend that this one sends the user to, if it is one of ours; else the client is told and may follow itself.
  private func referral(
    _ backend: borrowing BackendLogin, _ answer: BackendAnswer, on loop: isolated EventLoop
  ) -> Backend? {
    // An exchange that the client takes part in can't be begun again without it. A master user is one backend's own: its
    // password goes nowhere else.
    switch record.method {
    case .sasl(let mechanism)? where mechanism.bindsName || mechanism == .external: return nil
    case .command?, .sasl?, nil: break
    }
    guard backend.login.referrals < Session.mostReferrals, let text = Referral.target(answer.code),
      let place = HostPort(text)
    else { return nil }
    let resolver = loop.house.resolver
    let found = loop.routes.backend(at: place, record.listener.mailProtocol) { resolver.has($0, $1) }
    guard let target = found, target != backend.route.backend else { return nil }
    // Nobody goes where operators want nobody.
    return loop.house.fleet.standing(target.name)?.admin.takesPart ?? true ? target : nil
  }

  /// The backend accepted: the dialogues and the password go, and what is left over is relayed first.
  private func relay(_ accepted: consuming BackendLogin, _ said: BackendAnswer, on loop: isolated EventLoop) -> Next {
    let backend = accepted
    let login = backend.login
    if let failure = count(on: loop) {
      // Others of the user's were let in at the same time. Its session there ends with the connection.
      learn(.loginAnswered, on: loop)
      lease?.note(mayBeIn: true)
      return refuse(login, .limit, failure, on: loop)
    }
    var answer = said
    if record.method == .sasl(.external) {
      answer.text = []
      answer.untagged = []
    }
    record.isLoggedIn = true
    lease?.admit()
    learn(.loginAnswered, on: loop)
    record.loginTook = loop.now - record.began
    logAcceptance(on: loop)
    meterAcceptance(login, on: loop)
    trace(.verdict, "accepted")
    if backend.dialogue.isDistrusted {
      loop.house.tellDistrust(backend.route.backend.name, record.listener.mailProtocol)
    }
    _ = login.dialogue.conclude(.accepted(answer), &loop.reply)
    login.output.append(loop.reply.span)
    let early = backend.copyInput(to: &login.output)
    var relay = Relay(backend.releaseTransport())
    relay.down.keepsEnd = isInPool
    relay.down.queue = exchange(&login.output, with: ByteQueue())
    relay.down.count = UInt64(early)
    relay.up.queue = exchange(&login.input, with: ByteQueue())
    relay.up.count = UInt64(relay.up.queue.count)
    // What TLS has read ahead of the client's causes no event.
    if client.hasPending { loop.again(token) }
    return .go(.relay(relay))
  }
}

/// The way to a login as far as a backend is not concerned: the conversation with the client, and the verdict.

internal import Logging
internal import Protocols

extension Session {
  // MARK: Client

  /// Answers the client until it has to wait.
  func talk(_ login: PreLogin, on loop: isolated EventLoop) -> Next {
    switch login.stage {
    case .header: return readHeader(login, on: loop)
    case .handshake: return shakeHands(login, on: loop)
    case .commands:
      switch converse(login, on: loop) {
      case .rest: return .rest(.client(login))
      case .end(let end): return .end(end)
      case .outcome(let outcome): return follow(login, outcome, on: loop)
      }
    case .upgrading:
      // The answer to STARTTLS is drained before the first byte of TLS.
      switch flush(login) {
      case .rest?: return .rest(.client(login))
      case .end(let end)?: return .end(end)
      case .outcome?, nil: break
      }
      guard let tls = record.listener.context, client.upgrade(tls) else { return .end(SessionEnd(.outOfMemory)) }
      login.stage = .handshake
      meterStart(login, on: loop)
      return .go(.client(login))
    }
  }

  private func shakeHands(_ login: PreLogin, on loop: isolated EventLoop) -> Next {
    guard loop.mayHandshake() else { return .rest(.client(login)) }
    login.handshakeWrites = false
    switch client.handshake() {
    case .done:
      loop.reply.removeAll(keepingCapacity: true)
      login.dialogue.secured(client.certificate, &loop.reply)
      login.output.append(loop.reply.span)
      login.stage = .commands
      meterHandshake(login, on: loop)
      return .go(.client(login))
    case .blocked(let why):
      login.handshakeWrites = why == .writable
      return .rest(.client(login))
    case .closed: return .end(SessionEnd(.clientClosed))
    case .failed(let failure): return .end(SessionEnd(client: failure))
    }
  }

  /// What a turn of the conversation came to.
  enum Conversed {
    /// The client has said nothing more.
    case rest
    case end(SessionEnd)
    case outcome(Heard.Outcome)
  }

  /// Writes what is left to be said, then reads and answers what the client says.
  func converse(_ login: PreLogin, on loop: isolated EventLoop) -> Conversed {
    if let stopped = flush(login) { return stopped }
    if !login.input.isEmpty {
      let heard = listen(login, login.input.span, on: loop)
      login.input.removeFirst(heard.consumed)
      if heard.outcome != .wantsMore { return .outcome(heard.outcome) }
    }
    // Each read is of 64 KiB; a client that keeps the first full is not one that logs in.
    for _ in 0..<2 {
      let count: Int
      switch client.read(into: &loop.scratch) {
      case .bytes(let read): count = read
      case .blocked: return .rest
      case .closed: return .end(SessionEnd(.clientClosed))
      case .failed(let failure): return .end(SessionEnd(client: failure))
      }
      let outcome: Heard.Outcome
      if login.input.isEmpty {
        let heard = listen(login, loop.scratch.span(count), on: loop)
        login.input.append(loop.scratch.span(count).extracting(heard.consumed...))
        outcome = heard.outcome
      } else {
        login.input.append(loop.scratch.span(count))
        let heard = listen(login, login.input.span, on: loop)
        login.input.removeFirst(heard.consumed)
        outcome = heard.outcome
      }
      loop.scratch.wipe(count)
      guard outcome == .wantsMore else { return .outcome(outcome) }
      if count < loop.scratch.size, !client.hasPending { return .rest }
    }
    loop.again(token)
    return .rest
  }

  /// Writes what is left to be said; nil if all went.
  private func flush(_ login: PreLogin) -> Conversed? {
    guard !login.output.isEmpty else { return nil }
    let (written, stop) = client.write(login.output.span)
    login.output.removeFirst(written)
    switch stop {
    case nil: return nil
    case .blocked?: return .rest
    case .failed(let failure)?: return .end(SessionEnd(client: failure))
    case .bytes?, .closed?: return .end(SessionEnd(.clientClosed))
    }
  }

  /// What came of the client's bytes.
  struct Heard {
    let consumed: Int
    let outcome: Outcome

    enum Outcome: Equatable {
      /// All commands there are were answered.
      case wantsMore
      /// The client does not take the answers; no further command is looked at.
      case isBlocked
      case upgrade
      case authenticate
      /// The client answered a backend's challenge.
      case respond
      case cancel
      case end(ClientEnd)
      case failed(IOFailure)
    }
  }

  /// Answers gathered before they are written.
  private static let replyBatch = 4_096

  /// Lets the dialogue answer one command after the other.
  private func listen(_ login: PreLogin, _ bytes: Span<UInt8>, on loop: isolated EventLoop) -> Heard {
    loop.reply.removeAll(keepingCapacity: true)
    var consumed = 0
    var outcome = Heard.Outcome.wantsMore
    loop: while consumed < bytes.count {
      let step = login.dialogue.receive(bytes.extracting(consumed...), &login.draft, &loop.reply)
      consumed += step.consumed
      switch step.action {
      case .read: break loop
      case .proceed:
        guard loop.reply.count >= Session.replyBatch else { continue }
        if let failure = say(login, on: loop) { return Heard(consumed: consumed, outcome: .failed(failure)) }
        guard login.output.isEmpty else { return Heard(consumed: consumed, outcome: .isBlocked) }
      case .upgrade:
        outcome = .upgrade
        break loop
      case .authenticate:
        outcome = .authenticate
        break loop
      case .respond:
        outcome = .respond
        break loop
      case .cancel:
        outcome = .cancel
        break loop
      case .end(let why):
        outcome = .end(why)
        break loop
      }
    }
    // What a client behind STARTTLS has not seen yet is not said either: the session ends.
    if outcome == .upgrade, consumed < bytes.count { return Heard(consumed: consumed, outcome: .upgrade) }
    if let failure = say(login, on: loop) { return Heard(consumed: consumed, outcome: .failed(failure)) }
    return Heard(consumed: consumed, outcome: outcome)
  }

  /// Writes the loop's reply; what does not go is kept.
  private func say(_ login: PreLogin, on loop: isolated EventLoop) -> IOFailure? {
    var written = 0
    if login.output.isEmpty, !loop.reply.isEmpty {
      let result = client.write(loop.reply.span)
      written = result.written
      if case .failed(let failure)? = result.stop { return failure }
    }
    login.output.append(loop.reply.span.extracting(written...))
    loop.reply.removeAll(keepingCapacity: true)
    return nil
  }

  private func follow(_ login: PreLogin, _ outcome: Heard.Outcome, on loop: isolated EventLoop) -> Next {
    switch outcome {
    case .wantsMore, .isBlocked: return .rest(.client(login))
    case .upgrade:
      // RFC 9051 §6.2.1, RFC 2595 §4: what stands behind the command was not said to a TLS server.
      guard login.input.isEmpty else { return .end(SessionEnd(.startTLSInjection)) }
      login.stage = .upgrading
      return .go(.client(login))
    case .authenticate: return authenticate(login, on: loop)
    case .respond, .cancel: preconditionFailure("an answer to a challenge nobody passed on")
    case .end(let why): return .go(.closing(Closing(login, SessionEnd(dialogue: why), at: loop.now)))
    case .failed(let failure): return .end(SessionEnd(client: failure))
    }
  }

  /// The last words before a login. Under a handshake there is no way to say any.
  func farewell(_ login: PreLogin, _ words: Farewell, _ end: SessionEnd, on loop: isolated EventLoop) -> Next {
    switch login.stage {
    case .header, .handshake, .upgrading: return .end(end)
    case .commands:
      loop.reply.removeAll(keepingCapacity: true)
      login.dialogue.farewell(words, &loop.reply)
      login.output.append(loop.reply.span)
      return .go(.closing(Closing(login, end, at: loop.now)))
    }
  }

  // MARK: Waits

  /// A wait may be over.
  func waitOn(_ login: PreLogin, _ wait: Wait, on loop: isolated EventLoop) -> Next {
    switch wait {
    case .refusal(let refusal, let time):
      guard loop.now >= time else { return .rest(.waiting(login, wait)) }
      return conclude(login, refusal, on: loop)
    case .addressName(let until): return search(login, until: until, on: loop)
    case .source(var search, let until):
      guard loop.now >= until else { return .rest(.waiting(login, wait)) }
      search.expire()
      return find(login, search, on: loop)
    case .pause(let search, let until):
      guard loop.now >= until else { return .rest(.waiting(login, wait)) }
      return find(login, search, on: loop)
    case .place(let route, let until): return advance(login, route, until: until, on: loop)
    case .resolver(_, let until):
      guard loop.now >= until else { return .rest(.waiting(login, wait)) }
      return refuse(
        login, .unavailable, LoginFailure(.backendUnresolved, "the resolver did not answer in time"), on: loop)
    }
  }

  // MARK: Verdict

  /// Refuses after a while, as a backend would that takes its time for a wrong password.
  func refuseLater(
    _ login: PreLogin, _ failure: LoginFailure, _ refusal: LoginRefusal = .credentials, after delay: UInt64? = nil,
    on loop: isolated EventLoop
  ) -> Next {
    note(failure, refusal, on: loop)
    let time = loop.now + (delay ?? loop.plan.settings.timeouts.failureDelay)
    return .rest(.waiting(login, .refusal(refusal, at: time)))
  }

  /// Refuses at once.
  func refuse(
    _ login: PreLogin, _ refusal: LoginRefusal, _ failure: LoginFailure, on loop: isolated EventLoop
  ) -> Next {
    note(failure, refusal, on: loop)
    return conclude(login, refusal, on: loop)
  }

  /// Tells the client that it is not logged in; it may go on.
  private func conclude(_ login: PreLogin, _ refusal: LoginRefusal, on loop: isolated EventLoop) -> Next {
    forgetBackend()
    release(on: loop)
    login.draft.reset()
    loop.reply.removeAll(keepingCapacity: true)
    let action = login.dialogue.conclude(.refused(refusal), &loop.reply)
    login.output.append(loop.reply.span)
    switch action {
    case .end(let why): return .go(.closing(Closing(login, SessionEnd(dialogue: why), at: loop.now)))
    case .proceed, .read, .upgrade, .authenticate, .respond, .cancel: return .go(.client(login))
    }
  }

  private func note(_ failure: LoginFailure, _ refusal: LoginRefusal, on loop: isolated EventLoop) {
    record.lastFailure = failure.reason
    meterFailure(failure, on: loop)
    traceFailure(failure)
    logFailure(failure, refusal, on: loop)
  }
}

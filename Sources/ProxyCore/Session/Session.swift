/// One client's connection, from accept to close: drives the dialogues and the relay.
///
/// Belongs to its loop. `step` runs after every event: it looks at the phase, does what is possible, and then sets once
/// what the two descriptors are watched for and when patience ends.

internal import Logging
internal import Protocols

final class Session {
  let token: Token
  var record: SessionRecord
  var client: Transport
  private var phase: SessionPhase
  private var watched: PollSet.Interest?
  private var backendWatched: PollSet.Interest?
  /// The kernel said that a connection is dead while nobody wanted to read from it: watching it further would spin.
  private var isHungUp = false
  private var isBackendHungUp = false
  /// What it holds at a backend.
  var lease: Lease?
  /// What it is counted as, where there are bounds.
  var counted: [Census.Key] = []
  /// The bounds that a login comes under, until it is let in.
  var bounds: [SessionBound] = []

  /// The two sides, as events name them.
  enum Side { case client, backend }

  /// What a phase's turn came to.
  enum Next: ~Copyable {
    /// Nothing more is possible before the next event.
    case rest(SessionPhase)
    /// Another phase begins, or the same again.
    case go(SessionPhase)
    case end(SessionEnd)
  }

  init(_ token: Token, _ client: consuming Transport, _ record: SessionRecord, _ login: PreLogin) {
    self.token = token
    self.client = client
    self.record = record
    phase = .client(login)
  }

  // MARK: What happens to it

  /// The connection was accepted.
  func begin(on loop: isolated EventLoop) {
    guard case .client(let login) = exchange(&phase, with: .ended) else {
      preconditionFailure("a session begins twice")
    }
    if let networks = record.listener.proxyNetworks, !networks.contain(record.peer) {
      return finish(SessionEnd(.untrustedProxy), on: loop)
    }
    if let end = welcome(login, on: loop) { return finish(end, on: loop) }
    run(.go(.client(login)), nil, on: loop)
  }

  /// Begins the conversation, now that it is known whose it is. Returns the session's end if there is no memory.
  func welcome(_ login: PreLogin, on loop: isolated EventLoop) -> SessionEnd? {
    if login.stage != .header, !countAddress(on: loop) {
      // Said in the clear where the first word is ours; a handshake would cost us more than it is worth.
      if login.stage == .commands {
        loop.reply.removeAll(keepingCapacity: true)
        login.dialogue.farewell(.limit, &loop.reply)
        _ = client.write(loop.reply.span)
      }
      client.shutdownWrite()
      return SessionEnd(.addressLimit)
    }
    if login.stage != .header, loop.plan.settings.trustedProxies.contain(record.client) {
      var terms = record.listener.terms
      terms.peer = .trustedProxy
      login.dialogue = ClientDialogue(record.listener.mailProtocol, terms)
    }
    if login.stage != .header { logConnection(login, on: loop) }
    switch login.stage {
    case .header: break
    case .handshake:
      guard let tls = record.listener.context, client.upgrade(tls) else { return SessionEnd(.outOfMemory) }
      meterStart(login, on: loop)
    case .commands:
      loop.reply.removeAll(keepingCapacity: true)
      login.dialogue.greet(&loop.reply)
      login.output.append(loop.reply.span)
    case .upgrading: preconditionFailure("a session begins with STARTTLS")
    }
    return nil
  }

  /// An event on one of its descriptors.
  func ready(_ side: Side, isHangup: Bool, on loop: isolated EventLoop) {
    if isHangup {
      switch side {
      case .client:
        isHungUp = true
        // Nothing is read from the client meanwhile, and nobody is left to be told the answer.
        if phase.isAwayFromClient { return finish(SessionEnd(.clientClosed), on: loop) }
      // Of several attempts to connect one may fail, and another be watched further.
      case .backend: if !phase.isConnecting { isBackendHungUp = true }
      }
    }
    step(side, on: loop)
  }

  /// Does what is possible. `side`: where something happened; nil if it may be anywhere.
  func step(_ side: Side? = nil, on loop: isolated EventLoop) {
    run(.go(exchange(&phase, with: .ended)), side, on: loop)
  }

  /// Its deadline has come.
  func expire(on loop: isolated EventLoop) {
    let doing = phase.doing
    switch exchange(&phase, with: .ended) {
    case .client(let login):
      if login.stage == .header {
        return finish(SessionEnd(.proxyHeader, "it did not come in time"), doing: login.stage.doing, on: loop)
      }
      run(farewell(login, .inactivity, SessionEnd(.loginTimeout), on: loop), nil, doing: doing, on: loop)
    case .waiting(let login, let wait):
      guard loop.now < login.deadline else {
        return run(farewell(login, .inactivity, SessionEnd(.loginTimeout), on: loop), nil, doing: doing, on: loop)
      }
      run(.go(.waiting(login, wait)), nil, doing: doing, on: loop)
    case .connecting(let connecting):
      guard loop.now < connecting.login.deadline else {
        return run(
          farewell(connecting.login, .inactivity, SessionEnd(.loginTimeout), on: loop), nil, doing: doing, on: loop)
      }
      run(.go(.connecting(connecting)), nil, doing: doing, on: loop)
    case .backend(let backend):
      guard loop.now < backend.login.deadline else {
        return run(
          farewell(backend.login, .inactivity, SessionEnd(.loginTimeout), on: loop), nil, doing: doing, on: loop)
      }
      run(backendIsLate(backend, on: loop), .backend, on: loop)
    case .relay(let relay):
      if let trail = record.trail, loop.now < trail.patience {
        // Only the login is to be told again.
        phase = .relay(relay)
        repeatLogin(trail, on: loop)
        return loop.setDeadline(token, trail.next)
      }
      let end = SessionEnd(relay.isHalfClosed ? .halfClosedTimeout : .idleTimeout)
      leave(relay, .inactivity, end, on: loop)
    case .closing(let closing):
      let end = closing.end
      if closing.holds > 0 { client.shutdownWrite() }
      phase = .closing(closing)
      finish(end, on: loop)
    case .ended: break
    }
  }

  /// The answer to a question for a backend's addresses. It may come when the session has gone on.
  func resolved(_ answer: Resolver.Answer, of name: String, on loop: isolated EventLoop) {
    guard let (login, route) = phase.resolving(name) else { return }
    phase = .ended
    run(connect(login, route, answer, on: loop), nil, on: loop)
  }

  /// A source's answer to a question. It may come when the session has gone on.
  func answered(_ answer: SourceAnswer, _ number: Int, turn: Int, on loop: isolated EventLoop) {
    guard case (let login, var search)? = phase.searching(number), search.take(answer, turn: turn) else { return }
    phase = .ended
    run(find(login, search, on: loop), nil, on: loop)
  }

  /// The proxy stops: who is not logged in is told so, and relays go on.
  func retire(on loop: isolated EventLoop) {
    let doing = phase.doing
    switch exchange(&phase, with: .ended) {
    case .client(let login):
      run(farewell(login, .shutdown, SessionEnd(.shutdown), on: loop), nil, doing: doing, on: loop)
    case .waiting(let login, _):
      run(farewell(login, .shutdown, SessionEnd(.shutdown), on: loop), nil, doing: doing, on: loop)
    case .connecting(let connecting):
      run(farewell(connecting.login, .shutdown, SessionEnd(.shutdown), on: loop), nil, doing: doing, on: loop)
    case .backend(let backend):
      run(farewell(backend.login, .shutdown, SessionEnd(.shutdown), on: loop), nil, doing: doing, on: loop)
    case .relay(let relay): phase = .relay(relay)
    case .closing(let closing): phase = .closing(closing)
    case .ended: break
    }
  }

  /// The proxy stops now.
  func stop(on loop: isolated EventLoop) {
    switch exchange(&phase, with: .ended) {
    case .relay(let relay): leave(relay, .shutdown, SessionEnd(.shutdown), on: loop)
    case let other:
      phase = other
      client.shutdownWrite()
      finish(SessionEnd(.shutdown), on: loop)
    }
  }

  /// Its time here is over, by somebody's decision: the client is told that it may come again. A login that only has to go
  /// elsewhere does.
  func kick(_ eviction: Eviction, on loop: isolated EventLoop) {
    let reason = eviction.reason
    let doing = phase.doing
    if let (login, route) = phase.placing(), mayGoElsewhere(login, reason) {
      phase = .ended
      return run(displace(login, route, on: loop), nil, doing: doing, on: loop)
    }
    switch exchange(&phase, with: .ended) {
    case .client(let login):
      run(farewell(login, .ended, SessionEnd(reason), on: loop), nil, doing: doing, on: loop)
    case .waiting(let login, _):
      run(farewell(login, .ended, SessionEnd(reason), on: loop), nil, doing: doing, on: loop)
    case .connecting(let connecting):
      run(farewell(connecting.login, .ended, SessionEnd(reason), on: loop), nil, doing: doing, on: loop)
    case .backend(let backend):
      run(farewell(backend.login, .ended, SessionEnd(reason), on: loop), nil, doing: doing, on: loop)
    case .relay(let relay): leave(relay, .ended, SessionEnd(reason), on: loop)
    case .closing(let closing):
      phase = .closing(closing)
      return
    case .ended: return
    }
    loop.house.meters.evictions.add(eviction)
  }

  /// Ends a relay with a last word, where it can't stand in the middle of one of the backend's (RFC 9051 §5.4, RFC 1939
  /// §3). Best effort: a client that does not read misses it.
  private func leave(
    _ left: consuming Relay, _ words: Farewell, _ end: SessionEnd, on loop: isolated EventLoop
  ) {
    let relay = left
    if relay.takesFarewell {
      var dialogue = ClientDialogue(record.listener.mailProtocol, record.listener.terms)
      loop.reply.removeAll(keepingCapacity: true)
      dialogue.farewell(words, &loop.reply)
      _ = client.write(loop.reply.span)
    }
    phase = .relay(relay)
    client.shutdownWrite()
    finish(end, on: loop)
  }

  /// What it is doing, for people.
  var doing: String { phase.doing }

  /// Ends it here and now. Descriptors are closed when the loop lets go of it.
  func finish(_ end: SessionEnd, on loop: isolated EventLoop) { finish(end, doing: phase.doing, on: loop) }

  private func finish(_ end: SessionEnd, doing: String, on loop: isolated EventLoop) {
    if case .relay(let relay) = exchange(&phase, with: .ended) { meterBytes(relay, on: loop) }
    // The backend's connection is closed by now: the user may be placed elsewhere.
    releaseAll(on: loop)
    meterEnd(end, doing: doing, on: loop)
    traceEnd(end, doing: doing)
    logEnd(end, doing: doing, on: loop)
    loop.leave(token)
  }

  // MARK: Turns

  private func run(
    _ start: consuming Next, _ side: Side?, doing before: String = "", on loop: isolated EventLoop
  ) {
    var next = start
    var doing = before
    while true {
      switch consume next {
      case .go(let phase):
        doing = phase.doing
        next = advance(phase, side, on: loop)
      case .rest(let phase):
        self.phase = phase
        return settle(on: loop)
      case .end(let end): return finish(end, doing: doing, on: loop)
      }
    }
  }

  private func advance(_ phase: consuming SessionPhase, _ side: Side?, on loop: isolated EventLoop) -> Next {
    switch consume phase {
    case .client(let login): talk(login, on: loop)
    case .waiting(let login, let wait): waitOn(login, wait, on: loop)
    case .connecting(let connecting): race(connecting, on: loop)
    case .backend(let backend): logIn(backend, side, on: loop)
    case .relay(let relay): carry(relay, side, on: loop)
    case .closing(let closing): close(closing, on: loop)
    case .ended: preconditionFailure("a session that is over has a turn")
    }
  }

  /// Watches for what the phase needs, and sets its deadline.
  private func settle(on loop: isolated EventLoop) {
    let timeouts = loop.plan.settings.timeouts
    var wanted = PollSet.Interest()
    var backendWanted: PollSet.Interest?
    let deadline: UInt64
    switch phase {
    case .client(let login):
      // A handshake that waits to write reads nothing meanwhile: a client that sends on would keep the loop busy.
      wanted.reads = login.output.isEmpty && !login.handshakeWrites
      wanted.writes = !login.output.isEmpty || login.handshakeWrites
      deadline = login.stage == .header ? min(login.deadline, record.began + timeouts.proxyHeader) : login.deadline
    case .waiting(let login, let wait): deadline = min(login.deadline, wait.deadline)
    case .connecting(let connecting): deadline = min(connecting.login.deadline, connecting.wakes)
    case .backend(let backend):
      if backend.isCommitted { lease?.note(mayBeIn: true) }
      backendWanted = backend.interest
      deadline = min(backend.login.deadline, backend.patience)
      if backend.stage == .client {
        wanted.reads = backend.login.output.isEmpty
        wanted.writes = !backend.login.output.isEmpty
      }
    case .relay(let relay):
      meterBytes(relay, on: loop)
      wanted = relay.clientInterest
      backendWanted = relay.backendInterest
      let patience = loop.now + (relay.isHalfClosed ? timeouts.halfClosed : timeouts.idle)
      deadline = record.trail?.extend(to: patience) ?? patience
    case .closing(let closing):
      release(on: loop)
      let isHeld = loop.now < closing.holds
      wanted.reads = closing.isShutDown || isHeld
      wanted.writes = !closing.isShutDown && !isHeld
      deadline = closing.deadline
    case .ended: preconditionFailure("a session that is over is settled")
    }
    guard watchClient(wanted, on: loop), watchBackend(backendWanted, on: loop) else {
      return finish(SessionEnd(.outOfMemory), on: loop)
    }
    loop.setDeadline(token, deadline)
  }

  /// False if the kernel has no memory for it.
  private func watchClient(_ interest: PollSet.Interest, on loop: isolated EventLoop) -> Bool {
    let wanted = isHungUp && interest == PollSet.Interest() ? nil : interest
    let error = loop.watch(client.descriptor, token, from: watched, to: wanted)
    watched = wanted
    return isWatched(error)
  }

  /// False if the kernel has no memory for it.
  private func watchBackend(_ interest: PollSet.Interest?, on loop: isolated EventLoop) -> Bool {
    let wanted = isBackendHungUp && interest == PollSet.Interest() ? nil : interest
    let error: SystemError?
    switch phase {
    case .backend(let backend):
      error = loop.watch(backend.transport.descriptor, token.with(.backend), from: backendWatched, to: wanted)
    case .relay(let relay):
      error = loop.watch(relay.backend.descriptor, token.with(.backend), from: backendWatched, to: wanted)
    // Each attempt is watched for itself.
    case .connecting: return true
    // The descriptor is closed, and thereby forgotten by the kernel.
    case .client: return forgetBackend()
    case .waiting: return forgetBackend()
    case .closing: return forgetBackend()
    case .ended: return forgetBackend()
    }
    backendWatched = wanted
    return isWatched(error)
  }

  /// The backend's connection is in the set already.
  func backendIsWatched(_ interest: PollSet.Interest) { backendWatched = interest }

  /// The backend's connection is gone, or replaced by another.
  @discardableResult
  func forgetBackend() -> Bool {
    backendWatched = nil
    isBackendHungUp = false
    return true
  }

  /// A descriptor can't be watched if the kernel has no memory, or the user's limit of watches is reached; all else is our
  /// mistake.
  private func isWatched(_ error: SystemError?) -> Bool {
    guard let error else { return true }
    precondition(error.isOutOfMemory || error.code == SystemError.noSpace, "epoll_ctl: \(error)")
    return false
  }
}

/// Connecting to a backend: one address, or several at a time that differ by a quarter of a second (RFC 8305).

internal import Protocols

/// Attempts to connect, of which the first that stands wins.
struct Connecting: ~Copyable {
  let login: PreLogin
  let route: PlacedRoute
  /// Addresses not tried yet.
  var others: ArraySlice<SocketAddress>
  var attempts: [ConnectAttempt] = []
  /// What became of the last attempt that failed.
  private(set) var failure: LoginFailure
  /// Whether that was one of these attempts', which is counted once another is.
  private var hasFailed = false
  /// When the next address is tried beside the attempts under way.
  var nextAttempt = UInt64.max
  /// When the backend must have answered.
  let deadline: UInt64

  /// RFC 8305 §8: Connection Attempt Delay, 250 ms.
  static let stagger = Timeouts.milliseconds(250)

  init(
    _ login: PreLogin, _ route: PlacedRoute, _ addresses: ArraySlice<SocketAddress>, deadline: UInt64,
    _ failure: LoginFailure
  ) {
    self.login = login
    self.route = route
    others = addresses
    self.deadline = deadline
    self.failure = failure
  }

  /// An attempt has failed. What we lack ourselves says nothing of the backend, so that what another attempt showed holds.
  mutating func fail(_ failure: LoginFailure, _ meter: BackendMeter?) {
    if failure.reason == .noSocket, hasFailed, self.failure.reason != .noSocket {
      meter?.failures.add(failure.reason)
      return
    }
    countFailure(meter)
    self.failure = failure
    hasFailed = true
  }

  /// Counts the last failure, unless it is what the login fails for: that is counted as such.
  func countFailure(_ meter: BackendMeter?) { if hasFailed { meter?.failures.add(failure.reason) } }

  /// When it has to be looked at again.
  var wakes: UInt64 {
    attempts.reduce(min(deadline, others.isEmpty ? .max : nextAttempt)) { min($0, $1.deadline) }
  }
}

/// One connection under way.
final class ConnectAttempt {
  private var transport: Transport?
  let address: SocketAddress
  /// When it is given up.
  let deadline: UInt64

  enum Standing {
    case pending
    case connected
    case failed(SystemError)
  }

  init(_ transport: consuming Transport, _ address: SocketAddress, deadline: UInt64) {
    self.transport = consume transport
    self.address = address
    self.deadline = deadline
  }

  /// The kernel tells an error once: an attempt that has failed is asked no more.
  var standing: Standing {
    switch transport {
    case .some(let transport):
      if let error = Syscall.pendingError(transport.descriptor) { return .failed(error) }
      return Syscall.peerAddress(transport.descriptor) == nil ? .pending : .connected
    case .none: preconditionFailure("an attempt without a connection")
    }
  }

  /// Watches for the moment it stands.
  func watch(_ token: Token, on loop: isolated EventLoop) -> SystemError? {
    switch transport {
    case .some(let transport): loop.watch(transport.descriptor, token, from: nil, to: ConnectAttempt.interest)
    case .none: preconditionFailure("an attempt without a connection")
    }
  }

  static let interest = PollSet.Interest(reads: false, writes: true)

  /// Gives the connection out.
  func release() -> Transport {
    guard let transport = transport.take() else { preconditionFailure("a connection is released twice") }
    return transport
  }
}

extension Session {
  /// Connects to a backend whose addresses were asked for.
  func connect(_ login: PreLogin, _ route: PlacedRoute, _ answer: Resolver.Answer, on loop: isolated EventLoop) -> Next
  {
    let addresses: [SocketAddress]
    switch answer {
    case .addresses(let known): addresses = known.map { $0.with(port: route.backend.port) }
    case .failed(let reason):
      return failed(
        login, route, .unavailable, LoginFailure(.backendUnresolved, reason), isCommitted: false, on: loop)
    }
    if let own = addresses.first(where: { isOwn($0, on: loop) }) {
      return refuse(login, .misconfigured, LoginFailure(.loop, "\(own) is an address of this proxy"), on: loop)
    }
    let deadline = loop.now + loop.plan.settings.timeouts.backendLogin
    return connect(login, route, addresses[...], deadline: deadline, LoginFailure(.backendUnreachable), on: loop)
  }

  /// Whether we would connect to ourselves. A listener on all addresses is recognised by the address the client came to,
  /// and by the loopback's; a longer way round is stopped by the TTL.
  private func isOwn(_ address: SocketAddress, on loop: isolated EventLoop) -> Bool {
    loop.plan.listeners.contains { bound in
      let own = bound.listener.address
      guard own.port == address.port, own.family == address.family else { return false }
      guard own.isAny else { return own == address }
      let here = Syscall.localAddress(client.descriptor)
      return address.isLoopback || here?.with(port: 0) == address.with(port: 0)
    }
  }

  /// Connects to one of `addresses`; `failure` is what became of the one before.
  func connect(
    _ login: PreLogin, _ route: PlacedRoute, _ addresses: ArraySlice<SocketAddress>, deadline: UInt64,
    _ failure: LoginFailure, on loop: isolated EventLoop
  ) -> Next {
    forgetBackend()
    record.backendTLS = nil
    let connecting = Connecting(login, route, addresses, deadline: deadline, failure)
    return race(connecting, on: loop)
  }

  /// Looks who of the attempts stands, and begins another if none does or it is time.
  func race(_ entered: consuming Connecting, on loop: isolated EventLoop) -> Next {
    var connecting = entered
    var pending: [ConnectAttempt] = []
    for attempt in connecting.attempts {
      switch attempt.standing {
      case .connected: return isConnected(connecting, attempt, on: loop)
      case .failed(let error):
        connecting.fail(LoginFailure(.backendUnreachable, "\(attempt.address): \(error)"), record.meter)
      case .pending where loop.now >= attempt.deadline:
        connecting.fail(LoginFailure(.connectTimeout, "\(attempt.address)"), record.meter)
      case .pending: pending.append(attempt)
      }
    }
    connecting.attempts = pending
    guard loop.now < connecting.deadline else {
      return failed(
        connecting.login, connecting.route, .unavailable, LoginFailure(.connectTimeout), isCommitted: false, on: loop)
    }
    while connecting.attempts.isEmpty || loop.now >= connecting.nextAttempt, let address = connecting.others.popFirst()
    {
      record.backendAddress = address
      trace(.connect, "\(address)")
      switch begin(address, on: loop) {
      case .failure(let failure): connecting.fail(failure, record.meter)
      case .success(let attempt):
        // A server that speaks first will tell that the connection stands by its greeting: no event is needed before.
        if connecting.attempts.isEmpty, connecting.others.isEmpty, !speaksFirst(connecting.route) {
          connecting.countFailure(record.meter)
          return talk(connecting.login, connecting.route, attempt, .connecting, connecting.deadline, [], on: loop)
        }
        switch attempt.standing {
        case .connected: return isConnected(connecting, attempt, on: loop)
        case .failed(let error):
          connecting.fail(LoginFailure(.backendUnreachable, "\(address): \(error)"), record.meter)
          continue
        case .pending: break
        }
        if let error = attempt.watch(token.with(.backend), on: loop) {
          return refuse(connecting.login, .unavailable, LoginFailure(.noSocket, "\(error)"), on: loop)
        }
        connecting.attempts.append(attempt)
        connecting.nextAttempt = loop.now + Connecting.stagger
      }
    }
    guard !connecting.attempts.isEmpty else {
      return failed(
        connecting.login, connecting.route, .unavailable, connecting.failure, isCommitted: false, on: loop)
    }
    return .rest(.connecting(connecting))
  }

  private func begin(_ address: SocketAddress, on loop: isolated EventLoop) -> Result<ConnectAttempt, LoginFailure> {
    switch Syscall.streamSocket(address.family) {
    case .failure(let error) where error.isOutOfDescriptors || error.isOutOfMemory:
      return .failure(LoginFailure(.noSocket, "\(error)"))
    case .failure(let error): return .failure(LoginFailure(.backendUnreachable, "\(address): \(error)"))
    case .success(let fd):
      let transport = Transport(Descriptor(owning: fd))
      _ = Syscall.setOption(transport.descriptor, .noDelay, 1)
      KeepAlive.set(transport.descriptor)
      if let error = Syscall.connect(transport.descriptor, to: address) {
        return .failure(LoginFailure(error.isLackToConnect ? .noSocket : .backendUnreachable, "\(address): \(error)"))
      }
      return .success(
        ConnectAttempt(transport, address, deadline: loop.now + loop.plan.settings.timeouts.connect))
    }
  }

  /// One of the attempts stands; the others are closed with their last reference.
  private func isConnected(
    _ connecting: borrowing Connecting, _ attempt: ConnectAttempt, on loop: isolated EventLoop
  ) -> Next {
    record.backendAddress = attempt.address
    meterPart(.connect, connecting.login, on: loop)
    connecting.countFailure(record.meter)
    var addresses = connecting.others
    for other in connecting.attempts where other !== attempt { addresses.append(other.address) }
    // Watched it is already, unless it stood at once.
    if connecting.attempts.contains(where: { $0 === attempt }) { backendIsWatched(ConnectAttempt.interest) }
    return talk(connecting.login, connecting.route, attempt, .preamble, connecting.deadline, addresses, on: loop)
  }

  /// Whether other members of a pool may do better.
  var isInPool: Bool {
    switch lease {
    case .pool?: true
    case .backend?, nil: false
    }
  }

  /// Whether we have something to say before the server's greeting: a PROXY header, or TLS.
  private func speaksFirst(_ route: PlacedRoute) -> Bool {
    let manner = route.backend.link.manner
    return manner.tls == .implicit || manner.proxyProtocol != .off
  }

  /// Begins the dialogue on a connection.
  private func talk(
    _ login: PreLogin, _ route: PlacedRoute, _ attempt: ConnectAttempt, _ stage: BackendLogin.Stage, _ deadline: UInt64,
    _ others: ArraySlice<SocketAddress>, on loop: isolated EventLoop
  ) -> Next {
    let manner = route.backend.link.manner
    let channel: BackendChannel =
      switch manner.tls {
      case .off: .trusted(.plaintextByConfiguration)
      case .startTLS: .startTLSFirst
      // The dialogue hears nothing before the handshake is done.
      case .implicit: .trusted(.encrypted)
      }
    let terms = BackendTerms(channel: channel, client: introduction(login, route), pace: manner.pace)
    var backend = BackendLogin(
      login, route, BackendDialogue(record.listener.mailProtocol, terms), attempt.release(), stage: stage,
      others: others, hasOthers: !others.isEmpty || isInPool, deadline: deadline,
      connectDeadline: min(deadline, attempt.deadline))
    if isTraced { backend.trace = TracedDialogue(record.listener.mailProtocol) }
    loop.reply.removeAll(keepingCapacity: true)
    appendProxyHeader(login, route, &loop.reply)
    backend.output.append(loop.reply.span)
    return stage == .connecting ? .rest(.backend(backend)) : .go(.backend(backend))
  }
}

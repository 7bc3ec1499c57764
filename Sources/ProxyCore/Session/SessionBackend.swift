/// The way through a backend: connecting, logging in there, and over to the relay.

internal import Protocols

extension Session {
  /// Connects to a backend whose addresses were asked for.
  func connect(_ login: PreLogin, _ route: Route, _ answer: Resolver.Answer, on loop: isolated EventLoop) -> Next {
    switch answer {
    case .addresses(let addresses):
      let deadline = loop.now + loop.plan.settings.timeouts.backendLogin
      return connect(login, route, addresses[...], deadline: deadline, LoginFailure(.backendUnreachable), on: loop)
    case .failed(let reason): return refuse(login, .unavailable, LoginFailure(.backendUnresolved, reason), on: loop)
    }
  }

  /// Begins to connect to the first of `addresses` that can be tried; `failure` is what became of the one before.
  private func connect(
    _ login: PreLogin, _ route: Route, _ addresses: ArraySlice<SocketAddress>, deadline: UInt64,
    _ failure: LoginFailure, on loop: isolated EventLoop
  ) -> Next {
    forgetBackend()
    var others = addresses
    var failure = failure
    while let next = others.popFirst() {
      let address = next.with(port: route.backend.port)
      record.backendAddress = address
      switch Syscall.streamSocket(address.family) {
      case .failure(let error) where error.isOutOfDescriptors || error.isOutOfMemory:
        return refuse(login, .unavailable, LoginFailure(.noSocket, "\(error)"), on: loop)
      case .failure(let error): failure = LoginFailure(.backendUnreachable, "\(error)")
      case .success(let fd):
        let transport = Transport(Descriptor(owning: fd))
        _ = Syscall.setOption(transport.descriptor, .noDelay, 1)
        KeepAlive.set(transport.descriptor)
        if let error = Syscall.connect(transport.descriptor, to: address) {
          failure = LoginFailure(.backendUnreachable, "\(error)")
          continue
        }
        let connectDeadline = min(deadline, loop.now + loop.plan.settings.timeouts.connect)
        return .rest(
          .backend(
            BackendLogin(
              login, route, record.listener.mailProtocol, transport, others: others, deadline: deadline,
              connectDeadline: connectDeadline)))
      }
    }
    return refuse(login, .unavailable, failure, on: loop)
  }

  /// Talks to the backend until it has to wait.
  func logIn(_ entered: consuming BackendLogin, on loop: isolated EventLoop) -> Next {
    var backend = entered
    if !backend.output.isEmpty, let error = backend.flush() { return isBroken(backend, error, on: loop) }
    switch backend.transport.read(into: &loop.scratch) {
    case .bytes(let count):
      backend.isConnected = true
      return hear(backend, count, on: loop)
    case .blocked: return .rest(.backend(backend))
    case .closed:
      return refuse(backend.login, .unavailable, LoginFailure(.backendClosed, backend.doing), on: loop)
    case .failed(.system(let error)): return isBroken(backend, error, on: loop)
    case .failed(.tls): preconditionFailure("TLS to a backend")
    }
  }

  /// Lets the dialogue answer what the backend said, `count` bytes of it in the loop's scratch.
  private func hear(_ heard: consuming BackendLogin, _ count: Int, on loop: isolated EventLoop) -> Next {
    var backend = heard
    loop.reply.removeAll(keepingCapacity: true)
    var action = BackendAction.read
    if backend.input.isEmpty {
      let consumed = backend.listen(loop.scratch.span(count), &loop.reply, &action)
      backend.input.append(loop.scratch.span(count).extracting(consumed...))
    } else {
      backend.input.append(loop.scratch.span(count))
      backend.listenAgain(&loop.reply, &action)
    }
    // The reply may hold the password.
    let error = backend.say(loop.reply.span)
    loop.reply.wipe()
    switch action {
    case .read, .proceed:
      if let error { return isBroken(backend, error, on: loop) }
      return .rest(.backend(backend))
    case .accepted(let answer): return relay(backend, answer, on: loop)
    case .refused(let refusal, let answer):
      let said = answer.words
      switch refusal {
      case .credentials: return refuse(backend.login, refusal, LoginFailure(.refused, said), on: loop)
      case .backend, .unavailable, .misconfigured:
        return refuse(backend.login, refusal, LoginFailure(.refusedOtherwise, said), on: loop)
      }
    case .failed(let fault, let answer):
      let refusal: LoginRefusal =
        switch fault {
        case .badGreeting, .protocolError: .unavailable
        case .noMechanism: .misconfigured
        }
      return refuse(backend.login, refusal, LoginFailure(backend: fault, said: answer.words), on: loop)
    }
  }

  /// The connection to the backend broke: before it stood, another address may do better.
  private func isBroken(
    _ broken: consuming BackendLogin, _ error: SystemError, on loop: isolated EventLoop
  ) -> Next {
    let backend = broken
    guard !backend.isConnected else {
      return refuse(backend.login, .unavailable, LoginFailure(.backendError, "\(error)"), on: loop)
    }
    return connect(
      backend.login, backend.route, backend.others, deadline: backend.deadline,
      LoginFailure(.backendUnreachable, "\(error)"), on: loop)
  }

  /// A deadline of the backend's was reached.
  func backendIsLate(_ late: consuming BackendLogin, on loop: isolated EventLoop) -> Next {
    var backend = late
    guard loop.now < backend.deadline else {
      return refuse(
        backend.login, .unavailable,
        LoginFailure(backend.isConnected ? .backendTimeout : .connectTimeout, backend.doing), on: loop)
    }
    // That it connected causes no event of its own: the backend speaks first, and that is waited for.
    if !backend.isConnected, Syscall.peerAddress(backend.transport.descriptor) != nil {
      backend.isConnected = true
      return .rest(.backend(backend))
    }
    return connect(
      backend.login, backend.route, backend.others, deadline: backend.deadline, LoginFailure(.connectTimeout), on: loop)
  }

  /// The backend accepted: the dialogues and the password go, and what is left over is relayed first.
  private func relay(_ accepted: consuming BackendLogin, _ answer: BackendAnswer, on loop: isolated EventLoop) -> Next {
    let backend = accepted
    let login = backend.login
    record.isLoggedIn = true
    record.loginTook = loop.now - record.began
    _ = login.dialogue.conclude(.accepted(answer), &loop.reply)
    login.output.append(loop.reply.span)
    let early = backend.copyInput(to: &login.output)
    var relay = Relay(backend.releaseTransport())
    relay.down.queue = exchange(&login.output, with: ByteQueue())
    relay.down.count = UInt64(early)
    relay.up.queue = exchange(&login.input, with: ByteQueue())
    relay.up.count = UInt64(relay.up.queue.count)
    return .go(.relay(relay))
  }
}

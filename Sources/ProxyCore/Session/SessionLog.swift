/// What is logged of a session: proxyd's own lines, or Perdition's in their place.

internal import Logging
internal import Protocols

extension Session {
  /// It is known who the client is, and nothing was said yet.
  func logConnection(_ login: PreLogin, on loop: isolated EventLoop) {
    guard loop.house.log.isPerdition else { return }
    let trail = PerditionTrail(destination(login) ?? record.listener.address)
    record.trail = trail
    tell(.connect(ends(trail)), on: loop)
  }

  /// One line for a login that did not succeed.
  func logFailure(_ failure: LoginFailure, _ refusal: LoginRefusal, on loop: isolated EventLoop) {
    if let trail = trail(on: loop) {
      let isGuess = refusal.countsAgainstClient
      if let reason = failure.reason.perditions(record.listener.mailProtocol, isGuess: isGuess) {
        tell(.auth(ends(trail), auth(trail), .failed(reason)), on: loop)
      }
      // Perdition's words are few; what an operator has to mend is told in ours too.
      guard failure.reason.isTrouble else { return }
    }
    loop.house.log.line(failure.reason.isTrouble ? .warning : .notice, "login-failed") { line in
      record.addIdentity(to: &line)
      line.add("login", record.login)
      record.addBackend(to: &line)
      line.add("failure", failure.reason.rawValue)
      if let detail = failure.detail { line.add("detail", detail) }
    }
  }

  /// A login succeeded. proxyd's own line of a session tells it at the session's end.
  func logAcceptance(on loop: isolated EventLoop) {
    guard let trail = trail(on: loop) else { return }
    tell(.auth(ends(trail), auth(trail), .ok), on: loop)
    trail.repeatLogin(after: loop.plan.settings.log.repetition, now: loop.now)
  }

  /// It is time to tell a login again, if that is still wanted.
  func repeatLogin(_ trail: PerditionTrail, on loop: isolated EventLoop) {
    trail.repeatLogin(after: nil, now: loop.now)
    if loop.plan.settings.log.repetition != nil { logAcceptance(on: loop) }
  }

  /// The session is over.
  func logEnd(_ end: SessionEnd, doing: String, on loop: isolated EventLoop) {
    if let trail = trail(on: loop), let line = lastLine(end, doing: doing, trail) {
      switch end.reason {
      case .idleTimeout, .halfClosedTimeout: tell(.pipeTimeout, on: loop)
      case .logout, .clientClosed, .backendClosed, .clientError, .backendError, .clientTLS, .startTLSInjection,
        .tooManyBadCommands, .tooManyFailedLogins, .commandTooLong, .anotherProtocol, .proxyHeader, .untrustedProxy,
        .loginTimeout, .shutdown, .kicked, .moved, .backendLost, .addressLimit, .outOfMemory:
        break
      }
      return tell(line, on: loop)
    }
    loop.house.log.line(.info, "session") { line in
      record.add(to: &line, end, doing: doing, tls: client.tlsFacts, at: loop.now)
    }
  }

  private func lastLine(_ end: SessionEnd, doing: String, _ trail: PerditionTrail) -> PerditionLine? {
    let ends = ends(trail)
    guard !record.isLoggedIn else {
      return .closing(ends, names(trail), received: record.fromClient, sent: record.toClient)
    }
    return end.reason.perditions(
      ends, record.listener.terms.policy, isHandshake: doing == PreLogin.Stage.handshake.doing)
  }

  /// What Perdition's lines are made of; nil if lines are proxyd's own, or were when the session began.
  private func trail(on loop: isolated EventLoop) -> PerditionTrail? {
    loop.house.log.isPerdition ? record.trail : nil
  }

  private func tell(_ line: PerditionLine, on loop: isolated EventLoop) {
    loop.house.log.perdition(line, LogIdentity(record.listener.mailProtocol, record.listener.terms.policy))
  }

  private func ends(_ trail: PerditionTrail) -> PerditionLine.Ends {
    PerditionLine.Ends(source: record.client, destination: trail.destination)
  }

  private func names(_ trail: PerditionTrail) -> PerditionLine.Names {
    PerditionLine.Names(user: trail.user ?? record.login, authenticator: record.authenticator)
  }

  private func auth(_ trail: PerditionTrail) -> PerditionLine.Auth {
    let policy = record.listener.terms.policy
    let identity = LogIdentity(record.listener.mailProtocol, policy)
    return PerditionLine.Auth(
      clientSecurity: client.isTLS ? policy == .implicit ? .ssl : .starttls : .plaintext, names: names(trail),
      server: trail.server ?? identity.noServer, identity: identity,
      serverSecurity: record.backendTLS == nil ? .plaintext : trail.serverSecurity)
  }
}

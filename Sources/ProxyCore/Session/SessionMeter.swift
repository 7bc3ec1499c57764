/// Counts what happens to a session, and times its phases.

internal import Protocols

/// When the parts of a login began, in the loop's nanoseconds.
struct LoginClock {
  /// The credentials were said.
  var asked: UInt64 = 0
  /// The part that is under way.
  var part: UInt64 = 0
}

extension Session {
  /// A part of the login begins that is timed.
  func meterStart(_ login: PreLogin, on loop: isolated EventLoop) { login.clock.part = loop.now }

  /// A part of the login is over, and the next begins.
  func meterPart(_ phase: LoginPhase, _ login: PreLogin, on loop: isolated EventLoop) {
    loop.house.meters.histogram(phase).record(loop.now - login.clock.part)
    login.clock.part = loop.now
  }

  /// TLS with the client is up.
  func meterHandshake(_ login: PreLogin, on loop: isolated EventLoop) {
    record.listener.meter.handshakes.add()
    meterPart(.handshake, login, on: loop)
  }

  /// The client has said its credentials.
  func meterQuestion(_ login: PreLogin, on loop: isolated EventLoop) {
    record.meter = nil
    login.clock = LoginClock(asked: loop.now, part: loop.now)
  }

  /// The login is sent to a backend.
  func meterBackend(_ backend: Backend, on loop: isolated EventLoop) {
    // One that was tried before has sent the user here.
    record.meter?.refused.add()
    let meter = loop.house.meters.backend(backend.name)
    record.meter = meter
    meter.tried.add()
  }

  /// A connection to the backend did not stand, or broke, and another address is tried.
  func meterAttempt(_ failure: LoginFailure) { record.meter?.failures.add(failure.reason) }

  /// The backend could not be logged in to, and another member of its pool is tried.
  func meterNextMember(_ failure: LoginFailure) {
    guard let meter = record.meter.take() else { return }
    meter.failures.add(failure.reason)
    meter.failed.add()
  }

  /// A login did not succeed.
  func meterFailure(_ failure: LoginFailure, on loop: isolated EventLoop) {
    loop.house.meters.failures.add(failure.reason)
    record.listener.meter.refused.add()
    guard let meter = record.meter.take() else { return }
    meter.failures.add(failure.reason)
    switch failure.reason {
    case .refused, .refusedOtherwise: meter.refused.add()
    case .emptyName, .longName, .badCharacters, .certificateName, .cancelled, .disabled, .nameRewritten, .unknownUser,
      .wrongPassword, .uncheckable, .userLimit, .userAddressLimit, .noMember, .poolFull, .moving, .directoryFailed,
      .lookupFailed, .lookupBusy, .backendUnresolved, .noSocket, .backendUnreachable, .connectTimeout, .backendTimeout,
      .backendClosed, .backendError, .backendGreeting, .backendProtocol, .backendMechanism, .backendStartTLS,
      .backendCertificate, .backendTLS, .noMaster, .loop:
      meter.failed.add()
    }
  }

  /// The backend accepted the login.
  func meterAcceptance(_ login: PreLogin, on loop: isolated EventLoop) {
    meterPart(.backendLogin, login, on: loop)
    loop.house.meters.histogram(.login).record(loop.now - login.clock.asked)
    record.listener.meter.logins.add()
    record.meter?.accepted.add()
    record.meter?.present.add()
    record.lastByte = loop.now
  }

  /// A relay has carried so much up to now.
  func meterBytes(_ relay: borrowing Relay, on loop: isolated EventLoop) {
    let fromClient = relay.up.count - record.fromClient
    let toClient = relay.down.count - record.toClient
    guard fromClient | toClient != 0 else { return }
    record.fromClient = relay.up.count
    record.toClient = relay.down.count
    record.lastByte = loop.now
    if fromClient > 0 {
      record.listener.meter.bytesIn.add(Int(fromClient))
      record.meter?.bytesIn.add(Int(fromClient))
    }
    if toClient > 0 {
      record.listener.meter.bytesOut.add(Int(toClient))
      record.meter?.bytesOut.add(Int(toClient))
    }
  }

  /// The session is over.
  func meterEnd(_ end: SessionEnd, doing: String, on loop: isolated EventLoop) {
    let meters = loop.house.meters
    meters.ends.add(end.reason)
    meters.countEnd(doing: doing)
    let listener = record.listener.meter
    listener.present.subtract()
    listener.ends.add(end.reason)
    if doing == PreLogin.Stage.handshake.doing { listener.failedHandshakes.add() }
    guard let backend = record.meter else { return }
    if record.isLoggedIn {
      backend.present.subtract()
      backend.ends.add(end.reason)
    } else {
      backend.failed.add()
    }
  }
}

/// From the route to a server: the bounds of sessions, a place in the pool, and another one if the first can't serve.

internal import Logging
internal import Protocols

extension Session {
  /// Begins to look for the server, now that the user's name at the backend is known.
  func place(_ login: PreLogin, _ route: Route, on loop: isolated EventLoop) -> Next {
    // No backend is asked in vain.
    bounds = bounds(login, on: loop)
    for bound in bounds where loop.house.census.count(bound.key) >= bound.most {
      return refuse(login, .limit, bound.failure, on: loop)
    }
    switch route.target {
    case .backend(let backend):
      guard let standing = loop.house.fleet.standing(backend.name) else {
        return begin(login, PlacedRoute(backend: backend, route: route), on: loop)
      }
      guard standing.admin.takesPart else {
        let reason = "\(backend.name) is in maintenance"
        return refuse(login, .unavailable, LoginFailure(.noMember, reason), on: loop)
      }
      standing.arrive()
      lease = .backend(standing, isAdmitted: false)
      return begin(login, PlacedRoute(backend: backend, route: route), on: loop)
    case .pool(let name, let tag):
      guard let pool = loop.house.fleet.pool(name) else {
        let reason = "the pool \(name) is gone from the configuration"
        return refuse(login, .unavailable, LoginFailure(.lookupFailed, reason), on: loop)
      }
      let user = affinityKey(login, pool, on: loop)
      lease = .pool(pool, Claim(user: user, tag: tag, handle: SessionHandle(loop: loop.index, token: token)))
      return advance(login, route, until: loop.now + loop.plan.settings.timeouts.backendLogin, on: loop)
    }
  }

  /// What the user's sessions have in common: the name at the backend, as the pool's key has it.
  private func affinityKey(_ login: PreLogin, _ pool: Pool, on loop: isolated EventLoop) -> String {
    switch pool.settings.balance {
    case .affinity(let affinity): Pool.key(login.draft.user, affinity, loop.plan.settings.names)
    case .leastSessions, .roundRobin, .randomTwo: ""
    }
  }

  /// Goes on with the claim to a place.
  func advance(_ login: PreLogin, _ route: Route, until: UInt64, on loop: isolated EventLoop) -> Next {
    guard case .pool(let pool, var claim)? = lease else { preconditionFailure("a wait for a place without a claim") }
    let step = pool.advance(&claim)
    lease = .pool(pool, claim)
    switch step {
    case .at(let member):
      guard let backend = member.servers[record.listener.mailProtocol] else {
        preconditionFailure("a member without a server")
      }
      meterPart(.placement, login, on: loop)
      trace(.place, "\(member.name) of \(pool.name)\(claim.user.isEmpty ? "" : ", as \(claim.user)")")
      return begin(login, PlacedRoute(backend: backend, route: route), on: loop)
    case .waits:
      guard loop.now < until else {
        pool.expire(claim)
        let failure =
          claim.member == nil
          ? LoginFailure(.moving, "the user's sessions elsewhere did not end in time")
          : LoginFailure(.poolFull, "too many logins are in progress")
        return refuse(login, .unavailable, failure, on: loop)
      }
      return .rest(.waiting(login, .place(route, until: until)))
    case .refused(let failure): return refuse(login, .unavailable, failure, on: loop)
    }
  }

  /// The server is known.
  private func begin(_ login: PreLogin, _ route: PlacedRoute, on loop: isolated EventLoop) -> Next {
    record.backend = route.backend.name
    record.trail?.choose(
      route.backend,
      as: route.route.loginAs.map { loop.plan.settings.names.name($0, for: .log, addressName: login.addressName) })
    if login.draft.method == .sasl(.external), !route.backend.link.becomeMaster(&login.draft) {
      return refuse(login, .misconfigured, LoginFailure(.noMaster, route.backend.name), on: loop)
    }
    if let fault = login.draft.fault() {
      let reason = "\(route.backend.name): its master user can't be one: \(fault.rawValue)"
      return refuse(login, .misconfigured, LoginFailure(.noMaster, reason), on: loop)
    }
    return resolve(login, route, on: loop)
  }

  /// Follows a backend's referral. The count of sessions follows too; a pool's user goes where the backend says, with all
  /// sessions, if that is a member.
  func follow(_ login: PreLogin, _ route: PlacedRoute, to target: Backend, on loop: isolated EventLoop) -> Next {
    if case .pool(let pool, var claim)? = lease, pool.refer(&claim, to: target.name) {
      lease = .pool(pool, claim)
      let route = Route(
        target: route.route.target, loginAs: route.route.loginAs, source: "referral of \(route.backend.name)")
      return look(login, route, on: loop)
    }
    if let held = lease { held.release() }
    lease = loop.house.fleet.standing(target.name).map { standing in
      standing.arrive()
      return .backend(standing, isAdmitted: false)
    }
    record.backend = target.name
    record.trail?.choose(target, as: record.trail?.user)
    let route = Route(
      target: .backend(target), loginAs: route.route.loginAs, source: "referral of \(route.backend.name)")
    return resolve(login, PlacedRoute(backend: target, route: route), on: loop)
  }

  func resolve(_ login: PreLogin, _ route: PlacedRoute, on loop: isolated EventLoop) -> Next {
    meterBackend(route.backend, on: loop)
    switch route.backend.host {
    case .address(let address): return connect(login, route, .addresses([address]), on: loop)
    case .name(let name):
      let token = token
      let known = loop.house.resolver.addresses(of: name, now: loop.now) { [loop] answer in
        loop.post { $0.resolved(token, name, answer) }
      }
      guard let known else {
        let until = loop.now + loop.plan.settings.timeouts.connect
        return .rest(.waiting(login, .resolver(route, until: until)))
      }
      return connect(login, route, known, on: loop)
    }
  }

  // MARK: When the server can't

  /// The server could not be logged in to. Another member of the pool is tried, as long as no password was said.
  func failed(
    _ login: PreLogin, _ route: PlacedRoute, _ refusal: LoginRefusal, _ failure: LoginFailure, isCommitted: Bool,
    on loop: isolated EventLoop
  ) -> Next {
    // A trial at one that is lost has an end in any case.
    let isLost = lease?.standing?.snapshot(at: loop.now).health.isDown ?? false
    if !isCommitted || login.draft.isOrdinary || isLost,
      let evidence = failure.evidence(of: isCommitted ? Session.userNumber(login) : nil)
    {
      learn(evidence, on: loop)
    }
    if isCommitted { lease?.note(mayBeIn: true) }
    // A master user is one backend's own: the client's credentials are gone.
    guard !isCommitted, login.draft.method != .sasl(.external), failure.isBackends, loop.now < login.deadline,
      case .pool(let pool, var claim)? = lease
    else { return refuse(login, refusal, failure, on: loop) }
    let goesOn = pool.relocate(&claim)
    lease = .pool(pool, claim)
    guard goesOn else { return refuse(login, refusal, failure, on: loop) }
    meterNextMember(failure)
    traceFailure(failure)
    loop.house.log.line(.info, "next-member") { line in
      record.addIdentity(to: &line)
      line.add("login", record.login)
      record.addBackend(to: &line)
      line.add("failure", failure.reason.rawValue)
      if let detail = failure.detail { line.add("detail", detail) }
    }
    trace(.place, "another member is tried: \(failure.reason.rawValue)")
    return look(login, route.route, on: loop)
  }

  /// Looks for another place than the one the login had.
  private func look(_ login: PreLogin, _ route: Route, on loop: isolated EventLoop) -> Next {
    forgetBackend()
    record.backendAddress = nil
    record.backendTLS = nil
    return advance(login, route, until: loop.now + loop.plan.settings.timeouts.backendLogin, on: loop)
  }

  /// Whether a login that is ended for that reason may go on: nobody wants its client gone. A master user is one backend's
  /// own.
  func mayGoElsewhere(_ login: PreLogin, _ reason: SessionEnd.Reason) -> Bool {
    guard case .pool? = lease, login.draft.method != .sasl(.external) else { return false }
    return reason == .moved || reason == .backendLost
  }

  /// The place the login had is none any more, and no password was said there: it waits for another.
  func displace(_ login: PreLogin, _ route: Route, on loop: isolated EventLoop) -> Next {
    guard case .pool(let pool, var claim)? = lease else { preconditionFailure("a login without a place loses it") }
    pool.displace(&claim)
    lease = .pool(pool, claim)
    return look(login, route, on: loop)
  }

  /// Whose login it is, for what is counted by users: the name at the backend, however it is written.
  static func userNumber(_ login: PreLogin) -> Int { login.draft.user.map(\.lowercased).hashValue }

  /// Something was learned about the backend's health.
  func learn(_ evidence: HealthEvidence, on loop: isolated EventLoop) {
    guard let standing = lease?.standing else { return }
    loop.house.fleet.learn(standing, evidence, of: lease?.trial)
  }

  // MARK: Bounds

  /// The bounds that hold for a login, by the name at the backend: a master user, whose name it may get there, has none.
  private func bounds(_ login: PreLogin, on loop: isolated EventLoop) -> [SessionBound] {
    let limits = loop.plan.settings.sessionLimits
    guard limits.user != nil || limits.userAtAddress != nil else { return [] }
    let user = UserKey(String(decoding: login.draft.user.map(\.lowercased), as: UTF8.self))
    var bounds: [SessionBound] = []
    if let most = limits.user { bounds.append(SessionBound(key: .user(user), most: most, reason: .userLimit)) }
    if let most = limits.userAtAddress {
      let key = Census.Key.userAt(user, record.client.subscriber)
      bounds.append(SessionBound(key: key, most: most, reason: .userAddressLimit))
    }
    return bounds
  }

  /// Counts the session as its user's, if there are bounds: now that a backend has let it in, for whoever knows no password
  /// is not to take the places of the user. Returns a failure if a bound is reached.
  func count(on loop: isolated EventLoop) -> LoginFailure? {
    for bound in bounds {
      guard loop.house.census.enter(bound.key, most: bound.most) else { return bound.failure }
      counted.append(bound.key)
    }
    return nil
  }

  /// Counts the session as its address's, if there is a bound. False if it is reached. Trusted proxies speak for many.
  func countAddress(on loop: isolated EventLoop) -> Bool {
    guard let most = loop.plan.settings.sessionLimits.address,
      !loop.plan.settings.trustedProxies.contain(record.client)
    else { return true }
    let key = Census.Key.address(record.client.subscriber)
    guard loop.house.census.enter(key, most: most) else { return false }
    counted.append(key)
    return true
  }

  /// Gives back what a login held: its place, and its user's count, if it was let in. The address's stays until the
  /// connection ends.
  func release(on loop: isolated EventLoop) {
    bounds = []
    if let held = lease {
      lease = nil
      held.release()
    }
    guard !counted.isEmpty else { return }
    counted.removeAll { key in
      switch key {
      case .address: return false
      case .user, .userAt:
        loop.house.census.leave(key)
        return true
      }
    }
  }

  /// The connection is over: its address is not counted any more either.
  func releaseAll(on loop: isolated EventLoop) {
    release(on: loop)
    for key in counted { loop.house.census.leave(key) }
    counted = []
  }
}

/// A bound of the sessions that users log in to.
struct SessionBound {
  let key: Census.Key
  let most: Int
  let reason: LoginFailure.Reason

  /// What a login fails for that is one too many.
  var failure: LoginFailure { LoginFailure(reason, "\(most) sessions") }
}

extension LoginFailure {
  /// Whether the backend is to blame, so that another may do better.
  fileprivate var isBackends: Bool {
    switch reason {
    case .backendUnresolved, .backendUnreachable, .connectTimeout, .backendTimeout, .backendClosed, .backendError,
      .backendGreeting, .backendProtocol, .backendStartTLS, .backendCertificate, .backendTLS:
      true
    case .emptyName, .longName, .badCharacters, .certificateName, .cancelled, .disabled, .nameRewritten, .unknownUser,
      .wrongPassword, .uncheckable, .refused, .refusedOtherwise, .userLimit, .userAddressLimit, .noMember, .poolFull,
      .moving, .directoryFailed, .lookupFailed, .lookupBusy, .noSocket, .backendMechanism, .noMaster, .loop:
      false
    }
  }

  /// What it tells about the backend's health.
  fileprivate func evidence(of user: Int?) -> HealthEvidence? {
    isBackends ? .loginFailed(detail.map { "\(reason.rawValue): \($0)" } ?? reason.rawValue, of: user) : nil
  }
}

/// What the control protocol does to the fleet.

internal import Protocols
internal import ProxyCore

struct FleetControl: FleetActions {
  let proxy: Proxy

  private var fleet: Fleet { proxy.house.fleet }

  // MARK: Backends

  func backends() -> [ToldBackend] {
    let meters = Dictionary(proxy.house.meters.allBackends.map { ($0.name, $0.meter) }) { first, _ in first }
    let views = fleet.views
    let named = views.map { view -> ToldBackend in
      var told = FleetControl.told(view.name, meters[view.name])
      told.pools = view.pools
      told.state = view.admin.rawValue
      told.agent = view.stands.admin == view.admin ? nil : view.stands.admin.rawValue
      (told.health, told.reason) = FleetControl.words(view.stands.health)
      told.since = view.since
      told.sessions = view.stands.sessions
      told.entering = view.stands.logins
      told.weight = view.weight
      told.weightSet = view.stands.weight != nil
      told.share = view.stands.share
      return told
    }
    let known = Set(views.map(\.name))
    let others = meters.filter { !known.contains($0.key) }.map { FleetControl.told($0.key, $0.value) }
    return (named + others).sorted { $0.backend < $1.backend }
  }

  /// A server as the counters know it.
  private static func told(_ name: String, _ meter: BackendMeter?) -> ToldBackend {
    ToldBackend(
      backend: name, sessions: meter?.present.value ?? 0, triedLogins: meter?.tried.value ?? 0,
      acceptedLogins: meter?.accepted.value ?? 0, refusedLogins: meter?.refused.value ?? 0,
      failedLogins: meter?.failed.value ?? 0, in: meter?.bytesIn.value ?? 0, out: meter?.bytesOut.value ?? 0)
  }

  private static func words(_ health: HealthState) -> (String, String?) {
    switch health {
    case .up: ("up", nil)
    case .doubted(let why): ("doubted", why)
    case .down(let why): ("down", why)
    }
  }

  func set(_ backend: String, state: AdminState?, weight: WeightChange?) -> ToldSetting? {
    guard let standing = fleet.standing(backend) else { return nil }
    var told: [Fleet.Told] = []
    if let state { told.append(fleet.setAdmin(backend, state)) }
    switch weight {
    case .to(let number)?: told.append(fleet.setWeight(backend, number))
    case .standard?: told.append(fleet.setWeight(backend, nil))
    case nil: break
    }
    return ToldSetting(
      backend: backend, state: standing.admin.rawValue, weight: standing.weight,
      notKept: told.compactMap { FleetControl.lack($0) }.last)
  }

  private static func lack(_ told: Fleet.Told) -> String? {
    switch told {
    case .notKept(let why): why
    case .kept, .unknownBackend: nil
    }
  }

  // MARK: Users

  func userCount() -> Int { fleet.pools.reduce(0) { $0 + ($1.directory?.count ?? 0) } }

  /// The pools that are meant: the one of that name, or all that keep users where they are.
  private func pools(_ name: String?) throws(ControlProblem) -> [Pool] {
    guard let name else {
      let pools = fleet.pools.filter { $0.directory != nil }
      if pools.isEmpty { throw ControlProblem(.notFound, "no pool of the configuration has affinity") }
      return pools
    }
    guard let pool = fleet.pool(name) else {
      throw ControlProblem(.notFound, "there is no pool \"\(name)\" in the configuration")
    }
    if pool.directory == nil { throw ControlProblem(.refused, "the pool \(name) has no affinity") }
    return [pool]
  }

  /// The one pool that is meant which has the backend.
  private func pool(_ name: String?, with backend: String) throws(ControlProblem) -> Pool {
    let pools = try pools(name).filter { $0.settings.members.contains { $0.backend == backend } }
    guard let pool = pools.first else {
      let place = name.map { "the pool \($0)" } ?? "a pool with affinity"
      throw ControlProblem(.notFound, "\"\(backend)\" is no member of \(place)")
    }
    guard pools.count == 1 else {
      throw ControlProblem(
        .argument, "pool: \(backend) is in \(pools.map(\.name).joined(separator: " and ")), expected one of them")
    }
    return pool
  }

  private func key(_ user: String, _ pool: Pool) -> String { pool.key(of: user, proxy.settings.names) }

  func places(pool: String?, backend: String?, _ body: (ToldPlace) -> Bool) throws(ControlProblem) {
    for pool in try pools(pool) {
      var goesOn = true
      pool.users(at: backend) { entries in
        goesOn = entries.allSatisfy {
          body(ToldPlace(pool: pool.name, user: $0.user, backend: $0.member, expires: $0.expires))
        }
        return goesOn
      }
      guard goesOn else { return }
    }
  }

  /// The pool may have a tag behind it, as in a route's answer: then only members with that are looked at.
  func map(_ user: String, pool: String?) throws(ControlProblem) -> [ToldMapping] {
    let parts = pool?.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
    let tag = parts.flatMap { $0.count == 2 ? $0[1] : nil }
    let pools = try pools(parts?[0])
    if let tag, !pools.contains(where: { $0.settings.members.contains { $0.tag == tag } }) {
      throw ControlProblem(.notFound, "no member of the pool \(parts?[0] ?? "") has the tag \"\(tag)\"")
    }
    return pools.compactMap { pool in
      guard let place = pool.place(of: key(user, pool), tag: tag) else { return nil }
      return ToldMapping(
        pool: pool.name, user: place.user, current: place.present ?? place.entry?.member,
        expires: place.present == nil ? place.entry?.expires : nil, hashed: place.home, configured: place.configured)
    }
  }

  func move(_ user: String, to backend: String, pool: String?) throws(ControlProblem) {
    try FleetControl.check(user)
    let pool = try self.pool(pool, with: backend)
    switch pool.move(key(user, pool), to: backend) {
    case .done: return
    case .noAffinity: throw ControlProblem(.refused, "the pool \(pool.name) has no affinity")
    case .noMember: throw ControlProblem(.notFound, "\"\(backend)\" is no member of the pool \(pool.name)")
    case .unknown: throw ControlProblem(.notFound, "nothing is remembered of \"\(user)\"")
    }
  }

  func forget(_ user: String, pool: String?) throws(ControlProblem) -> Int {
    try pools(pool).count { $0.forget(key(user, $0)) == .done }
  }

  func flush(_ backend: String?, pool: String?) throws(ControlProblem) -> Int {
    var pools = try pools(pool)
    if let backend {
      pools = pools.filter { $0.settings.members.contains { $0.backend == backend } }
      guard !pools.isEmpty else {
        throw ControlProblem(.notFound, "\"\(backend)\" is no member of a pool with affinity")
      }
    }
    return pools.reduce(0) { count, pool in
      guard let (idle, present) = pool.flush(member: backend) else { return count }
      return count + idle + present
    }
  }

  func load(_ entries: [ControlEntry], pool: String?) throws(ControlProblem) -> Int {
    // All are looked at before the first is taken: none or all.
    var moves: [(pool: Pool, user: String, backend: String)] = []
    var known: [String: Pool] = [:]
    for entry in entries {
      try FleetControl.check(entry.user)
      let place: Pool
      if let one = known[entry.backend] { place = one } else { place = try self.pool(pool, with: entry.backend) }
      known[entry.backend] = place
      moves.append((place, key(entry.user, place), entry.backend))
    }
    for move in moves { _ = move.pool.move(move.user, to: move.backend) }
    return moves.count
  }

  /// A name that no login can have would be remembered for nobody, and spoil the lines of a dump.
  private static func check(_ user: String) throws(ControlProblem) {
    guard !user.utf8.contains(where: \.isControl) else {
      throw ControlProblem(.argument, "user: expected no control characters")
    }
  }
}

/// The backends together: how each stands, the pools they form, and what is done when one is lost or told to rest.

internal import Logging
internal import Protocols
internal import Synchronization

package final class Fleet: Sendable {
  let log: Log
  let clock: Clock
  let state = Mutex(State())
  private let callbacks = Mutex(Callbacks())
  private let evictions: Evictions
  /// Held while it is decided whether a backend's sessions end, while pools are made anew, and while an operator's word is
  /// taken: of two threads the one that looks last has the last word.
  private let deciding = Mutex<Void>(())
  private let building = Mutex<Void>(())
  let listening = Mutex<Void>(())
  /// Ends with the fleet.
  let probers: Mutex<Probers?> = Mutex(nil)

  struct State {
    var standings: [String: BackendStanding] = [:]
    var pools: [String: Pool] = [:]
    /// The members' gates, by pool and backend: who is inside stays counted over a reload.
    var gates: [String: LoginGate] = [:]
    var plan: FleetPlan?
    var file: StateFile?
    /// When the process began to serve, in the directories' time; nil for a test's that has had no other before it.
    var began: UInt64?
    /// What has gone out of the configuration: whoever comes back is met as he was left, with those who are still there.
    var past = Past()
    /// A test's own, for all pools.
    var played: (any UserDirectory)?
  }

  struct Past {
    var standings: [String: BackendStanding] = [:]
    var pools: [String: Pool] = [:]
  }

  /// How sessions are reached.
  struct Callbacks: Sendable {
    var kick: @Sendable ([SessionHandle], SessionEnd.Reason) -> Void = { _, _ in }
    var wake: @Sendable ([SessionHandle]) -> Void = { _ in }
    /// Gives the users and sessions at a backend, later and once.
    var sessions: @Sendable (String, @escaping @Sendable ([Evictions.Guest]) -> Void) -> Void = { _, then in then([]) }
  }

  /// A fleet without backends.
  init(log: Log, clock: Clock = .monotonic) {
    self.log = log
    self.clock = clock
    evictions = Evictions()
  }

  /// Begins to probe; once, when everything else is ready. Names are resolved by the loops' resolver.
  func probe(_ resolver: Resolver) {
    let ears = ProbeEars(
      learn: { [weak self] in self?.learn($0, $1) }, agent: { [weak self] in self?.heard($0, $1) },
      warn: { [log] backend, warning in
        var metadata: Logger.Metadata = ["backend": "\(backend)"]
        for (name, value) in warning.details { metadata[name] = "\(value)" }
        log.logger.warning("\(warning.words)", metadata: metadata)
      })
    let probers = Probers(resolver, ears)
    self.probers.withLock { $0 = probers }
    probers.adopt(targets)
  }

  /// Ends all probes.
  func endProbes() {
    let probers = probers.withLock { $0.take() }
    probers?.end()
  }

  /// The members of pools, with the protocols they are probed in.
  private var targets: [ProbeTarget] {
    state.withLock { state in
      guard let plan = state.plan else { return [] }
      let members = Set(plan.pools.values.flatMap { $0.members.map(\.backend) })
      let spoken = Set(plan.listeners.map(\.mailProtocol))
      return members.compactMap { name in
        guard let standing = state.standings[name], let settings = plan.backends[name]?.health else { return nil }
        var backends: [MailProtocol: Backend] = [:]
        for mailProtocol in settings.protocols.map(Set.init) ?? spoken {
          backends[mailProtocol] = plan.book.backend(name, mailProtocol)
        }
        return ProbeTarget(standing: standing, settings: settings, backends: backends)
      }
    }
  }

  /// Sets how sessions are reached; once, before anything is adopted.
  func attach(_ callbacks: Callbacks) {
    self.callbacks.withLock { $0 = callbacks }
    evictions.attach(callbacks)
  }

  /// Uses a test's directory for the pools that are made from here on.
  func useForTest(_ directory: any UserDirectory) { state.withLock { $0.played = directory } }

  // MARK: What there is

  /// How a backend stands; nil if none has that name.
  package func standing(_ backend: String) -> BackendStanding? { state.withLock { $0.standings[backend] } }

  /// All backends, by name.
  package var standings: [BackendStanding] {
    state.withLock { Array($0.standings.values) }.sorted { $0.name < $1.name }
  }

  /// A pool; nil if none has that name.
  package func pool(_ name: String) -> Pool? { state.withLock { $0.pools[name] } }

  /// All pools, by name.
  package var pools: [Pool] { state.withLock { Array($0.pools.values) }.sorted { $0.name < $1.name } }

  /// Whether the sessions at a backend are being ended.
  func isEmptying(_ backend: String) -> Bool { evictions.isRunning(backend) }

  // MARK: Configuration

  /// Goes over to a configuration. What is known of backends and users stays. A ring may take a tenth of a second, and to
  /// read a pool's users more: no login waits for that.
  func adopt(_ plan: FleetPlan) {
    let changes = state.withLock { state in
      state.plan = plan
      return adoptBackends(plan, &state)
    }
    building.withLock { _ in
      for (name, settings) in plan.pools {
        let known = state.withLock { $0.pools[name] ?? $0.past.pools[name].take() }
        if let known, known.isKin(to: settings) || pool(name) != nil {
          adopt(settings, known)
          state.withLock { $0.pools[name] = known }
        } else if let new = make(name, settings) {
          state.withLock { $0.pools[name] = new }
        }
      }
      for pool in pools where plan.pools[pool.name] == nil { dismiss(pool) }
    }
    for (standing, change) in changes { tell(change, of: standing) }
    let probers = probers.withLock { $0 }
    probers?.adopt(targets)
  }

  private func make(_ name: String, _ settings: PoolSettings) -> Pool? {
    guard let plan = build(name, settings) else { return nil }
    let (file, played, began) = state.withLock { ($0.file, $0.played, $0.began) }
    let callbacks = callbacks.withLock { $0 }
    let pool = Pool(
      name, plan, played ?? directory(name, settings, file, began), clock: clock, kick: callbacks.kick,
      wake: callbacks.wake)
    adopt(settings.balance, pool)
    return pool
  }

  private func dismiss(_ pool: Pool) {
    state.withLock { state in
      state.pools[pool.name] = nil
      state.past.pools[pool.name] = pool
    }
    // Another pool knows nothing of them, even if it has the same members.
    guard pool.directory != nil, pool.sessions > 0 else { return }
    log.logger.warning(
      "a pool is gone that has sessions: until they end, its users may be at other members as well",
      metadata: ["pool": "\(pool.name)", "sessions": "\(pool.sessions)"])
  }

  /// Returns those who are wanted otherwise than before, or are well or lost for what is asked from now on.
  private func adoptBackends(_ plan: FleetPlan, _ state: inout State) -> [(BackendStanding, HealthChange?)] {
    let now = clock.now
    var changes: [(BackendStanding, HealthChange?)] = []
    for (name, backend) in plan.backends {
      let row = state.file?.row(of: name)
      if let known = state.standings[name] ?? state.past.standings.removeValue(forKey: name) {
        state.standings[name] = known
        let admin = known.snapshot(at: now).admin
        if let row { recall(row, known) }
        let change = known.adopt(backend.health, at: now)
        if change != nil || known.snapshot(at: now).admin != admin { changes.append((known, change)) }
        continue
      }
      let standing = BackendStanding(name, backend.health)
      if let row { recall(row, standing) }
      state.standings[name] = standing
    }
    for (name, standing) in state.standings where plan.backends[name] == nil {
      state.standings[name] = nil
      state.past.standings[name] = standing
    }
    return changes
  }

  /// Who remembers the users of a new pool.
  private func directory(
    _ pool: String, _ settings: PoolSettings, _ file: StateFile?, _ began: UInt64?
  ) -> (any UserDirectory)? {
    switch settings.balance {
    case .affinity(let affinity):
      do throws(StateFileError) {
        return try LocalDirectory(pool: pool, affinity, file: affinity.kind == .table ? file : nil, began: began)
      } catch {
        log.logger.error("a pool's users can't be read, it begins without", metadata: ["reason": "\(error)"])
        var forgetful = affinity
        forgetful.kind = .hash
        return try? LocalDirectory(pool: pool, forgetful, began: began)
      }
    case .leastSessions, .roundRobin, .randomTwo: return nil
    }
  }

  private func adopt(_ wanted: PoolSettings, _ pool: Pool) {
    var settings = wanted
    if !settings.balance.isKin(to: pool.settings.balance) {
      log.logger.warning(
        "a change of how a pool balances takes a restart", metadata: ["pool": "\(pool.name)"])
      settings.balance = pool.settings.balance
    }
    rebuild(pool, settings)
  }

  private func rebuild(_ pool: Pool, _ settings: PoolSettings) {
    if let plan = build(pool.name, settings) { pool.adopt(plan) }
    adopt(settings.balance, pool)
  }

  private func adopt(_ balance: Balance, _ pool: Pool) {
    guard let local = pool.directory as? LocalDirectory, case .affinity(let affinity) = balance else { return }
    local.adopt(affinity)
    local.onRebalance { [weak pool] user in pool?.home(of: user) }
  }

  private func build(_ pool: String, _ settings: PoolSettings) -> PoolPlan? {
    let parts = state.withLock { state -> (members: [Member], addresses: [String: String])? in
      guard let plan = state.plan else { return nil }
      var members: [Member] = []
      for member in settings.members {
        guard let standing = state.standings[member.backend] else { continue }
        let gate = state.gates["\(pool)/\(member.backend)"] ?? LoginGate(most: member.logins)
        state.gates["\(pool)/\(member.backend)"] = gate
        members.append(
          Member(settings: member, standing: standing, gate: gate, servers: plan.servers(member.backend)))
      }
      let addresses = Dictionary(
        uniqueKeysWithValues: settings.members.map { ($0.backend, FleetPlan.address($0.backend, plan.backends)) })
      return (members, addresses)
    }
    guard let parts else { return nil }
    do throws(Ring.Failure) { return try PoolPlan(settings, parts.members, addresses: parts.addresses) } catch {
      log.logger.error("a pool's ring can't be made, the old one stays", metadata: ["reason": "\(error)"])
      return nil
    }
  }

  /// A weight has changed.
  func rebuild(_ backend: String) {
    building.withLock { _ in
      for pool in pools where pool.plan.index(of: backend) != nil { rebuild(pool, pool.settings) }
    }
  }

  /// Users a second that are moved off a backend: as the most careful of its pools wants it.
  private func moveRate(_ backend: String) -> Int {
    pools.map(\.settings).filter { $0.members.contains { $0.backend == backend } }.map(\.moveRate).min() ?? 100
  }

  // MARK: Health

  /// Something was learned about a backend's health.
  func learn(_ backend: String, _ evidence: HealthEvidence) {
    guard let standing = standing(backend) else { return }
    learn(standing, evidence)
  }

  /// A backend's agent said something.
  func heard(_ backend: String, _ report: AgentReport) {
    guard let standing = standing(backend) else { return }
    let before = standing.snapshot(at: clock.now)
    standing.agent(report)
    let now = standing.snapshot(at: clock.now)
    if now.agentWeight != before.agentWeight { rebuild(backend) }
    guard now.admin != before.admin else { return }
    log.logger.notice(
      "a backend's agent wants another state", metadata: ["backend": "\(backend)", "state": "\(now.admin.rawValue)"])
    decideOnGuests(standing)
  }

  /// The same of one that is at hand.
  func learn(_ standing: BackendStanding, _ evidence: HealthEvidence, of trial: HealthTrial? = nil) {
    let change = standing.learn(evidence, of: trial, at: clock.now)
    switch evidence {
    case .loginFailed, .loginRefused: probers.withLock { $0 }?.probeNow(standing.name)
    case .probeSucceeded, .probeFailed, .loginAnswered, .agentDown, .agentUp: break
    }
    if let change { tell(change, of: standing) }
  }

  private func tell(_ change: HealthChange?, of standing: BackendStanding) {
    switch change {
    case .lost(let why)?:
      log.logger.warning("backend lost", metadata: ["backend": "\(standing.name)", "reason": "\(why)"])
    case .recovered?: log.logger.notice("backend recovered", metadata: ["backend": "\(standing.name)"])
    case nil: break
    }
    decideOnGuests(standing)
  }

  /// Has the sessions at a backend end, or lets them stay, as it stands now: whatever changed last. One after the other,
  /// so that the last to look decides.
  func decideOnGuests(_ standing: BackendStanding) {
    deciding.withLock { _ in
      let (name, stands) = (standing.name, standing.snapshot(at: clock.now))
      guard stands.admin.takesPart else { return evictions.begin(name, .rate(moveRate(name)), .moved) }
      let spread = pools.map(\.settings).filter { $0.members.contains { $0.backend == name } }.map(\.spread).max() ?? 0
      guard stands.health.isDown, spread > 0 else { return evictions.end(name) }
      // Logins that try it are to show whether it is still lost.
      evictions.begin(name, .within(spread), .backendLost, sparing: stands.losses)
    }
  }
}

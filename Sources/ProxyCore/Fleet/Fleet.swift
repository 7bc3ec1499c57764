/// The backends together: how each stands, the pools they form, and what is done when one is lost or told to rest.

internal import Logging
internal import Protocols
internal import Synchronization

package final class Fleet: Sendable {
  private let log: Log
  let clock: Clock
  private let state = Mutex(State())
  private let callbacks = Mutex(Callbacks())
  private let evictions: Evictions
  /// Ends with the fleet.
  private let probers: Mutex<Probers?> = Mutex(nil)

  private struct State {
    var standings: [String: BackendStanding] = [:]
    var pools: [String: Pool] = [:]
    /// Pools that are gone from the configuration. One that comes back finds its users where they are.
    var retired: [String: Pool] = [:]
    /// The members' gates, by pool and backend: who is inside stays counted over a reload.
    var gates: [String: LoginGate] = [:]
    var plan: FleetPlan?
    var file: StateFile?
    /// A test's own, for all pools.
    var played: (any UserDirectory)?
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

  // MARK: Configuration

  /// Opens the file of what is remembered over a restart, unless it is open: another one takes a restart.
  func open(_ path: String?) throws(SettingsErrors) {
    let known = state.withLock { $0.file }
    if let known, known.path != path {
      log.logger.warning("a change takes a restart", metadata: ["key": "state-file"])
    }
    guard known == nil, let path else { return }
    let file: StateFile
    do throws(StateFileError) {
      file = try StateFile(path) { [log] news in
        switch news {
        case .trouble(let reason):
          log.logger.error(
            "the state file can't be written: what is new is remembered in memory only",
            metadata: ["file": "\(path)", "reason": "\(reason)"])
        case .complete: log.logger.notice("the state file is written again", metadata: ["file": "\(path)"])
        }
      }
    } catch {
      throw SettingsErrors([SettingsError(key: "state-file", problem: "\(error)")])
    }
    state.withLock { $0.file = file }
  }

  /// Writes what is left to be written.
  func close() {
    let file = state.withLock { $0.file.take() }
    file?.close()
  }

  /// Goes over to a configuration. What is known of backends and users stays.
  func adopt(_ plan: FleetPlan) {
    let callbacks = callbacks.withLock { $0 }
    let pools = state.withLock { state -> [(pool: Pool, settings: PoolSettings)] in
      state.plan = plan
      for (name, backend) in plan.backends {
        if let known = state.standings[name] {
          known.adopt(backend.health)
          continue
        }
        let standing = BackendStanding(name, backend.health)
        if let row = state.file?.backends.first(where: { $0.name == name }) {
          standing.set(row.state)
          standing.set(weight: row.weight)
        }
        state.standings[name] = standing
      }
      // Who has sessions there still holds the standing.
      for name in state.standings.keys where plan.backends[name] == nil { state.standings[name] = nil }
      for (name, settings) in plan.pools where state.pools[name] == nil {
        if let known = state.retired.removeValue(forKey: name) {
          state.pools[name] = known
          continue
        }
        guard let first = build(name, settings, &state) else { continue }
        state.pools[name] = Pool(
          name, first, state.played ?? directory(name, settings, state.file), clock: clock, kick: callbacks.kick,
          wake: callbacks.wake)
      }
      for name in state.pools.keys where plan.pools[name] == nil {
        state.retired[name] = state.pools.removeValue(forKey: name)
      }
      return plan.pools.compactMap { name, settings in state.pools[name].map { ($0, settings) } }
    }
    for (pool, settings) in pools { adopt(settings, pool) }
    let probers = probers.withLock { $0 }
    probers?.adopt(targets)
  }

  /// Who remembers the users of a new pool.
  private func directory(_ pool: String, _ settings: PoolSettings, _ file: StateFile?) -> (any UserDirectory)? {
    switch settings.balance {
    case .affinity(let affinity):
      do throws(StateFileError) {
        return try LocalDirectory(pool: pool, affinity, file: affinity.kind == .table ? file : nil)
      } catch {
        log.logger.error("a pool's users can't be read, it begins without", metadata: ["reason": "\(error)"])
        var forgetful = affinity
        forgetful.kind = .hash
        return try? LocalDirectory(pool: pool, forgetful)
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
    if let plan = state.withLock({ build(pool.name, settings, &$0) }) { pool.adopt(plan) }
    guard let local = pool.directory as? LocalDirectory, case .affinity(let affinity) = settings.balance else { return }
    local.adopt(affinity)
    local.onRebalance { [weak pool] user in pool?.home(of: user) }
  }

  private func build(_ pool: String, _ settings: PoolSettings, _ state: inout State) -> PoolPlan? {
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
    do throws(Ring.Failure) { return try PoolPlan(settings, members, addresses: addresses) } catch {
      log.logger.error("a pool's ring can't be made, the old one stays", metadata: ["reason": "\(error)"])
      return nil
    }
  }

  // MARK: What operators want

  /// What came of an operator's word about a backend.
  package enum Told: Equatable, Sendable {
    case unknownBackend
    /// It holds, and is kept over a restart.
    case kept
    /// It holds, and is forgotten with a restart, and why.
    case notKept(String)
  }

  /// Takes an operator's word about a backend.
  @discardableResult
  package func setAdmin(_ backend: String, _ admin: AdminState) -> Told {
    guard let standing = standing(backend) else { return .unknownBackend }
    standing.set(admin)
    let told = keep(standing)
    log.logger.notice("backend set", metadata: ["backend": "\(backend)", "state": "\(admin.rawValue)"])
    switch admin {
    case .ready, .drain:
      evictions.end(backend)
      probers.withLock { $0 }?.probeNow(backend)
    case .maintenance, .removed: evictions.begin(backend, .rate(moveRate(backend)), .moved)
    }
    return told
  }

  /// Takes a weight an operator set; nil for the configuration's.
  @discardableResult
  package func setWeight(_ backend: String, _ weight: Int?) -> Told {
    guard let standing = standing(backend) else { return .unknownBackend }
    standing.set(weight: weight)
    let told = keep(standing)
    log.logger.notice(
      "backend set", metadata: ["backend": "\(backend)", "weight": "\(weight.map(String.init) ?? "default")"])
    rebuild(backend)
    return told
  }

  /// Keeps what operators told about a backend.
  private func keep(_ standing: BackendStanding) -> Told {
    guard let file = state.withLock({ $0.file }) else { return .notKept("there is no state-file") }
    let row = BackendRow(
      name: standing.name, state: standing.admin, weight: standing.weight, since: WallTime.second)
    return file.save(row).map { .notKept($0) } ?? .kept
  }

  /// A weight has changed.
  private func rebuild(_ backend: String) {
    for pool in pools where pool.plan.index(of: backend) != nil { rebuild(pool, pool.settings) }
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
  private func heard(_ backend: String, _ report: AgentReport) {
    guard let standing = standing(backend) else { return }
    let before = standing.snapshot(at: clock.now)
    standing.agent(report)
    let now = standing.snapshot(at: clock.now)
    if now.agentWeight != before.agentWeight { rebuild(backend) }
    guard now.admin != before.admin else { return }
    log.logger.notice(
      "a backend's agent wants another state", metadata: ["backend": "\(backend)", "state": "\(now.admin.rawValue)"])
    switch now.admin {
    case .ready, .drain: evictions.end(backend)
    case .maintenance, .removed: evictions.begin(backend, .rate(moveRate(backend)), .moved)
    }
  }

  /// The same of one that is at hand.
  func learn(_ standing: BackendStanding, _ evidence: HealthEvidence) {
    let change = standing.learn(evidence, at: clock.now)
    switch evidence {
    case .loginFailed, .loginRefused: probers.withLock { $0 }?.probeNow(standing.name)
    case .probeSucceeded, .probeFailed, .loginAnswered, .agentDown, .agentUp: break
    }
    guard let change else { return }
    switch change {
    case .lost(let why):
      log.logger.warning("backend lost", metadata: ["backend": "\(standing.name)", "reason": "\(why)"])
      let spread = pools.map(\.settings).filter { $0.members.contains { $0.backend == standing.name } }.map(\.spread)
        .max()
      if let spread, spread > 0 { evictions.begin(standing.name, .within(spread), .backendLost) }
    case .recovered:
      log.logger.notice("backend recovered", metadata: ["backend": "\(standing.name)"])
      if standing.admin == .ready || standing.admin == .drain { evictions.end(standing.name) }
    }
  }
}

extension Balance {
  /// Whether one may go over to the other with users there.
  fileprivate func isKin(to other: Balance) -> Bool {
    switch (self, other) {
    case (.affinity(let one), .affinity(let other)): one.kind == other.kind && one.key == other.key
    case (.leastSessions, .leastSessions), (.leastSessions, .roundRobin), (.leastSessions, .randomTwo),
      (.roundRobin, .leastSessions), (.roundRobin, .roundRobin), (.roundRobin, .randomTwo),
      (.randomTwo, .leastSessions), (.randomTwo, .roundRobin), (.randomTwo, .randomTwo):
      true
    case (.affinity, .leastSessions), (.affinity, .roundRobin), (.affinity, .randomTwo), (.leastSessions, .affinity),
      (.roundRobin, .affinity), (.randomTwo, .affinity):
      false
    }
  }
}

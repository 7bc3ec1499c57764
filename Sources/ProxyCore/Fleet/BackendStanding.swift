/// How a backend stands at run time: what the operator told, what its health is, who is there. One for each named backend,
/// for the life of the process; shared by all loops.

internal import Synchronization
internal import Protocols

package final class BackendStanding: Sendable {
  /// The backend's name.
  package let name: String
  /// What is counted of it.
  package let meter = StandingMeter()
  private let state: Mutex<State>
  /// Sessions relayed or being logged in.
  private let present = Atomic<Int>(0)
  /// Logins in progress.
  private let entering = Atomic<Int>(0)

  private struct State {
    var health: Health
    var admin = AdminState.ready
    /// The weight an operator set; nil for the configuration's.
    var weight: Int?
    /// What of the two was told, to this process or to one before whose word was read.
    var told: Told = []
    /// The share an agent told, in percent.
    var agentShare = 100
    /// What an agent told.
    var agent = AdminState.ready
    /// The weight an agent wants; nil for the configuration's.
    var agentWeight: Int?
    /// The most sessions an agent wants; nil for the configuration's.
    var agentSessions: Int?

    var wantedWeight: Int? { weight ?? agentWeight }
  }

  private struct Told: OptionSet {
    let rawValue: UInt8

    static let admin = Told(rawValue: 1 << 0)
    static let weight = Told(rawValue: 1 << 1)
  }

  /// A backend of which nothing is known: it is taken to be well.
  package init(_ name: String, _ settings: HealthSettings = HealthSettings()) {
    self.name = name
    state = Mutex(State(health: Health(settings)))
  }

  // MARK: What is told about it

  /// What the operator wants.
  package var admin: AdminState { state.withLock { $0.admin } }

  /// Takes what the operator wants.
  func set(_ admin: AdminState) {
    state.withLock { state in
      state.admin = admin
      state.told.insert(.admin)
    }
  }

  /// The weight an operator has set; nil for the configuration's.
  package var weight: Int? { state.withLock { $0.weight } }

  /// The weight that holds in the place of the configuration's; nil for that.
  var wantedWeight: Int? { state.withLock { $0.wantedWeight } }

  /// Takes an operator's weight.
  func set(weight: Int?) {
    state.withLock { state in
      state.weight = weight
      state.told.insert(.weight)
    }
  }

  /// Takes what operators told a process before, but for what they told this one. False if that was all.
  func recall(_ row: BackendRow) -> Bool {
    state.withLock { state in
      guard state.told != [.admin, .weight] else { return false }
      if !state.told.contains(.admin) { state.admin = row.state }
      if !state.told.contains(.weight) { state.weight = row.weight }
      state.told = [.admin, .weight]
      return true
    }
  }

  /// What operators told, to be kept; `row`: what is kept by now. Nil if they told this process nothing.
  func row(over row: BackendRow?, since: Int) -> BackendRow? {
    state.withLock { state in
      guard !state.told.isEmpty else { return nil }
      return BackendRow(
        name: name, state: state.told.contains(.admin) ? state.admin : row?.state ?? .ready,
        weight: state.told.contains(.weight) ? state.weight : row?.weight, since: since)
    }
  }

  /// What its agent told; what it left out stays.
  func agent(_ report: AgentReport) {
    state.withLock { state in
      if let admin = report.admin { state.agent = admin }
      if let share = report.share { state.agentShare = share }
      if let weight = report.weight { state.agentWeight = weight }
      if let sessions = report.sessions { state.agentSessions = sessions }
    }
  }

  /// Something was learned about its health; `trial`: of the login that tried it. Returns what that changes.
  func learn(_ evidence: HealthEvidence, of trial: HealthTrial? = nil, at now: UInt64) -> HealthChange? {
    let change = state.withLock { $0.health.learn(evidence, of: trial, at: now) }
    meter.count(change)
    return change
  }

  /// Whether a login may go there now, whatever the operator wants: to one that is lost and not probed, one at a time does.
  func mayTry(at now: UInt64) -> HealthAccess { state.withLock { $0.health.mayTry(at: now) } }

  /// The login that tried it is over.
  func abandon(_ trial: HealthTrial, at now: UInt64) { state.withLock { $0.health.abandon(trial, at: now) } }

  /// A new configuration. What an agent told that is asked no more is forgotten. Returns what that changes of its health.
  func adopt(_ settings: HealthSettings, at now: UInt64) -> HealthChange? {
    let change = state.withLock { state in
      if settings.agent == nil {
        state.agent = .ready
        state.agentShare = 100
        state.agentWeight = nil
        state.agentSessions = nil
      }
      return state.health.adopt(settings, at: now)
    }
    meter.count(change)
    return change
  }

  /// How it stands now.
  func snapshot(at now: UInt64) -> Snapshot {
    state.withLock { state in
      Snapshot(
        admin: max(state.admin, state.agent), health: state.health.state, since: state.health.since,
        weight: state.weight, agentWeight: state.agentWeight, wantedWeight: state.wantedWeight,
        share: state.agentShare, most: state.agentSessions,
        isTrialDue: state.health.isTrialDue(at: now), losses: state.health.losses,
        sessions: present.load(ordering: .relaxed), logins: entering.load(ordering: .relaxed))
    }
  }

  /// When it is to be probed next after a probe that ended at `now`, without jitter.
  func nextProbe(after now: UInt64) -> UInt64 { state.withLock { now + $0.health.interval } }

  /// How a backend stands at a moment.
  package struct Snapshot: Equatable, Sendable {
    /// What operator and agent want, the stricter of the two.
    package let admin: AdminState
    /// Its health.
    package let health: HealthState
    /// Since when its health is that, in nanoseconds of the clock.
    package let since: UInt64
    /// The weight an operator set.
    package let weight: Int?
    /// The weight an agent wants.
    package let agentWeight: Int?
    /// The weight that holds in the place of the configuration's; nil for that.
    let wantedWeight: Int?
    /// The percentage of its weight an agent wants.
    package let share: Int
    /// The most sessions an agent wants.
    package let most: Int?
    /// Whether it is lost, not probed, and a login may try it now.
    let isTrialDue: Bool
    /// How often it was lost.
    let losses: Int
    /// Sessions.
    package let sessions: Int
    /// Logins in progress.
    package let logins: Int

    /// When it came back from being lost; nil if it never was.
    var recovered: UInt64? { since > 0 && !health.isDown ? since : nil }

    /// Whether it takes new users.
    package var takes: Bool { admin == .ready && (!health.isDown || isTrialDue) }
  }

  // MARK: Who is there

  /// Sessions there.
  package var sessions: Int { present.load(ordering: .relaxed) }
  /// Logins on their way there.
  package var logins: Int { entering.load(ordering: .relaxed) }

  /// A session is placed there and logs in.
  func arrive() {
    present.add(1, ordering: .relaxed)
    entering.add(1, ordering: .relaxed)
  }

  /// Its login is over, whatever came of it.
  func settle() { entering.subtract(1, ordering: .relaxed) }

  /// A relay was ended by the backend. Whether that is one of many at once, which is no day's work: more than a
  /// twentieth of its sessions within a second.
  func isLosingMany(at now: UInt64) -> Bool {
    let sessions = sessions
    return losses.withLock { losses in
      if now >= losses.since + BackendStanding.lossWindow { losses = Losses(since: now) }
      losses.count += 1
      losses.most = max(losses.most, sessions)
      return losses.count > max(BackendStanding.fewLosses, losses.most / 20)
    }
  }

  private struct Losses {
    var since: UInt64 = 0
    var count = 0
    /// Sessions that were there when it began.
    var most = 0
  }

  private let losses = Mutex(Losses())
  private static let lossWindow = Timeouts.seconds(1)
  /// So few are let go at once whatever they are of.
  private static let fewLosses = 20

  /// A session is gone.
  func depart() { present.subtract(1, ordering: .relaxed) }
}

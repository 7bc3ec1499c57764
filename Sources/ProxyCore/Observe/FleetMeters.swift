/// What is counted of the fleet: probes and what they changed, logins that had to wait, and the state file.

internal import Synchronization

/// What is counted of a named backend besides its logins. It lives as long as the process, also while a reload has the
/// backend not.
package final class StandingMeter: Sendable {
  /// Probes, in all its protocols together, whatever came of them.
  package let probes = Counter()
  /// Those that speak against it.
  package let failedProbes = Counter()
  /// Those of which nothing was learned: the proxy itself lacked something.
  package let voidProbes = Counter()
  /// How long they took.
  package let probeTimes = Histogram()
  /// Questions to its agent.
  package let agentChecks = Counter()
  /// Those it gave no answer to.
  package let failedAgentChecks = Counter()
  /// Times it was lost.
  package let losses = Counter()
  /// Times it came back.
  package let recoveries = Counter()
  private let last = Atomic<Int>(0)

  /// Nothing counted yet.
  package init() {}

  /// When the last probe ended, in seconds since 1970; nil before the first.
  package var lastProbe: Int? {
    let second = last.load(ordering: .relaxed)
    return second == 0 ? nil : second
  }

  /// A probe was made. Nil: nothing was learned.
  func count(_ evidence: HealthEvidence?, took time: UInt64, at second: Int) {
    switch evidence {
    case .probeFailed?: failedProbes.add()
    case nil: voidProbes.add()
    case .probeSucceeded?, .loginAnswered?, .loginFailed?, .loginRefused?, .agentDown?, .agentUp?: break
    }
    probeTimes.record(time)
    last.store(second, ordering: .relaxed)
    probes.add()
  }

  /// Its health has changed, or not.
  func count(_ change: HealthChange?) {
    switch change {
    case .lost?: losses.add()
    case .recovered?: recoveries.add()
    case nil: break
    }
  }
}

/// What is counted of a pool.
package final class PoolMeter: Sendable {
  /// Logins that had to wait, by what for.
  package let waits = CaseCounters<LoginWait>()
  /// Those of them that ran out of time.
  package let expired = CaseCounters<LoginWait>()

  /// Nothing counted yet.
  package init() {}
}

/// What a login waits for on its way to a member.
package enum LoginWait: String, Equatable, Sendable, CaseIterable {
  /// A place for its user: the end of the sessions at another member, a pause, the directory's word.
  case place
  /// A turn at the pool's gate.
  case poolLogins = "pool-logins"
  /// A turn at the member's gate.
  case memberLogins = "member-logins"
}

/// What is counted of the state file.
package final class StateMeter: Sendable {
  /// Rows written: of users, and of backends.
  package let rows = Counter()
  /// Transactions that wrote them.
  package let batches = Counter()
  /// Transactions that failed.
  package let failures = Counter()
  /// Transactions that took so long that nobody was to wait for them.
  package let stalls = Counter()
  /// How long a transaction took, whatever came of it.
  package let times = Histogram()

  /// Nothing counted yet.
  package init() {}
}

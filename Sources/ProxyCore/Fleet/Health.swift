/// Decides whether a backend is well, of what probes and logins tell.

/// What was learned about a backend.
package enum HealthEvidence: Equatable, Sendable {
  /// A probe that went well to its end.
  case probeSucceeded
  /// A probe that did not, and why.
  case probeFailed(String)
  /// A login got an answer that is the user's own affair: accepted, or a wrong password.
  case loginAnswered
  /// A login could not reach it, or it fell silent. `of`: it had heard whose login it is, by a number; what became of it
  /// may be that user's own affair.
  case loginFailed(String, of: Int? = nil)
  /// It refused a login as unavailable.
  case loginRefused(String, of: Int? = nil)
  /// Its agent says that it is down, and why.
  case agentDown(String)
  /// Its agent says that it is up.
  case agentUp
}

/// How a backend is.
package enum HealthState: Equatable, Sendable {
  case up
  /// Up, and something spoke against it: probes come faster.
  case doubted(String)
  /// Lost, and why.
  case down(String)

  /// Whether it is lost.
  package var isDown: Bool {
    switch self {
    case .up, .doubted: false
    case .down: true
    }
  }
}

/// What an evidence changes, for the log and for who acts on it.
package enum HealthChange: Equatable, Sendable {
  case lost(String)
  case recovered
}

/// Whether a login may go to a backend.
enum HealthAccess: Equatable, Sendable {
  case open
  /// It is lost, and this login is to show whether it still is.
  case trial(HealthTrial)
  case closed
}

/// A login that tries a backend that is lost. What becomes of it is told with this, and of no other login anything is
/// learned meanwhile.
struct HealthTrial: Equatable, Sendable {
  /// Which of the backend's losses it is.
  let loss: Int
  fileprivate let number: Int
}

/// A backend's health as a value.
///
/// Probes and logins are judged together, its agent for itself: it is up if both say so.
package struct Health: Equatable, Sendable {
  /// What the operator wants.
  var settings: HealthSettings
  /// How it is.
  private(set) var state = HealthState.up
  /// Since when it is lost, or not, in nanoseconds of the clock.
  private(set) var since: UInt64 = 0
  /// What probes and logins say.
  private var standing = Standing.up(Doubts())
  /// Why its agent says that it is down; nil if it does not.
  private var agentsReason: String?
  private var lastLoss: Loss?
  /// How often it was lost, by whosever word.
  private(set) var losses = 0
  private var trials = 0

  private enum Standing: Equatable, Sendable {
    case up(Doubts)
    case lost(Recovery)
  }

  /// What speaks against a backend that is up.
  private struct Doubts: Equatable, Sendable {
    /// Nil once a probe or a login found nothing wrong.
    var reason: String?
    /// Probes that failed in a row.
    var probes = 0
    var failed = Run()
    var refused = Run()
  }

  /// Logins in a row.
  private struct Run: Equatable, Sendable {
    private var count = 0
    private var last: UInt64 = 0
    /// Whose they were: as many as the bound at most.
    private var users: Set<Int> = []

    /// One more. What is long ago says nothing about today, where logins are rare. A user counts once: where one mailbox
    /// is broken, its client comes again and again, and the others must not lose their member for it.
    mutating func add(of user: Int?, at now: UInt64) {
      if Health.time(from: last, to: now) >= Health.memory { self = Run() }
      last = now
      if let user, !users.insert(user).inserted { return }
      count += 1
    }

    func reaches(_ bound: Int) -> Bool { bound > 0 && count >= bound }
  }

  /// What speaks for a backend that is lost.
  private struct Recovery: Equatable, Sendable {
    var reason: String
    /// Good probes or trials in a row, and when the first was.
    var count = 0
    var began: UInt64 = 0
    /// How long it must stay good.
    let hold: UInt64
    var breaker: Breaker
  }

  /// Lets logins try a backend that is lost, one at a time.
  private struct Breaker: Equatable, Sendable {
    /// Between a trial that failed and the next.
    var pause = Health.firstPause
    /// When the next may begin.
    var opens: UInt64
    /// The one under way.
    var trial: Attempt?

    struct Attempt: Equatable, Sendable {
      let login: HealthTrial
      let began: UInt64
    }
  }

  private struct Loss: Equatable, Sendable {
    let time: UInt64
    /// How many came before it, each soon after another.
    let repeats: Int
  }

  /// What is longer ago is forgotten: a failed login, and a loss when there is another.
  static let memory = Timeouts.seconds(600)
  /// How long a backend must stay good that was lost for the second time in a row; twice that for the third, and so on.
  static let firstHold = Timeouts.seconds(10)
  /// The longest it must; less than `memory`, so that one that flaps goes on to be one.
  static let longestHold = Timeouts.seconds(300)
  /// Between the loss of a backend that is not probed and the first trial; doubled by each trial that fails.
  static let firstPause = Timeouts.seconds(10)
  /// The longest it gets.
  static let longestPause = Timeouts.seconds(300)
  /// A trial of which nothing was heard: the next need not wait for it. A login has 30 s.
  static let longestTrial = Timeouts.seconds(60)

  /// A backend of which nothing is known.
  init(_ settings: HealthSettings) { self.settings = settings }

  /// Takes what the operator wants from now on. Returns what that changes: an agent that is asked no more says nothing.
  mutating func adopt(_ settings: HealthSettings, at now: UInt64) -> HealthChange? {
    self.settings = settings
    if settings.agent == nil { agentsReason = nil }
    return settle(at: now)
  }

  /// Until the next probe, in nanoseconds.
  var interval: UInt64 {
    switch state {
    case .up: settings.interval
    case .doubted, .down: min(settings.fastInterval, settings.interval)
    }
  }

  /// Takes an evidence; `trial`: that of the login that tells it, if it is one. Returns what it changes.
  mutating func learn(_ evidence: HealthEvidence, of trial: HealthTrial? = nil, at now: UInt64) -> HealthChange? {
    switch evidence {
    case .agentDown(let why):
      if agentsReason == nil { losses += 1 }
      agentsReason = why
    case .agentUp: agentsReason = nil
    case .probeSucceeded, .probeFailed, .loginAnswered, .loginFailed, .loginRefused:
      switch standing {
      case .up(let doubts): weigh(evidence, doubts, at: now)
      case .lost(let recovery): weigh(evidence, recovery, trial, at: now)
      }
    }
    return settle(at: now)
  }

  /// The login that was the trial is over, and nothing was learned of it: its client went away, or it had to go elsewhere.
  /// The next waits for the pause all the same, so that a server that hangs does not cost one login after the other.
  mutating func abandon(_ trial: HealthTrial, at now: UInt64) {
    guard case .lost(var recovery) = standing, recovery.breaker.trial?.login == trial else { return }
    recovery.breaker = Breaker(pause: recovery.breaker.pause, opens: now + recovery.breaker.pause)
    standing = .lost(recovery)
  }

  /// An agent that is asked no more has nothing to say either.
  private var agentSays: String? { settings.agent == nil ? nil : agentsReason }

  /// Whether a login may go there now. To one that is lost and not probed, one may at a time, after a pause.
  mutating func mayTry(at now: UInt64) -> HealthAccess {
    guard agentSays == nil else { return .closed }
    switch standing {
    case .up: return .open
    case .lost(var recovery):
      guard isTrialDue(at: now) else { return .closed }
      trials += 1
      let trial = HealthTrial(loss: losses, number: trials)
      recovery.breaker.trial = Breaker.Attempt(login: trial, began: now)
      standing = .lost(recovery)
      return .trial(trial)
    }
  }

  /// Whether it is lost, and one login may go there to see whether it still is.
  func isTrialDue(at now: UInt64) -> Bool {
    guard agentSays == nil, !settings.isProbed else { return false }
    switch standing {
    case .up: return false
    case .lost(let recovery):
      guard now >= recovery.breaker.opens else { return false }
      guard let trial = recovery.breaker.trial else { return true }
      return Health.time(from: trial.began, to: now) >= Health.longestTrial
    }
  }

  // MARK: Weighing

  private mutating func weigh(_ evidence: HealthEvidence, _ before: Doubts, at now: UInt64) {
    var doubts = before
    switch evidence {
    case .probeSucceeded:
      doubts.reason = nil
      doubts.probes = 0
      // A probe that goes no further than the greeting says nothing of logins.
      if settings.login != nil {
        doubts.failed = Run()
        doubts.refused = Run()
      }
    case .loginAnswered:
      if doubts.probes == 0 { doubts.reason = nil }
      doubts.failed = Run()
      doubts.refused = Run()
    case .probeFailed(let why):
      doubts.reason = why
      doubts.probes += 1
      if doubts.probes >= settings.fall { return lose(why, at: now) }
    case .loginFailed(let why, let user):
      doubts.reason = why
      doubts.failed.add(of: user, at: now)
      if doubts.failed.reaches(settings.failedLogins) { return lose(why, at: now) }
    case .loginRefused(let why, let user):
      doubts.reason = why
      doubts.refused.add(of: user, at: now)
      if doubts.refused.reaches(settings.refusedLogins) { return lose(why, at: now) }
    case .agentDown, .agentUp: return
    }
    standing = .up(doubts)
  }

  private mutating func weigh(
    _ evidence: HealthEvidence, _ before: Recovery, _ trial: HealthTrial?, at now: UInt64
  ) {
    var recovery = before
    let isOutcome = trial != nil && recovery.breaker.trial?.login == trial
    switch evidence {
    // Of a login that was on its way when the backend was lost nothing is learned; but there are others if nobody heeds that.
    case .loginAnswered where !isOutcome && settings.isHeeded: return
    // Where trials decide, only they do.
    case .loginFailed where !isOutcome && !settings.isProbed: return
    case .loginRefused where !isOutcome && !settings.isProbed: return
    case .probeSucceeded, .loginAnswered:
      if evidence == .loginAnswered { recovery.breaker = Breaker(opens: now) }
      if recovery.count == 0 { recovery.began = now }
      recovery.count += 1
      if recovery.count >= settings.rise, Health.time(from: recovery.began, to: now) >= recovery.hold {
        standing = .up(Doubts())
        return
      }
    case .probeFailed(let why):
      recovery.reason = why
      recovery.count = 0
    case .loginFailed(let why, _), .loginRefused(let why, _):
      recovery.reason = why
      recovery.count = 0
      if isOutcome {
        let pause = min(2 * recovery.breaker.pause, Health.longestPause)
        recovery.breaker = Breaker(pause: pause, opens: now + pause)
      }
    case .agentDown, .agentUp: return
    }
    standing = .lost(recovery)
  }

  /// One that flaps has to stay good the longer the oftener it did: its users are not moved back and forth.
  private mutating func lose(_ why: String, at now: UInt64) {
    var repeats = 0
    if let lastLoss, Health.time(from: lastLoss.time, to: now) < Health.memory { repeats = lastLoss.repeats + 1 }
    lastLoss = Loss(time: now, repeats: repeats)
    losses += 1
    standing = .lost(
      Recovery(reason: why, hold: Health.hold(repeats), breaker: Breaker(opens: now + Health.firstPause)))
  }

  /// 0, 10, 20, 40, 80, 160 and then 300 s.
  private static func hold(_ repeats: Int) -> UInt64 {
    repeats == 0 ? 0 : min(firstHold << UInt64(min(repeats - 1, 5)), longestHold)
  }

  /// Puts together what probes and logins say and what the agent says.
  private mutating func settle(at now: UInt64) -> HealthChange? {
    let wasDown = state.isDown
    switch (standing, agentSays) {
    case (.lost(let recovery), _): state = .down(recovery.reason)
    case (.up, let why?): state = .down(why)
    case (.up(let doubts), nil): state = doubts.reason.map { .doubted($0) } ?? .up
    }
    guard state.isDown != wasDown else { return nil }
    since = now
    switch state {
    case .down(let why): return .lost(why)
    case .up, .doubted: return .recovered
    }
  }

  /// Threads read the clock before they tell, and may overtake each other.
  private static func time(from earlier: UInt64, to later: UInt64) -> UInt64 {
    later > earlier ? later - earlier : 0
  }
}

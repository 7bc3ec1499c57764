/// Decides whether a backend is well, of what probes and logins tell.

/// What was learned about a backend.
package enum HealthEvidence: Equatable, Sendable {
  /// A probe that went well to its end.
  case probeSucceeded
  /// A probe that did not, and why.
  case probeFailed(String)
  /// A login got an answer that is the user's own affair: accepted, or a wrong password.
  case loginAnswered
  /// A login could not reach it, or it fell silent.
  case loginFailed(String)
  /// It refused a login as unavailable.
  case loginRefused(String)
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

/// A backend's health as a value.
package struct Health: Equatable, Sendable {
  /// What the operator wants.
  var settings: HealthSettings
  /// How it is.
  private(set) var state = HealthState.up
  /// Since when, in nanoseconds of the clock.
  private(set) var since: UInt64 = 0
  private var failures = 0

  /// A backend of which nothing is known.
  init(_ settings: HealthSettings) { self.settings = settings }

  /// Until the next probe, in nanoseconds.
  var interval: UInt64 {
    switch state {
    case .up: settings.interval
    case .doubted, .down: settings.fastInterval
    }
  }

  /// Takes an evidence. Returns what it changes.
  mutating func learn(_ evidence: HealthEvidence, at now: UInt64) -> HealthChange? {
    switch evidence {
    case .probeSucceeded, .loginAnswered, .agentUp:
      failures = 0
      let wasDown = state.isDown
      state = .up
      if wasDown { since = now }
      return wasDown ? .recovered : nil
    case .probeFailed(let why), .loginFailed(let why), .loginRefused(let why), .agentDown(let why):
      failures += 1
      guard !state.isDown else { return nil }
      guard failures >= settings.fall else {
        state = .doubted(why)
        return nil
      }
      state = .down(why)
      since = now
      return .lost(why)
    }
  }
}

/// What the operator wants of the backends together: which form a pool, who of them gets a user, how their health is
/// watched.

package import Protocols

/// Backends of which each can serve every user of the pool.
package struct PoolSettings: Equatable, Sendable {
  /// At least one, in the order of the file.
  package var members: [MemberSettings]
  /// Who of them gets a user.
  package var balance: Balance
  /// The most sessions at once; nil for no bound.
  package var sessions: Int?
  /// The most logins in progress at once; others wait. Nil for no bound.
  package var logins: Int?
  /// How long a member that has come back takes to its full share, in nanoseconds. 0: at once.
  package var slowStart: UInt64 = 0
  /// When a member is lost, its clients are let go within this time, in nanoseconds. 0: as their connections end.
  package var spread: UInt64 = 0
  /// Users a second that are moved off a member in maintenance.
  package var moveRate: Int = 100

  /// A pool of its members.
  package init(members: [MemberSettings], balance: Balance = .affinity(AffinitySettings())) {
    self.members = members
    self.balance = balance
  }
}

/// A backend in a pool.
package struct MemberSettings: Equatable, Sendable {
  /// The backend's name.
  package var backend: String
  /// Its share, in comparison with the others'. 0 for no new users.
  package var weight: Int = 100
  /// The most sessions at once; nil for no bound.
  package var sessions: Int?
  /// The most logins in progress at once; nil for no bound.
  package var logins: Int?
  /// Whether it serves only when no other can.
  package var isBackup = false
  /// The site it is at: a route may answer `pool/tag`. Empty for none.
  package var tag = ""

  /// A member with the usual share and no bounds.
  package init(_ backend: String) { self.backend = backend }
}

/// Who of a pool's members gets a user.
package enum Balance: Equatable, Sendable {
  /// A user is at one member at a time.
  case affinity(AffinitySettings)
  case leastSessions
  case roundRobin
  /// The one with fewer sessions of two chosen at random (Mitzenmacher's two choices).
  case randomTwo
}

extension Balance {
  /// Whether one may go over to the other with users there.
  func isKin(to other: Balance) -> Bool {
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

/// How users are kept where they are.
package struct AffinitySettings: Equatable, Sendable {
  /// What is remembered when the last session has ended.
  package var kind: Kind = .hash
  /// How a user without a place is given one.
  package var ring: RingForm = .proxyd
  /// What of the name users are told apart by: who has the same key is at the same member.
  package var key: KeyTemplate = .whole
  /// A member gets no new users beyond this percentage of its fair share, above 100; nil for no bound.
  package var loadBound: Int?
  /// How long a user is remembered after the last session, in nanoseconds. Dovecot's `director_user_expire`: 15 min.
  package var expiry = Timeouts.seconds(900)
  /// Between the last session's end at one member and the first at another, in nanoseconds. Dovecot's
  /// `director_user_kick_delay`: 2 s.
  package var pause = Timeouts.seconds(2)
  /// Users an hour that are moved to where the ring would have them; 0 for none.
  package var rebalance = 0

  /// What is remembered of users without sessions.
  package enum Kind: String, Equatable, Sendable, CaseIterable {
    /// Nothing: the ring tells it again.
    case hash
    /// Their member, in a file.
    case table
  }

  /// Affinity by hash, with the usual times.
  package init() {}
}

/// Whose rule places users on the ring.
package enum RingForm: String, Equatable, Sendable, CaseIterable {
  /// Ours: members by name, ten points for each unit of weight.
  case proxyd
  /// Dovecot Director's: MD5, members by address, a point for each unit of weight (dovecot.md §4.1).
  case director
}

/// How a backend's health is watched.
package struct HealthSettings: Equatable, Sendable {
  /// Whether it is asked at all; logins tell about it in any case.
  package var isProbed = true
  /// Between two probes, in nanoseconds, give or take a tenth. HAProxy's `inter`: 2 s.
  package var interval = Timeouts.seconds(5)
  /// The same while its state is in doubt.
  package var fastInterval = Timeouts.seconds(1)
  /// For one probe from connect to goodbye.
  package var timeout = Timeouts.seconds(5)
  /// Good probes after which a lost backend is back. HAProxy: 2.
  package var rise = 2
  /// Bad probes after which a backend is lost. HAProxy: 3.
  package var fall = 3
  /// Logins in a row that could not reach it after which it is lost without a probe.
  package var failedLogins = 3
  /// Logins in a row that it refused as unavailable after which it is lost.
  package var refusedLogins = 20
  /// The protocols that are probed; nil for those of the listeners.
  package var protocols: [MailProtocol]?
  /// Who logs in with a probe; nil for nobody.
  package var login: ProbeLogin?
  /// Where the backend itself tells how it is (HAProxy's agent-check); nil for nowhere.
  package var agent: UInt16?
  /// A certificate that ends within this time is warned of, in nanoseconds.
  package var certificateWarning = Timeouts.seconds(14 * 86_400)
  /// Whether it is in a pool, which goes by it. To a backend in none logins come also while it is lost.
  var isHeeded = true

  /// Probes of the usual kind.
  package init() {}
}

/// The test account a probe logs in with.
package struct ProbeLogin: Equatable, Sendable {
  /// The account's name.
  package var user: String
  /// A file whose first line is the password.
  package var passwordFile: String
  /// Where the configuration names the file.
  package var key: String

  /// An account of its parts.
  package init(user: String, passwordFile: String, key: String = "health.login.password-file") {
    self.user = user
    self.passwordFile = passwordFile
    self.key = key
  }
}

/// What is counted of listeners, backends, logins and sessions, for the life of the process.

internal import Synchronization

package final class Meters: Sendable {
  /// Sessions, by why they ended.
  package let ends = CaseCounters<SessionEnd.Reason>()
  /// Sessions that were ended by somebody's decision, by whose and why.
  package let evictions = CaseCounters<Eviction>()
  /// Logins that did not succeed, by why.
  package let failures = CaseCounters<LoginFailure.Reason>()
  private let handshake = Histogram()
  private let lookup = Histogram()
  private let placement = Histogram()
  private let connect = Histogram()
  private let backendLogin = Histogram()
  private let login = Histogram()
  /// Sessions, by what they were doing when they ended. The words are those of the log, and few.
  private let doings = Mutex<[String: Int]>([:])
  private let backends = Mutex<[String: BackendMeter]>([:])

  /// A map may name any number of servers; those beyond this are counted together.
  static let mostBackends = 1_000
  /// The name of those.
  static let others = "(others)"

  /// Nothing counted yet.
  package init() {}

  /// How long a phase took.
  package func histogram(_ phase: LoginPhase) -> Histogram {
    switch phase {
    case .handshake: handshake
    case .lookup: lookup
    case .placement: placement
    case .connect: connect
    case .backendLogin: backendLogin
    case .login: login
    }
  }

  /// What is counted of a backend, by the name that logs have; asked for once a login.
  package func backend(_ name: String) -> BackendMeter {
    backends.withLock { backends in
      if let known = backends[name] { return known }
      let kept = backends.count < Meters.mostBackends ? name : Meters.others
      if let known = backends[kept] { return known }
      let meter = BackendMeter()
      backends[kept] = meter
      return meter
    }
  }

  /// All backends that were asked for, by name.
  package var allBackends: [(name: String, meter: BackendMeter)] {
    backends.withLock { $0.map { (name: $0.key, meter: $0.value) } }.sorted { $0.name < $1.name }
  }

  /// A session ended while it was doing that.
  func countEnd(doing: String) { doings.withLock { $0[doing, default: 0] += 1 } }

  /// What sessions were doing when they ended, and how many.
  package var endsByDoing: [(doing: String, count: Int)] {
    doings.withLock { $0.map { (doing: $0.key, count: $0.value) } }.sorted { $0.doing < $1.doing }
  }
}

/// A part of a login that is timed.
package enum LoginPhase: String, Equatable, Sendable, CaseIterable {
  /// TLS with the client, that succeeded; its time for thinking included.
  case handshake
  /// From the credentials to the sources' answer.
  case lookup
  /// From the route to a place at a member of the pool.
  case placement
  /// From there to a connection with the backend, its name's look-up included. A backend that greets is noticed by its
  /// greeting.
  case connect
  /// From there to its verdict, TLS with it included.
  case backendLogin = "backend-login"
  /// All of an accepted login, from the credentials on.
  case login
}

/// What is counted of a listener. It lives as long as its address is listened on, whatever a reload changes.
package final class ListenerMeter: Sendable {
  /// Connections accepted.
  package let accepted = Counter()
  /// Sessions now.
  package let present = Counter()
  /// TLS handshakes that succeeded.
  package let handshakes = Counter()
  /// TLS handshakes that did not.
  package let failedHandshakes = Counter()
  /// Logins accepted.
  package let logins = Counter()
  /// Logins refused, whoever refused them and why.
  package let refused = Counter()
  /// Sessions, by why they ended.
  package let ends = CaseCounters<SessionEnd.Reason>()
  /// Bytes of relays from clients.
  package let bytesIn = Counter()
  /// Bytes of relays to clients.
  package let bytesOut = Counter()

  /// Nothing counted yet.
  package init() {}
}

/// What is counted of a backend.
package final class BackendMeter: Sendable {
  /// Logins sent there.
  package let tried = Counter()
  /// Those it accepted.
  package let accepted = Counter()
  /// Those it refused.
  package let refused = Counter()
  /// Those it gave no verdict on.
  package let failed = Counter()
  /// Connections that did not stand, and whatever else failed there, by why; more than logins, where it has several
  /// addresses.
  package let failures = CaseCounters<LoginFailure.Reason>()
  /// Sessions that were logged in there, by why they ended.
  package let ends = CaseCounters<SessionEnd.Reason>()
  /// Sessions logged in there now.
  package let present = Counter()
  /// Bytes of relays from clients.
  package let bytesIn = Counter()
  /// Bytes of relays to clients.
  package let bytesOut = Counter()

  /// Nothing counted yet.
  package init() {}
}

/// What an operator has told about a backend at run time; kept over restarts. In the order of strictness.

package enum AdminState: String, Equatable, Sendable, Comparable {
  /// It takes part.
  case ready
  /// No new users; who has sessions there stays, and may open more.
  case drain
  /// Nobody: who is there is moved, at the pool's rate; it is not probed.
  case maintenance = "maint"
  /// As maintenance, and to be taken out of the configuration.
  case removed

  private var strictness: Int {
    switch self {
    case .ready: 0
    case .drain: 1
    case .maintenance: 2
    case .removed: 3
    }
  }

  /// Whether the one asks for less than the other.
  package static func < (one: AdminState, other: AdminState) -> Bool { one.strictness < other.strictness }

  /// Whether anybody may be there.
  var takesPart: Bool {
    switch self {
    case .ready, .drain: true
    case .maintenance, .removed: false
    }
  }
}

extension Fleet {
  /// What came of an operator's word about a backend.
  package enum Told: Equatable, Sendable {
    case unknownBackend
    /// It holds, and is kept over a restart.
    case kept
    /// It holds, and is forgotten with a restart, and why.
    case notKept(String)
  }
}

/// Why sessions are ended by somebody's decision, told apart where their end is not.

/// The raw value is the stable name in the metrics.
package enum Eviction: String, Equatable, Sendable, CaseIterable {
  /// An operator ended them.
  case kick
  /// Their user belongs elsewhere: an operator, a referral, rebalancing, the route or the configuration says so.
  case move
  /// Their backend is in maintenance or removed.
  case maintenance = "maint"
  /// Their backend is lost, and the user has come again.
  case lost
  /// Their backend is lost, and they are let go bit by bit.
  case spread

  /// As the session's end tells it.
  package var reason: SessionEnd.Reason {
    switch self {
    case .kick: .kicked
    case .move, .maintenance: .moved
    case .lost, .spread: .backendLost
    }
  }
}

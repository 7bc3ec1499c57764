/// Counts sessions by user, by address and by both, and decides whether one more is let in. One for the process.

internal import Synchronization

package final class Census: Sendable {
  private let shards: [Shard]
  private static let shardCount = 64

  private final class Shard: Sendable {
    let counts = Mutex<[Key: Int]>([:])
  }

  /// Whose sessions are counted together.
  enum Key: Hashable, Sendable {
    case user(UserKey)
    case address(SocketAddress)
    case userAt(UserKey, SocketAddress)
  }

  /// Nobody is there yet.
  package init() { shards = (0..<Census.shardCount).map { _ in Shard() } }

  private func shard(_ key: Key) -> Shard { shards[Int(UInt(bitPattern: key.hashValue) % UInt(shards.count))] }

  /// Counts one more; false if there are `most` already.
  func enter(_ key: Key, most: Int) -> Bool {
    shard(key).counts.withLock { counts in
      let count = counts[key] ?? 0
      guard count < most else { return false }
      counts[key] = count + 1
      return true
    }
  }

  /// One that was counted is gone.
  func leave(_ key: Key) {
    shard(key).counts.withLock { counts in
      guard let count = counts[key] else { preconditionFailure("more sessions left than came") }
      counts[key] = count > 1 ? count - 1 : nil
    }
  }

  /// How many there are.
  func count(_ key: Key) -> Int { shard(key).counts.withLock { $0[key] ?? 0 } }
}

/// How many sessions there may be; nil for no bound.
package struct SessionLimits: Equatable, Sendable {
  /// Of a user.
  package var user: Int?
  /// From an address; of IPv6, from a network of 64 bits, which is one subscriber's.
  package var address: Int?
  /// Of a user from an address: Dovecot's `mail_max_userip_connections`.
  package var userAtAddress: Int?

  /// No bounds.
  package init() {}
}

extension SocketAddress {
  /// Who is counted as one: an IPv4 address, or the 64 bits of IPv6 that a subscriber has.
  var subscriber: SocketAddress {
    switch family {
    case .v4: with(port: 0)
    case .v6: with(port: 0).masked(64)
    }
  }
}

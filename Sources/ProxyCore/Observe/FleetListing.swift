/// Shows the backends of the configuration, as they stand, to other threads.

/// A backend at a moment.
package struct BackendView: Equatable, Sendable {
  /// Its name.
  package let name: String
  /// How it stands, by the stricter of the operator's and its agent's word.
  package let stands: BackendStanding.Snapshot
  /// What the operator wants.
  package let admin: AdminState
  /// The pools it is in, by name.
  package let pools: [String]
  /// Its weight; nil if it is in no pool, or has another one in each.
  package let weight: Int?
  /// Seconds since its health is what it is; nil if it never was anything else.
  package let since: Int?
}

extension Fleet {
  /// All backends, by name.
  package var views: [BackendView] {
    let pools = pools.map { (name: $0.name, plan: $0.plan) }
    let now = clock.now
    return standings.map { standing in
      let stands = standing.snapshot(at: now)
      let memberships = pools.compactMap { pool in
        pool.plan.index(of: standing.name).map { (name: pool.name, weight: pool.plan.members[$0].weight) }
      }
      let weights = Set(memberships.map(\.weight))
      return BackendView(
        name: standing.name, stands: stands, admin: standing.admin, pools: memberships.map(\.name),
        weight: weights.count == 1 ? weights.first : nil,
        since: stands.since > 0 ? Int((now - min(now, stands.since)) / 1_000_000_000) : nil)
    }
  }
}

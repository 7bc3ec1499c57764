/// What a directory does from time to time: forgets who is expired, has the file know who is still there, and moves users
/// to where the ring would have them, a few at a time.

internal import Protocols
internal import Synchronization

/// How far the chores have come.
struct DirectoryChores {
  private var terms: DirectoryTerms
  /// Users to be moved in an hour.
  private var rate: Int
  /// The next part to be swept.
  private var shard = 0
  private var rebalance = Rebalance()

  /// Which member the ring gives a user now; nil for none.
  typealias Choice = @Sendable (String) -> String?
  var choice: Choice?

  init(_ terms: DirectoryTerms, rebalance rate: Int) {
    self.terms = terms
    self.rate = rate
  }

  mutating func adopt(_ terms: DirectoryTerms, rebalance rate: Int) {
    self.terms = terms
    self.rate = rate
  }

  /// The parts to be swept now: of 64, as many as it takes to come round in an eighth of the expiry.
  mutating func shards(of count: Int) -> [Int] {
    let round =
      terms.kind == .table
      ? min(max(1, Int(terms.expiry) / 8), DirectoryChores.longRound) : DirectoryChores.shortRound
    let number = max(1, (count + round - 1) / round)
    defer { shard = (shard + number) % count }
    return (0..<min(number, count)).map { (shard + $0) % count }
  }

  /// Seconds for a round at most: pauses are told by a clock that begins anew.
  private static let longRound = 3_600
  /// Seconds for a round where users are forgotten after a pause.
  private static let shortRound = 8

  // MARK: Rebalance

  /// Where the search for users to be moved has come to.
  struct Rebalance {
    /// Users without sessions are moved first: they notice nothing.
    var isOfIdle = true
    var shard = 0
    var place: Int?
    /// Moves that are due, and looks that found nothing to move since the last one.
    var due = 0.0
    var rest = 0
  }

  /// A second has passed: where to look for users to be moved; nil for nowhere.
  mutating func beginRebalance() -> Rebalance? {
    guard rate > 0, choice != nil else { return nil }
    // What could not be moved in time is not made up for all at once.
    rebalance.due = min(rebalance.due + Double(rate) / 3_600, max(1, Double(rate) / 60))
    guard rebalance.rest == 0 else {
      rebalance.rest -= 1
      return nil
    }
    return rebalance.due >= 1 ? rebalance : nil
  }

  /// Takes where the search has come to.
  mutating func endRebalance(_ now: Rebalance) { rebalance = now }

  /// Seconds between two searches that found everybody in place.
  static let restSeconds = 60
}

extension LocalDirectory {
  /// Sets who tells where the ring would have a user: for rebalancing.
  package func onRebalance(_ choice: @escaping @Sendable (String) -> String?) {
    chores.withLock { $0.choice = choice }
    arm()
  }

  /// Sees to it that chores are done, as long as there is anybody.
  func arm() {
    guard !isArmed.load(ordering: .relaxed), !isArmed.exchange(true, ordering: .acquiringAndReleasing) else { return }
    time.after(LocalDirectory.chorePause) { [weak self] in
      guard let self else { return }
      isArmed.store(false, ordering: .releasing)
      doChores()
      if shards.contains(where: { $0.state.withLock { $0.table.count > 0 } }) { arm() }
    }
  }

  /// Between two chores.
  private static let chorePause = Timeouts.seconds(1)

  private func doChores() {
    for shard in chores.withLock({ $0.shards(of: shards.count) }) { sweep(shards[shard]) }
    rebalance()
  }

  /// Forgets who is expired, and stamps who is not: a portion at a time, with the lock given back between.
  private func sweep(_ shard: Shard) {
    var place: Int?
    repeat {
      let now = moment
      let (unwritten, next) = shard.state.withLock { $0.sweep(from: place, most: LocalDirectory.portion, at: now) }
      for user in unwritten { file?.write(user, of: self, isUrgent: false) }
      place = next
    } while place != nil
  }

  /// Users looked at in a second: with a digest each, a thousandth of a core.
  private static let looks = 2_000

  private func rebalance() {
    let (begun, choice) = chores.withLock { ($0.beginRebalance(), $0.choice) }
    guard var search = begun, let choice else { return }
    var looks = LocalDirectory.looks
    let now = moment
    while looks > 0, search.due >= 1, search.rest == 0 {
      let isOfIdle = search.isOfIdle
      let (users, looked, next) = shards[search.shard].state.withLock { state in
        state.portion(from: search.place, most: 100) { record in
          let isIdle = record.marks.isDisjoint(with: [.here, .awaited])
          // An operator's choice stands, and who is being moved already is.
          return record.isRemembered(at: now, state.terms) && isIdle == isOfIdle && !record.marks.contains(.moved)
            && (isIdle || record.last == record.member)
        }
      }
      looks -= max(1, looked)
      search.place = next
      for (name, record) in users {
        guard let wanted = choice(name), let target = names.number(wanted), target != record.member else { continue }
        guard search.due >= 1 else {
          // It is looked at again, from the beginning of its part.
          search.place = nil
          chores.withLock { [search] in $0.endRebalance(search) }
          return
        }
        let key = UserKey(name)
        let errand = shards[key.shard].state.withLock { $0.move(key, from: record.member, to: target, at: now) }
        if let errand {
          search.due -= 1
          run(errand, name)
        }
      }
      guard next == nil else { continue }
      search.shard = (search.shard + 1) % shards.count
      if search.shard == 0 {
        // All without sessions are in place, so it is for those with sessions; then there is time.
        if !search.isOfIdle { search.rest = DirectoryChores.restSeconds }
        search.isOfIdle.toggle()
      }
    }
    chores.withLock { [search] in $0.endRebalance(search) }
  }
}

/// Decides who of a pool's members gets a user that has no place yet. Pure: the ring and the dice are given.

/// A member as the choice sees it.
struct Candidate: Equatable, Sendable {
  /// Its share, in comparison with the others': configuration or operator, times what its agent told.
  var weight: Int
  /// How much of its share it gets for now, in percent: less while it starts slowly.
  var share = 100
  /// Its sessions.
  var sessions: Int
  /// Whether it may be given new users at all.
  var takes: Bool
  /// Whether it has as many sessions as it may.
  var isFull = false
  /// Whether it serves only when no other can.
  var isBackup = false

  /// Whether it would take one more.
  var isOpen: Bool { takes && !isFull && weight > 0 }
}

/// The members of a pool for one choice.
struct Choice: Sendable {
  let candidates: [Candidate]
  /// Whether only backups are left.
  let usesBackups: Bool

  /// What there is to choose from. Backups count where no other member takes users; one that is full does.
  init(_ candidates: [Candidate]) {
    self.candidates = candidates
    usesBackups = !candidates.contains { !$0.isBackup && $0.takes && $0.weight > 0 }
  }

  /// Whether that member may be given a new user.
  func isOpen(_ index: Int) -> Bool {
    candidates[index].isOpen && candidates[index].isBackup == usesBackups
  }

  /// Why there is nobody.
  var lack: Lack {
    candidates.contains { $0.takes && $0.weight > 0 && $0.isBackup == usesBackups } ? .full : .none
  }

  enum Lack: Equatable { case none, full }

  /// The member with the fewest sessions for its weight; among equals the one after `turn`.
  func leastSessions(turn: Int) -> Int? {
    var best: Int?
    for step in 0..<candidates.count {
      let index = (turn &+ step) % candidates.count
      guard isOpen(index) else { continue }
      guard let known = best else {
        best = index
        continue
      }
      if isLess(index, known) { best = index }
    }
    return best
  }

  /// The members in turn, each as often as its weight says, and spread as evenly as that goes: the smooth weighted round
  /// robin, of which `credit` is the memory.
  func roundRobin(_ credit: inout [Int]) -> Int? {
    if credit.count != candidates.count { credit = Array(repeating: 0, count: candidates.count) }
    var total = 0
    var best: Int?
    for index in candidates.indices {
      guard isOpen(index) else {
        credit[index] = 0
        continue
      }
      let weight = effective(index)
      credit[index] += weight
      total += weight
      if best.map({ credit[index] > credit[$0] }) ?? true { best = index }
    }
    if let best { credit[best] -= total }
    return best
  }

  /// The better of two members, drawn by their weights with `dice`: numbers from 0 up to, not including, what they are
  /// given.
  func randomTwo(_ dice: (Int) -> Int) -> Int? {
    guard let first = draw(except: nil, dice) else { return nil }
    guard let second = draw(except: first, dice) else { return first }
    return isLess(second, first) ? second : first
  }

  private func draw(except taken: Int?, _ dice: (Int) -> Int) -> Int? {
    var total = 0
    for index in candidates.indices where index != taken && isOpen(index) { total += effective(index) }
    guard total > 0 else { return nil }
    var left = dice(total)
    for index in candidates.indices where index != taken && isOpen(index) {
      left -= effective(index)
      if left < 0 { return index }
    }
    preconditionFailure("dice that show more than they have")
  }

  /// Weight and share in one number; never 0 for a member that takes users.
  private func effective(_ index: Int) -> Int { max(1, candidates[index].weight * candidates[index].share) }

  /// Whether the one has fewer sessions for its weight than the other.
  private func isLess(_ one: Int, _ other: Int) -> Bool {
    // (a + 1) / w < (b + 1) / v, without a division: one session more is what is decided about.
    (candidates[one].sessions + 1) * effective(other) < (candidates[other].sessions + 1) * effective(one)
  }
}

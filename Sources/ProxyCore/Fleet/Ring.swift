/// Says which member of a pool a user belongs to: consistent hashing, so that a member that comes or goes moves its own
/// share of the users and nobody else's.
///
/// Each member has points on a ring of numbers, as many as its weight says. A user belongs to the member of the first
/// point at or behind the user's own number. With the form `director` it is Dovecot Director's rule to the letter
/// (dovecot.md §4.1): a site changes over without moving a user.

internal import Protocols

package struct Ring: Sendable {
  /// Whose rule it follows.
  package let form: RingForm
  /// The members, with a point or without.
  package let members: [RingMember]
  private let digest: Digest
  /// The points in order, and whose they are: positions in `members`.
  private let points: [UInt64]
  private let owners: [UInt16]

  /// Points at most: those of 1,300 members with Director's 100, and 8 MB of digests' work, a tenth of a second.
  package static let mostPoints = 1 << 17
  /// Points of our form for each unit of weight. With 1,000 each, members' shares differ by 3 % (standard deviation).
  private static let pointsPerWeight = 10

  /// Why there can't be a ring.
  package enum Failure: Error, Equatable, Sendable, CustomStringConvertible {
    /// The system has no such hash function: MD5 may be missing in FIPS mode.
    case noDigest(String)
    /// Director's rule needs the address as text, and a name has none of its own.
    case notAnAddress(member: String, address: String)
    /// Director's rule gives every unit of weight a point, and there are too many.
    case tooManyPoints(Int)
    /// A point knows its member by a number of 16 bits.
    case tooManyMembers(Int)

    /// In words.
    package var description: String {
      switch self {
      case .noDigest(let reason): "its hash function is not available: \(reason)"
      case .notAnAddress(let member, let address):
        "Director's ring needs IP addresses, and \(member) has \"\(address)\""
      case .tooManyPoints(let count):
        "Director's ring has a point for each unit of weight, \(count) together; \(mostPoints) can be had"
      case .tooManyMembers(let count): "a ring has 65535 members at most, and these are \(count)"
      }
    }
  }

  /// The ring of these members. One without weight has no points.
  package init(form: RingForm, members: [RingMember]) throws(Failure) {
    self.form = form
    self.members = members
    guard members.count <= Int(UInt16.max) else { throw .tooManyMembers(members.count) }
    do { digest = try Digest(form == .director ? .md5 : .sha256) } catch { throw .noDigest(error.reason) }
    var labels: [(label: String, order: [UInt8], count: Int)] = []
    switch form {
    case .director:
      for member in members {
        guard let address = SocketAddress(literal: member.address, port: 0) else {
          throw .notAnAddress(member: member.name, address: member.address)
        }
        // As inet_ntop writes it: Director hashes its own text, not the operator's.
        labels.append((address.host, address.ringOrder, max(0, member.weight)))
      }
      let total = labels.reduce(0) { $0.addingSaturated($1.count) }
      guard total <= Ring.mostPoints else { throw .tooManyPoints(total) }
    case .proxyd:
      let counts = Ring.counts(members.map(\.weight))
      for (member, count) in zip(members, counts) { labels.append((member.name, Array(member.name.utf8), count)) }
    }
    var ring: [(point: UInt64, owner: UInt16)] = []
    ring.reserveCapacity(labels.reduce(0) { $0 + $1.count })
    var text: [UInt8] = []
    for (owner, label) in labels.enumerated() {
      for number in 0..<label.count {
        text.removeAll(keepingCapacity: true)
        text += "\(label.label)-\(number)".utf8
        ring.append((Ring.number(form, digest, text.span), UInt16(owner)))
      }
    }
    // Two points in one place: the lesser address goes first, whatever the order of the file.
    ring.sort { one, other in
      if one.point != other.point { return one.point < other.point }
      let (mine, theirs) = (labels[Int(one.owner)].order, labels[Int(other.owner)].order)
      return mine == theirs ? one.owner < other.owner : mine.lexicographicallyPrecedes(theirs)
    }
    points = ring.map(\.point)
    owners = ring.map(\.owner)
  }

  /// Points of our form for each weight: ten times the weight, all of them halved until there are few enough. (By halves,
  /// so that a member more or less seldom changes the others' points.)
  private static func counts(_ weights: [Int]) -> [Int] {
    // Beyond the bound a weight alone is too much; cut there, the products below can't overflow.
    let full = weights.map { min(max(0, $0), mostPoints) * pointsPerWeight }
    func halved(_ count: Int, _ times: Int) -> Int { count == 0 ? 0 : max(1, count >> times) }
    var times = 0
    while times < Int.bitWidth - 1, full.reduce(0, { $0 + halved($1, times) }) > mostPoints { times += 1 }
    return full.map { halved($0, times) }
  }

  /// The place of a text.
  private static func number(_ form: RingForm, _ digest: Digest, _ text: Span<UInt8>) -> UInt64 {
    switch form {
    case .director: digest.prefix(text) >> 32
    case .proxyd: digest.prefix(text)
    }
  }

  // MARK: Looking up

  /// The index of the member that a user belongs to, of those that `accepts`: as if the others had no points. Nil if there
  /// is none.
  package func member(for key: String, where accepts: (Int) -> Bool = { _ in true }) -> Int? {
    var refused = Marks()
    var left = members.count
    return walk(from: key) { position in
      if refused[position] { return .further }
      let index = members[position].index
      if accepts(index) { return .here(index) }
      refused.set(position)
      left -= 1
      return left == 0 ? .end : .further
    }
  }

  /// The same with bounded load (Mirrokni, Thorup, Zadimoghaddam: Consistent Hashing with Bounded Loads): a member is
  /// passed over if with one user more it would have more than `percent` of its fair share of all users, among those that
  /// are accepted. There is always one below its bound; `percent` is taken as 100 at least. `weight` is what a fair share
  /// goes by for now, nil for the members' own; more than none.
  package func member(
    for key: String, where accepts: (Int) -> Bool, load: (Int) -> Int, weight: ((Int) -> Int)? = nil,
    bound percent: Int
  ) -> Int? {
    func share(_ member: RingMember) -> Int { max(1, weight?(member.index) ?? member.weight) }
    var users = 1
    var weights = 0
    for member in members where member.weight > 0 && accepts(member.index) {
      users = users.addingSaturated(max(0, load(member.index)))
      weights = weights.addingSaturated(share(member))
    }
    guard weights > 0 else { return nil }
    var refused = Marks()
    var left = members.count
    var first: Int?
    let below = walk(from: key) { position in
      if refused[position] { return .further }
      let member = members[position]
      if accepts(member.index) {
        let bound = Ring.bound(users: users, weight: share(member), of: weights, percent: percent)
        if load(member.index) < bound { return .here(member.index) }
        // Loads that changed meanwhile must not leave a user without a member.
        if first == nil { first = member.index }
      }
      refused.set(position)
      left -= 1
      return left == 0 ? .end : .further
    }
    return below ?? first
  }

  /// The most users of `users` that a member with that weight takes.
  package static func bound(users: Int, weight: Int, of weights: Int, percent: Int) -> Int {
    guard users > 0, weight > 0, weights > 0 else { return 0 }
    let parts = Int128(weights) * 100
    let (whole, isOver) = (Int128(users) * Int128(weight)).multipliedReportingOverflow(by: Int128(max(100, percent)))
    return isOver ? .max : Int(clamping: (whole - 1) / parts + 1)
  }

  private enum Step {
    case here(Int)
    case further
    case end
  }

  /// Goes round from the user's place, one point after the other.
  private func walk(from key: String, _ visit: (Int) -> Step) -> Int? {
    guard !points.isEmpty else { return nil }
    let start = position(Ring.number(form, digest, key.utf8.span))
    for offset in 0..<points.count {
      let point = start + offset
      switch visit(Int(owners[point < points.count ? point : point - points.count])) {
      case .here(let index): return index
      case .further: continue
      case .end: return nil
      }
    }
    return nil
  }

  /// The first point at or behind the number; beyond the last, the first.
  private func position(_ number: UInt64) -> Int {
    var low = 0
    var high = points.count
    while low < high {
      let middle = (low + high) / 2
      if points[middle] < number { low = middle + 1 } else { high = middle }
    }
    return low == points.count ? 0 : low
  }
}

/// A member as a ring knows it.
package struct RingMember: Equatable, Sendable {
  /// The backend's name.
  package let name: String
  /// Its address as a literal, for Director's form.
  package let address: String
  /// Its share, in comparison with the others'.
  package let weight: Int
  /// What the ring answers.
  package let index: Int

  /// A member of its parts.
  package init(name: String, address: String, weight: Int, index: Int) {
    self.name = name
    self.address = address
    self.weight = weight
    self.index = index
  }
}

/// A set of small numbers that takes no memory below 64.
private struct Marks {
  private var low: UInt64 = 0
  private var high: [UInt64] = []

  subscript(_ number: Int) -> Bool {
    if number < 64 { return low >> UInt64(number) & 1 == 1 }
    let word = number / 64 - 1
    return word < high.count && high[word] >> UInt64(number % 64) & 1 == 1
  }

  mutating func set(_ number: Int) {
    guard number >= 64 else {
      low |= 1 << UInt64(number)
      return
    }
    let word = number / 64 - 1
    while high.count <= word { high.append(0) }
    high[word] |= 1 << UInt64(number % 64)
  }
}

extension Int {
  fileprivate func addingSaturated(_ other: Int) -> Int {
    let (sum, isOver) = addingReportingOverflow(other)
    return isOver ? (other < 0 ? .min : .max) : sum
  }
}

extension SocketAddress {
  /// How Dovecot's net_ip_cmp orders addresses: all of v4 before v6, then by their bytes.
  fileprivate var ringOrder: [UInt8] {
    switch proxyAddress(as: family) {
    case .v4(let number, _): [4] + (0..<4).map { UInt8(truncatingIfNeeded: number >> UInt32(24 - 8 * $0)) }
    case .v6(let high, let low, _):
      [6] + [high, low].flatMap { word in (0..<8).map { UInt8(truncatingIfNeeded: word >> UInt64(56 - 8 * $0)) } }
    case .text(let bytes, _): bytes
    }
  }
}

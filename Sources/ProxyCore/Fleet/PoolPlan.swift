/// A pool as it is until the next reload or change of a weight: its members, their ring, and who of them may be chosen.

internal import Protocols

/// A backend in a pool, with how it stands. Sessions keep it, so that it is one word of theirs.
final class Member: Sendable {
  let settings: MemberSettings
  let standing: BackendStanding
  /// Its logins in progress, bounded.
  let gate: LoginGate
  /// Where it is, for each protocol. Of the same configuration as the pool: a loop's routes may be of the one before or
  /// after, and to them the name would be a host's.
  let servers: [MailProtocol: Backend]

  init(
    settings: MemberSettings, standing: BackendStanding, gate: LoginGate, servers: [MailProtocol: Backend]
  ) {
    self.settings = settings
    self.standing = standing
    self.gate = gate
    self.servers = servers
  }

  var name: String { settings.backend }

  /// Whether so many sessions are as many as it may have; `most` is what its agent wants.
  func isFull(_ most: Int?, with sessions: Int) -> Bool {
    sessions >= min(settings.sessions ?? .max, most ?? .max)
  }

  /// Its share, in comparison with the others'.
  var weight: Int { standing.wantedWeight ?? settings.weight }
}

final class PoolPlan: Sendable {
  let settings: PoolSettings
  let members: [Member]
  /// Nil without affinity.
  let ring: Ring?
  private let indices: [String: Int]

  /// The members' addresses are those of the configuration, as the director's ring has them.
  init(_ settings: PoolSettings, _ members: [Member], addresses: [String: String]) throws(Ring.Failure) {
    self.settings = settings
    self.members = members
    indices = Dictionary(members.enumerated().map { ($1.name, $0) }, uniquingKeysWith: { first, _ in first })
    switch settings.balance {
    case .affinity(let affinity):
      ring = try Ring(
        form: affinity.ring,
        members: members.enumerated().map { index, member in
          RingMember(
            name: member.name, address: addresses[member.name] ?? member.name, weight: member.weight, index: index)
        })
    case .leastSessions, .roundRobin, .randomTwo: ring = nil
    }
  }

  func index(of name: String) -> Int? { indices[name] }
  func member(_ name: String) -> Member? { indices[name].map { members[$0] } }

  /// What there is to choose from for a user with that tag. `tried`: members that have failed the login already.
  func choice(tag: String?, tried: [String], at now: UInt64) -> Choice {
    Choice(members.map { candidate($0, tag: tag, tried: tried, at: now) })
  }

  /// One of them by itself; nil if there is none of that name.
  func candidate(_ name: String, tag: String?, tried: [String], at now: UInt64) -> Candidate? {
    member(name).map { candidate($0, tag: tag, tried: tried, at: now) }
  }

  private func candidate(_ member: Member, tag: String?, tried: [String], at now: UInt64) -> Candidate {
    let stands = member.standing.snapshot(at: now)
    let isWanted = tag == nil || member.settings.tag == tag
    return Candidate(
      weight: stands.wantedWeight ?? member.settings.weight, share: share(stands, at: now), sessions: stands.sessions,
      takes: stands.takes && isWanted && !tried.contains(member.name),
      isFull: member.isFull(stands.most, with: stands.sessions), isBackup: member.settings.isBackup)
  }

  /// The percentage of its weight that a member gets: what its agent wants, and less while it starts slowly.
  private func share(_ stands: BackendStanding.Snapshot, at now: UInt64) -> Int {
    guard settings.slowStart > 0, let recovered = stands.recovered, now < recovered + settings.slowStart else {
      return stands.share
    }
    // Who told of it may have read the clock later than who asks.
    let ramp = max(PoolPlan.leastRamp, Int((now - min(now, recovered)) * 100 / settings.slowStart))
    return max(1, stands.share * ramp / 100)
  }

  /// A member that has just come back gets this percentage at first: none would never be seen to work.
  private static let leastRamp = 5

  /// The member the ring gives a user.
  func ringMember(_ user: String, _ choice: Choice) -> Int? {
    guard let ring, case .affinity(let affinity) = settings.balance else {
      preconditionFailure("a ring is for affinity")
    }
    // A member with less than its share takes that part of its users, always the same ones.
    let draw = PoolPlan.draw(user)
    func accepts(_ index: Int) -> Bool { choice.isOpen(index) && draw < choice.candidates[index].share }
    let bounded = affinity.loadBound.flatMap { bound in
      ring.member(for: user, where: accepts, load: { choice.candidates[$0].sessions }, bound: bound)
    }
    // The last ones that are open take everybody, whatever their share.
    return bounded ?? ring.member(for: user, where: accepts) ?? ring.member(for: user) { choice.isOpen($0) }
  }

  /// A user's number from 0 to 99, for shares: FNV-1a, whose low bits are mixed enough for a percentage.
  private static func draw(_ user: String) -> Int {
    var hash: UInt64 = 0xCBF2_9CE4_8422_2325
    for byte in user.utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
    return Int((hash ^ hash >> 32) % 100)
  }
}

// swift-format-ignore-file: NeverForceUnwrap
// A test that unwraps nil fails, which is what it is for.

import COpenSSL
import Testing

@testable import ProxyCore

/// A generator that gives the same numbers each time (SplitMix64).
struct SeededGenerator: RandomNumberGenerator {
  private var state: UInt64

  init(seed: UInt64) { state = seed }

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var mixed = state
    mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
    mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
    return mixed ^ (mixed >> 31)
  }
}

private func director(_ hosts: [(address: String, count: Int)]) -> [RingMember] {
  hosts.enumerated().map { index, host in
    RingMember(name: "host\(index)", address: host.address, weight: host.count, index: index)
  }
}

private func ours(_ members: [(name: String, weight: Int)]) -> [RingMember] {
  members.enumerated().map { RingMember(name: $1.name, address: "", weight: $1.weight, index: $0) }
}

private let users = (0..<1_000).map { number in
  switch number % 4 {
  case 0: "user\(number)"
  case 1: "user\(number)@example.com"
  case 2: "jörg.\(number)@exämple.org"
  default: String(repeating: "n", count: number % 200) + "\(number)"
  }
}

/// Dovecot's rule once more, as one would write it down from dovecot.md §4.1, with nothing of the ring's code in it.
private enum Naive {
  static func number(_ text: String) -> UInt32 {
    let bytes = Array(text.utf8)
    var hash = [UInt8](repeating: 0, count: 16)
    precondition(EVP_Digest(bytes, bytes.count, &hash, nil, EVP_md5(), nil) == 1)
    return UInt32(hash[0]) << 24 | UInt32(hash[1]) << 16 | UInt32(hash[2]) << 8 | UInt32(hash[3])
  }

  struct Point {
    let hash: UInt32
    let host: Int
  }

  static func ring(_ hosts: [(address: String, count: Int)]) -> [Point] {
    hosts.enumerated().flatMap { index, host in
      (0..<host.count).map { Point(hash: number("\(host.address)-\($0)"), host: index) }
    }
  }

  /// The nearest point that is not before the user; if there is none, the very first.
  static func host(_ user: String, _ ring: [Point]) -> Int? {
    let hash = number(user)
    let behind = ring.filter { $0.hash >= hash }.min { $0.hash < $1.hash }
    return (behind ?? ring.min { $0.hash < $1.hash })?.host
  }
}

struct DirectorRingTests {
  /// The ring of a live Director in dovecot.md §4.3, where `director map` showed alice's hash and host; and what Python's
  /// hashlib makes of the rule.
  @Test(arguments: [
    ("alice", "127.0.0.12"), ("bob", "127.0.0.13"), ("carol", "127.0.0.12"), ("dave", "127.0.0.13"),
    ("user@example.com", "127.0.0.12"), ("jörg", "127.0.0.13"), ("", "127.0.0.13"),
  ])
  func agreesWithALiveRing(_ user: String, _ host: String) throws {
    let members = director([("127.0.0.11", 50), ("127.0.0.12", 100), ("127.0.0.13", 100)])
    let ring = try Ring(form: .director, members: members)
    #expect(members[ring.member(for: user)!].address == host)
  }

  @Test func hashesAsDirectorPrintsIt() throws {
    #expect(Naive.number("alice") == 1_669_653_170)
    #expect(try Digest(.md5).prefix(Array("alice".utf8).span) >> 32 == 1_669_653_170)
  }

  @Test(arguments: [
    ("alice", "2001:db8::2"), ("bob", "2001:db8::2"), ("carol", "192.0.2.10"), ("dave", "192.0.2.10"),
    ("user@example.com", "2001:db8::1"), ("jörg", "192.0.2.10"), ("", "192.0.2.10"),
  ])
  func agreesWithPythonOnBothFamilies(_ user: String, _ host: String) throws {
    let members = director([("2001:db8::2", 30), ("192.0.2.10", 100), ("2001:db8::1", 100)])
    let ring = try Ring(form: .director, members: members)
    #expect(members[ring.member(for: user)!].address == host)
  }

  @Test(arguments: [1, 2, 3, 10, 40])
  func agreesWithTheRule(_ size: Int) throws {
    var random = SeededGenerator(seed: UInt64(size))
    for family in 0..<3 {
      let hosts = (0..<size).map { number -> (String, Int) in
        let isV6 = family == 1 || family == 2 && number % 2 == 0
        return (
          isV6 ? "2001:db8::\(String(number + 1, radix: 16))" : "192.0.2.\(number + 1)",
          [0, 1, 50, 100, 100, 100, 300].randomElement(using: &random)!
        )
      }
      let ring = try Ring(form: .director, members: director(hosts))
      let naive = Naive.ring(hosts)
      #expect(Set(naive.map(\.hash)).count == naive.count, "the naive rule knows no ties")
      for user in users { #expect(ring.member(for: user) == Naive.host(user, naive), "\(user) of \(hosts)") }
    }
  }

  /// Director hashes an address as inet_ntop writes it, however the operator did.
  @Test func anAddressIsHashedInItsUsualForm() throws {
    let plain = try Ring(form: .director, members: director([("2001:db8::1", 100), ("192.0.2.1", 100)]))
    let shouted = try Ring(form: .director, members: director([("2001:0DB8:0:0::0001", 100), ("192.0.2.1", 100)]))
    for user in users { #expect(plain.member(for: user) == shouted.member(for: user)) }
  }

  /// Two backends may differ by their ports only; then all their points are ties, and the first one has them.
  @Test func tiesGoByAddressThenByOrder() throws {
    let same = try Ring(form: .director, members: director([("192.0.2.1", 100), ("192.0.2.1", 100)]))
    for user in users { #expect(same.member(for: user) == 0) }
    // First points in one place, found by search. By its bytes the first address is the lesser; as text it would be the
    // greater. And v4 is before v6.
    for (one, other) in [("9.158.42.1", "10.88.218.1"), ("192.0.232.34", "2001:db8::3:c463")] {
      #expect(Naive.number("\(one)-0") == Naive.number("\(other)-0"))
      #expect(Naive.number("dave") <= Naive.number("\(one)-0"))
      for hosts in [[(one, 1), (other, 1)], [(other, 1), (one, 1)]] {
        let ring = try Ring(form: .director, members: director(hosts))
        #expect(hosts[ring.member(for: "dave")!].0 == one, "the lesser address has the point")
      }
    }
  }

  @Test func whatCannotBeARing() {
    #expect(throws: Ring.Failure.notAnAddress(member: "host1", address: "mail.example.com")) {
      try Ring(form: .director, members: director([("192.0.2.1", 1), ("mail.example.com", 1)]))
    }
    #expect(throws: Ring.Failure.tooManyPoints(Ring.mostPoints + 1)) {
      try Ring(form: .director, members: director([("192.0.2.1", 1), ("192.0.2.2", Ring.mostPoints)]))
    }
    #expect(throws: Ring.Failure.tooManyPoints(.max)) {
      try Ring(form: .director, members: director([("192.0.2.1", .max), ("192.0.2.2", .max)]))
    }
    #expect(throws: Digest.Unavailable.self) { try Digest(named: "MD5-of-another-world") }
    for failure in [
      Ring.Failure.noDigest("MD5: unsupported"), .notAnAddress(member: "a", address: "b"), .tooManyPoints(5),
      .tooManyMembers(7),
    ] { #expect(!failure.description.isEmpty) }
  }
}

struct RingTests {
  @Test(arguments: [
    ("alice", "a"), ("bob", "a"), ("carol", "a"), ("dave", "c"), ("user@example.com", "a"), ("jörg", "a"), ("", "c"),
  ])
  func agreesWithPython(_ user: String, _ name: String) throws {
    let members = ours([("a", 100), ("b", 100), ("c", 50)])
    let ring = try Ring(form: .proxyd, members: members)
    #expect(members[ring.member(for: user)!].name == name)
  }

  @Test(arguments: [RingForm.proxyd, .director])
  func nobodyIsThere(_ form: RingForm) throws {
    #expect(try Ring(form: form, members: []).member(for: "alice") == nil)
    let weightless = [RingMember(name: "a", address: "192.0.2.1", weight: 0, index: 0)]
    #expect(try Ring(form: form, members: weightless).member(for: "alice") == nil)
    let negative = [RingMember(name: "a", address: "192.0.2.1", weight: -5, index: 0)]
    #expect(try Ring(form: form, members: negative).member(for: "alice") == nil)
    let one = [RingMember(name: "a", address: "192.0.2.1", weight: 1, index: 7)]
    let ring = try Ring(form: form, members: one)
    #expect(ring.member(for: "alice") == 7)
    #expect(ring.member(for: "alice") { _ in false } == nil)
    #expect(ring.member(for: "alice", where: { _ in false }, load: { _ in 0 }, bound: 120) == nil)
    #expect(ring.member(for: "alice", where: { _ in true }, load: { _ in 1_000 }, bound: 120) == 7)
  }

  private func members(_ count: Int) -> [RingMember] {
    (0..<count).map { RingMember(name: "m\($0)", address: "192.0.2.\($0 + 1)", weight: 100, index: $0) }
  }

  /// Without a member, exactly its own users move; and passing it over is the same as a ring without it.
  @Test(arguments: [RingForm.proxyd, .director], [2, 3, 10, 70])
  func aLostMemberMovesItsOwnShareOnly(_ form: RingForm, _ size: Int) throws {
    let all = members(size)
    let ring = try Ring(form: form, members: all)
    for lost in Set([0, size / 2, size - 1]) {
      let rest = try Ring(form: form, members: all.filter { $0.index != lost })
      var moved = 0
      for user in users {
        let before = ring.member(for: user)
        let after = rest.member(for: user)
        #expect(after != lost)
        if before == lost { moved += 1 } else { #expect(after == before, "\(user) has nothing to do with \(lost)") }
        #expect(ring.member(for: user) { $0 != lost } == after)
      }
      if size <= 10 { #expect(moved > 0) }
    }
  }

  @Test(arguments: [RingForm.proxyd, .director])
  func aNewMemberTakesItsOwnShareOnly(_ form: RingForm) throws {
    let before = try Ring(form: form, members: members(9))
    let after = try Ring(form: form, members: members(10))
    var moved = 0
    for user in users where before.member(for: user) != after.member(for: user) {
      #expect(after.member(for: user) == 9)
      moved += 1
    }
    // A tenth, give or take what a hundred points spread (a third).
    #expect((50...200).contains(moved), "\(moved)")
  }

  @Test(arguments: [RingForm.proxyd, .director])
  func membersThatAreRefusedHaveNoPoints(_ form: RingForm) throws {
    let all = members(80)
    let ring = try Ring(form: form, members: all)
    var random = SeededGenerator(seed: 4)
    for _ in 0..<20 {
      let accepted = Set(all.map(\.index).filter { _ in UInt8.random(in: 0..<10, using: &random) == 0 })
      let rest = try Ring(form: form, members: all.filter { accepted.contains($0.index) })
      for user in users.prefix(200) {
        #expect(ring.member(for: user) { accepted.contains($0) } == rest.member(for: user))
      }
    }
  }

  /// Each member is asked once at most, however many points it has.
  @Test func aRefusalIsRemembered() throws {
    let ring = try Ring(form: .proxyd, members: members(100))
    var asked: [Int: Int] = [:]
    #expect(
      ring.member(for: "alice") {
        asked[$0, default: 0] += 1; return false
      } == nil)
    #expect(asked.count == 100 && asked.values.allSatisfy { $0 == 1 })
  }

  @Test func sharesFollowTheWeights() throws {
    let ring = try Ring(form: .proxyd, members: ours([("a", 100), ("b", 100), ("c", 50), ("d", 0), ("e", 250)]))
    var counts = [0, 0, 0, 0, 0]
    for number in 0..<20_000 { counts[ring.member(for: "user\(number)@example.com")!] += 1 }
    for (count, share) in zip(counts, [0.2, 0.2, 0.1, 0, 0.5]) {
      let fair = share * 20_000
      #expect(abs(Double(count) - fair) <= fair * 0.15, "\(count) of \(fair)")
    }
  }

  /// A change of weight moves users to the member that grows, or from the one that shrinks.
  @Test func aWeightMovesOneMembersUsersOnly() throws {
    let before = try Ring(form: .proxyd, members: ours([("a", 100), ("b", 100), ("c", 100)]))
    let more = try Ring(form: .proxyd, members: ours([("a", 100), ("b", 150), ("c", 100)]))
    for user in users where before.member(for: user) != more.member(for: user) { #expect(more.member(for: user) == 1) }
  }

  /// The order of the file says nothing.
  @Test func orderDoesNotMatter() throws {
    let names = ["a", "b", "c", "d"]
    let one = try Ring(
      form: .proxyd,
      members: names.enumerated().map {
        RingMember(name: $1, address: "", weight: 100, index: $0)
      })
    let other = try Ring(
      form: .proxyd,
      members: names.enumerated().reversed().map {
        RingMember(name: $1, address: "", weight: 100, index: $0)
      })
    for user in users { #expect(one.member(for: user) == other.member(for: user)) }
  }

  /// Weights beyond the bound of points keep their proportion, and everybody with a weight has a point.
  @Test func pointsAreBounded() throws {
    let huge = try Ring(form: .proxyd, members: ours([("a", .max), ("b", .max), ("c", 1)]))
    var counts = [0, 0, 0]
    for user in users { counts[huge.member(for: user)!] += 1 }
    #expect(abs(counts[0] - counts[1]) < 200)
    #expect(huge.member(for: "alice") { $0 == 2 } == 2)
    let many = try Ring(form: .proxyd, members: ours((0..<5_000).map { ("m\($0)", 100) }))
    #expect(Set(users.map { many.member(for: $0)! }).count > 500)
    #expect(throws: Ring.Failure.tooManyMembers(65_536)) {
      try Ring(form: .proxyd, members: ours((0..<65_536).map { ("m\($0)", 1) }))
    }
  }
}

struct BoundedLoadTests {
  private let members = [("a", 100), ("b", 100), ("c", 50), ("d", 200), ("e", 0)]

  /// The bound as the paper has it: ceil(c · (m + 1) · share).
  @Test func theBound() {
    #expect(Ring.bound(users: 1, weight: 1, of: 4, percent: 125) == 1)
    #expect(Ring.bound(users: 100, weight: 1, of: 4, percent: 125) == 32)
    #expect(Ring.bound(users: 100, weight: 2, of: 4, percent: 125) == 63)
    #expect(Ring.bound(users: 100, weight: 1, of: 4, percent: 100) == 25)
    #expect(Ring.bound(users: 101, weight: 1, of: 4, percent: 50) == 26)
    #expect(Ring.bound(users: 100, weight: 0, of: 4, percent: 125) == 0)
    #expect(Ring.bound(users: .max, weight: .max, of: 1, percent: .max) == .max)
    #expect(Ring.bound(users: .max, weight: .max, of: .max, percent: 100) == .max)
  }

  /// In a random walk of users who come and go while members come and go, nobody is sent to a member beyond its bound, and
  /// everybody is sent to somebody.
  @Test(arguments: [100, 110, 125, 200])
  func neverBeyondTheBound(_ percent: Int) throws {
    let ring = try Ring(form: .proxyd, members: ours(members))
    var random = SeededGenerator(seed: UInt64(percent))
    var load = [0, 0, 0, 0, 0]
    var present: [Int] = []
    var accepted = [true, true, true, true, true]
    var diverted = 0
    for turn in 0..<20_000 {
      if turn % 500 == 0 { accepted = accepted.map { _ in UInt8.random(in: 0..<5, using: &random) > 0 } }
      guard present.isEmpty || UInt8.random(in: 0..<10, using: &random) < 6 else {
        let gone = present.remove(at: Int.random(in: 0..<present.count, using: &random))
        load[gone] -= 1
        continue
      }
      let user = "user\(Int.random(in: 0..<5_000, using: &random))"
      let answer = ring.member(for: user, where: { accepted[$0] }, load: { load[$0] }, bound: percent)
      let open = members.indices.filter { accepted[$0] && members[$0].1 > 0 }
      guard let answer else {
        #expect(open.isEmpty)
        continue
      }
      let users = open.reduce(1) { $0 + load[$1] }
      let weights = open.reduce(0) { $0 + members[$1].1 }
      #expect(open.contains(answer))
      let fair = Double(percent) / 100 * Double(users) * Double(members[answer].1) / Double(weights)
      #expect(Double(load[answer]) < fair.rounded(.up), "turn \(turn)")
      if answer != ring.member(for: user, where: { accepted[$0] }) { diverted += 1 }
      load[answer] += 1
      present.append(answer)
    }
    #expect(diverted > 0)
  }

  /// A member that starts slowly has a lesser share for a while.
  @Test func aShareMayDifferFromTheRings() throws {
    let ring = try Ring(form: .proxyd, members: ours([("a", 100), ("b", 100)]))
    var load = [0, 0]
    for user in users {
      load[
        ring.member(
          for: user, where: { _ in true }, load: { load[$0] }, weight: { $0 == 0 ? 10 : 90 }, bound: 100)!] += 1
    }
    #expect(load == [100, 900])
  }

  /// A user whose member is below its bound is where the ring alone would have him.
  @Test func withoutLoadItIsTheRing() throws {
    let ring = try Ring(form: .proxyd, members: ours(members))
    for user in users {
      #expect(ring.member(for: user, where: { _ in true }, load: { _ in 0 }, bound: 125) == ring.member(for: user))
    }
  }

  /// Loads that grow between two looks leave nobody without a member.
  @Test func loadsMayChangeMeanwhile() throws {
    let ring = try Ring(form: .proxyd, members: ours(members))
    var asked = 0
    let answer = ring.member(
      for: "alice", where: { _ in true },
      load: { _ in
        asked += 1
        return asked > 4 ? 1_000 : 0
      }, bound: 125)
    #expect(answer == ring.member(for: "alice"))
  }
}

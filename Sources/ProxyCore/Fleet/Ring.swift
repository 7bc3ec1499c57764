/// Stub: replaced by the directory branch.

internal import Synchronization

struct RingMember: Sendable {
  let name: String
  let address: String
  let weight: Int
}

package struct RingFailure: Error, Equatable, Sendable {
  let reason: String
}

struct Ring: Sendable {
  let members: [RingMember]
  init(form: RingForm, members: [RingMember]) throws(RingFailure) { self.members = members }

  func member(for key: String, where accepts: (Int) -> Bool) -> Int? {
    let start = key.utf8.reduce(0) { ($0 &* 31 &+ Int($1)) & 0xFFFF } % max(1, members.count)
    return (0..<members.count).map { ($0 + start) % members.count }.first { members[$0].weight > 0 && accepts($0) }
  }

  func member(
    for key: String, where accepts: (Int) -> Bool, load: (Int) -> Int, fraction: (Int) -> Double, bound: Int
  ) -> Int? { member(for: key, where: accepts) }
}

/// Stub: replaced by LocalDirectory.
final class MemoryDirectory: UserDirectory {
  private let places = Mutex<[String: String]>([:])
  private let recalled = Mutex<(@Sendable (String) -> Void)?>(nil)

  func locate(
    _ user: String, _ question: PlaceQuestion, later: @escaping @Sendable (PlaceAnswer) -> Void
  ) -> PlaceAnswer? {
    places.withLock { places in
      if let known = places[user], question.accepts(known) { return .at(known) }
      guard let preferred = question.preferred else { return .nowhere }
      places[user] = preferred
      return .at(preferred)
    }
  }
  func depart(_ user: String, wasThere: Bool) {}
  func move(_ user: String, to member: String) {
    places.withLock { $0[user] = member }
    recalled.withLock { $0 }?(user)
  }
  func forget(_ user: String) -> Bool { places.withLock { $0.removeValue(forKey: user) } != nil }
  func lookup(_ user: String) -> DirectoryEntry? { nil }
  func forEach(_ body: ([DirectoryEntry]) -> Bool) {}
  var count: Int { 0 }
  func onRecall(_ body: @escaping @Sendable (String) -> Void) { recalled.withLock { $0 = body } }
}

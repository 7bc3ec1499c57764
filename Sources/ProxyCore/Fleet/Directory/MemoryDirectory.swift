/// Stub: replaced by LocalDirectory.

internal import Synchronization

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

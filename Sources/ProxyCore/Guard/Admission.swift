/// Decides whether one more connection is let in. One for the process.

internal import Synchronization

package final class Admission: Sendable {
  /// The most sessions at once.
  private let most: Atomic<Int>
  private let present = Atomic<Int>(0)

  /// An empty house with so many places.
  package init(most: Int) { self.most = Atomic(most) }

  /// The most sessions at once, as it is now.
  package var limit: Int { most.load(ordering: .relaxed) }

  /// Sessions now.
  package var count: Int { present.load(ordering: .relaxed) }

  /// Takes a place; false if there is none.
  func enter() -> Bool {
    guard present.add(1, ordering: .relaxed).newValue > most.load(ordering: .relaxed) else { return true }
    leave()
    return false
  }

  func leave() {
    let (_, left) = present.subtract(1, ordering: .relaxed)
    precondition(left >= 0, "more sessions left than came")
  }

  /// A new configuration. Those present stay.
  func allow(_ number: Int) { most.store(number, ordering: .relaxed) }

  /// What the descriptors allow: two for each relayed session, and some for ourselves (epoll sets, listeners, maps, the
  /// log, name lookups).
  package static func sessions(descriptors: Int) -> Int { max(1, (descriptors - reserve(descriptors)) / 2) }

  private static func reserve(_ descriptors: Int) -> Int { min(128, descriptors / 4) }
}

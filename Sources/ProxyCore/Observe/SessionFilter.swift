/// Says which sessions are meant, by who and where they are.

internal import Protocols

package struct SessionFilter: Equatable, Sendable {
  /// The user's name as the log has it, in any case; `*` stands for any bytes, `?` for one.
  package var user: NamePattern?
  /// The backend's name.
  package var backend: String?
  /// Where the client's address is.
  package var network: Network?
  /// A part of what the session is doing, in any case: `relaying`, `backend's greeting`.
  package var doing: String?
  /// The session's name in the log.
  package var session: String?

  /// All sessions.
  package init() {}

  /// Whether it leaves nobody out.
  package var isEmpty: Bool { self == SessionFilter() }

  func matches(_ record: SessionRecord, doing: @autoclosure () -> String) -> Bool {
    if let user, !user.matches(record.login) { return false }
    if let backend, record.backend != backend { return false }
    if let network, !network.contains(record.client) { return false }
    if let wanted = self.doing, !doing().lowercased().contains(wanted.lowercased()) { return false }
    if let session, record.name != session { return false }
    return true
  }
}

/// A name, or a pattern of names.
package struct NamePattern: Equatable, Sendable {
  private let bytes: [UInt8]

  /// `*` stands for any bytes, `?` for one; letters of ASCII match in any case.
  package init(_ text: String) { bytes = text.utf8.map(\.lowercased) }

  /// Whether the whole name fits. The time it takes is bounded by the product of the two lengths.
  package func matches(_ name: [UInt8]) -> Bool {
    var (place, index) = (0, 0)
    // Where the last star stood, and how far it has been stretched.
    var star: (place: Int, index: Int)?
    while index < name.count {
      if place < bytes.count, bytes[place] == .ascii("*") {
        star = (place, index)
        place += 1
      } else if place < bytes.count, bytes[place] == .ascii("?") || bytes[place] == name[index].lowercased {
        place += 1
        index += 1
      } else if let last = star {
        star = (last.place, last.index + 1)
        (place, index) = (last.place + 1, last.index + 1)
      } else {
        return false
      }
    }
    return bytes[place...].allSatisfy { $0 == .ascii("*") }
  }
}

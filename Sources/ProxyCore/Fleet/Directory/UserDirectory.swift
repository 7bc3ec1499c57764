/// Where users are: the seam between the sessions of this proxyd and whatever remembers their users' members.
///
/// `Residents` asks it when a user's first session comes and tells it when the last has gone; what is between, it knows
/// itself. Nothing outside this folder may assume that the answer is known in this process: several proxyds will share
/// one directory.

internal import Protocols

package protocol UserDirectory: AnyObject, Sendable {
  /// Where the user's sessions go from now on, until `depart`. Answers now, or returns nil and calls `later` once, on some
  /// thread: after the pause of a move, or when the answer is durable.
  ///
  /// An answer is a promise: until this proxyd says `depart`, nobody places the user elsewhere without having asked this
  /// proxyd to let go of the user.
  func locate(
    _ user: String, _ question: PlaceQuestion, later: @escaping @Sendable (PlaceAnswer) -> Void
  ) -> PlaceAnswer?

  /// The user's last session here has ended. `wasThere`: a member let one of them in; else nothing can be left of it
  /// there, and no pause is needed before another member.
  func depart(_ user: String, wasThere: Bool)

  /// Where the user is to be from now on. Whoever has sessions of the user's elsewhere is asked to end them.
  func move(_ user: String, to member: String)

  /// Forgets a user, so that the ring decides again; false if the user is not known. Sessions there are end before.
  func forget(_ user: String) -> Bool

  /// What is known of a user; nil for nothing.
  func lookup(_ user: String) -> DirectoryEntry?

  /// All that is known, in portions, in no order. Returning false ends it.
  func forEach(_ body: ([DirectoryEntry]) -> Bool)

  /// Users remembered.
  var count: Int { get }

  /// Answers up to now that had to wait for the pause between two members.
  var pauses: Int { get }

  /// Sets who is asked to end a user's sessions here; once, before the first question.
  func onRecall(_ body: @escaping @Sendable (String) -> Void)
}

/// What has to be known to place a user who has no place, or can't stay. It is asked when the answer is given: during a
/// pause members come and go.
package struct PlaceQuestion: Sendable {
  /// The member the user gets without a place yet; nil if there is none to be had. Asked only where it is needed: it is a
  /// look at all members.
  package let preferred: @Sendable () -> String?
  /// Whether a member may be given the user.
  package let accepts: @Sendable (String) -> Bool

  /// A question of its parts.
  package init(
    preferred: @autoclosure @escaping @Sendable () -> String?, accepts: @escaping @Sendable (String) -> Bool
  ) {
    self.preferred = preferred
    self.accepts = accepts
  }
}

/// Where a user goes.
package enum PlaceAnswer: Equatable, Sendable {
  case at(String)
  /// No member takes the user.
  case nowhere
  /// The directory could not be asked, and why.
  case failed(String)
}

/// What a directory knows of a user.
package struct DirectoryEntry: Equatable, Sendable {
  /// The user, as the pool's key has it.
  package let user: String
  /// The member's name.
  package let member: String
  /// When the user is forgotten, in seconds since 1970; nil as long as there are sessions.
  package let expires: Int?

  /// An entry of its parts.
  package init(user: String, member: String, expires: Int?) {
    self.user = user
    self.member = member
    self.expires = expires
  }
}

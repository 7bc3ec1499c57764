/// The vocabulary of routing: what a source may answer, and what comes of it.

internal import Protocols

/// Where a source sends a user.
package struct Destination: Equatable, Sendable {
  /// A backend's name or `host[:port]`.
  package var backend: String
  /// The name to log in with there, if another.
  package var loginAs: [UInt8]?
  /// The user's password as crypt(3) has it, where a source knows it.
  package var passwordHash: SharedSecret?
  /// The password to log in with there, if another than the client's.
  package var password: SharedSecret?
  /// Whether the source has found the client's password right.
  package var isChecked = false

  /// From an answer's words: `[user@]backend`, the last "@" parts them; a `loginAs` of its own comes first.
  package init(_ text: String, loginAs: [UInt8]? = nil) {
    let parts = text.utf8.lastIndex(of: .ascii("@")).map { (text[..<$0], text[text.utf8.index(after: $0)...]) }
    backend = parts.map { String($0.1) } ?? text
    self.loginAs = loginAs ?? parts.flatMap { $0.0.isEmpty ? nil : Array($0.0.utf8) }
  }
}

/// What one source says. A lookup that failed is never "not found": the next source, or the default, would send the
/// user to a stranger's backend.
package enum SourceAnswer: Equatable, Sendable {
  case found(Destination)
  /// The user is known, and the operator lets nobody in: the answer is `!`.
  case disabled
  case notFound
  /// A source that checks passwords refuses this one.
  case refused(Refusal)
  /// A writer holds the map; asking again soon will do.
  case busy
  /// The source wants to be asked again after so many nanoseconds.
  case again(after: UInt64)
  case failed(String)

  /// What a source that checks passwords says besides its no.
  package struct Refusal: Equatable, Sendable {
    /// Words for the client; nil for the usual ones.
    package var words: [UInt8]?
    /// Nanoseconds to wait before the client is told; nil for the usual time.
    package var delay: UInt64?

    /// A refusal of its parts.
    package init(words: [UInt8]? = nil, delay: UInt64? = nil) {
      self.words = words
      self.delay = delay
    }
  }
}

extension SourceAnswer {
  /// An answer of a source in its own words, `[user@]backend`; "!" stands for a closed account.
  package init(_ text: String, loginAs: [UInt8]? = nil, passwordHash: SharedSecret? = nil) {
    guard text != "!" else {
      self = .disabled
      return
    }
    var destination = Destination(text, loginAs: loginAs)
    destination.passwordHash = passwordHash
    self = destination.backend.isEmpty ? .failed("the answer names no backend") : .found(destination)
  }
}

/// Where a user goes.
package struct Route: Equatable, Sendable {
  /// The server, or the servers of which one is chosen.
  package let target: RouteTarget
  /// The user's name at the backend, if another than the client's.
  package let loginAs: [UInt8]?
  /// The source that knew, as `route` prints it.
  package let source: String
  /// The password for the backend, if another than the client's.
  package var password: SharedSecret?
}

/// A route with its server: as the session follows it.
struct PlacedRoute: Equatable, Sendable {
  let backend: Backend
  let route: Route
}

/// What a source's answer means.
package enum RouteTarget: Equatable, Sendable {
  /// One server.
  case backend(Backend)
  /// A pool, or its members with that tag: `pool` or `pool/tag`.
  case pool(String, tag: String?)

  /// As a source wrote it, for people.
  package var name: String {
    switch self {
    case .backend(let backend): backend.name
    case .pool(let name, nil): name
    case .pool(let name, let tag?): "\(name)/\(tag)"
    }
  }
}

/// What the sources together say.
package enum RouteOutcome: Equatable, Sendable {
  case found(Route)
  /// The operator closed the account, says that source.
  case disabled(source: String)
  case unknownUser
  /// The password was found wrong before any backend saw it.
  case refused(source: String, SourceAnswer.Refusal)
  /// The client's mechanism gives no password that could be checked.
  case uncheckable(source: String)
  case busy
  case failed(source: String, reason: String)
}

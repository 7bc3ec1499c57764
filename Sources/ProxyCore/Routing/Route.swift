/// The vocabulary of routing: what is asked, what a source may answer, and what comes of it.

package import Protocols

/// Whose backend is looked for.
package struct RouteQuery: Equatable, Sendable {
  /// The user's name in ASCII lower case. Dovecot compares names so by default; two spellings of a user must not be
  /// sent to two backends.
  package let login: [UInt8]
  /// The protocol the user came with.
  package let mailProtocol: MailProtocol
  /// Where the last "@" stands in `login`.
  private let at: Int?

  /// A question for the name as the client gave it.
  package init(user: [UInt8], mailProtocol: MailProtocol) {
    login = user.map(\.lowercased)
    at = login.lastIndex(of: .ascii("@"))
    self.mailProtocol = mailProtocol
  }

  /// Before the last "@"; all of the name if there is none.
  package var local: ArraySlice<UInt8> { login[..<(at ?? login.endIndex)] }
  /// Behind the last "@"; nil if there is none.
  package var domain: ArraySlice<UInt8>? { at.map { login[($0 + 1)...] } }
}

/// What one source says. A lookup that failed is never "not found": the next source, or the default, would send the
/// user to a stranger's backend.
package enum SourceAnswer: Equatable, Sendable {
  /// A backend's name or `host[:port]`, and the name to log in with there, if another.
  case found(backend: String, loginAs: [UInt8]?)
  /// The user is known, and the operator lets nobody in: the answer is `!`.
  case disabled
  case notFound
  /// A writer holds the map; asking again soon will do.
  case busy
  case failed(String)
}

extension SourceAnswer {
  /// An answer of a source in its own words; "!" stands for a closed account.
  init(_ backend: String, loginAs: [UInt8]?) {
    self = backend == "!" ? .disabled : .found(backend: backend, loginAs: loginAs)
  }
}

/// Where a user goes.
package struct Route: Equatable, Sendable {
  /// The server.
  package let backend: Backend
  /// The user's name at the backend, if another than the client's.
  package let loginAs: [UInt8]?
  /// The source that knew, as `route` prints it.
  package let source: String
}

/// What the sources together say.
package enum RouteOutcome: Equatable, Sendable {
  case found(Route)
  /// The operator closed the account, says that source.
  case disabled(source: String)
  case unknownUser
  case busy
  case failed(source: String, reason: String)
}

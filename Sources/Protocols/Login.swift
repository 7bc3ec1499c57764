/// A login while it is being asked for: what a client dialogue fills in and a backend dialogue borrows.
///
/// The one place a password stands. It belongs to the session, never to a dialogue, and is emptied with every attempt.
package struct LoginDraft: ~Copyable {
  /// How the client gave its credentials.
  package enum Method: Equatable, Sendable {
    /// IMAP's LOGIN, POP3's USER and PASS.
    case command
    case sasl(SASLMechanism)
  }

  /// How the credentials were given; a backend is logged in to alike where it can be.
  package var method = Method.command
  /// The authentication identity (RFC 4422 §2): whose password it is.
  package var name: [UInt8] = []
  /// The authorization identity: whose mailbox is asked for; empty if that of `name`.
  package var authorizationIdentity: [UInt8] = []
  /// The password or token.
  package var password = Secret()

  /// An empty draft.
  package init() {}

  /// Forgets the attempt and wipes the password.
  package mutating func reset() {
    method = .command
    name.removeAll(keepingCapacity: true)
    authorizationIdentity.removeAll(keepingCapacity: true)
    password.removeAll()
  }

  /// Whose mailbox it is: the name that is looked up and logged.
  package var user: [UInt8] { authorizationIdentity.isEmpty ? name : authorizationIdentity }

  /// Replaces the name of the mailbox's owner, as a route's answer asks for.
  package mutating func renameUser(_ user: [UInt8]) {
    if authorizationIdentity.isEmpty { name = user } else { authorizationIdentity = user }
  }

  /// What is wrong with the credentials before anybody is asked about them; nil if they may be tried.
  package func fault() -> LoginFault? {
    if name.isEmpty { return .emptyName }
    if name.count > Limits.loginName || authorizationIdentity.count > Limits.loginName { return .longName }
    if !LoginDraft.isName(name.span) || !LoginDraft.isName(authorizationIdentity.span) { return .badCharacters }
    // The defect of nginx's mail module (upstream change request 1620): CR LF within a SASL password became command
    // lines of the logged-in session. NUL ends a SASL PLAIN field, so a password can't hold one (RFC 4616 §2).
    let password = password.span
    for index in password.indices {
      switch password[index] {
      case .nul, .carriageReturn, .lineFeed: return .badCharacters
      default: break
      }
    }
    return nil
  }

  /// RFC 4616 §2 has names in UTF-8; a control character in one is an attack on somebody's line-based protocol.
  private static func isName(_ name: Span<UInt8>) -> Bool {
    for index in name.indices where name[index].isControl { return false }
    return (try? UTF8Span(validating: name)) != nil
  }
}

/// Why credentials are refused without being tried.
package enum LoginFault: String, Equatable, Sendable, CaseIterable {
  case emptyName = "empty-name"
  case longName = "long-name"
  case badCharacters = "bad-characters"
}

/// A SASL mechanism this proxy speaks.
package enum SASLMechanism: String, Equatable, Sendable, CaseIterable {
  /// RFC 4616.
  case plain = "PLAIN"
  /// Never standardised (draft-murchison-sasl-login-00), still what Outlook sends.
  case login = "LOGIN"

  /// The mechanism of that name, letters compared without regard to case (RFC 4422 §3.1 has upper case only; clients
  /// differ).
  package init?(_ name: Span<UInt8>) {
    if name.equalsIgnoringCase("PLAIN") {
      self = .plain
    } else if name.equalsIgnoringCase("LOGIN") {
      self = .login
    } else {
      return nil
    }
  }
}

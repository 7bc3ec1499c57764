/// The vocabulary of all dialogues: what a dialogue is told and what it decides.
///
/// A dialogue is one side's conversation before the login is over, as a value: bytes and facts go in, bytes to say and
/// one action come out. It has no socket, no clock, no log and holds no secret; it can be copied, compared and replayed.

/// A mail protocol. A new one is a case here and three files beside this one; the compiler names every other place.
package enum MailProtocol: String, Equatable, Hashable, Sendable, CaseIterable {
  case imap
  case pop3

  /// The protocol's registered port without implicit TLS, the default of a backend.
  package var port: UInt16 {
    switch self {
    case .imap: 143
    case .pop3: 110
    }
  }
}

// MARK: - Client side

/// What a client dialogue decided about the bytes it was given.
package struct ClientStep: Equatable, Sendable {
  /// How many bytes at the front were used up. The rest is given again, with what comes behind it.
  package let consumed: Int
  /// What the driver has to do next.
  package let action: ClientAction

  /// A step of its parts.
  package init(_ consumed: Int, _ action: ClientAction) {
    self.consumed = consumed
    self.action = action
  }
}

/// What the driver has to do next for a client.
package enum ClientAction: Equatable, Sendable {
  /// Read more: what there is holds no whole command.
  case read
  /// A command was dealt with: call again with the rest.
  case proceed
  /// Start TLS once the reply is drained. No byte may stand behind `consumed` (RFC 9051 §6.2.1, RFC 2595 §4).
  case upgrade
  /// The draft is filled in: find the backend, log in there, and tell the dialogue the verdict.
  case authenticate
  /// The reply ends the connection.
  case end(ClientEnd)
}

/// Why a client dialogue ends the connection.
package enum ClientEnd: String, Equatable, Sendable, CaseIterable {
  /// LOGOUT or QUIT.
  case logout
  case tooManyBadCommands = "too-many-bad-commands"
  case tooManyFailedLogins = "too-many-failed-logins"
  /// A command longer than `Limits.command`.
  case commandTooLong = "command-too-long"
}

/// Why the driver ends a connection that is not logged in yet, as far as the client is told.
package enum Farewell: Equatable, Sendable, CaseIterable {
  /// The time for the login is over.
  case inactivity
  case shutdown
}

/// How an attempt to log in ended, as the client dialogue has to tell it.
package enum Verdict: Equatable, Sendable {
  /// The backend accepted; its bytes are the client's from here on.
  case accepted(BackendAnswer)
  case refused(LoginRefusal)
}

/// A login that did not succeed, by what the client may conclude.
package enum LoginRefusal: Equatable, Sendable {
  /// Wrong password or unknown user; the client asks its user for another password.
  case credentials
  /// The backend refused with a response code of its own, which is passed on.
  case backend(BackendAnswer)
  /// Nobody could find out; the client tries again later with the same password.
  case unavailable
  /// The operator's set-up is wrong; trying again won't help.
  case misconfigured

  /// Whether it counts towards `Limits.failedLogins`: a guess does, our own trouble does not.
  package var countsAgainstClient: Bool {
    switch self {
    case .credentials, .backend: true
    case .unavailable, .misconfigured: false
    }
  }
}

// MARK: - Backend side

/// A backend's final answer to a login: parts to be rendered for the client, not bytes to be copied.
package struct BackendAnswer: Equatable, Sendable {
  /// What stands between the brackets of the response code, without them; empty if there is none.
  package var code: [UInt8]
  /// The text for people.
  package var text: [UInt8]
  /// Whole untagged lines that came before it and are the client's too.
  package var untagged: [UInt8]

  /// An answer of its parts, none of which may hold a line end of its own.
  package init(code: [UInt8] = [], text: [UInt8] = [], untagged: [UInt8] = []) {
    self.code = code
    self.text = text
    self.untagged = untagged
  }

  /// Code and text as the backend had them, for the log.
  package var words: String {
    let code = code.isEmpty ? [] : [.ascii("[")] + code + [.ascii("]"), .space]
    return String(decoding: code + text, as: UTF8.self)
  }

  /// The response code's first word in lower case, by which it is told apart.
  package var codeName: String {
    String(decoding: code.prefix { $0 != .space }.map(\.lowercased), as: UTF8.self)
  }
}

/// What a backend dialogue decided about the bytes it was given.
package struct BackendStep: Equatable, Sendable {
  /// How many bytes at the front were used up.
  package let consumed: Int
  /// What the driver has to do next.
  package let action: BackendAction

  /// A step of its parts.
  package init(_ consumed: Int, _ action: BackendAction) {
    self.consumed = consumed
    self.action = action
  }
}

/// What the driver has to do next for a backend.
package enum BackendAction: Equatable, Sendable {
  case read
  case proceed
  /// Logged in: everything behind `consumed` is the client's.
  case accepted(BackendAnswer)
  /// The backend said no to these credentials.
  case refused(LoginRefusal, BackendAnswer)
  /// The backend can't be logged in to: not a word about the password.
  case failed(BackendFault, BackendAnswer)
}

/// Why a backend can't be logged in to, as far as its words tell.
package enum BackendFault: String, Equatable, Sendable, CaseIterable {
  /// The greeting was not one: BYE, -ERR, PREAUTH or no mail protocol at all.
  case badGreeting = "backend-greeting"
  /// Something the protocol does not allow, or a line beyond `Limits.backendLine`.
  case protocolError = "backend-protocol"
  /// It takes no passwords here (LOGINDISABLED), or no mechanism that carries what the client gave.
  case noMechanism = "backend-mechanism"
}

/// What a backend dialogue waits for, for the log and for people.
package enum BackendDoing: String, Equatable, Sendable, CaseIterable {
  case greeting = "waiting for the backend's greeting"
  case capability = "waiting for the backend's capabilities"
  case answer = "waiting for the backend's answer to the login"
}

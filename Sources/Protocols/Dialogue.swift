/// The vocabulary of all dialogues: what a dialogue is told and what it decides.
///
/// A dialogue is one side's conversation before the login is over, as a value: bytes and facts go in, bytes to say and
/// one action come out. It has no socket, no clock, no log and holds no secret; it can be copied, compared and replayed.

/// A mail protocol. A new one is a case here and three files beside this one; the compiler names every other place.
package enum MailProtocol: String, Equatable, Hashable, Sendable, CaseIterable {
  case imap
  case pop3
  /// RFC 5804.
  case manageSieve = "managesieve"

  /// The protocol's registered port, a backend's default. (ManageSieve has none for implicit TLS.)
  package func port(_ tls: BackendTLS) -> UInt16 {
    switch (self, tls) {
    case (.imap, .off), (.imap, .startTLS): 143
    case (.imap, .implicit): 993
    case (.pop3, .off), (.pop3, .startTLS): 110
    case (.pop3, .implicit): 995
    case (.manageSieve, _): 4190
    }
  }

  /// The protocol's name in TLS's ALPN (RFC 7301, RFC 8314 §4.5.3 and the registry of IANA).
  package var alpn: StaticString {
    switch self {
    case .imap: "imap"
    case .pop3: "pop3"
    case .manageSieve: "managesieve"
    }
  }

  /// The code that stands before words of others which say that credentials are wrong (RFC 5530 §3, RFC 3206 §4); empty where
  /// there is none (RFC 5804 §1.3).
  package var wrongCredentialsCode: StaticString {
    switch self {
    case .imap: "AUTHENTICATIONFAILED"
    case .pop3: "AUTH"
    case .manageSieve: ""
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
  /// The client answered a backend's challenge; `LoginDraft.message` is what it said.
  case respond
  /// The client gave up on the exchange that a backend takes part in.
  case cancel
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
  /// The first words are another protocol's: somebody's browser was sent here (ALPACA), or TLS on a port without.
  case anotherProtocol = "another-protocol"
}

/// Why the driver ends a connection that is not logged in yet, as far as the client is told.
package enum Farewell: Equatable, Sendable, CaseIterable {
  /// The time for the login is over.
  case inactivity
  case shutdown
  /// The operator, or a change of the backend: the client may come again at once.
  case ended
  /// Too many connections.
  case limit
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
  /// The operator closed the account.
  case disabled
  /// The user, or the user at this address, has as many sessions as may be.
  case limit
  /// The mechanism can't be used for this account; another may.
  case mechanism
  /// The client gave up an exchange (RFC 9051 §6.2.2: BAD).
  case cancelled

  /// Whether it counts towards `Limits.failedLogins`: a guess does, our own trouble does not.
  package var countsAgainstClient: Bool {
    switch self {
    case .credentials, .disabled: true
    case .backend(let answer): !answer.isTemporary
    case .unavailable, .misconfigured, .limit, .mechanism, .cancelled: false
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
  /// IMAP: what the backend can do now that the user is logged in, words without `CAPABILITY`; empty if it did not tell.
  package var capabilities: [UInt8]

  /// An answer of its parts, none of which may hold a line end of its own.
  package init(code: [UInt8] = [], text: [UInt8] = [], untagged: [UInt8] = [], capabilities: [UInt8] = []) {
    self.code = code
    self.text = text
    self.untagged = untagged
    self.capabilities = capabilities
  }

  /// Whether the code says that the same password may do later: the user did not guess wrong.
  package var isTemporary: Bool {
    switch codeName {
    // RFC 5530, RFC 3206, RFC 2449, RFC 9208 and Dovecot's, RFC 5804.
    case "unavailable", "sys/temp", "in-use", "inuse", "limit", "login-delay", "serverbug", "trylater": true
    default: codeName.hasPrefix("limit/")
    }
  }

  /// Whether the code says that the server is not well. A mailbox in use and a bound that is reached are the user's own
  /// affair, and say nothing about others.
  package var blamesServer: Bool {
    switch codeName {
    // RFC 5530, RFC 3206, RFC 5804.
    case "unavailable", "sys/temp", "serverbug", "trylater": true
    default: false
    }
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
  /// Start TLS. No byte may stand behind `consumed`: it would be somebody's on the way, taken for the backend's.
  case upgrade
  /// The backend asks what only the client can answer; these bytes are the challenge, decoded.
  case challenge([UInt8])
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
  /// STARTTLS or STLS is demanded by the operator and not offered, or refused.
  case noTLS = "backend-starttls"
}

/// What a backend dialogue waits for, for the log and for people.
package enum BackendDoing: String, Equatable, Sendable, CaseIterable {
  case greeting = "waiting for the backend's greeting"
  case startTLS = "waiting for the backend's answer to STARTTLS"
  case capability = "waiting for the backend's capabilities"
  case answer = "waiting for the backend's answer to the login"
  case client = "waiting for the client's answer to the backend's challenge"
}

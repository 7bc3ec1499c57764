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
  /// What the client said in an exchange that only the backend can judge, SCRAM's, and that goes there as it is.
  package var message = Secret()
  /// The pairs of the client's own ID, rendered and bounded, for the backend to know which program it is.
  package var identification: [UInt8] = []
  /// What a trusted proxy in front of us told of the client.
  package var facts = ClientFacts()

  /// An empty draft.
  package init() {}

  /// Forgets the attempt and wipes the password. Who the client is stays.
  package mutating func reset() {
    method = .command
    name.removeAll(keepingCapacity: true)
    authorizationIdentity.removeAll(keepingCapacity: true)
    password.removeAll()
    message.removeAll()
  }

  /// Forgets what was said before TLS (RFC 9051 §6.2.1). What a trusted proxy told stays: it is believed for its address,
  /// and Dovecot's tells it before STARTTLS.
  package mutating func forgetPlaintext() {
    reset()
    identification.removeAll()
  }

  /// Whose mailbox it is: the name that is looked up and logged.
  package var user: [UInt8] { authorizationIdentity.isEmpty ? name : authorizationIdentity }

  /// Replaces the name of the mailbox's owner, as a route's answer asks for.
  package mutating func renameUser(_ user: [UInt8]) {
    if authorizationIdentity.isEmpty { name = user } else { authorizationIdentity = user }
  }

  /// Parts a name of a user and a master user, `alice*admin`, into the two identities it stands for, so that the user is
  /// looked up and the master is who logs in. (Dovecot's `auth_master_user_separator`; SASL has a field for it.)
  package mutating func partMaster(_ separator: [UInt8]) {
    guard authorizationIdentity.isEmpty, !separator.isEmpty, let place = name.firstRange(of: separator) else { return }
    let (user, master) = (Array(name[..<place.lowerBound]), Array(name[place.upperBound...]))
    guard !user.isEmpty, !master.isEmpty else { return }
    authorizationIdentity = user
    name = master
  }

  /// Replaces the client's credentials by those of a master user, who may log in for everybody. Only for a login that was
  /// proved to us: the backend asks nothing more. With a separator the two names are one, `user*master`.
  package mutating func becomeMaster(_ master: [UInt8], _ secret: Span<UInt8>, separator: [UInt8]) {
    let user = user
    if separator.isEmpty {
      name = master
      authorizationIdentity = user
    } else {
      name = user + separator + master
      authorizationIdentity = []
    }
    method = .sasl(.plain)
    message.removeAll()
    password.removeAll()
    password.append(secret)
  }

  /// Puts another password in the place of the client's, as a source's answer asks for. Who came with a certificate has none
  /// of its own, and logs in with that one.
  package mutating func replacePassword(_ other: Span<UInt8>) {
    if method == .sasl(.external) { method = .sasl(.plain) }
    password.removeAll()
    password.append(other)
  }

  /// Takes a client's answer to a backend's challenge, in base64. False if it is the "*" of a client that gives up
  /// (RFC 4422 §3.5), or no base64.
  mutating func takeAnswer(_ text: Span<UInt8>) -> Bool {
    message.removeAll()
    guard !text.equalsIgnoringCase("*"), Base64.decode(text, into: &message) else {
      message.removeAll()
      return false
    }
    return true
  }

  /// Whether text that a backend said repeats a part of the credentials, so that it can't be logged: a server that quotes
  /// the command it did not understand quotes the password, perhaps cut or in capitals. The forms they were said in are
  /// looked for, six bytes of any of them.
  package func isRepeated(in text: Span<UInt8>) -> Bool {
    guard !password.isEmpty else { return false }
    let pieces = LoginDraft.pieces(of: text)
    if LoginDraft.repeats(password.span, text, pieces) { return true }
    var said: [UInt8] = []
    said.reserveCapacity(4 * (password.count + name.count + authorizationIdentity.count) + 256)
    defer { said.wipe() }
    said.appendEscaped(password.span)
    if said.count > password.count, LoginDraft.repeats(said.span, text, pieces) { return true }
    for mechanism in [SASLMechanism.plain, .xoauth2, .oauthBearer] {
      said.wipe()
      var exchange = SASLInitiator.first(mechanism)
      exchange.begin(self, &said)
      if LoginDraft.repeats(said.span, text, pieces) { return true }
    }
    said.wipe()
    Base64.encode(password.span, into: &said)
    return LoginDraft.repeats(said.span, text, pieces)
  }

  /// As many bytes in a row are no accident.
  private static let pieceSize = 6

  /// All pieces of a text, letters in lower case: with them, looking for a token of 8 KB in a line of 8 KB is no work.
  private static func pieces(of text: Span<UInt8>) -> Set<UInt64> {
    var pieces: Set<UInt64> = []
    each(text) { pieces.insert($0) }
    return pieces
  }

  private static func each(_ text: Span<UInt8>, _ body: (UInt64) -> Void) {
    var piece: UInt64 = 0
    for index in text.indices {
      piece = (piece << 8 | UInt64(text[index].lowercased)) & 0xFFFF_FFFF_FFFF
      if index >= pieceSize - 1 { body(piece) }
    }
  }

  private static func repeats(_ secret: Span<UInt8>, _ text: Span<UInt8>, _ pieces: Set<UInt64>) -> Bool {
    if secret.count < pieceSize { return text.containsIgnoringCase(secret) }
    var isFound = false
    each(secret) { if pieces.contains($0) { isFound = true } }
    return isFound
  }

  /// Whether a server that breaks off when it has heard the credentials is to blame for that. Dovecot closes after a long
  /// password, and whoever knows a member's users could have it taken for lost: so what is no longer than any server takes
  /// speaks against one, and of what the client itself says in an exchange nothing does.
  package var isOrdinary: Bool {
    let longest: Int
    switch method {
    case .command, .sasl(.plain), .sasl(.login), .sasl(.external): longest = LoginDraft.longestOrdinary
    case .sasl(.xoauth2), .sasl(.oauthBearer): longest = LoginDraft.longestOrdinaryToken
    case .sasl(.scramSHA256), .sasl(.scramSHA1): return false
    }
    guard name.count + authorizationIdentity.count + password.count <= longest else { return false }
    func isPlain(_ text: Span<UInt8>) -> Bool {
      for index in text.indices where text[index].isControl || text[index] >= 0x80 { return false }
      return true
    }
    return isPlain(name.span) && isPlain(authorizationIdentity.span) && isPlain(password.span)
  }

  /// RFC 2449 §4: a command of POP3 has 255 bytes; in base64 these have two thirds of it.
  private static let longestOrdinary = 128
  /// In base64, two thirds of the 8,192 bytes that Dovecot takes.
  private static let longestOrdinaryToken = 4_096

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

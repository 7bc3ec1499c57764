/// What a client may do: the listener's terms, what the channel allows, and the counts that end a connection. The part
/// all client dialogues have in common.

/// What a listener grants its clients; the same for all of them but for whom it trusts.
package struct ClientTerms: Equatable, Sendable {
  /// What is asked of the channel.
  package var policy: TLSPolicy
  /// The bounds.
  package var limits: Limits
  /// The SASL mechanisms taken, in the order they are listed. A mechanism that is not listed is refused.
  package var mechanisms: [SASLMechanism]
  /// What is announced besides what the channel decides: IMAP's capabilities, ManageSieve's extensions. Words parted by
  /// single blanks; nil for the protocol's usual ones.
  package var capabilities: [UInt8]?
  /// The operator's words for the greeting; nil for ours.
  package var greeting: OwnWords?
  /// The operator's words for a login that succeeded; nil for the backend's.
  package var loginOK: OwnWords?
  /// Who is at the other end.
  package var peer: Peer

  /// Who may be at the other end of a connection.
  package enum Peer: Equatable, Sendable {
    case client
    /// A proxy in front of us, by its address: what it says of the client is believed.
    case trustedProxy
  }

  /// Terms, each with its default.
  package init(
    policy: TLSPolicy, limits: Limits = Limits(), mechanisms: [SASLMechanism] = [.plain, .login],
    capabilities: [UInt8]? = nil, greeting: OwnWords? = nil, loginOK: OwnWords? = nil, peer: Peer = .client
  ) {
    self.policy = policy
    self.limits = limits
    self.mechanisms = mechanisms
    self.capabilities = capabilities
    self.greeting = greeting
    self.loginOK = loginOK
    self.peer = peer
  }

  /// The greeting's words.
  var greetingWords: [UInt8] { greeting?.bytes ?? Array("proxyd ready.".utf8) }

  /// The backend's answer to a login that succeeded, as this listener's clients are told it. A response code is for the
  /// client's program and stays; the text is for people.
  func reworded(_ answer: BackendAnswer) -> BackendAnswer {
    var answer = answer
    if let loginOK { answer.text = loginOK.bytes }
    return answer
  }
}

/// Whether a client showed a certificate that was verified.
package enum ClientCertificate: Equatable, Sendable {
  case none
  case verified
}

struct ClientStanding: Equatable, Sendable {
  let terms: ClientTerms
  private var channel = Channel.plaintext
  private var badCommands = 0
  private var failedLogins = 0

  private enum Channel: Equatable, Sendable {
    case plaintext
    case encrypted(ClientCertificate)
  }

  init(_ terms: ClientTerms) { self.terms = terms }

  /// TLS is up: what was learned before it is forgotten. True if this is the connection's beginning.
  mutating func secure(_ certificate: ClientCertificate) -> Bool {
    let isBeginning = channel == .plaintext && terms.policy == .implicit
    channel = .encrypted(certificate)
    badCommands = 0
    failedLogins = 0
    return isBeginning
  }

  /// Whether a password may be sent as the channel is now.
  var allowsLogin: Bool {
    switch (channel, terms.policy) {
    case (.encrypted, _), (.plaintext, .off), (.plaintext, .startTLS): true
    case (.plaintext, .startTLSRequired), (.plaintext, .implicit): false
    }
  }

  /// What STARTTLS or STLS comes to.
  enum StartTLS: Equatable, Sendable {
    case granted, active, unavailable
  }

  var startTLS: StartTLS {
    switch (channel, terms.policy) {
    case (.encrypted, _): .active
    case (.plaintext, .startTLS), (.plaintext, .startTLSRequired): .granted
    case (.plaintext, .off), (.plaintext, .implicit): .unavailable
    }
  }

  /// Whether the mechanism can be used now: listed by the operator, and EXTERNAL only with a certificate.
  func offers(_ mechanism: SASLMechanism) -> Bool {
    terms.mechanisms.contains(mechanism) && (mechanism != .external || channel == .encrypted(.verified))
  }

  /// The mechanisms that can be used now.
  var mechanisms: [SASLMechanism] { terms.mechanisms.filter(offers) }

  /// One more command that was none. False if that was the last one borne.
  mutating func bearsBadCommand() -> Bool {
    badCommands += 1
    return badCommands < terms.limits.badCommands
  }

  /// One more login that was refused. False if that was the last one borne.
  mutating func bearsRefusal(_ refusal: LoginRefusal) -> Bool {
    guard refusal.countsAgainstClient else { return true }
    failedLogins += 1
    return failedLogins < terms.limits.failedLogins
  }

  /// Whether nothing was wrong so far: only then is a line looked at for another protocol's words.
  var isFirstCommand: Bool { badCommands == 0 && failedLogins == 0 }
}

/// Knows the first words of protocols that have no business on a mail port.
enum ForeignProtocol {
  /// A TLS record's first byte: a handshake (RFC 8446 §5.1). No mail command begins with it. The second byte is not
  /// waited for: what is decided must not depend on how the network cuts.
  static func isTLS(_ input: Span<UInt8>) -> Bool { input.count > 0 && input[0] == 0x16 }

  /// An HTTP request line (RFC 9112 §3), or SMTP's first command (RFC 5321 §4.1.1.1).
  static func isRequest(_ line: Span<UInt8>) -> Bool {
    if line.startsIgnoringCase(with: "EHLO ") || line.startsIgnoringCase(with: "HELO ") { return true }
    // Three words, the last of them a version: a password in IMAP's LOGIN may look like that too.
    guard line.count > 9, line[line.count - 9] == .space else { return false }
    let version = line.extracting((line.count - 8)...)
    guard version.startsIgnoringCase(with: "HTTP/"), version[5].isDigit, version[6] == .ascii("."), version[7].isDigit
    else { return false }
    guard let blank = line.firstIndex(of: .space), let next = line.firstIndex(of: .space, from: blank + 1) else {
      return false
    }
    return next == line.count - 9
  }
}

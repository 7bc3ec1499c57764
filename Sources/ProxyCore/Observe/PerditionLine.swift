/// What Perdition 2.2 logs of a session, in its words and in its order of fields: fail2ban's filter and POP-before-SMTP read
/// it so. Only a name is written otherwise, with its quotes and control characters escaped: it is the client's, and must not
/// end its field.

internal import Logging
internal import Protocols

enum PerditionLine: Equatable, Sendable {
  /// A client has connected.
  case connect(Ends)
  /// A login succeeded, or not.
  case auth(Ends, Auth, Status)
  /// A session after a login is over; bytes from the client and to it.
  case closing(Ends, Names, received: UInt64, sent: UInt64)
  /// A session is over in which nobody logged in.
  case closingNull(Ends)
  /// The client went before it had logged in. fail2ban takes it for a failure.
  case readError(Ends)
  /// The client took too long to log in.
  case readTimeout(Ends)
  /// A relay was idle for too long; a line about its end follows.
  case pipeTimeout
  /// The handshake from the first byte failed.
  case noSSL
  /// The handshake after STARTTLS failed.
  case noTLS

  /// Where a connection comes from and goes to.
  struct Ends: Equatable, Sendable {
    let source: SocketAddress
    let destination: SocketAddress
  }

  /// Who logs in.
  struct Names: Equatable, Sendable {
    /// Whose mail it is about.
    let user: [UInt8]
    /// Whose password it is; empty if it is the user's.
    let authenticator: [UInt8]
  }

  /// What is told of a login.
  struct Auth: Equatable, Sendable {
    let clientSecurity: Security
    let names: Names
    /// `HOST:PORT`.
    let server: String
    let identity: LogIdentity
    let serverSecurity: Security
  }

  /// How a connection is protected.
  enum Security: String, Equatable, Sendable {
    case plaintext, ssl, starttls
  }

  /// What came of a login.
  enum Status: Equatable, Sendable {
    case ok
    case failed(PerditionReason)
  }

  /// How urgent it is. (Perdition's ends of sessions are errors to it, whatever they are.)
  var level: Logger.Level {
    switch self {
    case .connect, .closing, .closingNull: .info
    case .auth, .readError, .readTimeout, .pipeTimeout, .noSSL, .noTLS: .notice
    }
  }

  /// The line without its end.
  var text: [UInt8] {
    var out: [UInt8] = []
    switch self {
    case .connect(let ends):
      out.append("Connect:  ")
      out.append(ends)
    case .auth(let ends, let auth, let status):
      out.append("Auth: ")
      out.append(ends)
      out.append(" client-secure=")
      out.append(contentsOf: auth.clientSecurity.rawValue.utf8)
      out.append(auth.names)
      out.append(" server=\"")
      out.append(contentsOf: auth.server.utf8)
      out.append("\" protocol=")
      out.append(auth.identity.protocolName)
      out.append(" server-secure=")
      out.append(contentsOf: auth.serverSecurity.rawValue.utf8)
      out.append(" status=\"")
      switch status {
      case .ok: out.append("ok")
      case .failed(let reason): out.append(contentsOf: "failed: \(reason.rawValue)".utf8)
      }
      out.append("\"")
    case .closing(let ends, let names, let received, let sent):
      out.append("Closing session: ")
      out.append(ends)
      out.append(names)
      out.append(contentsOf: " received=\(received) sent=\(sent)".utf8)
    case .closingNull(let ends):
      out.append("Closing NULL session: ")
      out.append(ends)
      out.append(" authorisation_id=NONE authentication_id=\"(null)\"")
    case .readError(let ends):
      out.append("Fatal Error reading authentication information from client ")
      out.append(ends)
      out.append(": Exiting child")
    case .readTimeout(let ends):
      out.append("Fatal Error: Timeout reading authentication information from client ")
      out.append(ends)
      out.append(": Exiting child")
    case .pipeTimeout: out.append("Timeout piping data.")
    case .noSSL: out.append("Fatal error establishing SSL connection to client")
    case .noTLS: out.append("Fatal error establishing TLS connection")
    }
    return out
  }
}

extension [UInt8] {
  /// Without brackets around a v6 address, as Perdition has it.
  fileprivate mutating func append(_ ends: PerditionLine.Ends) {
    append(contentsOf: "\(ends.source.host):\(ends.source.port)->".utf8)
    append(contentsOf: "\(ends.destination.host):\(ends.destination.port)".utf8)
  }

  fileprivate mutating func append(_ names: PerditionLine.Names) {
    append(" authorisation_id=")
    if names.authenticator.isEmpty { append("NONE") } else { appendQuoted(names.user) }
    append(" authentication_id=")
    appendQuoted(names.authenticator.isEmpty ? names.user : names.authenticator)
  }

  private mutating func appendQuoted(_ name: [UInt8]) {
    LogLine.appendQuoted(String(decoding: name, as: UTF8.self), to: &self)
  }
}

extension LogIdentity {
  /// The protocol as Perdition's option has it.
  fileprivate var protocolName: StaticString {
    switch self {
    case .proxyd: preconditionFailure("a login at nobody's listener")
    case .imap4: "IMAP4"
    case .imap4s: "IMAP4S"
    case .pop3: "POP3"
    case .pop3s: "POP3S"
    case .manageSieve: "MANAGESIEVE"
    }
  }

  /// What Perdition writes for the server where none was found: the port is that of its protocol.
  var noServer: String {
    switch self {
    case .proxyd: preconditionFailure("a login at nobody's listener")
    case .imap4: "(null):imap"
    case .imap4s: "(null):imaps"
    case .pop3: "(null):pop3"
    case .pop3s: "(null):pop3s"
    case .manageSieve: "(null):sieve"
    }
  }
}

/// Why a login failed, in Perdition's words.
enum PerditionReason: String, Equatable, Sendable, CaseIterable {
  case loginDisabled = "Login Disabled"
  case noServer = "Could not determine server"
  /// fail2ban takes it for a failure.
  case localAuthentication = "local authentication failure"
  case noConnection = "Could not connect to server"
  case negotiation = "Connection Negotiation Failure"
  case noTLS = "TLS not present"
  /// fail2ban takes it for a failure.
  case reauthentication = "Re-Authentication Failure"
  case noMechanism = "SASL mechanism unavailable"
}

extension LoginFailure.Reason {
  /// What Perdition would have said. Nil where nobody tried to log in. `isGuess`: the client is to blame, as far as the
  /// refusal tells; a backend that is busy must not have anybody banned.
  func perditions(_ mailProtocol: MailProtocol, isGuess: Bool) -> PerditionReason? {
    switch self {
    case .cancelled: nil
    case .emptyName, .longName, .badCharacters, .unknownUser, .lookupFailed, .lookupBusy: .noServer
    case .disabled: .loginDisabled
    case .certificateName, .wrongPassword: .localAuthentication
    case .userLimit, .userAddressLimit, .noMember, .poolFull, .moving, .directoryFailed: .noServer
    case .refused: .reauthentication
    case .refusedOtherwise: isGuess ? .reauthentication : .negotiation
    case .backendUnresolved, .noSocket, .backendUnreachable, .connectTimeout: .noConnection
    case .backendTimeout, .backendClosed, .backendError, .backendGreeting, .backendProtocol, .backendCertificate,
      .backendTLS, .loop:
      .negotiation
    case .backendStartTLS:
      switch mailProtocol {
      case .imap: .negotiation
      case .pop3, .manageSieve: .noTLS
      }
    case .backendMechanism:
      switch mailProtocol {
      // LOGINDISABLED, for which Perdition asks.
      case .imap: .loginDisabled
      case .pop3, .manageSieve: .noMechanism
      }
    case .nameRewritten, .uncheckable, .noMaster: .noMechanism
    }
  }
}

extension SessionEnd.Reason {
  /// How Perdition would have told the end of a session without a login. Nil where it was not yet known who the client is.
  func perditions(_ ends: PerditionLine.Ends, _ policy: TLSPolicy, isHandshake: Bool) -> PerditionLine? {
    let handshake: PerditionLine = policy == .implicit ? .noSSL : .noTLS
    switch self {
    case .clientTLS: return handshake
    case .clientClosed, .clientError: return isHandshake ? handshake : .readError(ends)
    case .startTLSInjection, .tooManyBadCommands, .commandTooLong, .anotherProtocol: return .readError(ends)
    case .loginTimeout: return .readTimeout(ends)
    case .logout, .tooManyFailedLogins, .shutdown, .kicked, .moved, .backendLost, .addressLimit, .outOfMemory:
      return .closingNull(ends)
    case .proxyHeader, .untrustedProxy: return nil
    // Ends of relays.
    case .backendClosed, .backendError, .idleTimeout, .halfClosedTimeout: return .closingNull(ends)
    }
  }
}

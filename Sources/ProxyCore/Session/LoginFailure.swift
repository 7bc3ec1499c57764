/// Why a login did not succeed, for the log; the session goes on.

internal import Protocols

package struct LoginFailure: Error, Equatable, Sendable {
  /// The class of the failure.
  package let reason: Reason
  /// What the system, the map or the backend said.
  package let detail: String?

  /// The raw value is the stable name in the log.
  package enum Reason: String, Equatable, Sendable, CaseIterable {
    /// The name is empty.
    case emptyName = "empty-name"
    /// The name is longer than any user's.
    case longName = "long-name"
    /// Name or password hold what they must not: a control character, CR, LF or NUL, or no UTF-8.
    case badCharacters = "bad-characters"
    /// The client's certificate names nobody, or another than was asked for.
    case certificateName = "certificate-name"
    /// The client gave up.
    case cancelled
    /// The operator closed the account.
    case disabled
    /// SCRAM, and a route that gives the user another name: the two can't be had together.
    case nameRewritten = "name-rewritten"
    /// No source knows the user.
    case unknownUser = "unknown-user"
    /// The password was checked before any backend saw it, and is wrong.
    case wrongPassword = "wrong-password"
    /// The client's mechanism gives no password, and one is to be checked.
    case uncheckable
    /// The backend refused the credentials.
    case refused
    /// The backend refused for another reason, which the client was told.
    case refusedOtherwise = "refused-by-backend"
    /// The user has as many sessions as may be.
    case userLimit = "user-limit"
    /// The user has as many sessions from this address as may be.
    case userAddressLimit = "user-address-limit"
    /// No member of the pool takes the user: all are lost, in maintenance or drained.
    case noMember = "no-member"
    /// The pool, or every member that takes users, is full.
    case poolFull = "pool-full"
    /// The user was moved, and the sessions at the old backend did not end in time.
    case moving
    /// It could not be found out where the user is.
    case directoryFailed = "directory-failed"
    /// A source could not be asked.
    case lookupFailed = "lookup-failed"
    /// A map stayed locked by a writer.
    case lookupBusy = "lookup-busy"
    /// The backend's name has no address.
    case backendUnresolved = "backend-unresolved"
    /// No descriptor or memory for a connection to the backend.
    case noSocket = "no-socket"
    /// No address of the backend took the connection.
    case backendUnreachable = "backend-unreachable"
    case connectTimeout = "connect-timeout"
    /// The backend took too long to answer.
    case backendTimeout = "backend-timeout"
    /// The backend closed before it answered.
    case backendClosed = "backend-closed"
    /// The connection broke before it answered.
    case backendError = "backend-error"
    /// The backend's first words were no greeting.
    case backendGreeting = "backend-greeting"
    /// It said something the protocol does not allow.
    case backendProtocol = "backend-protocol"
    /// It takes no passwords here, or not in the client's mechanism.
    case backendMechanism = "backend-mechanism"
    /// STARTTLS is demanded and not to be had.
    case backendStartTLS = "backend-starttls"
    /// The backend's certificate was not accepted.
    case backendCertificate = "backend-certificate"
    /// TLS with the backend failed.
    case backendTLS = "backend-tls"
    /// A login without a password for a backend without a master user.
    case noMaster = "no-master-user"
    /// The login came back to where it was.
    case loop

    /// Whether an operator should look at it.
    package var isTrouble: Bool {
      switch self {
      case .emptyName, .longName, .badCharacters, .unknownUser, .refused, .refusedOtherwise, .certificateName,
        .cancelled, .disabled, .wrongPassword, .uncheckable, .userLimit, .userAddressLimit:
        false
      case .lookupFailed, .lookupBusy, .backendUnresolved, .noSocket, .backendUnreachable, .connectTimeout,
        .backendTimeout, .backendClosed, .backendError, .backendGreeting, .backendProtocol, .backendMechanism,
        .backendStartTLS, .backendCertificate, .backendTLS, .nameRewritten, .noMaster, .loop, .noMember, .poolFull,
        .moving, .directoryFailed:
        true
      }
    }
  }

  init(_ reason: Reason, _ detail: String? = nil) {
    self.reason = reason
    self.detail = detail
  }

  /// The credentials can't be right, whoever is asked.
  init(draft fault: LoginFault) {
    switch fault {
    case .emptyName: self.init(.emptyName)
    case .longName: self.init(.longName)
    case .badCharacters: self.init(.badCharacters)
    }
  }

  /// The connection to the backend can't go on.
  init(backend failure: IOFailure) {
    switch failure {
    case .system(let error): self.init(.backendError, error.description)
    case .tls(let failure):
      switch failure.kind {
      case .certificate: self.init(.backendCertificate, failure.reason)
      case .protocolError: self.init(.backendTLS, failure.reason)
      }
    }
  }

  /// The backend can't be logged in to, by what it said.
  init(backend fault: BackendFault, said: String) {
    switch fault {
    case .badGreeting: self.init(.backendGreeting, said)
    case .protocolError: self.init(.backendProtocol, said)
    case .noMechanism: self.init(.backendMechanism, said)
    case .noTLS: self.init(.backendStartTLS, said)
    }
  }
}

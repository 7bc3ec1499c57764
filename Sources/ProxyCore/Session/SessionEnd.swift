/// Why a session ended, and why a login within it did not succeed: the names in the log, and who is to blame.

package import Protocols

/// The one reason a session ends for.
package enum SessionEnd: Equatable, Sendable {
  /// LOGOUT or QUIT before a login.
  case logout
  /// The client closed, before the login or in the relay: the usual end.
  case clientClosed
  /// The backend closed a relay: the usual end after LOGOUT or QUIT.
  case backendClosed
  /// The client's connection broke.
  case clientError(SystemError)
  /// The backend's connection broke in the relay.
  case backendError(SystemError)
  /// TLS with the client failed.
  case clientTLS(TLSFailure)
  /// Bytes came behind STARTTLS or STLS (CVE-2011-0411 and its kin).
  case startTLSInjection
  case tooManyBadCommands
  case tooManyFailedLogins
  case commandTooLong
  /// The time for the login was over.
  case loginTimeout
  /// No byte in the relay for too long.
  case idleTimeout
  /// One side had ended its direction and the other said nothing more.
  case halfClosedTimeout
  /// The proxy stopped.
  case shutdown
  /// The kernel or OpenSSL had no memory.
  case outOfMemory

  /// The stable name in the log.
  package var name: String {
    switch self {
    case .logout: "logout"
    case .clientClosed: "client-closed"
    case .backendClosed: "backend-closed"
    case .clientError: "client-error"
    case .backendError: "backend-error"
    case .clientTLS: "client-tls"
    case .startTLSInjection: "starttls-injection"
    case .tooManyBadCommands: "too-many-bad-commands"
    case .tooManyFailedLogins: "too-many-failed-logins"
    case .commandTooLong: "command-too-long"
    case .loginTimeout: "login-timeout"
    case .idleTimeout: "idle-timeout"
    case .halfClosedTimeout: "half-closed-timeout"
    case .shutdown: "shutdown"
    case .outOfMemory: "out-of-memory"
    }
  }

  /// Who caused it.
  package var blame: Blame {
    switch self {
    case .logout, .clientClosed, .backendClosed: .nobody
    case .clientError, .clientTLS, .startTLSInjection, .tooManyBadCommands, .tooManyFailedLogins, .commandTooLong,
      .loginTimeout, .idleTimeout, .halfClosedTimeout:
      .client
    case .backendError: .backend
    case .shutdown: .operator
    case .outOfMemory: .proxy
    }
  }

  /// What the system or OpenSSL said.
  package var detail: String? {
    switch self {
    case .clientError(let error), .backendError(let error): error.description
    case .clientTLS(let failure): failure.description
    case .logout, .clientClosed, .backendClosed, .startTLSInjection, .tooManyBadCommands, .tooManyFailedLogins,
      .commandTooLong, .loginTimeout, .idleTimeout, .halfClosedTimeout, .shutdown, .outOfMemory:
      nil
    }
  }

  init(_ end: ClientEnd) {
    switch end {
    case .logout: self = .logout
    case .tooManyBadCommands: self = .tooManyBadCommands
    case .tooManyFailedLogins: self = .tooManyFailedLogins
    case .commandTooLong: self = .commandTooLong
    }
  }

  /// A connection with the backend that can't go on.
  init(backend failure: IOFailure) {
    switch failure {
    case .system(let error): self = .backendError(error)
    case .tls: preconditionFailure("TLS to a backend")
    }
  }

  /// A connection with the client that can't go on.
  init(client failure: IOFailure) {
    switch failure {
    case .system(let error): self = .clientError(error)
    case .tls(let failure): self = .clientTLS(failure)
    }
  }
}

/// Who caused an end or a failure.
package enum Blame: String, Equatable, Sendable {
  case client, backend, proxy, `operator`, nobody
}

/// Why a login did not succeed. The session goes on.
package enum LoginFailure: Equatable, Sendable {
  /// The credentials can't be right, whoever is asked.
  case malformed(LoginFault)
  /// No source knows the user.
  case unknownUser
  /// A source could not be asked.
  case lookup(source: String, reason: String)
  /// A map stayed locked.
  case lookupBusy
  /// The backend's name has no address.
  case resolve(String)
  /// No descriptor or memory for a connection to the backend.
  case noSocket(SystemError)
  /// No address of the backend took the connection.
  case unreachable(SystemError)
  case connectTimeout
  /// The backend took too long to answer.
  case backendTimeout(BackendDoing)
  /// The backend closed before it answered.
  case backendClosed(BackendDoing)
  case backendError(SystemError)
  /// The backend said something that is no login's answer.
  case backendFault(BackendFault, said: String)
  /// The backend refused the credentials.
  case refused(said: String)
  /// The backend refused for another reason, which the client was told.
  case refusedOtherwise(said: String)

  /// The stable name in the log.
  package var name: String {
    switch self {
    case .malformed(let fault): fault.rawValue
    case .unknownUser: "unknown-user"
    case .lookup: "lookup-failed"
    case .lookupBusy: "lookup-busy"
    case .resolve: "backend-unresolved"
    case .noSocket: "no-socket"
    case .unreachable: "backend-unreachable"
    case .connectTimeout: "connect-timeout"
    case .backendTimeout: "backend-timeout"
    case .backendClosed: "backend-closed"
    case .backendError: "backend-error"
    case .backendFault(let fault, _): fault.rawValue
    case .refused: "refused"
    case .refusedOtherwise: "refused-by-backend"
    }
  }

  /// What there is to say beside the name.
  package var detail: String? {
    switch self {
    case .malformed, .unknownUser, .lookupBusy, .connectTimeout: nil
    case .lookup(let source, let reason): "\(source): \(reason)"
    case .resolve(let reason): reason
    case .noSocket(let error), .unreachable(let error), .backendError(let error): error.description
    case .backendTimeout(let doing), .backendClosed(let doing): doing.rawValue
    case .backendFault(_, let said), .refused(let said), .refusedOtherwise(let said): said
    }
  }

  /// Whether an operator should look at it.
  package var isTrouble: Bool {
    switch self {
    case .malformed, .unknownUser, .refused, .refusedOtherwise: false
    case .lookup, .lookupBusy, .resolve, .noSocket, .unreachable, .connectTimeout, .backendTimeout, .backendClosed,
      .backendError, .backendFault:
      true
    }
  }
}

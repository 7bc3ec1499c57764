/// Why a session ended: the name in the log, and who is to blame.

internal import Protocols

/// The one reason a session ends for, and what the system or OpenSSL said of it.
package struct SessionEnd: Equatable, Sendable {
  /// The class of the end.
  package let reason: Reason
  /// What the system or OpenSSL said.
  package let detail: String?

  /// The raw value is the stable name in the log.
  package enum Reason: String, Equatable, Sendable, CaseIterable {
    /// LOGOUT or QUIT before a login.
    case logout
    /// The client closed, before the login or in the relay: the usual end.
    case clientClosed = "client-closed"
    /// The backend closed a relay: the usual end after LOGOUT or QUIT.
    case backendClosed = "backend-closed"
    /// The client's connection broke.
    case clientError = "client-error"
    /// The backend's connection broke in the relay.
    case backendError = "backend-error"
    /// TLS with the client failed.
    case clientTLS = "client-tls"
    /// Bytes came behind STARTTLS or STLS (CVE-2011-0411 and its kin).
    case startTLSInjection = "starttls-injection"
    case tooManyBadCommands = "too-many-bad-commands"
    case tooManyFailedLogins = "too-many-failed-logins"
    case commandTooLong = "command-too-long"
    /// The first words were another protocol's.
    case anotherProtocol = "another-protocol"
    /// A PROXY header is demanded, and this was none.
    case proxyHeader = "proxy-header"
    /// A PROXY header is demanded, and not taken from this address.
    case untrustedProxy = "untrusted-proxy"
    /// The time for the login was over.
    case loginTimeout = "login-timeout"
    /// No byte in the relay for too long.
    case idleTimeout = "idle-timeout"
    /// One side had ended its direction and the other said nothing more.
    case halfClosedTimeout = "half-closed-timeout"
    /// The proxy stopped.
    case shutdown
    /// An operator ended it.
    case kicked
    /// Its user goes to another backend.
    case moved
    /// Its backend is lost, or in maintenance.
    case backendLost = "backend-lost"
    /// The client's address has as many sessions as it may.
    case addressLimit = "address-limit"
    /// The kernel or OpenSSL had no memory.
    case outOfMemory = "out-of-memory"

    /// Who caused it.
    package var blame: Blame {
      switch self {
      case .logout, .clientClosed, .backendClosed: .nobody
      case .clientError, .clientTLS, .startTLSInjection, .tooManyBadCommands, .tooManyFailedLogins, .commandTooLong,
        .anotherProtocol, .proxyHeader, .untrustedProxy,
        .loginTimeout, .idleTimeout, .halfClosedTimeout, .addressLimit:
        .client
      case .backendError, .backendLost: .backend
      case .shutdown, .kicked, .moved: .operator
      case .outOfMemory: .proxy
      }
    }
  }

  init(_ reason: Reason, _ detail: String? = nil) {
    self.reason = reason
    self.detail = detail
  }

  /// A client dialogue ended the connection.
  init(dialogue end: ClientEnd) {
    switch end {
    case .logout: self.init(.logout)
    case .tooManyBadCommands: self.init(.tooManyBadCommands)
    case .tooManyFailedLogins: self.init(.tooManyFailedLogins)
    case .commandTooLong: self.init(.commandTooLong)
    case .anotherProtocol: self.init(.anotherProtocol)
    }
  }

  /// A connection with the client that can't go on.
  init(client failure: IOFailure) {
    switch failure {
    case .system(let error): self.init(.clientError, error.description)
    case .tls(let failure): self.init(.clientTLS, failure.description)
    }
  }

  /// A connection with the backend that can't go on.
  init(backend failure: IOFailure) {
    switch failure {
    case .system(let error): self.init(.backendError, error.description)
    case .tls(let failure): self.init(.backendError, failure.description)
    }
  }
}

/// Who caused an end.
package enum Blame: String, Equatable, Sendable {
  case client, backend, proxy, `operator`, nobody
}

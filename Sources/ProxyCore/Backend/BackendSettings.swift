/// What the operator wants of the servers behind: where they are and how they are spoken to.

package import Protocols

/// A mail server that users can be sent to.
package struct BackendSettings: Equatable, Sendable {
  /// The server's address or name.
  package var host: Host
  /// Its ports, where they are not the protocol's own.
  package var ports: [MailProtocol: UInt16]
  /// How it is spoken to.
  package var manner: BackendManner
  /// How its health is watched, where it is a pool's member.
  package var health = HealthSettings()

  /// A backend of its parts.
  package init(host: Host, ports: [MailProtocol: UInt16] = [:], manner: BackendManner = BackendManner()) {
    self.host = host
    self.ports = ports
    self.manner = manner
  }
}

/// How a server is spoken to.
package struct BackendManner: Equatable, Sendable {
  /// How the connection is protected.
  package var tls: BackendTLS
  /// The name verified and asked for; nil for the server's own.
  package var tlsName: Host?
  /// What is verified and shown.
  package var security: TLSBackendSettings
  /// Whether the server is told who the client is, by ID or XCLIENT.
  package var identity: IdentityPolicy
  /// Whether it is told by a PROXY header.
  package var proxyProtocol: ProxyProtocolVersion
  /// Whether commands may be sent before the one before is answered.
  package var pace: BackendTerms.Pace
  /// Who logs in for users who proved to us who they are; nil for nobody.
  package var master: MasterSettings?

  /// The manner of a server on the operator's own network, each part with its default.
  package init(
    tls: BackendTLS = .off, tlsName: Host? = nil, security: TLSBackendSettings = TLSBackendSettings(),
    identity: IdentityPolicy = .told, proxyProtocol: ProxyProtocolVersion = .off,
    pace: BackendTerms.Pace = .pipelined, master: MasterSettings? = nil
  ) {
    self.tls = tls
    self.tlsName = tlsName
    self.security = security
    self.identity = identity
    self.proxyProtocol = proxyProtocol
    self.pace = pace
    self.master = master
  }
}

/// Whether a backend is told who the client is.
package enum IdentityPolicy: String, Equatable, Sendable, CaseIterable {
  case told = "on"
  case withheld = "off"
}

/// The PROXY header a backend wants.
package enum ProxyProtocolVersion: String, Equatable, Sendable, CaseIterable {
  case off, v1, v2
}

/// A user of the backend's who may log in for everybody.
package struct MasterSettings: Equatable, Sendable {
  /// The master user's name.
  package var user: String
  /// A file whose first line is the password.
  package var passwordFile: String
  /// What stands between user and master where the two are one name, as Dovecot's `auth_master_user_separator`; nil
  /// where SASL PLAIN carries both.
  package var separator: String?

  /// A master user of its parts.
  package init(user: String, passwordFile: String, separator: String? = nil) {
    self.user = user
    self.passwordFile = passwordFile
    self.separator = separator
  }
}

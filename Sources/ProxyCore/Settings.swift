/// What the operator wants, as values that are known to make sense. Built by the program from its configuration file,
/// or by a test; nothing here was read from a file or opened yet.

package import Protocols

package struct Settings: Equatable, Sendable {
  /// Where clients connect.
  package var listeners: [ListenerSettings]
  /// What is shown to clients, and asked of them; needed unless all listeners have TLS off.
  package var tls: TLSServerSettings?
  /// Which part of a client's certificate is the user of SASL EXTERNAL.
  package var certificateName: CertificateName
  /// Where users' backends are looked up, in order.
  package var routes: [RouteSettings]
  /// The servers routes may name.
  package var backends: [String: BackendSettings]
  /// The pools routes may name.
  package var pools: [String: PoolSettings] = [:]
  /// The file of what is remembered over a restart; nil for nothing.
  package var stateFile: String?
  /// How many sessions users and addresses may have.
  package var sessionLimits = SessionLimits()
  /// How servers are spoken to that a map names by their address.
  package var unnamedBackends: BackendManner
  /// Whose ID and XCLIENT tell who the client is.
  package var trustedProxies: [Network]
  /// What parts user and master user in a client's name; empty for nothing.
  package var masterSeparator: [UInt8] = []
  /// How clients' names are rewritten.
  package var names = NameRules()
  /// Who checks all passwords before a backend sees them; nil for nobody.
  package var passwordCheck: PasswordCheckSettings?
  /// The ports of servers that a map names by their address, where they are not the protocol's own.
  package var unnamedPorts: [MailProtocol: UInt16] = [:]
  /// Event loops, one core each.
  package var loops: Int
  /// How long things may take.
  package var timeouts: Timeouts
  /// What clients may use.
  package var limits: Limits
  /// The most sessions at once; nil for what the descriptors allow.
  package var sessions: Int?
  /// What is logged.
  package var log: LogSettings
  /// Whom the process becomes once its ports are bound; nil to stay.
  package var user: UserSettings?
  /// Where it is asked and told at run time; nil for nowhere.
  package var control: ControlSettings?

  /// The settings, each but the first and the routes with its default.
  package init(
    listeners: [ListenerSettings], tls: TLSServerSettings? = nil, certificateName: CertificateName = .commonName,
    routes: [RouteSettings],
    backends: [String: BackendSettings], unnamedBackends: BackendManner = BackendManner(),
    trustedProxies: [Network] = [], loops: Int = 1, timeouts: Timeouts = Timeouts(), limits: Limits = Limits(),
    sessions: Int? = nil, log: LogSettings = LogSettings(), user: UserSettings? = nil
  ) {
    self.listeners = listeners
    self.tls = tls
    self.certificateName = certificateName
    self.routes = routes
    self.backends = backends
    self.unnamedBackends = unnamedBackends
    self.trustedProxies = trustedProxies
    self.loops = loops
    self.timeouts = timeouts
    self.limits = limits
    self.sessions = sessions
    self.log = log
    self.user = user
  }
}

/// Where clients connect, and how.
package struct ListenerSettings: Equatable, Sendable {
  /// The protocol spoken.
  package let mailProtocol: MailProtocol
  /// The address to listen on.
  package let address: SocketAddress
  /// How TLS is used.
  package let tls: TLSPolicy
  /// The SASL mechanisms taken.
  package let mechanisms: [SASLMechanism]
  /// What is announced besides what the channel decides; nil for the protocol's usual words.
  package let capabilities: [UInt8]?
  /// The greeting's words; nil for ours.
  package let greeting: OwnWords?
  /// The words that tell a client that its login succeeded; nil for the backend's.
  package let loginOK: OwnWords?
  /// Who has to send a PROXY header, and everybody else is refused; nil if there is none.
  package let proxyNetworks: [Network]?
  /// The certificate shown there if no name fits; nil for the one of all listeners.
  package let identity: TLSIdentitySettings?
  /// Where the configuration has it, for errors.
  package let key: String
  /// Whether it is one of the addresses that `*` stands for, which a kernel without IPv6 does not have.
  package let isAny: Bool

  /// A listener of its parts.
  package init(
    mailProtocol: MailProtocol, address: SocketAddress, tls: TLSPolicy, mechanisms: [SASLMechanism] = [.plain, .login],
    capabilities: [UInt8]? = nil, greeting: OwnWords? = nil, loginOK: OwnWords? = nil,
    proxyNetworks: [Network]? = nil, identity: TLSIdentitySettings? = nil, key: String = "listeners",
    isAny: Bool = false
  ) {
    self.mailProtocol = mailProtocol
    self.address = address
    self.tls = tls
    self.mechanisms = mechanisms
    self.capabilities = capabilities
    self.greeting = greeting
    self.loginOK = loginOK
    self.proxyNetworks = proxyNetworks
    self.identity = identity
    self.key = key
    self.isAny = isAny
  }
}

/// Which part of a client's certificate is the user of SASL EXTERNAL.
package enum CertificateName: String, Equatable, Sendable, CaseIterable {
  case commonName = "cn"
  /// The first mail address of its subjectAltName.
  case email
}

/// Whom a process that was started by root becomes.
package struct UserSettings: Equatable, Sendable {
  /// The user's name.
  package let user: String
  /// Nil for the user's own group.
  package let group: String?

  /// Names that are looked up when they are needed.
  package init(user: String, group: String?) {
    self.user = user
    self.group = group
  }
}

/// Paths of a PEM chain and its key.
package struct CertificateSettings: Equatable, Sendable {
  /// The chain, the own certificate first.
  package let certificate: String
  /// The private key, without passphrase.
  package let key: String

  /// Paths, as the process opens them.
  package init(certificate: String, key: String) {
    self.certificate = certificate
    self.key = key
  }
}

/// How long things may take, in nanoseconds.
package struct Timeouts: Equatable, Sendable {
  /// From the connection to the login, whatever the client says meanwhile. Dovecot: 180 s.
  package var login = Timeouts.seconds(180)
  /// For one TCP connection to a backend. nginx's and Dovecot's budget for all of a backend login is 60 s and 30 s.
  package var connect = Timeouts.seconds(10)
  /// From the route to the backend's answer. Dovecot's `login_proxy_timeout`: 30 s.
  package var backendLogin = Timeouts.seconds(30)
  /// Without a byte in either direction after the login. RFC 9051 §5.4: at least 30 minutes, of which a client in IDLE
  /// uses 29.
  package var idle = Timeouts.seconds(31 * 60)
  /// Without a byte once one side has ended its direction. HAProxy's manual advises 30 s for `timeout client-fin`.
  package var halfClosed = Timeouts.seconds(30)
  /// For relays to end by themselves after a TERM.
  package var shutdown = Timeouts.seconds(30)
  /// Before a login that was refused without asking a backend is answered, so that guessing is slow and an unknown user
  /// looks like a wrong password. Dovecot's `auth_failure_delay`: 2 s.
  package var failureDelay = Timeouts.seconds(2)
  /// For a PROXY header to come in whole. Dovecot's `haproxy_timeout`: 3 s.
  package var proxyHeader = Timeouts.seconds(3)
  /// For a map that is locked by a writer.
  package var lookup = Timeouts.seconds(2)

  /// The defaults.
  package init() {}

  /// Nanoseconds of seconds.
  package static func seconds(_ count: UInt64) -> UInt64 { count * 1_000_000_000 }
  /// Nanoseconds of milliseconds.
  package static func milliseconds(_ count: UInt64) -> UInt64 { count * 1_000_000 }
}

/// Something in the settings that can't be used, found when it was opened.
package struct SettingsError: Error, Equatable, Sendable {
  /// The configuration key to blame, as the file has it: `tls.certificate`, `routes[1].regex`.
  package let key: String
  /// What is wrong and what was expected.
  package let problem: String
  /// Where in another file than the configuration, if it is there.
  package let place: Place?

  /// A place in a file.
  package struct Place: Equatable, Sendable {
    /// Its path.
    package let file: String
    /// From 1.
    package let line: Int
    /// From 1.
    package let column: Int
  }

  /// An error of its parts.
  package init(key: String, problem: String, place: Place? = nil) {
    self.key = key
    self.problem = problem
    self.place = place
  }
}

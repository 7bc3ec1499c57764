/// Builds settings from the tree; everything wrong is reported to the reader.

internal import Logging
internal import Protocols
internal import ProxyCore
internal import Yams

struct SettingsBuilder {
  let reader: ConfigReader
  let folder: String

  func build(_ root: Node) -> Settings? {
    guard let file = reader.section(root, key: "", pattern: "") else { return nil }
    let listeners = readListeners(file)
    let tlsSection = file.section("tls")
    let tls = tlsSection.flatMap { readTLS($0) }
    if !file.has("tls"), let listener = listeners?.first(where: { $0.tls != .off && $0.identity == nil }) {
      let key = "\(listener.key).tls"
      reader.report("there is no certificate for it, expected the key tls", key: key, at: reader.places[key])
    }
    let health = file.section("health").map { PoolBuilder(builder: self).health($0, HealthSettings()) }
    let backends = readBackends(file, health ?? HealthSettings())
    let pools = PoolBuilder(builder: self).read(file)
    let routes = RouteBuilder(builder: self).read(file)
    let loops = file.integer("loops") ?? Proxy.usableCores
    let timeouts = file.section("timeouts").map { readTimeouts($0) } ?? Timeouts()
    let limitsSection = file.section("limits")
    let limits = limitsSection.map { readLimits($0) } ?? Limits()
    let log = file.section("log").map { readLog($0) } ?? LogSettings()
    guard let listeners, let routes, let backends else { return nil }
    var settings = Settings(
      listeners: listeners, tls: tls,
      certificateName: tlsSection?.choice("client-name", CertificateName.self) ?? .commonName, routes: routes,
      backends: backends,
      unnamedBackends: file.section("unnamed-backends").map { BackendBuilder(builder: self, section: $0).manner() }
        ?? BackendManner(),
      trustedProxies: file.networks("trusted-proxies") ?? [], loops: loops,
      timeouts: timeouts, limits: limits, sessions: limitsSection?.integer("sessions"), log: log, user: readUser(file))
    settings.pools = pools
    settings.control = file.section("control").flatMap { readControl($0) }
    settings.stateFile = file.text("state-file").map(resolve)
    settings.sessionLimits.user = limitsSection?.integer("user-sessions")
    settings.sessionLimits.address = limitsSection?.integer("address-sessions")
    settings.sessionLimits.userAtAddress = limitsSection?.integer("user-address-sessions")
    settings.names = file.section("names").map { NameBuilder(section: $0).rules() } ?? NameRules()
    settings.passwordCheck = file.section("password-check").flatMap { readPasswordCheck($0) }
    if let section = file.section("unnamed-backends") { settings.unnamedPorts = readPorts(section) }
    settings.masterSeparator = file.text("master-separator").map { Array($0.utf8) } ?? []
    return settings
  }

  /// A path as the process opens it.
  func resolve(_ path: String) -> String { path.hasPrefix("/") ? path : folder + path }

  private func readListeners(_ file: ConfigSection) -> [ListenerSettings]? {
    guard let node = file.required("listeners"), let entries = reader.list(node, key: "listeners") else { return nil }
    if entries.isEmpty { file.report("the list is empty, expected at least one listener", "listeners") }
    var listeners: [ListenerSettings] = []
    for (key, node) in entries {
      guard let entry = reader.section(node, key: key, pattern: "listeners[]") else { continue }
      for name in ["protocol", "address", "tls"] { _ = entry.required(name) }
      guard let mailProtocol = entry.choice("protocol", MailProtocol.self),
        let addresses = entry.value("address", SettingsBuilder.addresses), let tls = entry.choice("tls", TLSPolicy.self)
      else { continue }
      let mechanisms = entry.words("mechanisms", SASLMechanism.self) ?? [.plain, .login]
      let capabilities = entry.values("capabilities", SettingsBuilder.words)?.joined(separator: " ")
      if capabilities != nil, mailProtocol == .pop3 { entry.report("POP3 has no such list", "capabilities") }
      let greeting = words(entry, "greeting", .greeting, mailProtocol)
      let loginOK = words(entry, "login-ok", .loginOK, mailProtocol)
      let networks = entry.networks("proxy-protocol")
      let identity = entry.has("certificate") || entry.has("key") ? readIdentity(entry) : nil
      for address in addresses {
        if let other = listeners.first(where: { $0.address == address }) {
          entry.report("\(other.address) is listened on already", "address")
        }
        listeners.append(
          ListenerSettings(
            mailProtocol: mailProtocol, address: address, tls: tls, mechanisms: mechanisms,
            capabilities: capabilities.map { Array($0.utf8) }, greeting: greeting, loginOK: loginOK,
            proxyNetworks: networks, identity: identity, key: key, isAny: addresses.count > 1))
      }
    }
    return listeners
  }

  /// `host:port`, or `*:port` for both families.
  private static func addresses(_ text: String) -> [SocketAddress]? {
    if text.hasPrefix("*:") {
      guard let port = HostPort.port(text.dropFirst(2)) else { return nil }
      return [SocketAddress(literal: "0.0.0.0", port: port), SocketAddress(literal: "::", port: port)].compactMap { $0 }
    }
    guard let parsed = HostPort(text), let port = parsed.port, case .address(let address) = parsed.host else {
      return nil
    }
    return [address.with(port: port)]
  }

  /// Words as they may stand in a capability list: nothing that ends a line or a string.
  private static func words(_ text: String) -> String? {
    let isPlain = text.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7F && !"\"\\(){}[]".utf8.contains($0) || $0 == 0x20 }
    let words = text.split(separator: " ")
    return isPlain && !words.isEmpty ? words.joined(separator: " ") : nil
  }

  /// Words of the operator's for clients; reported if they can't stand there.
  private func words(
    _ entry: ConfigSection, _ name: String, _ place: OwnWords.Place, _ mailProtocol: MailProtocol
  ) -> OwnWords? {
    switch entry.text(name).map({ OwnWords.read($0, place, mailProtocol) }) {
    case nil: return nil
    case .success(let words)?: return words
    case .failure(let fault)?:
      entry.report("\(fault.rawValue); expected up to \(OwnWords.longest) bytes in one line", name)
      return nil
    }
  }

  private func readTLS(_ section: ConfigSection) -> TLSServerSettings? {
    let first = readIdentity(section)
    var identities: [TLSIdentitySettings] = []
    if let node = section.node("certificates"), let entries = reader.list(node, key: "tls.certificates") {
      for (key, node) in entries {
        guard let entry = reader.section(node, key: key, pattern: "tls.certificates[]") else { continue }
        if let identity = readIdentity(entry) { identities.append(identity) }
      }
    }
    let clients = section.choice("client-certificates", ClientCertificatePolicy.self) ?? .off
    let authority = section.text("client-ca").map(resolve)
    if clients != .off, authority == nil {
      section.report("client certificates are asked for, and the key client-ca is missing", "client-certificates")
    }
    guard let first else { return nil }
    return TLSServerSettings(
      identities: [first] + identities, minimum: section.choice("minimum", TLSVersion.self) ?? .v12,
      ciphers: section.text("ciphers"), ciphersuites: section.text("ciphersuites"), groups: section.text("groups"),
      clientCertificates: clients, clientCA: authority)
  }

  /// A host name, or `*.` and one.
  private static func serverName(_ text: String) -> String? {
    guard case .name? = Host(text.hasPrefix("*.") ? String(text.dropFirst(2)) : text) else { return nil }
    return text
  }

  /// Certificates with their keys, pair by pair.
  private func readIdentity(_ section: ConfigSection) -> TLSIdentitySettings? {
    guard section.required("certificate") != nil, section.required("key") != nil,
      let certificates = section.texts("certificate"), let keys = section.texts("key")
    else { return nil }
    guard certificates.count == keys.count else {
      section.report("there are \(certificates.count) certificates and \(keys.count) keys, expected as many", "key")
      return nil
    }
    let hasNames = section.isKnown("names")
    return TLSIdentitySettings(
      pairs: zip(certificates, keys).map { CertificateSettings(certificate: resolve($0), key: resolve($1)) },
      names: hasNames ? section.values("names", SettingsBuilder.serverName) ?? [] : [],
      staple: section.isKnown("staple") ? section.text("staple").map(resolve) : nil)
  }

  private func readBackends(_ file: ConfigSection, _ health: HealthSettings) -> [String: BackendSettings]? {
    guard file.has("backends") else { return [:] }
    guard let section = file.section("backends") else { return nil }
    var backends: [String: BackendSettings] = [:]
    for name in section.order {
      if !SettingsBuilder.isName(name) {
        section.report("a backend's name has letters, digits, dots, dashes and underscores", name)
      }
      guard let node = section.node(name),
        let entry = reader.section(node, key: section.path(name), pattern: "backends.*"),
        entry.required("address") != nil, let host = entry.value("address", { Host($0) })
      else { continue }
      let ports = readPorts(entry)
      let manner = BackendBuilder(builder: self, section: entry).manner()
      var backend = BackendSettings(host: host, ports: ports, manner: manner)
      backend.health = entry.section("health").map { PoolBuilder(builder: self).health($0, health) } ?? health
      backends[name] = backend
    }
    return backends
  }

  /// A name of the operator's for a backend, a pool or a tag.
  static func isName(_ text: String) -> Bool {
    text.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || "._-".contains($0)) }
  }

  private func readPorts(_ section: ConfigSection) -> [MailProtocol: UInt16] {
    var ports: [MailProtocol: UInt16] = [:]
    guard let section = section.section("ports") else { return ports }
    for mailProtocol in MailProtocol.allCases { ports[mailProtocol] = section.port(mailProtocol.rawValue) }
    return ports
  }

  private func readPasswordCheck(_ section: ConfigSection) -> PasswordCheckSettings? {
    guard section.required("pam") != nil, let service = section.text("pam") else { return nil }
    var check = PasswordCheckSettings(service: service)
    if let timeout = section.duration("timeout") { check.timeout = timeout }
    if let count = section.integer("connections") { check.connections = count }
    return check
  }

  private func readUser(_ file: ConfigSection) -> UserSettings? {
    let group = file.text("group")
    guard let user = file.text("user") else {
      if group != nil { file.report("a group is for the key user, which is missing", "group") }
      return nil
    }
    return UserSettings(user: user, group: group)
  }

  private func readTimeouts(_ section: ConfigSection) -> Timeouts {
    var timeouts = Timeouts()
    if let time = section.duration("login") { timeouts.login = time }
    if let time = section.duration("connect") { timeouts.connect = time }
    if let time = section.duration("backend-login") { timeouts.backendLogin = time }
    if let time = section.duration("idle") { timeouts.idle = time }
    if let time = section.duration("half-closed") { timeouts.halfClosed = time }
    if let time = section.duration("shutdown") { timeouts.shutdown = time }
    if let time = section.duration("failure-delay") { timeouts.failureDelay = time }
    if let time = section.duration("lookup") { timeouts.lookup = time }
    if let time = section.duration("proxy-header") { timeouts.proxyHeader = time }
    return timeouts
  }

  private func readLimits(_ section: ConfigSection) -> Limits {
    var limits = Limits()
    if let size = section.size("command") { limits.command = size }
    if let count = section.integer("bad-commands") { limits.badCommands = count }
    if let count = section.integer("failed-logins") { limits.failedLogins = count }
    return limits
  }

  private func readLog(_ section: ConfigSection) -> LogSettings {
    var log = LogSettings()
    if let level = section.choice("level", Logger.Level.self) { log.level = level }
    if let format = section.choice("format", LogSettings.Format.self) { log.format = format }
    log.repetition = section.duration("repeat")
    if log.repetition != nil, log.format != .perdition {
      section.report("it is for the format perdition, and the key format is another", "repeat")
    }
    switch section.text("to") {
    case nil, "stderr"?: break
    case "journald"?: log.destination = .journald
    case "syslog"?: log.destination = .syslog
    case let path?: log.destination = .file(resolve(path))
    }
    return log
  }
}

/// Builds how a backend is spoken to.
struct BackendBuilder {
  let builder: SettingsBuilder
  let section: ConfigSection

  func manner() -> BackendManner {
    let tls = section.choice("tls", BackendTLS.self) ?? .off
    if tls == .off {
      for name in ["tls-name", "ca", "pins", "certificate", "key", "insecure-no-verification"] where section.has(name) {
        section.report("it is for TLS, and the key tls is off", name)
      }
    }
    return BackendManner(
      tls: tls, tlsName: section.value("tls-name") { Host($0) }, security: security(),
      identity: section.choice("identity", IdentityPolicy.self) ?? .told,
      proxyProtocol: section.choice("proxy-protocol", ProxyProtocolVersion.self) ?? .off,
      pace: section.value("pipelining") { ["on": .pipelined, "off": .stepwise][$0] } ?? .pipelined, master: master())
  }

  private func security() -> TLSBackendSettings {
    let authority = section.text("ca").map(builder.resolve)
    let isUnverified = section.value("insecure-no-verification") { ["true": true, "false": false][$0] } ?? false
    if isUnverified, authority != nil {
      section.report("nothing is verified, and the key ca is given", "insecure-no-verification")
    }
    var certificate: CertificateSettings?
    if section.has("certificate") || section.has("key"), section.required("certificate") != nil,
      section.required("key") != nil, let file = section.text("certificate"), let key = section.text("key")
    {
      certificate = CertificateSettings(certificate: builder.resolve(file), key: builder.resolve(key))
    }
    let verification: TLSVerification =
      isUnverified ? .none : authority.map { .authority(file: $0) } ?? .system
    return TLSBackendSettings(
      verification: verification, pins: section.values("pins", BackendBuilder.pin) ?? [], certificate: certificate)
  }

  /// 32 bytes in base64, as `openssl dgst -sha256 -binary | base64` prints them.
  private static func pin(_ text: String) -> [UInt8]? {
    var bytes = Secret()
    guard Base64.decode(Array(text.utf8).span, into: &bytes), bytes.count == 32 else { return nil }
    return bytes.span.array
  }

  private func master() -> MasterSettings? {
    guard let section = section.section("master"), section.required("user") != nil,
      section.required("password-file") != nil, let user = section.text("user"),
      let file = section.text("password-file")
    else { return nil }
    return MasterSettings(user: user, passwordFile: builder.resolve(file), separator: section.text("separator"))
  }
}

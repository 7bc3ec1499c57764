/// Turns a configuration file into settings, or into a list of all that is wrong with it.

internal import Logging
internal import Protocols
internal import ProxyCore
internal import Yams

struct ConfigFile {
  let settings: Settings
  private let reader: ConfigReader

  /// Reads and types the file. What it names is not opened yet.
  init(_ path: String) throws(ConfigErrors) {
    let text: String
    switch TextFile.read(path) {
    case .success(let read): text = read
    case .failure(let error):
      throw ConfigErrors(errors: [ConfigError(file: path, place: nil, key: "", problem: "it can't be read: \(error)")])
    }
    try self.init(text, path: path)
  }

  init(_ text: String, path: String) throws(ConfigErrors) {
    let reader = ConfigReader(file: path)
    guard let root = try ConfigFile.parse(text, path) else {
      throw ConfigErrors(errors: [ConfigError(file: path, place: nil, key: "", problem: "the file is empty")])
    }
    let builder = SettingsBuilder(reader: reader, folder: ConfigFile.folder(of: path))
    guard let settings = builder.build(root), reader.errors.isEmpty else { throw ConfigErrors(errors: reader.errors) }
    self.settings = settings
    self.reader = reader
  }

  /// Where the file has what an error of the core is about.
  func locate(_ error: SettingsError) -> ConfigError {
    if let place = error.place {
      return ConfigError(
        file: place.file, place: ConfigError.Place(line: place.line, column: place.column), key: error.key,
        problem: error.problem)
    }
    // `routes[1].sqlite` stands for itself or, written as a map, for what it holds.
    return ConfigError(file: reader.file, place: reader.places[error.key], key: error.key, problem: error.problem)
  }

  func locate(_ errors: SettingsErrors) -> ConfigErrors { ConfigErrors(errors: errors.errors.map(locate)) }

  private static func parse(_ text: String, _ path: String) throws(ConfigErrors) -> Node? {
    do {
      return try compose(yaml: text)
    } catch let error as YamlError {
      throw ConfigErrors(errors: [ConfigFile.error(error, path)])
    } catch {
      throw ConfigErrors(errors: [ConfigError(file: path, place: nil, key: "", problem: "\(error)")])
    }
  }

  private static func error(_ error: YamlError, _ path: String) -> ConfigError {
    func at(_ mark: Mark?, _ problem: String, key: String = "") -> ConfigError {
      ConfigError(file: path, place: mark.map { ConfigError.Place($0) }, key: key, problem: problem)
    }
    switch error {
    case .scanner(let context, let problem, let mark, _), .parser(let context, let problem, let mark, _),
      .composer(let context, let problem, let mark, _):
      let context = context.map { " (\($0.text))" } ?? ""
      return at(mark, "not YAML: \(problem)\(context)")
    case .duplicatedKeysInMapping(let duplicates, let context):
      return at(
        context.mark, "this key is given twice in one map, expected once", key: duplicates.joined(separator: ", "))
    case .reader(let problem, _, _, _): return at(nil, "not YAML: \(problem)")
    case .no, .memory, .writer, .emitter, .representer, .dataCouldNotBeDecoded: return at(nil, "not YAML: \(error)")
    }
  }

  private static func folder(of path: String) -> String {
    path.lastIndex(of: "/").map { String(path[...$0]) } ?? ""
  }
}

/// Builds settings from the tree; everything wrong is reported to the reader.
private struct SettingsBuilder {
  let reader: ConfigReader
  let folder: String

  func build(_ root: Node) -> Settings? {
    guard let file = reader.section(root, key: "", pattern: "") else { return nil }
    let listeners = readListeners(file)
    let certificate = file.section("tls").flatMap { readCertificate($0) }
    if certificate == nil, !file.has("tls"), let listener = listeners?.first(where: { $0.tls != .off }) {
      let key = "\(listener.key).tls"
      reader.report("there is no certificate for it, expected the key tls", key: key, at: reader.places[key])
    }
    let backends = readBackends(file)
    let routes = readRoutes(file)
    let loops = file.integer("loops") ?? Proxy.usableCores
    let timeouts = file.section("timeouts").map { readTimeouts($0) } ?? Timeouts()
    let limitsSection = file.section("limits")
    let limits = limitsSection.map { readLimits($0) } ?? Limits()
    let log = file.section("log").map { readLog($0) } ?? LogSettings()
    guard let listeners, let routes, let backends else { return nil }
    return Settings(
      listeners: listeners, certificate: certificate, routes: routes, backends: backends, loops: loops,
      timeouts: timeouts, limits: limits, sessions: limitsSection?.integer("sessions"), log: log, user: readUser(file))
  }

  /// A path as the process opens it.
  private func resolve(_ path: String) -> String { path.hasPrefix("/") ? path : folder + path }

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
      for address in addresses {
        if let other = listeners.first(where: { $0.address == address }) {
          entry.report("\(other.address) is listened on already", "address")
        }
        listeners.append(
          ListenerSettings(
            mailProtocol: mailProtocol, address: address, tls: tls, key: key, isAny: addresses.count > 1))
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

  private func readCertificate(_ section: ConfigSection) -> CertificateSettings? {
    guard section.required("certificate") != nil, section.required("key") != nil,
      let certificate = section.text("certificate"), let key = section.text("key")
    else { return nil }
    return CertificateSettings(certificate: resolve(certificate), key: resolve(key))
  }

  private func readBackends(_ file: ConfigSection) -> [String: BackendSettings]? {
    guard file.has("backends") else { return [:] }
    guard let section = file.section("backends") else { return nil }
    var backends: [String: BackendSettings] = [:]
    for name in section.order {
      let allowed = name.allSatisfy { $0.isASCII && ($0.isLetter || $0.isNumber || "._-".contains($0)) }
      if !allowed { section.report("a backend's name has letters, digits, dots, dashes and underscores", name) }
      guard let node = section.node(name),
        let entry = reader.section(node, key: section.path(name), pattern: "backends.*"),
        entry.required("address") != nil, let host = entry.value("address", { Host($0) })
      else { continue }
      var ports: [MailProtocol: UInt16] = [:]
      if let section = entry.section("ports") {
        for mailProtocol in MailProtocol.allCases { ports[mailProtocol] = section.port(mailProtocol.rawValue) }
      }
      backends[name] = BackendSettings(host: host, ports: ports)
    }
    return backends
  }

  private func readRoutes(_ file: ConfigSection) -> [RouteSettings]? {
    guard let node = file.required("routes"), let entries = reader.list(node, key: "routes") else { return nil }
    if entries.isEmpty { file.report("the list is empty, expected at least one source", "routes") }
    var routes: [RouteSettings] = []
    for (key, node) in entries {
      guard let entry = reader.section(node, key: key, pattern: "routes[]") else { continue }
      guard entry.order.count == 1, let kind = entry.order.first else {
        if entry.order.count != 1 {
          reader.report(
            "a source has exactly one of \(ConfigKeys.children(of: "routes[]").joined(separator: ", "))", key: key,
            at: reader.places[key])
        }
        continue
      }
      switch kind {
      case "sqlite": if let source = sqlite(entry) { routes.append(source) }
      case "regex": if let path = entry.text("regex") { routes.append(.regex(file: resolve(path))) }
      case "default": if let backend = entry.text("default") { routes.append(.fixed(backend: backend)) }
      default: preconditionFailure("the table has a source that is not built: \(kind)")
      }
    }
    return routes
  }

  private func sqlite(_ entry: ConfigSection) -> RouteSettings? {
    guard case .mapping? = entry.node("sqlite") else {
      return entry.text("sqlite").map { .sqlite(file: resolve($0), query: nil) }
    }
    guard let section = entry.section("sqlite"), section.required("file") != nil, let file = section.text("file") else {
      return nil
    }
    return .sqlite(file: resolve(file), query: section.text("query"))
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
    switch section.text("to") {
    case nil, "stderr"?: break
    case "journald"?: log.destination = .journald
    case "syslog"?: log.destination = .syslog
    case let path?: log.destination = .file(resolve(path))
    }
    return log
  }
}

/// The proxyd.yaml of a group of instances.

internal import Protocols

/// One configuration, with what its making showed.
struct PerditionConfig {
  private(set) var draft: ConfigDraft
  private(set) var routes: PerditionRoutes
  /// What concerns servers and certificates.
  private(set) var report: [ReportEntry] = []
  /// By an instance's program: its listeners' addresses, or why it has none.
  private(set) var addresses: [String: [Address]] = [:]
  /// The name of the file made of a certificate and its chain, by the certificate.
  private(set) var joined: [String: String] = [:]

  /// One of an instance's addresses.
  enum Address: Equatable {
    case listener(String)
    case unusable(String, String)
  }

  private let group: PerditionGroup
  private let materials: [MaterialRequest: Material]
  private let isServer: (String) -> Bool
  private let isAddress: (String) -> Bool

  init(
    _ group: PerditionGroup, _ materials: [MaterialRequest: Material], _ files: inout ImportFiles, name: String,
    isServer: @escaping (String) -> Bool, isAddress: @escaping (String) -> Bool, others: Int
  ) {
    self.group = group
    self.materials = materials
    self.isServer = isServer
    self.isAddress = isAddress
    routes = PerditionRoutes(group, materials, &files, isServer: isServer)
    let programs = group.instances.map(\.label)
    var head = [
      "Made by `proxyd import perdition` of " + programs.joined(separator: ", ") + ".",
      "report.txt says what became of each option, proxyd.yaml(5) what the keys mean.",
    ]
    if others > 0 { head.append("There are \(others + 1) configurations; each is for a proxyd of its own.") }
    draft = ConfigDraft(head: head)
    let pairs = certificates(&files)
    draft.keys.append(DraftKey("listeners", .list(listeners(pairs))))
    if let tls = tls(pairs) { draft.keys.append(tls) }
    if let names = names() { draft.keys.append(names) }
    let backends = backends(&files)
    draft.keys.append(DraftKey("routes", .list(routeEntries(backends.named, &files))))
    draft.keys += backends.keys
    if group.manner.isChecked, !group.manner.isClosed {
      draft.keys.append(
        DraftKey(
          "password-check", .line([DraftKey("pam", "perdition")]), ["authenticate_in: the PAM service is the same"]))
    }
    draft.keys += process()
  }

  // MARK: Listeners

  /// The certificate and key of each instance with TLS toward clients.
  private mutating func certificates(_ files: inout ImportFiles) -> [String: (certificate: String, key: String)] {
    var pairs: [String: (certificate: String, key: String)] = [:]
    for instance in group.instances where PerditionTLS(instance).listen != .off {
      let paths = CertificatePaths(instance)
      var certificate = paths.certificate
      if let chain = paths.chain, case .bytes(let front, _)? = materials[.file(path: certificate)],
        case .bytes(let back, _)? = materials[.file(path: chain)]
      {
        let text = String(decoding: front, as: UTF8.self)
        let end = text.hasSuffix("\n") ? "" : "\n"
        certificate = files.add("certificate", "pem", .text(text + end + String(decoding: back, as: UTF8.self)))
        joined[paths.certificate] = certificate
      }
      pairs[instance.label] = (certificate, paths.key)
    }
    return pairs
  }

  private func standardPair(_ pairs: [String: (certificate: String, key: String)]) -> (
    certificate: String, key: String
  )? {
    group.instances.lazy.compactMap { pairs[$0.label] }.first
  }

  private mutating func listeners(_ pairs: [String: (certificate: String, key: String)]) -> [[DraftKey]] {
    var listeners: [[DraftKey]] = []
    var taken = Set<String>()
    for instance in group.instances {
      for address in bindings(instance) {
        guard case .listener(let text) = address else { continue }
        guard taken.insert(text).inserted else {
          addresses[instance.label]?.removeAll { $0 == address }
          addresses[instance.label, default: []].append(.unusable(text, "another instance listens there already"))
          continue
        }
        listeners.append(listener(instance, text, pairs))
      }
    }
    return listeners
  }

  private mutating func bindings(_ instance: PerditionInstance) -> [Address] {
    let port = instance.value(.listenPort).map { PerditionServer.number($0) } ?? instance.mailProtocol.port
    var found: [Address] = []
    let hosts = instance.list(.bindAddress)
    for text in hosts.isEmpty ? ["*"] : hosts {
      let server = PerditionServer(text[...].trimmed.description, delimiter: "")
      let host = server.host == "localhost" ? "127.0.0.1" : server.host
      let own = server.port.map { PerditionServer.number($0) } ?? port
      if let own, host == "*" || isAddress(OutgoingServers.address(host)) {
        found.append(.listener("\(host):\(own)"))
      } else if own == nil {
        let name = server.port ?? instance.value(.listenPort) ?? ""
        found.append(.unusable(text, "\"\(name)\" is no port's number and no mail service's name"))
      } else {
        found.append(.unusable(text, "a listener's address must be a literal one, and \"\(server.host)\" is none"))
      }
    }
    addresses[instance.label] = found
    return found
  }

  private func listener(
    _ instance: PerditionInstance, _ address: String, _ pairs: [String: (certificate: String, key: String)]
  ) -> [DraftKey] {
    let tls = PerditionTLS(instance)
    let mode =
      instance.has(.tlsMode)
      ? "ssl_mode" : tls.isByProtocol && tls.listen != .off ? "what its protocol means" : "no ssl_mode"
    var keys = [
      DraftKey(
        "protocol", instance.mailProtocol.mailProtocol.rawValue,
        ["\(instance.program): \(mode), \(address.hasPrefix("*") ? "no bind_address" : "bind_address")"]),
      DraftKey("address", address), DraftKey("tls", tls.listen.rawValue),
    ]
    if let pair = pairs[instance.label], let standard = standardPair(pairs), pair != standard {
      keys.append(DraftKey("certificate", pair.certificate, ["ssl_cert_file and ssl_key_file of this instance"]))
      keys.append(DraftKey("key", pair.key))
    }
    if let words = Capabilities(instance).words, !words.isEmpty {
      keys.append(DraftKey("capabilities", .texts(words), [Capabilities(instance).option.rawValue]))
    }
    if let line = instance.value(.okayLine), !instance.has(.serverResponseLine), !instance.has(.serverOkayLine),
      case .success = OwnWords.read(line, .loginOK, instance.mailProtocol.mailProtocol)
    {
      keys.append(DraftKey("login-ok", line, ["ok_line"]))
    }
    return keys
  }

  private func tls(_ pairs: [String: (certificate: String, key: String)]) -> DraftKey? {
    guard let pair = standardPair(pairs) else { return nil }
    var keys = [
      DraftKey("certificate", pair.certificate, ["ssl_cert_file"]), DraftKey("key", pair.key, ["ssl_key_file"]),
    ]
    let secured = group.instances.filter { PerditionTLS($0).listen != .off }
    if let ciphers = secured.lazy.compactMap({ $0.value(.listenCiphers) }).first {
      keys.append(DraftKey("ciphers", ciphers, ["ssl_listen_ciphers"]))
    }
    return DraftKey("tls", .map(keys))
  }

  // MARK: Names

  private func names() -> DraftKey? {
    let manner = group.manner
    var keys: [DraftKey] = []
    if manner.delimiter != "@" { keys.append(DraftKey("delimiter", manner.delimiter, ["domain_delimiter"])) }
    if !manner.strip.states.isEmpty {
      keys.append(DraftKey("strip-domain", .texts(manner.strip.states), ["strip_domain"]))
    }
    if !manner.add.states.isEmpty {
      keys.append(DraftKey("add-domain", .texts(manner.add.states), ["add_domain"]))
      if let domain = manner.domain {
        keys.append(DraftKey("domain", domain, ["explicit_domain"]))
      } else {
        keys.append(DraftKey("domain-of-address", "\(min(10, manner.add.depth))", ["add_domain's depth"]))
      }
    }
    if !manner.lower.states.isEmpty { keys.append(DraftKey("lower-case", .texts(manner.lower.states), ["lower_case"])) }
    return keys.isEmpty ? nil : DraftKey("names", .map(keys))
  }

  // MARK: Backends

  /// How servers are spoken to, for named and unnamed ones alike.
  private mutating func manner(_ files: inout ImportFiles) -> [DraftKey] {
    let way = group.way
    guard way.tls != .off else { return [] }
    var keys = [DraftKey("tls", way.tls.rawValue, ["ssl_mode, or what the protocol means"])]
    if way.trust.isBlind {
      keys.append(
        DraftKey(
          "insecure-no-verification", "true",
          [
            "!!! ssl_no_cert_verify or ssl_no_cn_verify: whoever is on the way to a backend can read every password.",
            "!!! Remove this line as soon as the backends' certificates can be verified (ca) or pinned (pins).",
          ]))
      return keys
    }
    if let name = authorities(way.trust, &files) { keys.append(name) }
    return keys
  }

  /// The key `ca`, of ssl_ca_file and the folder ssl_ca_path together.
  private mutating func authorities(_ trust: Trust, _ files: inout ImportFiles) -> DraftKey? {
    var folder: String?
    if case .bytes(let bytes, _)? = materials[.authorities(folder: trust.folder)], !bytes.isEmpty {
      folder = String(decoding: bytes, as: UTF8.self)
    }
    guard let folder else {
      if let file = trust.file { return DraftKey("ca", file, ["ssl_ca_file"]) }
      report.append(
        ReportEntry(
          "", "trust in backends", .changed,
          "there is no ssl_ca_file, and \(trust.folder) holds no certificates, so Perdition trusts no backend. "
            + "proxyd takes the "
            + "system's authorities; the key ca names others."))
      return nil
    }
    var text = folder
    if let file = trust.file {
      guard case .bytes(let bytes, _)? = materials[.file(path: file)] else {
        report.append(
          ReportEntry(
            "", "ssl_ca_file \(file)", .lost,
            "it can't be read, and was to be joined with the certificates of \(trust.folder). Append it to ca.pem."))
        return DraftKey("ca", files.add("ca", "pem", .text(text)), ["ssl_ca_path"])
      }
      text = String(decoding: bytes, as: UTF8.self) + (bytes.last == .lineFeed ? "" : "\n") + text
    }
    return DraftKey(
      "ca", files.add("ca", "pem", .text(text)), ["ssl_ca_file and the certificates of ssl_ca_path, joined"])
  }

  private mutating func backends(_ files: inout ImportFiles) -> (keys: [DraftKey], named: [String]) {
    var keys: [DraftKey] = []
    var named: [String] = []
    var entries: [DraftKey] = []
    let manner = manner(&files)
    for (index, host) in group.manner.servers.enumerated() {
      guard isServer(host) else {
        report.append(ReportEntry("", "outgoing_server \(host)", .lost, "this is no host's name or address."))
        continue
      }
      let name = "outgoing-server-\(index + 1)"
      var ports: [DraftKey] = []
      for mailProtocol in MailProtocol.allCases {
        guard let way = group.ways[mailProtocol] else { continue }
        let port = (index < way.serverPorts.count ? way.serverPorts[index] : nil) ?? way.port
        if port != mailProtocol.port(way.tls) { ports.append(DraftKey(mailProtocol.rawValue, "\(port)")) }
      }
      var entry = [DraftKey("address", OutgoingServers.address(host), ["outgoing_server"])] + manner
      if !ports.isEmpty {
        entry.append(DraftKey("ports", .line(ports), ["the port of outgoing_server, or outgoing_port"]))
      }
      entries.append(DraftKey(name, .map(entry)))
      named.append(name)
    }
    if !entries.isEmpty { keys.append(DraftKey("backends", .map(entries))) }
    var unnamed = manner
    let ports = MailProtocol.allCases.compactMap { mailProtocol -> DraftKey? in
      guard let way = group.ways[mailProtocol], way.port != mailProtocol.port(way.tls) else { return nil }
      return DraftKey(mailProtocol.rawValue, "\(way.port)")
    }
    if !ports.isEmpty { unnamed.append(DraftKey("ports", .line(ports), ["outgoing_port, or what the protocol means"])) }
    if !unnamed.isEmpty, !routes.routes.isEmpty || group.manner.isClientNamed {
      keys.append(DraftKey("unnamed-backends", .map(unnamed), ["Servers that the map names."]))
    }
    return (keys, named)
  }

  private mutating func routeEntries(_ named: [String], _ files: inout ImportFiles) -> [[DraftKey]] {
    guard !group.manner.isClosed else {
      let name = files.add(
        "closed", "re", .text("# login_disabled: the answer ! closes an account, and this is everybody's.\n.*: !\n"))
      return [
        [DraftKey("regex", name, ["login_disabled: everybody is refused; remove this entry to let users in again"])]
      ]
        + routes.routes + standard(named)
    }
    var entries: [[DraftKey]] = []
    if group.manner.isClientNamed {
      var seen = Set<String>()
      let known = (group.manner.servers + routes.servers).filter { isServer($0) && seen.insert($0).inserted }
      if known.isEmpty {
        report.append(
          ReportEntry(
            "", "client_server_specification", .lost,
            "no server is known that clients may name. Add `client-named: [...]` with those they may."))
      } else {
        entries.append([
          DraftKey(
            "client-named", .texts(known), ["client_server_specification: user@server, for these servers and no others"]
          )
        ])
      }
    }
    entries += routes.routes
    if routes.verdict.verdict == .lost, !named.isEmpty {
      // Without the map, all its users would be sent to a stranger's backend.
      entries.append([
        DraftKey(
          "sqlite", "the-map-that-is-missing.db",
          [
            "!!! The map could not be imported; report.txt says why. Put its source here. Until then this file, "
              + "which is missing on "
              + "purpose, keeps proxyd from sending its users to outgoing_server."
          ])
      ])
    }
    entries += standard(named)
    if entries.isEmpty {
      let name = files.add("map", "db", .map([]))
      report.append(
        ReportEntry(
          "", "routes", .lost,
          "there is neither a map that could be imported nor an outgoing_server. \(name) is empty; fill it with "
            + "`proxyd map`."
        ))
      entries = [[DraftKey("sqlite", name, ["There was no map to import: this one is empty."])]]
    }
    return entries
  }

  private func standard(_ named: [String]) -> [[DraftKey]] {
    guard let first = named.first else { return [] }
    let comment =
      "outgoing_server: for users whom no source above knows. A source that can't be asked does not lead here."
    return [[named.count == 1 ? DraftKey("default", first, [comment]) : DraftKey("default", .texts(named), [comment])]]
  }

  // MARK: Process

  private func process() -> [DraftKey] {
    var keys: [DraftKey] = []
    let user = group.instances.lazy.compactMap { $0.value(.username) }.first
    let userGroup = group.instances.lazy.compactMap { $0.value(.group) }.first
    if user != nil || userGroup != nil {
      keys.append(DraftKey("user", user ?? "nobody", ["username; it must be able to read the files named here"]))
      if let userGroup { keys.append(DraftKey("group", userGroup, ["group"])) }
    }
    var times: [DraftKey] = []
    if let login = SharedNumbers.login(group.instances) {
      times.append(DraftKey("login", login, ["authenticate_timeout"]))
    }
    if let idle = SharedNumbers.idle(group.instances) { times.append(DraftKey("idle", idle, ["timeout"])) }
    if !times.isEmpty { keys.append(DraftKey("timeouts", .map(times))) }
    if let sessions = SharedNumbers.sessions(group.instances) {
      keys.append(
        DraftKey("limits", .map([DraftKey("sessions", "\(sessions)", ["connection_limit, of all instances together"])]))
      )
    }
    keys.append(DraftKey("log", .map(log())))
    return keys
  }

  private func log() -> [DraftKey] {
    var keys = [
      DraftKey(
        "format", "perdition",
        ["The lines fail2ban's filter and POP-before-SMTP programs know. `text` says more about a session."])
    ]
    if group.instances.contains(where: { $0.has(.debug) }) {
      keys.append(DraftKey("level", "debug", ["debug"]))
    } else if group.instances.allSatisfy({ $0.has(.quiet) }) {
      keys.append(DraftKey("level", "error", ["quiet"]))
    }
    let facility = group.instances.lazy.compactMap { $0.value(.logFacility) }.first
    switch facility ?? "mail" {
    case "-", "+": keys.append(DraftKey("to", "stderr", ["log_facility"]))
    case let path where path.hasPrefix("/"): keys.append(DraftKey("to", path, ["log_facility"]))
    default:
      keys.append(
        DraftKey("to", "syslog", [facility == nil ? "Perdition logs so without log_facility" : "log_facility"]))
    }
    if let seconds = SharedNumbers.repetition(group.instances) {
      let isGiven = group.instances.contains { $0.has(.connectRelog) }
      keys.append(
        DraftKey("repeat", "\(seconds)s", [isGiven ? "connect_relog" : "Perdition's connect_relog of itself"]))
    }
    return keys
  }
}

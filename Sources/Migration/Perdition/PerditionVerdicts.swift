/// What became of each option of an instance.

internal import Protocols

/// The report on one instance.
struct PerditionVerdicts {
  private(set) var entries: [ReportEntry] = []

  let instance: PerditionInstance
  let group: PerditionGroup
  let config: PerditionConfig

  typealias Answer = (verdict: Verdict, text: String)

  init(_ instance: PerditionInstance, group: PerditionGroup, config: PerditionConfig) {
    self.instance = instance
    self.group = group
    self.config = config
    entries = instance.faults
    for setting in instance.settings {
      let shown = setting.option.shown(setting.value)
      if let ignored = setting.ignored {
        entries.append(ReportEntry(setting.place, shown, .notNeeded, ignored))
        continue
      }
      let answer = judge(setting.option, setting.value ?? "")
      entries.append(ReportEntry(setting.place, shown, answer.verdict, answer.text))
    }
    entries += unsaid()
  }

  /// What an instance does without an option saying so.
  private func unsaid() -> [ReportEntry] {
    var entries: [ReportEntry] = []
    func say(_ setting: String, _ verdict: Verdict, _ text: String) {
      entries.append(ReportEntry("", setting, verdict, text))
    }
    let addresses = config.addresses[instance.label] ?? []
    if !instance.has(.bindAddress) {
      let text = addresses.compactMap { if case .listener(let text) = $0 { text } else { nil } }.joined(separator: ", ")
      if !text.isEmpty {
        say(
          "no bind_address", .changed,
          "it listens on \(text): IPv6 too, where Perdition has IPv4 alone. Write 0.0.0.0 for * if that is not wanted.")
      }
    }
    for case .unusable(let address, let why) in addresses where !instance.has(.bindAddress) {
      say("listener \(address)", .lost, "\(why).")
    }
    let tls = PerditionTLS(instance)
    if tls.isByProtocol, tls.listen != .off {
      say(
        "no ssl_mode", .carried,
        "the protocol \(instance.mailProtocol.rawValue.uppercased()) means TLS from the first byte, toward clients "
          + "and backends."
      )
    }
    if tls.listen != .off, !instance.has(.certificateFile) || !instance.has(.keyFile) {
      let paths = CertificatePaths(instance)
      say(
        "no ssl_cert_file or ssl_key_file", .carried,
        "\(paths.certificate) and \(paths.key), as Perdition's build has it.")
    }
    if let text = way() { say("the way to the backends", .changed, text) }
    let own = BackendWay(instance)
    let fit = instance.mailProtocol.mailProtocol.port(own.tls)
    if own.port != fit, !instance.has(.outgoingPort), own == chosen {
      let kind = own.tls == .implicit ? "TLS from the first byte" : "plain text first"
      say(
        "no outgoing_port", .carried,
        "Perdition takes the port of its protocol and speaks \(kind) to port \(own.port) of a backend, likely by "
          + "mistake; the same was "
          + "kept. For such a backend the usual outgoing_port is \(fit).")
    }
    if PerditionMap(instance) == group.manner.map, !instance.has(.mapLibrary) {
      say("no map_library", config.routes.verdict.verdict, config.routes.verdict.text)
    }
    return entries
  }

  var chosen: BackendWay? { group.ways[instance.mailProtocol.mailProtocol] }

  /// How the group's way to backends differs from the instance's own.
  private func way() -> String? {
    let own = BackendWay(instance)
    guard let chosen, chosen != own else { return nil }
    let kinds: [BackendTLS: String] = [.off: "in plain text", .startTLS: "with STARTTLS", .implicit: "with TLS"]
    guard chosen.tls != own.tls || chosen.port != own.port || chosen.serverPorts != own.serverPorts else { return nil }
    return
      "it spoke to port \(own.port) \(kinds[own.tls] ?? ""), other instances of the protocol to port \(chosen.port) "
      + "\(kinds[chosen.tls] ?? ""); one configuration has one way, and the better protected was taken."
  }

  /// The verdict on an option that counts.
  private func judge(_ option: PerditionOption, _ value: String) -> Answer {
    switch option {
    case .mailProtocol: mailProtocol()
    case .bindAddress: bindAddress()
    case .listenPort: listenPort(value)
    case .connectionLimit: connectionLimit(option)
    case .inetdMode: inetdMode()
    case .noDaemon: (.notNeeded, "proxyd stays in the foreground and leaves the rest to the service manager.")
    case .pidFile: (.notNeeded, "the service manager knows the process; proxyd writes no such file.")
    case .username, .group: username(option, value)
    case .noBindBanner:
      (.notNeeded, "proxyd's greeting names no host; the key `greeting` of a listener sets its words.")
    case .noLookup: noLookup()
    case .keepAlive: (.notNeeded, "proxyd always keeps connections alive, on both sides.")
    case .configFile: (.notNeeded, "that file was looked for among those given.")
    case .help: (.notNeeded, "it only prints.")
    case .outgoingServer: outgoingServer()
    case .outgoingPort: outgoingPort(value)
    case .mapLibrary: mapLibrary()
    case .mapLibraryOption: mapLibraryOption()
    case .queryKey: queryKey()
    case .domainDelimiter: domainDelimiter(value)
    case .stripDomain: stripDomain(option)
    case .addDomain: addDomain(option)
    case .explicitDomain: explicitDomain(value)
    case .lowerCase: lowerCase(option)
    case .usernameFromDatabase: (.carried, "users in the map's answers are the names to log in with.")
    case .clientServerSpecification: clientServerSpecification()
    case .authenticateIn: authenticateIn()
    case .loginDisabled: loginDisabled()
    case .okayLine: okayLine(value)
    case .serverResponseLine, .serverOkayLine:
      (.notNeeded, "proxyd passes on what the backend says, for logins that succeed and that don't.")
    case .authenticateTimeout: authenticateTimeout(option)
    case .timeout: timeout()
    case .connectRelog: connectRelog(option)
    case .logFacility: logFacility(value)
    case .debug: (.carried, "log.level: debug, for all instances of this configuration.")
    case .quiet: quiet()
    case .connectionLogging: connectionLogging()
    case .logPassword: logPassword(value)
    case .capability, .imapCapability, .popCapability, .sieveCapability: capability(option, value)
    case .certificateFile, .keyFile: toClients(certificateFile(option, value))
    case .chainFile: toClients(chainFile(value))
    case .passphraseFile: toClients(passphraseFile(value))
    case .passphraseDescriptor: toClients(passphraseDescriptor())
    case .parametersFile:
      toClients(
        (.notNeeded, "the key exchange is by elliptic curves (tls.groups); files of DH parameters have no use."))
    case .listenCiphers: toClients(listenCiphers(value))
    case .listenMinimum: toClients(listenMinimum(value))
    case .listenMaximum: toClients((.changed, "there is no such limit: TLS 1.3 is always offered."))
    case .listenCompression:
      toClients((.notNeeded, "compression under TLS is unsafe, and OpenSSL has none; Perdition neither."))
    case .noCipherServerPreference:
      toClients((.changed, "the server's order of ciphers always counts."))
    case .noClientCertificateVerify: toClients((.notNeeded, "clients are not asked for certificates."))
    case .authorityFile: toBackends(authorityFile(value))
    case .authorityPath: toBackends(authorityPath())
    case .noCertificateVerify, .noNameVerify: toBackends(noCertificateVerify())
    case .authorityAcceptSelfSigned, .acceptSelfSigned, .acceptExpired, .acceptNotYetValid:
      toBackends(authorityAcceptSelfSigned())
    case .verifyDepth: toBackends((.notNeeded, "chains of any length that OpenSSL takes are verified."))
    case .outgoingCiphers:
      toBackends((.changed, "proxyd's own list counts toward backends: ECDHE with AES-GCM or ChaCha20."))
    case .outgoingMinimum: toBackends(outgoingMinimum(value))
    case .outgoingMaximum: toBackends((.changed, "there is no such limit: TLS 1.3 is always offered."))
    case .outgoingCompression:
      toBackends((.notNeeded, "compression under TLS is unsafe, and OpenSSL has none; Perdition neither."))
    case .tlsMode: tlsMode()
    }
  }
}

/// What became of each option of an instance.

internal import Protocols

/// The report on one instance.
struct PerditionVerdicts {
  private(set) var entries: [ReportEntry] = []

  private let instance: PerditionInstance
  private let group: PerditionGroup
  private let config: PerditionConfig

  private typealias Answer = (verdict: Verdict, text: String)

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
        "the protocol \(instance.mailProtocol.rawValue.uppercased()) means TLS from the first byte, toward clients and backends."
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
    if own.tls == .off, [.imap4s, .pop3s].contains(instance.mailProtocol), !instance.has(.outgoingPort), own == chosen {
      say(
        "no outgoing_port", .carried,
        "Perdition speaks plain text to port \(own.port) of a backend here, likely by mistake; the same was kept. Without TLS to "
          + "the backends outgoing_port is meant to be \(instance.mailProtocol.mailProtocol.port(.off)).")
    }
    if PerditionMap(instance) == group.manner.map, !instance.has(.mapLibrary) {
      say("no map_library", config.routes.verdict.verdict, config.routes.verdict.text)
    }
    return entries
  }

  private var chosen: BackendWay? { group.ways[instance.mailProtocol.mailProtocol] }

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

  private func judge(_ option: PerditionOption, _ value: String) -> Answer {
    switch option {
    case .mailProtocol, .bindAddress, .listenPort, .connectionLimit, .inetdMode, .noDaemon, .pidFile, .username, .group,
      .noBindBanner, .noLookup, .keepAlive, .configFile, .help, .outgoingServer, .outgoingPort:
      place(option, value)
    case .mapLibrary, .mapLibraryOption, .queryKey, .domainDelimiter, .stripDomain, .addDomain, .explicitDomain,
      .lowerCase, .usernameFromDatabase, .clientServerSpecification:
      name(option, value)
    case .authenticateIn, .loginDisabled, .okayLine, .serverResponseLine, .serverOkayLine, .authenticateTimeout,
      .timeout, .connectRelog, .logFacility, .debug, .quiet, .connectionLogging, .logPassword, .capability,
      .imapCapability, .popCapability, .sieveCapability:
      conduct(option, value)
    case .tlsMode, .certificateFile, .keyFile, .chainFile, .authorityFile, .authorityPath, .noCertificateVerify,
      .noClientCertificateVerify, .noNameVerify, .authorityAcceptSelfSigned, .acceptSelfSigned, .acceptExpired,
      .acceptNotYetValid, .verifyDepth, .parametersFile, .passphraseDescriptor, .passphraseFile, .listenCiphers,
      .outgoingCiphers, .listenMinimum, .outgoingMinimum, .listenMaximum, .outgoingMaximum, .listenCompression,
      .outgoingCompression, .noCipherServerPreference:
      PerditionTLSVerdicts(instance, group: group, config: config).judge(option, value)
    }
  }

  // MARK: Listening, the process, and servers

  private func place(_ option: PerditionOption, _ value: String) -> Answer {
    switch option {
    case .mailProtocol: return (.carried, "listeners[].protocol: \(instance.mailProtocol.mailProtocol.rawValue).")
    case .bindAddress:
      var texts: [String] = []
      var verdict = Verdict.carried
      for address in config.addresses[instance.label] ?? [] {
        switch address {
        case .listener(let text): texts.append("a listener at \(text)")
        case .unusable(let text, let why):
          verdict = .lost
          texts.append("no listener for \(text): \(why)")
        }
      }
      return (verdict, texts.joined(separator: "; ") + ".")
    case .listenPort:
      guard PerditionServer.number(value) != nil else {
        return (
          .lost, "\"\(value)\" is no port's number and no mail service's name. Write the number and import again."
        )
      }
      return (.carried, "the port in listeners[].address.")
    case .connectionLimit:
      guard instance.number(option) != 0 else { return (.notNeeded, "0 is no limit.") }
      guard let sessions = SharedNumbers.sessions(group.instances) else {
        return (
          .changed, "not all instances of this configuration have a limit, so there is none but that of open files."
        )
      }
      return (
        .changed,
        "limits.sessions: \(sessions), of all instances together. Beyond it clients wait; Perdition's daemon ends there."
      )
    case .inetdMode:
      return (
        .lost,
        "proxyd is one process that listens by itself. Take the line out of inetd's configuration and start proxyd instead; the port "
          + "is that of the protocol unless listen_port says otherwise."
      )
    case .noDaemon: return (.notNeeded, "proxyd stays in the foreground and leaves the rest to the service manager.")
    case .pidFile: return (.notNeeded, "the service manager knows the process; proxyd writes no such file.")
    case .username, .group:
      let key = option == .username ? "user" : "group"
      let taken = group.instances.lazy.compactMap { $0.value(option) }.first
      guard let taken, taken == value else {
        return (
          .changed, "another instance says \"\(taken ?? "")\", and one process has one: \(key): \(taken ?? "nobody")."
        )
      }
      return (
        .carried, "\(key): \(value). What is read again while it runs, certificates' keys too, must be readable to it."
      )
    case .noBindBanner:
      return (.notNeeded, "proxyd's greeting names no host; the key `greeting` of a listener sets its words.")
    case .noLookup:
      return (
        .notNeeded,
        "it only kept the address in the banner numeric. (It never switched the map off, whatever its name.)"
      )
    case .keepAlive: return (.notNeeded, "proxyd always keeps connections alive, on both sides.")
    case .configFile: return (.notNeeded, "that file was looked for among those given.")
    case .help: return (.notNeeded, "it only prints.")
    case .outgoingServer: return outgoingServer()
    case .outgoingPort:
      guard let port = PerditionServer.number(value) else {
        return (
          .lost, "\"\(value)\" is no port's number and no mail service's name. Write the number and import again."
        )
      }
      guard chosen?.port == port else { return (.changed, "see \"the way to the backends\" below.") }
      return (.carried, "the port of servers that are named without one, \(port).")
    default: preconditionFailure("\(option) is judged elsewhere")
    }
  }

  private func outgoingServer() -> Answer {
    let servers = OutgoingServers(instance).servers
    var texts = ["backends and the route `default`, for users whom nothing else knows"]
    if servers.count > 1 { texts.append("the \(servers.count) take turns") }
    if servers.contains(where: { $0.user != nil }) {
      texts.append("a user in front of a server is passed over, as before")
    }
    let bad = servers.filter { $0.backend == nil }.map { "\($0.host):\($0.port ?? "")" }
    if !bad.isEmpty {
      return (.lost, "\(bad.joined(separator: ", ")): the port is no number and no mail service's name.")
    }
    return (.carried, texts.joined(separator: "; ") + ".")
  }

  // MARK: Names and maps

  private func name(_ option: PerditionOption, _ value: String) -> Answer {
    let manner = group.manner
    switch option {
    case .mapLibrary:
      return manner.isClosed && config.routes.verdict.verdict == .lost
        ? (.lost, config.routes.verdict.text) : config.routes.verdict
    case .mapLibraryOption:
      if manner.map == .none { return (.notNeeded, "there is no map.") }
      return (
        config.routes.verdict.verdict,
        instance.has(.mapLibrary) ? "see map_library." : config.routes.verdict.text
      )
    case .queryKey:
      guard !manner.keys.isEmpty else { return (.notNeeded, "it is empty: the whole name is the key.") }
      let unknown = manner.keys.filter { PerditionVerdicts.hasUnknownEscape($0) }
      if !unknown.isEmpty {
        return (
          .lost,
          "\(unknown.joined(separator: ", ")) has an escape that Perdition does not know, and its lookup fails there. Known are \\U \\u "
            + "\\D \\d \\i \\I \\p \\P \\\\; in the file a backslash is written twice or in single quotes."
        )
      }
      guard manner.map != .none else { return (.notNeeded, "there is no map to ask.") }
      let plain = manner.keys.filter { !$0.contains("\\") }
      let hint =
        plain.isEmpty
        ? "" : " (\(plain.joined(separator: ", ")) is the same for everybody: likely a backslash was eaten.)"
      return (.carried, "keys: [\(manner.keys.joined(separator: ", "))] of the source.\(hint)")
    case .domainDelimiter:
      return value == "@"
        ? (.notNeeded, "that is proxyd's own.")
        : (.carried, "names.delimiter: \(value), in names and in the map's answers.")
    case .stripDomain: return states(option, "strip-domain", manner.strip)
    case .addDomain:
      let answer = states(option, "add-domain", manner.add)
      guard answer.verdict == .carried else { return answer }
      let domain = manner.domain.map { "domain: \($0)" } ?? "domain-of-address: \(manner.add.depth)"
      return (.carried, "\(answer.text) With \(domain).")
    case .explicitDomain:
      return manner.domain == nil
        ? (.notNeeded, "without add_domain it has no effect.") : (.carried, "names.domain: \(value).")
    case .lowerCase:
      let all = PerditionStates(instance, .lowerCase)
      let answer = states(option, "lower-case", manner.lower)
      if manner.lower.states.isEmpty, all.unknown.isEmpty {
        return (.notNeeded, "proxyd always looks up names in lower case.")
      }
      return answer
    case .usernameFromDatabase:
      return (.carried, "users in the map's answers are the names to log in with.")
    case .clientServerSpecification:
      let known = manner.servers + config.routes.servers
      guard !known.isEmpty else { return (.lost, "see \"Users and servers\" below.") }
      return (
        .changed,
        "the route `client-named` takes user\(manner.delimiter)server for the \(Set(known).count) servers that the map and outgoing_server "
          + "name. Perdition connects to any host and port a client names; add to the list what clients need."
      )
    default: preconditionFailure("\(option) is judged elsewhere")
    }
  }

  private func states(_ option: PerditionOption, _ key: String, _ taken: PerditionStates) -> Answer {
    let own = PerditionStates(instance, option)
    if !own.unknown.isEmpty {
      let words = own.unknown.map { "\"\($0)\"" }.joined(separator: ", ")
      return (
        .changed,
        "names.\(key): [\(taken.states.joined(separator: ", "))]. Perdition drops \(words), which it does not know (a blank behind a "
          + "comma is part of the word), and so did the import."
      )
    }
    if taken.states.isEmpty {
      return (
        .notNeeded, own.states.isEmpty ? "no state is named." : "it has no effect with client_server_specification."
      )
    }
    return (.carried, "names.\(key): [\(taken.states.joined(separator: ", "))].")
  }

  private static func hasUnknownEscape(_ key: String) -> Bool {
    var rest = key[...]
    while let character = rest.popFirst() {
      guard character == "\\" else { continue }
      guard let next = rest.popFirst(), "UuDdiIpP\\".contains(next) else { return true }
    }
    return false
  }

  // MARK: Logins, times and the log

  private func conduct(_ option: PerditionOption, _ value: String) -> Answer {
    switch option {
    case .authenticateIn:
      if instance.mailProtocol == .managesieve {
        return (
          .changed,
          "password-check: { pam: perdition }. With ManageSieve Perdition fails there always; proxyd does not."
        )
      }
      return (.carried, "password-check: { pam: perdition }; the service's file in /etc/pam.d stays.")
    case .loginDisabled:
      return (
        .changed,
        "a first route refuses everybody, for this configuration's listeners alone. LOGINDISABLED is not announced; a proxyd that is "
          + "not started says it better."
      )
    case .okayLine:
      if instance.has(.serverResponseLine) || instance.has(.serverOkayLine) {
        return (.notNeeded, "with server_resp_line it has no effect.")
      }
      return value.isEmpty ? (.notNeeded, "it is empty.") : (.carried, "listeners[].login-ok.")
    case .serverResponseLine, .serverOkayLine:
      return (.notNeeded, "proxyd passes on what the backend says, for logins that succeed and that don't.")
    case .authenticateTimeout:
      let text = SharedNumbers.login(group.instances) ?? ""
      switch instance.number(option) ?? 0 {
      case 0:
        return (
          .changed, "timeouts.login: \(text), the longest there is; a client that never logs in is not kept for ever."
        )
      case 3_601...: return (.changed, "timeouts.login: \(text), the longest there is.")
      default:
        return (
          .carried, "timeouts.login: \(text). It runs from the connection on, and is not put off by what a client says."
        )
      }
    case .timeout: return timeout()
    case .connectRelog:
      guard let seconds = SharedNumbers.repetition(group.instances) else {
        return (.notNeeded, "0 is never; log.repeat is left out.")
      }
      return seconds == instance.number(option)
        ? (.carried, "log.repeat: \(seconds)s.") : (.changed, "log.repeat: \(seconds)s, the shortest of all instances.")
    case .logFacility:
      let taken = group.instances.lazy.compactMap { $0.value(.logFacility) }.first ?? ""
      if taken != value { return (.changed, "another instance says \"\(taken)\", and one process has one log.") }
      if ["-", "+"].contains(value) { return (.carried, "log.to: stderr.") }
      if value.hasPrefix("/") {
        return (
          .carried,
          "log.to: \(value). It is opened anew on SIGHUP, and needs no writing by the unprivileged user before that."
        )
      }
      return value == "mail"
        ? (.carried, "log.to: syslog, whose facility is mail.")
        : (
          .changed,
          "log.to: syslog; the facility is always mail, not \(value). Let the syslog daemon sort by the program's name, proxyd."
        )
    case .debug: return (.carried, "log.level: debug, for all instances of this configuration.")
    case .quiet:
      if instance.has(.debug) { return (.notNeeded, "debug overrides it.") }
      return group.instances.allSatisfy { $0.has(.quiet) }
        ? (.carried, "log.level: error.")
        : (.changed, "other instances of this configuration are not quiet, and nor is it.")
    case .connectionLogging:
      return instance.has(.debug)
        ? (.changed, "what is said is never logged, since passwords are in it; log.level: debug tells the steps.")
        : (.notNeeded, "without debug it has no effect.")
    case .logPassword:
      return value.lowercased() == "never"
        ? (.notNeeded, "proxyd never logs a password.")
        : (.changed, "proxyd never logs a password; there is no way to make it.")
    case .capability, .imapCapability, .popCapability, .sieveCapability: return capabilities(option, value)
    default: preconditionFailure("\(option) is judged elsewhere")
    }
  }

  private func timeout() -> Answer {
    let text = SharedNumbers.idle(group.instances) ?? ""
    guard let own = instance.number(.timeout), own > 0 else {
      return (.changed, "timeouts.idle: \(text), the longest there is; a session is not kept for ever without a byte.")
    }
    var warning = ""
    if own < 1_860 {
      warning =
        " Clients in IMAP IDLE are silent for up to 29 minutes, and are cut off by less than 31m; leave the key out for that."
    }
    return text == "\(own)s"
      ? (.carried, "timeouts.idle: \(text).\(warning)")
      : (.changed, "timeouts.idle: \(text), the longest of all instances.\(warning)")
  }

  private func capabilities(_ option: PerditionOption, _ value: String) -> Answer {
    guard !value.isEmpty else { return (.notNeeded, "it is empty.") }
    let taken = Capabilities(instance)
    guard taken.option == option else {
      return (.notNeeded, "it is not for this protocol, or the option for this protocol counts.")
    }
    if instance.mailProtocol.mailProtocol == .pop3 {
      return (.changed, "POP3 has no such list in proxyd: it announces what it can do, and nothing else.")
    }
    let dropped = taken.dropped.joined(separator: ", ")
    let follows =
      dropped.isEmpty
      ? "" : " Left out: \(dropped), which follow from `tls` and `mechanisms` or are proxyd's own to say."
    guard let words = taken.words, !words.isEmpty else {
      return (.changed, "nothing is left for listeners[].capabilities, so proxyd's usual ones are announced.\(follows)")
    }
    return (
      dropped.isEmpty ? .carried : .changed, "listeners[].capabilities: \(words.joined(separator: " ")).\(follows)"
    )
  }
}

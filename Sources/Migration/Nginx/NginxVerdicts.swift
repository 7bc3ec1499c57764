/// What became of each directive of `mail { }`.

internal import Protocols

/// Judges a directive for the servers that obey it, all of which are carried over.
struct NginxVerdicts {
  typealias Answer = (verdict: Verdict, text: String)

  /// The servers.
  let servers: [NginxServer]
  /// The configuration each has become part of.
  let configs: [NginxConfig]

  /// The directive's configurations.
  private var those: [NginxConfig] {
    configs.filter { config in config.servers.contains { mine in servers.contains { $0.number == mine.number } } }
  }

  func judge(_ directive: NginxDirective) -> Answer {
    let value = directive.words.first ?? ""
    let answer =
      core(directive, value) ?? service(directive, value) ?? backends(directive, value) ?? tls(directive, value)
      ?? words(directive, value)
      ?? (.lost, "this directive is not known to the import. Look it up, and in proxyd.yaml(5) for its like.")
    guard answer.verdict != .notNeeded, directive.words.contains(where: { $0.contains("$") }) else { return answer }
    return (.lost, "variables are not expanded: write what is meant into the key by hand.")
  }

  // MARK: Core

  private func core(_ directive: NginxDirective, _ value: String) -> Answer? {
    switch directive.name {
    case "listen": return listen(directive)
    case "protocol": return (.carried, "listeners[].protocol.")
    case "server_name":
      return (
        .notNeeded, "it stands in salts for APOP and CRAM-MD5, and in greetings to SMTP servers; neither is here."
      )
    case "timeout":
      return time(directive, "timeouts.login", 1_000...3_600_000)
        ?? (
          .carried,
          "timeouts.login. Connecting and logging in at a backend have times of their own (timeouts.connect, "
            + "timeouts.backend-login)."
        )
    case "proxy_timeout":
      return time(directive, "timeouts.idle", 1_000...604_800_000)
        ?? (.carried, "timeouts.idle, which the backend's bytes prolong, too.")
    case "max_errors":
      guard let count = Int(value), (1...1_000).contains(count) else {
        return (.changed, "limits.bad-commands has 1 to 1000.")
      }
      let taken = those[0].servers.compactMap { $0.value("max_errors").flatMap { Int($0) } }.max()
      return taken == count
        ? (.carried, "limits.bad-commands.")
        : (.changed, "another server's larger number was taken; one configuration has one.")
    case "resolver", "resolver_timeout":
      return (.notNeeded, "nginx asks it for SMTP clients' names only.")
    case "error_log":
      return (.changed, "each login and session has a line in the log; log.to and log.level say where and how much.")
    case "proxy": return (.notNeeded, "nginx itself does nothing with it.")
    case "proxy_buffer", "imap_client_buffer", "pop3_client_buffer", "smtp_client_buffer":
      return (.notNeeded, "buffers are taken when there is something to hold; limits.command bounds a command.")
    case "smtp_auth", "smtp_capabilities", "smtp_greeting_delay", "proxy_smtp_auth", "xclient":
      return (.notNeeded, "it is for SMTP alone.")
    default: return nil
    }
  }

  private func listen(_ directive: NginxDirective) -> Answer {
    guard let server = servers.first, let listen = server.listens.first(where: { $0.directive == directive }) else {
      return (.lost, "a `listen` belongs into a server.")
    }
    guard case .address(let address, let note) = listen.place else {
      if case .unusable(let reason) = listen.place { return (.lost, "\(reason).") }
      preconditionFailure("a place is one of the two")
    }
    var texts = ["listeners[].address: \(address), tls: \(server.tls(listen))."]
    var verdict = Verdict.carried
    if let note {
      verdict = .changed
      texts.append("\(note); an address is written here.")
    }
    let lost = listen.odd.filter { $0 == "multipath" || !NginxVerdicts.isOfSocket($0) }
    if !lost.isEmpty {
      verdict = .lost
      texts.append("Not carried: \(lost.joined(separator: " ")).")
    }
    let dropped = listen.odd.filter { !lost.contains($0) }
    if !dropped.isEmpty {
      if verdict == .carried { verdict = .changed }
      texts.append("The system's own sizes and times count instead of \(dropped.joined(separator: " ")).")
    }
    if listen.isHeaded, server.trusted.isEmpty {
      verdict = .lost
      texts.append(
        "There is no set_real_ip_from: proxyd believes PROXY headers only from networks that are listed. Put the load "
          + "balancers' addresses into listeners[].proxy-protocol in the place of 127.0.0.1.")
    }
    return (verdict, texts.joined(separator: " "))
  }

  private static func isOfSocket(_ word: String) -> Bool {
    ["backlog=", "rcvbuf=", "sndbuf=", "so_keepalive="].contains { word.hasPrefix($0) }
  }

  /// Why a time is not simply carried; nil if it is.
  private func time(_ directive: NginxDirective, _ key: String, _ range: ClosedRange<Int>) -> Answer? {
    guard let own = NginxTime.milliseconds(directive.words.first ?? "") else {
      return (.lost, "it is no time that nginx would take.")
    }
    guard range.contains(own) else {
      return (
        .changed,
        "\(key) has \(NginxTime.text(range.lowerBound)) to \(NginxTime.text(range.upperBound)); the nearest was taken."
      )
    }
    guard those[0].longest(directive.name) == own else {
      return (.changed, "another server's longer time was taken; one configuration has one \(key).")
    }
    return nil
  }

  // MARK: The service

  private func service(_ directive: NginxDirective, _ value: String) -> Answer? {
    switch directive.name {
    case "auth_http":
      return (
        .carried,
        "routes[].http: \(servers[0].url ?? ""), with password: sent. The service hears nginx's own headers; connections to it "
          + "stay open, and its name is resolved anew."
      )
    case "auth_http_header":
      if let problem = NginxHeader.problem(directive.words) { return (.lost, "\(problem).") }
      return (.carried, "in the file that routes[].http.headers-file names.")
    case "auth_http_timeout":
      guard let time = NginxTime.milliseconds(value) else { return (.lost, "it is no time that nginx would take.") }
      return time <= 60_000
        ? (.carried, "routes[].timeout, for the whole question.")
        : (.changed, "routes[].timeout is 60s at most.")
    case "auth_http_pass_client_cert":
      return value == "on"
        ? (.lost, "Auth-SSL-Cert is not sent; Auth-SSL-Subject, -Issuer, -Serial and -Fingerprint are.")
        : (.notNeeded, "the certificate itself is never sent.")
    default: return nil
    }
  }

  // MARK: Backends

  private func backends(_ directive: NginxDirective, _ value: String) -> Answer? {
    switch directive.name {
    case "proxy_pass_error_message":
      return value == "on"
        ? (
          .carried,
          "a backend's words about a refused login reach the client; the connection stays open for another try."
        )
        : (.changed, "a backend's words about a refused login reach the client, instead of an internal error.")
    case "proxy_protocol":
      switch value {
      case "on", "v2": return (.carried, "unnamed-backends.proxy-protocol: \(value == "on" ? "v1" : "v2").")
      default: return (.notNeeded, "it is off by itself.")
      }
    case "set_real_ip_from":
      if value.hasPrefix("unix:") { return (.notNeeded, "proxyd does not listen on UNIX sockets.") }
      guard servers.contains(where: { $0.listens.contains(where: \.isHeaded) }) else {
        return (.notNeeded, "no `listen` here has proxy_protocol.")
      }
      return those.allSatisfy { $0.takes(network: value) }
        ? (
          .carried,
          "listeners[].proxy-protocol. A connection from elsewhere is refused; nginx takes it without believing it."
        )
        : (.lost, "\"\(value)\" is neither an address nor a network, and listeners[].proxy-protocol has nothing else.")
    default: return nil
    }
  }

  // MARK: Words before the login

  private func words(_ directive: NginxDirective, _ value: String) -> Answer? {
    switch directive.name {
    case "imap_auth", "pop3_auth":
      guard let server = servers.first(where: { $0.kind == (directive.name == "imap_auth" ? .imap : .pop3) }) else {
        return (.notNeeded, "no server that is carried over speaks this protocol.")
      }
      return mechanisms(directive.words, server)
    case "imap_capabilities":
      guard let words = servers.lazy.compactMap({ NginxCapabilities($0) }).first else {
        return (.notNeeded, "no server that is carried over speaks this protocol.")
      }
      return words.dropped.isEmpty
        ? (.carried, "listeners[].capabilities.")
        : (
          .changed,
          "listeners[].capabilities, but for \(words.dropped.joined(separator: " ")), which follow from other keys."
        )
    case "pop3_capabilities":
      return (.changed, "what a POP3 client is told before the login follows from other keys; there is no list.")
    default: return nil
    }
  }

  private func mechanisms(_ words: [String], _ server: NginxServer) -> Answer {
    var texts = ["listeners[].mechanisms: PLAIN and LOGIN, which nginx takes whatever it announces."]
    var verdict = Verdict.carried
    let digests = words.filter { $0 == "apop" || $0 == "cram-md5" }
    if !digests.isEmpty {
      verdict = .lost
      texts.append(
        "\(digests.joined(separator: " and ")) can't be carried: who checks such a login needs every password in clear text. "
          + "Clients that use it must be told to use a password under TLS.")
    }
    if words.contains("external") {
      if server.mechanisms.contains("external") {
        if verdict == .carried { verdict = .changed }
        texts.append(
          "external: the user's name is that in the certificate (tls.client-name), where nginx asks for whatever name the client "
            + "says.")
      } else {
        verdict = .lost
        texts.append("external can't be carried: no client certificate is asked for, so it would prove nothing.")
      }
    }
    return (verdict, texts.joined(separator: " "))
  }
}

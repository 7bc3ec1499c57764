/// What became of the directives of TLS.

internal import Protocols

extension NginxVerdicts {
  func tls(_ directive: NginxDirective, _ value: String) -> Answer? {
    guard directive.name == "starttls" || directive.name.hasPrefix("ssl_") else { return nil }
    guard let server = servers.first(where: \.hasTLS), let config = config(of: server) else {
      return NginxVerdicts.known.contains(directive.name) || directive.name == "starttls"
        ? (.notNeeded, "no TLS is spoken here.") : nil
    }
    switch directive.name {
    case "starttls":
      let isImplicit = servers.allSatisfy { $0.listens.allSatisfy(\.isTLS) }
      return isImplicit
        ? (.notNeeded, "TLS begins with the first byte here.")
        : (.carried, "listeners[].tls: \(value == "only" ? "starttls-required" : value == "on" ? "starttls" : "off").")
    case "ssl_certificate", "ssl_certificate_key": return certificate(directive, value, server, config)
    case "ssl_password_file":
      return (.lost, "proxyd takes keys without a passphrase: write them with openssl pkey, readable to root alone.")
    case "ssl_protocols": return versions(directive.words)
    case "ssl_ciphers":
      return shared(directive.name, value, "tls.ciphers, for TLS 1.2; TLS 1.3 has tls.ciphersuites", config)
    case "ssl_ecdh_curve":
      return value == "auto"
        ? (.notNeeded, "proxyd's own groups count.") : shared(directive.name, value, "tls.groups", config)
    case "ssl_prefer_server_ciphers":
      return (.notNeeded, "proxyd's own order counts, which puts fast and safe ones first.")
    case "ssl_dhparam": return (.changed, "key exchange is by elliptic curves only, which every client in use knows.")
    case "ssl_session_cache", "ssl_session_timeout": return (.notNeeded, "sessions are resumed by tickets.")
    case "ssl_session_tickets":
      return value == "off"
        ? (.changed, "clients may resume sessions by tickets, whose keys change by themselves.")
        : (.notNeeded, "it is so by itself.")
    case "ssl_session_ticket_key":
      return (
        .changed,
        "tickets' keys are made by proxyd, and change by themselves: a ticket of another machine is not taken."
      )
    case "ssl_certificate_compression":
      return value == "on" ? (.changed, "certificates are sent as they are.") : (.notNeeded, "it is so by itself.")
    case "ssl_conf_command":
      return (.lost, "OpenSSL's own commands have no key; tls.minimum, ciphers, ciphersuites, groups do most.")
    default: return clients(directive, value, server)
    }
  }

  /// What each server may have for itself and a configuration has once.
  private func shared(_ name: String, _ value: String, _ key: String, _ config: NginxConfig) -> Answer {
    guard config.first(name) == value else {
      return (.changed, "another server's list was taken; one configuration has one.")
    }
    let isCommon = config.servers.filter(\.hasTLS).allSatisfy { $0.value(name) == value }
    return isCommon ? (.carried, "\(key).") : (.changed, "\(key). It counts for all servers of this configuration.")
  }

  private func config(of server: NginxServer) -> NginxConfig? {
    configs.first { config in config.servers.contains { $0.number == server.number } }
  }

  private static let known: Set<String> = [
    "ssl_certificate", "ssl_certificate_key", "ssl_password_file", "ssl_protocols", "ssl_ciphers", "ssl_ecdh_curve",
    "ssl_prefer_server_ciphers", "ssl_dhparam", "ssl_session_cache", "ssl_session_timeout", "ssl_session_tickets",
    "ssl_session_ticket_key", "ssl_certificate_compression", "ssl_conf_command", "ssl_verify_client",
    "ssl_verify_depth", "ssl_client_certificate", "ssl_trusted_certificate", "ssl_crl",
  ]

  private func certificate(
    _ directive: NginxDirective, _ value: String, _ server: NginxServer, _ config: NginxConfig
  ) -> Answer {
    let key = directive.name == "ssl_certificate" ? "certificate" : "key"
    guard NginxConfig.isFile(value) else {
      return (.lost, "tls.\(key) is a file; \(value.prefix { $0 != ":" }): is none.")
    }
    let usable = NginxConfig.usable(server.pairs)
    guard usable.contains(where: { $0.certificate == value || $0.key == value }) else {
      return server.pairs.contains { $0.certificate == value || $0.key == value }
        ? (.lost, "tls.\(key) has two at most, one for ECDSA and one for RSA.")
        : (.lost, "there is no certificate or no key to go with it.")
    }
    return usable.map(\.certificate) == config.pairs.map(\.certificate)
      ? (.carried, "tls.\(key).") : (.carried, "listeners[].\(key) of this server.")
  }

  private func versions(_ words: [String]) -> Answer {
    let old = words.filter { $0 != "TLSv1.2" && $0 != "TLSv1.3" }
    if !old.isEmpty { return (.changed, "1.2 and 1.3 are spoken; \(old.joined(separator: " ")) not any more.") }
    if words == ["TLSv1.3"] {
      let isAlone = servers.filter(\.hasTLS).allSatisfy { server in
        config(of: server)?.servers.filter(\.hasTLS).allSatisfy { NginxConfig.isNewest($0.words("ssl_protocols")) }
          ?? true
      }
      return isAlone
        ? (.carried, "tls.minimum: 1.3.") : (.changed, "other servers speak 1.2; one configuration has one minimum.")
    }
    return words.contains("TLSv1.3")
      ? (.carried, "1.2 and 1.3 by themselves.") : (.changed, "1.3 is spoken besides 1.2.")
  }

  private func clients(_ directive: NginxDirective, _ value: String, _ server: NginxServer) -> Answer? {
    let asks = server.way.clients == .asked || server.way.clients == .required
    switch directive.name {
    case "ssl_verify_client":
      switch value {
      case "on" where server.way.authority != nil:
        return (.carried, "tls.client-certificates: require. A client without one is refused in TLS, not by a line.")
      case "optional" where server.way.authority != nil: return (.carried, "tls.client-certificates: request.")
      case "on", "optional": return (.lost, "there is no ssl_client_certificate to verify by.")
      case "optional_no_ca":
        return (
          .lost, "a certificate that is shown must be valid: tls.client-certificates with tls.client-ca, or none."
        )
      default: return (.notNeeded, "it is off by itself.")
      }
    case "ssl_verify_depth":
      return asks ? (.changed, "a chain may have any length.") : (.notNeeded, "no client certificate is asked for.")
    case "ssl_client_certificate":
      return asks ? (.carried, "tls.client-ca.") : (.notNeeded, "no client certificate is asked for.")
    case "ssl_trusted_certificate":
      return asks
        ? (.lost, "tls.client-ca is one file: append these authorities to it.")
        : (.notNeeded, "no client certificate is asked for.")
    case "ssl_crl":
      return asks
        ? (.lost, "lists of revoked certificates are not read: take authorities whose certificates live short.")
        : (.notNeeded, "no client certificate is asked for.")
    default: return nil
    }
  }
}

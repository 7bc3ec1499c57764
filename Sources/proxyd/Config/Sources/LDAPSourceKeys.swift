/// The keys of LDAP directories, and what is built of them.

internal import ProxyCore

enum LDAPSourceKeys {
  static let all: [ConfigKey] = [
    ConfigKey(
      path: "routes[].ldap", kind: .map, standard: "none",
      help: """
        An LDAP directory (RFC 4511). The one entry that fits says the backend; two that fit are a failure. Referrals are not \
        followed. With `check-password: bind` the user's password is checked by logging in as that entry.
        """),
    ConfigKey(
      path: "routes[].ldap.url", kind: .texts, standard: nil,
      help: """
        Servers, as ldap://ldap.example.net or ldaps://192.0.2.1:636. They are tried in this order and share the time-out; \
        one that answers is kept.
        """),
    ConfigKey(
      path: "routes[].ldap.starttls", kind: .choice(["on", "off"]), standard: "off",
      help: "on: ldap:// is used with StartTLS only; a server that will not is not asked."),
    ConfigKey(
      path: "routes[].ldap.ca", kind: .path, standard: "the system's authorities",
      help: """
        A PEM file of the authorities a server's certificate must come from; it must be for the name or address in the URL. \
        Without this key, TLS_CACERT of /etc/ldap/ldap.conf counts.
        """),
    ConfigKey(
      path: "routes[].ldap.insecure-no-verification", kind: .choice(["true", "false"]), standard: "false",
      help: "Accept any certificate. Whoever is on the way can read every password and choose every backend."),
    ConfigKey(
      path: "routes[].ldap.bind-dn", kind: .text, standard: "none",
      help: "Who searches; without it, nobody in particular."),
    ConfigKey(
      path: "routes[].ldap.password-file", kind: .path, standard: "none",
      help: "A file whose first line is the password of bind-dn."),
    ConfigKey(
      path: "routes[].ldap.base", kind: .text, standard: nil,
      help: """
        Where the search begins. %u stands for the whole name, %n for what is before its last delimiter, %d for what is \
        behind it, %s for the protocol, %% for a percent sign. Parts of a name are escaped.
        """),
    ConfigKey(
      path: "routes[].ldap.scope", kind: .choice(["base", "one", "sub"]), standard: "sub",
      help: "How deep the search goes: the base alone, the entries right below it, or all below it and itself."),
    ConfigKey(
      path: "routes[].ldap.filter", kind: .text, standard: nil,
      help: "The filter, as (&(objectClass=mailUser)(uid=%u)), with the same escapes as base."),
    ConfigKey(
      path: "routes[].ldap.backend-attribute", kind: .text, standard: nil,
      help: "The attribute with [user@]backend. An entry without it is a failure."),
    ConfigKey(
      path: "routes[].ldap.login-attribute", kind: .text, standard: "none",
      help: "The attribute with the name to log in with at the backend; where an entry has none, the name stays."),
    ConfigKey(
      path: "routes[].ldap.port-attribute", kind: .text, standard: "none",
      help: """
        The attribute with the backend's port, where backend-attribute holds a host. With a port, a backend's name in the \
        configuration is not looked at.
        """),
    ConfigKey(
      path: "routes[].ldap.connections", kind: .integer(1...64), standard: "4",
      help: "Questions at once, each on a connection of its own."),
  ]

  static func read(_ section: ConfigSection, _ builder: SettingsBuilder) -> SourceSettings? {
    for name in ["url", "base", "filter", "backend-attribute"] { _ = section.required(name) }
    let urls = urls(section)
    let startsTLS = section.value("starttls") { ["on": true, "off": false][$0] } ?? false
    if startsTLS, let urls, !urls.contains(where: { $0.hasPrefix("ldap:") }) {
      section.report("it is for ldap://, and no url is of that kind", "starttls")
    }
    let hasTLS = startsTLS || urls?.contains { $0.hasPrefix("ldaps:") } ?? true
    let tls = SourceTLSKeys.read(section, builder, hasTLS: hasTLS)
    if section.has("password-file") != section.has("bind-dn") {
      let (given, missing) = section.has("bind-dn") ? ("bind-dn", "password-file") : ("password-file", "bind-dn")
      section.report("it goes with the key \(missing), which is missing", given)
    }
    guard let urls, let base = section.text("base"), let filter = section.text("filter"),
      let backend = section.text("backend-attribute")
    else { return nil }
    return .ldap(
      LDAPSettings(
        urls: urls, startsTLS: startsTLS, tls: tls, bindDN: section.text("bind-dn"),
        passwordFile: section.text("password-file").map(builder.resolve), base: base,
        scope: section.choice("scope", LDAPSettings.Scope.self) ?? .sub, filter: filter, backendAttribute: backend,
        loginAttribute: section.text("login-attribute"), portAttribute: section.text("port-attribute"),
        connections: section.integer("connections") ?? 4))
  }

  private static func urls(_ section: ConfigSection) -> [String]? {
    guard let texts = section.texts("url") else { return nil }
    let urls = texts.compactMap(url)
    guard urls.count < texts.count, let wrong = texts.first(where: { url($0) == nil }) else { return urls }
    section.report(
      "\"\(wrong)\" can't be used, expected ldap:// or ldaps:// and a host, with a port or not, and nothing else", "url"
    )
    return nil
  }

  /// An address as libldap takes it. What is searched for stands in other keys.
  private static func url(_ text: String) -> String? {
    guard let scheme = ["ldap://", "ldaps://"].first(where: { text.hasPrefix($0) }) else { return nil }
    let rest = text.dropFirst(scheme.count)
    return HostPort(String(rest.hasSuffix("/") ? rest.dropLast() : rest)).map { server in
      "\(scheme)\(server.host)" + (server.port.map { ":\($0)" } ?? "")
    }
  }
}

/// Reads how a source's server is verified.
enum SourceTLSKeys {
  /// By the keys `ca` and `insecure-no-verification`, which mean nothing without TLS.
  static func read(_ section: ConfigSection, _ builder: SettingsBuilder, hasTLS: Bool) -> SourceTLS {
    guard hasTLS else {
      for name in ["ca", "insecure-no-verification"] where section.has(name) {
        section.report("it is for TLS, which is not used", name)
      }
      return .off
    }
    let isUnverified = section.value("insecure-no-verification") { ["true": true, "false": false][$0] } ?? false
    let authority = section.text("ca").map(builder.resolve)
    if isUnverified, authority != nil {
      section.report("nothing is verified, and the key ca is given", "insecure-no-verification")
    }
    return isUnverified ? .unverified : .verified(authority: authority)
  }
}

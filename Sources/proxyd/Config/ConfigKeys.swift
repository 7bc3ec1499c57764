/// The one table of configuration keys. From it come the checks of a file's keys, `proxyd config explain`, the commented
/// sample and the manual page proxyd.yaml(5); a key that is not here does not exist.

/// A key, by its place in the file: `[]` stands for each entry of a list, `*` for each name of a map.
struct ConfigKey: Sendable {
  let path: String
  let kind: Kind
  /// What holds without the key; nil if it must be given.
  let standard: String?
  /// One sentence, then whatever else an operator needs.
  let help: String
  /// The lines of the sample file, for keys at the top; empty for all others.
  var sample = ""

  enum Kind: Sendable {
    case map
    case list
    /// A list of texts, or one of them alone.
    case texts
    /// A list of some of these words.
    case words([String])
    /// A list of networks.
    case networks
    case text
    /// Relative to the configuration file's folder.
    case path
    case address
    case host
    case port
    case integer(ClosedRange<Int>)
    /// Bytes.
    case size(ClosedRange<Int>)
    /// Nanoseconds.
    case duration(ClosedRange<UInt64>)
    case choice([String])

    /// Whether one value may stand for a list of one.
    var isOneOrMore: Bool {
      switch self {
      case .texts, .networks: true
      case .map, .list, .words, .text, .path, .address, .host, .port, .integer, .size, .duration, .choice: false
      }
    }

    /// What is expected, in words that end an error.
    var expected: String {
      switch self {
      case .map: "a map of keys"
      case .list: "a list"
      case .texts: "a text or a list of texts"
      case .words(let words): "a list of \(words.joined(separator: ", "))"
      case .networks: "a network or a list of them, as 192.0.2.0/24 or 2001:db8::1"
      case .text: "a text"
      case .path: "a file's path"
      case .address: "an address with a port, as 192.0.2.1:143, [2001:db8::1]:143 or *:143"
      case .host: "an address or a host name"
      case .port: "a port, 1 to 65535"
      case .integer(let range): "a number, \(range.lowerBound) to \(range.upperBound)"
      case .size(let range): "a size, \(Size.text(range.lowerBound)) to \(Size.text(range.upperBound)), as 16k"
      case .duration(let range):
        "a time, \(Duration.text(range.lowerBound)) to \(Duration.text(range.upperBound)), as 500ms, 90s, 31m or 1h"
      case .choice(let words):
        words.count == 1 ? words[0] : words.dropLast().joined(separator: ", ") + " or \(words[words.count - 1])"
      }
    }
  }
}

/// The table.
enum ConfigKeys {
  private static let second: UInt64 = 1_000_000_000
  private static let hour = 3_600 * second

  static let all: [ConfigKey] =
    front + NameKeys.all + RouteKeys.all + servers + BackendKeys.all("backends.*")
    + HealthKeys.all("backends.*.health") + unnamed + BackendKeys.all("unnamed-backends") + PoolKeys.all
    + ControlKeys.all
    + PasswordCheckKeys.all + back

  /// What clients meet, up to the backends.
  private static let front: [ConfigKey] = [
    ConfigKey(
      path: "listeners", kind: .list, standard: nil,
      help: "Where clients connect. Each entry has at least the first three keys below.",
      sample: """
        listeners:
          - { protocol: imap, address: "*:143", tls: starttls-required }
          - { protocol: imap, address: "*:993", tls: implicit }
          - { protocol: pop3, address: "*:110", tls: starttls-required }
          - { protocol: pop3, address: "*:995", tls: implicit }
        """),
    ConfigKey(
      path: "listeners[].protocol", kind: .choice(["imap", "pop3", "managesieve"]), standard: nil,
      help: "The protocol spoken there."),
    ConfigKey(
      path: "listeners[].address", kind: .address, standard: nil,
      help: "The address and port to listen on. `*` stands for every address, v4 and v6."),
    ConfigKey(
      path: "listeners[].tls", kind: .choice(["off", "starttls", "starttls-required", "implicit"]), standard: nil,
      help: """
        How TLS is used. off: not at all. starttls: offered, and a password is taken without it too. \
        starttls-required: offered, and no password is taken without it. implicit: from the first byte.
        """),
    ConfigKey(
      path: "listeners[].mechanisms",
      kind: .words(["plain", "login", "xoauth2", "oauthbearer", "scram-sha-256", "scram-sha-1", "external"]),
      standard: "[plain, login]",
      help: """
        The SASL mechanisms offered; no other is taken. List those that your backends have: a token goes to the backend, \
        SCRAM is carried between client and backend so that the password never comes here, and external needs client \
        certificates and a backend with a master user.
        """),
    ConfigKey(
      path: "listeners[].capabilities", kind: .texts, standard: "the protocol's usual ones",
      help: """
        What is announced before the login, besides what follows from `tls` and `mechanisms`: IMAP's capabilities \
        (LITERAL- instead of LITERAL+ bounds literals at 4096 bytes), or ManageSieve's extensions. POP3 has no such list.
        """),
    ConfigKey(
      path: "listeners[].greeting", kind: .text, standard: "proxyd ready.",
      help: """
        The words of the greeting, behind OK and the capabilities; up to 400 bytes, ASCII unless the protocol is \
        managesieve.
        """),
    ConfigKey(
      path: "listeners[].login-ok", kind: .text, standard: "the backend's",
      help: """
        The words that tell a client that its login succeeded, instead of the backend's own; bounded as the greeting. A \
        response code of the backend's stays.
        """),
    ConfigKey(
      path: "listeners[].proxy-protocol", kind: .networks, standard: "none",
      help: """
        Networks of load balancers. A connection must come from one of them and begin with a PROXY header, version 1 or \
        2, which tells who the client is; everybody else is refused.
        """),
    ConfigKey(
      path: "listeners[].certificate", kind: .texts, standard: "that of `tls`",
      help: "The certificate shown here when the client asks for no name that another has; as tls.certificate."),
    ConfigKey(path: "listeners[].key", kind: .texts, standard: "that of `tls`", help: "Its key; as tls.key."),
    ConfigKey(
      path: "trusted-proxies", kind: .networks, standard: "none",
      help: """
        Networks of proxies that are believed when they tell by ID or XCLIENT who the client is: Dovecot, Perdition's \
        successors, another proxyd. After a PROXY header, it is the address in it that counts.
        """,
      sample: "# trusted-proxies: [ 192.0.2.8, 2001:db8:1::/48 ]"),
    ConfigKey(
      path: "master-separator", kind: .text, standard: "none",
      help: """
        What parts user and master user in a client's name, as Dovecot's auth_master_user_separator: with "*", alice*admin \
        is looked up as alice, and admin logs in for her at the backend. SASL PLAIN says the same without it.
        """,
      sample: "# master-separator: \"*\""),
    ConfigKey(
      path: "tls", kind: .map, standard: "none",
      help: """
        The certificate shown to clients. Needed unless every listener has `tls: off`. Certificates, keys and staples are \
        read again when their files change.
        """,
      sample: "tls: { certificate: mail.crt, key: mail.key }"),
    ConfigKey(
      path: "tls.certificate", kind: .texts, standard: nil,
      help: """
        A PEM file with the certificate first and its intermediates behind it; or a list of two, of an ECDSA and of an \
        RSA key, of which each client is shown the one it can use.
        """),
    ConfigKey(
      path: "tls.key", kind: .texts, standard: nil,
      help: "The certificate's private key, PEM, without passphrase; a list where that is one."),
    ConfigKey(
      path: "tls.staple", kind: .path, standard: "none",
      help: "An OCSP response in DER for the certificate, shown to clients that ask."),
    ConfigKey(
      path: "tls.certificates", kind: .list, standard: "none",
      help: "More certificates, chosen by the name a client asks for (SNI)."),
    ConfigKey(
      path: "tls.certificates[].certificate", kind: .texts, standard: nil, help: "As tls.certificate."),
    ConfigKey(path: "tls.certificates[].key", kind: .texts, standard: nil, help: "As tls.key."),
    ConfigKey(path: "tls.certificates[].staple", kind: .path, standard: "none", help: "As tls.staple."),
    ConfigKey(
      path: "tls.certificates[].names", kind: .texts, standard: "those in the certificate",
      help: "The names it is for; *.example.net stands for one label. An exact name comes first."),
    ConfigKey(
      path: "tls.minimum", kind: .choice(["1.2", "1.3"]), standard: "1.2", help: "The oldest version spoken."),
    ConfigKey(
      path: "tls.ciphers", kind: .text, standard: "ECDHE with AES-GCM or ChaCha20",
      help: "For TLS 1.2, as openssl-ciphers(1) has them."),
    ConfigKey(
      path: "tls.ciphersuites", kind: .text,
      standard: "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256",
      help: "For TLS 1.3, in order of preference."),
    ConfigKey(
      path: "tls.groups", kind: .text, standard: "X25519:P-256:P-384", help: "For the key exchange, in order."),
    ConfigKey(
      path: "tls.client-certificates", kind: .choice(["off", "request", "require"]), standard: "off",
      help: """
        Whether clients are asked for a certificate. One that is shown must be valid, and its subject is in the log; with \
        require there is no connection without.
        """),
    ConfigKey(
      path: "tls.client-ca", kind: .path, standard: "none",
      help: "A PEM file of the authorities that clients' certificates come from."),
    ConfigKey(
      path: "tls.client-name", kind: .choice(["cn", "email"]), standard: "cn",
      help: "Which part of a client's certificate is its user name for the mechanism external."),
  ]

  /// The backends, without how they are spoken to.
  private static let servers: [ConfigKey] = [
    ConfigKey(
      path: "backends", kind: .map, standard: "none",
      help: "The mail servers, by the names that routes answer. A route may also answer host, host:port or [v6]:port.",
      sample: """
        backends:
          a: { address: 127.0.0.1, ports: { imap: 20143, pop3: 20110 } }
          b: { address: mail-b.example.net }
        """),
    ConfigKey(
      path: "backends.*", kind: .map, standard: nil,
      help: "A backend's name: letters, digits, dots, dashes and underscores."),
    ConfigKey(
      path: "backends.*.address", kind: .host, standard: nil,
      help: """
        Its address, or its name, which is looked up again every 30 seconds of use; all its addresses, v4 and v6, are \
        tried in turn, a quarter of a second apart.
        """),
    ConfigKey(
      path: "backends.*.ports", kind: .map, standard: "the registered ones", help: "Its ports, by protocol."),
    ConfigKey(
      path: "backends.*.ports.imap", kind: .port, standard: "143, or 993 with implicit TLS", help: "Its IMAP port."),
    ConfigKey(
      path: "backends.*.ports.pop3", kind: .port, standard: "110, or 995 with implicit TLS", help: "Its POP3 port."),
    ConfigKey(path: "backends.*.ports.managesieve", kind: .port, standard: "4190", help: "Its ManageSieve port."),
  ]

  private static let unnamed: [ConfigKey] = [
    ConfigKey(
      path: "unnamed-backends", kind: .map, standard: "as below",
      help: "How servers are spoken to that a route names by host or host:port instead of a backend's name.",
      sample: "# unnamed-backends: { tls: implicit }"),
    ConfigKey(
      path: "unnamed-backends.ports", kind: .map, standard: "the registered ones",
      help: "Their ports, by protocol, where a route names a host alone."),
    ConfigKey(
      path: "unnamed-backends.ports.imap", kind: .port, standard: "143, or 993 with implicit TLS",
      help: "Their IMAP port."),
    ConfigKey(
      path: "unnamed-backends.ports.pop3", kind: .port, standard: "110, or 995 with implicit TLS",
      help: "Their POP3 port."),
    ConfigKey(
      path: "unnamed-backends.ports.managesieve", kind: .port, standard: "4190", help: "Their ManageSieve port."),
  ]

  /// The process, its times and bounds.
  private static let back: [ConfigKey] = [
    ConfigKey(
      path: "loops", kind: .integer(1...256), standard: "one for each core",
      help: "Event loops. Each uses up to one core. A change takes a restart.",
      sample: "# loops: 2"),
    ConfigKey(
      path: "user", kind: .text, standard: "none",
      help: """
        Whom the process becomes once its ports are bound, if root starts it. What a reload opens, the user must be able to \
        read; a new port below 1024 takes a restart.
        """,
      sample: "# user: proxyd"),
    ConfigKey(
      path: "group", kind: .text, standard: "the user's own", help: "The group it becomes.", sample: "# group: proxyd"),
    ConfigKey(
      path: "timeouts", kind: .map, standard: "as below", help: "How long things may take.",
      sample: "# timeouts: { login: 180s, idle: 31m }"),
    ConfigKey(
      path: "timeouts.login", kind: .duration(second...hour), standard: "180s",
      help: "From the connection to the login, whatever the client says meanwhile."),
    ConfigKey(
      path: "timeouts.connect", kind: .duration(100_000_000...600 * second), standard: "10s",
      help: "For one TCP connection to a backend; a backend with several addresses has them tried in turn."),
    ConfigKey(
      path: "timeouts.backend-login", kind: .duration(100_000_000...600 * second), standard: "30s",
      help: "From the route to the backend's answer, all its addresses together."),
    ConfigKey(
      path: "timeouts.idle", kind: .duration(second...168 * hour), standard: "31m",
      help: "Without a byte in either direction after the login. Clients in IMAP IDLE are silent for 29 minutes."),
    ConfigKey(
      path: "timeouts.half-closed", kind: .duration(second...hour), standard: "30s",
      help: "Without a byte once the client or the backend has closed its direction."),
    ConfigKey(
      path: "timeouts.shutdown", kind: .duration(0...24 * hour), standard: "30s",
      help: "For sessions to end by themselves after SIGTERM."),
    ConfigKey(
      path: "timeouts.failure-delay", kind: .duration(0...60 * second), standard: "2s",
      help: "Before a login is refused that no backend was asked about, so that guessing is slow."),
    ConfigKey(
      path: "timeouts.proxy-header", kind: .duration(100_000_000...60 * second), standard: "3s",
      help: "For a PROXY header to come in whole."),
    ConfigKey(
      path: "timeouts.lookup", kind: .duration(0...60 * second), standard: "2s",
      help: "For a SQLite file that a writer has locked."),
    ConfigKey(
      path: "limits", kind: .map, standard: "as below", help: "What clients may use.",
      sample: "# limits: { sessions: 20000 }"),
    ConfigKey(
      path: "limits.sessions", kind: .integer(1...10_000_000), standard: "half of the open files allowed (ulimit -n)",
      help: "Sessions at once; beyond it, connections wait in the kernel's queue."),
    ConfigKey(
      path: "limits.user-sessions", kind: .integer(1...1_000_000), standard: "none",
      help: "Sessions of one user, by the name at the backend; one more is refused with [LIMIT]."),
    ConfigKey(
      path: "limits.user-address-sessions", kind: .integer(1...1_000_000), standard: "none",
      help: """
        Sessions of one user from one address, as Dovecot's mail_max_userip_connections; of IPv6 64 bits count as one \
        address.
        """),
    ConfigKey(
      path: "limits.address-sessions", kind: .integer(1...1_000_000), standard: "none",
      help: """
        Connections from one address, logged in or not; one more is closed with [LIMIT]. Those of trusted-proxies are not \
        counted.
        """),
    ConfigKey(
      path: "limits.command", kind: .size(1_024...1_048_576), standard: "16k",
      help: "A command before the login, with its literals."),
    ConfigKey(
      path: "limits.bad-commands", kind: .integer(1...1_000), standard: "3",
      help: "Commands that are not understood before the connection is closed."),
    ConfigKey(
      path: "limits.failed-logins", kind: .integer(1...1_000), standard: "10",
      help: "Refused logins before the connection is closed."),
    ConfigKey(
      path: "log", kind: .map, standard: "as below",
      help: "What is logged. One line a session, at level info; see proxyd(8) for its fields.",
      sample: "# log: { level: info, format: text, to: stderr }"),
    ConfigKey(
      path: "log.level", kind: .choice(["trace", "debug", "info", "notice", "warning", "error", "critical"]),
      standard: "info", help: "The least urgent lines that are logged."),
    ConfigKey(
      path: "log.format", kind: .choice(["text", "json", "perdition"]), standard: "text",
      help: """
        text: key=value. json: an object a line. perdition: Perdition's lines for sessions, for fail2ban and other \
        readers of them. journald has its own way to write the fields of text.
        """),
    ConfigKey(
      path: "log.repeat", kind: .duration(second...24 * hour), standard: "none",
      help: """
        How often the line of a login is written again while its session lasts, as Perdition's connect_relog: for \
        POP-before-SMTP. Of the format perdition only.
        """),
    ConfigKey(
      path: "log.to", kind: .text, standard: "stderr",
      help: "stderr, journald, syslog (facility mail), or a file's path; a file is opened anew on SIGHUP."),
  ]

  /// The key at a place in the file, `listeners[3].tls`.
  static func key(_ pattern: String) -> ConfigKey? { all.first { $0.path == pattern } }

  /// The names that may stand below a place.
  static func children(of pattern: String) -> [String] {
    let prefix = pattern.isEmpty ? "" : pattern + "."
    return all.compactMap { key in
      guard key.path.hasPrefix(prefix) else { return nil }
      let rest = key.path.dropFirst(prefix.count)
      return rest.isEmpty || rest.contains(".") || rest.contains("[") ? nil : String(rest)
    }
  }
}

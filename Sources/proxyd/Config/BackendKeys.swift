/// The keys of how a backend is spoken to: the same for a named one and for those a map names by their address.

enum BackendKeys {
  static func all(_ path: String) -> [ConfigKey] {
    [
      ConfigKey(
        path: "\(path).tls", kind: .choice(["off", "starttls", "implicit"]), standard: "off",
        help: """
          How the connection is protected. off: not at all, for a network of your own. starttls: by STARTTLS or STLS, and no \
          login without it. implicit: from the first byte.
          """),
      ConfigKey(
        path: "\(path).tls-name", kind: .host, standard: "its address",
        help: "The name its certificate must be for, and that it is asked for by (SNI)."),
      ConfigKey(
        path: "\(path).ca", kind: .path, standard: "the system's authorities",
        help: "A PEM file of the authorities its certificate must come from."),
      ConfigKey(
        path: "\(path).pins", kind: .texts, standard: "none",
        help: """
          SHA-256 of its public key (SubjectPublicKeyInfo), in base64. A certificate with such a key is accepted whatever \
          else stands in it, and no other.
          """),
      ConfigKey(
        path: "\(path).certificate", kind: .path, standard: "none", help: "A certificate shown to it, PEM chain."),
      ConfigKey(path: "\(path).key", kind: .path, standard: "none", help: "The key of that certificate."),
      ConfigKey(
        path: "\(path).insecure-no-verification", kind: .choice(["true", "false"]), standard: "false",
        help: "Accept any certificate. Whoever is on the way can read every password; there is a warning at start."),
      ConfigKey(
        path: "\(path).identity", kind: .choice(["on", "off"]), standard: "on",
        help: """
          Whether it is told who the client is, by IMAP's ID and by XCLIENT where it announces that. A Dovecot believes it \
          if login_trusted_networks has the proxy's address.
          """),
      ConfigKey(
        path: "\(path).proxy-protocol", kind: .choice(["off", "v1", "v2"]), standard: "off",
        help: "The PROXY header it wants before all else, as Dovecot's listeners with haproxy = yes."),
      ConfigKey(
        path: "\(path).pipelining", kind: .choice(["on", "off"]), standard: "on",
        help: "off: commands go one at a time, for servers that lose what comes early. It costs a round trip or two."),
      ConfigKey(
        path: "\(path).master", kind: .map, standard: "none",
        help: "A user of it that may log in for everybody; used for clients that proved to the proxy who they are."),
      ConfigKey(path: "\(path).master.user", kind: .text, standard: nil, help: "The master user's name."),
      ConfigKey(
        path: "\(path).master.password-file", kind: .path, standard: nil,
        help: "A file whose first line is its password."),
      ConfigKey(
        path: "\(path).master.separator", kind: .text, standard: "none",
        help: """
          What stands between the two names where they are one, as Dovecot's auth_master_user_separator. Without it SASL \
          PLAIN carries both.
          """),
    ]
  }
}

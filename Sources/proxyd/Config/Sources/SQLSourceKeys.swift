/// The keys of databases that are asked in SQL, and what is built of them.

internal import ProxyCore

enum SQLSourceKeys {
  private static let query = """
    A SELECT that returns the backend and, if there are further columns, the name to log in with there and, for \
    `check-password: crypt`, a hash. Its first row counts. Parameters: :login (the whole name), :local and :domain \
    (before and behind its last @; the domain of a name without one is NULL), :protocol (imap, pop3 or managesieve). \
    They are sent as parameters and never become part of the text. The backend ! stands for a closed account.
    """
  private static let password = "A file whose first line is the password. It is read at the start and with a reload."
  private static let connections = "Connections at most, for all loops together; made when they are needed."

  static let all: [ConfigKey] = [
    ConfigKey(
      path: "routes[].postgresql", kind: .map, standard: "none",
      help: "A PostgreSQL database. Needs a proxyd built with PostgreSQL."),
    ConfigKey(
      path: "routes[].postgresql.connection", kind: .text, standard: nil,
      help: """
        Where it is and how it is spoken to, as libpq's connection strings have it: host=db1,db2 dbname=mail \
        user=proxyd sslmode=verify-full sslrootcert=ca.crt. Several hosts are tried in order. No password may be in it: it \
        is in the log.
        """),
    ConfigKey(path: "routes[].postgresql.password-file", kind: .path, standard: "none", help: password),
    ConfigKey(path: "routes[].postgresql.query", kind: .text, standard: nil, help: query),
    ConfigKey(path: "routes[].postgresql.connections", kind: .integer(1...256), standard: "4", help: connections),
    ConfigKey(
      path: "routes[].mysql", kind: .map, standard: "none",
      help: "A MySQL or MariaDB database. Needs a proxyd built with MySQL."),
    ConfigKey(
      path: "routes[].mysql.hosts", kind: .texts, standard: "none",
      help: "Where it is, as db1 or db1:3306; several are tried in order. Either this or socket must be given."),
    ConfigKey(
      path: "routes[].mysql.socket", kind: .path, standard: "none",
      help: "The UNIX socket of a server on this machine, instead of hosts."),
    ConfigKey(path: "routes[].mysql.database", kind: .text, standard: nil, help: "The database's name."),
    ConfigKey(path: "routes[].mysql.user", kind: .text, standard: nil, help: "Who logs in there."),
    ConfigKey(path: "routes[].mysql.password-file", kind: .path, standard: "none", help: password),
    ConfigKey(
      path: "routes[].mysql.tls", kind: .choice(["off", "verified", "insecure-no-verification"]), standard: "off",
      help: """
        How the hosts are spoken to. verified: by TLS, with a certificate for the host's name. insecure-no-verification: \
        by TLS with any certificate, so that whoever is in between can answer instead.
        """),
    ConfigKey(
      path: "routes[].mysql.ca", kind: .path, standard: "the system's authorities",
      help: "A PEM file with the authorities that may have issued the certificate."),
    ConfigKey(path: "routes[].mysql.query", kind: .text, standard: nil, help: query),
    ConfigKey(path: "routes[].mysql.connections", kind: .integer(1...256), standard: "4", help: connections),
  ]

  /// Connections at most, without the key.
  private static let usual = 4

  static func postgresql(_ section: ConfigSection, _ builder: SettingsBuilder) -> SourceSettings? {
    for name in ["connection", "query"] { _ = section.required(name) }
    guard let connection = section.text("connection"), let query = section.text("query") else { return nil }
    return .postgresql(
      PostgreSQLSettings(
        connection: connection, passwordFile: section.text("password-file").map(builder.resolve), query: query,
        connections: section.integer("connections") ?? usual))
  }

  static func mysql(_ section: ConfigSection, _ builder: SettingsBuilder) -> SourceSettings? {
    for name in ["database", "user", "query"] { _ = section.required(name) }
    guard let place = place(section, builder), let tls = tls(section, builder), let database = section.text("database"),
      let user = section.text("user"), let query = section.text("query")
    else { return nil }
    return .mysql(
      MySQLSettings(
        place: place, database: database, user: user,
        passwordFile: section.text("password-file").map(builder.resolve), tls: tls, query: query,
        connections: section.integer("connections") ?? usual))
  }

  private static func place(_ section: ConfigSection, _ builder: SettingsBuilder) -> MySQLSettings.Place? {
    switch (section.has("hosts"), section.has("socket")) {
    case (true, false): return section.values("hosts") { HostPort($0) }.map { .hosts($0) }
    case (false, true): return section.text("socket").map { .socket(builder.resolve($0)) }
    case (false, false):
      _ = section.required("hosts")
      return nil
    case (true, true):
      section.report("there are hosts already, expected one of the two", "socket")
      return nil
    }
  }

  private enum Protection: String {
    case off, verified
    case unverified = "insecure-no-verification"
  }

  /// Nil if a key is wrong.
  private static func tls(_ section: ConfigSection, _ builder: SettingsBuilder) -> SourceTLS? {
    guard let protection = section.has("tls") ? section.choice("tls", Protection.self) : .off else { return nil }
    if protection != .off, section.has("socket") {
      section.report("it is for hosts, and the key socket is given", "tls")
      return nil
    }
    if protection != .verified, section.has("ca") {
      section.report("it is for the verification of certificates, and the key tls is not verified", "ca")
      return nil
    }
    switch protection {
    case .off: return .off
    case .unverified: return .unverified
    case .verified: return .verified(authority: section.text("ca").map(builder.resolve))
    }
  }
}

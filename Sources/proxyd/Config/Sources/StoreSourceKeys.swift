/// The keys of stores of keys and values, and what is built of them.

internal import ProxyCore

enum StoreSourceKeys {
  static let all: [ConfigKey] = [
    ConfigKey(
      path: "routes[].redis", kind: .map, standard: "none",
      help: "A Redis server, asked with GET, or with HMGET if there is a backend-field. There is no TLS: keep it near."),
    ConfigKey(
      path: "routes[].redis.address", kind: .host, standard: "none",
      help: "The server's host, with its port where that is not 6379. This or socket is given."),
    ConfigKey(path: "routes[].redis.socket", kind: .path, standard: "none", help: "The server's UNIX socket."),
    ConfigKey(
      path: "routes[].redis.user", kind: .text, standard: "the default user", help: "Who logs in there (AUTH)."),
    ConfigKey(
      path: "routes[].redis.password-file", kind: .path, standard: "none",
      help: "A file whose first line is the password for AUTH."),
    ConfigKey(
      path: "routes[].redis.database", kind: .integer(0...1_000_000), standard: "0",
      help: "The database's number (SELECT)."),
    ConfigKey(
      path: "routes[].redis.key", kind: .text, standard: nil,
      help: """
        The key asked for, as backend:%u. %u stands for the whole name, %n for what is before its last delimiter, %d for \
        what is behind it, %s for the protocol, %% for a percent sign.
        """),
    ConfigKey(
      path: "routes[].redis.backend-field", kind: .text, standard: "none",
      help: "The field with [user@]backend, if the key is a hash; without this key it is a string that says it."),
    ConfigKey(
      path: "routes[].redis.login-field", kind: .text, standard: "none",
      help: "The field with the name to log in with at the backend; where there is none, the name stays."),
    ConfigKey(
      path: "routes[].redis.connections", kind: .integer(1...64), standard: "2",
      help: "Questions at once, each on a connection of its own."),
    ConfigKey(
      path: "routes[].cdb", kind: .path, standard: "none",
      help: """
        A file of Bernstein's constant database, as tinycdb's cdb makes it: from the name, or @domain for all of a domain, \
        to [user@]backend. A user's entry beats its domain's. A file that replaces this one counts at once.
        """),
    ConfigKey(
      path: "routes[].lmdb", kind: .path, standard: "none",
      help: "A file of LMDB (not a folder), with its main database as a cdb has it. It may change while it is read."),
  ]

  static func redis(_ section: ConfigSection, _ builder: SettingsBuilder) -> SourceSettings? {
    _ = section.required("key")
    let server = section.value("address") { HostPort($0) }
    let socket = section.text("socket").map(builder.resolve)
    if section.has("address") == section.has("socket") {
      section.report(
        section.has("address") ? "there is an address already, expected one of the two" : "expected address or socket",
        "socket")
    }
    if section.has("user"), !section.has("password-file") {
      section.report("it goes with the key password-file, which is missing", "user")
    }
    if section.has("login-field"), !section.has("backend-field") {
      section.report("it goes with the key backend-field, which is missing", "login-field")
    }
    let place: RedisSettings.Place? = server.map { .host($0) } ?? socket.map { .socket($0) }
    guard let place, let key = section.text("key") else { return nil }
    return .redis(
      RedisSettings(
        place: place, user: section.text("user"), passwordFile: section.text("password-file").map(builder.resolve),
        database: section.integer("database") ?? 0, key: key, backendField: section.text("backend-field"),
        loginField: section.text("login-field"), connections: section.integer("connections") ?? 2))
  }
}

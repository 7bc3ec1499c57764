/// What the operator wants of the places users are looked up in.

package import Protocols

/// One place that may know a user's backend. They are asked in order; the first that knows the user wins.
package struct RouteSettings: Equatable, Sendable {
  /// The place.
  package var source: SourceSettings
  /// The keys it is asked for, in order, until one is found.
  package var keys: [KeyTemplate] = [.whole]
  /// How long an answer may take, in nanoseconds. (A locked SQLite file has `Timeouts.lookup`.)
  package var timeout = Timeouts.seconds(2)
  /// What happens if it can't be asked.
  package var onFailure = FailurePolicy.stop
  /// What is remembered of its answers; nil for nothing.
  package var cache: CacheSettings?
  /// Whether the password is checked by what it answers.
  package var check = PasswordCheck.none

  /// A source with all else as usual.
  package init(_ source: SourceSettings) { self.source = source }

  /// A SQLite file; without a query, with the tables of etc/schema.sql.
  package static func sqlite(file: String, query: String?) -> RouteSettings {
    RouteSettings(.sqlite(file: file, query: query))
  }
  /// A file of patterns.
  package static func regex(file: String, perditionCompatible: Bool = false) -> RouteSettings {
    RouteSettings(.regex(file: file, perditionCompatible: perditionCompatible))
  }
  /// Everybody.
  package static func fixed(backend: String) -> RouteSettings { RouteSettings(.fixed(backends: [backend])) }
}

/// What happens to a search if a source can't be asked.
package enum FailurePolicy: String, Equatable, Sendable, CaseIterable {
  /// The client is told to try again later.
  case stop
  /// The next source is asked, as if this one did not know the user.
  case next
}

/// Who checks a password before a backend sees it.
package enum PasswordCheck: String, Equatable, Sendable, CaseIterable {
  /// Nobody: the backend does.
  case none
  /// The source answers a hash in the formats of crypt(3).
  case crypt
  /// The source is logged in to as the user.
  case bind
}

/// What is remembered of a source's answers. Times are in nanoseconds.
package struct CacheSettings: Equatable, Sendable {
  /// How long a destination is.
  package var found = Timeouts.seconds(60)
  /// How long it is that there is none.
  package var notFound = Timeouts.seconds(10)
  /// How much longer either is used while the source can't be asked.
  package var stale: UInt64 = 0
  /// Answers at most; the oldest go first.
  package var entries = 100_000

  /// The usual times.
  package init() {}
}

/// A place that may know a user's backend.
package enum SourceSettings: Equatable, Sendable {
  /// A SQLite file; without a query, with the tables of etc/schema.sql.
  case sqlite(file: String, query: String?)
  /// A file of patterns; of Perdition's, with its rules of reading and answering, if it is so said.
  case regex(file: String, perditionCompatible: Bool = false)
  /// Everybody; several in turn.
  case fixed(backends: [String])
  /// The server in the user's own name, `user@server`, if it is one of these.
  case clientNamed([ServerPattern])
  case postgresql(PostgreSQLSettings)
  case mysql(MySQLSettings)
  case ldap(LDAPSettings)
  case http(HTTPSettings)
  case redis(RedisSettings)
  /// A file of Bernstein's constant database.
  case cdb(file: String)
  /// A file of the Lightning Memory-Mapped Database.
  case lmdb(file: String)
}

/// How a source's server is spoken to.
package enum SourceTLS: Equatable, Sendable {
  case off
  /// By a certificate of these authorities (PEM file; nil for the system's), for the server's name.
  case verified(authority: String?)
  /// By any certificate.
  case unverified
}

/// A PostgreSQL database.
package struct PostgreSQLSettings: Equatable, Sendable {
  /// libpq's connection string, without a password.
  package var connection: String
  /// A file whose first line is the password.
  package var passwordFile: String?
  /// A SELECT with `:login`, `:local`, `:domain`, `:protocol`.
  package var query: String
  /// Connections at most.
  package var connections: Int

  /// A database of its parts.
  package init(connection: String, passwordFile: String?, query: String, connections: Int) {
    self.connection = connection
    self.passwordFile = passwordFile
    self.query = query
    self.connections = connections
  }
}

/// A MySQL or MariaDB database.
package struct MySQLSettings: Equatable, Sendable {
  /// Where it is.
  package var place: Place
  /// The database's name.
  package var database: String
  /// Who logs in there.
  package var user: String
  /// A file whose first line is the password.
  package var passwordFile: String?
  /// How the connection is protected.
  package var tls: SourceTLS
  /// A SELECT with `:login`, `:local`, `:domain`, `:protocol`.
  package var query: String
  /// Connections at most.
  package var connections: Int

  /// Where a server is.
  package enum Place: Equatable, Sendable {
    /// Tried in order.
    case hosts([HostPort])
    /// A UNIX socket's path.
    case socket(String)
  }

  /// A database of its parts.
  package init(
    place: Place, database: String, user: String, passwordFile: String?, tls: SourceTLS, query: String,
    connections: Int
  ) {
    self.place = place
    self.database = database
    self.user = user
    self.passwordFile = passwordFile
    self.tls = tls
    self.query = query
    self.connections = connections
  }
}

/// An LDAP directory.
package struct LDAPSettings: Equatable, Sendable {
  /// `ldap://` and `ldaps://` addresses, tried in order.
  package var urls: [String]
  /// Whether StartTLS (RFC 4511 §4.14) is demanded of `ldap://`.
  package var startsTLS: Bool
  /// How certificates are verified; not `off` where TLS is used.
  package var tls: SourceTLS
  /// Who asks; nil for anonymous.
  package var bindDN: String?
  /// A file whose first line is the password of `bindDN`.
  package var passwordFile: String?
  /// Where the search begins.
  package var base: String
  /// How deep it goes.
  package var scope: Scope
  /// RFC 4515, with `%u`, `%n`, `%d`, `%s`, `%%`.
  package var filter: String
  /// The attribute with `[user@]backend`.
  package var backendAttribute: String
  /// The attribute with the name at the backend.
  package var loginAttribute: String?
  /// The attribute with the backend's port.
  package var portAttribute: String?
  /// Connections at most.
  package var connections: Int

  /// RFC 4511 §4.5.1.2.
  package enum Scope: String, Equatable, Sendable, CaseIterable {
    case base, one, sub
  }

  /// A directory of its parts.
  package init(
    urls: [String], startsTLS: Bool, tls: SourceTLS, bindDN: String?, passwordFile: String?, base: String,
    scope: Scope, filter: String, backendAttribute: String, loginAttribute: String?, portAttribute: String?,
    connections: Int
  ) {
    self.urls = urls
    self.startsTLS = startsTLS
    self.tls = tls
    self.bindDN = bindDN
    self.passwordFile = passwordFile
    self.base = base
    self.scope = scope
    self.filter = filter
    self.backendAttribute = backendAttribute
    self.loginAttribute = loginAttribute
    self.portAttribute = portAttribute
    self.connections = connections
  }
}

/// An HTTP service that speaks the protocol of nginx's auth_http.
package struct HTTPSettings: Equatable, Sendable {
  /// `http://` and `https://` addresses, tried in order.
  package var urls: [String]
  /// Header lines sent with each request.
  package var headers: [String]
  /// A file with more of them, one a line, which are secret.
  package var headersFile: String?
  /// Whether it is given the client's password, to check it.
  package var sendsPassword: Bool
  /// The authorities of `https://` (PEM file); nil for the system's.
  package var authority: String?
  /// Requests at once.
  package var connections: Int

  /// A service of its parts.
  package init(
    urls: [String], headers: [String], headersFile: String?, sendsPassword: Bool, authority: String?, connections: Int
  ) {
    self.urls = urls
    self.headers = headers
    self.headersFile = headersFile
    self.sendsPassword = sendsPassword
    self.authority = authority
    self.connections = connections
  }
}

/// A Redis server.
package struct RedisSettings: Equatable, Sendable {
  /// Where it is.
  package var place: Place
  /// Who logs in there; nil for the default user.
  package var user: String?
  /// A file whose first line is the password.
  package var passwordFile: String?
  /// The database's number.
  package var database: Int
  /// The key asked for, with `%u`, `%n`, `%d`, `%s`, `%%`.
  package var key: String
  /// The field of a hash with `[user@]backend`; nil if the key is a string.
  package var backendField: String?
  /// The field with the name there.
  package var loginField: String?
  /// Connections at most.
  package var connections: Int

  /// Where a server is.
  package enum Place: Equatable, Sendable {
    case host(HostPort)
    /// A UNIX socket's path.
    case socket(String)
  }

  /// The port of a host without one: Redis's own.
  static let port: UInt16 = 6_379

  /// A server of its parts.
  package init(
    place: Place, user: String?, passwordFile: String?, database: Int, key: String, backendField: String?,
    loginField: String?, connections: Int
  ) {
    self.place = place
    self.user = user
    self.passwordFile = passwordFile
    self.database = database
    self.key = key
    self.backendField = backendField
    self.loginField = loginField
    self.connections = connections
  }
}

/// Servers that clients may name themselves: a host, a host and its port, or a network of addresses.
package enum ServerPattern: Equatable, Sendable {
  case server(HostPort)
  case network(Network)

  /// Nil if the text is none of these.
  package init?(_ text: String) {
    if text.contains("/"), let network = Network(text) {
      self = .network(network)
    } else if let server = HostPort(text) {
      self = .server(server)
    } else {
      return nil
    }
  }

  /// Whether clients may go there. A pattern without a port allows the protocol's own only: any other would make of the
  /// proxy a way to every service of that host.
  func allows(_ wanted: HostPort) -> Bool {
    switch self {
    case .server(let server): server.host == wanted.host && server.port == wanted.port
    case .network(let network):
      if case .address(let address) = wanted.host, wanted.port == nil { network.contains(address) } else { false }
    }
  }
}

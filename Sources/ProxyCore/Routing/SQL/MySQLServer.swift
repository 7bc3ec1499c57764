/// Where a MySQL or MariaDB database is, and what its library is told.

#if MySQL
  internal import CMariaDB
  internal import Protocols

  struct MySQLServer: Sendable {
    let places: [Place]
    let database: String
    let user: String
    let password: SharedSecret?
    let tls: SourceTLS
    /// How long the server works for a question at most, in nanoseconds.
    let timeout: UInt64

    /// One of its addresses.
    enum Place: Sendable, CustomStringConvertible {
      case host(HostPort)
      case socket(String)

      /// MySQL's port, as IANA has it.
      private static let port: UInt16 = 3_306

      var description: String {
        switch self {
        case .host(let host): "\(host.host):\(host.port ?? Place.port)"
        case .socket(let path): path
        }
      }

      /// As the library takes it.
      var parts: (host: String?, port: UInt16, socket: String?) {
        switch self {
        case .host(let server):
          let name: String
          switch server.host {
          case .address(let address): name = address.host
          case .name(let text): name = text
          }
          return (name, server.port ?? Place.port, nil)
        case .socket(let path): return (nil, 0, path)
        }
      }
    }

    init(_ settings: MySQLSettings, password: SharedSecret?, timeout: UInt64) {
      switch settings.place {
      case .hosts(let hosts): places = hosts.map { .host($0) }
      case .socket(let path): places = [.socket(path)]
      }
      database = settings.database
      user = settings.user
      tls = settings.tls
      self.password = password
      self.timeout = timeout
    }

    /// As the log names it.
    var name: String {
      "mysql \(user)@\(places.map { "\($0)" }.joined(separator: ","))/\(database)"
    }

    /// The library's suspended calls have a stack of their own: with room for a TLS handshake and the resolver.
    private static let stackSize = 256 << 10
    /// A row of a sensible table has a few hundred bytes. The library's own bound is a gigabyte.
    private static let largestPacket = 1 << 20
    /// Ways of logging in that do not say the password to whoever asks.
    private static let closedLogins =
      "mysql_native_password,client_ed25519,caching_sha2_password,sha256_password,parsec"

    /// What the library is told before it connects.
    func options(_ place: Place) -> [MySQLOption] {
      var options: [MySQLOption] = [
        .size(MYSQL_OPT_NONBLOCK, MySQLServer.stackSize),
        .size(MYSQL_OPT_MAX_ALLOWED_PACKET, MySQLServer.largestPacket),
        .text(MYSQL_SET_CHARSET_NAME, "utf8mb4"), .flag(MYSQL_OPT_RECONNECT, false), .number(MYSQL_OPT_LOCAL_INFILE, 0),
        .text(MYSQL_INIT_COMMAND, "SET SESSION TRANSACTION READ ONLY"), .text(MYSQL_INIT_COMMAND, limits),
      ]
      switch place {
      case .host: options.append(.number(MYSQL_OPT_PROTOCOL, UInt32(MYSQL_PROTOCOL_TCP.rawValue)))
      case .socket: options.append(.number(MYSQL_OPT_PROTOCOL, UInt32(MYSQL_PROTOCOL_SOCKET.rawValue)))
      }
      switch (tls, place) {
      case (.off, .socket), (.verified, .socket), (.unverified, .socket): break
      case (.off, .host):
        options += [.flag(MYSQL_OPT_SSL_ENFORCE, false), .flag(MYSQL_OPT_SSL_VERIFY_SERVER_CERT, false)]
        options.append(.text(MARIADB_OPT_RESTRICTED_AUTH, MySQLServer.closedLogins))
      case (.unverified, .host):
        options += [.flag(MYSQL_OPT_SSL_ENFORCE, true), .flag(MYSQL_OPT_SSL_VERIFY_SERVER_CERT, false)]
        options.append(.text(MARIADB_OPT_RESTRICTED_AUTH, MySQLServer.closedLogins))
      case (.verified(let authority), .host):
        options += [.flag(MYSQL_OPT_SSL_ENFORCE, true), .flag(MYSQL_OPT_SSL_VERIFY_SERVER_CERT, true)]
        if let authority { options.append(.text(MYSQL_OPT_SSL_CA, authority)) }
      }
      return options
    }

    /// A question that nobody waits for any more is ended by the server itself: MariaDB and MySQL each read the comment
    /// that is theirs. Without autocommit, a transaction would see the tables of long ago.
    private var limits: String {
      let milliseconds = max(1, timeout / 1_000_000)
      let fraction = String(milliseconds % 1_000 + 1_000).dropFirst()
      return "SET autocommit = 1 /*M!100101 , max_statement_time = \(milliseconds / 1_000).\(fraction) */"
        + " /*!50708 , max_execution_time = \(milliseconds) */"
    }
  }

  /// An option of libmariadb's, by the type it wants.
  enum MySQLOption {
    case text(mysql_option, String)
    case number(mysql_option, UInt32)
    case size(mysql_option, Int)
    case flag(mysql_option, Bool)
  }
#endif

/// Where an instance looks users up: its map_library and what map_library_opt means to it.

/// A map of Perdition's.
package enum PerditionMap: Equatable, Hashable, Sendable {
  /// map_library is empty: no map.
  case none
  /// A database file made of a popmap.
  case database(Database, path: String)
  /// A file of patterns.
  case regex(path: String)
  /// A map of NIS.
  case nis(String)
  /// A table in SQL.
  case sql(Dialect, NineFields)
  /// A directory.
  case ldap(String)
  /// A server on a socket that speaks Perdition's own protocol.
  case daemon(String)
  /// A library that does not come with Perdition.
  case foreign(String)

  /// The formats of database files.
  package enum Database: String, Equatable, Hashable, Sendable {
    case gdbm, bdb, cdb
  }

  /// The libraries for SQL.
  package enum Dialect: String, Equatable, Hashable, Sendable {
    case mysql, postgresql, odbc
  }

  /// Where Debian has Perdition's files.
  static let folder = "/etc/perdition/"

  /// The map of an instance.
  package init(_ instance: PerditionInstance) {
    guard let library = instance.value(.mapLibrary) else {
      // Set to nothing is no map; not set is the library that Perdition was built with.
      self = instance.has(.mapLibrary) ? .none : .database(.gdbm, path: PerditionMap.path(instance, "popmap.gdbm.db"))
      return
    }
    let file = library.split(separator: "/").last.map(String.init) ?? library
    let option = instance.value(.mapLibraryOption)
    switch file.prefix(while: { $0 != "." }) {
    case "libperditiondb_gdbm": self = .database(.gdbm, path: PerditionMap.path(instance, "popmap.gdbm.db"))
    case "libperditiondb_bdb": self = .database(.bdb, path: PerditionMap.path(instance, "popmap.bdb.db"))
    case "libperditiondb_cdb": self = .database(.cdb, path: PerditionMap.path(instance, "popmap.cdb"))
    case "libperditiondb_posix_regex": self = .regex(path: PerditionMap.path(instance, "popmap.re"))
    case "libperditiondb_nis": self = .nis(option ?? "user_mail_server")
    case "libperditiondb_mysql": self = .sql(.mysql, NineFields(option, .mysql))
    case "libperditiondb_postgresql": self = .sql(.postgresql, NineFields(option, .postgresql))
    case "libperditiondb_odbc": self = .sql(.odbc, NineFields(option, .odbc))
    case "libperditiondb_ldap":
      self = .ldap(option ?? "ldap://localhost/ou=mailbox,dc=nodomain?username,mailhost,port?one?(uid=%s)")
    case "libperditiondb_daemon": self = .daemon(option ?? "/var/run/perdition.db")
    default: self = .foreign(library)
    }
  }

  private static func path(_ instance: PerditionInstance, _ standard: String) -> String {
    absolute(instance.value(.mapLibraryOption) ?? folder + standard)
  }

  /// Relative paths are taken as of Perdition's folder of configuration. (Perdition itself takes them as of wherever
  /// it was started.)
  static func absolute(_ path: String) -> String { path.hasPrefix("/") ? path : folder + path }
}

/// The option string of the libraries for SQL: nine fields with colons between.
package struct NineFields: Equatable, Hashable, Sendable {
  /// The hosts, in order; the first that answers is asked.
  package let hosts: [String]
  /// The port, or nothing for the usual one.
  package let port: String
  /// The database; ODBC's data source.
  package let database: String
  /// The table.
  package let table: String
  /// Who logs in there.
  package let user: String
  /// That user's password.
  package let password: String
  /// The column with the server.
  package let serverColumn: String
  /// The column that is searched for the key.
  package let userColumn: String
  /// The column with the port; empty if there is none.
  package let portColumn: String
  /// Whether there is an option string at all.
  package let isGiven: Bool
  /// How many fields it has.
  package let count: Int

  /// Fields that are missing at the end have their defaults; an empty field between others is empty.
  package init(_ text: String?, _ dialect: PerditionMap.Dialect) {
    let given = (text ?? "").split(separator: ":", omittingEmptySubsequences: false).map(String.init)
    let fields = text == nil ? [] : given
    let standard = [
      "localhost", "", dialect == .postgresql ? "dbperdition" : "dbPerdition",
      dialect == .postgresql ? "tblperdition" : "tblPerdition", "perdition", "perdition", "servername", "user", "port",
    ]
    func field(_ index: Int) -> String { index < fields.count ? fields[index] : standard[index] }
    hosts = field(0).split(separator: ",").map(String.init)
    port = field(1)
    database = field(2)
    table = field(3)
    user = field(4)
    password = field(5)
    serverColumn = field(6)
    userColumn = field(7)
    portColumn = field(8)
    isGiven = text != nil
    count = fields.count
  }

  /// Whether the names can stand in a query as they are, as Perdition puts them there.
  package var hasPlainNames: Bool {
    ([table, serverColumn, userColumn] + (portColumn.isEmpty ? [] : [portColumn])).allSatisfy { name in
      !name.isEmpty
        && name.utf8.allSatisfy { byte in
          (0x30...0x39).contains(byte) || (0x41...0x5A).contains(byte) || (0x61...0x7A).contains(byte) || byte == 0x5F
            || byte == 0x2E || byte == 0x24 || byte == 0x60 || byte == 0x22
        }
    }
  }
}

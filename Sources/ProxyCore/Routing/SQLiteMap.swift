/// The map of users and domains as an operator changes it: what `proxyd map` does, while the proxy reads.

internal import Protocols

package final class SQLiteMap {
  private let database: SQLiteDatabase

  /// The tables of etc/schema.sql.
  package static let schema = """
    CREATE TABLE IF NOT EXISTS users (
      login TEXT PRIMARY KEY,
      backend TEXT NOT NULL,
      login_as TEXT
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS domains (
      domain TEXT PRIMARY KEY,
      backend TEXT NOT NULL
    ) WITHOUT ROWID;
    """

  /// What a row is about.
  package enum Name: Equatable, Sendable {
    case user(String)
    case domain(String)

    /// From `user@example.com`, or `@example.com` for a domain. Names are kept in the case they are looked up in.
    package init?(_ text: String) {
      let lower = String(decoding: text.utf8.map(\.lowercased), as: UTF8.self)
      guard !lower.isEmpty, lower != "@", !lower.utf8.contains(where: \.isControl) else { return nil }
      self = lower.hasPrefix("@") ? .domain(String(lower.dropFirst())) : .user(lower)
    }

    /// As an operator writes it.
    package var text: String {
      switch self {
      case .user(let name): name
      case .domain(let name): "@" + name
      }
    }
  }

  /// A row of either table.
  package struct Row: Equatable, Sendable {
    /// Whose row it is.
    package let name: Name
    /// A backend's name, or host[:port].
    package let backend: String
    /// The name at the backend, of users only.
    package let loginAs: String?

    /// A row of its parts.
    package init(name: Name, backend: String, loginAs: String? = nil) {
      self.name = name
      self.backend = backend
      self.loginAs = loginAs
    }
  }

  /// Opens the file, and makes it with its tables if `creating`. With a write-ahead log, readers never wait for a writer.
  package init(_ file: String, creating: Bool) throws(SQLiteError) {
    database = try SQLiteDatabase(file, creating ? .create : .write)
    if creating {
      try database.run("PRAGMA journal_mode = WAL")
      try database.run(SQLiteMap.schema)
    }
  }

  /// Adds the row, or replaces the one of that name.
  package func set(_ row: Row) throws(SQLiteError) {
    switch row.name {
    case .user(let name):
      try run(
        "INSERT OR REPLACE INTO users(login, backend, login_as) VALUES(?1, ?2, ?3)", name, row.backend, row.loginAs)
    case .domain(let name): try run("INSERT OR REPLACE INTO domains(domain, backend) VALUES(?1, ?2)", name, row.backend)
    }
  }

  /// The row of that name; nil if there is none.
  package func get(_ name: Name) throws(SQLiteError) -> Row? {
    var found: Row?
    switch name {
    case .user(let login):
      try rows("SELECT login, backend, login_as FROM users WHERE login = ?1", login, Name.user) { found = $0 }
    case .domain(let domain):
      try rows("SELECT domain, backend, NULL FROM domains WHERE domain = ?1", domain, Name.domain) { found = $0 }
    }
    return found
  }

  /// False if there was no such row.
  package func delete(_ name: Name) throws(SQLiteError) -> Bool {
    switch name {
    case .user(let login): try run("DELETE FROM users WHERE login = ?1", login)
    case .domain(let domain): try run("DELETE FROM domains WHERE domain = ?1", domain)
    }
    return database.changes > 0
  }

  /// Gives every row to `row`, domains first, each kind in the order of its names; with `backend`, only those of that
  /// backend.
  package func list(backend: String? = nil, _ row: (Row) -> Void) throws(SQLiteError) {
    try rows(
      "SELECT domain, backend, NULL FROM domains WHERE ?1 IS NULL OR backend = ?1 ORDER BY domain", backend,
      Name.domain, row)
    try rows(
      "SELECT login, backend, login_as FROM users WHERE ?1 IS NULL OR backend = ?1 ORDER BY login", backend,
      Name.user, row)
  }

  /// Does all of `body` or nothing: readers see the map before it or after it.
  package func atomically<Failure: Error>(_ body: () throws(Failure) -> Void) throws(SQLiteError) -> Result<
    Void, Failure
  > {
    try database.run("BEGIN IMMEDIATE")
    do throws(Failure) { try body() } catch {
      try database.run("ROLLBACK")
      return .failure(error)
    }
    try database.run("COMMIT")
    return .success(())
  }

  /// Empties both tables.
  package func removeAll() throws(SQLiteError) {
    try database.run("DELETE FROM users; DELETE FROM domains")
  }

  private func run(_ sql: String, _ values: String?...) throws(SQLiteError) {
    let statement = try prepared(sql)
    let bound = values.enumerated().map { index, value in
      (parameter: Int32(index + 1), bytes: value.map { Array($0.utf8)[...] })
    }
    try statement.run(bound) { _ in true }
  }

  private func rows(
    _ sql: String, _ value: String?, _ name: (String) -> Name, _ row: (Row) -> Void
  ) throws(SQLiteError) {
    let bound = [(parameter: Int32(1), bytes: value.map { Array($0.utf8)[...] })]
    try prepared(sql).run(bound) { columns in
      func text(_ column: Int) -> String? { columns.text(column).map { String(decoding: $0, as: UTF8.self) } }
      row(Row(name: name(text(0) ?? ""), backend: text(1) ?? "", loginAs: text(2)))
      return true
    }
  }

  /// An import runs one statement a hundred thousand times.
  private var statements: [String: SQLiteStatement] = [:]

  private func prepared(_ sql: String) throws(SQLiteError) -> SQLiteStatement {
    if let known = statements[sql] { return known }
    let statement = try database.prepare(sql)
    statements[sql] = statement
    return statement
  }
}

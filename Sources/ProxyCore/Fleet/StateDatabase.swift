/// The tables of the state file, and what is asked of them: a SQLite file that one proxyd alone has open.
///
/// With a write-ahead log a commit is a write and no more: it survives the process at any moment, and the machine's power
/// up to the last checkpoint. It is held alone, so no other process can lock it, and a second proxyd is told. (The lock
/// is fcntl's, which is lost when this process closes the file anywhere else: nobody here opens it by other means.)

internal import Protocols

/// What keeps a state file from being used.
package struct StateFileError: Error, Equatable, Sendable, CustomStringConvertible {
  /// The file.
  package let path: String
  /// What is wrong with it.
  package let problem: String

  /// Both.
  package var description: String { "\(path): \(problem)" }
}

/// What is kept about a backend.
package struct BackendRow: Equatable, Sendable {
  /// Its name.
  package let name: String
  /// What the operator wants of it.
  package let state: AdminState
  /// The weight an operator set; nil for the configuration's.
  package let weight: Int?
  /// Since when, in seconds since 1970.
  package let since: Int

  /// A row of its parts.
  package init(name: String, state: AdminState, weight: Int?, since: Int) {
    self.name = name
    self.state = state
    self.weight = weight
    self.since = since
  }

  /// Whether it says nothing that would not be so anyway.
  var isUsual: Bool { state == .ready && weight == nil }
}

/// What is kept about a user of a pool.
struct AffinityRow: Equatable, Sendable {
  let pool: String
  let user: String
  /// Nil for no row.
  let member: String?
  /// Seconds since 1970.
  let stamp: UInt32
}

final class StateDatabase {
  private let database: SQLiteDatabase
  private let begin: SQLiteStatement
  private let commit: SQLiteStatement
  private let set: SQLiteStatement
  private let remove: SQLiteStatement
  /// Which file it is: another one may be there some day.
  let identity: FileIdentity?

  /// "prxd", so that file(1) and we know it.
  private static let application = 0x7072_7864
  /// Of the tables below.
  private static let version = 1
  /// The log file is cut to this after a checkpoint, in bytes: four of the largest batches.
  private static let logSize = 16 << 20

  private static let schema = """
    CREATE TABLE affinity (
      pool TEXT NOT NULL,
      user TEXT NOT NULL,
      member TEXT NOT NULL,
      stamp INTEGER NOT NULL,
      PRIMARY KEY (pool, user)
    ) WITHOUT ROWID;
    CREATE TABLE backends (
      name TEXT NOT NULL PRIMARY KEY,
      state TEXT NOT NULL,
      weight INTEGER,
      since INTEGER NOT NULL
    ) WITHOUT ROWID;
    """

  /// Opens the file, and makes it if it is missing, for its owner alone. Nothing is changed in one that is not ours.
  init(_ path: String) throws(StateFileError) {
    func failure(_ problem: String) -> StateFileError { StateFileError(path: path, problem: problem) }
    if let error = TextFile.create(path, [], isSecret: true), !TextFile.exists(path) {
      throw failure("it can't be made: \(error)")
    }
    do {
      database = try SQLiteDatabase(path, .alone)
      guard !database.isReadOnly else { throw failure("it can't be written") }
      let application = try database.number("PRAGMA application_id")
      let version = try database.number("PRAGMA user_version") ?? 0
      let isNew = try database.number("SELECT count(*) FROM sqlite_master") == 0 && application == 0 && version == 0
      guard isNew || application == StateDatabase.application else {
        throw failure("it is a database, but not one of proxyd's state")
      }
      guard version <= StateDatabase.version else {
        throw failure(
          "it was written by a newer proxyd (version \(version) of it, this one knows \(StateDatabase.version))")
      }
      try database.run("PRAGMA journal_mode = WAL")
      try database.run("PRAGMA synchronous = NORMAL")
      // Checkpoints come when who waits has been answered.
      try database.run("PRAGMA wal_autocheckpoint = 0")
      try database.run("PRAGMA journal_size_limit = \(StateDatabase.logSize)")
      // Written in any case: that it can be is known from the start.
      try database.run(
        """
        BEGIN IMMEDIATE;
        \(isNew ? StateDatabase.schema : "")
        PRAGMA application_id = \(StateDatabase.application);
        PRAGMA user_version = \(StateDatabase.version);
        COMMIT;
        """)
      begin = try database.prepare("BEGIN IMMEDIATE")
      commit = try database.prepare("COMMIT")
      set = try database.prepare(
        """
        INSERT INTO affinity(pool, user, member, stamp) VALUES(?1, ?2, ?3, ?4)
        ON CONFLICT(pool, user) DO UPDATE SET member = excluded.member, stamp = excluded.stamp
        """)
      remove = try database.prepare("DELETE FROM affinity WHERE pool = ?1 AND user = ?2")
    } catch let error as StateFileError {
      throw error
    } catch let error as SQLiteError {
      if error.isBusy { throw failure("another process has it open, a second proxyd maybe") }
      throw failure(error.isUnreadable ? "it is damaged, or no database: \(error.message)" : error.message)
    } catch {
      throw failure("\(error)")
    }
    identity = FileIdentity(path)
  }

  /// All that is kept about backends.
  func backends() throws(SQLiteError) -> [BackendRow] {
    var rows: [BackendRow] = []
    try database.prepare("SELECT name, state, weight, since FROM backends ORDER BY name").run([]) { row in
      func text(_ column: Int) -> String { String(decoding: row.text(column) ?? [], as: UTF8.self) }
      let state = AdminState(rawValue: text(1)) ?? .ready
      rows.append(
        BackendRow(name: text(0), state: state, weight: row.isNull(2) ? nil : row.integer(2), since: row.integer(3)))
      return true
    }
    return rows
  }

  /// Gives all users of a pool to `body`, with member and stamp. Returns those it returns false for.
  func load(
    _ pool: String, _ body: @Sendable (Span<UInt8>, Span<UInt8>, Int) -> Bool
  ) throws(SQLiteError) -> [String] {
    var others: [String] = []
    let statement = try database.prepare("SELECT user, member, stamp FROM affinity WHERE pool = ?1")
    try statement.run([(parameter: 1, bytes: Array(pool.utf8)[...])]) { row in
      let isTaken = row.withText(0) { user in row.withText(1) { member in body(user, member, row.integer(2)) } }
      if !isTaken { others.append(String(decoding: row.text(0) ?? [], as: UTF8.self)) }
      return true
    }
    return others
  }

  /// The pools that have users here. Each takes one look at the key, however many users it has.
  func pools() throws(SQLiteError) -> [String] {
    let next = try database.prepare("SELECT pool FROM affinity WHERE pool > ?1 ORDER BY pool LIMIT 1")
    var pools: [String] = []
    var last: String? = ""
    while let before = last {
      last = nil
      try next.run([(parameter: 1, bytes: Array(before.utf8)[...])]) { row in
        last = String(decoding: row.text(0) ?? [], as: UTF8.self)
        return true
      }
      if let last { pools.append(last) }
    }
    return pools
  }

  /// Writes all of it or, with an error, nothing.
  func write(_ rows: [AffinityRow], _ backends: [BackendRow]) throws(SQLiteError) {
    do {
      try begin.run([]) { _ in true }
      for row in rows {
        if let member = row.member {
          try set.run(copying: .text(row.pool), .text(row.user), .text(member), .integer(Int(row.stamp)))
        } else {
          try remove.run(copying: .text(row.pool), .text(row.user))
        }
      }
      for backend in backends { try write(backend) }
      try commit.run([]) { _ in true }
    } catch {
      // After some errors SQLite has done so itself.
      if database.isInTransaction { try? database.run("ROLLBACK") }
      throw error
    }
  }

  /// Removes users, a batch at a time.
  func remove(_ users: [String], of pool: String) throws(SQLiteError) {
    for start in stride(from: 0, to: users.count, by: StateBacklog.batch) {
      let batch = users[start..<min(users.count, start + StateBacklog.batch)]
      try write(batch.map { AffinityRow(pool: pool, user: $0, member: nil, stamp: 0) }, [])
    }
    if !users.isEmpty { try checkpoint() }
  }

  private func write(_ row: BackendRow) throws(SQLiteError) {
    guard !row.isUsual else {
      return try database.prepare("DELETE FROM backends WHERE name = ?1").run(copying: .text(row.name))
    }
    try database.prepare("INSERT OR REPLACE INTO backends(name, state, weight, since) VALUES(?1, ?2, ?3, ?4)").run(
      copying: .text(row.name), .text(row.state.rawValue), row.weight.map(SQLiteValue.integer) ?? .null,
      .integer(row.since))
  }

  /// Brings what the log holds into the file, and to the disk.
  func checkpoint(cutting: Bool = false) throws(SQLiteError) {
    try database.run("PRAGMA wal_checkpoint(\(cutting ? "TRUNCATE" : "PASSIVE"))")
  }

  /// A test's own statement: to make the disk full, say.
  func run(_ sql: String) throws(SQLiteError) { try database.run(sql) }
}

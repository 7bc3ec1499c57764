/// SQLite's C interface with owners and values: a connection, a statement, a result that says what went wrong.

internal import CSQLite

/// What SQLite says when it can't.
package struct SQLiteError: Error, Equatable, Sendable {
  /// SQLite's extended result code.
  package let code: Int32
  /// SQLite's words.
  package let message: String

  /// There is no room on the disk.
  var isFull: Bool { code & 0xFF == SQLITE_FULL }
  /// It is no database, or one that is damaged.
  var isUnreadable: Bool { code & 0xFF == SQLITE_NOTADB || code & 0xFF == SQLITE_CORRUPT }
  /// A writer is at work; trying again will do.
  package var isBusy: Bool { code & 0xFF == SQLITE_BUSY || code & 0xFF == SQLITE_LOCKED }
}

/// A connection, closed with its last statement.
@safe
package final class SQLiteDatabase {
  private let raw: OpaquePointer

  /// What the connection is for.
  package enum Mode {
    /// As the lookups open it: nothing is created, nothing is waited for.
    case read
    /// As the map commands open it: waits for other writers.
    case write
    /// The same, and the file is made if it is missing.
    case create
    /// As the state file is opened, which is there: nobody else gets in from the first statement on.
    case alone

    fileprivate var flags: Int32 {
      switch self {
      case .read: SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX
      case .write, .alone: SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX
      case .create: SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX
      }
    }

    /// Milliseconds to wait for another process: a map command waits for a writer, the state file for a proxyd that is
    /// about to end.
    fileprivate var patience: Int32 {
      switch self {
      case .read: 0
      case .write, .create: 10_000
      case .alone: 1_000
      }
    }
  }

  /// Opens a file. Whether it is a database shows with the first statement.
  package init(_ file: String, _ mode: Mode) throws(SQLiteError) {
    var connection: OpaquePointer?
    // SAFETY: SQLite gives a connection even with an error, only to ask it for its message; it is closed then.
    let result = unsafe sqlite3_open_v2(file, &connection, mode.flags, nil)
    guard result == SQLITE_OK, let opened = unsafe connection else {
      let error = unsafe SQLiteDatabase.error(connection, result)
      unsafe sqlite3_close_v2(connection)
      throw error
    }
    unsafe sqlite3_extended_result_codes(opened, 1)
    unsafe sqlite3_busy_timeout(opened, mode.patience)
    unsafe raw = opened
    // Before the first statement: with a write-ahead log there is no shared memory then, and no gap between two locks.
    if mode == .alone { try run("PRAGMA locking_mode = EXCLUSIVE") }
  }

  deinit { unsafe sqlite3_close_v2(raw) }

  fileprivate static func error(_ connection: OpaquePointer?, _ code: Int32) -> SQLiteError {
    // SAFETY: the message is copied at once.
    unsafe SQLiteError(
      code: code, message: String(cString: connection == nil ? sqlite3_errstr(code) : sqlite3_errmsg(connection)))
  }

  /// Runs statements that return nothing.
  package func run(_ sql: String) throws(SQLiteError) {
    let result = unsafe sqlite3_exec(raw, sql, nil, nil, nil)
    guard result == SQLITE_OK else { throw unsafe SQLiteDatabase.error(raw, result) }
  }

  /// Prepares one statement, to be kept.
  package func prepare(_ sql: String) throws(SQLiteError) -> SQLiteStatement {
    var statement: OpaquePointer?
    var tail: UnsafePointer<CChar>?
    let (result, rest) = unsafe sql.withCString { text in
      let result = unsafe sqlite3_prepare_v3(raw, text, -1, UInt32(SQLITE_PREPARE_PERSISTENT), &statement, &tail)
      // SAFETY: the tail points into the text.
      return unsafe (result, tail.map { unsafe String(cString: $0) } ?? "")
    }
    guard result == SQLITE_OK else { throw unsafe SQLiteDatabase.error(raw, result) }
    guard let prepared = unsafe statement, rest.allSatisfy({ $0.isWhitespace || $0 == ";" }) else {
      unsafe sqlite3_finalize(statement)
      throw SQLiteError(code: SQLITE_MISUSE, message: "one SQL statement is expected")
    }
    return unsafe SQLiteStatement(prepared, in: self)
  }

  /// The number a statement answers in its first row; nil for none.
  func number(_ sql: String) throws(SQLiteError) -> Int? {
    var number: Int?
    try prepare(sql).run([]) { row in
      number = row.integer(0)
      return false
    }
    return number
  }

  /// Whether the file could only be opened for reading.
  var isReadOnly: Bool { unsafe sqlite3_db_readonly(raw, nil) != 0 }
  /// Whether a transaction is open: some errors end it, some don't.
  var isInTransaction: Bool { unsafe sqlite3_get_autocommit(raw) == 0 }

  /// How many rows the last statement changed.
  package var changes: Int { unsafe Int(sqlite3_changes(raw)) }

  fileprivate func error(_ code: Int32) -> SQLiteError { unsafe SQLiteDatabase.error(raw, code) }
}

/// A prepared statement, with the connection it needs.
@safe
package final class SQLiteStatement {
  private let raw: OpaquePointer
  private let database: SQLiteDatabase

  fileprivate init(_ raw: OpaquePointer, in database: SQLiteDatabase) {
    unsafe self.raw = raw
    self.database = database
  }

  deinit { unsafe sqlite3_finalize(raw) }

  /// The position of a parameter by its name, colon included; nil if the statement has none of that name.
  package func parameter(_ name: String) -> Int32? {
    let index = unsafe sqlite3_bind_parameter_index(raw, name)
    return index > 0 ? index : nil
  }

  /// The names of all parameters; nil for one without a name.
  package var parameters: [String?] {
    let count = unsafe sqlite3_bind_parameter_count(raw)
    guard count > 0 else { return [] }
    // SAFETY: the name is copied at once.
    return (1...count).map { unsafe sqlite3_bind_parameter_name(raw, $0).map { unsafe String(cString: $0) } }
  }

  /// Columns of its rows; 0 if it returns none.
  package var columns: Int { unsafe Int(sqlite3_column_count(raw)) }
  /// Whether it leaves the file as it is.
  package var isReadOnly: Bool { unsafe sqlite3_stmt_readonly(raw) != 0 }

  /// Runs the statement with `values` for its parameters and gives each row to `row` until that returns false.
  ///
  /// The bytes are lent to SQLite for the time of the call, not copied.
  package func run(
    _ values: [(parameter: Int32, bytes: ArraySlice<UInt8>?)], _ row: (SQLiteRow) -> Bool
  ) throws(SQLiteError) {
    let result = bind(values[...], row)
    unsafe sqlite3_reset(raw)
    unsafe sqlite3_clear_bindings(raw)
    guard result == SQLITE_DONE || result == SQLITE_ROW else { throw database.error(result) }
  }

  /// Runs a statement that returns nothing with `values` for its parameters, in order. Texts are copied.
  func run(copying values: SQLiteValue...) throws(SQLiteError) {
    var result = SQLITE_OK
    for (index, value) in values.enumerated() where result == SQLITE_OK {
      let parameter = Int32(index + 1)
      // SAFETY: the text is lent for the call, which copies it.
      result =
        switch value {
        case .text(let text): unsafe sqlite_bind_text_copied(raw, parameter, text, Int32(text.utf8.count))
        case .integer(let number): unsafe sqlite3_bind_int64(raw, parameter, Int64(number))
        case .null: unsafe sqlite3_bind_null(raw, parameter)
        }
    }
    if result == SQLITE_OK { result = step { _ in true } }
    unsafe sqlite3_reset(raw)
    unsafe sqlite3_clear_bindings(raw)
    guard result == SQLITE_DONE else { throw database.error(result) }
  }

  /// Binds one value after the other, each within the scope that lends its bytes, then steps.
  private func bind(_ values: ArraySlice<(parameter: Int32, bytes: ArraySlice<UInt8>?)>, _ row: (SQLiteRow) -> Bool)
    -> Int32
  {
    guard let first = values.first else { return step(row) }
    guard let bytes = first.bytes else {
      unsafe sqlite3_bind_null(raw, first.parameter)
      return bind(values.dropFirst(), row)
    }
    // SAFETY: the bytes stay in place until `step` is over and the bindings are cleared.
    return unsafe bytes.withUnsafeBytes { buffer in
      let text = unsafe buffer.assumingMemoryBound(to: CChar.self)
      // An empty slice may have no address, and SQLite takes that for NULL.
      let bound =
        unsafe buffer.isEmpty
        ? unsafe sqlite_bind_text_static(raw, first.parameter, "", 0)
        : unsafe sqlite_bind_text_static(raw, first.parameter, text.baseAddress, Int32(buffer.count))
      return bound == SQLITE_OK ? bind(values.dropFirst(), row) : bound
    }
  }

  private func step(_ row: (SQLiteRow) -> Bool) -> Int32 {
    while true {
      let result = unsafe sqlite3_step(raw)
      guard result == SQLITE_ROW else { return result }
      guard unsafe row(SQLiteRow(raw)) else { return result }
    }
  }
}

/// A value for a parameter.
enum SQLiteValue {
  case text(String)
  case integer(Int)
  case null
}

/// A row, while its statement stands on it.
@safe
package struct SQLiteRow {
  private let statement: OpaquePointer

  fileprivate init(_ statement: OpaquePointer) { unsafe self.statement = statement }

  /// A column's text; nil for NULL.
  package func text(_ column: Int) -> [UInt8]? {
    // SAFETY: the text is copied before the statement moves on; its length is asked for after it was made text.
    guard let bytes = unsafe sqlite3_column_text(statement, Int32(column)) else { return nil }
    let count = unsafe Int(sqlite3_column_bytes(statement, Int32(column)))
    return unsafe [UInt8](UnsafeBufferPointer(start: bytes, count: count))
  }

  /// Lends a column's text; an empty one for NULL.
  func withText<R>(_ column: Int, _ body: (Span<UInt8>) -> R) -> R {
    // SAFETY: the text stays where it is until the statement moves on, which the body can't make it do.
    let bytes = unsafe sqlite3_column_text(statement, Int32(column))
    let count = unsafe Int(sqlite3_column_bytes(statement, Int32(column)))
    let buffer = unsafe UnsafeBufferPointer(start: bytes, count: bytes == nil ? 0 : count)
    return body(unsafe buffer.span)
  }

  /// A column's integer; 0 for what is none.
  func integer(_ column: Int) -> Int { unsafe Int(sqlite3_column_int64(statement, Int32(column))) }

  /// Whether a column is NULL.
  func isNull(_ column: Int) -> Bool { unsafe sqlite3_column_type(statement, Int32(column)) == SQLITE_NULL }
}

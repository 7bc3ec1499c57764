/// A connection to a database as the sources see it, whichever library speaks it.

/// A connection that was made. It is used by one thread.
protocol SQLSession: AnyObject {
  /// Asks the query it was made for with these values (nil for NULL), until `deadline` in nanoseconds of
  /// `Clock.monotonic`.
  func ask(_ values: [ArraySlice<UInt8>?], until deadline: UInt64) throws(SQLFailure) -> SQLRows
  /// Whether it can be asked again.
  var isUsable: Bool { get }
}

/// Why a database does not answer. The words are for the log: no value and no password is in them.
enum SQLFailure: Error, Equatable {
  /// No connection could be made.
  case unreachable(String)
  /// The connection was lost.
  case broken(String)
  /// The database refuses the query.
  case refused(String)
  /// There was no answer in time.
  case late
}

/// What a query returned: the first row counts.
struct SQLRows: Equatable {
  /// Columns of each row.
  var columns: Int
  /// The first row's first columns, three at most are of interest; nil for NULL.
  var first: [[UInt8]?]?

  /// Backend, the name there, and the hash of the user's password.
  static let wanted = 3

  /// What the rows say of a user.
  func answer(hasHash: Bool) -> SourceAnswer {
    if hasHash, columns < SQLRows.wanted {
      return .failed("the query must have a third column, the password's hash")
    }
    guard let first else { return .notFound }
    func text(_ column: Int) -> [UInt8]? {
      column < first.count ? first[column].flatMap { $0.isEmpty ? nil : $0 } : nil
    }
    guard let backend = text(0) else { return .failed("the user's row names no backend") }
    let hash = hasHash ? text(2) : nil
    return SourceAnswer(
      String(decoding: backend, as: UTF8.self), loginAs: text(1), passwordHash: hash.map { SharedSecret($0.span) })
  }
}

/// Asks a database, and connects anew where a connection that stood idle was lost.
final class SQLConnection: SourceConnection {
  private let query: SQLQuery
  private let hasHash: Bool
  private let connect: (_ deadline: UInt64) throws(SQLFailure) -> any SQLSession
  private var session: (any SQLSession)?

  /// A connection that is made when it is first asked.
  init(
    _ query: SQLQuery, hasHash: Bool, connect: @escaping (_ deadline: UInt64) throws(SQLFailure) -> any SQLSession
  ) {
    self.query = query
    self.hasHash = hasHash
    self.connect = connect
  }

  func answer(_ request: SourceRequest, until deadline: UInt64) -> SourceReply {
    guard let values = query.values(request.query) else {
      return .answer(.failed("the name is no text that can be asked for"))
    }
    let wasUsed = session != nil
    let result = ask(values, until: deadline)
    switch result {
    // The server was restarted, or ended a connection that stood idle; or the statement is of yesterday's tables.
    case .failure(.broken), .failure(.refused):
      if wasUsed, session == nil { return reply(ask(values, until: deadline)) }
      return reply(result)
    case .success, .failure(.unreachable), .failure(.late): return reply(result)
    }
  }

  private func ask(_ values: [ArraySlice<UInt8>?], until deadline: UInt64) -> Result<SQLRows, SQLFailure> {
    do throws(SQLFailure) {
      let current: any SQLSession
      if let session { current = session } else { current = try connect(deadline) }
      session = current
      defer { if !current.isUsable { session = nil } }
      return .success(try current.ask(values, until: deadline))
    } catch {
      return .failure(error)
    }
  }

  private func reply(_ result: Result<SQLRows, SQLFailure>) -> SourceReply {
    switch result {
    case .success(let rows): .answer(rows.answer(hasHash: hasHash))
    case .failure(.unreachable(let reason)): .unreachable(reason)
    case .failure(.broken(let reason)): .answer(.failed("the connection was lost: \(reason)"))
    case .failure(.refused(let reason)): .answer(.failed(reason))
    case .failure(.late): .answer(.failed("it did not answer in time"))
    }
  }
}

/// Makes a database's complaint fit for the log.
enum SQLComplaint {
  /// Classes of SQLSTATE (ISO 9075) whose messages name tables, columns, users of the database and limits. Those of
  /// others, of data (22) or of functions (P0, 45), may quote a value.
  private static let clear: Set<String> = [
    "08", "0A", "25", "28", "3D", "3F", "40", "42", "53", "54", "55", "57", "70",
  ]
  /// Characters of a message at most.
  private static let longest = 400

  /// The words for a query that was refused; `isClear` if it can't quote a value, whatever its class.
  static func words(_ message: String, state: String, isClear: Bool = false) -> String {
    let isClear = isClear || clear.contains(String(state.prefix(2)))
    return "\(isClear ? line(message) : "the query failed") (SQLSTATE \(state))"
  }

  /// A message as one line.
  static func line(_ message: String) -> String {
    let lines = message.split(whereSeparator: \.isNewline).map { line in
      line.split(whereSeparator: \.isWhitespace).joined(separator: " ")
    }
    return String(lines.filter { !$0.isEmpty }.joined(separator: "; ").prefix(longest))
  }
}

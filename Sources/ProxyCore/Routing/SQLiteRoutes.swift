/// Looks users up in a SQLite file that others may write at the same time.
///
/// One connection and its prepared statements for each loop: 5.6 µs a lookup with a million users. No cache, so a
/// committed change counts at once; no memory map, so a file cut short under our feet is an error and not a signal.

internal import CSQLite
internal import Protocols

final class SQLiteRoutes {
  let file: String
  private let query: String?
  /// Whether the third column is a hash of the user's password.
  private let hasHash: Bool
  private var open: Open?

  /// A connection with what is prepared on it.
  private struct Open {
    let identity: FileIdentity
    let lookups: [Lookup]
  }

  /// A prepared question and which of a user's parts are its parameters.
  private struct Lookup {
    let statement: SQLiteStatement
    let parameters: [(index: Int32, part: Part)]
    let hasLoginAs: Bool
  }

  /// The parts of a query an operator's SQL can name.
  private enum Part: String, CaseIterable {
    case login = ":login"
    case local = ":local"
    case domain = ":domain"
    case mailProtocol = ":protocol"
  }

  /// SQLite's page cache, for each loop. The inner pages of a million users fit in; their leaves are read from the
  /// kernel's cache, half a microsecond each. (The library's own choice is 2 MB, filled by the first thousand logins.)
  private static let cacheKiB = 512

  /// The tables of etc/schema.sql; a user's row beats its domain's.
  private static let standard = [
    "SELECT backend, login_as FROM users WHERE login = :login",
    "SELECT backend FROM domains WHERE domain = :domain",
  ]

  init(file: String, query: String?, hasHash: Bool = false) {
    self.file = file
    self.query = query
    self.hasHash = hasHash
  }

  func answer(_ query: RouteQuery) -> SourceAnswer {
    do {
      for lookup in try current().lookups {
        if let answer = try ask(lookup, query) { return answer }
      }
      return .notFound
    } catch {
      if error.isBusy { return .busy }
      // Whatever it was, the next login begins with a new connection.
      open = nil
      return .failed(error.message)
    }
  }

  /// What keeps the file from being used, and what is odd about it.
  func check() -> (problem: String?, warning: String?) {
    do {
      let lookups = try current().lookups
      let nobody = RouteQuery(user: Array("nobody@invalid".utf8), mailProtocol: .imap)
      for lookup in lookups { _ = try ask(lookup, nobody) }
      guard query == nil else { return (nil, nil) }
      return (nil, try capitals())
    } catch {
      // A busy file is in order: a writer is at work.
      return (error.isBusy ? nil : error.message, nil)
    }
  }

  /// Names are looked up in lower case: a row in another can't be found.
  private func capitals() throws(SQLiteError) -> String? {
    let database = try SQLiteDatabase(file, .read)
    var found: [UInt8]?
    let rows = "SELECT login FROM users WHERE login <> lower(login) UNION ALL SELECT domain FROM domains"
    try database.prepare(rows + " WHERE domain <> lower(domain) LIMIT 1").run([]) { row in
      found = row.text(0)
      return false
    }
    return found.map {
      "\"\(String(decoding: $0, as: UTF8.self))\" has capital letters; names are looked up in lower case"
    }
  }

  private func ask(_ lookup: Lookup, _ query: RouteQuery) throws(SQLiteError) -> SourceAnswer? {
    let values = lookup.parameters.map { index, part -> (parameter: Int32, bytes: ArraySlice<UInt8>?) in
      switch part {
      case .login: (index, query.login[...])
      case .local: (index, query.local)
      case .domain: (index, query.domain)
      case .mailProtocol: (index, Array(query.mailProtocol.rawValue.utf8)[...])
      }
    }
    var answer: SourceAnswer?
    try lookup.statement.run(values) { row in
      guard let backend = row.text(0), !backend.isEmpty else {
        answer = .failed("the user's row names no backend")
        return false
      }
      let loginAs = lookup.hasLoginAs ? row.text(1) : nil
      let hash = hasHash ? row.text(2) : nil
      answer = SourceAnswer(
        String(decoding: backend, as: UTF8.self), loginAs: loginAs.flatMap { $0.isEmpty ? nil : $0 },
        passwordHash: hash.flatMap { $0.isEmpty ? nil : SharedSecret($0.span) })
      return false
    }
    return answer
  }

  /// The connection, a new one if the file was replaced. Telling that costs a stat, under a microsecond.
  private func current() throws(SQLiteError) -> Open {
    guard let identity = FileIdentity(file) else {
      open = nil
      throw SQLiteError(code: SQLITE_CANTOPEN, message: "there is no such file")
    }
    if let open, open.identity == identity { return open }
    open = nil
    let database = try SQLiteDatabase(file, .read)
    try database.run("PRAGMA cache_size = -\(SQLiteRoutes.cacheKiB)")
    var lookups: [Lookup] = []
    for sql in query.map({ [$0] }) ?? SQLiteRoutes.standard { lookups.append(try prepare(sql, database)) }
    let fresh = Open(identity: identity, lookups: lookups)
    open = fresh
    return fresh
  }

  private func prepare(_ sql: String, _ database: SQLiteDatabase) throws(SQLiteError) -> Lookup {
    let statement = try database.prepare(sql)
    guard statement.isReadOnly, statement.columns > 0 else {
      throw SQLiteError(code: SQLITE_MISUSE, message: "the query must be a SELECT of backend and, if wanted, login_as")
    }
    let known = Part.allCases.map(\.rawValue)
    for name in statement.parameters {
      guard let name, known.contains(name) else {
        throw SQLiteError(
          code: SQLITE_MISUSE,
          message: "the query's parameter \(name ?? "?") is unknown; \(known.joined(separator: ", ")) are given")
      }
    }
    if hasHash, statement.columns < 3 {
      throw SQLiteError(code: SQLITE_MISUSE, message: "the query must have a third column, the password's hash")
    }
    let parameters = Part.allCases.compactMap { part in statement.parameter(part.rawValue).map { ($0, part) } }
    return Lookup(statement: statement, parameters: parameters, hasLoginAs: statement.columns > 1)
  }
}

/// A connection to PostgreSQL by libpq, which never waits by itself: all waiting is here, and ends in time.

#if PostgreSQL
  internal import CPostgreSQL
  internal import Glibc

  @safe
  final class PostgreSQLSession: SQLSession {
    private let raw: OpaquePointer
    private let query: SQLQuery
    private(set) var isUsable = true

    /// Connects. With several hosts, a silent one has its share of the time; then the others are tried without it.
    convenience init(_ server: PostgreSQLServer, _ query: SQLQuery, until deadline: UInt64) throws(SQLFailure) {
      var hosts = server.hosts
      while true {
        switch PostgreSQLSession.attempt(server, hosts, until: deadline) {
        case .connected(let raw):
          unsafe self.init(raw, query)
          return
        case .failed(let words): throw .unreachable(words)
        case .silent(let host):
          let others = hosts.filter { $0 != host }
          guard Clock.monotonic.now < deadline, !others.isEmpty, others.count < hosts.count else {
            throw .unreachable("there was no connection in time")
          }
          hosts = others
        }
      }
    }

    private init(_ raw: OpaquePointer, _ query: SQLQuery) {
      unsafe self.raw = raw
      self.query = query
    }

    deinit { unsafe PQfinish(raw) }

    // MARK: Connecting

    @safe
    private enum Attempt {
      case connected(OpaquePointer)
      case failed(String)
      /// The host that said nothing; nil if it can't be told.
      case silent(PostgreSQLServer.Place?)
    }

    private static func attempt(_ server: PostgreSQLServer, _ hosts: [PostgreSQLServer.Place], until deadline: UInt64)
      -> Attempt
    {
      guard let raw = unsafe start(server, hosts) else { return .failed("there is no memory") }
      // SAFETY: the connection is given away or finished, and not used again then.
      let result = unsafe connect(raw, hosts, until: deadline)
      switch result {
      case .connected: break
      case .failed, .silent: unsafe PQfinish(raw)
      }
      return result
    }

    private static func start(_ server: PostgreSQLServer, _ hosts: [PostgreSQLServer.Place]) -> OpaquePointer? {
      var words = [("dbname", server.connection), ("fallback_application_name", "proxyd"), ("client_encoding", "UTF8")]
      words.append(("options", server.options))
      if hosts.count < server.hosts.count { words += PostgreSQLServer.Place.words(hosts) }
      let keywords = CTexts(capacity: words.count + 1)
      let values = CTexts(capacity: words.count + 1)
      for (keyword, value) in words {
        keywords.add(keyword)
        values.add(value)
      }
      if let password = server.password {
        keywords.add("password")
        values.add(password)
      }
      // SAFETY: the lists are of one length and outlive the call; libpq makes copies of its own.
      return unsafe withExtendedLifetime((keywords, values)) {
        unsafe PQconnectStartParams(keywords.list, values.list, 1)
      }
    }

    private static func connect(_ raw: OpaquePointer, _ hosts: [PostgreSQLServer.Place], until deadline: UInt64)
      -> Attempt
    {
      // What the server has to remark goes to nobody: libpq's own way is to print it.
      unsafe PQsetNoticeProcessor(raw, { _, _ in }, nil)
      guard unsafe PQstatus(raw) != CONNECTION_BAD else { return .failed(unsafe words(raw)) }
      var place: PostgreSQLServer.Place?
      var visited = 0
      var limit = deadline
      var state = PGRES_POLLING_WRITING
      while true {
        let current = unsafe PostgreSQLServer.Place(
          host: text(PQhost(raw)), address: text(PQhostaddr(raw)), port: text(PQport(raw)))
        if current != place {
          place = current
          visited += 1
          let now = Clock.monotonic.now
          let left = UInt64(max(1, hosts.count - visited + 1))
          limit = now < deadline ? now + (deadline - now) / left : deadline
        }
        let isWriting = state == PGRES_POLLING_WRITING
        guard unsafe SocketWait.wait(PQsocket(raw), for: isWriting ? .writable : .readable, until: limit) != [] else {
          return .silent(hosts.first { $0.matches(current) })
        }
        state = unsafe PQconnectPoll(raw)
        switch state {
        case PGRES_POLLING_OK:
          guard unsafe PQsetnonblocking(raw, 1) == 0 else { return .failed(unsafe words(raw)) }
          return unsafe .connected(raw)
        case PGRES_POLLING_READING, PGRES_POLLING_WRITING: break
        default: return .failed(unsafe words(raw))
        }
      }
    }

    /// libpq's words for the connection's last error; no password is ever in them.
    private static func words(_ raw: OpaquePointer) -> String { unsafe SQLComplaint.line(text(PQerrorMessage(raw))) }

    /// A copy of a text of libpq's.
    private static func text(_ text: UnsafePointer<CChar>?) -> String {
      unsafe text.map { unsafe String(cString: $0) } ?? ""
    }

    // MARK: Asking

    func ask(_ values: [ArraySlice<UInt8>?], until deadline: UInt64) throws(SQLFailure) -> SQLRows {
      isUsable = false
      try send(values, until: deadline)
      var rows = SQLRows(columns: 0, first: nil)
      var refusal: SQLFailure?
      while let result = try unsafe next(until: deadline) {
        // SAFETY: the result is this loop's own, and cleared once.
        defer { unsafe PQclear(result) }
        switch unsafe PQresultStatus(result) {
        case PGRES_SINGLE_TUPLE, PGRES_TUPLES_OK:
          rows.columns = unsafe Int(PQnfields(result))
          if rows.first == nil, unsafe PQntuples(result) > 0 { rows.first = unsafe PostgreSQLSession.row(result) }
        case PGRES_FATAL_ERROR: refusal = unsafe refusal ?? self.refusal(result)
        case PGRES_COPY_IN, PGRES_COPY_OUT, PGRES_COPY_BOTH: throw .refused("the query must be a SELECT")
        default: refusal = refusal ?? .refused("the query returned no rows, expected a SELECT")
        }
      }
      isUsable = unsafe PQstatus(raw) == CONNECTION_OK && PQtransactionStatus(raw) == PQTRANS_IDLE
      if let refusal { throw refusal }
      return rows
    }

    /// Sends the question. The statement is not prepared: a pooler that gives each transaction another connection, as
    /// PgBouncer does, would not find it again, and parsing it costs the server less than a tenth of a millisecond.
    private func send(_ values: [ArraySlice<UInt8>?], until deadline: UInt64) throws(SQLFailure) {
      let texts = CTexts(capacity: values.count)
      for value in values { if let value { texts.add(value) } else { texts.addNull() } }
      // SAFETY: the texts outlive the call, which puts them into libpq's message.
      let isSent = withExtendedLifetime(texts) {
        unsafe PQsendQueryParams(raw, query.text, Int32(values.count), nil, texts.list, nil, nil, 0) == 1
      }
      // Row by row: a query that returns a whole table is not held in memory.
      guard isSent, unsafe PQsetSingleRowMode(raw) == 1 else { throw unsafe .broken(PostgreSQLSession.words(raw)) }
      while true {
        switch unsafe PQflush(raw) {
        case 0: return
        case 1: try wait([.readable, .writable], until: deadline)
        default: throw unsafe .broken(PostgreSQLSession.words(raw))
        }
      }
    }

    /// The next result; nil if that was the last.
    private func next(until deadline: UInt64) throws(SQLFailure) -> OpaquePointer? {
      while unsafe PQisBusy(raw) == 1 { try wait(.readable, until: deadline) }
      return unsafe PQgetResult(raw)
    }

    private func wait(_ wanted: Readiness, until deadline: UInt64) throws(SQLFailure) {
      let ready = unsafe SocketWait.wait(PQsocket(raw), for: wanted, until: deadline)
      guard ready != [] else { throw .late }
      // A connection that was lost has a last word: the result that follows says so.
      if ready.contains(.readable), unsafe PQconsumeInput(raw) == 0, unsafe PQisBusy(raw) == 1 {
        throw unsafe .broken(PostgreSQLSession.words(raw))
      }
    }

    private static func row(_ result: OpaquePointer) -> [[UInt8]?] {
      let count = unsafe min(Int(PQnfields(result)), SQLRows.wanted)
      return (0..<Int32(count)).map { column in
        guard unsafe PQgetisnull(result, 0, column) == 0, let text = unsafe PQgetvalue(result, 0, column) else {
          return nil
        }
        // SAFETY: the value is copied while the result is there; its length is libpq's.
        let bytes = unsafe UnsafeRawBufferPointer(start: text, count: Int(PQgetlength(result, 0, column)))
        return unsafe Array(bytes)
      }
    }

    private func refusal(_ result: OpaquePointer) -> SQLFailure {
      // SAFETY: the texts are copied while the result is there.
      let state = unsafe PostgreSQLSession.text(PQresultErrorField(result, PostgreSQLSession.stateField))
      guard unsafe PQstatus(raw) == CONNECTION_OK, !state.isEmpty else {
        return .broken(unsafe SQLComplaint.line(PostgreSQLSession.text(PQresultErrorMessage(result))))
      }
      let message = unsafe PostgreSQLSession.text(PQresultErrorField(result, PostgreSQLSession.messageField))
      return .refused(SQLComplaint.words(message, state: state))
    }

    /// PG_DIAG_SQLSTATE and PG_DIAG_MESSAGE_PRIMARY of postgres_ext.h, which are characters there.
    private static let stateField = Int32(UInt8(ascii: "C"))
    private static let messageField = Int32(UInt8(ascii: "M"))
  }
#endif

/// A connection to MySQL or MariaDB by libmariadb, whose calls are suspended where they would wait: all waiting is
/// here, and ends in time.

#if MySQL
  internal import CMariaDB
  // `SHUT_RDWR` belongs to whichever C module the compiler meets it in first.
  internal import CLinux
  internal import Glibc

  @safe
  final class MySQLSession: SQLSession {
    private let raw: UnsafeMutablePointer<MYSQL>
    private let query: SQLQuery
    private let columns = MySQLColumns()
    private var statement: UnsafeMutablePointer<MYSQL_STMT>?
    private(set) var isUsable = false

    /// Connects to the first host that answers and prepares the query; each host has its share of the time.
    static func connect(_ server: MySQLServer, _ query: SQLQuery, until deadline: UInt64) throws(SQLFailure)
      -> MySQLSession
    {
      var reasons: [String] = []
      for (index, place) in server.places.enumerated() {
        let now = Clock.monotonic.now
        guard now < deadline else { break }
        let share = (deadline - now) / UInt64(server.places.count - index)
        do throws(SQLFailure) {
          let session = try MySQLSession(query)
          try session.connect(server, place, until: now + share)
          try session.prepare(until: deadline)
          return session
        } catch {
          switch error {
          case .refused, .broken: throw error
          case .unreachable(let reason): reasons.append("\(place): \(reason)")
          case .late: reasons.append("\(place): there was no connection in time")
          }
        }
      }
      throw .unreachable(reasons.joined(separator: "; "))
    }

    private init(_ query: SQLQuery) throws(SQLFailure) {
      guard let raw = unsafe mysql_init(nil) else { throw .unreachable("there is no memory") }
      unsafe self.raw = raw
      self.query = query
    }

    deinit {
      // What was suspended must not be waited for: the goodbye fails at once then.
      if !isUsable, unsafe raw.pointee.net.pvio != nil { _ = unsafe shutdown(mysql_get_socket(raw), Int32(SHUT_RDWR)) }
      // SAFETY: the statement outlives its connection by a moment, as the library allows; both are closed once.
      unsafe mysql_close(raw)
      if let statement = unsafe statement { unsafe mysql_stmt_close(statement) }
    }

    // MARK: Waiting

    /// Goes on with a call of the library's until it is done. A call given up in between is never gone on with.
    private func run(until deadline: UInt64, _ start: () -> Int32, _ goOn: (Int32) -> Int32) throws(SQLFailure) {
      var wanted = start()
      while wanted != 0 {
        var readiness: Readiness = []
        if wanted & MYSQL_WAIT_READ != 0 { readiness.insert(.readable) }
        if wanted & MYSQL_WAIT_WRITE != 0 { readiness.insert(.writable) }
        let ready = unsafe SocketWait.wait(mysql_get_socket(raw), for: readiness, until: deadline)
        guard ready != [] else { throw .late }
        wanted = goOn(
          (ready.contains(.readable) ? MYSQL_WAIT_READ : 0) | (ready.contains(.writable) ? MYSQL_WAIT_WRITE : 0))
      }
    }

    // MARK: Connecting

    private func connect(_ server: MySQLServer, _ place: MySQLServer.Place, until deadline: UInt64) throws(SQLFailure) {
      for option in server.options(place) { set(option) }
      let (host, port, socket) = place.parts
      let texts = CTexts(capacity: 5)
      for text in [host, socket, server.user, server.database] {
        if let text { texts.add(text) } else { texts.addNull() }
      }
      if let password = server.password { texts.add(password) }
      var connected: UnsafeMutablePointer<MYSQL>?
      // SAFETY: the library keeps the texts' addresses while it connects: they live until it has, or never goes on.
      try run(
        until: deadline,
        {
          unsafe mysql_real_connect_start(
            &connected, raw, texts.list[0], texts.list[2], texts.list[4], texts.list[3], UInt32(port), texts.list[1], 0)
        }, { unsafe mysql_real_connect_cont(&connected, raw, $0) })
      withExtendedLifetime(texts) {}
      guard unsafe connected != nil else {
        throw unsafe .unreachable(SQLComplaint.line(String(cString: mysql_error(raw))))
      }
    }

    private func set(_ option: MySQLOption) {
      // SAFETY: the library copies what an option points to before the call is over.
      switch option {
      case .text(let name, let value): unsafe mysql_options(raw, name, value)
      case .number(let name, let value):
        var value = value
        unsafe mysql_options(raw, name, &value)
      case .size(let name, let value):
        var value = value
        unsafe mysql_options(raw, name, &value)
      case .flag(let name, let value):
        var value = my_bool(value ? 1 : 0)
        unsafe mysql_options(raw, name, &value)
      }
    }

    private func prepare(until deadline: UInt64) throws(SQLFailure) {
      guard let statement = unsafe mysql_stmt_init(raw) else { throw .unreachable("there is no memory") }
      unsafe self.statement = statement
      let text = CTexts(capacity: 1)
      text.add(query.text)
      let count = UInt(query.text.utf8.count)
      var result: Int32 = 0
      try run(
        until: deadline, { unsafe mysql_stmt_prepare_start(&result, statement, text.list[0], count) },
        { unsafe mysql_stmt_prepare_cont(&result, statement, $0) })
      withExtendedLifetime(text) {}
      // No value was said yet that the message could quote.
      guard result == 0 else { throw failure(isClear: true) }
      guard unsafe Int(mysql_stmt_param_count(statement)) == query.parameters.count else {
        throw .refused("the query has parameters where the database sees none, or the other way round")
      }
      guard unsafe mysql_stmt_field_count(statement) > 0 else {
        throw .refused("the query returns no rows, expected a SELECT")
      }
      isUsable = true
    }

    private func failure(isClear: Bool = false) -> SQLFailure {
      let (code, state, message) = unsafe (
        mysql_stmt_errno(statement), String(cString: mysql_stmt_sqlstate(statement)),
        String(cString: mysql_stmt_error(statement))
      )
      return MySQLSession.failure(code: code, state: state, message: message, isClear: isClear)
    }

    /// A connection that was lost, or a query that was refused; codes below 2000 are the server's.
    static func failure(code: UInt32, state: String, message: String, isClear: Bool) -> SQLFailure {
      let isLibrarys = (2_000..<3_000).contains(code)
      // ER_SERVER_SHUTDOWN, ER_CONNECTION_KILLED, and MySQL's ER_CLIENT_INTERACTION_TIMEOUT.
      if isLibrarys || [1_053, 1_927, 4_031].contains(code) { return .broken(SQLComplaint.line(message)) }
      return .refused(SQLComplaint.words(message, state: state, isClear: isClear))
    }

    // MARK: Asking

    func ask(_ values: [ArraySlice<UInt8>?], until deadline: UInt64) throws(SQLFailure) -> SQLRows {
      isUsable = false
      guard let statement = unsafe statement else { preconditionFailure("a session without a statement") }
      let copies = MySQLValues(values)
      guard unsafe mysql_stmt_bind_param(statement, copies.bindings) == 0 else { throw failure() }
      var result: Int32 = 0
      try run(
        until: deadline, { unsafe mysql_stmt_execute_start(&result, statement) },
        { unsafe mysql_stmt_execute_cont(&result, statement, $0) })
      guard result == 0 else { throw failure() }
      var rows = SQLRows(columns: unsafe Int(mysql_stmt_field_count(statement)), first: nil)
      guard rows.columns > 0, unsafe columns.bind(statement, rows.columns) else { throw failure() }
      try run(
        until: deadline, { unsafe mysql_stmt_fetch_start(&result, statement) },
        { unsafe mysql_stmt_fetch_cont(&result, statement, $0) })
      switch result {
      case 0, MYSQL_DATA_TRUNCATED:
        guard let first = columns.row(rows.columns) else {
          throw .refused("a column is longer than \(MySQLColumns.longest) bytes")
        }
        rows.first = first
      case MYSQL_NO_DATA: break
      default: throw failure()
      }
      // Further rows are read and dropped, one by one.
      var isFailed = my_bool(0)
      try run(
        until: deadline, { unsafe mysql_stmt_free_result_start(&isFailed, statement) },
        { unsafe mysql_stmt_free_result_cont(&isFailed, statement, $0) })
      isUsable = isFailed == 0
      // SAFETY: the values were bound and outlive the call that sent them.
      withExtendedLifetime(copies) {}
      return rows
    }
  }

  /// What libmariadb wants of a thread that uses it: made and released on that thread.
  final class MySQLThread {
    /// Whether the library can be used.
    let isReady: Bool

    /// The library is set up once, before a thread uses it.
    private static let isLibraryReady = mysql_server_init(0, nil, nil) == 0

    init() { isReady = MySQLThread.isLibraryReady && mysql_thread_init() == 0 }

    deinit { if isReady { mysql_thread_end() } }
  }

  /// A question's values where libmariadb reads them.
  @safe
  private final class MySQLValues {
    let bindings: UnsafeMutablePointer<MYSQL_BIND>
    private let bytes: UnsafeMutablePointer<UInt8>

    init(_ values: [ArraySlice<UInt8>?]) {
      unsafe bindings = .allocate(capacity: max(1, values.count))
      unsafe bytes = .allocate(capacity: max(1, values.reduce(0) { $0 + ($1?.count ?? 0) }))
      var place = 0
      for (index, value) in values.enumerated() {
        // SAFETY: there is a binding for each value, and room for the bytes of all.
        unsafe (bindings + index).initialize(to: MYSQL_BIND())
        unsafe bindings[index].buffer_type = value == nil ? MYSQL_TYPE_NULL : MYSQL_TYPE_STRING
        guard let value else { continue }
        unsafe bindings[index].buffer = UnsafeMutableRawPointer(bytes + place)
        unsafe bindings[index].buffer_length = UInt(value.count)
        for byte in value {
          unsafe (bytes + place).initialize(to: byte)
          place += 1
        }
      }
    }

    deinit {
      unsafe bindings.deallocate()
      unsafe bytes.deallocate()
    }
  }

  /// Where libmariadb puts a row's columns.
  @safe
  private final class MySQLColumns {
    /// A host's name has 253 characters at most, a name 256 of four bytes at most, and a hash of crypt(3) 383.
    static let longest = 1_024

    private let bytes = UnsafeMutablePointer<UInt8>.allocate(capacity: SQLRows.wanted * longest)
    /// For the columns wanted, and one for all others.
    private let lengths = UnsafeMutablePointer<UInt>.allocate(capacity: SQLRows.wanted + 1)
    private let nulls = UnsafeMutablePointer<my_bool>.allocate(capacity: SQLRows.wanted + 1)

    init() {
      unsafe bytes.initialize(repeating: 0, count: SQLRows.wanted * MySQLColumns.longest)
      unsafe lengths.initialize(repeating: 0, count: SQLRows.wanted + 1)
      unsafe nulls.initialize(repeating: 0, count: SQLRows.wanted + 1)
    }

    deinit {
      unsafe bytes.deallocate()
      unsafe lengths.deallocate()
      unsafe nulls.deallocate()
    }

    /// Has the statement put its rows here; the library copies the bindings, not the memory.
    func bind(_ statement: UnsafeMutablePointer<MYSQL_STMT>, _ count: Int) -> Bool {
      unsafe withUnsafeTemporaryAllocation(of: MYSQL_BIND.self, capacity: count) { bindings in
        for column in 0..<count {
          // SAFETY: a column that is not wanted has no room, and nothing is written of it but length and NULL.
          let slot = min(column, SQLRows.wanted)
          let isWanted = column < SQLRows.wanted
          var binding = unsafe MYSQL_BIND()
          unsafe binding.buffer_type = MYSQL_TYPE_STRING
          unsafe binding.buffer = UnsafeMutableRawPointer(bytes + (isWanted ? column * MySQLColumns.longest : 0))
          unsafe binding.buffer_length = isWanted ? UInt(MySQLColumns.longest) : 0
          unsafe binding.length = lengths + slot
          unsafe binding.is_null = nulls + slot
          unsafe bindings.initializeElement(at: column, to: binding)
        }
        return unsafe mysql_stmt_bind_result(statement, bindings.baseAddress) == 0
      }
    }

    /// The row that was put here; nil if a column had no room.
    func row(_ count: Int) -> [[UInt8]?]? {
      var row: [[UInt8]?] = []
      for column in 0..<min(count, SQLRows.wanted) {
        // SAFETY: the library wrote as many bytes as it says, within the column's room.
        let length = unsafe Int(lengths[column])
        if unsafe nulls[column] != 0 {
          row.append(nil)
        } else if length <= MySQLColumns.longest {
          row.append(unsafe Array(UnsafeBufferPointer(start: bytes + column * MySQLColumns.longest, count: length)))
        } else {
          return nil
        }
      }
      return row
    }
  }
#endif

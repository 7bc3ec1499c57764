import Testing

@testable import Protocols
@testable import ProxyCore

struct SQLQueryTests {
  private static let both: [SQLQuery.Dialect] = [.postgresql, .mysql]

  @Test(
    arguments: [
      // What is written, for PostgreSQL, for MySQL, and the parameters.
      ("SELECT b FROM u WHERE l = :login", "SELECT b FROM u WHERE l = $1", "SELECT b FROM u WHERE l = ?", "login"),
      (
        "select b from u where l=:local and d=:domain and p=:protocol or l=:login",
        "select b from u where l=$1 and d=$2 and p=$3 or l=$4", "select b from u where l=? and d=? and p=? or l=?",
        "local domain protocol login"
      ),
      // Each place is a parameter of its own: a database infers its type there.
      ("SELECT :login,:login", "SELECT $1,$2", "SELECT ?,?", "login login"),
      ("SELECT 1", "SELECT 1", "SELECT 1", ""),
      ("(SELECT 1) ; \n", "(SELECT 1)  \n", "(SELECT 1)  \n", ""),
      ("/* a */ WITH x AS (SELECT 1) SELECT 2;-- end", "/* a */ WITH x AS (SELECT 1) SELECT 2-- end", nil, ""),
      ("SELECT 1; -- end", "SELECT 1 -- end", "SELECT 1 -- end", ""),
      // Quotes.
      ("SELECT ':login'", "SELECT ':login'", "SELECT ':login'", ""),
      ("SELECT 'it''s :login', :login", "SELECT 'it''s :login', $1", "SELECT 'it''s :login', ?", "login"),
      ("SELECT \":login\"\"\", :login", "SELECT \":login\"\"\", $1", "SELECT \":login\"\"\", ?", "login"),
      ("SELECT ';'", "SELECT ';'", "SELECT ';'", ""),
      ("SELECT '\\', :login, ''", "SELECT '\\', $1, ''", nil, "login"),
      ("SELECT '\\':login'", nil, "SELECT '\\':login'", ""),
      ("SELECT \"\\\":login\"", nil, "SELECT \"\\\":login\"", ""),
      ("SELECT E'\\':login', :login", "SELECT E'\\':login', $1", nil, "login"),
      ("SELECT e'\\\\', :login", "SELECT e'\\\\', $1", "SELECT e'\\\\', ?", "login"),
      // A name that ends in e is not the mark of a string with escapes.
      ("SELECT date'\\', :login", "SELECT date'\\', $1", nil, "login"),
      ("SELECT `:login```, :login", nil, "SELECT `:login```, ?", "login"),
      ("SELECT $$:login';$$, :login", "SELECT $$:login';$$, $1", nil, "login"),
      ("SELECT $a$ $b$ :login $$ $a$, :login", "SELECT $a$ $b$ :login $$ $a$, $1", nil, "login"),
      (
        "SELECT a$b$ FROM u$ WHERE c = :login", "SELECT a$b$ FROM u$ WHERE c = $1", "SELECT a$b$ FROM u$ WHERE c = ?",
        "login"
      ),
      // Comments.
      ("SELECT 1 -- :login\n, :login", "SELECT 1 -- :login\n, $1", "SELECT 1 -- :login\n, ?", "login"),
      ("SELECT 1 --:login\n, :login", "SELECT 1 --:login\n, $1", "SELECT 1 --?\n, ?", nil),
      ("SELECT 1 # ':login\n, :login", nil, "SELECT 1 # ':login\n, ?", "login"),
      ("SELECT /* ':login; */ :login", "SELECT /* ':login; */ $1", "SELECT /* ':login; */ ?", "login"),
      ("SELECT /* /* */ :login */ :login", "SELECT /* /* */ :login */ $1", "SELECT /* /* */ ? */ ?", nil),
      // Colons that are none of ours.
      ("SELECT a::text, :login::text", "SELECT a::text, $1::text", "SELECT a::text, ?::text", "login"),
      ("SELECT a[1: 2], @x := :login", "SELECT a[1: 2], @x := $1", "SELECT a[1: 2], @x := ?", "login"),
      ("SELECT a[1:2] :", "SELECT a[1:2] :", "SELECT a[1:2] :", ""),
      ("SELECT é, :login", "SELECT é, $1", "SELECT é, ?", "login"),
      ("SELECT a ? 'x', :login", "SELECT a ? 'x', $1", nil, "login"),
    ] as [(String, String?, String?, String?)])
  func texts(_ sql: String, _ postgresql: String?, _ mysql: String?, _ parameters: String?) throws {
    for (dialect, text) in [(SQLQuery.Dialect.postgresql, postgresql), (.mysql, mysql)] {
      guard let text else { continue }
      let query = try SQLQuery(sql, dialect)
      #expect(query.text == text)
      if let parameters { #expect(query.parameters.map(\.rawValue).joined(separator: " ") == parameters) }
    }
  }

  @Test(
    arguments: [
      ("", "line 1, column 1 of the query: it is empty"), (" -- nothing\n", "it is empty"), (";", "it is empty"),
      ("SELECT 1 WHERE é = :user", "column 20 of the query: the parameter :user is unknown; :login, :local, :domain, "),
      ("SELECT 1\n WHERE :Login = 1", "line 2, column 8 of the query: the parameter :Login is unknown"),
      ("SELECT a[1:n]", "the parameter :n is unknown"), ("SELECT :loginx", ":loginx is unknown"),
      ("SELECT 1; SELECT 2", "line 1, column 9 of the query: there are several statements"),
      ("SELECT 1;;", "several statements"), ("SELECT 1; 'x'", "several statements"),
      ("SELECT 'x", "column 8 of the query: a quote has no end"), ("SELECT 'x''", "no end"), ("SELECT \"x", "no end"),
      ("SELECT /* x", "column 8 of the query: a comment has no end"), ("SELECT 1 \0", "there is a NUL"),
      ("DELETE FROM u", "column 1 of the query: expected a SELECT"), ("\n CALL x()", "line 2, column 2"),
      ("-- SELECT\nDROP TABLE u", "line 2, column 1 of the query: expected a SELECT"), ("1", "expected a SELECT"),
    ])
  func mistakes(_ sql: String, _ problem: String) {
    for dialect in SQLQueryTests.both {
      let error = #expect(throws: SQLQuery.Failure.self) { try SQLQuery(sql, dialect) }
      #expect(error?.problem.contains(problem) == true, "\(error?.problem ?? "")")
    }
  }

  @Test(
    arguments: [
      ("SELECT $1", .postgresql, "parameters have names here"), ("SELECT $$x", .postgresql, "no end"),
      ("SELECT $a$x$b$", .postgresql, "no end"), ("SELECT /* /* */", .postgresql, "no end"),
      ("SELECT E'\\'", .postgresql, "no end"), ("SELECT ?", .mysql, "the parameter ? is unknown"),
      ("SELECT `x", .mysql, "no end"), ("SELECT '\\'", .mysql, "no end"),
      ("SELECT 1;--x", .mysql, "several statements"),
    ] as [(String, SQLQuery.Dialect, String)])
  func mistakesOfOne(_ sql: String, _ dialect: SQLQuery.Dialect, _ problem: String) {
    let error = #expect(throws: SQLQuery.Failure.self) { try SQLQuery(sql, dialect) }
    #expect(error?.problem.contains(problem) == true, "\(error?.problem ?? "")")
  }

  /// Whatever is written, there is a query or an error; and the query has as many marks as parameters.
  @Test func anythingIsTaken() {
    let words = [
      "SELECT", " ", "'", "\"", "`", "$", "$$", "$a$", ":", ":login", ":domain", "::", "--", "\n", "/*", "*/", "#", ";",
      "\\",
      "E'", "e", "?", "é", "\u{0}", "1", "(", "-", "*", "/", "x",
    ]
    var random = SystemRandomNumberGenerator()
    var good = 0
    for _ in 0..<20_000 {
      var sql = Bool.random(using: &random) ? "SELECT " : ""
      for _ in 0..<Int.random(in: 0...12, using: &random) { sql += words.randomElement(using: &random) ?? "" }
      for dialect in SQLQueryTests.both {
        guard let query = try? SQLQuery(sql, dialect) else { continue }
        good += 1
        let more = query.text.utf8.count { $0 == UInt8(ascii: "?") } - sql.utf8.count { $0 == UInt8(ascii: "?") }
        if dialect == .mysql { #expect(more == query.parameters.count, "\(sql)") }
      }
      let bytes = (0..<Int.random(in: 0...40, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random) }
      for dialect in SQLQueryTests.both {
        _ = try? SQLQuery("SELECT " + String(decoding: bytes, as: UTF8.self), dialect)
      }
    }
    #expect(good > 1_000)
  }

  private func values(_ user: [UInt8]) throws -> [String?]? {
    let query = try SQLQuery("SELECT :login, :local, :domain, :protocol", .mysql)
    return query.values(RouteQuery(user: user, mailProtocol: .pop3))?.map {
      $0.map { String(decoding: $0, as: UTF8.self) }
    }
  }

  @Test func theValuesAreTheQuestions() throws {
    #expect(try values(Array("Al@B@x.org".utf8)) == ["al@b@x.org", "al@b", "x.org", "pop3"])
    #expect(try values(Array("al".utf8)) == ["al", "al", nil, "pop3"])
    #expect(try values(Array("al@".utf8)) == ["al@", "al", "", "pop3"])
    #expect(try values(Array("';--é".utf8)) == ["';--é", "';--é", nil, "pop3"])
    #expect(try values([0x61, 0, 0x62]) == nil)
    #expect(try values([0x61, 0xFF]) == nil)
  }
}

struct SQLRowsTests {
  private func answer(_ columns: String?..., hasHash: Bool = false) -> SourceAnswer {
    SQLRows(columns: columns.count, first: columns.map { $0.map { Array($0.utf8) } }).answer(hasHash: hasHash)
  }

  @Test func aRowIsAnAnswer() {
    #expect(SQLRows(columns: 2, first: nil).answer(hasHash: false) == .notFound)
    #expect(answer("a") == .found(Destination("a")))
    #expect(answer("bob@a:143") == .found(Destination("a:143", loginAs: Array("bob".utf8))))
    #expect(answer("x@a", "bob@x") == .found(Destination("a", loginAs: Array("bob@x".utf8))))
    #expect(answer("a", nil) == answer("a", ""))
    #expect(answer("a", "b", "hash") == answer("a", "b"))
    #expect(answer("!") == .disabled)
    #expect(answer("!", "x", "hash", hasHash: true) == .disabled)
  }

  @Test func aRowWithoutBackendIsAFailure() {
    for row in [answer(nil), answer(""), answer(nil, "b"), answer("", "b")] {
      #expect(row == .failed("the user's row names no backend"))
    }
    #expect(answer("bob@") == .failed("the answer names no backend"))
  }

  @Test func theThirdColumnIsTheHash() {
    guard case .found(let destination) = answer("a", nil, "$6$x", hasHash: true) else {
      Issue.record("not found")
      return
    }
    #expect(destination.passwordHash == SharedSecret(Array("$6$x".utf8).span))
    #expect(answer("a", nil, nil, hasHash: true) == .found(Destination("a")))
    #expect(answer("a", "b", hasHash: true) == .failed("the query must have a third column, the password's hash"))
    #expect(
      SQLRows(columns: 2, first: nil).answer(hasHash: true)
        == .failed("the query must have a third column, the password's hash"))
  }
}

/// Connections that a test wrote down.
private final class PlayedSession: SQLSession {
  var isUsable = true
  private var answers: [Result<SQLRows, SQLFailure>]

  init(_ answers: [Result<SQLRows, SQLFailure>]) { self.answers = answers }

  func ask(_ values: [ArraySlice<UInt8>?], until deadline: UInt64) throws(SQLFailure) -> SQLRows {
    let answer = answers.removeFirst()
    switch answer {
    case .success, .failure(.refused("kept")): isUsable = true
    case .failure: isUsable = false
    }
    return try answer.get()
  }
}

struct SQLConnectionTests {
  private static let row = SQLRows(columns: 1, first: [Array("a".utf8)])

  /// A connection to a database of which each session answers so.
  private final class Played {
    var sessions: [Result<[Result<SQLRows, SQLFailure>], SQLFailure>]
    var connected = 0
    lazy var connection: SQLConnection? = (try? SQLQuery("SELECT :login", .mysql)).map { query in
      SQLConnection(query, hasHash: false) { [unowned self] _ throws(SQLFailure) in
        connected += 1
        return PlayedSession(try sessions.removeFirst().get())
      }
    }

    init(_ sessions: Result<[Result<SQLRows, SQLFailure>], SQLFailure>...) { self.sessions = sessions }

    func ask(_ user: String = "alice") -> SourceReply? {
      let query = RouteQuery(user: Array(user.utf8), mailProtocol: .imap)
      return connection?.answer(SourceRequest(query: query, user: query.login), until: .max)
    }
  }

  private let found = SourceReply.answer(.found(Destination("a")))

  @Test func aConnectionIsKept() {
    let played = Played(
      .success([.success(SQLConnectionTests.row), .failure(.refused("kept")), .success(SQLConnectionTests.row)]))
    #expect(played.ask() == found)
    #expect(played.ask() == .answer(.failed("kept")))
    #expect(played.ask() == found)
    #expect(played.connected == 1)
  }

  @Test func anIdleConnectionThatBrokeIsMadeAnew() {
    for failure in [SQLFailure.broken("gone"), .refused("changed")] {
      let played = Played(
        .success([.success(SQLConnectionTests.row), .failure(failure)]), .success([.success(SQLConnectionTests.row)]))
      #expect(played.ask() == found)
      #expect(played.ask() == found)
      #expect(played.connected == 2)
    }
  }

  @Test func onceOnly() {
    let played = Played(
      .success([.success(SQLConnectionTests.row), .failure(.broken("one"))]), .success([.failure(.broken("two"))]),
      .failure(.unreachable("three")), .success([.failure(.refused("four"))]))
    #expect(played.ask() == found)
    #expect(played.ask() == .answer(.failed("the connection was lost: two")))
    #expect(played.ask() == .unreachable("three"))
    #expect(played.ask() == .answer(.failed("four")))
    #expect(played.connected == 4)
  }

  @Test func whoIsLateIsNotAskedAgain() {
    let played = Played(
      .success([.success(SQLConnectionTests.row), .failure(.late)]), .success([.success(SQLConnectionTests.row)]))
    #expect(played.ask() == found)
    #expect(played.ask() == .answer(.failed("it did not answer in time")))
    #expect(played.connected == 1)
    #expect(played.ask() == found)
    #expect(played.connected == 2)
  }

  @Test func aNameThatIsNoTextIsNotAskedFor() {
    let played = Played()
    #expect(played.ask("al\0ice") == .answer(.failed("the name is no text that can be asked for")))
    #expect(played.connected == 0)
  }
}

struct SQLComplaintTests {
  @Test func whatMayQuoteAValueIsWithheld() {
    #expect(SQLComplaint.words("no table u", state: "42P01") == "no table u (SQLSTATE 42P01)")
    for state in ["22P02", "P0001", "45000", "23505", "HY000", "", "XX000", "4"] {
      #expect(SQLComplaint.words("bad: 'alice'", state: state) == "the query failed (SQLSTATE \(state))")
    }
    #expect(SQLComplaint.words("lost", state: "HY000", isClear: true) == "lost (SQLSTATE HY000)")
  }

  @Test func aMessageIsOneLine() {
    #expect(SQLComplaint.line("one\n\ttwo  three\r\n\n") == "one; two three")
    #expect(SQLComplaint.line("") == "")
    #expect(SQLComplaint.line(String(repeating: "x", count: 10_000)).count == 400)
  }
}

#if PostgreSQL
  struct PostgreSQLServerTests {
    private func server(_ text: String) throws -> PostgreSQLServer {
      try PostgreSQLServer(text, password: nil, timeout: 1_500_000_000)
    }

    @Test func theHostsAreTold() throws {
      #expect(try server("dbname=x").hosts == [])
      let two = try server("host=a,b port=1,2")
      #expect(two.hosts.map(\.host) == ["a", "b"])
      #expect(two.hosts.map(\.port) == ["1", "2"])
      #expect(try server("host=a,b port=5").hosts.map(\.port) == ["5", "5"])
      let uri = try server("postgresql://proxyd@a:1,b:2/mail?sslmode=require")
      #expect(uri.hosts.map(\.host) == ["a", "b"])
      #expect(try server("hostaddr=192.0.2.1,192.0.2.2 port=1,2").hosts.map(\.address) == ["192.0.2.1", "192.0.2.2"])
      #expect(PostgreSQLServer.Place.words(Array(two.hosts.dropFirst())).map { "\($0)=\($1)" } == ["host=b", "port=2"])
    }

    @Test func theServerIsToldToReadOnlyAndNotForLong() throws {
      #expect(try server("").options == "-c default_transaction_read_only=on -c statement_timeout=1500")
      #expect(try server("options='-c geqo=off'").options.hasSuffix("statement_timeout=1500 -c geqo=off"))
    }

    @Test(arguments: [
      "password=hush", "host=a password='hush'", "postgresql://u:hush@a/b", "passfile=hush", "sslpassword=hush",
      "password=x hush", "host=a,b port=1,2,3", "hostaddr=1,2 host=a", "host", "port=1,2",
    ])
    func whatIsRefused(_ text: String) {
      let error = #expect(throws: PostgreSQLServer.Failure.self) { try server(text) }
      #expect(error?.problem.contains("hush") == false)
    }
  }
#endif

#if MySQL
  struct MySQLServerTests {
    private func server(_ place: MySQLSettings.Place, timeout: UInt64 = 1_050_000_000) -> MySQLServer {
      MySQLServer(
        MySQLSettings(
          place: place, database: "mail", user: "proxyd", passwordFile: nil, tls: .off, query: "", connections: 1),
        password: nil, timeout: timeout)
    }

    @Test func theNameHasNoSecret() throws {
      let hosts = try ["db1", "db2:3307", "[2001:db8::1]:1"].map { try #require(HostPort($0)) }
      #expect(server(.hosts(hosts)).name == "mysql proxyd@db1:3306,db2:3307,[2001:db8::1]:1/mail")
      #expect(server(.socket("/run/s")).name == "mysql proxyd@/run/s/mail")
    }

    @Test func theServerIsToldToReadOnlyAndNotForLong() throws {
      let texts = server(.socket("/run/s")).options(.socket("/run/s")).compactMap { option in
        if case .text(_, let text) = option { text } else { nil }
      }
      #expect(
        texts == [
          "utf8mb4", "SET SESSION TRANSACTION READ ONLY",
          "SET autocommit = 1 /*M!100101 , max_statement_time = 1.050 */ /*!50708 , max_execution_time = 1050 */",
        ])
    }

    @Test(
      arguments: [
        (2_006, "HY000", .broken("x")), (2_013, "HY000", .broken("x")), (1_053, "08S01", .broken("x")),
        (1_927, "70100", .broken("x")), (1_146, "42S02", .refused("x (SQLSTATE 42S02)")),
        (1_366, "HY000", .refused("the query failed (SQLSTATE HY000)")),
        (1_969, "70100", .refused("x (SQLSTATE 70100)")),
      ] as [(UInt32, String, SQLFailure)])
    func failures(_ code: UInt32, _ state: String, _ failure: SQLFailure) {
      #expect(MySQLSession.failure(code: code, state: state, message: "x", isClear: false) == failure)
    }
  }
#endif

// swift-format-ignore-file: NeverForceUnwrap
// A test that unwraps nil fails, which is what it is for.

import Foundation
import Testing

@testable import Protocols
@testable import ProxyCore

private func query(_ user: String, _ mailProtocol: MailProtocol = .imap) -> RouteQuery {
  RouteQuery(user: Array(user.utf8), mailProtocol: mailProtocol)
}

private func found(_ backend: String, _ loginAs: String? = nil) -> SourceAnswer {
  SourceAnswer(backend, loginAs: loginAs.map { Array($0.utf8) })
}

struct SQLiteRoutesTests {
  private func map(_ folder: Folder) throws -> String {
    let file = folder.file("map.db")
    let map = try SQLiteMap(file, creating: true)
    try map.set(.init(name: .user("alice@example.com"), backend: "a"))
    try map.set(.init(name: .user("bob@example.com"), backend: "b", loginAs: "robert"))
    try map.set(.init(name: .domain("example.com"), backend: "c"))
    return file
  }

  @Test func usersBeatDomains() throws {
    let folder = try Folder()
    let routes = SQLiteRoutes(file: try map(folder), query: nil)
    #expect(routes.answer(query("alice@example.com")) == found("a"))
    #expect(routes.answer(query("ALICE@Example.COM")) == found("a"))
    #expect(routes.answer(query("bob@example.com")) == found("b", "robert"))
    #expect(routes.answer(query("carol@example.com")) == found("c"))
    #expect(routes.answer(query("x@y@example.com")) == found("c"))
    #expect(routes.answer(query("carol@example.org")) == .notFound)
    #expect(routes.answer(query("example.com")) == .notFound)
    #expect(routes.answer(query("")) == .notFound)
    #expect(routes.answer(query("@")) == .notFound)
    // Names are values, not SQL.
    #expect(routes.answer(query("' OR '1'='1")) == .notFound)
    #expect(routes.answer(query("%@example.org")) == .notFound)
  }

  @Test func aQueryOfTheOperators() throws {
    let folder = try Folder()
    let file = folder.file("own.db")
    try run(
      "sqlite3", file,
      "CREATE TABLE m(l, d, p, host, name); INSERT INTO m VALUES('al','x.org','pop3','mail:110','al.x')")
    let sql = "SELECT host, name FROM m WHERE l = :local AND d = :domain AND p = :protocol AND :login <> ''"
    let routes = SQLiteRoutes(file: file, query: sql)
    #expect(routes.check().problem == nil)
    #expect(routes.answer(query("al@x.org", .pop3)) == found("mail:110", "al.x"))
    #expect(routes.answer(query("al@x.org", .imap)) == .notFound)
  }

  @Test(arguments: [
    ("SELECT host FROM nowhere", "no such table"), ("SELECT 1; SELECT 2", "one SQL statement"),
    ("", "one SQL statement"),
    ("DELETE FROM m", "must be a SELECT"), ("SELECT 1 WHERE :user = 1", "parameter :user is unknown"),
    ("SELECT 1 WHERE ? = 1", "parameter ? is unknown"), ("SELEKT", "syntax error"),
  ])
  func aQueryThatCannotBeUsed(_ sql: String, _ problem: String) throws {
    let folder = try Folder()
    let file = folder.file("own.db")
    try run("sqlite3", file, "CREATE TABLE m(l)")
    let said = SQLiteRoutes(file: file, query: sql).check().problem ?? ""
    #expect(said.contains(problem), "\(said)")
  }

  @Test func aRowWithoutBackendIsAFailure() throws {
    let folder = try Folder()
    let file = folder.file("own.db")
    try run("sqlite3", file, "CREATE TABLE m(l, b); INSERT INTO m VALUES('a', NULL), ('b', '')")
    let routes = SQLiteRoutes(file: file, query: "SELECT b FROM m WHERE l = :login")
    for user in ["a", "b"] {
      guard case .failed = routes.answer(query(user)) else {
        Issue.record("not failed")
        return
      }
    }
  }

  @Test func committedChangesCountAtOnce() throws {
    let folder = try Folder()
    let file = try map(folder)
    let routes = SQLiteRoutes(file: file, query: nil)
    #expect(routes.answer(query("dave@example.org")) == .notFound)
    try run("sqlite3", file, "INSERT INTO users(login, backend) VALUES('dave@example.org', 'd')")
    #expect(routes.answer(query("dave@example.org")) == found("d"))
    try run("sqlite3", file, "DELETE FROM users WHERE login = 'dave@example.org'")
    #expect(routes.answer(query("dave@example.org")) == .notFound)
  }

  @Test func aReplacedFileCountsAtOnce() throws {
    let folder = try Folder()
    let file = folder.file("map.db")
    try run("sqlite3", file, SQLiteMap.schema, "INSERT INTO users(login, backend) VALUES('alice', 'a')")
    let routes = SQLiteRoutes(file: file, query: nil)
    #expect(routes.answer(query("alice")) == found("a"))
    let other = folder.file("other.db")
    try run("sqlite3", other, SQLiteMap.schema, "INSERT INTO users(login, backend) VALUES('alice', 'b')")
    #expect(rename(other, file) == 0)
    #expect(routes.answer(query("alice")) == found("b"))
  }

  @Test func aMissingFileIsAFailureUntilItIsThere() throws {
    let folder = try Folder()
    let routes = SQLiteRoutes(file: folder.file("map.db"), query: nil)
    guard case .failed = routes.answer(query("alice@example.com")) else {
      Issue.record("a missing file answered")
      return
    }
    _ = try map(folder)
    #expect(routes.answer(query("alice@example.com")) == found("a"))
    // And again when it goes.
    try FileManager.default.removeItem(atPath: folder.file("map.db"))
    guard case .failed = routes.answer(query("alice@example.com")) else {
      Issue.record("a removed file answered")
      return
    }
  }

  @Test(arguments: ["garbage", "", "SQLite format 3\0 and then garbage"])
  func aCorruptFileIsAFailure(_ content: String) throws {
    let folder = try Folder()
    let file = try map(folder)
    let routes = SQLiteRoutes(file: file, query: nil)
    #expect(routes.answer(query("alice@example.com")) == found("a"))
    let broken = try folder.write("broken", content + String(repeating: "x", count: content.isEmpty ? 0 : 9_000))
    for tail in ["-wal", "-shm"] { try? FileManager.default.removeItem(atPath: file + tail) }
    #expect(rename(broken, file) == 0)
    guard case .failed = routes.answer(query("alice@example.com")) else {
      Issue.record("a corrupt file answered")
      return
    }
  }

  @Test func aFileCutShortIsAFailureAndNoTrap() throws {
    let folder = try Folder()
    let file = folder.file("map.db")
    let rows =
      "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 20000) "
      + "INSERT INTO users(login, backend) SELECT 'user' || i, 'a' FROM n"
    try run("sqlite3", file, SQLiteMap.schema, rows)
    let routes = SQLiteRoutes(file: file, query: nil)
    #expect(routes.answer(query("user1")) == found("a"))
    #expect(truncate(file, 8_192) == 0)
    guard case .failed = routes.answer(query("user19999")) else {
      Issue.record("a file cut short answered")
      return
    }
  }

  @Test func aWriterThatHoldsTheFileIsBusyAndNotUnknown() throws {
    let folder = try Folder()
    let file = folder.file("map.db")
    try run("sqlite3", file, SQLiteMap.schema, "INSERT INTO users(login, backend) VALUES('alice', 'a')")
    let routes = SQLiteRoutes(file: file, query: nil)
    #expect(routes.answer(query("alice")) == found("a"))
    let writer = try SQLiteDatabase(file, .write)
    try writer.run("BEGIN EXCLUSIVE")
    #expect(routes.answer(query("alice")) == .busy)
    #expect(routes.answer(query("nobody")) == .busy)
    // Whoever checks meanwhile has no reason to complain.
    #expect(SQLiteRoutes(file: file, query: nil).check().problem == nil)
    try writer.run("COMMIT")
    #expect(routes.answer(query("alice")) == found("a"))
  }

  @Test func readersDoNotWaitForAWriterWithAWriteAheadLog() throws {
    let folder = try Folder()
    let file = try map(folder)
    let routes = SQLiteRoutes(file: file, query: nil)
    let writer = try SQLiteDatabase(file, .write)
    try writer.run("BEGIN IMMEDIATE; UPDATE users SET backend = 'z'")
    #expect(routes.answer(query("alice@example.com")) == found("a"))
    try writer.run("COMMIT")
    #expect(routes.answer(query("alice@example.com")) == found("z"))
  }

  @Test func capitalLettersAreWarnedOf() throws {
    let folder = try Folder()
    let file = try map(folder)
    #expect(SQLiteRoutes(file: file, query: nil).check().warning == nil)
    try run("sqlite3", file, "INSERT INTO users(login, backend) VALUES('Dave', 'd')")
    #expect(SQLiteRoutes(file: file, query: nil).check().warning?.contains("\"Dave\"") == true)
  }
}

struct SQLiteMapTests {
  @Test func rowsComeAndGo() throws {
    let folder = try Folder()
    let map = try SQLiteMap(folder.file("map.db"), creating: true)
    let alice = SQLiteMap.Row(name: .user("alice"), backend: "a", loginAs: "al")
    let domain = SQLiteMap.Row(name: .domain("example.com"), backend: "b")
    try map.set(domain)
    try map.set(SQLiteMap.Row(name: .user("alice"), backend: "z"))
    try map.set(alice)
    var rows: [SQLiteMap.Row] = []
    try map.list { rows.append($0) }
    #expect(rows == [domain, alice])
    rows = []
    try map.list(backend: "a") { rows.append($0) }
    #expect(rows == [alice])
    #expect(try map.get(.user("alice")) == alice)
    #expect(try map.get(.domain("alice")) == nil)
    #expect(try map.delete(.user("alice")))
    #expect(try !map.delete(.user("alice")))
    #expect(try map.get(.user("alice")) == nil)
  }

  @Test func allOrNothing() throws {
    struct Stop: Error {}
    let folder = try Folder()
    let map = try SQLiteMap(folder.file("map.db"), creating: true)
    try map.set(SQLiteMap.Row(name: .user("alice"), backend: "a"))
    let outcome = try map.atomically { () throws in
      try map.removeAll()
      throw Stop()
    }
    #expect(throws: Stop.self) { try outcome.get() }
    #expect(try map.get(.user("alice")) != nil)
  }

  @Test(arguments: [
    ("Alice@Example.com", SQLiteMap.Name.user("alice@example.com")), ("@Example.COM", .domain("example.com")),
    ("", nil), ("@", nil), ("a\nb", nil), ("grün", .user("grün")),
  ])
  func names(_ text: String, _ name: SQLiteMap.Name?) { #expect(SQLiteMap.Name(text) == name) }

  @Test func theSchemaIsTheDocumentedOne() throws {
    let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
      .deletingLastPathComponent()
    let text = try String(contentsOf: root.appending(path: "etc/schema.sql"), encoding: .utf8)
    func words(_ sql: String) -> [Substring] {
      sql.split(separator: "\n").filter { !$0.hasPrefix("--") }.joined(separator: " ").split { $0.isWhitespace }
    }
    #expect(words(text) == words(SQLiteMap.schema))
  }
}

struct RegexRoutesTests {
  private func routes(_ text: String) throws -> RegexRoutes {
    RegexRoutes(try RegexRules(text, file: "routes.re", key: "routes[0].regex"))
  }

  @Test func theFirstThatMatchesTheWholeNameWins() throws {
    let routes = try routes(
      """
      # Everybody of x.org.
      [^@]+@x\\.org: a

      \talias_(.*)@y\\.org:   $1@y.org@b   # the name there: with a colon
      (.)(.*)@z\\.org:\tmail-$1.example.net:143 # by letter
      v6: [2001:db8::1]:143
      whole: $0@c
      a: b: d
      (x)|(y)@opt: $1e$2
      dollar: $$1@e
      """)
    #expect(routes.answer(query("alice@x.org")) == found("a"))
    #expect(routes.answer(query("ALICE@X.ORG")) == found("a"))
    #expect(routes.answer(query("alice@x.org.evil")) == .notFound)
    #expect(routes.answer(query("evil alice@x.org\n")) == .notFound)
    #expect(routes.answer(query("alias_joe@y.org")) == found("b", "joe@y.org"))
    #expect(routes.answer(query("bob@z.org")) == found("mail-b.example.net:143"))
    #expect(routes.answer(query("v6")) == found("[2001:db8::1]:143"))
    #expect(routes.answer(query("whole")) == found("c", "whole"))
    #expect(routes.answer(query("a: b")) == found("d"))
    #expect(routes.answer(query("y@opt")) == found("ey"))
    #expect(routes.answer(query("dollar")) == found("e", "$1"))
    #expect(routes.answer(query("nobody")) == .notFound)
  }

  /// Perdition keeps what stands before a match: `flim: localhost` sends itsflim to itslocalhost.
  @Test func nothingBesideTheMatchIsKept() throws {
    #expect(try routes("flim: localhost").answer(query("itsflim")) == .notFound)
  }

  @Test(arguments: [
    ("a b", 1, 1, "PATTERN"), ("a:b", 1, 1, "PATTERN"), ("a: b c", 1, 1, "PATTERN"),
    ("ok: a\n\n(x: b", 3, 3, "parenthesis"),
    ("  [a: b", 1, 5, "]"), ("x: $1", 1, 4, "names group $1"), ("(x): $2@b", 1, 6, "names group $2"),
    ("x: @b", 1, 4, "[user@]"),
    ("x: a@", 1, 4, "[user@]"), ("x: # comment", 1, 1, "PATTERN"), (": b", 1, 1, ""),
  ])
  func faultsHaveAPlace(_ text: String, _ line: Int, _ column: Int, _ words: String) throws {
    do throws(SettingsErrors) {
      _ = try RegexRules(text, file: "routes.re", key: "k")
      #expect(words.isEmpty)
    } catch {
      let first = try #require(error.errors.first)
      #expect(first.place == .init(file: "routes.re", line: line, column: column), "\(text): \(first)")
      #expect(first.problem.contains(words), "\(first.problem)")
    }
  }

  /// To Swift "\r\n" is one character: a file from Windows once was a single line.
  @Test func linesEndWithLineFeedWithOrWithoutReturn() throws {
    #expect(TextFile.lines("a\r\nb\n\nc") == ["a", "b", "", "c"])
    let rules = try RegexRules("# from Windows\r\na: x\r\nb: y\r\n", file: "routes.re", key: "k")
    #expect(rules.rules.map(\.line) == [2, 3])
  }

  @Test func allFaultsAreTold() {
    #expect(throws: SettingsErrors.self) { try RegexRules("(: a\nx\n[: b", file: "f", key: "k") }
    do throws(SettingsErrors) { _ = try RegexRules("(: a\nx\n[: b", file: "f", key: "k") } catch {
      #expect(error.errors.compactMap(\.place?.line) == [1, 2, 3])
    }
  }

  /// Swift's own regular expressions took 58 seconds for twenty letters.
  @Test func aPatternThatTriesTooHardIsAFailure() throws {
    let routes = try routes("(a+)+$: a\n.*: b")
    let name = String(repeating: "a", count: 500) + "!"
    guard case .failed(let reason) = routes.answer(query(name)) else {
      Issue.record("not failed")
      return
    }
    #expect(reason.contains("line 1"))
  }

  @Test func serversOfClientsAreWarnedOf() throws {
    #expect(try RegexRules("(.*)@(.*): $2", file: "f", key: "k").warnings.count == 1)
    #expect(try RegexRules("(.*)@(.*): $1@$2", file: "f", key: "k").warnings.count == 1)
    #expect(try RegexRules("(.*)@(.*): $1@b", file: "f", key: "k").warnings.isEmpty)
  }

  @Test func tenThousandRulesAreRead() throws {
    let text = (0..<10_000).map { "user\($0)@x\\.org: a\($0)" }.joined(separator: "\n")
    let routes = try routes(text)
    #expect(routes.answer(query("user9999@x.org")) == found("a9999"))
  }
}

extension RouteTable {
  /// What the sources say that need not be waited for.
  fileprivate func find(_ user: String, _ mailProtocol: MailProtocol = .imap) -> RouteOutcome? {
    var search = search(RouteRequest(user: Array(user.utf8), mailProtocol: mailProtocol))
    let step = search.advance(now: 0, lookup: 0, password: [UInt8]().span) { _, _ in
      Issue.record("a source of this table waits for nobody")
    }
    if case .done(let outcome) = step { return outcome }
    return nil
  }
}

struct RouteTableTests {
  private func table(_ folder: Folder, _ routes: [RouteSettings]) throws -> RouteTable {
    let backends = [
      "a": BackendSettings(host: Host("192.0.2.1")!, ports: [.imap: 1_143]),
      "b": BackendSettings(host: Host("mail-b")!),
    ]
    return RouteTable(try RoutePlan(Settings(listeners: [], routes: routes, backends: backends)))
  }

  @Test func theFirstSourceThatKnowsWins() throws {
    let folder = try Folder()
    let file = folder.file("map.db")
    let map = try SQLiteMap(file, creating: true)
    try map.set(.init(name: .user("alice"), backend: "b"))
    try map.set(.init(name: .user("direct"), backend: "[::1]:999"))
    try map.set(.init(name: .user("odd"), backend: "no backend!"))
    let rules = try folder.write("routes.re", "alice: a\nbob: x@a\n")
    let table = try table(folder, [.sqlite(file: file, query: nil), .regex(file: rules), .fixed(backend: "a")])
    func route(_ user: String, _ mailProtocol: MailProtocol = .imap) -> Route? {
      if case .found(let route) = table.find(user, mailProtocol) { route } else { nil }
    }
    #expect(route("alice")?.backend.name == "b")
    #expect(route("alice")?.backend.port == 143)
    #expect(route("alice", .pop3)?.backend.port == 110)
    #expect(route("alice")?.source == "sqlite \(file)")
    #expect(route("bob")?.backend.port == 1_143)
    #expect(route("bob")?.loginAs == Array("x".utf8))
    #expect(route("direct")?.backend.name == "[::1]:999")
    #expect(route("carol")?.source == "default")
    guard case .failed(let source, _) = table.find("odd") else {
      Issue.record("a backend that is none was found")
      return
    }
    #expect(source == "sqlite \(file)")
  }

  /// Perdition sends everybody to the default when the map is down, and so to the wrong server.
  @Test func aSourceThatFailsIsNeverPassedOver() throws {
    let folder = try Folder()
    let file = folder.file("map.db")
    _ = try SQLiteMap(file, creating: true)
    let table = try table(folder, [.sqlite(file: file, query: nil), .fixed(backend: "a")])
    try FileManager.default.removeItem(atPath: file)
    guard case .failed = table.find("alice") else {
      Issue.record("the default answered for a map that is down")
      return
    }
  }

  @Test func nobodyKnowsTheUser() throws {
    let folder = try Folder()
    let rules = try folder.write("routes.re", "alice: a\n")
    #expect(try table(folder, [.regex(file: rules)]).find("bob") == .unknownUser)
  }

  @Test func sourcesThatCannotBeUsedAreToldTogether() throws {
    let folder = try Folder()
    let rules = try folder.write("routes.re", "(: a\n")
    let settings = Settings(
      listeners: [],
      routes: [
        .sqlite(file: folder.file("none"), query: nil), .regex(file: rules), .regex(file: "/none"),
        .fixed(backend: "z"),
      ],
      backends: [:])
    do throws(SettingsErrors) {
      _ = try RoutePlan(settings)
      Issue.record("all was well")
    } catch {
      #expect(
        error.errors.map(\.key) == ["routes[0].sqlite", "routes[1].regex", "routes[2].regex", "routes[3].default"])
    }
  }
}

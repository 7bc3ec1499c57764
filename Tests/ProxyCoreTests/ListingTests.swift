// swift-format-ignore-file: NeverForceUnwrap

import Testing

@testable import Protocols
@testable import ProxyCore

struct NamePatternTests {
  @Test(arguments: [
    ("alice", "alice", true), ("Alice", "aLICE", true), ("alice", "alice2", false), ("alice", "", false),
    ("*", "", true), ("*", "anybody", true), ("*@example.org", "x@Example.org", true),
    ("*@example.org", "example.org", false), ("a*b*c", "abc", true), ("a*b*c", "axxbyybc", true),
    ("a*b*c", "axxbyyb", false), ("?", "", false), ("?", "a", true), ("?b", "ab", true), ("*?", "", false),
    ("**", "x", true), ("", "", true), ("", "x", false), ("*a", "aab", false), ("grün", "grün", true),
  ])
  func names(_ pattern: String, _ name: String, _ fits: Bool) {
    #expect(NamePattern(pattern).matches(Array(name.utf8)) == fits)
  }

  /// What grows with the power of the stars in other matchers.
  @Test func manyStarsAreNoWork() {
    let pattern = NamePattern(String(repeating: "a*", count: 200) + "b")
    #expect(!pattern.matches(Array(repeating: 0x61, count: 1_000)))
  }
}

struct SessionListingTests {
  private func logIn(_ stage: LoopStage, _ server: TestServer, _ user: String) -> (client: Peer, backend: Peer) {
    let client = stage.connect()
    _ = client.hear("\r\n")
    client.send("a LOGIN \(user) secret\r\n")
    let backend = server.accept()
    backend.send("* OK [CAPABILITY IMAP4rev1] ready\r\n")
    _ = backend.hear("\r\n")
    backend.send("L OK in\r\n")
    _ = client.hear("a OK")
    return (client, backend)
  }

  private func rows(_ stage: LoopStage, _ filter: SessionFilter = SessionFilter()) -> [SessionRow] {
    var all: [SessionRow] = []
    #expect(
      stage.house.eachSession(filter) { rows in
        all += rows
        return true
      })
    return all
  }

  @Test func aRowTellsWhereASessionIs() throws {
    let server = TestServer()
    let stage = try LoopStage(.to(server.port))
    let (client, backend) = logIn(stage, server, "alice")
    client.send("b NOOP\r\n")
    _ = backend.hear("NOOP\r\n")
    stage.clock.advance(seconds: 7)
    let row = try #require(rows(stage).first)
    #expect(row.user == "alice")
    #expect(row.isLoggedIn)
    #expect(row.backend == "a")
    #expect(row.backendAddress == "127.0.0.1:\(server.port)")
    #expect(row.mailProtocol == .imap)
    #expect(row.doing == "relaying")
    #expect(row.age == Timeouts.seconds(7))
    #expect(row.idle == Timeouts.seconds(7))
    #expect(row.fromClient == 8)
    #expect(row.tls == nil)
    #expect(row.listener == "127.0.0.1:143")
    // The name is the one the log will have.
    client.close()
    backend.close()
    #expect(stage.sessionLine().contains("session=\(row.name) "))
    #expect(rows(stage).isEmpty)
  }

  @Test func tlsIsShown() throws {
    let folder = try Folder()
    let stage = try LoopStage(.to(1, certificate: try makeCertificate(folder)))
    let client = stage.connect(.imap, .implicit)
    let row = try #require(rows(stage).first)
    #expect(row.doing == "TLS handshake with the client")
    #expect(row.idle == nil)
    #expect(row.user == "")
    #expect(row.backend == nil)
    client.close()
  }

  @Test func filters() throws {
    let server = TestServer()
    let stage = try LoopStage(.to(server.port))
    let peers = ["alice", "bob"].map { logIn(stage, server, $0) }
    let stranger = stage.connect()
    _ = stranger.hear("\r\n")
    let name = rows(stage).first { $0.user == "bob" }!.name
    func users(_ change: (inout SessionFilter) -> Void) -> [String] {
      var filter = SessionFilter()
      change(&filter)
      #expect(!filter.isEmpty)
      return rows(stage, filter).map(\.user).sorted()
    }
    #expect(rows(stage).count == 3)
    #expect(SessionFilter().isEmpty)
    #expect(users { $0.user = NamePattern("ALICE") } == ["alice"])
    #expect(users { $0.user = NamePattern("*") } == ["", "alice", "bob"])
    #expect(users { $0.backend = "a" } == ["alice", "bob"])
    #expect(users { $0.backend = "A" } == [])
    #expect(users { $0.doing = "Relaying" } == ["alice", "bob"])
    #expect(users { $0.doing = "for a command" } == [""])
    #expect(users { $0.session = name } == ["bob"])
    #expect(users { $0.network = Network("0.0.0.0")! } == ["", "alice", "bob"])
    #expect(users { $0.network = Network("192.0.2.0/24")! } == [])
    #expect(
      users {
        $0.user = NamePattern("b*")
        $0.backend = "b"
      } == [])
    _ = peers
  }

  @Test func kickedByTheSameFilter() throws {
    let server = TestServer()
    let stage = try LoopStage(.to(server.port))
    let (alice, _) = logIn(stage, server, "alice")
    let (bob, bobs) = logIn(stage, server, "bob")
    var filter = SessionFilter()
    filter.user = NamePattern("alice")
    #expect(stage.house.kick(filter, .kick) == 1)
    #expect(alice.hearsClose())
    #expect(stage.house.kick(filter, .kick) == 0)
    #expect(stage.sessionLine().contains("end=kicked"))
    bob.send("b NOOP\r\n")
    _ = bobs.hear("NOOP\r\n")
  }

  /// One that is being told goodbye already is not ended again.
  @Test func whoLeavesIsNotKicked() throws {
    let stage = try LoopStage(.to(1))
    let client = stage.connect()
    _ = client.hear("\r\n")
    #expect(stage.house.kick(SessionFilter(), .kick) == 1)
    _ = client.hear("BYE")
    #expect(stage.doing() == "saying goodbye")
    #expect(stage.house.kick(SessionFilter(), .kick) == 0)
  }

  /// More than fit in a portion, and in a turn of kicks; free slots between.
  @Test func portions() throws {
    _ = Syscall.raiseDescriptorLimit()
    let stage = try LoopStage(.to(1), sessions: 2_500)
    var clients = (0..<2_300).map { _ in stage.connect() }
    for client in clients { _ = client.hear("\r\n") }
    var portions: [Int] = []
    var names: Set<String> = []
    #expect(
      stage.house.eachSession(SessionFilter()) { rows in
        portions.append(rows.count)
        names.formUnion(rows.map(\.name))
        return true
      })
    #expect(portions == [1_000, 1_000, 300])
    #expect(names.count == 2_300)
    // Whoever asks may stop.
    portions = []
    #expect(
      stage.house.eachSession(SessionFilter()) { rows in
        portions.append(rows.count)
        return false
      })
    #expect(portions == [1_000])
    clients.removeSubrange(500..<1_800)
    eventually("the others are gone") { stage.onLoop { $0.sessions.count } == 1_000 }
    portions = []
    #expect(
      stage.house.eachSession(SessionFilter()) { rows in
        portions.append(rows.count)
        return true
      })
    #expect(portions.reduce(0, +) == 1_000)
    #expect(portions.allSatisfy { $0 <= 1_000 })
    #expect(stage.house.kick(SessionFilter(), .kick) == 1_000)
    for client in clients { _ = client.hear("BYE") }
  }

  /// Between two portions the loop serves others.
  @Test func theLoopIsNotHeldUp() throws {
    _ = Syscall.raiseDescriptorLimit()
    let stage = try LoopStage(.to(1), sessions: 2_500)
    let clients = (0..<2_050).map { _ in stage.connect() }
    for client in clients { _ = client.hear("\r\n") }
    var answered = 0
    #expect(
      stage.house.eachSession(SessionFilter()) { _ in
        clients[0].send("a NOOP\r\n")
        _ = clients[0].hear("a OK")
        answered += 1
        return true
      })
    #expect(answered == 3)
  }

  @Test func aLoopThatHasEnded() throws {
    let stage = try LoopStage(.to(1))
    stage.onLoop { $0.end() }
    #expect(!stage.house.eachSession(SessionFilter()) { _ in true })
  }

  @Test func whoIsThere() throws {
    let server = TestServer()
    let stage = try LoopStage(.to(server.port))
    let peers = ["bob", "alice", "bob"].map { logIn(stage, server, $0) }
    let stranger = stage.connect()
    _ = stranger.hear("\r\n")
    let users = try #require(stage.house.users(SessionFilter()))
    #expect(users.map(\.user) == ["alice", "bob"])
    #expect(users.map(\.sessions) == [1, 2])
    #expect(users.map(\.backends) == [["a"], ["a"]])
    #expect(users[1].addresses == ["0.0.0.0"])
    #expect(users[1].protocols == [.imap])
    _ = peers
  }

  /// An accented letter and a letter with its accent behind it: one text to Swift, two users to a backend.
  @Test func twoUsersWhoLookAlike() throws {
    let server = TestServer()
    var settings = Settings.to(server.port)
    settings.sessionLimits.user = 1
    let stage = try LoopStage(settings)
    let peers = ["ren\u{E9}", "rene\u{301}"].map { logIn(stage, server, $0) }
    let users = try #require(stage.house.users(SessionFilter()))
    #expect(users.map(\.sessions) == [1, 1])
    _ = peers
  }
}

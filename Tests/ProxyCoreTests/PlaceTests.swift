// swift-format-ignore-file: NeverForceUnwrap
// A test that unwraps nil fails, which is what it is for.

import Foundation
import Glibc
import Testing

@testable import Protocols
@testable import ProxyCore

/// Sessions and their places, on a loop with played backends.
struct PlaceTests {
  private let greeting = "* OK [CAPABILITY IMAP4rev1] ready\r\n"

  private func settings(_ servers: [String: TestServer]) -> Settings {
    var settings = Settings(listeners: [], routes: [], backends: [:])
    for (name, server) in servers {
      settings.backends[name] = BackendSettings(
        host: Host("127.0.0.1")!, ports: [.imap: server.port, .pop3: server.port, .manageSieve: server.port])
    }
    return settings.pooled()
  }

  /// The backend's part of a login.
  private func welcome(_ server: TestServer, _ user: String = "alice") -> Peer {
    let backend = server.accept()
    backend.send(greeting)
    _ = backend.hear("L LOGIN \"\(user)\" \"secret\"\r\n")
    backend.send("L OK in\r\n")
    return backend
  }

  private func logIn(_ stage: LoopStage, _ user: String = "alice", _ mailProtocol: MailProtocol = .imap) -> Peer {
    let client = stage.connect(mailProtocol)
    switch mailProtocol {
    case .imap: client.send("a LOGIN \(user) secret\r\n")
    case .pop3: client.send("USER \(user)\r\nPASS secret\r\n")
    case .manageSieve: preconditionFailure("not played here")
    }
    return client
  }

  /// A member that greets and hangs up costs the login nothing but the next member.
  @Test func theNextMemberIsTried() throws {
    let servers = ["a": TestServer(), "b": TestServer()]
    let stage = try LoopStage(settings(servers))
    let first = try #require(stage.house.fleet.pool("mail")?.home(of: "alice"))
    let client = logIn(stage)
    let refused = try #require(servers[first]).accept()
    refused.send("* BYE overloaded\r\n")
    refused.close()
    let second = first == "a" ? "b" : "a"
    let backend = welcome(try #require(servers[second]))
    _ = client.hear("a OK in\r\n")
    backend.send("* here\r\n")
    _ = client.hear("* here\r\n")
    let line = try #require(stage.log().split(separator: "\n").first { $0.contains("event=next-member") })
    #expect(line.contains(" backend=\(first) "))
    #expect(line.contains(" failure=backend-greeting"))
    #expect(stage.house.fleet.standing(first)?.sessions == 0)
    #expect(stage.house.fleet.standing(second)?.sessions == 1)
    #expect(stage.house.fleet.standing(second)?.logins == 0)
    client.close()
    #expect(backend.hearsClose())
    backend.close()
    eventually("it is gone") { stage.house.fleet.standing(second)?.sessions == 0 }
    #expect(stage.house.fleet.pool("mail")?.sessions == 0)
  }

  /// A password is tried once: a backend that has heard it and goes is the last.
  @Test func noMemberIsTriedAfterThePassword() throws {
    let servers = ["a": TestServer(), "b": TestServer()]
    let stage = try LoopStage(settings(servers))
    let first = try #require(stage.house.fleet.pool("mail")?.home(of: "alice"))
    let client = logIn(stage)
    let backend = try #require(servers[first]).accept()
    backend.send(greeting)
    _ = backend.hear("secret\"\r\n")
    backend.close()
    _ = client.hear("a NO [UNAVAILABLE] Account is temporarily unavailable.\r\n")
    #expect(stage.house.fleet.standing(first)?.sessions == 0)
    client.close()
  }

  /// A member that has heard a password may let the user in after we have given it up: it counts as if the user had been
  /// there, so that the pause passes before another member. One that has refused does not.
  @Test func whoHeardThePasswordMayLetTheUserIn() throws {
    let servers = ["a": TestServer()]
    let directory = PlayedDirectory()
    directory.set(.at("a"))
    let stage = try LoopStage(settings(servers), directory: directory)
    /// A login up to the password.
    func begin(_ user: String) throws -> (client: Peer, backend: Peer) {
      let client = logIn(stage, user)
      let backend = try #require(servers["a"]).accept()
      backend.send(greeting)
      _ = backend.hear("secret\"\r\n")
      return (client, backend)
    }
    let closed = try begin("closed")
    closed.backend.close()
    _ = closed.client.hear("a NO [UNAVAILABLE] Account is temporarily unavailable.\r\n")
    let gone = try begin("gone")
    gone.client.close()
    #expect(gone.backend.hearsClose())
    let refused = try begin("refused")
    refused.backend.send("L NO [AUTHENTICATIONFAILED] no\r\n")
    _ = refused.client.hear("a NO [AUTHENTICATIONFAILED]")
    let unheard = logIn(stage, "unheard")
    let backend = try #require(servers["a"]).accept()
    unheard.close()
    #expect(backend.hearsClose())
    eventually("all have left") { directory.departed.count == 4 }
    #expect(Set(directory.departed) == ["closed!", "gone!", "refused", "unheard"])
    for peer in [closed.client, gone.backend, refused.client, refused.backend, backend] { peer.close() }
  }

  /// All protocols go where the first session is, whatever the ring would say by now.
  @Test func allSessionsAreTogether() throws {
    let servers = ["a": TestServer(), "b": TestServer()]
    let stage = try LoopStage(settings(servers))
    let pool = try #require(stage.house.fleet.pool("mail"))
    let first = try #require(pool.home(of: "alice"))
    let imap = logIn(stage, "Alice")
    let backend = welcome(try #require(servers[first]), "Alice")
    _ = imap.hear("a OK in\r\n")
    // No new users there; who is there stays.
    stage.house.fleet.setAdmin(first, .drain)
    #expect(pool.home(of: "alice") != first)
    let pop3 = logIn(stage, "ALICE", .pop3)
    let other = try #require(servers[first]).accept()
    other.send("+OK ready\r\n")
    _ = other.hear("USER ALICE\r\n")
    other.send("+OK\r\n")
    _ = other.hear("PASS secret\r\n")
    other.send("+OK in\r\n")
    _ = pop3.hear("+OK in\r\n")
    for peer in [imap, pop3, backend, other] { peer.close() }
    eventually("both are gone") { pool.residents?.count == 0 }
  }

  /// A member that loses many sessions at once has its clients let go bit by bit, from the twenty-first on.
  @Test func disconnectsAreSpread() throws {
    let server = TestServer(backlog: 64)
    var settings = settings(["a": server])
    settings.pools["mail"]?.spread = Timeouts.seconds(20)
    let stage = try LoopStage(settings)
    var pairs: [(client: Peer, backend: Peer)] = []
    for index in 0..<30 {
      let client = logIn(stage, "user\(index)")
      let backend = welcome(server, "user\(index)")
      _ = client.hear("a OK in\r\n")
      pairs.append((client, backend))
    }
    // One that says goodbye by itself is let go at once.
    pairs[0].backend.send("* BYE\r\n")
    pairs[0].backend.close()
    _ = pairs[0].client.hear("* BYE\r\n")
    #expect(pairs[0].client.hearsClose())
    for pair in pairs.dropFirst() { pair.backend.close() }
    // Their places are free meanwhile.
    eventually("ten are kept") {
      stage.onLoop { loop in loop.sessions.all.count { $0.doing == "saying goodbye" && $0.lease == nil } } == 10
    }
    // And they are nowhere: who of them has logged in again is at one backend. The others' clients have not closed yet.
    #expect(stage.house.users(SessionFilter())?.count == 20)
    // What they say meanwhile is for nobody, and one who goes may go.
    pairs[29].client.send("x NOOP\r\n")
    stage.advance(seconds: 21)
    for pair in pairs.dropFirst() {
      #expect(pair.client.hearsClose())
      pair.client.close()
    }
    pairs[0].client.close()
    eventually("all are gone") { stage.onLoop { $0.sessions.count } == 0 }
    let ends = stage.log().split(separator: "\n").compactMap { $0.split(separator: " ").first { $0.hasPrefix("end=") } }
    #expect(ends.count == 30)
    #expect(Set(ends) == ["end=backend-closed"])
  }

  /// The pool has a member more than the loop's routes know, as in the middle of a reload: it is where the pool says, and
  /// its name is not taken for a host's.
  @Test func aNewMemberIsKnownToItsPool() throws {
    let servers = ["a": TestServer(), "localhost": TestServer()]
    var all = settings(servers)
    var few = all
    few.backends["localhost"] = nil
    few.pools["mail"]?.members.removeAll { $0.backend == "localhost" }
    all.pools["mail"]?.members.removeAll { $0.backend == "a" }
    let stage = try LoopStage(few)
    stage.house.fleet.adopt(try FleetPlan(all, RoutePlan(all).backends))
    let client = logIn(stage)
    let backend = welcome(try #require(servers["localhost"]))
    _ = client.hear("a OK in\r\n")
    client.close()
    backend.close()
  }

  /// A login whose member is to be left goes on at another one, as long as the password was not said; then its client is
  /// told to come again.
  @Test func aLoginIsMovedUnnoticed() throws {
    let servers = ["a": TestServer(), "b": TestServer()]
    let directory = PlayedDirectory()
    let stage = try LoopStage(settings(servers), directory: directory)
    directory.set(.at("a"))
    let client = logIn(stage)
    let first = try #require(servers["a"]).accept()
    directory.set(.at("b"))
    directory.recall("alice")
    #expect(first.hearsClose())
    let second = try #require(servers["b"]).accept()
    second.send(greeting)
    _ = second.hear("secret\"\r\n")
    directory.recall("alice")
    _ = client.hear("* BYE Disconnected by the server; connect again.\r\n")
    #expect(second.hearsClose())
    eventually("it is gone") { stage.house.fleet.pool("mail")?.residents?.count == 0 }
    #expect(directory.departed == ["alice", "alice!"])
    #expect(stage.house.fleet.standing("a")?.sessions == 0)
    #expect(stage.house.fleet.standing("b")?.sessions == 0)
    for peer in [client, first, second] { peer.close() }
  }

  /// A login's member fails in the moment between the word that its user has to go and its arrival: the login goes on all
  /// the same.
  @Test func aMoveMeetsAFailure() throws {
    let servers = ["a": TestServer(), "b": TestServer()]
    let directory = PlayedDirectory()
    let stage = try LoopStage(settings(servers), directory: directory)
    directory.set(.at("a"))
    let client = logIn(stage)
    let first = try #require(servers["a"]).accept()
    directory.set(.at("b"))
    stage.onLoop { loop in
      directory.recall("alice")
      first.close()
      for session in loop.sessions.all { session.step(.backend, on: loop) }
    }
    let second = welcome(try #require(servers["b"]))
    _ = client.hear("a OK in\r\n")
    #expect(directory.departed == ["alice"])
    #expect(stage.house.fleet.standing("a")?.sessions == 0)
    #expect(stage.house.fleet.standing("a")?.logins == 0)
    #expect(stage.house.fleet.standing("b")?.sessions == 1)
    #expect(stage.log().contains("event=next-member"))
    for peer in [client, second] { peer.close() }
    eventually("it is gone") { stage.house.fleet.pool("mail")?.sessions == 0 }
  }

  /// A login by which its member is found to be lost does not stay for the user's other sessions there: they have to go, and
  /// it waits for that.
  @Test func whoFindsTheMemberLostGoesOn() throws {
    let servers = ["a": TestServer(), "b": TestServer()]
    var settings = settings(servers)
    settings.pools["mail"]?.balance = .affinity(affinity(.hash, pause: 0))
    for name in servers.keys { settings.backends[name]?.health.failedLogins = 2 }
    let stage = try LoopStage(settings)
    let home = try #require(stage.house.fleet.pool("mail")?.home(of: "alice"))
    let there = try #require(servers[home])
    let first = logIn(stage)
    let backend = welcome(there)
    _ = first.hear("a OK in\r\n")
    // The member is not lost by the first that fails, so that nobody has to go.
    let refused = logIn(stage)
    there.accept().close()
    _ = refused.hear("a NO [UNAVAILABLE]")
    let second = logIn(stage)
    there.accept().close()
    _ = first.hear("* BYE Disconnected by the server; connect again.\r\n")
    #expect(backend.hearsClose())
    let other = welcome(try #require(servers[home == "a" ? "b" : "a"]))
    _ = second.hear("a OK in\r\n")
    for peer in [first, backend, refused, second, other] { peer.close() }
    eventually("all are gone") { stage.house.fleet.pool("mail")?.residents?.count == 0 }
    #expect(stage.house.fleet.standings.allSatisfy { $0.sessions == 0 && $0.logins == 0 })
  }

  /// What the directory says may be old when it is heard: a member that is gone from the pool, or lost. It is asked again.
  @Test func anOldAnswerIsPassedOver() throws {
    let servers = ["a": TestServer(), "b": TestServer()]
    let directory = PlayedDirectory()
    let stage = try LoopStage(settings(servers), directory: directory)
    let clients = [logIn(stage), logIn(stage)]
    eventually("both wait") {
      stage.onLoop { $0.sessions.all.count { $0.doing.hasSuffix("a place at a backend") } == 2 }
    }
    directory.tell(.at("gone"))
    eventually("it is asked again") { directory.questions == ["alice"] }
    for _ in 0..<3 { stage.house.fleet.learn("a", .loginFailed("it is away")) }
    directory.tell(.at("a"))
    eventually("it is asked again") { directory.questions == ["alice"] }
    directory.set(.at("b"))
    directory.tell(.at("b"))
    let server = try #require(servers["b"])
    let backends = [welcome(server), welcome(server)]
    for client in clients { _ = client.hear("a OK in\r\n") }
    #expect(stage.house.fleet.standing("b")?.sessions == 2)
    for peer in clients + backends { peer.close() }
  }

  /// A pool that leaves the configuration and comes back knows who is there: a user's next session goes to the same member.
  @Test func aPoolThatComesBackKnowsItsUsers() throws {
    let servers = ["a": TestServer(), "b": TestServer()]
    let all = settings(servers)
    let stage = try LoopStage(all)
    let first = try #require(stage.house.fleet.pool("mail")?.home(of: "alice"))
    let client = logIn(stage)
    let backend = welcome(try #require(servers[first]))
    _ = client.hear("a OK in\r\n")
    var none = all
    none.pools = [:]
    stage.house.fleet.adopt(try FleetPlan(none, RoutePlan(all).backends))
    #expect(stage.house.fleet.pool("mail") == nil)
    var back = all
    for index in back.pools["mail"]!.members.indices where back.pools["mail"]!.members[index].backend == first {
      back.pools["mail"]!.members[index].weight = 0
    }
    stage.house.fleet.adopt(try FleetPlan(back, RoutePlan(back).backends))
    #expect(stage.house.fleet.pool("mail")?.home(of: "alice") != first)
    let other = logIn(stage)
    let beside = welcome(try #require(servers[first]))
    _ = other.hear("a OK in\r\n")
    #expect(stage.house.fleet.pool("mail")?.sessions == 2)
    for peer in [client, backend, other, beside] { peer.close() }
  }

  /// More logins than a member takes at once wait in line, and get in.
  @Test func loginsStandInLine() throws {
    let server = TestServer()
    var settings = settings(["a": server])
    settings.pools["mail"]?.members[0].logins = 1
    let stage = try LoopStage(settings)
    let first = logIn(stage, "alice")
    let backend = server.accept()
    let second = logIn(stage, "bob")
    eventually("the second waits") {
      stage.onLoop { loop in loop.sessions.all.contains { $0.doing == "waiting for a place at a backend" } }
    }
    backend.send(greeting)
    _ = backend.hear("secret\"\r\n")
    backend.send("L OK in\r\n")
    _ = first.hear("a OK in\r\n")
    let other = welcome(server, "bob")
    _ = second.hear("a OK in\r\n")
    for peer in [first, second, backend, other] { peer.close() }
  }

  /// A client that goes while it waits leaves nothing behind.
  @Test func whoWaitsMayGo() throws {
    let directory = PlayedDirectory()
    let stage = try LoopStage(settings(["a": TestServer()]), directory: directory)
    let client = logIn(stage)
    eventually("it waits") { directory.questions == ["alice"] }
    client.close()
    eventually("it is gone") { stage.onLoop { $0.sessions.count } == 0 }
    directory.tell(.at("a"))
    #expect(directory.departed == ["alice"])
  }

  /// Whoever tries a user's passwords takes none of the user's places: a session counts when it is let in. Of those that
  /// are let in at the same time, no more stay than may.
  @Test(arguments: [\SessionLimits.user, \.userAtAddress])
  func boundsCountWhoIsIn(_ limit: WritableKeyPath<SessionLimits, Int?> & Sendable) throws {
    let server = TestServer()
    var settings = settings(["a": server])
    settings.sessionLimits[keyPath: limit] = 1
    let stage = try LoopStage(settings)
    let stranger = logIn(stage)
    let tried = server.accept()
    tried.send(greeting)
    _ = tried.hear("secret\"\r\n")
    let late = logIn(stage)
    let lates = server.accept()
    lates.send(greeting)
    _ = lates.hear("secret\"\r\n")
    // The user is let in meanwhile.
    let client = logIn(stage)
    let backend = welcome(server)
    _ = client.hear("a OK in\r\n")
    tried.send("L NO [AUTHENTICATIONFAILED] no\r\n")
    _ = stranger.hear("a NO [AUTHENTICATIONFAILED] ")
    lates.send("L OK in\r\n")
    _ = late.hear("a NO [LIMIT] ")
    #expect(lates.hearsClose())
    // The next is refused without a backend.
    late.send("b LOGIN alice secret\r\n")
    _ = late.hear("b NO [LIMIT] ")
    let pool = try #require(stage.house.fleet.pool("mail"))
    #expect(pool.sessions == 1)
    client.close()
    backend.close()
    eventually("the place is free") { stage.onLoop { $0.sessions.count } == 2 }
    late.send("c LOGIN alice secret\r\n")
    let last = welcome(server)
    _ = late.hear("c OK in\r\n")
    for peer in [stranger, late, last] { peer.close() }
  }
}

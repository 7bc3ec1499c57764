// swift-format-ignore-file: NeverForceUnwrap
// A test that unwraps nil fails, which is what it is for.

import Foundation
import Glibc
import Testing

@testable import Protocols
@testable import ProxyCore

/// What reloads, operators, agents and backends' words make of sessions that are there.
struct FleetChangeTests {
  private let greeting = "* OK [CAPABILITY IMAP4rev1] ready\r\n"

  private func settings(_ servers: [String: TestServer], pause: UInt64 = 0) -> Settings {
    var settings = Settings(listeners: [], routes: [], backends: [:])
    for (name, server) in servers {
      settings.backends[name] = BackendSettings(
        host: Host("127.0.0.1")!, ports: [.imap: server.port, .pop3: server.port, .manageSieve: server.port])
    }
    return settings.pooled(.affinity(affinity(.hash, pause: pause)))
  }

  private func adopt(_ settings: Settings, _ stage: LoopStage) throws {
    stage.house.fleet.adopt(try FleetPlan(settings, RoutePlan(settings).backends))
  }

  private func logIn(_ stage: LoopStage, _ user: String) -> Peer {
    let client = stage.connect()
    client.send("a LOGIN \(user) secret\r\n")
    return client
  }

  /// The backend's part of a login, up to its answer.
  private func hear(_ server: TestServer, _ user: String) -> Peer {
    let backend = server.accept()
    backend.send(greeting)
    _ = backend.hear("L LOGIN \"\(user)\" \"secret\"\r\n")
    return backend
  }

  private func begin(_ stage: LoopStage, _ server: TestServer, _ user: String) -> (client: Peer, backend: Peer) {
    let client = logIn(stage, user)
    let backend = hear(server, user)
    backend.send("L OK in\r\n")
    _ = client.hear("a OK in\r\n")
    return (client, backend)
  }

  // MARK: Evictions

  /// Two sessions at a member whose users are moved one a second: nobody has gone yet when a test asks.
  private func slowlyEmptied() throws -> (stage: LoopStage, settings: Settings, peers: [Peer]) {
    let server = TestServer()
    var settings = settings(["a": server])
    settings.pools["mail"]?.moveRate = 1
    settings.pools["mail"]?.spread = Timeouts.seconds(3_600)
    settings.backends["a"]?.health.agent = 9
    let stage = try LoopStage(settings)
    let peers = ["alice", "bob"].map { begin(stage, server, $0) }.flatMap { [$0.client, $0.backend] }
    return (stage, settings, peers)
  }

  /// An agent that wanted maintenance is asked no more: nobody has to go any more. They would be let go and come back for
  /// ever.
  @Test func noAgentNoEviction() throws {
    let (stage, settings, peers) = try slowlyEmptied()
    let fleet = stage.house.fleet
    fleet.heard("a", AgentReport(.maintenance, share: nil))
    #expect(fleet.isEmptying("a"))
    var without = settings
    without.backends["a"]?.health.agent = nil
    try adopt(without, stage)
    #expect(fleet.standing("a")?.snapshot(at: 0).admin == .ready)
    #expect(!fleet.isEmptying("a"))
    for peer in peers { peer.close() }
  }

  /// What the operator says does not end what the agent wants, nor the other way round.
  @Test func theStricterWordEmpties() throws {
    let (stage, _, peers) = try slowlyEmptied()
    let fleet = stage.house.fleet
    fleet.heard("a", AgentReport(.maintenance, share: nil))
    fleet.setAdmin("a", .maintenance)
    fleet.setAdmin("a", .ready)
    #expect(fleet.isEmptying("a"))
    fleet.heard("a", AgentReport(.ready, share: nil))
    #expect(!fleet.isEmptying("a"))
    fleet.setAdmin("a", .maintenance)
    fleet.heard("a", AgentReport(.maintenance, share: nil))
    fleet.heard("a", AgentReport(.ready, share: nil))
    #expect(fleet.isEmptying("a"))
    for peer in peers { peer.close() }
  }

  /// The sessions of a lost member end within `spread`, whatever an operator makes of it meanwhile.
  @Test func aLostMemberIsEmptiedFurther() throws {
    let (stage, _, peers) = try slowlyEmptied()
    let fleet = stage.house.fleet
    for _ in 0..<3 { fleet.learn("a", .loginFailed("away")) }
    #expect(fleet.isEmptying("a"))
    fleet.setAdmin("a", .drain)
    fleet.setAdmin("a", .ready)
    #expect(fleet.isEmptying("a"))
    for peer in peers { peer.close() }
  }

  /// Two users a second are forgotten, not ten; and nobody who was moved elsewhere in the meantime.
  @Test func aFlushKeepsItsRateAndToItsMember() throws {
    let server = TestServer()
    var settings = settings(["a": server, "b": server])
    settings.pools["mail"]?.moveRate = 2
    let stage = try LoopStage(settings)
    let pool = try #require(stage.house.fleet.pool("mail"))
    let directory = try #require(pool.directory)
    let users = ["alice", "bob", "carol"]
    for user in users {
      #expect(directory.locate(user, PlaceQuestion(preferred: "a") { _ in true }, later: { _ in }) == .at("a"))
    }
    let began = Clock.monotonic.now
    #expect(pool.flush(member: "a")?.present == 3)
    func known() -> [String] { users.filter { directory.lookup($0) != nil } }
    eventually("one is forgotten") { known().count < 3 }
    usleep(200_000)
    let rest = known()
    // The first goes at once, and each further one half a second after.
    #expect(UInt64(3 - rest.count) <= 1 + (Clock.monotonic.now - began) / Timeouts.milliseconds(500))
    for user in rest { directory.move(user, to: "b") }
    usleep(1_100_000)
    #expect(rest.allSatisfy { directory.lookup($0)?.member == "b" })
  }

  // MARK: Reloads

  /// An agent said that it is down, and is asked no more. Nothing else would say that it is up, where nobody probes.
  @Test func noAgentNoLoss() throws {
    var settings = settings(["a": TestServer()])
    settings.backends["a"]?.health.agent = 9
    let stage = try LoopStage(settings)
    let fleet = stage.house.fleet
    fleet.learn("a", .agentDown("its agent says down"))
    #expect(fleet.standing("a")?.snapshot(at: stage.clock.now).takes == false)
    settings.backends["a"]?.health.agent = nil
    try adopt(settings, stage)
    #expect(fleet.standing("a")?.snapshot(at: stage.clock.now).takes == true)
    #expect(stage.log().contains("backend recovered"))
  }

  /// A backend that is taken out of the configuration and put back is as operators left it.
  @Test func aBackendComesBackAsItWas() throws {
    let all = settings(["a": TestServer(), "b": TestServer()])
    let stage = try LoopStage(all)
    let fleet = stage.house.fleet
    fleet.setAdmin("b", .removed)
    fleet.setWeight("b", 7)
    var few = all
    few.backends["b"] = nil
    few.pools["mail"]?.members.removeAll { $0.backend == "b" }
    try adopt(few, stage)
    #expect(fleet.standing("b") == nil)
    #expect(fleet.standings.map(\.name) == ["a"])
    #expect(fleet.setAdmin("b", .ready) == .unknownBackend)
    try adopt(all, stage)
    #expect(fleet.standing("b")?.admin == .removed)
    #expect(fleet.standing("b")?.weight == 7)
  }

  /// A pool that is taken out of the configuration and put back knows its users.
  @Test func aPoolComesBackWithItsUsers() throws {
    let servers = ["a": TestServer(), "b": TestServer()]
    let settings = settings(servers)
    let stage = try LoopStage(settings)
    let home = try #require(stage.house.fleet.pool("mail")?.home(of: "alice"))
    let first = begin(stage, servers[home]!, "alice")
    var without = settings
    without.pools = [:]
    without.routes = [.fixed(backend: "a")]
    try adopt(without, stage)
    #expect(stage.house.fleet.pool("mail") == nil)
    let warning = stage.log().split(separator: "\n").first { $0.contains("a pool is gone that has sessions") }
    #expect(warning?.contains(" pool=mail ") == true && warning?.contains(" sessions=1") == true, "\(stage.log())")
    try adopt(settings, stage)
    // The ring would have the user elsewhere by now.
    stage.house.fleet.setAdmin(home, .drain)
    let second = begin(stage, servers[home]!, "alice")
    for peer in [first.client, first.backend, second.client, second.backend] { peer.close() }
  }

  /// A member gets another address. Whoever has sessions at the old one leaves it before there are some at the new one.
  @Test func aMemberIsAnotherServer() throws {
    let (old, new) = (TestServer(), TestServer())
    let stage = try LoopStage(settings(["a": old]))
    let first = begin(stage, old, "alice")
    let other = begin(stage, old, "bob")
    try adopt(settings(["a": old]), stage)
    let second = begin(stage, old, "alice")
    try adopt(settings(["a": new]), stage)
    let client = logIn(stage, "alice")
    for peer in [first, second] {
      _ = peer.client.hear("* BYE Disconnected by the server; connect again.\r\n")
      #expect(peer.backend.hearsClose())
    }
    let backend = hear(new, "alice")
    backend.send("L OK in\r\n")
    _ = client.hear("a OK in\r\n")
    let next = begin(stage, new, "alice")
    other.backend.send("* here still\r\n")
    _ = other.client.hear("* here still\r\n")
    let all = [first, second, other, next, (client, backend)].flatMap { [$0.0, $0.1] }
    for peer in all { peer.close() }
  }

  /// A weight and a reload at the same time: what the configuration says holds in the end.
  @Test func aWeightAndAReload() throws {
    var settings = settings(["a": TestServer(), "b": TestServer()])
    let stage = try LoopStage(settings)
    let fleet = stage.house.fleet
    for round in 1...200 {
      settings.pools["mail"]?.sessions = round
      let plan = try FleetPlan(settings, RoutePlan(settings).backends)
      DispatchQueue.concurrentPerform(iterations: 2) { index in
        if index == 0 { fleet.setWeight("a", round) } else { fleet.adopt(plan) }
      }
      #expect(fleet.pool("mail")?.settings.sessions == round)
      #expect(fleet.pool("mail")?.plan.members[0].weight == round)
    }
  }

  /// A large ring takes its time to be made; logins meanwhile ask the fleet, and are answered.
  @Test func noLoginWaitsForARing() throws {
    var settings = Settings(listeners: [], routes: [], backends: [:])
    for number in 0..<130 {
      settings.backends["m\(number)"] = BackendSettings(host: Host("127.0.0.1")!, ports: [.imap: 143])
    }
    settings = settings.pooled()
    let stage = try LoopStage(settings)
    let fleet = stage.house.fleet
    let plan = try FleetPlan(settings, RoutePlan(settings).backends)
    // Who waits does so each time; who is only held up by a busy machine is not held up five times.
    let wasHeldUp = (0..<5).allSatisfy { _ in
      let isDone = Shared(false)
      let began = Clock.monotonic.now
      DispatchQueue.global().async {
        fleet.adopt(plan)
        isDone.withLock { $0 = true }
      }
      var longest: UInt64 = 0
      while !isDone.value {
        let before = Clock.monotonic.now
        _ = fleet.standing("m1")
        _ = fleet.pool("mail")
        longest = max(longest, Clock.monotonic.now - before)
        usleep(200)
      }
      return longest >= (Clock.monotonic.now - began) / 2
    }
    #expect(!wasHeldUp)
  }

  // MARK: Referrals

  /// A member sends the user to another one: all of the user's sessions go there, and not one of them.
  @Test func aReferralTakesAllSessionsWithIt() throws {
    let servers = ["a": TestServer(), "b": TestServer()]
    let stage = try LoopStage(settings(servers))
    let pool = try #require(stage.house.fleet.pool("mail"))
    let home = try #require(pool.home(of: "alice"))
    let there = home == "a" ? "b" : "a"
    let first = begin(stage, servers[home]!, "alice")
    let client = logIn(stage, "alice")
    let referring = hear(servers[home]!, "alice")
    referring.send("L NO [REFERRAL imap://alice@127.0.0.1:\(servers[there]!.port)/] go there\r\n")
    _ = first.client.hear("* BYE Disconnected by the server; connect again.\r\n")
    #expect(first.backend.hearsClose())
    let backend = hear(servers[there]!, "alice")
    #expect(pool.residents?.member(of: UserKey("alice")) == there)
    backend.send("L OK in\r\n")
    _ = client.hear("a OK in\r\n")
    let second = begin(stage, servers[there]!, "alice")
    eventually("one has left") { stage.house.fleet.standing(home)?.sessions == 0 }
    #expect(stage.house.fleet.standing(there)?.sessions == 2)
    let peers = [first.client, first.backend, referring, client, backend, second.client, second.backend]
    for peer in peers { peer.close() }
    eventually("all are gone") { pool.sessions == 0 && pool.residents?.count == 0 }
    #expect(stage.house.fleet.standing(there)?.logins == 0)
  }

  /// A referral to where nobody is to be is the client's to follow.
  @Test func nobodyIsReferredToMaintenance() throws {
    let servers = ["a": TestServer(), "b": TestServer()]
    var settings = settings(servers)
    settings.routes = [.fixed(backend: "a")]
    settings.pools = [:]
    let stage = try LoopStage(settings)
    stage.house.fleet.setAdmin("b", .maintenance)
    let client = logIn(stage, "alice")
    let backend = hear(servers["a"]!, "alice")
    backend.send("L NO [REFERRAL imap://127.0.0.1:\(servers["b"]!.port)/] go there\r\n")
    _ = client.hear("a NO [REFERRAL imap://127.0.0.1:\(servers["b"]!.port)/] go there\r\n")
    for peer in [client, backend] { peer.close() }
  }

  // MARK: Evidence

  /// One user's broken mailbox, whose client comes again and again, does not take the member from the others.
  @Test func aUserIsOneWitness() {
    var settings = HealthSettings()
    settings.refusedLogins = 2
    var health = Health(settings)
    for second in 0..<10 {
      #expect(health.learn(.loginRefused("unavailable", of: 1), at: Timeouts.seconds(UInt64(second))) == nil)
      #expect(health.learn(.loginFailed("backend-closed", of: 1), at: Timeouts.seconds(UInt64(second))) == nil)
    }
    #expect(health.learn(.loginRefused("unavailable", of: 2), at: Timeouts.seconds(20)) == .lost("unavailable"))
    // Who could not reach it is no witness of a mailbox.
    health = Health(settings)
    #expect(health.learn(.loginFailed("refused"), at: 0) == nil)
    #expect(health.learn(.loginFailed("refused"), at: 1) == nil)
    #expect(health.learn(.loginFailed("refused"), at: 2) == .lost("refused"))
    // What was long ago counts no more, whosever it was.
    health = Health(settings)
    #expect(health.learn(.loginRefused("unavailable", of: 1), at: 0) == nil)
    #expect(health.learn(.loginRefused("unavailable", of: 2), at: Health.memory + 1) == nil)
    #expect(health.learn(.loginRefused("unavailable", of: 1), at: Health.memory + 2) == .lost("unavailable"))
  }

  /// A backend that refuses users for what is their own affair is well; one that can't serve is doubted, and lost when it
  /// can't serve several.
  @Test func onlyTheServersOwnLackIsEvidence() throws {
    let server = TestServer()
    var settings = settings(["a": server])
    settings.backends["a"]?.health.refusedLogins = 2
    settings.backends["a"]?.health.failedLogins = 2
    let stage = try LoopStage(settings)
    let standing = try #require(stage.house.fleet.standing("a"))
    func refuse(_ user: String, _ answer: String?) {
      let client = logIn(stage, user)
      let backend = hear(server, user)
      if let answer { backend.send("L NO \(answer)\r\n") }
      backend.close()
      _ = client.hear("a NO ")
      client.close()
    }
    for code in ["IN-USE", "LIMIT", "AUTHENTICATIONFAILED", "X"] {
      for user in ["u1", "u2", "u3"] { refuse(user, "[\(code)] no") }
    }
    #expect(standing.snapshot(at: 0).health == .up)
    // Several programs may write the name in several ways.
    for user in ["u1", "u1", "U1", "U1"] {
      refuse(user, "[UNAVAILABLE] broken mailbox")
      refuse(user, nil)
    }
    #expect(!standing.snapshot(at: 0).health.isDown)
    refuse("u2", "[UNAVAILABLE] no storage")
    #expect(standing.snapshot(at: 0).health.isDown)
  }

  /// Dovecot closes after a long password, and a password may be anybody's: three strangers must not take the member from
  /// all. Who says what every server takes is a witness.
  @Test(arguments: [
    (String(repeating: "x", count: 1_000), false), ("s\u{E9}cret", false), ("\u{1}", false), ("secret", true),
  ])
  func whatAnybodyCanBringAboutIsNoEvidence(_ password: String, _ isEvidence: Bool) throws {
    let server = TestServer()
    var settings = settings(["a": server])
    settings.backends["a"]?.health.failedLogins = 2
    let stage = try LoopStage(settings)
    let standing = try #require(stage.house.fleet.standing("a"))
    for user in ["u1", "u2"] {
      let client = stage.connect()
      client.send("a LOGIN \(user) {\(password.utf8.count)+}\r\n\(password)\r\n")
      let backend = server.accept()
      backend.send("* OK [CAPABILITY IMAP4rev1 LITERAL+ SASL-IR AUTH=PLAIN] ready\r\n")
      _ = backend.hear("\r\n")
      backend.close()
      _ = client.hear("a NO ")
      client.close()
    }
    #expect(standing.snapshot(at: 0).health.isDown == isEvidence)
  }

  /// A trial at a lost member is over with such a login too: the next does not wait a minute for its outcome.
  @Test func aTrialOfAnybodysIsOver() throws {
    let server = TestServer()
    var settings = settings(["a": server])
    settings.backends["a"]?.health.isProbed = false
    settings.backends["a"]?.health.failedLogins = 1
    let stage = try LoopStage(settings)
    func fail(_ password: String) {
      let client = stage.connect()
      client.send("a LOGIN alice \(password)\r\n")
      let backend = server.accept()
      backend.send(greeting)
      _ = backend.hear("\r\n")
      backend.close()
      _ = client.hear("a NO ")
      client.close()
    }
    fail("secret")
    #expect(stage.house.fleet.standing("a")?.snapshot(at: 0).health.isDown == true)
    stage.advance(seconds: 11)
    fail(String(repeating: "x", count: 200))
    stage.advance(seconds: 21)
    fail("secret")
  }
}

// swift-format-ignore-file: NeverForceUnwrap
// A test that unwraps nil fails, which is what it is for.

import Foundation
import Glibc
import Testing

@testable import Protocols
@testable import ProxyCore

/// What probes leave in the counters.
struct ProbeMeterTests {
  @Test func probesAreCounted() throws {
    let server = TestServer()
    let stage = ProbeStage()
    let before = WallTime.second
    let meter = try stage.add([.imap: server.port]) { $0.fall = 9 }.meter
    #expect(meter.lastProbe == nil)
    for _ in 0..<2 { playVisit(server.accept(), .imap) }
    server.accept().send("* BYE busy\r\n")
    eventually("all are told") { stage.evidence().count == 3 }
    #expect(meter.probes.value == 3)
    #expect(meter.failedProbes.value == 1)
    #expect(meter.voidProbes.value == 0)
    #expect(meter.probeTimes.reading.count == 3)
    #expect(meter.probeTimes.reading.sum > 0)
    #expect(try #require(meter.lastProbe) >= before)
    #expect(meter.losses.value == 0)
  }

  /// One that the proxy itself could not make is no failure.
  @Test func probesOfWhichNothingIsLearned() {
    let meter = StandingMeter()
    meter.count(nil, took: 7, at: 1)
    meter.count(.probeSucceeded, took: 8, at: 2)
    meter.count(.probeFailed("played"), took: 9, at: 3)
    #expect((meter.probes.value, meter.failedProbes.value, meter.voidProbes.value) == (3, 1, 1))
    #expect(meter.probeTimes.reading.sum == 24)
    #expect(meter.lastProbe == 3)
  }

  @Test func agentsAreCounted() throws {
    let server = TestServer()
    let stage = ProbeStage()
    let silent = try stage.add([.imap: closedPort()], named: "silent") {
      $0.isProbed = false
      $0.agent = closedPort()
    }
    let standing = try stage.add([.imap: closedPort()]) {
      $0.isProbed = false
      $0.agent = server.port
    }
    let agent = server.accept()
    agent.send("up\n")
    agent.close()
    eventually("both were asked") {
      standing.meter.agentChecks.value > 0 && silent.meter.failedAgentChecks.value > 0
    }
    #expect(standing.meter.failedAgentChecks.value == 0)
    #expect(standing.meter.probes.value == 0)
  }

  /// Only what changes is counted, by whomever it is learned.
  @Test func lossesAndRecoveries() {
    var settings = HealthSettings()
    settings.fall = 2
    settings.rise = 2
    let standing = BackendStanding("a", settings)
    for second in 0..<4 { _ = standing.learn(.probeFailed("played"), at: Timeouts.seconds(UInt64(second))) }
    #expect((standing.meter.losses.value, standing.meter.recoveries.value) == (1, 0))
    for second in 4..<9 { _ = standing.learn(.probeSucceeded, at: Timeouts.seconds(UInt64(second))) }
    #expect((standing.meter.losses.value, standing.meter.recoveries.value) == (1, 1))
    #expect(standing.meter.probes.value == 0)
    // An agent that said down, and is asked no more.
    settings.agent = 1
    _ = standing.adopt(settings, at: Timeouts.seconds(9))
    _ = standing.learn(.agentDown("played"), at: Timeouts.seconds(9))
    #expect(standing.meter.losses.value == 2)
    settings.agent = nil
    _ = standing.adopt(settings, at: Timeouts.seconds(9))
    #expect(standing.meter.recoveries.value == 2)
  }
}

/// What is counted of who has to go and who has to wait.
struct FleetMeterTests {
  private func logIn(_ stage: LoopStage, _ server: TestServer, _ user: String = "alice") -> (
    client: Peer, backend: Peer
  ) {
    let client = ask(stage, user)
    let backend = server.accept()
    backend.send("* OK [CAPABILITY IMAP4rev1] ready\r\n")
    _ = backend.hear("\r\n")
    backend.send("L OK in\r\n")
    _ = client.hear("a OK in\r\n")
    return (client, backend)
  }

  private func ask(_ stage: LoopStage, _ user: String = "alice") -> Peer {
    let client = stage.connect()
    client.send("a LOGIN \(user) secret\r\n")
    return client
  }

  /// What was counted, as `name value`.
  private func counted<Case: RawRepresentable>(_ counters: CaseCounters<Case>) -> [String]
  where Case.RawValue == String {
    counters.counted.map { "\($0.one.rawValue) \($0.count)" }
  }

  /// Every way a session is ended by a decision, by what was decided.
  @Test(arguments: Eviction.allCases)
  func evictions(_ eviction: Eviction) throws {
    let server = TestServer()
    var settings = Settings.to(server.port).pooled()
    if eviction == .spread { settings.pools["mail"]?.spread = Timeouts.milliseconds(200) }
    let stage = try LoopStage(settings)
    let (client, backend) = logIn(stage, server)
    let fleet = stage.house.fleet
    var peers = [client, backend]
    switch eviction {
    case .kick: #expect(stage.house.kick(SessionFilter(), .kick) == 1)
    case .move: #expect(try #require(fleet.pool("mail")).forget("alice") == .done)
    case .maintenance: fleet.setAdmin("a", .maintenance)
    case .spread: for _ in 0..<3 { fleet.learn("a", .loginFailed("played")) }
    case .lost:
      for _ in 0..<3 { fleet.learn("a", .loginFailed("played")) }
      peers.append(ask(stage))
    }
    #expect(client.hearsClose())
    let evictions = stage.house.meters.evictions
    eventually("it is counted") { counted(evictions) == ["\(eviction.rawValue) 1"] }
    #expect(stage.house.meters.ends[eviction.reason] == 1)
    for peer in peers { peer.close() }
  }

  /// A login that goes elsewhere is not ended, and whoever is on the way out is not ended twice.
  @Test func whoIsNotEvicted() throws {
    let servers = ["a": TestServer(), "b": TestServer()]
    var settings = Settings(listeners: [], routes: [], backends: [:])
    for (name, server) in servers {
      settings.backends[name] = BackendSettings(host: Host("127.0.0.1")!, ports: [.imap: server.port])
    }
    let stage = try LoopStage(settings.pooled())
    let first = try #require(stage.house.fleet.pool("mail")?.home(of: "alice"))
    let client = ask(stage)
    let left = try #require(servers[first]).accept()
    stage.kickAll(.move)
    #expect(left.hearsClose())
    let stays = try #require(servers[first]).accept()
    stage.kickAll(.kick)
    stage.kickAll(.kick)
    _ = client.hear("* BYE")
    stage.onLoop { _ in }
    #expect(counted(stage.house.meters.evictions) == ["kick 1"])
    for peer in [client, left, stays] { peer.close() }
  }

  /// A login that is woken and waits on is counted once.
  @Test func waitsForAPlace() throws {
    let directory = PlayedDirectory()
    let server = TestServer()
    let stage = try LoopStage(Settings.to(server.port).pooled(), directory: directory)
    let pool = try #require(stage.house.fleet.pool("mail"))
    let client = ask(stage)
    eventually("it waits") { stage.doing() == "waiting for a place at a backend" }
    for _ in 0..<3 {
      let handles = stage.onLoop { loop in loop.sessions.all.map { SessionHandle(loop: 0, token: $0.token) } }
      for handle in handles { stage.house.wake(handle) }
    }
    stage.onLoop { _ in }
    #expect(counted(pool.meter.waits) == ["place 1"])
    #expect(counted(pool.meter.expired) == [])
    stage.advance(seconds: 31)
    _ = client.hear("a NO [UNAVAILABLE]")
    #expect(counted(pool.meter.waits) == ["place 1"])
    #expect(counted(pool.meter.expired) == ["place 1"])
    client.close()
  }

  @Test func waitsForOldSessions() throws {
    let server = TestServer()
    let stage = try LoopStage(Settings.to(server.port).pooled())
    let (client, backend) = logIn(stage, server)
    for _ in 0..<3 { stage.house.fleet.learn("a", .loginFailed("played")) }
    let second = ask(stage)
    #expect(client.hearsClose())
    _ = second.hear("a NO [UNAVAILABLE]")
    #expect(counted(try #require(stage.house.fleet.pool("mail")).meter.waits) == ["place 1"])
    for peer in [client, backend, second] { peer.close() }
  }

  @Test(arguments: [LoginWait.poolLogins, .memberLogins])
  func waitsAtGates(_ wait: LoginWait) throws {
    let server = TestServer()
    var settings = Settings.to(server.port).pooled()
    if wait == .poolLogins {
      settings.pools["mail"]?.logins = 1
    } else {
      settings.pools["mail"]?.members[0].logins = 1
    }
    let stage = try LoopStage(settings)
    let pool = try #require(stage.house.fleet.pool("mail"))
    let first = ask(stage, "alice")
    let backend = server.accept()
    let second = ask(stage, "bob")
    eventually("it waits") { counted(pool.meter.waits) == ["\(wait.rawValue) 1"] }
    // The first one's wait for the backend began earlier; the second one's for its turn is over with it.
    backend.close()
    _ = first.hear("a NO [UNAVAILABLE]")
    let other = server.accept()
    #expect(counted(pool.meter.waits) == ["\(wait.rawValue) 1"])
    #expect(counted(pool.meter.expired) == [])
    for peer in [first, second, other] { peer.close() }
  }

  /// A gate that nobody leaves: the login's time is counted by what it waited for.
  @Test func expiryAtAGate() throws {
    let directory = PlayedDirectory()
    directory.set(.at("a"))
    var settings = Settings.to(TestServer().port).pooled()
    settings.pools["mail"]?.logins = 1
    let stage = try LoopStage(settings, directory: directory)
    let pool = try #require(stage.house.fleet.pool("mail"))
    func claim(_ user: String, _ index: Int) -> Claim {
      Claim(user: user, tag: nil, handle: SessionHandle(loop: 9, token: Token(.client, index: index, generation: 0)))
    }
    var (inside, outside) = (claim("alice", 1), claim("bob", 2))
    guard case .at = pool.advance(&inside), case .waits = pool.advance(&outside), case .waits = pool.advance(&outside)
    else {
      Issue.record("the gate is no gate")
      return
    }
    pool.expire(outside)
    pool.expire(inside)
    #expect(counted(pool.meter.waits) == ["pool-logins 1"])
    #expect(counted(pool.meter.expired) == ["pool-logins 1"])
    pool.release(&outside)
    pool.release(&inside)
  }

  @Test func pausesAreCounted() throws {
    let played = PlayedTime()
    let directory = try LocalDirectory(pool: "mail", affinity(.hash), time: played.time)
    #expect(directory.placeNow("alice", .to("a")) == .at("a"))
    directory.depart("alice", wasThere: true)
    // Where she was she is again at once.
    #expect(directory.placeNow("alice", .to("a")) == .at("a"))
    directory.depart("alice", wasThere: true)
    #expect(directory.pauses == 0)
    let answers = Answers()
    #expect(directory.locate("alice", .to("b", but: "a")) { answers.take($0) } == nil)
    #expect(directory.pauses == 1)
    played.advance(seconds: 3)
    #expect(answers.next() == .at("b"))
    #expect(directory.pauses == 1)
  }

  /// The fleet's part of the list, with names and labels that stay.
  @Test func metricsAreNamed() throws {
    let server = TestServer()
    let settings = Settings.to(server.port).pooled()
    let stage = try LoopStage(settings)
    let fleet = stage.house.fleet
    try fleet.open(stage.folder.file("state.db"), for: FleetPlan(settings, RoutePlan(settings).backends))
    defer { fleet.close() }
    let standing = try #require(fleet.standing("a"))
    standing.meter.count(.probeFailed("played"), took: 1, at: 1_800_000_000)
    standing.meter.agentChecks.add(3)
    standing.meter.failedAgentChecks.add(2)
    let (client, backend) = logIn(stage, server)
    for _ in 0..<3 { fleet.learn("a", .loginFailed("played")) }
    fleet.setAdmin("a", .drain)
    let pool = try #require(fleet.pool("mail"))
    pool.meter.waits.add(.place)
    pool.meter.expired.add(.memberLogins)
    stage.house.meters.evictions.add(.spread)
    let lines = stage.house.metrics([]).map { metric in
      let labels = metric.labels.map { "\($0.name)=\($0.value)" }.joined(separator: ",")
      return switch metric.value {
      case .counter(let number): "\(metric.name){\(labels)} \(number)"
      case .gauge(let number): "\(metric.name){\(labels)} \(number) now"
      case .times(let reading): "\(metric.name){\(labels)} \(reading.count) times"
      }
    }
    for line in [
      "proxyd_session_evictions_total{reason=spread} 1", "proxyd_backend_up{backend=a} 0 now",
      "proxyd_backend_losses_total{backend=a} 1", "proxyd_backend_recoveries_total{backend=a} 0",
      "proxyd_backend_probes_total{backend=a} 1", "proxyd_backend_failed_probes_total{backend=a} 1",
      "proxyd_backend_void_probes_total{backend=a} 0", "proxyd_backend_agent_checks_total{backend=a} 3",
      "proxyd_backend_failed_agent_checks_total{backend=a} 2",
      "proxyd_backend_last_probe_timestamp_seconds{backend=a} 1800000000 now",
      "proxyd_backend_probe_seconds{backend=a} 1 times", "proxyd_pool_sessions{pool=mail} 1 now",
      "proxyd_pool_users{pool=mail} 1 now", "proxyd_pool_pauses_total{pool=mail} 0",
      "proxyd_pool_waits_total{pool=mail,reason=place} 1",
      "proxyd_pool_expired_waits_total{pool=mail,reason=member-logins} 1", "proxyd_state_file_rows_total{} 1",
      "proxyd_state_file_batches_total{} 1", "proxyd_state_file_failures_total{} 0",
      "proxyd_state_file_stalls_total{} 0", "proxyd_state_file_trusted{} 1 now",
      "proxyd_state_file_batch_seconds{} 1 times",
    ] {
      #expect(lines.contains(line), "\(line) of \(lines)")
    }
    #expect(Set(lines).count == lines.count)
    for peer in [client, backend] { peer.close() }
  }
}

/// What the state file's writer leaves in the counters.
extension DurableDirectoryTests {
  @Test func whatIsWrittenIsCounted() throws {
    let file = try open()
    defer { file.close() }
    let directory = try directory(file)
    let meter = file.meter
    #expect(file.lack == nil)
    for user in ["alice", "bob", "carol"] { #expect(directory.place(user, .to("a")) == .at("a")) }
    #expect(file.save(BackendRow(name: "a", state: .drain, weight: nil, since: 1)) == nil)
    #expect(meter.rows.value == 4)
    #expect(meter.batches.value == 4)
    #expect((meter.failures.value, meter.stalls.value) == (0, 0))
    file.disturb { try? $0?.run("PRAGMA max_page_count = 1") }
    for number in 0..<500 { _ = directory.place("user\(number)@" + String(repeating: "x", count: 100), .to("b")) }
    #expect(meter.failures.value == 1)
    #expect(file.lack == "database or disk is full")
    file.disturb { try? $0?.run("PRAGMA max_page_count = 1000000") }
    eventually("all is written") {
      played.advance(seconds: 1)
      return news.list.last == .complete
    }
    #expect(file.lack == nil)
    #expect(meter.rows.value >= 504)
    #expect(meter.times.reading.count == meter.batches.value + meter.failures.value)
  }

  /// Whoever waits for file and pause together looks twice how long the pause is.
  @Test func aPauseIsCountedOnce() throws {
    let file = try open()
    defer { file.close() }
    let directory = try directory(file)
    #expect(directory.place("alice", .to("a")) == .at("a"))
    directory.depart("alice", wasThere: true)
    let answers = Answers()
    let rows = file.meter.rows.value
    #expect(directory.locate("alice", .to("b", but: "a")) { answers.take($0) } == nil)
    eventually("the file has the place") { file.meter.rows.value > rows && !directory.isUnwritten }
    played.advance(seconds: 3)
    #expect(answers.next() == .at("b"))
    #expect(directory.pauses == 1)
  }

  /// A batch that hangs is counted once, however long it does.
  @Test func aStallIsCounted() throws {
    let file = try open()
    let directory = try directory(file)
    let answers = Answers()
    file.disturb { [played] _ in
      #expect(directory.locate("alice", .to("a")) { answers.take($0) } == nil)
      played.advance(seconds: 20)
      #expect(answers.next() == .at("a"))
      #expect(file.meter.stalls.value == 1)
      #expect(file.lack == "the disk does not answer")
    }
    eventually("it is trusted again") { file.lack == nil }
    #expect(file.meter.failures.value == 0)
    file.close()
    #expect(file.lack == "it is closed")
  }
}

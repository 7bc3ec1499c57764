// swift-format-ignore-file: NeverForceUnwrap
// A test that unwraps nil fails, which is what it is for.

import Foundation
import Glibc
import Testing

@testable import Protocols
@testable import ProxyCore

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
}

// swift-format-ignore-file: NeverForceUnwrap
// A test that unwraps nil fails, which is what it is for.

import Foundation
import Testing

@testable import Protocols
@testable import ProxyCore

/// However a session ends, wherever it stands: what it held is given back, once, and the next login has it.
struct GivingBackTests {
  /// Where a session stands when it ends.
  enum Place: CaseIterable {
    case resolving, connecting, greeting, gate, committed, challenged, relaying, clientHalf, backendHalf, refused,
      saying
  }

  /// What ends it.
  enum Ending: CaseIterable {
    case clientCloses, clientResets, backendCloses, backendResets, kicked, moved, lost, retired, stopped, timePasses
  }

  private struct Cast {
    let client: Peer
    var backend: Peer?
    /// Others that have to be there.
    var others: [Peer] = []
  }

  private func settings(_ port: UInt16, _ place: Place) -> Settings {
    var settings = Settings.to(port).pooled(.affinity(affinity(.hash, pause: 0)))
    settings.pools["mail"]?.logins = 2
    settings.pools["mail"]?.members[0].logins = 1
    settings.sessionLimits.user = 5
    settings.sessionLimits.userAtAddress = 5
    settings.sessionLimits.address = 20
    // That it is lost by what is played here is not the matter.
    settings.backends["a"]?.health.failedLogins = 1_000
    switch place {
    case .resolving: settings.backends["a"]?.host = Host("mail.example")!
    case .connecting:
      settings.backends["a"]?.manner.proxyProtocol = .v2
      settings.backends["a"]?.host = Host("127.0.0.2")!
    case .greeting, .gate, .committed, .challenged, .relaying, .clientHalf, .backendHalf, .refused, .saying: break
    }
    return settings
  }

  private func bring(_ place: Place, _ stage: LoopStage, _ server: TestServer) -> Cast {
    let greeting = "* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN AUTH=SCRAM-SHA-256] ready\r\n"
    let client = stage.connect(mechanisms: [.plain, .scramSHA256])
    _ = client.hear("ready.\r\n")
    func waits(_ doing: String) {
      eventually(doing) { stage.onLoop { $0.sessions.all.contains { $0.doing == doing } } }
    }
    func greet(_ login: String, _ heard: String) -> Peer {
      client.send(login)
      let backend = server.accept()
      backend.send(greeting)
      _ = backend.hear(heard)
      return backend
    }
    func enter() -> Peer {
      let backend = greet("a LOGIN alice secret\r\n", "secret\"\r\n")
      backend.send("L OK in\r\n")
      _ = client.hear("a OK in\r\n")
      return backend
    }
    switch place {
    case .resolving:
      client.send("a LOGIN alice secret\r\n")
      waits("resolving the backend's name")
      return Cast(client: client)
    case .connecting:
      client.send("a LOGIN alice secret\r\n")
      waits("connecting to the backend")
      return Cast(client: client)
    case .greeting:
      client.send("a LOGIN alice secret\r\n")
      return Cast(client: client, backend: server.accept())
    case .gate:
      let other = stage.connect()
      other.send("a LOGIN bob secret\r\n")
      let backend = server.accept()
      client.send("a LOGIN alice secret\r\n")
      waits("waiting for a place at a backend")
      return Cast(client: client, others: [other, backend])
    case .committed: return Cast(client: client, backend: greet("a LOGIN alice secret\r\n", "secret\"\r\n"))
    case .challenged:
      let first = Data("n,,n=alice,r=abcdef".utf8).base64EncodedString()
      let backend = greet("a AUTHENTICATE SCRAM-SHA-256 \(first)\r\n", "\(first)\r\n")
      backend.send("+ \(Data("r=abcdefgh,s=c2FsdA==,i=4096".utf8).base64EncodedString())\r\n")
      _ = client.hear("+ ")
      return Cast(client: client, backend: backend)
    case .relaying: return Cast(client: client, backend: enter())
    case .clientHalf:
      let backend = enter()
      client.endDirection()
      #expect(backend.hearsClose())
      return Cast(client: client, backend: backend)
    case .backendHalf:
      let backend = enter()
      backend.endDirection()
      #expect(client.hearsClose())
      return Cast(client: client, backend: backend)
    case .refused:
      let backend = greet("a LOGIN alice secret\r\n", "secret\"\r\n")
      backend.send("L NO [AUTHENTICATIONFAILED] no\r\n")
      _ = client.hear("a NO [AUTHENTICATIONFAILED]")
      return Cast(client: client, backend: backend)
    case .saying:
      client.send("b LOGOUT\r\n")
      waits("saying goodbye")
      return Cast(client: client)
    }
  }

  private func end(_ ending: Ending, _ cast: Cast, _ stage: LoopStage) {
    switch ending {
    case .clientCloses: cast.client.close()
    case .clientResets: cast.client.reset()
    case .backendCloses: cast.backend?.close()
    case .backendResets: cast.backend?.reset()
    case .kicked: stage.kickAll(.kick)
    case .moved: stage.kickAll(.move)
    case .lost:
      stage.kickAll(.lost)
      stage.kickAll(.lost)
    case .retired: stage.onLoop { $0.retire() }
    case .stopped: stage.onLoop { $0.endSessions() }
    case .timePasses: for _ in 0..<4 { stage.advance(seconds: 40_000) }
    }
  }

  @Test(arguments: Place.allCases, Ending.allCases)
  func everythingIsGivenBack(_ place: Place, _ ending: Ending) throws {
    let server = TestServer()
    var silent: [TestConnection] = []
    var hole: TestServer?
    if place == .connecting {
      hole = TestServer(backlog: 0, at: 0x7F00_0002, port: server.port)
      #expect(hole != nil)
      silent = [TestConnection(server.port, at: 0x7F00_0002), TestConnection(server.port, at: 0x7F00_0002)]
    }
    let answers = DispatchSemaphore(value: 0)
    let resolver = Resolver { _ in
      answers.wait()
      answers.signal()
      return .failed("no")
    }
    defer { answers.signal() }
    let settings = settings(server.port, place)
    let stage = try LoopStage(settings, resolver: resolver)
    let pool = try #require(stage.house.fleet.pool("mail"))
    let standing = try #require(stage.house.fleet.standing("a"))
    let cast = bring(place, stage, server)
    end(ending, cast, stage)
    for peer in [cast.client, cast.backend].compactMap({ $0 }) + cast.others { peer.close() }
    eventually("nobody is left") { stage.onLoop { $0.sessions.count } == 0 }
    #expect(standing.sessions == 0)
    #expect(standing.logins == 0)
    #expect(pool.sessions == 0)
    #expect(pool.residents?.count == 0)
    #expect(pool.directory?.lookup("alice") == nil)
    let nowhere = SocketAddress.unknown.subscriber
    for key in [Census.Key.user(UserKey("alice")), .userAt(UserKey("alice"), nowhere), .address(nowhere)] {
      #expect(stage.house.census.count(key) == 0)
    }
    #expect(stage.house.admission.count == 0)
    // The only place at the member's gate is free.
    let gate = pool.plan.members[0].gate
    #expect(gate.waiting == 0)
    #expect(gate.enter(SessionHandle(loop: 0, token: Token(.client, index: 99, generation: 99))))
    withExtendedLifetime((hole, silent)) {}
  }
}

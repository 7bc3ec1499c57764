import Glibc
import Testing

@testable import Protocols
@testable import ProxyCore

/// Every end a session can have, brought about: none is in the table of the manual that nobody has seen.
struct SessionEndTests {
  @Test(arguments: SessionEnd.Reason.allCases)
  func isProduced(_ reason: SessionEnd.Reason) throws {
    let line = try produce(reason)
    #expect(line.contains(" end=\(reason.rawValue) "), "\(line)")
    #expect(line.contains(" blame=\(reason.blame.rawValue) "), "\(line)")
    #expect(!line.contains("secret"), "\(line)")
  }

  private func produce(_ reason: SessionEnd.Reason) throws -> String {
    let server = TestServer()
    switch reason {
    case .logout:
      let stage = try LoopStage(.to(server.port))
      let client = stage.connect()
      client.send("a LOGOUT\r\n")
      _ = client.hear("a OK Logout completed.\r\n")
      client.close()
      return stage.sessionLine()
    case .clientClosed:
      let stage = try LoopStage(.to(server.port))
      let client = stage.connect()
      _ = client.hear("ready.\r\n")
      client.close()
      return stage.sessionLine()
    case .backendClosed:
      let (stage, client, backend) = try relay(server)
      backend.send("* BYE\r\n")
      backend.close()
      _ = client.hear("* BYE\r\n")
      #expect(client.hearsClose())
      client.close()
      return stage.sessionLine()
    case .clientError:
      let (stage, client, backend) = try relay(server)
      // A pair has no resets: the kernel is played.
      KernelPlay.write(.receive, on: stage.clientDescriptor(), [.failed(.system(SystemError(ECONNRESET)))])
      client.send("x")
      let line = stage.sessionLine()
      #expect(backend.hearsClose())
      return line
    case .backendError:
      let (stage, client, backend) = try relay(server)
      backend.reset()
      #expect(client.hearsClose())
      return stage.sessionLine()
    case .clientTLS:
      let stage = try LoopStage(.to(server.port, certificate: try SharedCertificate.get()))
      let client = stage.connect(.imap, .implicit)
      client.send("a LOGIN alice secret\r\n")
      #expect(client.hearsClose())
      return stage.sessionLine()
    case .startTLSInjection:
      let stage = try LoopStage(.to(server.port, certificate: try SharedCertificate.get()))
      let client = stage.connect(.imap, .startTLS)
      client.send("a STARTTLS\r\nb LOGIN alice secret\r\n")
      #expect(client.hearsClose())
      // Nothing behind the greeting is answered.
      #expect(!String(decoding: client.heard, as: UTF8.self).contains("a OK"))
      return stage.sessionLine()
    case .tooManyBadCommands:
      let stage = try LoopStage(.to(server.port))
      let client = stage.connect()
      client.send("a X\r\nb X\r\nc X\r\nd LOGIN alice secret\r\n")
      _ = client.hear("* BYE Too many invalid commands.\r\n")
      #expect(client.hearsClose())
      client.close()
      return stage.sessionLine()
    case .tooManyFailedLogins:
      var settings = Settings.to(server.port)
      settings.limits.failedLogins = 1
      settings.timeouts.failureDelay = 0
      let stage = try LoopStage(settings)
      let client = stage.connect(.pop3)
      client.send("USER \u{1}\r\nPASS secret\r\n")
      _ = client.hear("-ERR [AUTH] Too many failed logins.\r\n")
      client.close()
      return stage.sessionLine()
    case .commandTooLong:
      let stage = try LoopStage(.to(server.port))
      let client = stage.connect()
      client.send("a LOGIN alice " + String(repeating: "x", count: 20_000))
      _ = client.hear("* BYE Command too long.\r\n")
      client.close()
      return stage.sessionLine()
    case .anotherProtocol:
      let stage = try LoopStage(.to(server.port))
      let client = stage.connect()
      client.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
      _ = client.hear("* BYE This is an IMAP server.\r\n")
      client.close()
      return stage.sessionLine()
    case .proxyHeader:
      let stage = try LoopStage(.to(server.port))
      let client = stage.connect(proxyNetworks: [try #require(Network("0.0.0.0"))])
      client.send("a LOGIN alice secret\r\n")
      #expect(client.hearsClose())
      #expect(client.heard.isEmpty)
      return stage.sessionLine()
    case .untrustedProxy:
      let stage = try LoopStage(.to(server.port))
      let client = stage.connect(proxyNetworks: [try #require(Network("192.0.2.0/24"))])
      client.send("PROXY TCP4 198.51.100.1 198.51.100.2 1 143\r\n")
      #expect(client.hearsClose())
      return stage.sessionLine()
    case .loginTimeout:
      let stage = try LoopStage(.to(server.port))
      let client = stage.connect()
      _ = client.hear("ready.\r\n")
      // Talk does not buy time.
      stage.advance(seconds: 100)
      client.send("a NOOP\r\n")
      _ = client.hear("a OK")
      stage.advance(seconds: 81)
      _ = client.hear("* BYE Disconnected for inactivity.\r\n")
      client.close()
      return stage.sessionLine()
    case .idleTimeout:
      let (stage, client, backend) = try relay(server)
      stage.advance(seconds: 30 * 60)
      client.send("b NOOP\r\n")
      _ = backend.hear("b NOOP\r\n")
      stage.advance(seconds: 30 * 60)
      backend.send("b OK\r\n")
      _ = client.hear("b OK\r\n")
      stage.advance(seconds: 32 * 60)
      #expect(client.hearsClose())
      #expect(String(decoding: client.heard, as: UTF8.self) == "* BYE Disconnected for inactivity.\r\n")
      #expect(backend.hearsClose())
      return stage.sessionLine()
    case .halfClosedTimeout:
      let (stage, client, backend) = try relay(server)
      client.endDirection()
      #expect(backend.hearsClose())
      backend.send("still here\r\n")
      _ = client.hear("still here\r\n")
      stage.advance(seconds: 31)
      #expect(client.hearsClose())
      return stage.sessionLine()
    case .moved:
      let directory = PlayedDirectory()
      directory.set(.at("a"))
      let stage = try LoopStage(Settings.to(server.port).pooled(), directory: directory)
      let (client, backend) = logIn(stage, server)
      directory.recall("alice")
      _ = client.hear("* BYE Disconnected by the server; connect again.\r\n")
      #expect(client.hearsClose())
      #expect(backend.hearsClose())
      return stage.sessionLine()
    case .backendLost:
      let stage = try LoopStage(Settings.to(server.port).pooled())
      let (client, backend) = logIn(stage, server)
      for _ in 0..<3 { stage.house.fleet.learn("a", .loginFailed("played")) }
      // Who logs in again is the one for whom the old session ends.
      let second = stage.connect()
      second.send("a LOGIN alice secret\r\n")
      _ = client.hear("* BYE Disconnected by the server; connect again.\r\n")
      #expect(client.hearsClose())
      #expect(backend.hearsClose())
      return stage.sessionLine()
    case .addressLimit:
      var settings = Settings.to(server.port)
      settings.sessionLimits.address = 1
      let stage = try LoopStage(settings)
      let first = stage.connect()
      _ = first.hear("ready.\r\n")
      let second = stage.connect()
      _ = second.hear("* BYE [LIMIT] Too many connections.\r\n")
      #expect(second.hearsClose())
      return stage.sessionLine()
    case .kicked:
      let (stage, client, backend) = try relay(server)
      stage.kickAll(.kick)
      _ = client.hear("* BYE Disconnected by the server; connect again.\r\n")
      #expect(client.hearsClose())
      #expect(backend.hearsClose())
      return stage.sessionLine()
    case .shutdown:
      let stage = try LoopStage(.to(server.port))
      let client = stage.connect()
      _ = client.hear("ready.\r\n")
      stage.loop.post { $0.retire() }
      _ = client.hear("* BYE Server shutting down.\r\n")
      client.close()
      return stage.sessionLine()
    case .outOfMemory:
      let stage = try LoopStage(.to(server.port))
      let client = stage.connect()
      _ = client.hear("ready.\r\n")
      KernelPlay.write(.watch, on: stage.onLoop { $0.pollSet }, [.failed(.system(SystemError(ENOMEM)))])
      client.send("a LOGIN alice secret\r\n")
      #expect(client.hearsClose())
      return stage.sessionLine()
    }
  }

  /// A last word is left out where it could be taken for a part of the backend's.
  @Test func noFarewellWithinALine() throws {
    let server = TestServer()
    let (stage, client, backend) = try relay(server)
    backend.send("* 1 FETCH (BODY[] {100}\r\nhalf a mess")
    _ = client.hear("half a mess")
    stage.advance(seconds: 32 * 60)
    #expect(client.hearsClose())
    #expect(client.heard.isEmpty)
    #expect(backend.hearsClose())
  }

  /// The same for a stop.
  @Test func aStopIsTold() throws {
    let server = TestServer()
    let (stage, client, backend) = try relay(server)
    stage.loop.post { $0.endSessions() }
    #expect(client.hearsClose())
    #expect(String(decoding: client.heard, as: UTF8.self) == "* BYE Server shutting down.\r\n")
    #expect(backend.hearsClose())
  }

  /// A session that is logged in: the stage, the client's end, the backend's end.
  private func relay(_ server: TestServer) throws -> (LoopStage, Peer, Peer) {
    let stage = try LoopStage(.to(server.port))
    let (client, backend) = logIn(stage, server)
    return (stage, client, backend)
  }

  private func logIn(_ stage: LoopStage, _ server: TestServer) -> (Peer, Peer) {
    let client = stage.connect()
    client.send("a LOGIN alice secret\r\n")
    let backend = server.accept()
    backend.send("* OK [CAPABILITY IMAP4rev1] ready\r\n")
    _ = backend.hear("L LOGIN \"alice\" \"secret\"\r\n")
    backend.send("L OK [CAPABILITY IMAP4rev1 IDLE] Logged in\r\n")
    _ = client.hear("a OK [CAPABILITY IMAP4rev1 IDLE] Logged in\r\n")
    return (client, backend)
  }
}

/// One certificate for all tests that only need any.
enum SharedCertificate {
  nonisolated(unsafe) private static let made = Result { () throws -> (Folder, CertificateSettings) in
    let folder = try Folder()
    return (folder, try makeCertificate(folder))
  }

  static func get() throws -> CertificateSettings { try made.get().1 }
}

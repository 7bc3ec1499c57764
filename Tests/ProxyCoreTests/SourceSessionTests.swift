// swift-format-ignore-file: NeverForceUnwrap
// A test that unwraps nil fails, which is what it is for.

import Foundation
import Testing

// In a build for ThreadSanitizer ProxyCore has a Mutex of its own.
#if !PROXYD_TSAN
  import struct Synchronization.Mutex
#endif

@testable import Protocols
@testable import ProxyCore

/// Sessions whose backend is looked up off the loop.
struct SourceSessionTests {
  private let server = TestServer()

  private func logIn(_ stage: LoopStage, _ user: String = "alice") -> Peer {
    let client = stage.connect()
    _ = client.hear("ready.\r\n")
    client.send("a LOGIN \(user) s3cret\r\n")
    return client
  }

  /// The backend answers a login; returns what it was sent.
  private func backendAnswers(_ client: Peer) -> String {
    let backend = server.accept()
    backend.send("* OK [CAPABILITY IMAP4rev1] ready\r\n")
    let heard = backend.hear("s3cret\"\r\n")
    backend.send("L OK [CAPABILITY IMAP4rev1] in\r\n")
    _ = client.hear("a OK")
    return heard
  }

  @Test func theAnswerComesFromAnotherThread() throws {
    let source = PlayedSource { _ in .answer(SourceAnswer("other@a")) }
    let settings = Settings.to(server.port)
    let stage = try LoopStage(settings, routes: source.plan(settings))
    let client = logIn(stage)
    #expect(backendAnswers(client).contains("LOGIN \"other\""))
    #expect(source.keys == ["alice"])
  }

  @Test func othersGoOnMeanwhile() throws {
    let gate = Gate()
    let source = PlayedSource { request in
      if request.query.login == Array("slow".utf8) { gate.pass() }
      return .answer(SourceAnswer("a"))
    }
    let settings = Settings.to(server.port)
    let stage = try LoopStage(settings, routes: source.plan(settings))
    let slow = logIn(stage, "slow")
    eventually("it waits") { stage.doing() == "looking up the backend" }
    let client = logIn(stage)
    _ = backendAnswers(client)
    gate.open()
    _ = backendAnswers(slow)
  }

  @Test func aLateAnswerIsAFailureAndWhatComesAfterItIsNothing() throws {
    let gate = Gate()
    let source = PlayedSource { _ in
      gate.pass()
      return .answer(SourceAnswer("a"))
    }
    let settings = Settings.to(server.port)
    let stage = try LoopStage(settings, routes: source.plan(settings))
    let client = logIn(stage)
    eventually("it waits") { stage.doing() == "looking up the backend" }
    stage.advance(seconds: 3)
    #expect(client.hear("\r\n").hasPrefix("a NO [UNAVAILABLE] "))
    gate.open()
    client.send("b NOOP\r\n")
    _ = client.hear("b OK NOOP completed.\r\n")
    #expect(stage.log().contains("it did not answer in time"))
  }

  @Test func theNextSourceIsAskedOnlyIfTheOperatorSaysSo() throws {
    let source = PlayedSource { _ in .unreachable("it is down") }
    let settings = Settings.to(server.port)
    let strict = try LoopStage(settings, routes: source.plan(settings))
    #expect(logIn(strict).hear("\r\n").hasPrefix("a NO [UNAVAILABLE] "))
    let lenient = try LoopStage(settings, routes: source.plan(settings) { $0.onFailure = .next })
    let client = logIn(lenient)
    _ = backendAnswers(client)
    #expect(lenient.log().contains("event=source-failed "))
    #expect(lenient.log().contains("source=played detail=\"it is down\""))
  }

  @Test func aClientThatLeavesMeanwhileLeavesNothing() throws {
    let gate = Gate()
    let source = PlayedSource { _ in
      gate.pass()
      return .answer(SourceAnswer("a"))
    }
    let settings = Settings.to(server.port)
    let stage = try LoopStage(settings, routes: source.plan(settings))
    let client = logIn(stage)
    eventually("it waits") { stage.doing() == "looking up the backend" }
    client.close()
    stage.advance(seconds: 200)
    gate.open()
    #expect(stage.sessionLine().contains(" login=alice "))
    #expect(stage.onLoop { $0.sessions.count } == 0)
  }

  @Test func aServiceMayAskForPatience() throws {
    let count = Mutex(0)
    let source = PlayedSource(isPersonal: true) { _ in
      let number = count.withLock { count in
        count += 1
        return count
      }
      return .answer(number == 1 ? .again(after: Timeouts.seconds(5)) : SourceAnswer("a"))
    }
    let settings = Settings.to(server.port)
    let stage = try LoopStage(settings, routes: source.plan(settings))
    let client = logIn(stage)
    eventually("it waits") { stage.doing() == "waiting to ask for the backend again" }
    stage.advance(seconds: 5)
    _ = backendAnswers(client)
  }

  /// A master user's password says nothing of the user's.
  @Test func anotherUsersPasswordIsNotCompared() throws {
    let source = PlayedSource(isPersonal: true) { _ in .answer(SourceAnswer("a")) }
    let settings = Settings.to(server.port)
    let stage = try LoopStage(settings, routes: source.plan(settings))
    let client = stage.connect()
    _ = client.hear("ready.\r\n")
    let plain = Data("alice\0admin\0s3cret".utf8).base64EncodedString()
    client.send("a AUTHENTICATE PLAIN \(plain)\r\n")
    #expect(client.hear("\r\n").hasPrefix("a NO [CANNOT] "))
    #expect(source.keys.isEmpty)
    #expect(stage.log().contains("failure=uncheckable"))
  }

  /// The words are the service's, and they come when it says.
  @Test func aServiceRefusesInItsOwnWords() throws {
    let source = PlayedSource(isPersonal: true) { _ in
      .answer(.refused(.init(words: Array("Mailbox closed until noon".utf8), delay: Timeouts.seconds(7))))
    }
    let settings = Settings.to(server.port)
    let stage = try LoopStage(settings, routes: source.plan(settings))
    let client = logIn(stage)
    eventually("it is delayed") { stage.doing() == "delaying a refusal" }
    stage.advance(seconds: 7)
    #expect(client.hear("\r\n") == "a NO [AUTHENTICATIONFAILED] Mailbox closed until noon\r\n")
  }

  @Test func keysAreTriedInTheirOrder() throws {
    let source = PlayedSource {
      $0.query.login == Array("@example.org".utf8) ? .answer(SourceAnswer("a")) : .answer(.notFound)
    }
    let settings = Settings.to(server.port)
    let stage = try LoopStage(
      settings,
      routes: source.plan(settings) { $0.keys = ["\\U", "\\u", "\\D\\d"].map { KeyTemplate($0)! } })
    let client = logIn(stage, "Alice@Example.ORG")
    #expect(backendAnswers(client).contains("LOGIN \"Alice@Example.ORG\""))
    #expect(source.keys == ["alice@example.org", "alice", "@example.org"])
  }

  @Test func theBackendIsToldTheRewrittenName() throws {
    var settings = Settings.to(server.port)
    settings.names.stripDomain = [.backend]
    settings.names.lowerCase = [.backend, .log]
    let stage = try LoopStage(settings)
    let client = logIn(stage, "Alice@Example.ORG")
    #expect(backendAnswers(client).contains("LOGIN \"alice\""))
    client.close()
    #expect(stage.sessionLine().contains(" login=alice@example.org "))
  }

  @Test func aDomainIsAddedByTheAddressesName() throws {
    let gate = Gate()
    let names = AddressNames { _ in
      gate.pass()
      return .name(Array("imap.example.org".utf8))
    }
    var settings = Settings.to(server.port)
    settings.names.addDomain = [.lookup, .backend]
    settings.names.domain = .ofAddress(strippedLabels: 1)
    let source = PlayedSource { _ in .answer(SourceAnswer("a")) }
    let stage = try LoopStage(settings, addressNames: names, routes: source.plan(settings))
    let client = stage.connect(proxyNetworks: [Network("0.0.0.0/0")!, Network("::/0")!])
    client.send("PROXY TCP4 192.0.2.1 192.0.2.2 4000 143\r\n")
    _ = client.hear("ready.\r\n")
    client.send("a LOGIN alice s3cret\r\n")
    eventually("it waits") { stage.doing() == "looking up the local address's name" }
    gate.open()
    #expect(backendAnswers(client).contains("LOGIN \"alice@example.org\""))
    #expect(source.keys == ["alice@example.org"])
  }
}

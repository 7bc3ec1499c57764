// swift-format-ignore-file: NeverForceUnwrap
// A test that unwraps nil fails, which is what it is for.

import Foundation
import Glibc
import Testing

@testable import Protocols
@testable import ProxyCore

/// A lost member that nobody probes, and the logins that try it.
struct TrialTests {
  private let greeting = "* OK [CAPABILITY IMAP4rev1] ready\r\n"
  private let servers = ["a": TestServer(), "b": TestServer()]
  private let stage: LoopStage
  /// Where alice is at home.
  private let home: String

  init() throws {
    var settings = Settings(listeners: [], routes: [], backends: [:])
    for (name, server) in servers {
      settings.backends[name] = BackendSettings(
        host: Host("127.0.0.1")!, ports: [.imap: server.port, .pop3: server.port, .manageSieve: server.port])
    }
    settings = settings.pooled(.affinity(affinity(.hash, pause: 0)))
    settings.pools["mail"]?.spread = Timeouts.seconds(3_600)
    stage = try LoopStage(settings)
    home = try #require(stage.house.fleet.pool("mail")?.home(of: "alice"))
  }

  private var server: TestServer { servers[home]! }
  private var other: TestServer { servers[home == "a" ? "b" : "a"]! }
  private var standing: BackendStanding { stage.house.fleet.standing(home)! }
  private var stands: BackendStanding.Snapshot { standing.snapshot(at: stage.clock.now) }

  /// Other users who are at home where alice is.
  private var neighbours: [String] {
    (0..<100).map { "user\($0)" }.filter { stage.house.fleet.pool("mail")?.home(of: $0) == home }
  }

  private func logIn(_ user: String = "alice") -> Peer {
    let client = stage.connect()
    client.send("a LOGIN \(user) secret\r\n")
    return client
  }

  /// The backend's part of a login.
  private func welcome(_ backend: Peer, _ user: String = "alice") {
    backend.send(greeting)
    _ = backend.hear("L LOGIN \"\(user)\" \"secret\"\r\n")
    backend.send("L OK in\r\n")
  }

  /// The member is lost, and a login may try it.
  private func lose() {
    for _ in 0..<3 { stage.house.fleet.learn(home, .loginFailed("away")) }
    #expect(stands.health.isDown && !stands.isTrialDue)
    stage.advance(seconds: 10)
    #expect(stands.isTrialDue)
  }

  private func waits(_ count: Int = 1, _ location: SourceLocation = #_sourceLocation) {
    eventually("\(count) wait", location) {
      stage.onLoop { $0.sessions.all.count { $0.doing == "waiting for a place at a backend" } } == count
    }
  }

  /// The user's next connection does not end the trial: it waits for the outcome, and is at the same member then.
  @Test func aSecondConnectionWaitsForTheOutcome() throws {
    lose()
    let first = logIn()
    let backend = server.accept()
    let second = logIn()
    waits()
    welcome(backend)
    _ = first.hear("a OK in\r\n")
    let beside = server.accept()
    welcome(beside)
    _ = second.hear("a OK in\r\n")
    // Both went well, which is what brings a member back.
    eventually("it is back") { !stands.health.isDown }
    #expect(standing.sessions == 2)
    for peer in [first, backend, second, beside] { peer.close() }
    eventually("all are gone") { stage.house.fleet.pool("mail")?.residents?.count == 0 }
  }

  /// A trial that fails takes nobody with it: all of the user's logins go on to the next member.
  @Test func aTrialThatFailsCostsTheNextMember() throws {
    lose()
    let first = logIn()
    let backend = server.accept()
    let second = logIn()
    waits()
    backend.close()
    let backends = [other.accept(), other.accept()]
    for backend in backends { welcome(backend) }
    for client in [first, second] { _ = client.hear("a OK in\r\n") }
    stage.advance(seconds: 19)
    #expect(!stands.isTrialDue)
    stage.advance(seconds: 1)
    #expect(stands.isTrialDue, "the pause was doubled, once")
    for peer in [first, second] + backends { peer.close() }
  }

  /// A login that was on its way when the member was lost tells nothing of a trial that began meanwhile.
  @Test(arguments: ["answered", "refused", "closed"])
  func aLateWordIsNoOutcome(_ word: String) throws {
    let bob = try #require(neighbours.first)
    let late = logIn(bob)
    let lateBackend = server.accept()
    lateBackend.send(greeting)
    _ = lateBackend.hear("secret\"\r\n")
    // Nobody is let go for what is played here.
    lose()
    let client = logIn()
    let backend = server.accept()
    switch word {
    case "answered": lateBackend.send("L NO [AUTHENTICATIONFAILED] no\r\n")
    case "refused": lateBackend.send("L NO [UNAVAILABLE] no\r\n")
    default: lateBackend.close()
    }
    _ = late.hear("a NO [")
    #expect(!stands.isTrialDue)
    welcome(backend)
    _ = client.hear("a OK in\r\n")
    eventually("the next may try") { stands.isTrialDue }
    for peer in [late, lateBackend, client, backend] { peer.close() }
  }

  /// Whoever was let in by a lost member stays there, and opens more, while others try it.
  @Test func whoIsLetInStays() throws {
    let carol = try #require(neighbours.first)
    lose()
    let first = logIn()
    let backend = server.accept()
    welcome(backend)
    _ = first.hear("a OK in\r\n")
    eventually("one is not enough") { stands.health.isDown && stands.isTrialDue }
    let trying = logIn(carol)
    let silent = server.accept()
    let second = logIn()
    let beside = server.accept()
    welcome(beside)
    _ = second.hear("a OK in\r\n")
    #expect(stands.health.isDown && !stands.isTrialDue, "she is no trial")
    // Those who are let go because the member is lost are those who were there before.
    stage.house.fleet.setAdmin(home, .ready)
    eventually("nobody has to go") { !stage.house.fleet.isEmptying(home) }
    backend.send("* still here\r\n")
    _ = first.hear("* still here\r\n")
    for peer in [first, backend, trying, silent, second, beside] { peer.close() }
  }

  /// A second loss is another matter: whoever was let in after the first was there before it.
  @Test func whoWasLetInMayBeLostAgain() throws {
    lose()
    let first = logIn()
    let backend = server.accept()
    welcome(backend)
    _ = first.hear("a OK in\r\n")
    let second = logIn()
    let beside = server.accept()
    welcome(beside)
    _ = second.hear("a OK in\r\n")
    eventually("it is back") { !stands.health.isDown }
    for _ in 0..<3 { stage.house.fleet.learn(home, .loginFailed("away")) }
    let third = logIn()
    for peer in [first, second] { _ = peer.hear("* BYE ") }
    let elsewhere = other.accept()
    welcome(elsewhere)
    _ = third.hear("a OK in\r\n")
    for peer in [first, backend, second, beside, third, elsewhere] { peer.close() }
  }

  /// A client that goes away takes the trial with it: the next need not wait for a minute.
  @Test func aTrialWhoseClientIsGone() throws {
    lose()
    let client = logIn()
    let backend = server.accept()
    client.close()
    #expect(backend.hearsClose())
    eventually("it is gone") { stage.onLoop { $0.sessions.count } == 0 }
    #expect(!stands.isTrialDue)
    stage.advance(seconds: 10)
    #expect(stands.isTrialDue)
    backend.close()
  }
}

// swift-format-ignore-file: NeverForceUnwrap
// A test that unwraps nil fails, which is what it is for.

import Foundation
import Glibc
import Testing

@testable import Protocols
@testable import ProxyCore

// In a build for ThreadSanitizer ProxyCore has a Mutex of its own.
#if !PROXYD_TSAN
  import struct Synchronization.Mutex
#endif

struct ProberTests {
  // MARK: Visits

  @Test(arguments: MailProtocol.allCases)
  func aGoodBackend(_ mailProtocol: MailProtocol) throws {
    let server = TestServer()
    let stage = ProbeStage()
    try stage.add([mailProtocol: server.port])
    for _ in 0..<3 { playVisit(server.accept(), mailProtocol) }
    eventually("it is told") { stage.evidence().count >= 3 }
    #expect(stage.evidence().prefix(3) == [.probeSucceeded, .probeSucceeded, .probeSucceeded])
    #expect(stage.warnings.isEmpty)
  }

  /// One protocol after the other, in one order; all of them make one word, and the first that is not well makes it.
  @Test func allProtocolsInTurn() throws {
    let servers = MailProtocol.allCases.map { ($0, TestServer()) }
    let stage = ProbeStage()
    try stage.add(Dictionary(uniqueKeysWithValues: servers.map { ($0, $1.port) }))
    for (mailProtocol, server) in servers {
      #expect(stage.evidence().isEmpty)
      playVisit(server.accept(), mailProtocol)
    }
    #expect(stage.first() == .probeSucceeded)
    playVisit(servers[0].1.accept(), .imap)
    servers[1].1.accept().send("-ERR busy\r\n")
    eventually("it is told") { stage.evidence().count >= 2 }
    #expect(stage.evidence()[1] == .probeFailed("pop3: its greeting is none: -ERR busy"))
    // The next is a whole round again.
    playVisit(servers[0].1.accept(), .imap)
  }

  // MARK: Faults

  @Test func nobodyThere() throws {
    let port = closedPort()
    let stage = ProbeStage()
    let standing = try stage.add([.imap: port])
    #expect(stage.failure() == "imap: 127.0.0.1:\(port): Connection refused")
    eventually("it is lost") { standing.snapshot(at: 0).health.isDown }
  }

  /// It accepts and never speaks; it greets and hangs; it says half a line.
  @Test(arguments: [
    ("", "waiting for the backend's greeting"), ("* OK ready\r\n", "waiting for the backend's goodbye"),
    ("* OK rea", "waiting for the backend's greeting"),
    ("* OK ready\r\n* BYE\r\n", "waiting for the backend's goodbye"),
  ])
  func silence(_ words: String, _ doing: String) throws {
    let server = TestServer()
    let stage = ProbeStage()
    try stage.add([.imap: server.port]) { $0.timeout = Timeouts.seconds(3) }
    let peer = server.accept()
    peer.send(words)
    #expect(stage.failure() == "imap: no answer in time, \(doing)")
    #expect(peer.hearsClose())
  }

  /// A queue that is full takes no connection.
  @Test func noAnswerToAConnection() throws {
    let silent = TestServer(backlog: 0)
    let fill = [TestConnection(silent.port), TestConnection(silent.port)]
    let stage = ProbeStage()
    try stage.add([.imap: silent.port]) { $0.timeout = Timeouts.milliseconds(100) }
    #expect(stage.failure() == "imap: 127.0.0.1:\(silent.port): it does not answer a connection")
    withExtendedLifetime(fill) {}
  }

  @Test(arguments: [
    ("", "it closed, waiting for the backend's greeting"),
    ("* OK ready\r\n", "it closed, waiting for the backend's goodbye"),
    ("* BYE busy\r\n", "its greeting is none: * BYE busy"),
    ("* PREAUTH welcome\r\n", "its greeting is none: * PREAUTH welcome"),
    ("220 mail.example.net ESMTP\r\n", "its greeting is none: 220 mail.example.net ESMTP"),
    ("* OK ready\r\nQ OK\r\n", "it says what the protocol does not allow: Q OK"),
    ("* OK \(String(repeating: "x", count: 9_000))\r\n", "it says too much"),
    (
      "* BYE \(String(repeating: "x", count: 300))\r\n",
      "its greeting is none: * BYE \(String(repeating: "x", count: 194))"
    ),
  ])
  func faults(_ words: String, _ why: String) throws {
    let server = TestServer()
    let stage = ProbeStage()
    try stage.add([.imap: server.port])
    let peer = server.accept()
    peer.send(words)
    peer.endDirection()
    #expect(stage.failure() == "imap: \(why)")
  }

  @Test func aReset() throws {
    let server = TestServer()
    let stage = ProbeStage()
    try stage.add([.imap: server.port])
    server.accept().reset()
    // It may come before the connection was looked at.
    let why = stage.failure()
    #expect(why.hasPrefix("imap: ") && why.hasSuffix("Connection reset by peer"), "\(why)")
  }

  // MARK: Addresses

  /// Of a name's addresses the first that connects is visited.
  @Test func theFirstAddressThatConnects() throws {
    let server = TestServer()
    let addresses = [2, 3, 1].map { SocketAddress(literal: "127.0.0.\($0)", port: 0)! }
    let stage = ProbeStage(resolver: Resolver { _ in .addresses(addresses) })
    try stage.add([.pop3: server.port], host: "backend.example.net")
    playVisit(server.accept(), .pop3)
    #expect(stage.first() == .probeSucceeded)
  }

  @Test func aNameWithoutAddresses() throws {
    let stage = ProbeStage(resolver: Resolver { _ in .failed("no such host") })
    try stage.add([.imap: 143], host: "backend.example.net")
    #expect(stage.failure() == "backend.example.net: no such host")
  }

  /// A resolver that hangs costs no more than a backend that does.
  @Test func aNameThatIsNotResolved() throws {
    let gate = DispatchSemaphore(value: 0)
    let stage = ProbeStage(
      resolver: Resolver { _ in
        gate.wait()
        return .failed("late")
      })
    try stage.add([.imap: 143], host: "backend.example.net") { $0.timeout = Timeouts.milliseconds(50) }
    #expect(stage.failure() == "backend.example.net: its name was not resolved in time")
    gate.signal()
  }

  // MARK: PROXY headers

  @Test(arguments: [
    (ProxyProtocolVersion.v1, Array("PROXY UNKNOWN\r\n".utf8)),
    (.v2, [13, 10, 13, 10, 0, 13, 10, 81, 85, 73, 84, 10, 0x20, 0, 0, 0]),
  ])
  func aHeaderForOurselves(_ version: ProxyProtocolVersion, _ header: [UInt8]) throws {
    let server = TestServer()
    let stage = ProbeStage()
    try stage.add([.imap: server.port], BackendManner(proxyProtocol: version))
    let peer = server.accept()
    // It comes before the greeting, which a server may keep back until then.
    #expect(header.map { _ in peer.next() } == header)
    playVisit(peer, .imap)
    #expect(stage.first() == .probeSucceeded)
  }

  // MARK: Test logins

  private static let greeting = "* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] ready\r\n"

  @Test(arguments: [
    ("L NO [AUTHENTICATIONFAILED] no\r\n", "the test login was refused: [AUTHENTICATIONFAILED] no"),
    ("L NO [UNAVAILABLE] later\r\n", "it refuses logins as unavailable: [UNAVAILABLE] later"),
    (
      "L BAD \"probe\" \"s3cret word\"\r\n",
      "it says what the protocol does not allow (in words that repeat the password)"
    ),
  ])
  func aLoginThatFails(_ answer: String, _ why: String) throws {
    let folder = try Folder()
    let file = try folder.write("pw", "s3cret word\nnot this\n")
    let server = TestServer()
    let stage = ProbeStage()
    try stage.add([.imap: server.port]) { $0.login = ProbeLogin(user: "probe", passwordFile: file) }
    let peer = server.accept()
    peer.send(ProberTests.greeting)
    #expect(peer.hear("\r\n") == "L LOGIN \"probe\" \"s3cret word\"\r\n")
    peer.send(answer)
    #expect(stage.failure() == "imap: \(why)")
  }

  /// The password is the one of the last reload.
  @Test func aLogin() throws {
    let folder = try Folder()
    var file = try folder.write("pw", "first\r\n")
    let server = TestServer()
    let stage = ProbeStage()
    try stage.add([.pop3: server.port]) { $0.login = ProbeLogin(user: "probe", passwordFile: file) }
    func play(_ password: String) {
      let peer = server.accept()
      peer.send("+OK ready\r\n")
      #expect(peer.hear("PASS \(password)\r\n") == "USER probe\r\nPASS \(password)\r\n")
      peer.send("+OK\r\n+OK in\r\n")
      _ = peer.hear("QUIT\r\n")
      peer.send("+OK bye\r\n")
    }
    play("first")
    file = try folder.write("pw", "second")
    // As it is while nobody says that there is another.
    play("first")
    try stage.pass(1)
    // The round that was under way is over; what begins now is of the new configuration.
    let peer = server.accept()
    peer.close()
    play("second")
    #expect(stage.evidence().filter { $0 == .probeSucceeded }.count >= 2)
  }

  /// A password that can't be read is no backend's fault: the operator is told, and the greeting is probed.
  @Test func aPasswordThatIsMissing() throws {
    let folder = try Folder()
    let server = TestServer()
    let stage = ProbeStage()
    try stage.add([.imap: server.port]) {
      $0.login = ProbeLogin(user: "probe", passwordFile: folder.file("missing"))
    }
    playVisit(server.accept(), .imap)
    #expect(stage.first() == .probeSucceeded)
    #expect(stage.warnings == [.password("\(folder.file("missing")): it can't be read: No such file or directory")])
  }

  // MARK: Agents

  /// It is asked in each round, whatever the probes find; what it says goes two ways.
  @Test func anAgent() throws {
    let agent = TestServer()
    let stage = ProbeStage()
    let standing = try stage.add([.imap: closedPort()]) {
      $0.isProbed = false
      $0.agent = agent.port
    }
    let peer = agent.accept()
    peer.send("up 5")
    peer.send("0% drain\r\nmore")
    eventually("it is told") { !stage.reports.isEmpty }
    var report = AgentReport()
    report.health = .agentUp
    report.share = 50
    report.admin = .drain
    #expect(stage.reports == [report])
    #expect(stage.first() == .agentUp)

    let other = agent.accept()
    other.send("down #full")
    other.close()
    eventually("it is told") { stage.evidence().count == 2 }
    #expect(stage.evidence()[1] == .agentDown("its agent says down: full"))
    #expect(standing.snapshot(at: 0).health == .down("its agent says down: full"))
  }

  /// One that is away, says nothing, too much or only half a line tells nothing.
  @Test(arguments: [nil, "", "do", String(repeating: "up ", count: 400)])
  func anAgentThatSaysNothing(_ words: String?) throws {
    let agent = words == nil ? nil : TestServer()
    let stage = ProbeStage()
    try stage.add([.imap: closedPort()]) {
      $0.agent = agent?.port ?? closedPort()
      $0.timeout = Timeouts.milliseconds(100)
    }
    var peers: [Peer] = []
    for _ in 0..<2 {
      guard let agent, let words else { continue }
      peers.append(agent.accept())
      peers.last?.send(words)
    }
    eventually("rounds pass") { stage.evidence().count >= 3 }
    #expect(stage.reports.isEmpty)
    #expect(stage.evidence().allSatisfy { if case .probeFailed = $0 { true } else { false } })
  }

  /// In maintenance that the agent wants only the agent is asked: it will tell when that is over.
  @Test func anAgentsMaintenance() throws {
    let agent = TestServer()
    let stage = ProbeStage()
    let standing = try stage.add([.imap: closedPort()]) { $0.agent = agent.port }
    let peer = agent.accept()
    standing.agent(AgentReport(.maintenance, share: nil))
    peer.send("maint\n")
    eventually("it is told") { stage.reports.count == 1 }
    let count = stage.evidence().count
    for _ in 0..<5 { agent.accept().send("maint\n") }
    eventually("it is told") { stage.reports.count == 6 }
    #expect(stage.evidence().count == count)
    standing.agent(AgentReport(.ready, share: nil))
    // The round that waits for its agent, and the next.
    for _ in 0..<2 { agent.accept().send("ready\n") }
    eventually("it is probed again") { stage.evidence().count > count }
  }
}

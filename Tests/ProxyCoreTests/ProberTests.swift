// swift-format-ignore-file: NeverForceUnwrap
// A test that unwraps nil fails, which is what it is for.

import COpenSSL
import Foundation
import Glibc
import Testing

@testable import Protocols
@testable import ProxyCore

// In a build for ThreadSanitizer ProxyCore has a Mutex of its own.
#if !PROXYD_TSAN
  import struct Synchronization.Mutex
#endif

/// Probers against backends that the test plays on loopback.
private final class ProbeStage {
  let probers: Probers
  private let heard: Heard
  private var targets: [ProbeTarget] = []

  /// What the probers told.
  final class Heard: Sendable {
    let evidence = Mutex<[String: [HealthEvidence]]>([:])
    let reports = Mutex<[AgentReport]>([])
    let warnings = Mutex<[ProbeWarning]>([])
    let standings = Mutex<[String: BackendStanding]>([:])
  }

  init(resolver: Resolver = Resolver()) {
    let heard = Heard()
    self.heard = heard
    probers = Probers(
      resolver,
      ProbeEars(
        learn: { name, evidence in
          let standing = heard.standings.withLock { $0[name] }
          _ = standing?.learn(evidence, at: Clock.monotonic.now)
          heard.evidence.withLock { $0[name, default: []].append(evidence) }
        },
        agent: { _, report in heard.reports.withLock { $0.append(report) } },
        warn: { _, warning in heard.warnings.withLock { $0.append(warning) } }))
  }

  deinit { probers.end() }

  /// Another backend that is probed, fast unless told otherwise.
  @discardableResult
  func add(
    _ ports: [MailProtocol: UInt16], _ manner: BackendManner = BackendManner(), named name: String = "a",
    host: String = "127.0.0.1", _ change: (inout HealthSettings) -> Void = { _ in }
  ) throws -> BackendStanding {
    var settings = HealthSettings()
    settings.interval = Timeouts.milliseconds(20)
    settings.fastInterval = Timeouts.milliseconds(5)
    settings.timeout = Timeouts.seconds(20)
    change(&settings)
    let standing = BackendStanding(name, settings)
    let link = try BackendLink(manner, key: "backends.\(name)")
    let backends = Dictionary(
      uniqueKeysWithValues: ports.map { ($0, Backend(name: name, host: Host(host)!, port: $1, link)) })
    heard.standings.withLock { $0[name] = standing }
    targets.append(ProbeTarget(standing: standing, settings: settings, backends: backends))
    probers.adopt(targets)
    return standing
  }

  /// Takes a backend away.
  func drop(_ name: String) {
    targets.removeAll { $0.name == name }
    probers.adopt(targets)
  }

  func evidence(_ name: String = "a") -> [HealthEvidence] { heard.evidence.withLock { $0[name] ?? [] } }

  /// What was told of a backend first.
  func first(_ name: String = "a", _ location: SourceLocation = #_sourceLocation) -> HealthEvidence? {
    eventually("\(name) is told of", location) { !evidence(name).isEmpty }
    return evidence(name).first
  }

  /// Why the first probe failed.
  func failure(_ location: SourceLocation = #_sourceLocation) -> String {
    switch first("a", location) {
    case .probeFailed(let why)?: return why
    case let other:
      Issue.record("no failure: \(String(describing: other))", sourceLocation: location)
      return ""
    }
  }

  var reports: [AgentReport] { heard.reports.withLock { $0 } }
  var warnings: [ProbeWarning] { heard.warnings.withLock { $0 } }

  /// Lets a backend that nobody is at be probed so many times: meanwhile the others had their turns.
  func pass(_ rounds: Int = 8, _ location: SourceLocation = #_sourceLocation) throws {
    if heard.standings.withLock({ $0["fence"] }) == nil { try add([.imap: closedPort()], named: "fence") }
    let before = evidence("fence").count
    eventually("rounds pass", location) { evidence("fence").count >= before + rounds }
  }
}

/// A port that nobody listens at.
private func closedPort() -> UInt16 { TestServer().port }

/// Plays one good visit.
private func playVisit(_ peer: Peer, _ mailProtocol: MailProtocol) {
  switch mailProtocol {
  case .imap:
    peer.send("* OK ready\r\n")
    _ = peer.hear("Q LOGOUT\r\n")
    peer.send("* BYE bye\r\nQ OK done\r\n")
  case .pop3:
    peer.send("+OK ready\r\n")
    _ = peer.hear("QUIT\r\n")
    peer.send("+OK bye\r\n")
  case .manageSieve:
    peer.send("\"SASL\" \"PLAIN\"\r\nOK\r\n")
    _ = peer.hear("LOGOUT\r\n")
    peer.send("OK\r\n")
  }
  #expect(peer.hearsClose())
  #expect(peer.heard.isEmpty)
}

struct ProberTests {
  init() { signal(SIGPIPE, SIG_IGN) }

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
    try stage.add([.imap: server.port]) { $0.timeout = Timeouts.seconds(1) }
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

  // MARK: TLS

  private static func manner(_ tls: BackendTLS, _ verification: TLSVerification, pins: [[UInt8]] = []) -> BackendManner
  {
    BackendManner(
      tls: tls, tlsName: Host("mail.example.net"),
      security: TLSBackendSettings(verification: verification, pins: pins))
  }

  /// Plays a backend's TLS, and a good visit within it.
  private static func playSecurely(_ peer: Peer, _ pair: CertificateSettings, greets: Bool = true) {
    let secure = TLSBackend(peer.fd, pair)
    guard secure.shakeHands() else { return }
    if greets { _ = secure.write("* OK ready\r\n") }
    #expect(secure.read() == "Q LOGOUT\r\n")
    _ = secure.write("* BYE bye\r\nQ OK done\r\n")
    #expect(secure.read() == nil)
    #expect(secure.heardGoodbye)
  }

  @Test(arguments: [BackendTLS.startTLS, .implicit])
  func underTLS(_ tls: BackendTLS) throws {
    let folder = try Folder()
    let authority = TestAuthority(folder)
    let server = TestServer()
    let stage = ProbeStage()
    try stage.add([.imap: server.port], ProberTests.manner(tls, .authority(file: authority.file)))
    let peer = server.accept()
    if tls == .startTLS {
      peer.send("* OK ready\r\n")
      #expect(peer.hear("\r\n") == "S STARTTLS\r\n")
      peer.send("S OK go\r\n")
    }
    ProberTests.playSecurely(
      peer, authority.issue("backend", names: "DNS:mail.example.net"), greets: tls == .implicit)
    #expect(stage.first() == .probeSucceeded)
    #expect(stage.warnings.isEmpty)
  }

  /// A certificate that no login would be trusted to is a failure, with OpenSSL's reason.
  @Test(arguments: ["expired", "foreign", "other"])
  func aBadCertificate(_ fault: String) throws {
    let folder = try Folder()
    let authority = TestAuthority(folder)
    let name = "DNS:mail.example.net"
    let (pair, reason) =
      switch fault {
      case "expired": (authority.issue("backend", names: name, days: -5 ... -1), "certificate has expired")
      case "foreign":
        (TestAuthority(folder, "stranger").issue("backend", names: name), "unable to get local issuer certificate")
      default: (authority.issue("backend", names: "DNS:other.example.net"), "hostname mismatch")
      }
    let server = TestServer()
    let stage = ProbeStage()
    try stage.add([.imap: server.port], ProberTests.manner(.implicit, .authority(file: authority.file)))
    ProberTests.playSecurely(server.accept(), pair)
    #expect(stage.failure() == "imap: TLS: certificate verify failed: \(reason)")
  }

  /// The end of a certificate is warned of before it comes, once; where nobody looks at the date, after it too.
  @Test(arguments: [true, false])
  func certificatesEnd(_ hasEnded: Bool) throws {
    let folder = try Folder()
    let authority = TestAuthority(folder)
    let name = "DNS:mail.example.net"
    let pair =
      hasEnded
      ? authority.issue("backend", names: name, days: -5 ... -1)
      : authority.issue("backend", names: name, seconds: 10 * 86_400)
    let server = TestServer()
    let stage = ProbeStage()
    let verification = hasEnded ? TLSVerification.none : .authority(file: authority.file)
    try stage.add([.imap: server.port], ProberTests.manner(.implicit, verification))
    for _ in 0..<3 { ProberTests.playSecurely(server.accept(), pair) }
    eventually("it is told") { stage.evidence().count >= 3 }
    #expect(stage.evidence().allSatisfy { $0 == .probeSucceeded })
    #expect(stage.warnings.count == 1)
    guard case .certificate(.imap, let end, hasEnded)? = stage.warnings.first else {
      Issue.record("\(stage.warnings)")
      return
    }
    let wanted = hasEnded ? -86_400 : 10 * 86_400
    #expect(abs(end - WallTime.second - wanted) < 60)
    #expect(stage.warnings[0].details.first { $0.name == "not_after" }?.value.hasSuffix("Z") == true)
  }

  /// What ends later than the operator wants to be warned of is nobody's business.
  @Test func aCertificateWithTimeLeft() throws {
    let folder = try Folder()
    let authority = TestAuthority(folder)
    let pair = authority.issue("backend", names: "DNS:mail.example.net", seconds: 10 * 86_400)
    let server = TestServer()
    let stage = ProbeStage()
    try stage.add([.imap: server.port], ProberTests.manner(.implicit, .authority(file: authority.file))) {
      $0.certificateWarning = Timeouts.seconds(9 * 86_400)
    }
    ProberTests.playSecurely(server.accept(), pair)
    #expect(stage.first() == .probeSucceeded)
    #expect(stage.warnings.isEmpty)
  }

  @Test(arguments: [
    ("S BAD what?\r\n", "it does not grant STARTTLS: S BAD what?"),
    ("S OK go\r\n* BYE\r\nQ OK\r\n", "bytes behind its answer to STARTTLS"),
  ])
  func noSTARTTLS(_ answer: String, _ why: String) throws {
    let server = TestServer()
    let stage = ProbeStage()
    try stage.add([.imap: server.port], ProberTests.manner(.startTLS, .system))
    let peer = server.accept()
    peer.send("* OK ready\r\n")
    _ = peer.hear("S STARTTLS\r\n")
    peer.send(answer)
    #expect(stage.failure() == "imap: \(why)")
    #expect(peer.hearsClose())
    #expect(peer.heard.isEmpty)
  }

  @Test func aHandshakeThatHangs() throws {
    let server = TestServer()
    let stage = ProbeStage()
    try stage.add([.imap: server.port], ProberTests.manner(.implicit, .system)) {
      $0.timeout = Timeouts.milliseconds(100)
    }
    let peer = server.accept()
    #expect(stage.failure() == "imap: no answer in time, in the TLS handshake")
    withExtendedLifetime(peer) {}
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

  // MARK: When

  @Test func maintenanceStopsProbes() throws {
    for admin in [AdminState.maintenance, .removed] {
      let stage = ProbeStage()
      let standing = try stage.add([.imap: closedPort()])
      _ = stage.first()
      standing.set(admin)
      try stage.pass(1)
      let count = stage.evidence().count
      try stage.pass(20)
      #expect(stage.evidence().count == count)
      standing.set(.ready)
      stage.probers.probeNow("a")
      eventually("it is probed again") { stage.evidence().count > count }
      // Drained is not gone.
      standing.set(.drain)
      let again = stage.evidence().count
      eventually("it is probed on") { stage.evidence().count > again + 3 }
    }
  }

  /// What is found in a round that was under way when maintenance began is not told.
  @Test func maintenanceBeginsWithinARound() throws {
    let server = TestServer()
    let stage = ProbeStage()
    let standing = try stage.add([.imap: server.port])
    let peer = server.accept()
    standing.set(.maintenance)
    peer.close()
    try stage.pass(20)
    #expect(stage.evidence().isEmpty)
  }

  @Test func probeNowWakes() throws {
    let stage = ProbeStage()
    // A configuration is adopted with each that is added, and then all are probed.
    try stage.pass(1)
    try stage.add([.imap: closedPort()]) {
      $0.interval = Timeouts.seconds(3_600)
      $0.fastInterval = Timeouts.seconds(3_600)
      $0.fall = 1_000
    }
    _ = stage.first()
    try stage.pass(20)
    #expect(stage.evidence().count == 1)
    // Not before the fast interval is over, however often it is asked.
    for _ in 0..<100 { stage.probers.probeNow("a") }
    try stage.pass(20)
    #expect(stage.evidence().count == 1)

    let other = ProbeStage()
    try other.pass(1)
    let server = TestServer()
    let standing = try other.add([.imap: server.port]) { $0.interval = Timeouts.seconds(3_600) }
    // Asked for while one is under way, it is the next.
    let peer = server.accept()
    for _ in 0..<100 { other.probers.probeNow("a") }
    playVisit(peer, .imap)
    playVisit(server.accept(), .imap)
    eventually("both are told") { other.evidence().count == 2 }
    try other.pass(20)
    #expect(other.evidence().count == 2)
    // And between two: at once.
    _ = standing.learn(.loginFailed("x"), at: Clock.monotonic.now)
    other.probers.probeNow("a")
    playVisit(server.accept(), .imap)
    eventually("it is told") { other.evidence().count == 3 }
    // The doubt is over, and so is the haste.
    #expect(standing.snapshot(at: 0).health == .up)
    try other.pass(20)
    #expect(other.evidence().count == 3)
    other.probers.probeNow("nobody")
  }

  /// In doubt the next comes after the fast interval.
  @Test func doubtIsFast() throws {
    let stage = ProbeStage()
    try stage.add([.imap: closedPort()]) { $0.interval = Timeouts.seconds(3_600) }
    eventually("it is lost") { stage.evidence().count > 5 }
  }

  /// One that hangs keeps nobody else waiting.
  @Test func aHungBackendIsAlone() throws {
    let server = TestServer()
    let stage = ProbeStage()
    try stage.add([.imap: server.port])
    let peer = server.accept()
    try stage.pass(50)
    #expect(stage.evidence().isEmpty)
    playVisit(peer, .imap)
    #expect(stage.first() == .probeSucceeded)
  }

  /// A reload ends it; of what is under way then nothing is told. The others go on.
  @Test func aReloadDropsIt() throws {
    let server = TestServer()
    let stage = ProbeStage()
    try stage.add([.imap: server.port])
    try stage.add([.imap: closedPort()], named: "b")
    let peer = server.accept()
    _ = stage.first("b")
    stage.drop("a")
    playVisit(peer, .imap)
    try stage.pass(20)
    #expect(stage.evidence().isEmpty)
    let count = stage.evidence("b").count
    eventually("the other goes on") { stage.evidence("b").count > count }
    stage.drop("b")
    try stage.pass(1)
    let last = stage.evidence("b").count
    try stage.pass(20)
    #expect(stage.evidence("b").count <= last)
  }

  /// What is not probed and has no agent has no thread.
  @Test func oneThatIsNotProbed() throws {
    let stage = ProbeStage()
    try stage.add([.imap: closedPort()]) { $0.isProbed = false }
    try stage.pass(20)
    #expect(stage.evidence().isEmpty)
  }

  /// A visit's socket is closed with it: whoever writes to it then is told.
  @Test(arguments: ["* OK ready\r\n", "* BYE busy\r\n"])
  func socketsAreClosed(_ greeting: String) throws {
    let server = TestServer()
    let stage = ProbeStage()
    try stage.add([.imap: server.port])
    let peer = server.accept()
    peer.send(greeting)
    if greeting.contains("OK") {
      _ = peer.hear("Q LOGOUT\r\n")
      peer.send("* BYE\r\nQ OK\r\n")
    }
    eventually("it is closed") { Glibc.send(peer.fd, "x", 1, Int32(MSG_NOSIGNAL)) < 0 }
  }
}

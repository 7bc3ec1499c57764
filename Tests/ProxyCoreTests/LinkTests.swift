// swift-format-ignore-file: NeverForceUnwrap
// A test that unwraps nil fails, which is what it is for.

import COpenSSL
import Glibc
import Testing

@testable import Protocols
@testable import ProxyCore

/// What stands before and behind: proxies in front, several addresses, referrals, TLS to a backend.
struct LinkTests {
  private let greeting = "* OK [CAPABILITY IMAP4rev1 SASL-IR ID AUTH=PLAIN] ready\r\n"

  // MARK: PROXY headers

  /// However the header is cut, and with TLS right behind it: not a byte too many is taken from the socket.
  @Test(arguments: [1, 5, 1_000])
  func aHeaderInPieces(_ size: Int) throws {
    let stage = try LoopStage(.to(TestServer().port, certificate: try SharedCertificate.get()))
    let client = stage.connect(.imap, .implicit, proxyNetworks: [Network("0.0.0.0")!])
    var header: [UInt8] = []
    var facts = ProxyHeader()
    facts.ends = ProxyHeader.Ends(source: .v4(0xC000_0207, port: 4_711), destination: .v4(0xC000_0201, port: 993))
    facts.appendBinary(to: &header)
    for start in stride(from: 0, to: header.count, by: size) {
      client.send(Array(header[start..<min(start + size, header.count)]))
      // Each piece is taken before the next is sent.
      eventually("it is taken") { stage.unread() == 0 }
    }
    let tls = TLSClient(client.fd)
    #expect(tls.shakeHands())
    #expect(tls.read()?.hasPrefix("* OK [CAPABILITY") == true)
    client.close()
    let line = stage.sessionLine()
    #expect(line.contains(" peer=192.0.2.7:4711 via=0.0.0.0:0 "), "\(line)")
  }

  /// Words right behind a header in clear are the client's.
  @Test func aHeaderAndACommandInOneWrite() throws {
    let stage = try LoopStage(.to(TestServer().port))
    let client = stage.connect(proxyNetworks: [Network("0.0.0.0/0")!])
    client.send("PROXY TCP6 2001:db8::7 2001:db8::1 4711 143\r\na NOOP\r\n")
    _ = client.hear("a OK NOOP completed.\r\n")
    client.close()
    #expect(stage.sessionLine().contains(" peer=[2001:db8::7]:4711 "))
  }

  /// A load balancer's own check speaks for itself.
  @Test func aLocalHeader() throws {
    let stage = try LoopStage(.to(TestServer().port))
    let client = stage.connect(.pop3, proxyNetworks: [Network("0.0.0.0")!])
    client.send([0x0D, 0x0A, 0x0D, 0x0A, 0, 0x0D, 0x0A, 0x51, 0x55, 0x49, 0x54, 0x0A, 0x20, 0, 0, 0])
    _ = client.hear("+OK proxyd ready.\r\n")
    client.close()
    #expect(!stage.sessionLine().contains("via="))
  }

  @Test func aHeaderThatDoesNotCome() throws {
    let stage = try LoopStage(.to(TestServer().port))
    let client = stage.connect(proxyNetworks: [Network("0.0.0.0")!])
    client.send("PROXY TCP4 ")
    eventually("it waits") { stage.doing() == "waiting for a PROXY header" }
    stage.advance(seconds: 4)
    #expect(client.hearsClose())
    #expect(client.heard.isEmpty)
    #expect(stage.sessionLine().contains(" end=proxy-header "))
  }

  /// Whose words of the client are believed follows from the address in the header.
  @Test(arguments: [("192.0.2.7", true), ("192.0.2.8", false)])
  func trustFollowsTheHeader(_ address: String, _ isTrusted: Bool) throws {
    let server = TestServer()
    var settings = Settings.to(server.port)
    settings.trustedProxies = [Network("192.0.2.7")!]
    let stage = try LoopStage(settings)
    let client = stage.connect(proxyNetworks: [Network("0.0.0.0")!])
    client.send("PROXY TCP4 \(address) 192.0.2.1 4711 143\r\n")
    client.send("i ID (\"x-originating-ip\" \"198.51.100.9\" \"x-session-id\" \"given\" \"x-proxy-ttl\" \"4\")\r\n")
    client.send("a LOGIN alice s3cret\r\n")
    let backend = server.accept()
    backend.send(greeting)
    let said = backend.hear("\"alice\" \"s3cret\"\r\n")
    #expect(said.contains("\"x-originating-ip\" \"\(isTrusted ? "198.51.100.9" : address)\""), "\(said)")
    #expect(said.contains("\"x-session-id\" \"given\"") == isTrusted, "\(said)")
    #expect(said.contains("\"x-proxy-ttl\" \"\(isTrusted ? 3 : 6)\""), "\(said)")
    #expect(said.contains("\"x-client-transport\" \"insecure\""), "\(said)")
  }

  /// A backend that wants the header has it before all else, and the same facts in it.
  @Test(arguments: [ProxyProtocolVersion.v1, .v2])
  func aHeaderForTheBackend(_ version: ProxyProtocolVersion) throws {
    let server = TestServer()
    var settings = Settings.to(server.port)
    settings.backends["a"]?.manner.proxyProtocol = version
    let stage = try LoopStage(settings)
    let client = stage.connect(proxyNetworks: [Network("0.0.0.0")!])
    client.send("PROXY TCP4 192.0.2.7 192.0.2.1 4711 143\r\na LOGIN alice s3cret\r\n")
    let backend = server.accept()
    var heard: [UInt8] = []
    var reading = ProxyHeader.Reading.incomplete
    while reading == .incomplete, let byte = backend.next() {
      heard.append(byte)
      reading = ProxyHeader.read(heard.span)
    }
    guard case .header(let header, _) = reading, let ends = header.ends else {
      Issue.record("no header: \(reading)")
      return
    }
    #expect(SocketAddress(ends.source)?.description == "192.0.2.7:4711")
    #expect(SocketAddress(ends.destination)?.description == "192.0.2.1:143")
    backend.send(greeting)
    _ = backend.hear("\"alice\" \"s3cret\"\r\n")
    backend.send("L OK in\r\n")
    _ = client.hear("a OK in\r\n")
  }

  // MARK: Master users

  /// The user is looked up and the master logs in, whichever way the two are given.
  @Test(arguments: ["a LOGIN Alice*admin s3cret\r\n", "a AUTHENTICATE PLAIN QWxpY2UAYWRtaW4AczNjcmV0\r\n"])
  func aMasterUserLogsIn(_ command: String) throws {
    let folder = try Folder()
    let server = TestServer()
    var settings = Settings.to(server.port)
    settings.routes = [.regex(file: try folder.write("routes.re", "alice: alice.x@a\n"))]
    settings.masterSeparator = Array("*".utf8)
    let stage = try LoopStage(settings)
    let client = stage.connect()
    client.send(command)
    let backend = server.accept()
    backend.send("* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] ready\r\n")
    // alice.x NUL admin NUL s3cret
    _ = backend.hear("L AUTHENTICATE PLAIN YWxpY2UueABhZG1pbgBzM2NyZXQ=\r\n")
    backend.send("L OK in\r\n")
    _ = client.hear("a OK in\r\n")
    backend.close()
    client.close()
    #expect(stage.sessionLine().contains(" login=Alice authenticated=admin "))
  }

  // MARK: Addresses

  /// The first address does not answer, the second does: a quarter of a second, not a time-out.
  @Test func aSilentAddressCostsAQuarterOfASecond() throws {
    let good = TestServer()
    // The same port at another address, with a queue that is full.
    let silent = try #require(TestServer(backlog: 0, at: 0x7F00_0002, port: good.port))
    let fill = [TestConnection(good.port, at: 0x7F00_0002), TestConnection(good.port, at: 0x7F00_0002)]
    let stage = try LoopStage(named(good.port), resolver: Resolver { _ in .addresses([loopback(2), loopback(1)]) })
    let client = stage.connect()
    client.send("a LOGIN alice s3cret\r\n")
    eventually("it connects") { stage.doing() == "connecting to the backend" }
    stage.advance(seconds: 1)
    let backend = good.accept()
    backend.send(greeting)
    _ = backend.hear("\"alice\" \"s3cret\"\r\n")
    backend.send("L OK in\r\n")
    _ = client.hear("a OK in\r\n")
    backend.close()
    client.close()
    #expect(stage.sessionLine().contains(" address=127.0.0.1:\(good.port) "))
    withExtendedLifetime((silent, fill)) {}
  }

  /// Refused, closed before the greeting, no greeting at all: the next address has its turn, and the client one answer.
  @Test func anotherAddressAsLongAsNothingWasSaid() throws {
    let good = TestServer()
    let closing = try #require(TestServer(at: 0x7F00_0002, port: good.port))
    let busy = try #require(TestServer(at: 0x7F00_0003, port: good.port))
    let resolver = Resolver { _ in .addresses([loopback(4), loopback(2), loopback(3), loopback(1)]) }
    let stage = try LoopStage(named(good.port), resolver: resolver)
    let client = stage.connect()
    _ = client.hear("ready.\r\n")
    client.send("a LOGIN alice s3cret\r\n")

    closing.accept().close()
    busy.accept().send("* BYE too busy\r\n")
    let backend = good.accept()
    backend.send(greeting)
    _ = backend.hear("\"alice\" \"s3cret\"\r\n")
    // A password is tried once: this close is the end of it.
    backend.close()
    #expect(client.hear("\r\n").hasPrefix("a NO [UNAVAILABLE] "))
    client.close()
    let line = stage.sessionLine()
    #expect(line.contains(" failure=backend-closed ") && line.contains(" attempts=1 "), "\(line)")
  }

  /// One that accepts and then says nothing does not keep the others from their turn.
  @Test func anAddressThatSaysNothing() throws {
    let good = TestServer()
    let mute = try #require(TestServer(at: 0x7F00_0002, port: good.port))
    let stage = try LoopStage(named(good.port), resolver: Resolver { _ in .addresses([loopback(2), loopback(1)]) })
    let client = stage.connect()
    client.send("a LOGIN alice s3cret\r\n")
    let silent = mute.accept()
    eventually("it waits") { stage.doing() == "waiting for the backend's greeting" }
    stage.advance(seconds: 11)
    let backend = good.accept()
    backend.send(greeting)
    _ = backend.hear("\"alice\" \"s3cret\"\r\n")
    backend.send("L OK in\r\n")
    _ = client.hear("a OK in\r\n")
    #expect(silent.hearsClose())
  }

  @Test func addressesAreInterlaced() {
    let six = (1...2).map { SocketAddress(literal: "2001:db8::\($0)", port: 0)! }
    let four = (1...3).map { SocketAddress(literal: "192.0.2.\($0)", port: 0)! }
    #expect(Resolver.interlaced(six + four) == [six[0], four[0], six[1], four[1], four[2]])
    #expect(Resolver.interlaced(four) == four)
    #expect(Resolver.interlaced([]) == [])
  }

  private func named(_ port: UInt16) -> Settings {
    var settings = Settings.to(port)
    settings.backends["a"]?.host = Host("backend.example.net")!
    return settings
  }

  // MARK: Referrals

  @Test func aReferralToOneOfOursIsFollowed() throws {
    let (first, second) = (TestServer(), TestServer())
    var settings = Settings.to(first.port)
    settings.backends["b"] = BackendSettings(host: Host("127.0.0.1")!, ports: [.imap: second.port])
    let stage = try LoopStage(settings)
    let client = stage.connect()
    client.send("a LOGIN alice s3cret\r\n")
    let backend = first.accept()
    backend.send(greeting)
    _ = backend.hear("\"alice\" \"s3cret\"\r\n")
    backend.send("L NO [REFERRAL imap://alice;AUTH=PLAIN@127.0.0.1:\(second.port)/] elsewhere\r\n")
    let other = second.accept()
    other.send(greeting)
    _ = other.hear("\"alice\" \"s3cret\"\r\n")
    other.send("L OK in\r\n")
    _ = client.hear("a OK in\r\n")
    other.close()
    client.close()
    #expect(stage.sessionLine().contains(" backend=b "))
  }

  /// Anywhere else is the client's business: no password goes to a server the operator does not name.
  @Test func aReferralElsewhereIsPassedOn() throws {
    let (first, stranger) = (TestServer(), TestServer())
    let stage = try LoopStage(.to(first.port))
    let client = stage.connect()
    _ = client.hear("ready.\r\n")
    client.send("a LOGIN alice s3cret\r\n")
    let backend = first.accept()
    backend.send(greeting)
    _ = backend.hear("\"alice\" \"s3cret\"\r\n")
    backend.send("L NO [REFERRAL imap://127.0.0.1:\(stranger.port)/] elsewhere\r\n")
    #expect(client.hear("\r\n") == "a NO [REFERRAL imap://127.0.0.1:\(stranger.port)/] elsewhere\r\n")
  }

  /// Certificates of clients are taken, and a master user logs in at the backend.
  private func behindMaster(
    _ server: TestServer, _ folder: Folder, _ authority: TestAuthority, separator: String? = nil
  ) throws -> Settings {
    var settings = Settings.to(server.port)
    settings.backends["a"]?.manner.master = MasterSettings(
      user: "root", passwordFile: try folder.write("pw", "master-s3cret\n"), separator: separator)
    settings.tls = TLSServerSettings(
      identities: [TLSIdentitySettings(pairs: [try SharedCertificate.get()])], clientCertificates: .request,
      clientCA: authority.file)
    return settings
  }

  /// Alice, with her certificate.
  private func welcomed(_ stage: LoopStage, _ authority: TestAuthority) -> SecureSpeaker {
    let peer = stage.connect(.imap, .implicit, mechanisms: [.external])
    let client = SecureSpeaker(peer, authority.issue("client", subject: [("CN", "alice")]))
    _ = client.hear("ready.\r\n")
    return client
  }

  /// A master user may have another name at the backend: the session counts as its user's.
  @Test func aMasterUsersSessionIsItsUsers() throws {
    let folder = try Folder()
    let authority = TestAuthority(folder)
    let server = TestServer()
    var settings = try behindMaster(server, folder, authority, separator: "*")
    settings.sessionLimits.user = 1
    let stage = try LoopStage(settings)
    let (first, second) = (welcomed(stage, authority), welcomed(stage, authority))
    first.send("a AUTHENTICATE EXTERNAL =\r\n")
    let backend = server.accept()
    backend.send("* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] ready\r\n")
    _ = backend.hear("L AUTHENTICATE PLAIN ")
    backend.send("L OK in\r\n")
    _ = first.hear("a OK ")
    #expect(stage.house.census.count(.user(UserKey("alice"))) == 1)
    second.send("b AUTHENTICATE EXTERNAL =\r\n")
    _ = second.hear("b NO [LIMIT] ")
  }

  /// A master user is one backend's own: its password goes to no other, and not to the client.
  @Test func aMasterUserIsNotReferred() throws {
    let folder = try Folder()
    let authority = TestAuthority(folder)
    let (first, second) = (TestServer(), TestServer())
    var settings = try behindMaster(first, folder, authority)
    settings.backends["b"] = BackendSettings(host: Host("127.0.0.1")!, ports: [.imap: second.port])
    let stage = try LoopStage(settings)
    let client = welcomed(stage, authority)
    for (answer, told) in [
      ("NO [REFERRAL imap://x@127.0.0.1:\(second.port)/] there", "a NO [REFERRAL imap://x@127.0.0.1:\(second.port)/]"),
      ("NO [LIMIT] you said master-s3cret", "a NO [LIMIT]"), ("NO [master-s3cret] no", "a NO "),
    ] {
      client.send("a AUTHENTICATE EXTERNAL =\r\n")
      let backend = first.accept()
      backend.send("* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] ready\r\n")
      _ = backend.hear("L AUTHENTICATE PLAIN YWxpY2UAcm9vdABtYXN0ZXItczNjcmV0\r\n")
      backend.send("L \(answer)\r\n")
      let heard = client.hear("\r\n")
      #expect(heard.hasPrefix(told), "\(heard)")
      #expect(!heard.contains("s3cret"), "\(heard)")
    }
    #expect(!stage.log().contains("s3cret"))
  }

  /// Two that send the user to each other: three steps, then the client is told.
  @Test func aCircleOfReferralsEnds() throws {
    let servers = [TestServer(), TestServer()]
    var settings = Settings.to(servers[0].port)
    settings.backends["b"] = BackendSettings(host: Host("127.0.0.1")!, ports: [.imap: servers[1].port])
    let stage = try LoopStage(settings)
    let client = stage.connect()
    _ = client.hear("ready.\r\n")
    client.send("a LOGIN alice s3cret\r\n")
    for step in 0...3 {
      let backend = servers[step % 2].accept()
      backend.send(greeting)
      _ = backend.hear("\"alice\" \"s3cret\"\r\n")
      backend.send("L NO [REFERRAL imap://x@127.0.0.1:\(servers[(step + 1) % 2].port)/] there\r\n")
    }
    #expect(client.hear("\r\n").hasPrefix("a NO [REFERRAL "))
  }

  // MARK: TLS to a backend

  /// Bytes behind the answer to STARTTLS are somebody's on the way.
  @Test func bytesBehindABackendsSTARTTLS() throws {
    let server = TestServer()
    var settings = Settings.to(server.port)
    settings.backends["a"]?.manner.tls = .startTLS
    let stage = try LoopStage(settings)
    let client = stage.connect()
    _ = client.hear("ready.\r\n")
    client.send("a LOGIN alice s3cret\r\n")
    let backend = server.accept()
    backend.send(greeting)
    _ = backend.hear("S STARTTLS\r\n")
    backend.send("S OK go\r\n* CAPABILITY IMAP4rev1\r\n")
    #expect(client.hear("\r\n").hasPrefix("a NO [UNAVAILABLE] "))
    #expect(backend.hearsClose())
    #expect(backend.heard.isEmpty)
  }

  /// From STARTTLS to the relay, and nothing of the login in clear.
  @Test(arguments: [BackendTLS.startTLS, .implicit])
  func theWholeWayUnderTLS(_ tls: BackendTLS) throws {
    let folder = try Folder()
    let authority = TestAuthority(folder)
    let server = TestServer()
    var settings = Settings.to(server.port)
    settings.backends["a"]?.manner.tls = tls
    settings.backends["a"]?.manner.tlsName = Host("mail.example.net")
    settings.backends["a"]?.manner.security.verification = .authority(file: authority.file)
    let stage = try LoopStage(settings)
    let client = stage.connect()
    _ = client.hear("ready.\r\n")
    client.send("a LOGIN alice s3cret\r\nb NOOP\r\n")
    let backend = server.accept()
    if tls == .startTLS {
      backend.send(greeting)
      #expect(backend.hear("\r\n") == "S STARTTLS\r\n")
      backend.send("S OK go\r\n")
    }
    let secure = TLSBackend(backend.fd, authority.issue("backend", names: "DNS:mail.example.net"))
    #expect(secure.shakeHands())
    #expect(secure.serverName == "mail.example.net")
    if tls == .startTLS {
      #expect(secure.read() == "C CAPABILITY\r\n")
      _ = secure.write("* CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN\r\nC OK done\r\n")
    } else {
      _ = secure.write("* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] ready\r\n")
    }
    #expect(secure.read() == "L LOGIN \"alice\" \"s3cret\"\r\n")
    _ = secure.write("L OK in\r\n* 1 EXISTS\r\n")
    #expect(client.hear("EXISTS\r\n") == "a OK in\r\n* 1 EXISTS\r\n")
    #expect(secure.read() == "b NOOP\r\n")
    let message = String(repeating: "0123456789abcdef", count: 20_000)
    Thread.detach { client.send(message) }
    var heard = ""
    while heard.utf8.count < message.utf8.count, let more = secure.read() { heard += more }
    #expect(heard == message)
    secure.sayGoodbye()
    #expect(client.hearsClose())
    client.close()
    let line = stage.sessionLine()
    #expect(line.contains(" backend_tls=TLSv1.3 ") && line.contains(" end=backend-closed "), "\(line)")
  }

  /// The loop's own address is no backend.
  @Test func networks() {
    let cases: [(String, [String], [String])] = [
      ("192.0.2.0/24", ["192.0.2.0", "192.0.2.255"], ["192.0.3.0", "::c000:200", "2001:db8::"]),
      ("0.0.0.0/0", ["255.1.2.3"], ["::"]), ("192.0.2.7", ["192.0.2.7"], ["192.0.2.6"]),
      ("2001:db8::/33", ["2001:db8:7fff::1"], ["2001:db8:8000::", "192.0.2.1"]),
      ("2001:db8::8/125", ["2001:db8::f"], ["2001:db8::10"]), ("::/0", ["::1"], ["1.2.3.4"]),
    ]
    for (text, inside, outside) in cases {
      let network = Network(text)!
      for address in inside {
        #expect(network.contains(SocketAddress(literal: address, port: 7)!), "\(text) \(address)")
      }
      for address in outside {
        #expect(!network.contains(SocketAddress(literal: address, port: 7)!), "\(text) \(address)")
      }
    }
    for text in ["", "x", "192.0.2.1/24", "192.0.2.0/33", "2001:db8::/129", "192.0.2.0/", "192.0.2.0/+8", "1.2.3/8"] {
      #expect(Network(text) == nil, "\(text)")
    }
  }
}

private func loopback(_ last: Int) -> SocketAddress { SocketAddress(literal: "127.0.0.\(last)", port: 0)! }

/// A thread for what would block a test.
private enum Thread {
  static func detach(_ body: @escaping @Sendable () -> Void) {
    var thread = pthread_t()
    let box = Unmanaged.passRetained(Box(body))
    pthread_create(
      &thread, nil,
      { raw in
        Unmanaged<Box>.fromOpaque(raw!).takeRetainedValue().body()
        return nil
      }, box.toOpaque())
    pthread_detach(thread)
  }

  private final class Box: Sendable {
    let body: @Sendable () -> Void
    init(_ body: @escaping @Sendable () -> Void) { self.body = body }
  }
}

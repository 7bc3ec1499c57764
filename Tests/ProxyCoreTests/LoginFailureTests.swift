// swift-format-ignore-file: NeverForceUnwrap
// A test that unwraps nil fails, which is what it is for.

import Foundation
import Glibc
import Testing

@testable import Protocols
@testable import ProxyCore

/// Every way a login can fail, brought about: what the client is told, and what the log says. A failure of ours or a
/// backend's is never told as a wrong password.
struct LoginFailureTests {
  @Test(arguments: LoginFailure.Reason.allCases)
  func isProduced(_ reason: LoginFailure.Reason) throws {
    let server = TestServer()
    let (stage, client, answer) = try produce(reason, server)
    switch reason {
    case .emptyName, .longName, .badCharacters, .unknownUser, .refused, .certificateName, .wrongPassword:
      #expect(answer.hasPrefix("a NO [AUTHENTICATIONFAILED] "), "\(answer)")
    case .refusedOtherwise: #expect(answer.hasPrefix("a NO [LIMIT] "), "\(answer)")
    case .backendMechanism, .backendStartTLS, .backendCertificate, .noMaster, .loop:
      #expect(answer.hasPrefix("a NO [SERVERBUG] "), "\(answer)")
    case .userLimit, .userAddressLimit: #expect(answer.hasPrefix("a NO [LIMIT] "), "\(answer)")
    case .cancelled: #expect(answer.hasPrefix("a BAD "), "\(answer)")
    case .disabled: #expect(answer.hasPrefix("a NO [CONTACTADMIN] "), "\(answer)")
    case .nameRewritten, .uncheckable: #expect(answer.hasPrefix("a NO [CANNOT] "), "\(answer)")
    case .lookupFailed, .lookupBusy, .backendUnresolved, .noSocket, .backendUnreachable, .connectTimeout,
      .backendTimeout, .backendClosed, .backendError, .backendGreeting, .backendProtocol, .backendTLS, .noMember,
      .poolFull, .moving, .directoryFailed:
      #expect(answer.hasPrefix("a NO [UNAVAILABLE] "), "\(answer)")
    }
    // The client may go on.
    client.send("b NOOP\r\n")
    _ = client.hear("b OK NOOP completed.\r\n")
    client.close()
    let session = stage.sessionLine()
    #expect(session.contains(" failure=\(reason.rawValue) "), "\(session)")
    let failed = stage.log().split(separator: "\n").first { $0.contains("event=login-failed ") } ?? ""
    #expect(failed.contains(" failure=\(reason.rawValue)"), "\(failed)")
    #expect(failed.contains(reason.isTrouble ? "level=warning" : "level=notice"), "\(failed)")
    #expect(!stage.log().contains("s3cret"))
  }

  /// A name from a map that would end the line it is said in.
  @Test func aMapsNameIsLookedAtToo() throws {
    let folder = try Folder()
    let file = folder.file("map.db")
    try run("sqlite3", file, SQLiteMap.schema)
    let map = try SQLiteDatabase(file, .write)
    try map.run("INSERT INTO users VALUES('alice', 'a', 'x' || char(13, 10) || 'DELE 1')")
    var settings = Settings.to(TestServer().port)
    settings.routes = [.sqlite(file: file, query: nil)]
    let scene = try logIn(settings)
    #expect(scene.answer.hasPrefix("a NO [UNAVAILABLE] "))
    eventually("it is told") { scene.stage.log().contains("failure=lookup-failed") }
    #expect(scene.stage.log().contains("can't be one: bad-characters"))
  }

  /// A server that quotes what it did not understand quotes the password.
  @Test(arguments: [
    "L BAD Unknown: LOGIN alice s3cret\r\n", "L NO [LIMIT] s3cret is too long\r\n", "what is czNjcmV0?\r\n",
    "L NO AGFsaWNlAHMzY3JldA== is wrong\r\n",
    "L BAD LOGIN ALICE S3CRET\r\n", "L BAD what is AGFsaWNlAH...\r\n",
  ])
  func anEchoIsNotLogged(_ words: String) throws {
    let server = TestServer()
    let scene = try logIn(.to(server.port)) { _ in
      let backend = server.accept()
      backend.send("* OK [CAPABILITY IMAP4rev1] ready\r\n")
      _ = backend.hear("s3cret\"\r\n")
      backend.send(words)
      #expect(backend.hearsClose())
    }
    eventually("it is told") { scene.stage.log().contains("(it repeats the credentials)") }
    let log = scene.stage.log()
    for secret in ["s3cret", "S3CRET", "czNjcmV0", "AGFsaWNlAH"] { #expect(!log.contains(secret)) }
  }

  /// A password that is short, or is said with escapes: six bytes of it as it is stand nowhere.
  @Test(arguments: [
    ("Ab1!", "LOGIN ALICE AB1!"), ("Ab1!", "login alice ab1!"), (#"a"b\c"d"#, #"LOGIN "alice" "a\"b\\c\"d""#),
    (#"a"b\c"d"#, #"LOGIN "ALICE" "A\"B\\C\"D""#), (#"a"b"#, #"what is a\"b?"#),
  ])
  func noPasswordIsTooOddToBeSeen(_ password: String, _ words: String) {
    var draft = LoginDraft()
    draft.name = Array("alice".utf8)
    draft.password.append(Array(password.utf8).span)
    let isSeen = draft.isRepeated(in: Array(words.utf8).span)
    #expect(isSeen)
    let isSeenInAnother = draft.isRepeated(in: Array("LOGIN alice a".utf8).span)
    #expect(!isSeenInAnother)
  }

  /// A second login of alice's while the first is there.
  private func second(_ settings: Settings, _ server: TestServer) throws -> Scene {
    let stage = try LoopStage(settings)
    let first = stage.connect()
    _ = first.hear("ready.\r\n")
    first.send("a LOGIN alice s3cret\r\n")
    let backend = server.accept()
    backend.send("* OK [CAPABILITY IMAP4rev1] ready\r\n")
    _ = backend.hear("s3cret\"\r\n")
    backend.send("L OK in\r\n")
    _ = first.hear("a OK in\r\n")
    let client = stage.connect()
    _ = client.hear("ready.\r\n")
    client.send("a LOGIN ALICE s3cret\r\n")
    let answer = client.hear("\r\n")
    // Only the second is looked at; the first stays until the stage goes.
    kept.add(first, backend)
    return (stage, client, answer)
  }

  /// Ends of connections that must outlive the scene.
  private let kept = Kept()

  private final class Kept: Sendable {
    nonisolated(unsafe) private var peers: [Peer] = []
    func add(_ more: Peer...) { peers += more }
  }

  private typealias Scene = (stage: LoopStage, client: any Speaker, answer: String)

  /// Logs in, lets `play` be the backend, and returns the answer.
  private func logIn(
    _ settings: Settings, _ command: String = "a LOGIN alice s3cret\r\n", _ play: (LoopStage) throws -> Void = { _ in }
  ) throws -> Scene {
    let stage = try LoopStage(settings)
    let client = stage.connect()
    _ = client.hear("ready.\r\n")
    client.send(command)
    try play(stage)
    let heard = client.hear("\r\n")
    return (stage, client, heard)
  }

  private func produce(_ reason: LoginFailure.Reason, _ server: TestServer) throws -> Scene {
    let settings = Settings.to(server.port)
    let greeting = "* OK [CAPABILITY IMAP4rev1] ready\r\n"
    switch reason {
    case .emptyName: return try logIn(settings, "a LOGIN \"\" s3cret\r\n") { try self.delay($0) }
    case .longName:
      return try logIn(settings, "a LOGIN \(String(repeating: "x", count: 600)) s3cret\r\n") { try self.delay($0) }
    case .badCharacters: return try logIn(settings, "a LOGIN alice {8+}\r\ns3cre\r\nt\r\n") { try self.delay($0) }
    case .unknownUser:
      let folder = try Folder()
      var settings = settings
      settings.routes = [.regex(file: try folder.write("routes.re", "bob: a\n"))]
      return try logIn(settings) { try self.delay($0) }
    case .refused:
      return try logIn(settings) { _ in
        let backend = server.accept()
        backend.send(greeting)
        _ = backend.hear("s3cret\"\r\n")
        backend.send("L NO [AUTHENTICATIONFAILED] no\r\n")
        // The connection is not kept.
        #expect(backend.hearsClose())
      }
    case .refusedOtherwise:
      return try logIn(settings) { _ in
        let backend = server.accept()
        backend.send(greeting)
        _ = backend.hear("s3cret\"\r\n")
        backend.send("L NO [LIMIT] too many\r\n")
        #expect(backend.hearsClose())
      }
    case .wrongPassword:
      let source = PlayedSource(isPersonal: true) { _ in .answer(.refused(.init())) }
      let stage = try LoopStage(settings, routes: source.plan(settings))
      let client = stage.connect()
      _ = client.hear("ready.\r\n")
      client.send("a LOGIN alice s3cret\r\n")
      try delay(stage)
      return (stage, client, client.hear("\r\n"))
    case .uncheckable:
      let source = PlayedSource(isPersonal: true) { _ in .answer(.notFound) }
      let stage = try LoopStage(settings, routes: source.plan(settings))
      let client = stage.connect(mechanisms: [.xoauth2])
      _ = client.hear("ready.\r\n")
      client.send("a AUTHENTICATE XOAUTH2 dXNlcj1hbGljZQFhdXRoPUJlYXJlciBzM2NyZXQBAQ==\r\n")
      return (stage, client, client.hear("\r\n"))
    case .lookupFailed:
      let folder = try Folder()
      let file = folder.file("map.db")
      try run("sqlite3", file, SQLiteMap.schema)
      var settings = settings
      settings.routes = [.sqlite(file: file, query: nil), .fixed(backend: "a")]
      let stage = try LoopStage(settings)
      unlink(file)
      let client = stage.connect()
      _ = client.hear("ready.\r\n")
      client.send("a LOGIN alice s3cret\r\n")
      return (stage, client, client.hear("\r\n"))
    case .lookupBusy:
      let folder = try Folder()
      let file = folder.file("map.db")
      try run("sqlite3", file, SQLiteMap.schema)
      let writer = try SQLiteDatabase(file, .write)
      try writer.run("BEGIN EXCLUSIVE")
      var settings = settings
      settings.routes = [.sqlite(file: file, query: nil), .fixed(backend: "a")]
      return try logIn(settings) { stage in
        eventually("the session waits") { stage.doing() == "waiting to ask for the backend again" }
        stage.advance(seconds: 3)
      }
    case .backendUnresolved:
      var settings = settings
      settings.backends["a"] = BackendSettings(host: Host("no-such-host.invalid")!)
      return try logIn(settings)
    case .noSocket:
      // Of v6 sockets, which no other test asks for.
      KernelPlay.write(.socket, on: AF_INET6, [.failed(.system(SystemError(EMFILE)))])
      var settings = settings
      settings.backends["a"] = BackendSettings(host: Host("::1")!)
      return try logIn(settings)
    case .backendUnreachable:
      var settings = settings
      // A port nobody listens on: its server has gone.
      settings.backends["a"] = BackendSettings(host: Host("127.0.0.1")!, ports: [.imap: TestServer().port])
      return try logIn(settings)
    case .connectTimeout:
      // A queue that is full does not answer.
      let full = TestServer(backlog: 0)
      let first = TestConnection(full.port)
      let second = TestConnection(full.port)
      var settings = settings
      settings.backends["a"] = BackendSettings(host: Host("127.0.0.1")!, ports: [.imap: full.port])
      let scene = try logIn(settings) { stage in
        eventually("it connects") { stage.doing() == "connecting to the backend" }
        stage.advance(seconds: 11)
      }
      withExtendedLifetime((first, second)) {}
      return scene
    case .backendTimeout:
      return try logIn(settings) { stage in
        let backend = server.accept()
        eventually("it connects") { stage.doing() == "connecting to the backend" }
        // After the time to connect it finds that it is connected, and waits for the greeting.
        stage.advance(seconds: 11)
        eventually("it waits") { stage.doing() == "waiting for the backend's greeting" }
        stage.advance(seconds: 20)
        #expect(backend.hearsClose())
      }
    case .backendClosed:
      return try logIn(settings) { _ in
        let backend = server.accept()
        backend.send(greeting)
        _ = backend.hear("s3cret\"\r\n")
        backend.close()
      }
    case .backendError:
      return try logIn(settings) { _ in
        let backend = server.accept()
        backend.send(greeting)
        _ = backend.hear("s3cret\"\r\n")
        backend.reset()
      }
    case .backendGreeting:
      return try logIn(settings) { _ in server.accept().send("* BYE not now\r\n") }
    case .backendProtocol:
      return try logIn(settings) { _ in
        let backend = server.accept()
        backend.send(greeting)
        _ = backend.hear("s3cret\"\r\n")
        backend.send("what?\r\n")
        #expect(backend.hearsClose())
      }
    case .certificateName:
      return try logInByCertificate(settings, [("O", "nobody in particular")]) { try self.delay($0) }
    case .noMaster: return try logInByCertificate(settings, [("CN", "alice")])
    case .cancelled:
      let stage = try LoopStage(settings)
      let client = stage.connect(mechanisms: [.scramSHA256])
      client.send("a AUTHENTICATE SCRAM-SHA-256 biwsbj1hbGljZSxyPWFiYw==\r\n")
      let backend = server.accept()
      backend.send("* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=SCRAM-SHA-256] ready\r\n")
      _ = backend.hear("L AUTHENTICATE SCRAM-SHA-256 biwsbj1hbGljZSxyPWFiYw==\r\n")
      backend.send("+ cj1hYmMx\r\n")
      _ = client.hear("+ cj1hYmMx\r\n")
      client.send("*\r\n")
      #expect(backend.hearsClose())
      return (stage, client, client.hear("\r\n"))
    case .disabled:
      let folder = try Folder()
      var settings = settings
      settings.routes = [.regex(file: try folder.write("routes.re", "alice: !\n"))]
      return try logIn(settings) { try self.delay($0) }
    case .nameRewritten:
      let folder = try Folder()
      var settings = settings
      settings.routes = [.regex(file: try folder.write("routes.re", "(.*): $1.x@a\n"))]
      let stage = try LoopStage(settings)
      let client = stage.connect(mechanisms: [.scramSHA256])
      _ = client.hear("ready.\r\n")
      client.send("a AUTHENTICATE SCRAM-SHA-256 biwsbj1hbGljZSxyPWFiYw==\r\n")
      return (stage, client, client.hear("\r\n"))
    case .userLimit, .userAddressLimit:
      var settings = settings
      if reason == .userLimit { settings.sessionLimits.user = 1 } else { settings.sessionLimits.userAtAddress = 1 }
      return try second(settings, server)
    case .poolFull:
      var settings = settings.pooled()
      settings.pools["mail"]?.sessions = 1
      return try second(settings, server)
    case .noMember:
      let stage = try LoopStage(settings.pooled())
      stage.house.fleet.setAdmin("a", .maintenance)
      let client = stage.connect()
      _ = client.hear("ready.\r\n")
      client.send("a LOGIN alice s3cret\r\n")
      return (stage, client, client.hear("\r\n"))
    case .moving, .directoryFailed:
      let directory = PlayedDirectory()
      let stage = try LoopStage(settings.pooled(), directory: directory)
      let client = stage.connect()
      _ = client.hear("ready.\r\n")
      if reason == .directoryFailed { directory.set(.failed("it is away")) }
      client.send("a LOGIN alice s3cret\r\n")
      if reason == .moving {
        eventually("the session waits") { stage.doing() == "waiting for a place at a backend" }
        stage.advance(seconds: 31)
      }
      return (stage, client, client.hear("\r\n"))
    case .loop:
      var settings = settings
      settings.trustedProxies = [try #require(Network("0.0.0.0"))]
      let stage = try LoopStage(settings)
      let client = stage.connect()
      client.send("i ID (\"x-proxy-ttl\" \"1\")\r\n")
      _ = client.hear("i OK ID completed.\r\n")
      client.send("a LOGIN alice s3cret\r\n")
      return (stage, client, client.hear("\r\n"))
    case .backendStartTLS:
      var settings = settings
      settings.backends["a"]?.manner.tls = .startTLS
      return try logIn(settings) { _ in
        let backend = server.accept()
        backend.send(greeting)
        #expect(backend.hear("\r\n") == "S STARTTLS\r\n")
        backend.send("S BAD what?\r\n")
        #expect(backend.hearsClose())
        #expect(backend.heard.isEmpty)
      }
    case .backendCertificate:
      // Nobody signed it.
      var settings = settings
      settings.backends["a"]?.manner.tls = .implicit
      let context = try TLSContext(
        TLSServerSettings(identities: [TLSIdentitySettings(pairs: [try SharedCertificate.get()])]), alpn: "imap",
        predecessor: nil)
      return try logIn(settings) { _ in
        let backend = server.accept()
        var transport = Transport(Descriptor(owning: dup(backend.fd)))
        let isUpgraded = transport.upgrade(context)
        #expect(isUpgraded)
        var outcome = transport.handshake()
        if outcome == .done { outcome = transport.handshake() }
        withExtendedLifetime(backend) {}
      }
    case .backendTLS:
      var settings = settings
      settings.backends["a"]?.manner.tls = .implicit
      return try logIn(settings) { _ in
        let backend = server.accept()
        backend.send("* OK this is no TLS\r\n")
        #expect(backend.hearsClose())
        #expect(!String(decoding: backend.heard, as: UTF8.self).contains("alice"))
      }
    case .backendMechanism:
      return try logIn(settings) { _ in server.accept().send("* OK [CAPABILITY IMAP4rev1 LOGINDISABLED] ready\r\n") }
    }
  }

  /// Logs in by EXTERNAL with a certificate of that subject.
  private func logInByCertificate(
    _ settings: Settings, _ subject: [(String, String)], _ play: (LoopStage) throws -> Void = { _ in }
  ) throws -> Scene {
    let folder = try Folder()
    let authority = TestAuthority(folder)
    var settings = settings
    settings.tls = TLSServerSettings(
      identities: [TLSIdentitySettings(pairs: [try SharedCertificate.get()])], clientCertificates: .request,
      clientCA: authority.file)
    let stage = try LoopStage(settings)
    let peer = stage.connect(.imap, .implicit, mechanisms: [.external])
    let client = SecureSpeaker(peer, authority.issue("client", subject: subject))
    #expect(client.hear("ready.\r\n").contains("AUTH=EXTERNAL"))
    client.send("a AUTHENTICATE EXTERNAL =\r\n")
    try play(stage)
    return (stage, client, client.hear("\r\n"))
  }

  /// Lets the pause pass before a refusal that asked no backend.
  private func delay(_ stage: LoopStage) throws {
    eventually("the refusal waits") { stage.doing() == "delaying a refusal" }
    stage.advance(seconds: 3)
  }
}

/// A client that is spoken with, in the clear or under TLS.
protocol Speaker {
  func send(_ text: String)
  func hear(_ text: String, _ location: SourceLocation) -> String
  func close()
}

extension Speaker {
  func hear(_ text: String, here location: SourceLocation = #_sourceLocation) -> String { hear(text, location) }
}

extension Peer: Speaker {}

/// A client under TLS that shows a certificate.
final class SecureSpeaker: Speaker {
  private let peer: Peer
  private let tls: TLSClient
  private var heard = ""

  init(_ peer: Peer, _ certificate: CertificateSettings) {
    self.peer = peer
    tls = TLSClient(peer.fd, configure: Configure.certificate(certificate))
    #expect(tls.shakeHands())
  }

  func send(_ text: String) { _ = tls.write(text) }

  func hear(_ text: String, _ location: SourceLocation) -> String {
    while true {
      if let range = heard.range(of: text) {
        defer { heard = String(heard[range.upperBound...]) }
        return String(heard[..<range.upperBound])
      }
      guard let more = tls.read() else {
        Issue.record("closed or silent before \(text): \(heard)", sourceLocation: location)
        return heard
      }
      heard += more
    }
  }

  func close() { peer.close() }
}

/// A connection that says nothing.
final class TestConnection {
  private let fd: Int32

  init(_ port: UInt16, at host: UInt32 = 0x7F00_0001) {
    fd = socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
    _ = fcntl(fd, F_SETFL, O_NONBLOCK)
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = port.bigEndian
    address.sin_addr.s_addr = host.bigEndian
    _ = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        connect(fd, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
      }
    }
  }

  deinit { close(fd) }
}

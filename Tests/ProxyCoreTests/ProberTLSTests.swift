import COpenSSL
import Foundation
import Testing

@testable import Protocols
@testable import ProxyCore

// In a build for ThreadSanitizer ProxyCore has a Mutex of its own.
#if !PROXYD_TSAN
  import struct Synchronization.Mutex
#endif

/// Probes under TLS.
extension ProberTests {
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
}

import COpenSSL
import Foundation
import Testing

@testable import Protocols
@testable import ProxyCore

/// What both sides know when a handshake with a backend is over.
private struct Visit {
  var outcome = TLSSession.Handshake.closed
  var subject: String?
  var hasPeerCertificate = false
  /// What the backend was told and shown.
  var serverName: String?
  var shown: String?
  var version: Int32 = 0
  /// What each side heard of the other.
  var heard: String?
  var backendHeard: String?

  var failure: TLSFailure? {
    if case .failed(.tls(let failure)) = outcome { failure } else { nil }
  }
}

private func visit(
  _ settings: TLSBackendSettings, _ pair: CertificateSettings, as name: TLSPeerName = .dns("mail.example.com"),
  configure: (OpaquePointer) -> Void = { _ in }
) throws -> Visit {
  let context = try TLSClientContext(settings, alpn: "imap")
  let (ours, theirs) = makePair()
  defer { close(theirs) }
  let descriptor = Descriptor(owning: ours)
  guard var client = TLSSession(client: context, name: name, on: descriptor) else { return Visit() }
  let backend = TLSBackend(theirs, pair, configure: configure)
  var visit = Visit()
  for _ in 0..<10 {
    visit.outcome = client.handshake()
    #expect(ERR_peek_error() == 0)
    guard case .blocked = visit.outcome else { break }
    _ = backend.shakeHands()
  }
  if visit.outcome == .done {
    _ = client.write(Array("hello".utf8).span)
    _ = backend.shakeHands()
    visit.backendHeard = backend.read()
    _ = backend.write("welcome")
    var scratch = Scratch(size: 1 << 16)
    if case .bytes(let count) = scratch.fill(from: 0, { client.read(into: $0) }) {
      var text: [UInt8] = []
      text.append(scratch.span(count))
      visit.heard = String(decoding: text, as: UTF8.self)
    }
  } else {
    _ = backend.shakeHands()
    visit.backendHeard = backend.read()
  }
  visit.subject = client.peerSubject
  visit.hasPeerCertificate = client.hasPeerCertificate
  #expect(client.serverName == nil)
  visit.serverName = backend.serverName
  visit.shown = backend.peer
  visit.version = backend.version
  client.sayGoodbye()
  #expect(ERR_peek_error() == 0)
  return visit
}

private func refusal(_ words: String) -> TLSFailure {
  TLSFailure(kind: .certificate, reason: "certificate verify failed: \(words)")
}

struct TLSClientTests {
  private let folder: Folder
  private let authority: TestAuthority
  private let trusting: TLSBackendSettings

  init() throws {
    folder = try Folder()
    authority = TestAuthority(folder)
    trusting = TLSBackendSettings(verification: .authority(file: authority.file))
  }

  private func pin(_ pair: CertificateSettings) throws -> [UInt8] {
    let path = folder.file(UUID().uuidString)
    try run(
      "sh", "-c",
      "openssl x509 -in \(pair.certificate) -noout -pubkey | openssl pkey -pubin -outform DER"
        + " | openssl dgst -sha256 -binary > \(path)")
    return try [UInt8](Data(contentsOf: URL(filePath: path)))
  }

  @Test(arguments: [TLS1_2_VERSION, TLS1_3_VERSION])
  func aGoodBackendIsSpokenTo(_ version: Int32) throws {
    let pair = authority.issue("mail", names: "DNS:mail.example.com,DNS:*.example.net")
    for name in ["mail.example.com", "MAIL.example.com", "mail.example.com.", "imap.example.net"] {
      let result = try visit(trusting, pair, as: .dns(name), configure: Configure.highest(version))
      #expect(result.outcome == .done)
      #expect(result.version == version)
      #expect(result.serverName == (name.hasSuffix(".") ? "mail.example.com" : name))
      #expect(result.heard == "welcome")
      #expect(result.backendHeard == "hello")
      #expect(result.hasPeerCertificate)
      #expect(result.subject == "CN=mail")
      #expect(result.shown == nil)
    }
    // Where there is no other name, the common name counts.
    let named = authority.issue("mail.example.com")
    #expect(try visit(trusting, named, configure: Configure.highest(version)).outcome == .done)
  }

  @Test(arguments: [TLS1_2_VERSION, TLS1_3_VERSION])
  func aBadBackendIsNot(_ version: Int32) throws {
    let stranger = TestAuthority(folder, "stranger")
    let name = "DNS:mail.example.com"
    for (pair, words) in [
      (authority.issue("self", names: name, isSelfSigned: true), "self-signed certificate"),
      (stranger.issue("foreign", names: name), "unable to get local issuer certificate"),
      (authority.issue("expired", names: name, days: -5 ... -1), "certificate has expired"),
      (authority.issue("early", names: name, days: 1...5), "certificate is not yet valid"),
      (authority.issue("client", names: name, use: "clientAuth"), "unsuitable certificate purpose"),
      (authority.issue("mail.example.com", names: "DNS:other.example.com"), "hostname mismatch"),
      (authority.issue("wild", names: "DNS:*.com"), "hostname mismatch"),
      (authority.issue("partial", names: "DNS:m*.example.com"), "hostname mismatch"),
      (authority.issue("address", names: "IP:192.0.2.1"), "hostname mismatch"),
    ] {
      let result = try visit(trusting, pair, configure: Configure.highest(version))
      #expect(result.failure == refusal(words), "\(result.outcome)")
      #expect(result.backendHeard == nil)
      #expect(result.subject == nil)
    }
    // The system trusts no authority of a test.
    let untrusted = authority.issue("mail", names: name)
    let result = try visit(TLSBackendSettings(), untrusted, configure: Configure.highest(version))
    #expect(result.failure == refusal("unable to get local issuer certificate"))
  }

  @Test func anAddressIsLookedForAndNotAskedFor() throws {
    let four = authority.issue("four", names: "IP:192.0.2.1,IP:2001:db8::1,DNS:mail.example.com")
    for address in ["192.0.2.1", "2001:db8::1", "2001:DB8:0::1", "2001:db8::1%lo"] {
      let result = try visit(trusting, four, as: .address(address))
      #expect(result.outcome == .done, "\(address)")
      #expect(result.serverName == nil)
    }
    for address in ["192.0.2.2", "2001:db8::2"] {
      #expect(try visit(trusting, four, as: .address(address)).failure == refusal("IP address mismatch"))
    }
    // An address written as a name is none.
    let named = authority.issue("192.0.2.1", names: "DNS:192.0.2.1")
    #expect(try visit(trusting, named, as: .address("192.0.2.1")).failure == refusal("IP address mismatch"))
    let context = try TLSClientContext(trusting, alpn: "imap")
    let (ours, theirs) = makePair()
    let descriptor = Descriptor(owning: ours)
    let isMade = TLSSession(client: context, name: .address("mail.example.com"), on: descriptor) != nil
    #expect(!isMade)
    #expect(ERR_peek_error() == 0)
    close(theirs)
  }

  @Test(arguments: [TLS1_2_VERSION, TLS1_3_VERSION])
  func aPinnedKeyIsEnough(_ version: Int32) throws {
    let wrong = authority.issue("wrong", names: "DNS:other.example.com", days: -5 ... -1, isSelfSigned: true)
    let rsa = authority.issue("rsa", key: .rsa)
    let good = authority.issue("good", names: "DNS:mail.example.com")
    let other = [UInt8](repeating: 7, count: 32)
    for (pair, pins) in [(wrong, [try pin(wrong)]), (wrong, [other, try pin(wrong)]), (rsa, [try pin(rsa)])] {
      let result = try visit(
        TLSBackendSettings(verification: .system, pins: pins), pair, configure: Configure.highest(version))
      #expect(result.outcome == .done)
      #expect(result.serverName == "mail.example.com")
      #expect(result.heard == "welcome")
      #expect(result.hasPeerCertificate)
      // Nobody has vouched for what else is in it.
      #expect(result.subject == nil)
    }
    // A good certificate with another key is no better than a bad one, and no verification does not undo a pin.
    for verification in [trusting.verification, .none] {
      let settings = TLSBackendSettings(verification: verification, pins: [other, try pin(wrong)])
      let result = try visit(settings, good, configure: Configure.highest(version))
      #expect(result.failure == TLSFailure(kind: .certificate, reason: "the key is not one of the pins"))
      #expect(result.backendHeard == nil)
    }
  }

  @Test func withoutVerificationAnythingGoes() throws {
    let wrong = authority.issue("wrong", names: "DNS:other.example.com", days: -5 ... -1, isSelfSigned: true)
    let result = try visit(TLSBackendSettings(verification: .none), wrong)
    #expect(result.outcome == .done)
    #expect(result.serverName == "mail.example.com")
    #expect(result.heard == "welcome")
    #expect(result.hasPeerCertificate)
    #expect(result.subject == nil)
  }

  @Test(arguments: [TLS1_2_VERSION, TLS1_3_VERSION])
  func ourCertificateIsShown(_ version: Int32) throws {
    let pair = authority.issue("mail", names: "DNS:mail.example.com")
    let own = authority.issue("proxy")
    let ask: (OpaquePointer) -> Void = { [authority] in
      Configure.highest(version)($0)
      SSL_CTX_load_verify_file($0, authority.file)
      SSL_CTX_set_verify($0, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nil)
    }
    var settings = trusting
    settings.certificate = own
    let visited = try visit(settings, pair, configure: ask)
    #expect(visited.outcome == .done)
    #expect(visited.shown == "proxy")
    #expect(visited.heard == "welcome")
    // A key that is not pinned does not even see it.
    settings.pins = [[UInt8](repeating: 7, count: 32)]
    let refused = try visit(settings, pair, configure: ask)
    #expect(refused.failure?.kind == .certificate)
    #expect(refused.shown == nil)
  }

  @Test func whatTheBackendChoosesIsLookedAt() throws {
    let pair = authority.issue("mail", names: "DNS:mail.example.com")
    /// Answers with what stands in the argument, offered or not.
    let answer: SSL_CTX_alpn_select_cb_func = { _, name, size, _, _, argument in
      let text = argument!.assumingMemoryBound(to: UInt8.self)
      name!.pointee = UnsafePointer(text)
      size!.pointee = 4
      return SSL_TLSEXT_ERR_OK
    }
    for (chosen, isGood) in [("imap", true), ("pop3", false)] {
      let text = UnsafeMutablePointer<UInt8>.allocate(capacity: 4)
      defer { text.deallocate() }
      for (index, byte) in chosen.utf8.enumerated() { text[index] = byte }
      let result = try visit(trusting, pair) { SSL_CTX_set_alpn_select_cb($0, answer, text) }
      #expect((result.outcome == .done) == isGood, "\(result.outcome)")
      if !isGood { #expect(result.failure == TLSFailure(reason: "bad extension")) }
    }
  }

  @Test func anOldVersionIsNotSpoken() throws {
    let pair = authority.issue("mail", names: "DNS:mail.example.com", key: .rsa)
    let result = try visit(trusting, pair) {
      SSL_CTX_ctrl($0, SSL_CTRL_SET_MIN_PROTO_VERSION, Int(TLS1_VERSION), nil)
      Configure.highest(TLS1_1_VERSION)($0)
      SSL_CTX_set_cipher_list($0, "ALL:@SECLEVEL=0")
    }
    #expect(result.failure?.kind == .protocolError, "\(result.outcome)")
  }

  @Test func whatIsWrongIsTold() throws {
    func failure(_ settings: TLSBackendSettings) -> TLSClientContext.Failure? {
      do throws(TLSClientContext.Failure) {
        _ = try TLSClientContext(settings, alpn: "imap")
        return nil
      } catch { return error }
    }
    let text = try folder.write("text", "nothing")
    let (own, other) = (authority.issue("own"), authority.issue("other"))
    #expect(failure(TLSBackendSettings(certificate: own)) == nil)
    guard case .authority("/none", _)? = failure(TLSBackendSettings(verification: .authority(file: "/none"))),
      case .authority(text, _)? = failure(TLSBackendSettings(verification: .authority(file: text))),
      case .certificate(text, _)? = failure(
        TLSBackendSettings(certificate: CertificateSettings(certificate: text, key: own.key))),
      case .key(other.key, _)? = failure(
        TLSBackendSettings(certificate: CertificateSettings(certificate: own.certificate, key: other.key)))
    else {
      Issue.record("a file is blamed that is in order")
      return
    }
    #expect(ERR_peek_error() == 0)
  }

  /// OpenSSL's callback has a bare pointer to the pins.
  @Test func aSessionKeepsItsContextAndNothingElseDoes() throws {
    let pair = authority.issue("mail")
    let settings = TLSBackendSettings(pins: [try pin(pair)])
    weak var kept: TLSClientContext?
    func begin(_ descriptor: borrowing Descriptor) throws -> TLSSession? {
      let context = try TLSClientContext(settings, alpn: "imap")
      kept = context
      return TLSSession(client: context, name: .dns("mail.example.com"), on: descriptor)
    }
    func run() throws {
      let (ours, theirs) = makePair()
      defer { close(theirs) }
      let descriptor = Descriptor(owning: ours)
      guard var client = try begin(descriptor) else { return }
      #expect(kept != nil)
      let backend = TLSBackend(theirs, pair)
      var outcome = client.handshake()
      for _ in 0..<10 where outcome == .blocked(.readable) {
        _ = backend.shakeHands()
        outcome = client.handshake()
      }
      #expect(outcome == .done)
    }
    try run()
    #expect(kept == nil)
  }
}

import COpenSSL
import Foundation
import Testing

@testable import Protocols
@testable import ProxyCore

struct TLSNamesTests {
  @Test(
    arguments: [
      ("mail.example.com", 0), ("MAIL.Example.COM", 0), ("mail.example.com.", 0), ("imap.example.net", 1),
      ("example.net", nil), ("a.b.example.net", nil), (".example.net", nil), ("special.example.net", 2),
      ("other.example.net", 1), ("nobody.example.org", nil), ("", nil), ("net", nil), ("*.example.net", 1),
    ] as [(String, Int?)])
  func namesAreFound(_ name: String, _ place: Int?) {
    let names = TLSNames([
      ["mail.example.com"], ["*.example.net", "mail.example.com"], ["special.example.net", "*.Example.NET"],
    ])
    #expect(names.place(of: name) == place)
  }
}

struct TLSIdentityTests {
  @Test(arguments: tlsVersions)
  func theNameChooses(_ version: Int32) throws {
    let folder = try Folder()
    let authority = TestAuthority(folder)
    let first = authority.issue("first", names: "DNS:mail.example.com,DNS:*.example.net,IP:192.0.2.1")
    let second = authority.issue("second", names: "DNS:other.example.com")
    let third = authority.issue("third.example.com")
    let settings = TLSServerSettings(identities: [
      tlsIdentity(first), tlsIdentity(second, names: ["given.example.com", "*.given.example.com"]), tlsIdentity(third),
    ])
    let context = try TLSContext(settings, alpn: "imap", predecessor: nil)
    for (name, shown) in [
      ("mail.example.com", "first"), ("imap.example.net", "first"), ("given.example.com", "second"),
      ("GIVEN.example.com", "second"), ("a.given.example.com", "second"), ("third.example.com", "third.example.com"),
      // Names in the settings take the place of those in the certificate.
      ("other.example.com", "first"), ("a.b.given.example.com", "first"), ("unknown.example.org", "first"),
    ] {
      let meeting = meet(context, name: name, configure: Configure.highest(version))
      #expect(meeting.outcome == .done)
      #expect(meeting.shown == shown, "\(name)")
      #expect(meeting.serverName == name)
    }
    let nameless = meet(context, configure: Configure.highest(version))
    #expect(nameless.outcome == .done)
    #expect(nameless.shown == "first")
    #expect(nameless.serverName == nil)
  }

  @Test(arguments: tlsVersions)
  func ecdsaAndRSASideBySide(_ version: Int32) throws {
    let folder = try Folder()
    let authority = TestAuthority(folder)
    let plain = authority.issue("plain")
    let ecdsa = authority.issue("ecdsa", names: "DNS:both.example.com", key: .ecdsa)
    let rsa = authority.issue("rsa", names: "DNS:both.example.com", key: .rsa)
    for pairs in [[ecdsa, rsa], [rsa, ecdsa]] {
      let both = TLSIdentitySettings(pairs: pairs)
      for identities in [[both], [tlsIdentity(plain), both]] {
        let context = try TLSContext(TLSServerSettings(identities: identities), alpn: "imap", predecessor: nil)
        let modern = meet(context, name: "both.example.com", configure: Configure.highest(version))
        #expect(modern.shown == "ecdsa")
        #expect(modern.shownKey == EVP_PKEY_EC)
        let old = meet(context, name: "both.example.com") {
          Configure.highest(version)($0)
          Configure.signatures("rsa_pss_rsae_sha256:rsa_pkcs1_sha256")($0)
        }
        #expect(old.outcome == .done)
        #expect(old.shown == "rsa")
        #expect(old.shownKey == EVP_PKEY_RSA)
      }
    }
    let twice = TLSIdentitySettings(pairs: [ecdsa, plain])
    guard case .certificate(plain.certificate, let reason)? = tlsFailure(TLSServerSettings(identities: [twice])) else {
      Issue.record("a certificate is forgotten")
      return
    }
    #expect(reason.contains("same kind"))
    // The key of one beside the certificate of the other.
    let crossed = CertificateSettings(certificate: ecdsa.certificate, key: rsa.key)
    guard case .key(rsa.key, _)? = tlsFailure(TLSServerSettings(identities: [tlsIdentity(crossed)])) else {
      Issue.record("a key that fits no certificate is taken")
      return
    }
  }

  @Test func allEndsAreKnown() throws {
    let folder = try Folder()
    let authority = TestAuthority(folder)
    let (one, two) = (authority.issue("one", days: -1...5), authority.issue("two", key: .rsa, days: -1...10))
    let three = authority.issue("three", days: -2 ... -1)
    let settings = TLSServerSettings(identities: [tlsIdentity(one, two), tlsIdentity(three)])
    let context = try TLSContext(settings, alpn: "imap", predecessor: nil)
    #expect(context.expiries.map(\.file) == [one, two, three].map(\.certificate))
    let days = context.expiries.map { Double($0.notAfter - WallTime.second) / 86_400 }
    for (day, wanted) in zip(days, [5, 10, -1]) { #expect(abs(day - Double(wanted)) < 0.1) }
  }

  /// OpenSSL's callbacks have a bare pointer to what the context keeps.
  @Test func aSessionKeepsItsContextAndNothingElseDoes() throws {
    let folder = try Folder()
    let authority = TestAuthority(folder)
    let settings = TLSServerSettings(identities: [
      tlsIdentity(authority.issue("first")), tlsIdentity(authority.issue("second", names: "DNS:mail.example.com")),
    ])
    weak var kept: TLSContext?
    func begin(_ descriptor: borrowing Descriptor) throws -> TLSSession? {
      let context = try TLSContext(settings, alpn: "imap", predecessor: nil)
      kept = context
      return TLSSession(server: context, on: descriptor)
    }
    func run() throws {
      let (ours, theirs) = makePair()
      defer { close(ours) }
      let descriptor = Descriptor(owning: theirs)
      guard var server = try begin(descriptor) else { return }
      #expect(kept != nil)
      let client = TLSClient(ours, name: "mail.example.com", protocols: ["imap"])
      let isDone = shakeHands(client, &server)
      #expect(isDone)
      #expect(client.peer == "second")
    }
    try run()
    #expect(kept == nil)
  }
}

struct TLSProtocolTests {
  @Test(arguments: tlsVersions)
  func anotherProtocolEndsTheHandshake(_ version: Int32) throws {
    let folder = try Folder()
    let authority = TestAuthority(folder)
    let settings = TLSServerSettings(identities: [
      tlsIdentity(authority.issue("first")), tlsIdentity(authority.issue("second", names: "DNS:mail.example.com")),
    ])
    let context = try TLSContext(settings, alpn: "imap", predecessor: nil)
    for name in [nil, "mail.example.com"] {
      for protocols in [["imap"], ["h2", "imap"], ["imap", "http/1.1"]] {
        let meeting = meet(context, name: name, protocols: protocols, configure: Configure.highest(version))
        #expect(meeting.outcome == .done)
        #expect(meeting.selectedProtocol == "imap")
      }
      for protocols in [["h2"], ["http/1.1", "pop3"], ["ima"], ["imaps"], ["IMAP"]] {
        let meeting = meet(context, name: name, protocols: protocols, configure: Configure.highest(version))
        #expect(meeting.failure?.kind == .protocolError, "\(protocols)")
        #expect(meeting.clientError?.contains("no application protocol") == true, "\(meeting.clientError ?? "none")")
      }
      let silent = meet(context, name: name, configure: Configure.highest(version))
      #expect(silent.outcome == .done)
      #expect(silent.selectedProtocol.isEmpty)
    }
  }

  @Test func theLeastVersionIsKept() throws {
    let folder = try Folder()
    let pair = TestAuthority(folder).issue("mail")
    var settings = TLSServerSettings(identities: [tlsIdentity(pair)])
    let usual = try TLSContext(settings, alpn: "imap", predecessor: nil)
    settings.minimum = .v13
    let strict = try TLSContext(settings, alpn: "imap", predecessor: nil)
    #expect(meet(usual, configure: Configure.highest(TLS1_2_VERSION)).outcome == .done)
    #expect(meet(strict).outcome == .done)
    let refused = meet(strict, configure: Configure.highest(TLS1_2_VERSION))
    #expect(refused.failure == TLSFailure(kind: .protocolError, reason: "unsupported protocol"))
    let ancient = meet(usual) {
      Configure.highest(TLS1_1_VERSION)($0)
      SSL_CTX_set_cipher_list($0, "ALL:@SECLEVEL=0")
    }
    #expect(ancient.failure != nil)
  }

  @Test func ciphersAndGroupsAreChosen() throws {
    let folder = try Folder()
    var settings = TLSServerSettings(identities: [tlsIdentity(TestAuthority(folder).issue("mail"))])
    settings.ciphers = "ECDHE-ECDSA-CHACHA20-POLY1305:@SECLEVEL=2"
    settings.ciphersuites = "TLS_AES_256_GCM_SHA384"
    settings.groups = "P-384"
    let context = try TLSContext(settings, alpn: "imap", predecessor: nil)
    let old = meet(context, configure: Configure.highest(TLS1_2_VERSION))
    #expect(old.cipher == "ECDHE-ECDSA-CHACHA20-POLY1305")
    #expect(meet(context).cipher == "TLS_AES_256_GCM_SHA384")
    let refused = meet(context) { openssl_ctx_set_groups($0, "X25519") }
    #expect(refused.failure?.kind == .protocolError)
    settings.ciphers = "HIGH:!aNULL:-SHA1:+AES256"
    #expect(tlsFailure(settings) == nil)
  }

  @Test(arguments: [
    ("ciphers", "nonsense"), ("ciphers", "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES128-GCM-SHA265"),
    ("ciphers", "HIGH:!aNUL"), ("ciphers", ""), ("ciphersuites", "TLS_AES_128_GCM_SHA256:TLS_AES_999"),
    ("ciphersuites", "HIGH"), ("ciphersuites", ""), ("groups", "X25519:P-257"), ("groups", ""), ("groups", "x"),
  ])
  func aBadListIsTold(_ name: String, _ value: String) throws {
    let folder = try Folder()
    var settings = TLSServerSettings(identities: [tlsIdentity(TestAuthority(folder).issue("mail"))])
    switch name {
    case "ciphers": settings.ciphers = value
    case "ciphersuites": settings.ciphersuites = value
    default: settings.groups = value
    }
    guard case .setting(name, let reason)? = tlsFailure(settings) else {
      Issue.record("\(name) \(value): \(String(describing: tlsFailure(settings)))")
      return
    }
    #expect(!reason.isEmpty)
    #expect(ERR_peek_error() == 0)
  }
}

struct TLSStapleTests {
  @Test(arguments: tlsVersions)
  func whoAsksGetsIt(_ version: Int32) throws {
    let folder = try Folder()
    let authority = TestAuthority(folder)
    let (first, second) = (authority.issue("first"), authority.issue("second", names: "DNS:mail.example.com"))
    let rsa = authority.issue("rsa", key: .rsa)
    let response = try authority.vouch(for: second)
    let settings = TLSServerSettings(identities: [tlsIdentity(first), tlsIdentity(second, rsa, staple: response)])
    let context = try TLSContext(settings, alpn: "imap", predecessor: nil)
    func staple(_ name: String?, asks: Bool, _ more: (OpaquePointer) -> Void = { _ in }) -> [UInt8] {
      let meeting = meet(context, name: name, wantsStaple: asks) {
        Configure.highest(version)($0)
        more($0)
      }
      #expect(meeting.outcome == .done)
      return meeting.staple
    }
    let bytes = try [UInt8](Data(contentsOf: URL(filePath: response)))
    #expect(staple("mail.example.com", asks: true) == bytes)
    #expect(staple("mail.example.com", asks: false).isEmpty)
    #expect(staple(nil, asks: true).isEmpty)
    // It is about the other certificate of the two.
    let signatures = Configure.signatures("rsa_pss_rsae_sha256:rsa_pkcs1_sha256")
    #expect(staple("mail.example.com", asks: true, signatures).isEmpty)
  }

  @Test func anOldOneIsKeptBack() throws {
    let folder = try Folder()
    let authority = TestAuthority(folder)
    let pair = authority.issue("mail")
    for (hours, isSent) in [(1, true), (-1, false)] {
      let settings = TLSServerSettings(identities: [
        tlsIdentity(pair, staple: try authority.vouch(for: pair, hours: hours))
      ])
      let meeting = meet(try TLSContext(settings, alpn: "imap", predecessor: nil), wantsStaple: true)
      #expect(meeting.outcome == .done)
      #expect(meeting.staple.isEmpty == !isSent)
    }
  }

  @Test func whatIsNoneIsTold() throws {
    let folder = try Folder()
    let authority = TestAuthority(folder)
    let (pair, other) = (authority.issue("mail"), authority.issue("other"))
    let text = try folder.write("text", "no response")
    // Status tryLater, and nothing else.
    let error = folder.file("error")
    try Data([0x30, 0x03, 0x0A, 0x01, 0x03]).write(to: URL(filePath: error))
    for (file, words) in [
      ("/none", "No such file"), (text, "not a DER"), (error, "of an error"),
      (try authority.vouch(for: other), "another certificate"),
    ] {
      guard
        case .staple(file, let reason)? = tlsFailure(TLSServerSettings(identities: [tlsIdentity(pair, staple: file)]))
      else {
        Issue.record("\(file) is taken")
        continue
      }
      #expect(reason.contains(words), "\(reason)")
    }
  }
}

struct TLSTicketTests {
  @Test(arguments: tlsVersions)
  func ticketsGoRound(_ version: Int32) throws {
    let folder = try Folder()
    let authority = TestAuthority(folder)
    func settings() -> TLSServerSettings {
      TLSServerSettings(identities: [
        tlsIdentity(authority.issue("first")), tlsIdentity(authority.issue("second", names: "DNS:mail.example.com")),
      ])
    }
    let configure = Configure.highest(version)
    let keys = TLSTicketKeys()
    let imap = try TLSContext(settings(), alpn: "imap", predecessor: nil, ticketKeys: keys)
    let pop3 = try TLSContext(settings(), alpn: "pop3", predecessor: nil, ticketKeys: keys)
    let reloaded = try TLSContext(settings(), alpn: "imap", predecessor: pop3)
    let reloadedTwice = try TLSContext(settings(), alpn: "pop3", predecessor: reloaded, ticketKeys: reloaded.ticketKeys)
    let stranger = try TLSContext(settings(), alpn: "imap", predecessor: nil)
    let renewed = try TLSContext(settings(), alpn: "imap", predecessor: imap, ticketKeys: TLSTicketKeys())
    for name in [nil, "mail.example.com"] {
      func returns(_ context: TLSContext) -> Bool {
        let fresh = meet(imap, name: name, configure: configure)
        #expect(fresh.outcome == .done && !fresh.isResumed)
        let again = meet(context, resuming: fresh.ticket, name: name, configure: configure)
        #expect(again.outcome == .done)
        return again.isResumed
      }
      #expect(returns(imap))
      #expect(returns(pop3))
      #expect(returns(reloaded))
      #expect(returns(reloadedTwice))
      #expect(!returns(stranger))
      #expect(!returns(renewed))
    }
  }
}

import COpenSSL
import Foundation
import Testing

@testable import Protocols
@testable import ProxyCore

struct TLSClientCertificateTests {
  private let folder: Folder
  private let authority: TestAuthority
  private let pair: CertificateSettings

  init() throws {
    folder = try Folder()
    authority = TestAuthority(folder)
    pair = authority.issue("mail")
  }

  private func context(
    _ policy: ClientCertificatePolicy, _ authority: TestAuthority? = nil, keys: TLSTicketKeys? = nil
  ) throws -> TLSContext {
    let settings = TLSServerSettings(
      identities: [tlsIdentity(pair), tlsIdentity(pair, names: ["mail.example.com"])], clientCertificates: policy,
      clientCA: (authority ?? self.authority).file)
    return try TLSContext(settings, alpn: "imap", predecessor: nil, ticketKeys: keys)
  }

  private func configure(_ certificate: CertificateSettings?, _ version: Int32) -> (OpaquePointer) -> Void {
    {
      if let certificate { Configure.certificate(certificate)($0) }
      Configure.highest(version)($0)
    }
  }

  @Test(arguments: tlsVersions)
  func aGoodOneIsKnown(_ version: Int32) throws {
    let good = authority.issue(
      "good", names: "DNS:x.example.com,email:alice@example.com,email:second@example.com",
      subject: [("O", "Müller, \"Söhne\"\nlevel=error"), ("CN", "Users"), ("CN", "alice")], use: "clientAuth")
    for policy in [ClientCertificatePolicy.request, .require] {
      for name in [nil, "mail.example.com"] {
        let meeting = meet(try context(policy), name: name, configure: configure(good, version))
        #expect(meeting.outcome == .done)
        #expect(meeting.hasPeerCertificate)
        #expect(meeting.authorities == 1)
        #expect(
          meeting.subject == #"CN=alice,CN=Users,O=M\C3\BCller\, \"S\C3\B6hne\"\0Alevel=error"#,
          "\(meeting.subject ?? "none")")
        #expect(meeting.commonName == Array("alice".utf8))
        #expect(meeting.email == Array("alice@example.com".utf8))
      }
    }
    // Whoever is not asked does not tell.
    let unasked = meet(try context(.off), configure: configure(good, version))
    #expect(unasked.outcome == .done)
    #expect(!unasked.hasPeerCertificate)
    #expect(unasked.subject == nil && unasked.commonName == nil && unasked.email == nil)
    let nameless = authority.issue("nameless", subject: [("O", "Example"), ("CN", "alice\nroot")])
    let meeting = meet(try context(.require), configure: configure(nameless, version))
    #expect(meeting.outcome == .done)
    #expect(meeting.subject == #"CN=alice\0Aroot,O=Example"#)
    #expect(meeting.commonName == nil)
    #expect(meeting.email == nil)
  }

  @Test(arguments: tlsVersions)
  func whoHasNone(_ version: Int32) throws {
    let requested = meet(try context(.request), configure: configure(nil, version))
    #expect(requested.outcome == .done)
    #expect(!requested.hasPeerCertificate)
    #expect(requested.subject == nil)
    let required = meet(try context(.require), configure: configure(nil, version))
    #expect(required.failure == TLSFailure(kind: .certificate, reason: "peer did not return a certificate"))
    #expect(required.subject == nil)
  }

  @Test(arguments: tlsVersions)
  func aBadOneEndsTheHandshake(_ version: Int32) throws {
    let stranger = TestAuthority(folder, "stranger")
    for (bad, words) in [
      (authority.issue("expired", days: -5 ... -1), "certificate has expired"),
      (authority.issue("early", days: 1...5), "certificate is not yet valid"),
      (stranger.issue("foreign"), "unable to get local issuer certificate"),
      (authority.issue("self", isSelfSigned: true), "self-signed certificate"),
      (authority.issue("server", use: "serverAuth"), "unsuitable certificate purpose"),
    ] {
      for policy in [ClientCertificatePolicy.request, .require] {
        let meeting = meet(try context(policy), configure: configure(bad, version))
        #expect(
          meeting.failure == TLSFailure(kind: .certificate, reason: "certificate verify failed: \(words)"),
          "\(meeting.outcome)")
        #expect(meeting.subject == nil && meeting.commonName == nil && meeting.email == nil)
      }
    }
  }

  @Test func theAuthorityMayBeIntermediate() throws {
    let intermediate = TestAuthority(folder, "intermediate", parent: authority)
    let good = intermediate.issue("good")
    #expect(meet(try context(.require, intermediate), configure: Configure.certificate(good)).outcome == .done)
    // It signs for those below it, and not for those above.
    let above = authority.issue("above")
    let refused = meet(try context(.require, intermediate), configure: Configure.certificate(above))
    #expect(refused.failure?.kind == .certificate)
  }

  /// With the same ticket keys, what was not asked on one port does not open another.
  @Test(arguments: tlsVersions)
  func aTicketIsNoCertificate(_ version: Int32) throws {
    let keys = TLSTicketKeys()
    let good = authority.issue("good", subject: [("CN", "alice")])
    let stranger = TestAuthority(folder, "stranger")
    let off = try context(.off, keys: keys)
    let requests = try context(.request, keys: keys)
    let requires = try context(.require, keys: keys)
    let others = try context(.require, stranger, keys: keys)
    for lenient in [off, requests] {
      let fresh = meet(lenient, configure: configure(nil, version))
      let again = meet(lenient, resuming: fresh.ticket, configure: configure(nil, version))
      #expect(again.isResumed)
      let refused = meet(
        requires, resuming: meet(lenient, configure: configure(nil, version)).ticket, configure: configure(nil, version)
      )
      #expect(!refused.isResumed)
      #expect(refused.failure?.kind == .certificate)
    }
    // Nor does the word of one authority count with another's friends.
    let known = meet(requires, configure: configure(good, version))
    #expect(meet(others, resuming: known.ticket, configure: configure(nil, version)).failure?.kind == .certificate)
    // Where it counts, it is remembered who it was.
    let back = meet(
      requires, resuming: meet(requires, configure: configure(good, version)).ticket, configure: configure(nil, version)
    )
    #expect(back.outcome == .done)
    #expect(back.isResumed)
    #expect(back.subject == "CN=alice")
    #expect(back.commonName == Array("alice".utf8))
  }

  /// A ticket is good for two hours, the certificate in it perhaps not.
  @Test(arguments: tlsVersions)
  func aTicketDoesNotOutliveItsCertificate(_ version: Int32) throws {
    let requires = try context(.require)
    let start = WallTime.second
    let short = authority.issue("short", seconds: 3)
    let fresh = meet(requires, configure: configure(short, version))
    #expect(fresh.outcome == .done)
    eventually("the certificate's end") { WallTime.second > start + 4 }
    let late = meet(requires, resuming: fresh.ticket, configure: configure(nil, version))
    #expect(late.failure == TLSFailure(kind: .certificate, reason: "certificate has expired"))
    #expect(late.isResumed)
  }

  @Test func whatIsWrongWithTheAuthorityIsTold() throws {
    let text = try folder.write("text", "no certificate")
    var settings = TLSServerSettings(identities: [tlsIdentity(pair)], clientCertificates: .request)
    #expect(tlsFailure(settings) == .clientCA(file: "", reason: "no file is named"))
    for file in ["/none", text, pair.key] {
      settings.clientCA = file
      guard case .clientCA(file, let reason)? = tlsFailure(settings) else {
        Issue.record("\(file) is taken")
        continue
      }
      #expect(!reason.isEmpty)
    }
    // Nobody looks at it if nobody is asked.
    settings.clientCertificates = .off
    #expect(tlsFailure(settings) == nil)
  }
}

import COpenSSL
import Foundation
import Testing

@testable import Protocols
@testable import ProxyCore

private func read(_ server: inout TLSSession, into scratch: inout Scratch) -> IOResult {
  scratch.fill(from: 0) { server.read(into: $0) }
}

/// Calls `body` with a server's session and its client, whose socket it closes, after their handshake.
private func withSession(_ body: (inout TLSSession, TLSClient, Int32) -> Void) throws {
  let folder = try Folder()
  let files = try makeCertificate(folder)
  let context = try TLSContext(certificate: files.certificate, key: files.key, predecessor: nil)
  let (ours, theirs) = makePair()
  let descriptor = Descriptor(owning: theirs)
  guard var server = TLSSession(server: context, on: descriptor) else {
    Issue.record("no session")
    return
  }
  let client = TLSClient(ours)
  let isDone = shakeHands(client, &server)
  #expect(isDone)
  body(&server, client, ours)
}

struct TLSSessionTests {
  @Test func bytesGoBothWaysAndEnd() throws {
    try withSession { server, client, ours in
      let (version, cipher) = (server.version, server.cipher)
      #expect(version == "TLSv1.3")
      #expect(cipher == "TLS_AES_128_GCM_SHA256")
      var scratch = Scratch(size: 1 << 16)
      let nothing = read(&server, into: &scratch)
      #expect(nothing == .blocked(.readable))
      #expect(client.write("hello") == 5)
      let heard = read(&server, into: &scratch)
      #expect(heard == .bytes(5))
      let written = server.write(Array("hi".utf8).span)
      #expect(written == .bytes(2))
      #expect(client.read() == "hi")
      // A client may end its direction and still listen.
      client.sayGoodbye()
      let ended = read(&server, into: &scratch)
      #expect(ended == .closed)
      let late = server.write(Array("bye".utf8).span)
      #expect(late == .bytes(3))
      server.sayGoodbye()
      #expect(client.read() == "bye")
      #expect(client.read() == nil)
      #expect(client.heardGoodbye)
      close(ours)
    }
  }

  /// OpenSSL writes without MSG_NOSIGNAL: the process lives because it ignores SIGPIPE (the target TestProcess; proxyd by
  /// itself).
  @Test func aClientThatIsGoneIsAnErrorAndNoSignal() throws {
    try withSession { server, _, ours in
      close(ours)
      let written = server.write(Array("hi".utf8).span)
      #expect(written == .failed(.system(SystemError(EPIPE))))
    }
  }

  @Test func aStalledPeerBlocksAndGoesOn() throws {
    try withSession { server, client, ours in
      let record = [UInt8](repeating: 0x78, count: 16_384)
      var sent = 0
      var stop = IOResult.bytes(0)
      while case .bytes(let count) = stop {
        sent += count
        stop = server.write(record.span)
      }
      #expect(stop == .blocked(.writable))
      var heard = 0
      while let text = client.read() { heard += text.utf8.count }
      // The record that was blocked goes out with the next attempt, which must begin with the same bytes.
      let again = server.write(record.span)
      #expect(again == .bytes(16_384))
      while let text = client.read() { heard += text.utf8.count }
      #expect(heard == sent + 16_384)
      close(ours)
    }
  }

  @Test func garbageIsAFailureThatLeavesNothingBehind() throws {
    let folder = try Folder()
    let files = try makeCertificate(folder)
    let context = try TLSContext(certificate: files.certificate, key: files.key, predecessor: nil)
    for garbage in [
      "GET / HTTP/1.1\r\n\r\n", "a LOGIN alice secret\r\n", "\u{16}\u{3}\u{1}\u{0}\u{5}hello", "\0\0\0\0\0\0\0\0",
    ] {
      let (ours, theirs) = makePair()
      let descriptor = Descriptor(owning: theirs)
      guard var server = TLSSession(server: context, on: descriptor) else { return }
      _ = write(ours, garbage, garbage.utf8.count)
      let outcome = server.handshake()
      guard case .failed(.tls(let failure)) = outcome else {
        Issue.record("\(garbage): \(outcome)")
        continue
      }
      #expect(!failure.reason.isEmpty)
      #expect(ERR_peek_error() == 0)
      server.sayGoodbye()
      close(ours)
    }
  }

  @Test func aPeerThatGoesIsClosed() throws {
    let folder = try Folder()
    let files = try makeCertificate(folder)
    let context = try TLSContext(certificate: files.certificate, key: files.key, predecessor: nil)
    let (ours, theirs) = makePair()
    let descriptor = Descriptor(owning: theirs)
    guard var server = TLSSession(server: context, on: descriptor) else { return }
    close(ours)
    let outcome = server.handshake()
    #expect(outcome == .closed)
  }

  @Test func ticketsOutliveACertificate() throws {
    let folder = try Folder()
    let old = try makeCertificate(folder, "old")
    let new = try makeCertificate(folder, "new")
    let first = try TLSContext(certificate: old.certificate, key: old.key, predecessor: nil)
    let second = try TLSContext(certificate: new.certificate, key: new.key, predecessor: first)
    let stranger = try TLSContext(certificate: new.certificate, key: new.key, predecessor: nil)
    func connect(_ context: TLSContext, _ ticket: OpaquePointer?) throws -> (isResumed: Bool, ticket: OpaquePointer?) {
      let (ours, theirs) = makePair()
      defer { close(ours) }
      let descriptor = Descriptor(owning: theirs)
      guard var server = TLSSession(server: context, on: descriptor) else { return (false, nil) }
      let client = TLSClient(ours, resuming: ticket)
      let isDone = shakeHands(client, &server)
      #expect(isDone)
      // The ticket comes with the first bytes.
      _ = server.write(Array("x".utf8).span)
      _ = client.read()
      let isResumed = server.isResumed
      #expect(isResumed == client.isResumed)
      // OpenSSL takes a ticket for spoilt if its connection had no goodbye.
      client.sayGoodbye()
      return (isResumed, client.ticket)
    }
    let fresh = try connect(first, nil)
    #expect(!fresh.isResumed)
    #expect(try connect(stranger, fresh.ticket).isResumed == false)
    let kept = try connect(first, nil)
    #expect(try connect(first, connect(first, nil).ticket).isResumed)
    #expect(try connect(second, kept.ticket).isResumed)
  }
}

struct TLSContextTests {
  private func failure(_ certificate: String, _ key: String) -> TLSContext.Failure? {
    do throws(TLSContext.Failure) {
      _ = try TLSContext(certificate: certificate, key: key, predecessor: nil)
      return nil
    } catch { return error }
  }

  @Test func whatIsWrongIsTold() throws {
    let folder = try Folder()
    let files = try makeCertificate(folder)
    let other = try makeCertificate(folder, "other")
    let text = try folder.write("text", "not a certificate\n")
    let locked = folder.file("locked.key")
    try run("openssl", "ec", "-in", files.key, "-aes128", "-passout", "pass:secret", "-out", locked)
    #expect(failure(files.certificate, files.key) == nil)
    guard case .certificate("/none", _)? = failure("/none", files.key),
      case .certificate(text, _)? = failure(text, files.key),
      case .key("/none", _)? = failure(files.certificate, "/none"),
      case .key(text, _)? = failure(files.certificate, text),
      case .key? = failure(files.certificate, files.certificate),
      case .key(other.key, let reason)? = failure(files.certificate, other.key),
      // A passphrase is not asked for: nobody may sit at the terminal.
      case .key? = failure(files.certificate, locked)
    else {
      Issue.record("a file is blamed that is in order")
      return
    }
    #expect(reason.contains("mismatch"))
    // The system's own words, not a number: OpenSSL 3 has none for an errno.
    #expect(failure("/none", files.key) == .certificate(file: "/none", reason: "No such file or directory"))
  }

  @Test func theEndIsKnown() throws {
    let folder = try Folder()
    let files = try makeCertificate(folder, days: 10)
    let context = try TLSContext(certificate: files.certificate, key: files.key, predecessor: nil)
    #expect(context.expiries.map(\.file) == [files.certificate])
    let left = try #require(context.expiries.first).notAfter - WallTime.second
    #expect(left > 9 * 86_400 && left <= 10 * 86_400)
  }
}

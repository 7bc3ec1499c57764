/// A handshake of a server of ours with a client, and what both know then.

import COpenSSL
import Foundation
import Testing

@testable import Protocols
@testable import ProxyCore

/// What both sides know when a handshake is over.
struct Meeting {
  var outcome = TLSSession.Handshake.closed
  var serverName: String?
  var subject: String?
  var commonName: [UInt8]?
  var email: [UInt8]?
  var hasPeerCertificate = false
  var isResumed = false
  var ticket: OpaquePointer?
  /// What the client was shown, and heard.
  var shown: String?
  var shownKey: Int32?
  var cipher = ""
  var selectedProtocol = ""
  /// How many authorities the server says it takes certificates of.
  var authorities: Int32 = 0
  var staple: [UInt8] = []
  var clientError: String?

  var failure: TLSFailure? {
    if case .failed(.tls(let failure)) = outcome { failure } else { nil }
  }
}

/// Takes a client through a handshake with a server of ours and a byte, so that it has its ticket.
func meet(
  _ context: TLSContext, resuming ticket: OpaquePointer? = nil, name: String? = nil, protocols: [String] = [],
  wantsStaple: Bool = false, configure: (OpaquePointer) -> Void = { _ in }
) -> Meeting {
  let (ours, theirs) = makePair()
  defer { close(ours) }
  let descriptor = Descriptor(owning: theirs)
  guard var server = TLSSession(server: context, on: descriptor) else { return Meeting() }
  let client = TLSClient(
    ours, resuming: ticket, name: name, protocols: protocols, wantsStaple: wantsStaple, configure: configure)
  var meeting = Meeting()
  for _ in 0..<10 {
    _ = client.shakeHands()
    meeting.outcome = server.handshake()
    #expect(ERR_peek_error() == 0)
    guard case .blocked = meeting.outcome else { break }
  }
  let isDone = client.shakeHands()
  if meeting.outcome == .done {
    #expect(isDone)
    _ = server.write(Array("x".utf8).span)
    meeting.cipher = client.cipher
  }
  _ = client.read()
  meeting.serverName = server.serverName
  meeting.subject = server.peerSubject
  meeting.commonName = server.peerCommonName
  meeting.email = server.peerEmail
  meeting.hasPeerCertificate = server.hasPeerCertificate
  meeting.isResumed = server.isResumed
  meeting.shown = client.peer
  meeting.shownKey = client.peerKey
  meeting.selectedProtocol = client.selectedProtocol
  meeting.staple = client.staple
  meeting.authorities = SSL_get0_peer_CA_list(client.session).map { OPENSSL_sk_num($0) } ?? 0
  meeting.clientError = client.error
  // OpenSSL takes a ticket for spoilt if its connection had no goodbye.
  client.sayGoodbye()
  meeting.ticket = client.ticket
  #expect(ERR_peek_error() == 0)
  return meeting
}

/// What a server shows, of its parts.
func tlsIdentity(
  _ pairs: CertificateSettings..., names: [String] = [], staple: String? = nil
) -> TLSIdentitySettings {
  TLSIdentitySettings(pairs: pairs, names: names, staple: staple)
}

/// Why a context can't be made; nil if it can.
func tlsFailure(_ settings: TLSServerSettings) -> TLSContext.Failure? {
  do throws(TLSContext.Failure) {
    _ = try TLSContext(settings, alpn: "imap", predecessor: nil)
    return nil
  } catch { return error }
}

/// All that is spoken.
let tlsVersions = [TLS1_2_VERSION, TLS1_3_VERSION]

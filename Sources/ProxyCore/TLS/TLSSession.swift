/// One TLS connection: owns OpenSSL's object for it, and turns every outcome into a value.
///
/// OpenSSL keeps errors in a queue per thread, and a loop's queue may hop threads: every call here starts with an empty
/// queue and leaves an empty one behind.

internal import COpenSSL
package import Protocols

@safe
package struct TLSSession: ~Copyable {
  private let raw: OpaquePointer
  /// Kept because OpenSSL's callbacks need it.
  private let side: Side
  /// After a fatal error nothing may be written, not even the goodbye (SSL_shutdown(3)).
  private var isBroken = false

  private enum Side {
    case server(TLSContext)
    case client(TLSClientContext)
  }

  /// The server's side of a connection on `descriptor`, which stays the caller's. Nil if there is no memory.
  package init?(server context: TLSContext, on descriptor: borrowing Descriptor) {
    guard let session = unsafe TLSSession.make(context.library, descriptor) else { return nil }
    unsafe SSL_set_accept_state(session)
    unsafe raw = session
    side = .server(context)
  }

  /// Our side of a connection to a backend on `descriptor`, which stays the caller's. Nil if there is no memory, or the
  /// address is none.
  package init?(client context: TLSClientContext, name: TLSPeerName, on descriptor: borrowing Descriptor) {
    guard let session = unsafe TLSSession.make(context.library, descriptor) else { return nil }
    guard unsafe TLSSession.expect(name, session) else {
      unsafe SSL_free(session)
      ERR_clear_error()
      return nil
    }
    unsafe SSL_set_connect_state(session)
    unsafe raw = session
    side = .client(context)
  }

  private static func make(_ library: TLSLibraryContext, _ descriptor: borrowing Descriptor) -> OpaquePointer? {
    ERR_clear_error()
    guard let session = unsafe SSL_new(library.raw) else {
      ERR_clear_error()
      return nil
    }
    guard unsafe SSL_set_fd(session, descriptor.raw) == 1 else {
      unsafe SSL_free(session)
      ERR_clear_error()
      return nil
    }
    return unsafe session
  }

  /// Says for which name the certificate must be, and asks for it. Where the chain is not looked at, nor is the name.
  private static func expect(_ name: TLSPeerName, _ session: OpaquePointer) -> Bool {
    switch name {
    case .dns(let name):
      let name = name.hasSuffix(".") ? String(name.dropLast()) : name
      unsafe SSL_set_hostflags(session, UInt32(X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS))
      return unsafe SSL_set1_host(session, name) == 1 && openssl_set_server_name(session, name) == 1
    case .address(let text):
      // A zone is this host's business, not the certificate's.
      let address = String(text.prefix { $0 != "%" })
      return unsafe X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(session), address) == 1
    }
  }

  deinit {
    unsafe SSL_free(raw)
    ERR_clear_error()
  }

  /// What came of a step of the handshake.
  package enum Handshake: Equatable, Sendable {
    case done
    case blocked(IOResult.Blocked)
    case closed
    case failed(IOFailure)
  }

  /// Takes the handshake as far as it goes.
  package mutating func handshake() -> Handshake {
    prepare()
    let result = unsafe SSL_do_handshake(raw)
    if result == 1 { return settle() }
    switch outcome(result) {
    case .bytes: preconditionFailure("a handshake moves no bytes")
    case .blocked(let why): return .blocked(why)
    case .closed: return .closed
    case .failed(let failure): return .failed(failure)
    }
  }

  /// Looks once more at what the handshake has settled, before anybody relies on it.
  private mutating func settle() -> Handshake {
    let objection =
      switch side {
      case .server: objectionToClient
      case .client(let context): objection(to: context)
      }
    guard let objection else { return .done }
    isBroken = true
    return .failed(.tls(objection))
  }

  /// A ticket remembers a certificate, and that it was good; not that it has ended meanwhile.
  private var objectionToClient: TLSFailure? {
    guard isResumed, let end = verifiedPeer?.notAfter, end < WallTime.second else { return nil }
    return TLSFailure(kind: .certificate, reason: "certificate has expired")
  }

  private func objection(to context: TLSClientContext) -> TLSFailure? {
    switch context.judgement {
    case .chain, .pins:
      guard hasPeerCertificate, unsafe SSL_get_verify_result(raw) == Int(X509_V_OK) else {
        return TLSFailure(kind: .certificate, reason: "the certificate was not verified")
      }
    case .nothing: break
    }
    return nil
  }

  /// Reads at most one record. Call it until it is blocked or `hasPending` is false: what OpenSSL holds already causes no
  /// event.
  package mutating func read(into buffer: UnsafeMutableRawBufferPointer) -> IOResult {
    prepare()
    // SAFETY: the buffer is the caller's for the time of the call.
    let result = unsafe SSL_read(raw, buffer.baseAddress, Int32(clamping: buffer.count))
    return result > 0 ? .bytes(Int(result)) : outcome(result)
  }

  /// Writes at most one record. If it is blocked, the next write must begin with the same bytes.
  package mutating func write(_ bytes: Span<UInt8>) -> IOResult {
    prepare()
    // SAFETY: the span lends its memory for the time of the call.
    let result = unsafe bytes.withUnsafeBytes { unsafe SSL_write(raw, $0.baseAddress, Int32(clamping: $0.count)) }
    return result > 0 ? .bytes(Int(result)) : outcome(result)
  }

  /// Whether OpenSSL holds bytes, decrypted or not, that no event will tell of.
  package var hasPending: Bool { unsafe SSL_has_pending(raw) == 1 }

  /// Says that nothing more will be written (RFC 8446 §6.1). Best effort: a full socket loses it.
  package mutating func sayGoodbye() {
    guard !isBroken, unsafe SSL_is_init_finished(raw) == 1 else { return }
    prepare()
    _ = unsafe SSL_shutdown(raw)
    ERR_clear_error()
  }

  /// The protocol's version as logged, `TLSv1.3`.
  package var version: String {
    // SAFETY: the text is a constant of the library.
    unsafe String(cString: SSL_get_version(raw))
  }

  /// The cipher's name as OpenSSL has it.
  package var cipher: String {
    // SAFETY: the text is a constant of the library.
    guard let name = unsafe SSL_CIPHER_get_name(SSL_get_current_cipher(raw)) else { return "none" }
    return unsafe String(cString: name)
  }

  /// Whether the client came back with a ticket.
  package var isResumed: Bool { unsafe SSL_session_reused(raw) == 1 }

  // MARK: The peer

  /// The name the client asked for, as it wrote it; nil if it asked for none, and on our side of a backend.
  package var serverName: String? {
    // SAFETY: the name ends with NUL, lives as long as the session, and is copied.
    guard case .server = side, let name = unsafe SSL_get_servername(raw, TLSEXT_NAMETYPE_host_name) else { return nil }
    return unsafe String(cString: name)
  }

  /// Whether the peer has shown a certificate, verified or not.
  package var hasPeerCertificate: Bool { unsafe SSL_get0_peer_certificate(raw) != nil }

  /// When the peer's certificate ends, verified or not, in seconds since 1970; nil if it has shown none.
  package var peerCertificateEnd: Int? {
    // SAFETY: the session holds the certificate while it is read.
    guard let certificate = unsafe SSL_get0_peer_certificate(raw) else { return nil }
    return unsafe TLSCertificate(certificate).notAfter
  }

  /// The subject of the peer's certificate on one line, as RFC 2253 writes it, if its chain was verified.
  package var peerSubject: String? { verifiedPeer?.subject }

  /// What the peer showed of itself, if it was asked to.
  package var peerFacts: ClientCertificateFacts {
    guard let peer = verifiedPeer else {
      switch side {
      case .server(let context): return context.verifiesPeer ? .none : .notAsked
      case .client: return .none
      }
    }
    return .verified(
      subject: peer.subject ?? "", issuer: peer.issuer ?? "", serial: peer.serial, fingerprint: peer.fingerprint)
  }

  /// The common name in the peer's certificate, if its chain was verified. Nil if it holds control characters.
  package var peerCommonName: [UInt8]? { verifiedPeer?.commonName }

  /// The first mail address in the peer's certificate, if its chain was verified. Nil if it holds control characters.
  package var peerEmail: [UInt8]? { verifiedPeer?.email }

  /// SAFETY: the session holds the certificate; each use of it ends within a property of the session.
  private var verifiedPeer: TLSCertificate? {
    let isJudged =
      switch side {
      case .server(let context): context.verifiesPeer
      case .client(let context):
        switch context.judgement {
        case .chain: true
        case .pins, .nothing: false
        }
      }
    guard isJudged, unsafe SSL_is_init_finished(raw) == 1, unsafe SSL_get_verify_result(raw) == Int(X509_V_OK),
      let certificate = unsafe SSL_get0_peer_certificate(raw)
    else { return nil }
    return unsafe TLSCertificate(certificate)
  }

  private func prepare() {
    if ERR_peek_error() != 0 { ERR_clear_error() }
    Syscall.clearLastError()
  }

  private mutating func outcome(_ result: Int32) -> IOResult {
    switch unsafe SSL_get_error(raw, result) {
    case SSL_ERROR_WANT_READ: return .blocked(.readable)
    case SSL_ERROR_WANT_WRITE: return .blocked(.writable)
    case SSL_ERROR_ZERO_RETURN: return .closed
    case SSL_ERROR_SYSCALL:
      isBroken = true
      let error = Syscall.lastError
      ERR_clear_error()
      return error.code == 0 ? .closed : .failed(.system(error))
    default:
      isBroken = true
      return .failed(.tls(failure()))
    }
  }

  private func failure() -> TLSFailure {
    let failure = TLSFailure.drain(otherwise: "unknown TLS error")
    guard failure.kind == .certificate, case let code = unsafe SSL_get_verify_result(raw), code != Int(X509_V_OK) else {
      return failure
    }
    if code == Int(TLSPins.mismatch) { return TLSFailure(kind: .certificate, reason: "the key is not one of the pins") }
    // SAFETY: the text is a constant of the library.
    let why = unsafe String(cString: X509_verify_cert_error_string(code))
    return TLSFailure(kind: .certificate, reason: "\(failure.reason): \(why)")
  }
}

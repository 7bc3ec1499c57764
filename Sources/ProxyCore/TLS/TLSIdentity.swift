/// One of the hosts the proxy is to clients: an OpenSSL context with certificates, and the callbacks of a handshake.

internal import COpenSSL

/// Made for a `TLSContext`, and kept by it.
final class TLSIdentity: Sendable {
  let library: TLSLibraryContext
  /// Names it is shown for.
  let names: [String]
  let expiries: [TLSExpiry]
  /// The protocol's name (RFC 7301).
  private let alpn: [UInt8]
  private let staple: TLSStaple?

  init(_ settings: TLSIdentitySettings, alpn: String) throws(TLSContext.Failure) {
    precondition(!settings.pairs.isEmpty, "an identity without a certificate")
    var names: [String] = []
    var serials: [[UInt8]] = []
    var expiries: [TLSExpiry] = []
    do throws(TLSLibraryContext.Fault) {
      library = try TLSLibraryContext(.server)
      var kinds: [Int32] = []
      for pair in settings.pairs {
        try library.load(pair)
        guard let certificate = library.certificate, let end = certificate.notAfter else {
          throw .certificate(file: pair.certificate, reason: "its end date can't be read")
        }
        // OpenSSL has one place for each kind, and would forget the certificate before.
        guard !kinds.contains(certificate.keyKind) else {
          throw .certificate(file: pair.certificate, reason: "another certificate beside it has a key of the same kind")
        }
        kinds.append(certificate.keyKind)
        serials.append(certificate.serial)
        names += certificate.hostNames
        expiries.append(TLSExpiry(file: pair.certificate, notAfter: end))
      }
    } catch { throw TLSContext.Failure(error) }
    self.names = settings.names.isEmpty ? names : settings.names
    self.expiries = expiries
    self.alpn = Array(alpn.utf8)
    staple = try settings.staple.map { file throws(TLSContext.Failure) in try TLSIdentity.staple(file, about: serials) }
    install()
  }

  private static func staple(_ file: String, about serials: [[UInt8]]) throws(TLSContext.Failure) -> TLSStaple {
    do throws(TLSStaple.Fault) {
      let staple = try TLSStaple(file: file)
      guard staple.serials.contains(where: serials.contains) else {
        throw TLSStaple.Fault(reason: "it is about another certificate")
      }
      return staple
    } catch { throw .staple(file: file, reason: error.reason) }
  }

  /// SAFETY: OpenSSL hands this identity back in callbacks of a handshake, which a `TLSSession` runs; the session keeps
  /// the `TLSContext`, and that keeps the identity.
  private func install() {
    let me = unsafe Unmanaged.passUnretained(self).toOpaque()
    unsafe SSL_CTX_set_alpn_select_cb(library.raw, chooseProtocol, me)
    if staple != nil { unsafe openssl_ctx_set_status_callback(library.raw, sendStaple, me) }
  }

  /// A client that speaks of another protocol was led to the wrong port, and what it says next may be someone else's
  /// words: it is turned away (RFC 7301 §3.2; the ALPACA attacks are what comes of carrying on).
  fileprivate func offset(in offer: UnsafeBufferPointer<UInt8>) -> Int? {
    var index = 0
    while index < offer.count {
      let size = Int(unsafe offer[index])
      let start = index + 1
      guard start + size <= offer.count else { return nil }
      if unsafe offer[start..<start + size].elementsEqual(alpn) { return start }
      index = start + size
    }
    return nil
  }

  fileprivate var protocolSize: UInt8 { UInt8(alpn.count) }

  /// The response for a client that asked, if there is one for the certificate it is shown.
  fileprivate func staple(for certificate: TLSCertificate) -> [UInt8]? {
    guard let staple, staple.serves(certificate, at: WallTime.second) else { return nil }
    return staple.bytes
  }
}

/// Which identity is shown for which name.
final class TLSIdentities: Sendable {
  let all: [TLSIdentity]
  private let names: TLSNames

  init(_ all: [TLSIdentity]) {
    self.all = all
    names = TLSNames(all.map(\.names))
  }

  /// SAFETY: as in `TLSIdentity.install`; sessions begin with the first one's context, which has the callback.
  func install() {
    let me = unsafe Unmanaged.passUnretained(self).toOpaque()
    unsafe openssl_ctx_set_servername_callback(all[0].library.raw, chooseIdentity, me)
  }

  fileprivate func identity(for name: String) -> TLSIdentity? { names.place(of: name).map { all[$0] } }
}

/// OpenSSL asks which context a name means. An unknown name gets the first, without a word about it (RFC 6066 §3).
private let chooseIdentity:
  @convention(c) (OpaquePointer?, UnsafeMutablePointer<Int32>?, UnsafeMutableRawPointer?) -> Int32 = { session, _, me in
    // SAFETY: `me` is what `TLSIdentities.install` gave; the name ends with NUL and is copied.
    guard let session = unsafe session, let me = unsafe me,
      let name = unsafe SSL_get_servername(session, TLSEXT_NAMETYPE_host_name)
    else { return SSL_TLSEXT_ERR_NOACK }
    let identities = unsafe Unmanaged<TLSIdentities>.fromOpaque(me).takeUnretainedValue()
    guard let identity = unsafe identities.identity(for: String(cString: name)) else { return SSL_TLSEXT_ERR_NOACK }
    return unsafe SSL_set_SSL_CTX(session, identity.library.raw) == nil
      ? SSL_TLSEXT_ERR_ALERT_FATAL : SSL_TLSEXT_ERR_OK
  }

/// OpenSSL asks which of the protocols a client offers is spoken; the answer points into the offer.
private let chooseProtocol: SSL_CTX_alpn_select_cb_func = { _, name, size, offer, count, me in
  // SAFETY: `me` is what `TLSIdentity.install` gave; the offer has `count` bytes.
  guard let me = unsafe me else { return SSL_TLSEXT_ERR_ALERT_FATAL }
  let identity = unsafe Unmanaged<TLSIdentity>.fromOpaque(me).takeUnretainedValue()
  let bytes = unsafe UnsafeBufferPointer(start: offer, count: Int(count))
  guard let offset = unsafe identity.offset(in: bytes) else { return SSL_TLSEXT_ERR_ALERT_FATAL }
  unsafe name?.pointee = offer.map { unsafe $0 + offset }
  unsafe size?.pointee = identity.protocolSize
  return SSL_TLSEXT_ERR_OK
}

/// OpenSSL asks for an OCSP response about the certificate it has chosen.
private let sendStaple: @convention(c) (OpaquePointer?, UnsafeMutableRawPointer?) -> Int32 = { session, me in
  // SAFETY: `me` is what `TLSIdentity.install` gave; OpenSSL frees the copy it is given.
  guard let session = unsafe session, let me = unsafe me, let own = unsafe SSL_get_certificate(session) else {
    return SSL_TLSEXT_ERR_NOACK
  }
  let identity = unsafe Unmanaged<TLSIdentity>.fromOpaque(me).takeUnretainedValue()
  guard let bytes = unsafe identity.staple(for: TLSCertificate(own)),
    let copy = unsafe openssl_copy(bytes, bytes.count)
  else { return SSL_TLSEXT_ERR_NOACK }
  _ = unsafe openssl_set_status_response(session, copy, bytes.count)
  return SSL_TLSEXT_ERR_OK
}

/// What all TLS connections to one backend share, for one protocol: whom to trust, and what to show.
///
/// Sessions are not taken up again: Dovecot, unless told otherwise, gives no tickets, and each connection is verified anew.

internal import COpenSSL

/// Immutable once made; shared by all loops.
package final class TLSClientContext: Sendable {
  let library: TLSLibraryContext
  /// How the certificate is judged.
  let judgement: Judgement

  /// How a backend's certificate is judged.
  enum Judgement: Sendable {
    /// By its chain, its dates and its name.
    case chain
    case pins(TLSPins)
    case nothing
  }

  /// Why there is no context, and what is to blame.
  package enum Failure: Error, Equatable, Sendable {
    case authority(file: String, reason: String)
    case certificate(file: String, reason: String)
    case key(file: String, reason: String)
    case library(reason: String)
  }

  /// Opens all that the settings name, for a protocol with its name in ALPN.
  package init(_ settings: TLSBackendSettings, alpn: String) throws(Failure) {
    do throws(TLSLibraryContext.Fault) {
      library = try TLSLibraryContext(.client)
      if let pair = settings.certificate { try library.load(pair) }
      if !settings.pins.isEmpty {
        judgement = .pins(TLSPins(settings.pins))
      } else {
        switch settings.verification {
        case .system:
          guard unsafe SSL_CTX_set_default_verify_paths(library.raw) == 1 else {
            throw .library(reason: TLSFailure.drain(otherwise: "the system's certificates can't be read").reason)
          }
          judgement = .chain
        case .authority(let file):
          try library.trust(file)
          judgement = .chain
        case .none: judgement = .nothing
        }
      }
    } catch { throw Failure(error) }
    try prepare(offering: Array(alpn.utf8))
  }

  private func prepare(offering alpn: [UInt8]) throws(Failure) {
    ERR_clear_error()
    let raw = unsafe library.raw
    switch judgement {
    case .chain: unsafe SSL_CTX_set_verify(raw, SSL_VERIFY_PEER, nil)
    case .pins(let pins):
      unsafe SSL_CTX_set_verify(raw, SSL_VERIFY_PEER, nil)
      pins.install(library)
    case .nothing: unsafe SSL_CTX_set_verify(raw, SSL_VERIFY_NONE, nil)
    }
    _ = unsafe SSL_CTX_set_options(raw, openssl_no_ticket)
    let offer = [UInt8(alpn.count)] + alpn
    // A backend may ignore the offer, as many do; one that answers with something else is refused by OpenSSL (RFC 7301
    // §3.2).
    // SAFETY: OpenSSL copies the offer. Of all its calls, this one returns 0 for success.
    guard unsafe SSL_CTX_set_alpn_protos(raw, offer, UInt32(offer.count)) == 0 else {
      throw .library(reason: TLSFailure.drain(otherwise: "no memory").reason)
    }
  }
}

extension TLSClientContext.Failure {
  fileprivate init(_ fault: TLSLibraryContext.Fault) {
    self =
      switch fault {
      case .certificate(let file, let reason): .certificate(file: file, reason: reason)
      case .key(let file, let reason): .key(file: file, reason: reason)
      case .authority(let file, let reason): .authority(file: file, reason: reason)
      case .library(let reason): .library(reason: reason)
      }
  }
}

/// The keys a backend may have.
final class TLSPins: Sendable {
  private let hashes: Set<[UInt8]>

  init(_ hashes: [[UInt8]]) {
    precondition(hashes.allSatisfy { $0.count == 32 }, "a pin is a SHA-256 hash")
    self.hashes = Set(hashes)
  }

  /// The error that stands for a key that is not pinned. OpenSSL's own use of it, DANE, is not in use here.
  static let mismatch = X509_V_ERR_DANE_NO_MATCH

  /// Takes the place of all that OpenSSL would check, within the handshake: a backend with another key does not see our
  /// certificate.
  ///
  /// SAFETY: OpenSSL hands the pins back in a handshake, which a `TLSSession` runs; the session keeps the
  /// `TLSClientContext`, and that keeps the pins.
  func install(_ library: TLSLibraryContext) {
    let me = unsafe Unmanaged.passUnretained(self).toOpaque()
    unsafe SSL_CTX_set_cert_verify_callback(library.raw, checkPin, me)
  }

  fileprivate func hold(_ certificate: TLSCertificate) -> Bool { hashes.contains(certificate.keyHash) }
}

/// OpenSSL asks whether the backend's certificate is good.
private let checkPin: @convention(c) (OpaquePointer?, UnsafeMutableRawPointer?) -> Int32 = { store, me in
  // SAFETY: `me` is what `TLSPins.install` gave; the certificate is the store's for the time of the call.
  if let me = unsafe me, let leaf = unsafe X509_STORE_CTX_get0_cert(store) {
    let pins = unsafe Unmanaged<TLSPins>.fromOpaque(me).takeUnretainedValue()
    if unsafe pins.hold(TLSCertificate(leaf)) { return 1 }
  }
  unsafe X509_STORE_CTX_set_error(store, TLSPins.mismatch)
  return 0
}

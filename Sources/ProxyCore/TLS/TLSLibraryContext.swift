/// Owns one of OpenSSL's contexts, with what is the same toward clients and backends: modes, certificates, trust.

internal import COpenSSL

/// Changed only by whoever makes it; shared by all loops then.
@safe
final class TLSLibraryContext: Sendable {
  /// SAFETY: OpenSSL counts references to a context atomically, and nothing changes it once its owner's `init` is over.
  nonisolated(unsafe) let raw: OpaquePointer

  enum Side { case server, client }

  /// Why a context can't be made, and which file is to blame.
  enum Fault: Error {
    case certificate(file: String, reason: String)
    case key(file: String, reason: String)
    case authority(file: String, reason: String)
    case library(reason: String)
  }

  /// The settings measured in the prototypes: buffers released when idle, no session cache, nothing below TLS 1.2. What
  /// is sent as a chain is what the file holds: OpenSSL would else look for one anew in each handshake.
  init(_ side: Side) throws(Fault) {
    ERR_clear_error()
    let method = side == .server ? unsafe TLS_server_method() : unsafe TLS_client_method()
    guard let context = unsafe SSL_CTX_new(method) else {
      throw .library(reason: TLSFailure.drain(otherwise: "no memory").reason)
    }
    unsafe raw = context
    _ = unsafe openssl_ctx_set_mode(context, openssl_modes)
    _ = unsafe SSL_CTX_set_options(context, openssl_options)
    unsafe openssl_ctx_set_read_ahead(context, 1)
    _ = unsafe openssl_ctx_set_session_cache_mode(context, Int(SSL_SESS_CACHE_OFF))
    guard unsafe openssl_ctx_set_min_version(context, TLS1_2_VERSION) == 1 else {
      throw .library(reason: TLSFailure.drain(otherwise: "a setting was refused").reason)
    }
    unsafe SSL_CTX_set_verify_depth(context, TLSLibraryContext.depth)
    // A key with a passphrase is an error, not a question to whoever sits at the terminal.
    unsafe SSL_CTX_set_default_passwd_cb(context) { _, _, _, _ in 0 }
  }

  deinit { unsafe SSL_CTX_free(raw) }

  /// Reads a PEM chain and its key.
  func load(_ pair: CertificateSettings) throws(Fault) {
    ERR_clear_error()
    guard unsafe SSL_CTX_use_certificate_chain_file(raw, pair.certificate) == 1 else {
      let failure = TLSFailure.drain(otherwise: "not a PEM certificate chain")
      throw .certificate(file: pair.certificate, reason: failure.reason)
    }
    guard unsafe SSL_CTX_use_PrivateKey_file(raw, pair.key, SSL_FILETYPE_PEM) == 1 else {
      throw .key(file: pair.key, reason: TLSFailure.drain(otherwise: "not a PEM key").reason)
    }
    guard unsafe SSL_CTX_check_private_key(raw) == 1 else {
      throw .key(file: pair.key, reason: TLSFailure.drain(otherwise: "does not belong to the certificate").reason)
    }
  }

  /// The certificate read last.
  var certificate: TLSCertificate? {
    // SAFETY: the context holds the certificate, and nobody replaces it while it is looked at.
    guard let own = unsafe SSL_CTX_get0_certificate(raw) else { return nil }
    return unsafe TLSCertificate(own)
  }

  /// Trusts the certificates in a PEM file, an intermediate one there as well as a root: who is named is meant.
  func trust(_ file: String) throws(Fault) {
    ERR_clear_error()
    guard unsafe SSL_CTX_load_verify_file(raw, file) == 1 else {
      throw .authority(file: file, reason: TLSFailure.drain(otherwise: "not PEM certificates").reason)
    }
    _ = unsafe X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(raw), UInt(X509_V_FLAG_PARTIAL_CHAIN))
  }

  /// Intermediate certificates in a chain. Public ones have two at most; OpenSSL would follow a hundred.
  static let depth: Int32 = 5
}

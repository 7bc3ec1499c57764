/// What all TLS connections of a listener share: certificate, key, ticket keys, and the house's choice of ciphers.

internal import COpenSSL
internal import Glibc

/// Immutable once made; shared by all loops.
@safe
package final class TLSContext: Sendable {
  /// SAFETY: OpenSSL counts references to a context atomically, and nothing changes it after `init`.
  nonisolated(unsafe) let raw: OpaquePointer

  /// Seconds since 1970 at which the certificate ends.
  package let notAfter: Int

  /// Why there is no context, and which of the two files is to blame.
  package enum Failure: Error, Equatable, Sendable {
    case certificate(String)
    case key(String)
    case library(String)
  }

  /// Reads a PEM chain and its key. With `predecessor`, its tickets are still taken, so that a renewed certificate does
  /// not cost every client a full handshake.
  package init(certificate: String, key: String, predecessor: TLSContext?) throws(Failure) {
    guard let context = unsafe SSL_CTX_new(TLS_server_method()) else {
      throw .library(TLSFailure.drain(otherwise: "no memory").reason)
    }
    do throws(Failure) {
      try unsafe TLSContext.prepare(context)
      notAfter = try unsafe TLSContext.load(certificate: certificate, key: key, into: context)
      if let predecessor { try unsafe TLSContext.copyTicketKeys(from: predecessor.raw, to: context) }
    } catch {
      unsafe SSL_CTX_free(context)
      throw error
    }
    unsafe raw = context
  }

  deinit { unsafe SSL_CTX_free(raw) }

  /// The settings measured in the prototypes: buffers released when idle, one ticket, no server-side session cache,
  /// AES-128-GCM and X25519 first (hardware does them best; SHA-384 has no instructions), nothing below TLS 1.2.
  private static func prepare(_ context: OpaquePointer) throws(Failure) {
    ERR_clear_error()
    _ = unsafe openssl_ctx_set_mode(context, openssl_modes)
    _ = unsafe SSL_CTX_set_options(context, openssl_options)
    unsafe openssl_ctx_set_read_ahead(context, 1)
    _ = unsafe openssl_ctx_set_session_cache_mode(context, Int(SSL_SESS_CACHE_OFF))
    let works =
      unsafe openssl_ctx_set_min_version(context, TLS1_2_VERSION) == 1
      && SSL_CTX_set_num_tickets(context, 1) == 1
      && SSL_CTX_set_session_id_context(context, "proxyd", 6) == 1
      && SSL_CTX_set_ciphersuites(context, ciphersuites) == 1
      && SSL_CTX_set_cipher_list(context, ciphers) == 1
      && openssl_ctx_set_groups(context, groups) == 1
    guard works else { throw .library(TLSFailure.drain(otherwise: "a setting was refused").reason) }
    // A key with a passphrase is an error, not a question to whoever sits at the terminal.
    unsafe SSL_CTX_set_default_passwd_cb(context) { _, _, _, _ in 0 }
  }

  private static let ciphersuites = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
  private static let ciphers =
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384"
    + ":ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
  private static let groups = "X25519:P-256:P-384"

  /// Returns when the certificate ends.
  private static func load(
    certificate: String, key: String, into context: OpaquePointer
  ) throws(Failure) -> Int {
    ERR_clear_error()
    guard unsafe SSL_CTX_use_certificate_chain_file(context, certificate) == 1 else {
      throw .certificate(TLSFailure.drain(otherwise: "not a PEM certificate chain").reason)
    }
    guard unsafe SSL_CTX_use_PrivateKey_file(context, key, SSL_FILETYPE_PEM) == 1 else {
      throw .key(TLSFailure.drain(otherwise: "not a PEM key").reason)
    }
    guard unsafe SSL_CTX_check_private_key(context) == 1 else {
      throw .key(TLSFailure.drain(otherwise: "does not belong to the certificate").reason)
    }
    guard let own = unsafe SSL_CTX_get0_certificate(context), let end = unsafe X509_get0_notAfter(own) else {
      throw .certificate("holds no end date")
    }
    var time = unsafe tm()
    guard unsafe ASN1_TIME_to_tm(end, &time) == 1 else { throw .certificate("its end date can't be read") }
    return unsafe timegm(&time)
  }

  private static func copyTicketKeys(from old: OpaquePointer, to new: OpaquePointer) throws(Failure) {
    let size = unsafe openssl_ctx_get_ticket_keys(old, nil, 0)
    var keys = [UInt8](repeating: 0, count: size)
    let copied =
      unsafe openssl_ctx_get_ticket_keys(old, &keys, size) == 1
      && openssl_ctx_set_ticket_keys(new, &keys, size) == 1
    unsafe explicit_bzero(&keys, keys.count)
    guard copied else { throw .library(TLSFailure.drain(otherwise: "ticket keys can't be kept").reason) }
  }
}

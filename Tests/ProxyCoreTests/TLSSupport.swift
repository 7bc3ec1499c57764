// swift-format-ignore-file: NeverForceUnwrap
// A test that unwraps nil fails, which is what it is for.

import COpenSSL
import Foundation
import Testing

@testable import Protocols
@testable import ProxyCore

extension TLSContext {
  /// A context with one certificate, and the rest as it comes.
  convenience init(certificate: String, key: String, predecessor: TLSContext?) throws(Failure) {
    let pair = CertificateSettings(certificate: certificate, key: key)
    try self.init(
      TLSServerSettings(identities: [TLSIdentitySettings(pairs: [pair])]), alpn: "imap", predecessor: predecessor)
  }
}

/// What OpenSSL says of the last failure; its queue is empty then.
private func drainError() -> String? {
  defer { ERR_clear_error() }
  let code = ERR_get_error()
  return code == 0 ? nil : ERR_reason_error_string(code).map { String(cString: $0) } ?? "error \(code)"
}

/// A side of a TLS connection that is the test's own, with OpenSSL's bare calls.
class TLSEnd {
  let context: OpaquePointer
  let session: OpaquePointer
  let fd: Int32
  private(set) var error: String?

  init(_ fd: Int32, _ method: OpaquePointer, _ configure: (OpaquePointer) -> Void) {
    self.fd = fd
    context = SSL_CTX_new(method)
    configure(context)
    session = SSL_new(context)
    SSL_set_fd(session, fd)
  }

  deinit {
    SSL_free(session)
    SSL_CTX_free(context)
    ERR_clear_error()
  }

  private func noted(_ result: Int32) -> Int32 {
    if let why = drainError() { error = error ?? why }
    return result
  }

  func shakeHands() -> Bool { noted(SSL_do_handshake(session)) == 1 }
  func write(_ text: String) -> Int { Int(noted(SSL_write(session, text, Int32(text.utf8.count)))) }

  func read() -> String? {
    var buffer = [UInt8](repeating: 0, count: 100_000)
    let count = noted(SSL_read(session, &buffer, Int32(buffer.count)))
    return count > 0 ? String(decoding: buffer[..<Int(count)], as: UTF8.self) : nil
  }

  func sayGoodbye() { _ = noted(SSL_shutdown(session)) }
  var isResumed: Bool { SSL_session_reused(session) == 1 }
  var heardGoodbye: Bool { SSL_get_shutdown(session) & SSL_RECEIVED_SHUTDOWN != 0 }
  var version: Int32 { SSL_version(session) }
  var cipher: String { String(cString: SSL_CIPHER_get_name(SSL_get_current_cipher(session))) }

  var selectedProtocol: String {
    var name: UnsafePointer<UInt8>?
    var size: UInt32 = 0
    SSL_get0_alpn_selected(session, &name, &size)
    return String(decoding: UnsafeBufferPointer(start: name, count: Int(size)), as: UTF8.self)
  }

  /// The common name of the other side's certificate.
  var peer: String? {
    guard let certificate = SSL_get0_peer_certificate(session) else { return nil }
    var name = [UInt8](repeating: 0, count: 256)
    let size = name.withUnsafeMutableBytes { buffer in
      X509_NAME_get_text_by_NID(
        X509_get_subject_name(certificate), NID_commonName,
        buffer.baseAddress?.assumingMemoryBound(to: CChar.self), 256)
    }
    return String(decoding: name[..<Int(max(0, size))], as: UTF8.self)
  }

  /// The kind of key in the other side's certificate.
  var peerKey: Int32? {
    SSL_get0_peer_certificate(session).map { EVP_PKEY_get_base_id(X509_get0_pubkey($0)) }
  }
}

/// A TLS client of the test's own, on one end of a pair.
final class TLSClient: TLSEnd {
  init(
    _ fd: Int32, resuming ticket: OpaquePointer? = nil, name: String? = nil, protocols: [String] = [],
    wantsStaple: Bool = false, configure: (OpaquePointer) -> Void = { _ in }
  ) {
    super.init(fd, TLS_client_method(), configure)
    SSL_set_connect_state(session)
    if let name { openssl_set_server_name(session, name) }
    let offer = protocols.flatMap { [UInt8($0.utf8.count)] + $0.utf8 }
    if !offer.isEmpty { SSL_set_alpn_protos(session, offer, UInt32(offer.count)) }
    if wantsStaple { SSL_ctrl(session, SSL_CTRL_SET_TLSEXT_STATUS_REQ_TYPE, Int(TLSEXT_STATUSTYPE_ocsp), nil) }
    if let ticket { SSL_set_session(session, ticket) }
  }

  var ticket: OpaquePointer? { SSL_get1_session(session) }

  /// The OCSP response that came with the certificate.
  var staple: [UInt8] {
    var start: UnsafeMutablePointer<UInt8>?
    let size = SSL_ctrl(session, SSL_CTRL_GET_TLSEXT_STATUS_REQ_OCSP_RESP, 0, &start)
    return size > 0 ? Array(UnsafeBufferPointer(start: start, count: size)) : []
  }
}

/// What a test does to a context of its own side.
enum Configure {
  static func highest(_ version: Int32) -> (OpaquePointer) -> Void {
    { SSL_CTX_ctrl($0, SSL_CTRL_SET_MAX_PROTO_VERSION, Int(version), nil) }
  }

  /// Also of the ciphers, in TLS 1.2.
  static func signatures(_ list: String) -> (OpaquePointer) -> Void {
    { context in
      var list = Array(list.utf8CString)
      SSL_CTX_ctrl(context, SSL_CTRL_SET_SIGALGS_LIST, 0, &list)
    }
  }

  static func certificate(_ pair: CertificateSettings) -> (OpaquePointer) -> Void {
    {
      SSL_CTX_use_certificate_chain_file($0, pair.certificate)
      SSL_CTX_use_PrivateKey_file($0, pair.key, SSL_FILETYPE_PEM)
    }
  }
}

/// A TLS server of the test's own, for our side as a client.
final class TLSBackend: TLSEnd {
  init(_ fd: Int32, _ pair: CertificateSettings, configure: (OpaquePointer) -> Void = { _ in }) {
    super.init(fd, TLS_server_method()) {
      Configure.certificate(pair)($0)
      SSL_CTX_set_session_id_context($0, "test", 4)
      // Without a callback, OpenSSL forgets the name when the handshake is over.
      openssl_ctx_set_servername_callback($0, { _, _, _ in SSL_TLSEXT_ERR_OK }, nil)
      configure($0)
    }
    SSL_set_accept_state(session)
  }

  var serverName: String? {
    SSL_get_servername(session, TLSEXT_NAMETYPE_host_name).map { String(cString: $0) }
  }
}

/// Moves a handshake forward on both sides until it is done or stuck.
func shakeHands(_ client: TLSClient, _ server: inout TLSSession) -> Bool {
  for _ in 0..<10 {
    let clientIsDone = client.shakeHands()
    if server.handshake() == .done, clientIsDone { return true }
  }
  return false
}

/// One that signs certificates, with what it needs to be wrong about them.
final class TestAuthority {
  private let folder: Folder
  private let certificate: OpaquePointer
  private let key: OpaquePointer
  /// Its own certificate.
  let file: String

  enum Key { case ecdsa, rsa }

  /// With `parent`, an intermediate authority.
  init(_ folder: Folder, _ name: String = "authority", parent: TestAuthority? = nil) {
    self.folder = folder
    key = TestAuthority.makeKey(.ecdsa)
    certificate = TestAuthority.make(
      key, subject: [("CN", name)], names: nil, days: -10...30,
      extensions: [(NID_basic_constraints, "critical,CA:TRUE")],
      issuer: parent.map { ($0.certificate, $0.key) })
    file = folder.file("\(name).crt")
    TestAuthority.write([certificate], file)
  }

  deinit {
    X509_free(certificate)
    EVP_PKEY_free(key)
  }

  /// A certificate and its key in files; signed by itself if asked for, and with an end in seconds in place of days.
  func issue(
    _ name: String, names: String? = nil, subject: [(String, String)]? = nil, key kind: Key = .ecdsa,
    days: ClosedRange<Int> = -1...30, seconds: Int? = nil, isSelfSigned: Bool = false, use: String? = nil
  ) -> CertificateSettings {
    let own = TestAuthority.makeKey(kind)
    defer { EVP_PKEY_free(own) }
    let leaf = TestAuthority.make(
      own, subject: subject ?? [("CN", name)], names: names, days: days,
      extensions: use.map { [(NID_ext_key_usage, $0)] } ?? [], issuer: isSelfSigned ? nil : (certificate, key))
    defer { X509_free(leaf) }
    if let seconds {
      X509_gmtime_adj(X509_getm_notAfter(leaf), seconds)
      precondition(X509_sign(leaf, isSelfSigned ? own : key, EVP_sha256()) > 0)
    }
    let number = UUID().uuidString.prefix(4)
    let files = CertificateSettings(
      certificate: folder.file("\(name).\(number).crt"), key: folder.file("\(name).\(number).key"))
    TestAuthority.write([leaf], files.certificate)
    let bio = BIO_new_file(files.key, "w")
    precondition(PEM_write_bio_PrivateKey(bio, own, nil, nil, 0, nil, nil) == 1)
    BIO_free(bio)
    return files
  }

  /// An OCSP response that a certificate is good, until so many hours from now.
  func vouch(for pair: CertificateSettings, hours: Int = 24) throws -> String {
    let leaf = TestAuthority.read(pair.certificate)
    let basic = OCSP_BASICRESP_new()
    let (before, after) = (ASN1_TIME_new(), ASN1_TIME_new())
    defer {
      X509_free(leaf)
      OCSP_BASICRESP_free(basic)
      ASN1_TIME_free(before)
      ASN1_TIME_free(after)
    }
    let id = OCSP_cert_to_id(nil, leaf, certificate)
    defer { OCSP_CERTID_free(id) }
    X509_gmtime_adj(before, -172_800)
    X509_gmtime_adj(after, hours * 3_600)
    precondition(OCSP_basic_add1_status(basic, id, V_OCSP_CERTSTATUS_GOOD, 0, nil, before, after) != nil)
    precondition(OCSP_basic_sign(basic, certificate, key, EVP_sha256(), nil, 0) == 1)
    let response = OCSP_response_create(OCSP_RESPONSE_STATUS_SUCCESSFUL, basic)
    defer { OCSP_RESPONSE_free(response) }
    var der: UnsafeMutablePointer<UInt8>?
    let size = Int(i2d_OCSP_RESPONSE(response, &der))
    let path = folder.file("\(UUID().uuidString).ocsp")
    try Data(bytes: der!, count: size).write(to: URL(filePath: path))
    openssl_free(der)
    return path
  }

  // MARK: Making

  private static func makeKey(_ kind: Key) -> OpaquePointer {
    let context = EVP_PKEY_CTX_new_id(kind == .rsa ? EVP_PKEY_RSA : EVP_PKEY_EC, nil)
    defer { EVP_PKEY_CTX_free(context) }
    EVP_PKEY_keygen_init(context)
    switch kind {
    case .rsa: EVP_PKEY_CTX_set_rsa_keygen_bits(context, 2_048)
    case .ecdsa: EVP_PKEY_CTX_set_ec_paramgen_curve_nid(context, NID_X9_62_prime256v1)
    }
    var key: OpaquePointer?
    precondition(EVP_PKEY_keygen(context, &key) == 1)
    return key!
  }

  private static func make(
    _ key: OpaquePointer, subject: [(String, String)], names: String?, days: ClosedRange<Int>,
    extensions: [(Int32, String)], issuer: (certificate: OpaquePointer, key: OpaquePointer)?
  ) -> OpaquePointer {
    let certificate = X509_new()!
    X509_set_version(certificate, 2)
    ASN1_INTEGER_set(X509_get_serialNumber(certificate), Int.random(in: 1...Int(Int32.max)))
    X509_gmtime_adj(X509_getm_notBefore(certificate), days.lowerBound * 86_400)
    X509_gmtime_adj(X509_getm_notAfter(certificate), days.upperBound * 86_400)
    X509_set_pubkey(certificate, key)
    let name = X509_get_subject_name(certificate)
    for (type, value) in subject {
      X509_NAME_add_entry_by_txt(name, type, MBSTRING_UTF8, Array(value.utf8), Int32(value.utf8.count), -1, 0)
    }
    X509_set_issuer_name(certificate, X509_get_subject_name(issuer?.certificate ?? certificate))
    var all = extensions
    if let names { all.append((NID_subject_alt_name, names)) }
    for (kind, value) in all {
      let made = X509V3_EXT_conf_nid(nil, nil, kind, value)
      precondition(made != nil, value)
      X509_add_ext(certificate, made, -1)
      X509_EXTENSION_free(made)
    }
    precondition(X509_sign(certificate, issuer?.key ?? key, EVP_sha256()) > 0)
    return certificate
  }

  private static func write(_ certificates: [OpaquePointer], _ path: String) {
    let bio = BIO_new_file(path, "w")
    for certificate in certificates { precondition(PEM_write_bio_X509(bio, certificate) == 1) }
    BIO_free(bio)
  }

  private static func read(_ path: String) -> OpaquePointer? {
    let bio = BIO_new_file(path, "r")
    defer { BIO_free(bio) }
    return PEM_read_bio_X509(bio, nil, nil, nil)
  }
}

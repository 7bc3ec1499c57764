/// What is read from an X.509 certificate.

internal import COpenSSL
internal import Glibc

/// Borrowed from a context or a session that stays for as long as this is used.
@safe
struct TLSCertificate {
  /// SAFETY: whoever makes this vouches that the certificate lives longer; nothing here changes it.
  private let raw: OpaquePointer

  @unsafe init(_ raw: OpaquePointer) { unsafe self.raw = raw }

  /// Seconds since 1970 at which it ends.
  var notAfter: Int? {
    var time = unsafe tm()
    guard let end = unsafe X509_get0_notAfter(raw), unsafe ASN1_TIME_to_tm(end, &time) == 1 else { return nil }
    return unsafe timegm(&time)
  }

  /// The kind of its key, as OpenSSL numbers them.
  var keyKind: Int32 { unsafe EVP_PKEY_get_base_id(X509_get0_pubkey(raw)) }

  /// Its number, which OCSP responses name.
  var serial: [UInt8] { unsafe TLSCertificate.bytes(X509_get0_serialNumber(raw)) }

  /// SHA-256 of its SubjectPublicKeyInfo, as in pins.
  var keyHash: [UInt8] {
    let key = unsafe X509_get_X509_PUBKEY(raw)
    let size = unsafe i2d_X509_PUBKEY(key, nil)
    guard size > 0 else { return [] }
    var der = [UInt8](repeating: 0, count: Int(size))
    // SAFETY: the array has as many bytes as OpenSSL has just said it will write.
    unsafe der.withUnsafeMutableBufferPointer { buffer in
      var end = buffer.baseAddress
      _ = unsafe i2d_X509_PUBKEY(key, &end)
    }
    return TLSCertificate.hash(der)
  }

  /// SHA-256.
  static func hash(_ bytes: [UInt8]) -> [UInt8] {
    var hash = [UInt8](repeating: 0, count: 32)
    // SAFETY: the size of what is read is told, and what is written has SHA-256's size.
    guard unsafe EVP_Digest(bytes, bytes.count, &hash, nil, EVP_sha256(), nil) == 1 else { return [] }
    return hash
  }

  // MARK: Names

  /// Host names it is for: the common name only counts if it has no other (RFC 9525 §6.3 would not count it at all, but
  /// certificates that sites make for themselves often have nothing else).
  var hostNames: [String] {
    let names = alternatives(GEN_DNS)
    return (names.isEmpty ? commonName.map { [$0] } ?? [] : names).map { String(decoding: $0, as: UTF8.self) }
  }

  /// The last, which is the most specific, common name of the subject, in UTF-8. Nil if it holds control characters: it
  /// may become a user's name.
  var commonName: [UInt8]? {
    guard let subject = unsafe X509_get_subject_name(raw) else { return nil }
    var last: Int32 = -1
    while case let next = unsafe X509_NAME_get_index_by_NID(subject, NID_commonName, last), next >= 0 { last = next }
    guard last >= 0, let value = unsafe X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, last)) else { return nil }
    var text: UnsafeMutablePointer<UInt8>?
    let size = unsafe ASN1_STRING_to_UTF8(&text, value)
    guard size >= 0 else {
      ERR_clear_error()
      return nil
    }
    // SAFETY: OpenSSL has allocated `size` bytes, which are copied before they are freed.
    defer { unsafe openssl_free(text) }
    return unsafe TLSCertificate.printable(Array(UnsafeBufferPointer(start: text, count: Int(size))))
  }

  /// The first mail address among the alternative names. Nil if it holds control characters.
  var email: [UInt8]? { alternatives(GEN_EMAIL).first.flatMap(TLSCertificate.printable) }

  /// The subject on one line, as RFC 2253 writes it; what is not printable ASCII is escaped.
  var subject: String? { unsafe TLSCertificate.line(X509_get_subject_name(raw)) }

  /// The issuer, likewise.
  var issuer: String? { unsafe TLSCertificate.line(X509_get_issuer_name(raw)) }

  /// SHA-1 of all of it, by which nginx names certificates to its services.
  var fingerprint: [UInt8] {
    var hash = [UInt8](repeating: 0, count: 20)
    // SAFETY: what is written has SHA-1's size.
    guard unsafe X509_digest(raw, EVP_sha1(), &hash, nil) == 1 else { return [] }
    return hash
  }

  /// SAFETY: the name is part of a certificate that stays.
  @unsafe private static func line(_ name: OpaquePointer?) -> String? {
    guard let bio = unsafe BIO_new(BIO_s_mem()) else { return nil }
    defer { unsafe BIO_free(bio) }
    guard unsafe X509_NAME_print_ex(bio, name, 0, openssl_one_line) >= 0 else {
      ERR_clear_error()
      return nil
    }
    var text: UnsafeMutablePointer<CChar>?
    let size = unsafe openssl_memory(bio, &text)
    // SAFETY: the text is the BIO's, which is freed after it is copied.
    let bytes = unsafe UnsafeRawBufferPointer(start: text, count: size)
    return unsafe String(decoding: bytes, as: UTF8.self)
  }

  /// The alternative names of one kind whose values are strings.
  private func alternatives(_ wanted: Int32) -> [[UInt8]] {
    guard let list = unsafe X509_get_ext_d2i(raw, NID_subject_alt_name, nil, nil) else {
      ERR_clear_error()
      return []
    }
    // SAFETY: for this extension, what is returned is a list of names, ours to free; values are copied before.
    let names = OpaquePointer(list)
    defer { unsafe GENERAL_NAMES_free(names) }
    var found: [[UInt8]] = []
    let count = unsafe openssl_names_count(names)
    for index in 0..<count {
      var kind: Int32 = -1
      let value = unsafe GENERAL_NAME_get0_value(openssl_names_at(names, index), &kind)
      guard kind == wanted, let value = unsafe value else { continue }
      // SAFETY: host names and mail addresses are ASN.1 strings.
      unsafe found.append(TLSCertificate.bytes(value.assumingMemoryBound(to: ASN1_STRING.self)))
    }
    return found
  }

  private static func printable(_ bytes: [UInt8]) -> [UInt8]? {
    bytes.isEmpty || bytes.contains { $0 < 0x20 || $0 == 0x7F } ? nil : bytes
  }

  /// SAFETY: the string is OpenSSL's, and says how long it is.
  @unsafe static func bytes(_ string: UnsafePointer<ASN1_STRING>?) -> [UInt8] {
    unsafe Array(UnsafeBufferPointer(start: ASN1_STRING_get0_data(string), count: Int(ASN1_STRING_length(string))))
  }
}

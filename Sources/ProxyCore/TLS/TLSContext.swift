/// What all TLS connections of clients share, for one protocol: identities, ticket keys, the choice of ciphers, and who
/// may have signed the clients' certificates.

internal import COpenSSL

/// Immutable once made; shared by all loops.
package final class TLSContext: Sendable {
  private let identities: TLSIdentities
  /// To be handed to the other contexts of the process.
  package let ticketKeys: TLSTicketKeys
  /// Whether a client's certificate, if there is one, was verified.
  let verifiesPeer: Bool

  /// When each certificate ends, in the order of the settings.
  package var expiries: [TLSExpiry] { identities.all.flatMap(\.expiries) }

  /// The context a session begins with, before the client's name is known.
  var library: TLSLibraryContext { identities.all[0].library }

  /// Why there is no context, and what is to blame.
  package enum Failure: Error, Equatable, Sendable {
    case certificate(file: String, reason: String)
    case key(file: String, reason: String)
    case staple(file: String, reason: String)
    case clientCA(file: String, reason: String)
    /// `ciphers`, `ciphersuites` or `groups`.
    case setting(name: String, reason: String)
    case library(reason: String)
  }

  /// Opens all that the settings name, for a protocol with its name in ALPN. Tickets of all contexts with the same keys
  /// are taken: those given, or else the predecessor's, so that a renewed certificate does not cost every client a full
  /// handshake.
  package init(
    _ settings: TLSServerSettings, alpn: String, predecessor: TLSContext?, ticketKeys: TLSTicketKeys? = nil
  ) throws(Failure) {
    precondition(!settings.identities.isEmpty, "a server without an identity")
    self.ticketKeys = ticketKeys ?? predecessor?.ticketKeys ?? TLSTicketKeys()
    verifiesPeer = settings.clientCertificates != .off
    let authority = try TLSContext.authority(settings)
    var all: [TLSIdentity] = []
    for identity in settings.identities {
      let identity = try TLSIdentity(identity, alpn: alpn)
      // OpenSSL takes some settings from the context a session began with, and some from the one it went over to.
      try TLSContext.choose(settings, for: identity.library)
      try TLSContext.seal(self.ticketKeys, identity.library, TLSContext.audience(settings, authority))
      if let authority { try TLSContext.ask(settings.clientCertificates, authority.file, identity.library) }
      all.append(identity)
    }
    identities = TLSIdentities(all)
    identities.install()
  }

  // MARK: Ciphers

  /// AES-128-GCM and X25519 first (hardware does them best; SHA-384 has no instructions).
  private static let ciphersuites = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
  private static let ciphers =
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384"
    + ":ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
  private static let groups = "X25519:P-256:P-384"

  private static func choose(_ settings: TLSServerSettings, for library: TLSLibraryContext) throws(Failure) {
    let raw = unsafe library.raw
    // Whoever asks for one cipher that does not exist among others means one that does: OpenSSL would be silent about it.
    try set("ciphers", settings.ciphers, else: ciphers, isWord: isCipherWord) {
      unsafe SSL_CTX_set_cipher_list(raw, $0)
    }
    try set("ciphersuites", settings.ciphersuites, else: ciphersuites, isWord: { !$0.isEmpty }) {
      unsafe SSL_CTX_set_ciphersuites(raw, $0)
    }
    try set("groups", settings.groups, else: groups, isWord: { _ in false }) { unsafe openssl_ctx_set_groups(raw, $0) }
    let least = settings.minimum == .v13 ? TLS1_3_VERSION : TLS1_2_VERSION
    guard unsafe openssl_ctx_set_min_version(raw, least) == 1, unsafe SSL_CTX_set_num_tickets(raw, 1) == 1 else {
      throw .library(reason: TLSFailure.drain(otherwise: "a setting was refused").reason)
    }
  }

  /// Tries each word of a list alone, and then sets the list.
  private static func set(
    _ name: String, _ wanted: String?, else house: String, isWord: (Substring) -> Bool, _ call: (String) -> Int32
  ) throws(Failure) {
    ERR_clear_error()
    let value = wanted ?? house
    guard !value.isEmpty else { throw .setting(name: name, reason: "it names none") }
    if wanted != nil {
      for word in value.split(whereSeparator: { ":, ;".contains($0) }) where isWord(word) {
        let bare = String(word.drop { "!-+".contains($0) })
        guard call(bare) == 1 else { throw .setting(name: name, reason: "\(bare): \(complaint())") }
      }
    }
    guard call(value) == 1 else { throw .setting(name: name, reason: complaint()) }
  }

  /// `@STRENGTH` and `@SECLEVEL=2` order and bound what is there, and mean nothing alone.
  private static func isCipherWord(_ word: Substring) -> Bool { !word.hasPrefix("@") }

  private static func complaint() -> String { TLSFailure.drain(otherwise: "OpenSSL does not know it").reason }

  // MARK: Tickets

  /// A session is taken up again only where the same was asked of the client's certificate: OpenSSL looks at nothing but
  /// this name of the audience, and a ticket from a port without certificates would open one that requires them.
  private static func audience(_ settings: TLSServerSettings, _ authority: Authority?) -> [UInt8] {
    guard let authority else { return Array("proxyd".utf8) }
    return TLSCertificate.hash(Array(settings.clientCertificates.rawValue.utf8) + [0] + authority.bytes)
  }

  private static func seal(
    _ keys: TLSTicketKeys, _ library: TLSLibraryContext, _ audience: [UInt8]
  ) throws(Failure) {
    ERR_clear_error()
    // SAFETY: OpenSSL copies what it is given, and is told how much it is.
    let works =
      unsafe SSL_CTX_set_session_id_context(library.raw, audience, UInt32(audience.count)) == 1
      && openssl_ctx_set_ticket_keys(library.raw, keys.bytes, keys.bytes.count) == 1
    guard works else { throw .library(reason: TLSFailure.drain(otherwise: "ticket keys were refused").reason) }
  }

  // MARK: Clients' certificates

  private struct Authority {
    let file: String
    let bytes: [UInt8]
  }

  /// Nil if clients are not asked for a certificate.
  private static func authority(_ settings: TLSServerSettings) throws(Failure) -> Authority? {
    guard settings.clientCertificates != .off else { return nil }
    guard let file = settings.clientCA else { throw .clientCA(file: "", reason: "no file is named") }
    switch TextFile.bytes(file) {
    case .success(let bytes): return Authority(file: file, bytes: bytes)
    case .failure(let error): throw .clientCA(file: file, reason: error.description)
    }
  }

  private static func ask(
    _ policy: ClientCertificatePolicy, _ file: String, _ library: TLSLibraryContext
  ) throws(Failure) {
    do throws(TLSLibraryContext.Fault) { try library.trust(file) } catch { throw Failure(error) }
    guard let names = unsafe SSL_load_client_CA_file(file) else {
      throw .clientCA(file: file, reason: TLSFailure.drain(otherwise: "not PEM certificates").reason)
    }
    // SAFETY: the list is the context's from here on.
    unsafe SSL_CTX_set_client_CA_list(library.raw, names)
    let mode = policy == .require ? SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT : SSL_VERIFY_PEER
    unsafe SSL_CTX_set_verify(library.raw, mode, nil)
  }
}

extension TLSContext.Failure {
  init(_ fault: TLSLibraryContext.Fault) {
    self =
      switch fault {
      case .certificate(let file, let reason): .certificate(file: file, reason: reason)
      case .key(let file, let reason): .key(file: file, reason: reason)
      case .authority(let file, let reason): .clientCA(file: file, reason: reason)
      case .library(let reason): .library(reason: reason)
      }
  }
}

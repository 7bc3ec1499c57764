/// What the operator wants of TLS, toward clients and toward one backend.

/// The least version that is spoken.
package enum TLSVersion: String, Equatable, Sendable, CaseIterable {
  case v12 = "1.2"
  case v13 = "1.3"
}

/// Whether clients are asked for a certificate. One that is shown must be good, whether or not it had to be.
package enum ClientCertificatePolicy: String, Equatable, Sendable, CaseIterable {
  case off
  case request
  case require
}

/// TLS toward clients.
package struct TLSServerSettings: Equatable, Sendable {
  /// What may be shown; the first is shown when no name fits. At least one.
  package var identities: [TLSIdentitySettings]
  /// Clients that can't do this much are refused.
  package var minimum: TLSVersion
  /// TLS 1.2's ciphers as OpenSSL writes them; nil for the house's.
  package var ciphers: String?
  /// TLS 1.3's ciphers; nil for the house's.
  package var ciphersuites: String?
  /// Groups of the key exchange, the preferred one first; nil for the house's.
  package var groups: String?
  /// Whether clients are asked for a certificate.
  package var clientCertificates: ClientCertificatePolicy
  /// A PEM file of those who may have signed clients' certificates; needed unless they are off.
  package var clientCA: String?

  /// The settings, all but the first with their defaults.
  package init(
    identities: [TLSIdentitySettings], minimum: TLSVersion = .v12, ciphers: String? = nil, ciphersuites: String? = nil,
    groups: String? = nil, clientCertificates: ClientCertificatePolicy = .off, clientCA: String? = nil
  ) {
    self.identities = identities
    self.minimum = minimum
    self.ciphers = ciphers
    self.ciphersuites = ciphersuites
    self.groups = groups
    self.clientCertificates = clientCertificates
    self.clientCA = clientCA
  }
}

/// One of the hosts the proxy is to clients.
package struct TLSIdentitySettings: Equatable, Sendable {
  /// Certificates with keys of different kinds, as ECDSA and RSA; OpenSSL shows the one that the client can check.
  package var pairs: [CertificateSettings]
  /// Names it is shown for, each exact or as `*.example.net`; empty for those in the certificates.
  package var names: [String]
  /// A file with a DER OCSP response about one of the certificates.
  package var staple: String?

  /// An identity; without names, the certificates' own.
  package init(pairs: [CertificateSettings], names: [String] = [], staple: String? = nil) {
    self.pairs = pairs
    self.names = names
    self.staple = staple
  }
}

/// What a backend's certificate must be.
package enum TLSVerification: Equatable, Sendable {
  /// Signed by someone the system trusts, and for the backend's name.
  case system
  /// Signed by someone in the PEM file, and for the backend's name.
  case authority(file: String)
  /// Anything: whoever can reach the wire can be the backend.
  case none
}

/// TLS toward one backend.
package struct TLSBackendSettings: Equatable, Sendable {
  /// What the certificate must be, if there are no pins.
  package var verification: TLSVerification
  /// SHA-256 of SubjectPublicKeyInfos. If there are any, the backend must have one of these keys, and chain, name and
  /// dates of its certificate are not looked at (as RFC 7671 §5.1 has it for DANE-EE).
  package var pins: [[UInt8]]
  /// What is shown to a backend that asks for a certificate.
  package var certificate: CertificateSettings?

  /// Without anything said, what the system trusts.
  package init(
    verification: TLSVerification = .system, pins: [[UInt8]] = [], certificate: CertificateSettings? = nil
  ) {
    self.verification = verification
    self.pins = pins
    self.certificate = certificate
  }
}

/// Who a backend has to be.
package enum TLSPeerName: Equatable, Sendable {
  /// A host name: asked for in the handshake, and looked for in the certificate.
  case dns(String)
  /// A literal address: looked for in the certificate, and not asked for (RFC 6066 §3).
  case address(String)
}

/// A file that ends.
package struct TLSExpiry: Equatable, Sendable {
  /// The certificate's file.
  package let file: String
  /// Seconds since 1970.
  package let notAfter: Int
}

/// What became of an instance's options for TLS.

internal import Protocols

/// Judges what begins with `ssl_`.
struct PerditionTLSVerdicts {
  private let instance: PerditionInstance
  private let group: PerditionGroup
  private let config: PerditionConfig
  private let tls: PerditionTLS

  private typealias Answer = (verdict: Verdict, text: String)

  init(_ instance: PerditionInstance, group: PerditionGroup, config: PerditionConfig) {
    self.instance = instance
    self.group = group
    self.config = config
    tls = PerditionTLS(instance)
  }

  /// The verdict on one of them.
  func judge(_ option: PerditionOption, _ value: String) -> (verdict: Verdict, text: String) {
    switch option {
    case .tlsMode: mode()
    case .certificateFile, .keyFile, .chainFile, .passphraseDescriptor, .passphraseFile, .parametersFile,
      .listenCiphers,
      .listenMinimum, .listenMaximum, .listenCompression, .noCipherServerPreference, .noClientCertificateVerify:
      tls.listen == .off ? (.notNeeded, "no TLS is spoken with clients here.") : listening(option, value)
    default: tls.outgoing == .off ? (.notNeeded, "no TLS is spoken with backends here.") : outgoing(option, value)
    }
  }

  private func mode() -> Answer {
    var texts = ["listeners[].tls: \(tls.listen.rawValue), and tls: \(tls.outgoing.rawValue) toward backends."]
    var verdict = Verdict.carried
    if !tls.unknown.isEmpty {
      verdict = .changed
      let words = tls.unknown.map { "\"\($0)\"" }.joined(separator: ", ")
      texts.append("Perdition drops \(words), which it does not know, and so did the import.")
    }
    if tls.isContradictory {
      verdict = .changed
      texts.append("ssl_ and tls_ on one side can't be together; TLS from the first byte was taken.")
    }
    if tls.isOpportunistic {
      verdict = .changed
      texts.append(
        "STARTTLS is demanded of backends: Perdition goes on in plain text without a word if one does not offer it, and proxyd never "
          + "does. For backends without it write tls: off.")
    }
    if tls.listen == .startTLSRequired { texts.append("A password is refused before TLS.") }
    return (verdict, texts.joined(separator: " "))
  }

  // MARK: Toward clients

  private func listening(_ option: PerditionOption, _ value: String) -> Answer {
    switch option {
    case .certificateFile, .keyFile:
      let key = option == .keyFile ? "key" : "certificate"
      let paths = CertificatePaths(instance)
      let path = option == .keyFile ? paths.key : paths.certificate
      if option == .certificateFile, let file = config.joined[path] {
        return (.changed, "tls.certificate: \(file), joined with ssl_ca_chain_file.")
      }
      let relative =
        value.hasPrefix("/") || value.isEmpty
        ? "" : " Perdition takes a relative path as of where it is started; \(PerditionMap.folder) was taken."
      return (relative.isEmpty ? .carried : .changed, "tls.\(key) or that of the listener: \(path).\(relative)")
    case .chainFile:
      let paths = CertificatePaths(instance)
      guard let file = config.joined[paths.certificate] else {
        return (
          .lost,
          "intermediates stand behind the certificate in one file, and these could not be read to be joined. Write `cat "
            + "\(paths.certificate) \(paths.chain ?? value) > certificate.pem` and name that in tls.certificate."
        )
      }
      return (.changed, "joined with the certificate in \(file); whoever renews the certificate must join them again.")
    case .passphraseFile:
      let key = CertificatePaths(instance).key
      return (
        .lost,
        "proxyd takes keys without a passphrase. Write `openssl pkey -in \(key) -passin file:\(value) -out KEY`, readable to root alone, and "
          + "name KEY in tls.key."
      )
    case .passphraseDescriptor:
      return (
        .lost,
        "proxyd takes keys without a passphrase. If the key has one, write `openssl pkey -in \(CertificatePaths(instance).key) -out KEY`, "
          + "readable to root alone, and name KEY in tls.key."
      )
    case .parametersFile:
      return (.notNeeded, "the key exchange is by elliptic curves (tls.groups); files of DH parameters have no use.")
    case .listenCiphers:
      let taken = group.instances.filter { PerditionTLS($0).listen != .off }.lazy.compactMap {
        $0.value(.listenCiphers)
      }.first
      if value.isEmpty { return (.notNeeded, "it is empty: proxyd's own list counts.") }
      return taken == value
        ? (.carried, "tls.ciphers, for TLS 1.2; TLS 1.3 has tls.ciphersuites.")
        : (.changed, "another instance's list was taken; one configuration has one.")
    case .listenMinimum:
      return value.lowercased() == "tlsv1.2"
        ? (.carried, "tls.minimum is 1.2 by itself.")
        : (.changed, "tls.minimum is 1.2; \(value) is not spoken any more.")
    case .listenMaximum: return (.changed, "there is no such limit: TLS 1.3 is always offered.")
    case .listenCompression:
      return (.notNeeded, "compression under TLS is unsafe, and OpenSSL has none; Perdition neither.")
    case .noCipherServerPreference:
      return (.changed, "proxyd's order counts, which clients without AES hardware are spared in TLS 1.3.")
    case .noClientCertificateVerify: return (.notNeeded, "clients are not asked for certificates.")
    default: preconditionFailure("\(option) is judged elsewhere")
    }
  }

  // MARK: Toward backends

  private func outgoing(_ option: PerditionOption, _ value: String) -> Answer {
    let trust = Trust(instance)
    switch option {
    case .authorityFile:
      return trust.isBlind
        ? (.notNeeded, "nothing is verified.")
        : (
          .carried, "ca: \(PerditionMap.absolute(value)), or ca.pem if certificates of ssl_ca_path were joined with it."
        )
    case .authorityPath:
      return trust.isBlind
        ? (.notNeeded, "nothing is verified.")
        : (
          .changed,
          "the certificates found there were joined into ca.pem; see \"Users and servers\" if there were none."
        )
    case .noCertificateVerify, .noNameVerify:
      return (
        .changed,
        "insecure-no-verification: true, which trusts whoever answers; there is a warning at each start. Give `ca` or `pins` instead: "
          + "openssl s_client -connect HOST:993 </dev/null | openssl x509 -pubkey -noout | openssl pkey -pubin -outform der | openssl "
          + "dgst -sha256 -binary | base64"
      )
    case .authorityAcceptSelfSigned, .acceptSelfSigned, .acceptExpired, .acceptNotYetValid:
      if trust.isBlind { return (.notNeeded, "nothing is verified.") }
      return (
        .lost,
        "certificates are verified in full. For a backend whose certificate has this fault give its key in `pins` (the certificate is "
          + "accepted then, whatever else is wrong with it), or the certificate itself in `ca` if it signed itself."
      )
    case .verifyDepth: return (.notNeeded, "chains of any length that OpenSSL takes are verified.")
    case .outgoingCiphers:
      return (.changed, "proxyd's own list counts toward backends: ECDHE with AES-GCM or ChaCha20.")
    case .outgoingMinimum:
      return value.lowercased() == "tlsv1.2"
        ? (.carried, "1.2 is the oldest version spoken with backends.")
        : (.changed, "1.2 is the oldest version spoken with backends; \(value) is not any more.")
    case .outgoingMaximum: return (.changed, "there is no such limit: TLS 1.3 is always offered.")
    case .outgoingCompression:
      return (.notNeeded, "compression under TLS is unsafe, and OpenSSL has none; Perdition neither.")
    default: preconditionFailure("\(option) is judged elsewhere")
    }
  }
}

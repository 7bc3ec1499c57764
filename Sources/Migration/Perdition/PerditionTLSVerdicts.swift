/// What became of options of TLS, toward clients and toward backends.

internal import Protocols

extension PerditionVerdicts {
  private var tls: PerditionTLS { PerditionTLS(instance) }

  func toClients(_ answer: @autoclosure () -> Answer) -> Answer {
    tls.listen == .off ? (.notNeeded, "no TLS is spoken with clients here.") : answer()
  }

  func toBackends(_ answer: @autoclosure () -> Answer) -> Answer {
    tls.outgoing == .off ? (.notNeeded, "no TLS is spoken with backends here.") : answer()
  }

  func tlsMode() -> Answer {
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
        "STARTTLS is demanded of backends: Perdition goes on in plain text without a word if one does not offer it, "
          + "and proxyd never "
          + "does. For backends without it write tls: off.")
    }
    if tls.listen == .startTLSRequired { texts.append("A password is refused before TLS.") }
    return (verdict, texts.joined(separator: " "))
  }

  func certificateFile(_ option: PerditionOption, _ value: String) -> Answer {
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
  }

  func chainFile(_ value: String) -> Answer {
    let paths = CertificatePaths(instance)
    guard let file = config.joined[paths.certificate] else {
      return (
        .lost,
        "intermediates stand behind the certificate in one file, and these could not be read to be joined. Write `cat "
          + "\(paths.certificate) \(paths.chain ?? value) > certificate.pem` and name that in tls.certificate."
      )
    }
    return (.changed, "joined with the certificate in \(file); whoever renews the certificate must join them again.")
  }

  func passphraseFile(_ value: String) -> Answer {
    let key = CertificatePaths(instance).key
    return (
      .lost,
      "proxyd takes keys without a passphrase. Write `openssl pkey -in \(key) -passin file:\(value) -out KEY`, "
        + "readable to root alone, and "
        + "name KEY in tls.key."
    )
  }

  func passphraseDescriptor() -> Answer {
    return (
      .lost,
      "proxyd takes keys without a passphrase. If the key has one, write `openssl pkey -in "
        + "\(CertificatePaths(instance).key) -out KEY`, "
        + "readable to root alone, and name KEY in tls.key."
    )
  }

  func listenCiphers(_ value: String) -> Answer {
    let taken = group.instances.filter { PerditionTLS($0).listen != .off }.lazy.compactMap {
      $0.value(.listenCiphers)
    }.first
    if value.isEmpty { return (.notNeeded, "it is empty: proxyd's own list counts.") }
    return taken == value
      ? (.carried, "tls.ciphers, for TLS 1.2; TLS 1.3 has tls.ciphersuites.")
      : (.changed, "another instance's list was taken; one configuration has one.")
  }

  func listenMinimum(_ value: String) -> Answer {
    return value.lowercased() == "tlsv1.2"
      ? (.carried, "tls.minimum is 1.2 by itself.")
      : (.changed, "tls.minimum is 1.2; \(value) is not spoken any more.")
  }

  func authorityFile(_ value: String) -> Answer {
    let trust = Trust(instance)
    return trust.isBlind
      ? (.notNeeded, "nothing is verified.")
      : (
        .carried, "ca: \(PerditionMap.absolute(value)), or ca.pem if certificates of ssl_ca_path were joined with it."
      )
  }

  func authorityPath() -> Answer {
    let trust = Trust(instance)
    return trust.isBlind
      ? (.notNeeded, "nothing is verified.")
      : (
        .changed,
        "the certificates found there were joined into ca.pem; see \"Users and servers\" if there were none."
      )
  }

  func noCertificateVerify() -> Answer {
    return (
      .changed,
      "insecure-no-verification: true, which trusts whoever answers; there is a warning at each start. Give `ca` or "
        + "`pins` instead: "
        + "openssl s_client -connect HOST:993 </dev/null | openssl x509 -pubkey -noout | openssl pkey -pubin "
        + "-outform der | openssl "
        + "dgst -sha256 -binary | base64"
    )
  }

  func authorityAcceptSelfSigned() -> Answer {
    let trust = Trust(instance)
    if trust.isBlind { return (.notNeeded, "nothing is verified.") }
    return (
      .lost,
      "certificates are verified in full. For a backend whose certificate has this fault give its key in `pins` (the "
        + "certificate is "
        + "accepted then, whatever else is wrong with it), or the certificate itself in `ca` if it signed itself."
    )
  }

  func outgoingMinimum(_ value: String) -> Answer {
    return value.lowercased() == "tlsv1.2"
      ? (.carried, "1.2 is the oldest version spoken with backends.")
      : (.changed, "1.2 is the oldest version spoken with backends; \(value) is not any more.")
  }
}

/// The TLS contexts of a configuration: one for each protocol and, where a listener has a certificate of its own, for that.

internal import Protocols

struct TLSBook: Sendable {
  private let contexts: [Page: TLSContext]
  /// Certificates that have expired.
  let warnings: [SettingsError]
  /// Any of them: all share their ticket keys.
  private var anyContext: TLSContext? { contexts.values.first }

  private struct Page: Hashable, Sendable {
    let mailProtocol: MailProtocol
    /// The listener's own certificates; empty for those of all.
    let own: [String]

    init(_ listener: ListenerSettings) {
      mailProtocol = listener.mailProtocol
      own = listener.identity.map { $0.pairs.flatMap { [$0.certificate, $0.key] } } ?? []
    }
  }

  /// Opens every certificate the listeners need; all that is wrong is told together. Tickets given out under
  /// `predecessor` are still taken.
  init(_ settings: Settings, predecessor: TLSBook?) throws(SettingsErrors) {
    var contexts: [Page: TLSContext] = [:]
    var errors: [SettingsError] = []
    var warnings: [SettingsError] = []
    for listener in settings.listeners where listener.tls != .off {
      let page = Page(listener)
      guard contexts[page] == nil else { continue }
      var own = settings.tls ?? TLSServerSettings(identities: [])
      if let identity = listener.identity { own.identities.insert(identity, at: 0) }
      precondition(!own.identities.isEmpty, "a listener with TLS and no certificate")
      do throws(TLSContext.Failure) {
        let context = try TLSContext(
          own, alpn: "\(listener.mailProtocol.alpn)", predecessor: predecessor?.anyContext ?? contexts.values.first)
        contexts[page] = context
        for expiry in context.expiries where expiry.notAfter < WallTime.second {
          let end = WallTime(seconds: expiry.notAfter, milliseconds: 0)
          let problem = "\(expiry.file): the certificate expired at \(end.text)"
          let key = TLSBook.key(of: expiry.file, "certificate", settings)
          let warning = SettingsError(key: key, problem: problem)
          if !warnings.contains(warning) { warnings.append(warning) }
        }
      } catch {
        let found = TLSBook.settingsError(error, settings)
        if !errors.contains(found) { errors.append(found) }
      }
    }
    guard errors.isEmpty else { throw SettingsErrors(errors) }
    self.contexts = contexts
    self.warnings = warnings
  }

  /// The context of a listener; nil where TLS is off.
  func context(_ listener: ListenerSettings) -> TLSContext? { listener.tls == .off ? nil : contexts[Page(listener)] }

  private static func settingsError(_ failure: TLSContext.Failure, _ settings: Settings) -> SettingsError {
    switch failure {
    case .certificate(let file, let reason):
      SettingsError(
        key: key(of: file, "certificate", settings), problem: "\(file): no certificate can be used: \(reason)")
    case .key(let file, let reason):
      SettingsError(key: key(of: file, "key", settings), problem: "\(file): the key can't be used: \(reason)")
    case .staple(let file, let reason):
      SettingsError(key: key(of: file, "staple", settings), problem: "\(file): no OCSP response: \(reason)")
    case .clientCA(let file, let reason):
      SettingsError(key: "tls.client-ca", problem: "\(file): no certificate can be used: \(reason)")
    case .setting(let name, let reason): SettingsError(key: "tls.\(name)", problem: "it can't be used: \(reason)")
    case .library(let reason): SettingsError(key: "tls", problem: "TLS can't be set up: \(reason)")
    }
  }

  /// Where the configuration names a file.
  private static func key(of file: String, _ name: String, _ settings: Settings) -> String {
    func holds(_ identity: TLSIdentitySettings) -> Bool {
      identity.staple == file || identity.pairs.contains { $0.certificate == file || $0.key == file }
    }
    for listener in settings.listeners {
      if let identity = listener.identity, holds(identity) { return "\(listener.key).\(name)" }
    }
    let index = settings.tls?.identities.firstIndex(where: holds) ?? 0
    return index == 0 ? "tls.\(name)" : "tls.certificates[\(index - 1)].\(name)"
  }
}

extension Settings {
  /// Every file that TLS is made of, on both sides, and those with master users' passwords: they are opened anew with the
  /// backends' contexts.
  var tlsFiles: [String] {
    var files: [String] = []
    func add(_ identity: TLSIdentitySettings) {
      files += identity.pairs.flatMap { [$0.certificate, $0.key] }
      if let staple = identity.staple { files.append(staple) }
    }
    for listener in listeners { if let identity = listener.identity { add(identity) } }
    for identity in tls?.identities ?? [] { add(identity) }
    if let file = tls?.clientCA { files.append(file) }
    for manner in backends.values.map(\.manner) + [unnamedBackends] {
      if let master = manner.master { files.append(master.passwordFile) }
      guard manner.tls != .off else { continue }
      if case .authority(let file) = manner.security.verification { files.append(file) }
      if let own = manner.security.certificate { files += [own.certificate, own.key] }
    }
    return Array(Set(files)).sorted()
  }
}

/// A mail server to connect to for one protocol, with what is needed to speak to it.

internal import Protocols

package struct Backend: Equatable, Sendable {
  /// The name the operator gave it, or `host:port` if a map named it directly.
  package let name: String
  /// Its host.
  package let host: Host
  /// Its port for the protocol.
  package let port: UInt16
  /// How it is spoken to.
  let link: BackendLink

  /// A server in one of the manners of the configuration.
  init(name: String, host: Host, port: UInt16, _ link: BackendLink) {
    self.name = name
    self.host = host
    self.port = port
    self.link = link
  }

  /// Whether it is the same server; how it is spoken to follows from that.
  package static func == (one: Backend, other: Backend) -> Bool {
    one.name == other.name && one.host == other.host && one.port == other.port
  }

  /// What its certificate must say.
  var peerName: TLSPeerName {
    switch link.manner.tlsName ?? host {
    case .address(let address): .address(address.host)
    case .name(let name): .dns(name)
    }
  }
}

/// A manner of speaking to servers, with what it names opened: certificates, the master user's password.
package final class BackendLink: Sendable {
  let manner: BackendManner
  private let contexts: [MailProtocol: TLSClientContext]
  /// The password of the manner's master user.
  private let masterPassword: [UInt8]

  /// Opens what the manner names; `key` is where the configuration has it.
  package init(_ manner: BackendManner, key: String) throws(SettingsErrors) {
    self.manner = manner
    var errors: [SettingsError] = []
    var contexts: [MailProtocol: TLSClientContext] = [:]
    var password: [UInt8] = []
    if manner.tls != .off {
      for mailProtocol in MailProtocol.allCases {
        do throws(TLSClientContext.Failure) {
          contexts[mailProtocol] = try TLSClientContext(manner.security, alpn: "\(mailProtocol.alpn)")
        } catch {
          errors.append(BackendLink.settingsError(error, key))
          break
        }
      }
    }
    if let master = manner.master {
      switch BackendLink.firstLine(of: master.passwordFile) {
      case .success(let line): password = line
      case .failure(let problem):
        errors.append(SettingsError(key: "\(key).master.password-file", problem: problem.words))
      }
    }
    guard errors.isEmpty else { throw SettingsErrors(errors) }
    self.contexts = contexts
    masterPassword = password
  }

  /// The context for TLS with the server; nil where there is none.
  func context(_ mailProtocol: MailProtocol) -> TLSClientContext? { contexts[mailProtocol] }

  /// Puts the master user's credentials in the place of the client's. False if there is no master user.
  func becomeMaster(_ draft: inout LoginDraft) -> Bool {
    guard let master = manner.master else { return false }
    let password = masterPassword
    draft.becomeMaster(Array(master.user.utf8), password.span, separator: Array((master.separator ?? "").utf8))
    return true
  }

  private struct Problem: Error {
    let words: String
  }

  private static func firstLine(of file: String) -> Result<[UInt8], Problem> {
    switch TextFile.read(file) {
    case .failure(let error): return .failure(Problem(words: "\(file): it can't be read: \(error)"))
    case .success(let text):
      guard let line = TextFile.lines(text).first, !line.isEmpty else {
        return .failure(Problem(words: "\(file): its first line is empty, expected a password"))
      }
      return .success(Array(line.utf8))
    }
  }

  private static func settingsError(_ failure: TLSClientContext.Failure, _ key: String) -> SettingsError {
    switch failure {
    case .authority(let file, let reason):
      SettingsError(key: "\(key).ca", problem: "\(file): no certificate can be used: \(reason)")
    case .certificate(let file, let reason):
      SettingsError(key: "\(key).certificate", problem: "\(file): no certificate can be used: \(reason)")
    case .key(let file, let reason):
      SettingsError(key: "\(key).key", problem: "\(file): the key can't be used: \(reason)")
    case .library(let reason): SettingsError(key: "\(key).tls", problem: "TLS can't be set up: \(reason)")
    }
  }
}

/// The servers of a configuration, and how one is found by a route's word.
package struct BackendBook: Sendable {
  private let named: [String: (settings: BackendSettings, link: BackendLink)]
  private let unnamed: BackendLink
  private let unnamedPorts: [MailProtocol: UInt16]
  /// What is allowed and yet dangerous.
  package let warnings: [SettingsError]

  /// Opens what the backends need; all that is wrong is told together.
  package init(_ settings: Settings) throws(SettingsErrors) {
    var named: [String: (settings: BackendSettings, link: BackendLink)] = [:]
    var errors: [SettingsError] = []
    var warnings: [SettingsError] = []
    func warn(_ manner: BackendManner, _ key: String) {
      guard manner.tls != .off, manner.security.verification == .none, manner.security.pins.isEmpty else { return }
      warnings.append(
        SettingsError(
          key: "\(key).insecure-no-verification",
          problem: "the backend's certificate is not verified: whoever is on the way can read every password"))
    }
    for (name, backend) in settings.backends.sorted(by: { $0.key < $1.key }) {
      let key = "backends.\(name)"
      warn(backend.manner, key)
      do throws(SettingsErrors) { named[name] = (backend, try BackendLink(backend.manner, key: key)) } catch {
        errors += error.errors
      }
    }
    warn(settings.unnamedBackends, "unnamed-backends")
    var unnamed: BackendLink?
    do throws(SettingsErrors) { unnamed = try BackendLink(settings.unnamedBackends, key: "unnamed-backends") } catch {
      errors += error.errors
    }
    guard errors.isEmpty, let unnamed else { throw SettingsErrors(errors) }
    self.named = named
    self.unnamed = unnamed
    unnamedPorts = settings.unnamedPorts
    self.warnings = warnings
  }

  /// The server a route's answer means: a backend's name, or `host[:port]`. Nil if it is neither.
  func backend(_ answer: String, _ mailProtocol: MailProtocol) -> Backend? {
    if let known = named(answer, mailProtocol) { return known }
    guard let address = HostPort(answer) else { return nil }
    let port = address.port ?? unnamedPorts[mailProtocol] ?? mailProtocol.port(unnamed.manner.tls)
    return Backend(name: "\(address.host):\(port)", host: address.host, port: port, unnamed)
  }

  /// The configured server of that name.
  func named(_ name: String, _ mailProtocol: MailProtocol) -> Backend? {
    named[name].map { settings, link in
      Backend(name: name, host: settings.host, port: BackendBook.port(settings, mailProtocol), link)
    }
  }

  /// The configured server at that place, to which a referral may lead; `resolves` tells whether a name has an address.
  func backend(
    at place: HostPort, _ mailProtocol: MailProtocol, resolves: (String, SocketAddress) -> Bool
  ) -> Backend? {
    for (name, (settings, link)) in named.sorted(by: { $0.key < $1.key }) {
      let port = BackendBook.port(settings, mailProtocol)
      guard place.port ?? mailProtocol.port(.off) == port else { continue }
      let isSame =
        switch (settings.host, place.host) {
        case (.name(let name), .address(let address)): resolves(name, address)
        case (.name, .name), (.address, _): settings.host == place.host
        }
      if isSame { return Backend(name: name, host: settings.host, port: port, link) }
    }
    return nil
  }

  private static func port(_ settings: BackendSettings, _ mailProtocol: MailProtocol) -> UInt16 {
    settings.ports[mailProtocol] ?? mailProtocol.port(settings.manner.tls)
  }
}

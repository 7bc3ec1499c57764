/// The probers of all backends: begins and ends them as the configuration has it.

internal import Protocols
internal import Synchronization

package final class Probers: Sendable {
  private let resolver: Resolver
  private let ears: ProbeEars
  private let running = Mutex<[String: Prober]>([:])

  /// Probers that tell `ears` what they find, on threads of their own.
  init(_ resolver: Resolver, _ ears: ProbeEars) {
    self.resolver = resolver
    self.ears = ears
  }

  deinit { end() }

  /// Probes these backends from here on, and no others. Files with passwords are read now.
  func adopt(_ wanted: [ProbeTarget]) {
    var tasks: [String: Prober.Task] = [:]
    for target in wanted where target.settings.isProbed || target.settings.agent != nil {
      tasks[target.name] = Prober.Task(target: target, login: credentials(target))
    }
    let begun = running.withLock { running -> [(String, Prober)] in
      for (name, prober) in running where tasks[name] == nil {
        prober.end()
        running[name] = nil
      }
      var begun: [(String, Prober)] = []
      for (name, task) in tasks {
        if let known = running[name] {
          known.adopt(task)
        } else {
          let prober = Prober(task, resolver, ears)
          running[name] = prober
          begun.append((name, prober))
        }
      }
      return begun
    }
    for (name, prober) in begun {
      guard let error = prober.run() else { continue }
      running.withLock { $0[name] = nil }
      ears.warn(name, .noThread("\(error)"))
    }
  }

  /// A backend is in doubt, or was made ready: it is probed as soon as may be.
  func probeNow(_ backend: String) {
    let prober = running.withLock { $0[backend] }
    prober?.probeNow()
  }

  /// Ends all. Nothing more is told, but for what is being told at this moment.
  func end() { adopt([]) }

  /// Without its password nobody logs in: a file that can't be read is not a backend's fault.
  private func credentials(_ target: ProbeTarget) -> ProbeCredentials? {
    guard target.settings.isProbed, let login = target.settings.login else { return nil }
    let key = "backends.\(target.name)"
    do throws(SettingsErrors) {
      return ProbeCredentials(user: login.user, password: try SecretFile.read(login.passwordFile, key: key))
    } catch {
      ears.warn(target.name, .password(error.errors.map(\.problem).joined(separator: "; ")))
      return nil
    }
  }
}

/// A backend to be probed.
struct ProbeTarget: Sendable {
  /// What is known of it at run time; its name is the backend's.
  let standing: BackendStanding
  /// How it is probed.
  let settings: HealthSettings
  /// Where it is, in each protocol that is probed.
  let backends: [MailProtocol: Backend]

  /// The backend's name.
  var name: String { standing.name }

  /// Its host, which is the same in all protocols.
  var host: Host? { MailProtocol.allCases.lazy.compactMap { self.backends[$0]?.host }.first }
}

/// Who is told what probers find. All are called on a prober's thread, and may block it for a while.
struct ProbeEars: Sendable {
  /// Something about a backend's health.
  var learn: @Sendable (String, HealthEvidence) -> Void
  /// All that a backend's agent said, its health among it, which `learn` was told.
  var agent: @Sendable (String, AgentReport) -> Void
  /// Something that an operator should look at.
  var warn: @Sendable (String, ProbeWarning) -> Void
}

/// What an operator should look at.
enum ProbeWarning: Equatable, Sendable {
  /// A backend's certificate ends soon or has ended, in seconds since 1970. Told once a day for each backend.
  case certificate(MailProtocol, notAfter: Int, hasEnded: Bool)
  /// The test account's password can't be read: probes go on without a login.
  case password(String)
  /// The system gives no thread: the backend is not probed.
  case noThread(String)

  /// The message of the log line.
  var words: String {
    switch self {
    case .certificate(_, _, hasEnded: false): "a backend's certificate ends soon"
    case .certificate(_, _, hasEnded: true): "a backend's certificate has ended"
    case .password: "the password of a probe's login can't be read: probes go on without a login"
    case .noThread: "a backend is not probed: there is no thread for it"
    }
  }

  /// What else the line says, by its names.
  var details: [(name: String, value: String)] {
    switch self {
    case .certificate(let mailProtocol, let end, _):
      [("protocol", mailProtocol.rawValue), ("not_after", WallTime(seconds: end, milliseconds: 0).text)]
    case .password(let reason), .noThread(let reason): [("reason", reason)]
    }
  }
}

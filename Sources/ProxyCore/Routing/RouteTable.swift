/// Asks the sources in order where a user goes. One for each loop; a source may hold a connection of its own.

internal import Protocols

package final class RouteTable {
  private let sources: [Source]
  private let backends: BackendBook

  private enum Source {
    case sqlite(SQLiteRoutes)
    case regex(RegexRoutes)
    case fixed(backend: String)

    func answer(_ query: RouteQuery) -> SourceAnswer {
      switch self {
      case .sqlite(let routes): routes.answer(query)
      case .regex(let routes): routes.answer(query)
      case .fixed(let backend): .found(backend: backend, loginAs: nil)
      }
    }

    var name: String {
      switch self {
      case .sqlite(let routes): "sqlite \(routes.file)"
      case .regex(let routes): "regex \(routes.file)"
      case .fixed: "default"
      }
    }
  }

  /// The sources of a plan, opened when they are first asked.
  package init(_ plan: RoutePlan) {
    backends = plan.backends
    sources = plan.steps.map { step in
      switch step {
      case .sqlite(let file, let query): .sqlite(SQLiteRoutes(file: file, query: query))
      case .regex(let rules): .regex(RegexRoutes(rules))
      case .fixed(let backend): .fixed(backend: backend)
      }
    }
  }

  /// The first source that knows the user wins; the first that fails ends the search.
  package func find(_ query: RouteQuery) -> RouteOutcome {
    for source in sources {
      switch source.answer(query) {
      case .found(let backend, let loginAs):
        guard let target = backends.backend(backend, query.mailProtocol) else {
          return .failed(source: source.name, reason: "\"\(backend)\" is neither a backend's name nor host[:port]")
        }
        return .found(Route(backend: target, loginAs: loginAs, source: source.name))
      case .disabled: return .disabled(source: source.name)
      case .notFound: continue
      case .busy: return .busy
      case .failed(let reason): return .failed(source: source.name, reason: reason)
      }
    }
    return .unknownUser
  }

  /// The configured server at that place, to which a referral may lead.
  func backend(
    at place: HostPort, _ mailProtocol: MailProtocol, resolves: (String, SocketAddress) -> Bool
  ) -> Backend? {
    backends.backend(at: place, mailProtocol, resolves: resolves)
  }
}

/// The sources, opened once to see that they can be used; every loop makes its own table of it.
package struct RoutePlan: Sendable {
  fileprivate let steps: [Step]
  fileprivate let backends: BackendBook
  /// What is allowed and yet likely a mistake.
  package let warnings: [SettingsError]

  fileprivate enum Step: Sendable {
    case sqlite(file: String, query: String?)
    case regex(RegexRules)
    case fixed(backend: String)
  }

  private init(steps: [Step], backends: BackendBook, warnings: [SettingsError]) {
    self.steps = steps
    self.backends = backends
    self.warnings = warnings
  }

  /// The same routes to backends that are spoken to with other certificates.
  func with(_ backends: BackendBook) -> RoutePlan { RoutePlan(steps: steps, backends: backends, warnings: warnings) }

  /// Opens every source; all that is wrong is told together.
  package init(_ settings: Settings) throws(SettingsErrors) {
    var steps: [Step] = []
    var warnings: [SettingsError] = []
    var errors: [SettingsError] = []
    for (index, source) in settings.routes.enumerated() {
      switch source {
      case .sqlite(let file, let query):
        let key = "routes[\(index)].sqlite"
        let answer = SQLiteRoutes(file: file, query: query).check()
        if let problem = answer.problem { errors.append(SettingsError(key: key, problem: "\(file): \(problem)")) }
        if let warning = answer.warning { warnings.append(SettingsError(key: key, problem: "\(file): \(warning)")) }
        steps.append(.sqlite(file: file, query: query))
      case .regex(let file, let isPerditions):
        do {
          let key = "routes[\(index)].regex"
          let rules = try RegexRules(file: file, key: key, perditionCompatible: isPerditions)
          warnings += rules.warnings
          steps.append(.regex(rules))
        } catch {
          errors += error.errors
        }
      case .fixed(let backend):
        if settings.backends[backend] == nil {
          errors.append(SettingsError(key: "routes[\(index)].default", problem: "no backend is named \"\(backend)\""))
        }
        steps.append(.fixed(backend: backend))
      }
    }
    var book: BackendBook?
    do throws(SettingsErrors) { book = try BackendBook(settings) } catch { errors += error.errors }
    guard errors.isEmpty, let book else { throw SettingsErrors(errors) }
    self.steps = steps
    self.warnings = warnings + book.warnings
    backends = book
  }
}

/// All that is wrong, so that the operator can mend it in one go.
package struct SettingsErrors: Error, Equatable, Sendable {
  /// At least one.
  package let errors: [SettingsError]

  /// A list as an error.
  package init(_ errors: [SettingsError]) { self.errors = errors }
}

/// The sources of users' backends as a loop has them: one table for each loop; a source may hold a connection of its own.

internal import Protocols

package final class RouteTable {
  let sources: [RouteSource]
  /// Who checks passwords against a hash; nil if no source answers one.
  let crypt: SourcePool?
  /// Who checks all passwords besides; nil for nobody.
  let pam: SourcePool?
  private let backends: BackendBook
  /// The pools, with the tags of their members.
  private let pools: [String: Set<String>]
  /// Whether a source is told who the client is: asking the system costs a microsecond or two.
  let needsFacts: Bool

  /// The sources of a plan, opened when they are first asked.
  package init(_ plan: RoutePlan) {
    backends = plan.backends
    pools = plan.pools
    crypt = plan.crypt
    pam = plan.pam
    sources = plan.steps.map { RouteSource($0) }
    needsFacts = pam != nil || sources.contains { $0.needsFacts || $0.settings.keys.contains(where: \.needsFacts) }
  }

  /// A search of all sources. A source off the loops is waited for without its help: see `RouteSearch`.
  package func search(_ request: RouteRequest, number: Int = 0) -> RouteSearch {
    RouteSearch(self, request, number: number)
  }

  /// What a source's answer means; nil if it is neither a pool's name nor a backend's nor `host[:port]`.
  func target(_ answer: String, _ mailProtocol: MailProtocol) -> RouteTarget? {
    let parts = answer.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
    if let tags = pools[parts[0]] {
      guard parts.count == 2 else { return .pool(parts[0], tag: nil) }
      return tags.contains(parts[1]) ? .pool(parts[0], tag: parts[1]) : nil
    }
    return backend(answer, mailProtocol).map { .backend($0) }
  }

  /// The server of that name, or at that place; nil if it is neither.
  func backend(_ answer: String, _ mailProtocol: MailProtocol) -> Backend? { backends.backend(answer, mailProtocol) }

  /// The configured server at that place, to which a referral may lead.
  func backend(
    at place: HostPort, _ mailProtocol: MailProtocol, resolves: (String, SocketAddress) -> Bool
  ) -> Backend? {
    backends.backend(at: place, mailProtocol, resolves: resolves)
  }
}

/// One source of a loop's table.
final class RouteSource {
  let settings: RouteSettings
  private let kind: Kind
  /// Whose turn it is of several backends. Each loop begins elsewhere.
  private var turn = Int.random(in: 0..<1_000)

  private enum Kind {
    case sqlite(SQLiteRoutes)
    case regex(RegexRoutes)
    case fixed([String])
    case clientNamed([ServerPattern])
    case pool(SourcePool)
  }

  fileprivate init(_ step: RoutePlan.Step) {
    settings = step.settings
    switch step.opened {
    case .sqlite(let file, let query, let hasHash):
      kind = .sqlite(SQLiteRoutes(file: file, query: query, hasHash: hasHash))
    case .regex(let rules): kind = .regex(RegexRoutes(rules))
    case .fixed(let backends): kind = .fixed(backends)
    case .clientNamed(let servers): kind = .clientNamed(servers)
    case .pool(let pool): kind = .pool(pool)
    }
  }

  /// As the log and `proxyd route` name it.
  var name: String {
    switch kind {
    case .sqlite(let routes): "sqlite \(routes.file)"
    case .regex(let routes): "regex \(routes.file)"
    case .fixed: "default"
    case .clientNamed: "client-named"
    case .pool(let pool): pool.name
    }
  }

  /// Whether it answers off the loops.
  var waits: Bool {
    switch kind {
    case .pool: true
    case .sqlite, .regex, .fixed, .clientNamed: false
    }
  }

  /// Whether it has to be given the client's credentials.
  var isPersonal: Bool {
    switch kind {
    case .pool(let pool): pool.isPersonal
    case .sqlite, .regex, .fixed, .clientNamed: false
    }
  }

  /// Whether it tells somebody who the client is.
  var needsFacts: Bool {
    switch kind {
    case .pool(let pool): pool.needsFacts
    case .sqlite, .regex, .fixed, .clientNamed: false
    }
  }

  /// What it says now, or nil: then `later` is called once, on some thread.
  func ask(
    _ query: RouteQuery, _ request: RouteRequest, _ credential: SourceRequest.Credential,
    later: @escaping @Sendable (SourceAnswer) -> Void
  ) -> SourceAnswer? {
    switch kind {
    case .sqlite(let routes): return routes.answer(query)
    case .regex(let routes): return routes.answer(query)
    case .fixed(let backends):
      turn &+= 1
      return .found(Destination(backends[(turn & Int.max) % backends.count]))
    case .clientNamed(let servers): return RouteSource.named(servers, request)
    case .pool(let pool):
      return pool.ask(
        SourceRequest(query: query, user: request.lookupName, facts: request.facts, credential: credential),
        later: later)
    }
  }

  /// The server a client named, `user@server[:port]`, if the operator allows it.
  private static func named(_ servers: [ServerPattern], _ request: RouteRequest) -> SourceAnswer {
    guard let (user, domain) = request.rules.split(request.user), !user.isEmpty,
      let server = HostPort(String(decoding: domain.map(\.lowercased), as: UTF8.self)),
      servers.contains(where: { $0.allows(server) })
    else { return .notFound }
    let port = server.port.map { ":\($0)" } ?? ""
    var destination = Destination("")
    destination.backend = "\(server.host)\(port)"
    destination.loginAs = Array(user)
    return .found(destination)
  }
}

/// The sources, opened once to see that they can be used; every loop makes its own table of it.
package struct RoutePlan: Sendable {
  fileprivate let steps: [Step]
  fileprivate let crypt: SourcePool?
  fileprivate let pam: SourcePool?
  let backends: BackendBook
  fileprivate let pools: [String: Set<String>]
  /// What is allowed and yet likely a mistake.
  package let warnings: [SettingsError]

  fileprivate struct Step: Sendable {
    let settings: RouteSettings
    let opened: Opened
  }

  fileprivate enum Opened: Sendable {
    case sqlite(file: String, query: String?, hasHash: Bool)
    case regex(RegexRules)
    case fixed([String])
    case clientNamed([ServerPattern])
    case pool(SourcePool)
  }

  private init(_ other: RoutePlan, _ backends: BackendBook) {
    steps = other.steps
    crypt = other.crypt
    pam = other.pam
    warnings = other.warnings
    pools = other.pools
    self.backends = backends
  }

  /// The same routes to backends that are spoken to with other certificates.
  func with(_ backends: BackendBook) -> RoutePlan { RoutePlan(self, backends) }

  /// Opens every source; all that is wrong is told together. A server is not connected to yet: one that is away must not
  /// keep the proxy from starting.
  package init(_ settings: Settings) throws(SettingsErrors) { try self.init(settings, plans: SourcePlans.plan) }

  /// With sources of a test's own.
  init(
    _ settings: Settings, plans: (RouteSettings, String) throws(SettingsErrors) -> SourcePlan?
  ) throws(SettingsErrors) {
    var steps: [Step] = []
    var warnings: [SettingsError] = []
    var errors: [SettingsError] = []
    for (index, route) in settings.routes.enumerated() {
      do throws(SettingsErrors) {
        let opened = try RoutePlan.open(route, key: "routes[\(index)]", settings, plans, &warnings)
        steps.append(Step(settings: route, opened: opened))
      } catch {
        errors += error.errors
      }
    }
    var book: BackendBook?
    do throws(SettingsErrors) { book = try BackendBook(settings) } catch { errors += error.errors }
    var pam: SourcePool?
    do throws(SettingsErrors) {
      pam = try settings.passwordCheck.map { check throws(SettingsErrors) in
        SourcePool(try PasswordChecks.pam(check), timeout: check.timeout)
      }
    } catch { errors += error.errors }
    guard errors.isEmpty, let book else { throw SettingsErrors(errors) }
    self.steps = steps
    self.pam = pam
    let checks = settings.routes.filter { $0.check == .crypt }
    crypt = checks.map(\.timeout).max().map { PasswordChecks.crypt(timeout: $0) }
    self.warnings = warnings + book.warnings
    backends = book
    pools = settings.pools.mapValues { Set($0.members.map(\.tag)) }
  }

  private static func open(
    _ route: RouteSettings, key: String, _ settings: Settings,
    _ plans: (RouteSettings, String) throws(SettingsErrors) -> SourcePlan?, _ warnings: inout [SettingsError]
  ) throws(SettingsErrors) -> Opened {
    switch route.source {
    case .sqlite(let file, let query):
      let hasHash = route.check == .crypt
      let answer = SQLiteRoutes(file: file, query: query, hasHash: hasHash).check()
      let key = "\(key).sqlite"
      if let warning = answer.warning { warnings.append(SettingsError(key: key, problem: "\(file): \(warning)")) }
      if let problem = answer.problem {
        throw SettingsErrors([SettingsError(key: key, problem: "\(file): \(problem)")])
      }
      return .sqlite(file: file, query: query, hasHash: hasHash)
    case .regex(let file, let isPerditions):
      let rules = try RegexRules(file: file, key: "\(key).regex", perditionCompatible: isPerditions)
      warnings += rules.warnings
      return .regex(rules)
    case .fixed(let backends):
      let unknown = backends.filter { name in
        let parts = name.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
        if let pool = settings.pools[parts[0]] {
          return parts.count == 2 && !pool.members.contains { $0.tag == parts[1] }
        }
        return settings.backends[name] == nil
      }
      guard unknown.isEmpty else {
        throw SettingsErrors(
          unknown.map { SettingsError(key: "\(key).default", problem: "no backend or pool is named \"\($0)\"") })
      }
      return .fixed(backends)
    case .clientNamed(let servers): return .clientNamed(servers)
    case .postgresql, .mysql, .ldap, .http, .redis, .cdb, .lmdb:
      guard let plan = try plans(route, key) else { preconditionFailure("a source without a plan") }
      return .pool(SourcePool(plan, timeout: route.timeout, cache: route.cache))
    }
  }
}

/// All that is wrong, so that the operator can mend it in one go.
package struct SettingsErrors: Error, Equatable, Sendable {
  /// At least one.
  package let errors: [SettingsError]

  /// A list as an error.
  package init(_ errors: [SettingsError]) { self.errors = errors }
}

/// Makes the plans of the sources this program was built with; all others are refused by name.

internal import Protocols

enum SourcePlans {
  /// The plan of a source off the loops, with its files read; nil for a source on the loops. `key` is where the
  /// configuration has it.
  static func plan(_ route: RouteSettings, _ key: String) throws(SettingsErrors) -> SourcePlan? {
    switch route.source {
    case .sqlite, .regex, .fixed, .clientNamed: return nil
    case .postgresql(let settings):
      #if PostgreSQL
        return try SQLPlans.plan(settings, route, key: "\(key).postgresql")
      #else
        throw missing("PostgreSQL", "\(key).postgresql")
      #endif
    case .mysql(let settings):
      #if MySQL
        return try SQLPlans.plan(settings, route, key: "\(key).mysql")
      #else
        throw missing("MySQL", "\(key).mysql")
      #endif
    case .ldap(let settings):
      #if LDAP
        return try LDAPConnection.plan(route, settings, key: "\(key).ldap")
      #else
        throw missing("LDAP", "\(key).ldap")
      #endif
    case .http(let settings): return try http(settings, key: "\(key).http")
    case .redis(let settings):
      #if Redis
        return try RedisConnection.plan(settings, key: "\(key).redis")
      #else
        throw missing("Redis", "\(key).redis")
      #endif
    case .cdb(let file): return try MapFile.plan(.cdb, file, key: "\(key).cdb")
    case .lmdb(let file): return try MapFile.plan(.lmdb, file, key: "\(key).lmdb")
    }
  }

  private static func http(_ settings: HTTPSettings, key: String) throws(SettingsErrors) -> SourcePlan {
    let plan = try HTTPPlan(settings, key: key)
    #if HTTP
      return SourcePlan(
        name: plan.name, connections: settings.connections, isPersonal: plan.sendsPassword, needsFacts: true
      ) {
        HTTPConnection(plan)
      }
    #else
      throw missing("HTTP", key)
    #endif
  }

  private static func missing(_ trait: String, _ key: String) -> SettingsErrors {
    let problem = "this proxyd was built without it: swift build --traits \(trait)"
    return SettingsErrors([SettingsError(key: key, problem: problem)])
  }
}

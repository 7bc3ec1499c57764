/// Makes the plans of the databases that are asked in SQL: everything that can be seen without them is checked here.

#if PostgreSQL || MySQL
  internal import Protocols

  enum SQLPlans {
    #if PostgreSQL
      /// `key` is where the configuration has it.
      static func plan(_ settings: PostgreSQLSettings, _ route: RouteSettings, key: String) throws(SettingsErrors)
        -> SourcePlan
      {
        let query = try query(settings.query, .postgresql, key)
        let password = try password(settings.passwordFile, key)
        let server: PostgreSQLServer
        do throws(PostgreSQLServer.Failure) {
          server = try PostgreSQLServer(settings.connection, password: password, timeout: route.timeout)
        } catch {
          throw SettingsErrors([SettingsError(key: "\(key).connection", problem: error.problem)])
        }
        let hasHash = route.check == .crypt
        return SourcePlan(name: "postgresql \(settings.connection)", connections: settings.connections) {
          SQLConnection(query, hasHash: hasHash) { deadline throws(SQLFailure) in
            try PostgreSQLSession(server, query, until: deadline)
          }
        }
      }
    #endif

    #if MySQL
      /// `key` is where the configuration has it.
      static func plan(_ settings: MySQLSettings, _ route: RouteSettings, key: String) throws(SettingsErrors)
        -> SourcePlan
      {
        let query = try query(settings.query, .mysql, key)
        let server = MySQLServer(
          settings, password: try password(settings.passwordFile, key), timeout: route.timeout)
        if case .verified(let authority?) = settings.tls, case .failure(let error) = TextFile.read(authority) {
          let problem = "\(authority): it can't be read: \(error)"
          throw SettingsErrors([SettingsError(key: "\(key).ca", problem: problem)])
        }
        let hasHash = route.check == .crypt
        return SourcePlan(name: server.name, connections: settings.connections) {
          let thread = MySQLThread()
          return SQLConnection(query, hasHash: hasHash) { deadline throws(SQLFailure) in
            guard thread.isReady else { throw .unreachable("libmariadb can't be started") }
            return try MySQLSession.connect(server, query, until: deadline)
          }
        }
      }
    #endif

    private static func query(_ text: String, _ dialect: SQLQuery.Dialect, _ key: String) throws(SettingsErrors)
      -> SQLQuery
    {
      do throws(SQLQuery.Failure) {
        return try SQLQuery(text, dialect)
      } catch {
        throw SettingsErrors([SettingsError(key: "\(key).query", problem: error.problem)])
      }
    }

    /// The first line of a password file; nil without a file.
    private static func password(_ file: String?, _ key: String) throws(SettingsErrors) -> SharedSecret? {
      guard let file else { return nil }
      let problem: String
      switch TextFile.read(file) {
      case .failure(let error): problem = "\(file): it can't be read: \(error)"
      case .success(let text):
        let line = TextFile.lines(text).first ?? ""
        if !line.isEmpty, !line.utf8.contains(0) { return SharedSecret(Array(line.utf8).span) }
        problem = "\(file): its first line is \(line.isEmpty ? "empty" : "no text"), expected a password"
      }
      throw SettingsErrors([SettingsError(key: "\(key).password-file", problem: problem)])
    }
  }
#endif

/// Looks users up in a Redis server: a key's string, or fields of its hash.

#if Redis

  internal import Protocols

  final class RedisConnection: SourceConnection {
    private let plan: Plan
    private var session: RedisSession?

    /// What is asked where, with all files read.
    struct Plan: Sendable {
      let settings: RedisSettings
      let key: NameTemplate
      let password: SharedSecret?
    }

    init(_ plan: Plan) { self.plan = plan }

    func answer(_ request: SourceRequest, until deadline: UInt64) -> SourceReply {
      let patience = Patience(until: deadline)
      let question = question(request.query)
      if let open = session {
        switch open.ask(question, patience) {
        case .success(let reply): return .answer(answer(reply))
        case .failure(.late):
          session = nil
          return .answer(.failed(RedisFailure.late.words))
        // It was idle, and is gone: once more, on a new one.
        case .failure(.broken), .failure(.rejected): session = nil
        }
      }
      switch connect(patience) {
      case .failure(let failure): return .unreachable(failure.words)
      case .success(let fresh):
        switch fresh.ask(question, patience) {
        case .failure(let failure): return .answer(.failed(failure.words))
        case .success(let reply):
          session = fresh
          return .answer(answer(reply))
        }
      }
    }

    private func question(_ query: RouteQuery) -> [[UInt8]] {
      let values = NameTemplate.Values(
        name: query.login, user: Array(query.local), domain: query.domain.map { Array($0) } ?? [],
        mailProtocol: query.mailProtocol)
      let key = plan.key.expand(values, .none)
      guard let field = plan.settings.backendField else { return [Array("GET".utf8), key] }
      let fields = [field] + (plan.settings.loginField.map { [$0] } ?? [])
      return [Array("HMGET".utf8), key] + fields.map { Array($0.utf8) }
    }

    /// What a reply means. A key that is another kind of thing, a server that is still loading, or wants a password: none of
    /// these is "not found".
    private func answer(_ reply: RedisReply) -> SourceAnswer {
      switch reply {
      case .bytes(let text): return SourceAnswer(String(decoding: text, as: UTF8.self))
      case .none: return .notFound
      case .error(let words): return .failed(words)
      case .other: return .failed("its reply is no text")
      case .list(let fields):
        switch (fields.first ?? RedisReply.none, fields.dropFirst().first ?? RedisReply.none) {
        case (.bytes(let backend), .bytes(let login)):
          return SourceAnswer(String(decoding: backend, as: UTF8.self), loginAs: login.isEmpty ? nil : login)
        case (.bytes(let backend), .none): return SourceAnswer(String(decoding: backend, as: UTF8.self))
        case (.none, .none): return .notFound
        default: return .failed("the user's hash has no field \(plan.settings.backendField ?? "")")
        }
      }
    }

    private func connect(_ patience: Patience) -> Result<RedisSession, RedisFailure> {
      let fresh: RedisSession
      switch RedisSession.open(plan.settings.place, patience) {
      case .failure(let failure): return .failure(failure)
      case .success(let session): fresh = session
      }
      if let password = plan.password {
        var credentials = [Array("AUTH".utf8)] + (plan.settings.user.map { [Array($0.utf8)] } ?? [])
        credentials.append(password.withSpan { $0.array })
        let said = fresh.ask(credentials, patience)
        credentials[credentials.count - 1].wipe()
        // A server without AUTH repeats in its error what it was given: only the error's name may be told.
        if let failure = refusal(said, { "AUTH: \($0.prefix { $0 != " " })" }) { return .failure(failure) }
      }
      if plan.settings.database != 0 {
        let said = fresh.ask([Array("SELECT".utf8), Array("\(plan.settings.database)".utf8)], patience)
        if let failure = refusal(said, { "SELECT: \($0)" }) { return .failure(failure) }
      }
      return .success(fresh)
    }

    private func refusal(_ said: Result<RedisReply, RedisFailure>, _ words: (String) -> String) -> RedisFailure? {
      switch said {
      case .failure(let failure): failure
      case .success(.error(let error)): .rejected(words(error))
      case .success(.bytes), .success(RedisReply.none), .success(.list), .success(.other): nil
      }
    }
  }

  extension RedisConnection {
    /// The plan of a server, with its files read.
    static func plan(_ settings: RedisSettings, key: String) throws(SettingsErrors) -> SourcePlan {
      guard let template = NameTemplate(settings.key) else {
        throw SettingsErrors([
          SettingsError(
            key: "\(key).key", problem: "\"\(settings.key)\" has another escape than %u, %n, %d, %s or %%")
        ])
      }
      var password: SharedSecret?
      if let file = settings.passwordFile { password = try SecretFile.read(file, key: "\(key).password-file") }
      let plan = Plan(settings: settings, key: template, password: password)
      let place =
        switch settings.place {
        case .host(let server): "\(server.host):\(server.port ?? RedisSettings.port)"
        case .socket(let path): path
        }
      return SourcePlan(name: "redis \(place)", connections: settings.connections) { RedisConnection(plan) }
    }
  }

#endif

/// Looks users up in a directory, and checks their passwords by logging in there as them.

#if LDAP

  internal import Protocols

  final class LDAPConnection: SourceConnection {
    private let plan: Plan
    /// The one that searches, logged in as the operator wants it.
    private var searching: LDAPSession?
    /// The one that is logged in to as users: each login replaces the one before (RFC 4513 §4).
    private var checking: LDAPSession?
    /// The server that is tried first: after one that did not answer, the next.
    private var first = 0

    /// What is asked of which servers, with all files read.
    struct Plan: Sendable {
      let settings: LDAPSettings
      let base: NameTemplate
      let filter: NameTemplate
      let password: SharedSecret?
      /// Whether clients' passwords are checked.
      let checks: Bool
    }

    init(_ plan: Plan) { self.plan = plan }

    func answer(_ request: SourceRequest, until deadline: UInt64) -> SourceReply {
      let patience = Patience(until: deadline)
      if plan.checks, case .password(let password) = request.credential, password.withSpan({ $0.isEmpty }) {
        // RFC 4513 §5.1.2: a login without a password is nobody's, and succeeds.
        return .answer(.refused(SourceAnswer.Refusal()))
      }
      let entry: LDAPEntry
      switch search(request.query, patience) {
      case .failure(let trouble): return trouble.reply
      case .success(let result):
        switch plan.settings.entry(result, isNamed: plan.base.hasParts) {
        case .failure(let verdict): return .answer(verdict.answer)
        case .success(let found): entry = found
        }
      }
      let answer = plan.settings.answer(entry)
      guard plan.checks, case .found(var destination) = answer else { return .answer(answer) }
      switch request.credential {
      case .proven: return .answer(.found(destination))
      case .none, .hashed: preconditionFailure("a check without a password")
      case .password(let password):
        switch check(entry.name, password, patience) {
        case .failure(let trouble): return trouble.reply
        case .success(let refusal?): return .answer(refusal)
        case .success(nil):
          destination.isChecked = true
          return .answer(.found(destination))
        }
      }
    }

    // MARK: Asking

    private func search(_ query: RouteQuery, _ patience: Patience) -> Result<LDAPResult, Trouble> {
      let values = NameTemplate.Values(
        name: query.login, user: Array(query.local), domain: query.domain.map { Array($0) } ?? [],
        mailProtocol: query.mailProtocol)
      let base = String(decoding: plan.base.expand(values, .distinguishedName), as: UTF8.self)
      let filter = String(decoding: plan.filter.expand(values, .filter), as: UTF8.self)
      return attempt(\.searching, patience, logIn: logIn) { session, patience in
        session.search(base: base, filter: filter, plan.settings, patience)
      }
    }

    /// What follows from a login as the entry: nil if the password is right.
    private func check(_ name: String, _ password: SharedSecret, _ patience: Patience) -> Result<SourceAnswer?, Trouble>
    {
      // A login without a name is nobody's too (RFC 4513 §5.1.1).
      guard !name.isEmpty else { return .success(.failed("the entry has no name to log in with")) }
      let result = attempt(\.checking, patience, logIn: { _, _ in nil }) { session, patience in
        password.withSpan { session.bind(name, $0, patience) }
      }
      return result.map { result in
        switch result.code {
        case LDAPResult.Code.success: nil
        case LDAPResult.Code.invalidCredentials: .refused(SourceAnswer.Refusal())
        default: .failed("login as the user: \(result.words)")
        }
      }
    }

    /// Logs in as the operator wants it; nil if that went well.
    private func logIn(_ session: LDAPSession, _ patience: Patience) -> LDAPFailure? {
      guard let name = plan.settings.bindDN, let password = plan.password else { return nil }
      switch password.withSpan({ session.bind(name, $0, patience) }) {
      case .failure(let failure): return failure
      case .success(let result):
        return result.code == LDAPResult.Code.success ? nil : .rejected("login as \(name): \(result.words)")
      }
    }

    // MARK: Servers

    /// Why no server answered.
    private enum Trouble: Error {
      case unreachable(String)
      case silent(String)

      var reply: SourceReply {
        switch self {
        case .unreachable(let words): .unreachable(words)
        case .silent(let words): .answer(.failed(words))
        }
      }
    }

    /// Asks on the session that is open, else on one to the first server that can be reached and answers; several of them
    /// share the time. A session that was idle and proves broken is replaced without anybody noticing.
    private func attempt<Value>(
      _ slot: ReferenceWritableKeyPath<LDAPConnection, LDAPSession?>, _ patience: Patience,
      logIn: (LDAPSession, Patience) -> LDAPFailure?,
      _ ask: (LDAPSession, Patience) -> Result<Value, LDAPFailure>
    ) -> Result<Value, Trouble> {
      let urls = plan.settings.urls
      var troubles: [String] = []
      var wasReached = false
      if let session = self[keyPath: slot] {
        switch ask(session, urls.count > 1 ? patience.share(of: 2) : patience) {
        case .success(let value): return .success(value)
        case .failure(let failure):
          self[keyPath: slot] = nil
          if failure == .late {
            wasReached = true
            troubles.append("\(session.url): \(failure.words)")
            first = ((urls.firstIndex(of: session.url) ?? first) + 1) % urls.count
          } else {
            first = 0
          }
        }
      }
      let start = first
      for step in urls.indices {
        if step > 0 || !troubles.isEmpty, patience.isOver { break }
        let index = (start + step) % urls.count
        let share = patience.share(of: urls.count - step)
        switch LDAPSession.open(urls[index], plan.settings, share) {
        case .failure(let failure): troubles.append("\(urls[index]): \(failure.words)")
        case .success(let session):
          if let failure = logIn(session, share) {
            troubles.append("\(urls[index]): \(failure.words)")
            continue
          }
          switch ask(session, share) {
          case .success(let value):
            self[keyPath: slot] = session
            return .success(value)
          case .failure(let failure):
            wasReached = true
            troubles.append("\(urls[index]): \(failure.words)")
            if failure == .late { first = (index + 1) % urls.count }
          }
        }
      }
      let words = troubles.joined(separator: "; ")
      return .failure(wasReached ? .silent(words) : .unreachable(words))
    }
  }

  extension LDAPConnection {
    /// The plan of a directory, with its files read and all that the operator wrote looked at.
    static func plan(_ route: RouteSettings, _ settings: LDAPSettings, key: String) throws(SettingsErrors) -> SourcePlan
    {
      var errors: [SettingsError] = []
      func wrong(_ name: String, _ problem: String) {
        errors.append(SettingsError(key: "\(key).\(name)", problem: problem))
      }
      var password: SharedSecret?
      if let file = settings.passwordFile {
        do throws(SettingsErrors) { password = try SecretFile.read(file, key: "\(key).password-file") } catch {
          errors += error.errors
        }
      }
      if case .verified(let authority?) = settings.tls, case .failure(let error) = TextFile.read(authority) {
        wrong("ca", "\(authority): it can't be read: \(error)")
      }
      if let name = settings.bindDN, !LDAPSession.isName(name) {
        wrong("bind-dn", "\"\(name)\" is no distinguished name")
      }
      let sample = NameTemplate.Values(
        name: Array("user@example.org".utf8), user: Array("user".utf8), domain: Array("example.org".utf8),
        mailProtocol: .imap)
      let base = NameTemplate(settings.base)
      let filter = NameTemplate(settings.filter)
      if let base {
        let text = String(decoding: base.expand(sample, .distinguishedName), as: UTF8.self)
        if !LDAPSession.isName(text) { wrong("base", "\"\(text)\" is no distinguished name") }
      } else {
        wrong("base", "\"\(settings.base)\" has another escape than %u, %n, %d, %s or %%")
      }
      if let filter {
        let text = String(decoding: filter.expand(sample, .filter), as: UTF8.self)
        if !LDAPSession.isFilter(text) { wrong("filter", "\"\(text)\" is no filter, expected one as (uid=%u)") }
      } else {
        wrong("filter", "\"\(settings.filter)\" has another escape than %u, %n, %d, %s or %%")
      }
      guard errors.isEmpty, let base, let filter else { throw SettingsErrors(errors) }
      let plan = Plan(
        settings: settings, base: base, filter: filter, password: password, checks: route.check == .bind)
      return SourcePlan(
        name: "ldap \(settings.urls.joined(separator: " "))", connections: settings.connections, isPersonal: plan.checks
      ) { LDAPConnection(plan) }
    }
  }

#endif

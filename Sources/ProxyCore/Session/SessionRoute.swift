/// From a login's credentials to its route: what can't be right is refused, sources are asked, names are rewritten.

internal import Logging
internal import Protocols

extension Session {
  /// Looks at the credentials, and begins to look for their backend.
  func authenticate(_ login: PreLogin, on loop: isolated EventLoop) -> Next {
    adoptFacts(login)
    login.referrals = 0
    login.draft.partMaster(loop.plan.settings.masterSeparator)
    record.method = login.draft.method
    record.login = login.draft.user
    record.authenticator = login.draft.authorizationIdentity.isEmpty ? [] : login.draft.name
    record.attempts += 1
    meterQuestion(login, on: loop)
    traceQuestion(login, on: loop)
    record.backend = nil
    record.backendAddress = nil
    record.backendTLS = nil
    record.trail?.begin()
    guard hopsLeft(login) != nil else {
      return refuse(login, .misconfigured, LoginFailure(.loop, "it passed too many proxies"), on: loop)
    }
    if login.draft.method == .sasl(.external), let failure = takeCertificateName(login) {
      return refuseLater(login, failure, on: loop)
    }
    if let fault = login.draft.fault() { return refuseLater(login, LoginFailure(draft: fault), on: loop) }
    return search(login, until: loop.now + loop.plan.settings.timeouts.lookup, on: loop)
  }

  /// RFC 4422, appendix A: the certificate says who it is, and another can't be asked for.
  private func takeCertificateName(_ login: PreLogin) -> LoginFailure? {
    guard let name = client.peerName(record.listener.certificateName), !name.isEmpty else {
      return LoginFailure(.certificateName, "the certificate names no user")
    }
    let wanted = login.draft.authorizationIdentity
    guard wanted.isEmpty || wanted == name else {
      return LoginFailure(.certificateName, "another user than the certificate's was asked for")
    }
    login.draft.name = name
    login.draft.authorizationIdentity = []
    record.login = name
    return nil
  }

  /// Begins to look for the backend, once all that the question needs is known.
  func search(_ login: PreLogin, until: UInt64, on loop: isolated EventLoop) -> Next {
    let rules = loop.plan.settings.names
    if rules.needsAddressName, login.addressName == nil {
      guard let address = destination(login) else {
        return refuse(login, .unavailable, LoginFailure(.lookupFailed, "the local address is not known"), on: loop)
      }
      let token = token
      let known = loop.house.addressNames.name(of: address, now: loop.now) { [loop] in loop.post { $0.wake(token) } }
      switch known {
      case nil:
        if loop.now < until { return .rest(.waiting(login, .addressName(until: until))) }
        let reason = "the local address's name: the resolver did not answer in time"
        return refuse(login, .unavailable, LoginFailure(.lookupFailed, reason), on: loop)
      case .failed(let reason): return refuse(login, .unavailable, LoginFailure(.lookupFailed, reason), on: loop)
      case .name(let name): login.addressName = name
      }
    }
    record.login = rules.name(login.draft.user, for: .log, addressName: login.addressName)
    let request = RouteRequest(
      user: login.draft.user, authenticator: login.draft.name, mailProtocol: record.listener.mailProtocol, rules: rules,
      facts: loginFacts(login, loop.routes),
      addressName: login.addressName)
    return find(login, loop.routes.search(request, number: loop.nextSearch()), on: loop)
  }

  /// Goes on with the search for the backend.
  func find(_ login: PreLogin, _ begun: RouteSearch, on loop: isolated EventLoop) -> Next {
    var search = begun
    let token = token
    let number = search.number
    let step = search.advance(
      now: loop.now, lookup: loop.plan.settings.timeouts.lookup, password: login.draft.password.span
    ) { [loop] turn, answer in loop.post { $0.answered(token, number, turn: turn, answer) } }
    for passed in search.takePassedOver() { tell(passed, on: loop) }
    switch step {
    case .waiting(let until): return .rest(.waiting(login, .source(search, until: until)))
    case .again(let time): return .rest(.waiting(login, .pause(search, until: time)))
    case .done(let outcome):
      meterPart(.lookup, login, on: loop)
      traceAnswer(outcome)
      return follow(login, outcome, on: loop)
    }
  }

  private func follow(_ login: PreLogin, _ outcome: RouteOutcome, on loop: isolated EventLoop) -> Next {
    switch outcome {
    case .found(let route):
      if let refused = apply(route, login, on: loop) { return refused }
      return place(login, route, on: loop)
    case .disabled: return refuseLater(login, LoginFailure(.disabled), .disabled, on: loop)
    case .unknownUser: return refuseLater(login, LoginFailure(.unknownUser), on: loop)
    case .refused(let source, let refusal):
      let code = Array("\(record.listener.mailProtocol.wrongCredentialsCode)".utf8)
      let words: LoginRefusal =
        refusal.words.map { .backend(BackendAnswer(code: code, text: $0)) } ?? .credentials
      return refuseLater(
        login, LoginFailure(.wrongPassword, source), words, after: refusal.delay, on: loop)
    case .uncheckable(let source):
      return refuse(login, .mechanism, LoginFailure(.uncheckable, source), on: loop)
    case .busy: return refuse(login, .unavailable, LoginFailure(.lookupBusy), on: loop)
    case .failed(let source, let reason):
      return refuse(login, .unavailable, LoginFailure(.lookupFailed, "\(source): \(reason)"), on: loop)
    }
  }

  /// A source was passed over because it could not be asked: for the operator, who wanted it so.
  private func tell(_ passed: RouteSearch.PassedOver, on loop: isolated EventLoop) {
    loop.house.log.line(.warning, "source-failed") { line in
      record.addIdentity(to: &line)
      line.add("login", record.login)
      line.add("source", passed.source)
      line.add("detail", passed.reason)
    }
  }

  /// Makes the client's name and password those for the backend. Returns a refusal if there is no way to.
  private func apply(_ route: Route, _ login: PreLogin, on loop: isolated EventLoop) -> Next? {
    let name = loop.plan.settings.names.name(
      route.loginAs ?? login.draft.user, for: .backend, addressName: login.addressName)
    if name != login.draft.user {
      switch login.draft.method {
      // The client signed its name together with all else it says: nobody can put another in its place.
      case .sasl(let mechanism) where mechanism.bindsName:
        return refuse(login, .mechanism, LoginFailure(.nameRewritten, mechanism.rawValue), on: loop)
      case .command, .sasl: login.draft.renameUser(name)
      }
    }
    if let password = route.password { password.withSpan { login.draft.replacePassword($0) } }
    // A map's name goes to a line-based protocol as a client's does.
    if let fault = login.draft.fault() {
      let reason = "\(route.source): the user's name at the backend can't be one: \(fault.rawValue)"
      return refuse(login, .unavailable, LoginFailure(.lookupFailed, reason), on: loop)
    }
    return nil
  }
}

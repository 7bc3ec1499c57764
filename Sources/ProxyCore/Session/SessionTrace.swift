/// Tells whoever looks at a user's logins how one goes.

internal import Protocols

extension Session {
  /// Whether anybody looks at this login.
  var isTraced: Bool { !record.traces.isEmpty }

  /// Tells who looks; `text` is made only for them. It must not hold a secret.
  func trace(_ kind: TraceEvent.Kind, _ text: @autoclosure () -> String) {
    guard isTraced else { return }
    let text = text()
    record.traces.tell(kind, TraceText.quote(Array(text.utf8).span), session: record.name)
  }

  /// The client has given its credentials: from here on it is known whose login it is.
  func traceQuestion(_ login: PreLogin, on loop: isolated EventLoop) {
    let traces = loop.house.traces
    guard traces.isOn else {
      if isTraced { record.traces = [] }
      return
    }
    let name = login.draft.user
    let logged = loop.plan.settings.names.name(name, for: .log, addressName: login.addressName)
    // RFC 4422, appendix A: the certificate says who it is.
    let certified = login.draft.method == .sasl(.external) ? client.peerName(record.listener.certificateName) : nil
    record.traces = traces.watching([name, logged] + (certified.map { [$0] } ?? []))
    guard isTraced else { return }
    let method = "\(record.listener.mailProtocol.rawValue) from \(record.client), \(login.draft.method.word)"
    let authenticator = login.draft.authorizationIdentity.isEmpty ? "" : ", authenticated as \(text(login.draft.name))"
    trace(.login, "\(method), \(client.tlsVersion ?? "no TLS"), user \(text(name))\(authenticator)")
  }

  /// The sources have answered.
  func traceAnswer(_ outcome: RouteOutcome) {
    trace(.lookup, words(outcome))
  }

  private func words(_ outcome: RouteOutcome) -> String {
    switch outcome {
    case .found(let route):
      let name = route.loginAs.map { ", as \(text($0))" } ?? ""
      let password = route.password == nil ? "" : ", with a password of its own"
      switch route.target {
      case .backend(let backend):
        return "\(route.source): \(backend.name) (\(backend.host):\(backend.port))\(name)\(password)"
      case .pool: return "\(route.source): the pool \(route.target.name)\(name)\(password)"
      }
    case .disabled(let source): return "\(source): nobody is let in under this name"
    case .unknownUser: return "no source knows the user"
    case .refused(let source, _): return "\(source) refuses the password"
    case .uncheckable(let source): return "\(source) has no password to check"
    case .busy: return "a map is locked by a writer"
    case .failed(let source, let reason): return "\(source): \(reason)"
    }
  }

  /// TLS with the backend is up.
  func traceTLS(_ backend: borrowing BackendLogin) {
    guard isTraced, let facts = backend.transport.tlsFacts else { return }
    trace(.tls, "\(facts.version), \(facts.cipher)\(facts.isResumed ? ", resumed" : "")")
  }

  /// The dialogue has read, and says that.
  func traceTurn(_ backend: borrowing BackendLogin, _ said: Span<UInt8>) {
    guard let dialogue = backend.trace else { return }
    for line in dialogue.takeHeard(backend.login.draft) { record.traces.tell(.backend, line, session: record.name) }
    for line in dialogue.show(said: said, backend.login.draft) {
      record.traces.tell(.proxyd, line, session: record.name)
    }
  }

  /// A login did not succeed.
  func traceFailure(_ failure: LoginFailure) {
    trace(.verdict, failure.detail.map { "\(failure.reason.rawValue): \($0)" } ?? failure.reason.rawValue)
  }

  /// The session is over.
  func traceEnd(_ end: SessionEnd, doing: String) {
    trace(.end, "\(end.reason.rawValue), \(doing)\(end.detail.map { ": \($0)" } ?? "")")
  }

  private func text(_ name: [UInt8]) -> String { "\"\(String(decoding: name, as: UTF8.self))\"" }
}

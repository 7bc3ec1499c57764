/// Asks HTTP services in the protocol of nginx's auth_http, by libcurl: one handle a thread, whose connections stay open.

#if HTTP

  internal import CCurl
  internal import Protocols

  final class HTTPConnection: SourceConnection {
    private let plan: HTTPPlan
    private let clock: Clock
    /// When an address that failed is tried again before others, in nanoseconds.
    private var rests: [UInt64]
    private let handle: CurlHandle?

    /// How long an address that failed comes after all others.
    private static let rest = Timeouts.seconds(10)

    init(_ plan: HTTPPlan, clock: Clock = .monotonic) {
      self.plan = plan
      self.clock = clock
      rests = plan.addresses.map { _ in 0 }
      handle = CurlHandle(authority: plan.authority, connections: plan.addresses.count)
    }

    func answer(_ request: SourceRequest, until deadline: UInt64) -> SourceReply {
      guard let handle else { return .answer(.failed("libcurl can't be set up")) }
      var order = Array(plan.addresses.indices)
      let start = clock.now
      order = order.filter { rests[$0] <= start } + order.filter { rests[$0] > start }
      var failures: [String] = []
      var isUnreachable = true
      for (turn, index) in order.enumerated() {
        let now = clock.now
        let share = deadline > now ? (deadline - now) / UInt64(order.count - turn) : 0
        guard share >= 1_000_000 else {
          if failures.isEmpty { isUnreachable = false }
          failures.append("no time was left for \(plan.shown(index))")
          break
        }
        switch ask(handle, plan.addresses[index], request, milliseconds: Int(share / 1_000_000)) {
        case .answer(let answer):
          rests[index] = 0
          return .answer(answer)
        case .failed(let reason, let isConnected):
          rests[index] = clock.now + HTTPConnection.rest
          failures.append(plan.addresses.count == 1 ? reason : "\(plan.shown(index)): \(reason)")
          if isConnected { isUnreachable = false }
        }
      }
      let reason = failures.joined(separator: "; ")
      return isUnreachable ? .unreachable(reason) : .answer(.failed(reason))
    }

    private enum Outcome {
      case answer(SourceAnswer)
      /// Another address may know better. Whether there was a connection.
      case failed(String, isConnected: Bool)
    }

    private func ask(
      _ handle: CurlHandle, _ address: HTTPAddress, _ request: SourceRequest, milliseconds: Int
    ) -> Outcome {
      var lines = Secret()
      if !plan.namesHost { for byte in "Host: \(address.host)\0".utf8 { lines.append(byte) } }
      let question = HTTPConnection.question(request, isPersonal: plan.sendsPassword)
      let isProven: Bool
      switch request.credential {
      case .password(let secret), .hashed(let secret, _):
        secret.withSpan { question.render(plan.sendsPassword ? .sent : .withheld, $0, into: &lines) }
        isProven = plan.sendsPassword
      case .proven:
        question.render(plan.sendsPassword ? .empty : .withheld, [UInt8]().span, into: &lines)
        isProven = plan.sendsPassword
      case .none:
        question.render(.withheld, [UInt8]().span, into: &lines)
        isProven = false
      }
      plan.headers.withSpan { lines.append($0) }
      if let failure = handle.get(address, lines, milliseconds: milliseconds) {
        return .failed(failure.reason, isConnected: failure.isConnected)
      }
      // What a server in front says while the service is away (RFC 9110 §15.6).
      if [502, 503, 504].contains(handle.status) {
        return .failed("its status is \(handle.status), expected 200", isConnected: true)
      }
      var password = Secret()
      let answer = handle.takeAnswer(password: &password)
      return .answer(HTTPConnection.answer(answer, password, isProven: isProven))
    }

    /// The question in nginx's words. A service that is given the password gets the name as the client wrote it, as from
    /// nginx; one that only says where users are gets the key, in small letters: its answer counts for all spellings.
    static func question(_ request: SourceRequest, isPersonal: Bool) -> AuthHTTPRequest {
      var question = AuthHTTPRequest()
      let facts = request.facts
      question.method = facts.method
      let isWhole = request.user.map(\.lowercased) == request.query.login
      question.user = isPersonal && isWhole ? request.user : request.query.login
      question.mailProtocol = request.query.mailProtocol
      question.attempt = facts.attempt
      question.clientAddress = facts.addresses.clientAddress
      question.header = facts.header
      question.tls = facts.tls.map { .init(version: $0.version, cipher: $0.cipher, client: $0.client) }
      return question
    }

    /// What an answer means here. A password for the backend is taken only for a login that was proved: otherwise anybody
    /// who knows a name would be logged in with it.
    static func answer(_ answer: AuthHTTPAnswer, _ password: borrowing Secret, isProven: Bool) -> SourceAnswer {
      switch answer {
      case .accepted(let accepted):
        guard isProven || !accepted.hasPassword else {
          return .failed("it answers Auth-Pass without having been asked to check the password")
        }
        var destination = Destination("", loginAs: accepted.user)
        destination.backend = accepted.backend
        destination.isChecked = isProven
        if accepted.hasPassword { destination.password = SharedSecret(password.span) }
        return .found(destination)
      case .refused(let refused):
        return .refused(
          SourceAnswer.Refusal(words: refused.words, delay: refused.delay.map { Timeouts.seconds($0) }))
      case .again(let seconds): return .again(after: max(HTTPConnection.shortestPause, Timeouts.seconds(seconds)))
      case .failed(let reason): return .failed(reason)
      }
    }

    /// How soon a service that wants to be asked again is: a round trip that is over at once would be a busy loop.
    private static let shortestPause = Timeouts.milliseconds(200)
  }

  extension HTTPPlan {
    /// An address as reasons name it.
    fileprivate func shown(_ index: Int) -> String { String(addresses[index].text.prefix { $0 != "?" }) }
  }

#endif

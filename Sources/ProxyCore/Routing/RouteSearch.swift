/// Looks for a user's backend, from source to source, with waits in between: a value that a session keeps while it waits.

internal import Protocols

package struct RouteSearch {
  /// Tells it from other searches of its loop.
  package let number: Int
  private let table: RouteTable
  private let request: RouteRequest
  private var stage = Stage.source(0, key: 0)
  /// When the source that is being asked must have answered; nil before it was asked.
  private var deadline: UInt64?
  /// An answer that was waited for.
  private var arrived: SourceAnswer?
  /// Which question is waited for: an answer to an earlier one comes too late.
  private var turn = 0
  /// Sources that could not be asked and were passed over, as the operator wants it; since they were last told.
  private var passedOver: [PassedOver] = []
  /// What every source that was asked said, for `proxyd route`.
  package private(set) var trace: [Answered] = []

  /// A source that could not be asked and was passed over.
  package struct PassedOver: Equatable, Sendable {
    /// The source.
    package let source: String
    /// Why.
    package let reason: String
  }

  /// What a source said to a key.
  package struct Answered: Equatable, Sendable {
    /// The source.
    package let source: String
    /// The key it was asked for; empty if it was asked for no name.
    package let key: [UInt8]
    /// Its answer.
    package let answer: SourceAnswer
  }

  private enum Stage {
    case source(Int, key: Int)
    /// The password is compared with the hash a source answered.
    case crypt(Destination, source: Int)
    case pam(Destination, source: Int)
    case done(RouteOutcome)
  }

  /// How far a search came.
  package enum Step {
    case done(RouteOutcome)
    /// An answer is awaited until that time, in nanoseconds of the clock.
    case waiting(until: UInt64)
    /// The source wants to be asked again at that time.
    case again(at: UInt64)
  }

  /// How often a locked map is tried.
  private static let busyPause = Timeouts.milliseconds(50)

  init(_ table: RouteTable, _ request: RouteRequest, number: Int) {
    self.number = number
    self.table = table
    self.request = request
  }

  /// Goes on as far as it can. For what it has to wait for, `later` is called with the number of the question, on some
  /// thread; then `take` and this again.
  package mutating func advance(
    now: UInt64, lookup: UInt64, password: Span<UInt8>, later: @escaping @Sendable (Int, SourceAnswer) -> Void
  ) -> Step {
    while true {
      switch stage {
      case .done(let outcome): return .done(outcome)
      case .source(let index, let key):
        guard index < table.sources.count else {
          stage = .done(.unknownUser)
          continue
        }
        let source = table.sources[index]
        let limit = deadline ?? now + (source.waits ? source.settings.timeout : lookup)
        deadline = limit
        if source.isPersonal, request.facts.proof == .none || request.isForAnother {
          stage = .done(.uncheckable(source: source.name))
          continue
        }
        let query = request.query(source.settings.keys[key])
        let credential = credential(source.isPersonal, password)
        let told = next(later)
        guard let answer = takeArrived() ?? source.ask(query, request, credential, later: told) else {
          return .waiting(until: limit)
        }
        trace.append(Answered(source: source.name, key: query.login, answer: answer))
        switch answer {
        case .busy where now < limit: return .again(at: min(limit, now + RouteSearch.busyPause))
        case .again(let pause):
          deadline = nil
          return .again(at: now + pause)
        case .busy, .failed, .found, .disabled, .notFound, .refused: follow(answer, index, key)
        }
      case .crypt(let destination, let source):
        guard let hash = destination.passwordHash, let pool = table.crypt else {
          preconditionFailure("a check without a hash")
        }
        let question = SourceRequest(
          query: request.query(.whole), user: request.user, credential: .hashed(SharedSecret(password), hash: hash))
        let told = next(later)
        guard let answer = takeArrived() ?? pool.ask(question, later: told) else {
          return .waiting(until: wait(now, table.sources[source].settings.timeout))
        }
        conclude(answer, destination, source, pool.name, isLast: false)
      case .pam(let destination, let source):
        guard let pool = table.pam else { preconditionFailure("a check by nobody") }
        let question = SourceRequest(
          query: request.query(.whole), user: request.checkName, facts: request.facts,
          credential: .password(SharedSecret(password)))
        let told = next(later)
        guard let answer = takeArrived() ?? pool.ask(question, later: told) else {
          return .waiting(until: wait(now, pool.timeout))
        }
        conclude(answer, destination, source, pool.name, isLast: true)
      }
    }
  }

  /// Takes the answer to a question. False if it is not the one that is waited for.
  package mutating func take(_ answer: SourceAnswer, turn: Int) -> Bool {
    guard turn == self.turn, arrived == nil else { return false }
    arrived = answer
    return true
  }

  /// What is waited for is late.
  package mutating func expire() {
    turn += 1
    if arrived == nil { arrived = .failed("it did not answer in time") }
  }

  /// The sources passed over since this was last asked.
  package mutating func takePassedOver() -> [PassedOver] {
    defer { passedOver = [] }
    return passedOver
  }

  /// Who is told the answer to the next question; the number of one that has arrived already stays.
  private mutating func next(
    _ later: @escaping @Sendable (Int, SourceAnswer) -> Void
  ) -> @Sendable (SourceAnswer) -> Void {
    if arrived == nil { turn += 1 }
    let turn = turn
    return { later(turn, $0) }
  }

  private mutating func takeArrived() -> SourceAnswer? {
    defer { arrived = nil }
    return arrived
  }

  private mutating func wait(_ now: UInt64, _ timeout: UInt64) -> UInt64 {
    let limit = deadline ?? now + timeout
    deadline = limit
    return limit
  }

  /// What a source is given to check; nothing if it is not asked to.
  private func credential(_ isPersonal: Bool, _ password: Span<UInt8>) -> SourceRequest.Credential {
    guard isPersonal else { return .none }
    switch request.facts.proof {
    case .password: return .password(SharedSecret(password))
    case .certificate: return .proven
    case .none: preconditionFailure("a check of what can't be checked")
    }
  }

  private mutating func follow(_ answer: SourceAnswer, _ index: Int, _ key: Int) {
    let source = table.sources[index]
    deadline = nil
    switch answer {
    case .found(let destination): check(destination, index)
    case .disabled: stage = .done(.disabled(source: source.name))
    case .notFound:
      stage = key + 1 < source.settings.keys.count ? .source(index, key: key + 1) : .source(index + 1, key: 0)
    case .refused(let refusal): stage = .done(.refused(source: source.name, refusal))
    case .busy: fail(index, "a writer has locked it", .busy)
    case .failed(let reason): fail(index, reason, .failed(source: source.name, reason: reason))
    case .again: preconditionFailure("waited for before")
    }
  }

  private mutating func fail(_ index: Int, _ reason: String, _ outcome: RouteOutcome) {
    switch table.sources[index].settings.onFailure {
    case .stop: stage = .done(outcome)
    case .next:
      passedOver.append(PassedOver(source: table.sources[index].name, reason: reason))
      stage = .source(index + 1, key: 0)
    }
  }

  /// Has the password checked that leads to a destination, where that is wanted.
  private mutating func check(_ destination: Destination, _ index: Int) {
    let source = table.sources[index]
    switch (source.settings.check, request.facts.proof) {
    case (.none, _), (.bind, _), (.crypt, .certificate): checkByPAM(destination, index)
    case (.crypt, _) where request.isForAnother: stage = .done(.uncheckable(source: source.name))
    case (.crypt, .none): stage = .done(.uncheckable(source: source.name))
    case (.crypt, .password):
      if destination.passwordHash == nil {
        fail(
          index, "the user's row has no password",
          .failed(source: source.name, reason: "the user's row has no password"))
      } else {
        stage = .crypt(destination, source: index)
      }
    }
  }

  private mutating func checkByPAM(_ destination: Destination, _ index: Int) {
    deadline = nil
    guard let pam = table.pam else { return finish(destination, index) }
    switch request.facts.proof {
    case .password: stage = .pam(destination, source: index)
    case .certificate: finish(destination, index)
    case .none: stage = .done(.uncheckable(source: pam.name))
    }
  }

  /// What the check of a password came to. A check that can't be made never lets a client through.
  private mutating func conclude(
    _ answer: SourceAnswer, _ destination: Destination, _ index: Int, _ checker: String, isLast: Bool
  ) {
    deadline = nil
    switch answer {
    case .found: if isLast { finish(destination, index) } else { checkByPAM(destination, index) }
    case .refused(let refusal): stage = .done(.refused(source: checker, refusal))
    case .failed(let reason): stage = .done(.failed(source: checker, reason: reason))
    case .disabled: stage = .done(.disabled(source: checker))
    case .notFound, .busy, .again: preconditionFailure("no answer of a check")
    }
  }

  private mutating func finish(_ destination: Destination, _ index: Int) {
    let source = table.sources[index].name
    guard let target = table.target(destination.backend, request.mailProtocol) else {
      let reason = "\"\(destination.backend)\" is neither a backend's name, nor a pool's, nor host[:port]"
      stage = .done(.failed(source: source, reason: reason))
      return
    }
    let route = Route(
      target: target, loginAs: destination.loginAs, source: source, password: destination.password)
    stage = .done(.found(route))
  }
}

/// Does what a request asks for, and says what came of it.

internal import Dispatch
internal import Logging
internal import ProxyCore

/// Where an answer goes.
protocol AnswerSink: AnyObject {
  /// Takes a row; false if nobody takes more.
  func row(_ value: some Codable) -> Bool
  /// Whether nobody is left to take it.
  var isClosed: Bool { get }
  /// Has what was taken reach the other side; false if nobody takes more.
  func flush() -> Bool
}

/// The last line of an answer.
enum AnswerEnd {
  case count(Int)
  case bounds(Int)
  case status(ToldStatus)
  case setting(ToldSetting)
  case level(Logger.Level)

  fileprivate static let nothing = AnswerEnd.count(0)

  /// As the log tells it.
  var words: String {
    switch self {
    case .count(let count), .bounds(let count): String(count)
    case .status: "ok"
    case .setting(let setting): "\(setting.state) \(setting.weight.map(String.init) ?? "default")"
    case .level(let level): level.rawValue
    }
  }
}

struct ControlDesk: Sendable {
  let actions: any ControlActions

  /// Does it; rows go to `sink` meanwhile.
  func perform(_ request: ControlRequest, _ sink: any AnswerSink) throws(ControlProblem) -> AnswerEnd {
    switch request.command {
    case .status:
      for listener in actions.listeners() where !sink.row(listener) { break }
      return .status(actions.status())
    case .sessions: return try sessions(request, sink)
    case .kick:
      let filter = try filter(request)
      guard !filter.isEmpty else {
        throw ControlProblem(.argument, "kick needs to know whom: user, backend, address, where or session")
      }
      return .count(try answered(actions.kick(filter)))
    case .who:
      let users = try answered(actions.users(try filter(request)))
      for user in users where !sink.row(user) { break }
      return .count(users.count)
    case .backends: return .count(rows(actions.fleet.backends(), sink))
    case .backend: return try backend(request)
    case .affinityList, .affinityDump, .affinityMap, .affinityMove, .affinityForget, .affinityFlush, .affinityLoad:
      return try affinity(request, sink)
    case .metrics: return .bounds(rows(actions.metrics(), sink))
    case .reload:
      let problems = actions.reload()
      guard problems.isEmpty else {
        _ = rows(problems.map { ToldProblem(problem: $0) }, sink)
        throw ControlProblem(.refused, "the configuration can't be used, the old one stays")
      }
      return .nothing
    case .logLevel:
      if let level = request.text("level").flatMap({ Logger.Level(rawValue: $0) }) { actions.setLogLevel(level) }
      return .level(actions.logLevel())
    case .trace: return try trace(request, sink)
    }
  }

  /// Tells them all; returns how many.
  private func rows(_ values: [some Codable], _ sink: any AnswerSink) -> Int {
    for value in values where !sink.row(value) { break }
    return values.count
  }

  private func answered<Value>(_ value: Value?) throws(ControlProblem) -> Value {
    guard let value else { throw ControlDesk.silence }
    return value
  }

  private static let silence = ControlProblem(.unavailable, "the proxy does not answer: it stops, or is overloaded")

  // MARK: Sessions

  private func filter(_ request: ControlRequest) throws(ControlProblem) -> SessionFilter {
    var filter = SessionFilter()
    filter.user = request.text("user").map { NamePattern($0) }
    filter.backend = request.text("backend")
    filter.doing = request.text("where")
    filter.session = request.text("session")
    if let address = request.text("address") {
      guard let network = Network(address) else {
        throw ControlProblem(
          .argument,
          "address: \"\(address)\" is no address or network, expected 192.0.2.1, 192.0.2.0/24 or 2001:db8::/32")
      }
      filter.network = network
    }
    return filter
  }

  private func sessions(_ request: ControlRequest, _ sink: any AnswerSink) throws(ControlProblem) -> AnswerEnd {
    let limit = request.number("limit") ?? .max
    var count = 0
    let isComplete = actions.sessions(try filter(request)) { session in
      guard count < limit else { return false }
      count += 1
      return sink.row(session)
    }
    if !isComplete { throw ControlDesk.silence }
    return .count(count)
  }

  // MARK: The fleet

  private func backend(_ request: ControlRequest) throws(ControlProblem) -> AnswerEnd {
    let name = request.text("backend") ?? ""
    let state = request.text("state").flatMap { AdminState(rawValue: $0) }
    let weight = request.number("weight").map { WeightChange.to($0) } ?? (request.has("weight") ? .standard : nil)
    guard state != nil || weight != nil else {
      throw ControlProblem(.argument, "backend needs to know what: state or weight")
    }
    guard let setting = actions.fleet.set(name, state: state, weight: weight) else {
      throw ControlProblem(.notFound, "there is no backend \"\(name)\" in the configuration")
    }
    return .setting(setting)
  }

  private func affinity(_ request: ControlRequest, _ sink: any AnswerSink) throws(ControlProblem) -> AnswerEnd {
    let fleet = actions.fleet
    let (user, backend, pool) = (request.text("user") ?? "", request.text("backend"), request.text("pool"))
    switch request.command {
    case .affinityMap: return .count(rows(try fleet.map(user, pool: pool), sink))
    case .affinityMove:
      try fleet.move(user, to: backend ?? "", pool: pool)
      return .count(1)
    case .affinityForget:
      let count = try fleet.forget(user, pool: pool)
      guard count > 0 else { throw ControlProblem(.notFound, "nothing is remembered of \"\(user)\"") }
      return .count(count)
    case .affinityFlush: return .count(try fleet.flush(backend, pool: pool))
    case .affinityLoad: return .count(try fleet.load(request.entries("entries"), pool: pool))
    case .affinityList, .affinityDump, .status, .sessions, .kick, .who, .backends, .backend, .metrics, .reload,
      .logLevel, .trace:
      var count = 0
      try fleet.places(pool: pool, backend: backend) { place in
        count += 1
        return sink.row(place)
      }
      return .count(count)
    }
  }

  // MARK: Trace

  private func trace(_ request: ControlRequest, _ sink: any AnswerSink) throws(ControlProblem) -> AnswerEnd {
    var bounds = TraceBounds()
    if let seconds = request.number("seconds") { bounds.time = UInt64(seconds) * 1_000_000_000 }
    if let lines = request.number("lines") { bounds.lines = lines }
    guard let trace = actions.beginTrace(request.text("user") ?? "", bounds) else {
      throw ControlProblem(.busy, "\(Traces.most) traces are on, and no more may be")
    }
    defer { actions.endTrace(trace) }
    var count = 0
    // Whoever looks sees at once that it is on.
    guard sink.flush() else { return .count(0) }
    while let events = trace.next(within: ControlDesk.traceTurn) {
      for event in events {
        count += 1
        let told = ToldEvent(
          time: event.time, session: event.session, kind: event.kind.rawValue, text: event.text)
        guard sink.row(told) else { return .count(count) }
      }
      guard !sink.isClosed, events.isEmpty || sink.flush() else { break }
    }
    return .count(count)
  }

  /// How soon it is noticed that nobody looks any more.
  private static let traceTurn = DispatchTimeInterval.milliseconds(500)
}

/// Probes one backend again and again, on a thread of its own: one that hangs delays nobody else.

internal import Dispatch
internal import Protocols
internal import Synchronization

final class Prober: Sendable {
  private let name: String
  private let resolver: Resolver
  private let ears: ProbeEars
  private let state: Mutex<State>
  /// Wakes the thread where its time has changed.
  private let signal = DispatchSemaphore(value: 0)

  private struct State {
    var task: Task
    /// When the next round begins.
    var due: UInt64
    /// Before this none does, however often it is asked for.
    var earliest: UInt64 = 0
    var isBusy = false
    /// Asked for while one was under way.
    var isAskedFor = false
    var isEnded = false
    /// When a certificate was warned of last.
    var warned: UInt64?
  }

  /// What is to be done until the next reload.
  struct Task: Sendable {
    let target: ProbeTarget
    /// Who logs in; nil for nobody.
    let login: ProbeCredentials?
  }

  /// The first round comes within this time, or within an interval if that is shorter.
  private static let start = Timeouts.seconds(1)
  /// How often a backend in maintenance is looked at, whether it still is.
  private static let look = Timeouts.seconds(1)
  private static let day = Timeouts.seconds(86_400)
  /// One TLS record: there may be many probers, and none has much to read.
  private static let scratchSize = 16 << 10

  init(_ task: Task, _ resolver: Resolver, _ ears: ProbeEars) {
    name = task.target.name
    self.resolver = resolver
    self.ears = ears
    state = Mutex(State(task: task, due: Prober.firstTime(task)))
  }

  /// Backends are not probed all in the same moment.
  private static func firstTime(_ task: Task) -> UInt64 {
    Clock.monotonic.now + UInt64.random(in: 0...min(task.target.settings.interval, start))
  }

  /// Begins. Nil, or why there is no thread.
  func run() -> SystemError? { WorkerThread.start { @Sendable in self.work() } }

  /// A new configuration.
  func adopt(_ task: Task) {
    state.withLock { state in
      state.task = task
      state.due = min(state.due, Prober.firstTime(task))
    }
    signal.signal()
  }

  /// A round is wanted as soon as may be.
  func probeNow() {
    let isSooner = state.withLock { state in
      guard !state.isBusy else {
        state.isAskedFor = true
        return false
      }
      let due = max(Clock.monotonic.now, state.earliest)
      guard due < state.due else { return false }
      state.due = due
      return true
    }
    if isSooner { signal.signal() }
  }

  /// Ends it. Of a round under way nothing is told.
  func end() {
    state.withLock { $0.isEnded = true }
    signal.signal()
  }

  // MARK: The thread

  private func work() {
    var scratch = Scratch(size: Prober.scratchSize)
    while let task = wait() {
      let isLooked = makeRound(task, &scratch)
      rest(task, isLooked)
    }
  }

  /// What is to be done, when it is time; nil if there is nothing more.
  private func wait() -> Task? {
    while true {
      let now = Clock.monotonic.now
      let (task, due) = state.withLock { state -> (Task?, UInt64?) in
        guard !state.isEnded else { return (nil, nil) }
        guard now >= state.due else { return (nil, state.due) }
        state.isBusy = true
        return (state.task, nil)
      }
      if let task { return task }
      guard let due else { return nil }
      _ = signal.wait(timeout: .now() + .nanoseconds(Int(clamping: due - now)))
    }
  }

  /// Decides when the next round is, after one that was made or, in maintenance, was not.
  private func rest(_ task: Task, _ wasMade: Bool) {
    let now = Clock.monotonic.now
    let settings = task.target.settings
    var pause = task.target.standing.nextProbe(after: now) - now
    if !wasMade { pause = min(pause, Prober.look) }
    // A tenth more or less: proxies that were started together do not stay together.
    pause = pause / 10 * 9 + UInt64.random(in: 0...pause / 5)
    state.withLock { state in
      state.isBusy = false
      state.earliest = wasMade ? now + min(settings.fastInterval, settings.interval) : now
      state.due = now + pause
      if state.isAskedFor { state.due = min(state.due, state.earliest) }
      state.isAskedFor = false
    }
  }

  // MARK: A round

  /// Probes the protocols one after the other, then asks the agent. False if nothing was to be done.
  private func makeRound(_ task: Task, _ scratch: inout Scratch) -> Bool {
    guard isWanted(task) else { return false }
    let target = task.target
    if target.settings.isProbed, isProbable(task), let evidence = countedProbe(task, &scratch), isWanted(task) {
      ears.learn(name, evidence)
    }
    if let port = target.settings.agent, let report = countedAsk(target, port, &scratch), isWanted(task) {
      if let health = report.health { ears.learn(name, health) }
      ears.agent(name, report)
    }
    return true
  }

  /// Whether anything is to be done, and what was found is to be told: not in an operator's maintenance.
  private func isWanted(_ task: Task) -> Bool {
    guard !state.withLock({ $0.isEnded }) else { return false }
    return Prober.isServing(task.target.standing.admin)
  }

  /// Whether it is probed: not in maintenance that its agent wants, of whose end the agent will tell.
  private func isProbable(_ task: Task) -> Bool {
    Prober.isServing(task.target.standing.snapshot(at: Clock.monotonic.now).admin)
  }

  private static func isServing(_ admin: AdminState) -> Bool {
    switch admin {
    case .ready, .drain: true
    case .maintenance, .removed: false
    }
  }

  /// A probe that is counted before it is told.
  private func countedProbe(_ task: Task, _ scratch: inout Scratch) -> HealthEvidence? {
    guard !task.target.backends.isEmpty else { return nil }
    let began = Clock.monotonic.now
    let evidence = probe(task, &scratch)
    task.target.standing.meter.count(evidence, took: Clock.monotonic.now - began, at: WallTime.second)
    return evidence
  }

  private func countedAsk(_ target: ProbeTarget, _ port: UInt16, _ scratch: inout Scratch) -> AgentReport? {
    let report = ask(target, port, &scratch)
    target.standing.meter.agentChecks.add()
    if report == nil { target.standing.meter.failedAgentChecks.add() }
    return report
  }

  /// The first protocol that is not well decides; nil if nothing was learned.
  private func probe(_ task: Task, _ scratch: inout Scratch) -> HealthEvidence? {
    let target = task.target
    var evidence: HealthEvidence?
    for mailProtocol in MailProtocol.allCases {
      guard let backend = target.backends[mailProtocol] else { continue }
      let deadline = Clock.monotonic.now + target.settings.timeout
      let addresses: [SocketAddress]
      switch resolve(backend.host, until: deadline) {
      case .addresses(let known): addresses = known.map { $0.with(port: backend.port) }
      case .failed(let reason): return .probeFailed("\(backend.host): \(reason)")
      }
      var visit = ProbeVisit(mailProtocol, backend, task.login, until: deadline)
      let outcome = visit.make(addresses, &scratch)
      if let end = visit.certificateEnd { warn(ofCertificate: end, mailProtocol, target.settings) }
      switch outcome {
      case .good: evidence = .probeSucceeded
      case .bad(let why): return .probeFailed(why)
      case .unknown: return nil
      }
    }
    return evidence
  }

  private func ask(_ target: ProbeTarget, _ port: UInt16, _ scratch: inout Scratch) -> AgentReport? {
    guard let host = target.host else { return nil }
    let deadline = Clock.monotonic.now + target.settings.timeout
    guard case .addresses(let known) = resolve(host, until: deadline) else { return nil }
    return AgentCheck.ask(known.map { $0.with(port: port) }, until: deadline, &scratch)
  }

  /// The addresses that logins use too: the resolver's, old ones among them while asking fails.
  private func resolve(_ host: Host, until deadline: UInt64) -> Resolver.Answer {
    switch host {
    case .address(let address): return .addresses([address])
    case .name(let name):
      let slot = AnswerSlot()
      let now = Clock.monotonic.now
      if let known = resolver.addresses(of: name, now: now, later: { slot.fill($0) }) { return known }
      return slot.wait(nanoseconds: deadline - min(now, deadline)) ?? .failed("its name was not resolved in time")
    }
  }

  /// Warns once a day at most.
  private func warn(ofCertificate end: Int, _ mailProtocol: MailProtocol, _ settings: HealthSettings) {
    let left = end - WallTime.second
    guard left < Int(clamping: settings.certificateWarning / 1_000_000_000) else { return }
    let now = Clock.monotonic.now
    let isDue = state.withLock { state in
      if let warned = state.warned, now < warned + Prober.day { return false }
      state.warned = now
      return true
    }
    if isDue { ears.warn(name, .certificate(mailProtocol, notAfter: end, hasEnded: left < 0)) }
  }
}

/// An answer that a thread waits for.
private final class AnswerSlot: Sendable {
  private let answer = Mutex<Resolver.Answer?>(nil)
  private let signal = DispatchSemaphore(value: 0)

  func fill(_ told: Resolver.Answer) {
    answer.withLock { $0 = told }
    signal.signal()
  }

  /// Nil if it has not come by then.
  func wait(nanoseconds: UInt64) -> Resolver.Answer? {
    _ = signal.wait(timeout: .now() + .nanoseconds(Int(clamping: nanoseconds)))
    return answer.withLock { $0 }
  }
}

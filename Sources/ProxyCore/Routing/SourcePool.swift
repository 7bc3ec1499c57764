/// Asks a source that may block, on threads of its own: questions wait in line, equal ones are asked once, answers may be
/// remembered, and a server that is away is left alone for a while.
///
/// One for all loops. An answer comes back by a closure, on some thread, which posts it to the loop that asked.

internal import Dispatch
internal import Protocols
internal import Synchronization

package final class SourcePool: Sendable {
  private let core: Core

  /// A pool that starts its threads when they are first needed; `timeout` in nanoseconds is what a question may take.
  init(_ plan: SourcePlan, timeout: UInt64, cache: CacheSettings? = nil, clock: Clock = .monotonic) {
    core = Core(plan, timeout: timeout, cache: plan.isPersonal ? nil : cache, clock: clock)
  }

  deinit { core.close() }

  /// The source's name, for people.
  var name: String { core.plan.name }
  /// Whether it has to be given the client's credentials.
  var isPersonal: Bool { core.plan.isPersonal }
  /// Whether it has to be told who the client is.
  var needsFacts: Bool { core.plan.needsFacts }

  /// What is known now, or nil: then `later` is called once, on some thread, when the answer is there.
  func ask(_ request: SourceRequest, later: @escaping @Sendable (SourceAnswer) -> Void) -> SourceAnswer? {
    core.ask(request, later)
  }

  /// What a question may take, in nanoseconds.
  var timeout: UInt64 { core.timeout }

  /// Questions that wait in line, or are being asked.
  var waiting: Int { core.waiting }
}

/// What the pool and its threads share; the threads let go of it when the pool is gone and the line is empty.
private final class Core: Sendable {
  let plan: SourcePlan
  let timeout: UInt64
  private let cache: CacheSettings?
  private let clock: Clock
  private let state = Mutex(State())
  /// One signal for each question in line.
  private let signal = DispatchSemaphore(value: 0)

  /// Questions in line at most: with more, the server is slower than its users, and a fresh one would wait in vain.
  private static let longestLine = 10_000
  /// How long a server that can't be reached is left alone at first, and at last.
  private static let firstPause = Timeouts.milliseconds(100)
  private static let longestPause = Timeouts.seconds(5)

  private struct State {
    var entries: [RouteQuery: Entry] = [:]
    /// The keys of `entries` that hold an answer, the oldest first, from `oldest` on.
    var order: [RouteQuery] = []
    var oldest = 0
    /// The line, from `head` on.
    var line: [Question] = []
    var head = 0
    var threads = 0
    var idle = 0
    var asking = 0
    /// Threads whose last question was answered, and until when no more of them are started.
    var connected = 0
    var fullUntil: UInt64 = 0
    var isClosed = false
    /// Until when the server is left alone, how long that was, and why.
    var awayUntil: UInt64 = 0
    var pause: UInt64 = 0
    var whyAway = ""
  }

  /// What is known of a key, and who waits to know.
  private struct Entry {
    var answer: SourceAnswer?
    var expires: UInt64 = 0
    var isAsking = false
    var waiting: [@Sendable (SourceAnswer) -> Void] = []
  }

  private struct Question: Sendable {
    let request: SourceRequest
    let deadline: UInt64
    /// Who is told, of a personal question; the others are told by their entry.
    let personal: (@Sendable (SourceAnswer) -> Void)?
  }

  init(_ plan: SourcePlan, timeout: UInt64, cache: CacheSettings?, clock: Clock) {
    self.plan = plan
    self.timeout = timeout
    self.cache = cache
    self.clock = clock
  }

  var waiting: Int { state.withLock { $0.line.count - $0.head + $0.asking } }

  func close() {
    let threads = state.withLock { state in
      state.isClosed = true
      return state.threads
    }
    for _ in 0..<threads { signal.signal() }
  }

  // MARK: Asking

  private enum Verdict {
    case known(SourceAnswer)
    /// The answer is on its way.
    case awaited
    /// A question was put in line; whether a thread has to be started for it.
    case asked(needsThread: Bool)
  }

  func ask(_ request: SourceRequest, _ later: @escaping @Sendable (SourceAnswer) -> Void) -> SourceAnswer? {
    let now = clock.now
    let verdict = state.withLock { state -> Verdict in
      var entry = plan.isPersonal ? Entry() : state.entries[request.query] ?? Entry()
      if let answer = entry.answer, now < entry.expires { return .known(answer) }
      if entry.isAsking {
        entry.waiting.append(later)
        state.entries[request.query] = entry
        return .awaited
      }
      if let failure = refusal(state, now) { return .known(stale(entry, now) ?? failure) }
      state.line.append(
        Question(request: request, deadline: now + timeout, personal: plan.isPersonal ? later : nil))
      if !plan.isPersonal {
        entry.isAsking = true
        entry.waiting.append(later)
        state.entries[request.query] = entry
      }
      let mayStart = state.threads == 0 || (state.threads < plan.connections && now >= state.fullUntil)
      let needsThread = mayStart && state.idle < state.line.count - state.head
      if needsThread { state.threads += 1 }
      return .asked(needsThread: needsThread)
    }
    switch verdict {
    case .known(let answer): return answer
    case .awaited: return nil
    case .asked(let needsThread):
      if needsThread, let error = WorkerThread.start({ @Sendable in self.work() }) { threadFailed(error) }
      signal.signal()
      return nil
    }
  }

  /// Why nothing is asked now; nil if there is no reason.
  private func refusal(_ state: State, _ now: UInt64) -> SourceAnswer? {
    if now < state.awayUntil {
      return .failed("\(state.whyAway) (tried again in \((state.awayUntil - now) / 1_000_000 + 1) ms)")
    }
    guard state.line.count - state.head < Core.longestLine else {
      return .failed("\(Core.longestLine) questions are waiting for an answer")
    }
    return nil
  }

  /// An answer too old to be used while the source can be asked.
  private func stale(_ entry: Entry, _ now: UInt64) -> SourceAnswer? {
    guard let cache, cache.stale > 0, let answer = entry.answer, now < entry.expires + cache.stale else { return nil }
    return answer
  }

  /// The system gives no thread: those that run will answer, and if there is none, nobody will before the deadline.
  private func threadFailed(_ error: SystemError) {
    let abandoned = state.withLock { state -> [Question] in
      state.threads -= 1
      guard state.threads == 0 else { return [] }
      defer {
        state.line = []
        state.head = 0
      }
      return Array(state.line[state.head...])
    }
    var isConnected = false
    for question in abandoned {
      settle(question, .answer(.failed("no thread can be started: \(error)")), &isConnected)
    }
  }

  // MARK: Threads

  /// What a thread does until the pool is gone.
  private func work() {
    let connection = plan.make()
    var isConnected = false
    while true {
      state.withLock { $0.idle += 1 }
      signal.wait()
      let (question, isOver) = state.withLock { state -> (Question?, Bool) in
        state.idle -= 1
        guard state.head < state.line.count else {
          if state.isClosed { leave(&state, isConnected) }
          return (nil, state.isClosed)
        }
        let question = state.line[state.head]
        state.head += 1
        // The line's storage is given back in one go; each question is moved once at most.
        if state.head == state.line.count {
          state.line.removeAll(keepingCapacity: state.line.capacity <= 1_024)
          state.head = 0
        }
        state.asking += 1
        return (question, false)
      }
      if isOver { return }
      guard let question else { continue }
      // Who asked has given up: a server that is behind is not kept busy for nobody.
      if clock.now >= question.deadline {
        settle(question, .answer(.failed("it was too busy to answer in time")), &isConnected)
      } else if let failure = away() {
        settle(question, .answer(failure), &isConnected)
      } else {
        let reply = connection.answer(question.request, until: question.deadline)
        if case .unreachable = reply, steps(aside: question, isConnected) { return }
        settle(question, reply, &isConnected)
      }
    }
  }

  private func leave(_ state: inout State, _ isConnected: Bool) {
    state.threads -= 1
    if isConnected { state.connected -= 1 }
  }

  /// The server takes no further connection, and serves others of ours: the question is left to them, and this thread ends.
  private func steps(aside question: Question, _ isConnected: Bool) -> Bool {
    let now = clock.now
    let isAside = state.withLock { state in
      guard state.connected > (isConnected ? 1 : 0) else { return false }
      leave(&state, isConnected)
      state.asking -= 1
      state.fullUntil = now + Core.longestPause
      state.line.append(question)
      return true
    }
    if isAside { signal.signal() }
    return isAside
  }

  /// The failure of those in line behind one that found the server away.
  private func away() -> SourceAnswer? {
    let now = clock.now
    return state.withLock { state in now < state.awayUntil ? refusal(state, now) : nil }
  }

  /// Remembers what is to be, and tells who waits.
  private func settle(_ question: Question, _ reply: SourceReply, _ isConnected: inout Bool) {
    let now = clock.now
    let wasConnected = isConnected
    if reply.isAnswer { isConnected = true } else if reply.isUnreachable { isConnected = false }
    let change = (isConnected ? 1 : 0) - (wasConnected ? 1 : 0)
    let (told, waiting) = state.withLock { state -> (SourceAnswer, [@Sendable (SourceAnswer) -> Void]) in
      state.asking = max(0, state.asking - 1)
      state.connected += change
      let fresh = take(reply, &state, now)
      if let personal = question.personal { return (fresh, [personal]) }
      var entry = state.entries[question.request.query] ?? Entry()
      let waiting = entry.waiting
      entry.waiting = []
      entry.isAsking = false
      guard let life = life(fresh) else {
        let old = fresh.isFailure ? stale(entry, now) : nil
        // An old answer keeps its place in the order: it is for the next failure, or replaced by one that is old at once.
        if entry.answer != nil, !fresh.isFailure {
          entry.answer = fresh
          entry.expires = now
        }
        state.entries[question.request.query] = entry.answer == nil ? nil : entry
        return (old ?? fresh, waiting)
      }
      if entry.answer == nil { state.order.append(question.request.query) }
      entry.answer = fresh
      entry.expires = now + life
      state.entries[question.request.query] = entry
      evict(&state)
      return (fresh, waiting)
    }
    for tell in waiting { tell(told) }
  }

  private func take(_ reply: SourceReply, _ state: inout State, _ now: UInt64) -> SourceAnswer {
    switch reply {
    case .answer(let answer):
      if !answer.isFailure {
        state.pause = 0
        state.awayUntil = 0
      }
      return answer
    case .unreachable(let reason):
      state.pause = min(max(Core.firstPause, state.pause * 2), Core.longestPause)
      state.awayUntil = now + state.pause
      state.whyAway = reason
      return .failed(reason)
    }
  }

  /// How long an answer is remembered, in nanoseconds; nil if it is not.
  private func life(_ answer: SourceAnswer) -> UInt64? {
    guard let cache else { return nil }
    switch answer {
    case .found, .disabled: return cache.found > 0 ? cache.found : nil
    case .notFound: return cache.notFound > 0 ? cache.notFound : nil
    case .refused, .busy, .again, .failed: return nil
    }
  }

  /// Forgets the oldest answers beyond the bound.
  private func evict(_ state: inout State) {
    guard let cache else { return }
    while state.order.count - state.oldest > cache.entries {
      let key = state.order[state.oldest]
      state.oldest += 1
      if var entry = state.entries[key], entry.isAsking {
        entry.answer = nil
        state.entries[key] = entry
      } else {
        state.entries[key] = nil
      }
    }
    if state.oldest > 1_024, state.oldest > state.order.count / 2 {
      state.order.removeFirst(state.oldest)
      state.oldest = 0
    }
  }
}

extension SourceReply {
  fileprivate var isUnreachable: Bool {
    switch self {
    case .unreachable: true
    case .answer: false
    }
  }

  fileprivate var isAnswer: Bool {
    switch self {
    case .unreachable: false
    case .answer(let answer): !answer.isFailure
    }
  }
}

extension SourceAnswer {
  /// Whether it tells nothing of the user.
  fileprivate var isFailure: Bool {
    switch self {
    case .failed, .busy, .again: true
    case .found, .disabled, .notFound, .refused: false
    }
  }
}

/// Ends the sessions at a backend bit by bit: at so many users a second, or all within a time. Whoever has let go of many
/// clients at once has seen them all come back at once.

internal import Dispatch
internal import Protocols
internal import Synchronization

final class Evictions: Sendable {
  private let state = Mutex(State())
  private let queue = DispatchQueue(label: "proxyd.evictions", qos: .utility)

  /// A session at a backend.
  struct Guest: Sendable {
    let user: String
    let handle: SessionHandle
    /// The loss of the backend after which it was placed there.
    var loss: Int?
  }

  /// How fast.
  enum Pace: Sendable {
    /// Users a second.
    case rate(Int)
    /// All that are there at first within so many nanoseconds.
    case within(UInt64)
  }

  private struct State {
    var callbacks = Fleet.Callbacks()
    var jobs: [String: Job] = [:]
    var isTicking = false
  }

  private struct Job {
    let pace: Pace
    let reason: Eviction
    let spared: Int?
    /// Users not moved yet, with their sessions; nil while they are being asked for.
    var users: [[SessionHandle]]?
    /// Known once it is known how many users there are.
    var quota: EvictionQuota?
    var number: Int
  }

  /// Between two steps: as Dovecot spreads its disconnects.
  private static let tick = DispatchTimeInterval.milliseconds(100)
  /// Seconds that all take who are to go within less.
  private static let leastTime = 0.1

  func attach(_ callbacks: Fleet.Callbacks) { state.withLock { $0.callbacks = callbacks } }

  /// Begins to end the sessions at a backend; another pace replaces the one before. `spared`: who was placed there after
  /// that loss stays.
  func begin(_ backend: String, _ pace: Pace, _ reason: Eviction, sparing spared: Int? = nil) {
    let (number, startsTicking) = state.withLock { state -> (Int, Bool) in
      let number = (state.jobs[backend]?.number ?? 0) + 1
      state.jobs[backend] = Job(pace: pace, reason: reason, spared: spared, users: nil, number: number)
      defer { state.isTicking = true }
      return (number, !state.isTicking)
    }
    ask(backend, number)
    if startsTicking { schedule() }
  }

  /// Lets those stay that are there still.
  func end(_ backend: String) { state.withLock { $0.jobs[backend] = nil } }

  /// Whether a backend is being emptied.
  func isRunning(_ backend: String) -> Bool { state.withLock { $0.jobs[backend] != nil } }

  private func ask(_ backend: String, _ number: Int) {
    let sessions = state.withLock { $0.callbacks.sessions }
    sessions(backend) { [self] guests in take(backend, guests, number) }
  }

  private func take(_ backend: String, _ guests: [Guest], _ number: Int) {
    state.withLock { state in
      guard var job = state.jobs[backend], job.number == number else { return }
      let leaving = guests.filter { $0.loss == nil || $0.loss != job.spared }
      let users = Array(Dictionary(grouping: leaving, by: \.user).values.map { $0.map(\.handle) })
      if users.isEmpty {
        state.jobs[backend] = nil
        return
      }
      let rate =
        switch job.pace {
        case .rate(let rate): Double(rate)
        case .within(let time):
          job.quota?.rate ?? Double(users.count) / max(Double(time) / 1e9, Evictions.leastTime)
        }
      job.quota = EvictionQuota(rate: rate, at: Clock.monotonic.now)
      job.users = users
      state.jobs[backend] = job
    }
  }

  private func schedule() {
    queue.asyncAfter(deadline: .now() + Evictions.tick) { @Sendable [self] in step() }
  }

  private func step() {
    var asks: [(String, Int)] = []
    var kicks: [([SessionHandle], Eviction)] = []
    let (kick, goesOn) = state.withLock { state in
      for (backend, known) in state.jobs {
        var job = known
        guard var users = job.users, let count = job.quota?.take(users.count, at: Clock.monotonic.now) else { continue }
        kicks.append((users.suffix(count).flatMap { $0 }, job.reason))
        users.removeLast(count)
        // Some may have come while the others went: it ends when a question finds nobody.
        job.users = users.isEmpty ? nil : users
        if users.isEmpty { asks.append((backend, job.number)) }
        state.jobs[backend] = job
      }
      state.isTicking = !state.jobs.isEmpty
      return (state.callbacks.kick, state.isTicking)
    }
    for (handles, reason) in kicks where !handles.isEmpty { kick(handles, reason) }
    for (backend, number) in asks { ask(backend, number) }
    if goesOn { schedule() }
  }
}

/// How many users may be let go by now, at so many a second.
struct EvictionQuota {
  /// Users a second.
  let rate: Double
  /// What of a user's turn is due.
  private var due = 0.0
  /// Until when it was reckoned, in nanoseconds.
  private var reckoned: UInt64

  /// A step answers for the time since the one before, so that the rate is kept on a busy machine too; for so many
  /// nanoseconds at most, for nobody wants them all at once after a standstill.
  static let longestStep: UInt64 = 300_000_000

  init(rate: Double, at now: UInt64) {
    self.rate = rate
    reckoned = now
  }

  /// Of so many, the number whose turn it is.
  mutating func take(_ all: Int, at now: UInt64) -> Int {
    due += rate * Double(min(now - reckoned, EvictionQuota.longestStep)) / 1e9
    reckoned = now
    let count = min(all, Int(due))
    due -= Double(count)
    return count
  }
}

/// What all loops share: the log, the door's count, the resolver, and word of a loop that has no session left.

internal import Logging
internal import Dispatch
internal import Protocols
internal import Synchronization

package final class House: Sendable {
  /// Where everybody logs.
  package let log: Log
  /// The places for sessions.
  package let admission: Admission
  /// The backends together.
  package let fleet: Fleet
  let census = Census()
  /// What is counted.
  package let meters = Meters()
  /// Who looks at logins.
  package let traces = Traces()
  let resolver: Resolver
  let addressNames: AddressNames
  private let loops = Mutex<[EventLoop]>([])
  private let whenEmpty = Mutex<EmptyNotice?>(nil)
  /// Sessions that ended since memory was last given back.
  private let endings = Atomic<Int>(0)
  /// When the last warning about a lack was said, in loop time.
  private let lastLack = Mutex<UInt64>(0)

  /// The backends that evidently don't believe us who the client is, and were warned of.
  private let distrusting = Mutex<Set<String>>([])

  /// Warnings about a lack are at least this far apart.
  private static let lackPause = Timeouts.seconds(60)

  /// A house of its parts.
  package init(
    log: Log, admission: Admission, resolver: Resolver, addressNames: AddressNames = AddressNames(),
    clock: Clock = .monotonic
  ) {
    self.log = log
    self.addressNames = addressNames
    self.admission = admission
    self.resolver = resolver
    fleet = Fleet(log: log, clock: clock)
    fleet.attach(
      Fleet.Callbacks(
        kick: { [weak self] in self?.kick($0, $1) }, wake: { [weak self] in $0.forEach { self?.wake($0) } },
        sessions: { [weak self] in self?.sessions(at: $0, then: $1) }))
  }

  /// Sets the loops there are; once, before they start.
  func set(_ loops: [EventLoop]) { self.loops.withLock { $0 = loops } }

  /// The loops there are.
  var allLoops: [EventLoop] { loops.withLock { $0 } }

  /// Ends sessions, wherever they are; who is gone already is passed over.
  package func kick(_ handles: [SessionHandle], _ eviction: Eviction) {
    let loops = loops.withLock { $0 }
    for (index, handles) in Dictionary(grouping: handles, by: \.loop) where index < loops.count {
      loops[index].post { loop in
        for handle in handles { loop.kick(handle.token, eviction) }
      }
    }
  }

  /// Gives the sessions at a backend, with their users, to `then`, on some thread: those of all loops.
  private func sessions(at backend: String, then: @escaping @Sendable ([Evictions.Guest]) -> Void) {
    let loops = loops.withLock { $0 }
    guard !loops.isEmpty else { return then([]) }
    let gathering = Gathering(loops.count)
    for loop in loops {
      loop.post { loop in
        if let all = gathering.add(loop.guests(at: backend)) { then(all) }
      }
    }
  }

  /// What the loops answer, until the last has.
  private final class Gathering: Sendable {
    private let state: Mutex<(missing: Int, guests: [Evictions.Guest])>

    init(_ loops: Int) { state = Mutex((loops, [])) }

    /// All there is, once it is complete.
    func add(_ guests: [Evictions.Guest]) -> [Evictions.Guest]? {
      state.withLock { state in
        state.missing -= 1
        state.guests += guests
        return state.missing == 0 ? state.guests : nil
      }
    }
  }

  /// A session's wait may be over.
  func wake(_ handle: SessionHandle) {
    let loops = loops.withLock { $0 }
    guard handle.loop < loops.count else { return }
    loops[handle.loop].post { $0.wake(handle.token) }
  }

  /// Calls `body` with a loop's number each time the loop's last session ends.
  package func notifyWhenEmpty(_ body: @escaping @Sendable (Int) -> Void) {
    whenEmpty.withLock { $0 = EmptyNotice(body: body) }
  }

  func loopIsEmpty(_ index: Int) {
    let notice = whenEmpty.withLock { $0 }
    notice?.body(index)
  }

  /// A closure that stood in a Mutex by itself would be wrapped once more by each look at it: Swift converts it to the form
  /// that generic code has and back. The wrappers were never given back, and each call went through them all.
  private struct EmptyNotice {
    let body: @Sendable (Int) -> Void
  }

  /// A backend does not believe us who the client is: said once for each.
  func tellDistrust(_ backend: String, _ mailProtocol: MailProtocol) {
    guard distrusting.withLock({ $0.insert("\(backend) \(mailProtocol.rawValue)").inserted }) else { return }
    log.logger.warning(
      "a backend does not believe who the client is: its logs and limits see the proxy's address",
      metadata: [
        "backend": "\(backend)", "protocol": "\(mailProtocol.rawValue)",
        "remedy": "add the proxy's address to login_trusted_networks in its Dovecot configuration",
      ])
  }

  /// A session ended. glibc keeps the memory of a peak for good; after many endings it is asked for it, off the loop.
  func sessionEnded() {
    guard endings.add(1, ordering: .relaxed).newValue == House.trimAfter else { return }
    DispatchQueue.global(qos: .utility).asyncAfter(deadline: .now() + House.trimPause) { @Sendable in
      self.endings.store(0, ordering: .relaxed)
      Syscall.trimMemory()
    }
  }

  /// A thousand sessions held 15 MB (prototypes, Q2: 44 MB after three thousand, 2 MB once trimmed).
  private static let trimAfter = 1_000
  /// Trimming takes milliseconds and is done at most this often.
  private static let trimPause = DispatchTimeInterval.seconds(10)

  /// Says, once a minute at most, that connections are not accepted for now.
  func tellLack(_ lack: Door.Lack, at time: UInt64) {
    let isDue = lastLack.withLock { last in
      guard last == 0 || time >= last + House.lackPause else { return false }
      last = time
      return true
    }
    guard isDue else { return }
    switch lack {
    case .limit:
      log.logger.warning(
        "accepting rests: the limit of sessions is reached", metadata: ["sessions": "\(admission.count)"])
    case .lack(let error):
      log.logger.warning(
        "accepting rests: the system gives no more descriptors",
        metadata: ["reason": "\(error)", "sessions": "\(admission.count)"])
    }
  }
}

/// What a loop works with until the next reload.
package struct LoopPlan: Sendable {
  /// The sockets to accept from.
  package let listeners: [BoundListener]
  /// Where users go.
  package let routes: RoutePlan
  /// The rest of the configuration.
  package let settings: Settings

  /// A plan of its parts.
  package init(listeners: [BoundListener], routes: RoutePlan, settings: Settings) {
    self.listeners = listeners
    self.routes = routes
    self.settings = settings
  }

  /// The same for a proxy that stops: its sockets are closed with the last plan that has them.
  var withoutListeners: LoopPlan { LoopPlan(listeners: [], routes: routes, settings: settings) }
}

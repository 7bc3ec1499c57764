/// An event loop built on Dispatch sources: a serial queue with one read source, on an epoll descriptor beneath which
/// all of the loop's sockets are.
///
/// A source for each socket would cost two to three times the CPU per round trip and ten times the memory, because every
/// event would pass the library's manager thread. Here the handler drains `epoll_wait` and lingers there before it
/// returns; a busy loop touches Dispatch a hundred times a second, and a raw epoll thread's speed is reached (0.96 to
/// 1.06, prototypes Q1).
///
/// Everything below an `EventLoop` is synchronous and belongs to it: methods take the loop as `isolated`, nothing awaits.

internal import Dispatch
internal import Synchronization

package actor EventLoop {
  private nonisolated let executor: QueueExecutor
  /// The queue, as Swift wants to see it.
  package nonisolated var unownedExecutor: UnownedSerialExecutor { unsafe executor.asUnownedSerialExecutor() }

  private let polls: PollSet
  private let clock: Clock
  private var source: (any DispatchSourceRead)?
  private var timer: (any DispatchSourceTimer)?
  /// When the timer fires; `.max` if it does not.
  private var timerTime = UInt64.max
  private nonisolated let inbox = Mutex<[@Sendable (isolated EventLoop) -> Void]>([])

  /// The time of the current batch of events, in nanoseconds.
  private(set) var now: UInt64
  private(set) var sessions = SlotTable()
  private var deadlines = Deadlines()
  private var expired: [Int] = []
  /// Sessions to be stepped again before the loop waits: TLS holds bytes for them that no event will tell of.
  private var unfinished: [Token] = []
  /// Those of the round before, while they are stepped. Two arrays in turn: emptying one that is being read would allocate.
  private var resumed: [Token] = []
  /// Sessions begun here, for their names.
  private var count = 0
  /// Searches begun here.
  private var searches = 0
  /// Steps of TLS handshakes taken in this batch.
  private var handshakes = 0

  /// What all sessions of the loop read into.
  var scratch = Scratch(size: EventLoop.scratchSize)
  /// What a dialogue says, before it is written.
  var reply: [UInt8] = []

  nonisolated let index: Int
  nonisolated let house: House
  private(set) var plan: LoopPlan
  private(set) var routes: RouteTable
  private var door = Door()

  /// Four TLS records: fewer system calls for bulk, and still within a second-level cache.
  static let scratchSize = 64 << 10
  /// How long the handler waits for more before it returns to Dispatch, in milliseconds. Shorter than the gap between
  /// events is worse than none; 100 costs only where there are fewer than ten events a second.
  private static let linger = 100
  /// Events taken at once. Others are ready by then, and the kernel hands them out in turn.
  private static let batch = 128
  /// Work between two returns to Dispatch, in nanoseconds and rounds.
  private static let longestTurn = Timeouts.milliseconds(10)
  private static let mostRounds = 1_000
  /// Handshake steps in one batch, 0.2 ms each: more would hold up the relays.
  private static let mostHandshakes = 16

  /// A loop that handles nothing before `start`. Fails if the kernel gives no epoll set or eventfd.
  package init(index: Int, house: House, plan: LoopPlan, clock: Clock = .monotonic) throws(SystemError) {
    self.index = index
    self.house = house
    self.plan = plan
    self.clock = clock
    routes = RouteTable(plan.routes)
    now = clock.now
    polls = try PollSet(batch: EventLoop.batch)
    executor = QueueExecutor(label: "proxyd.loop.\(index)", kick: Descriptor(owning: try Syscall.makeEvent().get()))
    let kick = Token(.kick, index: 0, generation: 0)
    if let error = polls.watch(executor.kick, kick, from: nil, to: .init(reads: true)) { throw error }
    reply.reserveCapacity(EventLoop.scratchSize)
  }

  // MARK: From other threads

  /// Begins to handle events.
  package nonisolated func start() {
    executor.queue.async { self.assumeIsolated { $0.begin() } }
  }

  /// Runs something on the loop soon. For the few messages of starting, reloading and resolving, not for events.
  package nonisolated func post(_ body: @escaping @Sendable (isolated EventLoop) -> Void) {
    inbox.withLock { $0.append(body) }
    Syscall.kick(executor.kick)
  }

  /// Handlers are made here and not in a caller's context: one made on the main actor would compile, and trap at its
  /// first event.
  private func begin() {
    let source = DispatchSource.makeReadSource(fileDescriptor: polls.descriptor.raw, queue: executor.queue)
    source.setEventHandler { @Sendable in self.assumeIsolated { $0.turn() } }
    self.source = source
    let timer = DispatchSource.makeTimerSource(queue: executor.queue)
    timer.setEventHandler { @Sendable in self.assumeIsolated { $0.tick() } }
    self.timer = timer
    door.open(plan.listeners, polls)
    source.activate()
    timer.activate()
  }

  /// Ends the loop: no event is handled any more, and the sources let go of it.
  package func end() {
    source?.cancel()
    timer?.cancel()
    source = nil
    timer = nil
  }

  // MARK: Turns

  /// Handles events until none comes for a while, or until others on the queue must have their turn.
  private func turn() {
    var worked: UInt64 = 0
    for _ in 0..<EventLoop.mostRounds {
      let count = polls.wait(milliseconds: waitTime())
      let began = clock.now
      now = began
      handshakes = 0
      let isKicked = handle(count)
      resume()
      expire()
      worked += clock.now - began
      if isKicked || worked > EventLoop.longestTurn || (count == 0 && unfinished.isEmpty) || source == nil { break }
    }
    setTimer()
  }

  /// Milliseconds: until the next deadline, but no longer than the linger.
  private func waitTime() -> Int32 {
    guard unfinished.isEmpty else { return 0 }
    let next = min(deadlines.next, door.reopens)
    let time = clock.now
    guard next > time else { return 0 }
    return Int32(min((next - time) / 1_000_000 + 1, UInt64(EventLoop.linger)))
  }

  /// Handles a batch. True if another thread has put something on the queue.
  private func handle(_ count: Int) -> Bool {
    var isKicked = false
    for index in 0..<count {
      let (token, isHangup) = polls.event(index)
      switch token.role {
      case .client: sessions[token]?.ready(.client, isHangup: isHangup, on: self)
      case .backend: sessions[token]?.ready(.backend, isHangup: isHangup, on: self)
      case .listener: accept(token)
      case .kick: isKicked = true
      }
    }
    if isKicked { readInbox() }
    return isKicked
  }

  private func readInbox() {
    Syscall.unkick(executor.kick)
    let messages = inbox.withLock { inbox in
      let messages = inbox
      inbox = []
      return messages
    }
    for message in messages { message(self) }
  }

  /// Steps the sessions that were left unfinished, once each.
  private func resume() {
    guard !unfinished.isEmpty else { return }
    swap(&unfinished, &resumed)
    for token in resumed { sessions[token]?.step(on: self) }
    resumed.removeAll(keepingCapacity: true)
  }

  private func expire() {
    if now >= door.reopens { door.reopen(plan.listeners, polls) }
    guard now >= deadlines.next else { return }
    deadlines.expire(now: now, into: &expired)
    for index in expired { sessions.session(at: index)?.expire(on: self) }
    expired.removeAll(keepingCapacity: true)
  }

  /// The timer's handler: a deadline was reached while the loop was parked in Dispatch.
  private func tick() {
    timerTime = .max
    now = clock.now
    expire()
    resume()
    setTimer()
  }

  /// Sees to it that the next deadline wakes the loop. A timer that fires too early is left alone: it will look again.
  private func setTimer() {
    let next = min(deadlines.next, door.reopens)
    guard next < timerTime, let timer else { return }
    timerTime = next
    let delay = next > now ? next - now : 0
    timer.schedule(deadline: .now() + .nanoseconds(Int(clamping: delay) + 1_000_000))
  }

  // MARK: What sessions ask for

  /// Sets a session's deadline; `.max` for none.
  func setDeadline(_ token: Token, _ time: UInt64) { deadlines.set(token.index, time) }

  /// Changes what a session's descriptor is watched for.
  func watch(
    _ descriptor: borrowing Descriptor, _ token: Token, from old: PollSet.Interest?, to new: PollSet.Interest?
  ) -> SystemError? {
    polls.watch(descriptor, token, from: old, to: new)
  }

  /// Whether a session may take a step of its handshake in this batch. If not, its event is told again with the next.
  func mayHandshake() -> Bool {
    guard handshakes < EventLoop.mostHandshakes else { return false }
    handshakes += 1
    return true
  }

  /// Steps the session again before the loop waits.
  func again(_ token: Token) { unfinished.append(token) }

  /// A session is over and its descriptors are closed.
  func leave(_ token: Token) {
    sessions.remove(token)
    deadlines.set(token.index, .max)
    house.admission.leave()
    house.sessionEnded()
    if door.isShutForLack { door.reopen(plan.listeners, polls) }
    if sessions.count == 0 { house.loopIsEmpty(index) }
  }

  // MARK: Listeners

  /// Uses another configuration from here on. Sessions stay as they are.
  package func adopt(_ plan: LoopPlan) {
    door.close(self.plan.listeners, polls)
    self.plan = plan
    routes = RouteTable(plan.routes)
    door.open(plan.listeners, polls)
  }

  /// Stops accepting, ends the sessions that are not logged in, and lets the others go on.
  package func retire() {
    door.close(plan.listeners, polls)
    door.retire()
    plan = plan.withoutListeners
    for session in sessions.all { session.retire(on: self) }
    if sessions.count == 0 { house.loopIsEmpty(index) }
  }

  /// Ends all sessions.
  package func endSessions() {
    for session in sessions.all { session.stop(on: self) }
  }

  private func accept(_ token: Token) {
    guard token.index < plan.listeners.count, door.isOpen else { return }
    let bound = plan.listeners[token.index]
    for _ in 0..<EventLoop.mostHandshakes {
      guard house.admission.enter() else {
        return door.shut(plan.listeners, polls, until: now + Door.pause, house, .limit)
      }
      switch Syscall.accept(bound.socket.descriptor) {
      case .success(let (fd, peer)): adopt(Descriptor(owning: fd), peer, bound.listener)
      case .failure(let error):
        house.admission.leave()
        if error.isOutOfDescriptors || error.isOutOfMemory {
          return door.shut(plan.listeners, polls, until: now + Door.pause, house, .lack(error))
        }
      // A connection that died in the queue; the next may be well.
      case nil:
        house.admission.leave()
        return
      }
    }
  }

  /// Begins a session on an accepted connection. Its place is taken already.
  private func adopt(_ descriptor: consuming Descriptor, _ peer: SocketAddress, _ listener: Listener) {
    count += 1
    let record = SessionRecord(
      id: SessionID(second: WallTime.second, loop: index, count: count), peer: peer, listener: listener, began: now)
    let login = PreLogin(listener, deadline: now + plan.settings.timeouts.login)
    let token = sessions.reserve()
    let session = Session(token, Transport(descriptor), record, login)
    sessions.fill(token, session)
    listener.meter.accepted.add()
    listener.meter.present.add()
    session.begin(on: self)
  }

  /// The number of the next search for a backend.
  func nextSearch() -> Int {
    searches += 1
    return searches
  }

  /// A source's answer to a session's question.
  func answered(_ token: Token, _ search: Int, turn: Int, _ answer: SourceAnswer) {
    now = clock.now
    sessions[token]?.answered(answer, search, turn: turn, on: self)
  }

  /// Ends a session that is here still.
  func kick(_ token: Token, _ eviction: Eviction) {
    now = clock.now
    sessions[token]?.kick(eviction, on: self)
  }

  /// The sessions at a backend, logged in or on their way.
  func guests(at backend: String) -> [Evictions.Guest] {
    sessions.all.filter { $0.record.backend == backend && $0.lease != nil }.map {
      Evictions.Guest(
        user: String(decoding: $0.record.login, as: UTF8.self), handle: SessionHandle(loop: index, token: $0.token),
        loss: $0.lease?.loss)
    }
  }

  /// What is done for another thread happens now, not at the last event's time.
  func readClock() { now = clock.now }

  /// A session's wait may be over.
  func wake(_ token: Token) {
    now = clock.now
    sessions[token]?.step(on: self)
  }

  /// The answer to a session's question.
  func resolved(_ token: Token, _ name: String, _ answer: Resolver.Answer) {
    now = clock.now
    sessions[token]?.resolved(answer, of: name, on: self)
  }

  /// The epoll set, for a test that plays the kernel.
  var pollSet: Int32 { polls.descriptor.raw }

  /// Begins a session on a connection that a test made.
  package func adoptForTest(_ descriptor: consuming Descriptor, _ listener: Listener) {
    _ = house.admission.enter()
    now = clock.now
    adopt(descriptor, .unknown, listener)
  }
}

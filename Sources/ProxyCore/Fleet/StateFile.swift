/// What proxyd remembers over a restart: where users are, and what operators told about backends. One thread writes it, in
/// batches; who waits is told when it is there.
///
/// What is to be written is not kept here: a directory knows which of its users the file does not have right, and is asked.
/// So a file that can't be written costs nothing but the wait for it: answers come from memory meanwhile, and all that is
/// missing is written once it can be.

internal import Dispatch
internal import Synchronization

package final class StateFile: Sendable {
  /// Where it is.
  package let path: String
  /// What was kept about backends when it was opened.
  package let backends: [BackendRow]
  /// What is counted of it.
  package let meter = StateMeter()
  private let time: DirectoryTime
  private let patience: UInt64
  private let report: @Sendable (News) -> Void
  private let database: Mutex<StateDatabase?>
  private let backlog: Mutex<StateBacklog>
  private let signal = DispatchSemaphore(value: 0)
  private let ended = DispatchSemaphore(value: 0)
  private let trusted = Atomic(true)

  /// What is said to an operator.
  package enum News: Equatable, Sendable {
    /// It can't be written, and why; said once a minute at most.
    case trouble(String)
    /// All that was missing has been written.
    case complete
  }

  /// What nobody waits for is written within this time.
  private static let laziness = Timeouts.seconds(1)
  /// The log is brought into the file within this time: what a loss of power may cost.
  private static let checkpointPause = Timeouts.seconds(60)
  /// Between two attempts to write to a file that can't be.
  private static let retryPause = Timeouts.seconds(1)
  /// A batch that is not written by then is not waited for: a disk that hangs says nothing.
  package static let patience = Timeouts.seconds(2)
  private static let silence = "the disk does not answer"

  /// Opens the file and starts its thread. `report` is called on some thread.
  package init(
    _ path: String, time: DirectoryTime = .system, patience: UInt64 = StateFile.patience,
    report: @escaping @Sendable (News) -> Void
  ) throws(StateFileError) {
    self.path = path
    self.time = time
    self.patience = patience
    self.report = report
    let opened = try StateDatabase(path)
    do throws(SQLiteError) { backends = try opened.backends() } catch {
      throw StateFileError(path: path, problem: error.message)
    }
    database = Mutex(opened)
    backlog = Mutex(StateBacklog(backends))
    if let error = WorkerThread.start({ @Sendable in self.work() }) {
      throw StateFileError(path: path, problem: "no thread can be started for it: \(error)")
    }
  }

  /// What was kept about a backend when it was opened.
  func row(of backend: String) -> BackendRow? { backends.first { $0.name == backend } }

  /// Whether what is given to it is soon there; otherwise it is not worth waiting for.
  var isTrusted: Bool { trusted.load(ordering: .acquiring) }

  /// Why it is not trusted; nil if it is.
  package var lack: String? { backlog.withLock { $0.lack(silence: StateFile.silence) } }

  private func change<R: Sendable>(_ body: (inout StateBacklog) -> R) -> R {
    backlog.withLock { backlog in
      defer { trusted.store(backlog.isTrusted, ordering: .releasing) }
      return body(&backlog)
    }
  }

  /// Something has become due.
  private func wake(_ body: (inout StateBacklog) -> Void) {
    change(body)
    signal.signal()
  }

  /// Writes all there is, and gives the file up. Returns when that is done, or when the disk does not answer: however much
  /// there is, one batch after the other goes on.
  package func close() {
    wake { $0.close() }
    var batches: Int?
    while ended.wait(timeout: .now() + .nanoseconds(Int(patience))) != .success {
      let now = change { $0.batches }
      guard now != batches else { return }
      batches = now
    }
  }

  /// Keeps what an operator told about a backend. Nil when it is written, or why it is not yet: it will be, once it can.
  package func save(_ row: BackendRow) -> String? {
    let written = DispatchSemaphore(value: 0)
    if let trouble = change({ $0.add(row, written) }) { return trouble }
    signal.signal()
    let deadline = DispatchTime.now() + .nanoseconds(Int(patience))
    guard written.wait(timeout: deadline) == .success else { return StateFile.silence }
    return change { $0.lack(of: row) }
  }

  /// The same without a wait.
  func keep(_ row: BackendRow) {
    _ = change { $0.add(row, nil) }
    signal.signal()
  }

  // MARK: Users

  /// Gives all users of the keeper's pool to `body`, with member and stamp; those it returns false for are removed. The
  /// file is the keeper's from here on.
  func load(
    _ keeper: any StateKeeper, _ body: @Sendable (Span<UInt8>, Span<UInt8>, Int) -> Bool
  ) throws(StateFileError) {
    let pool = keeper.pool
    let problem = database.withLock { database -> String? in
      guard let database else { return "it is not open" }
      do throws(SQLiteError) {
        let gone = try database.load(pool, body)
        // If that can't be done now, the next start finds them again.
        try? database.remove(gone, of: pool)
      } catch { return error.message }
      return nil
    }
    if let problem { throw StateFileError(path: path, problem: problem) }
    change { $0.add(keeper) }
  }

  /// Removes users of pools other than these who were stamped before that second. Returns how many, by pool. Whom that can't
  /// be done for now the next start finds again.
  func forget(allBut pools: Set<String>, before second: Int) -> [String: Int] {
    database.withLock { database in
      guard let database, let known = try? database.pools() else { return [:] }
      var forgotten: [String: Int] = [:]
      for pool in known where !pools.contains(pool) {
        guard let gone = try? database.load(pool, { _, _, stamp in stamp >= second }), !gone.isEmpty else { continue }
        do throws(SQLiteError) { try database.remove(gone, of: pool) } catch { continue }
        forgotten[pool] = gone.count
      }
      return forgotten
    }
  }

  /// The user's row is not as it should be. `isUrgent`: somebody waits until it is. False if that is in vain.
  @discardableResult
  func write(_ user: String, of keeper: any StateKeeper, isUrgent: Bool) -> Bool {
    switch change({ $0.add(user, keeper, isUrgent: isUrgent) }) {
    case .refused: return false
    case .nothing: break
    case .signal: signal.signal()
    case .signalAndWatch(let batches):
      signal.signal()
      watch(batches)
    case .arm: time.after(StateFile.laziness) { [weak self] in self?.wake { $0.lazyIsNowDue() } }
    }
    return true
  }

  // MARK: Trouble

  /// Looks in a while whether batches go on.
  private func watch(_ batches: Int) {
    time.after(patience) { [weak self] in
      guard let self else { return }
      let wasTrusted = isTrusted
      switch change({ $0.look(batches) }) {
      case .idle: return
      case .goesOn(let batches): watch(batches)
      case .hangs(let batches):
        if wasTrusted { meter.stalls.add() }
        distrust(StateFile.silence)
        watch(batches)
      }
    }
  }

  /// Nobody is to wait for the file.
  private func distrust(_ why: String) {
    let now = time.now()
    if change({ $0.complain(at: now) }) { report(.trouble(why)) }
    for keeper in change({ $0.everybody }) { keeper.fileIsNotTrusted() }
  }

  // MARK: The thread

  private func work() {
    repeat {
      signal.wait()
      while turn() {}
    } while !change { $0.isClosed }
    database.withLock { database in
      try? database?.checkpoint(cutting: true)
      database = nil
    }
    ended.signal()
  }

  /// One batch. False if there is nothing to do for now.
  private func turn() -> Bool {
    let batch = backlog.withLock { $0.take() }
    // What it can't bring over stays in the log, and comes with the next one.
    if batch.checkpoints { database.withLock { try? $0?.checkpoint() } }
    guard !batch.isEmpty else { return batch.checkpoints }
    var written = batch.users.map { keeper, names in (keeper: keeper, rows: names.compactMap { keeper.row(of: $0) }) }
    var place: Int?
    if let (keeper, start) = batch.missing {
      place = start
      written.append((keeper, keeper.unwritten(&place, most: StateBacklog.batch)))
    }
    let rows = written.flatMap(\.rows)
    let isNeeded = !rows.isEmpty || !batch.backends.isEmpty || batch.isAttempt
    if isNeeded, let trouble = countedCommit(rows, batch.backends) {
      change { $0.fail(trouble) }
      distrust(trouble)
      for saver in batch.savers { saver.signal() }
      time.after(StateFile.retryPause) { [weak self] in self?.wake { $0.retryIsNowDue() } }
      return change { !$0.isClosed }
    }
    let (isComplete, arms) = backlog.withLock { backlog in
      defer { trusted.store(backlog.isTrusted, ordering: .releasing) }
      return backlog.succeed(batch, place: place, rows: rows.count)
    }
    for (keeper, rows) in written { keeper.wrote(rows) }
    for saver in batch.savers { saver.signal() }
    if isComplete { report(.complete) }
    if arms { time.after(StateFile.checkpointPause) { [weak self] in self?.wake { $0.checkpointIsNowDue() } } }
    return true
  }

  private func countedCommit(_ rows: [AffinityRow], _ backends: [BackendRow]) -> String? {
    let began = time.now()
    let trouble = commit(rows, backends)
    meter.times.record(time.now() - began)
    if trouble == nil {
      meter.rows.add(rows.count + backends.count)
      meter.batches.add()
    } else {
      meter.failures.add()
    }
    return trouble
  }

  /// Writes one transaction. Returns why it could not.
  private func commit(_ rows: [AffinityRow], _ backends: [BackendRow]) -> String? {
    enum Result { case written, failed(String), isNew }
    let result = database.withLock { database -> Result in
      // Removed, or replaced; or it was given up after an error of the disk.
      if let open = database, open.identity == nil || open.identity != FileIdentity(path) { database = nil }
      guard let open = database else {
        do throws(StateFileError) { database = try StateDatabase(path) } catch { return .failed(error.problem) }
        return .isNew
      }
      do throws(SQLiteError) { try open.write(rows, backends) } catch {
        // A full disk and a lock leave the file in order.
        if !error.isBusy && !error.isFull { database = nil }
        return .failed(error.message)
      }
      return .written
    }
    switch result {
    case .written: return nil
    case .failed(let why): return why
    case .isNew:
      change { $0.fileIsNew() }
      for keeper in change({ $0.everybody }) { keeper.fileIsNew() }
      return "it was opened anew, and all is written again"
    }
  }

  /// For tests: does something between two batches, which wait for it.
  func disturb(_ body: @Sendable (StateDatabase?) -> Void) { database.withLock { body($0) } }
}

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
  private let time: DirectoryTime
  private let report: @Sendable (News) -> Void
  private let database: Mutex<StateDatabase?>
  private let state: Mutex<State>
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

  /// Rows in a transaction. Each may touch a page of its own: with 4 KiB pages, 4 MiB of log.
  private static let batch = 1_000
  /// Rows after which the log is brought into the file: it stays below the size it is cut to.
  private static let checkpointRows = 4_000
  /// The same after this time: what a loss of power may cost.
  private static let checkpointPause = Timeouts.seconds(60)
  /// What nobody waits for is written within this time.
  private static let laziness = Timeouts.seconds(1)
  /// Between two attempts to write to a file that can't be.
  private static let retryPause = Timeouts.seconds(1)
  /// A batch that is not written by then is not waited for: a disk that hangs says nothing.
  private static let patience = Timeouts.seconds(2)
  private static let reportPause = Timeouts.seconds(60)

  private struct State {
    /// Users somebody waits for, and those nobody waits for.
    var urgent = Line()
    var lazy = Line()
    var lazyIsDue = false
    var lazyIsArmed = false
    /// Backends to be written, those the file has, and who waits for them.
    var backends: [String: BackendRow] = [:]
    var kept: [String: BackendRow] = [:]
    var savers: [DispatchSemaphore] = []
    var keepers: [Keeper] = []
    /// Why it can't be written; nil if it can.
    var trouble: String?
    var retryIsDue = false
    /// Where the search for what is missing has come to.
    var search: Search?
    var wasReported = false
    var lastReport: UInt64?
    var rows = 0
    var checkpointIsDue = false
    var checkpointIsArmed = false
    /// Batches so far, whether one is being written, and whether that is looked at.
    var batches = 0
    var isWriting = false
    var isWatched = false
    var isClosed = false
  }

  private struct Item: Sendable {
    let keeper: any StateKeeper
    let user: String
  }

  /// Who came first is written first.
  private struct Line {
    private var items: [Item] = []
    private var head = 0

    var isEmpty: Bool { head == items.count }

    mutating func add(_ item: Item) { items.append(item) }

    mutating func take(_ most: Int) -> ArraySlice<Item> {
      let taken = items[head..<min(items.count, head + most)]
      head = taken.endIndex
      // The storage is given back in one go.
      if isEmpty { self = Line() }
      return taken
    }
  }

  private struct Keeper: Sendable { weak var body: (any StateKeeper)? }

  private struct Search {
    var keeper = 0
    var place = 0
  }

  /// Opens the file and starts its thread. `report` is called on some thread.
  package init(
    _ path: String, time: DirectoryTime = .system, report: @escaping @Sendable (News) -> Void
  ) throws(StateFileError) {
    self.path = path
    self.time = time
    self.report = report
    let opened = try StateDatabase(path)
    do throws(SQLiteError) { backends = try opened.backends() } catch {
      throw StateFileError(path: path, problem: error.message)
    }
    database = Mutex(opened)
    var state = State()
    for row in backends { state.kept[row.name] = row }
    self.state = Mutex(state)
    if let error = WorkerThread.start({ @Sendable in self.work() }) {
      throw StateFileError(path: path, problem: "no thread can be started for it: \(error)")
    }
  }

  /// Whether what is given to it is soon there; otherwise it is not worth waiting for.
  var isTrusted: Bool { trusted.load(ordering: .acquiring) }

  /// Writes all there is, and gives the file up. Returns when that is done, or after `patience`.
  package func close() {
    state.withLock { $0.isClosed = true }
    signal.signal()
    _ = ended.wait(timeout: .now() + .nanoseconds(Int(StateFile.patience)))
  }

  // MARK: Backends

  /// Keeps what an operator told about a backend. Nil when it is written, or why it is not yet: it will be, once it can.
  package func save(_ row: BackendRow) -> String? {
    let written = DispatchSemaphore(value: 0)
    let trouble = state.withLock { state -> String? in
      if state.isClosed { return "the file is closed" }
      state.kept[row.name] = row
      state.backends[row.name] = row
      if state.trouble == nil { state.savers.append(written) }
      return state.trouble
    }
    if let trouble { return trouble }
    signal.signal()
    guard written.wait(timeout: .now() + .nanoseconds(Int(StateFile.patience))) == .success else {
      return "the disk does not answer"
    }
    return state.withLock { $0.backends[row.name] == row ? $0.trouble ?? "not yet" : nil }
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
        for start in stride(from: 0, to: gone.count, by: StateFile.batch) {
          let users = gone[start..<min(gone.count, start + StateFile.batch)]
          try? database.write(users.map { AffinityRow(pool: pool, user: $0, member: nil, stamp: 0) }, [])
        }
        if !gone.isEmpty { try? database.checkpoint() }
      } catch { return error.message }
      return nil
    }
    if let problem { throw StateFileError(path: path, problem: problem) }
    state.withLock { state in
      state.keepers.removeAll { $0.body == nil }
      state.keepers.append(Keeper(body: keeper))
    }
  }

  /// The user's row is not as it should be. `isUrgent`: somebody waits until it is.
  func write(_ user: String, of keeper: any StateKeeper, isUrgent: Bool) {
    enum Next { case nothing, signal, signalAndWatch(Int), arm }
    let next = state.withLock { state -> Next in
      // What is missing is searched for once the file can be written.
      guard state.trouble == nil, !state.isClosed else { return .nothing }
      guard isUrgent else {
        state.lazy.add(Item(keeper: keeper, user: user))
        if state.lazyIsArmed { return .nothing }
        state.lazyIsArmed = true
        return .arm
      }
      state.urgent.add(Item(keeper: keeper, user: user))
      guard !state.isWatched else { return .signal }
      state.isWatched = true
      return .signalAndWatch(state.batches)
    }
    switch next {
    case .nothing: return
    case .signal: signal.signal()
    case .signalAndWatch(let batches):
      signal.signal()
      watch(batches)
    case .arm:
      time.after(StateFile.laziness) { [weak self] in
        self?.wake {
          $0.lazyIsArmed = false
          $0.lazyIsDue = true
        }
      }
    }
  }

  private func wake(_ change: (inout State) -> Void) {
    state.withLock { change(&$0) }
    signal.signal()
  }

  /// Looks whether batches go on being written.
  private func watch(_ batches: Int) {
    time.after(StateFile.patience) { [weak self] in self?.look(batches) }
  }

  private func look(_ batches: Int) {
    let (again, stalled) = state.withLock { state -> (Int?, Bool) in
      guard state.isWriting || !state.urgent.isEmpty, state.trouble == nil, !state.isClosed else {
        state.isWatched = false
        return (nil, false)
      }
      guard state.batches == batches else { return (state.batches, false) }
      trusted.store(false, ordering: .releasing)
      return (batches, true)
    }
    if stalled { distrust("the disk does not answer") }
    if let again { watch(again) }
  }

  /// Nobody is to wait for the file.
  private func distrust(_ why: String) {
    let now = time.now()
    let (keepers, isNews) = state.withLock { state -> ([Keeper], Bool) in
      let isNews = state.lastReport.map { now >= $0 + StateFile.reportPause } ?? true
      if isNews { state.lastReport = now }
      state.wasReported = state.wasReported || isNews
      return (state.keepers, isNews)
    }
    if isNews { report(.trouble(why)) }
    for keeper in keepers { keeper.body?.fileIsNotTrusted() }
  }

  // MARK: The thread

  private func work() {
    while true {
      signal.wait()
      while turn() {}
      guard state.withLock({ $0.isClosed }) else { continue }
      database.withLock { database in
        try? database?.checkpoint(cutting: true)
        database = nil
      }
      ended.signal()
      return
    }
  }

  private struct Task {
    var items: [Item] = []
    var search: Search?
    var backends: [BackendRow] = []
    var savers: [DispatchSemaphore] = []
    var keepers: [Keeper] = []
    var isAttempt = false
    var checkpoints = false

    var isEmpty: Bool { items.isEmpty && search == nil && backends.isEmpty && !isAttempt }
  }

  /// What comes next: users who are waited for, backends, then what nobody waits for.
  private func take() -> Task {
    state.withLock { state in
      var task = Task(keepers: state.keepers)
      if state.trouble != nil {
        guard state.retryIsDue || state.isClosed else { return task }
        state.retryIsDue = false
        task.isAttempt = true
        task.search = Search()
      } else {
        task.items = Array(state.urgent.take(StateFile.batch))
        if state.lazyIsDue || state.isClosed {
          task.items += state.lazy.take(StateFile.batch - task.items.count)
          if state.lazy.isEmpty { state.lazyIsDue = false }
        }
        if task.items.isEmpty { task.search = state.search }
      }
      task.backends = Array(state.backends.values)
      swap(&task.savers, &state.savers)
      // With much to do, it can't wait for ever.
      if task.isEmpty ? state.checkpointIsDue : state.rows >= StateFile.checkpointRows * 4 {
        state.checkpointIsDue = false
        state.rows = 0
        task.checkpoints = true
      }
      state.isWriting = !task.isEmpty
      return task
    }
  }

  /// One batch. False if there is nothing to do for now.
  private func turn() -> Bool {
    let task = take()
    // What it can't bring over stays in the log, and comes with the next one.
    if task.checkpoints { database.withLock { try? $0?.checkpoint() } }
    guard !task.isEmpty else { return task.checkpoints }
    var search = task.search
    var missing: [(keeper: any StateKeeper, rows: [AffinityRow])] = []
    var count = 0
    if search != nil {
      missing = StateFile.missing(&search, task.keepers)
      count = missing.reduce(0) { $0 + $1.rows.count }
    } else {
      for (_, items) in Dictionary(grouping: task.items, by: { ObjectIdentifier($0.keeper) }) {
        guard let keeper = items.first?.keeper else { continue }
        let rows = Set(items.map(\.user)).compactMap { keeper.row(of: $0) }
        missing.append((keeper, rows))
        count += rows.count
      }
    }
    // An attempt has to write something, if only the lock for it.
    if count > 0 || !task.backends.isEmpty || task.isAttempt,
      let trouble = commit(missing.flatMap(\.rows), task.backends)
    {
      fail(trouble, task)
      return state.withLock { $0.isClosed } ? false : true
    }
    succeed(task, search, count)
    for (keeper, rows) in missing { keeper.wrote(rows) }
    for saver in task.savers { saver.signal() }
    return true
  }

  /// The next rows that are not as they should be; `search` is nil when all was searched.
  private static func missing(
    _ search: inout Search?, _ keepers: [Keeper]
  ) -> [(keeper: any StateKeeper, rows: [AffinityRow])] {
    while let found = search {
      guard found.keeper < keepers.count else {
        search = nil
        break
      }
      var place = Optional(found.place)
      let keeper = keepers[found.keeper].body
      let rows = keeper?.unwritten(&place, most: batch) ?? []
      search = place.map { Search(keeper: found.keeper, place: $0) } ?? Search(keeper: found.keeper + 1)
      if let keeper, !rows.isEmpty { return [(keeper, rows)] }
    }
    return []
  }

  /// Writes one transaction. Returns why it could not.
  private func commit(_ rows: [AffinityRow], _ backends: [BackendRow]) -> String? {
    database.withLock { database -> String? in
      // Removed, or replaced; or it was given up after an error of the disk.
      if let open = database, open.identity == nil || open.identity != FileIdentity(path) { database = nil }
      if database == nil {
        do throws(StateFileError) { database = try StateDatabase(path) } catch { return error.problem }
        let keepers = state.withLock { state in
          state.backends = state.kept
          return state.keepers
        }
        for keeper in keepers { keeper.body?.fileIsNew() }
        return "it was opened anew, and all is written again"
      }
      do throws(SQLiteError) { try database?.write(rows, backends) } catch {
        // A full disk and a lock leave the file in order.
        if !error.isPassing { database = nil }
        return error.message
      }
      return nil
    }
  }

  private func fail(_ trouble: String, _ task: Task) {
    state.withLock { state in
      state.trouble = trouble
      state.isWriting = false
      state.batches += 1
      state.search = nil
      state.urgent = Line()
      state.lazy = Line()
      state.lazyIsDue = false
      trusted.store(false, ordering: .releasing)
    }
    distrust(trouble)
    for saver in task.savers { saver.signal() }
    time.after(StateFile.retryPause) { [weak self] in self?.wake { $0.retryIsDue = true } }
  }

  private func succeed(_ task: Task, _ search: Search?, _ count: Int) {
    let (isComplete, arms) = state.withLock { state -> (Bool, Bool) in
      for row in task.backends where state.backends[row.name] == row { state.backends[row.name] = nil }
      state.batches += 1
      state.isWriting = false
      if task.isAttempt {
        // From here on users are written as they come; those who came before are searched for, from the beginning.
        state.trouble = nil
        state.search = Search()
      } else if task.search != nil {
        state.search = search
      }
      trusted.store(true, ordering: .releasing)
      let isComplete = state.search == nil && state.wasReported
      if isComplete { state.wasReported = false }
      state.rows += count
      if state.rows >= StateFile.checkpointRows { state.checkpointIsDue = true }
      let arms = count > 0 && !state.checkpointIsArmed
      if arms { state.checkpointIsArmed = true }
      return (isComplete, arms)
    }
    if isComplete { report(.complete) }
    if arms {
      time.after(StateFile.checkpointPause) { [weak self] in
        self?.wake {
          $0.checkpointIsArmed = false
          $0.checkpointIsDue = $0.rows > 0
        }
      }
    }
  }

  /// For tests: runs a statement between two batches.
  func disturb(_ sql: String) throws(SQLiteError) {
    let failure = database.withLock { database -> SQLiteError? in
      do throws(SQLiteError) { try database?.run(sql) } catch { return error }
      return nil
    }
    if let failure { throw failure }
  }
}

/// Who knows what the file's rows of a pool have to be. Called on some thread, under no lock of the file's.
protocol StateKeeper: AnyObject, Sendable {
  /// The pool.
  var pool: String { get }
  /// The user's row as it has to be; nil if the file has it so.
  func row(of user: String) -> AffinityRow?
  /// The file has these rows.
  func wrote(_ rows: [AffinityRow])
  /// Rows the file does not have right, some at least if there are any, from `place` on, which begins with 0; nil when all
  /// places were looked at.
  func unwritten(_ place: inout Int?, most: Int) -> [AffinityRow]
  /// Nobody is to wait for the file any more.
  func fileIsNotTrusted()
  /// The file has nothing.
  func fileIsNew()
}

extension SQLiteError {
  /// Whether the connection is good for another attempt.
  fileprivate var isPassing: Bool { isBusy || isFull }
}

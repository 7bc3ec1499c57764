/// Decides what the state file's thread writes next, and whether it is worth waiting for.

internal import Dispatch

struct StateBacklog {
  /// Users somebody waits for, and those nobody waits for.
  private var urgent = Line()
  private var lazy = Line()
  private var lazyIsDue = false
  private var lazyIsArmed = false
  /// Backends to be written, those the file is to have in all, and who waits.
  private var backends: [String: BackendRow] = [:]
  private var kept: [String: BackendRow]
  private var savers: [DispatchSemaphore] = []
  private var keepers: [Keeper] = []
  /// Why the file can't be written; nil if it can.
  private(set) var trouble: String?
  private var retryIsDue = false
  /// Where the search for what is missing has come to; nil if nothing is missing.
  private var search: Search?
  private var wasReported = false
  private var lastReport: UInt64?
  /// Rows since the last checkpoint.
  private var rows = 0
  private var checkpointIsDue = false
  private var checkpointIsArmed = false
  /// Batches so far, and what is the case with the one at hand.
  private(set) var batches = 0
  private var isWriting = false
  private var isWatched = false
  private var isStalled = false
  private(set) var isClosed = false

  /// Rows in a transaction. Each may touch a page of its own: with 4 KiB pages, 4 MiB of log.
  static let batch = 1_000
  /// Rows after which the log is brought into the file when there is time, and when there is none.
  private static let checkpointRows = 4_000
  private static let mostRows = 16_000
  /// At least so long between two complaints, in nanoseconds.
  private static let reportPause = Timeouts.seconds(60)

  private struct Item: Sendable {
    let keeper: any StateKeeper
    let user: String
  }

  private struct Keeper: Sendable { weak var body: (any StateKeeper)? }

  private struct Search {
    var keeper = 0
    var place: Int? = 0
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

  /// Nothing to be written, of a file that has these backends.
  init(_ backends: [BackendRow]) {
    kept = Dictionary(backends.map { ($0.name, $0) }, uniquingKeysWith: { _, last in last })
  }

  /// Whether what is added is soon written.
  var isTrusted: Bool { trouble == nil && !isStalled && !isClosed }

  /// Why it is not; nil if it is. A disk that says nothing is told in the file's words.
  func lack(silence: String) -> String? {
    if isClosed { return "it is closed" }
    return trouble ?? (isStalled ? silence : nil)
  }

  /// Those whose rows the file has.
  var everybody: [any StateKeeper] { keepers.compactMap(\.body) }

  // MARK: What is to be written

  /// What has to be done for what was added.
  enum Added {
    /// Nothing: it can't be written now, and is searched for once it can.
    case refused
    case nothing
    case signal
    /// The thread has to be signalled, and it has to be looked whether batches go on from this one.
    case signalAndWatch(Int)
    /// `lazyIsNowDue` has to be said in a while.
    case arm
  }

  /// A user's row is not as it should be.
  mutating func add(_ user: String, _ keeper: any StateKeeper, isUrgent: Bool) -> Added {
    guard trouble == nil, !isClosed else { return .refused }
    guard isUrgent else {
      lazy.add(Item(keeper: keeper, user: user))
      defer { lazyIsArmed = true }
      return lazyIsArmed ? .nothing : .arm
    }
    urgent.add(Item(keeper: keeper, user: user))
    defer { isWatched = true }
    return isWatched ? .signal : .signalAndWatch(batches)
  }

  mutating func lazyIsNowDue() {
    lazyIsArmed = false
    lazyIsDue = true
  }

  /// An operator's word is to be kept. Returns why nobody is to wait for that.
  mutating func add(_ row: BackendRow, _ saver: DispatchSemaphore?) -> String? {
    if isClosed { return "the file is closed" }
    kept[row.name] = row
    backends[row.name] = row
    if trouble == nil, let saver { savers.append(saver) }
    return trouble
  }

  /// Why that row is not written; nil if it is.
  func lack(of row: BackendRow) -> String? { backends[row.name] == row ? trouble ?? "not yet" : nil }

  /// The file is that keeper's too.
  mutating func add(_ keeper: any StateKeeper) {
    keepers.removeAll { $0.body == nil }
    keepers.append(Keeper(body: keeper))
    // Places in the list have changed.
    if search != nil { search = Search() }
  }

  mutating func close() { isClosed = true }

  // MARK: Batches

  /// What the thread does next.
  struct Batch {
    /// Users by their keepers.
    var users: [(keeper: any StateKeeper, names: [String])] = []
    /// Whose missing users come next, from which place.
    var missing: (keeper: any StateKeeper, place: Int)?
    var backends: [BackendRow] = []
    var savers: [DispatchSemaphore] = []
    /// Something has to be written, if only to see whether it can be.
    var isAttempt = false
    /// The log has to be brought into the file before.
    var checkpoints = false

    var isEmpty: Bool { users.isEmpty && missing == nil && backends.isEmpty && !isAttempt }
  }

  /// What comes next: users who are waited for, and backends; what nobody waits for; what was missed.
  mutating func take() -> Batch {
    var batch = Batch()
    if trouble != nil {
      guard retryIsDue || isClosed else { return batch }
      retryIsDue = false
      batch.isAttempt = true
      search = Search()
    } else {
      var items = urgent.take(StateBacklog.batch)
      if lazyIsDue || isClosed {
        items += lazy.take(StateBacklog.batch - items.count)
        if lazy.isEmpty { lazyIsDue = false }
      }
      for (_, items) in Dictionary(grouping: items, by: { ObjectIdentifier($0.keeper) }) {
        if let keeper = items.first?.keeper {
          batch.users.append((keeper, Set(items.map { UserKey($0.user) }).map(\.name)))
        }
      }
    }
    if batch.users.isEmpty { batch.missing = nextMissing() }
    batch.backends = Array(backends.values)
    swap(&batch.savers, &savers)
    if batch.isEmpty ? checkpointIsDue : rows >= StateBacklog.mostRows {
      checkpointIsDue = false
      rows = 0
      batch.checkpoints = true
    }
    isWriting = !batch.isEmpty
    return batch
  }

  /// Where the search goes on.
  private mutating func nextMissing() -> (keeper: any StateKeeper, place: Int)? {
    while let found = search, found.keeper < keepers.count {
      if let place = found.place, let keeper = keepers[found.keeper].body { return (keeper, place) }
      search = Search(keeper: found.keeper + 1)
    }
    search = nil
    return nil
  }

  /// A batch is written, of so many rows; `place` is where its search has come to. Returns whether nothing is missing any
  /// more that was complained of, and whether `checkpointIsNowDue` has to be said in a while.
  mutating func succeed(_ batch: Batch, place: Int?, rows count: Int) -> (isComplete: Bool, arms: Bool) {
    for row in batch.backends where backends[row.name] == row { backends[row.name] = nil }
    batches += 1
    isWriting = false
    if batch.isAttempt || isStalled {
      // From here on users are written as they come; those who came before are searched for, from the beginning.
      trouble = nil
      isStalled = false
      search = Search()
    } else if batch.missing != nil {
      search?.place = place
    }
    // At the end there is none any more.
    _ = nextMissing()
    rows += count
    if rows >= StateBacklog.checkpointRows { checkpointIsDue = true }
    let arms = count > 0 && !checkpointIsArmed
    if arms { checkpointIsArmed = true }
    let isComplete = search == nil && wasReported
    if isComplete { wasReported = false }
    return (isComplete, arms)
  }

  mutating func checkpointIsNowDue() {
    checkpointIsArmed = false
    checkpointIsDue = rows > 0
  }

  // MARK: Trouble

  /// A batch can't be written. `retryIsNowDue` has to be said in a while.
  mutating func fail(_ why: String) {
    trouble = why
    batches += 1
    isWriting = false
    isStalled = false
    search = nil
    urgent = Line()
    lazy = Line()
    lazyIsDue = false
  }

  mutating func retryIsNowDue() { retryIsDue = true }

  /// The file has nothing any more.
  mutating func fileIsNew() { backends = kept }

  /// What is to be said about trouble: nil if it was said just before.
  mutating func complain(at now: UInt64) -> Bool {
    if let lastReport, now < lastReport + StateBacklog.reportPause { return false }
    lastReport = now
    wasReported = true
    return true
  }

  /// How batches go on.
  enum Progress {
    /// There is nothing to wait for.
    case idle
    case goesOn(Int)
    /// The one of the last look is still being written.
    case hangs(Int)
  }

  /// Looks whether batches went on from that one.
  mutating func look(_ last: Int) -> Progress {
    guard isWriting || !urgent.isEmpty, trouble == nil, !isClosed else {
      isWatched = false
      return .idle
    }
    guard batches == last else { return .goesOn(batches) }
    isStalled = true
    return .hangs(batches)
  }
}

/// Who knows what the file's rows of a pool have to be. Called on some thread.
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

/// Remembers where users are, for one proxyd: in memory, and in the state file if they are to be remembered for long.
///
/// A place is in the file before it is told; one that does not change is told at once, and only its stamp is written, some
/// time. Between two members lies a pause. A question for a user who has not departed waits until then: so whoever
/// asks has the user alone.

internal import Protocols
internal import Synchronization

package final class LocalDirectory: UserDirectory {
  /// The pool whose users these are.
  package let pool: String
  let shards: [Shard]
  let names = MemberNames()
  let file: StateFile?
  let time: DirectoryTime
  /// When it was made, in nanoseconds of the clock.
  private let origin: UInt64
  /// When places are told, in nanoseconds of the clock.
  private let opens: UInt64
  private let recalled = Mutex<Recaller?>(nil)
  let chores: Mutex<DirectoryChores>
  /// Whether the next chores are on their way.
  let isArmed = Atomic(false)

  /// Parts, each with its lock: at a million users, 16,000 behind each.
  static let shardCount = 64

  final class Shard: Sendable {
    let state: Mutex<DirectoryShard>
    init(_ terms: DirectoryTerms) { state = Mutex(DirectoryShard(terms)) }
  }

  /// The directory of a pool. With a file, and the kind that is remembered, the users in it are known from the start.
  /// `began`: when this process did, in nanoseconds of the clock, if there may have been one before it; where its users were,
  /// only a file knows.
  package init(
    pool: String, _ settings: AffinitySettings, file: StateFile? = nil, time: DirectoryTime = .system,
    began: UInt64? = nil
  ) throws(StateFileError) {
    self.pool = pool
    self.time = time
    let terms = DirectoryTerms(settings, hasFile: file != nil)
    self.file = terms.hasFile ? file : nil
    origin = time.now()
    switch settings.kind {
    case .hash: opens = began.map { $0 + settings.pause } ?? 0
    case .table: opens = 0
    }
    shards = (0..<LocalDirectory.shardCount).map { _ in Shard(terms) }
    chores = Mutex(DirectoryChores(terms, rebalance: settings.rebalance))
    try restore(terms)
  }

  private func restore(_ terms: DirectoryTerms) throws(StateFileError) {
    guard let file else { return }
    let now = moment
    let last = Mutex<(name: [UInt8], number: UInt16)?>(nil)
    try file.load(self) { user, member, stamp in
      // A stamp of the time to come was written before a clock was put right.
      let stamp = UInt32(clamping: min(max(0, stamp), Int(now.seconds)))
      guard user.count <= UserTable.longestName, now.seconds - stamp < terms.expiry else { return false }
      // Neighbours are at few members, and most often at the last one's.
      let number = last.withLock { last -> UInt16? in
        if let last, isEqual(last.name, member) { return last.number }
        let name = Array(copying: member)
        let number = names.number(String(decoding: name, as: UTF8.self))
        last = number.map { (name, $0) }
        return number
      }
      guard let number else { return false }
      let key = UserKey(String(decoding: Array(copying: user), as: UTF8.self))
      shards[key.shard].state.withLock { $0.restore(key, number, stamp: stamp, at: now) }
      return true
    }
    arm()
  }

  /// Goes by other times from here on. The kind stays what it is.
  package func adopt(_ settings: AffinitySettings) {
    var settings = settings
    for shard in shards {
      shard.state.withLock { state in
        settings.kind = state.terms.kind
        state.terms = DirectoryTerms(settings, hasFile: state.terms.hasFile)
      }
    }
    let terms = DirectoryTerms(settings, hasFile: file != nil)
    chores.withLock { $0.adopt(terms, rebalance: settings.rebalance) }
    arm()
  }

  var moment: Moment {
    let elapsed = time.now() &- origin
    return Moment(seconds: UInt32(clamping: time.wall()), nanoseconds: elapsed)
  }

  // MARK: UserDirectory

  /// Where the user's sessions go from now on.
  package func locate(
    _ user: String, _ question: PlaceQuestion, later: @escaping @Sendable (PlaceAnswer) -> Void
  ) -> PlaceAnswer? {
    guard user.utf8.count <= UserTable.longestName else { return .failed("the name is too long") }
    let rest = untilOpen
    guard rest == 0 else {
      time.after(rest) { [weak self] in
        if let answer = self?.locate(user, question, later: later) { later(answer) }
      }
      return nil
    }
    let key = UserKey(user)
    let waiter = DirectoryShard.Waiter(question, later)
    return answer(key, question) { known in
      shards[key.shard].state.withLock {
        $0.arrive(key, waiter, known, at: moment, waitsForFile: file?.isTrusted ?? false)
      }
    }
  }

  /// The pause between the members of the last process and ours, as long as it lasts.
  private var untilOpen: UInt64 {
    guard opens > 0 else { return 0 }
    let now = time.now()
    return now < opens ? opens - now : 0
  }

  /// Goes on with whoever waits for the user, as far as it goes.
  func resume(_ user: String) {
    let key = UserKey(user)
    while let waiter = shards[key.shard].state.withLock({ $0.first(key) }) {
      let answer = answer(key, waiter.question) { known in
        shards[key.shard].state.withLock {
          $0.goOn(key, waiter.number, known, at: moment, waitsForFile: file?.isTrusted ?? false)
        }
      }
      guard let answer else { return }
      waiter.later(answer)
    }
  }

  /// Takes steps until there is an answer, or something to wait for: then nil, and that is seen to.
  private func answer(
    _ key: UserKey, _ question: PlaceQuestion,
    _ next: (UserRecord.Known) -> (step: UserRecord.Step, isNews: Bool)?
  ) -> PlaceAnswer? {
    var known = UserRecord.Known()
    while true {
      guard let (step, isNews) = next(known) else { return nil }
      switch step {
      case .ask(let member):
        known.verdict = UserRecord.Verdict(member: member, accepts: question.accepts(names[member]))
      case .choose:
        // A name for which there is no number can't be had: 65,535 have been known. Nowhere takes the waiter out of the line.
        known.preferred = question.preferred().flatMap { names.number($0) }.map { .member($0) } ?? .nobody
      case .at(let member):
        arm()
        if isNews { file?.write(key.name, of: self, isUrgent: false) }
        return .at(names[member])
      case .nowhere: return .nowhere
      case .pause(let milliseconds):
        time.after(Timeouts.milliseconds(UInt64(milliseconds))) { [weak self, name = key.name] in self?.resume(name) }
        file?.write(key.name, of: self, isUrgent: true)
        arm()
        return nil
      case .file:
        arm()
        // Trouble that came between the look and this call has told everybody else already.
        if file?.write(key.name, of: self, isUrgent: true) == false { resume(key.name) }
        return nil
      case .departure: return nil
      }
    }
  }

  /// The user's last session here has ended.
  package func depart(_ user: String, wasThere: Bool) {
    let key = UserKey(user)
    run(shards[key.shard].state.withLock { $0.depart(key, wasThere: wasThere, at: moment) }, user)
  }

  /// Where the user is to be from now on.
  package func move(_ user: String, to member: String) {
    guard user.utf8.count <= UserTable.longestName, let number = names.number(member) else { return }
    let key = UserKey(user)
    run(shards[key.shard].state.withLock { $0.move(key, to: number, at: moment) }, user)
    arm()
  }

  /// Takes over what another directory knew, as `affinity load` does. False if it is too old.
  package func adopt(_ entry: DirectoryEntry) -> Bool {
    guard entry.user.utf8.count <= UserTable.longestName, let number = names.number(entry.member) else { return false }
    let now = moment
    let key = UserKey(entry.user)
    let errand = shards[key.shard].state.withLock { state -> DirectoryShard.Errand? in
      let stamp = entry.expires.map { max(0, $0) - Int(state.terms.expiry) } ?? Int(now.seconds)
      guard stamp > Int(now.seconds) - Int(state.terms.expiry) else { return nil }
      return state.adopt(key, to: number, stamp: UInt32(clamping: stamp), at: now)
    }
    guard let errand else { return false }
    run(errand, entry.user)
    arm()
    return true
  }

  /// Forgets a user; false if the user is not known.
  package func forget(_ user: String) -> Bool {
    let key = UserKey(user)
    guard let errand = shards[key.shard].state.withLock({ $0.forget(key, at: moment) }) else { return false }
    run(errand, user)
    return true
  }

  /// What is known of a user.
  package func lookup(_ user: String) -> DirectoryEntry? {
    let key = UserKey(user)
    let now = moment
    let found = shards[key.shard].state.withLock { state in
      state.record(key).flatMap { $0.isRemembered(at: now, state.terms) ? ($0, state.terms) : nil }
    }
    return found.map { entry(user, $0, $1) }
  }

  private func entry(_ user: String, _ record: UserRecord, _ terms: DirectoryTerms) -> DirectoryEntry {
    let isHere = !record.marks.isDisjoint(with: [.here, .awaited])
    return DirectoryEntry(
      user: user, member: names[record.member], expires: isHere ? nil : Int(record.stamp) + Int(terms.lifetime(record)))
  }

  /// All that is known, in portions. A user whose neighbour is forgotten meanwhile may be given twice, none is left out.
  package func forEach(_ body: ([DirectoryEntry]) -> Bool) {
    for shard in shards {
      var place: Int?
      repeat {
        let now = moment
        let (users, next, terms) = shard.state.withLock { state in
          let portion = state.portion(from: place, most: LocalDirectory.portion) {
            $0.isRemembered(at: now, state.terms)
          }
          return (portion.users, portion.next, state.terms)
        }
        place = next
        if !users.isEmpty, !body(users.map { entry($0.name, $0.record, terms) }) { return }
      } while place != nil
    }
  }

  /// Users looked at in one go, under a lock: a tenth of a millisecond.
  static let portion = 1_000

  /// Users remembered.
  package var count: Int { shards.reduce(0) { $0 + $1.state.withLock { $0.placed } } }

  /// Answers up to now that had to wait for the pause between two members.
  package var pauses: Int { shards.reduce(0) { $0 + $1.state.withLock { $0.pauses } } }

  /// Sets who is asked to end a user's sessions here.
  package func onRecall(_ body: @escaping @Sendable (String) -> Void) {
    recalled.withLock { $0 = Recaller(body: body) }
  }

  /// Not a closure by itself: see `House.EmptyNotice`.
  private struct Recaller {
    let body: @Sendable (String) -> Void
  }

  /// Whether the file has something to learn yet.
  package var isUnwritten: Bool { shards.contains { $0.state.withLock { !$0.unwritten(most: 1).isEmpty } } }

  /// Bytes the users take.
  package var memory: Int { shards.reduce(0) { $0 + $1.state.withLock { $0.table.memory } } }

  /// Does what a change has left to be done.
  func run(_ errand: DirectoryShard.Errand, _ user: String) {
    if errand.contains(.write) { file?.write(user, of: self, isUrgent: false) }
    if errand.contains(.recall) { recalled.withLock { $0 }?.body(user) }
    if errand.contains(.resume) { resume(user) }
  }
}

// MARK: - The file

extension LocalDirectory: StateKeeper {
  func row(of user: String) -> AffinityRow? {
    let key = UserKey(user)
    guard let record = shards[key.shard].state.withLock({ $0.record(key) }), record.isUnwritten else { return nil }
    return row(user, record)
  }

  private func row(_ user: String, _ record: UserRecord) -> AffinityRow {
    AffinityRow(
      pool: pool, user: user, member: record.member == UserRecord.nobody ? nil : names[record.member],
      stamp: record.stamp)
  }

  func wrote(_ rows: [AffinityRow]) {
    let now = moment
    for row in rows {
      let key = UserKey(row.user)
      // Its number was asked for before.
      guard let member = row.member.map({ names.number($0) }) ?? UserRecord.nobody else { continue }
      run(shards[key.shard].state.withLock { $0.wrote(key, member, stamp: row.stamp, at: now) }, row.user)
    }
  }

  func unwritten(_ place: inout Int?, most: Int) -> [AffinityRow] {
    while let shard = place {
      guard shard < shards.count else {
        place = nil
        break
      }
      let users = shards[shard].state.withLock { $0.unwritten(most: most) }
      if users.count < most { place = shard + 1 }
      if !users.isEmpty { return users.map { row($0.name, $0.record) } }
    }
    return []
  }

  func fileIsNotTrusted() {
    for shard in shards {
      for user in shard.state.withLock({ $0.awaited }) { resume(user) }
    }
  }

  func fileIsNew() { for shard in shards { shard.state.withLock { $0.fileIsNew() } } }
}

extension DirectoryTerms {
  /// Seconds from the stamp on that a user without sessions is remembered.
  fileprivate func lifetime(_ record: UserRecord) -> UInt32 {
    switch kind {
    case .hash where !record.marks.contains(.moved): pause / 1_000
    case .hash, .table: expiry
    }
  }
}

private func isEqual(_ bytes: [UInt8], _ span: Span<UInt8>) -> Bool {
  guard bytes.count == span.count else { return false }
  for index in span.indices where bytes[index] != span[index] { return false }
  return true
}

extension Array {
  fileprivate init(copying span: Span<Element>) where Element == UInt8 {
    self = []
    reserveCapacity(span.count)
    for index in span.indices { append(span[index]) }
  }
}

/// A part of a directory's users, with who waits for an answer: under a lock of its own, so that neighbours are few and no
/// pause is long.

internal import Protocols

struct DirectoryShard {
  private(set) var table = UserTable()
  private var waiting: [[UInt8]: [Waiter]] = [:]
  private var lastWaiter: UInt64 = 0
  /// Users that have a place.
  private(set) var placed = 0
  /// Waiters up to now that had to wait for a pause, each once.
  private(set) var pauses = 0
  var terms: DirectoryTerms

  /// Who waits for an answer.
  struct Waiter: Sendable {
    fileprivate(set) var number: UInt64 = 0
    fileprivate var wasPaused = false
    let question: PlaceQuestion
    let later: @Sendable (PlaceAnswer) -> Void

    init(_ question: PlaceQuestion, _ later: @escaping @Sendable (PlaceAnswer) -> Void) {
      self.question = question
      self.later = later
    }
  }

  /// What has to be done about a user when the lock is given back.
  struct Errand: OptionSet {
    let rawValue: UInt8

    /// The file has to be told.
    static let write = Errand(rawValue: 1 << 0)
    /// Somebody waits who may be answered now.
    static let resume = Errand(rawValue: 1 << 1)
    /// The user's sessions have to end.
    static let recall = Errand(rawValue: 1 << 2)
  }

  /// No users.
  init(_ terms: DirectoryTerms) { self.terms = terms }

  // MARK: Placing

  /// Somebody asks for a place. If that takes time, the waiter is kept. `isNews`: the file has to be told, some time.
  mutating func arrive(
    _ user: UserKey, _ waiter: Waiter, _ known: UserRecord.Known, at now: Moment, waitsForFile: Bool
  ) -> (step: UserRecord.Step, isNews: Bool) {
    let position = find(user)
    var record = position.map { table[$0] } ?? UserRecord()
    let wasUnwritten = record.isUnwritten
    var step = UserRecord.Step.departure
    if !record.marks.contains(.awaited) {
      step = record.place(known, at: now, terms, waitsForFile: waitsForFile)
    }
    switch step {
    case .ask, .choose, .nowhere: break
    case .at: store(user, position, record)
    case .departure, .pause, .file:
      record.marks.insert(.awaited)
      store(user, position, record)
      var waiter = waiter
      lastWaiter += 1
      waiter.number = lastWaiter
      if case .pause = step {
        waiter.wasPaused = true
        pauses += 1
      }
      waiting[user.bytes, default: []].append(waiter)
    }
    return (step, record.isUnwritten && !wasUnwritten)
  }

  /// Who waits for the user first.
  func first(_ user: UserKey) -> Waiter? { waiting[user.bytes]?.first }

  /// Goes on with a waiter; nil if that is not the first one any more.
  mutating func goOn(
    _ user: UserKey, _ waiter: UInt64, _ known: UserRecord.Known, at now: Moment, waitsForFile: Bool
  ) -> (step: UserRecord.Step, isNews: Bool)? {
    guard waiting[user.bytes]?.first?.number == waiter, let position = find(user) else { return nil }
    var record = table[position]
    let wasUnwritten = record.isUnwritten
    let step = record.place(known, at: now, terms, waitsForFile: waitsForFile)
    switch step {
    case .ask, .choose: return (step, false)
    case .departure, .file: break
    case .pause:
      // What comes meanwhile, such as the file's word, has it look again how long the pause is.
      if waiting[user.bytes]?.first?.wasPaused == false {
        waiting[user.bytes]?[0].wasPaused = true
        pauses += 1
      }
    case .at, .nowhere:
      waiting[user.bytes]?.removeFirst()
      if waiting[user.bytes]?.isEmpty ?? true {
        waiting[user.bytes] = nil
        record.marks.remove(.awaited)
      }
    }
    store(user, position, record)
    removeIfDone(position, at: now)
    return (step, record.isUnwritten && !wasUnwritten)
  }

  /// Everybody who is waited for.
  var awaited: [String] { waiting.keys.map { String(decoding: $0, as: UTF8.self) } }

  // MARK: Changes

  /// The user's last session is gone.
  mutating func depart(_ user: UserKey, wasThere: Bool, at now: Moment) -> Errand {
    change(user, at: now) { record, terms in
      // A departure nobody has arrived for: a mistake of the caller's that does no harm.
      guard record.marks.contains(.here) else { return [] }
      record.depart(wasThere: wasThere, at: now, terms)
      return record.marks.contains(.awaited) ? .resume : []
    } ?? []
  }

  /// An operator wants the user at a member; also one that is not known.
  mutating func move(_ user: UserKey, to member: UInt16, at now: Moment) -> Errand {
    if find(user) == nil { _ = insert(user, UserRecord()) }
    return change(user, at: now) { record, terms in
      record.move(to: member, at: now, terms)
      if record.marks.contains(.here) { return record.last == member ? [] : .recall }
      return record.marks.contains(.awaited) ? .resume : []
    } ?? []
  }

  /// Somebody knows of a user from elsewhere: a place that is no operator's choice, and in use until `stamp`.
  mutating func adopt(_ user: UserKey, to member: UInt16, stamp: UInt32, at now: Moment) -> Errand {
    let errand = move(user, to: member, at: now)
    guard let position = find(user) else { return errand }
    // Where nothing else is remembered it has to be a choice.
    if terms.kind == .table { table[position].marks.remove(.moved) }
    if table[position].marks.isDisjoint(with: [.here, .awaited]) { table[position].stamp = min(stamp, now.seconds) }
    return errand
  }

  /// Moves a user whose place is still `member`.
  mutating func move(_ user: UserKey, from member: UInt16, to target: UInt16, at now: Moment) -> Errand? {
    guard let position = find(user), table[position].member == member else { return nil }
    return change(user, at: now) { record, terms in
      record.move(to: target, at: now, terms)
      record.marks.remove(.moved)
      return record.marks.contains(.here) && record.last != target ? .recall : []
    }
  }

  /// The user's place is forgotten; nil if there is none.
  mutating func forget(_ user: UserKey, at now: Moment) -> Errand? {
    guard let position = find(user), table[position].isRemembered(at: now, terms) else { return nil }
    return change(user, at: now) { record, terms in
      record.forget(terms)
      if record.marks.contains(.here) { return .recall }
      return record.marks.contains(.awaited) ? .resume : []
    }
  }

  /// The file has that row.
  mutating func wrote(_ user: UserKey, _ member: UInt16, stamp: UInt32, at now: Moment) -> Errand {
    guard let position = find(user) else { return [] }
    var record = table[position]
    record.wrote(member, stamp: stamp, terms)
    store(user, position, record)
    var errand: Errand = record.isUnwritten ? .write : []
    if record.marks.contains(.awaited), !record.marks.contains(.unplaced) { errand.insert(.resume) }
    removeIfDone(position, at: now)
    return errand
  }

  /// A user the file knows.
  mutating func restore(_ user: UserKey, _ member: UInt16, stamp: UInt32, at now: Moment) {
    var record = UserRecord()
    record.member = member
    // Whoever was there when the last process ended, was there until just now.
    record.last = member
    record.left = now.millisecondsUp
    record.stamp = stamp
    record.filed = stamp
    if find(user) == nil { _ = insert(user, record) }
  }

  /// Nothing is in the file.
  mutating func fileIsNew() {
    for position in 0..<table.count where table[position].member != UserRecord.nobody {
      table[position].marks.insert(.unplaced)
    }
  }

  /// Changes a user's record. The file is to be told if that is news to it; once is enough.
  private mutating func change(
    _ user: UserKey, at now: Moment, _ body: (inout UserRecord, DirectoryTerms) -> Errand
  ) -> Errand? {
    guard let position = find(user) else { return nil }
    var record = table[position]
    let wasUnwritten = record.isUnwritten
    var errand = body(&record, terms)
    if record.isUnwritten, !wasUnwritten { errand.insert(.write) }
    store(user, position, record)
    removeIfDone(position, at: now)
    return errand
  }

  // MARK: Looking

  /// What is held of a user.
  func record(_ user: UserKey) -> UserRecord? { find(user).map { table[$0] } }

  private func find(_ user: UserKey) -> Int? { table.find(user.name.utf8.span, user.hash) }

  // MARK: The table

  private mutating func insert(_ user: UserKey, _ record: UserRecord) -> Int {
    if record.member != UserRecord.nobody { placed += 1 }
    return table.insert(user.name.utf8.span, user.hash, record)
  }

  private mutating func store(_ user: UserKey, _ position: Int?, _ record: UserRecord) {
    guard let position else {
      _ = insert(user, record)
      return
    }
    let old = table[position].member
    if old == UserRecord.nobody, record.member != UserRecord.nobody { placed += 1 }
    if old != UserRecord.nobody, record.member == UserRecord.nobody { placed -= 1 }
    table[position] = record
  }

  /// Whether the user was removed, because nothing has to be known any more.
  @discardableResult
  private mutating func removeIfDone(_ position: Int, at now: Moment) -> Bool {
    guard table[position].isRemovable(at: now, terms) else { return false }
    if table[position].member != UserRecord.nobody { placed -= 1 }
    table.remove(position)
    return true
  }

  // MARK: Sweeping

  /// Looks at users from `place` down, at most so many of them: who is expired goes, and who has sessions and was stamped
  /// long ago is stamped anew. Returns whom the file has to be told of, and where to go on; nil at the end.
  mutating func sweep(from place: Int?, most: Int, at now: Moment) -> (unwritten: [String], next: Int?) {
    var unwritten: [String] = []
    // Downward: the user who takes the place of a removed one was looked at already.
    let start = min(place ?? table.count, table.count)
    let end = max(0, start - most)
    for position in stride(from: start - 1, through: end, by: -1) {
      var record = table[position]
      let wasUnwritten = record.isUnwritten
      if !record.marks.isDisjoint(with: [.here, .awaited]) {
        if record.isStale(at: now, terms) { record.refresh(at: now, terms) }
      } else if !record.isRemembered(at: now, terms) {
        if record.member != UserRecord.nobody {
          placed -= 1
          record.forget(terms)
        }
      }
      // So long ago that the clock may begin anew.
      if record.pause(to: UserRecord.nobody, at: now, terms) == 0, !record.marks.contains(.here) {
        record.last = UserRecord.nobody
      }
      if record != table[position] { table[position] = record }
      if record.isUnwritten, !wasUnwritten { unwritten.append(table.name(position)) }
      removeIfDone(position, at: now)
    }
    return (unwritten, end > 0 ? end : nil)
  }

  /// Of the users from `place` down, at most so many of them, those that are wanted; how many were looked at, and where to
  /// go on; nil at the end.
  func portion(
    from place: Int?, most: Int, _ isWanted: (UserRecord) -> Bool
  ) -> (users: [(name: String, record: UserRecord)], looks: Int, next: Int?) {
    let start = min(place ?? table.count, table.count)
    let end = max(0, start - most)
    var users: [(name: String, record: UserRecord)] = []
    for position in stride(from: start - 1, through: end, by: -1) where isWanted(table[position]) {
      users.append((table.name(position), table[position]))
    }
    return (users, start - end, end > 0 ? end : nil)
  }

  /// Users the file does not have right, at most so many.
  func unwritten(most: Int) -> [(name: String, record: UserRecord)] {
    var users: [(name: String, record: UserRecord)] = []
    for position in 0..<table.count where table[position].isUnwritten {
      users.append((table.name(position), table[position]))
      if users.count == most { break }
    }
    return users
  }
}

/// Decides where a user goes, and until when that is remembered: what a directory holds about one user, as a value of a
/// few bytes.

internal import Protocols

struct UserRecord: Equatable {
  /// The number of a member that is none.
  static let nobody = UInt16.max

  /// Where the user is to be; nobody if nothing is remembered.
  var member = nobody
  /// Where the user's sessions are, or were last; nobody if nothing can be left of them there.
  var last = nobody
  /// When they were last there, in milliseconds of the directory's clock.
  var left: UInt32 = 0
  /// When the user was last known to be in need of the place, in seconds since 1970.
  var stamp: UInt32 = 0
  /// The stamp that the file has.
  var filed: UInt32 = 0
  var marks: Marks = []

  struct Marks: OptionSet {
    let rawValue: UInt8

    /// A question was answered, and `depart` was not said yet.
    static let here = Marks(rawValue: 1 << 0)
    /// Somebody waits for an answer.
    static let awaited = Marks(rawValue: 1 << 1)
    /// The file has another place, or none.
    static let unplaced = Marks(rawValue: 1 << 2)
    /// The file's stamp is too old.
    static let unstamped = Marks(rawValue: 1 << 3)
    /// The place is an operator's choice, and kept for the expiry even where nothing else is.
    static let moved = Marks(rawValue: 1 << 4)
    /// Those who are there came from elsewhere: unless a member lets them in, nobody was there.
    static let arrived = Marks(rawValue: 1 << 5)
    /// Nothing was remembered when the place was given: unless a member lets the user in, nothing needs to be.
    static let new = Marks(rawValue: 1 << 6)
  }

  /// Whether the file has to be told something.
  var isUnwritten: Bool { !marks.isDisjoint(with: [.unplaced, .unstamped]) }

  // MARK: Time

  /// Whether the place counts.
  func isRemembered(at now: Moment, _ terms: DirectoryTerms) -> Bool {
    guard member != UserRecord.nobody else { return false }
    guard marks.isDisjoint(with: [.here, .awaited]) else { return true }
    switch terms.kind {
    case .hash where !marks.contains(.moved): return pause(to: UserRecord.nobody, at: now, terms) > 0
    case .hash, .table: return age(stamp, at: now) < terms.expiry
    }
  }

  /// Seconds since a stamp; none if the clock was put back.
  private func age(_ stamp: UInt32, at now: Moment) -> UInt32 { now.seconds > stamp ? now.seconds - stamp : 0 }

  /// Whether the file's stamp is so old that a user with sessions might be forgotten by the next process.
  func isStale(at now: Moment, _ terms: DirectoryTerms) -> Bool {
    terms.hasFile && member != UserRecord.nobody && age(filed, at: now) >= terms.refresh
  }

  /// Milliseconds until a member other than the last may be used.
  func pause(to target: UInt16, at now: Moment, _ terms: DirectoryTerms) -> UInt32 {
    guard last != UserRecord.nobody, last != target else { return 0 }
    // Who has left in this very millisecond has left later than it began.
    let gone = UInt32(max(0, Int32(truncatingIfNeeded: now.milliseconds &- left)))
    return gone < terms.pause ? terms.pause - gone : 0
  }

  /// Whether nothing is lost without it.
  func isRemovable(at now: Moment, _ terms: DirectoryTerms) -> Bool {
    marks.isDisjoint(with: [.here, .awaited]) && !isUnwritten && !isRemembered(at: now, terms)
      && pause(to: UserRecord.nobody, at: now, terms) == 0
  }

  // MARK: Coming and going

  /// What is to be done for a user who wants a place.
  enum Step: Equatable {
    /// Whether the member may be given the user has to be known.
    case ask(UInt16)
    /// Who the user would get without a place has to be known.
    case choose
    /// Who was answered last has not departed.
    case departure
    /// So many milliseconds have to pass.
    case pause(UInt32)
    /// The file has to have the place.
    case file
    /// The user is there from now on.
    case at(UInt16)
    case nowhere
  }

  /// Whether a member may be given the user.
  struct Verdict {
    let member: UInt16
    let accepts: Bool
  }

  /// Who a user gets that has no place.
  enum Preferred: Equatable {
    case nobody
    case member(UInt16)
  }

  /// What was asked up to now about a user who wants a place: no more than is needed, for it costs a look at the members.
  struct Known {
    var verdict: Verdict?
    var preferred: Preferred?
  }

  /// Goes on with a user who wants a place, as far as it goes. The place is set with the first step that waits, so that
  /// file and pause are waited for together.
  mutating func place(_ known: Known, at now: Moment, _ terms: DirectoryTerms, waitsForFile: Bool) -> Step {
    guard !marks.contains(.here) else { return .departure }
    let isRemembered = isRemembered(at: now, terms)
    let target: UInt16
    if isRemembered, known.verdict?.member != member { return .ask(member) }
    if isRemembered, known.verdict?.accepts == true {
      target = member
    } else {
      switch known.preferred {
      case nil: return .choose
      case .nobody: return .nowhere
      case .member(let preferred): target = preferred
      }
    }
    if !isRemembered { marks.insert(.new) }
    if !isRemembered || target != member {
      marks.remove(.moved)
      set(target, at: now, terms)
    }
    let pause = pause(to: target, at: now, terms)
    guard pause == 0 else { return .pause(pause) }
    guard !marks.contains(.unplaced) || !waitsForFile else { return .file }
    marks.insert(.here)
    if last == target { marks.remove(.arrived) } else { marks.insert(.arrived) }
    last = target
    if isStale(at: now, terms) { refresh(at: now, terms) }
    return .at(target)
  }

  private mutating func set(_ target: UInt16, at now: Moment, _ terms: DirectoryTerms) {
    member = target
    stamp = now.seconds
    if terms.hasFile { marks.insert(.unplaced) }
  }

  /// The user is in need of the place still. The file is told if its stamp is old: who comes and goes all the time costs it
  /// little.
  mutating func refresh(at now: Moment, _ terms: DirectoryTerms) {
    guard member != UserRecord.nobody else { return }
    stamp = now.seconds
    if terms.hasFile, age(filed, at: now) >= terms.lag { marks.insert(.unstamped) }
  }

  /// The last session is gone. `wasThere`: a member let one of them in.
  mutating func depart(wasThere: Bool, at now: Moment, _ terms: DirectoryTerms) {
    marks.remove(.here)
    if wasThere {
      left = now.millisecondsUp
      refresh(at: now, terms)
    } else {
      if marks.contains(.arrived) { last = UserRecord.nobody }
      if marks.contains(.new) { forget(terms) }
    }
    marks.subtract([.arrived, .new])
  }

  /// An operator wants the user there.
  mutating func move(to target: UInt16, at now: Moment, _ terms: DirectoryTerms) {
    set(target, at: now, terms)
    marks.insert(.moved)
    marks.remove(.new)
  }

  /// Nothing is remembered from now on.
  mutating func forget(_ terms: DirectoryTerms) {
    guard member != UserRecord.nobody else { return }
    member = UserRecord.nobody
    marks.subtract([.moved, .new])
    if terms.hasFile { marks.insert(.unplaced) }
  }

  /// The file has that place and stamp. Either may have changed while that was written.
  mutating func wrote(_ member: UInt16, stamp: UInt32, _ terms: DirectoryTerms) {
    guard member == self.member else { return }
    filed = stamp
    marks.remove(.unplaced)
    if self.stamp <= stamp || self.stamp - stamp < terms.lag { marks.remove(.unstamped) }
  }
}

/// A moment in both of a directory's times.
struct Moment: Equatable {
  /// Since 1970.
  let seconds: UInt32
  /// Since the directory was made; begins anew after 49 days, and a difference is good for half of that.
  let milliseconds: UInt32
  /// The same, a part of one counted as one: no pause is too short.
  let millisecondsUp: UInt32

  init(seconds: UInt32, nanoseconds: UInt64) {
    self.seconds = seconds
    milliseconds = UInt32(truncatingIfNeeded: nanoseconds / 1_000_000)
    millisecondsUp = UInt32(truncatingIfNeeded: (nanoseconds + 999_999) / 1_000_000)
  }
}

/// How long things are remembered.
struct DirectoryTerms: Equatable {
  let kind: AffinitySettings.Kind
  /// In seconds.
  let expiry: UInt32
  /// In milliseconds.
  let pause: UInt32
  let hasFile: Bool

  init(_ settings: AffinitySettings, hasFile: Bool) {
    kind = settings.kind
    // A part of a second is rounded up: nothing is forgotten too early.
    expiry = UInt32(clamping: settings.expiry / 1_000_000_000 + (settings.expiry % 1_000_000_000 == 0 ? 0 : 1))
    pause = min(UInt32(clamping: settings.pause / 1_000_000), DirectoryTerms.longestPause)
    self.hasFile = hasFile && settings.kind == .table
  }

  /// A day, of the 24 that a difference of milliseconds is good for.
  private static let longestPause: UInt32 = 86_400_000

  /// The age in seconds at which the file's stamp of a user who has departed is written anew. After a kill, who has left is
  /// remembered for seven eighths of the expiry at least.
  var lag: UInt32 { expiry / 8 }

  /// The age at which the file's stamp of a user with sessions is written anew. With a round of the sweep, which takes an
  /// eighth at most, it is never older than half the expiry.
  var refresh: UInt32 { expiry / 8 * 3 }
}

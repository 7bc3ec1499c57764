/// The users with sessions here, and where: what keeps all of a user's sessions on one member.
///
/// A user's first session asks the directory for the place, and the user is a resident from then on until the last session
/// has ended; the sessions in between need to ask nobody. A resident who can't stay leaves: the sessions are ended, and who
/// logs in meanwhile waits until the last is gone and the directory gives a new place.

internal import Synchronization

final class Residents: Sendable {
  private let directory: any UserDirectory
  private let shards: [Shard]
  /// Ends sessions.
  private let kick: @Sendable ([SessionHandle], Eviction) -> Void
  /// Has sessions look again.
  private let wake: @Sendable ([SessionHandle]) -> Void

  /// What became of a session's wish for a place.
  enum Entry: Equatable {
    /// The session is counted there.
    case at(String)
    /// It will be woken, and has to ask again.
    case waits
    /// No member takes the user.
    case nowhere
    /// The directory could not be asked.
    case failed(String)
  }

  /// Whether a session may join the user's others at a member.
  enum Company: Equatable {
    case joins
    /// The member is lost, and one of them is trying it: that is waited for.
    case waits
    /// None of them may stay.
    case ends(Eviction)
  }

  /// How a user's sessions stand to a member that is lost.
  enum Venture: Equatable {
    case none
    /// One of them is trying it, after that loss.
    case tries(SessionHandle, loss: Int)
    /// One of them was let in all the same.
    case isIn(loss: Int)
  }

  /// What became of a session's wish to go to a member that is lost.
  enum Approach: Equatable {
    /// It may, after that loss; nil if the member is back. It is the trial, if there is one.
    case goes(loss: Int?, HealthTrial?)
    case waits
    /// Another user's login is trying it.
    case taken
  }

  /// Neighbours on a lock are few: as many parts as `UserKey.shard` has numbers.
  private static let shardCount = 64

  private final class Shard: Sendable {
    let state = Mutex(State())
  }

  private struct State {
    var residents: [UserKey: Resident] = [:]
    /// Refusals that their sessions have not heard yet.
    var refusals: [SessionHandle: Entry] = [:]

    mutating func takeRefusal(_ handle: SessionHandle) -> Entry? {
      refusals.isEmpty ? nil : refusals.removeValue(forKey: handle)
    }
  }

  /// A user with sessions, or who is to have some. An object, changed in its place under the lock of its part.
  private final class Resident {
    var stage: Stage
    /// Sessions counted at the member.
    var here: [SessionHandle] = []
    /// Whether one of them was let in by the member: then its leaving counts.
    var wasThere = false
    var waiting: [Waiter] = []
    /// The member is another server by now than the one the sessions are at.
    var isOutdated = false
    /// Recalled while the directory was being asked: its answer may be older than the recall.
    var isRecalled = false
    var venture = Venture.none

    /// A user for whom the directory is being asked.
    init(_ first: Waiter) {
      stage = .asking
      waiting = [first]
    }

    /// One was let in. Returns who has to look again.
    func confirm(after loss: Int?) -> [SessionHandle] {
      wasThere = true
      if let loss { venture = .isIn(loss: loss) }
      switch stage {
      case .at: return waiting.isEmpty ? [] : waiting.map(\.handle)
      case .asking, .leaving: return []
      }
    }

    /// A session waits, once.
    func add(_ waiter: Waiter) {
      if !waiting.contains(where: { $0.handle == waiter.handle }) { waiting.append(waiter) }
    }
  }

  private enum Stage: Equatable {
    /// The directory is being asked.
    case asking
    case at(String)
    /// The sessions there are being ended.
    case leaving(String)
  }

  private struct Waiter {
    let handle: SessionHandle
    let question: PlaceQuestion
  }

  init(
    _ directory: any UserDirectory, kick: @escaping @Sendable ([SessionHandle], Eviction) -> Void,
    wake: @escaping @Sendable ([SessionHandle]) -> Void
  ) {
    self.directory = directory
    self.kick = kick
    self.wake = wake
    shards = (0..<Residents.shardCount).map { _ in Shard() }
    directory.onRecall { [weak self] user in self?.recall(user) }
  }

  private func shard(_ user: UserKey) -> Shard { shards[user.shard] }

  // MARK: Sessions

  /// A session wants a place for its user; again after it was woken. `company`: whether it may join those at a member, of
  /// whom one was let in or none.
  func enter(
    _ user: UserKey, _ handle: SessionHandle, _ question: PlaceQuestion, company: (String, Venture, Bool) -> Company
  ) -> Entry {
    enum Step { case entry(Entry), ask, end([SessionHandle], Eviction) }
    let step = shard(user).state.withLock { state -> Step in
      if let refusal = state.takeRefusal(handle) { return .entry(refusal) }
      guard let resident = state.residents[user] else {
        state.residents[user] = Resident(Waiter(handle: handle, question: question))
        return .ask
      }
      switch resident.stage {
      case .at(let member):
        if resident.here.contains(handle) { return .entry(.at(member)) }
        switch resident.isOutdated ? .ends(.move) : company(member, resident.venture, resident.wasThere) {
        case .joins:
          resident.waiting.removeAll { $0.handle == handle }
          resident.here.append(handle)
          return .entry(.at(member))
        case .waits:
          resident.add(Waiter(handle: handle, question: question))
          return .entry(.waits)
        case .ends(let reason):
          resident.stage = .leaving(member)
          resident.add(Waiter(handle: handle, question: question))
          return .end(resident.here, reason)
        }
      case .asking, .leaving:
        // It was given a place and is to leave it before it has looked: its end is on the way.
        if resident.here.contains(handle) { return .entry(.waits) }
        resident.add(Waiter(handle: handle, question: question))
        return .entry(.waits)
      }
    }
    switch step {
    case .entry(let entry): return entry
    case .ask: return ask(user, question, for: handle)
    case .end(let handles, let reason):
      kick(handles, reason)
      return .waits
    }
  }

  /// A session has its place at a member that is lost. `access`: whether a login may go there, asked when nobody of the
  /// user's can come between.
  func approach(
    _ user: UserKey, _ handle: SessionHandle, _ question: PlaceQuestion, loss: Int, access: () -> HealthAccess
  ) -> Approach {
    shard(user).state.withLock { state in
      // It is to leave it before it has looked: its end is on the way.
      guard let resident = state.residents[user], case .at = resident.stage, resident.here.contains(handle) else {
        return .waits
      }
      switch access() {
      case .open: return .goes(loss: nil, nil)
      case .trial(let trial):
        resident.venture = .tries(handle, loss: trial.loss)
        return .goes(loss: trial.loss, trial)
      case .closed:
        switch resident.venture {
        case .tries(let other, loss) where other != handle:
          resident.here.removeAll { $0 == handle }
          resident.add(Waiter(handle: handle, question: question))
          return .waits
        case .isIn(loss): return .goes(loss: loss, nil)
        case .tries, .isIn, .none: return .taken
        }
      }
    }
  }

  /// The session was let in at its member; `loss`: after that, if the member is lost.
  func confirm(_ user: UserKey, after loss: Int? = nil) {
    let woken = shard(user).state.withLock { $0.residents[user]?.confirm(after: loss) ?? [] }
    if !woken.isEmpty { wake(woken) }
  }

  /// A session is gone, wherever it stood.
  func leave(_ user: UserKey, _ handle: SessionHandle) {
    let next = shard(user).state.withLock { state -> (departs: Bool, wasThere: Bool, question: PlaceQuestion?) in
      if state.takeRefusal(handle) != nil { return (false, false, nil) }
      guard let resident = state.residents[user] else { return (false, false, nil) }
      if let index = resident.waiting.firstIndex(where: { $0.handle == handle }) {
        resident.waiting.remove(at: index)
        return (false, false, nil)
      }
      guard let index = resident.here.firstIndex(of: handle) else { return (false, false, nil) }
      resident.here.remove(at: index)
      if case .tries(handle, _) = resident.venture { resident.venture = .none }
      guard resident.here.isEmpty else { return (false, false, nil) }
      return depart(user, &state, resident)
    }
    goOn(user, next)
  }

  /// A session can't be served by its member: where else? Nil: it is not the user's only one, and the others stay.
  func relocate(_ user: UserKey, _ handle: SessionHandle, _ question: PlaceQuestion) -> Entry? {
    let wasThere = shard(user).state.withLock { state -> Bool? in
      guard let resident = state.residents[user], case .at = resident.stage, resident.here == [handle] else {
        return nil
      }
      let wasThere = resident.wasThere
      resident.stage = .asking
      resident.here = []
      resident.wasThere = false
      resident.isOutdated = false
      resident.venture = .none
      resident.waiting.insert(Waiter(handle: handle, question: question), at: 0)
      return wasThere
    }
    guard let wasThere else { return nil }
    directory.depart(user.name, wasThere: wasThere)
    return ask(user, question, for: handle)
  }

  // MARK: Leaving

  /// Whether a session has a place that the user has to leave.
  func isLeaving(_ user: UserKey, _ handle: SessionHandle) -> Bool {
    shard(user).state.withLock { state in
      guard let resident = state.residents[user], case .leaving = resident.stage else { return false }
      return resident.here.contains(handle)
    }
  }

  /// The user is to go elsewhere: the sessions here are ended.
  /// Who logs in from now on waits for the last to be gone.
  private func recall(_ user: String) {
    let user = UserKey(user)
    let handles = shard(user).state.withLock { state -> [SessionHandle] in
      guard let resident = state.residents[user] else { return [] }
      switch resident.stage {
      case .at(let member):
        resident.stage = .leaving(member)
        return resident.here
      case .asking:
        resident.isRecalled = true
        return []
      case .leaving: return []
      }
    }
    if !handles.isEmpty { kick(handles, .move) }
  }

  /// The member is another server from now on: who has sessions there leaves it before there is another one.
  func outdate(_ member: String) {
    for shard in shards {
      shard.state.withLock { state in
        for resident in state.residents.values where resident.stage == .at(member) { resident.isOutdated = true }
      }
    }
  }

  /// Where the user's sessions are; nil for no sessions.
  func member(of user: UserKey) -> String? {
    shard(user).state.withLock { state in
      switch state.residents[user]?.stage {
      case .at(let member)?, .leaving(let member)?: member
      case .asking?, nil: nil
      }
    }
  }

  /// Users with sessions.
  var count: Int { shards.reduce(0) { $0 + $1.state.withLock { $0.residents.count } } }

  // MARK: The directory

  /// The last session at a member is gone: what is to be done outside the lock.
  private func depart(
    _ user: UserKey, _ state: inout State, _ resident: Resident
  ) -> (departs: Bool, wasThere: Bool, question: PlaceQuestion?) {
    let wasThere = resident.wasThere
    resident.wasThere = false
    resident.isOutdated = false
    resident.venture = .none
    switch resident.stage {
    case .asking: preconditionFailure("a session was counted before there was a place")
    case .at, .leaving: break
    }
    guard let first = resident.waiting.first else {
      state.residents[user] = nil
      return (true, wasThere, nil)
    }
    resident.stage = .asking
    return (true, wasThere, first.question)
  }

  private func goOn(_ user: UserKey, _ next: (departs: Bool, wasThere: Bool, question: PlaceQuestion?)) {
    guard next.departs else { return }
    directory.depart(user.name, wasThere: next.wasThere)
    if let question = next.question { _ = ask(user, question, for: nil) }
  }

  /// Asks for a place, and answers the session that asks if the answer is there at once.
  private func ask(_ user: UserKey, _ question: PlaceQuestion, for handle: SessionHandle?) -> Entry {
    let answer = directory.locate(user.name, question) { [weak self] answer in
      self?.answered(user, answer, for: nil)
    }
    guard let answer else { return .waits }
    return answered(user, answer, for: handle) ?? .waits
  }

  /// The directory's answer: for all who wait. Returns what it is for that session, which needs not be woken.
  @discardableResult
  private func answered(_ user: UserKey, _ answer: PlaceAnswer, for handle: SessionHandle?) -> Entry? {
    var woken: [SessionHandle] = []
    var departs = false
    var isRecalled = false
    let own = shard(user).state.withLock { state -> Entry? in
      guard let resident = state.residents[user], resident.stage == .asking else {
        preconditionFailure("an answer nobody waits for")
      }
      let handles = resident.waiting.map(\.handle)
      resident.waiting = []
      woken = handles.filter { $0 != handle }
      let entry: Entry
      switch answer {
      case .at(let member):
        resident.stage = .at(member)
        resident.here = handles
        (isRecalled, resident.isRecalled) = (resident.isRecalled, false)
        entry = .at(member)
        departs = handles.isEmpty
        if departs { state.residents[user] = nil }
      case .nowhere, .failed:
        entry = answer.refusal
        for handle in woken { state.refusals[handle] = entry }
        state.residents[user] = nil
      }
      return handle.map { handles.contains($0) } == true ? entry : nil
    }
    // They went away while the directory was asked.
    if departs { directory.depart(user.name, wasThere: false) }
    if isRecalled, !departs, case .at(let member) = answer, directory.lookup(user.name)?.member != member {
      recall(user.name)
    }
    if !woken.isEmpty { wake(woken) }
    return own
  }
}

extension PlaceAnswer {
  /// What a session hears that gets no place.
  fileprivate var refusal: Residents.Entry {
    switch self {
    case .at: preconditionFailure("a place is no refusal")
    case .nowhere: .nowhere
    case .failed(let reason): .failed(reason)
    }
  }
}

/// A pool at run time: gives each login a member, and keeps a user's sessions together where that is wanted. One for each
/// name, for the life of the process; shared by all loops.

internal import Protocols
internal import Synchronization

package final class Pool: Sendable {
  /// Its name.
  package let name: String
  /// Who remembers where users are; nil without affinity.
  package let directory: (any UserDirectory)?
  /// What is counted of it.
  package let meter = PoolMeter()
  let residents: Residents?
  private let state: Mutex<State>
  private let gate: LoginGate
  private let clock: Clock
  private let wake: @Sendable ([SessionHandle]) -> Void
  private let present = Atomic<Int>(0)

  private struct State {
    var plan: PoolPlan
    /// Whose turn it is.
    var turn = 0
    /// The round robin's memory.
    var credit: [Int] = []
  }

  init(
    _ name: String, _ plan: PoolPlan, _ directory: (any UserDirectory)?, clock: Clock,
    kick: @escaping @Sendable ([SessionHandle], Eviction) -> Void,
    wake: @escaping @Sendable ([SessionHandle]) -> Void
  ) {
    self.name = name
    self.directory = directory
    self.clock = clock
    self.wake = wake
    state = Mutex(State(plan: plan))
    gate = LoginGate(most: plan.settings.logins)
    residents = directory.map { Residents($0, kick: kick, wake: wake) }
  }

  /// The time, as the pool's sessions have it.
  var time: UInt64 { clock.now }
  var plan: PoolPlan { state.withLock { $0.plan } }
  /// What the operator wants.
  package var settings: PoolSettings { plan.settings }
  /// Sessions placed by it.
  package var sessions: Int { present.load(ordering: .relaxed) }

  /// Whether it may go over to those settings as it is, with its users. Who is there still counts for more than a word that
  /// takes a restart.
  func isKin(to settings: PoolSettings) -> Bool {
    sessions > 0 || settings.balance.isKin(to: self.settings.balance)
  }

  /// Another configuration, or another weight.
  func adopt(_ plan: PoolPlan) {
    let before = exchangePlan(plan)
    // Under the old name is another server: whose sessions are at the one may have none at the other.
    for member in before.members where plan.member(member.name).map({ $0.servers != member.servers }) ?? false {
      residents?.outdate(member.name)
    }
    wake(gate.allow(plan.settings.logins))
    for member in plan.members { wake(member.gate.allow(member.settings.logins)) }
  }

  private func exchangePlan(_ plan: PoolPlan) -> PoolPlan {
    state.withLock { state in
      defer { state.plan = plan }
      return state.plan
    }
  }

  /// The member the ring gives a user now, by who takes users; nil if nobody does, or there is no ring.
  package func home(of user: String) -> String? {
    let plan = plan
    guard plan.ring != nil else { return nil }
    return plan.ringMember(user, plan.choice(tag: nil, tried: [], at: clock.now)).map { plan.members[$0].name }
  }

  // MARK: Logins

  /// How far a login came to its member.
  enum Step {
    case at(Member)
    /// It is woken, and has to ask again.
    case waits
    case refused(LoginFailure)
  }

  /// Goes on with a login's claim.
  func advance(_ claim: inout Claim) -> Step {
    while true {
      switch claim.stage {
      case .wanting:
        switch settle(&claim) {
        case .at(let member):
          switch approach(member, claim) {
          case .goes(let loss, let trial): (claim.loss, claim.trial) = (loss, trial)
          case .waits: return wait(&claim, for: .place)
          case .taken:
            skip(member.name, &claim)
            continue
          }
          present.add(1, ordering: .relaxed)
          let most = plan.settings.sessions
          let isFull = most.map { sessions > $0 } ?? false
          member.standing.arrive()
          claim.stage = .placed(member)
          let memberIsFull = member.isFull(nil, with: member.standing.sessions - 1)
          guard !isFull, !memberIsFull else {
            let who = isFull ? name : member.name
            release(&claim)
            return .refused(LoginFailure(.poolFull, "\(who) has as many sessions as it may"))
          }
        // It was taken out of the configuration between the question and the answer.
        case .gone(let member): skip(member, &claim)
        case .waits: return wait(&claim, for: .place)
        case .refused(let failure):
          claim.stage = .released
          return .refused(failure)
        }
      case .placed(let member):
        guard gate.enter(claim.handle) else { return wait(&claim, for: .poolLogins) }
        claim.stage = .passed(member)
      case .passed(let member):
        guard member.gate.enter(claim.handle) else { return wait(&claim, for: .memberLogins) }
        claim.stage = .inside(member)
        claim.wait = nil
      case .inside(let member): return .at(member)
      case .admitted, .released: preconditionFailure("a claim that is settled goes on")
      }
    }
  }

  /// A login that is woken and waits on for the same is counted once.
  private func wait(_ claim: inout Claim, for wait: LoginWait) -> Step {
    if claim.wait != wait {
      claim.wait = wait
      meter.waits.add(wait)
    }
    return .waits
  }

  /// The time of a login that waits is over.
  func expire(_ claim: Claim) {
    if let wait = claim.wait { meter.expired.add(wait) }
  }

  /// Whether the login may go to its member, also if that is lost.
  private func approach(_ member: Member, _ claim: Claim) -> Residents.Approach {
    let now = clock.now
    let stands = member.standing.snapshot(at: now)
    guard stands.health.isDown else { return .goes(loss: nil, nil) }
    if let residents {
      return residents.approach(claim.key, claim.handle, question(claim), loss: stands.losses) {
        member.standing.mayTry(at: now)
      }
    }
    switch member.standing.mayTry(at: now) {
    case .open: return .goes(loss: nil, nil)
    case .trial(let trial): return .goes(loss: trial.loss, trial)
    case .closed: return .taken
    }
  }

  /// Goes past a member that can't be had after all. If the user has other sessions there, these are looked at anew too.
  private func skip(_ member: String, _ claim: inout Claim) {
    claim.tried.append(member)
    guard let residents else { return }
    if residents.relocate(claim.key, claim.handle, question(claim)) == nil {
      residents.leave(claim.key, claim.handle)
    }
  }

  private enum Settled {
    case at(Member)
    case gone(String)
    case waits
    case refused(LoginFailure)
  }

  private func settle(_ claim: inout Claim) -> Settled {
    let plan = plan
    guard let residents else { return choose(claim, plan) }
    let entry = residents.enter(claim.key, claim.handle, question(claim)) { [self] in
      company($0, $1, wasThere: $2, claim, plan)
    }
    return settled(entry, claim, plan)
  }

  private func settled(_ entry: Residents.Entry, _ claim: Claim, _ plan: PoolPlan) -> Settled {
    switch entry {
    case .at(let name):
      guard let index = plan.index(of: name) else { return .gone(name) }
      return .at(plan.members[index])
    case .waits: return .waits
    case .nowhere: return .refused(lack(claim, plan))
    case .failed(let reason): return .refused(LoginFailure(.directoryFailed, reason))
    }
  }

  /// Without affinity.
  private func choose(_ claim: Claim, _ plan: PoolPlan) -> Settled {
    let choice = plan.choice(tag: claim.tag, tried: claim.tried, at: clock.now)
    let index = state.withLock { state -> Int? in
      state.turn = (state.turn &+ 1) & Int.max
      switch plan.settings.balance {
      case .affinity: preconditionFailure("affinity without residents")
      case .leastSessions: return choice.leastSessions(turn: state.turn)
      case .roundRobin: return choice.roundRobin(&state.credit)
      case .randomTwo: return choice.randomTwo { Int.random(in: 0..<$0) }
      }
    }
    guard let index else { return .refused(lack(claim, plan)) }
    return .at(plan.members[index])
  }

  /// What the directory has to know to place a user.
  private func question(_ claim: Claim) -> PlaceQuestion {
    let (user, tag, tried) = (claim.user, claim.tag, claim.tried)
    return PlaceQuestion(preferred: self.preferred(user, tag, tried)) { [self] in accepts($0, tag, tried) }
  }

  private func preferred(_ user: String, _ tag: String?, _ tried: [String]) -> String? {
    let plan = plan
    return plan.ringMember(user, plan.choice(tag: tag, tried: tried, at: clock.now)).map { plan.members[$0].name }
  }

  /// Whether a user who is remembered at a member may go back to it: a backup keeps those it has.
  private func accepts(_ member: String, _ tag: String?, _ tried: [String]) -> Bool {
    plan.candidate(member, tag: tag, tried: tried, at: clock.now)?.isOpen ?? false
  }

  /// Whether a login may join its user's sessions at a member. `wasThere`: one of them was let in.
  private func company(
    _ member: String, _ venture: Residents.Venture, wasThere: Bool, _ claim: Claim, _ plan: PoolPlan
  ) -> Residents.Company {
    guard let index = plan.index(of: member) else { return .ends(.move) }
    let stands = plan.members[index].standing.snapshot(at: clock.now)
    let isWanted = claim.tag == nil || plan.members[index].settings.tag == claim.tag
    guard stands.admin.takesPart, isWanted else {
      return .ends(stands.health.isDown ? .lost : stands.admin.takesPart ? .move : .maintenance)
    }
    guard stands.health.isDown else { return .joins }
    switch venture {
    // The one that was there first is about to try.
    case .none: return stands.isTrialDue && !wasThere ? .waits : .ends(.lost)
    case .tries(_, let loss): return loss == stands.losses ? .waits : .ends(.lost)
    case .isIn(let loss): return loss == stands.losses ? .joins : .ends(.lost)
    }
  }

  private func lack(_ claim: Claim, _ plan: PoolPlan) -> LoginFailure {
    switch plan.choice(tag: claim.tag, tried: claim.tried, at: clock.now).lack {
    case .full: LoginFailure(.poolFull, "all members of \(name) are full")
    case .none:
      LoginFailure(
        .noMember, claim.tried.isEmpty ? "no member of \(name) takes users" : "no other member of \(name) takes users")
    }
  }

  /// The login could not be served by its member: the claim is for another one from here on, which is waited for if the
  /// user has to leave the member anyway. False if there is none, or the user has other sessions there that stay.
  func relocate(_ claim: inout Claim) -> Bool {
    guard let member = claim.member else { preconditionFailure("a claim without a place is relocated") }
    claim.tried.append(member.name)
    let plan = plan
    let choice = plan.choice(tag: claim.tag, tried: claim.tried, at: clock.now)
    guard choice.candidates.indices.contains(where: { choice.isOpen($0) }) else { return false }
    if let residents, residents.relocate(claim.key, claim.handle, question(claim)) == nil {
      // Where the user is leaving already, the word that this session has to go is on its way, and takes it further.
      if !residents.isLeaving(claim.key, claim.handle) {
        guard case .ends = company(member.name, .none, wasThere: true, claim, plan) else { return false }
        residents.leave(claim.key, claim.handle)
      }
    }
    vacate(&claim)
    claim.stage = .wanting
    return true
  }

  /// The member sends the user to another one: the claim is for that, and so is every session of the user's. False if there
  /// is none of that name, or users are not kept together.
  func refer(_ claim: inout Claim, to member: String) -> Bool {
    guard let directory, plan.index(of: member) != nil else { return false }
    displace(&claim)
    directory.move(claim.user, to: member)
    return true
  }

  /// The member has to be left, and nothing was said there: the claim is for any member from here on.
  func displace(_ claim: inout Claim) {
    vacate(&claim)
    residents?.leave(claim.key, claim.handle)
    claim.stage = .wanting
  }

  // MARK: Ends

  /// The member let the login in: others may go on with theirs.
  func admitted(_ claim: inout Claim) {
    guard case .inside(let member) = claim.stage else { preconditionFailure("a login is let in that is not inside") }
    residents?.confirm(claim.key, after: claim.loss)
    leaveGates(member, claim.handle)
    claim.stage = .admitted(member)
  }

  /// The session is gone, or the login refused.
  func release(_ claim: inout Claim) {
    vacate(&claim)
    // A login that was not answered may be let in all the same, and only the pause tells it from the next.
    if claim.mayBeIn { residents?.confirm(claim.key) }
    residents?.leave(claim.key, claim.handle)
    claim.stage = .released
  }

  /// Gives up what is held at the member, and leaves the user where it is.
  private func vacate(_ claim: inout Claim) {
    if let trial = claim.trial { claim.member?.standing.abandon(trial, at: clock.now) }
    (claim.loss, claim.trial) = (nil, nil)
    switch claim.stage {
    case .wanting, .released: return
    case .placed(let member):
      wake(gate.withdraw(claim.handle))
      member.standing.settle()
      member.standing.depart()
    case .passed(let member):
      wake(member.gate.withdraw(claim.handle))
      wake(gate.leave())
      member.standing.settle()
      member.standing.depart()
    case .inside(let member):
      leaveGates(member, claim.handle)
      member.standing.depart()
    case .admitted(let member): member.standing.depart()
    }
    present.subtract(1, ordering: .relaxed)
  }

  private func leaveGates(_ member: Member, _ handle: SessionHandle) {
    member.standing.settle()
    wake(member.gate.leave())
    wake(gate.leave())
  }
}

/// A login's claim to a member, from the wish to the session's end.
struct Claim: Sendable {
  /// The user, as the pool's key has it.
  let key: UserKey
  /// The site the route asked for; nil for any.
  let tag: String?
  let handle: SessionHandle
  /// Members that have failed this login.
  var tried: [String] = []
  /// Whether its member may let it in: it has heard the password and has not refused.
  var mayBeIn = false
  /// The loss of its member after which it was placed there, if that was lost; and the trial that it is.
  fileprivate(set) var loss: Int?
  fileprivate(set) var trial: HealthTrial?
  fileprivate(set) var stage = Stage.wanting
  /// What it waits for, or waited for last on its way to this member.
  fileprivate(set) var wait: LoginWait?

  enum Stage: Sendable {
    case wanting
    /// It has a member, and stands at the pool's gate.
    case placed(Member)
    /// It stands at the member's gate.
    case passed(Member)
    /// It may log in.
    case inside(Member)
    /// It is logged in.
    case admitted(Member)
    case released
  }

  init(user: String, tag: String?, handle: SessionHandle) {
    key = UserKey(user)
    self.tag = tag
    self.handle = handle
  }

  /// The user's name.
  var user: String { key.name }

  /// The member, once there is one.
  var member: Member? {
    switch stage {
    case .wanting, .released: nil
    case .placed(let member), .passed(let member), .inside(let member), .admitted(let member): member
    }
  }
}

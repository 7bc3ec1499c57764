// swift-format-ignore-file: NeverForceUnwrap
// A test that unwraps nil fails, which is what it is for.

import Foundation
import Glibc
import Testing

// In a build for ThreadSanitizer ProxyCore has a Mutex of its own.
#if !PROXYD_TSAN
  import struct Synchronization.Mutex
#endif

@testable import Protocols
@testable import ProxyCore

/// Who of the members gets a user, as tables.
struct ChoiceTests {
  private func member(_ weight: Int, _ sessions: Int, takes: Bool = true, full: Bool = false, backup: Bool = false)
    -> Candidate
  {
    Candidate(weight: weight, sessions: sessions, takes: takes, isFull: full, isBackup: backup)
  }

  @Test func leastSessionsGoByWeight() {
    #expect(Choice([member(100, 5), member(100, 4), member(100, 6)]).leastSessions(turn: 0) == 1)
    // Ten of weight 200 are fewer than six of weight 100.
    #expect(Choice([member(200, 10), member(100, 6)]).leastSessions(turn: 0) == 0)
    #expect(Choice([member(0, 0), member(100, 900)]).leastSessions(turn: 0) == 1)
    #expect(Choice([member(100, 0, takes: false), member(100, 9)]).leastSessions(turn: 0) == 1)
    #expect(Choice([member(100, 0, full: true), member(100, 9)]).leastSessions(turn: 0) == 1)
    // Among equals it is in turn.
    let equals = Choice([member(100, 1), member(100, 1), member(100, 1)])
    #expect((0..<4).map { equals.leastSessions(turn: $0) } == [0, 1, 2, 0])
    // One that starts slowly is as if it had the less weight.
    var slow = member(100, 1)
    slow.share = 10
    #expect(Choice([slow, member(100, 9)]).leastSessions(turn: 0) == 1)
  }

  @Test func backupsServeWhenNobodyElseCan() {
    let backup = member(100, 0, backup: true)
    #expect(Choice([member(100, 50), backup]).leastSessions(turn: 0) == 0)
    #expect(Choice([member(100, 50, takes: false), backup]).leastSessions(turn: 0) == 1)
    // A member that is full is there: the backup is not for overflow.
    let full = Choice([member(100, 50, full: true), backup])
    #expect(full.leastSessions(turn: 0) == nil)
    #expect(full.lack == .full)
    #expect(Choice([member(100, 1, takes: false)]).lack == .none)
    #expect(Choice([]).lack == .none)
  }

  @Test func roundRobinIsEvenAndSmooth() {
    let choice = Choice([member(50, 0), member(30, 0), member(20, 0), member(90, 0, takes: false)])
    var credit: [Int] = []
    let turns = (0..<100).map { _ in choice.roundRobin(&credit)! }
    #expect((0..<4).map { index in turns.count { $0 == index } } == [50, 30, 20, 0])
    // Never three times the same: that is what smooth means with these weights.
    #expect(!zip(zip(turns, turns.dropFirst()), turns.dropFirst(2)).contains { $0.0 == $0.1 && $0.1 == $1 })
  }

  @Test func randomTwoTakesTheBetter() {
    let choice = Choice([member(100, 9), member(100, 1), member(100, 5)])
    // The dice say who is drawn: the first of what is left, and of that without it.
    #expect(choice.randomTwo { _ in 0 } == 1)
    var rolls = [20_000, 0][...]
    #expect(choice.randomTwo { _ in rolls.popFirst()! } == 2)
    #expect(Choice([member(100, 9)]).randomTwo { _ in 0 } == 0)
    #expect(Choice([member(100, 9, takes: false)]).randomTwo { _ in 0 } == nil)
    var counts = [0, 0, 0]
    var random = SystemRandomNumberGenerator()
    for _ in 0..<3_000 { counts[choice.randomTwo { Int.random(in: 0..<$0, using: &random) }!] += 1 }
    #expect(counts[0] == 0)
    #expect(counts[1] > counts[2])
  }
}

/// The line before a member that takes only so many logins at a time.
struct LoginGateTests {
  private func handle(_ index: Int) -> SessionHandle {
    SessionHandle(loop: 0, token: Token(.client, index: index, generation: 0))
  }

  @Test func firstComeFirstServed() {
    let gate = LoginGate(most: 1)
    #expect(gate.enter(handle(1)))
    #expect(!gate.enter(handle(2)))
    #expect(!gate.enter(handle(3)))
    // To ask again is not to stand twice.
    #expect(!gate.enter(handle(2)))
    #expect(gate.waiting == 2)
    #expect(gate.leave() == [handle(2)])
    // A newcomer does not overtake.
    #expect(!gate.enter(handle(4)))
    #expect(gate.enter(handle(2)))
    #expect(gate.withdraw(handle(3)) == [])
    #expect(gate.leave() == [handle(4)])
    // One that was called and goes away passes it on.
    #expect(!gate.enter(handle(5)))
    #expect(gate.withdraw(handle(4)) == [handle(5)])
    #expect(gate.enter(handle(5)))
    #expect(gate.leave() == [])
  }

  /// Who has left the line is passed over, however many they are.
  @Test func aLongLine() {
    let gate = LoginGate(most: 1)
    #expect(gate.enter(handle(0)))
    for index in 1...5_000 { #expect(!gate.enter(handle(index))) }
    for index in 1...5_000 where index % 1_000 != 0 { #expect(gate.withdraw(handle(index)) == []) }
    #expect(gate.waiting == 5)
    for index in stride(from: 1_000, through: 5_000, by: 1_000) {
      #expect(gate.leave() == [handle(index)])
      #expect(gate.enter(handle(index)))
    }
    #expect(gate.leave() == [])
    #expect(gate.enter(handle(1)))
  }

  @Test func aLargerBoundLetsMoreIn() {
    let gate = LoginGate(most: 1)
    #expect(gate.enter(handle(1)))
    for index in 2...4 { #expect(!gate.enter(handle(index))) }
    #expect(gate.allow(3) == [handle(2), handle(3)])
    #expect(gate.allow(nil) == [handle(4)])
    #expect(LoginGate(most: nil).enter(handle(9)))
  }
}

/// A user's sessions and the directory, as tables and as a storm.
struct ResidentsTests {
  private final class Stage {
    let directory = PlayedDirectory()
    let residents: Residents
    let kicked = Sequence<SessionHandle>()
    let woken = Sequence<SessionHandle>()

    init() {
      let (kicked, woken) = (kicked, woken)
      residents = Residents(directory, kick: { handles, _ in kicked.add(handles) }, wake: { woken.add($0) })
    }

    func enter(_ user: String, _ index: Int, leaves: Eviction? = nil) -> Residents.Entry {
      residents.enter(UserKey(user), handle(index), PlaceQuestion(preferred: "a") { _ in true }) { _, _, _ in
        leaves.map { .ends($0) } ?? .joins
      }
    }

    func leave(_ user: String, _ index: Int) { residents.leave(UserKey(user), handle(index)) }

    func handle(_ index: Int) -> SessionHandle {
      SessionHandle(loop: 0, token: Token(.client, index: index, generation: 0))
    }
  }

  private final class Sequence<Element: Sendable>: Sendable {
    private let elements = Mutex<[Element]>([])
    func add(_ more: [Element]) { elements.withLock { $0 += more } }
    func take() -> [Element] {
      elements.withLock { elements in
        defer { elements = [] }
        return elements
      }
    }
  }

  @Test func theFirstAsksAndTheOthersFollow() {
    let stage = Stage()
    #expect(stage.enter("alice", 1) == .waits)
    #expect(stage.enter("alice", 2) == .waits)
    #expect(stage.directory.questions == ["alice"])
    stage.directory.tell(.at("a"))
    #expect(Set(stage.woken.take()) == [stage.handle(1), stage.handle(2)])
    #expect(stage.enter("alice", 1) == .at("a"))
    #expect(stage.enter("alice", 2) == .at("a"))
    #expect(stage.enter("alice", 3) == .at("a"))
    #expect(stage.directory.questions == [])
    #expect(stage.residents.member(of: UserKey("alice")) == "a")
    for index in 1...3 { stage.leave("alice", index) }
    #expect(stage.directory.departed == ["alice"])
    #expect(stage.residents.count == 0)
  }

  @Test func aMoveWaitsForTheLastSession() {
    let stage = Stage()
    stage.directory.set(.at("a"))
    #expect(stage.enter("alice", 1) == .at("a"))
    #expect(stage.enter("alice", 2) == .at("a"))
    stage.residents.confirm(UserKey("alice"))
    stage.directory.set(nil)
    stage.directory.recall("alice")
    #expect(stage.kicked.take() == [stage.handle(1), stage.handle(2)])
    #expect(stage.enter("alice", 3) == .waits)
    stage.leave("alice", 1)
    #expect(stage.directory.questions == [])
    stage.leave("alice", 2)
    #expect(stage.directory.departed == ["alice!"])
    #expect(stage.directory.questions == ["alice"])
    stage.directory.tell(.at("b"))
    #expect(stage.woken.take() == [stage.handle(3)])
    #expect(stage.enter("alice", 3) == .at("b"))
    // A recall of nobody is none.
    stage.directory.recall("bob")
    #expect(stage.kicked.take() == [])
  }

  @Test func aLostMemberIsLeftAtTheNextLogin() {
    let stage = Stage()
    stage.directory.set(.at("a"))
    #expect(stage.enter("alice", 1) == .at("a"))
    stage.directory.set(.at("b"))
    #expect(stage.enter("alice", 2, leaves: .lost) == .waits)
    #expect(stage.kicked.take() == [stage.handle(1)])
    stage.leave("alice", 1)
    #expect(stage.woken.take() == [stage.handle(2)])
    #expect(stage.enter("alice", 2) == .at("b"))
  }

  /// The word that it has a place and the word that it must go pass each other.
  @Test func aPlaceIsLostBeforeItIsSeen() {
    let stage = Stage()
    #expect(stage.enter("alice", 1) == .waits)
    stage.directory.tell(.at("a"))
    stage.directory.recall("alice")
    #expect(stage.kicked.take() == [stage.handle(1)])
    #expect(stage.enter("alice", 1) == .waits)
    stage.leave("alice", 1)
    #expect(stage.directory.departed == ["alice"])
    #expect(stage.residents.count == 0)
  }

  @Test func whoWaitsMayGo() {
    let stage = Stage()
    #expect(stage.enter("alice", 1) == .waits)
    stage.leave("alice", 1)
    // The answer finds nobody.
    stage.directory.tell(.at("a"))
    #expect(stage.directory.departed == ["alice"])
    #expect(stage.residents.count == 0)
    // A refusal that nobody hears is not kept.
    #expect(stage.enter("alice", 2) == .waits)
    #expect(stage.enter("alice", 3) == .waits)
    stage.directory.tell(.failed("away"))
    stage.leave("alice", 2)
    #expect(stage.enter("alice", 3) == .failed("away"))
    stage.directory.set(.nowhere)
    #expect(stage.enter("alice", 3) == .nowhere)
    #expect(stage.residents.count == 0)
  }

  @Test func onlyALoneSessionGoesElsewhere() {
    let stage = Stage()
    let question = PlaceQuestion(preferred: "b") { _ in true }
    stage.directory.set(.at("a"))
    #expect(stage.enter("alice", 1) == .at("a"))
    #expect(stage.enter("alice", 2) == .at("a"))
    #expect(stage.residents.relocate(UserKey("alice"), stage.handle(1), question) == nil)
    stage.leave("alice", 2)
    stage.directory.set(.at("b"))
    #expect(stage.residents.relocate(UserKey("alice"), stage.handle(1), question) == .at("b"))
    #expect(stage.enter("alice", 1) == .at("b"))
    #expect(stage.directory.departed == ["alice"])
  }

  /// Threads let users come, go, be recalled and lose their members at random: at no moment does a user count at two
  /// members, and at the end nobody is left.
  @Test func aStormLeavesNobodyAtTwoMembers() {
    /// Answers at random, now or later, with another member each time.
    final class Restless: UserDirectory {
      let recall = Mutex<[@Sendable (String) -> Void]>([])
      let pending = Mutex<[@Sendable (PlaceAnswer) -> Void]>([])
      func locate(
        _ user: String, _ question: PlaceQuestion, later: @escaping @Sendable (PlaceAnswer) -> Void
      ) -> PlaceAnswer? {
        if Bool.random() { return .at("m\(Int.random(in: 0..<4))") }
        pending.withLock { $0.append(later) }
        return nil
      }
      func answerAll() {
        let all = pending.withLock { pending in
          defer { pending = [] }
          return pending
        }
        for later in all { later(Int.random(in: 0..<10) == 0 ? .failed("") : .at("m\(Int.random(in: 0..<4))")) }
      }
      func depart(_ user: String, wasThere: Bool) {}
      func move(_ user: String, to member: String) {}
      func forget(_ user: String) -> Bool { false }
      func lookup(_ user: String) -> DirectoryEntry? { nil }
      func forEach(_ body: ([DirectoryEntry]) -> Bool) {}
      var count: Int { 0 }
      var pauses: Int { 0 }
      func onRecall(_ body: @escaping @Sendable (String) -> Void) { recall.withLock { $0 = [body] } }
    }
    /// One thread's sessions; a kick is a mark that the thread sees, as a loop would.
    final class Sessions: Sendable {
      let kicked = Mutex<Set<SessionHandle>>([])
    }
    let world = Presences()
    let directory = Restless()
    let marks = Sessions()
    let residents = Residents(
      directory, kick: { handles, _ in marks.kicked.withLock { $0.formUnion(handles) } }, wake: { _ in })
    let threads = 4
    DispatchQueue.concurrentPerform(iterations: threads) { thread in
      var present: [SessionHandle: String] = [:]
      var waiting: [SessionHandle: String] = [:]
      var number = 0
      func enter(_ user: String, _ handle: SessionHandle) {
        let entry = residents.enter(UserKey(user), handle, PlaceQuestion(preferred: nil) { _ in true }) { _, _, _ in
          Int.random(in: 0..<20) == 0 ? .ends(.lost) : .joins
        }
        switch entry {
        case .at(let member):
          world.arrive(user, member)
          present[handle] = user
          waiting[handle] = nil
        case .waits: waiting[handle] = user
        case .nowhere, .failed: waiting[handle] = nil
        }
      }
      func leave(_ handle: SessionHandle, _ user: String) {
        world.depart(user)
        residents.leave(UserKey(user), handle)
        present[handle] = nil
      }
      for _ in 0..<1_500 {
        switch Int.random(in: 0..<10) {
        case 0..<4 where waiting.count < 5:
          number += 1
          enter(
            "user\(Int.random(in: 0..<8))",
            SessionHandle(loop: thread, token: Token(.client, index: number, generation: 0)))
        case 4..<6: if let (handle, user) = present.randomElement() { leave(handle, user) }
        case 6:
          if let (handle, user) = waiting.randomElement() {
            residents.leave(UserKey(user), handle)
            waiting[handle] = nil
          }
        case 7..<8: directory.recall.withLock { $0 }.first?("user\(Int.random(in: 0..<8))")
        default: directory.answerAll()
        }
        for (handle, user) in present where marks.kicked.withLock({ $0.remove(handle) }) != nil { leave(handle, user) }
        for (handle, user) in waiting {
          if marks.kicked.withLock({ $0.remove(handle) }) != nil {
            residents.leave(UserKey(user), handle)
            waiting[handle] = nil
          } else {
            enter(user, handle)
          }
        }
      }
      for (handle, user) in present { leave(handle, user) }
      for (handle, user) in waiting { residents.leave(UserKey(user), handle) }
    }
    directory.answerAll()
    #expect(world.broken.withLock { $0 } == [])
    #expect(world.places.withLock { $0.isEmpty })
    #expect(residents.count == 0)
  }
}

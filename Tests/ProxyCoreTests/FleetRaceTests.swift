// swift-format-ignore-file: NeverForceUnwrap
// A test that unwraps nil fails, which is what it is for.

import Foundation
import Testing

@testable import Protocols
@testable import ProxyCore

#if !PROXYD_TSAN
  import struct Synchronization.Mutex
#endif

/// What passes each other: words about a user or a member that come at the wrong moment.
struct FleetRaceTests {
  private func handle(_ index: Int) -> SessionHandle {
    SessionHandle(loop: 0, token: Token(.client, index: index, generation: 0))
  }

  // MARK: Names

  /// Two names that Swift takes for equal texts, and no mail server does.
  private let composed = "ren\u{E9}"
  private let decomposed = "rene\u{301}"

  @Test func usersAreToldApartByTheirBytes() {
    #expect(composed == decomposed)
    let directory = PlayedDirectory()
    let residents = Residents(directory, kick: { _, _ in }, wake: { _ in })
    let question = PlaceQuestion(preferred: "a") { _ in true }
    #expect(residents.enter(UserKey(composed), handle(1), question) { _, _, _ in .joins } == .waits)
    #expect(residents.enter(UserKey(decomposed), handle(2), question) { _, _, _ in .joins } == .waits)
    #expect(directory.questions.map { Array($0.utf8) } == [composed, decomposed].map { Array($0.utf8) })
    directory.tell(.at("a"))
    directory.tell(.at("b"))
    #expect(residents.enter(UserKey(composed), handle(1), question) { _, _, _ in .joins } == .at("a"))
    #expect(residents.enter(UserKey(decomposed), handle(2), question) { _, _, _ in .joins } == .at("b"))
    residents.leave(UserKey(composed), handle(1))
    residents.leave(UserKey(decomposed), handle(2))
    #expect(directory.departed.map { Array($0.utf8) } == [composed, decomposed].map { Array($0.utf8) })
    #expect(residents.count == 0)
  }

  /// Each of the two is written: else the other's login would wait for it in vain.
  @Test func usersAreWrittenByTheirBytes() throws {
    let keeper = try LocalDirectory(pool: "mail", affinity(.hash))
    var backlog = StateBacklog([])
    _ = backlog.add(composed, keeper, isUrgent: true)
    _ = backlog.add(decomposed, keeper, isUrgent: true)
    _ = backlog.add(composed, keeper, isUrgent: true)
    let names = backlog.take().users.flatMap { $0.names.map { Array($0.utf8) } }
    #expect(Set(names) == Set([composed, decomposed].map { Array($0.utf8) }))
    #expect(names.count == 2)
  }

  // MARK: Recalls

  /// A directory that does something between its answer and whoever asked.
  private final class Interrupted: UserDirectory {
    let real: LocalDirectory
    let meanwhile = Mutex<[@Sendable () -> Void]>([])

    init(_ real: LocalDirectory) { self.real = real }

    private func interrupt() {
      for body in meanwhile.withLock({ bodies in
        defer { bodies = [] }
        return bodies
      }) { body() }
    }

    func locate(
      _ user: String, _ question: PlaceQuestion, later: @escaping @Sendable (PlaceAnswer) -> Void
    ) -> PlaceAnswer? {
      let answer = real.locate(user, question) { [self] answer in
        interrupt()
        later(answer)
      }
      if answer != nil { interrupt() }
      return answer
    }
    func depart(_ user: String, wasThere: Bool) { real.depart(user, wasThere: wasThere) }
    func move(_ user: String, to member: String) { real.move(user, to: member) }
    func forget(_ user: String) -> Bool { real.forget(user) }
    func lookup(_ user: String) -> DirectoryEntry? { real.lookup(user) }
    func forEach(_ body: ([DirectoryEntry]) -> Bool) { real.forEach(body) }
    var count: Int { real.count }
    var pauses: Int { real.pauses }
    func onRecall(_ body: @escaping @Sendable (String) -> Void) { real.onRecall(body) }
  }

  /// An operator moves a user in the moment between the directory's answer and its arrival: the session that arrives with
  /// the old answer is ended, and not left where the user is to be no more.
  @Test(arguments: ["move", "forget"])
  func aMoveOvertakesAnAnswer(_ word: String) throws {
    let time = PlayedTime()
    let directory = Interrupted(try LocalDirectory(pool: "mail", affinity(.hash), time: time.time))
    let kicked = Mutex<[SessionHandle]>([])
    let residents = Residents(directory, kick: { handles, _ in kicked.withLock { $0 += handles } }, wake: { _ in })
    directory.meanwhile.withLock {
      $0.append { [directory] in
        if word == "move" { directory.move("alice", to: "b") } else { _ = directory.forget("alice") }
      }
    }
    _ = residents.enter(UserKey("alice"), handle(1), PlaceQuestion(preferred: "a") { _ in true }) { _, _, _ in .joins }
    #expect(kicked.withLock { $0 } == [handle(1)])
    residents.leave(UserKey("alice"), handle(1))
    let target = word == "move" ? "b" : "c"
    #expect(
      residents.enter(UserKey("alice"), handle(2), PlaceQuestion(preferred: "c") { _ in true }) { _, _, _ in .joins }
        == .at(target))
    #expect(kicked.withLock { $0 } == [handle(1)])
  }

  /// A recall that comes while the sessions it is meant for have gone already ends nobody's login.
  @Test func aRecallThatIsTooLateEndsNobody() throws {
    let time = PlayedTime()
    let directory = Interrupted(try LocalDirectory(pool: "mail", affinity(.hash), time: time.time))
    let kicked = Mutex<[SessionHandle]>([])
    let residents = Residents(directory, kick: { handles, _ in kicked.withLock { $0 += handles } }, wake: { _ in })
    let question = PlaceQuestion(preferred: "a") { _ in true }
    // The move is back where it was before the answer arrives.
    directory.meanwhile.withLock {
      $0.append { [directory] in
        directory.move("alice", to: "b")
        directory.move("alice", to: "a")
      }
    }
    #expect(residents.enter(UserKey("alice"), handle(1), question) { _, _, _ in .joins } == .at("a"))
    #expect(kicked.withLock { $0 } == [])
    #expect(residents.enter(UserKey("alice"), handle(2), question) { _, _, _ in .joins } == .at("a"))
  }

  // MARK: Clocks

  /// A prober notes that a member is back with a later time than a login has read: the login goes on.
  @Test func aMemberComesBackAfterTheLoginReadTheClock() throws {
    var settings = HealthSettings()
    settings.rise = 1
    let standing = BackendStanding("a", settings)
    for _ in 0..<3 { _ = standing.learn(.probeFailed("away"), at: 1_000) }
    #expect(standing.learn(.probeSucceeded, at: 5_000) == .recovered)
    var pool = PoolSettings(members: [MemberSettings("a")])
    pool.slowStart = Timeouts.seconds(100)
    let member = Member(settings: pool.members[0], standing: standing, gate: LoginGate(most: nil), servers: [:])
    let plan = try PoolPlan(pool, [member], addresses: [:])
    #expect(plan.choice(tag: nil, tried: [], at: 4_999).candidates[0].share == 5)
    #expect(plan.choice(tag: nil, tried: [], at: 5_000 + Timeouts.seconds(50)).candidates[0].share == 50)
  }
}

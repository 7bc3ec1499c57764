// swift-format-ignore-file: NeverForceUnwrap
// A test that unwraps nil fails, which is what it is for.

import Foundation
import Testing

// In a build for ThreadSanitizer ProxyCore has a Mutex of its own.
#if !PROXYD_TSAN
  import struct Synchronization.Mutex
#endif

@testable import ProxyCore

/// Threads let users log in at members that nobody probes and that come and go, while operators move them. Sessions look
/// again only when they are told to: at the end nobody waits for a word that never comes, and at no moment is a user at two
/// members.
struct TrialStormTests {
  /// What all threads share.
  private final class World: Sendable {
    let clock = PlayedClock()
    let standings: [BackendStanding]
    let directory: LocalDirectory
    let kicked = Mutex<Set<SessionHandle>>([])
    let woken = Mutex<Set<SessionHandle>>([])
    let weather = Mutex<[String: Bool]>([:])
    let presences = Presences()
    let trials = Mutex<Int>(0)

    init() throws {
      var settings = HealthSettings()
      settings.isProbed = false
      standings = ["a", "b", "c"].map { BackendStanding($0, settings) }
      directory = try LocalDirectory(pool: "mail", affinity(.hash, pause: 0), time: PlayedTime().time)
    }

    func pool() throws -> Pool {
      let settings = PoolSettings(members: standings.map { MemberSettings($0.name) })
      let members = zip(settings.members, standings).map {
        Member(settings: $0, standing: $1, gate: LoginGate(most: nil), servers: [:])
      }
      let plan = try PoolPlan(settings, members, addresses: [:])
      return Pool(
        "mail", plan, directory, clock: .played(clock),
        kick: { [weak self] handles, _ in self?.kicked.withLock { $0.formUnion(handles) } },
        wake: { [weak self] handles in self?.woken.withLock { $0.formUnion(handles) } })
    }

    func isBad(_ member: String) -> Bool { weather.withLock { $0[member] ?? false } }
  }

  /// A thread's sessions.
  private struct Sessions {
    let world: World
    let pool: Pool
    var all: [SessionHandle: (claim: Claim, isIn: Bool)] = [:]

    mutating func begin(_ user: String, _ handle: SessionHandle) {
      all[handle] = (Claim(user: user, tag: nil, handle: handle), false)
      look(handle)
    }

    /// As a session does that waits for a place.
    mutating func look(_ handle: SessionHandle) {
      guard var session = all[handle], session.claim.member == nil else { return }
      switch pool.advance(&session.claim) {
      case .at(let member):
        if session.claim.trial != nil { world.trials.withLock { $0 += 1 } }
        world.presences.arrive(session.claim.user, member.name)
        all[handle] = session
      case .waits: all[handle] = session
      case .refused: all[handle] = nil
      }
    }

    mutating func end(_ handle: SessionHandle) {
      guard var session = all.removeValue(forKey: handle) else { return }
      if session.claim.member != nil { world.presences.depart(session.claim.user) }
      pool.release(&session.claim)
    }

    /// The member answers, as it is.
    mutating func answer(_ handle: SessionHandle) {
      guard var session = all[handle], let member = session.claim.member, !session.isIn else { return }
      let now = world.clock.now
      guard world.isBad(member.name) else {
        pool.admitted(&session.claim)
        _ = member.standing.learn(.loginAnswered, of: session.claim.trial, at: now)
        all[handle] = (session.claim, true)
        return
      }
      _ = member.standing.learn(.loginFailed("bad"), of: session.claim.trial, at: now)
      world.presences.depart(session.claim.user)
      if pool.relocate(&session.claim) {
        all[handle] = session
        look(handle)
      } else {
        all[handle] = nil
        pool.release(&session.claim)
      }
    }

    /// Does what others have told.
    mutating func hear() {
      for (handle, session) in all where world.kicked.withLock({ $0.remove(handle) }) != nil {
        guard !session.isIn else {
          end(handle)
          continue
        }
        var claim = session.claim
        if claim.member != nil { world.presences.depart(claim.user) }
        pool.displace(&claim)
        all[handle] = (claim, false)
        look(handle)
      }
      for handle in all.keys where world.woken.withLock({ $0.remove(handle) }) != nil { look(handle) }
    }
  }

  @Test func nobodyWaitsInVain() throws {
    let world = try World()
    let pool = try world.pool()
    let left = Mutex<[Sessions]>([])
    DispatchQueue.concurrentPerform(iterations: 4) { thread in
      var sessions = Sessions(world: world, pool: pool)
      for number in 0..<60_000 {
        guard number < 10_000 || world.trials.withLock({ $0 }) < 100 else { break }
        switch Int.random(in: 0..<20) {
        case 0..<6 where sessions.all.count < 12:
          sessions.begin(
            "user\(Int.random(in: 0..<8))",
            SessionHandle(loop: thread, token: Token(.client, index: number, generation: 0)))
        case 6..<12: if let handle = sessions.all.keys.randomElement() { sessions.answer(handle) }
        case 12..<14: if let handle = sessions.all.keys.randomElement() { sessions.end(handle) }
        case 14: world.clock.advance(seconds: UInt64.random(in: 1...4))
        case 15:
          if Int.random(in: 0..<20) == 0 {
            let member = ["a", "b", "c"].randomElement()!
            let isBad = Int.random(in: 0..<3) > 0
            world.weather.withLock { $0[member] = isBad }
          }
        case 16:
          if Int.random(in: 0..<4) == 0 {
            world.directory.move("user\(Int.random(in: 0..<8))", to: ["a", "b", "c"].randomElement()!)
          }
        default: sessions.hear()
        }
      }
      left.withLock { $0.append(sessions) }
    }
    // Whoever is at a member ends some time. Then everybody who waits is told to go on, and ends.
    var all = left.withLock { $0 }
    world.weather.withLock { $0 = [:] }
    for _ in 0..<1_000 where all.contains(where: { !$0.all.isEmpty }) {
      for index in all.indices {
        all[index].hear()
        for (handle, session) in all[index].all where session.claim.member != nil { all[index].end(handle) }
      }
    }
    let stuck = all.flatMap { $0.all.values.map { "\($0.claim.user): \($0.claim)" } }
    #expect(stuck == [])
    #expect(world.presences.broken.withLock { $0 } == [])
    #expect(pool.residents?.count == 0)
    #expect(pool.sessions == 0)
    #expect(world.standings.allSatisfy { $0.sessions == 0 && $0.logins == 0 })
    #expect(world.trials.withLock { $0 } >= 100)
  }
}

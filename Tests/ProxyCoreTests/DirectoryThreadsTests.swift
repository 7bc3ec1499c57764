// swift-format-ignore-file: NeverForceUnwrap
// A test that unwraps nil fails, which is what it is for.

import Foundation
import Testing

@testable import ProxyCore

/// Many threads ask, leave, move and forget users, in real time.
struct DirectoryThreadsTests {
  private static let users = (0..<40).map { "user\($0)@example.com" }
  private static let members = ["a", "b", "c"]
  private static let pause: UInt64 = 3_000_000

  /// Who is where, as the test sees it.
  private struct Seat: Sendable {
    var isTaken = false
    var member = ""
    /// Where something may be left of the user, and since when.
    var last: String?
    var left: UInt64 = 0
    var isArrived = false
  }

  /// What the threads have in common.
  private final class Play: Sendable {
    let directory: LocalDirectory
    let seats = DirectoryThreadsTests.users.map { _ in Shared(Seat()) }
    let violations = Shared<[String]>([])
    let visits = Shared(0)
    let changes = Shared(0)

    init(_ directory: LocalDirectory) { self.directory = directory }

    /// One thread's part, until `isOver` says so.
    func run(seed: UInt64, until isOver: () -> Bool) {
      var random = SeededGenerator(seed: seed)
      while !isOver() {
        let index = Int.random(in: 0..<seats.count, using: &random)
        let user = DirectoryThreadsTests.users[index]
        let member = DirectoryThreadsTests.members.randomElement(using: &random)!
        switch UInt8.random(in: 0..<10, using: &random) {
        case 0: directory.move(user, to: member)
        case 1: _ = directory.forget(user)
        default:
          let refused = DirectoryThreadsTests.members.randomElement(using: &random)!
          visit(index, member, refused, wasThere: UInt8.random(in: 0..<4, using: &random) > 0)
        }
      }
    }

    private func visit(_ index: Int, _ preferred: String, _ refused: String, wasThere: Bool) {
      let user = DirectoryThreadsTests.users[index]
      let question = PlaceQuestion(preferred: preferred == refused ? nil : preferred) { $0 != refused }
      let answer = directory.place(user, question)
      let now = DispatchTime.now().uptimeNanoseconds
      guard case .at(let member)? = answer else {
        if answer != .nowhere || preferred != refused {
          violations.withLock { $0.append("\(user): \(String(describing: answer))") }
        }
        return
      }
      let problem = seats[index].withLock { seat -> String? in
        defer {
          seat.isTaken = true
          seat.member = member
          seat.isArrived = seat.last != member
        }
        if seat.isTaken { return "\(user) at \(member) and \(seat.member)" }
        if member == refused { return "\(user) at \(member), which was refused" }
        guard let last = seat.last, last != member else { return nil }
        changes.withLock { $0 += 1 }
        // The departure's time was taken before it was told.
        return now < seat.left + DirectoryThreadsTests.pause ? "\(user) from \(last) to \(member) at once" : nil
      }
      if let problem { violations.withLock { $0.append(problem) } }
      visits.withLock { $0 += 1 }
      sched_yield()
      seats[index].withLock { seat in
        seat.isTaken = false
        if wasThere {
          seat.last = member
          seat.left = DispatchTime.now().uptimeNanoseconds
        } else if seat.isArrived {
          seat.last = nil
        }
      }
      directory.depart(user, wasThere: wasThere)
    }
  }

  private func play(_ directory: LocalDirectory, until isOver: @escaping @Sendable (Play) -> Bool) -> Play {
    let play = Play(directory)
    let finished = DispatchSemaphore(value: 0)
    for seed in 0..<8 {
      Thread.detachNewThread {
        play.run(seed: UInt64(seed)) { isOver(play) }
        finished.signal()
      }
    }
    for _ in 0..<8 { finished.wait() }
    #expect(play.violations.value == [])
    return play
  }

  private func settings(_ kind: AffinitySettings.Kind) -> AffinitySettings {
    var settings = affinity(kind)
    settings.pause = DirectoryThreadsTests.pause
    return settings
  }

  /// Whoever has a place has the user alone; who changes the member does so after the pause; and what the file has in the
  /// end is what memory has.
  @Test(arguments: [AffinitySettings.Kind.hash, .table])
  func aUserIsAtOneMemberAtATime(_ kind: AffinitySettings.Kind) throws {
    let folder = try Folder()
    let file = try StateFile(folder.file("state.db")) { Issue.record("\($0)") }
    let directory = try LocalDirectory(pool: "mail", settings(kind), file: file)
    let play = play(directory) { $0.visits.value >= 4_000 }
    #expect(play.changes.value > 200)
    let known = directory.all
    file.close()
    guard kind == .table else { return }
    #expect(try StateDatabase(folder.file("state.db")).users() == known.mapValues(\.member))
  }

  /// The same while the file can't be written for some time, twice: nobody hangs, and nothing is missing in the end.
  @Test func aFileThatFailsMeanwhile() throws {
    let folder = try Folder()
    let news = NewsHeard()
    let file = try StateFile(folder.file("state.db")) { news.take($0) }
    let directory = try LocalDirectory(pool: "mail", settings(.table), file: file)
    let failures = Shared(0)
    let play = play(directory) { play in
      let visits = play.visits.value
      let fails = failures.withLock { count in
        guard visits >= 1_000 * (count + 1), count < 2 else { return false }
        count += 1
        return true
      }
      if fails { file.disturb { try? $0?.run("PRAGMA query_only = ON") } }
      return visits >= 4_000 && news.list.contains(.complete)
    }
    #expect(play.changes.value > 200)
    eventually("it is trusted again") { file.isTrusted }
    let known = directory.all
    file.close()
    #expect(try StateDatabase(folder.file("state.db")).users() == known.mapValues(\.member))
  }
}

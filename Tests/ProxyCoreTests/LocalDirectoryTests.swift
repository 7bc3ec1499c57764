// swift-format-ignore-file: NeverForceUnwrap
// A test that unwraps nil fails, which is what it is for.

import Foundation
import Testing

// In a build for ThreadSanitizer ProxyCore has a Mutex of its own.
#if !PROXYD_TSAN
  import struct Synchronization.Mutex
#endif

@testable import ProxyCore

/// A directory without a file, in a time that is played.
struct LocalDirectoryTests {
  private let played = PlayedTime()

  private func directory(_ settings: AffinitySettings) throws -> LocalDirectory {
    try LocalDirectory(pool: "mail", settings, time: played.time)
  }

  @Test(arguments: [AffinitySettings.Kind.hash, .table])
  func aUserStays(_ kind: AffinitySettings.Kind) throws {
    let directory = try directory(affinity(kind))
    #expect(directory.lookup("alice") == nil)
    #expect(directory.placeNow("alice", .to("a")) == .at("a"))
    #expect(directory.lookup("alice") == DirectoryEntry(user: "alice", member: "a", expires: nil))
    #expect(directory.count == 1)
    directory.depart("alice", wasThere: true)
    // The ring has another opinion meanwhile.
    #expect(directory.placeNow("alice", .to("b")) == .at("a"))
    directory.depart("alice", wasThere: true)
    #expect(directory.placeNow("bob", .to("b")) == .at("b"))
    #expect(directory.all.mapValues(\.member) == ["alice": "a", "bob": "b"])
  }

  /// Where the users of the process before were, a hash does not know: whoever comes first is told a place when the pause
  /// after the start is over.
  @Test func theProcessBeforeMayHaveHadUsers() throws {
    let began = played.time.now()
    func directory(_ kind: AffinitySettings.Kind, pause: UInt64 = 2) throws -> LocalDirectory {
      try LocalDirectory(pool: "mail", affinity(kind, pause: pause), time: played.time, began: began)
    }
    played.advance(milliseconds: 500)
    let (hash, answers) = (try directory(.hash), Answers())
    #expect(hash.locate("alice", .to("a")) { answers.take($0) } == nil)
    hash.move("alice", to: "b")
    played.advance(milliseconds: 1_000)
    #expect(hash.locate("bob", .to(nil)) { answers.take($0) } == nil)
    played.advance(milliseconds: 499)
    #expect(answers.list == [])
    played.advance(milliseconds: 1)
    #expect(Set(answers.list.map { "\($0)" }) == ["at(\"b\")", "nowhere"])
    #expect(hash.placeNow("carol", .to("a")) == .at("a"))
    #expect(try LocalDirectory(pool: "mail", affinity(.hash), time: played.time).placeNow("x", .to("a")) == .at("a"))
    // With nobody there the chores of all these days have not to be done.
    for user in ["alice", "carol"] { hash.depart(user, wasThere: true) }
    played.advance(seconds: 60 * 86_400)
    #expect(hash.placeNow("dave", .to("a")) == .at("a"))
  }

  /// A table knows them, and without a pause there is nothing to wait for.
  @Test func nobodyWaitsForTheProcessBeforeInVain() throws {
    for settings in [affinity(.table), affinity(.hash, pause: 0)] {
      let directory = try LocalDirectory(pool: "mail", settings, time: played.time, began: played.time.now())
      #expect(directory.placeNow("alice", .to("a")) == .at("a"))
    }
  }

  @Test func withSessionsNothingExpires() throws {
    let directory = try directory(affinity(.table, expiry: 60))
    #expect(directory.placeNow("alice", .to("a")) == .at("a"))
    played.advance(seconds: 10_000)
    #expect(directory.lookup("alice")?.member == "a")
    directory.depart("alice", wasThere: true)
    #expect(directory.lookup("alice")?.expires == played.wall + 60)
    played.advance(seconds: 59)
    #expect(directory.placeNow("alice", .to("b")) == .at("a"))
    directory.depart("alice", wasThere: true)
    played.advance(seconds: 60)
    #expect(directory.lookup("alice") == nil)
    #expect(directory.all.isEmpty)
    #expect(directory.placeNow("alice", .to("b")) == .at("b"))
  }

  /// The sweep needs a round to notice; then nothing is left, and no time is spent.
  @Test(arguments: [AffinitySettings.Kind.hash, .table])
  func whoIsExpiredTakesNoMemory(_ kind: AffinitySettings.Kind) throws {
    let directory = try directory(affinity(kind, expiry: 60))
    for number in 0..<1_000 {
      #expect(directory.placeNow("user\(number)", .to("a")) == .at("a"))
      directory.depart("user\(number)", wasThere: true)
    }
    #expect(directory.count == 1_000)
    played.advance(seconds: 80)
    #expect(directory.count == 0)
    #expect(directory.shards.allSatisfy { $0.state.withLock { $0.table.count == 0 } })
    played.advance(seconds: 2)
    #expect(played.waiting == 0)
  }

  /// A place by hash is kept while there are sessions, and for the pause.
  @Test func byHashNothingIsRemembered() throws {
    let directory = try directory(affinity(.hash))
    #expect(directory.placeNow("alice", .to("a")) == .at("a"))
    directory.depart("alice", wasThere: true)
    played.advance(milliseconds: 1_999)
    #expect(directory.lookup("alice")?.member == "a")
    played.advance(milliseconds: 1)
    #expect(directory.lookup("alice") == nil)
    #expect(directory.placeNow("alice", .to("b")) == .at("b"))
  }

  // MARK: Elsewhere

  @Test(arguments: [AffinitySettings.Kind.hash, .table])
  func elsewhereAfterAPause(_ kind: AffinitySettings.Kind) throws {
    let directory = try directory(affinity(kind))
    #expect(directory.placeNow("alice", .to("a")) == .at("a"))
    played.advance(seconds: 100)
    directory.depart("alice", wasThere: true)
    played.advance(milliseconds: 500)
    let answers = Answers()
    #expect(directory.locate("alice", .to("b", but: "a")) { answers.take($0) } == nil)
    played.advance(milliseconds: 1_499)
    #expect(answers.list == [])
    #expect(directory.lookup("alice")?.member == "b")
    played.advance(milliseconds: 1)
    #expect(answers.list == [.at("b")])
  }

  @Test func noPauseWhereNobodyWas() throws {
    let directory = try directory(affinity(.table))
    #expect(directory.placeNow("alice", .to("a")) == .at("a"))
    directory.depart("alice", wasThere: false)
    #expect(directory.lookup("alice") == nil, "a login that failed is not remembered")
    #expect(directory.placeNow("alice", .to("b", but: "a")) == .at("b"))
    directory.depart("alice", wasThere: true)
    // A failed login at the same member does not shorten the pause of the one before.
    #expect(directory.placeNow("alice", .to("a")) == .at("b"))
    directory.depart("alice", wasThere: false)
    #expect(directory.lookup("alice")?.member == "b", "what was remembered before stays")
    let answers = Answers()
    #expect(directory.locate("alice", .to("a", but: "b")) { answers.take($0) } == nil)
    played.advance(seconds: 2)
    #expect(answers.next() == .at("a"))
    // The pause is over, and a failed login at the new member leaves nothing there.
    directory.depart("alice", wasThere: false)
    #expect(directory.placeNow("alice", .to("c", but: "a", "b")) == .at("c"))
  }

  @Test func withoutAPauseNobodyWaits() throws {
    let directory = try directory(affinity(.table, pause: 0))
    #expect(directory.placeNow("alice", .to("a")) == .at("a"))
    directory.depart("alice", wasThere: true)
    #expect(directory.placeNow("alice", .to("b", but: "a")) == .at("b"))
  }

  @Test func nowhere() throws {
    let directory = try directory(affinity(.table))
    #expect(directory.placeNow("alice", .to(nil)) == .nowhere)
    #expect(directory.count == 0)
    #expect(directory.placeNow("alice", .to("a")) == .at("a"))
    directory.depart("alice", wasThere: true)
    #expect(directory.placeNow("alice", .to(nil, but: "a")) == .nowhere)
    // The place is kept for better times.
    #expect(directory.placeNow("alice", .to(nil)) == .at("a"))
  }

  /// The member that was to be is lost during the pause.
  @Test func thePlaceIsAskedForAgainAfterThePause() throws {
    let directory = try directory(affinity(.table))
    #expect(directory.placeNow("alice", .to("a")) == .at("a"))
    directory.depart("alice", wasThere: true)
    let isLost = Shared(false)
    let question = PlaceQuestion(preferred: "b") { member in member == "b" && !isLost.value }
    let answers = Answers()
    #expect(directory.locate("alice", question) { answers.take($0) } == nil)
    isLost.withLock { $0 = true }
    directory.move("alice", to: "c")
    #expect(answers.list == [])
    played.advance(seconds: 2)
    #expect(answers.next() == .at("b"), "nobody else was to be had")
  }

  /// Whom the user would get is a look at all members: it is asked for by whoever needs it, and once.
  @Test func thePreferredMemberIsAskedForWhereItIsNeeded() throws {
    let directory = try directory(affinity(.table))
    let asked = Counter()
    func question(but refused: String? = nil) -> PlaceQuestion {
      @Sendable func ask() -> String? {
        asked.add()
        return "b"
      }
      return PlaceQuestion(preferred: ask()) { $0 != refused }
    }
    #expect(directory.placeNow("alice", question()) == .at("b"))
    #expect(asked.count == 1, "nothing was known")
    directory.depart("alice", wasThere: true)
    #expect(directory.placeNow("alice", question()) == .at("b"))
    #expect(asked.count == 1, "remembered")
    directory.depart("alice", wasThere: true)
    played.advance(seconds: 60)
    directory.move("alice", to: "c")
    #expect(directory.placeNow("alice", question(but: "c")) == .at("b"))
    #expect(asked.count == 2, "remembered, and refused")
  }

  /// The answer to a question may be old by the time it is there.
  @Test func aMoveWhileTheMemberIsChosenCounts() throws {
    let directory = try directory(affinity(.table))
    @Sendable func moved() -> String? {
      directory.move("alice", to: "c")
      return "b"
    }
    #expect(directory.placeNow("alice", PlaceQuestion(preferred: moved()) { _ in true }) == .at("c"))
  }

  // MARK: One after the other

  @Test func aQuestionBeforeTheDepartureWaits() throws {
    let directory = try directory(affinity(.table))
    #expect(directory.placeNow("alice", .to("a")) == .at("a"))
    let answers = Answers()
    for _ in 0..<2 { #expect(directory.locate("alice", .to("a")) { answers.take($0) } == nil) }
    played.advance(seconds: 5)
    #expect(answers.list == [])
    directory.depart("alice", wasThere: true)
    #expect(answers.list == [.at("a")])
    directory.depart("alice", wasThere: true)
    #expect(answers.list == [.at("a"), .at("a")])
  }

  @Test func aDepartureNobodyArrivedFor() throws {
    let directory = try directory(affinity(.table))
    directory.depart("alice", wasThere: true)
    #expect(directory.count == 0)
    directory.move("alice", to: "a")
    directory.depart("alice", wasThere: true)
    #expect(directory.lookup("alice")?.member == "a")
  }

  // MARK: Operators

  private func recalls(_ directory: LocalDirectory) -> Shared<[String]> {
    let users = Shared<[String]>([])
    directory.onRecall { user in users.withLock { $0.append(user) } }
    return users
  }

  @Test(arguments: [AffinitySettings.Kind.hash, .table])
  func aMoveOfAUserWithSessions(_ kind: AffinitySettings.Kind) throws {
    let directory = try directory(affinity(kind))
    let recalls = recalls(directory)
    #expect(directory.placeNow("alice", .to("a")) == .at("a"))
    directory.move("alice", to: "b")
    #expect(recalls.value == ["alice"])
    let answers = Answers()
    #expect(directory.locate("alice", .to("a")) { answers.take($0) } == nil)
    played.advance(seconds: 10)
    #expect(answers.list == [], "the sessions have not ended")
    directory.depart("alice", wasThere: true)
    #expect(answers.list == [], "the pause is not over")
    played.advance(seconds: 2)
    #expect(answers.next() == .at("b"))
    directory.depart("alice", wasThere: true)
    // It is no move to where one is.
    directory.move("alice", to: "b")
    played.advance(seconds: 60)
    #expect(directory.placeNow("alice", .to("a")) == .at("b"), "an operator's choice is kept, whatever the kind")
    directory.move("alice", to: "b")
    #expect(recalls.value == ["alice"])
    // A change of mind while the sessions end: they were told to go, and come back.
    directory.move("alice", to: "c")
    directory.move("alice", to: "b")
    #expect(recalls.value == ["alice", "alice"])
    directory.depart("alice", wasThere: true)
    #expect(directory.placeNow("alice", .to("a")) == .at("b"))
  }

  @Test(arguments: [AffinitySettings.Kind.hash, .table])
  func aMoveOfAUserWithoutSessions(_ kind: AffinitySettings.Kind) throws {
    let directory = try directory(affinity(kind, expiry: 100))
    let recalls = recalls(directory)
    directory.move("alice", to: "b")
    #expect(directory.lookup("alice") == DirectoryEntry(user: "alice", member: "b", expires: played.wall + 100))
    played.advance(seconds: 99)
    #expect(directory.placeNow("alice", .to("a")) == .at("b"))
    directory.depart("alice", wasThere: true)
    played.advance(seconds: 99)
    #expect(directory.placeNow("alice", .to("a")) == .at("b"))
    directory.depart("alice", wasThere: true)
    played.advance(seconds: 100)
    #expect(directory.placeNow("alice", .to("a")) == .at("a"))
    #expect(recalls.value == [])
  }

  /// What was dumped is loaded: with the time that was left, and without being anybody's choice.
  @Test func whatAnotherKnew() throws {
    let directory = try directory(affinity(.table, expiry: 100, rebalance: 3_600))
    #expect(directory.adopt(DirectoryEntry(user: "alice", member: "a", expires: played.wall + 30)))
    #expect(directory.adopt(DirectoryEntry(user: "bob", member: "a", expires: nil)))
    #expect(directory.adopt(DirectoryEntry(user: "carol", member: "a", expires: .max)))
    #expect(!directory.adopt(DirectoryEntry(user: "dave", member: "a", expires: played.wall)))
    #expect(!directory.adopt(DirectoryEntry(user: "dave", member: "a", expires: 0)))
    #expect(
      directory.all == [
        "alice": DirectoryEntry(user: "alice", member: "a", expires: played.wall + 30),
        "bob": DirectoryEntry(user: "bob", member: "a", expires: played.wall + 100),
        "carol": DirectoryEntry(user: "carol", member: "a", expires: played.wall + 100),
      ])
    let recalls = recalls(directory)
    #expect(directory.placeNow("erin", .to("a")) == .at("a"))
    #expect(directory.adopt(DirectoryEntry(user: "erin", member: "b", expires: played.wall + 10)))
    #expect(recalls.value == ["erin"])
    directory.depart("erin", wasThere: true)
    #expect(directory.lookup("erin") == DirectoryEntry(user: "erin", member: "b", expires: played.wall + 100))
    played.advance(seconds: 30)
    #expect(directory.lookup("alice") == nil)
    directory.onRebalance { _ in "c" }
    played.advance(seconds: 10)
    #expect(directory.lookup("bob")?.member == "c")
    let hashed = try self.directory(affinity(.hash, expiry: 100))
    #expect(hashed.adopt(DirectoryEntry(user: "alice", member: "a", expires: nil)))
    played.advance(seconds: 50)
    #expect(hashed.lookup("alice")?.member == "a")
  }

  @Test func forgetting() throws {
    let directory = try directory(affinity(.table))
    let recalls = recalls(directory)
    #expect(!directory.forget("alice"))
    #expect(directory.placeNow("alice", .to("a")) == .at("a"))
    directory.depart("alice", wasThere: true)
    played.advance(seconds: 3)
    #expect(directory.forget("alice"))
    #expect(!directory.forget("alice"))
    #expect(directory.count == 0)
    #expect(directory.placeNow("alice", .to("b")) == .at("b"))
    // With sessions: they end, and then the ring decides.
    #expect(directory.forget("alice"))
    #expect(recalls.value == ["alice"])
    #expect(directory.lookup("alice") == nil)
    let answers = Answers()
    #expect(directory.locate("alice", .to("c")) { answers.take($0) } == nil)
    directory.depart("alice", wasThere: true)
    #expect(answers.list == [], "it is another member, so there is a pause")
    played.advance(seconds: 2)
    #expect(answers.next() == .at("c"))
  }

  /// A user who is forgotten while a question waits goes where the ring says.
  @Test func forgettingWhoWaits() throws {
    let directory = try directory(affinity(.table))
    #expect(directory.placeNow("alice", .to("a")) == .at("a"))
    directory.depart("alice", wasThere: true)
    let answers = Answers()
    #expect(directory.locate("alice", .to("b", but: "a")) { answers.take($0) } == nil)
    #expect(directory.forget("alice"))
    played.advance(seconds: 2)
    #expect(answers.next() == .at("b"))
  }

  /// Names are bytes: what Swift takes for equal texts are two users, and neither is mistaken for the other while it waits.
  @Test func namesAreBytes() throws {
    let directory = try directory(affinity(.table))
    let (one, other) = ("jos\u{E9}", "jose\u{301}")
    #expect(one == other)
    #expect(directory.placeNow(one, .to("a")) == .at("a"))
    #expect(directory.placeNow(other, .to("b")) == .at("b"))
    let answers = Answers()
    #expect(directory.locate(one, .to("a")) { answers.take($0) } == nil)
    directory.depart(other, wasThere: true)
    #expect(answers.list == [])
    directory.depart(one, wasThere: true)
    #expect(answers.list == [.at("a")])
    for name in ["", String(repeating: "x", count: 512), "a\tb\nc\\", "\u{0}"] {
      #expect(directory.placeNow(name, .to("a")) == .at("a"))
      #expect(directory.lookup(name)?.user == name)
    }
    let long = String(repeating: "x", count: UserTable.longestName + 1)
    #expect(directory.placeNow(long, .to("a")) == .failed("the name is too long"))
    directory.move(long, to: "a")
    #expect(directory.lookup(long) == nil && !directory.forget(long))
    directory.depart(long, wasThere: true)
  }

  @Test func aWallClockMayBePutBack() throws {
    let directory = try directory(affinity(.table, expiry: 100))
    #expect(directory.placeNow("alice", .to("a")) == .at("a"))
    directory.depart("alice", wasThere: true)
    played.setWall(played.wall - 1_000_000)
    #expect(directory.lookup("alice")?.member == "a")
    played.advance(seconds: 70)
    #expect(directory.placeNow("alice", .to("b")) == .at("a"))
  }

  @Test func newTimesCount() throws {
    let directory = try directory(affinity(.table, expiry: 100))
    #expect(directory.placeNow("alice", .to("a")) == .at("a"))
    directory.depart("alice", wasThere: true)
    directory.adopt(affinity(.hash, expiry: 50, pause: 30))
    played.advance(seconds: 29)
    #expect(directory.lookup("alice")?.member == "a", "the kind stays")
    let answers = Answers()
    #expect(directory.locate("alice", .to("b", but: "a")) { answers.take($0) } == nil)
    played.advance(seconds: 1)
    #expect(answers.next() == .at("b"))
    directory.depart("alice", wasThere: true)
    played.advance(seconds: 50)
    #expect(directory.lookup("alice") == nil)
  }

  /// Who is known all the time is given, however many come and go meanwhile.
  @Test func allAreGivenInPortions() throws {
    let directory = try directory(affinity(.table, pause: 0))
    for number in 0..<200_000 { directory.move("user\(number)", to: "a") }
    #expect(directory.count == 200_000)
    var portions = 0
    var seen = Set<String>()
    var given = 0
    directory.forEach { entries in
      portions += 1
      given += entries.count
      #expect(entries.count <= LocalDirectory.portion)
      for entry in entries { seen.insert(entry.user) }
      // Everybody with an odd number goes, and others come.
      for number in 0..<100 {
        _ = directory.forget("user\(portions * 200 + number * 2 + 1)")
        directory.move("other\(portions)-\(number)", to: "b")
      }
      return true
    }
    #expect(portions >= 200)
    for number in stride(from: 0, to: 200_000, by: 2) { #expect(seen.contains("user\(number)")) }
    portions = 0
    directory.forEach { _ in
      portions += 1
      return portions < 3
    }
    #expect(portions == 3)
  }

  // MARK: Rebalance

  @Test func usersGoWhereTheRingWouldHaveThem() throws {
    let directory = try directory(affinity(.table, rebalance: 7_200))
    let recalls = recalls(directory)
    directory.onRebalance { user in user.hasPrefix("none") ? nil : "b" }
    for number in 0..<100 {
      #expect(directory.placeNow("idle\(number)", .to("a")) == .at("a"))
      directory.depart("idle\(number)", wasThere: true)
    }
    for number in 0..<10 { #expect(directory.placeNow("busy\(number)", .to("a")) == .at("a")) }
    #expect(directory.placeNow("none", .to("a")) == .at("a"))
    directory.move("chosen", to: "a")
    played.advance(seconds: 30)
    let moved = directory.all.values.filter { $0.member == "b" }.count
    #expect((55...60).contains(moved), "two a second: \(moved)")
    #expect(recalls.value == [], "those without sessions come first")
    played.advance(seconds: 35)
    #expect(directory.all.values.filter { $0.user.hasPrefix("idle") }.allSatisfy { $0.member == "b" })
    #expect(Set(recalls.value) == Set((0..<10).map { "busy\($0)" }) && recalls.value.count == 10)
    #expect(directory.lookup("none")?.member == "a")
    #expect(directory.lookup("chosen")?.member == "a", "an operator's choice stands")
    directory.depart("busy1", wasThere: true)
    played.advance(seconds: 2)
    #expect(directory.placeNow("busy1", .to("a")) == .at("b"))
  }

  @Test func withoutARateNobodyIsMoved() throws {
    let directory = try directory(affinity(.table))
    directory.onRebalance { _ in "b" }
    #expect(directory.placeNow("alice", .to("a")) == .at("a"))
    played.advance(seconds: 100)
    #expect(directory.lookup("alice")?.member == "a")
    // What was not wanted for long is not made up for.
    directory.adopt(affinity(.table, rebalance: 3_600))
    #expect(directory.lookup("alice")?.member == "a")
    played.advance(seconds: 3)
    #expect(directory.lookup("alice")?.member == "b")
  }
}

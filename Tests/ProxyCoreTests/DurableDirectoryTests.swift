// swift-format-ignore-file: NeverForceUnwrap
// A test that unwraps nil fails, which is what it is for.

import Foundation
import Glibc
import Testing

@testable import ProxyCore

/// What a directory and its file keep for each other.
struct DurableDirectoryTests {
  let folder: Folder
  let path: String
  let played = PlayedTime()
  let news = NewsHeard()

  init() throws {
    folder = try Folder()
    path = folder.file("state.db")
  }

  func open() throws -> StateFile { try StateFile(path, time: played.time) { [news] in news.take($0) } }

  func directory(_ file: StateFile, _ settings: AffinitySettings = affinity(.table)) throws -> LocalDirectory {
    try LocalDirectory(pool: "mail", settings, file: file, time: played.time)
  }

  /// What another process has left in the file.
  func write(_ users: [(user: String, member: String, stamp: UInt32)]) throws {
    try StateDatabase(path).write(
      users.map { AffinityRow(pool: "mail", user: $0.user, member: $0.member, stamp: $0.stamp) }, [])
  }

  /// What the file has soon.
  func expectSoon(
    _ users: [String: String], _ location: SourceLocation = #_sourceLocation
  ) {
    eventually("\(users.count) users are in the file", location) {
      // The log may be copied half written, as a kill may leave it; then it is looked at again.
      (try? afterKill(path, folder).users()) == users
    }
  }

  /// What the file says soon of alice's stamp. If the writer's word of the row before is late, it is written with the next
  /// batch of those nobody waits for: the clock goes on a little.
  private func expectStamp(
    _ stamp: Int, of directory: LocalDirectory, _ what: String, _ location: SourceLocation = #_sourceLocation
  ) {
    eventually(what, location) {
      if !directory.isUnwritten, (try? afterKill(path, folder).rows()["alice"]?.stamp) == stamp { return true }
      goOn()
      return false
    }
  }

  /// A little: the clock must not run away from a writer that waits for its processor, or the user's time is over.
  private func goOn() {
    usleep(50_000)
    played.advance(milliseconds: 100)
  }

  // MARK: kill -9

  @Test func whatWasAnsweredSurvives() throws {
    let file = try open()
    defer { file.close() }
    let directory = try directory(file)
    for number in 0..<300 {
      #expect(directory.place("user\(number)", .to(number % 2 == 0 ? "a" : "b")) == .at(number % 2 == 0 ? "a" : "b"))
      if number % 30 == 0 {
        let users = try afterKill(path, folder).users()
        #expect(users.count == number + 1 && users["user\(number)"] == "a")
      }
    }
    // The next process, after the pause that every user of a member is due.
    let copy = folder.file("next.db")
    for part in ["", "-wal"] { try FileManager.default.copyItem(atPath: path + part, toPath: copy + part) }
    let next = try StateFile(copy, time: played.time) { _ in }
    defer { next.close() }
    let heir = try LocalDirectory(pool: "mail", affinity(.table), file: next, time: played.time)
    #expect(heir.count == 300)
    #expect(
      heir.all
        == Dictionary(
          uniqueKeysWithValues: (0..<300).map {
            (
              "user\($0)",
              DirectoryEntry(user: "user\($0)", member: $0 % 2 == 0 ? "a" : "b", expires: played.wall + 900)
            )
          }))
    #expect(heir.placeNow("user1", .to("a")) == .at("b"))
    let answers = Answers()
    #expect(heir.locate("user2", .to("b", but: "a")) { answers.take($0) } == nil)
    eventually("the next place is written") { heir.record("user2")?.isUnwritten == false }
    played.advance(milliseconds: 1_999)
    #expect(answers.list == [], "the sessions of before may linger")
    played.advance(milliseconds: 1)
    #expect(answers.next() == .at("b"))
  }

  @Test func anotherPlaceIsInTheFileBeforeItIsTold() throws {
    let file = try open()
    defer { file.close() }
    let directory = try directory(file)
    #expect(directory.place("alice", .to("a")) == .at("a"))
    directory.depart("alice", wasThere: true)
    let answers = Answers()
    #expect(directory.locate("alice", .to("b", but: "a")) { answers.take($0) } == nil)
    expectSoon(["alice": "b"])
    #expect(answers.list == [], "the pause is not over")
    played.advance(seconds: 2)
    #expect(answers.next() == .at("b"))
    // A move is written some time, and in any case before somebody is sent there.
    directory.depart("alice", wasThere: true)
    played.advance(seconds: 2)
    directory.move("alice", to: "c")
    #expect(directory.place("alice", .to("a")) == .at("c"))
    #expect(try afterKill(path, folder).users() == ["alice": "c"])
  }

  /// A place that changes while the one before is being written is written too.
  @Test func aPlaceThatChangesMeanwhile() throws {
    let file = try open()
    defer { file.close() }
    let directory = try directory(file)
    #expect(directory.place("alice", .to("a")) == .at("a"))
    let key = UserKey("alice")
    directory.change(key) { _ = $0.move(key, to: directory.names.number("b")!, at: directory.moment) }
    let row = try #require(directory.row(of: "alice"))
    directory.change(key) { _ = $0.move(key, to: directory.names.number("c")!, at: directory.moment) }
    // The batch with the row of before is written now.
    directory.wrote([row])
    #expect(directory.record("alice")?.isUnwritten == true)
    played.advance(seconds: 1)
    expectSoon(["alice": "c"])
    eventually("nothing is left to be written") { !directory.isUnwritten }
  }

  /// The same of a stamp.
  @Test func aStampThatChangesMeanwhile() throws {
    let file = try open()
    defer { file.close() }
    let directory = try directory(file)
    #expect(directory.place("alice", .to("a")) == .at("a"))
    played.advance(seconds: 200)
    let key = UserKey("alice")
    directory.change(key) { _ = $0.depart(key, wasThere: true, at: directory.moment) }
    let row = try #require(directory.row(of: "alice"))
    played.advance(seconds: 300)
    directory.change(key) { shard in
      let waiter = DirectoryShard.Waiter(.to("a")) { _ in }
      let known = UserRecord.Known(verdict: .init(member: directory.names.number("a")!, accepts: true))
      _ = shard.arrive(key, waiter, known, at: directory.moment, waitsForFile: true)
    }
    let back = played.wall
    directory.wrote([row])
    played.advance(seconds: 1)
    eventually("the later one is written") { (try? afterKill(path, folder).rows()["alice"]?.stamp) == back }
    eventually("nothing is left to be written") { !directory.isUnwritten }
  }

  /// With an expiry of seconds every stamp is written, and each once.
  @Test func aShortExpiry() throws {
    let file = try open()
    defer { file.close() }
    let directory = try directory(file, affinity(.table, expiry: 5))
    #expect(directory.place("alice", .to("a")) == .at("a"))
    played.advance(seconds: 3)
    directory.depart("alice", wasThere: true)
    let left = played.wall
    played.advance(seconds: 1)
    expectStamp(left, of: directory, "the departure is written")
    #expect(directory.lookup("alice")?.member == "a")
    played.advance(seconds: 4)
    #expect(directory.lookup("alice") == nil)
  }

  /// Who stays where he is waits for no disk.
  @Test func aKnownUserIsAnsweredAtOnce() throws {
    let file = try open()
    defer { file.close() }
    let directory = try directory(file)
    #expect(directory.place("alice", .to("a")) == .at("a"))
    directory.depart("alice", wasThere: true)
    file.disturb { _ in
      // The file is busy all the time.
      #expect(directory.placeNow("alice", .to("b")) == .at("a"))
    }
  }

  /// With sessions the stamp in the file is never older than half the expiry, give or take the second of the batch.
  @Test func whoHasSessionsIsRememberedLongEnough() throws {
    let file = try open()
    defer { file.close() }
    let directory = try directory(file, affinity(.table, expiry: 400))
    #expect(directory.place("alice", .to("a")) == .at("a"))
    for _ in 0..<60 {
      played.advance(seconds: 25)
      eventually("the stamp is fresh") {
        if let stamp = try? afterKill(path, folder).rows()["alice"]?.stamp, played.wall - stamp <= 201 { return true }
        goOn()
        return false
      }
    }
    // And the one of who has left is that of the departure.
    played.advance(seconds: 60)
    directory.depart("alice", wasThere: true)
    let left = played.wall
    played.advance(seconds: 2)
    expectStamp(left, of: directory, "the departure is written")
  }

  /// Who comes back after a long time is soon stamped, and who comes and goes all the time costs the file little.
  @Test func whoComesBackIsRememberedLongEnough() throws {
    let file = try open()
    defer { file.close() }
    let directory = try directory(file, affinity(.table, expiry: 800))
    #expect(directory.place("alice", .to("a")) == .at("a"))
    let first = played.wall
    for _ in 0..<9 {
      played.advance(seconds: 10)
      directory.depart("alice", wasThere: true)
      #expect(directory.lookup("alice")?.expires == played.wall + 800, "memory is exact")
      #expect(directory.placeNow("alice", .to("b")) == .at("a"))
    }
    #expect(try afterKill(path, folder).rows()["alice"]?.stamp == first)
    played.advance(seconds: 10)
    directory.depart("alice", wasThere: true)
    let left = played.wall
    played.advance(seconds: 2)
    expectStamp(left, of: directory, "after an eighth it is written")
    played.advance(seconds: 700)
    #expect(directory.placeNow("alice", .to("b")) == .at("a"))
    let back = played.wall
    played.advance(seconds: 2)
    expectStamp(back, of: directory, "the return is written")
  }

  @Test func whoIsExpiredIsRemoved() throws {
    let file = try open()
    let directory = try directory(file, affinity(.table, expiry: 100))
    for user in ["alice", "bob", "carol", "dave"] { #expect(directory.place(user, .to("a")) == .at("a")) }
    directory.depart("alice", wasThere: true)
    directory.depart("carol", wasThere: false)
    played.advance(seconds: 2)
    expectSoon(["alice": "a", "bob": "a", "dave": "a"])
    played.advance(seconds: 130)
    expectSoon(["bob": "a", "dave": "a"])
    #expect(directory.forget("dave"))
    directory.depart("dave", wasThere: true)
    directory.depart("bob", wasThere: true)
    // If a stamp of dave's is just being written, it takes another batch; and memory is for the sweep to free.
    func isDone() -> Bool {
      directory.shards.map { $0.state.withLock { $0.table.count } }.reduce(0, +) == 1
        && (try? afterKill(path, folder).users()) == ["bob": "a"]
    }
    eventually("dave is forgotten") {
      if !isDone() { played.advance(milliseconds: 100) }
      return isDone()
    }
    file.close()
    // Who expires while nobody runs is removed at the next start.
    played.advance(seconds: 200)
    let next = try open()
    #expect(try self.directory(next, affinity(.table, expiry: 100)).count == 0)
    next.close()
    #expect(try StateDatabase(path).users() == [:])
  }

  @Test func closingWritesAll() throws {
    let file = try open()
    let directory = try directory(file)
    for number in 0..<5_000 { directory.move("user\(number)", to: "a") }
    for number in 0..<1_000 { _ = directory.forget("user\(number)") }
    file.close()
    #expect(try StateDatabase(path).users().count == 4_000)
    // Nobody waits for a file that is closed.
    #expect(directory.place("new", .to("a")) == .at("a"))
  }

  @Test func poolsHaveTheirOwnUsers() throws {
    let file = try open()
    let one = try directory(file)
    let other = try LocalDirectory(pool: "other", affinity(.table), file: file, time: played.time)
    let hashed = try LocalDirectory(pool: "hashed", affinity(.hash), file: file, time: played.time)
    #expect(one.place("alice", .to("a")) == .at("a"))
    #expect(other.place("alice", .to("b")) == .at("b"))
    #expect(hashed.placeNow("alice", .to("c")) == .at("c"), "a ring needs no file")
    file.close()
    let database = try StateDatabase(path)
    #expect(try database.users() == ["alice": "a"])
    #expect(try database.users("other") == ["alice": "b"])
    #expect(try database.users("hashed") == [:])
  }

  @Test func namesSurviveAsTheyAre() throws {
    let file = try open()
    let directory = try directory(file)
    let names = ["", "jos\u{E9}", "jose\u{301}", "a\tb\nc\\'\"", String(repeating: "x", count: 512), "nul\u{0}nul"]
    for (number, name) in names.enumerated() { #expect(directory.place(name, .to("m\(number)")) == .at("m\(number)")) }
    file.close()
    let next = try open()
    defer { next.close() }
    let heir = try self.directory(next)
    #expect(heir.count == names.count)
    for (number, name) in names.enumerated() { #expect(heir.placeNow(name, .to("other")) == .at("m\(number)")) }
  }

  @Test func aClockThatWasWrongDoesNoHarm() throws {
    try write([("alice", "a", .max), ("bob", "a", 0)])
    let file = try open()
    defer { file.close() }
    let directory = try directory(file)
    #expect(directory.lookup("alice")?.expires == played.wall + 900)
    #expect(directory.lookup("bob") == nil)
  }
}

// swift-format-ignore-file: NeverForceUnwrap
// A test that unwraps nil fails, which is what it is for.

import Foundation
import Glibc
import Testing

// In a build for ThreadSanitizer ProxyCore has a Mutex of its own.
#if !PROXYD_TSAN
  import struct Synchronization.Mutex
#endif

@testable import ProxyCore

/// The bytes of a file, or none.
private func bytes(_ path: String) -> Data? { FileManager.default.contents(atPath: path) }

private func mode(_ path: String) -> mode_t {
  var status = stat()
  return stat(path, &status) == 0 ? status.st_mode & 0o777 : 0
}

struct StateFileTests {
  let folder: Folder
  let path: String

  init() throws {
    folder = try Folder()
    path = folder.file("state.db")
  }

  @Test func isMadeForItsOwnerAlone() throws {
    let file = try StateFile(path) { _ in }
    #expect(mode(path) == 0o600 && mode(path + "-wal") == 0o600)
    #expect(file.backends == [])
    file.close()
    #expect(!FileManager.default.fileExists(atPath: path + "-wal"), "what was in the log is in the file")
    #expect(
      try run("sqlite3", path, "PRAGMA journal_mode; PRAGMA user_version; PRAGMA application_id")
        == "wal\n1\n\(0x7072_7864)\n")
  }

  @Test func keepsWhatOperatorsTold() throws {
    let rows = [
      BackendRow(name: "a", state: .maintenance, weight: nil, since: 1_800_000_000),
      BackendRow(name: "b", state: .ready, weight: 50, since: 5),
      BackendRow(name: "c", state: .drain, weight: 0, since: 7),
      BackendRow(name: "d", state: .removed, weight: 1, since: 8),
    ]
    let file = try StateFile(path) { _ in }
    for row in rows { #expect(file.save(row) == nil) }
    #expect(try afterKill(path, folder).backends() == rows, "at once")
    #expect(file.save(BackendRow(name: "a", state: .ready, weight: nil, since: 9)) == nil)
    #expect(file.save(BackendRow(name: "b", state: .drain, weight: nil, since: 10)) == nil)
    file.close()
    #expect(file.save(rows[0]) == "the file is closed")
    let again = try StateFile(path) { _ in }
    defer { again.close() }
    #expect(again.backends == [BackendRow(name: "b", state: .drain, weight: nil, since: 10), rows[2], rows[3]])
  }

  // MARK: What can't be used

  /// Nothing is changed in a file that is not ours, and the error names it.
  private func expectRefused(_ words: String, _ location: SourceLocation = #_sourceLocation) {
    let before = bytes(path)
    do {
      _ = try StateFile(path) { _ in }
      Issue.record("it was opened", sourceLocation: location)
    } catch {
      #expect(error.path == path && error.problem.contains(words), "\(error)", sourceLocation: location)
      #expect(error.description.hasPrefix(path + ": "), sourceLocation: location)
    }
    #expect(bytes(path) == before, sourceLocation: location)
  }

  @Test func aTextIsNoStateFile() throws {
    try String(repeating: "no database\n", count: 500).write(toFile: path, atomically: false, encoding: .utf8)
    expectRefused("it is damaged, or no database")
  }

  @Test func anotherDatabaseIsNoStateFile() throws {
    try run("sqlite3", path, "CREATE TABLE users(login)")
    expectRefused("not one of proxyd's state")
    try run("sqlite3", path, "DROP TABLE users; PRAGMA application_id = 77")
    expectRefused("not one of proxyd's state")
  }

  @Test func aNewerOneIsLeftAlone() throws {
    try StateFile(path) { _ in }.close()
    try run("sqlite3", path, "PRAGMA user_version = 2")
    expectRefused("written by a newer proxyd")
  }

  @Test func aDamagedOneIsLeftAlone() throws {
    let file = try StateFile(path) { _ in }
    let directory = try LocalDirectory(pool: "mail", affinity(.table), file: file)
    for number in 0..<2_000 { directory.move("user\(number)@example.com", to: "a") }
    file.close()
    let size = try #require(bytes(path)).count
    #expect(size > 10 * 4_096)
    let handle = try FileHandle(forWritingTo: URL(filePath: path))
    for page in 4..<size / 4_096 {
      try handle.seek(toOffset: UInt64(page * 4_096))
      handle.write(Data(repeating: 0xA5, count: 100))
    }
    try handle.close()
    let before = bytes(path)
    let damaged = try StateFile(path) { _ in }
    do {
      _ = try LocalDirectory(pool: "mail", affinity(.table), file: damaged)
      Issue.record("it was read")
    } catch { #expect(error.path == path && error.problem.contains("malformed"), "\(error)") }
    damaged.close()
    #expect(bytes(path)?.dropFirst(4_096) == before?.dropFirst(4_096))
    // Its first page.
    let first = try FileHandle(forWritingTo: URL(filePath: path))
    try first.seek(toOffset: 100)
    first.write(Data(repeating: 0xA5, count: 200))
    try first.close()
    expectRefused("damaged")
  }

  @Test func aFolderIsNoStateFile() throws {
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    expectRefused("unable to open")
  }

  @Test func withoutAFolderThereIsNone() throws {
    do {
      _ = try StateFile(folder.file("nowhere/state.db")) { _ in }
      Issue.record("it was opened")
    } catch { #expect(error.problem == "it can't be made: No such file or directory") }
  }

  /// What somebody may not write.
  @Test func oneThatCannotBeWritten() throws {
    try StateFile(path) { _ in }.close()
    chmod(path, 0o444)
    let before = bytes(path)
    // A thread may be somebody else to the file system. (Root may write everywhere.)
    let finished = DispatchSemaphore(value: 0)
    let problems = Shared<[String]>([])
    let files = [path, folder.file("new.db")]
    Thread.detachNewThread {
      typealias Become = @convention(c) (uid_t) -> Int32
      let become = unsafeBitCast(dlsym(nil, "setfsuid"), to: Become.self)
      if geteuid() == 0 { _ = become(65_534) }
      for file in files {
        do throws(StateFileError) { try StateFile(file) { _ in }.close() } catch {
          problems.withLock { $0.append(error.problem) }
        }
      }
      finished.signal()
    }
    finished.wait()
    if geteuid() == 0 {
      #expect(problems.value == ["it can't be written", "it can't be made: Permission denied"])
    } else {
      #expect(problems.value == ["it can't be written"])
    }
    #expect(bytes(path) == before)
    chmod(path, 0o600)
  }

  @Test func twoCannotHaveIt() throws {
    let file = try StateFile(path) { _ in }
    #expect(throws: StateFileError(path: path, problem: "another process has it open, a second proxyd maybe")) {
      try StateFile(path) { _ in }
    }
    // A real other process, too.
    let reader = "sqlite3 \"$0\" 'SELECT count(*) FROM backends' 2>&1 || true"
    #expect(try run("sh", "-c", reader, path).contains("database is locked"))
    #expect(file.save(BackendRow(name: "a", state: .drain, weight: nil, since: 1)) == nil)
    file.close()
    let next = try StateFile(path) { _ in }
    #expect(next.backends.map(\.name) == ["a"])
    next.close()
  }
}

struct DurableDirectoryTests {
  let folder: Folder
  let path: String
  let played = PlayedTime()
  let news = NewsHeard()

  init() throws {
    folder = try Folder()
    path = folder.file("state.db")
  }

  private func open() throws -> StateFile { try StateFile(path, time: played.time) { [news] in news.take($0) } }

  private func directory(_ file: StateFile, _ settings: AffinitySettings = affinity(.table)) throws -> LocalDirectory {
    try LocalDirectory(pool: "mail", settings, file: file, time: played.time)
  }

  /// What another process has left in the file.
  private func write(_ users: [(user: String, member: String, stamp: UInt32)]) throws {
    try StateDatabase(path).write(
      users.map { AffinityRow(pool: "mail", user: $0.user, member: $0.member, stamp: $0.stamp) }, [])
  }

  /// What the file has soon.
  private func expectSoon(
    _ users: [String: String], _ location: SourceLocation = #_sourceLocation
  ) {
    eventually("\(users.count) users are in the file", location) {
      // The log may be copied half written, as a kill may leave it; then it is looked at again.
      (try? afterKill(path, folder).users()) == users
    }
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
      let verdict = UserRecord.Verdict(member: directory.names.number("a")!, accepts: true)
      _ = shard.arrive(key, waiter, verdict, preferred: nil, at: directory.moment, waitsForFile: true)
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
    eventually("the departure is written") { (try? afterKill(path, folder).rows()["alice"]?.stamp) == left }
    eventually("nothing is left to be written") { !directory.isUnwritten }
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
        guard let stamp = try? afterKill(path, folder).rows()["alice"]?.stamp else { return false }
        return played.wall - stamp <= 201
      }
    }
    // And the one of who has left is that of the departure.
    played.advance(seconds: 60)
    directory.depart("alice", wasThere: true)
    let left = played.wall
    played.advance(seconds: 2)
    eventually("the departure is written") { (try? afterKill(path, folder).rows()["alice"]?.stamp) == left }
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
    eventually("after an eighth it is written") { (try? afterKill(path, folder).rows()["alice"]?.stamp) == left }
    played.advance(seconds: 790)
    #expect(directory.placeNow("alice", .to("b")) == .at("a"))
    let back = played.wall
    played.advance(seconds: 2)
    eventually("the return is written") { (try? afterKill(path, folder).rows()["alice"]?.stamp) == back }
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

  // MARK: Trouble

  /// A full disk: everybody is answered from memory, one line a minute says so, and all is written once it can be.
  @Test func aFullDiskStopsNobody() throws {
    let file = try open()
    let directory = try directory(file)
    #expect(directory.place("early", .to("a")) == .at("a"))
    #expect(directory.place("mover", .to("a")) == .at("a"))
    #expect(directory.place("gone", .to("a")) == .at("a"))
    file.disturb { try? $0?.run("PRAGMA max_page_count = 1") }
    var users = ["early": "a", "mover": "a", "gone": "a"]
    for number in 0..<3_000 {
      let user = "user\(number)@" + String(repeating: "x", count: 100)
      #expect(directory.place(user, .to("b")) == .at("b"))
      users[user] = "b"
    }
    #expect(!file.isTrusted)
    guard case .trouble(let words)? = news.list.first, news.list.count == 1 else {
      Issue.record("\(news.list)")
      return
    }
    #expect(words.contains("full"))
    // Nothing waits any more, and changes of all kinds are remembered.
    #expect(directory.placeNow("late", .to("c")) == .at("c"))
    users["late"] = "c"
    directory.depart("mover", wasThere: true)
    directory.move("mover", to: "c")
    users["mover"] = "c"
    directory.depart("gone", wasThere: true)
    #expect(directory.forget("gone"))
    users["gone"] = nil
    #expect(file.save(BackendRow(name: "a", state: .drain, weight: 3, since: 4)) == words)
    #expect(file.save(BackendRow(name: "b", state: .drain, weight: nil, since: 5)) == words)
    for _ in 0..<59 { played.advance(seconds: 1) }
    #expect(news.list.count == 1)
    // It is tried again every second; after a minute it is said again.
    eventually("it is said again") {
      played.advance(seconds: 1)
      return news.list.count == 2
    }
    #expect(news.list[1] == news.list[0])
    file.disturb { try? $0?.run("PRAGMA max_page_count = 1000000") }
    eventually("all is written") {
      played.advance(seconds: 1)
      return news.list.last == .complete
    }
    #expect(file.isTrusted)
    #expect(try afterKill(path, folder).users() == users)
    #expect(try afterKill(path, folder).backends().map(\.name) == ["a", "b"])
    #expect(directory.place("new", .to("a")) == .at("a"))
    #expect(try afterKill(path, folder).users()["new"] == "a")
    file.close()
    #expect(news.list.count == 3)
  }

  /// What operators told is written once it can be, also where no pool has the file.
  @Test func aFullDiskForgetsNoBackend() throws {
    let file = try open()
    file.disturb { try? $0?.run("PRAGMA max_page_count = 1") }
    let rows = (0..<200).map { (number: Int) in
      BackendRow(
        name: "backend\(number)-" + String(repeating: "x", count: 100), state: .drain, weight: number, since: 1)
    }
    var problems = Set<String?>()
    for row in rows { problems.insert(file.save(row)) }
    #expect(problems == [nil, "database or disk is full"])
    file.disturb { try? $0?.run("PRAGMA max_page_count = 1000000") }
    eventually("all is written") {
      played.advance(seconds: 1)
      return news.list.last == .complete
    }
    file.close()
    #expect(Set(try StateDatabase(path).backends().map(\.name)) == Set(rows.map(\.name)))
  }

  /// Who waits for the file when it fails is answered.
  @Test func whoWaitsIsAnswered() throws {
    let file = try open()
    defer { file.close() }
    let directory = try directory(file)
    let answers = Answers()
    file.disturb { database in
      try? database?.run("PRAGMA max_page_count = 1")
      for number in 0..<500 {
        #expect(
          directory.locate("user\(number)@" + String(repeating: "x", count: 100), .to("a")) { answers.take($0) } == nil)
      }
    }
    for _ in 0..<500 { #expect(answers.next() == .at("a")) }
    #expect(news.list.count == 1)
  }

  /// A disk that hangs says nothing: after two seconds nobody waits for it.
  @Test func aDiskThatHangsStopsNobody() throws {
    let file = try open()
    defer { file.close() }
    let directory = try directory(file)
    let answers = Answers()
    file.disturb { [played, news] _ in
      #expect(directory.locate("alice", .to("a")) { answers.take($0) } == nil)
      played.advance(milliseconds: 1_999)
      #expect(answers.list == [])
      played.advance(milliseconds: 1)
      #expect(answers.next() == .at("a"))
      #expect(news.list == [.trouble("the disk does not answer")])
      #expect(directory.placeNow("bob", .to("b")) == .at("b"))
      played.advance(seconds: 10)
      #expect(news.list.count == 1)
    }
    expectSoon(["alice": "a", "bob": "b"])
    eventually("it is trusted again") { file.isTrusted }
    #expect(directory.place("carol", .to("c")) == .at("c"))
    #expect(try afterKill(path, folder).users() == ["alice": "a", "bob": "b", "carol": "c"])
  }

  /// A batch that takes long, with others behind it, is no disk that hangs.
  @Test func batchesThatGoOnAreWaitedFor() throws {
    let file = try open()
    defer { file.close() }
    let directory = try directory(file)
    for number in 0..<20 {
      #expect(directory.place("user\(number)", .to("a")) == .at("a"))
      played.advance(milliseconds: 1_500)
    }
    #expect(news.list == [])
  }

  /// The file is removed under our feet: it is made again, with all that is in memory.
  @Test(arguments: [false, true])
  func aRemovedFileIsMadeAgain(_ withAnother: Bool) throws {
    let file = try open()
    let directory = try directory(file)
    for number in 0..<2_500 { #expect(directory.place("user\(number)", .to("a")) == .at("a")) }
    #expect(file.save(BackendRow(name: "a", state: .drain, weight: nil, since: 4)) == nil)
    for part in ["", "-wal"] { try FileManager.default.removeItem(atPath: path + part) }
    if withAnother { try write([("user7", "elsewhere", 5)]) }
    #expect(directory.place("new", .to("b")) == .at("b"))
    eventually("all is written again") {
      played.advance(seconds: 1)
      return news.list.last == .complete
    }
    #expect(mode(path) == 0o600)
    let users = try afterKill(path, folder).users()
    #expect(users.count == 2_501 && users["user7"] == "a" && users["new"] == "b")
    #expect(try afterKill(path, folder).backends().map(\.name) == ["a"])
    file.close()
  }

  /// The log does not grow for ever.
  @Test func theLogIsBroughtIntoTheFile() throws {
    let file = try open()
    defer { file.close() }
    let directory = try directory(file)
    var largest = 0
    for round in 0..<5 {
      for number in 0..<5_000 {
        directory.move("user\(number)-\(round)@" + String(repeating: "x", count: 200), to: "a")
      }
      played.advance(seconds: 1)
      eventually("the round is written", seconds: 60) {
        directory.shards.allSatisfy { $0.state.withLock { $0.unwritten(most: 1).isEmpty } }
      }
      largest = max(largest, bytes(path + "-wal")?.count ?? 0)
    }
    #expect(largest < 64 << 20, "\(largest)")
    played.advance(seconds: 61)
    eventually("a minute later all is in the file") { (bytes(path)?.count ?? 0) > 5 * 5_000 * 200 }
  }
}

import Foundation
import Glibc
import Testing

@testable import ProxyCore

/// The same where the file can't be written, or not in time.
extension DurableDirectoryTests {
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

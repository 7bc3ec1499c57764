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

/// The truth as sessions see it: users' members, with the number of their sessions.
final class Presences: Sendable {
  let places = Mutex<[String: (member: String, count: Int)]>([:])
  /// Every time that a user was at two members.
  let broken = Mutex<[String]>([])

  func arrive(_ user: String, _ member: String) {
    places.withLock { places in
      if let known = places[user], known.member != member {
        broken.withLock { $0.append("\(user) is at \(known.member) and at \(member)") }
      }
      places[user] = (member, (places[user]?.count ?? 0) + 1)
    }
  }

  func depart(_ user: String) {
    places.withLock { places in
      let known = places[user]!
      places[user] = known.count > 1 ? (known.member, known.count - 1) : nil
    }
  }
}

/// A time that goes when a test says so, and does then what has become due, on the test's thread.
final class PlayedTime: Sendable {
  private let state = Mutex(State())

  private struct State {
    var now: UInt64 = 5_000_000_000
    var wall = 1_800_000_000
    var calls: [(at: UInt64, number: Int, body: @Sendable () -> Void)] = []
    var number = 0
  }

  var time: DirectoryTime {
    DirectoryTime(
      now: { self.state.withLock { $0.now } }, wall: { self.state.withLock { $0.wall } },
      after: { delay, body in
        self.state.withLock { state in
          state.number += 1
          state.calls.append((state.now + delay, state.number, body))
        }
      })
  }

  var wall: Int { state.withLock { $0.wall } }

  func setWall(_ wall: Int) { state.withLock { $0.wall = wall } }

  /// Lets time pass, from call to call.
  func advance(milliseconds: Int) {
    let end = state.withLock { $0.now + UInt64(milliseconds) * 1_000_000 }
    while true {
      let body = state.withLock { state -> (@Sendable () -> Void)? in
        let next = state.calls.indices.min {
          (state.calls[$0].at, state.calls[$0].number) < (state.calls[$1].at, state.calls[$1].number)
        }
        let then = next.map { min(end, max(state.now, state.calls[$0].at)) } ?? end
        state.wall += Int(then / 1_000_000_000) - Int(state.now / 1_000_000_000)
        state.now = then
        guard let next, state.calls[next].at <= end else { return nil }
        return state.calls.remove(at: next).body
      }
      guard let body else { return }
      body()
    }
  }

  func advance(seconds: Int) { advance(milliseconds: seconds * 1_000) }

  /// Calls that are to come.
  var waiting: Int { state.withLock { $0.calls.count } }
}

/// Something that closures and threads share.
final class Shared<Value: Sendable>: Sendable {
  private let lock: Mutex<Value>

  init(_ value: Value) { lock = Mutex(value) }

  var value: Value { lock.withLock { $0 } }

  func withLock<R: Sendable>(_ body: (inout Value) -> R) -> R { lock.withLock { body(&$0) } }
}

/// Answers of a directory that came later, in order.
final class Answers: Sendable {
  private let all = Mutex<[PlaceAnswer]>([])
  private let signal = DispatchSemaphore(value: 0)

  var list: [PlaceAnswer] { all.withLock { $0 } }

  func take(_ answer: PlaceAnswer) {
    all.withLock { $0.append(answer) }
    signal.signal()
  }

  /// The next one; nil if none comes.
  func next() -> PlaceAnswer? {
    guard signal.wait(timeout: .now() + 10) == .success else { return nil }
    return all.withLock { $0.removeFirst() }
  }
}

/// What a state file had to say.
final class NewsHeard: Sendable {
  private let all = Mutex<[StateFile.News]>([])
  var list: [StateFile.News] { all.withLock { $0 } }
  func take(_ news: StateFile.News) { all.withLock { $0.append(news) } }
}

extension PlaceQuestion {
  /// A question of somebody who would go to `preferred`, and accepts all but some.
  static func to(_ preferred: String?, but refused: String...) -> PlaceQuestion {
    PlaceQuestion(preferred: preferred) { !refused.contains($0) }
  }
}

extension LocalDirectory {
  /// The answer, whether it comes at once or later.
  func place(_ user: String, _ question: PlaceQuestion) -> PlaceAnswer? {
    let answers = Answers()
    return locate(user, question) { answers.take($0) } ?? answers.next()
  }

  /// The answer that is there at once; nil if there is none, and it must not come meanwhile.
  func placeNow(_ user: String, _ question: PlaceQuestion) -> PlaceAnswer? {
    locate(user, question) { Issue.record("an answer nobody waits for: \($0)") }
  }

  /// What it holds of a user.
  func record(_ user: String) -> UserRecord? {
    let key = UserKey(user)
    return shards[key.shard].state.withLock { $0.record(key) }
  }

  /// Changes something behind its back.
  func change(_ key: UserKey, _ body: (inout DirectoryShard) -> Void) {
    shards[key.shard].state.withLock { body(&$0) }
  }

  /// All it knows, by user.
  var all: [String: DirectoryEntry] {
    var found: [String: DirectoryEntry] = [:]
    forEach { entries in
      for entry in entries { found[entry.user] = entry }
      return true
    }
    return found
  }
}

func affinity(
  _ kind: AffinitySettings.Kind, expiry: UInt64 = 900, pause: UInt64 = 2, rebalance: Int = 0
) -> AffinitySettings {
  var settings = AffinitySettings()
  settings.kind = kind
  settings.expiry = Timeouts.seconds(expiry)
  settings.pause = Timeouts.seconds(pause)
  settings.rebalance = rebalance
  return settings
}

/// What the file and its log hold at this moment, as another process would find it after a kill -9.
func afterKill(_ path: String, _ folder: Folder) throws -> StateDatabase {
  let copy = folder.file("copy-\(UUID().uuidString)")
  for part in ["", "-wal"] where FileManager.default.fileExists(atPath: path + part) {
    try FileManager.default.copyItem(atPath: path + part, toPath: copy + part)
  }
  return try StateDatabase(copy)
}

extension StateDatabase {
  /// All users of a pool.
  func users(_ pool: String = "mail") throws -> [String: String] { try rows(pool).mapValues(\.member) }

  func rows(_ pool: String = "mail") throws -> [String: (member: String, stamp: Int)] {
    let users = Mutex<[String: (member: String, stamp: Int)]>([:])
    _ = try load(pool) { user, member, stamp in
      let (user, member) = (user.text, member.text)
      users.withLock { $0[user] = (member, stamp) }
      return true
    }
    return users.withLock { $0 }
  }
}

extension Span<UInt8> {
  fileprivate var text: String { String(decoding: indices.map { self[$0] }, as: UTF8.self) }
}

/// The bytes of a file, or none.
func bytes(_ path: String) -> Data? { FileManager.default.contents(atPath: path) }

/// Who may do what with a file.
func mode(_ path: String) -> mode_t {
  var status = stat()
  return stat(path, &status) == 0 ? status.st_mode & 0o777 : 0
}

// swift-format-ignore-file: NeverForceUnwrap
// A test that unwraps nil fails, which is what it is for.

import Foundation
import Testing

import struct Synchronization.Atomic

// In a build for ThreadSanitizer ProxyCore has a Mutex of its own.
#if !PROXYD_TSAN
  import struct Synchronization.Mutex
#endif

@testable import Protocols
@testable import ProxyCore

private func request(_ user: String) -> SourceRequest {
  SourceRequest(query: RouteQuery(user: Array(user.utf8), mailProtocol: .imap), user: Array(user.utf8))
}

/// The answers of a pool, as they come.
private final class Heard: Sendable {
  private let answers = Mutex<[SourceAnswer]>([])
  var all: [SourceAnswer] { answers.withLock { $0 } }
  var closure: @Sendable (SourceAnswer) -> Void { { answer in self.answers.withLock { $0.append(answer) } } }
}

struct SourcePoolTests {
  private let clock = PlayedClock()

  private func pool(_ source: PlayedSource, cache: CacheSettings? = nil) -> SourcePool {
    SourcePool(source.plan, timeout: Timeouts.seconds(2), cache: cache, clock: .played(clock))
  }

  /// Asks, and waits for the answer.
  private func ask(_ pool: SourcePool, _ user: String) -> SourceAnswer {
    let heard = Heard()
    if let answer = pool.ask(request(user), later: heard.closure) { return answer }
    eventually("an answer") { !heard.all.isEmpty }
    return heard.all[0]
  }

  @Test func equalQuestionsAreAskedOnce() {
    let gate = Gate()
    let source = PlayedSource { _ in
      gate.pass()
      return .answer(SourceAnswer("a"))
    }
    let pool = pool(source)
    let heard = Heard()
    for _ in 0..<100 { #expect(pool.ask(request("alice"), later: heard.closure) == nil) }
    eventually("the question is asked") { source.keys == ["alice"] }
    gate.open()
    eventually("all are told") { heard.all.count == 100 }
    #expect(heard.all.allSatisfy { $0 == SourceAnswer("a") })
    #expect(source.keys == ["alice"])
    #expect(pool.waiting == 0)
  }

  @Test func personalQuestionsAreEachAsked() {
    let gate = Gate()
    let source = PlayedSource(isPersonal: true) { _ in
      gate.pass()
      return .answer(.refused(.init()))
    }
    let pool = pool(source, cache: CacheSettings())
    let heard = Heard()
    for _ in 0..<10 { #expect(pool.ask(request("alice"), later: heard.closure) == nil) }
    gate.open()
    eventually("all are told") { heard.all.count == 10 }
    #expect(source.keys.count == 10)
    #expect(ask(pool, "alice") == .refused(.init()))
    #expect(source.keys.count == 11)
  }

  @Test func connectionsAreBounded() {
    let gate = Gate()
    let source = PlayedSource(connections: 3) { _ in
      gate.pass()
      return .answer(.notFound)
    }
    let pool = pool(source)
    let heard = Heard()
    for index in 0..<50 { _ = pool.ask(request("user\(index)"), later: heard.closure) }
    eventually("all connections are busy") { source.keys.count == 3 }
    #expect(pool.waiting == 50)
    gate.open()
    eventually("all are told") { heard.all.count == 50 }
    #expect(source.connectionsMade == 3)
  }

  @Test func answersAreRememberedForTheirTime() {
    let source = PlayedSource {
      $0.query.login == Array("alice".utf8) ? .answer(SourceAnswer("a")) : .answer(.notFound)
    }
    let pool = pool(source, cache: CacheSettings())
    #expect(ask(pool, "alice") == SourceAnswer("a"))
    #expect(ask(pool, "bob") == .notFound)
    #expect(pool.ask(request("alice")) { _ in Issue.record("asked again") } == SourceAnswer("a"))
    #expect(pool.ask(request("bob")) { _ in Issue.record("asked again") } == .notFound)
    clock.advance(seconds: 11)
    #expect(pool.ask(request("alice")) { _ in Issue.record("asked again") } == SourceAnswer("a"))
    #expect(ask(pool, "bob") == .notFound)
    clock.advance(seconds: 50)
    #expect(ask(pool, "alice") == SourceAnswer("a"))
    #expect(source.keys == ["alice", "bob", "bob", "alice"])
  }

  @Test func theOldestAnswersGoFirst() {
    let source = PlayedSource { _ in .answer(SourceAnswer("a")) }
    var cache = CacheSettings()
    cache.entries = 3
    let pool = pool(source, cache: cache)
    for user in ["u1", "u2", "u3", "u4"] { _ = ask(pool, user) }
    #expect(pool.ask(request("u4")) { _ in Issue.record("asked again") } != nil)
    #expect(pool.ask(request("u2")) { _ in Issue.record("asked again") } != nil)
    _ = ask(pool, "u1")
    #expect(source.keys == ["u1", "u2", "u3", "u4", "u1"])
  }

  @Test func oldAnswersAreForWhenItIsDownIfTheOperatorSaysSo() {
    let isDown = Atomic(false)
    let source = PlayedSource { _ in
      isDown.load(ordering: .relaxed) ? .unreachable("it is down") : .answer(SourceAnswer("a"))
    }
    var cache = CacheSettings()
    let strict = pool(source, cache: cache)
    cache.stale = Timeouts.seconds(100)
    let patient = pool(source, cache: cache)
    #expect(ask(strict, "alice") == SourceAnswer("a"))
    #expect(ask(patient, "alice") == SourceAnswer("a"))
    isDown.store(true, ordering: .relaxed)
    clock.advance(seconds: 61)
    #expect(ask(strict, "alice") == .failed("it is down"))
    #expect(ask(patient, "alice") == SourceAnswer("a"))
    #expect(ask(patient, "alice") == SourceAnswer("a"))
    #expect(ask(patient, "bob").isFailed)
    clock.advance(seconds: 101)
    #expect(ask(patient, "alice") == .failed("it is down"))
    isDown.store(false, ordering: .relaxed)
    clock.advance(seconds: 6)
    #expect(ask(strict, "alice") == SourceAnswer("a"))
  }

  /// 0.1 s at first, twice as long each time, 5 s at most.
  @Test func aServerThatIsAwayIsLeftAloneForAWhile() {
    let isDown = Atomic(true)
    let source = PlayedSource(connections: 1) { _ in
      isDown.load(ordering: .relaxed) ? .unreachable("it is down") : .answer(.notFound)
    }
    let pool = pool(source)
    #expect(ask(pool, "alice") == .failed("it is down"))
    guard case .failed(let words)? = pool.ask(request("alice"), later: { _ in Issue.record("asked at once") }) else {
      Issue.record("the question waits for a server that is away")
      return
    }
    #expect(words.hasPrefix("it is down (tried again in "))
    #expect(source.keys.count == 1)
    clock.advance(seconds: 1)
    #expect(ask(pool, "alice") == .failed("it is down"))
    isDown.store(false, ordering: .relaxed)
    clock.advance(seconds: 6)
    #expect(ask(pool, "alice") == .notFound)
    #expect(ask(pool, "alice") == .notFound)
  }

  /// A server with too few places for all of our connections still answers on those it has taken.
  @Test func oneConnectionTooManyIsNoOutage() {
    let gate = Gate()
    let count = Mutex(0)
    let source = PlayedSource(connections: 2) { request in
      // The second connection is the one that is asked while the first is busy.
      if request.query.login == Array("slow".utf8) {
        gate.pass()
        return .answer(SourceAnswer("slow"))
      }
      let number = count.withLock { count in
        count += 1
        return count
      }
      return number == 2 ? .unreachable("too many connections") : .answer(SourceAnswer("a"))
    }
    let pool = pool(source)
    #expect(ask(pool, "first") == SourceAnswer("a"))
    let slow = Heard()
    _ = pool.ask(request("slow"), later: slow.closure)
    eventually("the first connection is busy") { source.keys.contains("slow") }
    let other = Heard()
    _ = pool.ask(request("other"), later: other.closure)
    eventually("the second is refused") { source.keys.contains("other") }
    #expect(other.all.isEmpty)
    gate.open()
    eventually("the first answers both") { !other.all.isEmpty }
    #expect(other.all == [SourceAnswer("a")])
    #expect(source.keys == ["first", "slow", "other", "other"])
  }

  /// Who waits behind a slow question for longer than it would is told, and the server is not asked for nobody.
  @Test func aQuestionNobodyWaitsForIsNotAsked() {
    let gate = Gate()
    let source = PlayedSource(connections: 1) { _ in
      gate.pass()
      return .answer(.notFound)
    }
    let pool = pool(source)
    let heard = Heard()
    _ = pool.ask(request("slow"), later: heard.closure)
    eventually("the only connection is busy") { source.keys == ["slow"] }
    _ = pool.ask(request("late"), later: heard.closure)
    clock.advance(seconds: 3)
    gate.open()
    eventually("both are told") { heard.all.count == 2 }
    #expect(heard.all[1].isFailed)
    #expect(source.keys == ["slow"])
  }

  /// The threads end with the pool, and who waits is told before.
  @Test func aPoolThatGoesAnswersWhoWaits() {
    let gate = Gate()
    let source = PlayedSource(connections: 1) { _ in
      gate.pass()
      return .answer(.notFound)
    }
    let heard = Heard()
    do {
      let pool = pool(source)
      for user in ["a", "b", "c"] { _ = pool.ask(request(user), later: heard.closure) }
      eventually("one is asked") { source.keys.count == 1 }
    }
    gate.open()
    eventually("all are told") { heard.all.count == 3 }
  }
}

extension SourceAnswer {
  fileprivate var isFailed: Bool { if case .failed = self { true } else { false } }
}

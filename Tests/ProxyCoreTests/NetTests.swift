// swift-format-ignore-file: NeverForceUnwrap
// A test that unwraps nil fails, which is what it is for.

import Glibc
import Testing

@testable import Protocols
@testable import ProxyCore

struct AddressTests {
  @Test(arguments: [
    ("127.0.0.1", "127.0.0.1:143"), ("0.0.0.0", "0.0.0.0:143"), ("255.255.255.255", "255.255.255.255:143"),
    ("::1", "[::1]:143"), ("::", "[::]:143"), ("2001:DB8:0:0::1", "[2001:db8::1]:143"),
    ("::ffff:192.0.2.1", "[::ffff:192.0.2.1]:143"),
  ])
  func literals(_ text: String, _ expected: String) throws {
    let address = try #require(SocketAddress(literal: text, port: 143))
    #expect(address.description == expected)
    #expect(address.with(port: 25).description == expected.replacing(":143", with: ":25"))
  }

  @Test func everyNumberOfAnAddressIsWritten() throws {
    for number in 0...255 {
      let text = "\(number).\(255 - number).\(number / 2).\(number)"
      #expect(try #require(SocketAddress(literal: text, port: 1)).host == text)
    }
  }

  @Test(arguments: [
    "", "127.0.0.1.1", "127.1", "1.2.3.256", "::g", "[::1]", "localhost", "1.2.3.4 ", "fe80::1%nosuchinterface",
  ])
  func notLiterals(_ text: String) { #expect(SocketAddress(literal: text, port: 1) == nil) }

  @Test(arguments: [
    ("mail.example.net", "mail.example.net", nil), ("mail-1_b", "mail-1_b", nil),
    ("mail.example.net.", "mail.example.net", nil),
    ("mail:143", "mail", 143), ("192.0.2.1", "192.0.2.1", nil), ("192.0.2.1:993", "192.0.2.1", 993),
    ("[2001:db8::1]:143", "[2001:db8::1]", 143), ("[::1]", "[::1]", nil), ("2001:db8::1", "[2001:db8::1]", nil),
    ("xn--bcher-kva.example:65535", "xn--bcher-kva.example", 65_535),
  ])
  func hosts(_ text: String, _ host: String, _ port: UInt16?) throws {
    let parsed = try #require(HostPort(text))
    #expect(parsed.host.description == host)
    #expect(parsed.port == port)
  }

  @Test(arguments: [
    "", ":143", "mail:", "mail:0", "mail:65536", "mail:1x", "mail:+1", "mail: 143", "a b", "mail/..", "-mail", "mail-",
    "a..b", ".a", "1.2.3", "1.2.3.4.5", "[::1", "[::1]143", "[::1]:", "[127.0.0.1]:1", "[]:1", "a:b:1", "mail\n",
    "é.example",
    "user@host", "a_very_long_label_of_more_than_sixty_three_letters_which_no_name_has_x",
  ])
  func notHosts(_ text: String) { #expect(HostPort(text) == nil) }
}

struct ByteQueueTests {
  @Test func keepsOrderWhateverIsTakenAndAdded() {
    var queue = ByteQueue()
    var model: [UInt8] = []
    var random = SystemRandomNumberGenerator()
    for round in 0..<2_000 {
      let more = (0..<Int.random(in: 0...300, using: &random)).map { _ in UInt8(truncatingIfNeeded: round) }
      queue.append(more.span)
      model += more
      let fewer = Int.random(in: 0...model.count, using: &random)
      queue.removeFirst(fewer)
      model.removeFirst(fewer)
      let (count, held) = (queue.count, queue.span.array)
      #expect(count == model.count)
      #expect(held == model)
    }
    queue.removeAll()
    let isEmpty = queue.isEmpty
    #expect(isEmpty)
  }
}

struct DeadlineTests {
  @Test func expireInTime() {
    var deadlines = Deadlines()
    var expired: [Int] = []
    deadlines.set(3, 300)
    deadlines.set(1, 100)
    deadlines.set(2, 200)
    #expect(deadlines.next == 100)
    deadlines.expire(now: 99, into: &expired)
    #expect(expired == [])
    deadlines.expire(now: 250, into: &expired)
    #expect(expired.sorted() == [1, 2])
    expired = []
    // The next look is a grain away at the earliest, and never later than needed by more.
    let grain = Timeouts.milliseconds(20)
    #expect(deadlines.next == 250 + grain)
    deadlines.expire(now: 250 + grain, into: &expired)
    #expect(expired == [3])
    #expect(deadlines.next == .max)
  }

  @Test func aMovedDeadlineIsNotMissed() {
    var deadlines = Deadlines()
    var expired: [Int] = []
    deadlines.set(0, 100)
    deadlines.set(0, 10_000_000_000)
    deadlines.expire(now: 200, into: &expired)
    #expect(expired == [])
    #expect(deadlines.next == 10_000_000_000)
    deadlines.set(0, .max)
    deadlines.expire(now: 20_000_000_000, into: &expired)
    #expect(expired == [])
    #expect(deadlines.next == .max)
  }
}

struct SlotTests {
  @Test func tokensCarryEverything() {
    let token = Token(.backend, index: 0xABC_DEF0, generation: 0xDEAD_BEEF)
    #expect(token.role == .backend)
    #expect(token.index == 0xABC_DEF0)
    #expect(token.generation == 0xDEAD_BEEF)
    #expect(token.with(.client).role == .client)
    #expect(token.with(.client).index == token.index)
  }
}

struct AdmissionTests {
  @Test func countsPlaces() {
    let admission = Admission(most: 2)
    #expect(admission.enter())
    #expect(admission.enter())
    #expect(!admission.enter())
    #expect(admission.count == 2)
    admission.leave()
    #expect(admission.enter())
    admission.allow(1)
    #expect(!admission.enter())
  }

  @Test(arguments: [(256, 96), (1_024, 448), (20_000, 9_936), (4, 1), (0, 1)])
  func sessionsFitTheDescriptors(_ descriptors: Int, _ sessions: Int) {
    #expect(Admission.sessions(descriptors: descriptors) == sessions)
  }
}

struct ResolverTests {
  private static let one = Resolver.Answer.addresses([SocketAddress(literal: "192.0.2.1", port: 0)!])

  @Test func tellsOnceItKnowsAndThenAtOnce() {
    let asked = Counter()
    let resolver = Resolver { _ in
      asked.add()
      return ResolverTests.one
    }
    let told = Counter()
    #expect(resolver.addresses(of: "a", now: 0) { if $0 == ResolverTests.one { told.add() } } == nil)
    eventually("the answer") { told.count == 1 }
    let now = Clock.monotonic.now
    #expect(resolver.addresses(of: "a", now: now) { _ in told.add() } == ResolverTests.one)
    #expect(asked.count == 1)
    // Old: given at once, and asked for again.
    #expect(resolver.addresses(of: "a", now: now + Timeouts.seconds(31)) { _ in told.add() } == ResolverTests.one)
    eventually("the second question") { asked.count == 2 }
    #expect(told.count == 1)
  }

  @Test func oneQuestionForManyWhoWait() {
    let asked = Counter()
    let gate = Gate()
    let resolver = Resolver { _ in
      asked.add()
      gate.pass()
      return ResolverTests.one
    }
    let told = Counter()
    for _ in 0..<50 { _ = resolver.addresses(of: "a", now: 0) { _ in told.add() } }
    gate.open()
    eventually("all are told") { told.count == 50 }
    #expect(asked.count == 1)
  }

  @Test func aFailureIsToldAndForgottenSoon() {
    let asked = Counter()
    let resolver = Resolver { _ in
      asked.add()
      return .failed("no such name")
    }
    let told = Counter()
    _ = resolver.addresses(of: "a", now: 0) { if $0 == .failed("no such name") { told.add() } }
    eventually("the failure") { told.count == 1 }
    let now = Clock.monotonic.now
    #expect(resolver.addresses(of: "a", now: now) { _ in } == .failed("no such name"))
    #expect(asked.count == 1)
    #expect(resolver.addresses(of: "a", now: now + Timeouts.seconds(4)) { _ in told.add() } == nil)
    eventually("it is asked again") { told.count == 2 }
  }

  @Test func oldAddressesOutliveAFailure() {
    let asked = Counter()
    let resolver = Resolver { _ in
      asked.add()
      return asked.count == 1 ? ResolverTests.one : .failed("the name server is down")
    }
    let told = Counter()
    _ = resolver.addresses(of: "a", now: 0) { _ in told.add() }
    eventually("the answer") { told.count == 1 }
    let later = Clock.monotonic.now + Timeouts.seconds(60)
    #expect(resolver.addresses(of: "a", now: later) { _ in } == ResolverTests.one)
    eventually("it is asked again") { asked.count == 2 }
    #expect(resolver.addresses(of: "a", now: later) { _ in } == ResolverTests.one)
  }

  @Test func theSystemKnowsLocalhost() {
    let told = Counter()
    _ = Resolver().addresses(of: "localhost", now: 0) { answer in
      if case .addresses(let addresses) = answer, !addresses.isEmpty { told.add() }
    }
    eventually("the answer") { told.count == 1 }
  }
}

/// Counts on any thread.
final class Counter: @unchecked Sendable {
  private let lock = PosixLock()
  private var value = 0
  var count: Int { lock.with { value } }
  func add() { lock.with { value += 1 } }
}

/// Holds a thread until it is opened.
final class Gate: @unchecked Sendable {
  private let lock = PosixLock()
  private var isOpen = false
  func open() { lock.with { isOpen = true } }
  func pass() { while !lock.with({ isOpen }) { usleep(1_000) } }
}

final class PosixLock: @unchecked Sendable {
  private var mutex = pthread_mutex_t()
  init() { pthread_mutex_init(&mutex, nil) }
  func with<R>(_ body: () -> R) -> R {
    pthread_mutex_lock(&mutex)
    defer { pthread_mutex_unlock(&mutex) }
    return body()
  }
}

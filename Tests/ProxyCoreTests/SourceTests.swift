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

/// A source off the loops that answers as a test says, and counts what it is asked.
final class PlayedSource: Sendable {
  private let answer: @Sendable (SourceRequest) -> SourceReply
  private let isPersonal: Bool
  private let connections: Int
  private let asked = Mutex<[String]>([])
  private let made = Mutex(0)

  init(
    isPersonal: Bool = false, connections: Int = 4, answer: @escaping @Sendable (SourceRequest) -> SourceReply
  ) {
    self.isPersonal = isPersonal
    self.connections = connections
    self.answer = answer
  }

  /// The keys it was asked for.
  var keys: [String] { asked.withLock { $0 } }
  /// Connections made.
  var connectionsMade: Int { made.withLock { $0 } }

  var plan: SourcePlan {
    SourcePlan(name: "played", connections: connections, isPersonal: isPersonal) {
      self.made.withLock { $0 += 1 }
      return Connection(self)
    }
  }

  /// Routes with this source first, then those of the settings.
  func plan(_ settings: Settings, _ change: (inout RouteSettings) -> Void = { _ in }) throws -> RoutePlan {
    var settings = settings
    var route = RouteSettings(.cdb(file: "played"))
    change(&route)
    settings.routes.insert(route, at: 0)
    return try RoutePlan(settings) { route, _ throws(SettingsErrors) in
      if case .cdb = route.source { self.plan } else { nil }
    }
  }

  private final class Connection: SourceConnection {
    let source: PlayedSource
    init(_ source: PlayedSource) { self.source = source }

    func answer(_ request: SourceRequest, until deadline: UInt64) -> SourceReply {
      source.asked.withLock { $0.append(String(decoding: request.query.login, as: UTF8.self)) }
      return source.answer(request)
    }
  }
}

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

/// Sessions whose backend is looked up off the loop.
struct SourceSessionTests {
  private let server = TestServer()

  private func logIn(_ stage: LoopStage, _ user: String = "alice") -> Peer {
    let client = stage.connect()
    _ = client.hear("ready.\r\n")
    client.send("a LOGIN \(user) s3cret\r\n")
    return client
  }

  /// The backend answers a login; returns what it was sent.
  private func backendAnswers(_ client: Peer) -> String {
    let backend = server.accept()
    backend.send("* OK [CAPABILITY IMAP4rev1] ready\r\n")
    let heard = backend.hear("s3cret\"\r\n")
    backend.send("L OK [CAPABILITY IMAP4rev1] in\r\n")
    _ = client.hear("a OK")
    return heard
  }

  @Test func theAnswerComesFromAnotherThread() throws {
    let source = PlayedSource { _ in .answer(SourceAnswer("other@a")) }
    let settings = Settings.to(server.port)
    let stage = try LoopStage(settings, routes: source.plan(settings))
    let client = logIn(stage)
    #expect(backendAnswers(client).contains("LOGIN \"other\""))
    #expect(source.keys == ["alice"])
  }

  @Test func othersGoOnMeanwhile() throws {
    let gate = Gate()
    let source = PlayedSource { request in
      if request.query.login == Array("slow".utf8) { gate.pass() }
      return .answer(SourceAnswer("a"))
    }
    let settings = Settings.to(server.port)
    let stage = try LoopStage(settings, routes: source.plan(settings))
    let slow = logIn(stage, "slow")
    eventually("it waits") { stage.doing() == "looking up the backend" }
    let client = logIn(stage)
    _ = backendAnswers(client)
    gate.open()
    _ = backendAnswers(slow)
  }

  @Test func aLateAnswerIsAFailureAndWhatComesAfterItIsNothing() throws {
    let gate = Gate()
    let source = PlayedSource { _ in
      gate.pass()
      return .answer(SourceAnswer("a"))
    }
    let settings = Settings.to(server.port)
    let stage = try LoopStage(settings, routes: source.plan(settings))
    let client = logIn(stage)
    eventually("it waits") { stage.doing() == "looking up the backend" }
    stage.advance(seconds: 3)
    #expect(client.hear("\r\n").hasPrefix("a NO [UNAVAILABLE] "))
    gate.open()
    client.send("b NOOP\r\n")
    _ = client.hear("b OK NOOP completed.\r\n")
    #expect(stage.log().contains("it did not answer in time"))
  }

  @Test func theNextSourceIsAskedOnlyIfTheOperatorSaysSo() throws {
    let source = PlayedSource { _ in .unreachable("it is down") }
    let settings = Settings.to(server.port)
    let strict = try LoopStage(settings, routes: source.plan(settings))
    #expect(logIn(strict).hear("\r\n").hasPrefix("a NO [UNAVAILABLE] "))
    let lenient = try LoopStage(settings, routes: source.plan(settings) { $0.onFailure = .next })
    let client = logIn(lenient)
    _ = backendAnswers(client)
    #expect(lenient.log().contains("event=source-failed "))
    #expect(lenient.log().contains("source=played detail=\"it is down\""))
  }

  @Test func aClientThatLeavesMeanwhileLeavesNothing() throws {
    let gate = Gate()
    let source = PlayedSource { _ in
      gate.pass()
      return .answer(SourceAnswer("a"))
    }
    let settings = Settings.to(server.port)
    let stage = try LoopStage(settings, routes: source.plan(settings))
    let client = logIn(stage)
    eventually("it waits") { stage.doing() == "looking up the backend" }
    client.close()
    stage.advance(seconds: 200)
    gate.open()
    #expect(stage.sessionLine().contains(" login=alice "))
    #expect(stage.onLoop { $0.sessions.count } == 0)
  }

  @Test func aServiceMayAskForPatience() throws {
    let count = Mutex(0)
    let source = PlayedSource(isPersonal: true) { _ in
      let number = count.withLock { count in
        count += 1
        return count
      }
      return .answer(number == 1 ? .again(after: Timeouts.seconds(5)) : SourceAnswer("a"))
    }
    let settings = Settings.to(server.port)
    let stage = try LoopStage(settings, routes: source.plan(settings))
    let client = logIn(stage)
    eventually("it waits") { stage.doing() == "waiting to ask for the backend again" }
    stage.advance(seconds: 5)
    _ = backendAnswers(client)
  }

  /// A master user's password says nothing of the user's.
  @Test func anotherUsersPasswordIsNotCompared() throws {
    let source = PlayedSource(isPersonal: true) { _ in .answer(SourceAnswer("a")) }
    let settings = Settings.to(server.port)
    let stage = try LoopStage(settings, routes: source.plan(settings))
    let client = stage.connect()
    _ = client.hear("ready.\r\n")
    let plain = Data("alice\0admin\0s3cret".utf8).base64EncodedString()
    client.send("a AUTHENTICATE PLAIN \(plain)\r\n")
    #expect(client.hear("\r\n").hasPrefix("a NO [CANNOT] "))
    #expect(source.keys.isEmpty)
    #expect(stage.log().contains("failure=uncheckable"))
  }

  /// The words are the service's, and they come when it says.
  @Test func aServiceRefusesInItsOwnWords() throws {
    let source = PlayedSource(isPersonal: true) { _ in
      .answer(.refused(.init(words: Array("Mailbox closed until noon".utf8), delay: Timeouts.seconds(7))))
    }
    let settings = Settings.to(server.port)
    let stage = try LoopStage(settings, routes: source.plan(settings))
    let client = logIn(stage)
    eventually("it is delayed") { stage.doing() == "delaying a refusal" }
    stage.advance(seconds: 7)
    #expect(client.hear("\r\n") == "a NO [AUTHENTICATIONFAILED] Mailbox closed until noon\r\n")
  }

  @Test func keysAreTriedInTheirOrder() throws {
    let source = PlayedSource {
      $0.query.login == Array("@example.org".utf8) ? .answer(SourceAnswer("a")) : .answer(.notFound)
    }
    let settings = Settings.to(server.port)
    let stage = try LoopStage(
      settings,
      routes: source.plan(settings) { $0.keys = ["\\U", "\\u", "\\D\\d"].map { KeyTemplate($0)! } })
    let client = logIn(stage, "Alice@Example.ORG")
    #expect(backendAnswers(client).contains("LOGIN \"Alice@Example.ORG\""))
    #expect(source.keys == ["alice@example.org", "alice", "@example.org"])
  }

  @Test func theBackendIsToldTheRewrittenName() throws {
    var settings = Settings.to(server.port)
    settings.names.stripDomain = [.backend]
    settings.names.lowerCase = [.backend, .log]
    let stage = try LoopStage(settings)
    let client = logIn(stage, "Alice@Example.ORG")
    #expect(backendAnswers(client).contains("LOGIN \"alice\""))
    client.close()
    #expect(stage.sessionLine().contains(" login=alice@example.org "))
  }

  @Test func aDomainIsAddedByTheAddressesName() throws {
    let gate = Gate()
    let names = AddressNames { _ in
      gate.pass()
      return .name(Array("imap.example.org".utf8))
    }
    var settings = Settings.to(server.port)
    settings.names.addDomain = [.lookup, .backend]
    settings.names.domain = .ofAddress(strippedLabels: 1)
    let source = PlayedSource { _ in .answer(SourceAnswer("a")) }
    let stage = try LoopStage(settings, addressNames: names, routes: source.plan(settings))
    let client = stage.connect(proxyNetworks: [Network("0.0.0.0/0")!, Network("::/0")!])
    client.send("PROXY TCP4 192.0.2.1 192.0.2.2 4000 143\r\n")
    _ = client.hear("ready.\r\n")
    client.send("a LOGIN alice s3cret\r\n")
    eventually("it waits") { stage.doing() == "looking up the local address's name" }
    gate.open()
    #expect(backendAnswers(client).contains("LOGIN \"alice@example.org\""))
    #expect(source.keys == ["alice@example.org"])
  }
}

/// Searches without a session.
struct RouteSearchTests {
  private func outcome(_ settings: Settings, _ user: String) throws -> RouteOutcome? {
    var search = RouteTable(try RoutePlan(settings)).search(
      RouteRequest(user: Array(user.utf8), mailProtocol: .imap, rules: settings.names))
    let step = search.advance(now: 0, lookup: 0, password: [UInt8]().span) { _, _ in }
    if case .done(let outcome) = step { return outcome }
    return nil
  }

  private func route(_ settings: Settings, _ user: String) throws -> Route? {
    if case .found(let route)? = try outcome(settings, user) { return route }
    return nil
  }

  @Test func severalDefaultsTakeTurns() throws {
    let backends = ["a", "b", "c"].map { ($0, BackendSettings(host: Host("192.0.2.1")!)) }
    let settings = Settings(
      listeners: [], routes: [RouteSettings(.fixed(backends: ["a", "b", "c"]))],
      backends: Dictionary(uniqueKeysWithValues: backends))
    let table = RouteTable(try RoutePlan(settings))
    var counts: [String: Int] = [:]
    for _ in 0..<30 {
      var search = table.search(RouteRequest(user: [0x61], mailProtocol: .imap))
      let step = search.advance(now: 0, lookup: 0, password: [UInt8]().span) { _, _ in }
      if case .done(.found(let route)) = step { counts[route.target.name, default: 0] += 1 }
    }
    #expect(counts == ["a": 10, "b": 10, "c": 10])
  }

  @Test(
    arguments: [
      ("alice@mail.example.org", "mail.example.org:143", "alice"),
      ("Al@ice@MAIL.example.org", "mail.example.org:143", "Al@ice"),
      ("alice@mail.example.org:143", nil, nil),
      ("alice@mail.example.org:22", nil, nil),
      ("alice@other.example.org:1143", "other.example.org:1143", "alice"),
      ("alice@other.example.org", nil, nil),
      ("alice@192.0.2.7", "192.0.2.7:143", "alice"),
      ("alice@192.0.2.7:25", nil, nil),
      ("alice@198.51.100.1", nil, nil),
      ("alice@evil.example.org", nil, nil),
      ("alice@", nil, nil), ("@mail.example.org", nil, nil), ("alice", nil, nil),
    ] as [(String, String?, String?)])
  func clientsNameServersOfTheListOnly(_ user: String, _ backend: String?, _ loginAs: String?) throws {
    let servers = ["mail.example.org", "other.example.org:1143", "192.0.2.0/24"].map { ServerPattern($0)! }
    let settings = Settings(listeners: [], routes: [RouteSettings(.clientNamed(servers))], backends: [:])
    let route = try route(settings, user)
    #expect(route?.backend.name == backend)
    #expect(route?.loginAs.map { String(decoding: $0, as: UTF8.self) } == loginAs)
    if backend == nil { #expect(try outcome(settings, user) == .unknownUser) }
  }

  @Test func anUnnamedServersPortIsTheOperators() throws {
    let folder = try Folder()
    let rules = try folder.write("routes.re", ".*: mail.example.org\n")
    var settings = Settings(listeners: [], routes: [.regex(file: rules)], backends: [:])
    settings.unnamedPorts = [.imap: 10_143]
    #expect(try route(settings, "alice")?.backend.port == 10_143)
  }

  @Test func anAnswerMayHoldTheNameToo() throws {
    let folder = try Folder()
    let file = folder.file("map.db")
    let map = try SQLiteMap(file, creating: true)
    try map.set(.init(name: .user("alice"), backend: "al.ice@mail.example.org:99"))
    try map.set(.init(name: .user("bob"), backend: "nobody@mail.example.org", loginAs: "bob2"))
    let settings = Settings(listeners: [], routes: [.sqlite(file: file, query: nil)], backends: [:])
    #expect(try route(settings, "alice")?.loginAs == Array("al.ice".utf8))
    #expect(try route(settings, "alice")?.backend.name == "mail.example.org:99")
    #expect(try route(settings, "bob")?.loginAs == Array("bob2".utf8))
  }

  /// What a source needs that this program was not built with is told by its key.
  @Test func aSourceThatIsNotBuiltInIsToldByName() {
    #if !Redis
      let settings = RouteSettings(
        .redis(
          RedisSettings(
            place: .socket("/x"), user: nil, passwordFile: nil, database: 0, key: "%u", backendField: nil,
            loginField: nil, connections: 1)))
      do throws(SettingsErrors) {
        _ = try RoutePlan(Settings(listeners: [], routes: [settings], backends: [:]))
        Issue.record("a source without its library was taken")
      } catch {
        #expect(error.errors.map(\.key) == ["routes[0].redis"])
        #expect(error.errors[0].problem.contains("--traits Redis"))
      }
    #endif
  }

  /// Neither a description nor a dump shows it.
  @Test func aSharedSecretIsNotShown() {
    let secret = SharedSecret(Array("s3cret".utf8).span)
    var dumped = ""
    dump(secret, to: &dumped)
    #expect(!"\(secret) \(String(reflecting: secret)) \(dumped)".contains("s3cret"))
    #expect(secret == SharedSecret(Array("s3cret".utf8).span))
    #expect(secret != SharedSecret(Array("s3creT".utf8).span))
  }
}

// swift-format-ignore-file: NeverForceUnwrap
// A test that unwraps nil fails, which is what it is for.

import Foundation
import Testing

@testable import Protocols
@testable import ProxyCore

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

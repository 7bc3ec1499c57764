// swift-format-ignore-file: NeverForceUnwrap

import Foundation
import Testing

@testable import Protocols
@testable import ProxyCore

struct CryptTests {
  private func check(_ password: String, _ hash: String) -> SourceAnswer {
    let request = SourceRequest(
      query: RouteQuery(user: Array("alice".utf8), mailProtocol: .imap), user: [],
      credential: .hashed(SharedSecret(Array(password.utf8).span), hash: SharedSecret(Array(hash.utf8).span)))
    guard case .answer(let answer) = CryptCheck().answer(request, until: 0) else { return .notFound }
    return answer
  }

  private let right = SourceAnswer.found(Destination(""))
  private let wrong = SourceAnswer.refused(SourceAnswer.Refusal())

  /// Published examples: Drepper's of SHA-crypt, OpenBSD's of bcrypt, PHP's of MD5 and DES.
  @Test(arguments: [
    ("Hello world!", "$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5"),
    (
      "Hello world!",
      "$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iKwSMHWjl/O817G3uBnIFNjnQJuesI68u4OTLiBFdcbYEdFCoEOfaS35inz1"
    ),
    ("U*U", "$2a$05$CCCCCCCCCCCCCCCCCCCCC.E5YPO9kmyuRGyh0XouQYb4YMJKvyOeW"),
    ("rasmuslerdorf", "$1$rasmusle$rISCgZzpwk3UhDidwXvin0"), ("rasmuslerdorf", "rl.3StKT.4T8M"),
  ])
  func methods(_ password: String, _ hash: String) {
    #expect(check(password, hash) == right)
    #expect(check(password, "{CRYPT}\(hash)") == right)
    #expect(check(password, "{crypt}\(hash)") == right)
    #expect(check("x" + password, hash) == wrong)
    #expect(check("", hash) == wrong)
    #expect(check("\(password)\0", hash) == wrong)
    #expect(check(password, "!\(hash)") == wrong)
    // A hash that is cut short is nobody's.
    #expect(check(password, String(hash.dropLast())) != right)
    #expect(check(password, hash + "x") != right)
  }

  @Test func passwordsBeyondTheBound() {
    let hash = "$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5"
    #expect(check(String(repeating: "x", count: 511), hash) == wrong)
    #expect(check(String(repeating: "x", count: 512), hash) == wrong)
    #expect(check(String(repeating: "x", count: 100_000), hash) == wrong)
    guard case .failed = check(String(repeating: "x", count: 512), "$9$x") else {
      Issue.record("a hash of no method")
      return
    }
  }

  @Test(arguments: [
    ("$6$salt$hash", CryptHash.from(0)), ("{SHA512-CRYPT}$6$salt$hash", .from(14)), ("{md5-crypt}$1$x$y", .from(11)),
    ("abJnggxhB/yWI", .from(0)), ("_J9..K0AyUubDrfPEuvs", .from(0)), ("!", .locked), ("*", .locked), ("!!", .locked),
    ("*LK*", .locked), ("!$6$salt$hash", .locked), ("{CRYPT}*", .locked), ("", .unusable("it is empty")),
    ("{CRYPT}", .unusable("it is empty")), ("{PLAIN}x", .unusable("the scheme {PLAIN} is not one of crypt(3)'s")),
    ("{SHA512-CRYPT.HEX}00", .unusable("the scheme {SHA512-CRYPT.HEX} is not one of crypt(3)'s")),
    ("{CRYPT", .unusable("it is no hash of a known scheme")), ("{a b}x", .unusable("it is no hash of a known scheme")),
    ("{}x", .unusable("the scheme {} is not one of crypt(3)'s")),
    ("secret", .unusable("it has not the form of a hash")),
    ("13-characters", .unusable("it has not the form of a hash")),
    ("$6$salt$ha\0sh", .unusable("it has not the form of a hash")),
  ])
  func reads(_ text: String, _ expected: CryptHash) { #expect(CryptHash(Array(text.utf8).span) == expected) }
}

struct SecretFileTests {
  @Test(arguments: [
    ("secret", "secret"), ("secret\n", "secret"), ("secret\r\nnot this", "secret"), (" blank \n", " blank "),
    ("\u{FC}\n", "\u{FC}"),
  ])
  func firstLines(_ text: String, _ expected: String) throws {
    let folder = try Folder()
    let secret = try SecretFile.read(try folder.write("pw", text), key: "k")
    #expect(secret == SharedSecret(Array(expected.utf8).span))
  }

  @Test(arguments: ["", "\n", "\r\n", "\nsecret"])
  func emptyLines(_ text: String) throws {
    let folder = try Folder()
    let file = try folder.write("pw", text)
    let problem = "\(file): its first line is empty, expected a password"
    #expect(throws: SettingsErrors([SettingsError(key: "k", problem: problem)])) {
      _ = try SecretFile.read(file, key: "k")
    }
    #expect(throws: SettingsErrors.self) { _ = try SecretFile.read(file + ".none", key: "k") }
  }
}

struct LDAPAnswerTests {
  private let settings = LDAPSettings(
    urls: ["ldap://x"], startsTLS: false, tls: .off, bindDN: nil, passwordFile: nil, base: "dc=x", scope: .sub,
    filter: "(uid=%u)", backendAttribute: "mailHost", loginAttribute: "login", portAttribute: "port", connections: 1)

  private func result(_ code: Int, count: Int = 0, references: Int = 0) -> LDAPResult {
    var result = LDAPResult(code: code, words: "words")
    result.count = count
    result.references = references
    if count > 0 { result.entry = LDAPEntry(name: "uid=a,dc=x") }
    return result
  }

  private func verdict(_ result: LDAPResult, isNamed: Bool = false) -> SourceAnswer? {
    switch settings.entry(result, isNamed: isNamed) {
    case .success: nil
    case .failure(let verdict): verdict.answer
    }
  }

  @Test func results() {
    #expect(verdict(result(0, count: 1)) == nil)
    #expect(verdict(result(0, count: 1, references: 3)) == nil)
    #expect(verdict(result(0)) == .notFound)
    #expect(verdict(result(0, count: 2)) == .failed("more than one entry fits"))
    // sizeLimitExceeded: with two it is our own limit, with less the server's.
    #expect(verdict(result(4, count: 2)) == .failed("more than one entry fits"))
    #expect(verdict(result(4, count: 1)) == .failed("words"))
    #expect(verdict(result(4)) == .failed("words"))
    #expect(verdict(result(32)) == .failed("the base \"dc=x\" is not there"))
    #expect(verdict(result(32), isNamed: true) == .notFound)
    for code in [1, 3, 10, 34, 49, 50, 51, 52, 53, 80] { #expect(verdict(result(code)) == .failed("words")) }
    #expect(verdict(result(3, count: 1)) == .failed("words"))
    guard case .failed? = verdict(result(0, references: 1)) else {
      Issue.record("what another server has counts as unknown")
      return
    }
  }

  private func answer(_ backends: [String], _ logins: [String] = [], _ ports: [String] = []) -> SourceAnswer {
    var entry = LDAPEntry(name: "uid=a,dc=x")
    entry.backends = backends.map { Array($0.utf8) }
    entry.logins = logins.map { Array($0.utf8) }
    entry.ports = ports.map { Array($0.utf8) }
    return settings.answer(entry)
  }

  @Test func entries() {
    #expect(answer(["a"]) == SourceAnswer("a"))
    #expect(answer(["b@a"]) == SourceAnswer("a", loginAs: Array("b".utf8)))
    #expect(answer(["b@a"], ["c"]) == SourceAnswer("a", loginAs: Array("c".utf8)))
    #expect(answer(["a"], [""]) == SourceAnswer("a"))
    #expect(answer(["!"], [], ["143"]) == .disabled)
    #expect(answer(["mail.x"], [], ["143"]) == SourceAnswer("mail.x:143"))
    #expect(answer(["u@2001:db8::1"], [], ["143"]) == SourceAnswer("[2001:db8::1]:143", loginAs: Array("u".utf8)))
    #expect(answer([]) == .failed("the entry has no mailHost"))
    #expect(answer([""]) == .failed("the answer names no backend"))
    #expect(answer(["a", "b"]) == .failed("the entry has 2 values of mailHost, expected one"))
    #expect(answer(["a"], ["x", "y"]) == .failed("the entry has 2 values of login, expected one"))
    #expect(answer(["a"], [], ["1", "2", "3"]) == .failed("the entry has 3 values of port, expected one"))
    for port in ["", "0", "65536", "imap", "-1"] {
      #expect(answer(["a"], [], [port]) == .failed("the entry's port is no port"))
    }
    for host in ["mail.x:143", "a b", "[::1]:143"] {
      guard case .failed = answer([host], [], ["143"]) else {
        Issue.record("\(host) has a port more")
        continue
      }
    }
  }
}

struct PatienceTests {
  @Test func shares() {
    // An hour, of which the test itself takes no ten seconds.
    let patience = Patience(until: Clock.monotonic.now + Timeouts.seconds(3_600))
    #expect(!patience.isOver)
    #expect((3_590...3_600).contains(patience.interval.tv_sec))
    let half = patience.share(of: 2)
    #expect((Timeouts.seconds(1_790)...Timeouts.seconds(1_800)).contains(patience.deadline - half.deadline))
    #expect(patience.share(of: 1).deadline >= patience.deadline - Timeouts.seconds(10))
    let over = Patience(until: 5)
    #expect(over.isOver && over.left == 0)
    // Never zero, which would be no bound at all.
    #expect(over.interval.tv_sec == 0 && over.interval.tv_usec > 0)
    #expect(over.share(of: 0).isOver)
  }
}

/// Sources this program was not built with are refused by name, with the way to build it with them.
struct MissingSourceTests {
  @Test func areNamed() {
    let ldap = LDAPSettings(
      urls: ["ldap://x"], startsTLS: false, tls: .off, bindDN: nil, passwordFile: nil, base: "dc=x", scope: .sub,
      filter: "(uid=%u)", backendAttribute: "mailHost", loginAttribute: nil, portAttribute: nil, connections: 1)
    let redis = RedisSettings(
      place: .socket("/x"), user: nil, passwordFile: nil, database: 0, key: "%u", backendField: nil, loginField: nil,
      connections: 1)
    func problem(_ source: SourceSettings) -> String? {
      do throws(SettingsErrors) {
        _ = try SourcePlans.plan(RouteSettings(source), "routes[0]")
        return nil
      } catch { return error.errors.first.map { "\($0.key): \($0.problem)" } }
    }
    #if LDAP
      #expect(problem(.ldap(ldap)) == nil)
    #else
      #expect(problem(.ldap(ldap)) == "routes[0].ldap: this proxyd was built without it: swift build --traits LDAP")
    #endif
    #if Redis
      #expect(problem(.redis(redis)) == nil)
    #else
      #expect(problem(.redis(redis)) == "routes[0].redis: this proxyd was built without it: swift build --traits Redis")
    #endif
  }
}

import Testing

@testable import Protocols
@testable import ProxyCore

/// What Perdition 2.2 of Debian 12 makes of a popmap.re, case by case as its own posix_regex library answered.
struct PerditionRulesTests {
  private func rules(_ text: String) throws -> PerditionRules {
    try PerditionRules(Array(text.utf8), file: "popmap.re", key: "k")
  }

  private func answer(_ text: String, _ name: String) throws -> SourceAnswer {
    try rules(text).answer(Array(name.utf8))
  }

  private func found(_ backend: String, _ loginAs: String? = nil) -> SourceAnswer {
    .found(Destination(backend, loginAs: loginAs.map { Array($0.utf8) }))
  }

  /// The file, the name, and what is answered; nil for nothing.
  @Test(arguments: [
    ("^a: host\n", "abc", "host"), ("^a: host\n", "xa", nil),
    // What stands before the match is kept, what stands behind it is dropped.
    ("flim: localhost\n", "itsflim", "itslocalhost"), ("b: h:143\n", "abc", "ah:143"), ("()b: host\n", "abc", "ahost"),
    // The first rule that matches.
    ("^b: h\n^a: k\n^.*: l\n", "abc", "k"), ("^b: h\n^a: k\n^.*: l\n", "cab", "l"),
    // Groups; one that took no part, or that there is none of, stays as it is written.
    ("b(c)?: h$1-$2-$0\n", "abc", "ahc-$2-bc"), ("b(c)?: h$1-$2-$0\n", "ab", "ah$1-$2-b"),
    ("b(c)?(d)?: h$1$2-$9-$3\n", "abcx", "ahc$2-$9-$3"), ("b(c)?(d)?: h$1$2-$9-$3\n", "abd", "ah$1d-$9-$3"),
    ("b: h$\n", "abc", "ah$"), ("b: h$$1$a$\n", "abc", "ah$$1$a$"), ("(b): h$1$10$01\n", "abc", "ahbb0b1"),
    ("(a)(b)(c)(d)(e)(f)(g)(h)(i)(j)(k): $1$2$3$9$10$11\n", "abcdefghijk", "abcia0a1"),
    // The longest match, and what groups then hold; PCRE2 would say h-a-c-abc.
    ("(a|ab)(c|bcd): h-$1-$2-$0\n", "abcd", "h-a-bcd-abcd"), ("(a*)(ab)*(b)*: h$1-$2-$3\n", "abb", "ha-$2-b"),
    // A match of nothing takes the next letter, and at the end is no answer, whatever rules follow.
    ("^: host\n", "abc", "hosta"), ("x*: host\n", "abc", "hosta"), ("x*: host\n", "xa", "host"),
    ("$: host\n", "abc", nil),
    ("c*$: host\n", "abc", "abhost"), ("c*$: host\n", "ab", nil), (".*: host\n", "abc", "host"),
    ("$: host\n^a: k\n", "abc", nil),
    // Letters are compared without regard to case, which Perdition does not.
    ("A: host\n", "abc", "host"), ("[A-C]+: $0\n", "abcd", "abc"), ("[[:upper:]]+: $0\n", "ab1", "ab"),
    ("'\\D+A': $0\n", "dda", "dda"), ("[_-z]+: $0\n", "a_z", "a_z"), ("X[^A]: $0\n", "xaxb", "xaxb"),
    // glibc's own, and what it takes for itself.
    ("a)b: host\n", "a)b", "host"), ("[[:digit:]]+\\\\d: h\n", "123d", "h"), ("[[:digit:]]+\\\\d: h\n", "1234", nil),
    ("[]a]+: h\n", "]a", "h"), ("'[\\]+x: ' h\n", "\\x: ", "h"), ("a**: h\n", "aa", "h"), ("\\\\ba: h\n", "x.a", "x.h"),
    // Quoting: a backslash is eaten unless doubled or in single quotes.
    ("^w\\.x: h\n", "wax", "h"), ("^w\\\\.x: h\n", "wax", nil), ("^w\\\\.x: h\n", "w.x", "h"),
    ("'^w\\.x:' h\n", "wax", nil),
    ("\"^w\\.x:\" h\n", "wax", "h"), ("'a'b\"c\": h\n", "abc", "h"), ("\"a\\\"b\": h\n", "a\"b", "h"),
    ("'a\\'b: h\n", "a\\b", "h"), ("^x\\ y: h\n", "x y", "h"), ("''^x: one''\n", "x", "one"),
    ("^x: 'ho st'\n", "x", "ho st"),
    ("^z: a\\tb\n", "z", "atb"),
    // Colons: one is taken off the pattern's end.
    ("^x host\n", "x", "host"), ("^y:: h\n", "y", nil), ("^y:: h\n", "y:", "h"), ("^x\\: h\n", "x", "h"),
    ("^x':' h\n", "x", "h"), ("^a:host\n^b: h\n", "a", nil), ("^a:host\n^b: h\n", "b", "h"),
    (": a\n^y: h\n", "q", nil), (": a\n^y: h\n", "y", "h"),
    // Further words are further rules.
    ("^x: host one two\n", "x", "host"), ("^x: host one two\n", "one", "two"), ("^x: host one\n", "one", nil),
    // Comments and lines.
    ("^x: h # c ' \n#^y: h\n^z: h#i\n", "x", "h"), ("^x: h # c\n#^y: h\n^z: h#i\n", "y", nil),
    ("^x: h # c\n#^y: h\n^z: h#i\n", "z", "h"), ("^x\\#: h\n", "x#", "h"), ("^x'#': h\n", "x#", "h"),
    ("# c \\\n^y: h\n", "y", nil), (" ^v: k\n\t^u: m\n", "u", "m"), ("^x: one\r\n^y: two\r\n", "y", "two"),
    ("^x: one\r^y: two\r", "y", "two"), ("^x: ho\\\n st\n", "x", "ho"), ("'a\nb': h\n", "ab", "h"),
    ("^x:\u{0} a\n", "x", "a"),
    // The last word needs an end behind it.
    ("^x: h\n^y: h", "y", nil), ("^y: h ", "y", "h"), ("^y: h#", "y", "h"), ("^y: 'h'", "y", nil),
    ("^y: h\\", "y", nil),
    ("^x: h 'a\n^y: z\n", "x", "h"), ("^x: h 'a\n^y: z\n", "y", nil),
    // A service's name for its port.
    ("^x: h:imap\n", "x", "h:143"), ("^x: h:pop3s\n", "x", "h:995"), ("^x: h:smtp\n", "x", "h:smtp"),
    ("^x: [::1]:sieve\n", "x", "[::1]:4190"),
  ])
  func perditionsAnswer(_ file: String, _ name: String, _ expected: String?) throws {
    let answer = try answer(file, name)
    #expect(answer == expected.map { found($0) } ?? .notFound, "\(file) \(name)")
  }

  @Test func theLastAtPartsUserAndServer() throws {
    #expect(try answer("^as_(.*)$: $1@b\n", "as_joe@x.org") == found("b", "joe@x.org"))
    #expect(try answer("^(.*)@(.*): $2\n", "joe@x.org") == found("x.org"))
    #expect(try answer("org: b\n", "joe@x.org") == found("x.b", "joe"))
    #expect(try answer("^joe: !\n", "joe") == .disabled)
  }

  @Test func anAnswerWithoutServerOrUserIsAFailure() throws {
    #expect(try answer("^x(.*): $1\n", "x") == .failed("line 1: the rule's answer is empty"))
    #expect(try answer("^y: h\n^x: a@\n", "x") == .failed("line 2: the rule's answer is empty"))
    #expect(try answer("^x: @a\n", "x") == .failed("line 1: the rule's user name is empty"))
  }

  @Test func nobodyHasNoName() throws { #expect(try answer(".*: h\n", "") == .notFound) }

  @Test(arguments: [
    ("^ok: h\n(: a\n", 2, 1, "Unmatched ( or"), ("a{: h\n", 1, 1, "Unmatched"), ("*a: h\n", 1, 1, "preceding"),
    ("^*a: h\n", 1, 1, "preceding"), ("^x: h  [a: h\n", 1, 8, "Unmatched ["), ("(x)\\\\1: h\n", 1, 1, "reference"),
    ("^x: ''\n", 1, 5, "empty word"), (" a\n^y: h\n", 1, 1, "indented"), (" a: b c\n^y: h\n", 1, 1, "indented"),
  ])
  func faultsHaveAPlace(_ text: String, _ line: Int, _ column: Int, _ words: String) throws {
    do throws(SettingsErrors) {
      _ = try PerditionRules(Array(text.utf8), file: "popmap.re", key: "k")
      Issue.record("it was read: \(text)")
    } catch {
      let first = try #require(error.errors.first)
      #expect(first.place == .init(file: "popmap.re", line: line, column: column), "\(first)")
      #expect(first.problem.contains(words), "\(first.problem)")
    }
  }

  /// Of each warning a word, with its line.
  @Test(arguments: [
    ("^x: h\n", []), ("(^x|^y): h\n", []), ("^x: a@h\n(.*)@b: h\n.+x: h\n", []), ("(^(.*)x): h\n", []),
    ("'[(|]x': h\n", ["1 anchored"]), ("'^[|(]x|y': h\n", ["1 anchored"]), ("'^\\(|^y': h\n", []),
    ("# c\nflim: localhost\n", ["2 anchored"]), ("^a|b: h\n", ["1 anchored"]), ("(^a)?b: h\n", ["1 anchored"]),
    ("(^a|b): h\n", ["1 anchored"]), ("([^a]): h\n", ["1 anchored"]), ("'\\.*': h\n", ["1 anchored", "1 no letter"]),
    ("^: h\n", ["1 no letter"]), ("^x*: h\n", ["1 no letter"]), ("^(a|b)*: h\n", ["1 no letter"]),
    ("'^\\d+': h\n", ["1 the letter d"]), ("'^\\w\\b\\.': h\n", []), ("'^[\\d]': h\n", []),
    ("^(.*)@(.*): $2\n", ["1 any client"]), ("^(.*)@(.*): $1@$2\n", ["1 any client"]), ("^(.*)@x: $1@h\n", []),
    ("^(.*)@x: h$1\n", []),
    ("\n^a:host\n^b: h\n", ["2 no answer"]), ("^a : h\n^b: h\n", ["1 more than two", "1 no answer", "1 blank stands"]),
    ("^x: h ^y: h\n", ["1 more than two"]), ("^x: h\n\\\n^y: h", ["2 last line has no end"]),
    ("^x: h 'q\n^y: h\n", ["1 a quote is not closed"]), (": a\n", ["1 no pattern"]),
    ("^y: h\n^x: \(String(repeating: "x", count: 4_092))\n", []),
    ("^y: h\n^x: \(String(repeating: "x", count: 4_093))\n", ["2 cuts this line"]),
  ])
  func oddRulesAreWarnedOf(_ text: String, _ expected: [String]) throws {
    let warnings = try rules(text).warnings
    #expect(warnings.count == expected.count, "\(text): \(warnings)")
    for (warning, words) in zip(warnings, expected) {
      let parts = words.split(separator: " ", maxSplits: 1)
      #expect(warning.place?.line == Int(parts[0]), "\(text): \(warning)")
      #expect(warning.problem.contains(parts[1]), "\(text): \(warning)")
    }
  }

  @Test func manyUnanchoredRulesAreCounted() throws {
    let text = (1...25).map { "x\($0): h\n" }.joined()
    let warnings = try rules(text).warnings
    #expect(warnings.count == 21)
    #expect(warnings.last?.problem == "popmap.re: 5 more patterns are not anchored with ^")
  }

  /// PCRE2 gives up on such a name; here it must not take long. Ten seconds are ten thousand times what it takes.
  @Test(arguments: ["(a|aa)+$", "(a+)+$", "(x+x+)+y", "^((a|b)*c|(a|b)*d|(a|b)*e)$", "(.*)(.*)(.*)(.*)(.*)q"])
  func aHostileNameTakesNoTime(_ pattern: String) throws {
    let rules = try rules("'\(pattern)': h\n")
    let name = Array(repeating: UInt8(ascii: "a"), count: Limits.loginName - 1) + [UInt8(ascii: "!")]
    let clock = ContinuousClock()
    #expect(clock.measure { _ = rules.answer(name) } < .seconds(10))
  }

  /// Whatever the bytes, they are read to their end, and what is read answers.
  @Test func anyBytesAreRead() {
    var generator = Seeded(7)
    let bytes = Array("ab:. \t\n\r\\'\"#$1()[]*|^\0\u{FF}".utf8)
    for _ in 0..<3_000 {
      let text = (0..<Int.random(in: 0...40, using: &generator)).map { _ in bytes.randomElement(using: &generator)! }
      if let rules = try? PerditionRules(text, file: "f", key: "k") { _ = rules.answer(Array("ab".utf8)) }
    }
  }

  @Test func aRouteReadsTheFileSo() throws {
    let folder = try Folder()
    let file = try folder.write("popmap.re", "'w\\.x:' a\n")
    let source = RegexRoutes(try RegexRules(file: file, key: "k", perditionCompatible: true))
    #expect(source.answer(RouteQuery(user: Array("W.X.y".utf8), mailProtocol: .imap)) == found("a"))
    func warnings(_ isPerditions: Bool) throws -> [String] {
      let route = RouteSettings(.regex(file: file, perditionCompatible: isPerditions))
      return try RoutePlan(Settings(listeners: [], routes: [route], backends: [:])).warnings.map(\.problem)
    }
    #expect(try warnings(true).count == 1)
    #expect(throws: SettingsErrors.self) { try warnings(false) }
  }
}

/// Knuth's MMIX generator: the same numbers every time.
private struct Seeded: RandomNumberGenerator {
  private var state: UInt64
  init(_ seed: UInt64) { state = seed }
  mutating func next() -> UInt64 {
    state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
    return state
  }
}

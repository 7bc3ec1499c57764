import Testing

@testable import Protocols

private func xclient(_ facts: ClientFacts, announced: String = "") -> String {
  var out: [UInt8] = []
  facts.append(attributesTo: &out, announced: Array(announced.utf8).span)
  return String(decoding: out, as: UTF8.self)
}

private func identification(_ text: String) -> IMAPIdentification? {
  let bytes = Array("a ID \(text)".utf8)
  guard let command = try? IMAPCommand.read(bytes.span), let argument = command.arguments.first else { return nil }
  return IMAPIdentification(argument, bytes.span)
}

struct ClientFactsTests {
  private static let all: [(ClientFact, String)] = [
    (.session, "jZJpUv1g7sd/AAAB"), (.address, "2001:db8::1"), (.port, "65535"), (.connectedAddress, "192.0.2.9"),
    (.connectedPort, "1"), (.ttl, "4"), (.transport, "insecure"), (.connectedName, "mail.example.com"),
  ]

  private static var everything: ClientFacts {
    var facts = ClientFacts()
    for (fact, value) in all { facts.set(fact, value) }
    return facts
  }

  @Test(
    arguments: [
      (.session, "abc"), (.session, String(repeating: "s", count: 64)), (.session, "a+/=:;,<>[]}"),
      (.address, "192.0.2.1"), (.address, "fe80::1%eth0"), (.port, "0"), (.port, "65535"), (.port, "00443"),
      (.ttl, "0"),
      (.ttl, "255"), (.transport, "TLS"), (.transport, "insecure"), (.connectedName, "xn--mller-kva.example"),
      (.connectedName, String(repeating: "n", count: 255)), (.connectedAddress, "::"), (.connectedPort, "993"),
    ] as [(ClientFact, String)])
  func takes(_ fact: ClientFact, _ value: String) {
    var facts = ClientFacts()
    facts.set(fact, value)
    #expect(readable(facts) == "\(fact)=\(value)")
  }

  /// What could be read as the protocol's own words, or as more than one value.
  @Test(arguments: ClientFact.allCases)
  func refuses(_ fact: ClientFact) {
    let never = [
      "", " ", "a b", "1 2", "1\r\n2", "1\n", "1\0", "1\t", "1\"", "1\\", "(1", "1)", "{1", "{1}", "1\u{7F}", "1ü",
      String(repeating: "1", count: 256),
    ]
    for value in never {
      var facts = ClientFacts()
      facts.set(fact, value)
      #expect(facts.isEmpty, "\(fact) \(value)")
    }
  }

  @Test(
    arguments: [
      (.port, "65536"), (.port, "99999"), (.port, "123456"), (.port, "-1"), (.port, "+1"), (.port, "1a"),
      (.connectedPort, "65536"), (.ttl, "1000"), (.ttl, "-1"), (.address, "192.0.2.1/24"), (.address, "[::1]"),
      (.address, "mail.example.com;x"), (.address, "a_b"), (.transport, "insecurely"),
      (.session, String(repeating: "s", count: 65)),
    ] as [(ClientFact, String)])
  func refusesOddValues(_ fact: ClientFact, _ value: String) {
    var facts = ClientFacts()
    facts.set(fact, value)
    #expect(facts.isEmpty)
  }

  @Test func aRefusedValueLeavesTheOneBefore() {
    var facts = ClientFacts()
    facts.set(.port, "1")
    facts.set(.port, "x")
    #expect(readable(facts) == "port=1")
    #expect(facts.number(.port) == 1)
    #expect(facts.number(.ttl) == nil)
  }

  @Test func whatIsWrittenForIMAPIsReadThere() throws {
    let facts = ClientFactsTests.everything
    var out: [UInt8] = []
    facts.append(identificationTo: &out, isFirst: true)
    let read = identification("(\(String(decoding: out, as: UTF8.self)))")
    #expect(read?.facts == facts)
    #expect(read?.pairs == [])
  }

  @Test func whatIsWrittenForXCLIENTIsReadThere() {
    let facts = ClientFactsTests.everything
    let line = Array(xclient(facts).dropFirst().utf8)
    var read = ClientFacts()
    read.take(attributes: line.span)
    #expect(read == facts)
  }

  @Test(arguments: [
    (
      "",
      " SESSION=jZJpUv1g7sd/AAAB ADDR=2001:db8::1 PORT=65535 DESTADDR=192.0.2.9 DESTPORT=1 TTL=4"
        + " CLIENT-TRANSPORT=insecure DESTNAME=mail.example.com"
    ),
    ("ADDR", " ADDR=2001:db8::1"), ("ttl PORT x", " PORT=65535 TTL=4"), ("ADDRESS", ""),
    ("DESTADDR", " DESTADDR=192.0.2.9"),
  ])
  func onlyWhatIsAnnouncedIsSaid(_ announced: String, _ expected: String) {
    #expect(xclient(ClientFactsTests.everything, announced: announced) == expected)
  }

  @Test(arguments: [
    ("ADDR=1.2.3.4", "address=1.2.3.4"), ("addr=1.2.3.4  Port=5 ", "address=1.2.3.4 port=5"), ("ADDR", ""), ("=", ""),
    ("ADDR=", ""), ("ADDR=1=2", ""), ("SESSION=a=b", "session=a=b"), ("XADDR=1 ADDRX=2", ""), ("", ""), ("   ", ""),
    ("ADDR=1.1.1.1 ADDR=2.2.2.2", "address=2.2.2.2"), ("ADDR=1.1.1.1\tPORT=1", ""),
  ])
  func readsAttributes(_ line: String, _ expected: String) {
    var facts = ClientFacts()
    facts.take(attributes: Array(line.utf8).span)
    #expect(readable(facts) == expected)
  }

  @Test(
    arguments: [
      ("xDovecotx", "dovecot", true, false), ("a b", "b", true, true), ("ab", "b", true, false),
      ("", "b", false, false),
      (" b ", "B", true, true), ("a", "ab", false, false),
    ] as [(String, StaticString, Bool, Bool)])
  func findsTextAndWords(_ line: String, _ word: StaticString, _ text: Bool, _ isWord: Bool) {
    let bytes = Array(line.utf8)
    let (hasText, hasWord) = (bytes.span.hasText(word), bytes.span.hasWord(word))
    #expect(hasText == text)
    #expect(hasWord == isWord)
  }
}

struct IMAPIdentificationTests {
  /// ID's argument → the pairs as they go on, and the facts; nil if it is none.
  @Test(arguments: [
    ("NIL", "", ""), ("nil", "", ""), ("()", "", ""),
    ("(\"name\" \"x\")", "\"name\" \"x\"", ""), ("(name x)", "\"name\" \"x\"", ""),
    ("(\"name\" NIL)", "\"name\" NIL", ""), ("(\"name\" \"NIL\")", "\"name\" \"NIL\"", ""),
    ("(\"a\\\"b\" \"c\\\\d\")", "\"a\\\"b\" \"c\\\\d\"", ""),
    ("(\"n\" {3}\r\na\0\n)", "\"n\" \"a??\"", ""), ("(\"n\" \"ü\")", "\"n\" \"??\"", ""),
    ("(\"x-session-id\" \"abc\" \"name\" \"y\")", "\"name\" \"y\"", "session=abc"),
    ("(\"X-Originating-IP\" \"192.0.2.1\")", "", "address=192.0.2.1"),
    ("(\"x-session-id\" NIL)", "", ""), ("(\"x-session-id\" \"a b\")", "", ""), ("(\"x-unknown\" \"y\")", "", ""),
    ("(\"x-session-id\" {5}\r\na\r\nbc)", "", ""),
  ])
  func reads(_ argument: String, _ pairs: String, _ facts: String) throws {
    let found = try #require(identification(argument))
    #expect(String(decoding: found.pairs, as: UTF8.self) == pairs)
    #expect(readable(found.facts) == facts)
  }

  @Test(arguments: ["\"NIL\"", "x", "(\"name\")", "(\"a\" \"b\" \"c\")", "{3}\r\nNIL"])
  func refuses(_ argument: String) {
    #expect(identification(argument) == nil)
  }

  @Test func hasBounds() throws {
    let longKey = try #require(identification("(\"\(String(repeating: "k", count: 31))\" \"v\" \"b\" \"w\")"))
    #expect(String(decoding: longKey.pairs, as: UTF8.self) == "\"b\" \"w\"")
    let many = (0..<30).map { "\"key\($0)\" \"\(String(repeating: "v", count: 100))\"" }.joined(separator: " ")
    let bounded = try #require(identification("(\(many))"))
    #expect(bounded.pairs.count <= 1_024)
    #expect(bounded.pairs.count > 900)
    #expect(HostileTests.isLines(bounded.pairs + [13, 10]))
  }
}

// swift-format-ignore-file: NeverForceUnwrap
// A test that unwraps nil fails, which is what it is for.

import Testing

@testable import Protocols

private func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }
private func text(_ bytes: [UInt8]) -> String { String(decoding: bytes, as: UTF8.self) }

/// Perdition's experiments (reference, §8.7) and what lies between them.
struct NameRulesTests {
  struct Case: Sendable, CustomTestStringConvertible {
    var strip: Set<NamePurpose> = []
    var add: Set<NamePurpose> = []
    var lower: Set<NamePurpose> = []
    var domain = NameRules.AddedDomain.ofAddress(strippedLabels: 0)
    var delimiter = "@"
    var address: String?
    let name: String
    let lookup: String
    let backend: String

    var testDescription: String { name }
  }

  @Test(arguments: [
    Case(strip: [.lookup], name: "henry@x", lookup: "henry", backend: "henry@x"),
    Case(strip: [.backend], name: "henry@x", lookup: "henry@x", backend: "henry"),
    Case(lower: [.lookup], name: "HenRY", lookup: "henry", backend: "HenRY"),
    Case(lower: Set(NamePurpose.allCases), name: "HenRY", lookup: "henry", backend: "henry"),
    Case(add: [.lookup], address: "localhost", name: "u3", lookup: "u3@localhost", backend: "u3"),
    Case(
      add: [.lookup], domain: .ofAddress(strippedLabels: 1), address: "localhost", name: "u3", lookup: "u3",
      backend: "u3"),
    Case(
      add: [.lookup, .backend], domain: .fixed(bytes("d.e")), name: "u4", lookup: "u4@d.e", backend: "u4@d.e"),
    Case(
      add: [.backend], domain: .ofAddress(strippedLabels: 1), address: "imap.example.org", name: "u", lookup: "u",
      backend: "u@example.org"),
    Case(add: [.lookup], name: "u", lookup: "u", backend: "u"),
    Case(add: [.lookup], domain: .fixed(bytes("d")), name: "u@x", lookup: "u@x", backend: "u@x"),
    // Stripped, then added to: the domain is replaced.
    Case(strip: [.lookup], add: [.lookup], domain: .fixed(bytes("d")), name: "u@x", lookup: "u@d", backend: "u@x"),
    Case(strip: [.lookup], name: "a@b@c", lookup: "a@b", backend: "a@b@c"),
    Case(strip: [.lookup], delimiter: "::", name: "a::b", lookup: "a", backend: "a::b"),
    // A name that is all domain stays: nobody has an empty name.
    Case(strip: [.lookup, .backend], name: "@x", lookup: "@x", backend: "@x"),
    Case(lower: [.lookup], name: "ÄÖ", lookup: "ÄÖ", backend: "ÄÖ"),
  ])
  func namesAreRewrittenForEachPurpose(_ example: Case) {
    var rules = NameRules()
    rules.stripDomain = example.strip
    rules.addDomain = example.add
    rules.lowerCase = example.lower
    rules.domain = example.domain
    rules.delimiter = bytes(example.delimiter)
    let address = example.address.map(bytes)
    #expect(text(rules.name(bytes(example.name), for: .lookup, addressName: address)) == example.lookup)
    #expect(text(rules.name(bytes(example.name), for: .backend, addressName: address)) == example.backend)
    #expect(rules.name(bytes(example.name), for: .log) == bytes(example.name) || example.lower.contains(.log))
  }

  @Test func everyStepIsTold() {
    var rules = NameRules()
    rules.stripDomain = [.lookup]
    rules.addDomain = [.lookup]
    rules.lowerCase = [.lookup]
    rules.domain = .fixed(bytes("New"))
    let steps = rules.steps(bytes("Al@Old"), for: .lookup)
    #expect(steps.map(\.step) == [.strippedDomain, .addedDomain, .lowerCased])
    #expect(steps.map { text($0.name) } == ["Al", "Al@New", "al@new"])
    #expect(rules.steps(bytes("Al@Old"), for: .backend).isEmpty)
  }

  @Test(arguments: [
    ("\\U", "joe@ex.org", "joe@ex.org"), ("\\u", "joe@ex.org", "joe"), ("\\d", "joe@ex.org", "ex.org"),
    ("\\D\\d", "joe@ex.org", "@ex.org"), ("\\u", "joe", "joe"), ("\\d", "joe", ""), ("\\u", "a@b@c", "a@b"),
    ("\\d", "a@b@c", "c"), ("x-\\u.\\d\\\\", "joe@ex.org", "x-joe.ex.org\\"),
    ("\\i \\p \\I \\P", "joe", "192.0.2.1 4000 ::1 143"), ("all", "joe", "all"),
  ])
  func keysAreMade(_ template: String, _ name: String, _ key: String) {
    var facts = KeyFacts()
    facts.clientAddress = "192.0.2.1"
    facts.clientPort = "4000"
    facts.localAddress = "::1"
    facts.localPort = "143"
    #expect(text(KeyTemplate(template)!.key(bytes(name), NameRules(), facts)) == key)
    #expect(KeyTemplate(template)!.needsFacts == template.contains("\\i"))
  }

  /// Perdition keeps the rest of a delimiter of several bytes in `\d`; nobody can have meant that.
  @Test func aLongDelimiterIsNotPartOfTheDomain() {
    var rules = NameRules()
    rules.delimiter = bytes("::")
    #expect(text(KeyTemplate("\\d")!.key(bytes("a::b"), rules, KeyFacts())) == "b")
  }

  @Test(arguments: ["", "\\", "\\x", "a\\", "\\u\\q"])
  func whatIsNoTemplate(_ text: String) { #expect(KeyTemplate(text) == nil) }
}

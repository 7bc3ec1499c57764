import Testing

@testable import Protocols

struct NameTemplateTests {
  private func values(_ name: String, _ user: String? = nil, _ domain: String = "") -> NameTemplate.Values {
    NameTemplate.Values(
      name: Array(name.utf8), user: Array((user ?? name).utf8), domain: Array(domain.utf8), mailProtocol: .imap)
  }

  private func expand(_ text: String, _ values: NameTemplate.Values, _ escaping: NameTemplate.Escaping) throws -> String
  {
    String(decoding: try #require(NameTemplate(text)).expand(values, escaping), as: UTF8.self)
  }

  @Test(arguments: [
    ("(uid=%u)", "(uid=a@b.c)"), ("%n|%d|%s|%%", "a|b.c|imap|%"), ("backend:%u:%s", "backend:a@b.c:imap"),
    ("plain", "plain"), ("100%%", "100%"), ("%%u", "%u"), ("ü%u", "üa@b.c"),
  ])
  func expands(_ text: String, _ expected: String) throws {
    #expect(try expand(text, values("a@b.c", "a", "b.c"), .none) == expected)
  }

  @Test(arguments: ["", "%", "%x", "a%", "%U", "% u", "%é"])
  func refuses(_ text: String) { #expect(NameTemplate(text) == nil) }

  @Test func knowsWhetherItHasParts() throws {
    #expect(try #require(NameTemplate("(uid=%n)")).hasParts)
    #expect(try #require(NameTemplate("%s")).hasParts)
    #expect(try !#require(NameTemplate("ou=100%%")).hasParts)
  }

  /// RFC 4515 §4's own examples among them: parentheses, the asterisk, the backslash, NUL and UTF-8.
  @Test(arguments: [
    (
      "Parens R Us (for all your parenthetical needs)",
      "Parens\\20R\\20Us\\20\\28for\\20all\\20your\\20parenthetical\\20needs\\29"
    ),
    ("*", "\\2a"), ("C:\\MyFile", "C:\\5cMyFile"), ("\0\0\0\u{4}", "\\00\\00\\00\\04"),
    ("Lučić", "Lu\\c4\\8di\\c4\\87"),
    (")(uid=*", "\\29\\28uid=\\2a"), ("\\2a", "\\5c2a"), ("a@b.c", "a@b.c"), ("\r\n", "\\0d\\0a"), ("\u{7F}", "\\7f"),
    ("a&|!<>~=", "a&|!<>~="), ("", ""),
  ])
  func escapesInFilters(_ name: String, _ expected: String) throws {
    #expect(try expand("(uid=%u)", values(name), .filter) == "(uid=\(expected))")
  }

  /// RFC 4514 §2.4: `"`, `+`, `,`, `;`, `<`, `>`, `\`, NUL; a space or `#` in front; a space at the end.
  @Test(arguments: [
    ("James \"Jim\" Smith, III", "James\\20\\22Jim\\22\\20Smith\\2c\\20III"), ("#1", "\\231"), (" x ", "\\20x\\20"),
    ("a+b;c<d>e\\f\0", "a\\2bb\\3bc\\3cd\\3ee\\5cf\\00"), ("a=b", "a\\3db"), ("Lučić", "Lu\\c4\\8di\\c4\\87"),
    ("first.last_2-x@b.c", "first.last_2-x@b.c"), ("x,dc=evil", "x\\2cdc\\3devil"),
  ])
  func escapesInDistinguishedNames(_ name: String, _ expected: String) throws {
    #expect(try expand("uid=%u,dc=x", values(name), .distinguishedName) == "uid=\(expected),dc=x")
  }

  /// Whatever a name holds, what is made of it holds none of the characters that mean something there, and says the name
  /// again once its escapes are read.
  @Test(arguments: NameTemplate.Escaping.allCases)
  func everyByteStaysItself(_ escaping: NameTemplate.Escaping) throws {
    let name = (0...255 as ClosedRange<UInt8>).map { $0 }
    let values = NameTemplate.Values(name: name, user: name, domain: [], mailProtocol: .pop3)
    let text = try #require(NameTemplate("%u")).expand(values, escaping)
    guard escaping != .none else { return #expect(text == name) }
    #expect(text.allSatisfy { $0 > 0x20 && $0 < 0x7F })
    var read: [UInt8] = []
    var index = 0
    while index < text.count {
      if text[index] == .ascii("\\") {
        read.append(try #require(UInt8(String(decoding: text[index + 1...index + 2], as: UTF8.self), radix: 16)))
        index += 3
      } else {
        #expect(!"*()\\\0".utf8.contains(text[index]))
        if escaping == .distinguishedName { #expect(!"\"+,;<>= #".utf8.contains(text[index])) }
        read.append(text[index])
        index += 1
      }
    }
    #expect(read == name)
  }
}

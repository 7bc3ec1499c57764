import Testing

@testable import Protocols

private func read(_ bytes: [UInt8]) throws -> IMAPCommand { try IMAPCommand.read(bytes.span) }
private func literal(_ line: String) -> IMAPLiteral? { IMAPLiteral(endOf: Array(line.utf8).span) }

struct IMAPGrammarTests {
  /// A line → what it is read as: the tag, the name, the arguments' values.
  @Test(arguments: [
    ("a NOOP", "a noop"),
    ("a.1 LOGOUT", "a.1 logout"),
    ("a login alice secret", "a login alice secret"),
    ("a LOGIN \"al\\\"ice\" \"\"", "a login al\"ice <>"),
    ("a LOGIN {3}\r\nx\r\n {0+}\r\n", "a login x?? <>"),
    ("a LOGIN {3}\nabc \"d\"", "a login abc d"),
    ("a AUTHENTICATE PLAIN =", "a authenticate PLAIN ="),
    ("a ID (\"k\" NIL {1}\r\nv x)", "a id (k,NIL,v,x)"),
    ("a ID ()", "a id ()"),
    ("", "! tag"), (" NOOP", "! tag"), ("* NOOP", "! tag"), ("a+ NOOP", "! tag"), ("a\u{7F} NOOP", "! tag"),
    ("a", "! noName"), ("a ", "! noName"), ("a  NOOP", "! noName"),
    ("a FETCH 1", "! unknownName"), ("a NOOPS", "! unknownName"), ("a é", "! unknownName"),
    ("a NOOP ", "a noop"), ("a LOGIN alice x ", "a login alice x"),
    ("a NOOP  ", "! arguments"), ("a LOGIN  alice x", "! arguments"),
    ("a LOGIN \"alice", "! arguments"), ("a LOGIN \"a\\lice\" x", "! arguments"), ("a LOGIN \"a\\", "! arguments"),
    ("a LOGIN \"a\rb\" x", "! arguments"), ("a LOGIN a\"b x", "! arguments"), ("a LOGIN (a) x y", "a login (a) x y"),
    ("a ID (\"k\" (\"k\" NIL))", "! arguments"), ("a ID (\"k\"  NIL)", "! arguments"),
    ("a ID (\"k\" NIL", "! arguments"),
    ("a LOGIN {3}\r\nab", "! arguments"), ("a LOGIN {x}\r\nabc d", "! arguments"), ("a LOGIN {3", "! arguments"),
    ("a LOGIN {3+\r\nabc x", "! arguments"), ("a LOGIN alice\tx y", "! arguments"),
  ])
  func reads(_ line: String, _ expected: String) {
    let bytes = Array(line.utf8)
    do throws(IMAPCommand.Fault) {
      let command = try IMAPCommand.read(bytes.span)
      func value(_ argument: IMAPCommand.Argument) -> String {
        if case .list(let items) = argument { return "(" + items.map(value).joined(separator: ",") + ")" }
        var out: [UInt8] = []
        _ = argument.append(from: bytes.span, to: &out)
        let text = String(decoding: out.map { $0.isControl ? UInt8(ascii: "?") : $0 }, as: UTF8.self)
        return text.isEmpty ? "<>" : text
      }
      let words = [String(decoding: bytes[command.tag], as: UTF8.self), "\(command.name)".lowercased()]
      #expect((words + command.arguments.map(value)).joined(separator: " ") == expected)
    } catch {
      let name =
        switch error {
        case .tag: "tag"
        case .noName: "noName"
        case .unknownName: "unknownName"
        case .arguments: "arguments"
        }
      #expect("! \(name)" == expected, "\(line)")
    }
  }

  @Test func aTagHasABound() {
    let line = String(repeating: "a", count: Limits.tag) + " NOOP"
    #expect(throws: Never.self) { try read(Array(line.utf8)) }
    #expect(throws: IMAPCommand.Fault.tag) { try read(Array(("a" + line).utf8)) }
  }

  @Test func argumentsHaveABound() {
    let line = "a ENABLE" + String(repeating: " X", count: 16)
    #expect(throws: Never.self) { try read(Array(line.utf8)) }
    #expect(throws: IMAPCommand.Fault.self) { try read(Array((line + " X").utf8)) }
  }

  @Test func aListHasABound() {
    func id(_ pairs: Int) -> [UInt8] {
      Array("a ID (\(Array(repeating: "\"k\" NIL", count: pairs).joined(separator: " ")))".utf8)
    }
    #expect(throws: Never.self) { try read(id(30)) }
    #expect(throws: IMAPCommand.Fault.self) { try read(id(31)) }
    // CVE-2026-27857: parentheses without end.
    #expect(throws: IMAPCommand.Fault.self) {
      try read(Array(("a ID " + String(repeating: "(", count: 10_000)).utf8))
    }
  }

  @Test(arguments: [
    ("a LOGIN {5}", 8, 5, true), ("a LOGIN {5+}", 8, 5, false), ("{0}", 0, 0, true),
    ("{99999999999999999999999999}", 0, 1 << 40, true), ("x{12}", 1, 12, true),
  ])
  func literalHeaders(_ line: String, _ start: Int, _ size: Int, _ isSynchronizing: Bool) throws {
    let found = literal(line)
    let literal = try #require(found)
    #expect(literal.start == start)
    #expect(literal.size == size)
    #expect(literal.isSynchronizing == isSynchronizing)
  }

  @Test(arguments: ["", "}", "{}", "{+}", "{-1}", "{1 }", "{1}x", "1}", "{1++}", "{a}", "+}"])
  func notLiteralHeaders(_ line: String) {
    let found = literal(line)
    #expect(found == nil)
  }
}

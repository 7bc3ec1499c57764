import Testing

@testable import Migration

/// The reader of perdition.conf, against what Perdition 2.2 was seen to read.
struct PerditionFileTests {
  struct Reading: Sendable {
    let text: String
    let words: [[String]]
  }

  /// What stands behind a file's text was printed by `perdition.imap4 --debug` as the options it had read.
  @Test(arguments: [
    Reading(text: "ok_line a   b  # comment\n", words: [["ok_line", "a   b"]]),
    Reading(text: "\"timeout\" \"33\"\n", words: [["timeout", "33"]]),
    Reading(text: "tim\"eout\" 4\n", words: [["timeout", "4"]]),
    Reading(text: "\\timeout 4\n", words: [["timeout", "4"]]),
    Reading(text: "timeout   \t 4 \t \n", words: [["timeout", "4"]]),
    Reading(text: "ok_line x\\ny z\n", words: [["ok_line", "xny z"]]),
    Reading(text: "ok_line \"a  b  \"c   \ntimeout 3\n", words: [["ok_line", "a  b  c"], ["timeout", "3"]]),
    Reading(text: "ok_line a\\  \n", words: [["ok_line", "a "]]),
    Reading(text: "ok_line a \"\"\n", words: [["ok_line", "a "]]),
    Reading(text: "ok_line a \"\" b\n", words: [["ok_line", "a  b"]]),
    Reading(text: "ok_line \"it's\"x 'q\\r'\n", words: [["ok_line", "it'sx q\\r"]]),
    Reading(text: "ok_line \"a\"'b'c\\\"d\n", words: [["ok_line", "abc\"d"]]),
    Reading(text: "ok_line \"a\\\"b\\\\c\\nd\"\n", words: [["ok_line", "a\"b\\cnd"]]),
    Reading(text: "ok_line a#b\n", words: [["ok_line", "a"]]),
    Reading(text: "# hello \"quote\nok_line a\n", words: [["ok_line", "a"]]),
    Reading(text: "# comment \\\nok_line a\ntimeout 3\n", words: [["timeout", "3"]]),
    Reading(text: "ok_line \"\"\n", words: [["ok_line", ""]]),
    Reading(text: "ok_line \"a\nb\"\ntimeout 3\n", words: [["ok_line", "ab"], ["timeout", "3"]]),
    Reading(text: "ok_line 'a\\\nb'\n", words: [["ok_line", "a\\b"]]),
    Reading(text: "ok_line a\\\n b\n", words: [["ok_line", "a b"]]),
    Reading(text: "ok_line a\\\rb\n", words: [["ok_line", "ab"]]),
    Reading(text: "ok_line a\\\r\nb\n", words: [["ok_line", "a"], ["b"]]),
    Reading(text: "ok_line a\r\ntimeout 3\r\n", words: [["ok_line", "a"], ["timeout", "3"]]),
    Reading(text: "  # comment\n   \nok_line x\n", words: [["ok_line", "x"]]),
    Reading(text: "ok_line = x\n", words: [["ok_line", "= x"]]),
    Reading(text: "timeout 3\nok_line x", words: [["timeout", "3"], ["ok_line"]]),
    Reading(text: "timeout 3\nok_line \"x\ntimeout 4\n", words: [["timeout", "3"], ["ok_line"]]),
    Reading(text: "timeout 3\ndebug", words: [["timeout", "3"]]),
    Reading(text: "timeout 3\ndebug ", words: [["timeout", "3"], ["debug"]]),
    Reading(text: "ok_line a\\", words: [["ok_line"]]),
    Reading(text: " ok_line  x \n", words: [["ok_line  x"]]),
    Reading(text: "ok_line \\\n\ntimeout 3\n", words: [["ok_line", ""], ["timeout", "3"]]),
    Reading(text: "\\\ntimeout 3\n", words: [["timeout", "3"]]),
    Reading(text: "\\\n timeout 3\n", words: [["timeout 3"]]),
  ])
  func reads(_ reading: Reading) {
    #expect(PerditionFile.read(Array(reading.text.utf8)).lines.map(\.words) == reading.words)
  }

  @Test func linesAreCountedAsPeopleDo() {
    let file = PerditionFile.read(Array("a 1\r\nb \\\n2\n\n# c \\\n d\nc \"x\ny\"\nd 3\re 4\n f 5\n".utf8))
    #expect(file.lines.map(\.number) == [1, 2, 7, 9, 10, 11])
    #expect(file.lines.map(\.isIndented) == [false, false, false, false, false, true])
  }

  @Test func oddities() {
    func kinds(_ text: String) -> [PerditionFile.Oddity.Kind] {
      PerditionFile.read(Array(text.utf8)).oddities.map(\.kind)
    }
    #expect(kinds("a b\n") == [])
    #expect(kinds("a b") == [.lostLastLine("a b")])
    #expect(kinds("a 'b\n") == [.openQuote, .lostLastLine("a b")])
    #expect(kinds("a b\\\r\n") == [.continuationBeforeCRLF])
    #expect(kinds("a b\0c\n") == [.nul])
    #expect(kinds("a \(String(repeating: "x", count: 4_097))\n") == [.tooLong])
    #expect(kinds("a \(String(repeating: "x", count: 4_096))\n") == [])
  }

  /// Blanks part every word of a popmap.re.
  @Test func words() {
    let file = PerditionFile.read(Array("^a\\ b: 'c d'  e\t\"\" # f\n g h\n".utf8), as: .words)
    #expect(file.lines.map(\.words) == [["^a b:", "c d", "e", ""], ["g", "h"]])
    #expect(file.lines.map(\.isIndented) == [false, true])
  }
}

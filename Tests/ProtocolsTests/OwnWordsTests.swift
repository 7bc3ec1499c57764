import Testing

@testable import Protocols

struct OwnWordsTests {
  private func read(_ text: String, _ place: OwnWords.Place, _ mailProtocol: MailProtocol) -> OwnWords.Fault? {
    switch OwnWords.read(text, place, mailProtocol) {
    case .success(let words):
      #expect(words.bytes == Array(text.utf8))
      return nil
    case .failure(let fault): return fault
    }
  }

  @Test(arguments: MailProtocol.allCases, OwnWords.Place.allCases)
  func whatNoLineCanHold(_ mailProtocol: MailProtocol, _ place: OwnWords.Place) {
    #expect(read("You are so in", place, mailProtocol) == nil)
    #expect(read(#"quotes " and \ and ] and %s"#, place, mailProtocol) == nil)
    #expect(read(String(repeating: "x", count: 400), place, mailProtocol) == nil)
    #expect(read(String(repeating: "x", count: 401), place, mailProtocol) == .tooLong)
    #expect(read("", place, mailProtocol) == .empty)
    for control in ["\r\n", "\n", "\r", "\0", "\t", "\u{1B}", "\u{7F}", "\u{9B}"] {
      #expect(read("a\(control)b", place, mailProtocol) == .controlCharacter)
    }
  }

  @Test func bytesCountAndNotLetters() {
    #expect(read(String(repeating: "ü", count: 200), .greeting, .manageSieve) == nil)
    #expect(read(String(repeating: "ü", count: 201), .greeting, .manageSieve) == .tooLong)
  }

  @Test func whatEachPlaceReadsAsSomethingElse() {
    let table: [(MailProtocol, OwnWords.Place, String, OwnWords.Fault?)] = [
      (.imap, .greeting, "[x] y", nil), (.imap, .loginOK, "[x] y", .responseCode),
      (.pop3, .greeting, "[x] y", .responseCode), (.pop3, .loginOK, "[x] y", .responseCode),
      (.manageSieve, .greeting, "[x] y", nil), (.manageSieve, .loginOK, "[x] y", nil),
      (.imap, .greeting, "x <1.2@y>", nil), (.pop3, .greeting, "x <1.2@y>", .timestamp),
      (.pop3, .loginOK, "x <1.2@y>", nil), (.manageSieve, .greeting, "x <1.2@y>", nil),
      (.imap, .greeting, "ü", .beyondASCII), (.imap, .loginOK, "ü", .beyondASCII),
      (.pop3, .greeting, "ü", .beyondASCII),
      (.pop3, .loginOK, "ü", .beyondASCII), (.manageSieve, .greeting, "ü", nil), (.manageSieve, .loginOK, "ü", nil),
    ]
    for (mailProtocol, place, text, fault) in table {
      #expect(read(text, place, mailProtocol) == fault, "\(mailProtocol) \(place) \(text)")
    }
  }
}

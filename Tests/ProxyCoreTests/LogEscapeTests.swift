import Foundation
import Testing

@testable import ProxyCore

struct LogEscapeTests {
  /// A client's name moves no cursor of whoever looks at the log, by a control character beyond ASCII either.
  @Test(arguments: ["\u{9B}2J", "a\u{85}b", "\u{80}", "\u{9F}"])
  func controlCharactersBeyondASCII(_ name: String) throws {
    for style in [LogLine.Style.text, .json] {
      var line = LogLine(style, level: .info, event: "session", time: nil)
      line.add("login", name)
      let text = String(decoding: line.finish(), as: UTF8.self)
      #expect(text.unicodeScalars.allSatisfy { $0.properties.generalCategory != .control || $0 == "\n" }, "\(text)")
      #expect(text.contains("\\u00"))
      guard style == .json else { continue }
      let read = try #require(try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: String])
      #expect(read["login"] == name)
    }
  }

  @Test func lettersStayAsTheyAre() {
    var line = LogLine(.text, level: .info, event: "session", time: nil)
    line.add("login", "gr\u{FC}n\u{E9}\u{A0}\u{65E5}")
    #expect(
      String(decoding: line.finish(), as: UTF8.self) == "level=info event=session login=gr\u{FC}n\u{E9}\u{A0}\u{65E5}\n"
    )
  }
}

import Foundation
import Testing

@testable import proxyd

struct ShownJSONTests {
  /// A name of a client's that has not even logged in reaches no terminal as a command, and is the same to whoever reads
  /// JSON.
  @Test(arguments: [
    "plain", "grün 日本語", "\u{9B}2J", "a\u{202E}b", "\u{85}", "\u{7F}", "\u{1B}[2J", "\u{200B}", "\u{E000}", "\u{E0001}",
  ])
  func nothingMovesTheCursor(_ name: String) throws {
    let line = AnswerWriter().row(ToldCounted(name: name))
    let shown = ShownText.json(Array(line.dropLast()))
    let text = String(decoding: shown, as: UTF8.self)
    #expect(ShownText(text).text == text)
    let row = try #require(AnswerReader().value(shown, ToldCounted.self))
    #expect(row.name.unicodeScalars.elementsEqual(name.unicodeScalars))
  }

  private struct ToldCounted: Codable {
    let name: String
  }
}

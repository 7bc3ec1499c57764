/// Reads a text with places for values: a mark and a letter name one.

/// A piece of such a text; `Part` is what may be put in, by its letter.
enum TemplatePiece<Part: RawRepresentable & Equatable & Sendable>: Equatable, Sendable where Part.RawValue == String {
  case text([UInt8])
  case part(Part)

  /// The pieces of a text, of which the mark itself is written twice. Nil if a mark stands before anything else, or the
  /// text is empty.
  static func pieces(of text: String, mark: Unicode.Scalar) -> [TemplatePiece]? {
    var pieces: [TemplatePiece] = []
    var plain: [UInt8] = []
    var isMarked = false
    for character in text.unicodeScalars {
      switch (isMarked, character == mark) {
      case (false, false), (true, true):
        plain += Array(String(character).utf8)
        isMarked = false
      case (false, true): isMarked = true
      case (true, false):
        guard let part = Part(rawValue: String(character)) else { return nil }
        if !plain.isEmpty { pieces.append(.text(plain)) }
        plain = []
        pieces.append(.part(part))
        isMarked = false
      }
    }
    if !plain.isEmpty { pieces.append(.text(plain)) }
    return isMarked || pieces.isEmpty ? nil : pieces
  }
}

/// Makes the key a source is asked for out of a name and a connection: Perdition's `query_key`.

/// What keys can be made of besides the name.
package struct KeyFacts: Equatable, Sendable {
  /// The client's address, as text.
  package var clientAddress = ""
  /// The client's port, as text.
  package var clientPort = ""
  /// The address it connected to, as text.
  package var localAddress = ""
  /// The port it connected to, as text.
  package var localPort = ""

  /// Facts of nobody.
  package init() {}
}

/// Text with places for parts of a name: `\U` the whole name, `\u` what is before the last delimiter (all of a name
/// without one), `\D` the delimiter, `\d` what is behind it (nothing if there is none), `\i` and `\p` the client's address
/// and port, `\I` and `\P` those it connected to, `\\` a backslash.
package struct KeyTemplate: Equatable, Sendable {
  /// As the operator wrote it.
  package let text: String
  private let pieces: [TemplatePiece<Part>]

  private enum Part: String, Equatable, Sendable {
    case name = "U"
    case user = "u"
    case delimiter = "D"
    case domain = "d"
    case clientAddress = "i"
    case clientPort = "p"
    case localAddress = "I"
    case localPort = "P"
  }

  /// Whether it has parts of the connection.
  package var needsFacts: Bool {
    pieces.contains { piece in
      switch piece {
      case .part(.clientAddress), .part(.clientPort), .part(.localAddress), .part(.localPort): true
      case .text, .part(.name), .part(.user), .part(.delimiter), .part(.domain): false
      }
    }
  }

  /// The whole name.
  package static let whole = KeyTemplate(text: "\\U", pieces: [.part(.name)])

  private init(text: String, pieces: [TemplatePiece<Part>]) {
    self.text = text
    self.pieces = pieces
  }

  /// Nil if a backslash stands before anything else, or the text is empty.
  package init?(_ text: String) {
    guard let pieces = TemplatePiece<Part>.pieces(of: text, mark: "\\") else { return nil }
    self.text = text
    self.pieces = pieces
  }

  /// The key for a name. With several bytes of delimiter, `\d` begins behind all of them.
  package func key(_ name: [UInt8], _ rules: NameRules, _ facts: KeyFacts) -> [UInt8] {
    // The usual one needs no work.
    if pieces.count == 1, case .part(.name) = pieces[0] { return name }
    let parts = rules.split(name)
    var key: [UInt8] = []
    for piece in pieces {
      switch piece {
      case .text(let bytes): key += bytes
      case .part(.name): key += name
      case .part(.user): key += parts.map { Array($0.user) } ?? name
      case .part(.delimiter): key += rules.delimiter
      case .part(.domain): key += parts.map { Array($0.domain) } ?? []
      case .part(.clientAddress): key += Array(facts.clientAddress.utf8)
      case .part(.clientPort): key += Array(facts.clientPort.utf8)
      case .part(.localAddress): key += Array(facts.localAddress.utf8)
      case .part(.localPort): key += Array(facts.localPort.utf8)
      }
    }
    return key
  }
}

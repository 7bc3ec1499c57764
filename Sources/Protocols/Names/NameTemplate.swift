/// Makes an LDAP filter, a distinguished name or a key of Redis out of a name: text with places for its parts.

/// Text with `%u` for the whole name, `%n` for what is before its last delimiter (all of a name without one), `%d` for
/// what is behind it (nothing if there is none), `%s` for the protocol, `%%` for a percent sign.
package struct NameTemplate: Equatable, Sendable {
  /// As the operator wrote it.
  package let text: String
  private let pieces: [TemplatePiece<Part>]

  private enum Part: String, Equatable, Sendable {
    case name = "u"
    case user = "n"
    case domain = "d"
    case mailProtocol = "s"
  }

  /// The parts of a name that is asked for.
  package struct Values: Equatable, Sendable {
    /// All of it.
    package let name: [UInt8]
    /// What is before its last delimiter.
    package let user: [UInt8]
    /// What is behind it; empty if there is none.
    package let domain: [UInt8]
    /// As `imap`.
    package let mailProtocol: MailProtocol

    /// A name's parts.
    package init(name: [UInt8], user: [UInt8], domain: [UInt8], mailProtocol: MailProtocol) {
      self.name = name
      self.user = user
      self.domain = domain
      self.mailProtocol = mailProtocol
    }
  }

  /// How parts are written so that they stay what they are: a name chooses neither an attribute nor another name.
  package enum Escaping: Equatable, Sendable, CaseIterable {
    /// As they are, for what is sent with its length.
    case none
    /// RFC 4515 §3: in a filter, `*`, `(`, `)`, `\` and NUL are a backslash and two hexadecimal digits; any other byte may be,
    /// and all that are not printable ASCII are.
    case filter
    /// RFC 4514 §2.4: in a distinguished name any byte may be a backslash and two hexadecimal digits; all are but
    /// letters, digits and a few that mean nothing anywhere.
    case distinguishedName
  }

  /// Whether it has parts of a name.
  package var hasParts: Bool {
    pieces.contains { piece in
      switch piece {
      case .part: true
      case .text: false
      }
    }
  }

  /// Nil if a percent sign stands before anything else, or the text is empty.
  package init?(_ text: String) {
    guard let pieces = TemplatePiece<Part>.pieces(of: text, mark: "%") else { return nil }
    self.text = text
    self.pieces = pieces
  }

  /// The text for a name.
  package func expand(_ values: Values, _ escaping: Escaping) -> [UInt8] {
    var out: [UInt8] = []
    for piece in pieces {
      switch piece {
      case .text(let bytes): out += bytes
      case .part(.name): escaping.append(values.name, &out)
      case .part(.user): escaping.append(values.user, &out)
      case .part(.domain): escaping.append(values.domain, &out)
      case .part(.mailProtocol): out += Array(values.mailProtocol.rawValue.utf8)
      }
    }
    return out
  }
}

extension NameTemplate.Escaping {
  private static let digits = Array("0123456789abcdef".utf8)

  fileprivate func append(_ bytes: [UInt8], _ out: inout [UInt8]) {
    for byte in bytes {
      if isPlain(byte) {
        out.append(byte)
      } else {
        out.append(.ascii("\\"))
        out.append(NameTemplate.Escaping.digits[Int(byte >> 4)])
        out.append(NameTemplate.Escaping.digits[Int(byte & 0xF)])
      }
    }
  }

  /// Whether a byte stands for itself.
  private func isPlain(_ byte: UInt8) -> Bool {
    switch self {
    case .none: true
    case .filter: byte > 0x20 && byte < 0x7F && !"*()\\".utf8.contains(byte)
    case .distinguishedName:
      byte.isDigit || (byte.lowercased >= .ascii("a") && byte.lowercased <= .ascii("z")) || "-_.@".utf8.contains(byte)
    }
  }
}

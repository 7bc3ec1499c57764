internal import Protocols

/// A server's host: a literal address, or a name to be resolved.
package enum Host: Hashable, Sendable {
  /// The port is not used.
  case address(SocketAddress)
  case name(String)

  /// From `192.0.2.1`, `2001:db8::1` or `mail.example.net`; nil if it is neither an address nor a host name.
  package init?(_ text: String) {
    if let address = SocketAddress(literal: text, port: 0) {
      self = .address(address)
    } else if Host.isName(text) {
      self = .name(text.hasSuffix(".") ? String(text.dropLast()) : text)
    } else {
      return nil
    }
  }

  /// RFC 1123 §2.1, with the underscore that real zones have. A name of digits and dots only is a mistyped address.
  private static func isName(_ text: String) -> Bool {
    let labels = (text.hasSuffix(".") ? text.dropLast() : text[...]).utf8.split(
      separator: .ascii("."), omittingEmptySubsequences: false)
    guard text.utf8.count <= 253, let last = labels.last, !last.allSatisfy(\.isDigit) else { return false }
    return labels.allSatisfy { label in
      (1...63).contains(label.count) && label.first != .ascii("-") && label.last != .ascii("-")
        && label.allSatisfy { byte in
          byte.isDigit || (byte.lowercased >= .ascii("a") && byte.lowercased <= .ascii("z")) || byte == .ascii("-")
            || byte == .ascii("_")
        }
    }
  }
}

extension Host: CustomStringConvertible {
  /// The host as it stands before a port: v6 in brackets.
  package var description: String {
    switch self {
    case .address(let address): address.family == .v6 ? "[\(address.host)]" : address.host
    case .name(let name): name
    }
  }
}

/// A host with or without a port: `host`, `host:143`, `192.0.2.1:143`, `[2001:db8::1]:143`, `2001:db8::1`.
package struct HostPort: Hashable, Sendable {
  /// The host.
  package let host: Host
  /// The port; nil if none is given.
  package let port: UInt16?

  /// Nil if the text is none of these.
  package init?(_ text: String) {
    if text.hasPrefix("[") {
      guard let close = text.firstIndex(of: "]"),
        case .address(let address)? = Host(String(text.dropFirst().prefix(upTo: close))),
        address.family == .v6
      else { return nil }
      let rest = text[text.index(after: close)...]
      host = .address(address)
      if rest.isEmpty {
        port = nil
      } else {
        guard rest.hasPrefix(":"), let number = HostPort.port(rest.dropFirst()) else { return nil }
        port = number
      }
      return
    }
    if let whole = Host(text) {
      host = whole
      port = nil
      return
    }
    guard let colon = text.lastIndex(of: ":"), let number = HostPort.port(text[text.index(after: colon)...]),
      let host = Host(String(text[..<colon])), !text[..<colon].contains(":")
    else { return nil }
    self.host = host
    port = number
  }

  /// A port's number, 1 to 65535, in digits and nothing else.
  package static func port(_ text: Substring) -> UInt16? {
    guard !text.isEmpty, text.utf8.allSatisfy(\.isDigit), let number = UInt16(text), number > 0 else { return nil }
    return number
  }
}

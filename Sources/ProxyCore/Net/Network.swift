/// A network of IP addresses, as `192.0.2.0/24` or `2001:db8::/32`; an address alone is a network of one.
package struct Network: Hashable, Sendable {
  private let address: SocketAddress
  private let bits: Int

  /// Nil if the text is none, or has bits set behind its prefix: then one of the two is a mistake.
  package init?(_ text: String) {
    let parts = text.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
    guard let first = parts.first, let address = SocketAddress(literal: String(first), port: 0) else { return nil }
    let most = address.family == .v4 ? 32 : 128
    var bits = most
    if parts.count == 2 {
      guard parts[1].utf8.allSatisfy({ $0 >= 0x30 && $0 <= 0x39 }), let number = Int(parts[1]), number <= most else {
        return nil
      }
      bits = number
    }
    guard address.masked(bits) == address else { return nil }
    self.address = address
    self.bits = bits
  }

  /// Whether the address, whatever its port, is one of the network's.
  package func contains(_ other: SocketAddress) -> Bool {
    other.family == address.family && other.with(port: 0).masked(bits) == address
  }
}

extension [Network] {
  /// Whether one of them has the address.
  func contain(_ address: SocketAddress) -> Bool { contains { $0.contains(address) } }
}

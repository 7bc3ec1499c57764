/// What session tickets are sealed with. All contexts of a process share it, those of a reload too, so that clients come
/// back with a ticket from any of them.

package struct TLSTicketKeys: Sendable {
  /// OpenSSL's layout: 16 bytes of a name, 32 for HMAC, 32 for AES.
  let bytes: [UInt8]

  /// New keys, of the system's randomness.
  package init() {
    var random = SystemRandomNumberGenerator()
    bytes = (0..<80).map { _ in .random(in: .min ... .max, using: &random) }
  }
}

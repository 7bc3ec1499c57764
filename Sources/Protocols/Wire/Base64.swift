/// Reads and writes base64 (RFC 4648 §4) as SASL uses it: no line breaks, padding required.
package enum Base64 {
  /// Decodes all of `text` behind what `secret` holds. False if it is not canonical base64; then `secret` holds
  /// whatever came before the fault.
  package static func decode(_ text: Span<UInt8>, into secret: inout Secret) -> Bool {
    guard text.count.isMultiple(of: 4) else { return false }
    var index = 0
    while index < text.count {
      let last = index + 4 == text.count
      guard let a = value(text[index]), let b = value(text[index + 1]) else { return false }
      secret.append(a << 2 | b >> 4)
      if last, text[index + 3] == .ascii("=") {
        if text[index + 2] == .ascii("=") {
          // RFC 4648 §3.5: the unused bits are zero; anything else is not what an encoder writes.
          return b & 0x0F == 0
        }
        guard let c = value(text[index + 2]), c & 0x03 == 0 else { return false }
        secret.append(b << 4 | c >> 2)
        return true
      }
      guard let c = value(text[index + 2]), let d = value(text[index + 3]) else { return false }
      secret.append(b << 4 | c >> 2)
      secret.append(c << 6 | d)
      index += 4
    }
    return true
  }

  /// Appends `bytes` in base64 to `out`.
  package static func encode(_ bytes: Span<UInt8>, into out: inout [UInt8]) {
    // With room for what is said around it: a secret that moves leaves a copy behind.
    out.reserveCapacity(out.count + (bytes.count + 2) / 3 * 4 + 16)
    var index = 0
    while index < bytes.count {
      let left = bytes.count - index
      let a = bytes[index]
      let b = left > 1 ? bytes[index + 1] : 0
      let c = left > 2 ? bytes[index + 2] : 0
      out.append(digit(a >> 2))
      out.append(digit((a & 0x03) << 4 | b >> 4))
      out.append(left > 1 ? digit((b & 0x0F) << 2 | c >> 6) : .ascii("="))
      out.append(left > 2 ? digit(c & 0x3F) : .ascii("="))
      index += 3
    }
  }

  private static func value(_ byte: UInt8) -> UInt8? {
    switch byte {
    case .ascii("A") ... .ascii("Z"): byte - .ascii("A")
    case .ascii("a") ... .ascii("z"): byte - .ascii("a") + 26
    case .ascii("0") ... .ascii("9"): byte - .ascii("0") + 52
    case .ascii("+"): 62
    case .ascii("/"): 63
    default: nil
    }
  }

  private static func digit(_ value: UInt8) -> UInt8 {
    switch value {
    case 0..<26: .ascii("A") + value
    case 26..<52: .ascii("a") + value - 26
    case 52..<62: .ascii("0") + value - 52
    case 62: .ascii("+")
    default: .ascii("/")
    }
  }
}

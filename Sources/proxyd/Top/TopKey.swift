/// Reads the keys that are pressed at a terminal.

/// A key, or what it stands for.
enum TopKey: Equatable, Sendable {
  case letter(Character)
  case up, down, pageUp, pageDown, home, end, enter, tab, escape

  /// The keys in bytes from a terminal (ECMA-48's sequences as xterm and the Linux console send them). What is not known is
  /// passed over.
  static func read(_ bytes: [UInt8]) -> [TopKey] {
    var keys: [TopKey] = []
    var rest = bytes[...]
    while let byte = rest.popFirst() {
      switch byte {
      case 0x1B: if let key = sequence(&rest) { keys.append(key) }
      case 0x0D, 0x0A: keys.append(.enter)
      case 0x09: keys.append(.tab)
      case 0x00..<0x80: keys.append(.letter(Character(Unicode.Scalar(byte))))
      default: break
      }
    }
    return keys
  }

  private static func sequence(_ rest: inout ArraySlice<UInt8>) -> TopKey? {
    guard let next = rest.first, next == 0x5B || next == 0x4F else { return .escape }
    rest.removeFirst()
    let parameters = rest.prefix { $0 >= 0x30 && $0 < 0x40 }
    rest.removeFirst(parameters.count)
    switch rest.popFirst() {
    case UInt8(ascii: "A")?: return .up
    case UInt8(ascii: "B")?: return .down
    case UInt8(ascii: "H")?: return .home
    case UInt8(ascii: "F")?: return .end
    case UInt8(ascii: "~")?:
      switch String(decoding: parameters, as: UTF8.self) {
      case "1", "7": return .home
      case "4", "8": return .end
      case "5": return .pageUp
      case "6": return .pageDown
      default: return nil
      }
    default: return nil
    }
  }
}

/// The text of `affinity dump`, which `affinity load` reads: a user in each line, `user<TAB>member[<TAB>expires]`.
///
/// `expires` is in seconds since 1970; there is none with sessions. In names a backslash is written as `\\`, and a control
/// character of ASCII, which would end a field or a line, as `\x` with two digits. Nothing else is read: Director's
/// tables (`doveadm director map`) have hashes where the names would have to be.

internal import Protocols

package enum DirectoryText {
  /// Why a line can't be read.
  package enum Problem: Error, Equatable, Sendable, CustomStringConvertible {
    /// It has not two or three fields.
    case fields(Int)
    /// A member has a name.
    case noMember
    /// The time is none.
    case time(String)
    /// A backslash is followed by something else than `\` or `x` and two digits.
    case escape
    /// What was escaped is no UTF-8.
    case encoding

    /// In words.
    package var description: String {
      switch self {
      case .fields(let count): "expected user, member and maybe a time, parted by tabs; there are \(count) fields"
      case .noMember: "expected a member's name in the second field"
      case .time(let text): "\"\(text)\" is no time in seconds since 1970"
      case .escape: "a backslash is followed by another one, or by x and two hexadecimal digits"
      case .encoding: "the name is not UTF-8"
      }
    }
  }

  /// A user's line, without its end.
  package static func line(_ entry: DirectoryEntry) -> String {
    let line = escaped(entry.user) + "\t" + escaped(entry.member)
    return entry.expires.map { line + "\t\($0)" } ?? line
  }

  /// What a line says; nil for an empty one.
  package static func entry(_ line: Substring) throws(Problem) -> DirectoryEntry? {
    guard !line.isEmpty else { return nil }
    let fields = line.utf8.split(separator: .ascii("\t"), omittingEmptySubsequences: false)
    guard (2...3).contains(fields.count) else { throw .fields(fields.count) }
    let user = try unescaped(fields[0])
    let member = try unescaped(fields[1])
    guard !member.isEmpty else { throw .noMember }
    var expires: Int?
    if fields.count == 3 {
      let text = String(Substring(fields[2]))
      guard fields[2].allSatisfy(\.isDigit), let time = Int(text) else { throw .time(text) }
      expires = time
    }
    return DirectoryEntry(user: user, member: member, expires: expires)
  }

  private static func escaped(_ text: String) -> String {
    guard text.utf8.contains(where: { $0 == .ascii("\\") || $0.isControl }) else { return text }
    var bytes: [UInt8] = []
    for byte in text.utf8 {
      if byte == .ascii("\\") {
        bytes += [byte, byte]
      } else if byte.isControl {
        bytes += "\\x".utf8
        bytes += [digit(byte >> 4), digit(byte & 0xF)]
      } else {
        bytes.append(byte)
      }
    }
    return String(decoding: bytes, as: UTF8.self)
  }

  private static func digit(_ value: UInt8) -> UInt8 { value < 10 ? .ascii("0") + value : .ascii("a") + value - 10 }

  private static func unescaped(_ field: Substring.UTF8View.SubSequence) throws(Problem) -> String {
    var bytes: [UInt8] = []
    var rest = field
    while let byte = rest.popFirst() {
      guard byte == .ascii("\\") else {
        bytes.append(byte)
        continue
      }
      switch rest.popFirst() {
      case .ascii("\\"): bytes.append(byte)
      case .ascii("x"):
        let digits = rest.prefix(2)
        guard digits.count == 2, digits.first != .ascii("+"), let value = UInt8(String(Substring(digits)), radix: 16)
        else { throw .escape }
        bytes.append(value)
        rest = rest.dropFirst(2)
      default: throw .escape
      }
    }
    guard let text = String(validating: bytes, as: UTF8.self) else { throw .encoding }
    return text
  }
}

/// Reads a hash of a password as directories and databases have it: crypt(3)'s, with or without Dovecot's word in front.

internal import Protocols

enum CryptHash: Equatable {
  /// What crypt(3) takes, in the whole of the text behind so many bytes.
  case from(Int)
  /// The account is locked: nobody has this password.
  case locked
  /// It is none; why, without any of it.
  case unusable(String)

  /// Dovecot's names of what crypt(3) makes.
  private static let schemes = [
    "CRYPT", "SHA512-CRYPT", "SHA256-CRYPT", "MD5-CRYPT", "BLF-CRYPT", "DES-CRYPT",
  ]
  /// A scheme's name is no longer; what is longer is not one, and stays out of the log.
  private static let longestScheme = 24

  init(_ hash: Span<UInt8>) {
    var start = 0
    if hash.count > 0, hash[0] == .ascii("{") {
      guard let end = hash.firstIndex(of: .ascii("}")), end <= CryptHash.longestScheme else {
        self = .unusable("it is no hash of a known scheme")
        return
      }
      let scheme = String(decoding: hash.extracting(1..<end).array.map(\.uppercased), as: UTF8.self)
      guard scheme.utf8.allSatisfy({ $0 == .ascii("-") || $0 == .ascii(".") || $0.isDigit || $0.isLetter }) else {
        self = .unusable("it is no hash of a known scheme")
        return
      }
      guard CryptHash.schemes.contains(scheme) else {
        self = .unusable("the scheme {\(scheme)} is not one of crypt(3)'s")
        return
      }
      start = end + 1
    }
    guard start < hash.count else {
      self = .unusable("it is empty")
      return
    }
    switch hash[start] {
    // shadow(5): neither is the beginning of a hash; "!" is what usermod --lock puts before one.
    case .ascii("!"), .ascii("*"): self = .locked
    default:
      let isHash = hash.firstIndex(of: .nul) == nil && CryptHash.hasForm(hash.extracting(start...))
      self = isHash ? .from(start) : .unusable("it has not the form of a hash")
    }
  }

  /// crypt(5): methods begin with "$" or "_", but for the oldest, whose hashes have 13 characters or are chains of them.
  /// That a password stands in the place of its hash shows here.
  private static func hasForm(_ hash: Span<UInt8>) -> Bool {
    if hash[0] == .ascii("$") || hash[0] == .ascii("_") { return true }
    guard hash.count >= 13, (hash.count - 2) % 11 == 0 else { return false }
    for index in hash.indices where !(hash[index].isDigit || hash[index].isLetter || "./".utf8.contains(hash[index])) {
      return false
    }
    return true
  }
}

extension UInt8 {
  fileprivate var isLetter: Bool { lowercased >= .ascii("a") && lowercased <= .ascii("z") }
}

/// A user's name with its hash, computed once for a login; a directory, which is given names, computes its own. Users are
/// told apart by their bytes: to Swift two texts may be equal whose bytes are not, as an accented letter and a letter with
/// its accent behind it.

struct UserKey: Hashable, Sendable {
  let name: String
  private let whole: UInt64

  /// Hashed with a seed of this process: nobody outside can choose names that collide.
  init(_ name: String) {
    self.name = name
    whole = UserKey.hash(name.utf8.span)
  }

  private static func hash(_ bytes: Span<UInt8>) -> UInt64 {
    var hasher = Hasher()
    // SAFETY: the bytes are lent for the call.
    unsafe bytes.withUnsafeBytes { unsafe hasher.combine(bytes: $0) }
    return UInt64(truncatingIfNeeded: hasher.finalize())
  }

  static func == (one: UserKey, other: UserKey) -> Bool {
    guard one.whole == other.whole else { return false }
    let (name, others) = (one.name.utf8.span, other.name.utf8.span)
    guard name.count == others.count else { return false }
    for index in name.indices where name[index] != others[index] { return false }
    return true
  }

  func hash(into hasher: inout Hasher) { hasher.combine(whole) }

  /// What a table tells users apart by.
  var hash: UInt32 { UInt32(truncatingIfNeeded: whole) }
  /// Whose part of a room with 64 the user is in.
  var shard: Int { Int(whole >> 58) }
  var bytes: [UInt8] { Array(name.utf8) }
}

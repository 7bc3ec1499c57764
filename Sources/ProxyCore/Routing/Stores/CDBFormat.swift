/// Finds a key in a file of Bernstein's constant database.
///
/// The format, from cr.yp.to/cdb/cdb.txt: 256 pairs of a table's place and its slots; records of two lengths, key and data;
/// the tables, of pairs of a hash and a record's place. All numbers have four bytes, the least first. A key's hash begins
/// with 5381 and becomes 33 times itself, exclusive-or the next byte; its low byte is the table, the rest of it, modulo the
/// slots, the first slot that is looked at.

internal import Protocols

enum CDBFormat {
  /// The pairs of the file's front, before the first record.
  private static let front: UInt32 = 2_048

  /// The value of a key, the first if there are several; nil if there is none.
  static func value(of key: [UInt8], in file: FileBytes, _ patience: Patience) throws(MapFileError) -> [UInt8]? {
    let hash = key.reduce(UInt32(5_381)) { ($0 << 5 &+ $0) ^ UInt32($1) }
    let table = try pair(file, at: UInt64(hash & 0xFF) * 8)
    // Even a table without slots has a place. A file that is still being written has none yet.
    guard table.0 >= front else { throw MapFileError("it is no cdb file, or not a whole one") }
    guard table.1 > 0 else { return nil }
    let first = (hash >> 8) % table.1
    for step in 0..<table.1 {
      // A table is half empty at least, if it is one.
      if step & 0xFF == 0xFF, patience.isOver { throw .late }
      let slot = (UInt64(first) + UInt64(step)) % UInt64(table.1)
      let entry = try pair(file, at: UInt64(table.0) + slot * 8)
      // No record is at the file's front.
      guard entry.1 != 0 else { return nil }
      guard entry.0 == hash else { continue }
      let (keyLength, valueLength) = try pair(file, at: UInt64(entry.1))
      let place = UInt64(entry.1) + 8
      guard keyLength == key.count, try file.read(key.count, at: place) == key else { continue }
      guard valueLength <= MapFileError.longestValue else { throw .longValue }
      return try file.read(Int(valueLength), at: place + UInt64(keyLength))
    }
    return nil
  }

  private static func pair(_ file: FileBytes, at offset: UInt64) throws(MapFileError) -> (UInt32, UInt32) {
    let bytes = try file.read(8, at: offset)
    return (UInt32(bytes.number(4, at: 0)), UInt32(bytes.number(4, at: 4)))
  }
}

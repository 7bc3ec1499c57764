/// Finds a key in the main database of an LMDB file while others write to it.
///
/// The format is that of LMDB 0.9 on 64-bit little-endian machines (data version 1): pages, of which the first two say by
/// turns where the newest tree has its root; branches and leaves with a table of nodes sorted by their keys; values that do
/// not fit in runs of pages. A change writes new pages, then the older of the two first ones. The pages that transaction T's
/// tree has are freed by T+1 at the earliest and written to again by T+3: so what was read is whole if T+1 is the newest
/// there is when it was read, and is read again if not. No lock is taken, so a reader can't stop a writer from reusing
/// pages, and needs no right to write.

internal import Protocols

enum LMDBFormat {
  /// The value of a key; nil if there is none.
  static func value(of key: [UInt8], in file: FileBytes, _ patience: Patience) throws(MapFileError) -> [UInt8]? {
    while true {
      let before = try metas(file)
      let meta = try newest(before)
      let result: Result<[UInt8]?, MapFileError>
      do throws(MapFileError) { result = .success(try find(key, in: file, meta, patience)) } catch {
        result = .failure(error)
      }
      let after = try metas(file)
      if after[meta.slot] == before[meta.slot], try newest(after).transaction <= meta.transaction &+ 1 {
        return try result.get()
      }
      if patience.isOver { throw .late }
    }
  }

  // MARK: The first two pages

  /// What one of the first two pages says.
  private struct Meta {
    let slot: Int
    let pageSize: UInt64
    let flags: UInt64
    let root: UInt64
    let transaction: UInt64
  }

  private static let pageHeader = 16
  /// Up to the number of the transaction, which is the last.
  private static let metaSize = pageHeader + 136
  private static let magic: UInt64 = 0xBEEF_C0DE
  private static let version: UInt64 = 1
  /// A tree without a page.
  private static let noRoot = UInt64.max
  /// Keys that are compared in another way, or have several values.
  private static let otherOrders: UInt64 = 0x7E

  private static func metas(_ file: FileBytes) throws(MapFileError) -> [[UInt8]] {
    let first = try file.read(metaSize, at: 0)
    let pageSize = first.number(4, at: 40)
    guard first.number(4, at: 16) == magic, (256...65_536).contains(pageSize), pageSize & (pageSize - 1) == 0 else {
      throw MapFileError("it is no LMDB file of a 64-bit machine")
    }
    guard first.number(4, at: 20) == version else {
      throw MapFileError("it is of version \(first.number(4, at: 20)) of LMDB's format, expected 1")
    }
    return [first, try file.read(metaSize, at: pageSize)]
  }

  private static func newest(_ metas: [[UInt8]]) throws(MapFileError) -> Meta {
    let pageSize = metas[0].number(4, at: 40)
    let slot = metas[1].number(4, at: 16) == magic && metas[1].number(8, at: 144) > metas[0].number(8, at: 144) ? 1 : 0
    let bytes = metas[slot]
    let meta = Meta(
      slot: slot, pageSize: pageSize, flags: bytes.number(2, at: 92), root: bytes.number(8, at: 128),
      transaction: bytes.number(8, at: 144))
    guard meta.flags & otherOrders == 0 else {
      throw MapFileError("its keys are not sorted as bytes, or have several values")
    }
    return meta
  }

  // MARK: The tree

  private static let isBranch: UInt64 = 0x01
  private static let isLeaf: UInt64 = 0x02
  private static let nodeHeader = 8
  /// A node's value is elsewhere; or a database; or a set.
  private static let bigData: UInt64 = 0x01
  private static let noText: UInt64 = 0x06
  /// Half a page's nodes at each level would be more users than there are people.
  private static let deepest = 32

  private static let broken = MapFileError("it is broken")

  private static func find(
    _ key: [UInt8], in file: FileBytes, _ meta: Meta, _ patience: Patience
  ) throws(MapFileError) -> [UInt8]? {
    guard meta.root != noRoot else { return nil }
    var number = meta.root
    for _ in 0..<deepest {
      if patience.isOver { throw .late }
      let page = try file.read(Int(meta.pageSize), at: try offset(of: number, meta))
      guard page.number(8, at: 0) == number else { throw broken }
      let flags = page.number(2, at: 10)
      let lower = Int(page.number(2, at: 12))
      guard lower >= pageHeader, lower <= page.count else { throw broken }
      let count = (lower - pageHeader) / 2
      if flags & isBranch != 0 {
        guard count > 0 else { throw broken }
        // The first node stands for all that is before the second's key.
        let child = try node(try place(of: key, in: page, from: 1, to: count, isAfter: true) - 1, page)
        number = page.number(2, at: child) | page.number(2, at: child + 2) << 16 | page.number(2, at: child + 4) << 32
      } else if flags & isLeaf != 0 {
        let index = try place(of: key, in: page, from: 0, to: count, isAfter: false)
        guard index < count else { return nil }
        let leaf = try node(index, page)
        guard page[try self.key(of: leaf, page)].elementsEqual(key) else { return nil }
        return try value(leaf, page, file, meta)
      } else {
        throw broken
      }
    }
    throw broken
  }

  /// The first of a page's nodes, which are sorted, whose key is not before ours; or, if `isAfter`, is after it.
  private static func place(
    of key: [UInt8], in page: [UInt8], from start: Int, to end: Int, isAfter: Bool
  ) throws(MapFileError) -> Int {
    var low = start
    var high = max(start, end)
    while low < high {
      let middle = (low + high) / 2
      let other = page[try self.key(of: try node(middle, page), page)]
      let isBefore = isAfter ? !key.lexicographicallyPrecedes(other) : other.lexicographicallyPrecedes(key)
      if isBefore { low = middle + 1 } else { high = middle }
    }
    return low
  }

  /// Where a node begins.
  private static func node(_ index: Int, _ page: [UInt8]) throws(MapFileError) -> Int {
    let entry = pageHeader + 2 * index
    guard index >= 0, entry + 2 <= page.count else { throw broken }
    let node = Int(page.number(2, at: entry))
    guard node >= pageHeader, node + nodeHeader <= page.count else { throw broken }
    return node
  }

  /// Where a node's key stands.
  private static func key(of node: Int, _ page: [UInt8]) throws(MapFileError) -> Range<Int> {
    let start = node + nodeHeader
    let end = start + Int(page.number(2, at: node + 6))
    guard end <= page.count else { throw broken }
    return start..<end
  }

  /// Where a page begins.
  private static func offset(of number: UInt64, _ meta: Meta) throws(MapFileError) -> UInt64 {
    let (place, isTooFar) = number.multipliedReportingOverflow(by: meta.pageSize)
    guard !isTooFar, place <= UInt64(Int64.max) else { throw broken }
    return place
  }

  private static func value(
    _ node: Int, _ page: [UInt8], _ file: FileBytes, _ meta: Meta
  ) throws(MapFileError) -> [UInt8] {
    let flags = page.number(2, at: node + 4)
    guard flags & noText == 0 else { throw MapFileError("the user's value is a database") }
    let length = Int(page.number(2, at: node) | page.number(2, at: node + 2) << 16)
    guard length <= MapFileError.longestValue else { throw .longValue }
    let start = try key(of: node, page).upperBound
    if flags & bigData != 0 {
      guard start + 8 <= page.count else { throw broken }
      return try file.read(length, at: try offset(of: page.number(8, at: start), meta) + UInt64(pageHeader))
    }
    guard start + length <= page.count else { throw broken }
    return Array(page[start..<start + length])
  }
}

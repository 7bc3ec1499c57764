/// Holds what is remembered of users in little memory: no object and no pointer for a user, 28 bytes and the name.
///
/// Slots found by the name's hash (open addressing, linear probing) hold positions in an array of records; the names lie
/// in one array of bytes. A user who is removed leaves no hole: the last record takes the place, the slots behind close up,
/// and the names are moved together when a quarter of their bytes is nobody's. Arrays grow by an eighth, so what a table
/// holds is copied in one go now and then: with 16,000 users (a million in 64 tables) that takes 0.6 ms at most.

struct UserTable {
  private var slots: [UInt32] = []
  private var entries: [Entry] = []
  private var names: [UInt8] = []
  /// Bytes of names that are nobody's any more.
  private var waste = 0

  private struct Entry {
    var record: UserRecord
    let length: UInt16
    let hash: UInt32
    var start: UInt32
  }

  /// The longest name that can be held. What a client may say is shorter by far.
  static let longestName = Int(UInt16.max)
  /// A slot has a position in 24 bits, counted from 1, and 8 bits of the hash, which spare most looks at other records.
  private static let positionMask: UInt32 = 0x00FF_FFFF
  /// Users at most, in one table.
  static let most = Int(positionMask) - 1
  /// Wasted bytes and free records that are not worth moving anything.
  private static let trifle = 4_096

  /// Users.
  var count: Int { entries.count }
  /// Bytes of memory taken.
  var memory: Int {
    slots.capacity * MemoryLayout<UInt32>.stride + entries.capacity * MemoryLayout<Entry>.stride + names.capacity
  }

  /// What is held of the user at that position; positions hold until somebody is removed.
  subscript(_ position: Int) -> UserRecord {
    get { entries[position].record }
    set { entries[position].record = newValue }
  }

  /// The name of the user at that position.
  func name(_ position: Int) -> String {
    let entry = entries[position]
    return String(decoding: names[Int(entry.start)..<Int(entry.start) + Int(entry.length)], as: UTF8.self)
  }

  // MARK: Finding

  /// Where a user is; nil for nowhere. The hash is the caller's affair, as long as it is the same for the same name.
  func find(_ name: Span<UInt8>, _ hash: UInt32) -> Int? {
    guard !slots.isEmpty else { return nil }
    var index = home(hash)
    while slots[index] != 0 {
      if (slots[index] ^ hash) & ~UserTable.positionMask == 0 {
        let position = position(slots[index])
        if entries[position].hash == hash, hasName(position, name) { return position }
      }
      index = next(index)
    }
    return nil
  }

  private func hasName(_ position: Int, _ name: Span<UInt8>) -> Bool {
    let entry = entries[position]
    guard Int(entry.length) == name.count else { return false }
    let held = names.span.extracting(Int(entry.start)..<Int(entry.start) + name.count)
    for index in held.indices where held[index] != name[index] { return false }
    return true
  }

  private func home(_ hash: UInt32) -> Int { Int(hash) & (slots.count - 1) }
  private func next(_ index: Int) -> Int { (index + 1) & (slots.count - 1) }
  private func position(_ slot: UInt32) -> Int { Int(slot & UserTable.positionMask) - 1 }
  private func slot(_ position: Int) -> UInt32 {
    (entries[position].hash & ~UserTable.positionMask) | UInt32(position + 1)
  }

  /// The slot that holds a position.
  private func index(of position: Int) -> Int {
    var index = home(entries[position].hash)
    while self.position(slots[index]) != position {
      precondition(slots[index] != 0, "a user without a slot")
      index = next(index)
    }
    return index
  }

  // MARK: Changing

  /// Takes a user who is not there yet. Returns the position.
  mutating func insert(_ name: Span<UInt8>, _ hash: UInt32, _ record: UserRecord) -> Int {
    precondition(name.count <= UserTable.longestName && count < UserTable.most, "a table is not made for that")
    precondition(names.count + name.count <= Int(UInt32.max), "names need 4 GiB")
    // Three quarters full: a name that is not there is found out with eight looks.
    if (count + 1) * 4 > slots.count * 3 { rebuild(slots: max(16, slots.count * 2)) }
    reserve()
    let room = names.count + name.count
    if names.capacity < room { names.reserveCapacity(room + room / 8) }
    entries.append(
      Entry(record: record, length: UInt16(name.count), hash: hash, start: UInt32(names.count)))
    for index in name.indices { names.append(name[index]) }
    occupy(count - 1)
    return count - 1
  }

  /// An array grows by doubling if it is left to itself.
  private mutating func reserve() {
    if entries.count == entries.capacity { entries.reserveCapacity(entries.count + entries.count / 8 + 4) }
  }

  private mutating func occupy(_ position: Int) {
    var index = home(entries[position].hash)
    while slots[index] != 0 { index = next(index) }
    slots[index] = slot(position)
  }

  private mutating func rebuild(slots count: Int) {
    slots = Array(repeating: 0, count: count)
    for position in entries.indices { occupy(position) }
  }

  /// Removes the user at that position. The last one is there from now on.
  mutating func remove(_ position: Int) {
    vacate(index(of: position))
    waste += Int(entries[position].length)
    let last = entries.count - 1
    if position != last {
      let moved = index(of: last)
      entries[position] = entries[last]
      slots[moved] = slot(position)
    }
    entries.removeLast()
    tidy()
  }

  /// Empties a slot, and moves those behind it up that were pushed away from it: no search meets a gap before its end.
  private mutating func vacate(_ index: Int) {
    var hole = index
    var probe = next(hole)
    while slots[probe] != 0 {
      let home = home(entries[position(slots[probe])].hash)
      // It may move if its home is not between the hole and itself.
      if (probe &- home) & (slots.count - 1) >= (probe &- hole) & (slots.count - 1) {
        slots[hole] = slots[probe]
        hole = probe
      }
      probe = next(probe)
    }
    slots[hole] = 0
  }

  /// Gives memory back that was needed once.
  private mutating func tidy() {
    if waste > UserTable.trifle, waste > names.count / 4 {
      var packed: [UInt8] = []
      let live = names.count - waste
      packed.reserveCapacity(live + live / 8)
      for position in entries.indices {
        let start = Int(entries[position].start)
        entries[position].start = UInt32(packed.count)
        packed += names[start..<start + Int(entries[position].length)]
      }
      names = packed
      waste = 0
    }
    if entries.capacity > UserTable.trifle / MemoryLayout<Entry>.stride, entries.count < entries.capacity / 4 {
      var fewer: [Entry] = []
      fewer.reserveCapacity(entries.count + entries.count / 8 + 4)
      fewer += entries
      entries = fewer
      var room = 16
      while (count + 1) * 4 > room * 3 { room *= 2 }
      if room < slots.count { rebuild(slots: room) }
    }
  }
}

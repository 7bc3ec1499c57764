// swift-format-ignore-file: NeverForceUnwrap
// A test that unwraps nil fails, which is what it is for.

import Testing

@testable import ProxyCore

struct UserTableTests {
  /// How well a hash tells names apart.
  enum Spread: CaseIterable {
    /// As Swift's.
    case usual
    /// Eight hashes for all names.
    case few
    /// Hashes that differ in the bits a slot holds only, so that all names have one home.
    case highBits
    /// Homes at the end of the slots, so that probing goes round.
    case atTheEnd

    func hash(_ name: [UInt8]) -> UInt32 {
      let full = UInt32(truncatingIfNeeded: name.hashValue)
      return switch self {
      case .usual: full
      case .few: full & 7
      case .highBits: full & 0xFF00_0000
      case .atTheEnd: full | 0x00FF_FFFC
      }
    }
  }

  private static func names() -> [[UInt8]] {
    var names = (0..<400).map { Array("user\($0)@example.com".utf8) }
    names += [[], [0], [0, 0], Array(repeating: 0x41, count: 512), Array(repeating: 0x41, count: 511)]
    // Equal to Swift as characters, and not to anybody else.
    names += [Array("jos\u{E9}".utf8), Array("jose\u{301}".utf8)]
    names += [Array("a\tb\nc".utf8), Array(repeating: 0x20, count: 3)]
    return names
  }

  @Test(arguments: Spread.allCases)
  func isADictionary(_ spread: Spread) {
    var random = SeededGenerator(seed: 7)
    let names = UserTableTests.names()
    var table = UserTable()
    var model: [[UInt8]: UserRecord] = [:]
    for turn in 0..<30_000 {
      let name = names.randomElement(using: &random)!
      let hash = spread.hash(name)
      let position = table.find(name.span, hash)
      #expect((position == nil) == (model[name] == nil))
      // Times of growing and of shrinking.
      let isGrowing = turn / 3_000 % 2 == 0
      switch UInt8.random(in: 0..<10, using: &random) {
      case 0..<(isGrowing ? 6 : 2):
        var record = UserRecord()
        record.member = UInt16.random(in: 0..<10, using: &random)
        record.stamp = UInt32(turn)
        if let position { table[position] = record } else { _ = table.insert(name.span, hash, record) }
        model[name] = record
      case 0..<8:
        if let position { table.remove(position) }
        model[name] = nil
      default: #expect(position.map { table[$0] } == model[name])
      }
      #expect(table.count == model.count)
      if turn % 1_000 == 0 { compare(table, model, spread) }
    }
    compare(table, model, spread)
    for name in model.keys { table.remove(table.find(name.span, spread.hash(name))!) }
    #expect(table.count == 0)
  }

  private func compare(_ table: UserTable, _ model: [[UInt8]: UserRecord], _ spread: Spread) {
    for (name, record) in model {
      let position = table.find(name.span, spread.hash(name))
      #expect(position.map { table[$0] } == record)
      #expect(position.map { Array(table.name($0).utf8) } == name)
    }
    #expect(Set((0..<table.count).map { Array(table.name($0).utf8) }) == Set(model.keys))
  }

  @Test func theLongestName() {
    var table = UserTable()
    let name = [UInt8](repeating: 0x61, count: UserTable.longestName)
    let position = table.insert(name.span, 1, UserRecord())
    let found = table.find(name.span, 1)
    #expect(found == position)
    let shorter = Array(name.dropLast())
    let other = table.find(shorter.span, 1)
    #expect(other == nil)
  }

  /// What a million users take, in 64 tables: 80 bytes each at most, whenever it is looked.
  @Test func takesLittleMemory() {
    var table = UserTable()
    let most = 16_384
    for number in 0..<most {
      let name = Array("user\(1_000_000 + number)@example".utf8)
      #expect(name.count == 19 || name.count == 20)
      _ = table.insert(name.span, UInt32(truncatingIfNeeded: name.hashValue), UserRecord())
      if number > 1_000 { #expect(table.memory <= 80 * table.count, "\(table.memory / table.count) at \(number)") }
    }
  }

  /// Users who come and go leave nothing behind: not their names, and not the room they had.
  @Test func givesMemoryBack() {
    var table = UserTable()
    for round in 0..<30 {
      for number in 0..<2_000 {
        let name = Array("round\(round)-user\(number)".utf8)
        _ = table.insert(name.span, UInt32(truncatingIfNeeded: name.hashValue), UserRecord())
        let old = Array("round\(round - 1)-user\(number)".utf8)
        if let position = table.find(old.span, UInt32(truncatingIfNeeded: old.hashValue)) { table.remove(position) }
      }
      #expect(table.count == 2_000)
      #expect(table.memory <= 100 * 2_000)
    }
    for number in 0..<1_990 {
      let name = Array("round29-user\(number)".utf8)
      table.remove(table.find(name.span, UInt32(truncatingIfNeeded: name.hashValue))!)
    }
    #expect(table.memory < 20_000)
    let left = Array("round29-user1999".utf8)
    let found = table.find(left.span, UInt32(truncatingIfNeeded: left.hashValue))
    #expect(found != nil)
  }
}

/// A loop's sessions, by number. An event names a slot and a generation, so that one for a session that is gone finds
/// nothing, whatever took its place.

/// What an event in a loop's epoll set is about.
struct Token: Hashable, Sendable {
  let raw: UInt64

  enum Role: UInt64, Sendable {
    case kick, listener, client, backend
  }

  /// 4 bits of role, 28 bits of index, 32 bits of generation.
  init(_ role: Role, index: Int, generation: UInt32) {
    raw = role.rawValue | UInt64(index) << 4 | UInt64(generation) << 32
  }

  init(raw: UInt64) { self.raw = raw }

  var role: Role {
    guard let role = Role(rawValue: raw & 0xF) else {
      preconditionFailure("an event with a token that is none of ours")
    }
    return role
  }
  var index: Int { Int(raw >> 4 & 0xFFF_FFFF) }
  var generation: UInt32 { UInt32(truncatingIfNeeded: raw >> 32) }

  /// The same slot in another role.
  func with(_ role: Role) -> Token { Token(role, index: index, generation: generation) }
}

/// A session, as other threads name it.
package struct SessionHandle: Hashable, Sendable {
  /// The number of its loop.
  let loop: Int
  /// Its slot there.
  let token: Token
}

/// The slots, and which of them are free.
struct SlotTable {
  private var slots: [Slot] = []
  private var free: [Int] = []

  private struct Slot {
    var generation: UInt32 = 0
    var session: Session?
  }

  var count: Int { slots.count - free.count }

  /// Takes a free slot, to be filled at once.
  mutating func reserve() -> Token {
    let index: Int
    if let last = free.popLast() {
      index = last
    } else {
      index = slots.count
      slots.append(Slot())
    }
    return Token(.client, index: index, generation: slots[index].generation)
  }

  mutating func fill(_ token: Token, _ session: Session) { slots[token.index].session = session }

  subscript(_ token: Token) -> Session? {
    guard token.index < slots.count, slots[token.index].generation == token.generation else { return nil }
    return slots[token.index].session
  }

  mutating func remove(_ token: Token) {
    precondition(slots[token.index].generation == token.generation && slots[token.index].session != nil, "freed twice")
    slots[token.index].session = nil
    slots[token.index].generation &+= 1
    free.append(token.index)
  }

  /// Slots there are, taken or not.
  var capacity: Int { slots.count }

  /// The session in a slot, whatever its generation.
  func session(at index: Int) -> Session? { slots[index].session }

  /// All sessions there are, for the few moments that concern everybody.
  var all: [Session] { slots.compactMap(\.session) }
}

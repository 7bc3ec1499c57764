/// Numbers for members' names, so that a remembered user needs two bytes for a member.

internal import Synchronization

final class MemberNames: Sendable {
  private let state = Mutex(State())

  private struct State {
    var names: [String] = []
    var numbers: [String: UInt16] = [:]
  }

  /// The number of a name, from now on; nil if there are as many names as numbers: no configuration has had so many.
  func number(_ name: String) -> UInt16? {
    state.withLock { state in
      if let known = state.numbers[name] { return known }
      guard state.names.count < Int(UserRecord.nobody) else { return nil }
      let number = UInt16(state.names.count)
      state.names.append(name)
      state.numbers[name] = number
      return number
    }
  }

  /// The name of a number that was given out.
  subscript(_ number: UInt16) -> String { state.withLock { $0.names[Int(number)] } }
}

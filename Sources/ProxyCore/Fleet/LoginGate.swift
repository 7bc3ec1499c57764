/// Lets so many logins in at a time; the others stand in line, first come first served.

internal import Synchronization

final class LoginGate: Sendable {
  private let state: Mutex<State>

  private struct State {
    /// Nil for no bound.
    var most: Int?
    /// Logins inside, and those that may go in and have not looked yet.
    var inside = 0
    /// The line, from `head` on; who has left it meanwhile is not in `waiting` any more.
    var line: [SessionHandle] = []
    var head = 0
    var waiting: Set<SessionHandle> = []
    /// Whose turn has come.
    var called: Set<SessionHandle> = []

    /// Lets in whom there is room for; returns them, to be woken.
    mutating func call() -> [SessionHandle] {
      var woken: [SessionHandle] = []
      while !waiting.isEmpty, most.map({ inside < $0 }) ?? true {
        let next = line[head]
        head += 1
        guard waiting.remove(next) != nil else { continue }
        inside += 1
        called.insert(next)
        woken.append(next)
      }
      if waiting.isEmpty || head > 1_024 && head * 2 > line.count {
        line.removeFirst(waiting.isEmpty ? line.count : head)
        head = 0
      }
      return woken
    }
  }

  /// A gate with so many places; nil for no bound.
  init(most: Int?) { state = Mutex(State(most: most)) }

  /// Takes a place. False: the session is in line, will be woken, and has to ask again.
  func enter(_ handle: SessionHandle) -> Bool {
    state.withLock { state in
      if state.called.remove(handle) != nil { return true }
      if state.waiting.isEmpty, state.most.map({ state.inside < $0 }) ?? true {
        state.inside += 1
        return true
      }
      if state.waiting.insert(handle).inserted { state.line.append(handle) }
      return false
    }
  }

  /// Gives a place back. Returns who has to be woken.
  func leave() -> [SessionHandle] {
    state.withLock { state in
      state.inside -= 1
      precondition(state.inside >= 0, "more logins left a gate than entered")
      return state.call()
    }
  }

  /// A session in line goes away. Returns who has to be woken.
  func withdraw(_ handle: SessionHandle) -> [SessionHandle] {
    state.withLock { state in
      if state.called.remove(handle) != nil {
        state.inside -= 1
        return state.call()
      }
      state.waiting.remove(handle)
      return []
    }
  }

  /// A new configuration. Returns who has to be woken.
  func allow(_ most: Int?) -> [SessionHandle] {
    state.withLock { state in
      state.most = most
      return state.call()
    }
  }

  /// Sessions in line.
  var waiting: Int { state.withLock { $0.waiting.count } }
}

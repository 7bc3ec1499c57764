/// Whether a loop accepts connections, and why not.

struct Door {
  private var state = State.closed

  private enum State {
    case closed
    case open
    /// Shut because something ran out; opened again when a session ends here, or at this time.
    case shut(until: UInt64)
    /// The proxy is stopping.
    case retired
  }

  /// Why a door is shut.
  enum Lack {
    /// `Admission` has no place.
    case limit
    case lack(SystemError)
  }

  /// How long accepting rests when nothing of this loop's own frees a descriptor.
  static let pause = Timeouts.seconds(1)

  var isOpen: Bool { if case .open = state { true } else { false } }
  var isShutForLack: Bool { if case .shut = state { true } else { false } }

  /// When it is opened again; `.max` if not by time.
  var reopens: UInt64 { if case .shut(let until) = state { until } else { .max } }

  mutating func open(_ listeners: [BoundListener], _ polls: borrowing PollSet) {
    switch state {
    case .retired, .open: return
    case .closed, .shut: break
    }
    state = .open
    for (index, listener) in listeners.enumerated() {
      let error = polls.watchShared(listener.socket.descriptor, Token(.listener, index: index, generation: 0))
      precondition(error == nil || error?.isOutOfMemory == true, "a listener can't be watched")
    }
  }

  mutating func close(_ listeners: [BoundListener], _ polls: borrowing PollSet) {
    switch state {
    case .open: for listener in listeners { polls.unwatch(listener.socket.descriptor) }
    case .shut, .closed: break
    case .retired: return
    }
    state = .closed
  }

  /// Rests until `until`. The listeners leave the epoll set: watched and not accepted from, they would spin.
  mutating func shut(
    _ listeners: [BoundListener], _ polls: borrowing PollSet, until: UInt64, _ house: House, _ lack: Lack
  ) {
    close(listeners, polls)
    state = .shut(until: until)
    house.tellLack(lack, at: until)
  }

  mutating func reopen(_ listeners: [BoundListener], _ polls: borrowing PollSet) { open(listeners, polls) }

  mutating func retire() { state = .retired }
}

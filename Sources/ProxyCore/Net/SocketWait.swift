/// Waits for the socket of a library that does not wait itself, on a thread that may block.

internal import Glibc

/// What a socket is ready for.
struct Readiness: OptionSet {
  let rawValue: UInt8

  static let readable = Readiness(rawValue: 1)
  static let writable = Readiness(rawValue: 2)

  init(rawValue: UInt8) { self.rawValue = rawValue }

  fileprivate init(events: Int16) {
    var ready: Readiness = []
    if Int32(events) & POLLIN != 0 { ready.insert(.readable) }
    if Int32(events) & POLLOUT != 0 { ready.insert(.writable) }
    self = ready
  }

  fileprivate var events: Int16 {
    Int16((contains(.readable) ? POLLIN : 0) | (contains(.writable) ? POLLOUT : 0))
  }
}

enum SocketWait {
  /// What the socket is ready for of what is wanted; nothing once the clock shows `deadline`, in nanoseconds of
  /// `Clock.monotonic`.
  static func wait(_ fd: Int32, for wanted: Readiness, until deadline: UInt64) -> Readiness {
    while true {
      let now = Clock.monotonic.now
      guard now < deadline else { return [] }
      var waiting = pollfd(fd: fd, events: wanted.events, revents: 0)
      // SAFETY: there is one structure, and one is told.
      let count = unsafe poll(&waiting, 1, Int32(clamping: (deadline - now + 999_999) / 1_000_000))
      // Below zero a signal ended the wait: it is begun again.
      guard count > 0 else { continue }
      let ready = Readiness(events: waiting.revents)
      // An error makes a socket ready for whatever is tried: the library will meet it.
      return ready.isEmpty ? wanted : ready
    }
  }
}

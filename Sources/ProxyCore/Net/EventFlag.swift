/// A flag that one thread sets and another waits for, beside a descriptor. For threads that may wait.

internal import Glibc

package final class EventFlag: Sendable {
  private let descriptor: Descriptor

  /// A flag that is not set; nil if the system has no room for it.
  package init?() {
    guard case .success(let fd) = Syscall.makeEvent() else { return nil }
    descriptor = Descriptor(owning: fd)
  }

  /// Sets it.
  package func set() { Syscall.kick(descriptor) }

  /// What a wait was ended by.
  package enum Ended { case set, readable, late }

  /// Waits for the flag, which is taken down then, or for something to read. A signal ends it as if it were late.
  package func wait(orReadable other: Int32, milliseconds: Int) -> Ended {
    var waiting = [
      pollfd(fd: descriptor.raw, events: Int16(POLLIN), revents: 0),
      pollfd(fd: other, events: Int16(POLLIN), revents: 0),
    ]
    // SAFETY: there are two structures, and two are told.
    guard unsafe poll(&waiting, 2, Int32(clamping: milliseconds)) > 0 else { return .late }
    if waiting[0].revents != 0 {
      Syscall.unkick(descriptor)
      return .set
    }
    return .readable
  }
}

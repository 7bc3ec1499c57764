/// A datagram socket to the service manager.

internal import Protocols

package final class NotifySocket: Sendable {
  private let descriptor: Descriptor

  /// `path` begins with a slash, or with `@` for an abstract address. Nil if nobody listens there.
  package init?(_ path: String) {
    guard case .success(let fd) = Syscall.datagramSocket() else { return nil }
    descriptor = Descriptor(owning: fd)
    if Syscall.connect(descriptor, toUnix: path) != nil { return nil }
  }

  /// Best effort: a service manager that does not listen is not worth an error.
  package func send(_ text: String) { _ = Syscall.send(descriptor, Array(text.utf8).span) }

  /// The monotonic clock in microseconds.
  package static var microseconds: UInt64 { Clock.monotonic.now / 1_000 }
}

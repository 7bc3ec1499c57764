/// The times a directory and its file go by, and calls when one has come: the system's, or a test's.

internal import Dispatch
internal import Glibc

package struct DirectoryTime: Sendable {
  /// Nanoseconds since some moment; never goes back.
  package let now: @Sendable () -> UInt64
  /// Seconds since 1970, which is what the next process can compare with.
  package let wall: @Sendable () -> Int
  /// Calls once, so many nanoseconds from now, on a thread where nothing waits.
  package let after: @Sendable (UInt64, @escaping @Sendable () -> Void) -> Void

  /// Times of its parts.
  package init(
    now: @escaping @Sendable () -> UInt64, wall: @escaping @Sendable () -> Int,
    after: @escaping @Sendable (UInt64, @escaping @Sendable () -> Void) -> Void
  ) {
    self.now = now
    self.wall = wall
    self.after = after
  }

  private static let queue = DispatchQueue(label: "proxyd.directory")

  /// The system's.
  package static let system = DirectoryTime(
    now: { Clock.monotonic.now },
    wall: { time(nil) },
    after: { delay, body in
      queue.asyncAfter(deadline: .now() + .nanoseconds(Int(clamping: delay)), execute: body)
    })
}

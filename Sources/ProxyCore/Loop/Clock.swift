/// Tells a loop the time: the kernel's, or a test's.

internal import Synchronization

package enum Clock: Sendable {
  case monotonic
  case played(PlayedClock)

  /// Nanoseconds since some moment; never goes back.
  var now: UInt64 {
    switch self {
    case .monotonic: SystemClock.monotonic
    case .played(let clock): clock.now
    }
  }
}

/// A clock that goes when a test says so.
package final class PlayedClock: Sendable {
  private let time = Mutex<UInt64>(1_000_000_000)

  /// A clock that shows one second.
  package init() {}

  /// Nanoseconds, as the test has set them.
  package var now: UInt64 { time.withLock { $0 } }

  /// Lets time pass.
  package func advance(seconds: UInt64) { time.withLock { $0 += Timeouts.seconds(seconds) } }
}

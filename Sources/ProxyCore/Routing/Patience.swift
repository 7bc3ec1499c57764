/// Says how long a thread may still wait for a server: the time up to a deadline, as C libraries want it.

// `timeval` belongs to whichever C module the compiler meets it in first.
internal import CLinux
internal import Glibc

struct Patience {
  /// Nanoseconds of `Clock.monotonic`.
  let deadline: UInt64

  init(until deadline: UInt64) { self.deadline = deadline }

  /// Nanoseconds left; none if the deadline has passed.
  var left: UInt64 {
    let now = Clock.monotonic.now
    return now < deadline ? deadline - now : 0
  }

  /// Less is left than kernel and libraries count in: what they say now, they say because the time is over.
  var isOver: Bool { left < 2_000_000 }

  /// The time left. Never zero: to most libraries that would be no bound at all.
  var interval: timeval {
    let microseconds = max(1_000, left / 1_000)
    return timeval(tv_sec: Int(microseconds / 1_000_000), tv_usec: Int(microseconds % 1_000_000))
  }

  /// An equal part of the time left, where so many want one.
  func share(of parts: Int) -> Patience {
    let left = left
    return Patience(until: deadline - left + left / UInt64(max(1, parts)))
  }
}

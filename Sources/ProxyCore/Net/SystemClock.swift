/// Reads the kernel's clocks.

// `timespec` belongs to whichever C module the compiler meets it in first.
internal import CLinux
internal import Glibc

enum SystemClock {
  /// Nanoseconds since some moment; never goes back.
  static var monotonic: UInt64 {
    var time = timespec()
    // SAFETY: the structure is filled by the call.
    unsafe clock_gettime(CLOCK_MONOTONIC, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
  }

  /// Seconds since 1970, and the milliseconds beyond.
  static var wall: (seconds: Int, milliseconds: Int) {
    var time = timespec()
    // SAFETY: the structure is filled by the call.
    unsafe clock_gettime(CLOCK_REALTIME, &time)
    return (time.tv_sec, time.tv_nsec / 1_000_000)
  }
}

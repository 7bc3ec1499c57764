/// What the program says on its terminal.

internal import Glibc
internal import ProxyCore

// A build for ThreadSanitizer has a Mutex of ProxyCore's.
#if !PROXYD_TSAN
  internal import struct Synchronization.Mutex
#endif

enum Console {
  /// A line on standard output, at the end of the program at the latest. What can't be written ends it, see `write`.
  static func say(_ text: String) {
    _ = flushesAtTheEnd
    let portion = waiting.withLock { waiting -> [UInt8] in
      waiting += text.utf8
      waiting.append(0x0A)
      guard isTerminal || waiting.count >= Console.portion else { return [] }
      defer { waiting = [] }
      return waiting
    }
    writeAll(portion)
  }

  /// What was said and not written yet.
  private static let waiting = Mutex<[UInt8]>([])
  private static let portion = 64 << 10
  private static let flushesAtTheEnd: Bool = {
    atexit { Console.write([]) }
    return true
  }()

  /// A dump on a disk that is full must not pass for one that is whole.
  private static func giveUp() -> Never {
    error("standard output can't be written")
    _exit(Console.cantWrite)
  }

  /// EX_IOERR of sysexits.h, as 64 is its EX_USAGE.
  private static let cantWrite: Int32 = 74

  /// Whether somebody looks at standard output themselves.
  static var isTerminal: Bool { isatty(STDOUT_FILENO) == 1 }

  /// Bytes on standard output, at once: who reads them may be waiting. What can't be written ends the program, as a pipe
  /// that nobody reads does.
  static func write(_ bytes: [UInt8]) {
    let before = waiting.withLock { waiting in
      defer { waiting = [] }
      return waiting
    }
    writeAll(before)
    writeAll(bytes)
  }

  private static func writeAll(_ bytes: [UInt8]) {
    var start = 0
    var hasWaited = false
    while start < bytes.count {
      // SAFETY: the slice is lent for the time of the call, and its size is told.
      let count = unsafe bytes[start...].withUnsafeBytes { unsafe Glibc.write(STDOUT_FILENO, $0.baseAddress, $0.count) }
      guard count <= 0 else {
        start += count
        hasWaited = false
        continue
      }
      // It may be one that does not wait by itself: what is ready for more and takes none is broken.
      if hasWaited { giveUp() }
      var wanted = pollfd(fd: STDOUT_FILENO, events: Int16(POLLOUT), revents: 0)
      // SAFETY: there is one structure, and one is told.
      _ = unsafe poll(&wanted, 1, -1)
      hasWaited = true
    }
  }

  /// A line on standard error.
  static func error(_ text: String) {
    let bytes = Array((text + "\n").utf8)
    // SAFETY: the bytes and their number are told. What can't be written to a terminal is lost.
    _ = unsafe Glibc.write(STDERR_FILENO, bytes, bytes.count)
  }
}

/// What the program says on its terminal.

internal import Glibc

enum Console {
  /// A line on standard output.
  static func say(_ text: String) { print(text) }

  /// Whether somebody looks at standard output themselves.
  static var isTerminal: Bool { isatty(STDOUT_FILENO) == 1 }

  /// Bytes on standard output, at once: who reads them may be waiting. What can't be written ends the program, as a pipe
  /// that nobody reads does.
  static func write(_ bytes: [UInt8]) {
    var start = 0
    while start < bytes.count {
      // SAFETY: the slice is lent for the time of the call, and its size is told.
      let count = unsafe bytes[start...].withUnsafeBytes { unsafe Glibc.write(STDOUT_FILENO, $0.baseAddress, $0.count) }
      guard count > 0 else { return }
      start += count
    }
  }

  /// A line on standard error.
  static func error(_ text: String) {
    let bytes = Array((text + "\n").utf8)
    // SAFETY: the bytes and their number are told. What can't be written to a terminal is lost.
    _ = unsafe Glibc.write(STDERR_FILENO, bytes, bytes.count)
  }
}

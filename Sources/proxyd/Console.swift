/// What the program says on its terminal.

internal import Glibc

enum Console {
  /// A line on standard output.
  static func say(_ text: String) { print(text) }

  /// A line on standard error.
  static func error(_ text: String) {
    let bytes = Array((text + "\n").utf8)
    // SAFETY: the bytes and their number are told. What can't be written to a terminal is lost.
    _ = unsafe write(STDERR_FILENO, bytes, bytes.count)
  }
}

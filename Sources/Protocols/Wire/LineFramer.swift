/// Finds where a line ends in bytes that arrive in pieces, without looking at any byte twice.
///
/// A line ends with CRLF or with a bare LF. The bare LF is a departure from RFC 9051 and RFC 1939: a person behind
/// `openssl s_client` types it, Dovecot takes it, and since every line is rendered anew for the backend it can't be
/// read differently there.
package struct LineFramer: Equatable, Sendable {
  /// How many bytes at the front of the input are known to hold no line end.
  private var scanned = 0

  /// A framer at the front of a line.
  package init() {}

  /// A line found: its text without the line end, and how long it is with it.
  package struct Line: Equatable, Sendable {
    /// Where the line stands, without its end.
    package let text: Range<Int>
    /// Where the next line begins.
    package let end: Int
  }

  /// The line that begins at `start`, or nil while its end is not there yet. Call it with all bytes not consumed so far;
  /// after a line was found, the next call is for the next line.
  package mutating func nextLine(in input: Span<UInt8>, from start: Int = 0) -> Line? {
    var index = max(scanned, start)
    while index < input.count {
      if input[index] == .lineFeed {
        scanned = 0
        let textEnd = index > start && input[index - 1] == .carriageReturn ? index - 1 : index
        return Line(text: start..<textEnd, end: index + 1)
      }
      index += 1
    }
    scanned = input.count
    return nil
  }
}

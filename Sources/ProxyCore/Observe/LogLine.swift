/// Builds one line of the log: fields in the order they are given, as text, JSON or journald's protocol.

internal import Glibc
package import Logging
internal import Protocols

package struct LogLine {
  private(set) var bytes: [UInt8] = []
  private let style: Style

  /// How fields are written.
  package enum Style: Equatable, Sendable {
    case text
    case json
    /// journald's native protocol: a field a line, a length where a value has line ends.
    case journal
  }

  /// Begins a line about `event`, which stays the same whatever the circumstances.
  package init(
    _ style: Style, level: Logger.Level, event: String, time: WallTime?, identity: LogIdentity = .proxyd
  ) {
    self.style = style
    bytes.reserveCapacity(512)
    switch style {
    case .text, .json:
      if style == .json { bytes.append(.ascii("{")) }
      if let time { add("time", time.text) }
      add("level", level.rawValue)
      add("event", event)
    case .journal:
      add("MESSAGE", event)
      add("PRIORITY", String(level.syslogSeverity))
      add("SYSLOG_IDENTIFIER", "\(identity.tag)")
    }
  }

  /// Adds a field. Names are letters, digits, `-` and `_`.
  package mutating func add(_ name: StaticString, _ value: String) {
    begin(name)
    append(value)
  }

  /// Adds a field of bytes; what is not UTF-8 is replaced.
  package mutating func add(_ name: StaticString, _ value: [UInt8]) {
    add(name, String(decoding: value, as: UTF8.self))
  }

  /// Adds a number.
  package mutating func add(_ name: StaticString, _ value: some BinaryInteger) {
    begin(name)
    if style == .json { bytes.append(contentsOf: String(value).utf8) } else { append(String(value)) }
  }

  /// Adds a field whose name is not known before.
  package mutating func add(_ name: String, _ value: String) {
    begin(name.utf8.span)
    append(value)
  }

  /// The line with its end.
  package consuming func finish() -> [UInt8] {
    if style == .json { bytes.append(.ascii("}")) }
    if style != .journal { bytes.append(.lineFeed) }
    return bytes
  }

  private mutating func begin(_ name: StaticString) {
    // SAFETY: the bytes are the program's own.
    name.withUTF8Buffer { unsafe begin($0.span) }
  }

  private mutating func begin(_ name: Span<UInt8>) {
    switch style {
    case .text:
      if !bytes.isEmpty { bytes.append(.space) }
      bytes.append(name)
      bytes.append(.ascii("="))
    case .json:
      if bytes.count > 1 { bytes.append(.ascii(",")) }
      bytes.append(.ascii("\""))
      bytes.append(name)
      bytes.append("\":")
    case .journal:
      // A field of ours is PROXYD_NAME; names with a meaning of journald's own are in capitals already.
      var isOwn = false
      for index in name.indices where name[index].uppercased != name[index] { isOwn = true }
      if isOwn { bytes.append("PROXYD_") }
      for index in name.indices { bytes.append(name[index] == .ascii("-") ? .ascii("_") : name[index].uppercased) }
    // Then "=" or a line end, which the value decides.
    }
  }

  private mutating func append(_ value: String) {
    switch style {
    case .text: appendText(value)
    case .json: LogLine.appendQuoted(value, to: &bytes)
    case .journal: appendJournal(value)
    }
  }

  /// Bare if that can't be misread, else quoted as in Go's and Heroku's logfmt.
  private mutating func appendText(_ value: String) {
    let text = value.utf8.span
    if LogLine.isBare(text) { bytes.append(text) } else { LogLine.appendQuoted(value, to: &bytes) }
  }

  private static func isBare(_ value: Span<UInt8>) -> Bool {
    var before: UInt8 = 0
    for index in value.indices {
      let byte = value[index]
      switch byte {
      case 0...0x20, .ascii("\""), .ascii("="), .ascii("\\"), 0x7F: return false
      case 0x80..<0xA0 where before == LogLine.highControl: return false
      default: before = byte
      }
    }
    return !value.isEmpty
  }

  /// Whether there are control characters beyond ASCII, U+0080 to U+009F, which terminals obey too (ECMA-48's C1).
  private static func hasHighControls(_ value: Span<UInt8>) -> Bool {
    var before: UInt8 = 0
    for index in value.indices {
      if before == highControl, value[index] < 0xA0 { return true }
      before = value[index]
    }
    return false
  }

  /// The first of the two bytes of U+0080 to U+00BF.
  private static var highControl: UInt8 { 0xC2 }

  /// RFC 8259 §7. What is not UTF-8 was replaced when the string was made.
  static func appendQuoted(_ value: String, to bytes: inout [UInt8]) {
    let hasHighControls = hasHighControls(value.utf8.span)
    bytes.append(.ascii("\""))
    var before: UInt8 = 0
    for byte in value.utf8 {
      defer { before = byte }
      switch byte {
      case 0x80..<0xA0 where hasHighControls && before == highControl:
        bytes.removeLast()
        bytes.append("\\u00")
        bytes.append(LogLine.hex[Int(byte >> 4)])
        bytes.append(LogLine.hex[Int(byte & 0xF)])
      case .ascii("\""), .ascii("\\"):
        bytes.append(.ascii("\\"))
        bytes.append(byte)
      case .lineFeed: bytes.append("\\n")
      case .carriageReturn: bytes.append("\\r")
      case 0x09: bytes.append("\\t")
      case 0..<0x20, 0x7F:
        bytes.append("\\u00")
        bytes.append(LogLine.hex[Int(byte >> 4)])
        bytes.append(LogLine.hex[Int(byte & 0xF)])
      default: bytes.append(byte)
      }
    }
    bytes.append(.ascii("\""))
  }

  private static let hex = Array("0123456789abcdef".utf8)

  private mutating func appendJournal(_ value: String) {
    if value.utf8.contains(.lineFeed) {
      bytes.append(.lineFeed)
      var count = UInt64(value.utf8.count)
      for _ in 0..<8 {
        bytes.append(UInt8(truncatingIfNeeded: count))
        count >>= 8
      }
    } else {
      bytes.append(.ascii("="))
    }
    bytes.append(contentsOf: value.utf8)
    bytes.append(.lineFeed)
  }
}

extension Logger.Level {
  /// RFC 5424 §6.2.1.
  var syslogSeverity: Int {
    switch self {
    case .trace, .debug: 7
    case .info: 6
    case .notice: 5
    case .warning: 4
    case .error: 3
    case .critical: 2
    }
  }
}

/// A moment for people: RFC 3339 in UTC, to the millisecond.
package struct WallTime: Equatable, Sendable {
  private var bytes: [UInt8] = []

  /// As `2026-11-24T06:00:00.007Z`.
  package var text: String { String(decoding: bytes, as: UTF8.self) }

  /// The present.
  package static func now() -> WallTime {
    let (seconds, milliseconds) = SystemClock.wall
    return WallTime(seconds: seconds, milliseconds: milliseconds)
  }

  /// Seconds since 1970.
  static var second: Int { time(nil) }

  /// A moment in seconds since 1970.
  package init(seconds: Int, milliseconds: Int) {
    var seconds = seconds
    var parts = unsafe tm()
    // SAFETY: the structure is filled by the call.
    unsafe gmtime_r(&seconds, &parts)
    bytes.reserveCapacity(24)
    unsafe append(Int(parts.tm_year) + 1900, width: 4, then: .ascii("-"))
    unsafe append(Int(parts.tm_mon) + 1, width: 2, then: .ascii("-"))
    unsafe append(Int(parts.tm_mday), width: 2, then: .ascii("T"))
    unsafe append(Int(parts.tm_hour), width: 2, then: .ascii(":"))
    unsafe append(Int(parts.tm_min), width: 2, then: .ascii(":"))
    unsafe append(Int(parts.tm_sec), width: 2, then: .ascii("."))
    append(milliseconds, width: 3, then: .ascii("Z"))
  }

  private mutating func append(_ value: Int, width: Int, then mark: UInt8) {
    var divisor = 1
    for _ in 1..<width { divisor *= 10 }
    while divisor > 0 {
      bytes.append(.ascii("0") + UInt8(value / divisor % 10))
      divisor /= 10
    }
    bytes.append(mark)
  }
}

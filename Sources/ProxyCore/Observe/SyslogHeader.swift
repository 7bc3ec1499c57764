/// What a line in a syslog file begins with (RFC 3164 §4.1): time, host, program and its number.

internal import Glibc
internal import Protocols

struct SyslogHeader: Sendable {
  private let host: [UInt8]
  private let process: [UInt8]

  /// For lines of this process on this host.
  init() {
    // POSIX: names have up to 255 bytes.
    var name = [CChar](repeating: 0, count: 256)
    // SAFETY: the buffer's size is told, less one, so that a NUL ends it whatever happens.
    let error = unsafe gethostname(&name, name.count - 1)
    let host = name.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }
    self.host = error != 0 || host.isEmpty ? Array("localhost".utf8) : host
    process = Array("\(getpid())".utf8)
  }

  init(host: String, process: Int32) {
    self.host = Array(host.utf8)
    self.process = Array("\(process)".utf8)
  }

  /// Appends it for a line of that program. `second` counts from 1970; the time is the host's own.
  func append(_ identity: LogIdentity, second: Int, to out: inout [UInt8]) {
    var second = second
    var parts = unsafe tm()
    // SAFETY: the structure is filled by the call.
    unsafe localtime_r(&second, &parts)
    let (month, day) = unsafe (Int(parts.tm_mon), Int(parts.tm_mday))
    let (hour, minute, seconds) = unsafe (Int(parts.tm_hour), Int(parts.tm_min), Int(parts.tm_sec))
    out.append(SyslogHeader.months[month])
    out.append(.space)
    SyslogHeader.append(day, &out, filledWith: .space)
    out.append(.space)
    SyslogHeader.append(hour, &out)
    out.append(.ascii(":"))
    SyslogHeader.append(minute, &out)
    out.append(.ascii(":"))
    SyslogHeader.append(seconds, &out)
    out.append(.space)
    out.append(contentsOf: host)
    out.append(.space)
    out.append(identity.tag)
    out.append(.ascii("["))
    out.append(contentsOf: process)
    out.append("]: ")
  }

  private static let months: [StaticString] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
  ]

  private static func append(_ number: Int, _ out: inout [UInt8], filledWith fill: UInt8 = .ascii("0")) {
    out.append(number < 10 ? fill : .ascii("0") + UInt8(number / 10))
    out.append(.ascii("0") + UInt8(number % 10))
  }
}

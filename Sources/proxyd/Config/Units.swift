/// Sizes and times as people write them.

enum Duration {
  private static let units: [(suffix: String, nanoseconds: UInt64)] = [
    ("ms", 1_000_000), ("s", 1_000_000_000), ("m", 60_000_000_000), ("h", 3_600_000_000_000),
  ]

  /// Nanoseconds of `500ms`, `90s`, `31m`, `1h`; a bare number is of seconds. Nil if it is none or too large.
  static func parse(_ text: String) -> UInt64? {
    let digits = text.prefix(while: \.isNumber)
    let suffix = text.dropFirst(digits.count)
    let unit = suffix.isEmpty ? 1_000_000_000 : units.first { $0.suffix == suffix }?.nanoseconds
    guard let number = UInt64(digits), let unit else { return nil }
    let (product, overflow) = number.multipliedReportingOverflow(by: unit)
    return overflow ? nil : product
  }

  static func text(_ nanoseconds: UInt64) -> String {
    let unit = units.last { nanoseconds >= $0.nanoseconds && nanoseconds.isMultiple(of: $0.nanoseconds) }
    guard let unit else { return "0s" }
    return "\(nanoseconds / unit.nanoseconds)\(unit.suffix)"
  }
}

/// Sizes in bytes.
enum Size {
  private static let units: [(suffix: String, bytes: Int)] = [("k", 1 << 10), ("m", 1 << 20), ("g", 1 << 30)]

  /// Bytes of `16384`, `16k`, `1m`; nil if it is none or too large.
  static func parse(_ text: String) -> Int? {
    let digits = text.prefix(while: \.isNumber)
    let suffix = text.dropFirst(digits.count).lowercased()
    let unit = suffix.isEmpty ? 1 : units.first { $0.suffix == suffix }?.bytes
    guard let number = Int(digits), let unit else { return nil }
    let (product, overflow) = number.multipliedReportingOverflow(by: unit)
    return overflow ? nil : product
  }

  static func text(_ bytes: Int) -> String {
    let unit = units.last { bytes >= $0.bytes && bytes.isMultiple(of: $0.bytes) }
    return unit.map { "\(bytes / $0.bytes)\($0.suffix)" } ?? String(bytes)
  }
}

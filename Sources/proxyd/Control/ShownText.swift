/// Texts as a terminal shows them: harmless, as wide as they are, and numbers in units people read.

/// A text that can stand in a line of a terminal.
struct ShownText: Equatable, Sendable {
  let text: String
  /// Columns it takes.
  let width: Int

  /// Of what others said, such as a name: what would move the cursor, turn the writing round or be seen as nothing is
  /// written as `\u{1b}`.
  init(_ text: String) {
    // Nearly all are plain.
    if text.utf8.allSatisfy({ $0 >= 0x20 && $0 < 0x7F }) {
      self.text = text
      width = text.utf8.count
      return
    }
    var shown = ""
    var width = 0
    for scalar in text.unicodeScalars {
      if ShownText.isHarmless(scalar) {
        shown.unicodeScalars.append(scalar)
        width += ShownText.width(scalar)
      } else {
        let escape = "\\u{\(String(scalar.value, radix: 16))}"
        shown += escape
        width += escape.utf8.count
      }
    }
    self.text = shown
    self.width = width
  }

  private init(text: String, width: Int) {
    self.text = text
    self.width = width
  }

  /// The same of a line of JSON, which stays the same text to whoever reads it as that (RFC 8259 §7).
  static func json(_ line: [UInt8]) -> [UInt8] {
    guard line.contains(where: { $0 >= 0x7F }) else { return line }
    var shown = ""
    for scalar in String(decoding: line, as: UTF8.self).unicodeScalars {
      if isHarmless(scalar) {
        shown.unicodeScalars.append(scalar)
      } else {
        for unit in String(scalar).utf16 {
          let digits = String(unit, radix: 16)
          shown += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
        }
      }
    }
    return Array(shown.utf8)
  }

  private static func isHarmless(_ scalar: Unicode.Scalar) -> Bool {
    switch scalar.properties.generalCategory {
    case .control, .format, .lineSeparator, .paragraphSeparator, .privateUse, .unassigned, .surrogate: false
    default: true
    }
  }

  /// Columns of one character, as wcwidth(3) has it: marks none, East Asian wide ones two.
  private static func width(_ scalar: Unicode.Scalar) -> Int {
    switch scalar.properties.generalCategory {
    case .nonspacingMark, .enclosingMark: 0
    default: wide.contains { $0.contains(scalar.value) } ? 2 : 1
    }
  }

  /// Unicode's EastAsianWidth W and F, by their blocks.
  private static let wide: [ClosedRange<UInt32>] = [
    0x1100...0x115F, 0x231A...0x231B, 0x23E9...0x23EC, 0x2E80...0x303E, 0x3041...0x33FF, 0x3400...0x4DBF,
    0x4E00...0x9FFF, 0xA000...0xA4CF, 0xA960...0xA97F, 0xAC00...0xD7A3, 0xF900...0xFAFF, 0xFE30...0xFE6F,
    0xFF00...0xFF60, 0xFFE0...0xFFE6, 0x1F300...0x1F64F, 0x1F680...0x1F6FF, 0x1F900...0x1F9FF, 0x20000...0x3FFFD,
  ]

  /// No wider than so many columns; what is cut off is told by an ellipsis.
  func cut(to columns: Int) -> ShownText {
    guard width > columns else { return self }
    guard columns > 0 else { return ShownText(text: "", width: 0) }
    var kept = ""
    var count = 0
    for scalar in text.unicodeScalars {
      let more = ShownText.width(scalar)
      guard count + more < columns else { break }
      kept.unicodeScalars.append(scalar)
      count += more
    }
    return ShownText(text: kept + "…", width: count + 1)
  }

  /// Exactly so many columns: cut, or filled with blanks.
  func fit(_ columns: Int, toTheRight: Bool = false) -> String {
    let cut = cut(to: columns)
    let blanks = String(repeating: " ", count: max(0, columns - cut.width))
    return toTheRight ? blanks + cut.text : cut.text + blanks
  }
}

/// Numbers for people.
enum Human {
  /// `512`, `1.5K`, `20M`: in powers of 1,024, rounded down, with two digits.
  static func bytes(_ count: Int) -> String {
    let units = ["", "K", "M", "G", "T", "P", "E"]
    var number = max(0, count)
    var tenths = 0
    var unit = 0
    while number >= 1_024, unit < units.count - 1 {
      tenths = number % 1_024 * 10 / 1_024
      number /= 1_024
      unit += 1
    }
    return unit > 0 && number < 10 ? "\(number).\(tenths)\(units[unit])" : "\(number)\(units[unit])"
  }

  /// `0.3s`, `59s`, `3m05s`, `2h07m`, `4d03h`; of milliseconds.
  static func time(_ milliseconds: Int) -> String {
    let time = max(0, milliseconds)
    let seconds = time / 1_000
    func two(_ number: Int) -> String { number < 10 ? "0\(number)" : String(number) }
    switch seconds {
    case ..<10: return "\(seconds).\(time % 1_000 / 100)s"
    case ..<60: return "\(seconds)s"
    case ..<3_600: return "\(seconds / 60)m\(two(seconds % 60))s"
    case ..<86_400: return "\(seconds / 3_600)h\(two(seconds / 60 % 60))m"
    default: return "\(seconds / 86_400)d\(two(seconds / 3_600 % 24))h"
    }
  }
}

/// Rows in columns that stand below each other.
struct Table {
  private let titles: [String]
  /// Which columns hold numbers, and stand at their right.
  private let isNumber: [Bool]
  private var rows: [[ShownText]] = []

  /// Of titles; one that begins with `#` is of numbers.
  init(_ titles: String...) {
    isNumber = titles.map { $0.hasPrefix("#") }
    self.titles = titles.map { $0.hasPrefix("#") ? String($0.dropFirst()) : $0 }
  }

  /// Adds a row; what is not there is a dash.
  mutating func add(_ cells: String?...) {
    precondition(cells.count == titles.count, "a row with another number of columns than the table")
    rows.append(cells.map { ShownText($0.map { $0.isEmpty ? "-" : $0 } ?? "-") })
  }

  /// The table's lines, its titles first.
  var lines: [String] {
    let head = titles.map { ShownText($0) }
    let widths = titles.indices.map { column in
      rows.reduce(head[column].width) { max($0, $1[column].width) }
    }
    return ([head] + rows).map { row in
      var line = ""
      for (column, cell) in row.enumerated() {
        if column > 0 { line += "  " }
        line += cell.fit(widths[column], toTheRight: isNumber[column])
      }
      while line.last == " " { line.removeLast() }
      return line
    }
  }
}

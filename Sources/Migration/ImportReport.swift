/// What became of every setting of the software that is replaced, for people to read.

/// What became of one setting.
package enum Verdict: String, CaseIterable, Sendable {
  /// The same is in the new configuration.
  case carried = "carried over"
  /// Something else is in the new configuration, and the text says why.
  case changed = "changed"
  /// The new configuration needs nothing for it.
  case notNeeded = "not needed"
  /// The new configuration does not have it; the text says what to do.
  case lost = "CANNOT BE CARRIED"
}

/// A setting, where it was found, and what became of it.
package struct ReportEntry: Equatable, Sendable {
  /// `file:line`, or the variable of a defaults file; empty if it stands nowhere.
  package let place: String
  /// The setting as it was found, with secrets masked; empty if a place is meant.
  package let setting: String
  /// What became of it.
  package let verdict: Verdict
  /// Why, and what to do.
  package let text: String

  /// An entry of its parts.
  package init(_ place: String, _ setting: String, _ verdict: Verdict, _ text: String) {
    self.place = place
    self.setting = setting
    self.verdict = verdict
    self.text = text
  }
}

/// A part of a report under a heading.
package struct ReportSection: Equatable, Sendable {
  /// The heading.
  package let title: String
  /// What stands under it.
  package var entries: [ReportEntry]

  /// A section of its parts.
  package init(title: String, entries: [ReportEntry] = []) {
    self.title = title
    self.entries = entries
  }
}

/// Numbers with their nouns.
enum Counted {
  static func text(_ count: Int, _ noun: String) -> String { "\(count) \(noun)\(count == 1 ? "" : "s")" }
}

/// The whole report.
package struct ImportReport: Equatable, Sendable {
  /// Its headline.
  package let title: String
  /// Its parts, in order.
  package var sections: [ReportSection]

  /// A report of its parts.
  package init(title: String, sections: [ReportSection] = []) {
    self.title = title
    self.sections = sections
  }

  /// How many settings met with the verdict.
  package func count(_ verdict: Verdict) -> Int {
    sections.reduce(0) { $0 + $1.entries.count { $0.verdict == verdict } }
  }

  /// How many of each, in words.
  package var summary: String {
    Verdict.allCases.map { "\(count($0)) \($0.rawValue.lowercased())" }.joined(separator: ", ")
  }

  /// The report as text, lines of at most 100 characters where words allow it.
  package var text: String {
    var lines = [title, summary + "."]
    for section in sections where !section.entries.isEmpty {
      lines += ["", section.title]
      for entry in section.entries {
        let head = [entry.place, entry.setting].filter { !$0.isEmpty }.joined(separator: ": ")
        lines.append("  " + ImportReport.printable(head))
        lines += ImportReport.wrap("\(entry.verdict.rawValue): \(entry.text)", indent: "      ")
      }
    }
    return lines.joined(separator: "\n") + "\n"
  }

  /// Text from a foreign file, without what a terminal would obey.
  package static func printable(_ text: String) -> String {
    let scalars = text.unicodeScalars.map { scalar in
      scalar.value < 0x20 || (0x7F..<0xA0).contains(scalar.value) ? Unicode.Scalar(UInt8(ascii: "?")) : scalar
    }
    return String(String.UnicodeScalarView(scalars))
  }

  /// Words in lines.
  package static func wrap(_ text: String, indent: String, width: Int = 100) -> [String] {
    var lines: [String] = []
    var line = indent
    for word in printable(text).split(separator: " ") {
      if line.count + word.count + 1 > width, line != indent {
        lines.append(line)
        line = indent
      }
      line += line == indent ? word[...] : " " + word
    }
    return lines + [line]
  }
}

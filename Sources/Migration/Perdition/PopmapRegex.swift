/// The patterns of a popmap.re, as Perdition takes them from its text, and as proxyd's file of patterns has them.

internal import Protocols

/// A popmap.re.
package struct PopmapRegex: Equatable, Sendable {
  /// The rules in order; the first that matches counts.
  package let rules: [Rule]
  /// What of the text makes no rule, or none that its writer meant.
  package let faults: [ReportEntry]

  /// A pattern with what it answers.
  package struct Rule: Equatable, Sendable {
    /// The line it stands on.
    package let line: Int
    /// A POSIX extended expression, not anchored.
    package let pattern: String
    /// `[user<delimiter>]host[:port]` with `$0` to `$9`.
    package let answer: String
  }

  /// Reads text; any bytes have a meaning. `file` is what its places begin with.
  package static func read(_ bytes: [UInt8], file: String) -> PopmapRegex {
    let text = PerditionFile.read(bytes, as: .words)
    var rules: [Rule] = []
    var faults = text.oddities.map { fault($0, file) }
    var carried: [String] = []
    for line in text.lines {
      let place = "\(file):\(line.number)"
      let words = carried + line.words
      let shown = words.joined(separator: " ")
      carried = []
      if line.isIndented, !words.count.isMultiple(of: 2) {
        carried = words
        faults.append(
          ReportEntry(
            place, shown, .changed,
            "a word without an answer on a line that begins with a blank: Perdition takes the next line's first word "
              + "for it, and so "
              + "was it read."))
        continue
      }
      if words.count > 2 {
        faults.append(
          ReportEntry(
            place, shown, .changed,
            "more than two words: Perdition takes each pair for a rule of its own, whatever its manual says, and so "
              + "was it read."
          ))
      }
      if !words.count.isMultiple(of: 2) {
        let what =
          words.count == 1 ? "a pattern without an answer" : "the last word is a pattern without an answer"
        let colon = words.count == 1 && shown.contains(":") ? " (a blank must stand behind the colon)" : ""
        faults.append(
          ReportEntry(place, shown, .lost, "\(what)\(colon): Perdition makes nothing of it, nor did the import."))
      }
      for index in stride(from: 0, to: words.count - 1, by: 2) {
        var pattern = words[index]
        if pattern.hasSuffix(":") { pattern.removeLast() }
        rules.append(Rule(line: line.number, pattern: pattern, answer: words[index + 1]))
      }
    }
    return PopmapRegex(rules: rules, faults: faults)
  }

  private static func fault(_ oddity: PerditionFile.Oddity, _ file: String) -> ReportEntry {
    let place = "\(file):\(oddity.line)"
    return switch oddity.kind {
    case .lostLastLine(let text):
      ReportEntry(
        place, text, .lost, "the last line has no line end, so Perdition never sees it, and nothing was made of it.")
    case .openQuote:
      ReportEntry(
        place, "", .lost,
        "the quote that begins here is never closed; Perdition loses all behind it, and so did the import.")
    case .tooLong:
      ReportEntry(place, "", .lost, "Perdition cuts this to \(PerditionFile.longest) bytes, and so did the import.")
    case .continuationBeforeCRLF:
      ReportEntry(place, "", .changed, "a backslash joins no lines that end with CR LF; each was read for itself.")
    case .nul: ReportEntry(place, "", .changed, "Perdition reads up to the NUL, and so did the import.")
    }
  }
}

/// A popmap.re as proxyd's file of patterns, for `perdition-compatible: true`.
package struct PopmapRegexFile: Equatable, Sendable {
  /// The lines, each with its end.
  package let text: String
  /// How many rules are in it.
  package let count: Int
  /// What became of rules that are not the same.
  package let report: [ReportEntry]

  /// Rules as lines. `isServer` says whether a text is `host[:port]`.
  package init(
    _ rules: [PopmapRegex.Rule], file: String, delimiter: String, keepsUsers: Bool, isServer: (String) -> Bool
  ) {
    var lines: [String] = []
    var report: [ReportEntry] = []
    for rule in rules {
      let place = "\(file):\(rule.line)"
      let shown = "\(rule.pattern): \(rule.answer)"
      let shape = PatternShape(rule.pattern)
      func note(_ verdict: Verdict, _ text: String) { report.append(ReportEntry(place, shown, verdict, text)) }
      if let group = PopmapRegexFile.groups(rule.answer).first(where: { $0 > shape.groups }) {
        note(.lost, "the pattern has no group $\(group), which Perdition leaves in the server's name as it is.")
        continue
      }
      let server = PerditionServer(rule.answer, delimiter: delimiter)
      guard let backend = server.backend, isServer(PopmapRegexFile.example(backend)) else {
        note(.lost, "the answer is no [user@]host[:port].")
        continue
      }
      var pattern = rule.pattern
      var answer = backend
      let usesGroups = !PopmapRegexFile.groups(backend).isEmpty
      if let user = server.user {
        if keepsUsers {
          answer = "\(user)@\(backend)"
        } else if shape.isAnchored {
          note(
            .notNeeded, "without username_from_database Perdition passes over the user in the answer; it was left out.")
        } else if !usesGroups {
          // The text before the match would go to the user, who is passed over: it must not reach the server's name.
          pattern = "^.*(\(rule.pattern))"
          note(
            .changed,
            "the user in the answer is passed over; the pattern was written as \(pattern), which answers the same.")
        } else {
          note(
            .changed,
            "the pattern does not begin with ^: what stands before the match was part of a user that Perdition "
              + "passes over, and is "
              + "part of the server's name here. Anchor it.")
        }
      } else if !shape.isAnchored {
        let given = PopmapRegexFile.example(backend)
        note(
          .changed,
          "the pattern does not begin with ^, so it is found anywhere in a name, and what stands before it becomes "
            + "part of the "
            + "server's name: its\(given) for a name that begins with \"its\". The same was kept; likely a ^ is "
            + "missing."
        )
      }
      guard let line = PopmapRegexFile.line(pattern, answer) else {
        note(.lost, "a pattern or answer with line ends can't be written in a file of patterns.")
        continue
      }
      if rule.pattern.utf8.contains(where: { $0.lowercased != $0 }) {
        note(.changed, "the pattern has capitals; proxyd looks up names in lower case and compares letters so.")
      }
      lines.append(line)
    }
    text = lines.map { $0 + "\n" }.joined()
    count = lines.count
    self.report = report
  }

  /// The groups an answer names.
  static func groups(_ answer: String) -> [Int] {
    let bytes = Array(answer.utf8)
    return bytes.indices.dropLast().compactMap { index in
      bytes[index] == .ascii("$") && bytes[index + 1].isDigit ? Int(bytes[index + 1] - .ascii("0")) : nil
    }
  }

  /// An answer with a letter in the place of each group.
  static func example(_ answer: String) -> String {
    var out = ""
    var rest = answer[...]
    while let character = rest.popFirst() {
      if character == "$", let digit = rest.first, digit.isASCII, digit.isNumber {
        rest.removeFirst()
        out += "a"
      } else {
        out.append(character)
      }
    }
    return out
  }

  /// `PATTERN: ANSWER` in the words of such a file; nil if it can't hold them.
  static func line(_ pattern: String, _ answer: String) -> String? {
    guard !pattern.isEmpty, !answer.isEmpty,
      !(pattern + answer).utf8.contains(where: { $0 == .lineFeed || $0 == 0 || $0 == .carriageReturn })
    else { return nil }
    return "\(quoted(pattern)): \(quoted(answer))"
  }

  /// A word as it is, or in single quotes, within which everything stands for itself.
  private static func quoted(_ word: String) -> String {
    let isPlain = !word.utf8.contains { " \t\\'\"#".utf8.contains($0) }
    return isPlain ? word : "'" + word.replacing("'", with: "'\\''") + "'"
  }
}

/// What can be seen of a POSIX extended expression without compiling it.
struct PatternShape {
  /// How many groups it has.
  let groups: Int
  /// Whether it can match at a name's front only.
  let isAnchored: Bool

  init(_ pattern: String) {
    var groups = 0
    var depth = 0
    var alternatives: [[UInt8]] = [[]]
    PatternShape.walk(pattern) { byte, isPlain in
      if isPlain, byte == .ascii("(") {
        groups += 1
        depth += 1
      } else if isPlain, byte == .ascii(")") {
        depth -= 1
      } else if isPlain, byte == .ascii("|"), depth <= 0 {
        alternatives.append([])
        return
      }
      alternatives[alternatives.count - 1].append(byte)
    }
    self.groups = groups
    isAnchored = alternatives.allSatisfy { alternative in
      var front = alternative[...]
      if !alternative.contains(.ascii("|")) { front = front.drop { $0 == .ascii("(") } }
      return front.first == .ascii("^") || front.starts(with: Array(".*".utf8))
        || front.starts(with: Array("(.*)".utf8))
    }
  }

  /// Every byte, with whether it stands outside brackets and behind no backslash.
  private static func walk(_ pattern: String, _ body: (UInt8, Bool) -> Void) {
    let bytes = Array(pattern.utf8)
    var index = 0
    var bracket: Int?
    while index < bytes.count {
      let byte = bytes[index]
      if let start = bracket {
        body(byte, false)
        // A bracket first in the list, or first behind ^, is one of its members.
        let isFirst = index == start + 1 || (index == start + 2 && bytes[start + 1] == .ascii("^"))
        if byte == .ascii("["), index + 1 < bytes.count,
          [.ascii(":"), .ascii("."), .ascii("=")].contains(bytes[index + 1])
        {
          let kind = bytes[index + 1]
          var end = index + 2
          while end + 1 < bytes.count, !(bytes[end] == kind && bytes[end + 1] == .ascii("]")) { end += 1 }
          let last = min(end + 1, bytes.count - 1)
          for inner in index + 1..<last + 1 { body(bytes[inner], false) }
          index = last
        } else if byte == .ascii("]"), !isFirst {
          bracket = nil
        }
      } else if byte == .ascii("\\"), index + 1 < bytes.count {
        body(byte, false)
        index += 1
        body(bytes[index], false)
      } else {
        body(byte, true)
        if byte == .ascii("[") { bracket = index }
      }
      index += 1
    }
  }
}

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
    for line in text.lines {
      let place = "\(file):\(line.number)"
      let shown = line.words.joined(separator: " ")
      if line.words.count > 2 {
        faults.append(
          ReportEntry(
            place, shown, .changed,
            "more than two words: Perdition takes each pair for a rule of its own, whatever its manual says, and so was it read."
          ))
      }
      if !line.words.count.isMultiple(of: 2) {
        let what =
          line.words.count == 1 ? "a pattern without an answer" : "the last word is a pattern without an answer"
        let colon = line.words.count == 1 && shown.contains(":") ? " (a blank must stand behind the colon)" : ""
        faults.append(
          ReportEntry(place, shown, .lost, "\(what)\(colon): Perdition makes nothing of it, nor did the import."))
      }
      for index in stride(from: 0, to: line.words.count - 1, by: 2) {
        var pattern = line.words[index]
        if pattern.hasSuffix(":") { pattern.removeLast() }
        rules.append(Rule(line: line.number, pattern: pattern, answer: line.words[index + 1]))
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
            "the pattern does not begin with ^: what stands before the match was part of a user that Perdition passes over, and is "
              + "part of the server's name here. Anchor it.")
        }
      } else if !shape.isAnchored {
        let given = PopmapRegexFile.example(backend)
        note(
          .changed,
          "the pattern does not begin with ^, so it is found anywhere in a name, and what stands before it becomes part of the "
            + "server's name: its\(given) for a name that begins with \"its\". The same was kept; likely a ^ is missing."
        )
      }
      guard let line = PopmapRegexFile.line(pattern, answer) else {
        note(.lost, "a pattern with such blanks and colons can't be written in a file of patterns.")
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

  /// `PATTERN: ANSWER`, if proxyd takes it apart at the same colon. Blanks and `#` outside brackets go into brackets.
  static func line(_ pattern: String, _ answer: String) -> String? {
    guard !pattern.isEmpty, !answer.isEmpty, !answer.contains(where: { $0 == " " || $0 == "\t" || $0.isNewline }),
      !pattern.contains(where: \.isNewline)
    else { return nil }
    for candidate in [pattern, PatternShape.bracketed(pattern)] {
      let line = "\(candidate): \(answer)"
      if let parts = parts(line), parts == (candidate, answer) { return line }
    }
    return nil
  }

  /// How proxyd reads a line: the first colon behind which stand one word and nothing but a comment.
  private static func parts(_ line: String) -> (String, String)? {
    guard let first = line.first, first != "#", first != " ", first != "\t" else { return nil }
    for colon in line.indices where line[colon] == ":" {
      let behind = line[line.index(after: colon)...]
      guard behind.first == " " || behind.first == "\t" else { continue }
      let answer = behind.drop { $0 == " " || $0 == "\t" }.prefix { $0 != " " && $0 != "\t" }
      let rest = line[answer.endIndex...].drop { $0 == " " || $0 == "\t" }
      if !answer.isEmpty, answer.first != "#", rest.isEmpty || rest.first == "#" {
        return (String(line[..<colon]), String(answer))
      }
    }
    return nil
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

  /// Blanks and number signs in brackets of their own, where they stand in none.
  static func bracketed(_ pattern: String) -> String {
    var out: [UInt8] = []
    walk(pattern) { byte, isPlain in
      if isPlain, byte == .space || byte == .ascii("\t") || byte == .ascii("#") {
        out += [.ascii("["), byte, .ascii("]")]
      } else {
        out.append(byte)
      }
    }
    return String(decoding: out, as: UTF8.self)
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

/// Reads Debian's file of defaults: which instances of Perdition run, and with which command lines.

/// What the file says.
package struct PerditionDefaults: Equatable, Sendable {
  /// The instances that run, in Debian's order.
  package let instances: [Instance]
  /// What was not understood, or is not as its writer meant it.
  package let faults: [ReportEntry]

  /// One daemon.
  package struct Instance: Equatable, Sendable {
    /// The protocol its program's name says.
    package let mailProtocol: PerditionProtocol
    /// The words behind the program's name, in lists that each come from one variable.
    package let flags: [(words: [String], place: String)]

    /// The same protocol with the same words.
    package static func == (one: Instance, other: Instance) -> Bool {
      one.mailProtocol == other.mailProtocol && one.flags.map(\.words) == other.flags.map(\.words)
    }
  }

  /// The names of the variables.
  private static let variables: [(mailProtocol: PerditionProtocol, name: String)] = [
    (.pop3, "POP3"), (.pop3s, "POP3S"), (.imap4, "IMAP4"), (.imap4s, "IMAP4S"), (.managesieve, "MANAGESIEVE"),
  ]

  /// Reads text; any bytes have a meaning.
  package static func read(_ bytes: [UInt8], name: String) -> PerditionDefaults {
    var faults: [ReportEntry] = []
    var values: [String: (value: String, place: String)] = [:]
    let text = String(decoding: bytes, as: UTF8.self)
    let lines = text.utf8.split(omittingEmptySubsequences: false) { $0 == 0x0A }
    for (index, line) in lines.enumerated() {
      let place = "\(name):\(index + 1)"
      let line = Substring(line).trimmed
      guard !line.isEmpty, !line.hasPrefix("#") else { continue }
      guard let (variable, value) = assignment(line, values.mapValues(\.value)) else {
        faults.append(
          ReportEntry(place, String(line), .lost, "this is more than a variable and its value; it was passed over."))
        continue
      }
      values[variable] = (value, place)
    }
    if values["RUN_PERDITION"]?.value != "yes" {
      faults.append(
        ReportEntry(
          values["RUN_PERDITION"]?.place ?? name, "RUN_PERDITION", .changed,
          "it is not yes, so Debian starts no Perdition at all; the instances were imported as if it were."))
    }
    let known = ["RUN_PERDITION", "FLAGS"] + variables.flatMap { [$0.name, $0.name + "_FLAGS"] }
    for (variable, entry) in values.sorted(by: { $0.key < $1.key }) where !known.contains(variable) {
      faults.append(
        ReportEntry(entry.place, variable, .notNeeded, "Debian's start script does not know this variable itself."))
    }
    var instances: [Instance] = []
    for (mailProtocol, variable) in variables {
      // An empty value counts as none: the script sets `:=yes`.
      let isOn = values[variable].map { $0.value.isEmpty || $0.value == "yes" } ?? true
      guard isOn else { continue }
      let flags = ["FLAGS", variable + "_FLAGS"].compactMap { flag in
        values[flag].map { (words: words($0.value), place: "\($0.place) \(flag)") }
      }
      instances.append(Instance(mailProtocol: mailProtocol, flags: flags))
    }
    for flag in known where flag.hasSuffix("FLAGS") {
      guard let entry = values[flag], entry.value.contains(where: { "\"'\\".contains($0) }) else { continue }
      faults.append(
        ReportEntry(
          entry.place, "\(flag)=\(Masked.text(entry.value))", .changed,
          "Debian's script parts these words at blanks and nothing else: the quotes within reach Perdition as they "
            + "are, and so "
            + "were they read."))
    }
    return PerditionDefaults(instances: instances, faults: faults)
  }

  private static func words(_ text: String) -> [String] {
    text.split { $0 == " " || $0 == "\t" || $0 == "\n" }.map(String.init)
  }

  /// `NAME=value`, with quotes, `$NAME` and a comment behind.
  private static func assignment(_ line: Substring, _ known: [String: String]) -> (String, String)? {
    var line = line
    if line.hasPrefix("export ") { line = line.dropFirst(7).trimmed }
    let name = line.prefix { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "_") }
    guard let first = name.first, !first.isNumber, line[name.endIndex...].hasPrefix("=") else { return nil }
    var rest = line[name.endIndex...].dropFirst()
    var value = ""
    var quote: Character?
    while let character = rest.popFirst() {
      switch (character, quote) {
      case ("'", nil), ("\"", nil): quote = character
      case (_, .some(let open)) where character == open: quote = nil
      case ("$", nil), ("$", "\""):
        guard let expansion = expansion(&rest, known) else { return nil }
        value += expansion
      case ("`", nil), ("`", "\""): return nil
      case ("\\", nil): if let next = rest.popFirst() { value.append(next) }
      case ("\\", "\""):
        guard let next = rest.popFirst() else { return nil }
        if !"\"\\$`".contains(next) { value.append("\\") }
        value.append(next)
      case (" ", nil), ("\t", nil), (";", nil):
        let behind = rest.drop { $0 == " " || $0 == "\t" || $0 == ";" }
        guard behind.isEmpty || behind.hasPrefix("#") else { return nil }
        return (String(name), value)
      default: value.append(character)
      }
    }
    return quote == nil ? (String(name), value) : nil
  }

  private static func expansion(_ rest: inout Substring, _ known: [String: String]) -> String? {
    let isBraced = rest.first == "{"
    if isBraced { rest.removeFirst() }
    let name = rest.prefix { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "_") }
    guard !name.isEmpty else { return nil }
    rest = rest[name.endIndex...]
    if isBraced {
      guard rest.first == "}" else { return nil }
      rest.removeFirst()
    }
    return known[String(name)] ?? ""
  }
}

extension Substring {
  /// Without blanks and CR at both ends.
  var trimmed: Substring {
    let isBlank: (Character) -> Bool = { $0 == " " || $0 == "\t" || $0 == "\r" || $0 == "\r\n" }
    var text = drop(while: isBlank)
    while let last = text.last, isBlank(last) { text.removeLast() }
    return text
  }
}

/// The table of keys as text: explanations, the sample file, the manual page.

enum ConfigText {
  private static let width = 100

  /// `listeners[3].tls` and `listeners.tls` are both `listeners[].tls`.
  static func pattern(_ key: String) -> String {
    func plain(_ text: String) -> [Substring] {
      text.split { "[]0123456789.*".contains($0) }
    }
    return ConfigKeys.all.first { plain($0.path) == plain(key) }?.path ?? key
  }

  static func explain(_ key: ConfigKey) -> String {
    let standard = key.standard.map { "default: \($0)" } ?? "required"
    return "\(key.path)\n" + wrap("\(key.kind.expected); \(standard)", indent: "    ") + "\n"
      + wrap(key.help, indent: "    ")
  }

  /// etc/proxyd.yaml.
  static var sample: String {
    var text = """
      # proxyd's configuration. `proxyd check --config FILE` says what is wrong with it, `proxyd config explain KEY`
      # explains a key, proxyd.yaml(5) all of them. Relative paths start at this file's folder. SIGHUP reads it anew.

      """
    for key in ConfigKeys.all where !key.sample.isEmpty {
      text += "\n" + wrap(key.help, indent: "# ") + "\n"
      for child in ConfigKeys.all where child.path.hasPrefix(key.path + ".") || child.path.hasPrefix(key.path + "[") {
        let standard = child.standard.map { "default: \($0)" } ?? "required"
        text += wrap("\(child.path): \(child.help) (\(standard))", indent: "#   ", hanging: "  ") + "\n"
      }
      text += key.sample + "\n"
    }
    return String(text.dropLast())
  }

  /// etc/proxyd.yaml.5.
  static var manual: String {
    var text = """
      .\\" Made from the table of keys by `proxyd config manual`.
      .Dd November 24, 2026
      .Dt PROXYD.YAML 5
      .Os
      .Sh NAME
      .Nm proxyd.yaml
      .Nd configuration of the mail proxy
      .Sh DESCRIPTION
      The file is YAML.
      Relative paths start at its folder.
      A key that is not listed here is an error, and so is a key given twice.
      Times are written as 500ms, 90s, 31m or 1h, a bare number is of seconds; sizes as 16384, 16k or 1m.
      .Pp
      .Nm proxyd
      .Cm check
      validates a file with all that it names, and
      .Nm proxyd
      .Cm config explain
      prints what stands below.
      .Sh KEYS
      In the names,
      .Ql []
      stands for each entry of a list and
      .Ql *
      for each name of a map.
      .Bl -tag -width Ds

      """
    for key in ConfigKeys.all {
      let standard = key.standard.map { "Default: \($0)." } ?? "It must be given."
      text +=
        ".It Cm \(key.path)\n\(escape(sentences(key.help)))\n.br\nExpected: \(escape(key.kind.expected)).\n.br\n\(escape(standard))\n"
    }
    text += """
      .El
      .Sh EXAMPLES
      .Bd -literal

      """
    for key in ConfigKeys.all where !key.sample.isEmpty && !key.sample.hasPrefix("#") {
      text += escape(key.sample) + "\n"
    }
    text += """
      .Ed
      .Sh SEE ALSO
      .Xr proxyd 8
      """
    return text
  }

  /// mdoc(7): a sentence a line.
  private static func sentences(_ text: String) -> String { text.replacing(". ", with: ".\n") }

  /// roff: a line must not begin with a dot or an apostrophe, and a backslash stands for itself only as \\e.
  private static func escape(_ text: String) -> String {
    text.split(separator: "\n", omittingEmptySubsequences: false).map { line in
      let safe = line.replacing("\\", with: "\\e")
      return safe.hasPrefix(".") || safe.hasPrefix("'") ? "\\&" + safe : safe
    }.joined(separator: "\n")
  }

  private static func wrap(_ text: String, indent: String, hanging: String = "") -> String {
    var lines: [String] = []
    var line = indent
    for word in text.split(separator: " ") {
      if line.count + word.count + 1 > width, line != indent {
        lines.append(line)
        line = indent + hanging
      }
      line += line == indent || line == indent + hanging ? word[...] : " " + word
    }
    return (lines + [line]).joined(separator: "\n")
  }
}

/// A proxyd.yaml being written: keys in order, each with comments above it.

/// A key with its value.
package struct DraftKey: Equatable, Sendable {
  /// The key.
  package let name: String
  /// What it holds.
  package let value: DraftValue
  /// Lines above it, without `#`.
  package let comments: [String]

  /// A key with its value and comments.
  package init(_ name: String, _ value: DraftValue, _ comments: [String] = []) {
    self.name = name
    self.value = value
    self.comments = comments
  }

  /// A key with a text.
  package init(_ name: String, _ text: String, _ comments: [String] = []) {
    self.init(name, .text(text), comments)
  }
}

/// What a key holds.
package indirect enum DraftValue: Equatable, Sendable {
  /// A scalar, quoted where YAML wants it.
  case text(String)
  /// A list of scalars in one line.
  case texts([String])
  /// A map in lines of its own.
  case map([DraftKey])
  /// A map in one line.
  case line([DraftKey])
  /// A list of maps.
  case list([[DraftKey]])
}

/// A whole file.
package struct ConfigDraft: Equatable, Sendable {
  /// Lines at its top, without `#`.
  package var head: [String]
  /// Its keys.
  package var keys: [DraftKey] = []

  /// A file with nothing but its first lines.
  package init(head: [String]) { self.head = head }

  /// The YAML.
  package var text: String {
    var lines = head.map { $0.isEmpty ? "#" : "# " + $0 }
    for key in keys {
      lines.append("")
      lines += ConfigDraft.lines(key, indent: "")
    }
    return lines.joined(separator: "\n") + "\n"
  }

  private static func lines(_ key: DraftKey, indent: String) -> [String] {
    let comments = key.comments.flatMap { ImportReport.wrap($0, indent: indent + "# ", width: 110) }
    switch key.value {
    case .text, .texts, .line: return comments + ["\(indent)\(key.name): \(inline(key.value))"]
    case .map(let keys):
      return comments + ["\(indent)\(key.name):"] + keys.flatMap { lines($0, indent: indent + "  ") }
    case .list(let items) where items.isEmpty: return comments + ["\(indent)\(key.name): []"]
    case .list(let items):
      return comments + ["\(indent)\(key.name):"] + items.flatMap { item($0, indent: indent + "  ") }
    }
  }

  /// The first key of an item stands behind its dash, its comments above.
  private static func item(_ keys: [DraftKey], indent: String) -> [String] {
    guard let first = keys.first else { return [] }
    var result = first.comments.flatMap { ImportReport.wrap($0, indent: indent + "# ", width: 110) }
    let head = lines(DraftKey(first.name, first.value), indent: indent + "  ")
    result.append(indent + "- " + head[0].dropFirst(indent.count + 2))
    result += head.dropFirst()
    return result + keys.dropFirst().flatMap { lines($0, indent: indent + "  ") }
  }

  private static func inline(_ value: DraftValue) -> String {
    switch value {
    case .text(let text): scalar(text)
    case .texts(let texts): "[" + texts.map(scalar).joined(separator: ", ") + "]"
    case .line(let keys), .map(let keys):
      "{ " + keys.map { "\($0.name): \(inline($0.value))" }.joined(separator: ", ") + " }"
    case .list: preconditionFailure("a list of maps stands in lines of its own")
    }
  }

  /// A word as it is, everything else in double quotes.
  static func scalar(_ text: String) -> String {
    let plain = text.unicodeScalars.allSatisfy { scalar in
      scalar.isASCII
        && (scalar.properties.isAlphabetic || ("0"..."9").contains(scalar) || "._/-+$".unicodeScalars.contains(scalar))
    }
    if plain, let first = text.unicodeScalars.first, !"-+$".unicodeScalars.contains(first) { return text }
    var quoted = "\""
    for scalar in text.unicodeScalars {
      switch scalar {
      case "\"": quoted += "\\\""
      case "\\": quoted += "\\\\"
      case "\n": quoted += "\\n"
      case "\t": quoted += "\\t"
      default:
        if scalar.value < 0x20 || (0x7F..<0xA0).contains(scalar.value) {
          let hex = String(scalar.value, radix: 16)
          quoted += "\\x" + (hex.count < 2 ? "0" : "") + hex
        } else {
          quoted.unicodeScalars.append(scalar)
        }
      }
    }
    return quoted + "\""
  }
}

/// Walks over a configuration file's tree, types every value by the table of keys, and gathers all that is wrong.

internal import ProxyCore
internal import Yams

/// Something wrong in a file: `file:line:column: key: what is wrong, what was expected`.
struct ConfigError: Equatable, Sendable, CustomStringConvertible {
  let file: String
  /// Nil if it concerns the whole file.
  let place: Place?
  /// Empty if no key is concerned.
  let key: String
  let problem: String

  struct Place: Equatable, Sendable {
    let line: Int
    let column: Int

    init(line: Int, column: Int) {
      self.line = line
      self.column = column
    }

    init(_ mark: Mark) { self.init(line: mark.line, column: mark.column) }
  }

  var description: String {
    let place = place.map { ":\($0.line):\($0.column)" } ?? ""
    return "\(file)\(place): " + (key.isEmpty ? "" : "\(key): ") + problem
  }
}

/// All that is wrong with a configuration.
struct ConfigErrors: Error {
  let errors: [ConfigError]
}

/// Reads one file.
final class ConfigReader {
  let file: String
  private(set) var errors: [ConfigError] = []
  /// Where each value stands, by its key, for errors found when what it names is opened.
  private(set) var places: [String: ConfigError.Place] = [:]

  init(file: String) { self.file = file }

  func report(_ problem: String, key: String, at place: ConfigError.Place?) {
    errors.append(ConfigError(file: file, place: place, key: key, problem: problem))
  }

  fileprivate func remember(_ key: String, _ node: Node) {
    if let mark = node.mark { places[key] = ConfigError.Place(mark) }
  }

  /// A part of the file with named values.
  func section(_ node: Node, key: String, pattern: String) -> ConfigSection? {
    remember(key, node)
    guard case .mapping(let mapping) = node else {
      report("this is \(node.kindName), expected a map of keys", key: key, at: places[key])
      return nil
    }
    var entries: [String: Node] = [:]
    let known = ConfigKeys.children(of: pattern)
    for (name, value) in mapping {
      let place = name.mark.map { ConfigError.Place($0) }
      guard case .scalar(let scalar) = name else {
        report("a key must be a word", key: key, at: place)
        continue
      }
      let path = key.isEmpty ? scalar.string : "\(key).\(scalar.string)"
      guard known.contains(scalar.string) || known == ["*"] else {
        report(ConfigReader.unknown(scalar.string, known), key: path, at: place)
        continue
      }
      entries[scalar.string] = value
      remember(path, value)
    }
    return ConfigSection(
      reader: self, key: key, pattern: pattern, entries: entries, order: mapping.keys.compactMap(\.string))
  }

  /// The entries of a list, each with its key.
  func list(_ node: Node, key: String) -> [(key: String, node: Node)]? {
    remember(key, node)
    guard case .sequence(let sequence) = node else {
      report("this is \(node.kindName), expected a list", key: key, at: places[key])
      return nil
    }
    return sequence.enumerated().map { index, node in
      let entry = "\(key)[\(index)]"
      remember(entry, node)
      return (entry, node)
    }
  }

  private static func unknown(_ name: String, _ known: [String]) -> String {
    let nearest = known.min { distance(name, $0) < distance(name, $1) } ?? ""
    return "unknown key, did you mean \"\(nearest)\"? Known here: \(known.joined(separator: ", "))"
  }

  /// Levenshtein's distance.
  private static func distance(_ first: String, _ second: String) -> Int {
    let second = Array(second)
    var row = Array(0...second.count)
    for (line, letter) in first.enumerated() {
      var corner = row[0]
      row[0] = line + 1
      for (column, other) in second.enumerated() {
        let replaced = corner + (letter == other ? 0 : 1)
        corner = row[column + 1]
        row[column + 1] = min(replaced, row[column] + 1, corner + 1)
      }
    }
    return row[second.count]
  }
}

/// A map in the file, whose keys are all known. A value that is missing or wrong is nil, and reported.
struct ConfigSection {
  let reader: ConfigReader
  let key: String
  let pattern: String
  private let entries: [String: Node]
  /// The keys as the file has them.
  let order: [String]

  fileprivate init(reader: ConfigReader, key: String, pattern: String, entries: [String: Node], order: [String]) {
    self.reader = reader
    self.key = key
    self.pattern = pattern
    self.entries = entries
    self.order = order.filter { entries[$0] != nil }
  }

  func path(_ name: String) -> String { key.isEmpty ? name : "\(key).\(name)" }
  private func pattern(_ name: String) -> String { pattern.isEmpty ? name : "\(pattern).\(name)" }

  func has(_ name: String) -> Bool { entries[name] != nil }
  /// Whether the table has the key here.
  func isKnown(_ name: String) -> Bool { ConfigKeys.key(pattern(name)) != nil }
  func node(_ name: String) -> Node? { entries[name] }

  /// Reports a value.
  func report(_ problem: String, _ name: String) {
    reader.report(problem, key: path(name), at: reader.places[path(name)] ?? reader.places[key])
  }

  /// A value that must be there; reported if it is not.
  func required(_ name: String) -> Node? {
    if let node = entries[name] { return node }
    let kind = ConfigKeys.key(pattern(name))?.kind
    let expected = kind.map { ", expected \($0.expected)" } ?? ""
    reader.report("this key is missing\(expected)", key: path(name), at: reader.places[key])
    return nil
  }

  func section(_ name: String) -> ConfigSection? {
    entries[name].flatMap { reader.section($0, key: path(name), pattern: pattern(name)) }
  }

  /// The text of a scalar, typed as the table says by `parse`; a number is what its digits say, `no` is a word.
  func value<Value>(_ name: String, _ parse: (String) -> Value?) -> Value? {
    guard let node = entries[name] else { return nil }
    guard let kind = ConfigKeys.key(pattern(name))?.kind else { preconditionFailure("\(name) is not in the table") }
    guard case .scalar(let scalar) = node, !scalar.string.isEmpty else {
      report("this is \(node.kindName), expected \(kind.expected)", name)
      return nil
    }
    guard let value = parse(scalar.string) else {
      report("\"\(scalar.string)\" can't be used, expected \(kind.expected)", name)
      return nil
    }
    return value
  }

  func text(_ name: String) -> String? { value(name) { $0 } }

  /// A list of scalars, each typed by `parse`; one scalar alone is a list of one where the table says so.
  func values<Value>(_ name: String, _ parse: (String) -> Value?) -> [Value]? {
    guard let node = entries[name] else { return nil }
    guard let kind = ConfigKeys.key(pattern(name))?.kind else { preconditionFailure("\(name) is not in the table") }
    if case .scalar = node, kind.isOneOrMore { return value(name, parse).map { [$0] } }
    guard case .sequence(let sequence) = node else {
      report("this is \(node.kindName), expected \(kind.expected)", name)
      return nil
    }
    guard !sequence.isEmpty else {
      report("the list is empty, expected \(kind.expected)", name)
      return nil
    }
    var values: [Value] = []
    for (index, item) in sequence.enumerated() {
      let entry = "\(path(name))[\(index)]"
      reader.remember(entry, item)
      guard case .scalar(let scalar) = item, let value = parse(scalar.string) else {
        reader.report("\(item.kindName) can't be used, expected \(kind.expected)", key: entry, at: reader.places[entry])
        continue
      }
      values.append(value)
    }
    return values.count == sequence.count ? values : nil
  }

  /// A list of texts that are not empty.
  func texts(_ name: String) -> [String]? { values(name) { $0.isEmpty ? nil : $0 } }

  /// A list of some of the words of `Choice`, in lower case.
  func words<Choice: RawRepresentable<String> & CaseIterable>(_ name: String, _: Choice.Type) -> [Choice]? {
    values(name) { text in Choice.allCases.first { $0.rawValue.lowercased() == text } }
  }

  /// A list of networks.
  func networks(_ name: String) -> [Network]? { values(name) { Network($0) } }

  func integer(_ name: String) -> Int? {
    guard case .integer(let range)? = ConfigKeys.key(pattern(name))?.kind else {
      preconditionFailure("\(name): no integer")
    }
    return value(name) { text in text.allSatisfy(\.isNumber) ? Int(text).flatMap { range.contains($0) ? $0 : nil } : nil
    }
  }

  func size(_ name: String) -> Int? {
    guard case .size(let range)? = ConfigKeys.key(pattern(name))?.kind else { preconditionFailure("\(name): no size") }
    return value(name) { text in Size.parse(text).flatMap { range.contains($0) ? $0 : nil } }
  }

  func duration(_ name: String) -> UInt64? {
    guard case .duration(let range)? = ConfigKeys.key(pattern(name))?.kind else {
      preconditionFailure("\(name): no time")
    }
    return value(name) { text in Duration.parse(text).flatMap { range.contains($0) ? $0 : nil } }
  }

  /// One of the words the table lists.
  func choice<Choice: RawRepresentable<String>>(_ name: String, _: Choice.Type) -> Choice? {
    value(name) { Choice(rawValue: $0) }
  }

  func port(_ name: String) -> UInt16? { value(name) { HostPort.port($0[...]) } }
}

extension Node {
  /// What it is, for an error.
  var kindName: String {
    switch self {
    case .scalar(let scalar): scalar.string.isEmpty ? "empty" : "\"\(scalar.string)\""
    case .mapping: "a map"
    case .sequence: "a list"
    case .alias: "an alias"
    }
  }
}

/// The users of a popmap, of its text or of the database files made of it.

internal import Protocols

/// Keys with their answers, as they stand in a file.
package struct Popmap: Equatable, Sendable {
  /// The entries in order; of two with one key the first counts.
  package let entries: [Entry]
  /// Lines that are none, with their numbers.
  package let faults: [(line: Int, problem: String)]

  /// A key with its answer.
  package struct Entry: Equatable, Sendable {
    /// The line it stands on; 0 in a database, which has no lines.
    package let number: Int
    /// What is looked up.
    package let key: [UInt8]
    /// `[user<delimiter>]host[:port]`.
    package let value: [UInt8]
  }

  /// The same entries and faults.
  package static func == (one: Popmap, other: Popmap) -> Bool {
    one.entries == other.entries && one.faults.map(\.line) == other.faults.map(\.line)
  }

  /// Reads `key:value` lines as makegdbm does: no comments, and a blank is a byte like any other.
  package static func text(_ bytes: [UInt8]) -> Popmap {
    var entries: [Entry] = []
    var faults: [(line: Int, problem: String)] = []
    let lines = bytes.split(omittingEmptySubsequences: false) { $0 == .lineFeed }
    for (index, line) in lines.enumerated() {
      let number = index + 1
      let line = line.last == .carriageReturn ? line.dropLast() : line
      if line.isEmpty { continue }
      guard let colon = line.firstIndex(of: .ascii(":")), colon > line.startIndex, colon + 1 < line.endIndex else {
        faults.append((number, "it has no key, no colon or nothing behind it; makegdbm passes over it"))
        continue
      }
      entries.append(Entry(number: number, key: Array(line[..<colon]), value: Array(line[(colon + 1)...])))
    }
    return Popmap(entries: entries, faults: faults)
  }

  /// What a database's dumping tool printed; nil if that is in no known form.
  package static func dump(_ bytes: [UInt8]) -> Popmap? {
    let words = [gdbm, bdb, cdb, makers].lazy.compactMap { $0(bytes) }.first
    guard let words, words.count.isMultiple(of: 2) else { return nil }
    let entries = stride(from: 0, to: words.count, by: 2).map { index in
      // What was written without a line end at the file's end has harmless bytes behind a NUL.
      Entry(
        number: 0, key: Array(words[index].prefix { $0 != 0 }),
        value: Array(words[index + 1].prefix { $0 != 0 }))
    }
    return Popmap(entries: entries, faults: [])
  }

  /// gdbm_dump(1): lengths in comments, keys and values in base64, by turns.
  private static func gdbm(_ bytes: [UInt8]) -> [[UInt8]]? {
    let lines = bytes.split { $0 == .lineFeed }
    guard lines.first?.starts(with: Array("# GDBM".utf8)) == true else { return nil }
    var words: [[UInt8]] = []
    var current: [UInt8]?
    for line in lines.dropFirst() {
      if line.starts(with: Array("#:len=".utf8)) {
        if let current, !append(current, &words) { return nil }
        current = []
      } else if line.first != .ascii("#") {
        current?.append(contentsOf: line)
      }
    }
    if let current, !append(current, &words) { return nil }
    return words
  }

  /// makegdbm -u and makebdb -u: `key:value` with a line end behind, NULs before the value or before the key.
  private static func makers(_ bytes: [UInt8]) -> [[UInt8]]? {
    var words: [[UInt8]] = []
    for line in bytes.split(separator: .lineFeed) {
      let line = line.first == 0 ? line.dropFirst() : line
      if line.isEmpty { continue }
      guard let colon = line.firstIndex(of: .ascii(":")) else { return nil }
      let value = line[(colon + 1)...]
      words += [Array(line[..<colon]), Array(value.first == 0 ? value.dropFirst() : value)]
    }
    return words
  }

  private static func append(_ text: [UInt8], _ words: inout [[UInt8]]) -> Bool {
    var secret = Secret()
    guard Base64.decode(text.span, into: &secret) else { return false }
    words.append(secret.span.array)
    return true
  }

  /// db_dump -p: a header, then keys and values by turns, a blank in front, `\xx` for what can't be printed.
  private static func bdb(_ bytes: [UInt8]) -> [[UInt8]]? {
    let lines = bytes.split { $0 == .lineFeed }
    guard let head = lines.firstIndex(where: { $0.elementsEqual("HEADER=END".utf8) }) else { return nil }
    var words: [[UInt8]] = []
    for line in lines[(head + 1)...] {
      if line.elementsEqual("DATA=END".utf8) { return words }
      guard line.first == .space else { return nil }
      var word: [UInt8] = []
      var rest = line.dropFirst()
      while let byte = rest.popFirst() {
        if byte != .ascii("\\") {
          word.append(byte)
        } else if rest.first == .ascii("\\") {
          rest.removeFirst()
          word.append(byte)
        } else {
          guard let value = UInt8(String(decoding: rest.prefix(2), as: UTF8.self), radix: 16) else { return nil }
          rest = rest.dropFirst(2)
          word.append(value)
        }
      }
      words.append(word)
    }
    return nil
  }

  /// cdb -d: `+3,5:key->value`.
  private static func cdb(_ bytes: [UInt8]) -> [[UInt8]]? {
    guard bytes.first == .ascii("+") || bytes.first == .lineFeed else { return nil }
    var words: [[UInt8]] = []
    var rest = bytes[...]
    while rest.first == .ascii("+") {
      let head = rest.dropFirst().prefix { $0 != .ascii(":") && $0 != .lineFeed }
      let lengths = head.split(separator: .ascii(","), omittingEmptySubsequences: false).map {
        Int(String(decoding: $0, as: UTF8.self)) ?? -1
      }
      guard lengths.count == 2, lengths.allSatisfy({ (0...bytes.count).contains($0) }) else { return nil }
      rest = rest[head.endIndex...].dropFirst()
      let (key, value) = (rest.prefix(lengths[0]), rest.dropFirst(lengths[0] + 2).prefix(lengths[1]))
      guard key.count == lengths[0], value.count == lengths[1] else { return nil }
      words += [Array(key), Array(value)]
      rest = rest.dropFirst(lengths[0] + 2 + lengths[1] + 1)
    }
    return words
  }
}

/// A row of proxyd's SQLite map.
package struct MapRow: Equatable, Sendable {
  /// The key in ASCII lower case.
  package let name: String
  /// `host[:port]`.
  package let backend: String
  /// The name at the backend, if another.
  package let loginAs: String?
}

/// A popmap as rows of proxyd's map.
package struct PopmapRows: Equatable, Sendable {
  /// The rows that can be used, in order.
  package let rows: [MapRow]
  /// What became of the others, and of keys that are the same in lower case.
  package let report: [ReportEntry]

  /// Rows of entries; `isServer` says whether a text is `host[:port]`, and `asksDomains` whether the keys that are
  /// asked for can begin with the delimiter.
  package init(
    _ popmap: Popmap, file: String, delimiter: String, keepsUsers: Bool, asksDomains: Bool, isServer: (String) -> Bool
  ) {
    var rows: [MapRow] = []
    var seen: [String: Popmap.Entry] = [:]
    var report = popmap.faults.map { ReportEntry("\(file):\($0.line)", "", .notNeeded, "\($0.problem).") }
    var dropped = 0
    // Of keys that differ in case alone, the one in lower case is whom clients mean.
    let plain = Set(popmap.entries.lazy.map(\.key).filter { $0.allSatisfy { $0.lowercased == $0 } })
    for entry in popmap.entries {
      let place = entry.number > 0 ? "\(file):\(entry.number)" : file
      let key = String(decoding: entry.key, as: UTF8.self)
      let value = String(decoding: entry.value, as: UTF8.self)
      func refuse(_ verdict: Verdict, _ text: String) {
        report.append(ReportEntry(place, "\(key):\(value)", verdict, text))
      }
      let lower = entry.key.map(\.lowercased)
      let name = String(decoding: lower, as: UTF8.self)
      if let first = seen[name], first.key == entry.key {
        refuse(
          .notNeeded, "the key stands there before, on line \(first.number), and the first counts, as with makegdbm.")
        continue
      }
      if seen[name] != nil || (lower != entry.key && plain.contains(lower)) {
        refuse(
          .lost,
          "proxyd looks up names in lower case, and another row has this key then. That one counts; these are one "
            + "user, or one must be "
            + "renamed.")
        continue
      }
      if String(validating: entry.key, as: UTF8.self) == nil || entry.key.contains(where: \.isControl) {
        refuse(.lost, "the key holds bytes that no name can have.")
        continue
      }
      if delimiter == "@", name.hasPrefix("@"), !asksDomains {
        refuse(
          .notNeeded,
          "no query_key makes a key of this form, so Perdition never found it. In proxyd it would be the domain's, "
            + "so it was "
            + "left out.")
        continue
      }
      let server = PerditionServer(value, delimiter: delimiter)
      guard let backend = server.backend, isServer(backend) else {
        refuse(.lost, "\"\(server.host)\(server.port.map { ":\($0)" } ?? "")\" is not host[:port].")
        continue
      }
      var loginAs: String?
      if let user = server.user {
        if !keepsUsers {
          dropped += 1
        } else if user.isEmpty || user.utf8.contains(where: \.isControl) {
          refuse(.lost, "\"\(user)\" is no name to log in with.")
          continue
        } else if name.hasPrefix("@") {
          refuse(
            .lost, "a domain's row can't have a name to log in with in proxyd; use a regex or a query of your own.")
          continue
        } else {
          loginAs = user
        }
      }
      seen[name] = entry
      rows.append(MapRow(name: name, backend: backend, loginAs: loginAs))
    }
    if dropped > 0 {
      report.append(
        ReportEntry(
          file, "", .notNeeded,
          "\(Counted.text(dropped, "answer")) had a user in front of the server, which Perdition passes over without "
            + "username_from_database; it "
            + "was left out."))
    }
    self.rows = rows
    self.report = report
  }
}

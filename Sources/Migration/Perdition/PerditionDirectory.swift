/// The option string of Perdition's LDAP library: a URL, with what proxyd has for each of its parts.

internal import Protocols

/// `[2:|3:]ldap[s]://host[ host…]/base?attributes?scope?filter?extensions`.
package struct PerditionDirectory: Equatable, Sendable {
  /// One URL for each host, in order.
  package let urls: [String]
  /// Where the search begins, `%u` for the key.
  package let base: String
  /// How deep it goes, in proxyd's words.
  package let scope: String
  /// What must match, `%u` for the key.
  package let filter: String
  /// The attributes asked for, at most three: user, host, port.
  package let attributes: [String]
  /// Who binds; nil for nobody.
  package let bindName: String?
  /// With which password.
  package let password: String?
  /// The protocol's version in front of the URL.
  package let version: Int?
  /// What is not as it was.
  package let notes: [String]

  /// Nil if the text is no such URL.
  package init?(_ text: String) {
    var text = text[...]
    var notes: [String] = []
    var version: Int?
    if text.hasPrefix("2:") || text.hasPrefix("3:") {
      version = text.first?.wholeNumberValue
      text = text.dropFirst(2)
    }
    guard let mark = text.firstIndex(of: ":"), text[mark...].hasPrefix("://") else { return nil }
    let scheme = text[..<mark].lowercased()
    guard ["ldap", "ldaps"].contains(scheme) else { return nil }
    let rest = text[mark...].dropFirst(3)
    let hosts = rest.prefix { $0 != "/" && $0 != "?" }
    let parts = rest[hosts.endIndex...].drop { $0 == "/" }.split(
      separator: "?", maxSplits: 4, omittingEmptySubsequences: false
    ).map(String.init)
    func part(_ index: Int) -> String { index < parts.count ? parts[index] : "" }
    let names = PerditionDirectory.decode(String(hosts), &notes).split { $0 == " " || $0 == "," }.map(String.init)
    urls = (names.isEmpty ? ["localhost"] : names).map { "\(scheme)://\($0)" }
    base = PerditionDirectory.decode(part(0), &notes)
    attributes = part(1).split(separator: ",").map { PerditionDirectory.decode(String($0), &notes) }
    switch part(2).lowercased() {
    case "one", "onelevel": scope = "one"
    case "sub", "subtree": scope = "sub"
    default: scope = "base"
    }
    let wanted = PerditionDirectory.decode(part(3), &notes)
    filter = wanted.isEmpty ? "(objectClass=*)" : wanted
    var bindName: String?
    var password: String?
    for item in part(4).split(separator: ",") {
      let word = item.hasPrefix("!") ? item.dropFirst() : item
      let pair = word.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
      var ignored: [String] = []
      let value = pair.count == 2 ? PerditionDirectory.decode(pair[1], &ignored, escaped: false) : ""
      switch pair[0].uppercased() {
      case "BINDNAME": bindName = value
      case "X-BINDPW": password = value
      default: notes.append("the extension \(pair[0]) is not known")
      }
    }
    self.bindName = bindName
    self.password = password
    self.version = version
    self.notes = notes
  }

  /// `%s` becomes `%u`, `%xx` a byte, and a byte that is a percent sign `%%`.
  private static func decode(_ text: String, _ notes: inout [String], escaped: Bool = true) -> String {
    var out: [UInt8] = []
    var rest = Array(text.utf8)[...]
    while let byte = rest.popFirst() {
      guard byte == .ascii("%") else {
        out.append(byte)
        continue
      }
      let digits = rest.prefix(while: \.isDigit)
      if rest[digits.endIndex...].first == .ascii("s") {
        if !digits.isEmpty {
          notes.append(
            "%\(String(decoding: digits, as: UTF8.self))s pads the key with blanks; here it is the key alone")
        }
        rest = rest[digits.endIndex...].dropFirst()
        out += Array("%u".utf8)
      } else if rest.count >= 2, let value = UInt8(String(decoding: rest.prefix(2), as: UTF8.self), radix: 16) {
        rest = rest.dropFirst(2)
        out += value == .ascii("%") && escaped ? [value, value] : [value]
      } else {
        out += escaped ? [byte, byte] : [byte]
      }
    }
    return String(decoding: out, as: UTF8.self)
  }
}

/// The data source of ODBC that a name stands for, from odbc.ini.
package struct DataSource: Equatable, Sendable {
  /// What kind of server it leads to.
  package let driver: Driver
  /// The section's values, names in lower case.
  package let values: [String: String]

  /// The drivers that proxyd can speak to by itself.
  package enum Driver: Equatable, Sendable {
    case mysql, postgresql, sqlite
    /// Another one, by its name.
    case other(String)
  }

  /// Nil if the text has no such section.
  package init?(_ bytes: [UInt8], name: String) {
    let text = String(decoding: bytes, as: UTF8.self)
    var values: [String: String]?
    var isInside = false
    for line in text.utf8.split(separator: 0x0A) {
      let line = Substring(line).trimmed
      if line.hasPrefix("#") || line.hasPrefix(";") { continue }
      if line.hasPrefix("[") {
        isInside = line.dropFirst().prefix { $0 != "]" }.lowercased() == name.lowercased()
        if isInside, values == nil { values = [:] }
      } else if isInside, let equals = line.firstIndex(of: "=") {
        values?[line[..<equals].trimmed.lowercased()] = String(line[line.index(after: equals)...].trimmed)
      }
    }
    guard let values else { return nil }
    self.values = values
    let word = values["driver"] ?? ""
    let lower = word.lowercased()
    driver =
      if lower.contains("maria") || lower.contains("mysql") || lower.contains("libmyodbc") || lower.contains("maodbc") {
        .mysql
      } else if lower.contains("postgres") || lower.contains("psql") { .postgresql } else if lower.contains("sqlite") {
        .sqlite
      } else { .other(word) }
  }
}

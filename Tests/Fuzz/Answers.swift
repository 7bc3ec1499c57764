/// A libFuzzer target for each reader of what is neither a client's nor a mail server's: imported configurations and maps,
/// services' answers, and operators' templates and queries.
///
/// Nothing may trap or run away, what is made of the same bytes is the same, and what is promised of a result holds.

import Glibc
import Migration
import Protocols

/// Plays an input to the target of that name; false if there is none.
func fuzzAnswer(_ target: String, _ bytes: [UInt8]) -> Bool {
  switch target {
  case "perdition-site": importSite(bytes)
  case "perdition-map": readMaps(bytes)
  case "perdition-words": readWords(bytes)
  case "nginx-mail": importNginx(bytes)
  case "auth-http": readAnswer(bytes)
  case "name-templates": expandTemplates(bytes)
  case "sql-query": readQuery(bytes)
  default: return false
  }
  return true
}

/// The parts of an input, parted by NUL, which no text of these holds.
private func parts(_ bytes: [UInt8], _ count: Int) -> [[UInt8]] {
  var parts = bytes.split(separator: 0, maxSplits: count - 1, omittingEmptySubsequences: false).map(Array.init)
  while parts.count < count { parts.append([]) }
  return parts
}

private func isServer(_ text: String) -> Bool { !text.isEmpty && !text.contains(" ") }
private func isAddress(_ text: String) -> Bool { text.utf8.allSatisfy { $0.isDigit || $0 == .ascii(".") } }

/// A whole import: two configuration files, Debian's defaults, and one text for whatever else is asked for.
private func importSite(_ bytes: [UInt8]) {
  let parts = parts(bytes, 4)
  let site = PerditionSite(
    files: [("perdition.conf", parts[0]), ("perdition.imap4.conf", parts[1])],
    defaults: parts[2].isEmpty ? nil : ("default", parts[2]))
  var materials: [MaterialRequest: Material] = [:]
  for request in site.requests {
    switch request {
    case .popmap(_, let path): materials[request] = .popmap(Popmap.text(parts[3]), path: path)
    case .file(let path): materials[request] = .bytes(parts[3], path: path)
    case .authorities: materials[request] = .missing("not here")
    }
  }
  let result = site.plan(materials, isServer: isServer, isAddress: isAddress)
  expect(result == site.plan(materials, isServer: isServer, isAddress: isAddress), "two imports differ")
  for configuration in result.configurations {
    let text = configuration.draft.text
    expect(text.hasSuffix("\n"), "a configuration without an end")
    expect(!text.utf8.contains { $0.isControl && $0 != .lineFeed }, "a control character in a configuration")
  }
  expect(!result.report.text.utf8.contains { $0.isControl && $0 != .lineFeed }, "a control character in a report")
}

private func readMaps(_ bytes: [UInt8]) {
  let popmap = Popmap.text(bytes)
  expect(popmap.entries.allSatisfy { !$0.key.isEmpty && !$0.value.isEmpty }, "an empty entry")
  _ = Popmap.dump(bytes)
  let rules = PopmapRegex.read(bytes, file: "popmap.re")
  for keepsUsers in [true, false] {
    let file = PopmapRegexFile(
      rules.rules, file: "popmap.re", delimiter: "@", keepsUsers: keepsUsers, isServer: isServer)
    // What is written is read as what was meant.
    let again = PopmapRegex.read(Array(file.text.utf8), file: "routes.re")
    expect(again.rules.count == file.count, "rules were lost: \(file.text)")
    expect(again.faults.isEmpty, "rules that can't be read: \(file.text)")
  }
}

private func readWords(_ bytes: [UInt8]) {
  let text = String(decoding: bytes, as: UTF8.self)
  if let directory = PerditionDirectory(text) { expect(!directory.urls.isEmpty, "a directory without an address") }
  for dialect in [PerditionMap.Dialect.mysql, .postgresql, .odbc] { _ = NineFields(text, dialect) }
  _ = DataSource(bytes, name: "mail")
  _ = PerditionDefaults.read(bytes, name: "default")
  _ = PerditionFile.read(bytes)
}

/// A file and what it includes.
private func importNginx(_ bytes: [UInt8]) {
  let parts = parts(bytes, 2)
  guard
    let directives = try? NginxConf.read(
      name: "nginx.conf", bytes: parts[0], include: { .files([($0, parts[1])]) })
  else { return }
  let mail = NginxMail(directives, isAddress: isAddress)
  let result = mail.plan(name: "nginx.conf", prefix: "/etc/nginx/", isNetwork: isAddress)
  expect(
    result == mail.plan(name: "nginx.conf", prefix: "/etc/nginx/", isNetwork: isAddress), "two imports differ")
  for configuration in result.configurations {
    let text = configuration.draft.text
    expect(!text.utf8.contains { $0.isControl && $0 != .lineFeed }, "a control character in a configuration")
  }
  expect(!result.report.text.utf8.contains { $0.isControl && $0 != .lineFeed }, "a control character in a report")
}

/// The answer of a service of auth_http; the password must never be in a reason.
private func readAnswer(_ bytes: [UInt8]) {
  var password = Secret()
  let answer = AuthHTTPAnswer.read(bytes.span, password: &password)
  switch answer {
  case .accepted(let accepted): expect(!accepted.backend.isEmpty, "a destination without a name")
  case .refused(let refused):
    expect(!refused.words.contains { $0.isControl }, "a control character for the client")
    expect(refused.words.count <= 1_024, "long words for the client")
  case .again: break
  case .failed: expect(password.isEmpty, "a password of a failed answer is kept")
  }
}

private func expandTemplates(_ bytes: [UInt8]) {
  let parts = parts(bytes, 2)
  let text = String(decoding: parts[0], as: UTF8.self)
  var rules = NameRules()
  if let first = parts[1].first { rules.delimiter = Array(parts[1].prefix(Int(first % 3) + 1)) }
  rules.stripDomain = [.lookup]
  rules.addDomain = [.backend]
  rules.lowerCase = Set(NamePurpose.allCases)
  rules.domain = .ofAddress(strippedLabels: 1)
  let name = parts[1]
  for purpose in NamePurpose.allCases {
    let rewritten = rules.name(name, for: purpose, addressName: parts[0])
    expect(rules.name(rewritten, for: .log) == rewritten.map(\.lowercased), "lower case is not the end")
    expect(name.isEmpty || purpose == .backend || !rewritten.isEmpty, "nothing is left of a name")
  }
  if let template = KeyTemplate(text) { _ = template.key(name, rules, KeyFacts()) }
  if let template = NameTemplate(text) {
    let values = NameTemplate.Values(name: name, user: name, domain: parts[0], mailProtocol: .imap)
    for escaping in NameTemplate.Escaping.allCases { _ = template.expand(values, escaping) }
  }
}

private func readQuery(_ bytes: [UInt8]) {
  let text = String(decoding: bytes, as: UTF8.self)
  for dialect in [SQLQuery.Dialect.postgresql, .mysql] { _ = try? SQLQuery(text, dialect) }
}

import Foundation
import ProxyCore
import Testing

@testable import Migration

/// A folder of the corpus: a site of Perdition, and what an import must make of it.
///
/// `PROXYD_REGENERATE=1 swift test --filter CorpusTests` writes what is made now over what is expected: look at the
/// difference.
struct CorpusCase: CustomStringConvertible, Sendable {
  let folder: URL
  var description: String { folder.lastPathComponent }

  static let root = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "Corpus")

  static let all: [CorpusCase] = {
    let names = (try? FileManager.default.contentsOfDirectory(atPath: root.path)) ?? []
    return names.filter { $0.first?.isNumber == true }.sorted().map { CorpusCase(folder: root.appending(path: $0)) }
  }()

  var names: [String] { ((try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []).sorted() }

  func bytes(_ name: String) -> [UInt8]? {
    (try? Data(contentsOf: folder.appending(path: name))).map { Array($0) }
  }

  var site: PerditionSite {
    let files = names.filter { $0.hasPrefix("perdition") && $0.hasSuffix(".conf") }.map { ($0, bytes($0) ?? []) }
    return PerditionSite(files: files, defaults: bytes("defaults").map { ("defaults", $0) })
  }

  /// What a request finds in the folder: the file of that name, the dump of a database, its text.
  func fetch(_ request: MaterialRequest) -> Material {
    func base(_ path: String) -> String { path.split(separator: "/").last.map(String.init) ?? path }
    switch request {
    case .file(let path):
      return bytes(base(path)).map { .bytes($0, path: base(path)) } ?? .missing("\(base(path)): not there.")
    case .authorities:
      return bytes("authorities.pem").map { .bytes($0, path: "perdition.ca") } ?? .missing("nothing there.")
    case .popmap(_, let path):
      if let dump = bytes(base(path) + ".dump").flatMap({ Popmap.dump($0) }) { return .popmap(dump, path: base(path)) }
      if let text = bytes("popmap") { return .popmap(Popmap.text(text), path: "popmap") }
      return .missing("\(base(path)): not there.")
    }
  }

  var result: ImportResult {
    let site = site
    return site.plan(
      Dictionary(uniqueKeysWithValues: site.requests.map { ($0, fetch($0)) }), isServer: { HostPort($0) != nil },
      isAddress: { SocketAddress(literal: $0, port: 0) != nil })
  }

  /// What is expected, by the names of its files.
  var made: [String: String] {
    let result = result
    var made: [String: String] = [:]
    for (index, configuration) in result.configurations.enumerated() {
      made[index == 0 ? "expected.yaml" : "expected-\(index + 1).yaml"] = configuration.draft.text
    }
    made["expected.report"] = result.report.text
    made["exit"] = result.report.count(.lost) > 0 ? "1\n" : "0\n"
    var files = ""
    for file in result.files {
      files += "== \(file.name)\(file.isSecret ? " (secret)" : "")\n"
      switch file.content {
      case .text(let text): files += text
      case .map(let rows):
        for row in rows { files += "\(row.name)\t\(row.backend)\(row.loginAs.map { "\t\($0)" } ?? "")\n" }
      }
    }
    if !files.isEmpty { made["expected.files"] = files }
    return made
  }
}

struct CorpusTests {
  @Test func thereAreEnough() { #expect(CorpusCase.all.count >= 30) }

  @Test(arguments: CorpusCase.all)
  func imports(_ item: CorpusCase) throws {
    let made = item.made
    if ProcessInfo.processInfo.environment["PROXYD_REGENERATE"] == "1" {
      for name in item.names where name.hasPrefix("expected") || name == "exit" {
        try FileManager.default.removeItem(at: item.folder.appending(path: name))
      }
      for (name, text) in made { try Data(text.utf8).write(to: item.folder.appending(path: name)) }
      return
    }
    let expected = item.names.filter { $0.hasPrefix("expected") || $0 == "exit" }
    #expect(expected == made.keys.sorted())
    for name in expected {
      #expect(String(decoding: item.bytes(name) ?? [], as: UTF8.self) == made[name], "\(item.folder.path)/\(name)")
    }
  }

  /// Every option of the table is met somewhere in the corpus, in effect.
  @Test func theCorpusHasEveryOption() {
    var met = Set<PerditionOption>()
    for item in CorpusCase.all {
      for instance in item.site.instances { for setting in instance.settings { met.insert(setting.option) } }
    }
    #expect(Set(PerditionOption.allCases).subtracting(met).map(\.rawValue).sorted() == [])
  }

  /// Nothing is silently lost: each setting and each fault of an instance has its entry.
  @Test(arguments: CorpusCase.all)
  func everySettingHasItsEntry(_ item: CorpusCase) {
    let report = item.result.report
    for instance in item.site.instances {
      let entries = report.sections.filter { $0.title.contains(instance.program + " (") }.flatMap(\.entries)
      for setting in instance.settings {
        #expect(entries.contains { $0.place == setting.place && $0.setting == setting.option.shown(setting.value) })
      }
    }
    #expect(report.sections.flatMap(\.entries).allSatisfy { !$0.text.isEmpty })
  }

  /// No password of a map stands in a report or a configuration.
  @Test(arguments: CorpusCase.all)
  func passwordsStayInTheirFiles(_ item: CorpusCase) {
    for (name, text) in item.made where name != "expected.files" { #expect(!text.contains("s3cret"), "\(name)") }
  }
}

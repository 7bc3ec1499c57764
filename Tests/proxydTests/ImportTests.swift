import Foundation
import Testing

@testable import proxyd

/// What an import writes is what the program reads.
struct ImportTests {
  private static let corpora = ConfigKeysTests.root.appending(path: "Tests/MigrationTests")

  static let configurations: [String] = {
    let files = FileManager.default.enumerator(atPath: corpora.path)?.compactMap { $0 as? String } ?? []
    return files.filter { $0.hasSuffix(".yaml") }.sorted()
  }()

  /// Sources whose keys this build does not have yet.
  static let pending = ["mysql", "postgresql", "ldap"].filter { kind in
    !ConfigKeys.all.contains { $0.path.hasPrefix("routes[].\(kind).") }
  }

  @Test func thereAreEnough() { #expect(ImportTests.configurations.count > 60) }

  @Test(arguments: configurations)
  func isRead(_ path: String) throws {
    let text = try String(contentsOf: ImportTests.corpora.appending(path: path), encoding: .utf8)
    if ImportTests.pending.contains(where: { text.contains("- \($0):") }) { return }
    do throws(ConfigErrors) { _ = try ConfigFile(text, path: path) } catch {
      for error in error.errors { Issue.record("\(error)") }
    }
  }
}

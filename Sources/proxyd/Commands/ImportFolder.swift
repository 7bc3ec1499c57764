/// The folder an import writes: all files or none, and no other's without being told.

internal import ArgumentParser
internal import Migration
internal import ProxyCore

struct ImportFolder {
  let path: String
  /// Whether files that are there already may go.
  let replaces: Bool

  static let report = "report.txt"

  init(path: String, replaces: Bool) {
    self.path = path
    self.replaces = replaces
  }

  func path(_ name: String) -> String { path.hasSuffix("/") ? path + name : "\(path)/\(name)" }

  /// Writes all, says so, and ends with status 1 if something is lost.
  func conclude(_ result: ImportResult) throws {
    if let problem = write(result) {
      Console.error(problem)
      throw ExitCode(2)
    }
    Console.say(result.report.summary)
    for configuration in result.configurations { Console.say("wrote \(path(configuration.name))") }
    for file in result.files { Console.say("wrote \(path(file.name))") }
    Console.say("wrote \(path(ImportFolder.report))")
    for configuration in result.configurations { check(path(configuration.name)) }
    if result.report.count(.lost) > 0 {
      Console.say("the report has \(result.report.count(.lost)) entries that can't be carried over")
      throw ExitCode.failure
    }
  }

  /// What `proxyd check` says. A certificate that this machine lacks is no fault of the import.
  private func check(_ path: String) {
    do throws(ConfigErrors) {
      let file = try ConfigFile(path)
      do throws(SettingsErrors) {
        for warning in try Proxy.check(file.settings) { Console.say("check: warning: \(file.locate(warning))") }
        Console.say("check: \(path): ok")
      } catch { throw file.locate(error) }
    } catch {
      for error in error.errors { Console.say("check: \(error)") }
    }
  }

  /// What went wrong; nil if all is written.
  func write(_ result: ImportResult) -> String? {
    if let error = TextFile.makeFolder(path) { return "\(path): the folder can't be made: \(error)" }
    var files = result.configurations.map { ImportFile($0.name, .text($0.draft.text)) } + result.files
    files.append(ImportFile(ImportFolder.report, .text(result.report.text)))
    for file in files where TextFile.exists(path(file.name)) {
      guard replaces else { return "\(path(file.name)): it is there already; --force overwrites it" }
    }
    for file in files {
      if let problem = write(file) { return "\(path(file.name)): \(problem)" }
    }
    return nil
  }

  private func write(_ file: ImportFile) -> String? {
    let path = path(file.name)
    // A map's log belongs to the old file.
    for old in [path, path + "-wal", path + "-shm"] {
      if let error = TextFile.remove(old) { return "it can't be replaced: \(error)" }
    }
    switch file.content {
    case .text(let text): return TextFile.create(path, Array(text.utf8), isSecret: file.isSecret)?.description
    case .map(let rows): return write(rows, path)
    }
  }

  private func write(_ rows: [MapRow], _ path: String) -> String? {
    do throws(SQLiteError) {
      let map = try SQLiteMap(path, creating: true)
      let outcome = try map.atomically { () throws(SQLiteError) in
        for row in rows {
          guard let name = SQLiteMap.Name(row.name) else { continue }
          try map.set(SQLiteMap.Row(name: name, backend: row.backend, loginAs: row.loginAs))
        }
      }
      try outcome.get()
    } catch { return error.message }
    return nil
  }
}

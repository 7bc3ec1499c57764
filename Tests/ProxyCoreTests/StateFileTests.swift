import Foundation
import Glibc
import Testing

@testable import ProxyCore

struct StateFileTests {
  let folder: Folder
  let path: String

  init() throws {
    folder = try Folder()
    path = folder.file("state.db")
  }

  @Test func isMadeForItsOwnerAlone() throws {
    let file = try StateFile(path) { _ in }
    #expect(mode(path) == 0o600 && mode(path + "-wal") == 0o600)
    #expect(file.backends == [])
    file.close()
    #expect(!FileManager.default.fileExists(atPath: path + "-wal"), "what was in the log is in the file")
    #expect(
      try run("sqlite3", path, "PRAGMA journal_mode; PRAGMA user_version; PRAGMA application_id")
        == "wal\n1\n\(0x7072_7864)\n")
  }

  @Test func keepsWhatOperatorsTold() throws {
    let rows = [
      BackendRow(name: "a", state: .maintenance, weight: nil, since: 1_800_000_000),
      BackendRow(name: "b", state: .ready, weight: 50, since: 5),
      BackendRow(name: "c", state: .drain, weight: 0, since: 7),
      BackendRow(name: "d", state: .removed, weight: 1, since: 8),
    ]
    let file = try StateFile(path) { _ in }
    for row in rows { #expect(file.save(row) == nil) }
    #expect(try afterKill(path, folder).backends() == rows, "at once")
    #expect(file.save(BackendRow(name: "a", state: .ready, weight: nil, since: 9)) == nil)
    #expect(file.save(BackendRow(name: "b", state: .drain, weight: nil, since: 10)) == nil)
    file.close()
    #expect(file.save(rows[0]) == "the file is closed")
    let again = try StateFile(path) { _ in }
    defer { again.close() }
    #expect(again.backends == [BackendRow(name: "b", state: .drain, weight: nil, since: 10), rows[2], rows[3]])
  }

  // MARK: What can't be used

  /// Nothing is changed in a file that is not ours, and the error names it.
  private func expectRefused(_ words: String, _ location: SourceLocation = #_sourceLocation) {
    let before = bytes(path)
    do {
      _ = try StateFile(path) { _ in }
      Issue.record("it was opened", sourceLocation: location)
    } catch {
      #expect(error.path == path && error.problem.contains(words), "\(error)", sourceLocation: location)
      #expect(error.description.hasPrefix(path + ": "), sourceLocation: location)
    }
    #expect(bytes(path) == before, sourceLocation: location)
  }

  @Test func aTextIsNoStateFile() throws {
    try String(repeating: "no database\n", count: 500).write(toFile: path, atomically: false, encoding: .utf8)
    expectRefused("it is damaged, or no database")
  }

  @Test func anotherDatabaseIsNoStateFile() throws {
    try run("sqlite3", path, "CREATE TABLE users(login)")
    expectRefused("not one of proxyd's state")
    try run("sqlite3", path, "DROP TABLE users; PRAGMA application_id = 77")
    expectRefused("not one of proxyd's state")
  }

  @Test func aNewerOneIsLeftAlone() throws {
    try StateFile(path) { _ in }.close()
    try run("sqlite3", path, "PRAGMA user_version = 2")
    expectRefused("written by a newer proxyd")
  }

  @Test func aDamagedOneIsLeftAlone() throws {
    let file = try StateFile(path) { _ in }
    let directory = try LocalDirectory(pool: "mail", affinity(.table), file: file)
    for number in 0..<2_000 { directory.move("user\(number)@example.com", to: "a") }
    file.close()
    let size = try #require(bytes(path)).count
    #expect(size > 10 * 4_096)
    let handle = try FileHandle(forWritingTo: URL(filePath: path))
    for page in 4..<size / 4_096 {
      try handle.seek(toOffset: UInt64(page * 4_096))
      handle.write(Data(repeating: 0xA5, count: 100))
    }
    try handle.close()
    let before = bytes(path)
    let damaged = try StateFile(path) { _ in }
    do {
      _ = try LocalDirectory(pool: "mail", affinity(.table), file: damaged)
      Issue.record("it was read")
    } catch { #expect(error.path == path && error.problem.contains("malformed"), "\(error)") }
    damaged.close()
    #expect(bytes(path)?.dropFirst(4_096) == before?.dropFirst(4_096))
    // Its first page.
    let first = try FileHandle(forWritingTo: URL(filePath: path))
    try first.seek(toOffset: 100)
    first.write(Data(repeating: 0xA5, count: 200))
    try first.close()
    expectRefused("damaged")
  }

  @Test func aFolderIsNoStateFile() throws {
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
    expectRefused("unable to open")
  }

  @Test func withoutAFolderThereIsNone() throws {
    do {
      _ = try StateFile(folder.file("nowhere/state.db")) { _ in }
      Issue.record("it was opened")
    } catch { #expect(error.problem == "it can't be made: No such file or directory") }
  }

  /// What somebody may not write.
  @Test func oneThatCannotBeWritten() throws {
    try StateFile(path) { _ in }.close()
    chmod(path, 0o444)
    let before = bytes(path)
    // A thread may be somebody else to the file system. (Root may write everywhere.)
    let finished = DispatchSemaphore(value: 0)
    let problems = Shared<[String]>([])
    let files = [path, folder.file("new.db")]
    Thread.detachNewThread {
      typealias Become = @convention(c) (uid_t) -> Int32
      let become = unsafeBitCast(dlsym(nil, "setfsuid"), to: Become.self)
      if geteuid() == 0 { _ = become(65_534) }
      for file in files {
        do throws(StateFileError) { try StateFile(file) { _ in }.close() } catch {
          problems.withLock { $0.append(error.problem) }
        }
      }
      finished.signal()
    }
    finished.wait()
    if geteuid() == 0 {
      #expect(problems.value == ["it can't be written", "it can't be made: Permission denied"])
    } else {
      #expect(problems.value == ["it can't be written"])
    }
    #expect(bytes(path) == before)
    chmod(path, 0o600)
  }

  @Test func twoCannotHaveIt() throws {
    let file = try StateFile(path) { _ in }
    #expect(throws: StateFileError(path: path, problem: "another process has it open, a second proxyd maybe")) {
      try StateFile(path) { _ in }
    }
    // A real other process, too.
    let reader = "sqlite3 \"$0\" 'SELECT count(*) FROM backends' 2>&1 || true"
    #expect(try run("sh", "-c", reader, path).contains("database is locked"))
    #expect(file.save(BackendRow(name: "a", state: .drain, weight: nil, since: 1)) == nil)
    file.close()
    let next = try StateFile(path) { _ in }
    #expect(next.backends.map(\.name) == ["a"])
    next.close()
  }
}

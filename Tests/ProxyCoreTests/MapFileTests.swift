// swift-format-ignore-file: NeverForceUnwrap

import Foundation
import Testing

@testable import Protocols
@testable import ProxyCore

private func query(_ user: String) -> RouteQuery { RouteQuery(user: Array(user.utf8), mailProtocol: .imap) }

/// The files as Debian's own tools make them.
private enum Maker {
  static let pairs = [
    ("alice", "a"), ("bob@example.org", "robert@b"), ("@example.com", "c"), ("user@example.com", "a"), ("carol", "!"),
    ("long", String(repeating: "x", count: 4_096)), ("longer", String(repeating: "x", count: 4_097)), ("empty", "@"),
  ]

  static func make(_ format: MapFile.Format, _ folder: Folder, _ more: Int = 0) throws -> String {
    let file = folder.file("map.\(format.rawValue)")
    let pairs = pairs + (0..<more).map { ("user\($0)", "backend\($0)") }
    switch format {
    case .cdb:
      let records = pairs.map { "+\($0.utf8.count),\($1.utf8.count):\($0)->\($1)\n" }.joined()
      try run("sh", "-c", "cdb -c \(file) < \(try folder.write("records", records + "\n"))")
    case .lmdb:
      try? FileManager.default.removeItem(atPath: file)
      let head = "VERSION=3\nformat=print\ntype=btree\nmapsize=67108864\nHEADER=END\n"
      let records = pairs.map { " \($0)\n \($1)\n" }.joined()
      try run("sh", "-c", "mdb_load -n \(file) < \(try folder.write("records", head + records + "DATA=END\n"))")
    }
    return file
  }
}

private let formats: [MapFile.Format] = [.cdb, .lmdb]

struct MapFileTests {
  private func answer(_ map: MapFile, _ user: String) -> SourceAnswer? {
    let end = Clock.monotonic.now + Timeouts.seconds(10)
    let reply = map.answer(SourceRequest(query: query(user), user: []), until: end)
    if case .answer(let answer) = reply { return answer }
    return nil
  }

  @Test(arguments: formats, [0, 3, 2_000])
  func finds(_ format: MapFile.Format, _ more: Int) throws {
    let folder = try Folder()
    let map = MapFile(format, try Maker.make(format, folder, more))
    #expect(answer(map, "alice") == SourceAnswer("a"))
    #expect(answer(map, "ALICE") == SourceAnswer("a"))
    #expect(answer(map, "bob@example.org") == SourceAnswer("robert@b"))
    #expect(answer(map, "user@example.com") == SourceAnswer("a"))
    #expect(answer(map, "other@example.com") == SourceAnswer("c"))
    #expect(answer(map, "carol") == .disabled)
    #expect(answer(map, "long") == SourceAnswer(String(repeating: "x", count: 4_096)))
    #expect(answer(map, "longer") == .failed("the user's value is longer than 4096 bytes"))
    #expect(answer(map, "empty") == .failed("the answer names no backend"))
    for name in ["", "alic", "alicf", "alice ", "a", "zzz", "\0", "@", "x@example.org", "user\(more)"] {
      #expect(answer(map, name) == .notFound, "\(name)")
    }
    for number in 0..<more { #expect(answer(map, "user\(number)") == SourceAnswer("backend\(number)")) }
  }

  @Test(arguments: formats)
  func noticesAnotherFile(_ format: MapFile.Format) throws {
    let folder = try Folder()
    let file = try Maker.make(format, folder)
    let map = MapFile(format, file)
    #expect(answer(map, "alice") == SourceAnswer("a"))
    let other = try Folder()
    let fresh = try Maker.make(format, other, 5)
    #expect(rename(fresh, file) == 0)
    #expect(answer(map, "user4") == SourceAnswer("backend4"))
    #expect(truncate(file, 2_000) == 0)
    #expect(answer(map, "alice") == .failed("it is cut short"))
    try FileManager.default.removeItem(atPath: file)
    #expect(answer(map, "alice") == .failed("there is no such file"))
    #expect(throws: SettingsErrors([SettingsError(key: "k", problem: "\(file): there is no such file")])) {
      _ = try MapFile.plan(format, file, key: "k")
    }
    #expect(throws: SettingsErrors.self) { _ = try MapFile.plan(format, "/", key: "k") }
  }

  /// Whatever a file holds, a lookup ends, and finds nothing that is not there.
  @Test(arguments: formats)
  func survivesAnyFile(_ format: MapFile.Format) throws {
    let folder = try Folder()
    let whole = Array(try Data(contentsOf: URL(filePath: try Maker.make(format, folder, 40))))
    var random = SplitMix(seed: 1)
    for _ in 0..<3_000 {
      var bytes = whole
      for _ in 0..<Int.random(in: 1...12, using: &random) {
        // Most of an LMDB file is empty: its heads, and those of its pages, are where mistakes can be made.
        let page = Int.random(in: 0..<max(1, bytes.count / 4_096), using: &random) * 4_096
        let place =
          Bool.random(using: &random)
          ? page + Int.random(in: 0..<160, using: &random) : Int.random(in: 0..<bytes.count, using: &random)
        guard place < bytes.count else { continue }
        bytes[place] = [0, 1, 0x7F, 0xFF, UInt8.random(in: 0...255, using: &random)].randomElement(using: &random)!
      }
      if Int.random(in: 0..<4, using: &random) == 0 {
        bytes.removeLast(Int.random(in: 0..<bytes.count, using: &random))
      }
      let patience = Patience(until: Clock.monotonic.now + 50_000_000)
      for key in ["alice", "longer", "user7", "nobody"] {
        _ = try? value(format, key, bytes, patience)
      }
    }
    // A table with no empty slot is not gone round for ever.
    #expect(throws: MapFileError.self) {
      _ = try value(format, "alice", [UInt8](repeating: 0xFF, count: 10_000), Patience(until: 0))
    }
  }

  private func value(
    _ format: MapFile.Format, _ key: String, _ bytes: [UInt8], _ patience: Patience
  ) throws(MapFileError) -> [UInt8]? {
    switch format {
    case .cdb: try CDBFormat.value(of: Array(key.utf8), in: .memory(bytes), patience)
    case .lmdb: try LMDBFormat.value(of: Array(key.utf8), in: .memory(bytes), patience)
    }
  }

  @Test func refusesOtherLMDBs() throws {
    let folder = try Folder()
    let whole = Array(try Data(contentsOf: URL(filePath: try Maker.make(.lmdb, folder))))
    func words(_ change: (inout [UInt8]) -> Void) -> String {
      var bytes = whole
      change(&bytes)
      do throws(MapFileError) {
        _ = try value(.lmdb, "alice", bytes, Patience(until: .max))
        return ""
      } catch { return error.words }
    }
    #expect(words { $0[16] = 0 } == "it is no LMDB file of a 64-bit machine")
    #expect(words { $0[20] = 2 } == "it is of version 2 of LMDB's format, expected 1")
    // Both heads: DUPSORT, INTEGERKEY.
    for flag in [0x04, 0x08] as [UInt8] {
      #expect(
        words {
          $0[92] = flag; $0[4_096 + 92] = flag
        } == "its keys are not sorted as bytes, or have several values")
    }
  }
}

// swift-format-ignore-file: NeverForceUnwrap
// A test that unwraps nil fails, which is what it is for.

import Foundation
import Testing

@testable import ProxyCore

/// Users of pools that are not configured any more, in the state file.
struct StatePoolsTests {
  private let folder: Folder
  private let path: String
  private let now = WallTime.second

  init() throws {
    folder = try Folder()
    path = folder.file("state.db")
  }

  /// A user for each pool and age in days: `gone6` is of the pool "gone", and was there six days ago.
  private func fill(_ users: [String: [Int]]) throws {
    try StateFile(path) { _ in }.close()
    let rows = users.flatMap { pool, ages in
      ages.map { "('\(pool)', '\(pool)\($0)', 'a', \(now - $0 * 86_400 - 60))" }
    }
    try run("sqlite3", path, "INSERT INTO affinity VALUES \(rows.joined(separator: ","))")
  }

  private func users(_ pools: String...) throws -> [String] {
    let database = try afterKill(path, folder)
    return try pools.flatMap { try database.users($0).keys }.sorted()
  }

  /// A configuration with those pools, by the days they remember a user for; 0 for a hash.
  private func plan(_ pools: [String: UInt64]) throws -> FleetPlan {
    var settings = Settings(listeners: [], routes: [.fixed(backend: "a")], backends: [:])
    settings.stateFile = path
    settings.backends["a"] = BackendSettings(host: Host("127.0.0.1")!, ports: [.imap: 143])
    settings.backends["a"]?.health.isProbed = false
    for (name, days) in pools {
      let affinity = affinity(days > 0 ? .table : .hash, expiry: max(1, days) * 86_400)
      settings.pools[name] = PoolSettings(members: [MemberSettings("a")], balance: .affinity(affinity))
    }
    return try FleetPlan(settings, RoutePlan(settings).backends)
  }

  /// A process's start with that configuration.
  private func start(_ plan: FleetPlan) throws -> (fleet: Fleet, log: () -> String) {
    let file = folder.file("log-\(UUID().uuidString)")
    let log = try Log(LogSettings(level: .debug, format: .text, destination: .file(file)))
    let fleet = Fleet(log: log)
    try fleet.open(path, for: plan)
    return (
      fleet,
      {
        log.flush()
        return (try? String(contentsOfFile: file, encoding: .utf8)) ?? ""
      }
    )
  }

  @Test func areForgottenAfterAWeek() throws {
    try fill(["gone": [0, 6, 7, 400], "hashed": [6, 8], "long": [8, 29], "z": [7]])
    let plan = try plan(["mail": 1, "hashed": 0])
    let (fleet, log) = try start(plan)
    defer { fleet.close() }
    #expect(try users("gone", "hashed", "long", "z") == ["gone0", "gone6", "hashed6"])
    let lines = log().split(separator: "\n").filter { $0.contains("users of a pool that is gone are forgotten") }
    #expect(lines.count == 4)
    #expect(lines.first?.contains(" pool=gone ") == true && lines.first?.contains(" users=2") == true, "\(lines)")
  }

  /// As long as any pool remembers its own: it may be that pool's old name.
  @Test func areKeptAsLongAsAPoolsOwn() throws {
    try fill(["gone": [8, 29, 30], "mail": [8, 29, 400]])
    let plan = try plan(["mail": 30])
    let (fleet, _) = try start(plan)
    defer { fleet.close() }
    // A pool's own are its directory's affair.
    #expect(try users("gone", "mail") == ["gone29", "gone8", "mail29", "mail400", "mail8"])
    fleet.adopt(plan)
    #expect(try users("gone", "mail") == ["gone29", "gone8", "mail29", "mail8"])
  }

  /// A pool that is renamed, for some restarts or until a reload, and renamed back has its users still.
  @Test func aPoolThatIsRenamedBackHasItsUsers() throws {
    try fill(["mail": [1, 6]])
    let (before, other) = (try plan(["mail": 7]), try plan(["post": 7]))
    for _ in 0..<2 {
      let (fleet, _) = try start(other)
      fleet.adopt(other)
      fleet.close()
    }
    let (fleet, _) = try start(other)
    defer { fleet.close() }
    fleet.adopt(other)
    fleet.adopt(before)
    #expect(fleet.pool("mail")?.directory?.count == 2)
    #expect(fleet.pool("post") == nil)
  }

  /// A process that begins knows nothing of the sessions of the one before, with or without a file.
  @Test(arguments: [true, false])
  func aHashWaitsAfterTheStart(hasFile: Bool) throws {
    let plan = try plan(["mail": 0])
    let fleet = Fleet(log: try Log(LogSettings(destination: .file(folder.file("log")))))
    try fleet.open(hasFile ? path : nil, for: plan)
    defer { fleet.close() }
    fleet.adopt(plan)
    let directory = try #require(fleet.pool("mail")?.directory)
    let (answers, began) = (Answers(), Clock.monotonic.now)
    #expect(directory.locate("alice", .to("a")) { answers.take($0) } == nil)
    #expect(answers.next() == .at("a"))
    #expect(Clock.monotonic.now - began > Timeouts.milliseconds(1_000))
  }

  /// More than fit into one transaction, with those that stay between them.
  @Test func areForgottenInPortions() throws {
    let file = try StateFile(path) { _ in }
    file.disturb { database in
      for portion in 0..<5 {
        let rows = (0..<1_000).map { number in
          AffinityRow(
            pool: "gone", user: "\(number)-\(portion)", member: "a", stamp: number % 4 == 0 ? 1_000 : 10)
        }
        try? database?.write(rows, [])
      }
    }
    #expect(file.forget(allBut: ["gone"], before: 1_000) == [:])
    #expect(file.forget(allBut: ["mail"], before: 1_000) == ["gone": 3_750])
    #expect(file.forget(allBut: [], before: 1_000) == [:])
    file.close()
    #expect(try users("gone").count == 1_250)
  }
}

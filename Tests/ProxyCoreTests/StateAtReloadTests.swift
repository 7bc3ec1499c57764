// swift-format-ignore-file: NeverForceUnwrap
// A test that unwraps nil fails, which is what it is for.

import Foundation
import Testing

@testable import ProxyCore

/// A state file that a reload adds.
struct StateAtReloadTests {
  private let folder: Folder
  private let path: String

  init() throws {
    folder = try Folder()
    path = folder.file("state.db")
  }

  private func settings() -> Settings {
    var settings = Settings(listeners: [], routes: [], backends: [:])
    for name in ["a", "b", "c", "d", "e"] {
      settings.backends[name] = BackendSettings(host: Host("127.0.0.1")!, ports: [.imap: 143])
    }
    return settings.pooled()
  }

  private func plan(_ settings: Settings) throws -> FleetPlan { try FleetPlan(settings, RoutePlan(settings).backends) }

  private func row(_ name: String, _ state: AdminState, _ weight: Int?) -> BackendRow {
    BackendRow(name: name, state: state, weight: weight, since: 1_700_000_000)
  }

  private func words(_ rows: [BackendRow]) -> [String] {
    rows.map { "\($0.name) \($0.state.rawValue) \($0.weight.map(String.init) ?? "-")" }
  }

  /// What the file has holds, but for what operators have told since the start: that is in the file then.
  @Test func isRead() throws {
    let before = try StateFile(path) { _ in }
    for row in [
      row("a", .maintenance, 7), row("b", .maintenance, 8), row("c", .maintenance, 9), row("e", .drain, nil),
      row("f", .removed, nil),
    ] { #expect(before.save(row) == nil) }
    before.close()

    var settings = settings()
    let stage = try LoopStage(settings)
    let fleet = stage.house.fleet
    #expect(fleet.setAdmin("b", .ready) == .notKept("there is no state-file"))
    #expect(fleet.setWeight("c", 50) == .notKept("there is no state-file"))
    #expect(fleet.setAdmin("d", .drain) == .notKept("there is no state-file"))
    // One that is out of the configuration meanwhile was told something too.
    #expect(fleet.setWeight("e", 3) == .notKept("there is no state-file"))
    let all = settings
    settings.backends["e"] = nil
    settings.pools["mail"]?.members.removeAll { $0.backend == "e" }
    fleet.adopt(try plan(settings))

    settings.stateFile = path
    try fleet.open(path, for: plan(settings))
    fleet.adopt(try plan(settings))
    func stands(_ name: String) -> String {
      let standing = fleet.standing(name)!
      return "\(standing.admin.rawValue) \(standing.weight.map(String.init) ?? "-")"
    }
    #expect(["a", "b", "c", "d"].map(stands) == ["maint 7", "ready 8", "maint 50", "drain -"])
    // The pool knows.
    #expect(fleet.pool("mail")?.plan.member("a")?.weight == 7)
    #expect(
      fleet.pool("mail")?.plan.choice(tag: nil, tried: [], at: 0).candidates.map(\.takes) == [
        false, true, false, false,
      ])
    let lines = stage.log().split(separator: "\n").filter { $0.contains("as operators set it before the start") }
    #expect(lines.count == 3, "\(lines)")

    // The next reload reads nothing.
    #expect(fleet.setAdmin("a", .ready) == .kept)
    fleet.adopt(try plan(all))
    #expect(["a", "e"].map(stands) == ["ready 7", "drain 3"])
    fleet.close()
    let after = try StateFile(path) { _ in }
    #expect(words(after.backends) == ["a ready 7", "b ready 8", "c maint 50", "d drain -", "e drain 3", "f removed -"])
    after.close()
  }

  /// Who is at a backend that the file has in maintenance has to go.
  @Test func emptiesWhatIsInMaintenance() throws {
    let before = try StateFile(path) { _ in }
    #expect(before.save(row("a", .maintenance, nil)) == nil)
    before.close()
    let server = TestServer()
    var settings = Settings.to(server.port).pooled()
    let stage = try LoopStage(settings)
    let client = stage.connect()
    client.send("a LOGIN alice secret\r\n")
    let backend = server.accept()
    backend.send("* OK [CAPABILITY IMAP4rev1] ready\r\n")
    _ = backend.hear("secret\"\r\n")
    backend.send("L OK in\r\n")
    _ = client.hear("a OK in\r\n")
    settings.stateFile = path
    try stage.house.fleet.open(path, for: plan(settings))
    stage.house.fleet.adopt(try plan(settings))
    _ = client.hear("* BYE ")
    for peer in [client, backend] { peer.close() }
    stage.house.fleet.close()
  }
}

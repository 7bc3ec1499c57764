/// `proxyd backends` and `backend`: how the backends stand, and that one is to stand otherwise.

internal import ArgumentParser

struct BackendsCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "backends", abstract: "Show how the backends of the running proxy stand.")

  @OptionGroup var control: ControlOption

  func run() throws {
    try control.show(.backends, rows: ToldBackend.self, done: ToldCount.self) { rows, _ in
      BackendsCommand.table(rows).lines
    }
  }

  static func table(_ rows: [ToldBackend]) -> Table {
    var table = Table(
      "BACKEND", "POOLS", "STATE", "HEALTH", "#SINCE", "#WEIGHT", "#SESSIONS", "#ENTERING", "#LOGINS", "#REFUSED",
      "#FAILED", "#IN", "#OUT", "REASON")
    for row in rows {
      table.add(
        row.backend, row.pools.joined(separator: " "), state(row), row.health,
        row.since.map { Human.time($0 * 1_000) }, weight(row), String(row.sessions), String(row.entering),
        String(row.acceptedLogins), String(row.refusedLogins), String(row.failedLogins), Human.bytes(row.in),
        Human.bytes(row.out), row.reason)
    }
    return table
  }

  /// The operator's word, and an agent's that is stricter.
  static func state(_ row: ToldBackend) -> String? {
    guard let state = row.state else { return nil }
    return row.agent.map { "\(state) (agent: \($0))" } ?? state
  }

  /// A star is for one that was set at run time.
  static func weight(_ row: ToldBackend) -> String? {
    guard let weight = row.weight else { return nil }
    let share = row.share.map { $0 == 100 ? "" : " at \($0)%" } ?? ""
    return "\(weight)\(row.weightSet ? "*" : "")\(share)"
  }
}

struct BackendCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "backend", abstract: "Set a backend's state or weight at run time.",
    usage: """
      proxyd backend <name> ready|drain|maint|removed
      proxyd backend <name> weight <number>|default
      """,
    discussion: """
      ready: it takes part. drain: no new users, those who are there stay. maint: they are moved too, at the pool's rate, \
      and it is not probed. removed: as maint, of one that is to be taken out of the configuration. A weight is its share in \
      comparison with the others'; default is that of the configuration. The state file keeps both over restarts.
      """)

  @Argument(help: "The backend's name.") var name: String
  @Argument(help: "ready, drain, maint, removed or weight.") var what: String
  @Argument(help: "The weight.") var weight: String?
  @OptionGroup var control: ControlOption

  func validate() throws { _ = try arguments() }

  private func arguments() throws -> [String: ControlValue?] {
    guard what == "weight" else {
      guard ["ready", "drain", "maint", "removed"].contains(what) else {
        throw ValidationError("\"\(what)\": expected ready, drain, maint, removed or weight")
      }
      guard weight == nil else { throw ValidationError("a number is for weight") }
      return ["backend": .text(name), "state": .text(what)]
    }
    guard let weight,
      let value = Int(weight).map({ ControlValue.number($0) }) ?? (weight == "default" ? .text(weight) : nil)
    else { throw ValidationError("expected a number or default behind weight") }
    return ["backend": .text(name), "weight": value]
  }

  func run() throws {
    try control.show(.backend, try arguments(), rows: ToldCount.self, done: ToldSetting.self) { _, done in
      [BackendCommand.words(done)]
    }
  }

  static func words(_ setting: ToldSetting) -> String {
    "\(setting.backend): \(setting.state)\(setting.weight.map { ", weight \($0)" } ?? "")"
      + (setting.notKept.map { ShownText(" (not kept over a restart: \($0))").text } ?? "")
  }
}

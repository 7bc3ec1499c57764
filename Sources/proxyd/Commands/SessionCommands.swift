/// `proxyd sessions`, `kick` and `who`: who is there, and that somebody goes.

internal import ArgumentParser

struct SessionsCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "sessions", abstract: "List the sessions of the running proxy.")

  @OptionGroup var filter: FilterOption
  @OptionGroup var control: ControlOption

  @Option(help: "No more than so many.") var limit: Int?

  func run() throws {
    var arguments = filter.arguments
    arguments["limit"] = limit.map { .number($0) }
    try control.show(.sessions, arguments, rows: ToldSession.self, done: ToldCount.self) { rows, _ in
      SessionsCommand.table(rows).lines
    }
  }

  static func table(_ rows: [ToldSession]) -> Table {
    var table = Table(
      "SESSION", "USER", "PROTOCOL", "CLIENT", "BACKEND", "#AGE", "#IDLE", "#IN", "#OUT", "TLS", "DOING")
    for row in rows {
      table.add(
        row.session, row.user, row.protocol, row.client, row.backend, Human.time(row.age), row.idle.map(Human.time),
        Human.bytes(row.in), Human.bytes(row.out), row.tls, row.doing)
    }
    return table
  }
}

struct KickCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "kick", abstract: "End sessions: clients are told goodbye, and may log in again.",
    discussion: "At least one of the options says which. Of several, all must fit.")

  @OptionGroup var filter: FilterOption
  @OptionGroup var control: ControlOption

  func validate() throws {
    guard filter.arguments.contains(where: { $0.value != nil }) else {
      throw ValidationError("expected whom: --user, --backend, --address, --where or --session")
    }
  }

  func run() throws {
    try control.show(.kick, filter.arguments, rows: ToldCount.self, done: ToldCount.self) { _, done in
      [KickCommand.words(done.count)]
    }
  }

  static func words(_ count: Int) -> String { count == 1 ? "1 session ended" : "\(count) sessions ended" }
}

struct WhoCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "who", abstract: "List the users that are logged in.")

  @OptionGroup var filter: FilterOption
  @OptionGroup var control: ControlOption

  func run() throws {
    try control.show(.who, filter.arguments, rows: ToldUser.self, done: ToldCount.self) { rows, _ in
      var table = Table("USER", "#SESSIONS", "PROTOCOLS", "BACKENDS", "ADDRESSES")
      for row in rows {
        let more = row.addressCount - row.addresses.count
        let addresses = row.addresses.joined(separator: " ") + (more > 0 ? " and \(more) more" : "")
        table.add(
          row.user, String(row.sessions), row.protocols.joined(separator: " "), row.backends.joined(separator: " "),
          addresses)
      }
      return table.lines
    }
  }
}

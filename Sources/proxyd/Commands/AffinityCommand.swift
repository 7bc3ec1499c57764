/// `proxyd affinity`: where users are kept, and that they are kept elsewhere.

internal import ArgumentParser
internal import Protocols
internal import ProxyCore

struct AffinityCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "affinity", abstract: "Show and change where the running proxy keeps users.",
    discussion: "A user is named as at the backend; what a pool's key makes of the name is what it remembers.",
    subcommands: [List.self, Map.self, Move.self, Forget.self, Flush.self, Dump.self, Load.self])

  struct List: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "List the users that are remembered.")

    @OptionGroup var pool: PoolOption
    @Option(help: "Those of one backend.") var backend: String?
    @OptionGroup var control: ControlOption

    func run() throws {
      let arguments: [String: ControlValue?] = ["pool": pool.value, "backend": backend.map { .text($0) }]
      try control.show(.affinityList, arguments, rows: ToldPlace.self, done: ToldCount.self) { rows, _ in
        var table = Table("USER", "BACKEND", "POOL", "EXPIRES")
        for row in rows.sorted(by: { ($0.user, $0.pool) < ($1.user, $1.pool) }) {
          table.add(row.user, row.backend, row.pool, AffinityCommand.time(row.expires) ?? "has sessions")
        }
        return table.lines
      }
    }
  }

  struct Map: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Show where a user is, and where the ring would have the user.",
      discussion: """
        CURRENT is where the user's sessions are or the next will be. HASHED is the ring's member of those that take users \
        now, CONFIGURED that of all. As doveadm director status USER.
        """)

    @Argument(help: "The user.") var user: String
    @OptionGroup var pool: PoolOption
    @OptionGroup var control: ControlOption

    func run() throws {
      let arguments: [String: ControlValue?] = ["user": .text(user), "pool": pool.value]
      try control.show(.affinityMap, arguments, rows: ToldMapping.self, done: ToldCount.self) { rows, _ in
        var table = Table("USER", "POOL", "CURRENT", "EXPIRES", "HASHED", "CONFIGURED")
        for row in rows {
          let expires = row.current == nil ? nil : AffinityCommand.time(row.expires) ?? "has sessions"
          table.add(row.user, row.pool, row.current, expires, row.hashed, row.configured)
        }
        return table.lines
      }
    }
  }

  struct Move: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Move a user to a backend: the sessions elsewhere are ended, the next login goes there.")

    @Argument(help: "The user.") var user: String
    @Argument(help: "The backend.") var backend: String
    @OptionGroup var pool: PoolOption
    @OptionGroup var control: ControlOption

    func run() throws {
      let arguments: [String: ControlValue?] = [
        "user": .text(user), "backend": .text(backend), "pool": pool.value,
      ]
      try control.show(.affinityMove, arguments, rows: ToldCount.self, done: ToldCount.self) { _, _ in [] }
    }
  }

  struct Forget: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Forget a user: the sessions are ended, and the ring decides about the next login.")

    @Argument(help: "The user.") var user: String
    @OptionGroup var pool: PoolOption
    @OptionGroup var control: ControlOption

    func run() throws {
      let arguments: [String: ControlValue?] = ["user": .text(user), "pool": pool.value]
      try control.show(.affinityForget, arguments, rows: ToldCount.self, done: ToldCount.self) { _, _ in [] }
    }
  }

  struct Flush: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Forget all users of a backend, or all: those with sessions at the pool's rate.")

    @Argument(help: "The backend; all if there is none.") var backend: String?
    @OptionGroup var pool: PoolOption
    @OptionGroup var control: ControlOption

    func run() throws {
      let arguments: [String: ControlValue?] = ["backend": backend.map { .text($0) }, "pool": pool.value]
      try control.show(.affinityFlush, arguments, rows: ToldCount.self, done: ToldCount.self) { _, done in
        ["\(done.count) users"]
      }
    }
  }

  struct Dump: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Print the users that are remembered, as load reads them: user, backend and pool, with tabs between.")

    @OptionGroup var pool: PoolOption
    @Option(help: "Those of one backend.") var backend: String?
    @OptionGroup var control: ControlOption

    func run() throws {
      let arguments: [String: ControlValue?] = ["pool": pool.value, "backend": backend.map { .text($0) }]
      try control.show(.affinityDump, arguments, rows: ToldPlace.self, done: ToldCount.self) { rows, _ in
        // Whoever has no domain has no name where domains are told apart.
        let rows = rows.filter { !$0.user.isEmpty }
        // A file has the names as they are.
        guard Console.isTerminal else { return rows.map(AffinityFile.line) }
        return rows.map { row in
          AffinityFile.line(row).split(separator: "\t").map { ShownText(String($0)).text }.joined(separator: "\t")
        }
      }
    }
  }

  struct Load: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Move the users of a file, or of standard input, to the backends beside them.",
      discussion: """
        A line is a user, a tab, a backend and, where several pools have that backend, a tab and the pool; # begins a \
        comment. A user whose name begins with # or with a backslash has a backslash before it. Users who are elsewhere are \
        moved, as by move.
        """)

    @Argument(help: "The file.") var file: String?
    @OptionGroup var pool: PoolOption
    @OptionGroup var control: ControlOption

    func run() throws {
      let name = file ?? "standard input"
      let text: String
      switch TextFile.read(file) {
      case .success(let read): text = read
      case .failure(let error):
        Console.error("\(name): it can't be read: \(error)")
        throw ExitCode.failure
      }
      let places: [String?: [ControlEntry]]
      switch AffinityFile.read(text, pool: pool.pool) {
      case .success(let read): places = read
      case .failure(let problem):
        Console.error("\(name):\(problem.line): \(problem.words)")
        throw ExitCode.failure
      }
      var count = 0
      for (pool, entries) in places.sorted(by: { $0.key ?? "" < $1.key ?? "" }) {
        for portion in AffinityFile.portions(entries) {
          try control.show(
            .affinityLoad, ["entries": .entries(portion), "pool": pool.map { .text($0) }], rows: ToldCount.self,
            done: ToldCount.self
          ) { _, done in
            count += done.count
            return []
          }
        }
      }
      if !control.json { Console.say("\(count) users") }
    }
  }

  /// A moment for people; nil for none.
  static func time(_ seconds: Int?) -> String? { seconds.map { WallTime(seconds: $0, milliseconds: 0).text } }
}

/// The pool that is meant.
struct PoolOption: ParsableArguments {
  @Option(help: "The pool, if there are several.") var pool: String?

  var value: ControlValue? { pool.map { .text($0) } }
}

/// Users with their backends, as `affinity load` reads them.
enum AffinityFile {
  struct Problem: Error, Equatable {
    let line: Int
    let words: String
  }

  /// A user's line, as `read` takes it: a name that would be a comment has a backslash before it.
  static func line(_ place: ToldPlace) -> String {
    "\(isSpecial(place.user.utf8.first) ? "\\" : "")\(place.user)\t\(place.backend)\t\(place.pool)"
  }

  private static let sharp = UInt8(ascii: "#")
  private static let backslash = UInt8(ascii: "\\")

  /// Whether a name that begins so has a mark before it.
  private static func isSpecial(_ byte: UInt8?) -> Bool { byte == sharp || byte == backslash }

  /// The name without its mark. By bytes: to Swift a letter and an accent behind it are one character.
  private static func user(_ field: String) -> String {
    let isMarked = field.utf8.first == backslash && isSpecial(field.utf8.dropFirst().first)
    return isMarked ? String(Substring(field.utf8.dropFirst())) : field
  }

  /// By pool; nil for whichever has the backend, unless `pool` says which.
  static func read(_ text: String, pool: String?) -> Result<[String?: [ControlEntry]], Problem> {
    var places: [String?: [ControlEntry]] = [:]
    for (index, line) in TextFile.lines(text).enumerated() where !line.isEmpty && line.utf8.first != sharp {
      let parts = line.split(separator: "\t", omittingEmptySubsequences: false).map(String.init)
      guard (2...3).contains(parts.count), !parts.contains("") else {
        return .failure(Problem(line: index + 1, words: "expected a user, a tab and a backend"))
      }
      if let pool, parts.count == 3, parts[2] != pool { continue }
      let entry = ControlEntry(user: user(parts[0]), backend: parts[1])
      places[parts.count == 3 ? parts[2] : pool, default: []].append(entry)
    }
    return .success(places)
  }

  /// As many at once as fit in a request, whatever their names.
  static func portions(_ entries: [ControlEntry]) -> [[ControlEntry]] {
    var portions: [[ControlEntry]] = []
    var size = 0
    // In JSON a byte may become six, and no fewer than it was.
    func length(_ text: String) -> Int {
      text.utf8.reduce(0) { $0 + ($1 < 0x20 || $1 == 0x22 || $1 == 0x5C || $1 >= 0x7F ? 6 : 1) }
    }
    for entry in entries {
      let more = length(entry.user) + length(entry.backend) + 32
      if portions.isEmpty || size + more > ControlRequest.longestLine - 1_000 {
        portions.append([])
        size = 0
      }
      portions[portions.count - 1].append(entry)
      size += more
    }
    return portions
  }
}

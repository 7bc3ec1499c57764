/// `proxyd map`: reads and changes the SQLite map while the proxy runs.

internal import ArgumentParser
internal import ProxyCore

struct MapCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "map", abstract: "Read and change the SQLite map of users and domains.",
    discussion: """
      NAME is a user's login, or @example.com for all users of a domain who have no row of their own. Changes count for \
      the next login; the proxy need not be told.
      """,
    subcommands: [Set.self, Get.self, Delete.self, List.self, Import.self, Export.self])

  struct Set: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Add or change a row; the file is made if it is missing.")
    @OptionGroup var map: MapOption
    @Argument(help: "A login, or @domain.") var name: String
    @Argument(help: "A backend's name, host, host:port or [v6]:port.") var backend: String
    @Option(help: "The user's name at the backend, if another.") var loginAs: String?

    func run() throws {
      let row = try MapText.row(name: name, backend: backend, loginAs: loginAs)
      try map.open(creating: true) { map throws(SQLiteError) in try map.set(row) }
    }
  }

  struct Get: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Print a row; status 1 if there is none.")
    @OptionGroup var map: MapOption
    @Argument(help: "A login, or @domain.") var name: String

    func run() throws {
      let name = try MapText.name(name)
      guard let row = try map.open({ map throws(SQLiteError) in try map.get(name) }) else {
        Console.error("\(name.text): no such row")
        throw ExitCode.failure
      }
      Console.say(MapText.line(row))
    }
  }

  struct Delete: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Remove a row; status 1 if there is none.")
    @OptionGroup var map: MapOption
    @Argument(help: "A login, or @domain.") var name: String

    func run() throws {
      let name = try MapText.name(name)
      guard try map.open({ map throws(SQLiteError) in try map.delete(name) }) else {
        Console.error("\(name.text): no such row")
        throw ExitCode.failure
      }
    }
  }

  struct List: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Print all rows, or those of one backend.")
    @OptionGroup var map: MapOption
    @Option(help: "Only rows with this backend.") var backend: String?

    func run() throws {
      try map.open { map throws(SQLiteError) in try map.list(backend: backend) { Console.say(MapText.line($0)) } }
    }
  }

  struct Export: ParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Print all rows as import reads them.")
    @OptionGroup var map: MapOption

    func run() throws {
      try map.open { map throws(SQLiteError) in try map.list { Console.say(MapText.line($0)) } }
    }
  }

  struct Import: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Add rows from a file or standard input, all or none.",
      discussion:
        "A line is NAME, a tab, BACKEND and, if wanted, a tab and the name at the backend. # begins a comment.")
    @OptionGroup var map: MapOption
    @Flag(help: "Remove all present rows in the same transaction.") var replace = false
    @Argument(help: "The file; standard input if left out.", completion: .file()) var file: String?

    func run() throws {
      let source = file ?? "standard input"
      let text: String
      switch TextFile.read(file) {
      case .success(let read): text = read
      case .failure(let error): throw ValidationError("\(source): it can't be read: \(error)")
      }
      let rows = try MapText.rows(text, source: source)
      try map.open(creating: true) { map throws(SQLiteError) in
        let outcome = try map.atomically { () throws(SQLiteError) in
          if replace { try map.removeAll() }
          for row in rows { try map.set(row) }
        }
        try outcome.get()
      }
      Console.say("\(rows.count) rows")
    }
  }
}

/// The options that name the map.
struct MapOption: ParsableArguments {
  @Option(name: [.short, .customLong("config")], help: "The configuration whose first SQLite source is meant.")
  var config: String?

  @Option(name: [.short, .customLong("map")], help: "The SQLite file itself.", completion: .file(extensions: ["db"]))
  var map: String?

  func validate() throws {
    guard (config == nil) != (map == nil) else { throw ValidationError("give either --config or --map") }
  }

  /// Opens the map for `body`; errors name the file.
  func open<Value>(creating: Bool = false, _ body: (SQLiteMap) throws(SQLiteError) -> Value) throws -> Value {
    let file = try file()
    do throws(SQLiteError) { return try body(try SQLiteMap(file, creating: creating)) } catch {
      Console.error("\(file): \(error.message)")
      throw ExitCode.failure
    }
  }

  private func file() throws -> String {
    if let map { return map }
    guard let config else { throw ExitCode.validationFailure }
    let settings: Settings
    do throws(ConfigErrors) { settings = try ConfigFile(config).settings } catch { throw fail(error) }
    for case .sqlite(let file, let query) in settings.routes.map(\.source) {
      guard query == nil else { continue }
      return file
    }
    Console.error("\(config): no source is a SQLite file with the tables of schema.sql")
    throw ExitCode.failure
  }
}

/// The map as lines of text.
enum MapText {
  static func line(_ row: SQLiteMap.Row) -> String {
    "\(row.name.text)\t\(row.backend)" + (row.loginAs.map { "\t\($0)" } ?? "")
  }

  static func name(_ text: String) throws -> SQLiteMap.Name {
    guard let name = SQLiteMap.Name(text) else { throw ValidationError("\"\(text)\" is neither a login nor @domain") }
    return name
  }

  static func row(name: String, backend: String, loginAs: String?) throws -> SQLiteMap.Row {
    let name = try self.name(name)
    guard isWord(backend) else { throw ValidationError("\"\(backend)\" is no backend's name, host or host:port") }
    if let loginAs, loginAs.isEmpty || loginAs.contains(where: \.isNewline) {
      throw ValidationError("the name at the backend is empty or holds a line end")
    }
    if case .domain = name, loginAs != nil { throw ValidationError("a domain has no name at the backend") }
    return SQLiteMap.Row(name: name, backend: backend, loginAs: loginAs)
  }

  static func rows(_ text: String, source: String) throws -> [SQLiteMap.Row] {
    var rows: [SQLiteMap.Row] = []
    for (index, line) in TextFile.lines(text).enumerated() {
      if line.isEmpty || line.hasPrefix("#") { continue }
      let fields = line.split(separator: "\t", omittingEmptySubsequences: false).map(String.init)
      guard fields.count == 2 || fields.count == 3 else {
        throw ValidationError("\(source):\(index + 1): a line is NAME, a tab, BACKEND, and perhaps a tab and a name")
      }
      do {
        rows.append(try row(name: fields[0], backend: fields[1], loginAs: fields.count == 3 ? fields[2] : nil))
      } catch let error as ValidationError { throw ValidationError("\(source):\(index + 1): \(error.message)") }
    }
    return rows
  }

  private static func isWord(_ text: String) -> Bool {
    !text.isEmpty && text.unicodeScalars.allSatisfy { $0.value > 0x20 && $0.value != 0x7F }
  }
}

/// Fetches what an import of Perdition needs from the machine: maps, patterns, certificates.

internal import Glibc
internal import Migration
internal import ProxyCore

struct PerditionLibrary {
  /// The configuration files, beside which maps are looked for too.
  let files: [String]
  /// The text of the map, if the operator gave it.
  let popmap: String?
  /// The data sources of ODBC.
  let odbc: String

  init(files: [String], popmap: String?, odbc: String) {
    self.files = files
    self.popmap = popmap
    self.odbc = odbc
  }

  func fetch(_ request: MaterialRequest) -> Material {
    switch request {
    case .file(let path): file(path == PerditionSite.sources ? odbc : path)
    case .popmap(let kind, let path): map(kind, path)
    case .authorities(let folder): authorities(folder)
    }
  }

  /// The path itself, then the same name beside each configuration file.
  private func places(_ path: String) -> [String] {
    let name = path.split(separator: "/").last.map(String.init) ?? path
    let beside = files.map { file in (file.lastIndex(of: "/").map { String(file[...$0]) } ?? "") + name }
    return (path.hasPrefix("/") ? [path] : []) + beside
  }

  private func file(_ path: String) -> Material {
    let place = places(path).first(where: TextFile.exists) ?? path
    return switch TextFile.bytes(place) {
    case .success(let bytes): .bytes(bytes, path: place)
    case .failure(let error): .missing("\(place): \(error).")
    }
  }

  private func map(_ kind: PerditionMap.Database, _ path: String) -> Material {
    if let popmap { return text(popmap) }
    let source = source(of: path)
    guard let place = places(path).first(where: TextFile.exists) else {
      if let place = places(source).first(where: TextFile.exists), source != path { return text(place) }
      return .missing("\(path): it is not there. If you have the text it was made of, give it with --popmap FILE.")
    }
    var reason = "\(place): it can't be read: give the text it was made of with --popmap FILE."
    for tool in DumpTool.tools(kind) {
      switch tool.run(place) {
      case .output(let bytes):
        if let popmap = Popmap.dump(bytes) { return .popmap(popmap, path: place) }
        reason = "\(place): what \(tool.program) prints is not understood. Give the text with --popmap FILE."
      case .failed: reason = "\(place): \(tool.program) can't read it. Give the text it was made of with --popmap FILE."
      case .missing:
        guard tool.program == DumpTool.tools(kind).first?.program else { continue }
        reason =
          "\(place): it takes \(tool.program) of the package \(tool.package), which is not installed. Install it, or "
          + "give the "
          + "text it was made of with --popmap FILE."
        continue
      }
      break
    }
    if let beside = places(source).first(where: TextFile.exists), source != path { return text(beside) }
    return .missing(reason)
  }

  private func text(_ path: String) -> Material {
    switch TextFile.bytes(path) {
    case .success(let bytes): .popmap(Popmap.text(bytes), path: path)
    case .failure(let error): .missing("\(path): \(error).")
    }
  }

  /// The text that a database file was made of, as Debian's Makefile has it: `popmap` for popmap.gdbm.db.
  private func source(of path: String) -> String {
    for end in [".gdbm.db", ".bdb.db", ".db", ".gdbm", ".bdb", ".cdb"] where path.hasSuffix(end) {
      return String(path.dropLast(end.count))
    }
    return path
  }

  /// The certificates that OpenSSL finds in such a folder: those with a hash for a name.
  private func authorities(_ folder: String) -> Material {
    let folder = folder.hasSuffix("/") ? folder : folder + "/"
    switch DumpTool.shell("cat \(DumpTool.quote(folder))*.[0-9]") {
    case .output(let bytes): return .bytes(bytes, path: folder)
    case .failed, .missing: return .missing("\(folder): no certificates there.")
    }
  }
}

/// A program that prints a database.
struct DumpTool {
  let program: String
  let package: String
  /// Words before the file's name.
  let words: String
  /// Words behind it.
  let end: String

  init(_ program: String, _ package: String, _ words: String = "", end: String = "") {
    self.program = program
    self.package = package
    self.words = words
    self.end = end
  }

  /// Those that print every byte come first.
  static func tools(_ kind: PerditionMap.Database) -> [DumpTool] {
    switch kind {
    case .gdbm: [DumpTool("gdbm_dump", "gdbmtool", end: "-"), DumpTool("makegdbm", "perdition", "-u")]
    case .bdb:
      [
        DumpTool("db5.3_dump", "db5.3-util", "-p"), DumpTool("db_dump", "db-util", "-p"),
        DumpTool("makebdb", "perdition", "-u"),
      ]
    case .cdb: [DumpTool("cdb", "tinycdb", "-d")]
    }
  }

  enum Outcome {
    case output([UInt8])
    case failed
    case missing
  }

  func run(_ file: String) -> Outcome {
    // A name that begins with a dash is a file all the same.
    let file = file.hasPrefix("/") ? file : "./" + file
    return DumpTool.shell("exec \(program) \(words) \(DumpTool.quote(file)) \(end)")
  }

  /// A word as the shell leaves it.
  static func quote(_ text: String) -> String { "'" + text.replacing("'", with: "'\\''") + "'" }

  /// What a command prints on its standard output; its complaints are dropped.
  static func shell(_ command: String) -> Outcome {
    // SAFETY: popen(3) gives a stream or nil; it is read into a buffer whose size is told, and closed once.
    guard let stream = unsafe popen("{ \(command) ; } 2>/dev/null </dev/null", "r") else { return .failed }
    var output: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 1 << 16)
    while true {
      let count = unsafe fread(&buffer, 1, buffer.count, stream)
      if count <= 0 { break }
      output.append(contentsOf: buffer[..<Int(count)])
    }
    let status = unsafe pclose(stream)
    // The shell's own status for a program that is not there is 127 (sh(1)); a wait status has it in its second byte.
    switch status >> 8 & 0xFF {
    case 0 where status == 0: return .output(output)
    case 127: return .missing
    default: return .failed
    }
  }
}

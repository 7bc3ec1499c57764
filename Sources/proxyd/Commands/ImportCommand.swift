/// `proxyd import`: makes a configuration of another proxy's.

internal import ArgumentParser
internal import Migration
internal import ProxyCore

struct ImportCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "import", abstract: "Make a configuration of another proxy's, and say what became of each option.",
    subcommands: [Perdition.self, Nginx.self])

  struct Perdition: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Import Perdition's configuration files and maps.",
      discussion: """
        Each FILE is one instance, its protocol that of the option `protocol` or of its name (perdition.imap4.conf). With \
        --defaults, the instances enabled there are imported instead, each with its own command line and the FILE that it \
        reads. Maps are read from where the files say, or from beside them.

        Ends with status 0 if everything could be carried over, changed or left out with a reason, 1 if the report has \
        something that can't be carried, 2 if nothing could be imported.
        """)

    @Argument(help: "perdition.conf, perdition.imap4.conf, …", completion: .file()) var files: [String]

    @Option(help: "Debian's /etc/default/perdition.", completion: .file()) var defaults: String?

    @Option(help: "The text that the map's database was made of.", completion: .file()) var popmap: String?

    @Option(help: "ODBC's data sources.", completion: .file()) var odbc: String = PerditionSite.sources

    @Option(help: "The folder for the result; it is made if it is missing.", completion: .directory) var output: String

    @Flag(help: "Overwrite files of an earlier import.") var force = false

    func run() throws {
      var names = Set<String>()
      let files = try files.filter { names.insert($0).inserted }.map { (name: $0, bytes: try bytes($0)) }
      let site = PerditionSite(files: files, defaults: try defaults.map { (name: $0, bytes: try bytes($0)) })
      guard !site.instances.isEmpty else { throw unusable("no instance of Perdition is enabled in \(defaults ?? "")") }
      let library = PerditionLibrary(files: self.files, popmap: popmap, odbc: odbc)
      let result = site.plan(
        Dictionary(uniqueKeysWithValues: site.requests.map { ($0, library.fetch($0)) }),
        isServer: { HostPort($0) != nil }, isAddress: { SocketAddress(literal: $0, port: 0) != nil })
      try ImportFolder(path: output, replaces: force).conclude(result)
    }

    private func bytes(_ path: String) throws -> [UInt8] {
      switch TextFile.bytes(path) {
      case .success(let bytes): return bytes
      case .failure(let error): throw unusable("\(path): it can't be read: \(error)")
      }
    }

    private func unusable(_ problem: String) -> ExitCode {
      Console.error(problem)
      return ExitCode(2)
    }
  }
}

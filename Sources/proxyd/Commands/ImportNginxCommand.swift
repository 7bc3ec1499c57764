/// `proxyd import nginx`: makes a configuration of the `mail { }` of an nginx.conf.

internal import ArgumentParser
internal import Migration
internal import ProxyCore

extension ImportCommand {
  struct Nginx: ParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Import nginx's mail proxy.",
      discussion: """
        FILE is nginx.conf. Its includes are read, patterns too, from where they are, relative ones from FILE's folder. Servers \
        that ask different services, or ask for client certificates differently, become several configurations.

        Ends with status 0 if everything could be carried over, changed or left out with a reason, 1 if the report has \
        something that can't be carried, 2 if nothing could be imported.
        """)

    @Argument(help: "nginx.conf.", completion: .file()) var file: String

    @Option(help: "The folder for the result; it is made if it is missing.", completion: .directory) var output: String

    @Flag(help: "Overwrite files of an earlier import.") var force = false

    func run() throws {
      let directives: [NginxDirective]
      do throws(NginxSyntaxError) {
        directives = try NginxConf.read(name: file, bytes: try bytes(file), include: include)
      } catch { throw unusable("\(error.place): \(error.problem)") }
      let mail = NginxMail(directives, isAddress: { SocketAddress(literal: $0, port: 0) != nil })
      guard mail.isThere else { throw unusable("\(file): there is no mail { } in it or in what it includes") }
      guard mail.isUsable else {
        throw unusable("\(file): mail { } has no IMAP or POP3 server with auth_http, so there is nothing to import")
      }
      try ImportFolder(path: output, replaces: force).conclude(
        mail.plan(name: file, prefix: Paths.absolute(folder: prefix), isNetwork: { Network($0) != nil }))
    }

    /// The folder that relative paths start at.
    private var prefix: String { file.lastIndex(of: "/").map { String(file[...$0]) } ?? "./" }

    private func include(_ pattern: String) -> NginxInclude {
      let path = pattern.hasPrefix("/") ? pattern : prefix + pattern
      var files: [(name: String, bytes: [UInt8])] = []
      for name in Paths.matching(path) {
        switch TextFile.bytes(name) {
        case .success(let bytes): files.append((name, bytes))
        case .failure(let error): return .missing("\(name): it can't be read: \(error)")
        }
      }
      if files.isEmpty, !path.contains(where: { "*?[".contains($0) }) { return .missing("\(path): it is not there") }
      return .files(files)
    }

    private func bytes(_ path: String) throws(NginxSyntaxError) -> [UInt8] {
      switch TextFile.bytes(path) {
      case .success(let bytes): return bytes
      case .failure(let error): throw NginxSyntaxError(place: path, problem: "it can't be read: \(error)")
      }
    }

    private func unusable(_ problem: String) -> ExitCode {
      Console.error(problem)
      return ExitCode(2)
    }
  }
}

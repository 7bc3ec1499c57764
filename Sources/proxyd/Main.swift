/// The program: its subcommands.

internal import ArgumentParser

@main
struct Proxyd: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "proxyd",
    abstract: "The front door of a mail system: an IMAP and POP3 proxy that routes users to their backends.",
    version: Proxyd.version,
    subcommands: [
      RunCommand.self, CheckCommand.self, RouteCommand.self, StatusCommand.self, SessionsCommand.self, KickCommand.self,
      WhoCommand.self, BackendsCommand.self, BackendCommand.self, AffinityCommand.self, ReloadCommand.self,
      LogLevelCommand.self, MetricsCommand.self, TopCommand.self, TraceCommand.self, MapCommand.self,
      ImportCommand.self, ConfigCommand.self,
    ])

  static let version = "0.1.0"
}

/// The option that names the configuration.
struct ConfigOption: ParsableArguments {
  @Option(
    name: [.short, .customLong("config")], help: "The configuration file.", completion: .file(extensions: ["yaml"]))
  var file: String

  /// Reads the file, or says all that is wrong with it and ends the program.
  func load() throws -> ConfigFile {
    do throws(ConfigErrors) { return try ConfigFile(file) } catch { throw fail(error) }
  }
}

/// Says all that is wrong; throw what it returns.
func fail(_ errors: ConfigErrors) -> ExitCode {
  for error in errors.errors { Console.error("\(error)") }
  return .failure
}

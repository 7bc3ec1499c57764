/// `proxyd route`: says where a user would be sent, and who says so.

internal import ArgumentParser
internal import Protocols
internal import ProxyCore

struct RouteCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "route", abstract: "Show where a user would be sent, without logging in.",
    discussion: "Ends with status 0 if a backend was found, 1 if no source knows the user, 2 if a source failed.")

  @OptionGroup var config: ConfigOption

  @Option(name: [.customLong("protocol")], help: "The protocol the user would come with.")
  var mailProtocol = MailProtocol.imap

  @Argument(help: "The name the user would log in with.")
  var user: String

  func run() throws {
    let file = try config.load()
    let plan: RoutePlan
    do throws(SettingsErrors) { plan = try RoutePlan(file.settings) } catch {
      _ = fail(file.locate(error))
      throw ExitCode(2)
    }
    let query = RouteQuery(user: Array(user.utf8), mailProtocol: mailProtocol)
    Console.say("user:     \(String(decoding: query.login, as: UTF8.self))")
    switch RouteTable(plan).find(query) {
    case .found(let route):
      Console.say("source:   \(route.source)")
      Console.say("backend:  \(route.backend.name) (\(route.backend.host):\(route.backend.port))")
      Console.say("login as: \(route.loginAs.map { String(decoding: $0, as: UTF8.self) } ?? user)")
    case .disabled(let source):
      Console.say("source:   \(source)")
      Console.say("disabled: nobody is let in under this name")
      throw ExitCode.failure
    case .unknownUser:
      Console.say("unknown:  no source knows this user")
      throw ExitCode.failure
    case .busy:
      Console.say("failed:   a map is locked by a writer")
      throw ExitCode(2)
    case .failed(let source, let reason):
      Console.say("failed:   \(source): \(reason)")
      throw ExitCode(2)
    }
  }
}

extension MailProtocol: ExpressibleByArgument {}

import ArgumentParser
import Foundation
import ProxyCore
import Testing

@testable import proxyd

private let minimum = """
  listeners: [{ protocol: imap, address: "127.0.0.1:143", tls: off }]
  routes: [{ default: a }]
  backends: { a: { address: 127.0.0.1 } }

  """

private func control(_ text: String) throws -> ControlSettings? {
  try ConfigFile(minimum + text, path: "/etc/p/x.yaml").settings.control
}

struct ControlKeysTests {
  @Test func withoutTheKeyThereIsNoSocket() throws { #expect(try control("") == nil) }

  @Test func paths() throws {
    #expect(try control("control: { socket: /run/s }") == ControlSettings(socket: "/run/s"))
    #expect(
      try control("control: { socket: run/s, group: operators }")
        == ControlSettings(socket: "/etc/p/run/s", group: "operators"))
  }

  @Test(arguments: [
    ("control: { group: x }", "4:10: control.socket: this key is missing, expected a file's path"),
    ("control: { socket: \"\" }", "4:20: control.socket: this is empty, expected a file's path"),
    ("control: /run/s", "4:10: control: this is \"/run/s\", expected a map of keys"),
    ("control: { sockt: x, socket: y }", "4:12: control.sockt: unknown key"),
  ])
  func mistakes(_ text: String, _ problem: String) {
    do throws(ConfigErrors) {
      _ = try ConfigFile(minimum + text, path: "x.yaml")
      Issue.record("it was taken")
    } catch { #expect(error.errors.first?.description.hasPrefix("x.yaml:" + problem) == true, "\(error.errors)") }
  }

  /// The sample has a socket where the unit makes room for it and the commands look for it.
  @Test func theSampleAndTheUnitAgree() throws {
    let sample = try ConfigFile(ConfigText.sample, path: "x.yaml").settings
    #expect(sample.control?.socket == "/run/proxyd/control.sock")
    let unit = try HouseDocuments.text("etc/proxyd.service")
    #expect(unit.contains("\nRuntimeDirectory=proxyd\n"))
  }

  /// The unit lets nothing be written but what it names.
  @Test func theStateFileIsWhereTheUnitLetsItBe() throws {
    let path = "state-file: /var/lib/proxyd/state.db"
    for text in [ConfigText.sample]
      + (try ["README.md", "docs/Fleet.md", "docs/FromDirector.md"].map(HouseDocuments.text))
    {
      #expect(text.contains(path))
    }
    let unit = try HouseDocuments.text("etc/proxyd.service")
    #expect(unit.contains("\nProtectSystem=strict\n"))
    #expect(unit.contains("\nStateDirectory=proxyd\n"))
  }
}

/// The documents of this room say what the code does.
struct ControlDocumentsTests {
  @Test func theProtocol() throws {
    let text = try HouseDocuments.text("docs/Control.md")
    func expect(_ words: String) { #expect(text.contains(words), "docs/Control.md lacks \(words)") }
    for command in ControlCommand.allCases {
      expect("`\(command.rawValue)`")
      for argument in command.arguments {
        expect("`\(argument.name)`")
        if case .choice(let words) = argument.kind, command != .logLevel { for word in words { expect("`\(word)`") } }
      }
    }
    for code in ControlProblem.Code.allCases { expect("| `\(code.rawValue)` |") }
    for phase in LoginPhase.allCases { expect("`\(phase.rawValue)`") }
    for wait in LoginWait.allCases { expect("`\(wait.rawValue)`") }
    for eviction in Eviction.allCases { expect("`\(eviction.rawValue)`") }
    for kind in TraceEvent.Kind.allCases { expect("`\(kind.rawValue)`") }
    for number in [ControlServer.mostClients, ControlRequest.longestLine, Traces.most] {
      #expect(text.replacing(",", with: "").contains("\(number)"), "docs/Control.md lacks \(number)")
    }
  }

  /// Every key of every row and last line.
  @Test func theRows() throws {
    let text = try HouseDocuments.text("docs/Control.md")
    let writer = AnswerWriter()
    let lines: [[UInt8]] = [
      writer.done(
        ToldStatus(
          version: "", pid: 0, state: "", uptime: 0, loops: 0, sessions: 0, limit: 0, logins: 0, failedLogins: 0, in: 0,
          out: 0, users: 0, logLevel: "", backends: 0, lostBackends: 0, stateFile: "", stateTrouble: "")),
      writer.row(
        ToldListener(
          listener: "", protocol: "", tls: "", sessions: 0, accepted: 0, handshakes: 0, failedHandshakes: 0, logins: 0,
          refusedLogins: 0, in: 0, out: 0)),
      writer.row(
        ToldSession(
          session: "", user: "", loggedIn: true, protocol: "", client: "", listener: "", backend: "", address: "",
          doing: "", age: 0, idle: 0, in: 0, out: 0, tls: "", backendTls: "")),
      writer.row(ToldUser(user: "", sessions: 0, addresses: [], addressCount: 0, backends: [], protocols: [])),
      writer.row(
        ToldBackend(
          backend: "", pools: [], state: "", agent: "", health: "", reason: "", since: 0, sessions: 0, entering: 0,
          weight: 0, weightSet: true, share: 0, triedLogins: 0, acceptedLogins: 0, refusedLogins: 0, failedLogins: 0,
          in: 0, out: 0)),
      writer.row(ToldPlace(pool: "", user: "", backend: "", expires: 0)),
      writer.row(ToldMapping(pool: "", user: "", current: "", expires: 0, hashed: "", configured: "")),
      writer.row(ToldMetric(name: "", labels: [:], type: "", value: 0, count: 0, sum: 0, buckets: [])),
      writer.row(ToldEvent(time: "", session: "", kind: "", text: "")), writer.row(ToldProblem(problem: "")),
      writer.done(ToldCount(count: 0)), writer.done(ToldBounds(count: 0, bounds: [])),
      writer.done(ToldSetting(backend: "", state: "", weight: 0)), writer.done(ToldLevel(level: "")),
    ]
    for line in lines {
      let object = try #require(try JSONSerialization.jsonObject(with: Data(line)) as? [String: [String: Any]])
      for key in object.values.flatMap(\.keys) { #expect(text.contains("`\(key)`"), "docs/Control.md lacks \(key)") }
    }
  }

  @Test func theManualHasEveryCommand() throws {
    let manual = try HouseDocuments.text("etc/proxyd.8")
    for command in Proxyd.configuration.subcommands {
      let name = try #require(command.configuration.commandName)
      #expect(manual.contains("\n.It Cm \(name)"), "\(name)")
    }
    for command in AffinityCommand.configuration.subcommands {
      #expect(manual.contains("\n.It Cm affinity \(command._commandName)"), "\(command)")
    }
  }
}

/// A document of the project.
private enum HouseDocuments {
  static func text(_ path: String) throws -> String {
    try String(contentsOf: ConfigKeysTests.root.appending(path: path), encoding: .utf8)
  }
}

// swift-format-ignore-file: NeverForceUnwrap

import Foundation
import Logging
import ProxyCore
import Testing

@testable import proxyd

struct ControlRequestTests {
  private func read(_ text: String) throws(ControlProblem) -> ControlRequest { try ControlRequest(Array(text.utf8)) }

  private func problem(_ text: String) -> ControlProblem? {
    do throws(ControlProblem) {
      _ = try read(text)
      return nil
    } catch { return error }
  }

  @Test func arguments() throws {
    #expect(try read(#"{"command":"who","user":":\"\\"}"#).text("user") == #":"\"#)
    let request = try read(#"{"command":"sessions","user":"grün","limit":3}"#)
    #expect(request.command == .sessions)
    #expect(request.text("user") == "grün")
    #expect(request.number("limit") == 3)
    #expect(request.text("backend") == nil)
    #expect(request.number("user") == nil)
    #expect(request.has("limit"))
    #expect(!request.has("where"))
    #expect(request.words.map { "\($0.name)=\($0.value)" } == ["limit=3", "user=grün"])
    let load = try read(
      #"{"entries":[{"backend":"a","user":"x"},{"user":"y","backend":"b"}],"command":"affinity-load"}"#)
    #expect(load.entries("entries") == [ControlEntry(user: "x", backend: "a"), ControlEntry(user: "y", backend: "b")])
    #expect(load.words.map(\.value) == ["2"])
  }

  @Test(arguments: ControlCommand.allCases)
  func everyCommandIsRead(_ command: ControlCommand) throws {
    var arguments: [String: ControlValue] = [:]
    for argument in command.arguments {
      switch argument.kind {
      case .text: arguments[argument.name] = .text("x")
      case .number(let range): arguments[argument.name] = .number(range.upperBound)
      case .choice(let words): arguments[argument.name] = .text(words[0])
      case .weight: arguments[argument.name] = .text("default")
      case .entries: arguments[argument.name] = .entries([ControlEntry(user: "x", backend: "a")])
      }
    }
    let line = AnswerWriter().request(command, arguments)
    #expect(line.last == 0x0A)
    let request = try ControlRequest(line.dropLast())
    #expect(request.command == command)
    #expect(request.words.map(\.name) == command.arguments.map(\.name).sorted())
    // What is needed is missed, and what is not known is not passed over.
    for argument in command.arguments where argument.isRequired {
      let less = AnswerWriter().request(command, arguments.filter { $0.key != argument.name })
      #expect(problem(String(decoding: less, as: UTF8.self))?.message.hasPrefix("\(argument.name): ") == true)
    }
    let more = AnswerWriter().request(command, arguments.merging(["zz": .number(1)]) { old, _ in old })
    #expect(problem(String(decoding: more, as: UTF8.self))?.message.hasPrefix("zz: \(command.rawValue) has no") == true)
  }

  @Test(arguments: [
    ("", ControlProblem.Code.syntax, "no JSON object"), ("[]", .syntax, "no JSON object"),
    ("{", .syntax, "no JSON object"), ("\"status\"", .syntax, "no JSON object"), ("null", .syntax, "no JSON object"),
    ("{\"command\":\"status\"} x", .syntax, "no JSON object"), ("\u{0}", .syntax, "no JSON object"),
    (String(repeating: "[", count: 60_000), .syntax, "no JSON object"),
    (String(repeating: #"{"command":"#, count: 5_000), .syntax, "no JSON object"),
    (#"{"command":"status","command":"who"}"#, .argument, "a key is given twice"),
    (#"{"command":"sessions","user":"a","user":"b"}"#, .argument, "a key is given twice"),
    (
      #"{"command":"affinity-load","entries":[{"user":"x","user":"y","backend":"a"}]}"#, .argument,
      "a key is given twice"
    ),
    ("{}", .command, "missing"), (#"{"command":7}"#, .command, "missing"),
    (#"{"command":"Status"}"#, .command, "unknown command \"Status\""),
    (#"{"command":"status","user":"x"}"#, .argument, "user: status has no such argument, expected none"),
    (#"{"command":"sessions","users":"x"}"#, .argument, "users: sessions has no such argument, expected user, backend"),
    (#"{"command":"sessions","user":""}"#, .argument, "user: expected a text that is not empty"),
    (#"{"command":"sessions","user":7}"#, .argument, "user: expected a text"),
    (#"{"command":"sessions","user":null}"#, .argument, "user: this is no text, number or list"),
    (#"{"command":"sessions","user":true}"#, .argument, "user: this is no text, number or list"),
    (#"{"command":"sessions","user":{"a":1}}"#, .argument, "user: this is no text, number or list"),
    (#"{"command":"sessions","limit":0}"#, .argument, "limit: expected a number, 1 to 1000000"),
    (#"{"command":"sessions","limit":1.5}"#, .argument, "limit: this is no text, number or list"),
    (#"{"command":"sessions","limit":99999999999999999999}"#, .argument, "limit: this is no text, number or list"),
    (#"{"command":"backend"}"#, .argument, "backend: backend needs it"),
    (#"{"command":"backend","backend":"a","state":"up"}"#, .argument, "state: expected ready, drain, maint or removed"),
    (
      #"{"command":"backend","backend":"a","weight":-1}"#, .argument, "weight: expected a number, 0 to 1000, or default"
    ),
    (#"{"command":"backend","backend":"a","weight":"7"}"#, .argument, "weight: expected a number"),
    (#"{"command":"affinity-load","entries":[{"user":"x"}]}"#, .argument, "entries: this is no"),
    (#"{"command":"affinity-load","entries":[{"user":"x","backend":"a","z":"1"}]}"#, .argument, "entries: this is no"),
    (#"{"command":"affinity-load","entries":[{"user":"","backend":"a"}]}"#, .argument, "entries: expected a list"),
    (#"{"command":"affinity-load","entries":"x"}"#, .argument, "entries: expected a list"),
  ])
  func mistakesAreNamed(_ text: String, _ code: ControlProblem.Code, _ words: String) {
    let problem = problem(text)
    #expect(problem?.code == code)
    #expect(problem?.message.contains(words) == true, "\(problem?.message ?? "none")")
  }

  @Test func whatIsNoTextIsNoRequest() {
    do throws(ControlProblem) {
      _ = try ControlRequest(Array(#"{"command":"who","user":""#.utf8) + [0xFF] + Array("\"}".utf8))
      Issue.record("it was read")
    } catch { #expect(error == ControlProblem(.argument, "user: this is no text, number or list of users")) }
  }
}

struct AnswerTests {
  private let reader = AnswerReader()
  private let writer = AnswerWriter()

  private func text(_ line: [UInt8]) -> String { String(decoding: line, as: UTF8.self) }

  @Test func linesAreReadAsTheyAreWritten() {
    let place = ToldPlace(pool: "p", user: "a\"\n\u{1B}é/", backend: "b", expires: 7)
    let row = writer.row(place)
    #expect(text(row) == #"{"row":{"backend":"b","expires":7,"pool":"p","user":"a\"\n\u001bé/"}}"# + "\n")
    #expect(reader.kind(row.dropLast()) == .row)
    #expect(reader.value(row.dropLast(), ToldPlace.self) == place)
    let done = writer.done(ToldCount(count: 3))
    #expect(text(done) == #"{"done":{"count":3}}"# + "\n")
    #expect(reader.kind(done.dropLast()) == .done)
    #expect(reader.value(done.dropLast(), ToldCount.self) == ToldCount(count: 3))
    let problem = ControlProblem(.notFound, "no")
    let error = writer.error(problem)
    #expect(text(error) == #"{"error":{"code":"not-found","message":"no"}}"# + "\n")
    #expect(reader.kind(error.dropLast()) == .error(problem))
  }

  @Test func keysAreInSnakeCaseAndLabelsStayThemselves() {
    let metric = ToldMetric(name: "n", labels: ["aLabel": "x"], type: "counter", value: 1)
    #expect(text(writer.row(metric)).contains(#""labels":{"aLabel":"x"}"#))
    #expect(reader.value(writer.row(metric).dropLast(), ToldMetric.self) == metric)
    let session = ToldSession(
      session: "s", user: "u", loggedIn: true, protocol: "imap", client: "c", listener: "l", doing: "d", age: 1, in: 2,
      out: 3, backendTls: "TLSv1.3")
    #expect(text(writer.row(session)).contains(#""backend_tls":"TLSv1.3""#))
    #expect(text(writer.row(session)).contains(#""logged_in":true"#))
    #expect(reader.value(writer.row(session).dropLast(), ToldSession.self) == session)
  }

  @Test(arguments: ["", "x", "{}", "[]", #"{"row":7"#, #"{"other":{}}"#])
  func whatIsNoAnswer(_ line: String) { #expect(reader.kind(Array(line.utf8)) == nil) }
}

struct ShownTextTests {
  @Test(arguments: [
    ("plain", "plain", 5), ("", "", 0), ("\u{1B}[2J", #"\u{1b}[2J"#, 9), ("a\nb\t", #"a\u{a}b\u{9}"#, 12),
    ("grün", "grün", 4), ("e\u{301}", "e\u{301}", 1), ("日本", "日本", 4), ("\u{9B}1m", #"\u{9b}1m"#, 8),
    ("\u{202E}abc", #"\u{202e}abc"#, 11), ("\u{200B}", #"\u{200b}"#, 8), ("\u{FEFF}", #"\u{feff}"#, 8),
    ("\u{2028}", #"\u{2028}"#, 8), ("😀", "😀", 2),
  ])
  func whatIsShown(_ text: String, _ shown: String, _ width: Int) {
    let made = ShownText(text)
    #expect(made.text == shown)
    #expect(made.width == width)
  }

  @Test func cutsAndFills() {
    #expect(ShownText("abcdef").fit(4) == "abc…")
    #expect(ShownText("abc").fit(5) == "abc  ")
    #expect(ShownText("7").fit(3, toTheRight: true) == "  7")
    #expect(ShownText("abc").fit(0) == "")
    #expect(ShownText("abc").fit(1) == "…")
    // A wide character that does not fit leaves a blank.
    #expect(ShownText("日本語").fit(4) == "日… ")
    #expect(ShownText("日本語").cut(to: 4).width == 3)
  }

  @Test(arguments: [
    (0, "0"), (-5, "0"), (1_023, "1023"), (1_024, "1.0K"), (10_188, "9.9K"), (10_240, "10K"), (1 << 20, "1.0M"),
    (Int.max, "7.9E"),
  ])
  func bytes(_ count: Int, _ text: String) { #expect(Human.bytes(count) == text) }

  @Test(arguments: [
    (0, "0.0s"), (-1, "0.0s"), (9_999, "9.9s"), (10_000, "10s"), (59_999, "59s"), (65_000, "1m05s"),
    (3_600_000, "1h00m"), (86_399_000, "23h59m"), (4 * 86_400_000 + 3 * 3_600_000, "4d03h"),
  ])
  func times(_ milliseconds: Int, _ text: String) { #expect(Human.time(milliseconds) == text) }

  @Test func tables() {
    var table = Table("NAME", "#N", "LAST")
    table.add("日本", "7", "x")
    table.add("longer-name", "12345", nil)
    table.add("a\u{1B}", "", "")
    #expect(
      table.lines == [
        "NAME             N  LAST", "日本             7  x", "longer-name  12345  -", "a\\u{1b}          -  -",
      ])
    #expect(Table("A", "#B").lines == ["A  B"])
  }
}

struct StatusLinesTests {
  private var status: ToldStatus {
    ToldStatus(
      version: "1", pid: 7, state: "running", uptime: 65, loops: 2, sessions: 3, limit: 9, logins: 5, failedLogins: 1,
      in: 10, out: 20, users: 4, logLevel: "info")
  }

  /// What there is nothing to say of has no line.
  @Test func theFleet() {
    var status = status
    let plain = [
      "proxyd 1, process 7, running for 1m05s", "loops     2", "sessions  3 of 9", "logins    5 accepted, 1 not",
      "bytes     10 in, 20 out", "users     4 remembered",
    ]
    #expect(Array(StatusCommand.lines([], status).prefix(8)) == plain + ["log       info", ""])
    status.backends = 12
    status.lostBackends = 0
    status.stateFile = "/var/lib/proxyd/state.db"
    #expect(
      Array(StatusCommand.lines([], status).prefix(10))
        == plain + ["backends  12", "state     /var/lib/proxyd/state.db", "log       info", ""])
    status.lostBackends = 2
    status.stateTrouble = "disk\u{1B}full"
    #expect(
      Array(StatusCommand.lines([], status)[6...7]) == [
        "backends  12, 2 lost",
        #"state     /var/lib/proxyd/state.db, not written: disk\u{1b}full; what is new is remembered in memory only"#,
      ])
  }
}

struct AffinityFileTests {
  @Test func files() {
    func read(_ text: String, pool: String? = nil) -> Result<[String?: [ControlEntry]], AffinityFile.Problem> {
      AffinityFile.read(text, pool: pool)
    }
    let one = ControlEntry(user: "a b", backend: "x")
    #expect(read("# c\na b\tx\r\n\n") == .success([nil: [one]]))
    #expect(read("a b\tx\tp\n") == .success(["p": [one]]))
    #expect(read("a b\tx\n", pool: "q") == .success(["q": [one]]))
    #expect(read("a b\tx\tp\na b\tx\tq\n", pool: "q") == .success(["q": [one]]))
    for wrong in ["a", "a\t", "\tx", "a\tx\tp\tz", "a\tx\t"] {
      #expect(read("a\tx\n\(wrong)\n") == .failure(.init(line: 2, words: "expected a user, a tab and a backend")))
    }
  }

  /// What a dump says, a load reads, whatever the names are.
  @Test(arguments: [
    "alice", "#alice", "\\#alice", "\\\\alice", "dom\\alice", "\\alice", " a", "\u{301}", "#\u{301}", "\\\u{301}",
  ])
  func names(_ user: String) {
    let line = AffinityFile.line(ToldPlace(pool: "p", user: user, backend: "b"))
    let entry = ControlEntry(user: user, backend: "b")
    #expect(AffinityFile.read("\(line)\n", pool: nil) == .success(["p": [entry]]))
    // As people write it.
    guard user.utf8.first != UInt8(ascii: "#"), user.utf8.first != UInt8(ascii: "\\") else { return }
    #expect(AffinityFile.read("\(user)\tb\tp\n", pool: nil) == .success(["p": [entry]]))
  }

  /// Each part fits in a request, whatever the names are.
  @Test func parts() throws {
    let entries = (0..<3_000).map { ControlEntry(user: String(repeating: "\u{1}", count: 200) + "\($0)", backend: "b") }
    let portions = AffinityFile.portions(entries)
    #expect(portions.count > 1)
    #expect(portions.flatMap { $0 } == entries)
    for portion in portions {
      let line = AnswerWriter().request(.affinityLoad, ["entries": .entries(portion), "pool": .text("p")])
      #expect(line.count <= ControlRequest.longestLine)
      #expect(try ControlRequest(line.dropLast()).entries("entries") == portion)
    }
    #expect(AffinityFile.portions([]).isEmpty)
  }
}

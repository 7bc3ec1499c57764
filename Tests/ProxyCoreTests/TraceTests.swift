// swift-format-ignore-file: NeverForceUnwrap

import Foundation
import Testing

@testable import Protocols
@testable import ProxyCore

/// A login as it is told to whoever looks.
struct TraceTests {
  private static let password = "S3cret-Pässword"
  private static let token = "ya29." + String(repeating: "Tok3n", count: 60)

  private static func base64(_ text: String) -> String { Data(text.utf8).base64EncodedString() }
  private static let plain = base64("\0alice\0\(password)")
  private static let oauth = base64("user=alice\u{1}auth=Bearer \(token)\u{1}\u{1}")

  /// A way to log in: what client and backend say in turn, and what must not be told in any form.
  struct Way: Sendable, CustomTestStringConvertible {
    let name: String
    var mailProtocol = MailProtocol.imap
    /// `C:` the client, `B:` the backend, `<` what the backend waits for before it goes on.
    let script: [String]
    var secrets = [TraceTests.password, TraceTests.plain, TraceTests.base64(TraceTests.password)]
    /// What a trace has to tell of it.
    let told: [String]

    var testDescription: String { name }
  }

  static let ways = [
    Way(
      name: "LOGIN",
      script: [
        "C:a LOGIN alice {16+}\r\n\(password)\r\n", "B:* OK [CAPABILITY IMAP4rev1 LITERAL+] hi\r\n", "<L LOGIN",
        "<word\r\n",
        "B:L OK [CAPABILITY IMAP4rev1] Logged in\r\n",
      ], told: ["proxyd L LOGIN (", "backend L OK [CAPABILITY IMAP4rev1] Logged in", "verdict accepted"]),
    Way(
      name: "LOGIN with literals that wait",
      script: [
        "C:a LOGIN alice {16+}\r\n\(password)\r\n", "B:* OK [CAPABILITY IMAP4rev1] hi\r\n", "<L LOGIN", "<}\r\n",
        "B:+ go on\r\n",
        "<word\r\n", "B:L NO \(password) is wrong\r\n",
      ],
      told: ["proxyd L LOGIN (", "proxyd (18 bytes hidden)", "backend (it repeats the credentials)", "verdict refused"]),
    Way(
      name: "AUTHENTICATE PLAIN",
      script: [
        "C:a AUTHENTICATE PLAIN \(plain)\r\n", "B:* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] hi\r\n",
        "<L AUTHENTICATE PLAIN",
        "<\r\n", "B:* BAD I don't know L AUTHENTICATE PLAIN \(plain.uppercased())\r\n",
        "B:* NO \(password.uppercased())\r\n",
        "B:L OK in\r\n",
      ], told: ["proxyd L AUTHENTICATE PLAIN (", "backend (it repeats the credentials)", "backend L OK in"]),
    Way(
      name: "AUTHENTICATE LOGIN",
      script: [
        "C:a AUTHENTICATE LOGIN\r\n", "C:\(base64("alice"))\r\n", "C:\(base64(password))\r\n",
        "B:* OK [CAPABILITY IMAP4rev1 AUTH=LOGIN LOGINDISABLED] hi\r\n", "<L AUTHENTICATE LOGIN\r\n",
        "B:+ VXNlcm5hbWU6\r\n",
        "<\r\n", "B:+ UGFzc3dvcmQ6\r\n", "<\r\n", "B:L NO no\r\n",
      ], told: ["proxyd L AUTHENTICATE LOGIN (", "backend + (12 bytes hidden)", "verdict refused"]),
    Way(
      name: "XOAUTH2",
      script: [
        "C:a AUTHENTICATE XOAUTH2 \(oauth)\r\n", "B:* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=XOAUTH2] hi\r\n",
        "<L AUTHENTICATE XOAUTH2", "<\r\n", "B:+ eyJzdGF0dXMiOiI0MDAifQ==\r\n", "C:\r\n", "<\r\n",
        "B:L NO \(token.dropFirst(20).prefix(50))\r\n",
      ], secrets: [token, oauth, base64(token)],
      told: ["proxyd L AUTHENTICATE XOAUTH2 (", "backend (it repeats the credentials)", "verdict refused"]),
    Way(
      name: "USER and PASS", mailProtocol: .pop3,
      script: [
        "C:USER alice\r\nPASS \(password)\r\n", "B:+OK hi\r\n", "<PASS", "<\r\n", "B:+OK\r\n",
        "B:-ERR PASS \(password)?\r\n",
      ], told: ["proxyd USER (", "backend (it repeats the credentials)", "verdict refused"]),
    Way(
      name: "AUTH PLAIN", mailProtocol: .pop3,
      script: [
        "C:AUTH PLAIN \(plain)\r\n", "B:+OK hi\r\n", "<CAPA\r\n", "B:+OK\r\nSASL PLAIN\r\n.\r\n", "<AUTH PLAIN",
        "<\r\n",
        "B:+OK in\r\n",
      ], told: ["proxyd CAPA", "backend SASL PLAIN", "proxyd AUTH PLAIN (", "verdict accepted"]),
    Way(
      name: "ManageSieve", mailProtocol: .manageSieve,
      script: [
        "C:AUTHENTICATE \"PLAIN\" \"\(plain)\"\r\n", "B:\"SASL\" \"PLAIN\"\r\nOK \"hi\"\r\n", "<AUTHENTICATE \"PLAIN\"",
        "<\r\n",
        "B:NO \"\(plain.lowercased())\"\r\n",
      ], told: ["proxyd AUTHENTICATE \"PLAIN\" (", "backend (it repeats the credentials)", "verdict refused"]),
    Way(
      name: "SCRAM",
      script: [
        "C:a AUTHENTICATE SCRAM-SHA-256 \(base64("n,,n=alice,r=abcdefgh"))\r\n",
        "B:* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=SCRAM-SHA-256] hi\r\n", "<L AUTHENTICATE SCRAM-SHA-256", "<\r\n",
        "B:+ \(base64("r=abcdefghXYZ,s=c2FsdHNhbHQ=,i=4096"))\r\n",
        "C:\(base64("c=biws,r=abcdefghXYZ,p=cHJvb2Y="))\r\n",
        "<\r\n", "B:+ \(base64("v=c2lnbmF0dXJl"))\r\n", "C:\r\n", "<\r\n", "B:L OK in\r\n",
      ],
      secrets: [
        base64("n,,n=alice,r=abcdefgh"), base64("r=abcdefghXYZ,s=c2FsdHNhbHQ=,i=4096"),
        base64("c=biws,r=abcdefghXYZ,p=cHJvb2Y="), base64("v=c2lnbmF0dXJl"), "c2FsdHNhbHQ=", "cHJvb2Y", "c2lnbmF0dXJl",
      ], told: ["proxyd L AUTHENTICATE SCRAM-SHA-256 (", "backend + (", "verdict accepted"]),
  ]

  /// Plays a way to its end, and returns what was told as lines of kind and text.
  private func play(_ way: Way, trace user: String = "ALICE") throws -> (lines: [String], isTold: Bool) {
    let server = TestServer()
    let stage = try LoopStage(.to(server.port))
    let trace = try #require(stage.house.traces.begin(user, TraceBounds()))
    defer { stage.house.traces.end(trace) }
    let client = stage.connect(way.mailProtocol, mechanisms: SASLMechanism.allCases)
    _ = client.hear(way.mailProtocol == .manageSieve ? "OK " : "\r\n")
    var backend: Peer?
    for line in way.script {
      let words = line.drop { $0 == "C" || $0 == "B" || $0 == "<" }.drop { $0 == ":" }
      if line.hasPrefix("C:") { client.send(String(words)) } else if backend == nil { backend = server.accept() }
      if line.hasPrefix("B:") { backend?.send(String(line.dropFirst(2))) }
      if line.hasPrefix("<") { _ = backend?.hear(String(line.dropFirst())) }
    }
    eventually("the verdict") {
      stage.house.meters.failures.counted.count + stage.house.meters.backend("a").accepted.value > 0
    }
    client.close()
    _ = stage.sessionLine()
    var events: [TraceEvent] = []
    while let more = trace.next(within: .milliseconds(0)), !more.isEmpty || events.isEmpty && user == "ALICE" {
      events += more
    }
    // The log's line and every event name the same session.
    for event in events { #expect(stage.sessionLine().contains("session=\(event.session) ")) }
    return (events.map { "\($0.kind.rawValue) \($0.text)" }, !events.isEmpty)
  }

  /// Whether any part of a secret that would help a thief stands in the text, in any case.
  private func leaks(_ secret: String, in text: String) -> Bool {
    let text = Array(text.lowercased().utf8)
    let secret = Array(secret.lowercased().utf8)
    // The name is no secret, and base64 of PLAIN and XOAUTH2 begins with it.
    let name = TraceTests.base64("\0alice\0").dropLast(3).utf8.count
    let pieces = secret.count > 30 ? secret.dropFirst(name) : secret[...]
    for start in pieces.indices.dropLast(7) where text.firstRange(of: pieces[start..<start + 8]) != nil { return true }
    return text.firstRange(of: secret) != nil
  }

  @Test(arguments: TraceTests.ways)
  func noSecretIsTold(_ way: Way) throws {
    let (lines, _) = try play(way)
    let text = lines.joined(separator: "\n")
    for secret in way.secrets { #expect(!leaks(secret, in: text), "\(secret) in \(text)") }
    for told in way.told { #expect(lines.contains { $0.hasPrefix(told) }, "\(told) in \(text)") }
    #expect(lines.first?.hasPrefix("login ") == true)
    #expect(lines.last?.hasPrefix("end ") == true)
    #expect(lines.contains { $0.hasPrefix("lookup default: a (127.0.0.1:") })
    #expect(lines.contains { $0.hasPrefix("connect 127.0.0.1:") })
  }

  /// The check above would find one.
  @Test func aLeakIsFound() {
    let way = TraceTests.ways[2]
    #expect(leaks(TraceTests.password, in: "x \(TraceTests.password.uppercased()) y"))
    #expect(leaks(TraceTests.plain, in: "AUTHENTICATE PLAIN \(TraceTests.plain.lowercased())"))
    #expect(leaks(TraceTests.plain, in: String(TraceTests.plain.dropFirst(14))))
    #expect(leaks(TraceTests.oauth, in: TraceTests.oauth))
    #expect(!leaks(way.secrets[0], in: "L OK in"))
  }

  @Test func whoIsNotLookedAtIsNotTold() throws {
    #expect(try play(TraceTests.ways[0], trace: "bob").lines.isEmpty)
    #expect(try !play(TraceTests.ways[0], trace: "al*").lines.isEmpty)
  }

  /// What a session that logs in as somebody else does next is that one's.
  @Test func theNextLoginIsAnothers() throws {
    let stage = try LoopStage(.to(TestServer().port))
    let trace = try #require(stage.house.traces.begin("alice", TraceBounds()))
    let client = stage.connect()
    _ = client.hear("\r\n")
    client.send("a LOGIN alice x\r\n")
    _ = client.hear("a NO")
    client.send("b LOGIN bob y\r\n")
    _ = client.hear("b NO")
    let events = try #require(trace.next(within: .seconds(5)))
    #expect(events.map(\.kind) == [.login, .lookup, .connect, .verdict])
    #expect(events.last?.text.hasPrefix("backend-unreachable") == true)
    client.close()
    _ = stage.sessionLine()
    #expect(trace.next(within: .milliseconds(0)) == [])
    // And nobody is told once nobody looks.
    stage.house.traces.end(trace)
    #expect(!stage.house.traces.isOn)
    [trace].tell(.end, "x", session: "s")
    let other = stage.connect()
    _ = other.hear("\r\n")
    other.send("a LOGIN alice x\r\n")
    _ = other.hear("a NO")
    #expect(trace.next(within: .milliseconds(0)) == nil)
  }

  @Test func bounds() throws {
    let traces = Traces()
    var all: [Trace] = []
    for _ in 0..<Traces.most { all.append(try #require(traces.begin("a", TraceBounds()))) }
    #expect(traces.begin("a", TraceBounds()) == nil)
    traces.end(all[0])
    var bounds = TraceBounds()
    bounds.lines = 150
    let trace = try #require(traces.begin("b", bounds))
    // Lines in all.
    for number in 0..<400 { [trace].tell(.backend, "\(number)", session: "s") }
    let told = try #require(trace.next(within: .seconds(10)))
    #expect(told.map(\.text) == (0..<150).map { "\($0)" })
    #expect(trace.next(within: .milliseconds(0)) == nil)
    // Lines a second: what is left out is told with the next.
    traces.end(all[1])
    let second = try #require(traces.begin("c", TraceBounds()))
    var seen = 0
    eventually("a second with more lines than may be") {
      for _ in 0..<50 { [second].tell(.backend, "x", session: "s") }
      let events = second.next(within: .milliseconds(0)) ?? []
      seen += events.count
      return events.contains { $0.kind == .lost }
    }
    #expect(seen >= TraceBounds.linesPerSecond)
    // The time.
    traces.end(all[2])
    bounds.time = 1
    let third = try #require(traces.begin("d", bounds))
    #expect(third.next(within: .milliseconds(1)) == nil)
  }

  /// However much there is to be told.
  @Test func theTimeEndsIt() throws {
    var bounds = TraceBounds()
    bounds.time = Timeouts.milliseconds(20)
    let trace = try #require(Traces().begin("a", bounds))
    eventually("it is over") {
      [trace].tell(.backend, "x", session: "s")
      return trace.next(within: .milliseconds(0)) == nil
    }
  }

  /// Nothing comes behind them that would tell.
  @Test func theLastLinesThatWereTooManyAreTold() throws {
    let trace = try #require(Traces().begin("a", TraceBounds()))
    for _ in 0..<(3 * TraceBounds.linesPerSecond) { [trace].tell(.backend, "x", session: "s") }
    var told: [TraceEvent] = []
    eventually("it is told") {
      told += trace.next(within: .milliseconds(10)) ?? []
      return told.last?.kind == .lost
    }
    let lost = told.filter { $0.kind == .lost }.compactMap { Int($0.text.prefix { $0.isNumber }) }.reduce(0, +)
    #expect(told.count { $0.kind == .backend } + lost == 3 * TraceBounds.linesPerSecond)
  }

  @Test(arguments: [
    ("plain", "plain"), ("a\u{1B}[2Jb\r\n\u{7F}", #"a\x1b[2Jb\x0d\x0a\x7f"#), ("\\x41", #"\\x41"#), ("grün", "grün"),
    ("\u{9B}31m", #"\xc2\x9b31m"#), ("\u{A0}", "\u{A0}"),
  ])
  func whatIsShownIsHarmless(_ text: String, _ shown: String) {
    #expect(TraceText.quote(Array(text.utf8).span) == shown)
  }

  @Test func whatIsNoTextIsEscaped() {
    #expect(TraceText.quote([0x61, 0xFF, 0xC3].span) == #"a\xff\xc3"#)
    let long = TraceText.quote([UInt8](repeating: 0x61, count: 600).span)
    #expect(long == String(repeating: "a", count: 500) + " (100 bytes more)")
  }
}

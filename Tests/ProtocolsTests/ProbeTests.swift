// swift-format-ignore-file: NeverForceUnwrap
// A test that unwraps nil fails, which is what it is for.

import Foundation
import Testing

@testable import Protocols

/// Plays the driver of a probe.
struct ProbePlayer: ~Copyable, Player {
  private var dialogue: ProbeDialogue
  private var draft = LoginDraft()
  var stage = PlayStage()

  init(_ dialogue: ProbeDialogue) { self.dialogue = dialogue }

  mutating func digest() {
    var out: [UInt8] = []
    while !stage.waits, !stage.isOver, !stage.buffer.isEmpty {
      let bytes = stage.buffer
      let step = dialogue.receive(bytes.span, draft, &out)
      stage.buffer.removeFirst(step.consumed)
      stage.log.say(&out)
      switch step.action {
      case .read: return
      case .proceed: #expect(step.consumed > 0)
      case .upgrade:
        stage.upgrade()
      case .done: end("done")
      case .failed(let fault, let answer):
        end("failed: \(fault.rawValue)\(answer.words.isEmpty ? "" : ": ")\(answer.words)")
      }
    }
  }

  private mutating func end(_ action: String) {
    stage.log.act(action)
    stage.isOver = true
  }

  /// - `draft …` as for a backend dialogue. `secured`: TLS is up. `asked`: for whoever reads it, what is waited for.
  mutating func tell(_ text: String) {
    var out: [UInt8] = []
    let parts = text.split(separator: " ", maxSplits: 1).map(String.init)
    switch parts[0] {
    case "draft": Transcript.fill(&draft, text)
    case "secured":
      stage.waits = false
      dialogue.secured(draft, &out)
    case "asked": stage.log.act(dialogue.doing)
    default: Issue.record("nothing to tell a probe: \(text)")
    }
    stage.log.say(&out)
  }
}

struct ProbeTests {
  private static let goodbyes: [MailProtocol: String] = [
    .imap: "Q LOGOUT\r\n", .pop3: "QUIT\r\n", .manageSieve: "LOGOUT\r\n",
  ]

  private static let grants: [MailProtocol: [String]] = [
    .imap: ["S OK\r\n", "S NO\r\n"], .pop3: ["+OK\r\n", "-ERR\r\n"], .manageSieve: ["OK\r\n", "NO\r\n"],
  ]

  private static let ends: [MailProtocol: [String]] = [
    .imap: ["* BYE\r\nQ OK\r\n", "* BYE x\r\n* 1 EXISTS\r\nQ OK x\r\n", "Q OK\r\n", "Q NO x\r\n"],
    .pop3: ["+OK\r\n", "-ERR\r\n", "+OK [X] y\r\n"],
    .manageSieve: ["OK\r\n", "OK \"x\"\r\n", "BYE\r\n", "NO (X) {1}\r\n\r\r\n"],
  ]

  /// Bytes nobody should send: a probe ends or waits, never a trap, never more said than its few words, and nothing of the
  /// login before TLS where that is demanded.
  @Test(arguments: MailProtocol.allCases, [ProbeDialogue.Depth.greeting, .login])
  func hostileBytes(_ mailProtocol: MailProtocol, _ depth: ProbeDialogue.Depth) {
    var random = SeededGenerator(seed: 44)
    var met: [String: Int] = [:]
    for round in 0..<4_000 {
      let terms = BackendTerms(
        channel: round % 3 == 0 ? .startTLSFirst : .trusted(.plaintextByConfiguration),
        pace: round % 5 == 0 ? .stepwise : .pipelined)
      var dialogue = ProbeDialogue(mailProtocol, terms, depth)
      var draft = LoginDraft()
      draft.name = Array("probe".utf8)
      draft.password.append(Array("grüße".utf8).span)
      var buffer = Array(HostileTests.greetings[mailProtocol]!.randomElement(using: &random)!.utf8)
      var out: [UInt8] = []
      var isOver = false
      var isInClear = terms.channel == .startTLSFirst
      for _ in 0..<5 where !isOver {
        if isInClear, Bool.random(using: &random) {
          buffer += Array(ProbeTests.grants[mailProtocol]!.randomElement(using: &random)!.utf8)
        }
        if depth == .login, Bool.random(using: &random) {
          buffer += Array(HostileTests.decisions[mailProtocol]!.randomElement(using: &random)!.utf8)
        }
        if Bool.random(using: &random) {
          buffer += Array(ProbeTests.ends[mailProtocol]!.randomElement(using: &random)!.utf8)
        }
        if Int.random(in: 0..<3, using: &random) == 0 { buffer += HostileTests.bytes(&random) }
        while !isOver, !buffer.isEmpty {
          out = []
          let bytes = buffer
          let step = dialogue.receive(bytes.span, draft, &out)
          #expect(step.consumed >= 0 && step.consumed <= bytes.count)
          buffer.removeFirst(step.consumed)
          if isInClear {
            let word = mailProtocol == .imap ? "S STARTTLS\r\n" : mailProtocol == .pop3 ? "STLS\r\n" : "STARTTLS\r\n"
            #expect(out.isEmpty || out == Array(word.utf8))
          }
          switch step.action {
          case .read: #expect(step.consumed == 0)
          case .proceed: #expect(step.consumed > 0)
          case .upgrade:
            #expect(isInClear)
            isInClear = false
            met["upgrade", default: 0] += 1
            dialogue.secured(draft, &out)
          case .done:
            isOver = true
            met["done", default: 0] += 1
          case .failed(let fault, let answer):
            isOver = true
            met[fault.rawValue, default: 0] += 1
            #expect(!(answer.code + answer.text).contains { $0.isControl })
          }
          #expect(out.count < 200)
          #expect(HostileTests.isLines(out), "\(readable(out))")
          if step.action == .read { break }
        }
      }
    }
    // Chance has led everywhere.
    var places = ["upgrade", "done", ProbeFault.protocolError.rawValue, ProbeFault.noTLS.rawValue]
    if depth == .login { places.append(ProbeFault.loginRefused.rawValue) }
    for place in places { #expect(met[place, default: 0] > 10, "\(place): \(met)") }
  }

  /// A line that never ends, and lines without end: neither is kept.
  @Test(arguments: MailProtocol.allCases, [ProbeDialogue.Depth.greeting, .login])
  func tooMuch(_ mailProtocol: MailProtocol, _ depth: ProbeDialogue.Depth) throws {
    let terms = BackendTerms(channel: .trusted(.encrypted))
    let long = [UInt8](repeating: .ascii("x"), count: Limits.backendLine + 1)
    // Whole with its end, and without.
    for bytes in [long, long + [.lineFeed]] {
      var dialogue = ProbeDialogue(mailProtocol, terms, depth)
      var out: [UInt8] = []
      let step = dialogue.receive(bytes.span, LoginDraft(), &out)
      #expect(step.action == .failed(.tooMuch, BackendAnswer()))
      #expect(out.isEmpty)
    }
    // Lines that mean nothing, where such may come.
    guard mailProtocol != .pop3, mailProtocol == .manageSieve || depth == .greeting else { return }
    var dialogue = ProbeDialogue(mailProtocol, terms, depth)
    var out: [UInt8] = []
    var action = ProbeAction.proceed
    var count = 0
    if mailProtocol == .imap { _ = dialogue.receive(Array("* OK\r\n".utf8).span, LoginDraft(), &out) }
    let line = Array((mailProtocol == .imap ? "* 1 EXISTS\r\n" : "\"X\" \"yy\"\r\n").utf8)
    while action == .proceed, count < 100_000 {
      action = dialogue.receive(line.span, LoginDraft(), &out).action
      count += line.count
    }
    #expect(action == .failed(.tooMuch, BackendAnswer()))
    #expect(count > 60_000 && count < 70_000)
  }

  /// Each fault is in a transcript: none is there that nobody can meet.
  @Test func everyFaultIsPlayed() throws {
    var met: Set<ProbeFault> = []
    for path in TranscriptTests.all where path.contains("-probe/") {
      let text = try String(contentsOfFile: path, encoding: .utf8)
      for fault in ProbeFault.allCases where text.contains("! failed: \(fault.rawValue)") { met.insert(fault) }
    }
    #expect(met == Set(ProbeFault.allCases))
  }
}

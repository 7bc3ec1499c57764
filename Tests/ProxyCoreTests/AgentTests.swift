import Testing

@testable import Protocols
@testable import ProxyCore

/// HAProxy's agent-check line, as agents in the wild write it, and as nobody should.
struct AgentTests {
  private static func report(_ change: (inout AgentReport) -> Void) -> AgentReport {
    var report = AgentReport()
    change(&report)
    return report
  }

  @Test(arguments: [
    ("75%", report { $0.share = 75 }),
    ("0%", report { $0.share = 0 }),
    ("weight:50%", report { $0.share = 50 }),
    ("WEIGHT:120%", report { $0.share = 120 }),
    ("weight:50", report { $0.weight = 50 }),
    ("maxconn:30", report { $0.sessions = 30 }),
    ("ready", report { $0.admin = .ready }),
    ("Drain", report { $0.admin = .drain }),
    ("maint", report { $0.admin = .maintenance }),
    ("up", report { $0.health = .agentUp }),
    ("down", report { $0.health = .agentDown("its agent says down") }),
    ("fail", report { $0.health = .agentDown("its agent says fail") }),
    ("STOPPED", report { $0.health = .agentDown("its agent says stopped") }),
    ("down #disk full, 99% used", report { $0.health = .agentDown("its agent says down: disk full, 99% used") }),
    ("down # up", report { $0.health = .agentDown("its agent says down: up") }),
    ("#down", AgentReport()),
    // Several, parted by all that parts them; the last of a kind holds.
    (
      "up ready 75% maxconn:10",
      report {
        $0.health = .agentUp
        $0.admin = .ready
        $0.share = 75
        $0.sessions = 10
      }
    ),
    (
      " ,ready,\tdrain, 10%,,20% ",
      report {
        $0.admin = .drain
        $0.share = 20
      }
    ),
    ("down up", report { $0.health = .agentUp }),
    ("up down", report { $0.health = .agentDown("its agent says down") }),
    ("10% weight:7", report { $0.weight = 7 }),
    ("weight:7 10%", report { $0.share = 10 }),
    // What nobody knows is passed over, and so is what is no number.
    (
      "hello up: drain:now maxconn: maxconn:x weight: weight:% % -5% 1.5% +5% 9999999% 0x10% weight:-1 drained 75 90%",
      report { $0.share = 90 }
    ),
    ("maxconn:10 maxconn:ten", report { $0.sessions = 10 }),
    ("down #a\u{1B}[31m\0b", report { $0.health = .agentDown("its agent says down: a?[31m?b") }),
    ("", AgentReport()),
  ])
  func lines(_ line: String, _ expected: AgentReport) {
    #expect(AgentReport(Array(line.utf8).span) == expected, "\(line)")
  }

  @Test func aTextIsCut() {
    let line = "down #" + String(repeating: "x", count: 900)
    let text = "its agent says down: " + String(repeating: "x", count: ProbeTrouble.longestQuote)
    #expect(AgentReport(Array(line.utf8).span).health == .agentDown(text))
  }

  /// Only the first line counts; it may come in pieces, end with the connection, and have a kilobyte.
  @Test func whereItEnds() {
    func read(_ text: String, isWhole: Bool = false) -> AgentCheck.Reading {
      AgentCheck.read(Array(text.utf8).span, isWhole: isWhole)
    }
    let up = AgentCheck.Reading.report(AgentTests.report { $0.health = .agentUp })
    #expect(read("u") == .incomplete)
    #expect(read("up") == .incomplete)
    #expect(read("up\n") == up)
    #expect(read("up\r\ndown\r\n") == up)
    #expect(read("up\rdown") == up)
    #expect(read("up", isWhole: true) == up)
    #expect(read("", isWhole: true) == .report(AgentReport()))
    let long = String(repeating: " ", count: AgentCheck.longestLine - 2) + "up"
    #expect(read(long) == .incomplete)
    #expect(read(long + "\n") == up)
    #expect(read(long, isWhole: true) == up)
    for isWhole in [true, false] {
      #expect(read(" " + long, isWhole: isWhole) == .tooLong)
      #expect(read(" " + long + "\n", isWhole: isWhole) == .tooLong)
    }
  }

  /// Whatever comes, what is read of each part is read of the whole, and a reason is one line.
  @Test func chance() {
    var random = SplitMix(seed: 7)
    let words = [
      "up", "down", " ", ",", "#", "7", "%", "weight:", "maxconn:", "drain", "\t", "\n", "\r", "\0", "é", "x",
    ]
    var met = 0
    for _ in 0..<20_000 {
      var bytes: [UInt8] = []
      for _ in 0..<Int.random(in: 0...20, using: &random) {
        bytes += Array((words.randomElement(using: &random) ?? "").utf8)
      }
      let whole = AgentCheck.read(bytes.span, isWhole: false)
      let cut = Int.random(in: 0...bytes.count, using: &random)
      let part = AgentCheck.read(bytes.span.extracting(..<cut), isWhole: false)
      #expect(part == .incomplete || part == whole)
      guard case .report(let report) = whole else { continue }
      met += 1
      if case .agentDown(let why)? = report.health { #expect(!why.utf8.contains { $0.isControl }) }
      #expect((report.share ?? 0) >= 0 && (report.sessions ?? 0) < 1_000_000)
    }
    #expect(met > 5_000)
  }
}

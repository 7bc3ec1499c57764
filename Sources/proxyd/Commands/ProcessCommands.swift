/// `proxyd status`, `reload`, `loglevel` and `metrics`: the running process as a whole.

internal import ArgumentParser

struct StatusCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "status", abstract: "Show how the running proxy is, and its listeners.")

  @OptionGroup var control: ControlOption

  func run() throws {
    try control.show(.status, rows: ToldListener.self, done: ToldStatus.self) { rows, done in
      StatusCommand.lines(rows, done)
    }
  }

  static func lines(_ rows: [ToldListener], _ done: ToldStatus) -> [String] {
    var table = Table(
      "LISTENER", "PROTOCOL", "TLS", "#SESSIONS", "#ACCEPTED", "#HANDSHAKES", "#FAILED", "#LOGINS", "#REFUSED", "#IN",
      "#OUT")
    for row in rows {
      table.add(
        row.listener, row.protocol, row.tls, String(row.sessions), String(row.accepted), String(row.handshakes),
        String(row.failedHandshakes), String(row.logins), String(row.refusedLogins), Human.bytes(row.in),
        Human.bytes(row.out))
    }
    var lines = [
      "proxyd \(done.version), process \(done.pid), \(done.state) for \(Human.time(done.uptime * 1_000))",
      "loops     \(done.loops)", "sessions  \(done.sessions) of \(done.limit)",
      "logins    \(done.logins) accepted, \(done.failedLogins) not",
      "bytes     \(Human.bytes(done.in)) in, \(Human.bytes(done.out)) out", "users     \(done.users) remembered",
    ]
    if let backends = done.backends {
      let lost = done.lostBackends ?? 0
      lines.append("backends  \(backends)" + (lost > 0 ? ", \(lost) lost" : ""))
    }
    if let file = done.stateFile {
      let trouble = done.stateTrouble.map { ", not written: \($0); what is new is remembered in memory only" } ?? ""
      lines.append("state     \(ShownText(file + trouble).text)")
    }
    return lines + ["log       \(done.logLevel)", ""] + table.lines
  }
}

struct ReloadCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "reload", abstract: "Have the running proxy read its configuration anew, as SIGHUP does.",
    discussion: "If it can't be used, what is wrong is printed, the old one stays, and the status is 1.")

  @OptionGroup var control: ControlOption

  func run() throws {
    var client = try control.connect()
    let reader = AnswerReader()
    do {
      let problem = try client.ask(.reload) { kind, line in
        if control.json { Console.write((Console.isTerminal ? ShownText.json(line) : line) + [0x0A]) }
        if !control.json, kind == .row, let row = reader.value(line, ToldProblem.self) {
          Console.error(ShownText(row.problem).text)
        }
        return true
      }
      if let problem { throw control.json ? ExitCode.failure : ControlOption.refused(problem) }
    } catch let error as ControlClient.Unreachable {
      Console.error(error.words)
      throw ControlOption.unreachable
    }
    if !control.json { Console.say("reloaded") }
  }
}

struct LogLevelCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "loglevel", abstract: "Show or set how much the running proxy logs.",
    discussion: "What is set holds until the next reload or restart.")

  @Argument(help: "trace, debug, info, notice, warning, error or critical.") var level: String?
  @OptionGroup var control: ControlOption

  func run() throws {
    try control.show(
      .logLevel, ["level": level.map { .text($0) }], rows: ToldCount.self, done: ToldLevel.self
    ) { _, done in [done.level] }
  }
}

struct MetricsCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "metrics", abstract: "Show all counters and histograms of the running proxy.")

  @OptionGroup var control: ControlOption

  func run() throws {
    try control.show(.metrics, rows: ToldMetric.self, done: ToldBounds.self) { rows, done in
      MetricsCommand.lines(rows, done)
    }
  }

  static func lines(_ rows: [ToldMetric], _ done: ToldBounds) -> [String] {
    var table = Table("NAME", "LABELS", "#VALUE", "#MEAN", "#HALF WITHIN", "#99% WITHIN")
    for row in rows {
      let labels = row.labels.sorted { $0.key < $1.key }.map { "\($0.key)=\($0.value)" }.joined(separator: " ")
      guard let count = row.count, let buckets = row.buckets else {
        table.add(row.name, labels, row.value.map(String.init), nil, nil, nil)
        continue
      }
      func within(_ part: Double) -> String? {
        guard count > 0 else { return nil }
        var below = 0
        for (number, bound) in zip(buckets, done.bounds) {
          below += number
          if Double(below) >= Double(count) * part { return time(bound) }
        }
        return "longer"
      }
      let mean = count > 0 ? row.sum.map { time($0 / count) } : nil
      table.add(row.name, labels, String(count), mean, within(0.5), within(0.99))
    }
    return table.lines
  }

  /// Of microseconds, as far down as these are of interest.
  private static func time(_ microseconds: Int) -> String {
    switch microseconds {
    case ..<10_000: "\(microseconds)us"
    case ..<10_000_000: "\(microseconds / 1_000)ms"
    default: "\(microseconds / 1_000_000)s"
    }
  }
}

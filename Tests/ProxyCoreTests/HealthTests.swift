import Testing

@testable import Protocols
@testable import ProxyCore

/// What becomes of a backend, by tables and by a walk beside a model that looks at all that was ever learned.
struct HealthTests {
  /// A story: `second:event`, or `second:event=change`. Events: `P` and `p` a good and a bad probe, `A` `f` `r` a login
  /// answered, failed and refused, `u` `d` the agent's word, `t` whether a login may go there. If that is a trial, the next
  /// words of logins are its own; `-A` `-f` `-r` are another's. `x`: it is over, and nothing was learned.
  private static func play(_ story: String, _ health: inout Health) -> String {
    var told: [String] = []
    var trial: HealthTrial?
    for word in story.split(separator: " ").map({ $0.split(separator: "=")[0] }) {
      let parts = word.split(separator: ":")
      let now = Timeouts.seconds(UInt64(parts[0]) ?? 0)
      let evidence: HealthEvidence? =
        switch parts[1].drop(while: { $0 == "-" }) {
        case "P": .probeSucceeded
        case "p": .probeFailed("probe")
        case "A": .loginAnswered
        case "f": .loginFailed("login")
        case "r": .loginRefused("refused")
        case "u": .agentUp
        case "d": .agentDown("agent")
        default: nil
        }
      var change = ""
      if let evidence {
        switch health.learn(evidence, of: parts[1].hasPrefix("-") ? nil : trial, at: now) {
        case .lost(let why): change = "=lost-by-\(why)"
        case .recovered: change = "=back"
        case nil: break
        }
        #expect(change.isEmpty || health.since == now, "\(story)")
      } else if parts[1] == "x" {
        trial.map { health.abandon($0, at: now) }
      } else {
        switch health.mayTry(at: now) {
        case .open: change = "=yes"
        case .trial(let login):
          change = "=yes"
          trial = login
        case .closed: change = "=no"
        }
      }
      told.append("\(word)\(change)")
    }
    return told.joined(separator: " ")
  }

  private static func settings(_ change: (inout HealthSettings) -> Void = { _ in }) -> HealthSettings {
    var settings = HealthSettings()
    settings.agent = 9_000
    change(&settings)
    return settings
  }

  @Test(arguments: [
    // Fall, and the run is broken by a good one.
    ("0:p 1:p 2:p=lost-by-probe", HealthState.down("probe")),
    ("0:p 1:p 2:P 3:p 4:p", .doubted("probe")),
    ("0:p 1:p 2:P", .up),
    // Rise, likewise.
    ("0:p 1:p 2:p=lost-by-probe 3:P 4:p 5:P 6:P=back", .up),
    ("0:p 1:p 2:p=lost-by-probe 3:P", .down("probe")),
    // After the recovery all is counted anew.
    ("0:p 1:p 2:p=lost-by-probe 3:P 4:P=back 5:p 6:p", .doubted("probe")),
    // Logins that fail, with nothing but bad probes and refusals between them.
    ("0:f 1:f 2:f=lost-by-login", .down("login")),
    ("0:f 1:r 2:f 3:r 4:f=lost-by-login", .down("login")),
    ("0:f 1:f 2:A 3:f 4:f", .doubted("login")),
    ("0:f 1:f 2:A", .up),
    // A greeting is no login: it takes the doubt away, and the run goes on.
    ("0:f 1:f 2:P", .up),
    ("0:f 1:f 2:P 3:f=lost-by-login", .down("login")),
    // What is ten minutes ago is forgotten.
    ("0:f 599:f 1198:f=lost-by-login", .down("login")),
    ("0:f 1:f 601:f", .doubted("login")),
    // A login's answer does not mend a probe.
    ("0:p 1:A 2:p 3:A", .doubted("probe")),
    ("0:p 1:A 2:p 3:A 4:p=lost-by-probe", .down("probe")),
    // A late word of a login tells nothing of one that is lost.
    ("0:f 1:f 2:f=lost-by-login 3:A 4:A 5:A 6:P 7:A", .down("login")),
    ("0:f 1:f 2:f=lost-by-login 3:P 4:f 5:P 6:P=back", .up),
    // The reason is the latest.
    ("0:f 1:f 2:f=lost-by-login 3:p", .down("probe")),
    // Each loss soon after another has to be made good longer: 10 s, 20 s.
    ("0:p 0:p 0:p=lost-by-probe 1:P 2:P=back 3:p 3:p 3:p=lost-by-probe 4:P 5:P 13:P 14:P=back", .up),
    (
      "0:p 0:p 0:p=lost-by-probe 1:P 2:P=back 3:p 3:p 3:p=lost-by-probe 4:P 13:P 14:P=back "
        + "20:p 20:p 20:p=lost-by-probe 21:P 31:P 40:P 41:P=back", .up
    ),
    // The time begins again with each bad one.
    ("0:p 0:p 0:p=lost-by-probe 1:P 2:P=back 3:p 3:p 3:p=lost-by-probe 4:P 12:p 13:P 22:P 23:P=back", .up),
    // Ten minutes later it is a first loss again.
    ("0:p 0:p 0:p=lost-by-probe 1:P 2:P=back 600:p 600:p 600:p=lost-by-probe 601:P 602:P=back", .up),
    ("0:p 0:p 0:p=lost-by-probe 1:P 2:P=back 599:p 599:p 599:p=lost-by-probe 600:P 602:P", .down("probe")),
    // The agent stands beside all that.
    ("0:d=lost-by-agent 1:P 2:A 3:u=back", .up),
    ("0:d=lost-by-agent 1:d 2:u=back 3:u", .up),
    ("0:p 1:p 2:d=lost-by-agent 3:p 4:u", .down("probe")),
    ("0:p 1:p 2:p=lost-by-probe 3:d 4:P 5:P", .down("agent")),
    ("0:p 1:p 2:p=lost-by-probe 3:d 4:P 5:P 6:u=back", .up),
    ("0:p 1:d=lost-by-agent 2:u=back", .doubted("probe")),
    // Nobody tries what is probed.
    ("0:t=yes 1:f 2:f 3:f=lost-by-login 60:t=no 600:t=no", .down("login")),
  ])
  func stories(_ story: String, _ state: HealthState) {
    var health = Health(HealthTests.settings())
    #expect(HealthTests.play(story, &health) == story)
    #expect(health.state == state, "\(story)")
  }

  /// A backend in no pool: nobody probes it, logins go there all the same, and each tells.
  @Test func whoIsInNoPool() throws {
    let story = "0:f 1:f 2:f=lost-by-login 3:A 4:f 5:A 6:A=back 7:f 8:f 9:f=lost-by-login 10:A 11:A 20:A=back"
    var health = Health(HealthTests.settings { $0.isHeeded = false })
    #expect(HealthTests.play(story, &health) == story)

    var settings = Settings(listeners: [], routes: [.fixed(backend: "a")], backends: [:])
    for name in ["a", "b"] {
      settings.backends[name] = BackendSettings(host: try #require(Host("127.0.0.1")), ports: [.imap: 143])
    }
    settings.pools["mail"] = PoolSettings(members: [MemberSettings("b")], balance: .roundRobin)
    let plan = try FleetPlan(settings, RoutePlan(settings).backends)
    #expect(plan.backends["a"]?.health.isHeeded == false)
    #expect(plan.backends["b"]?.health.isHeeded == true)
  }

  /// The breaker of one that is not probed.
  @Test(arguments: [
    // After ten seconds one may try; nobody else until it is over.
    "0:f 0:f 0:f=lost-by-login 1:t=no 9:t=no 10:t=yes 10:t=no 11:t=no 12:A 12:t=yes 13:A=back 14:t=yes 14:t=yes",
    // A trial that fails, and the pause doubles: 20, 40, 80, 160, 300, 300.
    "0:f 0:f 0:f=lost-by-login 10:t=yes 10:f 29:t=no 30:t=yes 30:r 69:t=no 70:t=yes 70:f 149:t=no 150:t=yes 150:f "
      + "309:t=no 310:t=yes 310:f 609:t=no 610:t=yes 610:f 909:t=no 910:t=yes",
    // A good one, and it begins at ten again.
    "0:f 0:f 0:f=lost-by-login 10:t=yes 10:f 30:t=yes 30:A 30:t=yes 30:f 49:t=no 50:t=yes 50:A 50:t=yes 51:A=back",
    // Late words of other logins change neither the pause nor anything for the better.
    "0:f 0:f 0:f=lost-by-login 1:f 2:A 2:A 2:A 9:t=no 10:t=yes",
    // Nor do they while one is under way: neither its outcome nor what counts for the recovery is theirs.
    "0:f 0:f 0:f=lost-by-login 10:t=yes 11:-A 11:-A 12:t=no 13:-f 14:-r 15:t=no 16:A 16:t=yes 17:-f 18:-A 19:A=back",
    "0:f 0:f 0:f=lost-by-login 10:t=yes 11:-A 12:f 12:-A 31:t=no 32:t=yes 32:-f 33:A",
    // One whose client goes away: the next after the pause, which is not doubled. Its late word is nobody's.
    "0:f 0:f 0:f=lost-by-login 10:t=yes 11:x 11:A 20:t=no 21:t=yes 22:f 41:t=no 42:t=yes 43:x 62:t=no 63:t=yes",
    "0:f 0:f 0:f=lost-by-login 10:t=yes 11:A 12:x 12:t=yes 13:A=back 14:x 15:t=yes",
    // One that was superseded.
    "0:f 0:f 0:f=lost-by-login 10:t=yes 70:t=yes 71:-A 71:-f 72:t=no 73:A 73:t=yes",
    // A trial of which nothing is heard.
    "0:f 0:f 0:f=lost-by-login 10:t=yes 69:t=no 70:t=yes 71:A 71:t=yes",
    // One that flaps: trials until the time is over.
    "0:f 0:f 0:f=lost-by-login 10:t=yes 10:A 10:t=yes 10:A=back 11:f 11:f 11:f=lost-by-login "
      + "21:t=yes 22:A 22:t=yes 23:A 31:t=yes 31:A 31:t=yes 32:A=back",
    // Not while the agent says that it is down.
    "0:d=lost-by-agent 20:t=no 21:u=back 21:t=yes",
    "0:f 0:f 0:f=lost-by-login 1:d 20:t=no 21:u 21:t=yes",
  ])
  func trials(_ story: String) {
    var health = Health(HealthTests.settings { $0.isProbed = false })
    #expect(HealthTests.play(story, &health) == story)
  }

  @Test func holdsGrowAndEnd() {
    var health = Health(HealthTests.settings())
    var now = Timeouts.seconds(1_000)
    for hold: UInt64 in [0, 10, 20, 40, 80, 160, 300, 300, 300] {
      for _ in 0..<3 { _ = health.learn(.probeFailed(""), at: now) }
      #expect(health.state.isDown)
      _ = health.learn(.probeSucceeded, at: now)
      if hold > 0 {
        #expect(health.learn(.probeSucceeded, at: now + Timeouts.seconds(hold) - 1) == nil)
      }
      now += Timeouts.seconds(hold)
      #expect(health.learn(.probeSucceeded, at: now) == .recovered, "\(hold)")
    }
  }

  @Test func refusals() {
    var health = Health(HealthTests.settings { $0.refusedLogins = 5 })
    #expect(HealthTests.play("0:r 0:r 0:r 0:r 0:A 1:r 1:r 1:r 1:r", &health) == "0:r 0:r 0:r 0:r 0:A 1:r 1:r 1:r 1:r")
    #expect(health.learn(.loginRefused("refused"), at: Timeouts.seconds(2)) == .lost("refused"))
  }

  /// A probe that logs in ends a run of logins too; nought is no bound.
  @Test func whatCountsIsSettable() {
    var health = Health(HealthTests.settings { $0.login = ProbeLogin(user: "probe", passwordFile: "pw") })
    #expect(HealthTests.play("0:f 1:f 2:P 3:f 4:f", &health) == "0:f 1:f 2:P 3:f 4:f")
    health = Health(
      HealthTests.settings {
        $0.failedLogins = 0
        $0.refusedLogins = 0
      })
    for _ in 0..<1_000 {
      #expect(health.learn(.loginFailed(""), at: 0) == nil)
      #expect(health.learn(.loginRefused(""), at: 0) == nil)
    }
  }

  @Test func theIntervalIsFastInDoubt() {
    var health = Health(HealthTests.settings())
    #expect(health.interval == Timeouts.seconds(5))
    _ = health.learn(.loginFailed(""), at: 0)
    #expect(health.interval == Timeouts.seconds(1))
    _ = health.learn(.probeSucceeded, at: 0)
    #expect(health.interval == Timeouts.seconds(5))
    _ = health.learn(.agentDown(""), at: 0)
    #expect(health.interval == Timeouts.seconds(1))
    health.settings.interval = Timeouts.milliseconds(200)
    #expect(health.interval == Timeouts.milliseconds(200))
  }

  /// An agent that a reload takes away takes its word with it.
  @Test func anAgentThatIsAskedNoMore() {
    var health = Health(HealthTests.settings { $0.isProbed = false })
    #expect(HealthTests.play("0:d=lost-by-agent 1:t=no", &health) == "0:d=lost-by-agent 1:t=no")
    health.settings.agent = nil
    #expect(HealthTests.play("2:t=yes 3:A=back", &health) == "2:t=yes 3:A=back")

    let standing = BackendStanding("a", HealthTests.settings())
    standing.agent(AgentReport(.drain, share: 25))
    #expect(standing.snapshot(at: 0).admin == .drain && standing.snapshot(at: 0).share == 25)
    #expect(standing.adopt(HealthTests.settings(), at: 0) == nil)
    #expect(standing.snapshot(at: 0).admin == .drain)
    #expect(standing.adopt(HealthSettings(), at: 0) == nil)
    #expect(standing.snapshot(at: 0).admin == .ready && standing.snapshot(at: 0).share == 100)
  }

  /// Threads overtake each other: a clock that seems to go back is no harm.
  @Test func timeMayGoBack() {
    var health = Health(HealthTests.settings { $0.isProbed = false })
    let story = "900:f 899:f 898:f=lost-by-login 5:t=no 908:t=yes 907:A 908:t=yes 0:A=back 5:f 4:f 3:f=lost-by-login"
    #expect(HealthTests.play(story, &health) == story)
  }

  // MARK: A walk

  @Test(arguments: [true, false], [true, false])
  func aWalk(isProbed: Bool, logsIn: Bool) {
    var random = SplitMix(seed: isProbed ? 11 : 12)
    var (losses, recoveries, trials, longest) = (0, 0, 0, UInt64(0))
    for _ in 0..<150 {
      var settings = HealthTests.settings { $0.isProbed = isProbed }
      settings.rise = Int.random(in: 1...3, using: &random)
      settings.fall = Int.random(in: 1...4, using: &random)
      settings.failedLogins = Int.random(in: 0...4, using: &random)
      settings.refusedLogins = Int.random(in: 0...6, using: &random)
      if logsIn { settings.login = ProbeLogin(user: "probe", passwordFile: "pw") }
      var health = Health(settings)
      var model = HealthModel(settings)
      var trial: HealthTrial?
      var now = Timeouts.seconds(UInt64.random(in: 1...1_000, using: &random))
      // How likely the next is good: it has good and bad times, some of them long.
      var goodness = 50
      for _ in 0..<400 {
        if Int.random(in: 0..<30, using: &random) == 0 {
          goodness = [1, 10, 50, 90, 99].randomElement(using: &random) ?? 0
        }
        now += Timeouts.milliseconds(
          Int.random(in: 0..<40, using: &random) == 0
            ? UInt64.random(in: 0...700_000, using: &random) : UInt64.random(in: 0...8_000, using: &random))
        let isGood = Int.random(in: 0..<100, using: &random) < goodness
        let evidence: HealthEvidence
        switch Int.random(in: 0..<10, using: &random) {
        case 0..<3 where isProbed: evidence = isGood ? .probeSucceeded : .probeFailed("p")
        case 3: evidence = isGood ? .agentUp : .agentDown("a")
        case 4..<7:
          let access = health.mayTry(at: now)
          if case .trial(let login) = access { trial = login }
          #expect((access != .closed) == model.mayTry(at: now))
          continue
        case 7 where trial != nil && Int.random(in: 0..<4, using: &random) == 0:
          trial.map { health.abandon($0, at: now) }
          model.abandon(at: now)
          trial = nil
          continue
        default:
          evidence = isGood ? .loginAnswered : Bool.random(using: &random) ? .loginFailed("f") : .loginRefused("r")
        }
        let before = health.state.isDown
        // Some of what logins tell is another's than the trial's.
        let teller = Int.random(in: 0..<4, using: &random) > 0 ? trial : nil
        let change = health.learn(evidence, of: teller, at: now)
        let isDown = model.learn(evidence, isTrials: teller != nil, at: now)
        #expect(health.state.isDown == isDown)
        switch change {
        case .lost:
          losses += 1
          #expect(!before && isDown)
        case .recovered:
          recoveries += 1
          #expect(before && !isDown)
        case nil: #expect(before == isDown)
        }
        longest = max(longest, model.hold)
        if health.state.isDown != isDown { return }
      }
      trials += model.trials
    }
    // The walk went everywhere.
    #expect(losses > 500 && recoveries > 400, "\(losses) \(recoveries)")
    #expect(longest >= Timeouts.seconds(80))
    #expect((trials > 500) == !isProbed, "\(trials)")
  }
}

/// Health as a look at all that was learned: slow, and without a state to get wrong.
private struct HealthModel {
  private let settings: HealthSettings
  private var events: [Event] = []
  private var losses: [UInt64] = []
  private var isLost = false
  private var agentIsDown = false
  private(set) var trials = 0

  private struct Event {
    let time: UInt64
    let kind: Kind
  }

  private enum Kind: Equatable {
    case goodProbe, badProbe, answered, trialAnswered, failed, refused, trialFailed, trialBegan, trialAbandoned
  }

  init(_ settings: HealthSettings) { self.settings = settings }

  /// Whether it is down after all.
  mutating func learn(_ evidence: HealthEvidence, isTrials: Bool, at now: UInt64) -> Bool {
    let kind: Kind
    let isOutcome = isTrials && isTrying
    switch evidence {
    case .agentUp, .agentDown:
      agentIsDown = evidence != .agentUp
      return isLost || agentIsDown
    case .probeSucceeded: kind = .goodProbe
    case .probeFailed: kind = .badProbe
    case .loginAnswered: kind = isOutcome ? .trialAnswered : .answered
    case .loginFailed, .loginRefused:
      if isLost, !settings.isProbed, !isOutcome { return true }
      kind = isOutcome ? .trialFailed : evidence == .loginFailed("f") ? .failed : .refused
    }
    events.append(Event(time: now, kind: kind))
    if isLost ? isBack : isGone {
      isLost.toggle()
      if isLost { losses.append(now) }
      events = []
    }
    return isLost || agentIsDown
  }

  /// The last trial has told nothing yet.
  private var isTrying: Bool {
    let ends: [Kind] = [.trialAnswered, .trialFailed, .trialAbandoned]
    return events.last { $0.kind == .trialBegan || ends.contains($0.kind) }?.kind == .trialBegan
  }

  mutating func abandon(at now: UInt64) {
    if isLost, isTrying { events.append(Event(time: now, kind: .trialAbandoned)) }
  }

  private var isGone: Bool {
    let probes = events.map(\.kind).filter { $0 == .goodProbe || $0 == .badProbe }
    if probes.suffix(settings.fall) == Array(repeating: .badProbe, count: settings.fall)[...] { return true }
    return run(of: .failed, settings.failedLogins) || run(of: .refused, settings.refusedLogins)
  }

  private func run(of kind: Kind, _ bound: Int) -> Bool {
    guard bound > 0 else { return false }
    var times: [UInt64] = []
    for event in events.reversed() {
      if event.kind == .answered || event.kind == .goodProbe && settings.login != nil { break }
      guard event.kind == kind else { continue }
      if let later = times.last, later - event.time >= Timeouts.seconds(600) { break }
      times.append(event.time)
    }
    return times.count >= bound
  }

  private var isBack: Bool {
    let silent: [Kind] = [.answered, .trialBegan, .trialAbandoned]
    let telling = events.filter { !silent.contains($0.kind) }
    let good = telling.reversed().prefix { $0.kind == .goodProbe || $0.kind == .trialAnswered }
    guard let last = good.first, let first = good.last, last.time == events.last?.time else { return false }
    return events.last.map { !silent.contains($0.kind) } ?? false && good.count >= settings.rise
      && last.time - first.time >= hold
  }

  /// How long it has to stay good.
  var hold: UInt64 {
    var repeats = 0
    for (later, earlier) in zip(losses.reversed(), losses.reversed().dropFirst()) {
      guard later - earlier < Timeouts.seconds(600) else { break }
      repeats += 1
    }
    let holds: [UInt64] = [0, 10, 20, 40, 80, 160]
    return Timeouts.seconds(repeats < holds.count ? holds[repeats] : 300)
  }

  mutating func mayTry(at now: UInt64) -> Bool {
    guard !agentIsDown else { return false }
    guard isLost else { return true }
    guard !settings.isProbed, let lost = losses.last else { return false }
    var opens = lost + Timeouts.seconds(10)
    var pause: UInt64 = 10
    var began: UInt64?
    for event in events {
      switch event.kind {
      case .trialBegan: began = event.time
      case .trialAnswered:
        opens = event.time
        pause = 10
        began = nil
      case .trialFailed:
        pause = min(2 * pause, 300)
        opens = event.time + Timeouts.seconds(pause)
        began = nil
      case .trialAbandoned:
        opens = event.time + Timeouts.seconds(pause)
        began = nil
      case .goodProbe, .badProbe, .answered, .failed, .refused: break
      }
    }
    guard now >= opens else { return false }
    if let began, now - began < Timeouts.seconds(60) { return false }
    events.append(Event(time: now, kind: .trialBegan))
    trials += 1
    return true
  }
}

// swift-format-ignore-file: NeverForceUnwrap

import Testing

@testable import proxyd

struct TopTests {
  private static let second: UInt64 = 1_000_000_000

  private func status(logins: Int = 0, in: Int = 0, out: Int = 0, pid: Int = 7) -> ToldStatus {
    ToldStatus(
      version: "0.1.0", pid: pid, state: "running", uptime: 65, loops: 2, sessions: 30, limit: 100, logins: logins,
      failedLogins: 3, in: `in`, out: out, users: 12, logLevel: "info")
  }

  private func backend(
    _ name: String, sessions: Int = 0, logins: Int = 0, out: Int = 0, state: String? = "ready", health: String? = "up"
  ) -> ToldBackend {
    ToldBackend(
      backend: name, pools: ["mail"], state: state, health: health, sessions: sessions, weight: 100, share: 100,
      triedLogins: logins, acceptedLogins: logins, refusedLogins: 0, failedLogins: 0, in: 0, out: out)
  }

  private func session(_ name: String, user: String = "alice", out: Int = 0) -> ToldSession {
    ToldSession(
      session: name, user: user, loggedIn: true, protocol: "imap", client: "192.0.2.1:4711", listener: "192.0.2.2:143",
      backend: "a", doing: "relaying", age: 1_000, idle: 500, in: 0, out: out, tls: "TLSv1.3")
  }

  /// Two samples, two seconds apart.
  private func sampled() -> TopState {
    var state = TopState()
    state.take(
      status(logins: 10), [backend("b", sessions: 10), backend("a", sessions: 20)], [], at: 5 * TopTests.second)
    state.take(
      status(logins: 30, in: 4_096, out: 1 << 20),
      [backend("b", sessions: 10, logins: 20, out: 1 << 20), backend("a", sessions: 20)], [],
      at: 7 * TopTests.second)
    return state
  }

  private func press(_ state: inout TopState, _ keys: String) -> [TopState.Effect] {
    keys.map { state.press(.letter($0)) }
  }

  private func selected(_ state: TopState) -> String? {
    state.selectedIndex.map {
      state.view == .backends ? state.backends[$0].told.backend : state.sessions[$0].told.session
    }
  }

  // MARK: Numbers

  @Test func rates() {
    let state = sampled()
    #expect(state.rates == TopState.Rates(logins: 10, in: 2_048, out: 524_288))
    #expect(state.backends.map(\.told.backend) == ["a", "b"])
    #expect(state.backends[1].rates == TopState.Rates(logins: 10, in: 0, out: 524_288))
    #expect(state.backends.map(\.share) == [67, 33])
  }

  /// A proxy that was started anew, or was away, has no past.
  @Test func ratesBeginAnew() {
    var state = sampled()
    state.take(status(logins: 2, pid: 8), [backend("a", logins: 1)], [], at: 8 * TopTests.second)
    #expect(state.rates == TopState.Rates())
    #expect(state.backends[0].rates == TopState.Rates())
    state.lose("gone")
    #expect(state.message == "gone")
    state.take(status(logins: 900, pid: 8), [backend("a", logins: 900)], [], at: 9 * TopTests.second)
    #expect(state.rates == TopState.Rates())
    #expect(state.message == nil)
    state.take(status(logins: 901, pid: 8), [backend("a", logins: 901)], [], at: 10 * TopTests.second)
    #expect(state.rates.logins == 1)
    // The same moment twice is no time.
    state.take(status(logins: 905, pid: 8), [], [], at: 10 * TopTests.second)
    #expect(state.rates == TopState.Rates())
  }

  // MARK: Keys

  @Test func whatIsChangedIsAskedFirst() {
    var state = sampled()
    #expect(press(&state, "d") == [.none])
    #expect(state.question?.words == "Is a to get no new users? (y/n)")
    #expect(press(&state, "n") == [.none])
    #expect(state.question == nil)
    #expect(press(&state, "my") == [.none, .perform(.backend, ["backend": .text("a"), "state": .text("maint")])])
    _ = state.press(.down)
    #expect(press(&state, "ry") == [.none, .perform(.backend, ["backend": .text("b"), "state": .text("ready")])])
    // Any other key is a no, and does nothing else.
    #expect(press(&state, "dq") == [.none, .none])
    #expect(state.question == nil)
    #expect(press(&state, "q") == [.quit])
    #expect(press(&state, "k") == [.none])
    #expect(state.question == nil)
  }

  @Test func aServerOfAMapHasNoState() {
    var state = TopState()
    state.take(status(), [backend("192.0.2.1:143", state: nil, health: nil)], [], at: TopTests.second)
    _ = press(&state, "d")
    #expect(state.question == nil)
    #expect(state.message == "192.0.2.1:143 is not in the configuration: it has no state")
    _ = press(&state, "x")
    #expect(state.message == nil)
  }

  @Test func sessions() {
    var state = sampled()
    #expect(state.press(.down) == .none)
    #expect(state.press(.enter) == .refresh)
    #expect(state.view == .sessions)
    #expect(state.guestsOf == "b")
    state.take(status(), [], [session("s1", out: 10), session("s2", out: 10)], at: 8 * TopTests.second)
    state.take(status(), [], [session("s1", out: 10), session("s2", out: 50)], at: 9 * TopTests.second)
    // Who carries most is first.
    #expect(state.sessions.map(\.told.session) == ["s2", "s1"])
    #expect(state.sessions[0].rates.out == 40)
    // And whoever was chosen stays so: the first of the list as it was then.
    #expect(selected(state) == "s1")
    _ = state.press(.home)
    #expect(press(&state, "ky") == [.none, .perform(.kick, ["session": .text("s2")])])
    // Its place is taken by the next.
    state.take(status(), [], [session("s1"), session("s3")], at: 10 * TopTests.second)
    #expect(selected(state) == "s1")
    #expect(state.press(.escape) == .refresh)
    #expect(state.view == .backends)
    #expect(state.press(.tab) == .refresh)
    #expect(state.guestsOf == nil)
    #expect(press(&state, "b") == [.refresh])
    #expect(state.press(.escape) == .none)
  }

  @Test func choosing() {
    var state = TopState()
    #expect(state.press(.down) == .none)
    #expect(press(&state, "dk") == [.none, .none])
    #expect(state.selectedIndex == nil)
    #expect(state.press(.enter) == .none)
    state.take(status(), (0..<30).map { backend("b\($0 / 10)\($0 % 10)") }, [], at: 1)
    state.page = 8
    for (key, index) in [
      (TopKey.up, 0), (.down, 1), (.pageDown, 9), (.pageDown, 17), (.end, 29), (.down, 29), (.pageUp, 21), (.home, 0),
    ] {
      _ = state.press(key)
      #expect(state.selectedIndex == index, "\(key)")
    }
  }

  @Test func sorting() {
    var state = sampled()
    #expect(state.backends.map(\.told.backend) == ["a", "b"])
    _ = press(&state, "i")
    #expect(state.backends.map(\.told.backend) == ["b", "a"])
    // By sessions the most first.
    _ = press(&state, "i>>>")
    #expect(state.sorting == TopState.Order(column: 3, isDescending: true))
    #expect(state.backends.map(\.told.backend) == ["a", "b"])
    _ = press(&state, ">>>")
    #expect(state.backends.map(\.told.backend) == ["b", "a"])
    // Left of the first is the last.
    _ = press(&state, "<<<<<<<")
    #expect(state.sorting.column == TopColumns.titles(.backends).count - 1)
    // What is alike is in the order of names, either way.
    var same = TopState()
    same.take(status(), [backend("c"), backend("a"), backend("b")], [], at: 1)
    _ = press(&same, ">>>")
    #expect(same.backends.map(\.told.backend) == ["a", "b", "c"])
    _ = press(&same, "i")
    #expect(same.backends.map(\.told.backend) == ["a", "b", "c"])
  }

  @Test func everyColumnSorts() {
    for view in [TopState.View.backends, .sessions] {
      var state = sampled()
      if view == .sessions { _ = press(&state, "s") }
      state.take(status(), [backend("a"), backend("b")], [session("x"), session("y")], at: 9 * TopTests.second)
      for column in TopColumns.titles(view).indices {
        _ = press(&state, ">i")
        #expect(state.sorting.isDescending != TopColumns.isNumber(view, state.sorting.column), "\(view) \(column)")
        #expect((view == .backends ? state.backends.count : state.sessions.count) == 2)
      }
    }
  }

  @Test(arguments: [
    ("q", [TopKey.letter("q")]), ("\u{1B}[A\u{1B}[B", [.up, .down]), ("\u{1B}OA\u{1B}OB", [.up, .down]),
    ("\u{1B}[5~\u{1B}[6~", [.pageUp, .pageDown]), ("\u{1B}[H\u{1B}[F\u{1B}[1~\u{1B}[4~", [.home, .end, .home, .end]),
    ("\r\n\t", [.enter, .enter, .tab]), ("\u{1B}", [.escape]), ("\u{1B}x", [.escape, .letter("x")]),
    ("\u{1B}[1;5Cq", [.letter("q")]), ("\u{1B}[", []), ("\u{1B}[99999", []), ("é", []), ("\u{3}", [.letter("\u{3}")]),
  ])
  func keys(_ text: String, _ keys: [TopKey]) { #expect(TopKey.read(Array(text.utf8)) == keys) }

  @Test func theWaysOut() {
    var state = sampled()
    #expect(press(&state, "\u{3}") == [.quit])
    #expect(press(&state, "\u{1A}") == [.suspend])
    #expect(press(&state, "hq") == [.none, .quit])
    #expect(press(&state, "?x") == [.none, .none])
    #expect(!state.showsHelp)
  }

  // MARK: The screen

  private func check(_ state: TopState, _ width: Int, _ height: Int) {
    let lines = state.screen(width: width, height: height)
    #expect(lines.count == height, "\(width)x\(height)")
    for line in lines {
      let shown = ShownText(line.text)
      #expect(shown.width <= width, "\(width)x\(height): \(line.text)")
      #expect(shown.text == line.text, "a control character: \(line.text)")
    }
  }

  /// Whatever the terminal's size and whatever there is to be seen.
  @Test func everythingFits() {
    let hostile = "\u{1B}[2J日本\u{202E}" + String(repeating: "n", count: 300)
    var down = backend(hostile, sessions: 3, health: "down")
    down.reason = hostile
    down.agent = "drain"
    var states = [TopState(), sampled()]
    var full = sampled()
    full.take(
      status(), (0..<50).map { backend("backend-\($0)") } + [down], [], at: 9 * TopTests.second)
    states.append(full)
    _ = full.press(.end)
    states.append(full)
    _ = press(&full, "s")
    full.take(
      status(), [], (0..<100).map { session("s\($0)", user: hostile) }, at: 10 * TopTests.second)
    states.append(full)
    _ = press(&full, "k")
    states.append(full)
    var help = sampled()
    _ = press(&help, "h")
    states.append(help)
    var lost = TopState()
    lost.lose(hostile)
    states.append(lost)
    for state in states {
      for (width, height) in [(80, 24), (200, 60), (40, 10), (20, 5), (10, 4), (5, 3), (2, 2), (1, 1), (80, 0), (3, 1)]
      {
        check(state, width, height)
      }
    }
  }

  @Test func whatIsSeen() {
    let lines = sampled().screen(width: 110, height: 12).map(\.text)
    #expect(lines[0] == "proxyd 0.1.0, up 1m05s   sessions 30 of 100   users 12 remembered")
    #expect(lines[1] == "logins 10.0/s (30 accepted, 3 not)   in 2.0K/s   out 512K/s")
    #expect(lines[3].hasPrefix("BACKEND  STATE  HEALTH  SESSIONS  SHARE  ENTERING  LOGINS/S  IN/S  OUT/S  WEIGHT  "))
    #expect(lines[4].hasPrefix("a        ready  up            20    67%         0       0.0     0      0     100  "))
    #expect(lines[5].hasPrefix("b        ready  up            10    33%         0      10.0     0   512K     100  "))
    #expect(lines[11].hasPrefix("q quit"))
  }

  @Test func looks() {
    var state = TopState()
    state.take(
      status(),
      [
        backend("a"), backend("b", health: "down"), backend("c", state: "drain"), backend("d", health: "doubted"),
        backend("e"),
      ], [], at: 1)
    let lines = state.screen(width: 80, height: 12)
    #expect(lines[4...8].map { $0.parts[0].look } == [.selected, .bad, .doubtful, .doubtful, .plain])
    #expect(lines[4].text.utf8.count == 80)
    #expect(lines[3].parts.filter { $0.look == .sortedTitle }.map(\.text) == ["BACKEND"])
    #expect(ShownText(lines[3].text).width == 80)
  }

  /// Who is chosen is always in sight.
  @Test func theChosenIsSeen() {
    var state = TopState()
    state.take(status(), (0..<100).map { backend("b\($0 / 10)\($0 % 10)") }, [], at: 1)
    for step in 0..<100 {
      let lines = state.screen(width: 80, height: 15)
      let chosen = lines.filter { $0.parts.first?.look == .selected }
      #expect(chosen.count == 1)
      #expect(chosen.first?.text.hasPrefix("b\(step / 10)\(step % 10)") == true)
      _ = state.press(.down)
    }
  }
}

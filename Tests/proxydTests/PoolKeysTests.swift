import Testing

@testable import Protocols
@testable import ProxyCore
@testable import proxyd

/// The keys of pools, of members' health, of the state file and of bounds.
struct PoolKeysTests {
  private func text(_ more: String) -> String {
    """
    listeners:
      - { protocol: imap, address: "127.0.0.1:1143", tls: off }
    backends: { a: { address: 192.0.2.1 }, b: { address: mail-b.example.net } }
    routes: [ { default: a } ]
    \(more)
    """
  }

  private func settings(_ more: String) throws -> Settings {
    try ConfigFile(text(more), path: "/etc/proxyd/f").settings
  }

  /// What is wrong, in the file or when it is opened, without its first four lines.
  private func errors(_ more: String) -> [String] {
    do throws(ConfigErrors) {
      let file = try ConfigFile(text(more), path: "f")
      do throws(SettingsErrors) { _ = try Proxy.check(file.settings) } catch { throw file.locate(error) }
      return []
    } catch {
      return error.errors.map { String("\($0)".dropFirst("f:".count)) }
    }
  }

  @Test func aPoolIsRead() throws {
    let read = try settings(
      """
      state-file: state.db
      pools:
        mail:
          members: { a: { weight: 50, sessions: 9, logins: 8, backup: true, tag: berlin }, b: }
          affinity: table
          ring: director
          key: '\\u'
          load-bound: 125
          expiry: 1h
          pause: 500ms
          rebalance: 60
          sessions: 7
          logins: 6
          slow-start: 5m
          spread: 30s
          move-rate: 3
        least: { members: [ b, a ], balance: least-sessions }
      limits: { user-sessions: 1, user-address-sessions: 2, address-sessions: 3 }
      """)
    var affinity = AffinitySettings()
    affinity.kind = .table
    affinity.ring = .director
    affinity.key = try #require(KeyTemplate("\\u"))
    affinity.loadBound = 125
    affinity.expiry = Timeouts.seconds(3_600)
    affinity.pause = Timeouts.milliseconds(500)
    affinity.rebalance = 60
    var first = MemberSettings("a")
    first.weight = 50
    first.sessions = 9
    first.logins = 8
    first.isBackup = true
    first.tag = "berlin"
    var mail = PoolSettings(members: [first, MemberSettings("b")], balance: .affinity(affinity))
    mail.sessions = 7
    mail.logins = 6
    mail.slowStart = Timeouts.seconds(300)
    mail.spread = Timeouts.seconds(30)
    mail.moveRate = 3
    #expect(read.pools["mail"] == mail)
    #expect(
      read.pools["least"]
        == PoolSettings(members: [MemberSettings("b"), MemberSettings("a")], balance: .leastSessions))
    #expect(read.stateFile == "/etc/proxyd/state.db")
    #expect(read.sessionLimits.user == 1)
    #expect(read.sessionLimits.userAtAddress == 2)
    #expect(read.sessionLimits.address == 3)
    #expect(try settings("pools: { p: { members: [ a ] } }").pools["p"] == PoolSettings(members: [MemberSettings("a")]))
    for (word, balance) in [("round-robin", Balance.roundRobin), ("random-two", .randomTwo)] {
      #expect(try settings("pools: { p: { members: [ a ], balance: \(word) } }").pools["p"]?.balance == balance)
    }
  }

  @Test func healthIsReadForAllAndForOne() throws {
    let keys = """
      probe: off, protocols: [ pop3 ], interval: 9s, fast-interval: 800ms, timeout: 7s, rise: 6, fall: 5, \
      failed-logins: 4, refused-logins: 3, login: { user: u, password-file: pw }, agent: 2, certificate-warning: 1h
      """
    var all = HealthSettings()
    all.isProbed = false
    all.protocols = [.pop3]
    all.interval = Timeouts.seconds(9)
    all.fastInterval = Timeouts.milliseconds(800)
    all.timeout = Timeouts.seconds(7)
    all.rise = 6
    all.fall = 5
    all.failedLogins = 4
    all.refusedLogins = 3
    all.login = ProbeLogin(user: "u", passwordFile: "/etc/proxyd/pw")
    all.agent = 2
    all.certificateWarning = Timeouts.seconds(3_600)
    #expect(try settings("health: { \(keys) }").backends["a"]?.health == all)
    #expect(try settings("").backends["a"]?.health == HealthSettings())
    let text = """
      listeners: [ { protocol: imap, address: "127.0.0.1:1143", tls: off } ]
      health: { \(keys) }
      backends: { a: { address: 192.0.2.1, health: { rise: 1, login: { user: x, password-file: y } } } }
      routes: [ { default: a } ]
      """
    all.rise = 1
    all.login = ProbeLogin(user: "x", passwordFile: "/etc/proxyd/y", key: "backends.a.health.login.password-file")
    #expect(try ConfigFile(text, path: "/etc/proxyd/f").settings.backends["a"]?.health == all)
  }

  @Test(
    arguments: [
      ("pools: { p: { } }", "5:13: pools.p.members: this key is missing, expected a map of keys"),
      ("pools: { p: { members: [] } }", "5:24: pools.p.members: expected the names of backends"),
      ("pools: { p: { members: {} } }", "5:24: pools.p.members: there is none, expected the names of backends"),
      ("pools: { p: { members: [ a, a ] } }", "5:24: pools.p.members: a backend is named twice"),
      ("pools: { p: { members: [ a, [ b ] ] } }", "5:24: pools.p.members: expected the names of backends"),
      (
        "pools: { 'p q': { members: [ a ] } }",
        "5:17: pools.p q: a pool's name has letters, digits, dots, dashes and underscores"
      ),
      (
        "pools: { p: { members: { a: { weight: 1001 } } } }",
        "5:39: pools.p.members.a.weight: \"1001\" can't be used, expected a number, 0 to 1000"
      ),
      (
        "pools: { p: { members: { a: { tag: a/b } } } }",
        "5:36: pools.p.members.a.tag: \"a/b\" can't be used, expected a text"
      ),
      (
        "pools: { p: { members: [ a ], balance: best } }",
        "5:40: pools.p.balance: \"best\" can't be used, expected affinity, least-sessions, round-robin or random-two"
      ),
      (
        "pools: { p: { members: [ a ], balance: round-robin, pause: 1s } }",
        "5:60: pools.p.pause: it is for balance: affinity"
      ),
      ("pools: { p: { members: [ a ], expiry: 1h } }", "5:39: pools.p.expiry: it is for affinity: table"),
      (
        "pools: { p: { members: [ a ], key: '\\i' } }",
        "5:36: pools.p.key: a user's place can't depend on the client's address"
      ),
      ("pools: { p: { members: [ a, c ] } }", "5:24: pools.p.members: no backend is named \"c\""),
      (
        "pools: { a: { members: [ a ] } }",
        "5:13: pools.a: a backend has that name too: a route's answer would be either"
      ),
      (
        "pools: { p: { members: [ a ], affinity: table } }",
        "5:41: pools.p.affinity: a table is kept in a file, and the key state-file is missing"
      ),
      (
        "pools: { p: { members: [ a, b ], ring: director } }",
        "5:40: pools.p.ring: Director's ring needs IP addresses, and b has \"mail-b.example.net\""
      ),
      (
        "pools: { p: { members: [ a ] } }\nhealth: { login: { user: u, password-file: /none } }",
        "6:44: health.login.password-file: /none: it can't be read: No such file or directory"
      ),
      (
        "health: { login: { user: u } }",
        "5:18: health.login.password-file: this key is missing, expected a file's path"
      ),
      ("health: { fall: 0 }", "5:17: health.fall: \"0\" can't be used, expected a number, 1 to 100"),
      (
        "limits: { user-sessions: 0 }",
        "5:26: limits.user-sessions: \"0\" can't be used, expected a number, 1 to 1000000"
      ),
    ])
  func errorsHaveAPlace(_ more: String, _ expected: String) { #expect(errors(more) == [expected]) }

  /// Nobody is probed by a login that no pool needs: its file is not asked for.
  @Test func aLoginOfNobodysIsNotRead() {
    #expect(errors("health: { login: { user: u, password-file: /none } }") == [])
    #expect(
      errors("pools: { p: { members: [ a ] } }\nhealth: { probe: off, login: { user: u, password-file: /none } }") == []
    )
  }

  /// A pool in the place of a backend, with one of its members' tags or without.
  @Test func routesNamePools() {
    let pool = "pools: { p: { members: { a: { tag: x } } } }\nnames: { }\n"
    func errors(_ route: String) -> [String] {
      let text = text(pool).replacing("default: a", with: "default: \(route)")
      do throws(ConfigErrors) {
        let file = try ConfigFile(text, path: "f")
        do throws(SettingsErrors) { _ = try Proxy.check(file.settings) } catch { throw file.locate(error) }
        return []
      } catch { return error.errors.map { $0.problem } }
    }
    #expect(errors("p") == [])
    #expect(errors("p/x") == [])
    #expect(errors("p/y") == ["no backend or pool is named \"p/y\""])
    #expect(errors("q") == ["no backend or pool is named \"q\""])
  }
}

import Foundation
import Testing

@testable import Protocols
@testable import ProxyCore
@testable import proxyd

private let minimum = """
  listeners:
    - { protocol: imap, address: "127.0.0.1:1143", tls: off }
  routes:
    - default: a
  backends:
    a: { address: 127.0.0.1 }

  """

/// The errors of a text, without the file's name.
private func errors(_ text: String) -> [String] {
  do throws(ConfigErrors) {
    _ = try ConfigFile(text, path: "f")
    return []
  } catch {
    return error.errors.map { String("\($0)".dropFirst(2)) }
  }
}

struct ConfigTests {
  @Test func theContractIsRead() throws {
    let text = """
      listeners:
        - { protocol: imap, address: "127.0.0.1:1143", tls: starttls }   # tls: off | starttls | …
        - { protocol: imap, address: "[::1]:1993", tls: implicit }
        - { protocol: pop3, address: "127.0.0.1:1110", tls: starttls-required }
        - { protocol: pop3, address: "*:1995", tls: implicit }
      tls: { certificate: mail.crt, key: /keys/mail.key }
      routes:
        - sqlite: map.db
        - sqlite: { file: own.db, query: "SELECT b FROM m WHERE l = :login" }
        - regex: routes.re
        - default: a
      backends:
        a: { address: 127.0.0.1, ports: { imap: 20143, pop3: 20110 } }
        b: { address: "mail-b.example.net" }
        v6: { address: "2001:db8::1" }
      loops: 2
      timeouts: { login: 3m, connect: 500ms, idle: 3600 }
      limits: { command: 8k, sessions: 12 }
      log: { level: debug, format: json, to: proxyd.log }
      user: proxyd
      group: mail
      """
    let settings = try ConfigFile(text, path: "/etc/proxyd/proxyd.yaml").settings
    #expect(
      settings.listeners.map(\.address.description) == [
        "127.0.0.1:1143", "[::1]:1993", "127.0.0.1:1110", "0.0.0.0:1995", "[::]:1995",
      ])
    #expect(settings.listeners.map(\.tls) == [.startTLS, .implicit, .startTLSRequired, .implicit, .implicit])
    #expect(settings.listeners.map(\.mailProtocol) == [.imap, .imap, .pop3, .pop3, .pop3])
    #expect(
      settings.tls?.identities.map(\.pairs)
        == [[CertificateSettings(certificate: "/etc/proxyd/mail.crt", key: "/keys/mail.key")]])
    #expect(
      settings.routes == [
        .sqlite(file: "/etc/proxyd/map.db", query: nil),
        .sqlite(file: "/etc/proxyd/own.db", query: "SELECT b FROM m WHERE l = :login"),
        .regex(file: "/etc/proxyd/routes.re"), .fixed(backend: "a"),
      ])
    #expect(
      settings.backends["a"]
        == BackendSettings(host: try #require(Host("127.0.0.1")), ports: [.imap: 20_143, .pop3: 20_110]))
    #expect(settings.backends["b"]?.host == .name("mail-b.example.net"))
    #expect(settings.loops == 2)
    #expect(settings.timeouts.login == 180_000_000_000)
    #expect(settings.timeouts.connect == 500_000_000)
    #expect(settings.timeouts.idle == 3_600_000_000_000)
    #expect(settings.limits.command == 8_192)
    #expect(settings.sessions == 12)
    #expect(settings.log.destination == .file("/etc/proxyd/proxyd.log"))
    #expect(settings.user == UserSettings(user: "proxyd", group: "mail"))
  }

  /// What is beside the contract: certificates by name, mechanisms, proxies in front, the link to the backends.
  @Test func theWholeLoginIsRead() throws {
    let pin = Base64Text.encode(Array(1...32))
    let text = """
      listeners:
        - protocol: managesieve
          address: "127.0.0.1:4190"
          tls: starttls
          mechanisms: [plain, scram-sha-256, external]
          capabilities: [fileinto, "vacation  envelope"]
          proxy-protocol: [192.0.2.0/24, "2001:db8::1"]
          certificate: sieve.crt
          key: sieve.key
      trusted-proxies: 192.0.2.7
      tls:
        certificate: [e.crt, r.crt]
        key: [e.key, r.key]
        staple: e.ocsp
        certificates: [{ certificate: o.crt, key: o.key, names: ["*.example.org", example.org] }]
        minimum: "1.3"
        ciphers: X
        ciphersuites: Y
        groups: Z
        client-certificates: require
        client-ca: ca.crt
        client-name: email
      routes: [{ default: a }]
      backends:
        a:
          address: mail-a.example.net
          tls: starttls
          tls-name: mail.example.net
          ca: ca.crt
          pins: ["\(pin)"]
          certificate: c.crt
          key: c.key
          identity: off
          proxy-protocol: v2
          pipelining: off
          master: { user: m, password-file: m.pw, separator: "*" }
      unnamed-backends: { tls: implicit, insecure-no-verification: true }
      timeouts: { proxy-header: 1s }
      """
    let settings = try ConfigFile(text, path: "/c/f").settings
    let listener = settings.listeners[0]
    #expect(listener.mailProtocol == .manageSieve)
    #expect(listener.mechanisms == [.plain, .scramSHA256, .external])
    #expect(listener.capabilities == Array("fileinto vacation envelope".utf8))
    #expect(listener.proxyNetworks?.count == 2)
    #expect(listener.identity?.pairs == [CertificateSettings(certificate: "/c/sieve.crt", key: "/c/sieve.key")])
    #expect(settings.trustedProxies == [try #require(Network("192.0.2.7"))])
    let tls = try #require(settings.tls)
    #expect(tls.identities.count == 2)
    #expect(tls.identities[0].pairs.map(\.key) == ["/c/e.key", "/c/r.key"])
    #expect(tls.identities[0].staple == "/c/e.ocsp")
    #expect(tls.identities[1].names == ["*.example.org", "example.org"])
    #expect(tls.minimum == .v13)
    #expect([tls.ciphers, tls.ciphersuites, tls.groups] == ["X", "Y", "Z"])
    #expect(tls.clientCertificates == .require)
    #expect(tls.clientCA == "/c/ca.crt")
    #expect(settings.certificateName == .email)
    let manner = try #require(settings.backends["a"]?.manner)
    #expect(manner.tls == .startTLS)
    #expect(manner.tlsName == .name("mail.example.net"))
    #expect(manner.security.verification == .authority(file: "/c/ca.crt"))
    #expect(manner.security.pins == [Array(1...32)])
    #expect(manner.security.certificate == CertificateSettings(certificate: "/c/c.crt", key: "/c/c.key"))
    #expect(manner.identity == .withheld)
    #expect(manner.proxyProtocol == .v2)
    #expect(manner.pace == .stepwise)
    #expect(manner.master == MasterSettings(user: "m", passwordFile: "/c/m.pw", separator: "*"))
    #expect(settings.unnamedBackends.tls == .implicit)
    #expect(settings.unnamedBackends.security.verification == .none)
    #expect(settings.timeouts.proxyHeader == 1_000_000_000)
  }

  @Test func theMinimumIsEnough() throws {
    let settings = try ConfigFile(minimum, path: "f").settings
    #expect(settings.loops == Proxy.usableCores)
    #expect(settings.timeouts == Timeouts())
    #expect(settings.limits == Limits())
    #expect(settings.log == LogSettings())
  }

  /// Behind the minimum, at line 7.
  @Test(arguments: [
    (
      "loop: 2",
      #"7:1: loop: unknown key, did you mean "loops"? Known here: listeners, trusted-proxies, master-separator, tls, names, routes, backends, unnamed-backends, pools, state-file, health, control, password-check, loops, user, group, timeouts, limits, log"#
    ),
    ("loops: 0", #"7:8: loops: "0" can't be used, expected a number, 1 to 256"#),
    ("loops: two", #"7:8: loops: "two" can't be used, expected a number, 1 to 256"#),
    ("loops: -1", #"7:8: loops: "-1" can't be used, expected a number, 1 to 256"#),
    ("loops: 99999999999999999999", #"7:8: loops: "99999999999999999999" can't be used, expected a number, 1 to 256"#),
    ("loops: [1]", "7:8: loops: this is a list, expected a number, 1 to 256"),
    ("loops:", "7:7: loops: this is empty, expected a number, 1 to 256"),
    ("loops: 2\nloops: 3", "7:1: loops: this key is given twice in one map, expected once"),
    (
      "log: { level: loud }",
      #"7:15: log.level: "loud" can't be used, expected trace, debug, info, notice, warning, error or critical"#
    ),
    ("log: { to: { a: b } }", "7:12: log.to: this is a map, expected a text"),
    ("log: stderr", #"7:6: log: this is "stderr", expected a map of keys"#),
    (
      "log: { levle: info }",
      #"7:8: log.levle: unknown key, did you mean "level"? Known here: level, format, repeat, to"#
    ),
    (
      "timeouts: { idle: 5 s }",
      #"7:19: timeouts.idle: "5 s" can't be used, expected a time, 1s to 168h, as 500ms, 90s, 31m or 1h"#
    ),
    (
      "timeouts: { idle: 500ms }",
      #"7:19: timeouts.idle: "500ms" can't be used, expected a time, 1s to 168h, as 500ms, 90s, 31m or 1h"#
    ),
    ("limits: { command: 1 }", #"7:20: limits.command: "1" can't be used, expected a size, 1k to 1m, as 16k"#),
    ("tls: { certificate: x }", "7:6: tls.key: this key is missing, expected a text or a list of texts"),
    (
      "tls: { certificate: [a, b], key: c }",
      "7:34: tls.key: there are 2 certificates and 1 keys, expected as many"
    ),
    (
      "tls: { certificate: a, key: b, client-certificates: request }",
      "7:53: tls.client-certificates: client certificates are asked for, and the key client-ca is missing"
    ),
    (
      "trusted-proxies: [192.0.2.1/24]",
      #"7:19: trusted-proxies[0]: "192.0.2.1/24" can't be used, expected a network or a list of them, as 192.0.2.0/24 or 2001:db8::1"#
    ),
    (
      "unnamed-backends: { tls: starttls, pins: [abc] }",
      #"7:43: unnamed-backends.pins[0]: "abc" can't be used, expected a text or a list of texts"#
    ),
    ("unnamed-backends: { tls-name: x }", "7:31: unnamed-backends.tls-name: it is for TLS, and the key tls is off"),
    (
      "unnamed-backends: { tls: implicit, ca: x, insecure-no-verification: true }",
      "7:69: unnamed-backends.insecure-no-verification: nothing is verified, and the key ca is given"
    ),
    (
      "unnamed-backends: { master: { user: x } }",
      "7:29: unnamed-backends.master.password-file: this key is missing, expected a file's path"
    ),
    ("group: mail", "7:8: group: a group is for the key user, which is missing"),
    ("? [a]\n: b", "7:3: a key must be a word"),
    ("x: [", "8:1: not YAML: did not find expected node content (while parsing a flow node)"),
    ("\tloops: 2", "7:1: not YAML: found character that cannot start any token (while scanning for the next token)"),
    ("x: *nobody", "7:4: not YAML: found undefined alias"),
  ])
  func errorsHaveAPlace(_ more: String, _ expected: String) { #expect(errors(minimum + more) == [expected]) }

  @Test(arguments: [
    ("", [" the file is empty"]),
    ("# nothing", [" the file is empty"]),
    ("just text", [#"1:1: this is "just text", expected a map of keys"#]),
    ("[]", ["1:1: this is a list, expected a map of keys"]),
    (
      "listeners: []\nroutes: []",
      [
        "1:12: listeners: the list is empty, expected at least one listener",
        "2:9: routes: the list is empty, expected at least one source",
      ]
    ),
    (
      "backends: {}",
      [
        "1:1: listeners: this key is missing, expected a list", "1:1: routes: this key is missing, expected a list",
      ]
    ),
    (
      "listeners: x\nroutes: { default: a }",
      [
        #"1:12: listeners: this is "x", expected a list"#, "2:9: routes: this is a map, expected a list",
      ]
    ),
    (
      "listeners:\n  - { protocol: imap }\nroutes:\n  - default: a",
      [
        "2:5: listeners[0].address: this key is missing, expected an address with a port, as 192.0.2.1:143, [2001:db8::1]:143 or *:143",
        "2:5: listeners[0].tls: this key is missing, expected off, starttls, starttls-required or implicit",
      ]
    ),
    (
      "listeners:\n  - { protocol: smtp, address: \"1.2.3.4:143\", tls: no }\nroutes:\n  - default: a",
      [
        #"2:17: listeners[0].protocol: "smtp" can't be used, expected imap, pop3 or managesieve"#
      ]
    ),
    (
      "listeners:\n  - { protocol: imap, address: \"1.2.3.4:143\", tls: no }\nroutes:\n  - default: a",
      [
        #"2:52: listeners[0].tls: "no" can't be used, expected off, starttls, starttls-required or implicit"#
      ]
    ),
    (
      "listeners:\n  - { protocol: imap, address: \"localhost:143\", tls: off }\nroutes:\n  - default: a",
      [
        #"2:32: listeners[0].address: "localhost:143" can't be used, expected an address with a port, as 192.0.2.1:143, [2001:db8::1]:143 or *:143"#
      ]
    ),
    (
      "listeners:\n  - { protocol: imap, address: \"*:1\", tls: off }\n  - { protocol: pop3, address: \"0.0.0.0:1\", tls: off }\nroutes:\n  - default: a",
      [
        "3:32: listeners[1].address: 0.0.0.0:1 is listened on already"
      ]
    ),
    (
      "listeners:\n  - { protocol: imap, address: \"*:1\", tls: implicit }\nroutes:\n  - default: a",
      [
        "2:44: listeners[0].tls: there is no certificate for it, expected the key tls"
      ]
    ),
    (
      "listeners:\n  - { protocol: imap, address: \"*:1\", tls: off }\nroutes:\n  - { sqlite: a, regex: b }\n  - {}\n  - { sqlit: a }",
      [
        "4:5: routes[0]: a source has exactly one of sqlite, regex, postgresql, mysql, ldap, http, redis, cdb, lmdb, client-named, default",
        "5:5: routes[1]: a source has exactly one of sqlite, regex, postgresql, mysql, ldap, http, redis, cdb, lmdb, client-named, default",
        #"6:7: routes[2].sqlit: unknown key, did you mean "sqlite"? Known here: sqlite, regex, postgresql, mysql, ldap, http, redis, cdb, lmdb, client-named, default, keys, timeout, on-failure, cache, check-password"#,
        "6:5: routes[2]: a source has exactly one of sqlite, regex, postgresql, mysql, ldap, http, redis, cdb, lmdb, client-named, default",
      ]
    ),
    (
      "listeners:\n  - { protocol: imap, address: \"*:1\", tls: off }\nroutes:\n  - default: a\nbackends:\n  a b: { address: x }\n  c: {}\n  d: { address: \"1.2.3\", ports: { imap: 0, pop3: 65536 } }\n  e: { address: x, ports: { smtp: 25 } }",
      [
        "6:8: backends.a b: a backend's name has letters, digits, dots, dashes and underscores",
        "7:6: backends.c.address: this key is missing, expected an address or a host name",
        #"8:17: backends.d.address: "1.2.3" can't be used, expected an address or a host name"#,
        #"9:29: backends.e.ports.smtp: unknown key, did you mean "imap"? Known here: imap, pop3, managesieve"#,
      ]
    ),
    (
      "listeners:\n  - { protocol: imap, address: \"*:1\", tls: off }\nroutes:\n  - default: a\nbackends:\n  d: { address: x, ports: { imap: 0, pop3: 65536 } }",
      [
        #"6:35: backends.d.ports.imap: "0" can't be used, expected a port, 1 to 65535"#,
        #"6:44: backends.d.ports.pop3: "65536" can't be used, expected a port, 1 to 65535"#,
      ]
    ),
  ])
  func allErrorsAreTold(_ text: String, _ expected: [String]) { #expect(errors(text) == expected) }

  @Test func aFileThatCannotBeRead() {
    do throws(ConfigErrors) {
      _ = try ConfigFile("/nowhere/proxyd.yaml")
      Issue.record("it was read")
    } catch {
      #expect(error.errors.map(\.description) == ["/nowhere/proxyd.yaml: it can't be read: No such file or directory"])
    }
  }

  @Test func errorsOfTheCoreAreLocated() throws {
    let file = try ConfigFile(minimum, path: "f")
    let there = file.locate(SettingsError(key: "routes[0].default", problem: "no"))
    #expect("\(there)" == "f:4:14: routes[0].default: no")
    let elsewhere = file.locate(
      SettingsError(key: "k", problem: "no", place: .init(file: "routes.re", line: 3, column: 9)))
    #expect("\(elsewhere)" == "routes.re:3:9: k: no")
  }
}

struct UnitTests {
  @Test(
    arguments: [
      ("0", 0), ("90", 90_000_000_000), ("500ms", 500_000_000), ("31m", 1_860_000_000_000), ("1h", 3_600_000_000_000),
      ("", nil), ("s", nil), ("-1s", nil), ("1.5s", nil), ("1d", nil), ("1 s", nil), ("99999999999999h", nil),
      ("१s", nil),
    ] as [(String, UInt64?)])
  func times(_ text: String, _ nanoseconds: UInt64?) {
    #expect(proxyd.Duration.parse(text) == nanoseconds)
    if let nanoseconds { #expect(proxyd.Duration.parse(proxyd.Duration.text(nanoseconds)) == nanoseconds) }
  }

  @Test(
    arguments: [
      ("0", 0), ("16384", 16_384), ("16k", 16_384), ("16K", 16_384), ("1m", 1 << 20), ("2g", 2 << 30), ("", nil),
      ("k", nil),
      ("-1", nil), ("1t", nil), ("99999999999999999999", nil), ("9223372036854775807k", nil),
    ] as [(String, Int?)])
  func sizes(_ text: String, _ bytes: Int?) {
    #expect(proxyd.Size.parse(text) == bytes)
    if let bytes { #expect(proxyd.Size.parse(proxyd.Size.text(bytes)) == bytes) }
  }
}

/// The table of keys, the reader, the sample and the manual tell the same.
struct ConfigKeysTests {
  static let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent()

  private func committed(_ path: String) throws -> String {
    try String(contentsOf: ConfigKeysTests.root.appending(path: path), encoding: .utf8)
  }

  @Test func theCommittedSampleIsTheTables() throws {
    #expect(try committed("etc/proxyd.yaml") == ConfigText.sample + "\n")
  }

  @Test func theCommittedManualIsTheTables() throws {
    #expect(try committed("etc/proxyd.yaml.5") == ConfigText.manual + "\n")
  }

  @Test func theSampleIsAConfiguration() throws {
    let settings = try ConfigFile(ConfigText.sample, path: "/etc/proxyd/proxyd.yaml").settings
    #expect(settings.listeners.count == 8)
  }

  /// Every commented line of the sample that is a key is one when the mark is taken off.
  @Test func theSamplesCommentedKeysAreKeys() throws {
    let lines = ConfigText.sample.split(separator: "\n", omittingEmptySubsequences: false)
    let tops = ConfigKeys.children(of: "")
    let text = lines.map { line -> Substring in
      let rest = line.dropFirst(2)
      return line.hasPrefix("# ") && tops.contains { rest.hasPrefix($0 + ": ") } ? rest : line
    }.joined(separator: "\n")
    let settings = try ConfigFile(text, path: "/etc/proxyd/proxyd.yaml").settings
    #expect(settings.sessions == 20_000)
    #expect(settings.user?.user == "proxyd")
  }

  /// The defaults the table tells are those that hold.
  @Test func theDefaultsAreTrue() throws {
    let limits = Limits()
    let timeouts = Timeouts()
    let told: [(String, String)] = [
      ("timeouts.login", proxyd.Duration.text(timeouts.login)),
      ("timeouts.connect", proxyd.Duration.text(timeouts.connect)),
      ("timeouts.backend-login", proxyd.Duration.text(timeouts.backendLogin)),
      ("timeouts.idle", proxyd.Duration.text(timeouts.idle)),
      ("timeouts.half-closed", proxyd.Duration.text(timeouts.halfClosed)),
      ("timeouts.shutdown", proxyd.Duration.text(timeouts.shutdown)),
      ("timeouts.failure-delay", proxyd.Duration.text(timeouts.failureDelay)),
      ("timeouts.lookup", proxyd.Duration.text(timeouts.lookup)), ("limits.command", proxyd.Size.text(limits.command)),
      ("limits.bad-commands", "\(limits.badCommands)"), ("limits.failed-logins", "\(limits.failedLogins)"),
      ("timeouts.proxy-header", proxyd.Duration.text(timeouts.proxyHeader)),
      (
        "backends.*.ports.imap",
        "\(MailProtocol.imap.port(.off)), or \(MailProtocol.imap.port(.implicit)) with implicit TLS"
      ),
      (
        "backends.*.ports.pop3",
        "\(MailProtocol.pop3.port(.off)), or \(MailProtocol.pop3.port(.implicit)) with implicit TLS"
      ), ("backends.*.ports.managesieve", "\(MailProtocol.manageSieve.port(.off))"),
    ]
    for (path, value) in told {
      let standard = try #require(ConfigKeys.key(path)?.standard)
      // 180s and 3m are the same.
      #expect(
        standard == value || proxyd.Duration.parse(standard) == proxyd.Duration.parse(value),
        "\(path): \(standard), \(value)")
    }
  }

  @Test func theChoicesAreTheTypes() {
    func words(_ path: String) -> [String] {
      if case .choice(let words)? = ConfigKeys.key(path)?.kind { words } else { [] }
    }
    #expect(words("listeners[].protocol") == MailProtocol.allCases.map(\.rawValue))
    #expect(words("listeners[].tls") == TLSPolicy.allCases.map(\.rawValue))
    #expect(words("log.format") == LogSettings.Format.allCases.map(\.rawValue))
  }

  @Test func everyKeyIsExplained() {
    for key in ConfigKeys.all {
      let text = ConfigText.explain(key)
      #expect(text.hasPrefix(key.path + "\n"))
      #expect(key.help.hasSuffix(".") || key.help.contains("#"), "\(key.path)")
      #expect(text.split(separator: "\n").allSatisfy { $0.count <= 104 }, "\(text)")
    }
    #expect(ConfigText.pattern("listeners[3].tls") == "listeners[].tls")
    #expect(ConfigText.pattern("listeners.tls") == "listeners[].tls")
    #expect(ConfigText.pattern("timeouts.idle") == "timeouts.idle")
  }
}

/// Base64 as an operator's tools write it.
enum Base64Text {
  static func encode(_ bytes: [UInt8]) -> String {
    var text: [UInt8] = []
    Base64.encode(bytes.span, into: &text)
    return String(decoding: text, as: UTF8.self)
  }
}

import Testing

@testable import Protocols
@testable import ProxyCore
@testable import proxyd

/// The keys of directories, stores and files.
struct DirectoryKeysTests {
  private func text(_ route: String) -> String {
    """
    listeners:
      - { protocol: imap, address: "127.0.0.1:1143", tls: off }
    routes:
      - \(route)
    """
  }

  private func source(_ route: String) throws -> SourceSettings {
    try #require(try ConfigFile(text(route), path: "/etc/proxyd/f").settings.routes.first).source
  }

  private func errors(_ route: String) -> [String] {
    do throws(ConfigErrors) {
      _ = try ConfigFile(text(route), path: "f")
      return []
    } catch {
      return error.errors.map { String("\($0)".dropFirst("f:4:".count).drop { $0.isNumber }.dropFirst(2)) }
    }
  }

  @Test func ldapIsRead() throws {
    let all = """
      ldap: { url: [ldaps://a.example.net, "ldap://[2001:db8::1]:3389/"], starttls: on, ca: ca.pem, bind-dn: "cn=x", \
      password-file: pw, base: "dc=x", scope: one, filter: "(uid=%n)", backend-attribute: h, login-attribute: l, \
      port-attribute: p, connections: 7 }
      """
    #expect(
      try source(all)
        == .ldap(
          LDAPSettings(
            urls: ["ldaps://a.example.net", "ldap://[2001:db8::1]:3389"], startsTLS: true,
            tls: .verified(authority: "/etc/proxyd/ca.pem"), bindDN: "cn=x", passwordFile: "/etc/proxyd/pw",
            base: "dc=x",
            scope: .one, filter: "(uid=%n)", backendAttribute: "h", loginAttribute: "l", portAttribute: "p",
            connections: 7)))
    let least = "ldap: { url: ldap://127.0.0.1, base: dc=x, filter: (uid=%u), backend-attribute: h }"
    #expect(
      try source(least)
        == .ldap(
          LDAPSettings(
            urls: ["ldap://127.0.0.1"], startsTLS: false, tls: .off, bindDN: nil, passwordFile: nil, base: "dc=x",
            scope: .sub, filter: "(uid=%u)", backendAttribute: "h", loginAttribute: nil, portAttribute: nil,
            connections: 4)))
    guard case .ldap(let verified) = try source(least.replacing("ldap://", with: "ldaps://")),
      case .ldap(let unverified) = try source(
        least.replacing("ldap://", with: "ldaps://").replacing("base", with: "insecure-no-verification: true, base"))
    else {
      Issue.record("no directory")
      return
    }
    #expect(verified.tls == .verified(authority: nil))
    #expect(unverified.tls == .unverified)
  }

  @Test(arguments: [
    (
      "ldap: { filter: x }",
      [
        "routes[0].ldap.url: this key is missing, expected a text or a list of texts",
        "routes[0].ldap.base: this key is missing, expected a text",
        "routes[0].ldap.backend-attribute: this key is missing, expected a text",
      ]
    ),
    ("ldap: { url: http://x, base: b, filter: f, backend-attribute: h }", [url("http://x")]),
    (
      "ldap: { url: [ldap://x, \"ldap://x/dc=y?uid\"], base: b, filter: f, backend-attribute: h }",
      [url("ldap://x/dc=y?uid")]
    ),
    ("ldap: { url: \"ldap://a b\", base: b, filter: f, backend-attribute: h }", [url("ldap://a b")]),
    (
      "ldap: { url: ldaps://x, starttls: on, base: b, filter: f, backend-attribute: h }",
      ["routes[0].ldap.starttls: it is for ldap://, and no url is of that kind"]
    ),
    (
      "ldap: { url: ldap://x, ca: c, insecure-no-verification: true, base: b, filter: f, backend-attribute: h }",
      [
        "routes[0].ldap.ca: it is for TLS, which is not used",
        "routes[0].ldap.insecure-no-verification: it is for TLS, which is not used",
      ]
    ),
    (
      "ldap: { url: ldaps://x, ca: c, insecure-no-verification: true, base: b, filter: f, backend-attribute: h }",
      ["routes[0].ldap.insecure-no-verification: nothing is verified, and the key ca is given"]
    ),
    (
      "ldap: { url: ldap://x, bind-dn: x, base: b, filter: f, backend-attribute: h }",
      ["routes[0].ldap.bind-dn: it goes with the key password-file, which is missing"]
    ),
    (
      "ldap: { url: ldap://x, password-file: x, base: b, filter: f, backend-attribute: h }",
      ["routes[0].ldap.password-file: it goes with the key bind-dn, which is missing"]
    ),
    (
      "ldap: { url: ldap://x, scope: all, base: b, filter: f, backend-attribute: h }",
      [#"routes[0].ldap.scope: "all" can't be used, expected base, one or sub"#]
    ),
  ])
  func ldapErrors(_ route: String, _ expected: [String]) { #expect(errors(route) == expected) }

  private static func url(_ wrong: String) -> String {
    "routes[0].ldap.url: \"\(wrong)\" can't be used, expected ldap:// or ldaps:// and a host, with a port or not, and "
      + "nothing else"
  }

  @Test func redisIsRead() throws {
    #expect(
      try source(
        "redis: { address: \"[::1]:7000\", user: u, password-file: pw, database: 3, key: \"x:%u\", "
          + "backend-field: b, login-field: l, connections: 9 }")
        == .redis(
          RedisSettings(
            place: .host(try #require(HostPort("[::1]:7000"))), user: "u", passwordFile: "/etc/proxyd/pw", database: 3,
            key: "x:%u", backendField: "b", loginField: "l", connections: 9)))
    #expect(
      try source("redis: { socket: run/redis.sock, key: \"%u\" }")
        == .redis(
          RedisSettings(
            place: .socket("/etc/proxyd/run/redis.sock"), user: nil, passwordFile: nil, database: 0, key: "%u",
            backendField: nil, loginField: nil, connections: 2)))
  }

  @Test(arguments: [
    ("redis: { key: x }", ["routes[0].redis.socket: expected address or socket"]),
    ("redis: { address: x }", ["routes[0].redis.key: this key is missing, expected a text"]),
    (
      "redis: { address: x, socket: y, key: z }",
      ["routes[0].redis.socket: there is an address already, expected one of the two"]
    ),
    (
      "redis: { address: \"a b\", key: z }",
      [#"routes[0].redis.address: "a b" can't be used, expected an address or a host name"#]
    ),
    (
      "redis: { address: x, key: z, user: u }",
      ["routes[0].redis.user: it goes with the key password-file, which is missing"]
    ),
    (
      "redis: { address: x, key: z, login-field: u }",
      ["routes[0].redis.login-field: it goes with the key backend-field, which is missing"]
    ),
    (
      "redis: { address: x, key: z, tls: on }",
      [
        "routes[0].redis.tls: unknown key, did you mean \"key\"? Known here: address, socket, user, password-file, "
          + "database, key, backend-field, login-field, connections"
      ]
    ),
  ])
  func redisErrors(_ route: String, _ expected: [String]) { #expect(errors(route) == expected) }

  @Test func filesAreRead() throws {
    #expect(try source("cdb: map.cdb") == .cdb(file: "/etc/proxyd/map.cdb"))
    #expect(try source("lmdb: /x/map.lmdb") == .lmdb(file: "/x/map.lmdb"))
  }

  @Test func checksAreRead() throws {
    let ldap = "ldap: { url: ldap://x, base: b, filter: f, backend-attribute: h }\n    check-password: bind"
    #expect(try ConfigFile(text(ldap), path: "f").settings.routes.first?.check == .bind)
    let words = "routes[0].check-password: bind is for ldap"
    #expect(
      errors("redis: { address: x, key: y }\n    check-password: bind").map { $0.drop { $0 != "r" } } == [words[...]])
  }
}

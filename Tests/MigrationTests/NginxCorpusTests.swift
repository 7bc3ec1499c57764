import Foundation
import ProxyCore
import Testing

@testable import Migration

/// A folder of nginx's corpus: nginx.conf with what it includes, and what an import must make of it.
///
/// `PROXYD_REGENERATE=1 swift test --filter NginxCorpusTests` writes what is made now over what is expected.
struct NginxCase: CustomStringConvertible, Sendable {
  let folder: URL
  var description: String { folder.lastPathComponent }

  static let root = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "NginxCorpus")

  static let all: [NginxCase] = {
    let names = (try? FileManager.default.contentsOfDirectory(atPath: root.path)) ?? []
    return names.sorted().map { NginxCase(folder: root.appending(path: $0)) }
  }()

  var names: [String] { ((try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []).sorted() }

  func bytes(_ name: String) -> [UInt8]? {
    (try? Data(contentsOf: folder.appending(path: name))).map { Array($0) }
  }

  var mail: NginxMail {
    get throws {
      let directives = try NginxConf.read(name: "nginx.conf", bytes: bytes("nginx.conf") ?? []) { pattern in
        let found = Paths.matching(folder.path + "/" + pattern)
        return .files(
          found.map { path in
            let name = String(path.dropFirst(folder.path.count + 1))
            return (name, bytes(name) ?? [])
          })
      }
      return NginxMail(directives) { SocketAddress(literal: $0, port: 0) != nil }
    }
  }

  /// What is expected, by the names of its files.
  func made() throws -> [String: String] {
    let result = try mail.plan(name: "nginx.conf", prefix: "/etc/nginx/", isNetwork: { Network($0) != nil })
    var made: [String: String] = [:]
    for (index, configuration) in result.configurations.enumerated() {
      made[index == 0 ? "expected.yaml" : "expected-\(index + 1).yaml"] = configuration.draft.text
    }
    made["expected.report"] = result.report.text
    made["exit"] = result.report.count(.lost) > 0 ? "1\n" : "0\n"
    var files = ""
    for file in result.files {
      files += "== \(file.name)\(file.isSecret ? " (secret)" : "")\n"
      if case .text(let text) = file.content { files += text }
    }
    if !files.isEmpty { made["expected.files"] = files }
    return made
  }
}

struct NginxCorpusTests {
  @Test func thereAreEnough() { #expect(NginxCase.all.count >= 12) }

  @Test(arguments: NginxCase.all)
  func imports(_ item: NginxCase) throws {
    let made = try item.made()
    if ProcessInfo.processInfo.environment["PROXYD_REGENERATE"] == "1" {
      for name in item.names where name.hasPrefix("expected") || name == "exit" {
        try FileManager.default.removeItem(at: item.folder.appending(path: name))
      }
      for (name, text) in made { try Data(text.utf8).write(to: item.folder.appending(path: name)) }
      return
    }
    let expected = item.names.filter { $0.hasPrefix("expected") || $0 == "exit" }
    #expect(expected == made.keys.sorted())
    for name in expected {
      #expect(String(decoding: item.bytes(name) ?? [], as: UTF8.self) == made[name], "\(item.folder.path)/\(name)")
    }
  }

  /// Nothing is silently lost: each directive has its entry.
  @Test(arguments: NginxCase.all)
  func everyDirectiveHasItsEntry(_ item: NginxCase) throws {
    let mail = try item.mail
    let report = mail.plan(name: "nginx.conf", prefix: "/", isNetwork: { _ in true }).report
    let entries = report.sections.flatMap(\.entries)
    for directive in mail.common + mail.servers.flatMap(\.own) + mail.beside {
      #expect(
        entries.contains { $0.place == directive.place && $0.setting == NginxMail.shown(directive) }, "\(directive)")
    }
    #expect(entries.allSatisfy { !$0.text.isEmpty })
  }

  /// Every directive of nginx's mail modules is met somewhere in the corpus.
  @Test func theCorpusHasEveryDirective() throws {
    let known = """
      listen protocol server_name timeout max_errors resolver resolver_timeout error_log auth_http auth_http_header \
      auth_http_timeout auth_http_pass_client_cert proxy_buffer proxy_timeout proxy_pass_error_message proxy_protocol \
      proxy_smtp_auth xclient set_real_ip_from proxy ssl_certificate ssl_certificate_key ssl_password_file \
      ssl_certificate_compression ssl_protocols ssl_ciphers ssl_prefer_server_ciphers ssl_dhparam ssl_ecdh_curve \
      ssl_session_cache ssl_session_timeout ssl_session_tickets ssl_session_ticket_key ssl_verify_client \
      ssl_verify_depth ssl_client_certificate ssl_trusted_certificate ssl_crl ssl_conf_command starttls imap_auth \
      imap_capabilities imap_client_buffer pop3_auth pop3_capabilities smtp_auth smtp_capabilities smtp_client_buffer \
      smtp_greeting_delay
      """.split(separator: " ").map(String.init)
    var met = Set<String>()
    for item in NginxCase.all {
      let mail = try item.mail
      for directive in mail.common + mail.servers.flatMap(\.own) + mail.beside { met.insert(directive.name) }
    }
    #expect(Set(known).subtracting(met) == [])
  }

  @Test(arguments: NginxCase.all)
  func secretsStayInTheirFiles(_ item: NginxCase) throws {
    for (name, text) in try item.made() where name != "expected.files" { #expect(!text.contains("s3cret"), "\(name)") }
  }
}

struct NginxConfTests {
  private func read(_ text: String, files: [String: String] = [:]) throws(NginxSyntaxError) -> [NginxDirective] {
    try NginxConf.read(name: "f", bytes: Array(text.utf8)) { pattern in
      files[pattern].map { .files([(pattern, Array($0.utf8))]) } ?? .missing("it is not there")
    }
  }

  /// A directive → its words. (Each was told by `nginx -T` and its errors.)
  @Test(
    arguments: [
      ("a b;", ["a", "b"]), ("a\tb\r\n c ;", ["a", "b", "c"]), ("a 'b c' \"d e\";", ["a", "b c", "d e"]),
      (#"a b\ c;"#, ["a", #"b\ c"#]), (#"a b\;c;"#, ["a", #"b\;c"#]), (#"a "b\"c" 'd\'e';"#, ["a", "b\"c", "d'e"]),
      (#"a b\\c\tx;"#, ["a", "b\\c\tx"]), (#"a "\r\n\q";"#, ["a", "\r\n\\q"]), ("a b}c;", ["a", "b}c"]),
      ("a ${b}c;", ["a", "${b}c"]), ("a b\"c\";", ["a", "b\"c\""]), ("a b#c; # d", ["a", "b#c"]), ("a '';", ["a", ""]),
      ("a # b;\n c;", ["a", "c"]), ("a ';{}#';", ["a", ";{}#"]),
    ])
  func partsWords(_ text: String, _ words: [String]) throws {
    let directives = try read(text)
    #expect(directives.count == 1)
    #expect([directives[0].name] + directives[0].words == words)
  }

  @Test(
    arguments: [
      ("a b", "f:1", "unexpected end of file"), (";", "f:1", "unexpected \";\""), ("{", "f:1", "unexpected \"{\""),
      ("}", "f:1", "unexpected \"}\""), ("a {\n b;", "f:2", "expecting \"}\""), ("a }", "f:1", "unexpected \"}\""),
      ("a b\n }", "f:2", "unexpected"), ("a 'b'c;", "f:1", "behind a quote"), ("a 'b;", "f:1", "closing quote"),
      ("\n\ninclude x;", "f:3", "not there"), ("a \(String(repeating: "x", count: 5_000));", "f:1", "too long"),
    ])
  func refusesWhatNginxRefuses(_ text: String, _ place: String, _ problem: String) {
    do throws(NginxSyntaxError) {
      Issue.record("\(try read(text))")
    } catch {
      #expect(error.place == place)
      #expect(error.problem.contains(problem), "\(error.problem)")
    }
  }

  @Test func includesStandInTheirPlaces() throws {
    let directives = try read("a { include x; c; }", files: ["x": "b;\nb2 { }"])
    #expect(directives[0].block?.map(\.name) == ["b", "b2", "c"])
    #expect(directives[0].block?.map(\.place) == ["x:1", "x:2", "f:1"])
  }

  @Test func circlesEnd() {
    #expect(throws: NginxSyntaxError.self) { try self.read("include x;", files: ["x": "include x;"]) }
    #expect(throws: NginxSyntaxError.self) { try self.read(String(repeating: "a {", count: 10_000)) }
  }

  @Test(
    arguments: [
      ("60", 60_000), ("60s", 60_000), ("1m", 60_000), ("1h30m", 5_400_000), ("1h 30m", 5_400_000), ("500ms", 500),
      ("1d", 86_400_000), ("1M", 2_592_000_000), ("0", 0), ("", nil), ("s", nil), ("1x", nil), ("-1", nil),
      ("1.5s", nil),
      ("9999999999", nil),
    ] as [(String, Int?)])
  func readsTimes(_ text: String, _ milliseconds: Int?) { #expect(NginxTime.milliseconds(text) == milliseconds) }

  /// Whatever stands in a file, an import ends, and says something.
  @Test(arguments: 0..<20)
  func nothingTraps(_ seed: UInt64) {
    var dice = HostileTests.Dice(state: seed)
    let pieces = [
      "mail", "server", "{", "}", ";", " ", "\n", "\"", "'", "\\", "#", "$", "listen", "143", "ssl", "proxy_protocol",
      "auth_http", "x", "protocol", "imap", "starttls on;", "mail { auth_http a; server { listen 143; ",
      "ssl_certificate a;",
      "ssl_certificate_key b;", "timeout", "99999999999", "[::]:1", "unix:/a", "set_real_ip_from",
      "ssl_verify_client on;",
      "auth_http_header", "max_errors", "-1", "\u{0}", "é",
    ]
    for _ in 0..<300 {
      var text = Bool.random(using: &dice) ? "mail { auth_http a; server { listen 143; protocol imap; " : ""
      for _ in 0..<Int.random(in: 0..<30, using: &dice) { text += (pieces.randomElement(using: &dice) ?? "") + " " }
      if Bool.random(using: &dice) { text += "; } }" }
      guard let directives = try? read(text) else { continue }
      let mail = NginxMail(directives) { SocketAddress(literal: $0, port: 0) != nil }
      let result = mail.plan(name: "f", prefix: "/", isNetwork: { Network($0) != nil })
      #expect(!result.report.text.isEmpty && result.configurations.allSatisfy { !$0.draft.text.isEmpty })
    }
  }
}

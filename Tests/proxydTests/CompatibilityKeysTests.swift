import Testing

@testable import Protocols
@testable import ProxyCore
@testable import proxyd

/// The keys by which a Perdition site keeps its words, its patterns and its log.
struct CompatibilityKeysTests {
  private func text(_ protocolName: String = "imap", _ words: String = "", _ more: String = "") -> String {
    """
    listeners:
      - { protocol: \(protocolName), address: "127.0.0.1:1143", tls: off\(words) }
    routes:
      - default: a
    backends:
      a: { address: 127.0.0.1 }
    \(more)
    """
  }

  private func errors(_ text: String) -> [String] {
    do throws(ConfigErrors) {
      _ = try ConfigFile(text, path: "f")
      return []
    } catch {
      return error.errors.map { String("\($0)".dropFirst(2)) }
    }
  }

  @Test func wordsForClientsAreRead() throws {
    let words = #", greeting: "Welcome: #1 \"here\"", login-ok: You are so in"#
    let listener = try ConfigFile(text("imap", words), path: "/c/f").settings.listeners[0]
    #expect(listener.greeting?.bytes == Array(#"Welcome: #1 "here""#.utf8))
    #expect(listener.loginOK?.bytes == Array("You are so in".utf8))
    let plain = try ConfigFile(text(), path: "/c/f").settings.listeners[0]
    #expect(plain.greeting == nil)
    #expect(plain.loginOK == nil)
  }

  @Test func bothFamiliesHaveTheWords() throws {
    let file = text("managesieve", ", greeting: Grüß Gott").replacing("127.0.0.1:1143", with: "*:1143")
    let listeners = try ConfigFile(file, path: "/c/f").settings.listeners
    #expect(listeners.map(\.greeting?.bytes) == [Array("Grüß Gott".utf8), Array("Grüß Gott".utf8)])
  }

  @Test(arguments: [
    ("imap", #", greeting: "a\r\nb""#, "greeting: it holds a control character"),
    ("pop3", ", greeting: Grüß Gott", "greeting: it holds letters beyond ASCII, and this protocol's lines have none"),
    ("pop3", #", login-ok: "[x] y""#, #"login-ok: it begins with "[", from which clients read a response code"#),
    ("pop3", ", greeting: a <b>", #"greeting: it holds "<", from which clients read a time stamp for APOP"#),
    ("imap", ", login-ok: " + String(repeating: "x", count: 401), "login-ok: it is longer than 400 bytes"),
  ])
  func wordsThatCannotBeSaid(_ protocolName: String, _ words: String, _ problem: String) throws {
    #expect(
      errors(text(protocolName, words)) == [
        "2:70: listeners[0].\(problem); expected up to 400 bytes in one line"
      ])
  }

  @Test func patternsOfPerditionAreRead() throws {
    func routes(_ source: String) throws -> [RouteSettings] {
      try ConfigFile(text().replacing("- default: a", with: source), path: "/c/f").settings.routes
    }
    #expect(try routes("- regex: r.re") == [.regex(file: "/c/r.re")])
    #expect(try routes("- regex: { file: r.re }") == [.regex(file: "/c/r.re")])
    #expect(try routes("- regex: { file: r.re, perdition-compatible: false }") == [.regex(file: "/c/r.re")])
    #expect(
      try routes("- regex: { file: /p/popmap.re, perdition-compatible: true }")
        == [.regex(file: "/p/popmap.re", perditionCompatible: true)])
    #expect(
      errors(text().replacing("- default: a", with: "- regex: { perdition-compatible: maybe }")) == [
        "4:12: routes[0].regex.file: this key is missing, expected a file's path"
      ])
    #expect(
      errors(text().replacing("- default: a", with: "- regex: { file: r.re, perdition-compatible: maybe }")) == [
        #"4:48: routes[0].regex.perdition-compatible: "maybe" can't be used, expected true or false"#
      ])
  }

  @Test func theLogOfPerditionIsRead() throws {
    func log(_ keys: String) throws -> LogSettings {
      try ConfigFile(text("imap", "", "log: { \(keys) }"), path: "/c/f").settings.log
    }
    #expect(
      try log("format: perdition, repeat: 300s") == LogSettings(format: .perdition, repetition: 300_000_000_000))
    #expect(try log("format: perdition, to: l.log") == LogSettings(format: .perdition, destination: .file("/c/l.log")))
    #expect(
      errors(text("imap", "", "log: { format: json, repeat: 5m }")) == [
        "7:30: log.repeat: it is for the format perdition, and the key format is another"
      ])
    #expect(
      errors(text("imap", "", "log: { format: perdition, repeat: 0 }")) == [
        #"7:35: log.repeat: "0" can't be used, expected a time, 1s to 24h, as 500ms, 90s, 31m or 1h"#
      ])
  }
}

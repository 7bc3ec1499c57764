import Foundation
import Protocols
import Testing

@testable import ProxyCore

struct HTTPAddressTests {
  /// An address → what curl is told, the socket, and Host.
  @Test(
    arguments: [
      ("http://127.0.0.1:8080/auth", "http://127.0.0.1:8080/auth", nil, "127.0.0.1"),
      ("http://auth.example.org", "http://auth.example.org", nil, "auth.example.org"),
      ("HTTPS://auth.example.org?x=1", "HTTPS://auth.example.org?x=1", nil, "auth.example.org"),
      ("https://[2001:db8::1]:8443/a/b", "https://[2001:db8::1]:8443/a/b", nil, "[2001:db8::1]"),
      ("unix:/run/auth.sock", "http://localhost/", "/run/auth.sock", "localhost"),
      ("unix:/run/auth.sock:/cgi?a=b", "http://localhost/cgi?a=b", "/run/auth.sock", "localhost"),
    ] as [(String, String, String?, String)])
  func isUnderstood(_ text: String, _ url: String, _ socket: String?, _ host: String) throws {
    let address = try HTTPAddress(text)
    #expect(address.url == url)
    #expect(address.socket == socket)
    #expect(address.host == host)
  }

  @Test(
    arguments: [
      ("", "expected http://"), ("auth.example.org/x", "expected http://"), ("ftp://a/", "expected http://"),
      ("file:///etc/passwd", "expected http://"), ("http://", "neither host"), ("http:///x", "neither host"),
      ("http://user:secret@auth.example.org/", "headers-file"), ("http://user@auth.example.org", "headers-file"),
      ("http://a:0/", "neither host"), ("http://a:/", "neither host"), ("http://a:70000", "neither host"),
      ("http://2001:db8::1/", "brackets"), ("http://a/b c", "blank"), ("http://a/\r\nX: y", "blank"),
      ("http://bücher.example/", "ASCII"), ("http://a/#x", "fragment"), ("http://a_b!/", "neither host"),
      ("unix:run/auth.sock", "expected unix:"), ("unix:", "expected unix:"), ("unix:/a:x", "begins with /"),
      ("unix:/\(String(repeating: "a", count: 108))", "107 bytes"), ("http://a\\@b/", "headers-file"),
    ])
  func isRefused(_ text: String, _ reason: String) {
    do throws(HTTPAddress.Problem) {
      Issue.record("\(try HTTPAddress(text))")
    } catch {
      #expect(error.words.contains(reason), "\(error.words)")
    }
  }
}

extension HTTPAddressTests {
  @Test(arguments: [
    ("http://u:p@a/", "http://***@a/"), ("http://u@p@a/", "http://***@a/"), ("u:p@a", "***@a"),
    ("http://a/", "http://a/"),
  ])
  func isMasked(_ text: String, _ shown: String) { #expect(HTTPAddress.masked(text) == shown) }
}

struct HTTPPlanTests {
  private func settings(urls: [String] = ["http://a/"], headers: [String] = [], file: String? = nil) -> HTTPSettings {
    HTTPSettings(
      urls: urls, headers: headers, headersFile: file, sendsPassword: false, authority: nil, connections: 1)
  }

  @Test(
    arguments: [
      ("X-Key: v", nil), ("Host: mail.example.org", nil), ("X-Key:v", nil), ("X-Key", "no colon"),
      ("X Key: v", "no token"), (": v", "no token"), ("X-Key: a\r\nAuth-User: b", "control character"),
      ("X-Key: a\u{0}", "control character"), ("X-Key:", "no value"), ("auth-user: joe", "proxyd's own"),
      ("Client-IP: 127.0.0.1", "proxyd's own"), ("Content-Length: 5", "HTTP's own"), ("Expect: x", "HTTP's own"),
    ] as [(String, String?)])
  func judgesHeaders(_ line: String, _ reason: String?) {
    let problem = HTTPPlan.problem(header: line)
    if let reason { #expect(problem?.contains(reason) == true, "\(problem ?? "nil")") } else { #expect(problem == nil) }
  }

  @Test func readsTheFileOfHeaders() throws {
    let file = NSTemporaryDirectory() + "/proxyd-headers-\(UUID().uuidString)"
    defer { try? FileManager.default.removeItem(atPath: file) }
    try Data("# ours\r\nX-Key: secret\r\n\r\nHost: there\n".utf8).write(to: URL(fileURLWithPath: file))
    let plan = try HTTPPlan(settings(headers: ["X-Open: 1"], file: file), key: "routes[0].http")
    #expect(plan.headers.withSpan { $0.array } == Array("X-Open: 1\u{0}X-Key: secret\u{0}Host: there\u{0}".utf8))
    #expect(plan.namesHost)
    #expect(plan.name == "http http://a/")
  }

  @Test func tellsAllThatIsWrongWithoutSecrets() throws {
    let file = NSTemporaryDirectory() + "/proxyd-headers-\(UUID().uuidString)"
    defer { try? FileManager.default.removeItem(atPath: file) }
    try Data("X-Key secret\nAuth-Pass: secret\n".utf8).write(to: URL(fileURLWithPath: file))
    var wrong = settings(urls: ["ftp://a"], headers: ["x"], file: file)
    wrong.authority = "/does/not/exist"
    do throws(SettingsErrors) {
      _ = try HTTPPlan(wrong, key: "routes[0].http")
      Issue.record("no error")
    } catch {
      #expect(
        error.errors.map(\.key) == [
          "routes[0].http.url", "routes[0].http.headers[0]", "routes[0].http.headers-file",
          "routes[0].http.headers-file", "routes[0].http.ca",
        ])
      #expect(!error.errors.contains { $0.problem.contains("secret") })
      #expect(error.errors[3].problem.hasPrefix("\(file):2: "))
    }
  }

  @Test func theNameHasNoQuestionsInIt() throws {
    let plan = try HTTPPlan(settings(urls: ["http://a/x?key=secret", "https://b"]), key: "")
    #expect(plan.name == "http http://a/x https://b")
  }
}

#if HTTP
  struct HTTPConnectionTests {
    private func request(_ name: String, key: String? = nil) -> SourceRequest {
      SourceRequest(
        query: RouteQuery(user: Array((key ?? name).utf8), mailProtocol: .imap), user: Array(name.utf8))
    }

    @Test func theNameGoesAsItIsKnown() {
      func user(_ request: SourceRequest, _ isPersonal: Bool) -> String {
        String(decoding: HTTPConnection.question(request, isPersonal: isPersonal).user, as: UTF8.self)
      }
      #expect(user(request("Joe@Example.org"), true) == "Joe@Example.org")
      #expect(user(request("Joe@Example.org"), false) == "joe@example.org")
      #expect(user(request("Joe@Example.org", key: "Joe"), true) == "joe")
      #expect(user(request("Joe@Example.org", key: "Joe"), false) == "joe")
    }

    /// An answer, whether the login was proved → what it means.
    @Test func answersMean() {
      let empty = Secret()
      let secret = Secret(Array("secret".utf8).span)
      var destination = Destination("", loginAs: Array("joe".utf8))
      destination.backend = "a"
      let accepted = AuthHTTPAnswer.accepted(.init(backend: "a", user: Array("joe".utf8)))
      #expect(HTTPConnection.answer(accepted, empty, isProven: false) == .found(destination))
      destination.isChecked = true
      #expect(HTTPConnection.answer(accepted, empty, isProven: true) == .found(destination))
      destination.password = SharedSecret(Array("secret".utf8).span)
      let replacing = AuthHTTPAnswer.accepted(.init(backend: "a", user: Array("joe".utf8), hasPassword: true))
      #expect(HTTPConnection.answer(replacing, secret, isProven: true) == .found(destination))
      guard case .failed(let reason) = HTTPConnection.answer(replacing, secret, isProven: false) else {
        Issue.record("anybody would be let in")
        return
      }
      #expect(reason.contains("Auth-Pass") && !reason.contains("secret"))
      #expect(
        HTTPConnection.answer(.refused(.init(words: [0x61], delay: 3)), empty, isProven: true)
          == .refused(.init(words: [0x61], delay: 3_000_000_000)))
      #expect(HTTPConnection.answer(.again(after: 0), empty, isProven: true) == .again(after: 200_000_000))
      #expect(HTTPConnection.answer(.again(after: 2), empty, isProven: true) == .again(after: 2_000_000_000))
      #expect(HTTPConnection.answer(.failed("x"), empty, isProven: true) == .failed("x"))
    }
  }
#endif

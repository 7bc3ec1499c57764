import Testing

@testable import Protocols

struct AuthHTTPRequestTests {
  private func lines(_ request: AuthHTTPRequest, _ password: AuthHTTPRequest.Password, _ secret: [UInt8]) -> [String] {
    var lines = Secret()
    request.render(password, secret.span, into: &lines)
    let bytes = lines.span.array
    #expect(bytes.last == 0)
    return bytes.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
  }

  @Test func isNginxsInOrder() {
    var request = AuthHTTPRequest()
    request.user = Array("joe@example.org".utf8)
    request.attempt = 2
    request.clientAddress = "2001:db8::1"
    request.tls = .init(
      version: "TLSv1.3", cipher: "TLS_AES_128_GCM_SHA256",
      client: .verified(subject: "CN=joe,O=Example", issuer: "CN=ca", serial: [0x0A, 0xF1], fingerprint: [0xAB, 0x01]))
    var header = KeyFacts()
    (header.clientAddress, header.clientPort) = ("2001:db8::1", "4711")
    (header.localAddress, header.localPort) = ("192.0.2.1", "143")
    request.header = header
    #expect(
      lines(request, .sent, Array("secret".utf8)) == [
        "Auth-Method: plain", "Auth-User: joe@example.org", "Auth-Pass: secret", "Auth-Protocol: imap",
        "Auth-Login-Attempt: 2", "Client-IP: 2001:db8::1", "Proxy-Protocol-Addr: 2001:db8::1",
        "Proxy-Protocol-Port: 4711", "Proxy-Protocol-Server-Addr: 192.0.2.1", "Proxy-Protocol-Server-Port: 143",
        "Auth-SSL: on", "Auth-SSL-Protocol: TLSv1.3", "Auth-SSL-Cipher: TLS_AES_128_GCM_SHA256",
        "Auth-SSL-Verify: SUCCESS", "Auth-SSL-Subject: CN=joe,O=Example", "Auth-SSL-Issuer: CN=ca",
        "Auth-SSL-Serial: 0AF1", "Auth-SSL-Fingerprint: ab01",
      ])
  }

  @Test func aWithheldPasswordHasNoHeader() {
    var request = AuthHTTPRequest()
    request.user = Array("joe".utf8)
    request.mailProtocol = .pop3
    request.clientAddress = "192.0.2.1"
    #expect(
      lines(request, .withheld, Array("secret".utf8)) == [
        "Auth-Method: plain", "Auth-User: joe", "Auth-Protocol: pop3", "Auth-Login-Attempt: 1", "Client-IP: 192.0.2.1",
      ])
  }

  @Test func aProvenUserHasAnEmptyPassword() {
    var request = AuthHTTPRequest()
    request.method = .sasl(.external)
    #expect(lines(request, .empty, Array("secret".utf8))[0] == "Auth-Method: external")
    #expect(lines(request, .empty, Array("secret".utf8))[2] == "Auth-Pass: ")
  }

  @Test(
    arguments: [
      (.command, "plain"), (.sasl(.plain), "plain"), (.sasl(.login), "plain"), (.sasl(.external), "external"),
      (.sasl(.xoauth2), "xoauth2"), (.sasl(.oauthBearer), "oauthbearer"), (.sasl(.scramSHA256), "scram-sha-256"),
    ] as [(LoginDraft.Method, String)])
  func namesTheMethod(_ method: LoginDraft.Method, _ word: String) {
    var request = AuthHTTPRequest()
    request.method = method
    #expect(lines(request, .withheld, [])[0] == "Auth-Method: \(word)")
  }

  /// nginx 1.22 on the same bytes: see the reference, §1.6.
  @Test(
    arguments: [
      (#"us"er %x"#, #"us"er%20%25x"#), ("a+b", "a+b"), ("a\r\nAuth-Status: OK", "a%0D%0AAuth-Status:%20OK"),
      ("\u{0}\u{1F}\u{7F}", "%00%1F\u{7F}"), ("jürgen", "jürgen"), ("a;b:c", "a;b:c"), ("\t", "%09"), ("", ""),
    ])
  func escapesWhatClientsWrite(_ text: String, _ escaped: String) {
    var request = AuthHTTPRequest()
    request.user = Array(text.utf8)
    let said = lines(request, .sent, Array(text.utf8))
    #expect(said[1] == "Auth-User: \(escaped)")
    #expect(said[2] == "Auth-Pass: \(escaped)")
  }

  @Test func everyByteStaysInItsLine() {
    for byte in UInt8.min...UInt8.max {
      var request = AuthHTTPRequest()
      request.user = [byte]
      request.clientAddress = "a\r\n\0b"
      request.tls = .init(
        version: "a\rb", cipher: "a\nb", client: .verified(subject: "a\0b", issuer: "a\nb", serial: [], fingerprint: [])
      )
      var said = Secret()
      request.render(.sent, [byte].span, into: &said)
      let bytes = said.span.array
      #expect(bytes.count { $0 == 0 } == 14)
      #expect(!bytes.contains { $0 != 0 && $0 < 0x20 })
    }
  }

  @Test func everyHeaderIsOneOfItsNames() {
    var request = AuthHTTPRequest()
    request.header = KeyFacts()
    request.tls = .init(
      version: "a", cipher: "b", client: .verified(subject: "c", issuer: "d", serial: [1], fingerprint: [2]))
    for line in lines(request, .sent, [0x61]) {
      #expect(AuthHTTPRequest.names.contains(line.prefix { $0 != ":" }.lowercased()), "\(line)")
    }
  }
}

struct AuthHTTPAnswerTests {
  private func read(_ head: String) -> (answer: AuthHTTPAnswer, password: String) {
    var password = Secret()
    let answer = AuthHTTPAnswer.read(Array(head.utf8).span, password: &password)
    return (answer, String(decoding: password.span.array, as: UTF8.self))
  }

  private func read(lines: String, status: String = "200 OK") -> AuthHTTPAnswer {
    read("HTTP/1.1 \(status)\r\n\(lines)\r\n\r\n").answer
  }

  /// Auth-Server and Auth-Port → the backend.
  @Test(
    arguments: [
      ("192.0.2.1", "143", "192.0.2.1:143"), ("2001:db8::1", "993", "[2001:db8::1]:993"),
      ("[2001:db8::1]", "993", "[2001:db8::1]:993"), ("mail.example.org", "65535", "mail.example.org:65535"),
      ("mail", nil, "mail"), ("a_backend", nil, "a_backend"), ("[2001:db8::1]", nil, "[2001:db8::1]"),
      ("2001:db8::1", nil, "2001:db8::1"), (" \t192.0.2.1 ", " 1 ", "192.0.2.1:1"),
    ] as [(String, String?, String)])
  func accepts(_ server: String, _ port: String?, _ backend: String) {
    let port = port.map { "\r\nAuth-Port:\($0)" } ?? ""
    #expect(read(lines: "Auth-Status: OK\r\nAuth-Server:\(server)\(port)") == .accepted(.init(backend: backend)))
  }

  @Test func takesNameAndPassword() {
    let (answer, password) = read(
      """
      HTTP/1.1 200 OK\r
      Server: x\r
      AUTH-STATUS: OK\r
      auth-user:  joe%20x \r
      Auth-Pass: p:w d\r
      Auth-Server: a\r
      X-Odd:\r
      \r

      """)
    #expect(answer == .accepted(.init(backend: "a", user: Array("joe%20x".utf8), hasPassword: true)))
    #expect(password == "p:w d")
  }

  @Test func emptyNameAndPasswordAreTheClients() {
    #expect(
      read(lines: "Auth-Status: OK\r\nAuth-Server: a\r\nAuth-User:\r\nAuth-Pass: ") == .accepted(.init(backend: "a")))
  }

  /// Header lines → words and delay.
  @Test(
    arguments: [
      ("Auth-Status: Invalid login or password", "Invalid login or password", nil),
      ("Auth-Status: no\r\nAuth-Wait: 3", "no", 3), ("Auth-Status: no\r\nAuth-Wait: 0", "no", nil),
      ("Auth-Status: no\r\nAuth-Wait: 999999999", "no", 60), ("Auth-Status: ok", "ok", nil),
      ("Auth-Status: OK.", "OK.", nil), ("Auth-Status: wait", "wait", nil), ("Auth-Status: nö", "nö", nil),
      ("Auth-Status: a\tb", "a?b", nil), ("Auth-Status: a\u{85}b", "a?b", nil),
      ("Auth-Status: \(String(repeating: "ä", count: 200))", String(repeating: "ä", count: 128), nil),
    ] as [(String, String, UInt64?)])
  func refuses(_ lines: String, _ words: String, _ delay: UInt64?) {
    #expect(read(lines: lines) == .refused(.init(words: Array(words.utf8), delay: delay)))
  }

  @Test func wordsAreUTF8() {
    var password = Secret()
    let head = Array("HTTP/1.1 200 OK\r\nAuth-Status: n".utf8) + [0xF6, 0x80, 0xFF] + Array("\r\n\r\n".utf8)
    #expect(AuthHTTPAnswer.read(head.span, password: &password) == .refused(.init(words: Array("n???".utf8))))
  }

  @Test(arguments: [("", 0), ("\r\nAuth-Wait: 2", 2), ("\r\nAuth-Wait: 0", 0), ("\r\nAuth-Wait: 61", 60)])
  func waits(_ line: String, _ seconds: UInt64) {
    #expect(read(lines: "Auth-Status: WAIT\(line)") == .again(after: seconds))
  }

  /// Status, header lines → what must be in the reason.
  @Test(
    arguments: [
      ("500 Oops", "Auth-Status: OK\r\nAuth-Server: a", "status is 500"),
      ("302 Found", "Auth-Status: OK\r\nAuth-Server: a", "status is 302"),
      ("404 Not Found", "Auth-Status: no", "status is 404"), ("201 Created", "Auth-Status: no", "status is 201"),
      ("401 Unauthorized", "Auth-Status: OK\r\nAuth-Server: a", "status is 401"),
      ("403 Forbidden", "Auth-Status: WAIT", "status is 403"), ("403 Forbidden", "Server: x", "no Auth-Status"),
      ("200 OK", "Auth-Server: a\r\nAuth-Port: 1", "no Auth-Status"), ("200 OK", "Auth-Status:", "no Auth-Status"),
      ("200 OK", "Auth-Status: OK", "no Auth-Server"), ("200 OK", "Auth-Status: OK\r\nAuth-Server: ", "no Auth-Server"),
      ("200 OK", "Auth-Status: OK\r\nAuth-Server: a b", "Auth-Server"),
      ("200 OK", "Auth-Status: OK\r\nAuth-Server: bü", "Auth-Server"),
      ("200 OK", "Auth-Status: OK\r\nAuth-Server: a:143", "belongs to Auth-Port"),
      ("200 OK", "Auth-Status: OK\r\nAuth-Server: [::1]:143", "belongs to Auth-Port"),
      ("200 OK", "Auth-Status: OK\r\nAuth-Server: \(String(repeating: "a", count: 257))", "longer than"),
      ("200 OK", "Auth-Status: OK\r\nAuth-Server: a\r\nAuth-Port: 0", "Auth-Port"),
      ("200 OK", "Auth-Status: OK\r\nAuth-Server: a\r\nAuth-Port: 65536", "Auth-Port"),
      ("200 OK", "Auth-Status: OK\r\nAuth-Server: a\r\nAuth-Port: -1", "Auth-Port"),
      ("200 OK", "Auth-Status: OK\r\nAuth-Server: a\r\nAuth-Port:", "Auth-Port"),
      ("200 OK", "Auth-Status: OK\r\nAuth-Server: a\r\nAuth-Port: 99999999999999999999", "Auth-Port"),
      ("200 OK", "Auth-Status: WAIT\r\nAuth-Wait: soon", "Auth-Wait"),
      ("200 OK", "Auth-Status: no\r\nAuth-Wait: 1.5", "Auth-Wait"),
      ("200 OK", "Auth-Status: OK\r\nauth-status: OK\r\nAuth-Server: a", "Auth-Status is there twice"),
      ("200 OK", "Auth-Status: OK\r\nAuth-Server: a\r\nAuth-User: x\r\nAuth-User: y", "Auth-User is there twice"),
      ("200 OK", "Auth-Status: OK\r\nAuth-Server: a\r\nAuth-Pass: x\r\nAuth-Pass: x", "Auth-Pass is there twice"),
      ("200 OK", "Auth-Status: OK\r\nAuth-Server: a\r\n folded", "no colon"),
      ("200 OK", "Auth-Status: OK\r\nAuth-Server: a\r\n X: y", "no token"),
      ("200 OK", "Auth-Status : OK\r\nAuth-Server: a", "no token"), ("200 OK", ": x", "no token"),
      ("200 OK", "Auth-Status: OK\r\nAuth-User: a\u{0}b\r\nAuth-Server: a", "control character"),
      ("200 OK", "Auth-Status: OK\r\nAuth-User: a\rb\r\nAuth-Server: a", "control character"),
      ("20 OK", "Auth-Status: OK\r\nAuth-Server: a", "first line"),
      ("2000 OK", "Auth-Status: OK\r\nAuth-Server: a", "first line"),
      ("abc OK", "Auth-Status: OK\r\nAuth-Server: a", "first line"),
      ("099 OK", "Auth-Status: OK\r\nAuth-Server: a", "first line"),
    ])
  func fails(_ status: String, _ lines: String, _ reason: String) {
    guard case .failed(let why) = read(lines: lines, status: status) else {
      Issue.record("\(read(lines: lines, status: status))")
      return
    }
    #expect(why.contains(reason), "\(why)")
  }

  @Test(arguments: ["", "\r\n", "HTTP", "HTTP/1.1", "HTTP/1.1 ", "ICY 200 OK\r\n\r\n", "HTTP/1.1 100 Continue\r\n\r\n"])
  func failsOnWhatIsNotHTTP(_ head: String) {
    #expect(read(head).answer == .failed("its first line is none of HTTP's"))
  }

  @Test(arguments: ["204 No Content", "200", "200 "])
  func takesStatus(_ status: String) {
    #expect(read(lines: "Auth-Status: OK\r\nAuth-Server: a", status: status) == .accepted(.init(backend: "a")))
  }

  @Test(arguments: ["401 Unauthorized", "403 Forbidden"])
  func refusesByStatusAndWords(_ status: String) {
    #expect(read(lines: "Auth-Status: no", status: status) == .refused(.init(words: Array("no".utf8))))
  }

  @Test func interimAnswersAndTrailersDoNotCount() {
    let head =
      "HTTP/1.1 103 Hints\r\nAuth-Status: no\r\n\r\nHTTP/2 200\nAuth-Status: OK\nAuth-Server: a\n\nAuth-Port: 1\n"
    #expect(read(head).answer == .accepted(.init(backend: "a")))
  }

  @Test func isBounded() {
    func head(_ count: Int) -> String {
      let start = "HTTP/1.1 200 OK\r\nAuth-Status: OK\r\nAuth-Server: a\r\nX: "
      return start + String(repeating: "x", count: count - start.utf8.count - 4) + "\r\n\r\n"
    }
    #expect(read(head(AuthHTTPAnswer.mostBytes)).answer == .accepted(.init(backend: "a")))
    #expect(read(head(AuthHTTPAnswer.mostBytes + 1)).answer == .failed("its header lines are longer than 8192 bytes"))
  }

  @Test func aFailureKeepsNoPasswordAndQuotesNone() {
    let (answer, password) = read("HTTP/1.1 200 OK\r\nAuth-Pass: hidden\r\nAuth-Status: OK\r\nAuth-Server: a:1\r\n\r\n")
    #expect(password.isEmpty)
    guard case .failed(let reason) = answer else {
      Issue.record("\(answer)")
      return
    }
    #expect(!reason.contains("hidden"))
  }

  /// Nothing that a service says may trap, and whatever comes of it can be said to a client and connected to.
  @Test func hostileAnswersNeverTrap() {
    let pieces =
      [
        "HTTP/1.1 200 OK", "\r\n", "\n", "\r", ":", " ", "Auth-Status", "OK", "WAIT", "Auth-Server", "Auth-Port", "143",
        "Auth-Pass", "Auth-User", "Auth-Wait", "[::1]", "::", "\u{0}", "ä", "\t", "HTTP/1.1 100 x\r\n\r\n",
      ].map { Array($0.utf8) } + [[0xFF], [0xC3]]
    var generator = SystemRandomNumberGenerator()
    for _ in 0..<20_000 {
      var head: [UInt8] = Bool.random() ? Array("HTTP/1.1 200 OK\r\n".utf8) : []
      for _ in 0..<Int.random(in: 0..<24, using: &generator) { head += pieces.randomElement(using: &generator) ?? [] }
      var password = Secret()
      switch AuthHTTPAnswer.read(head.span, password: &password) {
      case .accepted(let accepted):
        #expect(!accepted.backend.isEmpty && accepted.backend.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7F })
        #expect(accepted.hasPassword == !password.isEmpty)
      case .refused(let refused):
        #expect(!refused.words.isEmpty && refused.words.count <= 256 && !refused.words.contains(where: \.isControl))
      case .again(let seconds): #expect(seconds <= 60)
      case .failed(let reason): #expect(password.isEmpty && !reason.isEmpty)
      }
    }
  }
}

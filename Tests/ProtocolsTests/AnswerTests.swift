// swift-format-ignore-file: NeverForceUnwrap
// A test that unwraps nil fails, which is what it is for.

import Testing

@testable import Protocols

struct ReferralTests {
  /// A response code's inside → where it points; nil if it is no referral.
  @Test(
    arguments: [
      ("REFERRAL imap://alice;AUTH=*@192.0.2.2:143/", "192.0.2.2:143"), ("REFERRAL imap://192.0.2.2/", "192.0.2.2"),
      ("referral imap://alice@mail.example.com", "mail.example.com"),
      ("REFERRAL imap://alice;AUTH=PLAIN@[2001:db8::1]:1143/", "[2001:db8::1]:1143"),
      ("REFERRAL imaps://a@b.example:993/INBOX", "b.example:993"),
      ("REFERRAL/bob@192.0.2.2:1110", "192.0.2.2:1110"), ("REFERRAL/192.0.2.2:1110", "192.0.2.2:1110"),
      ("REFERRAL/bob@example.com@192.0.2.2:1110", "192.0.2.2:1110"),
      ("REFERRAL pop://bob;AUTH=*@192.0.2.2:110", "192.0.2.2:110"),
      ("REFERRAL \"sieve://alice@192.0.2.2:4190\"", "192.0.2.2:4190"),
      ("REFERRAL sieve://bob;AUTH=PLAIN@127.0.0.2:1143", "127.0.0.2:1143"),
      ("REFERRAL", nil), ("REFERRAL ", nil), ("REFERRAL/", nil), ("REFERRAL \"", nil), ("REFERRAL \"\"", nil),
      ("REFERRALS imap://x/", nil), ("REFERRALximap://x/", nil), ("REFERRAL imap:///", nil),
      ("REFERRAL imap://alice@/", nil),
      ("REFERRAL imap://a b/", nil), ("REFERRAL imap://a\u{7F}/", nil), ("REFERRAL imap://bü.example/", nil),
      ("REFERRAL imap://\(String(repeating: "h", count: 264))/", nil), ("", nil), ("UNAVAILABLE", nil),
    ] as [(String, String?)])
  func pointsTo(_ code: String, _ expected: String?) {
    #expect(Referral.target(Array(code.utf8)) == expected)
  }
}

struct BackendAnswerTests {
  @Test(arguments: [
    ("UNAVAILABLE", true), ("unavailable", true), ("SYS/TEMP", true), ("IN-USE", true), ("INUSE", true),
    ("LIMIT", true),
    ("LIMIT/CONNECTIONS", true), ("LOGIN-DELAY 300", true), ("SERVERBUG", true), ("TRYLATER", true),
    ("AUTHENTICATIONFAILED", false), ("AUTHORIZATIONFAILED", false), ("EXPIRED", false), ("SYS/PERM", false),
    ("AUTH", false), ("CONTACTADMIN", false), ("ALERT", false), ("LIMITED", false), ("UNAVAILABLES", false),
    ("", false),
    ("REFERRAL imap://unavailable/", false),
  ])
  func isTemporary(_ code: String, _ expected: Bool) {
    let answer = BackendAnswer(code: Array(code.utf8))
    #expect(answer.isTemporary == expected)
    #expect(LoginRefusal.backend(answer).countsAgainstClient == !expected)
  }

  @Test(
    arguments: [
      (.credentials, true), (.disabled, true), (.unavailable, false), (.misconfigured, false), (.limit, false),
      (.mechanism, false),
      (.cancelled, false),
    ] as [(LoginRefusal, Bool)])
  func guessesCount(_ refusal: LoginRefusal, _ expected: Bool) {
    #expect(refusal.countsAgainstClient == expected)
  }

  @Test func isToldInWords() {
    #expect(BackendAnswer(code: Array("A b".utf8), text: Array("c".utf8)).words == "[A b] c")
    #expect(BackendAnswer(text: Array("c".utf8)).words == "c")
    #expect(BackendAnswer(code: Array("A B".utf8)).codeName == "a")
  }
}

/// The answers table: what each outcome is in each protocol.
struct AnswersTests {
  private static func code(_ code: String, _ text: String = "x") -> LoginRefusal {
    .backend(BackendAnswer(code: Array(code.utf8), text: Array(text.utf8)))
  }

  @Test(
    arguments: [
      (
        .credentials, "t NO [AUTHENTICATIONFAILED] Authentication failed.", "-ERR [AUTH] Authentication failed.",
        "NO \"Authentication failed.\""
      ),
      (
        .unavailable, "t NO [UNAVAILABLE] Account is temporarily unavailable.",
        "-ERR [SYS/TEMP] Account is temporarily unavailable.", "NO (TRYLATER) \"Account is temporarily unavailable.\""
      ),
      (
        .misconfigured, "t NO [SERVERBUG] Account is temporarily unavailable.",
        "-ERR [SYS/PERM] Account is unavailable.",
        "NO (TRYLATER) \"Account is unavailable.\""
      ),
      (
        .disabled, "t NO [CONTACTADMIN] Login is disabled for this account.",
        "-ERR [SYS/PERM] Login is disabled for this account.", "NO \"Login is disabled for this account.\""
      ),
      (
        .limit, "t NO [LIMIT] Too many connections for this account.",
        "-ERR [IN-USE] Too many connections for this account.",
        "NO (TRYLATER) \"Too many connections for this account.\""
      ),
      (
        .mechanism, "t NO [CANNOT] This mechanism can't be used for this account, another may.",
        "-ERR [AUTH] This mechanism can't be used for this account, another may.",
        "NO \"This mechanism can't be used for this account, another may.\""
      ),
      (
        .cancelled, "t BAD Authentication cancelled.", "-ERR Authentication cancelled.",
        "NO \"Authentication cancelled.\""
      ),
      (
        code("EXPIRED", "Change it"), "t NO [EXPIRED] Change it", "-ERR [EXPIRED] Change it",
        "NO (EXPIRED) \"Change it\""
      ),
      (code("X y", "a \"b\" \\"), "t NO [X y] a \"b\" \\", "-ERR [X y] a \"b\" \\", "NO (X y) \"a \\\"b\\\" \\\\\""),
      (code("X", ""), "t NO [X] Login refused.", "-ERR [X]", "NO (X)"),
      (code("", "said"), "t NO said", "-ERR said", "NO \"said\""),
    ] as [(LoginRefusal, String, String, String)])
  func refusals(_ refusal: LoginRefusal, _ imap: String, _ pop3: String, _ sieve: String) {
    #expect(AnswersTests.conclude(.imap, .refused(refusal)) == imap + "\r\n")
    #expect(AnswersTests.conclude(.pop3, .refused(refusal)) == pop3 + "\r\n")
    #expect(AnswersTests.conclude(.manageSieve, .refused(refusal)) == sieve + "\r\n")
  }

  @Test func acceptances() {
    let answer = BackendAnswer(
      code: Array("X".utf8), text: Array("in".utf8), untagged: Array("* OK [ALERT] y\r\n".utf8),
      capabilities: Array("IMAP4rev1".utf8))
    #expect(
      AnswersTests.conclude(.imap, .accepted(answer))
        == "* OK [ALERT] y\r\n* CAPABILITY IMAP4rev1\r\nt OK [X] in\r\n")
    #expect(AnswersTests.conclude(.pop3, .accepted(answer)) == "+OK [X] in\r\n")
    #expect(AnswersTests.conclude(.manageSieve, .accepted(answer)) == "OK (X) \"in\"\r\n")
    let bracket = BackendAnswer(text: Array("in".utf8), capabilities: Array("A] B".utf8))
    #expect(AnswersTests.conclude(.imap, .accepted(bracket)) == "* CAPABILITY A] B\r\nt OK in\r\n")
    let bare = BackendAnswer(capabilities: Array("IMAP4rev1".utf8))
    #expect(AnswersTests.conclude(.imap, .accepted(bare)) == "t OK [CAPABILITY IMAP4rev1] Logged in.\r\n")
    #expect(AnswersTests.conclude(.pop3, .accepted(bare)) == "+OK\r\n")
    #expect(AnswersTests.conclude(.manageSieve, .accepted(bare)) == "OK\r\n")
  }

  /// RFC 5804 §4: a quoted string has at most 1,024 bytes.
  @Test(arguments: [(1_024, "OK \"xxx"), (1_025, "OK {1025}\r\nxxx")]) func longTexts(_ count: Int, _ front: String) {
    let answer = BackendAnswer(text: [UInt8](repeating: 0x78, count: count))
    #expect(AnswersTests.conclude(.manageSieve, .accepted(answer)).hasPrefix(front))
  }

  @Test(
    arguments: [
      (.imap, "* BYE Disconnected for inactivity.\r\n", "* BYE Server shutting down.\r\n"),
      (.pop3, "-ERR Disconnected for inactivity.\r\n", "-ERR [SYS/TEMP] Server shutting down.\r\n"),
      (.manageSieve, "BYE \"Disconnected for inactivity.\"\r\n", "BYE (TRYLATER) \"Server shutting down.\"\r\n"),
    ] as [(MailProtocol, String, String)])
  func farewells(_ mailProtocol: MailProtocol, _ inactivity: String, _ shutdown: String) {
    for (farewell, expected) in [(Farewell.inactivity, inactivity), (.shutdown, shutdown)] {
      var dialogue = ClientDialogue(mailProtocol, ClientTerms(policy: .off))
      var out: [UInt8] = []
      dialogue.farewell(farewell, &out)
      #expect(String(decoding: out, as: UTF8.self) == expected)
    }
  }

  /// The verdict may come while the client is asked: the backend does not wait, or goes.
  @Test(arguments: MailProtocol.allCases) func aVerdictMayComeBeforeTheClientsAnswer(_ mailProtocol: MailProtocol) {
    let early = AnswersTests.conclude(mailProtocol, .refused(.unavailable), challenged: true)
    #expect(early == AnswersTests.conclude(mailProtocol, .refused(.unavailable)))
  }

  /// What a client with the tag `t` hears of a verdict.
  private static func conclude(_ mailProtocol: MailProtocol, _ verdict: Verdict, challenged: Bool = false) -> String {
    let login =
      switch mailProtocol {
      case .imap: "t AUTHENTICATE PLAIN AGFsaWNlAHNlY3JldA==\r\n"
      case .pop3: "AUTH PLAIN AGFsaWNlAHNlY3JldA==\r\n"
      case .manageSieve: "AUTHENTICATE \"PLAIN\" \"AGFsaWNlAHNlY3JldA==\"\r\n"
      }
    var dialogue = ClientDialogue(mailProtocol, ClientTerms(policy: .off))
    var draft = LoginDraft()
    var out: [UInt8] = []
    let step = dialogue.receive(Array(login.utf8).span, &draft, &out)
    #expect(step == ClientStep(login.utf8.count, .authenticate))
    if challenged { dialogue.challenge(Array("x".utf8).span, &out) }
    out = []
    _ = dialogue.conclude(verdict, &out)
    return String(decoding: out, as: UTF8.self)
  }
}

/// A protocol's registered names and numbers.
struct MailProtocolTests {
  @Test(
    arguments: [
      (.imap, 143, 143, 993, "imap"), (.pop3, 110, 110, 995, "pop3"), (.manageSieve, 4190, 4190, 4190, "managesieve"),
    ] as [(MailProtocol, UInt16, UInt16, UInt16, String)])
  func isRegistered(_ mailProtocol: MailProtocol, _ off: UInt16, _ startTLS: UInt16, _ implicit: UInt16, _ alpn: String)
  {
    #expect(mailProtocol.port(.off) == off)
    #expect(mailProtocol.port(.startTLS) == startTLS)
    #expect(mailProtocol.port(.implicit) == implicit)
    #expect(mailProtocol.alpn.description == alpn)
  }
}

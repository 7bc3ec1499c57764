// swift-format-ignore-file: NeverForceUnwrap
// A test that unwraps nil fails, which is what it is for.

import Testing

@testable import Protocols

/// Bytes nobody should send, to every dialogue in every state that chance leads to: one reply or a close, never a trap,
/// never more said than a bound, and never a control character in a line that is said.
struct HostileTests {
  /// Pieces of the protocols' own languages, so that chance gets past the first word.
  static let words: [String] = [
    "a", "b ", " ", "LOGIN ", "AUTHENTICATE ", "PLAIN", "ID ", "(", ")", "\"", "\\", "{", "}", "{5}", "{5+}", "{0}",
    "{99999999999}", "+}", "\r\n", "\n", "\r", "\0", "*", "=", "AGFsaWNlAHNlY3JldA==", "NOOP", "STARTTLS", "CAPABILITY",
    "USER ", "PASS ", "AUTH ", "STLS", "CAPA", "QUIT", "+OK ", "-ERR ", "* OK ", "L OK ", "L NO ", "C OK ", "[", "]",
    "CAPABILITY IMAP4rev1 ", "* BYE", "+ ", "é", "\u{7F}", "OK ", "NO ", "BYE ", "\"SASL\" \"PLAIN XOAUTH2\"\r\n",
    "OK\r\n",
    "S OK \r\n", "+OK\r\n", "I OK x\r\n", "XCLIENT ADDR=", "\"x-session-id\" ", "NIL", "REFERRAL ", "(SASL \"eA==\") ",
    "XOAUTH2 ", "SCRAM-SHA-256 ", "dXNlcj1hbGljZQFhdXRoPUJlYXJlciB0AQE=", "biwsbj1hLHI9Yg==", "\"eA==\"\r\n",
    "eA==\r\n",
    "HTTP/1.1\r\n", ".\r\n", "AUTH=XOAUTH2 ", "SASL-IR ", "SASL XOAUTH2\r\n", "ENABLE ", "\u{16}\u{3}", "LOGOUT",
  ]

  /// What leads deeper than chance does.
  static let logins: [MailProtocol: [String]] = [
    .imap: [
      "a LOGIN alice secret\r\n", "a AUTHENTICATE XOAUTH2 dXNlcj1hbGljZQFhdXRoPUJlYXJlciB0AQE=\r\n",
      "a AUTHENTICATE SCRAM-SHA-256 biwsbj1hLHI9Yg==\r\n", "a AUTHENTICATE LOGIN\r\nYQ==\r\n", "a STARTTLS\r\n",
    ],
    .pop3: [
      "USER alice\r\nPASS secret\r\n", "AUTH XOAUTH2 dXNlcj1hbGljZQFhdXRoPUJlYXJlciB0AQE=\r\n",
      "AUTH SCRAM-SHA-256 biwsbj1hLHI9Yg==\r\n", "AUTH LOGIN\r\nYQ==\r\n", "STLS\r\n",
    ],
    .manageSieve: [
      "AUTHENTICATE \"PLAIN\" \"AGFsaWNlAHNlY3JldA==\"\r\n",
      "AUTHENTICATE \"XOAUTH2\" {36+}\r\ndXNlcj1hbGljZQFhdXRoPUJlYXJlciB0AQE=\r\n",
      "AUTHENTICATE \"SCRAM-SHA-256\" \"biwsbj1hLHI9Yg==\"\r\n", "AUTHENTICATE \"LOGIN\"\r\n\"YQ==\"\r\n",
      "STARTTLS\r\n",
    ],
  ]

  static let greetings: [MailProtocol: [String]] = [
    .imap: ["* OK [CAPABILITY IMAP4rev1 ID SASL-IR AUTH=PLAIN AUTH=XOAUTH2 AUTH=SCRAM-SHA-256] x\r\n", "* OK x\r\n"],
    .pop3: ["+OK [XCLIENT] Dovecot\r\n", "+OK x\r\n+OK\r\nSASL PLAIN XOAUTH2 SCRAM-SHA-256\r\n.\r\n"],
    .manageSieve: [
      "\"SASL\" \"PLAIN LOGIN XOAUTH2 SCRAM-SHA-256\"\r\n\"STARTTLS\"\r\n\"XCLIENT\"\r\nOK\r\n",
      "\"SASL\" {5}\r\nPLAIN\r\nOK\r\n",
    ],
  ]

  /// What decides a login, with something odd in it.
  static let decisions: [MailProtocol: [String]] = [
    .imap: [
      "I OK x\r\n", "* CAPABILITY A] B\r\n* OK x\r\nL OK [X] y\r\n", "L NO [A] b]\r\n", "L OK [CAPABILITY x\0] y\r\n",
    ],
    .pop3: ["+OK\r\n", "+OK\r\n-ERR [X\0] \r y\r\n", "+OK [a] b] c\r\n", "+ eA==\r\n"],
    .manageSieve: ["OK\r\n", "NO (X {4}\r\na\r\nb) {3}\r\n\r\n\0\r\n", "\"eA==\"\r\n", "NO ( \"x\" (y)) \"z\"\r\n"],
  ]

  static func bytes(_ random: inout SeededGenerator) -> [UInt8] {
    var out: [UInt8] = []
    for _ in 0..<Int.random(in: 1...60, using: &random) {
      if Int.random(in: 0..<10, using: &random) == 0 {
        out.append(UInt8.random(in: 0...255, using: &random))
      } else {
        out += Array(words.randomElement(using: &random)!.utf8)
      }
    }
    return out
  }

  /// Whether what is said is whole lines, with no control character in them.
  static func isLines(_ said: [UInt8]) -> Bool {
    var rest = said[...]
    while !rest.isEmpty {
      guard let end = rest.firstIndex(of: .carriageReturn), end + 1 < rest.endIndex, rest[end + 1] == .lineFeed,
        !rest[..<end].contains(where: \.isControl)
      else { return false }
      rest = rest[(end + 2)...]
    }
    return true
  }

  private static func verdict(_ random: inout SeededGenerator) -> Verdict {
    let refusals: [LoginRefusal] = [
      .credentials, .unavailable, .misconfigured, .disabled, .limit, .mechanism, .cancelled,
      .backend(BackendAnswer(code: Array("IN-USE".utf8), text: Array("x \"y\"".utf8))),
    ]
    return .refused(refusals.randomElement(using: &random)!)
  }

  /// What a run must have met, so that chance can't quietly stop to lead anywhere.
  private struct Met {
    var upgrades = 0
    var logins = 0
    var responses = 0
    var cancels = 0
    var ends: Set<ClientEnd> = []
  }

  @Test(arguments: MailProtocol.allCases, TLSPolicy.allCases)
  func clients(_ mailProtocol: MailProtocol, _ policy: TLSPolicy) {
    var random = SeededGenerator(seed: 42)
    var met = Met()
    for round in 0..<3_000 {
      let terms = ClientTerms(
        policy: policy, limits: Limits(command: 300), mechanisms: SASLMechanism.allCases,
        peer: round % 3 == 0 ? .trustedProxy : .client)
      var dialogue = ClientDialogue(mailProtocol, terms)
      var draft = LoginDraft()
      var out: [UInt8] = []
      if policy == .implicit {
        dialogue.secured(round % 2 == 0 ? .verified : .none, &out)
      } else {
        dialogue.greet(&out)
      }
      var buffer: [UInt8] = []
      var isOver = false
      for _ in 0..<4 where !isOver {
        if Bool.random(using: &random) {
          buffer += Array(HostileTests.logins[mailProtocol]!.randomElement(using: &random)!.utf8)
        }
        buffer += HostileTests.bytes(&random)
        if Int.random(in: 0..<20, using: &random) == 0 { buffer += Array(repeating: .ascii("x"), count: 301) }
        var turns = 0
        while !isOver, !buffer.isEmpty {
          turns += 1
          #expect(turns < 2_000)
          out = []
          let bytes = buffer
          let step = dialogue.receive(bytes.span, &draft, &out)
          #expect(step.consumed >= 0 && step.consumed <= bytes.count)
          buffer.removeFirst(step.consumed)
          var action = step.action
          switch action {
          case .read:
            #expect(step.consumed == 0)
            #expect(bytes.count <= 300)
          case .proceed, .end: #expect(step.consumed > 0)
          case .upgrade:
            met.upgrades += 1
            dialogue.secured(.none, &out)
            buffer = []
          case .authenticate, .respond, .cancel:
            switch action {
            case .respond: met.responses += 1
            case .cancel: met.cancels += 1
            case .read, .proceed, .upgrade, .authenticate, .end: met.logins += 1
            }
            _ = draft.fault()
            if action != .cancel, Bool.random(using: &random) {
              dialogue.challenge(HostileTests.bytes(&random).span, &out)
              if Bool.random(using: &random) {
                buffer = Array((mailProtocol == .manageSieve ? "\"eA==\"\r\n" : "eA==\r\n").utf8) + buffer
              }
              // A backend does not always wait.
              if Int.random(in: 0..<8, using: &random) == 0 {
                action = dialogue.conclude(HostileTests.verdict(&random), &out)
              }
            } else {
              action = dialogue.conclude(HostileTests.verdict(&random), &out)
            }
          }
          if case .end(let why) = action {
            isOver = true
            met.ends.insert(why)
          }
          #expect(out.count < 4_000)
          #expect(HostileTests.isLines(out), "\(readable(bytes)) → \(readable(out))")
          if step.action == .read { break }
        }
      }
      if !isOver { dialogue.farewell(.inactivity, &out) }
    }
    #expect((met.upgrades > 50) == (policy == .startTLS || policy == .startTLSRequired))
    #expect(met.ends.isSuperset(of: [.tooManyBadCommands, .commandTooLong, .anotherProtocol]), "\(met.ends)")
    #expect(met.logins > 50)
    #expect(met.responses > 20)
    #expect(met.cancels > 20)
  }

  private static let methods: [LoginDraft.Method] = [
    .command, .sasl(.plain), .sasl(.login), .sasl(.xoauth2), .sasl(.oauthBearer), .sasl(.scramSHA256), .sasl(.external),
  ]

  @Test(arguments: MailProtocol.allCases, methods)
  func backends(_ mailProtocol: MailProtocol, _ method: LoginDraft.Method) {
    var random = SeededGenerator(seed: 43)
    var upgrades = 0
    var decisions = 0
    for round in 0..<1_000 {
      var terms = BackendTerms(
        channel: round % 3 == 0 ? .startTLSFirst : .trusted(.plaintextByConfiguration),
        pace: round % 5 == 0 ? .stepwise : .pipelined)
      terms.client.set(.session, "s3ss10n")
      terms.client.set(.address, "192.0.2.1")
      var dialogue = BackendDialogue(mailProtocol, terms)
      var draft = LoginDraft()
      draft.name = Array("alice".utf8)
      draft.password.append(Array("grüße".utf8).span)
      draft.message.append(Array("n,,n=alice,r=x".utf8).span)
      draft.method = method
      var buffer = Array(HostileTests.greetings[mailProtocol]!.randomElement(using: &random)!.utf8)
      var out: [UInt8] = []
      var isOver = false
      var isInClear = terms.channel == .startTLSFirst
      for _ in 0..<4 where !isOver {
        if isInClear, Bool.random(using: &random) {
          buffer += Array((mailProtocol == .imap ? "S OK\r\n" : mailProtocol == .pop3 ? "+OK\r\n" : "OK\r\n").utf8)
        }
        while !isInClear, Bool.random(using: &random) {
          buffer += Array(HostileTests.decisions[mailProtocol]!.randomElement(using: &random)!.utf8)
        }
        buffer += HostileTests.bytes(&random)
        while !isOver, !buffer.isEmpty {
          out = []
          let bytes = buffer
          let step = dialogue.receive(bytes.span, draft, &out)
          #expect(step.consumed >= 0 && step.consumed <= bytes.count)
          buffer.removeFirst(step.consumed)
          if isInClear {
            // Not a word of the client or its login before TLS.
            let word = mailProtocol == .imap ? "S STARTTLS\r\n" : mailProtocol == .pop3 ? "STLS\r\n" : "STARTTLS\r\n"
            #expect(out.isEmpty || out == Array(word.utf8))
          }
          switch step.action {
          case .read: #expect(step.consumed == 0)
          case .proceed: #expect(step.consumed > 0)
          case .upgrade:
            #expect(isInClear)
            upgrades += 1
            isInClear = false
            dialogue.secured(draft, &out)
          case .challenge(let challenge):
            #expect(challenge.count <= Limits.backendLine)
            if Bool.random(using: &random) { dialogue.respond(draft, &out) }
          case .accepted(let answer):
            isOver = true
            decisions += 1
            expectSafe(answer, mailProtocol, .accepted(answer))
          case .refused(let refusal, let answer):
            isOver = true
            decisions += 1
            expectSafe(answer, mailProtocol, .refused(refusal))
          case .failed(_, let answer):
            isOver = true
            expectSafe(answer, mailProtocol, .refused(.unavailable))
          }
          #expect(out.count < 2_000)
          #expect(HostileTests.isLines(out), "\(readable(out))")
          if step.action == .read { break }
        }
      }
    }
    #expect(upgrades > 20)
    // EXTERNAL and OAUTHBEARER are not offered, and POP3's list of mechanisms comes by chance only.
    if mailProtocol != .pop3, method.isPassword || method == .sasl(.xoauth2) { #expect(decisions > 20) }
    if mailProtocol == .pop3, method == .command { #expect(decisions > 20) }
  }

  /// Whatever a backend says, it stays within the lines it is rendered into for the client.
  private func expectSafe(_ answer: BackendAnswer, _ mailProtocol: MailProtocol, _ verdict: Verdict) {
    #expect(!(answer.code + answer.text + answer.capabilities).contains { $0.isControl })
    #expect(HostileTests.isLines(answer.untagged))
    var dialogue = ClientDialogue(mailProtocol, ClientTerms(policy: .off))
    var draft = LoginDraft()
    var out: [UInt8] = []
    var given = Array(HostileTests.logins[mailProtocol]![0].utf8)
    while !given.isEmpty {
      let bytes = given
      given.removeFirst(dialogue.receive(bytes.span, &draft, &out).consumed)
    }
    out = []
    _ = dialogue.conclude(verdict, &out)
    #expect(HostileTests.isLines(out), "\(readable(out))")
    let lines = out.count { $0 == .lineFeed }
    let untagged = answer.untagged.count { $0 == .lineFeed }
    #expect(lines >= 1 && lines <= 3 + untagged)
  }

  /// What comes byte by byte is looked at once: no dialogue begins at the front again.
  @Test(arguments: MailProtocol.allCases)
  func slowBytesAreCheap(_ mailProtocol: MailProtocol) {
    let count = 60_000
    let terms = ClientTerms(policy: .off, limits: Limits(command: 2 * count))
    var dialogue = ClientDialogue(mailProtocol, terms)
    var draft = LoginDraft()
    var out: [UInt8] = []
    let bytes = [UInt8](repeating: .ascii("x"), count: count)
    let clock = ContinuousClock()
    let time = clock.measure {
      for end in 1...count { _ = dialogue.receive(bytes.span.extracting(..<end), &draft, &out) }
    }
    // Linear it is a tenth of a second; quadratic, 1,800 million looks and a minute.
    #expect(time < .seconds(10))
  }
}

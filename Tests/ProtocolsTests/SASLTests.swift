import Testing

@testable import Protocols

private func base64(_ text: String) -> [UInt8] {
  var out: [UInt8] = []
  Base64.encode(Array(text.utf8).span, into: &out)
  return out
}

/// `name password [for identity] [saying message]`.
private func describe(_ draft: borrowing LoginDraft) -> String {
  var text = "\(readable(draft.name)) \(readable(draft.password.span.array))"
  if !draft.authorizationIdentity.isEmpty { text += " for \(readable(draft.authorizationIdentity))" }
  if !draft.message.isEmpty { text += " saying \(readable(draft.message.span.array))" }
  return text
}

struct SASLExchangeTests {
  /// A mechanism's message → what is understood; nil if it is malformed.
  @Test(
    arguments: [
      (.plain, "\0alice\0secret", "alice secret"),
      (.plain, "bob\0alice\0secret", "alice secret for bob"),
      (.plain, "alice\0alice\0secret", "alice secret"),
      (.plain, "\0alice\0", "alice "),
      (.plain, "\0\0", " "),
      // RFC 4616 §2 has no NUL in a password; `fault` refuses it.
      (.plain, "\0alice\0a\0b", "alice a\\x00b"),
      (.plain, "", nil), (.plain, "alice", nil), (.plain, "\0alice", nil),
      (.xoauth2, "user=alice\u{1}auth=Bearer tok\u{1}\u{1}", "alice tok"),
      (.xoauth2, "USER=alice\u{1}AUTH=bearer tok\u{1}\u{1}", "alice tok"),
      (.xoauth2, "user=alice\u{1}host=x\u{1}auth=Bearer tok\u{1}\u{1}", "alice tok"),
      (.xoauth2, "user=\u{1}auth=Bearer tok\u{1}\u{1}", " tok"),
      (.xoauth2, "user=alice\u{1}auth=Bearer tok\u{1}", nil),
      (.xoauth2, "user=alice\u{1}auth=Bearer tok", nil),
      (.xoauth2, "user=alice\u{1}auth=Bearer \u{1}\u{1}", nil),
      (.xoauth2, "user=alice\u{1}auth=Bearer to k\u{1}\u{1}", nil),
      (.xoauth2, "user=alice\u{1}auth=Bearer tok\r\n\u{1}\u{1}", nil),
      (.xoauth2, "user=alice\u{1}auth=Bearer tök\u{1}\u{1}", nil),
      (.xoauth2, "user=alice\u{1}auth=Bearer tok\u{1}\u{1}x", nil),
      (.xoauth2, "user=alice\u{1}\u{1}", nil), (.xoauth2, "user=alice", nil), (.xoauth2, "", nil),
      (.oauthBearer, "n,a=alice,\u{1}auth=Bearer tok\u{1}\u{1}", "alice tok"),
      (.oauthBearer, "y,a=al=2Cice=3D,\u{1}port=1\u{1}auth=Bearer tok\u{1}\u{1}", "al,ice= tok"),
      (.oauthBearer, "n,,\u{1}auth=Bearer tok\u{1}\u{1}", " tok"),
      (.oauthBearer, "p=x,a=alice,\u{1}auth=Bearer tok\u{1}\u{1}", nil),
      (.oauthBearer, "n,a=alice\u{1}auth=Bearer tok\u{1}\u{1}", nil),
      (.oauthBearer, "n,a=alice,x\u{1}auth=Bearer tok\u{1}\u{1}", nil),
      (.oauthBearer, "n,b=alice,\u{1}auth=Bearer tok\u{1}\u{1}", nil),
      (.oauthBearer, "n,a=al=ice,\u{1}auth=Bearer tok\u{1}\u{1}", nil),
      (.oauthBearer, "n,a=al=2", nil), (.oauthBearer, "n", nil), (.oauthBearer, "", nil),
      (.scramSHA256, "n,,n=alice,r=x", "alice  saying n,,n=alice,r=x"),
      (.scramSHA1, "y,a=bob,n=al=2Cice,r=x,ext=1", "al,ice  for bob saying y,a=bob,n=al=2Cice,r=x,ext=1"),
      (.scramSHA1, "n,a=alice,n=alice,r=", "alice  saying n,a=alice,n=alice,r="),
      (.scramSHA256, "n,,n=,r=x", "  saying n,,n=,r=x"),
      (.scramSHA256, "p=tls-exporter,,n=alice,r=x", nil), (.scramSHA256, "n,,m=1,n=alice,r=x", nil),
      (.scramSHA256, "n,,N=alice,r=x", nil), (.scramSHA256, "n,A=bob,n=alice,r=x", nil),
      (.scramSHA256, "n,,n=al=2cice,r=x", nil), (.scramSHA256, "n,,n=alice,R=x", nil), (.scramSHA256, "n,,n=al=2", nil),
      (.scramSHA256, "N,,n=alice,r=x", nil), (.scramSHA256, "n,,n=alice", nil),
      (.scramSHA256, "n,,n=alice,x=1,r=x", nil),
      (.scramSHA256, "n,n=alice,r=x", nil),
      (.scramSHA256, "n,,n=al=ice,r=x", nil), (.scramSHA256, "n,,", nil), (.scramSHA256, "n,a=", nil),
      (.scramSHA256, "", nil),
      (.external, "", " "), (.external, "bob", "  for bob"),
    ] as [(SASLMechanism, String, String?)])
  func reads(_ mechanism: SASLMechanism, _ message: String, _ expected: String?) {
    var exchange = SASLExchange(mechanism)
    var draft = LoginDraft()
    let response = base64(message)
    let outcome = exchange.respond(response.span, draft: &draft)
    guard let expected else {
      #expect(outcome == .malformed)
      return
    }
    #expect(outcome == .complete)
    let understood = describe(draft)
    #expect(understood == expected)
  }

  @Test(arguments: SASLMechanism.allCases) func whatIsNoBase64IsMalformed(_ mechanism: SASLMechanism) {
    for text in ["!", "YQ", "YQ=", "=", "*", "YWxp Y2U="] {
      var exchange = SASLExchange(mechanism)
      var draft = LoginDraft()
      let outcome = exchange.respond(Array(text.utf8).span, draft: &draft)
      #expect(outcome == .malformed, "\(text)")
    }
  }

  /// What an attempt leaves behind, the next one replaces: nothing of the first login may reach the second.
  @Test func aMessageReplacesAllOfTheOneBefore() {
    var draft = LoginDraft()
    var first = SASLExchange(.plain)
    _ = first.respond(base64("bob\0alice\0secret").span, draft: &draft)
    var second = SASLExchange(.xoauth2)
    _ = second.respond(base64("user=carol\u{1}auth=Bearer t\u{1}\u{1}").span, draft: &draft)
    let text = describe(draft)
    #expect(text == "carol t")
  }
}

struct SASLInitiatorTests {
  private static let names = ["alice", "al,ice", "al=ice=2C", "grün@example.com", "a b", "=", ","]

  /// What is said to a backend is what a server reads: name, identity, secret.
  @Test(arguments: [SASLMechanism.plain, .login, .xoauth2, .oauthBearer], names)
  func isReadAsItWasMeant(_ mechanism: SASLMechanism, _ name: String) {
    for identity in mechanism == .plain ? ["", "bob", "b,=b"] : [""] {
      var draft = LoginDraft()
      draft.name = Array(name.utf8)
      draft.authorizationIdentity = Array(identity.utf8)
      draft.password.append(Array("t0k/en==".utf8).span)
      var read = LoginDraft()
      var initiator = SASLInitiator.first(mechanism)
      var exchange = SASLExchange(mechanism)
      var outcome = SASLExchange.Outcome.challenge
      var turns = 0
      while outcome == .challenge, turns < 3 {
        turns += 1
        var said: [UInt8] = []
        let challenge = Array(exchange.challenge.description.utf8)
        let answered = initiator.answer(challenge.span, draft, &said)
        #expect(answered == .said)
        outcome = exchange.respond(said.span, draft: &read)
      }
      #expect(outcome == .complete)
      let (meant, understood) = (describe(draft), describe(read))
      #expect(understood == meant)
    }
  }

  @Test(arguments: [SASLMechanism.scramSHA256, .scramSHA1]) func passesSCRAMAsItIs(_ mechanism: SASLMechanism) {
    var draft = LoginDraft()
    draft.message.append(Array("n,,n=alice,r=x".utf8).span)
    var initiator = SASLInitiator.first(mechanism)
    var said: [UInt8] = []
    initiator.begin(draft, &said)
    #expect(said == base64("n,,n=alice,r=x"))
    for turn in 0..<2 {
      let outcome = initiator.answer(base64("challenge \(turn)").span, draft, &said)
      #expect(outcome == .asksClient(Array("challenge \(turn)".utf8)))
      draft.message.removeAll()
      draft.message.append(Array("answer \(turn)".utf8).span)
      said = []
      initiator.pass(draft, &said)
      #expect(said == base64("answer \(turn)"))
    }
  }

  /// An OAuth failure's challenge is shown once, and what the client says to it goes no further.
  @Test(arguments: [(.xoauth2, ""), (.oauthBearer, "AQ==")] as [(SASLMechanism, String)])
  func answersAFailureItself(_ mechanism: SASLMechanism, _ expected: String) {
    var draft = LoginDraft()
    draft.name = Array("alice".utf8)
    draft.password.append(Array("t".utf8).span)
    draft.message.append(Array("whatever".utf8).span)
    var initiator = SASLInitiator.first(mechanism)
    var said: [UInt8] = []
    initiator.begin(draft, &said)
    let asked = initiator.answer(base64("{}").span, draft, &said)
    #expect(asked == .asksClient(Array("{}".utf8)))
    // While the client is asked, the backend may not go on.
    var impatient = initiator
    let again = impatient.answer(base64("{}").span, draft, &said)
    #expect(again == .unexpected)
    said = []
    initiator.pass(draft, &said)
    #expect(said == Array(expected.utf8))
    let more = initiator.answer(base64("{}").span, draft, &said)
    #expect(more == .unexpected)
  }

  @Test(arguments: [SASLMechanism.plain, .external]) func oneMessageIsAll(_ mechanism: SASLMechanism) {
    var draft = LoginDraft()
    draft.name = Array("alice".utf8)
    var initiator = SASLInitiator.first(mechanism)
    var said: [UInt8] = []
    initiator.begin(draft, &said)
    let before = said
    let outcome = initiator.answer(Array("".utf8).span, draft, &said)
    #expect(outcome == .unexpected)
    #expect(said == before)
  }

  @Test func aChallengeThatIsNoneIsUnexpected() {
    var initiator = SASLInitiator.judged(.scramSHA256, round: 0)
    let draft = LoginDraft()
    var said: [UInt8] = []
    let outcome = initiator.answer(Array("!".utf8).span, draft, &said)
    #expect(outcome == .unexpected)
    #expect(said.isEmpty)
  }

  /// A backend and a client that go on asking and answering once ended the process: each round was a call deeper.
  @Test func aThirdChallengeIsUnexpected() {
    var draft = LoginDraft()
    draft.message.append(Array("r=x".utf8).span)
    var initiator = SASLInitiator.first(.scramSHA256)
    var said: [UInt8] = []
    initiator.begin(draft, &said)
    for _ in 1...2 {
      let outcome = initiator.answer(Array("cj14".utf8).span, draft, &said)
      #expect(outcome == .asksClient(Array("r=x".utf8)))
      initiator.pass(draft, &said)
    }
    let outcome = initiator.answer(Array("cj14".utf8).span, draft, &said)
    #expect(outcome == .unexpected)
  }
}

struct SASLMechanismTests {
  @Test(arguments: SASLMechanism.allCases) func isKnownByItsName(_ mechanism: SASLMechanism) {
    for name in [mechanism.rawValue, mechanism.rawValue.lowercased()] {
      let found = SASLMechanism(Array(name.utf8).span)
      #expect(found == mechanism)
    }
    #expect(mechanism.name.description == mechanism.rawValue)
  }

  @Test(arguments: ["", "PLAI", "PLAINS", "CRAM-MD5", "SCRAM-SHA-256-PLUS", "GSSAPI"])
  func othersAreNot(_ name: String) {
    let found = SASLMechanism(Array(name.utf8).span)
    #expect(found == nil)
  }

  /// What a backend offers, how the client gave its credentials → the mechanism; nil if none carries them.
  @Test(
    arguments: [
      ("PLAIN LOGIN", .command, false, .plain), ("LOGIN", .command, false, .login), ("", .command, false, nil),
      ("LOGIN", .command, true, nil), ("PLAIN LOGIN", .sasl(.login), false, .login),
      ("PLAIN", .sasl(.login), false, .plain),
      ("PLAIN LOGIN", .sasl(.login), true, .plain), ("LOGIN XOAUTH2", .sasl(.plain), false, .login),
      ("plain", .sasl(.plain), true, .plain), ("XOAUTH2", .sasl(.plain), false, nil),
      ("PLAIN XOAUTH2 OAUTHBEARER", .sasl(.oauthBearer), false, .oauthBearer),
      ("PLAIN XOAUTH2", .sasl(.oauthBearer), false, .xoauth2), ("OAUTHBEARER", .sasl(.xoauth2), false, .oauthBearer),
      ("PLAIN LOGIN", .sasl(.xoauth2), false, nil),
      ("SCRAM-SHA-1", .sasl(.scramSHA256), false, nil), ("SCRAM-SHA-256", .sasl(.scramSHA1), false, nil),
      ("PLAIN SCRAM-SHA-1 SCRAM-SHA-256", .sasl(.scramSHA1), true, .scramSHA1),
      ("SCRAM-SHA-256-PLUS", .sasl(.scramSHA256), false, nil),
      ("PLAIN EXTERNAL", .sasl(.external), true, .external), ("PLAIN", .sasl(.external), false, nil),
      ("  PLAIN  ", .command, false, .plain),
    ] as [(String, LoginDraft.Method, Bool, SASLMechanism?)])
  func isChosen(_ offered: String, _ method: LoginDraft.Method, _ hasIdentity: Bool, _ expected: SASLMechanism?) {
    var mechanisms = SASLMechanisms()
    mechanisms.insert(names: Array(offered.utf8).span)
    let choice = mechanisms.choice(for: method, hasAuthorizationIdentity: hasIdentity)
    #expect(choice == expected)
  }
}

struct LoginDraftOfMastersTests {
  @Test func aMasterUsersSecretReplacesTheClients() {
    var draft = LoginDraft()
    draft.name = Array("alice".utf8)
    draft.method = .sasl(.scramSHA256)
    draft.password.append(Array("hers".utf8).span)
    draft.message.append(Array("n,,n=alice,r=x".utf8).span)
    draft.becomeMaster(Array("master".utf8), Array("his".utf8).span, separator: [])
    let (text, method, user) = (describe(draft), draft.method, draft.user)
    #expect(text == "master his for alice")
    #expect(method == .sasl(.plain))
    #expect(user == Array("alice".utf8))
  }

  @Test func withASeparatorTheNamesAreOne() {
    var draft = LoginDraft()
    draft.name = Array("carol".utf8)
    draft.authorizationIdentity = Array("alice".utf8)
    draft.becomeMaster(Array("master".utf8), Array("his".utf8).span, separator: Array("*".utf8))
    let text = describe(draft)
    #expect(text == "alice*master his")
  }

  @Test func tlsForgetsAllButAProxysWord() {
    var draft = LoginDraft()
    draft.name = Array("alice".utf8)
    draft.password.append(Array("x".utf8).span)
    draft.message.append(Array("x".utf8).span)
    draft.identification = Array("\"name\" \"x\"".utf8)
    draft.facts.set(.address, "192.0.2.1")
    draft.forgetPlaintext()
    let (text, identification, facts) = (describe(draft), draft.identification, readable(draft.facts))
    #expect(text == " ")
    #expect(identification.isEmpty)
    #expect(facts == "address=192.0.2.1")
  }

  @Test(arguments: [("eA==", "x"), ("", ""), ("*", nil), ("!", nil), ("eA=", nil)] as [(String, String?)])
  func takesAnswers(_ text: String, _ expected: String?) {
    var draft = LoginDraft()
    draft.message.append(Array("old".utf8).span)
    let isAnswer = draft.takeAnswer(Array(text.utf8).span)
    let message = String(decoding: draft.message.span.array, as: UTF8.self)
    #expect(isAnswer == (expected != nil))
    #expect(message == expected ?? "")
  }
}

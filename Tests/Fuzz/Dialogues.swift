/// A libFuzzer target for each dialogue: imap-client, imap-backend, pop3-client,
/// pop3-backend, managesieve-client, managesieve-backend, and imap-probe and its like; and proxy-header.
///
/// The bytes are played whole and cut in two; nothing may trap, whatever is said must stay within bounds and within its
/// lines, nothing of the login may be said before TLS where that is demanded, and the cut must make no difference. The
/// first three bytes of the input choose the cut, the terms, and what the driver tells.

import Glibc

@testable import Protocols

/// Plays an input to a dialogue or a reader of headers.
func fuzzDialogue(_ target: DialogueTarget, _ input: [UInt8]) {
  guard input.count >= 3 else { return }
  let bytes = Array(input.dropFirst(3))
  let cut = bytes.isEmpty ? 0 : Int(input[0]) * bytes.count / 256
  let pieces = [Array(bytes[..<cut]), Array(bytes[cut...])]
  let choices = Choices(terms: input[1], told: input[2])
  switch target {
  case .client(let mailProtocol):
    expect(playClient(mailProtocol, choices, [bytes]) == playClient(mailProtocol, choices, pieces), "the cut shows")
  case .backend(let mailProtocol):
    expect(playBackend(mailProtocol, choices, [bytes]) == playBackend(mailProtocol, choices, pieces), "the cut shows")
  case .probe(let mailProtocol):
    expect(playProbe(mailProtocol, choices, [bytes]) == playProbe(mailProtocol, choices, pieces), "the cut shows")
  case .proxyHeader: readHeader(bytes, cut)
  }
}

enum DialogueTarget {
  case client(MailProtocol)
  case backend(MailProtocol)
  case probe(MailProtocol)
  case proxyHeader

  /// The target of that name; nil if there is none.
  init?(_ name: String) {
    let words = name.split(separator: "-").map(String.init)
    guard words.count == 2 else { return nil }
    if name == "proxy-header" {
      self = .proxyHeader
    } else if let mailProtocol = MailProtocol(rawValue: words[0]) {
      switch words[1] {
      case "client": self = .client(mailProtocol)
      case "backend": self = .backend(mailProtocol)
      case "probe": self = .probe(mailProtocol)
      default: return nil
      }
    } else {
      return nil
    }
  }
}

/// What the input decides besides the bytes.
private struct Choices {
  let terms: UInt8
  /// One bit for each thing told, over and over.
  let told: UInt8

  func bit(_ index: Int) -> Bool { terms >> (index & 7) & 1 == 1 }
  func tells(_ turn: Int) -> Bool { told >> (turn & 7) & 1 == 1 }
}

/// Whether what is said is whole lines, with no control character in them.
private func isLines(_ said: ArraySlice<UInt8>) -> Bool {
  var isAfterReturn = false
  for byte in said {
    if isAfterReturn {
      guard byte == .lineFeed else { return false }
      isAfterReturn = false
    } else if byte == .carriageReturn {
      isAfterReturn = true
    } else if byte.isControl {
      return false
    }
  }
  return !isAfterReturn && (said.isEmpty || said.last == .lineFeed)
}

/// What a dialogue said and decided; bytes of one reply may be cut anywhere, so they are joined.
private struct Played: Equatable {
  var said: [UInt8] = []
  var actions: [String] = []

  mutating func act(_ action: String) { actions.append("\(said.count) \(action)") }
}

// MARK: Clients

private func playClient(_ mailProtocol: MailProtocol, _ choices: Choices, _ pieces: [[UInt8]]) -> Played {
  var terms = ClientTerms(policy: TLSPolicy.allCases[Int(choices.terms & 3)], limits: Limits(command: 1_000))
  if choices.bit(2) { terms.mechanisms = SASLMechanism.allCases }
  if choices.bit(3) { terms.peer = .trustedProxy }
  if choices.bit(4) { terms.capabilities = Array("IMAP4rev1 LITERAL-".utf8) }
  let certificate = choices.bit(5) ? ClientCertificate.verified : .none
  var dialogue = ClientDialogue(mailProtocol, terms)
  var draft = LoginDraft()
  var played = Played()
  if terms.policy == .implicit { dialogue.secured(certificate, &played.said) } else { dialogue.greet(&played.said) }
  var buffer: [UInt8] = []
  var turn = 0
  for piece in pieces {
    buffer += piece
    while !buffer.isEmpty {
      let before = played.said.count
      let given = buffer
      let step = dialogue.receive(given.span, &draft, &played.said)
      expect(step.consumed >= 0 && step.consumed <= given.count, "consumed")
      buffer.removeFirst(step.consumed)
      var action = step.action
      switch action {
      case .read: expect(step.consumed == 0 && given.count <= 1_000, "a command without bound")
      case .proceed: expect(step.consumed > 0, "no progress")
      case .upgrade:
        played.act("upgrade")
        dialogue.secured(certificate, &played.said)
      case .authenticate:
        played.act("authenticate \(describe(draft))")
        action = tell(&dialogue, choices, &turn, &played)
      case .respond:
        played.act("respond \(draft.message.span.array)")
        action = tell(&dialogue, choices, &turn, &played)
      case .cancel:
        played.act("cancel")
        action = dialogue.conclude(.refused(.cancelled), &played.said)
      case .end: break
      }
      expect(played.said.count - before < 4_000, "a reply without bound")
      expect(isLines(played.said[before...]), "a reply that is no line")
      if case .end(let why) = action {
        played.act("end \(why)")
        return played
      }
      if step.action == .read { break }
    }
  }
  return played
}

private func describe(_ draft: borrowing LoginDraft) -> String {
  expect(draft.identification.count <= 1_024, "an identification without bound")
  expect(!draft.identification.contains { $0.isControl || $0 >= 0x80 }, "an identification that is no line")
  let login = "\(draft.method) \(draft.name) \(draft.authorizationIdentity) \(draft.password.span.array)"
  return "\(login) \(draft.identification) \(draft.facts) \(String(describing: draft.fault()))"
}

/// The driver's word: a challenge of the backend's, or a verdict.
private func tell(
  _ dialogue: inout ClientDialogue, _ choices: Choices, _ turn: inout Int, _ played: inout Played
) -> ClientAction {
  turn += 1
  if choices.tells(turn) {
    dialogue.challenge(Array("challenge".utf8).span, &played.said)
    // A backend does not always wait.
    guard choices.bit(6), choices.tells(turn + 1) else { return .proceed }
  }
  return dialogue.conclude(.refused(choices.bit(7) ? .credentials : .unavailable), &played.said)
}

// MARK: Backends

private let methods: [LoginDraft.Method] = [
  .command, .sasl(.plain), .sasl(.login), .sasl(.xoauth2), .sasl(.oauthBearer), .sasl(.scramSHA256), .sasl(.external),
  .command,
]

/// Before TLS, where that is demanded, nothing is said but the wish for it.
private func expectNoMoreThanSTARTTLS(_ said: ArraySlice<UInt8>) {
  let asked = ["S STARTTLS\r\n", "STLS\r\n", "STARTTLS\r\n"].map { Array($0.utf8) }
  expect(said.isEmpty || asked.contains(Array(said)), "said in clear")
}

private func playBackend(_ mailProtocol: MailProtocol, _ choices: Choices, _ pieces: [[UInt8]]) -> Played {
  var terms = BackendTerms(channel: choices.bit(3) ? .startTLSFirst : .trusted(.encrypted))
  if choices.bit(4) { terms.pace = .stepwise }
  if choices.bit(5) {
    terms.client.set(.session, "s3ss10n")
    terms.client.set(.address, "192.0.2.1")
  }
  var draft = LoginDraft()
  draft.method = methods[Int(choices.terms & 7)]
  draft.name = Array((choices.bit(6) ? "grün" : "alice").utf8)
  draft.password.append(Array((choices.bit(7) ? String(repeating: "t", count: 1_000) : "grüße").utf8).span)
  draft.message.append(Array("n,,n=alice,r=x".utf8).span)
  if choices.terms & 7 == 7 { draft.authorizationIdentity = Array("bob".utf8) }
  var dialogue = BackendDialogue(mailProtocol, terms)
  var played = Played()
  var buffer: [UInt8] = []
  var isInClear = terms.channel == .startTLSFirst
  var turn = 0
  for piece in pieces {
    buffer += piece
    while !buffer.isEmpty {
      let before = played.said.count
      let given = buffer
      let step = dialogue.receive(given.span, draft, &played.said)
      expect(step.consumed >= 0 && step.consumed <= given.count, "consumed")
      buffer.removeFirst(step.consumed)
      if isInClear { expectNoMoreThanSTARTTLS(played.said[before...]) }
      switch step.action {
      case .read: expect(step.consumed == 0 && given.count <= Limits.backendLine, "a line without bound")
      case .proceed: expect(step.consumed > 0, "no progress")
      case .upgrade:
        expect(isInClear, "TLS twice")
        isInClear = false
        played.act("upgrade")
        dialogue.secured(draft, &played.said)
      case .challenge(let challenge):
        played.act("challenge \(challenge)")
        turn += 1
        // Without an answer the backend may go on all the same.
        if choices.tells(turn) { dialogue.respond(draft, &played.said) }
      case .accepted(let answer), .refused(_, let answer):
        expect(!(answer.code + answer.text + answer.capabilities).contains { $0.isControl }, "a line end in an answer")
        expect(answer.untagged.count <= Limits.backendUntagged * 2, "an answer without bound")
        expect(isLines(answer.untagged[...]), "an untagged line that is none")
        played.act("\(step.action) \(dialogue.isDistrusted)")
        return played
      // What is quoted of a fault depends on how much of a line that is too long was there.
      case .failed(let fault, let answer):
        expect(!answer.text.contains { $0.isControl }, "a line end in a fault")
        played.act("failed \(fault)")
        return played
      }
      expect(played.said.count - before < 4_000, "a command without bound")
      expect(isLines(played.said[before...]), "a command that is no line")
      if step.action == .read { break }
    }
  }
  return played
}

// MARK: Probes

private func playProbe(_ mailProtocol: MailProtocol, _ choices: Choices, _ pieces: [[UInt8]]) -> Played {
  var terms = BackendTerms(channel: choices.bit(3) ? .startTLSFirst : .trusted(.encrypted))
  if choices.bit(4) { terms.pace = .stepwise }
  var draft = LoginDraft()
  draft.name = Array((choices.bit(6) ? "grün" : "probe").utf8)
  draft.password.append(Array("grüße".utf8).span)
  var dialogue = ProbeDialogue(mailProtocol, terms, choices.bit(5) ? .login : .greeting)
  var played = Played()
  var buffer: [UInt8] = []
  var isInClear = terms.channel == .startTLSFirst
  for piece in pieces {
    buffer += piece
    while !buffer.isEmpty {
      let before = played.said.count
      let given = buffer
      let step = dialogue.receive(given.span, draft, &played.said)
      expect(step.consumed >= 0 && step.consumed <= given.count, "consumed")
      buffer.removeFirst(step.consumed)
      if isInClear { expectNoMoreThanSTARTTLS(played.said[before...]) }
      switch step.action {
      case .read: expect(step.consumed == 0 && given.count <= Limits.backendLine, "a line without bound")
      case .proceed: expect(step.consumed > 0, "no progress")
      case .upgrade:
        expect(isInClear, "TLS twice")
        isInClear = false
        played.act("upgrade")
        dialogue.secured(draft, &played.said)
      case .done:
        expect(!isInClear, "done without TLS")
        played.act("done")
        return played
      case .failed(let fault, let answer):
        expect(!(answer.code + answer.text).contains { $0.isControl }, "a line end in an answer")
        played.act("\(fault) \(answer)")
        return played
      }
      expect(played.said.count - before < 200, "a command without bound")
      expect(isLines(played.said[before...]), "a command that is no line")
      if step.action == .read { break }
    }
  }
  return played
}

// MARK: Headers

/// A header that is read whole is read the same behind its first part, which is incomplete; and what is read is read
/// again when it is written.
private func readHeader(_ bytes: [UInt8], _ cut: Int) {
  let whole = ProxyHeader.read(bytes.span)
  let part = ProxyHeader.read(bytes.span.extracting(..<cut))
  switch whole {
  case .incomplete: expect(part == .incomplete && bytes.count < 16 + 4_096, "incomplete without bound")
  case .invalid:
    if case .header = part { fatalError("a header that more bytes make invalid") }
  case .header(let header, let consumed):
    expect(consumed > 0 && consumed <= bytes.count, "consumed")
    expect(part == (cut < consumed ? .incomplete : whole), "the cut shows")
    var written: [UInt8] = []
    switch header.ends?.source {
    case .text?: header.appendText(isV6: bytes[9] == UInt8(ascii: "6"), to: &written)
    case .v4?, .v6?, nil: header.appendBinary(to: &written)
    }
    // What is written holds no more than was read.
    expect(ProxyHeader.read(written.span) == .header(header, consumed: written.count), "written and not read")
  }
}

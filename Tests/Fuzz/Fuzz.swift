/// A libFuzzer target for each dialogue, chosen by the environment's PROXYD_FUZZ: imap-client, imap-backend, pop3-client,
/// pop3-backend. Compiled together with the sources of Protocols (see `run`).
///
/// The bytes are played whole and cut in two; nothing may trap, whatever is said must stay within bounds, and the cut must
/// make no difference. The first byte of the input chooses the cut and, for clients, how TLS is used.

import Glibc

/// What libFuzzer calls with every input.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>, _ count: Int) -> CInt {
  let input = Array(UnsafeBufferPointer(start: start, count: count))
  guard let choice = input.first else { return 0 }
  let bytes = Array(input.dropFirst())
  let cut = bytes.isEmpty ? 0 : Int(choice >> 2) * bytes.count / 64
  let pieces = [Array(bytes[..<cut]), Array(bytes[cut...])]
  switch target {
  case .client(let mailProtocol):
    let policy = TLSPolicy.allCases[Int(choice & 3)]
    expect(playClient(mailProtocol, policy, [bytes]) == playClient(mailProtocol, policy, pieces), "the cut shows")
  case .backend(let mailProtocol):
    expect(playBackend(mailProtocol, choice, [bytes]) == playBackend(mailProtocol, choice, pieces), "the cut shows")
  }
  return 0
}

private enum Target {
  case client(MailProtocol)
  case backend(MailProtocol)
}

private let target: Target = {
  let words = getenv("PROXYD_FUZZ").map { String(cString: $0).split(separator: "-") } ?? []
  guard words.count == 2, let mailProtocol = MailProtocol(rawValue: String(words[0])) else {
    fatalError("PROXYD_FUZZ names no dialogue")
  }
  return words[1] == "client" ? .client(mailProtocol) : .backend(mailProtocol)
}()

private func expect(_ condition: Bool, _ what: String) { if !condition { fatalError(what) } }

/// What a dialogue said and decided; bytes of one reply may be cut anywhere, so they are joined.
private struct Played: Equatable {
  var said: [UInt8] = []
  var actions: [String] = []

  mutating func act(_ action: String) { actions.append("\(said.count) \(action)") }
}

private func playClient(_ mailProtocol: MailProtocol, _ policy: TLSPolicy, _ pieces: [[UInt8]]) -> Played {
  var dialogue = ClientDialogue(mailProtocol, policy: policy, limits: Limits(command: 1_000))
  var draft = LoginDraft()
  var played = Played()
  if policy == .implicit { dialogue.secured(&played.said) } else { dialogue.greet(&played.said) }
  var buffer: [UInt8] = []
  for piece in pieces {
    buffer += piece
    while !buffer.isEmpty {
      let before = played.said.count
      let given = buffer
      let step = dialogue.receive(given.span, &draft, &played.said)
      expect(step.consumed >= 0 && step.consumed <= given.count, "consumed")
      expect(played.said.count - before < 2_000, "a reply without bound")
      buffer.removeFirst(step.consumed)
      if step.action == .read {
        expect(step.consumed == 0 && given.count <= 1_000, "a command without bound")
        break
      }
      switch step.action {
      case .read, .proceed: expect(step.consumed > 0, "no progress")
      case .upgrade:
        played.act("upgrade")
        dialogue.secured(&played.said)
      case .authenticate:
        played.act(
          "authenticate \(draft.name) \(draft.authorizationIdentity) \(draft.password.span.array) \(String(describing: draft.fault()))"
        )
        if case .end = dialogue.conclude(.refused(.credentials), &played.said) {
          played.act("end")
          return played
        }
      case .end(let why):
        played.act("end \(why)")
        return played
      }
    }
  }
  return played
}

private func playBackend(_ mailProtocol: MailProtocol, _ choice: UInt8, _ pieces: [[UInt8]]) -> Played {
  var dialogue = BackendDialogue(mailProtocol, trust: .plaintextByConfiguration)
  var draft = LoginDraft()
  draft.name = Array("alice".utf8)
  draft.password.append(Array(choice & 1 == 0 ? "secret".utf8 : "grüße".utf8).span)
  draft.method = choice & 2 == 0 ? .command : .sasl(.plain)
  var played = Played()
  var buffer: [UInt8] = []
  for piece in pieces {
    buffer += piece
    while !buffer.isEmpty {
      let given = buffer
      let step = dialogue.receive(given.span, draft, &played.said)
      expect(step.consumed >= 0 && step.consumed <= given.count, "consumed")
      buffer.removeFirst(step.consumed)
      switch step.action {
      case .read: expect(step.consumed == 0 && given.count <= Limits.backendLine, "a line without bound")
      case .proceed:
        expect(step.consumed > 0, "no progress")
        continue
      case .accepted(let answer), .refused(_, let answer):
        expect(!(answer.code + answer.text).contains { $0.isControl }, "a line end in an answer")
        expect(answer.untagged.count <= Limits.backendUntagged * 2, "an answer without bound")
        played.act("\(step.action)")
        return played
      // What is quoted of a fault depends on how much of a line that is too long was there.
      case .failed(let fault, _):
        played.act("failed \(fault)")
        return played
      }
      break
    }
  }
  return played
}

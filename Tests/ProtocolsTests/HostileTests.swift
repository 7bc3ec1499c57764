// swift-format-ignore-file: NeverForceUnwrap
// A test that unwraps nil fails, which is what it is for.

import Testing

@testable import Protocols

/// Bytes nobody should send, to every dialogue in every state its transcripts lead to: one reply or a close, never a
/// trap, and never more said than a bound.
struct HostileTests {
  /// Pieces of the protocols' own languages, so that chance gets past the first word.
  static let words: [String] = [
    "a", "b ", " ", "LOGIN ", "AUTHENTICATE ", "PLAIN", "ID ", "(", ")", "\"", "\\", "{", "}", "{5}", "{5+}", "{0}",
    "{99999999999}", "+}", "\r\n", "\n", "\r", "\0", "*", "=", "AGFsaWNlAHNlY3JldA==", "NOOP", "STARTTLS", "CAPABILITY",
    "USER ", "PASS ", "AUTH ", "STLS", "CAPA", "QUIT", "+OK ", "-ERR ", "* OK ", "L OK ", "L NO ", "C OK ", "[", "]",
    "CAPABILITY IMAP4rev1 ", "* BYE", "+ ", "é", "\u{7F}",
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

  @Test(arguments: MailProtocol.allCases, TLSPolicy.allCases)
  func clients(_ mailProtocol: MailProtocol, _ policy: TLSPolicy) {
    var random = SeededGenerator(seed: 42)
    for _ in 0..<3_000 {
      var dialogue = ClientDialogue(mailProtocol, policy: policy, limits: Limits(command: 300))
      var draft = LoginDraft()
      var out: [UInt8] = []
      if policy == .implicit { dialogue.secured(&out) } else { dialogue.greet(&out) }
      var buffer: [UInt8] = []
      var isOver = false
      for _ in 0..<4 where !isOver {
        buffer += HostileTests.bytes(&random)
        var turns = 0
        while !isOver, !buffer.isEmpty {
          turns += 1
          #expect(turns < 2_000)
          out = []
          let bytes = buffer
          let step = dialogue.receive(bytes.span, &draft, &out)
          #expect(step.consumed >= 0 && step.consumed <= bytes.count)
          #expect(out.count < 1_000)
          buffer.removeFirst(step.consumed)
          if step.action == .read {
            #expect(step.consumed == 0)
            #expect(bytes.count <= 300)
            break
          }
          switch step.action {
          case .read, .proceed: #expect(step.consumed > 0)
          case .upgrade:
            dialogue.secured(&out)
            buffer = []
          case .authenticate:
            _ = draft.fault()
            if case .end = dialogue.conclude(.refused(.credentials), &out) { isOver = true }
          case .end: isOver = true
          }
        }
      }
      if !isOver { dialogue.farewell(.inactivity, &out) }
    }
  }

  @Test(arguments: MailProtocol.allCases, [SASLMechanism.plain, nil])
  func backends(_ mailProtocol: MailProtocol, _ mechanism: SASLMechanism?) {
    var random = SeededGenerator(seed: 43)
    for round in 0..<3_000 {
      var dialogue = BackendDialogue(mailProtocol, trust: .plaintextByConfiguration)
      var draft = LoginDraft()
      draft.name = Array("alice".utf8)
      draft.password.append(Array("grüße".utf8).span)
      draft.method = mechanism.map { .sasl($0) } ?? .command
      var buffer = Array((round % 2 == 0 ? "* OK [CAPABILITY IMAP4rev1] x\r\n" : "+OK x\r\n").utf8)
      var out: [UInt8] = []
      var isOver = false
      for _ in 0..<4 where !isOver {
        buffer += HostileTests.bytes(&random)
        while !isOver, !buffer.isEmpty {
          out = []
          let bytes = buffer
          let step = dialogue.receive(bytes.span, draft, &out)
          #expect(step.consumed >= 0 && step.consumed <= bytes.count)
          buffer.removeFirst(step.consumed)
          switch step.action {
          case .read:
            #expect(step.consumed == 0)
          case .proceed:
            #expect(step.consumed > 0)
            continue
          case .accepted(let answer), .refused(_, let answer), .failed(_, let answer):
            isOver = true
            // Whatever the backend says, it stays within the lines it is rendered into.
            let code = answer.code + answer.text
            #expect(!code.contains { $0.isControl })
          }
          break
        }
      }
    }
  }
}

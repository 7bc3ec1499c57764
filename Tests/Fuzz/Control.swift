/// A libFuzzer target for what operators and their programs say and see: the control protocol's requests, texts on a
/// terminal, and traces of dialogues with backends, of which no credential may come out. Chosen by PROXYD_FUZZ.

import FoundationEssentials
import Glibc

@testable import Protocols

/// Plays an input to the target of that name; false if there is none.
func fuzzControl(_ target: String, _ bytes: [UInt8]) -> Bool {
  switch target {
  case "control-request": readRequest(bytes)
  case "shown-text": showText(bytes)
  case "trace-imap-backend": trace(.imap, bytes)
  case "trace-pop3-backend": trace(.pop3, bytes)
  case "trace-managesieve-backend": trace(.manageSieve, bytes)
  default: return false
  }
  return true
}

/// What is read is written and read again alike, and holds nothing that its command does not know.
private func readRequest(_ bytes: [UInt8]) {
  guard let request = try? ControlRequest(bytes) else { return }
  let known = request.command.arguments
  var arguments: [String: ControlValue] = ["command": .text(request.command.rawValue)]
  for (name, value) in request.words {
    guard let argument = known.first(where: { $0.name == name }) else { fatalError("an argument that is not known") }
    let entries = request.entries(name)
    if let text = request.text(name) {
      arguments[name] = .text(text)
    } else if let number = request.number(name) {
      arguments[name] = .number(number)
    } else {
      expect(value == String(entries.count), "entries are counted otherwise")
      arguments[name] = .entries(entries)
    }
    expect(arguments[name].map { argument.kind.takes($0) } == true, "an argument of another kind")
  }
  for argument in known where argument.isRequired { expect(request.has(argument.name), "a missing argument") }
  guard let line = try? JSONEncoder().encode(arguments) else { fatalError("a request that can't be written") }
  expect((try? ControlRequest(Array(line))) == request, "written and read otherwise")
}

/// Nothing that is shown moves a cursor, and it is as wide as it is said to be.
private func showText(_ bytes: [UInt8]) {
  let text = String(decoding: bytes, as: UTF8.self)
  let shown = ShownText(text)
  for scalar in shown.text.unicodeScalars {
    switch scalar.properties.generalCategory {
    case .control, .format, .lineSeparator, .paragraphSeparator: fatalError("a control character is shown")
    default: break
    }
  }
  expect(ShownText(shown.text) == shown, "shown twice, and otherwise")
  for columns in [0, 1, 2, 7, 80] {
    let cut = shown.cut(to: columns)
    expect(cut.width <= columns && ShownText(cut.text).width == cut.width, "wider than it may be")
    expect(ShownText(shown.fit(columns)).width == columns, "not as wide as it should be")
  }
  expect(TopKey.read(bytes).count <= bytes.count, "more keys than bytes")
}

private let secrets = ["Tr0ub4dor&3-Wort", "Kürzel-grüßt-Öl"]

private let methods: [LoginDraft.Method] = [
  .command, .sasl(.plain), .sasl(.login), .sasl(.xoauth2), .sasl(.oauthBearer), .sasl(.scramSHA256), .command, .command,
]

/// A dialogue with a backend that says these bytes, and the secret wherever there is a NUL.
private func trace(_ mailProtocol: MailProtocol, _ input: [UInt8]) {
  guard input.count >= 3 else { return }
  let secret = secrets[Int(input[0] & 1)]
  let plain = base64("\0alice\0\(secret)")
  let forms = [secret, base64(secret), plain, base64("user=alice\u{1}auth=Bearer \(secret)\u{1}\u{1}")]
  var said: [UInt8] = []
  for (index, byte) in input.dropFirst(3).enumerated() {
    if byte != 0 { said.append(byte) } else { said += Array(forms[(index + Int(input[1])) % forms.count].utf8) }
  }
  var draft = LoginDraft()
  draft.method = methods[Int(input[2] & 7)]
  draft.name = Array("alice".utf8)
  draft.password.append(Array(secret.utf8).span)
  draft.message.append(Array("n,,n=alice,r=x".utf8).span)
  // The client's own words may hold it too.
  if input[0] & 2 != 0 { draft.identification = Array("\"name\" \"\(secret)\"".utf8) }
  var terms = BackendTerms(channel: input[0] & 4 != 0 ? .startTLSFirst : .trusted(.encrypted))
  if input[0] & 8 != 0 { terms.pace = .stepwise }
  if input[0] & 16 != 0 { terms.client.set(.session, "s3ss10n") }
  var dialogue = BackendDialogue(mailProtocol, terms)
  let traced = TracedDialogue(mailProtocol)
  var lines: [String] = []
  var buffer = said
  dialogues: while !buffer.isEmpty {
    var out: [UInt8] = []
    let given = buffer
    let step = dialogue.receive(given.span, draft, &out)
    traced.hear(given.span.extracting(..<step.consumed))
    buffer.removeFirst(step.consumed)
    lines += traced.takeHeard(draft) + traced.show(said: out.span, draft)
    out.removeAll()
    switch step.action {
    case .read, .accepted, .refused, .failed: break dialogues
    case .proceed: break
    case .upgrade:
      dialogue.secured(draft, &out)
      lines += traced.show(said: out.span, draft)
    case .challenge:
      dialogue.respond(draft, &out)
      lines += traced.show(said: out.span, draft)
    }
  }
  for line in lines {
    let line = line.lowercased()
    for form in forms { expect(!line.contains(form.lowercased()), "a secret is shown: \(line)") }
    expect(!line.utf8.contains { $0.isControl }, "a control character is shown")
  }
}

private func base64(_ text: String) -> String { Data(text.utf8).base64EncodedString() }

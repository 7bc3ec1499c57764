/// Reads a transcript file and plays it against a dialogue.
///
/// A file is one scenario. Its first line says whose: `imap client starttls`, `pop3 backend`. Then, in order:
/// - `C: text` and `S: text`: a line of the client's or the server's, with CRLF. One of them is what the dialogue is
///   given, the other what it must say; which is which follows from whose dialogue it is.
/// - `C- text`, `S- text`: bytes without the CRLF, with the escapes \r \n \0 \\.
/// - `! action`: what the dialogue must decide.
/// - `< word …`: what the driver tells it. `< draft …` fills the draft before a backend dialogue begins.
/// - `# remark`.

import Testing

@testable import Protocols

struct Transcript {
  let name: String
  let mailProtocol: MailProtocol
  let role: Role
  let steps: [Step]

  enum Role: Equatable {
    case client(TLSPolicy)
    case backend
  }

  enum Step: Equatable {
    case given([UInt8])
    case said(String)
    case action(String)
    case told(String)
  }

  init(name: String, text: String) throws {
    self.name = name
    var lines = text.split(separator: "\n", omittingEmptySubsequences: false)
    let head = lines.removeFirst().split(separator: " ").map(String.init)
    mailProtocol = try #require(MailProtocol(rawValue: head[0]))
    role = head[1] == "client" ? .client(try #require(TLSPolicy(rawValue: head[2]))) : .backend
    let giver: Character = role == .backend ? "S" : "C"
    var steps: [Step] = []
    for line in lines where !line.isEmpty && !line.hasPrefix("#") {
      let rest = line.dropFirst(2).drop { $0 == " " && line.dropFirst(2).first == $0 && line.hasPrefix("!") }
      let content = String(line.count > 3 ? line.dropFirst(3) : "")
      switch line.prefix(2) {
      case "C:", "S:":
        let isGiven = line.first == giver
        steps.append(isGiven ? .given(Transcript.unescape(content) + [13, 10]) : .said(content))
      case "C-", "S-":
        let isGiven = line.first == giver
        let bytes = Transcript.unescape(content)
        steps.append(isGiven ? .given(bytes) : .said(String(decoding: bytes, as: UTF8.self)))
      case "! ": steps.append(.action(String(rest)))
      case "< ": steps.append(.told(String(line.dropFirst(2))))
      default: Issue.record("\(name): not a transcript's line: \(line)")
      }
    }
    self.steps = steps
  }

  static func unescape(_ text: String) -> [UInt8] {
    var out: [UInt8] = []
    var bytes = Array(text.utf8)[...]
    while let byte = bytes.popFirst() {
      guard byte == UInt8(ascii: "\\"), let next = bytes.popFirst() else {
        out.append(byte)
        continue
      }
      switch next {
      case UInt8(ascii: "r"): out.append(13)
      case UInt8(ascii: "n"): out.append(10)
      case UInt8(ascii: "0"): out.append(0)
      default: out.append(next)
      }
    }
    return out
  }

  /// What is expected: everything the dialogue says, line by line, and decides, in order.
  var expected: [String] {
    steps.compactMap { step in
      switch step {
      case .said(let line): ": " + line
      case .action(let action): "! " + action
      case .given, .told: nil
      }
    }
  }

  /// The bytes given, in runs between two things told: within a run they may be cut anywhere.
  var runs: [(given: [UInt8], told: String?)] {
    var runs: [(given: [UInt8], told: String?)] = []
    var given: [UInt8] = []
    for step in steps {
      switch step {
      case .given(let bytes): given += bytes
      case .told(let word):
        runs.append((given, word))
        given = []
      case .said, .action: break
      }
    }
    runs.append((given, nil))
    return runs
  }

  /// Plays it with each run cut by `cut`, and returns what was said and decided.
  func play(_ cut: ([UInt8]) -> [[UInt8]]) -> [String] {
    switch role {
    case .client(let policy):
      var player = ClientPlayer(ClientDialogue(mailProtocol, policy: policy, limits: Limits()))
      if policy != .implicit { player.greet() }
      for run in runs { player.play(cut(run.given), told: run.told) }
      return player.log.lines
    case .backend:
      var player = BackendPlayer(BackendDialogue(mailProtocol, trust: .plaintextByConfiguration))
      for run in runs { player.play(cut(run.given), told: run.told) }
      return player.log.lines
    }
  }
}

/// What a dialogue said and decided, in order.
struct PlayLog {
  private var events: [String] = []
  private var said: [UInt8] = []

  mutating func say(_ bytes: inout [UInt8]) {
    said += bytes
    bytes = []
  }

  mutating func act(_ action: String) {
    flush()
    events.append("! " + action)
  }

  private mutating func flush() {
    guard !said.isEmpty else { return }
    var text = String(decoding: said, as: UTF8.self)
    if text.hasSuffix("\r\n") { text.removeLast() }
    events += text.replacingOccurrencesOfLineEnds().map { ": " + $0 }
    said = []
  }

  var lines: [String] {
    var copy = self
    copy.flush()
    return copy.events
  }
}

extension String {
  fileprivate func replacingOccurrencesOfLineEnds() -> [String] {
    split(separator: "\r\n", omittingEmptySubsequences: false).map(String.init)
  }
}

/// Plays the driver of a client dialogue.
struct ClientPlayer: ~Copyable {
  private var dialogue: ClientDialogue
  private var draft = LoginDraft()
  private var buffer: [UInt8] = []
  private var waits = false
  private var isUpgrading = false
  private var isOver = false
  var log = PlayLog()

  init(_ dialogue: ClientDialogue) { self.dialogue = dialogue }

  mutating func greet() {
    var out: [UInt8] = []
    dialogue.greet(&out)
    log.say(&out)
  }

  mutating func play(_ pieces: [[UInt8]], told: String?) {
    for piece in pieces {
      buffer += piece
      digest()
    }
    // The driver looks when the answer to STARTTLS is out, whenever the bytes came.
    if isUpgrading, !buffer.isEmpty { log.act("injection") }
    isUpgrading = false
    if let told { tell(told) }
    digest()
  }

  private mutating func digest() {
    var out: [UInt8] = []
    while !waits, !isOver, !buffer.isEmpty {
      let bytes = buffer
      let step = dialogue.receive(bytes.span, &draft, &out)
      buffer.removeFirst(step.consumed)
      log.say(&out)
      switch step.action {
      case .read: return
      case .proceed: #expect(step.consumed > 0)
      case .upgrade:
        log.act("upgrade")
        waits = true
        isUpgrading = true
      case .authenticate:
        log.act("authenticate \(describe())")
        waits = true
      case .end(let why):
        log.act("end \(why.rawValue)")
        isOver = true
      }
    }
  }

  private func describe() -> String {
    let method =
      switch draft.method {
      case .command: "command"
      case .sasl(let mechanism): mechanism.rawValue
      }
    let name = String(decoding: draft.name, as: UTF8.self)
    let password = String(decoding: draft.password.span.array, as: UTF8.self)
    let other =
      draft.authorizationIdentity.isEmpty ? "" : " for " + String(decoding: draft.authorizationIdentity, as: UTF8.self)
    let fault = draft.fault().map { " (\($0.rawValue))" } ?? ""
    return "\(method) \(name) \(password)\(other)\(fault)"
  }

  private mutating func tell(_ text: String) {
    var out: [UInt8] = []
    let words = text.split(separator: " ", maxSplits: 1).map(String.init)
    let rest = words.count > 1 ? words[1] : ""
    waits = false
    switch words[0] {
    case "secured": dialogue.secured(&out)
    case "accepted":
      act(dialogue.conclude(.accepted(Self.answer(rest)), &out), &out)
      waits = true
    case "credentials": act(dialogue.conclude(.refused(.credentials), &out), &out)
    case "unavailable": act(dialogue.conclude(.refused(.unavailable), &out), &out)
    case "misconfigured": act(dialogue.conclude(.refused(.misconfigured), &out), &out)
    case "refused": act(dialogue.conclude(.refused(.backend(Self.answer(rest))), &out), &out)
    case "inactivity":
      dialogue.farewell(.inactivity, &out)
      isOver = true
    case "shutdown":
      dialogue.farewell(.shutdown, &out)
      isOver = true
    default: Issue.record("nothing to tell a client dialogue: \(text)")
    }
    log.say(&out)
  }

  private mutating func act(_ action: ClientAction, _ out: inout [UInt8]) {
    log.say(&out)
    if case .end(let why) = action {
      log.act("end \(why.rawValue)")
      isOver = true
    }
  }

  /// `[CODE words] text`.
  static func answer(_ text: String) -> BackendAnswer {
    guard text.hasPrefix("["), let close = text.range(of: "] ") else { return BackendAnswer(text: Array(text.utf8)) }
    let code = text[text.index(after: text.startIndex)..<close.lowerBound]
    return BackendAnswer(code: Array(code.utf8), text: Array(text[close.upperBound...].utf8))
  }
}

/// Plays the driver of a backend dialogue.
struct BackendPlayer: ~Copyable {
  private var dialogue: BackendDialogue
  private var draft = LoginDraft()
  private var buffer: [UInt8] = []
  private var isOver = false
  var log = PlayLog()

  init(_ dialogue: BackendDialogue) { self.dialogue = dialogue }

  mutating func play(_ pieces: [[UInt8]], told: String?) {
    for piece in pieces {
      buffer += piece
      digest()
    }
    if let told { tell(told) }
  }

  private mutating func digest() {
    var out: [UInt8] = []
    while !isOver, !buffer.isEmpty {
      let bytes = buffer
      let step = dialogue.receive(bytes.span, draft, &out)
      buffer.removeFirst(step.consumed)
      log.say(&out)
      switch step.action {
      case .read: return
      case .proceed: #expect(step.consumed > 0)
      case .accepted(let answer):
        log.act("accepted \(text(answer))")
        isOver = true
      case .refused(let refusal, let answer):
        log.act("refused \(name(refusal)) \(text(answer))")
        isOver = true
      case .failed(let fault, let answer):
        log.act("failed \(fault.rawValue) \(text(answer))")
        isOver = true
      }
    }
  }

  private func name(_ refusal: LoginRefusal) -> String {
    switch refusal {
    case .credentials: "credentials"
    case .backend: "backend"
    case .unavailable: "unavailable"
    case .misconfigured: "misconfigured"
    }
  }

  private func text(_ answer: BackendAnswer) -> String {
    answer.words
      + (answer.untagged.isEmpty ? "" : " after " + String(decoding: answer.untagged.dropLast(2), as: UTF8.self))
  }

  /// `draft command|PLAIN|LOGIN name password [authorization identity]`, with the transcript's escapes and `_` for a
  /// blank.
  private mutating func tell(_ text: String) {
    let words = text.split(separator: " ").map { String($0).replacing("_", with: " ") }
    guard words.count >= 4, words[0] == "draft" else {
      Issue.record("nothing to tell a backend dialogue: \(text)")
      return
    }
    draft.method = SASLMechanism(rawValue: words[1]).map { .sasl($0) } ?? .command
    draft.name = Transcript.unescape(words[2])
    draft.password.append(Transcript.unescape(words[3]).span)
    if words.count > 4 { draft.authorizationIdentity = Transcript.unescape(words[4]) }
  }
}

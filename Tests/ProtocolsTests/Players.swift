/// Plays the drivers of dialogues, for transcripts.

import Testing

@testable import Protocols

/// What a player has in hand: bytes that are not used up, and how far the dialogue came.
struct PlayStage {
  var buffer: [UInt8] = []
  var waits = false
  var isOver = false
  var log = PlayLog()
  private var isUpgrading = false

  /// The dialogue waits for TLS.
  mutating func upgrade() {
    log.act("upgrade")
    waits = true
    isUpgrading = true
  }

  /// The answer to STARTTLS is out: the driver looks now, whenever the bytes came.
  mutating func lookBehindUpgrade() {
    if isUpgrading, !buffer.isEmpty {
      log.act("injection")
      isOver = true
    }
    isUpgrading = false
  }
}

/// Plays a dialogue's driver.
protocol Player: ~Copyable {
  var stage: PlayStage { get set }
  /// Gives the dialogue what there is, until it waits.
  mutating func digest()
  /// Tells the dialogue what a transcript's line says.
  mutating func tell(_ text: String)
}

extension Player where Self: ~Copyable {
  var log: PlayLog { stage.log }

  mutating func play(_ pieces: [[UInt8]], told: String?) {
    for piece in pieces {
      stage.buffer += piece
      digest()
    }
    stage.lookBehindUpgrade()
    if let told {
      if stage.isOver { Issue.record("told when it is over: \(told)") } else { tell(told) }
    }
    digest()
  }
}

/// `{CAPABILITIES} [CODE words] text`, of which only the text is needed.
private func answer(_ text: String) -> BackendAnswer {
  var answer = BackendAnswer()
  var rest = Substring(text)
  if rest.hasPrefix("{"), let close = rest.range(of: "} ") {
    answer.capabilities = Array(rest[rest.index(after: rest.startIndex)..<close.lowerBound].utf8)
    rest = rest[close.upperBound...]
  }
  if rest.hasPrefix("["), let close = rest.range(of: "] ") {
    answer.code = Array(rest[rest.index(after: rest.startIndex)..<close.lowerBound].utf8)
    rest = rest[close.upperBound...]
  }
  answer.text = Array(rest.utf8)
  return answer
}

/// Plays the driver of a client dialogue.
struct ClientPlayer: ~Copyable, Player {
  private var dialogue: ClientDialogue
  private var draft = LoginDraft()
  var stage = PlayStage()

  init(_ dialogue: ClientDialogue) { self.dialogue = dialogue }

  mutating func greet() {
    var out: [UInt8] = []
    dialogue.greet(&out)
    stage.log.say(&out)
  }

  mutating func waitForTLS() { stage.waits = true }

  mutating func digest() {
    var out: [UInt8] = []
    while !stage.waits, !stage.isOver, !stage.buffer.isEmpty {
      let bytes = stage.buffer
      let step = dialogue.receive(bytes.span, &draft, &out)
      stage.buffer.removeFirst(step.consumed)
      stage.log.say(&out)
      switch step.action {
      case .read: return
      case .proceed: #expect(step.consumed > 0)
      case .upgrade:
        stage.upgrade()
      case .authenticate:
        // The driver's part: the certificate says who it is.
        if draft.method == .sasl(.external) { draft.name = Array("certificate".utf8) }
        stage.log.act("authenticate \(describe())")
        stage.waits = true
      case .respond:
        stage.log.act("respond \(readable(draft.message.span.array))")
        stage.waits = true
      case .cancel:
        stage.log.act("cancel")
        stage.waits = true
      case .end(let why):
        stage.log.act("end \(why.rawValue)")
        stage.isOver = true
      }
    }
  }

  private func describe() -> String {
    let method =
      switch draft.method {
      case .command: "command"
      case .sasl(let mechanism): mechanism.rawValue
      }
    var text = "\(method) \(readable(draft.name)) \(readable(draft.password.span.array))"
    if !draft.authorizationIdentity.isEmpty { text += " for " + readable(draft.authorizationIdentity) }
    if !draft.message.isEmpty { text += " saying " + readable(draft.message.span.array) }
    if !draft.identification.isEmpty { text += " by " + readable(draft.identification) }
    if !draft.facts.isEmpty { text += " from " + readable(draft.facts) }
    if let fault = draft.fault() { text += " (\(fault.rawValue))" }
    return text
  }

  mutating func tell(_ text: String) {
    var out: [UInt8] = []
    let words = text.split(separator: " ", maxSplits: 1).map(String.init)
    let rest = words.count > 1 ? words[1] : ""
    stage.waits = false
    switch words[0] {
    case "secured": dialogue.secured(rest == "verified" ? .verified : .none, &out)
    case "challenge": dialogue.challenge(Transcript.unescape(rest).span, &out)
    case "accepted":
      act(dialogue.conclude(.accepted(answer(rest)), &out), &out)
      stage.waits = true
    case "credentials": act(dialogue.conclude(.refused(.credentials), &out), &out)
    case "unavailable": act(dialogue.conclude(.refused(.unavailable), &out), &out)
    case "misconfigured": act(dialogue.conclude(.refused(.misconfigured), &out), &out)
    case "disabled": act(dialogue.conclude(.refused(.disabled), &out), &out)
    case "limit": act(dialogue.conclude(.refused(.limit), &out), &out)
    case "mechanism": act(dialogue.conclude(.refused(.mechanism), &out), &out)
    case "cancelled": act(dialogue.conclude(.refused(.cancelled), &out), &out)
    case "refused": act(dialogue.conclude(.refused(.backend(answer(rest))), &out), &out)
    case "inactivity":
      dialogue.farewell(.inactivity, &out)
      stage.isOver = true
    case "shutdown":
      dialogue.farewell(.shutdown, &out)
      stage.isOver = true
    default: Issue.record("nothing to tell a client dialogue: \(text)")
    }
    stage.log.say(&out)
  }

  private mutating func act(_ action: ClientAction, _ out: inout [UInt8]) {
    stage.log.say(&out)
    if case .end(let why) = action {
      stage.log.act("end \(why.rawValue)")
      stage.isOver = true
    }
  }
}

/// Plays the driver of a backend dialogue.
struct BackendPlayer: ~Copyable, Player {
  private var dialogue: BackendDialogue
  private var draft = LoginDraft()
  var stage = PlayStage()

  init(_ dialogue: BackendDialogue) { self.dialogue = dialogue }

  mutating func digest() {
    var out: [UInt8] = []
    while !stage.waits, !stage.isOver, !stage.buffer.isEmpty {
      let bytes = stage.buffer
      let step = dialogue.receive(bytes.span, draft, &out)
      stage.buffer.removeFirst(step.consumed)
      stage.log.say(&out)
      switch step.action {
      case .read: return
      case .proceed: #expect(step.consumed > 0)
      case .upgrade:
        stage.upgrade()
      case .challenge(let bytes):
        #expect(dialogue.doing == .client)
        stage.log.act("challenge \(readable(bytes))")
        stage.waits = true
      case .accepted(let answer): end("accepted \(text(answer))")
      case .refused(let refusal, let answer): end("refused \(name(refusal)) \(text(answer))")
      case .failed(let fault, let answer): end("failed \(fault.rawValue) \(text(answer))")
      }
    }
  }

  private mutating func end(_ action: String) {
    stage.log.act(action)
    if dialogue.isDistrusted { stage.log.act("distrusted") }
    stage.isOver = true
  }

  private func name(_ refusal: LoginRefusal) -> String {
    switch refusal {
    case .credentials: "credentials"
    case .backend: "backend"
    case .unavailable: "unavailable"
    case .misconfigured: "misconfigured"
    case .disabled: "disabled"
    case .limit: "limit"
    case .mechanism: "mechanism"
    case .cancelled: "cancelled"
    }
  }

  private func text(_ answer: BackendAnswer) -> String {
    var text = answer.words
    if !answer.capabilities.isEmpty { text += " with " + String(decoding: answer.capabilities, as: UTF8.self) }
    if !answer.untagged.isEmpty { text += " after " + String(decoding: answer.untagged.dropLast(2), as: UTF8.self) }
    return text
  }

  /// - `draft command|MECHANISM name password [authorization identity]`, with the transcript's escapes and `_` for a blank.
  /// - `message text`, `identification pairs`: the rest of the draft.
  /// - `secured`: TLS is up. `respond text`: the client answered the challenge.
  mutating func tell(_ text: String) {
    var out: [UInt8] = []
    let parts = text.split(separator: " ", maxSplits: 1).map(String.init)
    let rest = Transcript.unescape(parts.count > 1 ? parts[1] : "")
    switch parts[0] {
    case "draft": Transcript.fill(&draft, text)
    case "message": draft.message.append(rest.span)
    case "identification": draft.identification = rest
    case "secured":
      stage.waits = false
      dialogue.secured(draft, &out)
    case "respond":
      stage.waits = false
      draft.message.removeAll()
      draft.message.append(rest.span)
      dialogue.respond(draft, &out)
    default: Issue.record("nothing to tell a backend dialogue: \(text)")
    }
    stage.log.say(&out)
  }
}

/// Reads a transcript file and plays it against a dialogue.
///
/// A file is one scenario. Its first line says whose, and under which terms (`_` stands for a blank):
/// - `imap client starttls`, then any of `mechanisms=PLAIN,XOAUTH2`, `trusted`, `capabilities=IMAP4rev1_LITERAL-`,
///   `command=200` (the bound on a command), `greeting=Own_words`, `login-ok=Own_words`.
/// - `pop3 backend`, then any of `starttls`, `stepwise`, and the client's facts: `session=abc`, `address=192.0.2.1` …
/// - `imap probe`, then any of `login`, `starttls`, `stepwise`.
///
/// Then, in order:
/// - `C: text` and `S: text`: a line of the client's or the server's, with CRLF. One of them is what the dialogue is
///   given, the other what it must say; which is which follows from whose dialogue it is.
/// - `C- text`, `S- text`: bytes without the CRLF. What is given has the escapes \r \n \0 \xHH \\.
/// - `! action`: what the dialogue must decide.
/// - `< word …`: what the driver tells it (see `tell`). `< draft …`, `< message …` and `< identification …` fill the draft
///   before a backend dialogue begins.
/// - `# remark`.

import Testing

@testable import Protocols

struct Transcript {
  let name: String
  let mailProtocol: MailProtocol
  let role: Role
  let steps: [Step]

  enum Role: Equatable {
    case client(ClientTerms)
    case backend(BackendTerms)
    case probe(BackendTerms, ProbeDialogue.Depth)
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
    let giver: Character
    if head[1] == "client" {
      role = .client(try Transcript.clientTerms(mailProtocol, head[2], head[3...]))
      giver = "C"
    } else if head[1] == "probe" {
      let isLogin = head.contains("login")
      role = .probe(try Transcript.backendTerms(head[2...].filter { $0 != "login" }[...]), isLogin ? .login : .greeting)
      giver = "S"
    } else {
      role = .backend(try Transcript.backendTerms(head[2...]))
      giver = "S"
    }
    var steps: [Step] = []
    for line in lines where !line.isEmpty && !line.hasPrefix("#") {
      let content = String(line.count > 3 ? line.dropFirst(3) : "")
      let isGiven = line.first == giver
      switch line.prefix(2) {
      case "C:", "S:": steps.append(isGiven ? .given(Transcript.unescape(content) + [13, 10]) : .said(content))
      case "C-", "S-":
        let bytes = Transcript.unescape(content)
        steps.append(isGiven ? .given(bytes) : .said(String(decoding: bytes, as: UTF8.self)))
      case "! ": steps.append(.action(String(line.dropFirst(2))))
      case "< ": steps.append(.told(String(line.dropFirst(2))))
      default: Issue.record("\(name): not a transcript's line: \(line)")
      }
    }
    self.steps = steps
  }

  private static func clientTerms(
    _ mailProtocol: MailProtocol, _ policy: String, _ options: ArraySlice<String>
  ) throws -> ClientTerms {
    var terms = ClientTerms(policy: try #require(TLSPolicy(rawValue: policy)))
    func words(_ text: String, _ place: OwnWords.Place) throws -> OwnWords {
      try OwnWords.read(text, place, mailProtocol).get()
    }
    for word in options {
      let (key, value) = try pair(word)
      switch key {
      case "mechanisms": terms.mechanisms = try value.split(separator: ",").map { try #require(mechanism(String($0))) }
      case "trusted": terms.peer = .trustedProxy
      case "capabilities": terms.capabilities = Array(value.utf8)
      case "greeting": terms.greeting = try words(value, .greeting)
      case "login-ok": terms.loginOK = try words(value, .loginOK)
      case "command": terms.limits.command = try #require(Int(value))
      default: Issue.record("no term of a client: \(word)")
      }
    }
    return terms
  }

  private static func backendTerms(_ words: ArraySlice<String>) throws -> BackendTerms {
    var terms = BackendTerms(channel: .trusted(.plaintextByConfiguration))
    for word in words {
      let (key, value) = try pair(word)
      switch key {
      case "starttls": terms.channel = .startTLSFirst
      case "stepwise": terms.pace = .stepwise
      default:
        let fact = try #require(ClientFact.allCases.first { "\($0)" == key }, "no term of a backend: \(word)")
        terms.client.set(fact, value)
      }
    }
    return terms
  }

  private static func pair(_ word: String) throws -> (String, String) {
    let parts = word.split(separator: "=", maxSplits: 1).map(String.init)
    return (parts[0], parts.count > 1 ? parts[1].replacing("_", with: " ") : "")
  }

  static func mechanism(_ name: String) -> SASLMechanism? { SASLMechanism(rawValue: name) }

  /// Fills a draft: `draft command|MECHANISM name password [authorization identity]`.
  static func fill(_ draft: inout LoginDraft, _ text: String) {
    let words = text.split(separator: " ").map { String($0).replacing("_", with: " ") }
    guard words.count >= 3 else {
      Issue.record("not a draft: \(text)")
      return
    }
    if words[1] != "command" {
      guard let mechanism = Transcript.mechanism(words[1]) else {
        Issue.record("no mechanism: \(text)")
        return
      }
      draft.method = .sasl(mechanism)
    }
    draft.name = Transcript.unescape(words[2])
    if words.count > 3 { draft.password.append(Transcript.unescape(words[3]).span) }
    if words.count > 4 { draft.authorizationIdentity = Transcript.unescape(words[4]) }
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
      case UInt8(ascii: "x"):
        out.append(UInt8(String(decoding: bytes.prefix(2), as: UTF8.self), radix: 16) ?? 0)
        bytes = bytes.dropFirst(2)
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
    case .client(let terms):
      var player = ClientPlayer(ClientDialogue(mailProtocol, terms))
      if terms.policy == .implicit { player.waitForTLS() } else { player.greet() }
      for run in runs { player.play(cut(run.given), told: run.told) }
      return player.log.lines
    case .backend(let terms):
      var player = BackendPlayer(BackendDialogue(mailProtocol, terms))
      for run in runs { player.play(cut(run.given), told: run.told) }
      return player.log.lines
    case .probe(let terms, let depth):
      var player = ProbePlayer(ProbeDialogue(mailProtocol, terms, depth))
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

/// Bytes for people: controls, and bytes that are not UTF-8, as \xHH.
func readable(_ bytes: [UInt8]) -> String {
  var out = ""
  let isText = String(validating: bytes, as: UTF8.self) != nil
  var plain: [UInt8] = []
  for byte in bytes {
    if byte.isControl || (!isText && byte >= 0x80) {
      out += String(decoding: plain, as: UTF8.self)
      plain = []
      out += "\\x" + (byte < 16 ? "0" : "") + String(byte, radix: 16, uppercase: true)
    } else {
      plain.append(byte)
    }
  }
  return out + String(decoding: plain, as: UTF8.self)
}

/// The facts that are known, as `name=value`.
func readable(_ facts: ClientFacts) -> String {
  ClientFact.allCases.filter { !facts[$0].isEmpty }.map { "\($0)=\(readable(facts[$0]))" }.joined(separator: " ")
}

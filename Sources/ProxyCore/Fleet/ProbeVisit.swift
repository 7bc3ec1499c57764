/// Visits a backend in one protocol, from the connection to the goodbye.

internal import Protocols

struct ProbeVisit {
  let mailProtocol: MailProtocol
  let backend: Backend
  /// Who logs in; nil for nobody.
  let login: ProbeCredentials?
  /// When it must be over.
  let deadline: UInt64
  /// When the backend's certificate ends, once it was seen.
  private(set) var certificateEnd: Int?

  init(_ mailProtocol: MailProtocol, _ backend: Backend, _ login: ProbeCredentials?, until deadline: UInt64) {
    self.mailProtocol = mailProtocol
    self.backend = backend
    self.login = login
    self.deadline = deadline
  }

  /// What was found.
  enum Outcome: Equatable, Sendable {
    case good
    /// It is not well, and why.
    case bad(String)
    /// Nothing was learned: the proxy itself lacks something.
    case unknown(String)
  }

  /// Goes there.
  mutating func make(_ addresses: [SocketAddress], _ scratch: inout Scratch) -> Outcome {
    let connection: ProbeConnection
    switch ProbeConnection.open(addresses, until: deadline) {
    case .failure(let trouble): return outcome(trouble, "connecting")
    case .success(let open): connection = open
    }
    let manner = backend.link.manner
    // Said for ourselves: no client is behind this connection.
    var header: [UInt8] = []
    switch manner.proxyProtocol {
    case .off: break
    case .v1: ProxyHeader().appendText(isV6: connection.address.family == .v6, to: &header)
    case .v2: ProxyHeader().appendBinary(to: &header)
    }
    if let trouble = connection.say(header.span) { return outcome(trouble, "connecting") }
    let channel: BackendChannel
    switch manner.tls {
    case .off: channel = .trusted(.plaintextByConfiguration)
    case .startTLS: channel = .startTLSFirst
    case .implicit:
      if let trouble = secure(connection) { return outcome(trouble, ProbeVisit.handshake) }
      channel = .trusted(.encrypted)
    }
    let terms = BackendTerms(channel: channel, pace: manner.pace)
    return talk(connection, ProbeDialogue(mailProtocol, terms, login == nil ? .greeting : .login), &scratch)
  }

  private static let handshake = "in the TLS handshake"

  private mutating func secure(_ connection: ProbeConnection) -> ProbeTrouble? {
    guard let context = backend.link.context(mailProtocol) else {
      preconditionFailure("TLS with a backend that has no context for it")
    }
    let trouble = connection.upgrade(context, backend.peerName)
    certificateEnd = connection.certificateEnd
    return trouble
  }

  private mutating func talk(
    _ connection: ProbeConnection, _ begun: ProbeDialogue, _ scratch: inout Scratch
  ) -> Outcome {
    var dialogue = begun
    var draft = LoginDraft()
    if let login {
      draft.name = Array(login.user.utf8)
      login.password.withSpan { draft.password.append($0) }
    }
    var input: [UInt8] = []
    var out: [UInt8] = []
    // With room for a login: a secret that moves leaves a copy behind.
    out.reserveCapacity(ProbeVisit.longestLogin)
    defer {
      input.wipe()
      out.wipe()
    }
    while true {
      switch connection.hear(into: &scratch) {
      case .failure(let trouble): return outcome(trouble, dialogue.doing)
      case .success(let count):
        input.append(scratch.span(count))
        // Some servers repeat what they did not understand.
        scratch.wipe(count)
      }
      var consumed = 0
      listening: while consumed < input.count {
        let step = dialogue.receive(input.span.extracting(consumed...), draft, &out)
        consumed += step.consumed
        switch step.action {
        case .read: break listening
        case .proceed: break
        case .upgrade:
          // What stands behind the answer to STARTTLS was not said by a TLS server (CVE-2021-38084 and its kin).
          guard consumed == input.count else { return bad("bytes behind its answer to STARTTLS") }
          if let trouble = connection.say(out.span) { return outcome(trouble, dialogue.doing) }
          out.wipe()
          if let trouble = secure(connection) { return outcome(trouble, ProbeVisit.handshake) }
          dialogue.secured(draft, &out)
        case .done:
          connection.end()
          return .good
        case .failed(let fault, let answer): return bad(ProbeVisit.words(fault, answer, draft))
        }
      }
      input.removeFirst(consumed)
      let trouble = connection.say(out.span)
      out.wipe()
      if let trouble { return outcome(trouble, dialogue.doing) }
    }
  }

  /// A name and a password, in base64 at the worst.
  private static let longestLogin = 4_096

  /// A fault with the backend's own words, unless they hold the password.
  private static func words(_ fault: ProbeFault, _ answer: BackendAnswer, _ draft: borrowing LoginDraft) -> String {
    let words = Array(answer.words.utf8)
    guard !words.isEmpty else { return fault.rawValue }
    guard !draft.isRepeated(in: words.span) else { return "\(fault.rawValue) (in words that repeat the password)" }
    return "\(fault.rawValue): \(String(decoding: words.prefix(ProbeTrouble.longestQuote), as: UTF8.self))"
  }

  private func bad(_ words: String) -> Outcome { .bad("\(mailProtocol.rawValue): \(words)") }

  private func outcome(_ trouble: ProbeTrouble, _ doing: String) -> Outcome {
    switch trouble {
    case .backend(let words): bad(words)
    case .closed: bad("it closed, \(doing)")
    case .late: bad("no answer in time, \(doing)")
    case .own(let words): .unknown(words)
    }
  }
}

/// Who logs in with a probe.
struct ProbeCredentials: Equatable, Sendable {
  let user: String
  let password: SharedSecret
}

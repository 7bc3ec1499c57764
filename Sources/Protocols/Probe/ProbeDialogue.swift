/// Decides what to say to a backend to find out whether it is well.
///
/// A whole visit: the greeting, TLS where the operator wants it, a login with a test account if there is one, and a clean
/// goodbye. Whatever else the backend says is a reason why it is not well.
package struct ProbeDialogue: Equatable, Sendable {
  private var state: State
  private var framer: ProbeFramer
  /// Bytes of whole lines.
  private var heard = 0
  private let mailProtocol: MailProtocol
  private let channel: BackendChannel

  /// How far a visit goes before the goodbye.
  package enum Depth: Equatable, Sendable {
    /// To the greeting, and through TLS.
    case greeting
    /// Through a login with the draft's name and password.
    case login
  }

  private enum State: Equatable, Sendable {
    /// `offersTLS`: a ManageSieve backend has listed STARTTLS.
    case greeting(offersTLS: Bool)
    /// STARTTLS or STLS was said.
    case startTLS
    /// It was granted; only `secured` may come.
    case upgrading
    /// A ManageSieve backend says its capabilities again (RFC 5804 §2.2).
    case secured
    /// From the greeting to the answer to the login.
    case login(BackendDialogue)
    /// LOGOUT or QUIT was said.
    case goodbye(heardBye: Bool)
    case over
  }

  /// What a backend may say in one visit, in bytes. A line may have `Limits.backendLine`; a list of capabilities has a
  /// twentieth of this.
  private static let mostHeard = 65_536

  /// A dialogue that waits for the greeting. The channel in the terms is the proof that the driver took the steps which
  /// the operator wants before a secret is said; nothing is told of a client, for there is none.
  package init(_ mailProtocol: MailProtocol, _ terms: BackendTerms, _ depth: Depth) {
    self.mailProtocol = mailProtocol
    channel = terms.channel
    framer = ProbeFramer(mailProtocol)
    switch depth {
    case .greeting: state = .greeting(offersTLS: false)
    case .login: state = .login(BackendDialogue(mailProtocol, terms))
    }
  }

  /// What it waits for, for people.
  package var doing: String {
    switch state {
    case .greeting: BackendDoing.greeting.rawValue
    case .startTLS, .upgrading: BackendDoing.startTLS.rawValue
    case .secured: BackendDoing.capability.rawValue
    case .login(let dialogue): dialogue.doing.rawValue
    case .goodbye, .over: "waiting for the backend's goodbye"
    }
  }

  // MARK: What the driver tells

  /// TLS is up after STARTTLS or STLS. `out` may hold the password afterwards.
  package mutating func secured(_ draft: borrowing LoginDraft, _ out: inout [UInt8]) {
    switch state {
    case .login(var dialogue):
      dialogue.secured(draft, &out)
      state = .login(dialogue)
    case .upgrading:
      switch mailProtocol {
      case .imap, .pop3: sayGoodbye(&out)
      case .manageSieve: state = .secured
      }
    case .greeting, .startTLS, .secured, .goodbye, .over: preconditionFailure("TLS that was not asked for")
    }
  }

  /// Takes at most one line from the front of `input`. `out` may hold the password afterwards.
  package mutating func receive(
    _ input: Span<UInt8>, _ draft: borrowing LoginDraft, _ out: inout [UInt8]
  ) -> ProbeStep {
    switch framer.next(in: input) {
    case .incomplete: return ProbeStep(0, .read)
    case .tooLong: return fail(.tooMuch, input.extracting(..<0), input.count)
    case .line(let text, let end):
      heard += end
      guard heard <= ProbeDialogue.mostHeard else { return fail(.tooMuch, input.extracting(..<0), end) }
      return hear(input.extracting(..<end), text: text, draft, &out)
    }
  }

  // MARK: Lines

  private mutating func hear(
    _ whole: Span<UInt8>, text: Int, _ draft: borrowing LoginDraft, _ out: inout [UInt8]
  ) -> ProbeStep {
    let line = whole.extracting(..<text)
    let consumed = whole.count
    switch state {
    case .greeting(let offersTLS):
      switch ProbeWord.greeting(line, mailProtocol) {
      case .startTLS: state = .greeting(offersTLS: true)
      case .more, .bye: break
      case .bad(let fault): return fail(fault, line, consumed)
      case .good:
        switch channel {
        case .trusted: sayGoodbye(&out)
        case .startTLSFirst where mailProtocol == .manageSieve && !offersTLS: return fail(.noTLS, line, consumed)
        case .startTLSFirst:
          out.append(ProbeWord.startTLSCommand(mailProtocol))
          state = .startTLS
        }
      }
    case .startTLS:
      switch ProbeWord.startTLS(line, mailProtocol) {
      case .more, .bye, .startTLS: break
      case .bad(let fault): return fail(fault, line, consumed)
      case .good:
        state = .upgrading
        return ProbeStep(consumed, .upgrade)
      }
    case .secured:
      switch ProbeWord.greeting(line, mailProtocol) {
      case .more, .bye, .startTLS: break
      case .bad: return fail(.protocolError, line, consumed)
      case .good: sayGoodbye(&out)
      }
    case .login(let dialogue): return logIn(dialogue, whole, draft, &out)
    case .goodbye(let heardBye):
      switch ProbeWord.goodbye(line, mailProtocol) {
      case .more, .startTLS: break
      case .bye: state = .goodbye(heardBye: true)
      case .bad(let fault): return fail(fault, line, consumed)
      // RFC 9051 §6.1.3: BYE is required. A goodbye without one is somebody's who does not know the protocol.
      case .good where mailProtocol == .imap && !heardBye: return fail(.protocolError, line, consumed)
      case .good:
        state = .over
        return ProbeStep(consumed, .done)
      }
    case .upgrading, .over: preconditionFailure("bytes given to a dialogue that can't take any")
    }
    return ProbeStep(consumed, .proceed)
  }

  /// The login is what it is for any client; only what comes of it is judged here.
  private mutating func logIn(
    _ begun: BackendDialogue, _ line: Span<UInt8>, _ draft: borrowing LoginDraft, _ out: inout [UInt8]
  ) -> ProbeStep {
    var dialogue = begun
    let step = dialogue.receive(line, draft, &out)
    state = .login(dialogue)
    switch step.action {
    case .read, .proceed: return ProbeStep(step.consumed, .proceed)
    case .upgrade: return ProbeStep(step.consumed, .upgrade)
    case .accepted:
      sayGoodbye(&out)
      return ProbeStep(step.consumed, .proceed)
    case .refused(_, let answer) where ProbeDialogue.isOwnAffair(answer):
      sayGoodbye(&out)
      return ProbeStep(step.consumed, .proceed)
    case .refused(_, let answer):
      return fail(answer.isTemporary ? .loginUnavailable : .loginRefused, answer, step.consumed)
    // A password is said without being asked anything; a challenge has no place in that.
    case .challenge: return fail(.protocolError, line, step.consumed)
    case .failed(let fault, let answer): return fail(ProbeFault(fault), answer, step.consumed)
    }
  }

  /// Whether a refusal tells of the test account and not of the backend: RFC 2449 §8.1.1's IN-USE comes behind a right
  /// password and its LOGIN-DELAY means that we ask too often, RFC 5530 §3's LIMIT that others of ours are there.
  private static func isOwnAffair(_ answer: BackendAnswer) -> Bool {
    switch answer.codeName {
    case "in-use", "inuse", "login-delay", "limit": true
    default: false
    }
  }

  private mutating func sayGoodbye(_ out: inout [UInt8]) {
    state = .goodbye(heardBye: false)
    out.append(ProbeWord.goodbyeCommand(mailProtocol))
  }

  private mutating func fail(_ fault: ProbeFault, _ line: Span<UInt8>, _ consumed: Int) -> ProbeStep {
    var text: [UInt8] = []
    text.appendLineSafe(line)
    return fail(fault, BackendAnswer(text: text), consumed)
  }

  private mutating func fail(_ fault: ProbeFault, _ answer: BackendAnswer, _ consumed: Int) -> ProbeStep {
    state = .over
    return ProbeStep(consumed, .failed(fault, answer))
  }
}

/// What a probe decided about the bytes it was given.
package struct ProbeStep: Equatable, Sendable {
  /// How many bytes at the front were used up.
  package let consumed: Int
  /// What the driver has to do next.
  package let action: ProbeAction

  /// A step of its parts.
  package init(_ consumed: Int, _ action: ProbeAction) {
    self.consumed = consumed
    self.action = action
  }
}

/// What the driver of a probe has to do next.
package enum ProbeAction: Equatable, Sendable {
  case read
  case proceed
  /// Start TLS. No byte may stand behind `consumed`: it would be somebody's on the way, taken for the backend's.
  case upgrade
  /// All went well, to the goodbye.
  case done
  case failed(ProbeFault, BackendAnswer)
}

/// Why a backend is not well, as far as its words tell. The raw value is for people.
package enum ProbeFault: String, Equatable, Sendable, CaseIterable {
  /// BYE, -ERR, PREAUTH or no mail protocol at all.
  case badGreeting = "its greeting is none"
  /// STARTTLS or STLS is demanded by the operator and not offered, or refused.
  case noTLS = "it does not grant STARTTLS"
  /// It takes no passwords here.
  case noMechanism = "it takes no passwords"
  /// A wrong password, or an account that may not log in.
  case loginRefused = "the test login was refused"
  /// The backend says that it can't log anybody in now.
  case loginUnavailable = "it refuses logins as unavailable"
  case protocolError = "it says what the protocol does not allow"
  /// A line beyond `Limits.backendLine`, or lines without end.
  case tooMuch = "it says too much"

  fileprivate init(_ fault: BackendFault) {
    self =
      switch fault {
      case .badGreeting: .badGreeting
      case .protocolError: .protocolError
      case .noMechanism: .noMechanism
      case .noTLS: .noTLS
      }
  }
}

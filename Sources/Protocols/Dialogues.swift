/// The two sides' dialogues, whatever the protocol: one case for each, and no existential on the way.

/// A client's side of the conversation before login.
package enum ClientDialogue: Equatable, Sendable {
  case imap(IMAPClientDialogue)
  case pop3(POP3ClientDialogue)

  /// A dialogue before its first word, under the listener's policy.
  package init(_ mailProtocol: MailProtocol, policy: TLSPolicy, limits: Limits) {
    switch mailProtocol {
    case .imap: self = .imap(IMAPClientDialogue(policy: policy, limits: limits))
    case .pop3: self = .pop3(POP3ClientDialogue(policy: policy, limits: limits))
    }
  }

  /// Says the greeting.
  package mutating func greet(_ out: inout [UInt8]) {
    switch self {
    case .imap(var dialogue):
      dialogue.greet(&out)
      self = .imap(dialogue)
    case .pop3(var dialogue):
      dialogue.greet(&out)
      self = .pop3(dialogue)
    }
  }

  /// TLS is up.
  package mutating func secured(_ out: inout [UInt8]) {
    switch self {
    case .imap(var dialogue):
      dialogue.secured(&out)
      self = .imap(dialogue)
    case .pop3(var dialogue):
      dialogue.secured(&out)
      self = .pop3(dialogue)
    }
  }

  /// Takes at most one command or response from the front of `input`, which holds all bytes not consumed so far.
  package mutating func receive(_ input: Span<UInt8>, _ draft: inout LoginDraft, _ out: inout [UInt8]) -> ClientStep {
    switch self {
    case .imap(var dialogue):
      let step = dialogue.receive(input, &draft, &out)
      self = .imap(dialogue)
      return step
    case .pop3(var dialogue):
      let step = dialogue.receive(input, &draft, &out)
      self = .pop3(dialogue)
      return step
    }
  }

  /// The login's outcome.
  package mutating func conclude(_ verdict: Verdict, _ out: inout [UInt8]) -> ClientAction {
    switch self {
    case .imap(var dialogue):
      let action = dialogue.conclude(verdict, &out)
      self = .imap(dialogue)
      return action
    case .pop3(var dialogue):
      let action = dialogue.conclude(verdict, &out)
      self = .pop3(dialogue)
      return action
    }
  }

  /// The driver ends the connection: the last words.
  package mutating func farewell(_ farewell: Farewell, _ out: inout [UInt8]) {
    switch self {
    case .imap(var dialogue):
      dialogue.farewell(farewell, &out)
      self = .imap(dialogue)
    case .pop3(var dialogue):
      dialogue.farewell(farewell, &out)
      self = .pop3(dialogue)
    }
  }
}

/// A backend's side: the login there.
package enum BackendDialogue: Equatable, Sendable {
  case imap(IMAPBackendDialogue)
  case pop3(POP3BackendDialogue)

  /// A dialogue that waits for the greeting; the trust is the proof that a secret may be said.
  package init(_ mailProtocol: MailProtocol, trust: ChannelTrust) {
    switch mailProtocol {
    case .imap: self = .imap(IMAPBackendDialogue(trust: trust))
    case .pop3: self = .pop3(POP3BackendDialogue(trust: trust))
    }
  }

  /// Takes at most one line from the front of `input`. `out` may hold the password afterwards.
  package mutating func receive(
    _ input: Span<UInt8>, _ draft: borrowing LoginDraft, _ out: inout [UInt8]
  ) -> BackendStep {
    switch self {
    case .imap(var dialogue):
      let step = dialogue.receive(input, draft, &out)
      self = .imap(dialogue)
      return step
    case .pop3(var dialogue):
      let step = dialogue.receive(input, draft, &out)
      self = .pop3(dialogue)
      return step
    }
  }

  /// What it waits for, for people.
  package var doing: BackendDoing {
    switch self {
    case .imap(let dialogue): dialogue.doing
    case .pop3(let dialogue): dialogue.doing
    }
  }
}

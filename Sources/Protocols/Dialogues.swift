/// The two sides' dialogues, whatever the protocol: one case for each, and no existential on the way.

/// A client's side of the conversation before login.
package enum ClientDialogue: Equatable, Sendable {
  case imap(IMAPClientDialogue)
  case pop3(POP3ClientDialogue)
  case manageSieve(ManageSieveClientDialogue)

  /// A dialogue before its first word, under the listener's terms.
  package init(_ mailProtocol: MailProtocol, _ terms: ClientTerms) {
    switch mailProtocol {
    case .imap: self = .imap(IMAPClientDialogue(terms))
    case .pop3: self = .pop3(POP3ClientDialogue(terms))
    case .manageSieve: self = .manageSieve(ManageSieveClientDialogue(terms))
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
    case .manageSieve(var dialogue):
      dialogue.greet(&out)
      self = .manageSieve(dialogue)
    }
  }

  /// TLS is up, and the client showed a certificate or not.
  package mutating func secured(_ certificate: ClientCertificate, _ out: inout [UInt8]) {
    switch self {
    case .imap(var dialogue):
      dialogue.secured(certificate, &out)
      self = .imap(dialogue)
    case .pop3(var dialogue):
      dialogue.secured(certificate, &out)
      self = .pop3(dialogue)
    case .manageSieve(var dialogue):
      dialogue.secured(certificate, &out)
      self = .manageSieve(dialogue)
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
    case .manageSieve(var dialogue):
      let step = dialogue.receive(input, &draft, &out)
      self = .manageSieve(dialogue)
      return step
    }
  }

  /// A backend asks what only the client can answer: its challenge, decoded.
  package mutating func challenge(_ challenge: Span<UInt8>, _ out: inout [UInt8]) {
    switch self {
    case .imap(var dialogue):
      dialogue.challenge(challenge, &out)
      self = .imap(dialogue)
    case .pop3(var dialogue):
      dialogue.challenge(challenge, &out)
      self = .pop3(dialogue)
    case .manageSieve(var dialogue):
      dialogue.challenge(challenge, &out)
      self = .manageSieve(dialogue)
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
    case .manageSieve(var dialogue):
      let action = dialogue.conclude(verdict, &out)
      self = .manageSieve(dialogue)
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
    case .manageSieve(var dialogue):
      dialogue.farewell(farewell, &out)
      self = .manageSieve(dialogue)
    }
  }
}

/// A backend's side: the login there.
package enum BackendDialogue: Equatable, Sendable {
  case imap(IMAPBackendDialogue)
  case pop3(POP3BackendDialogue)
  case manageSieve(ManageSieveBackendDialogue)

  /// A dialogue that waits for the greeting; the channel in the terms is the proof that a secret may be said.
  package init(_ mailProtocol: MailProtocol, _ terms: BackendTerms) {
    switch mailProtocol {
    case .imap: self = .imap(IMAPBackendDialogue(terms))
    case .pop3: self = .pop3(POP3BackendDialogue(terms))
    case .manageSieve: self = .manageSieve(ManageSieveBackendDialogue(terms))
    }
  }

  /// TLS is up after STARTTLS or STLS. `out` may hold the password afterwards.
  package mutating func secured(_ draft: borrowing LoginDraft, _ out: inout [UInt8]) {
    switch self {
    case .imap(var dialogue):
      dialogue.secured(&out)
      self = .imap(dialogue)
    case .pop3(var dialogue):
      dialogue.secured(draft, &out)
      self = .pop3(dialogue)
    case .manageSieve(var dialogue):
      dialogue.secured()
      self = .manageSieve(dialogue)
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
    case .manageSieve(var dialogue):
      let step = dialogue.receive(input, draft, &out)
      self = .manageSieve(dialogue)
      return step
    }
  }

  /// The client answered the backend's challenge; its message is in the draft.
  package mutating func respond(_ draft: borrowing LoginDraft, _ out: inout [UInt8]) {
    switch self {
    case .imap(var dialogue):
      dialogue.respond(draft, &out)
      self = .imap(dialogue)
    case .pop3(var dialogue):
      dialogue.respond(draft, &out)
      self = .pop3(dialogue)
    case .manageSieve(var dialogue):
      dialogue.respond(draft, &out)
      self = .manageSieve(dialogue)
    }
  }

  /// What it waits for, for people.
  package var doing: BackendDoing {
    switch self {
    case .imap(let dialogue): dialogue.doing
    case .pop3(let dialogue): dialogue.doing
    case .manageSieve(let dialogue): dialogue.doing
    }
  }

  /// Whether the backend evidently does not believe us who the client is. An IMAP backend does not tell.
  package var isDistrusted: Bool {
    switch self {
    case .imap: false
    case .pop3(let dialogue): dialogue.isDistrusted
    case .manageSieve(let dialogue): dialogue.isDistrusted
    }
  }
}

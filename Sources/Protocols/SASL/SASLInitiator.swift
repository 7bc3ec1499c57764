/// Takes part, as the client, in one SASL exchange with a backend; knows nothing of how a protocol frames it.
package enum SASLInitiator: Equatable, Sendable {
  /// The first message is to be said; it needs no challenge but LOGIN's.
  case first(SASLMechanism)
  /// LOGIN: the name is said, the password is asked for.
  case loginPassword
  /// The backend judges: of an OAuth mechanism, a challenge is its reason for a refusal; of SCRAM, it is the exchange.
  case judged(SASLMechanism, round: Int)
  /// The client was shown a challenge, and its answer is awaited.
  case asked(SASLMechanism, round: Int)
  /// Nothing more may be asked.
  case done

  /// Challenges of the backend's that are passed on.
  private static let mostRounds = 2

  /// What a challenge of the backend comes to.
  package enum Outcome: Equatable, Sendable {
    /// The answer was appended, in base64.
    case said
    /// Only the client can answer this.
    case asksClient([UInt8])
    /// The exchange has no place for it.
    case unexpected
  }

  /// Whether the first message may go with the command (RFC 4959, RFC 5034): all but LOGIN's, whose server speaks first.
  static func hasInitialResponse(_ mechanism: SASLMechanism) -> Bool { !mechanism.beginsWithServer }

  /// Appends the first message in base64.
  mutating func begin(_ draft: borrowing LoginDraft, _ out: inout [UInt8]) {
    guard case .first(let mechanism) = self else { preconditionFailure("an exchange begins twice") }
    var message = Secret()
    switch mechanism {
    case .plain:
      message.append(draft.authorizationIdentity.span)
      message.append(.nul)
      message.append(draft.name.span)
      message.append(.nul)
      message.append(draft.password.span)
      self = .done
    case .login:
      message.append(draft.name.span)
      self = .loginPassword
    case .xoauth2:
      message.append("user=")
      message.append(draft.user.span)
      message.append("\u{1}auth=Bearer ")
      message.append(draft.password.span)
      message.append("\u{1}\u{1}")
      self = .judged(mechanism, round: 0)
    case .oauthBearer:
      message.append("n,a=")
      for byte in draft.user {
        // RFC 5801 §4: saslname.
        switch byte {
        case .ascii(","): message.append("=2C")
        case .ascii("="): message.append("=3D")
        default: message.append(byte)
        }
      }
      message.append(",\u{1}auth=Bearer ")
      message.append(draft.password.span)
      message.append("\u{1}\u{1}")
      self = .judged(mechanism, round: 0)
    case .scramSHA256, .scramSHA1:
      message.append(draft.message.span)
      self = .judged(mechanism, round: 0)
    case .external:
      message.append(draft.user.span)
      self = .done
    }
    Base64.encode(message.span, into: &out)
  }

  /// Takes a challenge in base64.
  mutating func answer(_ challenge: Span<UInt8>, _ draft: borrowing LoginDraft, _ out: inout [UInt8]) -> Outcome {
    switch self {
    case .first:
      begin(draft, &out)
      return .said
    case .loginPassword:
      Base64.encode(draft.password.span, into: &out)
      self = .done
      return .said
    // RFC 5802 §5: the server's first message and its final one, and no third. Without the bound a backend and a client
    // together could go on for ever.
    case .judged(_, round: SASLInitiator.mostRounds): return .unexpected
    case .judged(let mechanism, let round):
      var bytes = Secret()
      guard Base64.decode(challenge, into: &bytes) else { return .unexpected }
      self = .asked(mechanism, round: round + 1)
      return .asksClient(bytes.span.array)
    case .asked, .done: return .unexpected
    }
  }

  /// The client has answered: its message is in the draft. Appends the answer in base64.
  mutating func pass(_ draft: borrowing LoginDraft, _ out: inout [UInt8]) {
    guard case .asked(let mechanism, let round) = self else { preconditionFailure("an answer to no challenge") }
    switch mechanism {
    case .scramSHA256, .scramSHA1:
      Base64.encode(draft.message.span, into: &out)
      self = .judged(mechanism, round: round)
    // RFC 7628 §3.2.3: the client's answer to a failure is a ^A; XOAUTH2's is empty. Neither says anything.
    case .oauthBearer:
      Base64.encode([1].span, into: &out)
      self = .done
    case .xoauth2, .plain, .login, .external: self = .done
    }
  }
}

extension Secret {
  /// Adds text of our own.
  fileprivate mutating func append(_ text: StaticString) {
    text.withUTF8Buffer { for index in $0.indices { unsafe append($0[index]) } }
  }
}

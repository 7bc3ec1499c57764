/// Takes part, as the server, in one SASL exchange; knows nothing of how a protocol frames it.
package enum SASLExchange: Equatable, Sendable {
  /// PLAIN: one message holds all (RFC 4616 §2).
  case plain
  /// LOGIN: the name is asked for.
  case loginName
  /// LOGIN: the password is asked for.
  case loginPassword

  /// The exchange before its first message.
  package init(_ mechanism: SASLMechanism) {
    switch mechanism {
    case .plain: self = .plain
    case .login: self = .loginName
    }
  }

  /// What came of a client's response.
  package enum Outcome: Equatable, Sendable {
    /// Say the challenge and wait for another response.
    case challenge
    /// The draft is filled in.
    case complete
    /// Not base64, or not what the mechanism's grammar allows.
    case malformed
  }

  /// The challenge to say now, in base64: nothing for PLAIN, "Username:" and "Password:" for LOGIN.
  package var challenge: StaticString {
    switch self {
    case .plain: ""
    case .loginName: "VXNlcm5hbWU6"
    case .loginPassword: "UGFzc3dvcmQ6"
    }
  }

  /// Takes a response in base64 and writes what it says into the draft.
  package mutating func respond(_ response: Span<UInt8>, draft: inout LoginDraft) -> Outcome {
    var message = Secret()
    guard Base64.decode(response, into: &message) else { return .malformed }
    switch self {
    case .plain:
      return SASLExchange.takePlain(message.span, draft: &draft) ? .complete : .malformed
    case .loginName:
      draft.name = message.span.array
      self = .loginPassword
      return .challenge
    case .loginPassword:
      draft.password.removeAll()
      draft.password.append(message.span)
      return .complete
    }
  }

  /// RFC 4616 §2: message = [authzid] UTF8NUL authcid UTF8NUL passwd. Of the two identities, an equal authorization
  /// identity says nothing and is left out.
  private static func takePlain(_ message: Span<UInt8>, draft: inout LoginDraft) -> Bool {
    guard let first = message.firstIndex(of: .nul), let second = message.firstIndex(of: .nul, from: first + 1) else {
      return false
    }
    draft.name = message.extracting((first + 1)..<second).array
    draft.authorizationIdentity = message.extracting(..<first).array
    if draft.authorizationIdentity == draft.name { draft.authorizationIdentity = [] }
    draft.password.removeAll()
    draft.password.append(message.extracting((second + 1)...))
    return true
  }

  /// Appends a PLAIN message in base64, as a client.
  package static func appendPlain(_ draft: borrowing LoginDraft, to out: inout [UInt8]) {
    var message = Secret()
    message.append(draft.authorizationIdentity.span)
    message.append(.nul)
    message.append(draft.name.span)
    message.append(.nul)
    message.append(draft.password.span)
    Base64.encode(message.span, into: &out)
  }
}

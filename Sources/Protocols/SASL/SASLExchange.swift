/// Takes part, as the server, in one SASL exchange; knows nothing of how a protocol frames it.
package enum SASLExchange: Equatable, Sendable {
  /// PLAIN: one message holds all (RFC 4616 §2).
  case plain
  /// LOGIN: the name is asked for.
  case loginName
  /// LOGIN: the password is asked for.
  case loginPassword
  /// XOAUTH2 and OAUTHBEARER: one message holds the name and the token.
  case xoauth2, oauthBearer
  /// SCRAM: of the client's first message only the name is read; the backend does the rest.
  case scram
  /// EXTERNAL: the response is the authorization identity, or empty.
  case external

  /// The exchange before its first message.
  package init(_ mechanism: SASLMechanism) {
    switch mechanism {
    case .plain: self = .plain
    case .login: self = .loginName
    case .xoauth2: self = .xoauth2
    case .oauthBearer: self = .oauthBearer
    case .scramSHA256, .scramSHA1: self = .scram
    case .external: self = .external
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

  /// The challenge to say now, in base64: nothing but for LOGIN, "Username:" and "Password:" there.
  package var challenge: StaticString {
    switch self {
    case .plain, .xoauth2, .oauthBearer, .scram, .external: ""
    case .loginName: "VXNlcm5hbWU6"
    case .loginPassword: "UGFzc3dvcmQ6"
    }
  }

  /// Takes a response in base64 and writes what it says into the draft.
  package mutating func respond(_ response: Span<UInt8>, draft: inout LoginDraft) -> Outcome {
    var message = Secret()
    guard Base64.decode(response, into: &message) else { return .malformed }
    switch self {
    case .plain: return SASLExchange.takePlain(message.span, &draft) ? .complete : .malformed
    case .loginName:
      draft.name = message.span.array
      self = .loginPassword
      return .challenge
    case .loginPassword:
      draft.password.removeAll()
      draft.password.append(message.span)
      return .complete
    case .xoauth2: return SASLExchange.takeXOAuth2(message.span, &draft) ? .complete : .malformed
    case .oauthBearer: return SASLExchange.takeOAuthBearer(message.span, &draft) ? .complete : .malformed
    case .scram:
      guard SASLExchange.takeSCRAM(message.span, &draft) else { return .malformed }
      draft.message.removeAll()
      draft.message.append(message.span)
      return .complete
    case .external:
      draft.authorizationIdentity = message.span.array
      return .complete
    }
  }

  // MARK: Grammars

  /// RFC 4616 §2: message = [authzid] UTF8NUL authcid UTF8NUL passwd. Of the two identities, an equal authorization
  /// identity says nothing and is left out.
  private static func takePlain(_ message: Span<UInt8>, _ draft: inout LoginDraft) -> Bool {
    guard let first = message.firstIndex(of: .nul), let second = message.firstIndex(of: .nul, from: first + 1) else {
      return false
    }
    take(name: message.extracting((first + 1)..<second).array, for: message.extracting(..<first).array, &draft)
    draft.password.removeAll()
    draft.password.append(message.extracting((second + 1)...))
    return true
  }

  private static func take(name: [UInt8], for identity: [UInt8], _ draft: inout LoginDraft) {
    draft.name = name
    draft.authorizationIdentity = identity == name ? [] : identity
  }

  /// `user=NAME^Aauth=Bearer TOKEN^A^A`, as Google documents it.
  private static func takeXOAuth2(_ message: Span<UInt8>, _ draft: inout LoginDraft) -> Bool {
    guard message.startsIgnoringCase(with: "user="), let end = message.firstIndex(of: separator) else { return false }
    draft.name = message.extracting(5..<end).array
    draft.authorizationIdentity = []
    return takeToken(message.extracting((end + 1)...), &draft)
  }

  /// RFC 7628 §3.1: a GS2 header with the name as authorization identity, then pairs, of which host and port are for the
  /// server the client thinks it talks to and go no further.
  private static func takeOAuthBearer(_ message: Span<UInt8>, _ draft: inout LoginDraft) -> Bool {
    guard let end = message.firstIndex(of: separator), let header = GS2Header(message.extracting(..<end)),
      header.end == end
    else { return false }
    draft.name = header.identity
    draft.authorizationIdentity = []
    return takeToken(message.extracting((end + 1)...), &draft)
  }

  /// Pairs that ^A ends each; an empty one ends them all. Just one is the token's.
  private static func takeToken(_ pairs: Span<UInt8>, _ draft: inout LoginDraft) -> Bool {
    draft.password.removeAll()
    var start = 0
    while let end = pairs.firstIndex(of: separator, from: start) {
      let pair = pairs.extracting(start..<end)
      if pair.count == 0 { return end + 1 == pairs.count && !draft.password.isEmpty }
      if pair.startsIgnoringCase(with: "auth=") {
        // RFC 6750 §2.1: b64token, in which no blank stands.
        guard draft.password.isEmpty, pair.startsIgnoringCase(with: "auth=Bearer ") else { return false }
        let token = pair.extracting(12...)
        for index in token.indices where token[index] <= .space || token[index] >= 0x7F { return false }
        draft.password.append(token)
      }
      start = end + 1
    }
    return false
  }

  /// RFC 5802 §7: client-first-message = gs2-header [reserved-mext ","] username "," nonce [","extensions]. The "m" of a
  /// mandatory extension is not for us to understand. Read to the letter: the message goes on as it is, and the backend
  /// must not find another name in it.
  private static func takeSCRAM(_ message: Span<UInt8>, _ draft: inout LoginDraft) -> Bool {
    guard let header = GS2Header(message) else { return false }
    let bare = message.extracting(header.end...)
    guard GS2Header.isAttribute("n", bare), let comma = bare.firstIndex(of: .ascii(",")),
      let name = GS2Header.decode(bare.extracting(2..<comma)),
      GS2Header.isAttribute("r", bare.extracting((comma + 1)...))
    else { return false }
    take(name: name, for: header.identity, &draft)
    return true
  }

  /// What parts the pairs of the OAuth mechanisms: ^A.
  fileprivate static let separator: UInt8 = 0x01
}

/// RFC 5801 §4: gs2-header = gs2-cb-flag "," [authzid] ",". Channel binding ("p=") is for the -PLUS mechanisms, which an
/// endpoint of TLS that is not the server can't have.
private struct GS2Header {
  let identity: [UInt8]
  /// Behind the header.
  let end: Int

  init?(_ message: Span<UInt8>) {
    guard message.count > 2, message[0] == .ascii("n") || message[0] == .ascii("y"), message[1] == .ascii(","),
      let comma = message.firstIndex(of: .ascii(","), from: 2)
    else { return nil }
    let field = message.extracting(2..<comma)
    if field.count == 0 {
      identity = []
    } else {
      guard GS2Header.isAttribute("a", field), let name = GS2Header.decode(field.extracting(2...)) else {
        return nil
      }
      identity = name
    }
    end = comma + 1
  }

  /// RFC 5802 §5.1: an attribute is one letter, whose case matters.
  static func isAttribute(_ letter: Unicode.Scalar, _ text: Span<UInt8>) -> Bool {
    text.count > 1 && text[0] == .ascii(letter) && text[1] == .ascii("=")
  }

  /// RFC 5802 §5.1: saslname, "=2C" for a comma and "=3D" for an equals sign; nil for any other "=".
  static func decode(_ text: Span<UInt8>) -> [UInt8]? {
    var name: [UInt8] = []
    var index = 0
    while index < text.count {
      if text[index] == .ascii("=") {
        guard index + 2 < text.count else { return nil }
        switch (text[index + 1], text[index + 2]) {
        case (.ascii("2"), .ascii("C")): name.append(.ascii(","))
        case (.ascii("3"), .ascii("D")): name.append(.ascii("="))
        default: return nil
        }
        index += 3
      } else {
        name.append(text[index])
        index += 1
      }
    }
    return name
  }
}

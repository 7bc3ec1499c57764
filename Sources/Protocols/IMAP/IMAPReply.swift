/// How a client is told what the backend can do.
enum CapabilityTelling: Equatable, Sendable {
  /// In the OK's response code.
  case byCode
  /// In a line before the OK: the client asked for capabilities before, so it may not read codes.
  case untagged
}

/// Renders what is said to an IMAP client before login.
enum IMAPReply {
  /// A tagged line of our own.
  static func tagged(_ tag: Span<UInt8>, _ text: StaticString, _ out: inout [UInt8]) {
    out.append(tag)
    out.append(.space)
    out.append(text)
    out.endLine()
  }

  /// BAD, untagged when the client's tag is no tag (RFC 9051 §7.1.3).
  static func bad(_ tag: Span<UInt8>, _ text: StaticString, _ out: inout [UInt8]) {
    if tag.count > 0 { out.append(tag) } else { out.append(.ascii("*")) }
    out.append(" BAD ")
    out.append(text)
    out.endLine()
  }

  static func bye(_ text: StaticString, _ out: inout [UInt8]) {
    out.append("* BYE ")
    out.append(text)
    out.endLine()
  }

  /// The backend's OK under the client's tag, with the backend's capabilities: in the code if it is free, else before it.
  /// (Two codes don't fit into one answer; Dovecot's proxy tries and leaves a stray bracket.)
  static func accepted(_ answer: BackendAnswer, tag: [UInt8], _ telling: CapabilityTelling, _ out: inout [UInt8]) {
    var answer = answer
    if !answer.capabilities.isEmpty {
      // A list that would close the bracket is none for a code.
      if telling == .byCode, answer.code.isEmpty, !answer.capabilities.contains(.ascii("]")) {
        answer.code.append("CAPABILITY ")
        answer.code.append(contentsOf: answer.capabilities)
      } else {
        answer.untagged.append("* CAPABILITY ")
        answer.untagged.append(contentsOf: answer.capabilities)
        answer.untagged.endLine()
      }
    }
    relayed("OK", answer, tag: tag, "Logged in.", &out)
  }

  /// Response codes: RFC 5530 §3.
  static func refused(_ refusal: LoginRefusal, tag: [UInt8], _ out: inout [UInt8]) {
    switch refusal {
    case .credentials: tagged(tag.span, "NO [AUTHENTICATIONFAILED] Authentication failed.", &out)
    case .backend(let answer): relayed("NO", answer, tag: tag, "Login refused.", &out)
    case .unavailable: tagged(tag.span, "NO [UNAVAILABLE] Account is temporarily unavailable.", &out)
    case .misconfigured: tagged(tag.span, "NO [SERVERBUG] Account is temporarily unavailable.", &out)
    case .disabled: tagged(tag.span, "NO [CONTACTADMIN] Login is disabled for this account.", &out)
    case .limit: tagged(tag.span, "NO [LIMIT] Too many connections for this account.", &out)
    case .mechanism:
      tagged(tag.span, "NO [CANNOT] This mechanism can't be used for this account, another may.", &out)
    case .cancelled: bad(tag.span, "Authentication cancelled.", &out)
    }
  }

  private static func relayed(
    _ condition: StaticString, _ answer: BackendAnswer, tag: [UInt8], _ usual: StaticString, _ out: inout [UInt8]
  ) {
    out.append(contentsOf: answer.untagged)
    out.append(contentsOf: tag)
    out.append(.space)
    out.append(condition)
    if !answer.code.isEmpty {
      out.append(" [")
      out.append(contentsOf: answer.code)
      out.append(.ascii("]"))
    }
    // RFC 9051 §9: resp-text ends with text of at least one character.
    out.append(.space)
    if answer.text.isEmpty { out.append(usual) } else { out.append(contentsOf: answer.text) }
    out.endLine()
  }
}

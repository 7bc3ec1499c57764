/// Renders what is said to a POP3 client before login.
enum POP3Reply {
  static func ok(_ text: StaticString, _ out: inout [UInt8]) {
    out.append("+OK ")
    out.append(text)
    out.endLine()
  }

  static func error(_ text: StaticString, _ out: inout [UInt8]) {
    out.append("-ERR ")
    out.append(text)
    out.endLine()
  }

  /// A +OK of parts: the backend's, or the greeting.
  static func accepted(_ answer: BackendAnswer, _ out: inout [UInt8]) {
    relayed("+OK", answer, &out)
  }

  /// Response codes: RFC 3206 §4 (SYS/TEMP, SYS/PERM, AUTH).
  static func refused(_ refusal: LoginRefusal, _ out: inout [UInt8]) {
    switch refusal {
    case .credentials: error("[AUTH] Authentication failed.", &out)
    case .backend(let answer): relayed("-ERR", answer, &out)
    case .unavailable: error("[SYS/TEMP] Account is temporarily unavailable.", &out)
    case .misconfigured: error("[SYS/PERM] Account is unavailable.", &out)
    case .disabled: error("[SYS/PERM] Login is disabled for this account.", &out)
    // RFC 2449 §8.1.1; Dovecot's code for it too.
    case .limit: error("[IN-USE] Too many connections for this account.", &out)
    case .mechanism: error("[AUTH] This mechanism can't be used for this account, another may.", &out)
    case .cancelled: error("Authentication cancelled.", &out)
    }
  }

  private static func relayed(_ status: StaticString, _ answer: BackendAnswer, _ out: inout [UInt8]) {
    out.append(status)
    if !answer.code.isEmpty {
      out.append(" [")
      out.append(contentsOf: answer.code)
      out.append(.ascii("]"))
    }
    if !answer.text.isEmpty {
      out.append(.space)
      out.append(contentsOf: answer.text)
    }
    out.endLine()
  }
}

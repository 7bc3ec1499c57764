/// Why TLS failed, as a value: OpenSSL's error queue, drained at once.

internal import COpenSSL

package struct TLSFailure: Error, Equatable, Sendable, CustomStringConvertible {
  /// What kind of failure it is.
  package let kind: Kind
  /// OpenSSL's words for the first error in its queue.
  package let reason: String

  /// Kinds of failure that are answered differently.
  package enum Kind: Equatable, Sendable {
    /// The peer's certificate was not accepted, or it had none.
    case certificate
    /// All else, a peer that does not accept our certificate among it.
    case protocolError
  }

  /// A failure in words.
  package init(kind: Kind = .protocolError, reason: String) {
    self.kind = kind
    self.reason = reason
  }

  /// Takes what is in the thread's error queue and leaves the queue empty. The first error is the cause; what follows
  /// are the callers' complaints about it.
  static func drain(otherwise fallback: String) -> TLSFailure {
    let code = ERR_get_error()
    ERR_clear_error()
    guard code != 0 else { return TLSFailure(reason: fallback) }
    // A system call's errno stands under a flag of its own, and the library has no words for it (ERR_GET_REASON(3)).
    if code & systemErrorFlag != 0 { return TLSFailure(reason: SystemError(Int32(code & 0x7FFF_FFFF)).description) }
    // SAFETY: the text is a constant of the library.
    guard let text = unsafe ERR_reason_error_string(code) else { return TLSFailure(reason: "error \(code)") }
    return unsafe TLSFailure(kind: kind(code), reason: String(cString: text))
  }

  private static func kind(_ code: UInt) -> Kind {
    guard ERR_GET_LIB(code) == ERR_LIB_SSL else { return .protocolError }
    return switch ERR_GET_REASON(code) {
    case SSL_R_CERTIFICATE_VERIFY_FAILED, SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE, SSL_R_EE_KEY_TOO_SMALL,
      SSL_R_CA_KEY_TOO_SMALL, SSL_R_CA_MD_TOO_WEAK:
      .certificate
    default: .protocolError
    }
  }

  /// ERR_SYSTEM_FLAG of OpenSSL 3.
  private static let systemErrorFlag: UInt = 1 << 31

  /// The reason.
  package var description: String { reason }
}

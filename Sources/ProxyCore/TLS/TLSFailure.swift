/// Why TLS failed, as a value: OpenSSL's error queue, drained at once.

internal import COpenSSL

package struct TLSFailure: Error, Equatable, Sendable, CustomStringConvertible {
  /// OpenSSL's words for the first error in its queue.
  package let reason: String

  /// A failure in words.
  package init(reason: String) { self.reason = reason }

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
    return unsafe TLSFailure(reason: String(cString: text))
  }

  /// ERR_SYSTEM_FLAG of OpenSSL 3.
  private static let systemErrorFlag: UInt = 1 << 31

  /// The reason.
  package var description: String { reason }
}

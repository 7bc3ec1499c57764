/// One TLS connection: owns OpenSSL's object for it, and turns every outcome into a value.
///
/// OpenSSL keeps errors in a queue per thread, and a loop's queue may hop threads: every call here starts with an empty
/// queue and leaves an empty one behind.

internal import COpenSSL

@safe
package struct TLSSession: ~Copyable {
  private let raw: OpaquePointer
  /// After a fatal error nothing may be written, not even the goodbye (SSL_shutdown(3)).
  private var isBroken = false

  /// The server's side of a connection on `descriptor`, which stays the caller's. Nil if there is no memory.
  package init?(server context: TLSContext, on descriptor: borrowing Descriptor) {
    ERR_clear_error()
    guard let session = unsafe SSL_new(context.raw) else { return nil }
    guard unsafe SSL_set_fd(session, descriptor.raw) == 1 else {
      unsafe SSL_free(session)
      ERR_clear_error()
      return nil
    }
    unsafe SSL_set_accept_state(session)
    unsafe raw = session
  }

  deinit {
    unsafe SSL_free(raw)
    ERR_clear_error()
  }

  /// What came of a step of the handshake.
  package enum Handshake: Equatable, Sendable {
    case done
    case blocked(IOResult.Blocked)
    case closed
    case failed(IOFailure)
  }

  /// Takes the handshake as far as it goes.
  package mutating func handshake() -> Handshake {
    prepare()
    let result = unsafe SSL_do_handshake(raw)
    if result == 1 { return .done }
    switch outcome(result) {
    case .bytes: preconditionFailure("a handshake moves no bytes")
    case .blocked(let why): return .blocked(why)
    case .closed: return .closed
    case .failed(let failure): return .failed(failure)
    }
  }

  /// Reads at most one record. Call it until it is blocked or `hasPending` is false: what OpenSSL holds already causes no
  /// event.
  package mutating func read(into buffer: UnsafeMutableRawBufferPointer) -> IOResult {
    prepare()
    // SAFETY: the buffer is the caller's for the time of the call.
    let result = unsafe SSL_read(raw, buffer.baseAddress, Int32(clamping: buffer.count))
    return result > 0 ? .bytes(Int(result)) : outcome(result)
  }

  /// Writes at most one record. If it is blocked, the next write must begin with the same bytes.
  package mutating func write(_ bytes: Span<UInt8>) -> IOResult {
    prepare()
    // SAFETY: the span lends its memory for the time of the call.
    let result = unsafe bytes.withUnsafeBytes { unsafe SSL_write(raw, $0.baseAddress, Int32(clamping: $0.count)) }
    return result > 0 ? .bytes(Int(result)) : outcome(result)
  }

  /// Whether OpenSSL holds bytes, decrypted or not, that no event will tell of.
  package var hasPending: Bool { unsafe SSL_has_pending(raw) == 1 }

  /// Says that nothing more will be written (RFC 8446 §6.1). Best effort: a full socket loses it.
  package mutating func sayGoodbye() {
    guard !isBroken, unsafe SSL_is_init_finished(raw) == 1 else { return }
    prepare()
    _ = unsafe SSL_shutdown(raw)
    ERR_clear_error()
  }

  /// The protocol's version as logged, `TLSv1.3`.
  package var version: String {
    // SAFETY: the text is a constant of the library.
    unsafe String(cString: SSL_get_version(raw))
  }

  /// The cipher's name as OpenSSL has it.
  package var cipher: String {
    // SAFETY: the text is a constant of the library.
    guard let name = unsafe SSL_CIPHER_get_name(SSL_get_current_cipher(raw)) else { return "none" }
    return unsafe String(cString: name)
  }

  /// Whether the client came back with a ticket.
  package var isResumed: Bool { unsafe SSL_session_reused(raw) == 1 }

  private func prepare() {
    if ERR_peek_error() != 0 { ERR_clear_error() }
    Syscall.clearLastError()
  }

  private mutating func outcome(_ result: Int32) -> IOResult {
    switch unsafe SSL_get_error(raw, result) {
    case SSL_ERROR_WANT_READ: return .blocked(.readable)
    case SSL_ERROR_WANT_WRITE: return .blocked(.writable)
    case SSL_ERROR_ZERO_RETURN: return .closed
    case SSL_ERROR_SYSCALL:
      isBroken = true
      let error = Syscall.lastError
      ERR_clear_error()
      return error.code == 0 ? .closed : .failed(.system(error))
    default:
      isBroken = true
      return .failed(.tls(TLSFailure.drain(otherwise: "unknown TLS error")))
    }
  }
}

/// A hash function of OpenSSL's, for places on a ring: fetched once, and no memory is taken for a call.

internal import COpenSSL
internal import Synchronization

/// Shared by all loops; a call holds its lock for a fifth of a microsecond.
final class Digest: Sendable {
  /// The functions there is a use for. Neither guards anything here.
  enum Function: String, Sendable {
    /// Dovecot Director's. A system in FIPS mode may be without it.
    case md5 = "MD5"
    case sha256 = "SHA256"
  }

  /// Why there is none.
  struct Unavailable: Error, Equatable {
    let reason: String
  }

  private let context: Mutex<Context>

  /// One of the functions. ("-fips": no key or password is hashed, so a module that only allows MD5 for such use may.)
  convenience init(_ function: Function) throws(Unavailable) { try self.init(named: function.rawValue) }

  init(named name: String) throws(Unavailable) {
    ERR_clear_error()
    // SAFETY: the names are lent as C strings; what is fetched and made here is the context's, or freed here.
    guard let function = unsafe EVP_MD_fetch(nil, name, "-fips") else {
      throw Unavailable(reason: "\(name): \(TLSFailure.drain(otherwise: "there is no such digest").reason)")
    }
    guard let raw = unsafe EVP_MD_CTX_new() else {
      unsafe EVP_MD_free(function)
      throw Unavailable(reason: "\(name): no memory")
    }
    context = unsafe Mutex(Context(raw, function))
  }

  /// The digest's first eight bytes, the first one highest.
  func prefix(_ bytes: Span<UInt8>) -> UInt64 { context.withLock { $0.prefix(bytes) } }

  @safe
  private struct Context: ~Copyable {
    private let raw: OpaquePointer
    private let function: OpaquePointer

    init(_ raw: OpaquePointer, _ function: OpaquePointer) {
      unsafe self.raw = raw
      unsafe self.function = function
    }

    deinit {
      unsafe EVP_MD_CTX_free(raw)
      unsafe EVP_MD_free(function)
    }

    func prefix(_ bytes: Span<UInt8>) -> UInt64 {
      // With the same function as before, the context keeps its memory. SAFETY: EVP_MAX_MD_SIZE is 64 bytes.
      unsafe withUnsafeTemporaryAllocation(byteCount: 64, alignment: 8) { digest in
        let isDone = unsafe bytes.withUnsafeBytes { buffer in
          unsafe EVP_DigestInit_ex(raw, function, nil) == 1
            && EVP_DigestUpdate(raw, buffer.baseAddress, buffer.count) == 1
            && EVP_DigestFinal_ex(raw, digest.bindMemory(to: UInt8.self).baseAddress, nil) == 1
        }
        precondition(isDone, "OpenSSL can't compute a digest")
        return unsafe UInt64(bigEndian: digest.load(as: UInt64.self))
      }
    }
  }
}

/// Compares a password with a hash of crypt(3): libxcrypt's interface, with its working memory.

internal import CCrypt
internal import Glibc
internal import Protocols

@safe
final class CryptCheck: SourceConnection {
  /// 32 KiB; each thread has its own.
  private let work: UnsafeMutablePointer<crypt_data>

  init() {
    unsafe work = .allocate(capacity: 1)
    // SAFETY: crypt(3): all zero is how it begins.
    unsafe UnsafeMutableRawBufferPointer(start: work, count: MemoryLayout<crypt_data>.size).initializeMemory(
      as: UInt8.self, repeating: 0)
  }

  deinit { unsafe work.deallocate() }

  /// The time is the hash's: once begun, a check can't be ended.
  func answer(_ request: SourceRequest, until deadline: UInt64) -> SourceReply {
    guard case .hashed(let password, let hash) = request.credential else {
      preconditionFailure("a check without a password and a hash")
    }
    return .answer(password.withSpan { password in hash.withSpan { check(password, $0) } })
  }

  private func check(_ password: Span<UInt8>, _ text: Span<UInt8>) -> SourceAnswer {
    let setting: Span<UInt8>
    switch CryptHash(text) {
    case .locked: return .refused(SourceAnswer.Refusal())
    case .unusable(let why): return .failed("the user's hash can't be used: \(why)")
    case .from(let start): setting = text.extracting(start...)
    }
    // To C a password ends with its first NUL: what stands behind it would not be checked.
    guard password.firstIndex(of: .nul) == nil else { return .refused(SourceAnswer.Refusal()) }
    var phrase = Secret(password)
    phrase.append(.nul)
    var wanted = Secret(setting)
    wanted.append(.nul)
    return unsafe phrase.span.withUnsafeBytes { phrase in
      unsafe wanted.span.withUnsafeBytes { wanted in unsafe compute(phrase, wanted) }
    }
  }

  /// Both texts end with NUL.
  private func compute(_ phrase: UnsafeRawBufferPointer, _ wanted: UnsafeRawBufferPointer) -> SourceAnswer {
    guard let phrase = unsafe phrase.baseAddress?.assumingMemoryBound(to: CChar.self),
      let setting = unsafe wanted.baseAddress?.assumingMemoryBound(to: CChar.self)
    else { preconditionFailure("a text without its end") }
    // SAFETY: both texts end with NUL; the memory is of the size told, and this thread's alone.
    guard let made = unsafe crypt_rn(phrase, setting, work, Int32(MemoryLayout<crypt_data>.size)) else {
      // libxcrypt takes no password beyond 512 bytes; whose hash is in order is refused with it.
      let isHash = unsafe crypt_checksalt(setting) != CRYPT_SALT_INVALID
      let isLong =
        unsafe wanted.count > 0 && strnlen(phrase, Int(CRYPT_MAX_PASSPHRASE_SIZE)) >= CRYPT_MAX_PASSPHRASE_SIZE
      return isHash && isLong
        ? .refused(SourceAnswer.Refusal())
        : .failed("the user's hash can't be used: this system's crypt(3) does not know its method")
    }
    return unsafe CryptCheck.isSame(made, wanted)
      ? .found(Destination("")) : .refused(SourceAnswer.Refusal())
  }

  /// Compares in a time that does not depend on where they differ. The second text ends with NUL.
  private static func isSame(_ made: UnsafePointer<CChar>, _ wanted: UnsafeRawBufferPointer) -> Bool {
    // SAFETY: what crypt made ends with NUL.
    guard unsafe strlen(made) == wanted.count - 1 else { return false }
    var difference: UInt8 = 0
    for index in wanted.indices { unsafe difference |= UInt8(bitPattern: made[index]) ^ wanted[index] }
    return difference == 0
  }
}

/// PCRE2's C interface with owners and values: a compiled pattern, and the memory a match needs.

internal import CPCRE2

/// A pattern that must match a whole name, letters compared without regard to case. Immutable, shared by all loops.
@safe
final class RegexPattern: Sendable {
  /// SAFETY: pcre2api(3): compiled code is read-only and may be used by several threads at once.
  nonisolated(unsafe) private let code: OpaquePointer
  let captures: Int

  struct Fault: Error, Equatable, Sendable {
    let message: String
    /// Bytes from the pattern's front.
    let offset: Int
  }

  /// What came of a match: the groups' places, the whole name first.
  enum Match: Equatable, Sendable {
    case yes([Range<Int>?])
    case no
    case failed(String)
  }

  private init(_ code: OpaquePointer, captures: Int) {
    unsafe self.code = code
    self.captures = captures
  }

  deinit { unsafe pcre2_code_free_8(code) }

  static func compile(_ pattern: String) -> Result<RegexPattern, Fault> {
    var error: Int32 = 0
    var offset = 0
    var bytes = Array(pattern.utf8)
    let options = pcre2_caseless | pcre2_anchored | pcre2_endanchored
    // SAFETY: the pattern's bytes and length are told; PCRE2 keeps no pointer to them.
    guard let code = unsafe pcre2_compile_8(&bytes, bytes.count, options, &error, &offset, nil) else {
      return .failure(Fault(message: message(error), offset: offset))
    }
    // Without the just-in-time compiler, on a machine that has none, matches are interpreted: slower, not different.
    unsafe pcre2_jit_compile_8(code, pcre2_jit_complete)
    var captures: UInt32 = 0
    unsafe pcre2_pattern_info_8(code, pcre2_info_capture_count, &captures)
    return .success(unsafe RegexPattern(code, captures: Int(captures)))
  }

  /// A name that makes a pattern try too hard is a failure of the lookup, not a name that does not match.
  func match(_ name: [UInt8], _ scratch: RegexScratch) -> Match {
    let count = unsafe name.withUnsafeBufferPointer { buffer in
      unsafe pcre2_match_8(code, buffer.baseAddress, buffer.count, 0, 0, scratch.data, scratch.limits)
    }
    if count == PCRE2_ERROR_NOMATCH { return .no }
    guard count > 0, let places = unsafe pcre2_get_ovector_pointer_8(scratch.data) else {
      return .failed(RegexPattern.message(count))
    }
    // SAFETY: the vector has a pair for the whole and each group; pairs beyond `count` belong to groups that took no
    // part.
    let groups = (0...captures).map { group -> Range<Int>? in
      // PCRE2_UNSET is all bits set, which a size_t read as a signed number has as -1.
      guard group < count, unsafe places[2 * group] >= 0 else { return nil }
      // A lookbehind with \K can put the end before the start.
      return unsafe places[2 * group] <= places[2 * group + 1] ? places[2 * group]..<places[2 * group + 1] : nil
    }
    return .yes(groups)
  }

  private static func message(_ code: Int32) -> String {
    var text = [UInt8](repeating: 0, count: 256)
    // SAFETY: the buffer's size is told; the text ends with NUL.
    let count = unsafe pcre2_get_error_message_8(code, &text, text.count)
    return count > 0 ? String(decoding: text.prefix(Int(count)), as: UTF8.self) : "error \(code)"
  }
}

/// What matches need and leave behind: one for each loop.
@safe
final class RegexScratch {
  fileprivate let data: OpaquePointer
  fileprivate let limits: OpaquePointer

  /// PCRE2's count of internal matches; a hostile name gives up after 14 to 32 µs with it (prototypes, Q5).
  private static let matchLimit: UInt32 = 10_000

  init(captures: Int) {
    guard let data = unsafe pcre2_match_data_create_8(UInt32(captures) + 1, nil),
      let limits = unsafe pcre2_match_context_create_8(nil)
    else { fatalError("no memory for a regular expression's match") }
    unsafe self.data = data
    unsafe self.limits = limits
    unsafe pcre2_set_match_limit_8(limits, RegexScratch.matchLimit)
    unsafe pcre2_set_depth_limit_8(limits, RegexScratch.matchLimit)
  }

  deinit {
    unsafe pcre2_match_data_free_8(data)
    unsafe pcre2_match_context_free_8(limits)
  }
}

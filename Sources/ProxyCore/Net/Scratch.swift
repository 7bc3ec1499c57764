/// The one buffer of a loop that all its sessions read into. Nothing stays in it from one session to the next.

internal import Glibc

@safe
struct Scratch: ~Copyable {
  private let memory: UnsafeMutableRawBufferPointer

  init(size: Int) {
    unsafe memory = UnsafeMutableRawBufferPointer.allocate(byteCount: size, alignment: 64)
    // SAFETY: all of it is ours; initialised once so that no span ever covers memory nobody wrote.
    unsafe memory.initializeMemory(as: UInt8.self, repeating: 0)
  }

  deinit { unsafe memory.deallocate() }

  var size: Int { unsafe memory.count }

  /// Lends the memory behind the first `start` bytes to read into.
  @inline(__always)
  mutating func fill(from start: Int, _ read: (UnsafeMutableRawBufferPointer) -> IOResult) -> IOResult {
    // SAFETY: the slice lies within the memory.
    unsafe read(UnsafeMutableRawBufferPointer(rebasing: memory[start...]))
  }

  /// The first `count` bytes.
  @_lifetime(borrow self)
  func span(_ count: Int) -> Span<UInt8> {
    // SAFETY: the memory is initialised and lives as long as self is borrowed.
    let bytes = unsafe UnsafeRawBufferPointer(rebasing: memory[..<count]).assumingMemoryBound(to: UInt8.self)
    return unsafe _overrideLifetime(Span(_unsafeElements: bytes), borrowing: self)
  }

  /// Overwrites the first `count` bytes, after a secret was in them.
  mutating func wipe(_ count: Int) {
    // SAFETY: the bytes lie within the memory; explicit_bzero is not optimised away.
    if let base = unsafe memory.baseAddress { unsafe explicit_bzero(base, count) }
  }
}

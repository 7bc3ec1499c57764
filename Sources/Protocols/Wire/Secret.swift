/// Holds a password or token and wipes it: when it is emptied, when it grows and when it goes.
///
/// It has no description, is not copyable and not comparable, so that it can't reach a log or outlive its owner.
@safe
package struct Secret: ~Copyable {
  private var storage: UnsafeMutableBufferPointer<UInt8>
  /// Bytes held.
  package private(set) var count = 0

  /// An empty secret, without memory.
  package init() {
    // SAFETY: an empty buffer has no memory; `reserve` allocates before anything is written.
    unsafe storage = UnsafeMutableBufferPointer(start: nil, count: 0)
  }

  /// A copy of the bytes.
  package init(_ span: Span<UInt8>) {
    self.init()
    append(span)
  }

  deinit {
    // SAFETY: the storage is this value's alone and all of it was initialised when it was allocated.
    unsafe Secret.wipe(storage)
    unsafe storage.deallocate()
  }

  /// Whether it holds nothing.
  package var isEmpty: Bool { count == 0 }

  /// The secret, lent.
  package var span: Span<UInt8> {
    @_lifetime(borrow self)
    get {
      // SAFETY: the first `count` bytes are initialised and live as long as self is borrowed.
      let bytes = unsafe UnsafeBufferPointer(rebasing: storage[..<count])
      return unsafe _overrideLifetime(Span(_unsafeElements: bytes), borrowing: self)
    }
  }

  /// Adds a byte.
  package mutating func append(_ byte: UInt8) {
    reserve(1)
    // SAFETY: `reserve` made room for one more byte.
    unsafe storage[count] = byte
    count += 1
  }

  /// Adds bytes.
  package mutating func append(_ span: Span<UInt8>) {
    reserve(span.count)
    for index in span.indices { append(span[index]) }
  }

  /// Wipes the bytes; the storage stays.
  package mutating func removeAll() {
    // SAFETY: the storage is this value's alone.
    unsafe Secret.wipe(storage)
    count = 0
  }

  /// Makes room for `more` bytes, and wipes what it moves away from.
  private mutating func reserve(_ more: Int) {
    // SAFETY: `grown` is initialised whole before it is read, and the old storage is not used again.
    guard unsafe count + more > storage.count else { return }
    let capacity = unsafe max(64, storage.count * 2, count + more)
    let grown = UnsafeMutableBufferPointer<UInt8>.allocate(capacity: capacity)
    unsafe grown.initialize(repeating: 0)
    for index in 0..<count { unsafe grown[index] = storage[index] }
    unsafe Secret.wipe(storage)
    unsafe storage.deallocate()
    unsafe storage = grown
  }

  /// Overwrites memory that is about to be freed. Neither inlined nor optimised: a compiler that saw both the stores
  /// and the end of the memory's life would be right to drop the stores. The stores themselves are optimised: a loop here
  /// was 1.5 % of a login.
  @inline(never) @_optimize(none)
  private static func wipe(_ memory: UnsafeMutableBufferPointer<UInt8>) { unsafe clear(memory) }

  @inline(never)
  private static func clear(_ memory: UnsafeMutableBufferPointer<UInt8>) { unsafe memory.update(repeating: 0) }
}

extension [UInt8] {
  /// Overwrites the bytes and keeps the storage, for a buffer that carried a secret and is used again.
  package mutating func wipe() {
    for index in indices { self[index] = 0 }
    removeAll(keepingCapacity: true)
  }
}

/// Bytes that could not be passed on yet. Holds no memory while it is empty.

internal import Glibc

@safe
struct ByteQueue: ~Copyable {
  private var memory: UnsafeMutableRawPointer?
  private var capacity: UInt32 = 0
  private var start: UInt32 = 0
  private var end: UInt32 = 0

  init() { unsafe memory = nil }

  deinit {
    // SAFETY: the memory is this queue's alone. It may have carried a password.
    if let memory = unsafe memory {
      unsafe explicit_bzero(memory, Int(capacity))
      unsafe memory.deallocate()
    }
  }

  var count: Int { Int(end - start) }
  var isEmpty: Bool { start == end }

  /// All bytes in order.
  var span: Span<UInt8> {
    @_lifetime(borrow self)
    get {
      // SAFETY: the bytes from start to end were written by `append` and live as long as self is borrowed.
      guard let memory = unsafe memory else { return unsafe _overrideLifetime(Span(), borrowing: self) }
      let bytes = unsafe UnsafeRawBufferPointer(start: memory + Int(start), count: count)
        .assumingMemoryBound(to: UInt8.self)
      return unsafe _overrideLifetime(Span(_unsafeElements: bytes), borrowing: self)
    }
  }

  mutating func append(_ bytes: Span<UInt8>) {
    guard bytes.count > 0 else { return }
    reserve(bytes.count)
    unsafe bytes.withUnsafeBytes { source in
      // SAFETY: `reserve` made room behind `end`, and a queue never holds the span it is given.
      guard let base = source.baseAddress else { return }
      unsafe memory?.advanced(by: Int(end)).copyMemory(from: base, byteCount: source.count)
    }
    end += UInt32(bytes.count)
  }

  /// Drops bytes from the front; the memory goes with the last one.
  mutating func removeFirst(_ number: Int) {
    precondition(number <= count, "more bytes dropped than there are")
    start += UInt32(number)
    if start == end { removeAll() }
  }

  mutating func removeAll() { self = ByteQueue() }

  private mutating func reserve(_ more: Int) {
    guard Int(end) + more > Int(capacity) else { return }
    var grown = ByteQueue()
    let size = max(256, count + more, count * 2)
    // SAFETY: the new memory has room for all; it is written from its front only.
    let fresh = UnsafeMutableRawPointer.allocate(byteCount: size, alignment: 16)
    unsafe grown.memory = fresh
    grown.capacity = UInt32(size)
    unsafe span.withUnsafeBytes { source in
      if let base = source.baseAddress { unsafe fresh.copyMemory(from: base, byteCount: source.count) }
    }
    grown.end = UInt32(count)
    self = grown
  }
}

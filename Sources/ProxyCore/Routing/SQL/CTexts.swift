/// Holds texts as the databases' libraries want them: a NUL behind each, a null behind the last, all wiped at the end.

#if PostgreSQL || MySQL
  internal import Glibc

  @safe
  final class CTexts {
    /// A null follows the last text; a null in between stands for no value.
    let list: UnsafeMutablePointer<UnsafePointer<CChar>?>
    private var sizes: [Int] = []
    private let capacity: Int

    /// Room for so many texts.
    init(capacity: Int) {
      self.capacity = capacity
      unsafe list = .allocate(capacity: capacity + 1)
      unsafe list.initialize(repeating: nil, count: capacity + 1)
    }

    deinit {
      for (index, size) in sizes.enumerated() {
        // SAFETY: every text was allocated here with its size, and is freed once.
        guard let text = unsafe UnsafeMutablePointer(mutating: list[index]) else { continue }
        unsafe explicit_bzero(text, size)
        unsafe text.deallocate()
      }
      unsafe list.deallocate()
    }

    /// Adds a text.
    func add(_ text: some Collection<UInt8>) {
      let copy = unsafe place(text.count)
      for (index, byte) in text.enumerated() { unsafe put(byte, copy + index) }
    }

    /// Adds a secret.
    func add(_ secret: SharedSecret) {
      secret.withSpan { span in
        let copy = unsafe place(span.count)
        for index in span.indices { unsafe put(span[index], copy + index) }
      }
    }

    /// Adds a text.
    func add(_ text: String) { add(text.utf8) }

    /// Adds no value.
    func addNull() {
      precondition(sizes.count < capacity, "no room for a null")
      sizes.append(0)
    }

    /// Room for so many bytes and the NUL behind them.
    private func place(_ count: Int) -> UnsafeMutablePointer<CChar> {
      precondition(sizes.count < capacity, "no room for a text")
      let copy = UnsafeMutablePointer<CChar>.allocate(capacity: count + 1)
      unsafe copy.initialize(repeating: 0, count: count + 1)
      unsafe list[sizes.count] = UnsafePointer(copy)
      sizes.append(count + 1)
      return unsafe copy
    }

    private func put(_ byte: UInt8, _ place: UnsafeMutablePointer<CChar>) {
      precondition(byte != 0, "to C a NUL is the end")
      unsafe place.pointee = CChar(bitPattern: byte)
    }
  }
#endif

/// Owns an open file descriptor and closes it exactly once.
package struct Descriptor: ~Copyable, Sendable {
  let raw: Int32

  /// Takes over a descriptor nobody else closes.
  package init(owning raw: Int32) {
    precondition(raw >= 0, "not a descriptor")
    self.raw = raw
  }

  deinit { Syscall.close(raw) }
}

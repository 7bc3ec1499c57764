/// A loop's epoll set and the events it last gave.

internal import CLinux

@safe
struct PollSet: ~Copyable {
  let descriptor: Descriptor
  private let events: UnsafeMutableBufferPointer<epoll_event>

  /// What a descriptor is watched for, besides its errors, which are always told.
  struct Interest: Equatable, Sendable {
    var reads = false
    var writes = false

    fileprivate var raw: UInt32 { (reads ? linux_epoll_in : 0) | (writes ? linux_epoll_out : 0) }
  }

  /// `batch`: events taken at once.
  init(batch: Int) throws(SystemError) {
    descriptor = Descriptor(owning: try Syscall.makeEpoll().get())
    unsafe events = UnsafeMutableBufferPointer<epoll_event>.allocate(capacity: batch)
  }

  deinit { unsafe events.deallocate() }

  /// How many events there are after at most `milliseconds`.
  func wait(milliseconds: Int32) -> Int { unsafe Syscall.wait(descriptor, events, milliseconds: milliseconds) }

  /// An event of the last wait: whose it is, and whether the connection is dead in both directions.
  func event(_ index: Int) -> (token: Token, isHangup: Bool) {
    // SAFETY: `wait` filled the events up to the number it returned.
    let event = unsafe events.baseAddress.unsafelyUnwrapped + index
    let isHangup = unsafe linux_epoll_events(event) & (linux_epoll_err | linux_epoll_hup) != 0
    return unsafe (Token(raw: linux_epoll_data(event)), isHangup)
  }

  /// Changes what is watched; nil for not at all. The kernel is asked only if something changes.
  func watch(_ descriptor: borrowing Descriptor, _ token: Token, from old: Interest?, to new: Interest?) -> SystemError?
  {
    guard old != new else { return nil }
    let set = self.descriptor.raw
    let operation: PollOperation = old == nil ? .add : new == nil ? .remove : .modify
    return Syscall.control(set, operation, descriptor.raw, events: new?.raw ?? 0, token: token.raw)
  }

  /// Watches a listening socket that other loops watch too: one of them is woken for a connection.
  func watchShared(_ descriptor: borrowing Descriptor, _ token: Token) -> SystemError? {
    Syscall.control(
      self.descriptor.raw, .add, descriptor.raw, events: linux_epoll_in | linux_epoll_exclusive, token: token.raw)
  }

  func unwatch(_ descriptor: borrowing Descriptor) {
    _ = Syscall.control(self.descriptor.raw, .remove, descriptor.raw, events: 0, token: 0)
  }
}

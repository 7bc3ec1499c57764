/// The one door to the kernel: every system call of the proxy, every errno, and the one loop around EINTR.

internal import CLinux
internal import Glibc

/// An error the kernel reported.
package struct SystemError: Error, Equatable, Sendable, CustomStringConvertible {
  /// The errno.
  package let code: Int32

  /// An errno as an error.
  package init(_ code: Int32) { self.code = code }

  /// The C library's words for it.
  package var description: String {
    // SAFETY: strerror's text is copied at once; on glibc it is a constant for every known code.
    unsafe String(cString: strerror(code))
  }

  /// The kernel does not know this kind of address.
  var isUnknownFamily: Bool { code == EAFNOSUPPORT || code == EADDRNOTAVAIL }
  /// No descriptor is left, for the process or for the system.
  var isOutOfDescriptors: Bool { code == EMFILE || code == ENFILE }
  /// The user's limit of watched descriptors is reached (epoll_ctl(2)).
  static let noSpace = ENOSPC
  /// The kernel has no memory for a socket.
  var isOutOfMemory: Bool { code == ENOBUFS || code == ENOMEM }
  /// A connection can't be begun for a lack of ours: no port is left towards that address (connect(2)), or no memory.
  var isLackToConnect: Bool { code == EADDRNOTAVAIL || isOutOfMemory }
}

/// What came of an attempt to move bytes. A full or empty socket is an answer, not an error.
package enum IOResult: Equatable, Sendable {
  case bytes(Int)
  /// Nothing can be moved before the socket is readable or writable.
  case blocked(Blocked)
  /// The peer ended its direction.
  case closed
  case failed(IOFailure)

  /// What has to happen before bytes can be moved.
  package enum Blocked: Equatable, Sendable { case readable, writable }
}

/// Why bytes can't be moved any more.
package enum IOFailure: Equatable, Sendable, CustomStringConvertible {
  case system(SystemError)
  case tls(TLSFailure)

  /// The system's or OpenSSL's words.
  package var description: String {
    switch self {
    case .system(let error): error.description
    case .tls(let failure): failure.description
    }
  }
}

/// The system calls, by name.
enum Syscall {
  /// What a call returned, or its errno.
  static func call(_ body: () -> Int) -> Result<Int, SystemError> {
    while true {
      let result = body()
      if result >= 0 { return .success(result) }
      let code = errno
      if code == EINTR { continue }
      // These are mistakes of ours, whatever a peer does: a descriptor used after its end, memory that is not ours.
      precondition(code != EBADF && code != EFAULT && code != ENOTSOCK, "system call failed with errno \(code)")
      return .failure(SystemError(code))
    }
  }

  /// The errno of a library's last call, for OpenSSL's SSL_ERROR_SYSCALL.
  static var lastError: SystemError { SystemError(errno) }

  /// OpenSSL leaves errno alone when a peer just closes; what was there before must not be taken for its reason.
  static func clearLastError() { errno = 0 }

  // MARK: Bytes

  /// From a socket. (`recv` goes to it straight; `read` would pass the file system's layer first.)
  static func receive(_ descriptor: borrowing Descriptor, into buffer: UnsafeMutableRawBufferPointer) -> IOResult {
    let fd = descriptor.raw
    if let played = KernelPlay.result(of: .receive, on: fd) { return played }
    // SAFETY: the buffer is the caller's for the time of the call.
    return moved(call { unsafe recv(fd, buffer.baseAddress, buffer.count, 0) })
  }

  /// From a socket, and the bytes stay there.
  static func peek(_ descriptor: borrowing Descriptor, into buffer: UnsafeMutableRawBufferPointer) -> IOResult {
    let fd = descriptor.raw
    // SAFETY: the buffer is the caller's for the time of the call.
    return moved(call { unsafe recv(fd, buffer.baseAddress, buffer.count, Int32(MSG_PEEK)) })
  }

  /// From a file.
  static func read(_ descriptor: borrowing Descriptor, into buffer: UnsafeMutableRawBufferPointer) -> IOResult {
    let fd = descriptor.raw
    // SAFETY: the buffer is the caller's for the time of the call.
    return moved(call { unsafe Glibc.read(fd, buffer.baseAddress, buffer.count) })
  }

  /// From a place in a file. Fewer bytes than there is room for: the file ends there.
  static func read(
    _ descriptor: borrowing Descriptor, at offset: UInt64, into buffer: UnsafeMutableRawBufferPointer
  ) -> Result<Int, SystemError> {
    let fd = descriptor.raw
    guard let start = off_t(exactly: offset) else { return .success(0) }
    var count = 0
    while count < buffer.count {
      // SAFETY: the buffer is the caller's for the time of the call, and `count` bytes of it are filled.
      let result = call {
        unsafe pread(fd, buffer.baseAddress.map { unsafe $0 + count }, buffer.count - count, start + off_t(count))
      }
      switch result {
      case .failure(let error): return .failure(error)
      case .success(0): return .success(count)
      case .success(let more): count += more
      }
    }
    return .success(count)
  }

  private static func moved(_ result: Result<Int, SystemError>) -> IOResult {
    switch result {
    case .success(0): return .closed
    case .success(let count): return .bytes(count)
    case .failure(let error) where error.code == EAGAIN: return .blocked(.readable)
    case .failure(let error): return .failed(.system(error))
    }
  }

  static func send(_ descriptor: borrowing Descriptor, _ bytes: Span<UInt8>) -> IOResult {
    let fd = descriptor.raw
    if let played = KernelPlay.result(of: .send, on: fd) { return played }
    // SAFETY: the span lends its memory for the time of the call.
    let result = unsafe bytes.withUnsafeBytes { buffer in
      call({ unsafe linux_send(fd, buffer.baseAddress, buffer.count) })
    }
    switch result {
    case .success(let count): return .bytes(count)
    case .failure(let error) where error.code == EAGAIN: return .blocked(.writable)
    case .failure(let error): return .failed(.system(error))
    }
  }

  /// Ends our direction of a connection; a peer that is gone already is no error.
  static func shutdownWrite(_ descriptor: borrowing Descriptor) {
    let fd = descriptor.raw
    _ = call { Int(Glibc.shutdown(fd, Int32(SHUT_WR))) }
  }

  static func close(_ fd: Int32) {
    // Not repeated on EINTR: on Linux the descriptor is gone by then.
    let result = Glibc.close(fd)
    precondition(result == 0 || errno != EBADF, "a descriptor was closed twice")
  }

  /// A file to write log lines to: created if missing, readable for its group.
  static func openForAppending(_ path: String) -> Result<Int32, SystemError> {
    call { unsafe Int(linux_open_append(path)) }.map(Int32.init)
  }

  static func duplicate(_ fd: Int32) -> Result<Int32, SystemError> {
    call { Int(fcntl(fd, F_DUPFD_CLOEXEC, 3)) }.map(Int32.init)
  }

  // MARK: Sockets

  static func streamSocket(_ family: SocketAddress.Family) -> Result<Int32, SystemError> {
    if let played = KernelPlay.error(of: .socket, on: family.raw) { return .failure(played) }
    return call { Int(linux_stream_socket(family.raw)) }.map(Int32.init)
  }

  static func datagramSocket() -> Result<Int32, SystemError> {
    call { Int(linux_datagram_socket()) }.map(Int32.init)
  }

  /// Begins to connect; success also while it is under way.
  static func connect(_ descriptor: borrowing Descriptor, to address: SocketAddress) -> SystemError? {
    let fd = descriptor.raw
    if let played = KernelPlay.error(of: .connect, on: -1) { return played }
    // SAFETY: the address lends its memory for the time of the call.
    let result = unsafe address.withSocketAddress { pointer, length in
      call { unsafe Int(Glibc.connect(fd, pointer, length)) }
    }
    switch result {
    case .success: return nil
    case .failure(let error): return error.code == EINPROGRESS ? nil : error
    }
  }

  /// Connects a datagram socket to a path.
  static func connect(_ descriptor: borrowing Descriptor, toUnix path: String) -> SystemError? {
    let fd = descriptor.raw
    return failure(call { unsafe Int(linux_connect_unix(fd, path, path.utf8.count)) })
  }

  /// The next connection in a listening socket's queue; nil if none waits.
  static func accept(_ descriptor: borrowing Descriptor) -> Result<(fd: Int32, peer: SocketAddress), SystemError>? {
    let fd = descriptor.raw
    if let played = KernelPlay.error(of: .accept, on: fd) { return .failure(played) }
    var storage = sockaddr_storage()
    var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
    // SAFETY: the storage is large enough for every address and its size is told.
    let result = unsafe withUnsafeMutablePointer(to: &storage) { storage in
      unsafe storage.withMemoryRebound(to: sockaddr.self, capacity: 1) { pointer in
        call { unsafe Int(linux_accept(fd, pointer, &length)) }
      }
    }
    switch result {
    case .success(let accepted): return .success((Int32(accepted), SocketAddress(storage) ?? .unknown))
    case .failure(let error) where error.code == EAGAIN: return nil
    case .failure(let error): return .failure(error)
    }
  }

  static func bind(_ descriptor: borrowing Descriptor, to address: SocketAddress) -> SystemError? {
    let fd = descriptor.raw
    // SAFETY: the address lends its memory for the time of the call.
    return unsafe address.withSocketAddress { pointer, length in
      failure(call { unsafe Int(Glibc.bind(fd, pointer, length)) })
    }
  }

  static func listen(_ descriptor: borrowing Descriptor, backlog: Int32) -> SystemError? {
    let fd = descriptor.raw
    return failure(call { Int(Glibc.listen(fd, backlog)) })
  }

  /// Our own address of a connection or listening socket.
  static func localAddress(_ descriptor: borrowing Descriptor) -> SocketAddress? {
    unsafe address(descriptor) { unsafe getsockname($0, $1, $2) }
  }

  /// The peer's address; nil if the socket is not connected.
  static func peerAddress(_ descriptor: borrowing Descriptor) -> SocketAddress? {
    unsafe address(descriptor) { unsafe getpeername($0, $1, $2) }
  }

  private static func address(
    _ descriptor: borrowing Descriptor,
    _ get: (Int32, UnsafeMutablePointer<sockaddr>, UnsafeMutablePointer<socklen_t>) -> Int32
  ) -> SocketAddress? {
    let fd = descriptor.raw
    var storage = sockaddr_storage()
    var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
    // SAFETY: as in `accept`.
    let result = unsafe withUnsafeMutablePointer(to: &storage) { storage in
      unsafe storage.withMemoryRebound(to: sockaddr.self, capacity: 1) { unsafe get(fd, $0, &length) }
    }
    return result == 0 ? SocketAddress(storage) : nil
  }

  /// The error a connection attempt or a socket ended with; nil if there is none.
  static func pendingError(_ descriptor: borrowing Descriptor) -> SystemError? {
    var value: Int32 = 0
    var length = socklen_t(MemoryLayout<Int32>.size)
    // SAFETY: the option is an int, and its size is told.
    let result = unsafe getsockopt(descriptor.raw, SOL_SOCKET, SO_ERROR, &value, &length)
    return result == 0 && value != 0 ? SystemError(value) : nil
  }

  /// Options the kernel may be without are set as far as it goes.
  static func setOption(_ descriptor: borrowing Descriptor, _ option: SocketOption, _ value: Int32) -> SystemError? {
    let fd = descriptor.raw
    let (level, name) = option.raw
    var value = value
    // SAFETY: the option is an int, and its size is told.
    return failure(call { unsafe Int(setsockopt(fd, level, name, &value, socklen_t(MemoryLayout<Int32>.size))) })
  }

  // MARK: Process

  /// Raises the limit of open descriptors as far as it goes, and returns it.
  static func raiseDescriptorLimit() -> Int {
    var limit = rlimit()
    // SAFETY: the structure is filled by the first call and read by the second.
    guard unsafe getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return 1_024 }
    limit.rlim_cur = limit.rlim_max
    _ = unsafe setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    _ = unsafe getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
    return Int(clamping: limit.rlim_cur)
  }

  /// The cores this process may use.
  static var usableCores: Int { max(1, Int(linux_usable_cpus())) }

  /// Gives memory that is free back to the system; glibc keeps what a peak of sessions needed.
  static func trimMemory() { _ = malloc_trim(0) }

  /// Becomes another user for good: groups first, while the right to change them is there.
  static func become(_ user: uid_t, _ group: gid_t, named name: String) -> SystemError? {
    failure(call { unsafe Int(initgroups(name, group)) }) ?? failure(call { Int(setgid(group)) })
      ?? failure(call { Int(setuid(user)) })
  }

  // MARK: Polling

  static func makeEpoll() -> Result<Int32, SystemError> { call { Int(linux_epoll_create()) }.map(Int32.init) }

  static func makeEvent() -> Result<Int32, SystemError> { call { Int(linux_eventfd()) }.map(Int32.init) }

  /// Adds, changes or removes a descriptor in an epoll set.
  static func control(
    _ set: Int32, _ operation: PollOperation, _ fd: Int32, events: UInt32, token: UInt64
  ) -> SystemError? {
    if operation == .add, let played = KernelPlay.error(of: .watch, on: set) { return played }
    return failure(call { Int(linux_epoll_ctl(set, operation.raw, fd, events, token)) })
  }

  /// Fills `events` and returns how many. A signal ends the wait with none.
  static func wait(
    _ epoll: borrowing Descriptor, _ events: UnsafeMutableBufferPointer<epoll_event>, milliseconds: Int32
  ) -> Int {
    // SAFETY: the buffer is the loop's own and its size is told.
    let count = unsafe Int(epoll_wait(epoll.raw, events.baseAddress, Int32(events.count), milliseconds))
    precondition(count >= 0 || errno == EINTR, "epoll_wait failed with errno \(errno)")
    return max(0, count)
  }

  /// Makes an eventfd readable.
  static func kick(_ descriptor: borrowing Descriptor) {
    var one: UInt64 = 1
    let fd = descriptor.raw
    // SAFETY: an eventfd takes eight bytes. A full counter (EAGAIN) is readable already.
    _ = call { unsafe Glibc.write(fd, &one, 8) }
  }

  /// Makes an eventfd unreadable.
  static func unkick(_ descriptor: borrowing Descriptor) {
    var count: UInt64 = 0
    let fd = descriptor.raw
    // SAFETY: an eventfd gives eight bytes.
    _ = call { unsafe Glibc.read(fd, &count, 8) }
  }

  static func failure(_ result: Result<Int, SystemError>) -> SystemError? {
    switch result {
    case .success: nil
    case .failure(let error): error
    }
  }
}

/// What is done to an epoll set.
enum PollOperation {
  case add, modify, remove

  fileprivate var raw: Int32 {
    switch self {
    case .add: EPOLL_CTL_ADD
    case .modify: EPOLL_CTL_MOD
    case .remove: EPOLL_CTL_DEL
    }
  }
}

/// The socket options in use.
enum SocketOption {
  /// Segments leave at once. Without it nginx's mail module loses 42 ms with every TLS login.
  case noDelay
  case keepAlive
  /// Seconds of silence before the first probe.
  case keepAliveIdle
  /// Seconds between probes.
  case keepAliveInterval
  /// Probes unanswered before the connection is given up.
  case keepAliveCount
  case reuseAddress
  case v6Only

  fileprivate var raw: (level: Int32, name: Int32) {
    switch self {
    case .noDelay: (Int32(IPPROTO_TCP), TCP_NODELAY)
    case .keepAlive: (SOL_SOCKET, SO_KEEPALIVE)
    case .keepAliveIdle: (Int32(IPPROTO_TCP), TCP_KEEPIDLE)
    case .keepAliveInterval: (Int32(IPPROTO_TCP), TCP_KEEPINTVL)
    case .keepAliveCount: (Int32(IPPROTO_TCP), TCP_KEEPCNT)
    case .reuseAddress: (SOL_SOCKET, SO_REUSEADDR)
    case .v6Only: (Int32(IPPROTO_IPV6), IPV6_V6ONLY)
    }
  }
}

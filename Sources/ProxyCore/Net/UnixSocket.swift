/// A unix socket for people and programs on this machine: who may connect is the file's mode and group. For threads that
/// may wait, not for loops.

internal import Glibc
internal import Protocols
internal import Synchronization

/// Listens at a path.
package final class UnixListener: Sendable {
  /// The path.
  package let path: String
  private let descriptor: Descriptor
  private let file: UnixFile
  /// Readable once it is to end.
  private let event: Descriptor

  /// Why it can't listen.
  package enum Failure: Error, Equatable, Sendable, CustomStringConvertible {
    case tooLong(Int)
    /// Somebody answers there.
    case inUse
    /// There is a file of another kind.
    case notASocket
    case system(String, SystemError)

    /// In words.
    package var description: String {
      switch self {
      case .tooLong(let count): "the path has \(count) bytes, and a socket's has \(UnixListener.longestPath) at most"
      case .inUse: "another proxyd answers there"
      case .notASocket: "there is a file that is no socket"
      case .system(let what, let error): "\(what): \(error)"
      }
    }
  }

  /// sockaddr_un has room for 108 bytes, of which the last is NUL.
  static let longestPath = 107
  /// Connections that wait to be accepted.
  private static let backlog: Int32 = 32

  /// Takes the place of a socket that nobody answers at. Nobody can connect before the file has its mode and owner.
  package init(_ path: String, mode: UInt32, owner: (user: UInt32, group: UInt32)?) throws(Failure) {
    guard path.utf8.count <= UnixListener.longestPath else { throw .tooLong(path.utf8.count) }
    try UnixListener.clear(path)
    descriptor = Descriptor(owning: try UnixListener.get("a socket can't be made", Syscall.unixSocket()))
    event = Descriptor(owning: try UnixListener.get("a socket can't be made", Syscall.makeEvent()))
    if let error = Syscall.bind(descriptor, toUnix: path, mode: mode) {
      throw error.code == EADDRINUSE ? .inUse : .system("it can't be bound", error)
    }
    if let owner, let error = Syscall.give(path, to: owner.user, owner.group) {
      _ = Syscall.remove(path)
      throw .system("it can't be given to its group", error)
    }
    guard case .success(let file?) = Syscall.identity(ofUnix: path) else {
      throw .system("it can't be bound", SystemError(ENOENT))
    }
    if let error = Syscall.listen(descriptor, backlog: UnixListener.backlog) {
      throw .system("it can't be listened on", error)
    }
    self.file = file
    self.path = path
  }

  private static func get(_ what: String, _ result: Result<Int32, SystemError>) throws(Failure) -> Int32 {
    do { return try result.get() } catch { throw .system(what, error) }
  }

  /// Removes a socket that was left behind by a process that did not end well.
  private static func clear(_ path: String) throws(Failure) {
    switch Syscall.identity(ofUnix: path) {
    case .success(nil): return
    case .failure(let error): throw .system("it can't be looked at", error)
    case .success(let file?): if !file.isSocket { throw .notASocket }
    }
    switch UnixStream.connect(path) {
    case .success: throw .inUse
    // Its queue is full: somebody is there, and slow.
    case .failure(let error) where error.code == EAGAIN: throw .inUse
    case .failure(let error) where error.code == ECONNREFUSED:
      if let error = Syscall.remove(path) { throw .system("the socket left there can't be removed", error) }
    case .failure(let error): throw .system("it can't be looked at", error)
    }
  }

  /// The group of the socket at a path; nil if it can't be looked at.
  package static func group(of path: String) -> String? {
    guard case .success(let file?) = Syscall.identity(ofUnix: path) else { return nil }
    return Privileges.groupName(file.group)
  }

  /// Waits for the next connection; nil once it was closed.
  package func accept() -> UnixStream? {
    while true {
      guard Syscall.wait(descriptor, orKicked: event) else { return nil }
      switch Syscall.accept(descriptor) {
      case .success(let (fd, _)): return UnixStream(Descriptor(owning: fd))
      // One that was gone before it was taken.
      case nil: continue
      // No descriptors, or no memory: others may give some back.
      case .failure: usleep(UnixListener.pause)
      }
    }
  }

  /// In microseconds.
  private static let pause: UInt32 = 100_000

  /// Ends it, and removes the file unless another has taken its place. Who is connected stays so.
  package func close() {
    Syscall.kick(event)
    if case .success(file) = Syscall.identity(ofUnix: path) { _ = Syscall.remove(path) }
  }
}

/// A connection on a unix socket.
package final class UnixStream: Sendable {
  private let descriptor: Descriptor

  init(_ descriptor: consuming Descriptor) { self.descriptor = descriptor }

  /// Connects to whoever listens at the path.
  package static func connect(_ path: String) -> Result<UnixStream, SystemError> {
    guard path.utf8.count <= UnixListener.longestPath else { return .failure(SystemError(ENAMETOOLONG)) }
    switch Syscall.unixSocket() {
    case .failure(let error): return .failure(error)
    case .success(let fd):
      let stream = UnixStream(Descriptor(owning: fd))
      if let error = Syscall.connect(stream.descriptor, toUnix: path) { return .failure(error) }
      return .success(stream)
    }
  }

  /// Whose process is at the other end.
  package var peer: PeerProcess? { Syscall.peer(descriptor) }
  /// Whether the other end has gone.
  package var isClosed: Bool { Syscall.isClosed(descriptor) }
  /// Nothing more is read: whoever waits for that is woken. What is being written goes on.
  package func shutdownRead() { Syscall.shutdownRead(descriptor) }
  /// Ends the connection; whoever waits at it is woken.
  package func shutdown() { Syscall.shutdown(descriptor) }

  /// Writes all of it within that time, in nanoseconds. False if it did not go, and then nothing more will.
  package func write(_ bytes: [UInt8], within time: UInt64) -> Bool {
    let deadline = Clock.monotonic.now + time
    var written = 0
    while written < bytes.count {
      switch Syscall.send(descriptor, bytes.span.extracting(written...)) {
      case .bytes(let count): written += count
      case .blocked:
        guard !SocketWait.wait(descriptor.raw, for: .writable, until: deadline).isEmpty else { return false }
      case .closed, .failed: return false
      }
    }
    return true
  }

  /// Reads what there is, after at most that time, in nanoseconds.
  fileprivate func read(within time: UInt64) -> Read {
    guard !SocketWait.wait(descriptor.raw, for: .readable, until: Clock.monotonic.now + time).isEmpty else {
      return .late
    }
    var buffer = [UInt8](repeating: 0, count: 16 << 10)
    // SAFETY: the buffer is lent for the time of the call.
    let result = unsafe buffer.withUnsafeMutableBytes { unsafe Syscall.receive(descriptor, into: $0) }
    switch result {
    case .bytes(let count): return .bytes(buffer[..<count])
    case .blocked: return .bytes([])
    case .closed, .failed: return .closed
    }
  }

  fileprivate enum Read {
    case bytes(ArraySlice<UInt8>)
    case late
    case closed
  }
}

/// The lines that come on a connection.
package struct UnixLines {
  private let stream: UnixStream
  private let longest: Int
  private var buffer: [UInt8] = []
  /// Up to there the buffer has no line end.
  private var searched = 0

  /// What came next.
  package enum Next: Equatable, Sendable {
    /// A line, without its end.
    case line([UInt8])
    /// A line is longer than it may be.
    case tooLong
    case late
    case closed
  }

  /// Lines of no more than so many bytes.
  package init(_ stream: UnixStream, longest: Int) {
    self.stream = stream
    self.longest = longest
  }

  /// The next line. One that has begun must end within `time`; one that has not may take `idle` to begin. Both in
  /// nanoseconds. What is no whole line when the other end closes is none.
  package mutating func next(within time: UInt64, idle: UInt64) -> Next {
    var deadline = buffer.isEmpty ? nil : Clock.monotonic.now + time
    while true {
      if let end = buffer[searched...].firstIndex(of: .lineFeed) {
        let line = Array(buffer[..<end])
        buffer.removeSubrange(...end)
        searched = 0
        guard line.count <= longest else { return .tooLong }
        return .line(line.last == .carriageReturn ? line.dropLast() : line)
      }
      searched = buffer.count
      guard buffer.count <= longest else { return .tooLong }
      let now = Clock.monotonic.now
      switch stream.read(within: deadline.map { $0 > now ? $0 - now : 0 } ?? idle) {
      case .bytes(let bytes):
        if deadline == nil { deadline = now + time }
        buffer += bytes
      case .late: return .late
      case .closed: return .closed
      }
    }
  }
}

/// Reads and writes small files whole.

internal import Glibc
internal import Protocols

package enum TextFile {
  /// The largest file taken. Ten thousand rules of 100 bytes are one megabyte.
  private static let most = 64 << 20

  /// The text, of standard input without a path; what is not UTF-8 is replaced.
  package static func read(_ path: String?) -> Result<String, SystemError> {
    switch path.map(bytes) ?? standardInput() {
    case .failure(let error): .failure(error)
    case .success(let bytes): .success(String(decoding: bytes, as: UTF8.self))
    }
  }

  /// As it was given to us: what sshd gives a command is a socket, and none can be opened by the path /dev/stdin.
  private static func standardInput() -> Result<[UInt8], SystemError> {
    switch Syscall.duplicate(STDIN_FILENO) {
    case .failure(let error): .failure(error)
    case .success(let fd): rest(of: Descriptor(owning: fd))
    }
  }

  /// The lines of a text without their ends, LF or CRLF. (To Swift, CRLF is one character, and no line ends with LF then.)
  package static func lines(_ text: String) -> [Substring] {
    text.utf8.split(separator: .lineFeed, omittingEmptySubsequences: false).map { line in
      Substring(line.last == .carriageReturn ? line.dropLast() : line)
    }
  }

  /// Makes a file, for its owner alone if `isSecret`; one that is there already is an error.
  package static func create(_ path: String, _ bytes: [UInt8], isSecret: Bool) -> SystemError? {
    switch Syscall.openNew(path, isSecret: isSecret) {
    case .failure(let error): return error
    case .success(let fd):
      return Syscall.writeAll(Descriptor(owning: fd), bytes.span) ? nil : SystemError(EIO)
    }
  }

  /// Makes a folder; one that is there already will do.
  package static func makeFolder(_ path: String) -> SystemError? {
    Syscall.makeFolder(path).flatMap { $0.code == EEXIST ? nil : $0 }
  }

  /// Whether there is anything at the path. SAFETY: the path is lent as a C string for the time of the call.
  package static func exists(_ path: String) -> Bool { unsafe access(path, F_OK) == 0 }

  /// Removes a file; one that is not there will do.
  package static func remove(_ path: String) -> SystemError? {
    Syscall.remove(path).flatMap { $0.code == ENOENT ? nil : $0 }
  }

  /// The file as it is.
  package static func bytes(_ path: String) -> Result<[UInt8], SystemError> {
    switch Syscall.openForReading(path) {
    case .failure(let error): .failure(error)
    case .success(let fd): rest(of: Descriptor(owning: fd))
    }
  }

  private static func rest(of file: consuming Descriptor) -> Result<[UInt8], SystemError> {
    let descriptor = file
    var text: [UInt8] = []
    var scratch = Scratch(size: 1 << 16)
    while text.count <= most {
      switch unsafe scratch.fill(from: 0, { unsafe Syscall.read(descriptor, into: $0) }) {
      case .bytes(let count): text.append(scratch.span(count))
      case .closed: return .success(text)
      // Whoever gave it to us may not want to wait, as a program that has the other end in a loop.
      case .blocked: _ = SocketWait.wait(descriptor.raw, for: .readable, until: .max)
      case .failed(.system(let error)): return .failure(error)
      case .failed(.tls): preconditionFailure("a file speaks no TLS")
      }
    }
    return .failure(SystemError(EFBIG))
  }
}

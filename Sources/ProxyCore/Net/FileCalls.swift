/// The system calls about files by their names. SAFETY: a path is lent as a C string for the time of a call.

internal import Glibc

extension Syscall {
  static func openForReading(_ path: String) -> Result<Int32, SystemError> {
    call { unsafe Int(Glibc.open(path, O_RDONLY | O_CLOEXEC)) }.map(Int32.init)
  }

  /// A file that is not there yet, for its owner alone if `isSecret`.
  static func openNew(_ path: String, isSecret: Bool) -> Result<Int32, SystemError> {
    let flags = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC
    return call { unsafe Int(Glibc.open(path, flags, isSecret ? 0o600 : 0o644)) }.map(Int32.init)
  }

  static func makeFolder(_ path: String) -> SystemError? { failure(call { unsafe Int(mkdir(path, 0o755)) }) }

  static func remove(_ path: String) -> SystemError? { failure(call { unsafe Int(unlink(path)) }) }

  /// Writes all bytes, waiting as long as it takes; for the log's thread only. False if they could not all be written.
  static func writeAll(_ descriptor: borrowing Descriptor, _ bytes: Span<UInt8>) -> Bool {
    let fd = descriptor.raw
    var written = 0
    while written < bytes.count {
      let rest = bytes.extracting(written...)
      // SAFETY: the span lends its memory for the time of the call.
      let result = unsafe rest.withUnsafeBytes { buffer in
        call({ unsafe Glibc.write(fd, buffer.baseAddress, buffer.count) })
      }
      switch result {
      case .success(let count): written += count
      case .failure(let error) where error.code == EAGAIN:
        // A terminal or pipe that somebody made non-blocking.
        var waiting = pollfd(fd: fd, events: Int16(POLLOUT), revents: 0)
        _ = unsafe poll(&waiting, 1, 1_000)
      case .failure: return false
      }
    }
    return true
  }
}

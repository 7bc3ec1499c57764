/// The system calls about unix sockets. SAFETY: a path is lent as a C string for the time of a call, and what the kernel
/// fills in is a structure of ours whose size it is told.

internal import CLinux
internal import Glibc

extension Syscall {
  static func unixSocket() -> Result<Int32, SystemError> { call { Int(linux_unix_socket()) }.map(Int32.init) }

  /// Binds to a path. The file has that mode in the end and no wider one before: Linux makes it with the mode of the
  /// unbound socket, less what the process's mask takes away, which is then given back. (The mask itself is left alone: it
  /// is the process's, and other threads make files too.)
  static func bind(_ descriptor: borrowing Descriptor, toUnix path: String, mode: mode_t) -> SystemError? {
    let fd = descriptor.raw
    return failure(call { Int(fchmod(fd, mode)) })
      ?? failure(call { unsafe Int(linux_bind_unix(fd, path, path.utf8.count)) })
      // Not what a link leads to, if somebody has put one there meanwhile.
      ?? failure(call { unsafe Int(fchmodat(AT_FDCWD, path, mode, AT_SYMLINK_NOFOLLOW)) })
  }

  /// Gives a file to others; a link stays what it is and is given itself.
  static func give(_ path: String, to user: uid_t, _ group: gid_t) -> SystemError? {
    failure(call { unsafe Int(lchown(path, user, group)) })
  }

  /// What kind of file it is, and which; nil if there is none.
  static func identity(ofUnix path: String) -> Result<UnixFile?, SystemError> {
    var found = stat()
    switch call({ unsafe Int(lstat(path, &found)) }) {
    case .success:
      return .success(
        UnixFile(
          isSocket: found.st_mode & S_IFMT == S_IFSOCK, device: UInt64(found.st_dev), number: UInt64(found.st_ino),
          group: found.st_gid))
    case .failure(let error) where error.code == ENOENT: return .success(nil)
    case .failure(let error): return .failure(error)
    }
  }

  /// Whose process is at the other end, as it was when it connected.
  static func peer(_ descriptor: borrowing Descriptor) -> PeerProcess? {
    let fd = descriptor.raw
    var numbers = (pid_t(0), uid_t(0), gid_t(0))
    let result = unsafe withUnsafeMutableBytes(of: &numbers) { buffer in
      var length = socklen_t(buffer.count)
      return unsafe getsockopt(fd, SOL_SOCKET, SO_PEERCRED, buffer.baseAddress, &length)
    }
    return result == 0 ? PeerProcess(process: numbers.0, user: numbers.1) : nil
  }

  /// Ends both directions: whoever waits at either end is woken.
  static func shutdown(_ descriptor: borrowing Descriptor) {
    let fd = descriptor.raw
    _ = call { Int(Glibc.shutdown(fd, Int32(SHUT_RDWR))) }
  }

  /// Ends the other end's direction: who waits for something to read is woken.
  static func shutdownRead(_ descriptor: borrowing Descriptor) {
    let fd = descriptor.raw
    _ = call { Int(Glibc.shutdown(fd, Int32(SHUT_RD))) }
  }

  /// Waits until the socket has something to read, or the event is kicked; false for the latter.
  static func wait(_ descriptor: borrowing Descriptor, orKicked event: borrowing Descriptor) -> Bool {
    var waiting = [
      pollfd(fd: descriptor.raw, events: Int16(POLLIN), revents: 0),
      pollfd(fd: event.raw, events: Int16(POLLIN), revents: 0),
    ]
    _ = call { unsafe Int(poll(&waiting, 2, -1)) }
    return waiting[1].revents == 0
  }

  /// Whether the other end is closed in both directions: one that has said all it had to still listens.
  static func isClosed(_ descriptor: borrowing Descriptor) -> Bool {
    var waiting = pollfd(fd: descriptor.raw, events: 0, revents: 0)
    _ = call { unsafe Int(poll(&waiting, 1, 0)) }
    return Int32(waiting.revents) & (POLLHUP | POLLERR) != 0
  }
}

/// A file, as the system knows it.
struct UnixFile: Equatable {
  let isSocket: Bool
  let device: UInt64
  let number: UInt64
  let group: gid_t
}

/// A process at the other end of a unix socket.
package struct PeerProcess: Equatable, Sendable {
  /// Its number.
  package let process: Int32
  /// Whose it is.
  package let user: UInt32
}

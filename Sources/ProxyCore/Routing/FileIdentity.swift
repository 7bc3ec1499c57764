/// Says which file a path leads to, so that one that was replaced is noticed.

// `stat` belongs to whichever C module the compiler meets it in first.
internal import CLinux
internal import Glibc

struct FileIdentity: Equatable {
  private let device: UInt
  private let inode: UInt

  init?(_ path: String) {
    var status = stat()
    // SAFETY: the structure is filled if the call succeeds.
    guard unsafe stat(path, &status) == 0 else { return nil }
    device = UInt(status.st_dev)
    inode = UInt(status.st_ino)
  }
}

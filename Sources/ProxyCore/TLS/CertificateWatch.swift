/// Notices that certificates, keys or staples were replaced, so that whoever renews them need not know of the proxy.

// `stat` belongs to whichever C module the compiler meets it in first.
internal import CLinux
internal import Dispatch
// A C structure belongs to whichever module the compiler meets it in first.
internal import CLinux
internal import Glibc
internal import Synchronization

final class CertificateWatch: Sendable {
  private let state: Mutex<State>
  private let queue = DispatchQueue(label: "proxyd.certificates")
  private let body: @Sendable () -> Void

  private struct State {
    /// What the contexts in use were made of.
    var used: Snapshot
    /// What was there when it was last looked.
    var seen: Snapshot
  }

  /// How files stood at a moment. Taken before they are read: what changes meanwhile is noticed.
  struct Snapshot: Equatable, Sendable {
    fileprivate let files: [String]
    fileprivate let stamps: [Stamp?]

    init(_ files: [String]) {
      self.files = files
      stamps = files.map { Stamp($0) }
    }
  }

  /// What tells that a file is another.
  fileprivate struct Stamp: Equatable, Sendable {
    let device: UInt
    let inode: UInt
    let size: Int
    let seconds: Int
    let nanoseconds: Int

    init?(_ path: String) {
      var status = stat()
      // SAFETY: the structure is filled if the call succeeds.
      guard unsafe stat(path, &status) == 0 else { return nil }
      device = UInt(status.st_dev)
      inode = UInt(status.st_ino)
      size = Int(status.st_size)
      seconds = Int(status.st_mtim.tv_sec)
      nanoseconds = Int(status.st_mtim.tv_nsec)
    }
  }

  /// A look costs a microsecond a file. A certificate and its key are two files: a change counts once two looks in a row
  /// see the same, so that a pair half written is left alone.
  private static let pause = DispatchTimeInterval.seconds(1)

  /// Calls `body` on a queue of its own when the files have changed.
  init(_ used: Snapshot, _ body: @escaping @Sendable () -> Void) {
    state = Mutex(State(used: used, seen: used))
    self.body = body
    lookLater()
  }

  /// Watches others from here on, whose contents are in use already.
  func follow(_ used: Snapshot) { state.withLock { $0 = State(used: used, seen: used) } }

  private func lookLater() {
    queue.asyncAfter(deadline: .now() + CertificateWatch.pause) { @Sendable [weak self] in
      self?.look()
      self?.lookLater()
    }
  }

  private func look() {
    let isChanged = state.withLock { state in
      let now = Snapshot(state.used.files)
      defer { state.seen = now }
      guard now != state.used, now == state.seen else { return false }
      // Told once, whether the new files can be used or not.
      state.used = now
      return true
    }
    if isChanged { body() }
  }
}

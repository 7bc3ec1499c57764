/// Tells systemd how the service is (sd_notify(3)); without systemd it tells nobody.

internal import Glibc
internal import ProxyCore

struct ServiceManager: Sendable {
  private let socket: NotifySocket?

  init() {
    // SAFETY: the text is copied at once; nothing changes the environment.
    let path = unsafe getenv("NOTIFY_SOCKET").map { unsafe String(cString: $0) }
    socket = path.flatMap { NotifySocket($0) }
  }

  /// Lines of `NAME=value`.
  func tell(_ state: String) { socket?.send(state) }

  /// The monotonic clock, as `RELOADING=1` has to carry it.
  static var microseconds: UInt64 { NotifySocket.microseconds }
}

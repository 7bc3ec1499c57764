/// Starts threads for what may block: each is one's own, so that nothing else waits for it.

internal import Glibc

package enum WorkerThread {
  /// LDAP with GnuTLS and PAM's modules were written for the system's 8 MB; what is not touched costs nothing.
  private static let stackSize = 1 << 20

  /// Runs `body` on a thread of its own. Nil, or why there is none.
  package static func start(_ body: @escaping @Sendable () -> Void) -> SystemError? {
    var attributes = pthread_attr_t()
    var thread = pthread_t()
    // SAFETY: the box is taken over by the thread, or released here if there is none.
    let box = unsafe Unmanaged.passRetained(Body(body))
    // SAFETY: the attributes are initialised before they are used.
    unsafe pthread_attr_init(&attributes)
    defer { unsafe pthread_attr_destroy(&attributes) }
    unsafe pthread_attr_setstacksize(&attributes, stackSize)
    unsafe pthread_attr_setdetachstate(&attributes, Int32(PTHREAD_CREATE_DETACHED))
    let error = unsafe pthread_create(
      &thread, &attributes,
      { argument in
        if let argument = unsafe argument { unsafe Unmanaged<Body>.fromOpaque(argument).takeRetainedValue().run() }
        return nil
      }, box.toOpaque())
    guard error == 0 else {
      unsafe box.release()
      return SystemError(error)
    }
    return nil
  }

  private final class Body: Sendable {
    let run: @Sendable () -> Void
    init(_ run: @escaping @Sendable () -> Void) { self.run = run }
  }
}

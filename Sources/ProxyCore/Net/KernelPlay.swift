/// Lets a test play the kernel: the next call of a kind answers what the test wrote down. In a release build there is
/// nothing to play and nothing is looked up.

internal import Glibc
internal import Synchronization

package enum KernelPlay {
  /// The calls that can be played.
  package enum Call: Hashable, Sendable { case receive, send, accept, socket, connect, watch }

  #if DEBUG
    private static let script = Mutex<[Key: [IOResult]]>([:])

    private struct Key: Hashable, Sendable {
      let call: Call
      let fd: Int32
    }

    /// The next calls on that descriptor (a family for calls that make one) get these results, in order.
    package static func write(_ call: Call, on fd: Int32, _ results: [IOResult]) {
      script.withLock { $0[Key(call: call, fd: fd), default: []].append(contentsOf: results) }
    }

    static func result(of call: Call, on fd: Int32) -> IOResult? {
      script.withLock { script in
        guard var results = script[Key(call: call, fd: fd)], !results.isEmpty else { return nil }
        let next = results.removeFirst()
        script[Key(call: call, fd: fd)] = results.isEmpty ? nil : results
        return next
      }
    }

    static func error(of call: Call, on fd: Int32) -> SystemError? {
      guard case .failed(.system(let error))? = result(of: call, on: fd) else { return nil }
      return error
    }
  #else
    @inline(__always)
    static func result(of call: Call, on fd: Int32) -> IOResult? { nil }

    @inline(__always)
    static func error(of call: Call, on fd: Int32) -> SystemError? { nil }
  #endif
}

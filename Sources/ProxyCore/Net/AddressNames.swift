/// Turns the addresses clients connect to into names, off the loops, and remembers them: there are few of them.

internal import CLinux
internal import Dispatch
internal import Glibc
internal import Protocols
internal import Synchronization

package final class AddressNames: Sendable {
  /// What is known of an address.
  enum Answer: Equatable, Sendable {
    /// Its name; nil if it has none.
    case name([UInt8]?)
    case failed(String)
  }

  private struct Entry {
    var answer: Answer?
    var expires: UInt64 = 0
    var isAsking = false
    var waiting: [@Sendable () -> Void] = []
  }

  private let entries = Mutex<[String: Entry]>([:])
  private let queue = DispatchQueue(label: "proxyd.address-names")
  private let ask: @Sendable (SocketAddress) -> Answer

  /// As the resolver's lives of names and failures, in nanoseconds.
  private static let life = Timeouts.seconds(300)
  private static let failureLife = Timeouts.seconds(3)

  /// Names from the system.
  package convenience init() { self.init(ask: AddressNames.system) }

  /// With names of a test's own.
  init(ask: @escaping @Sendable (SocketAddress) -> Answer) { self.ask = ask }

  /// What is known now, or nil: then `later` is called, on some thread, once it is worth asking again.
  func name(of address: SocketAddress, now: UInt64, later: @escaping @Sendable () -> Void) -> Answer? {
    let host = address.host
    let (known, mustAsk) = entries.withLock { entries -> (Answer?, Bool) in
      var entry = entries[host] ?? Entry()
      let isFresh = entry.answer != nil && now < entry.expires
      if case .failed? = entry.answer, !isFresh { entry.answer = nil }
      let mustAsk = !isFresh && !entry.isAsking
      if mustAsk { entry.isAsking = true }
      if entry.answer == nil { entry.waiting.append(later) }
      entries[host] = entry
      return (entry.answer, mustAsk)
    }
    if mustAsk { queue.async { @Sendable in self.take(self.ask(address), for: host) } }
    return known
  }

  private func take(_ answer: Answer, for host: String) {
    let now = Clock.monotonic.now
    let waiting = entries.withLock { entries -> [@Sendable () -> Void] in
      var entry = entries[host] ?? Entry()
      let waiting = entry.waiting
      entry.waiting = []
      entry.isAsking = false
      switch answer {
      case .name:
        entry.answer = answer
        entry.expires = now + AddressNames.life
      case .failed:
        if entry.answer == nil { entry.answer = answer }
        entry.expires = now + AddressNames.failureLife
      }
      entries[host] = entry
      return waiting
    }
    for body in waiting { body() }
  }

  /// Asks the system: nil is an address without a name. Blocks.
  private static func system(_ address: SocketAddress) -> Answer {
    unsafe withUnsafeTemporaryAllocation(of: CChar.self, capacity: Int(NI_MAXHOST)) { buffer in
      // SAFETY: the name is written with its NUL into the buffer, whose size is told.
      let result = unsafe address.withSocketAddress { pointer, length in
        unsafe getnameinfo(pointer, length, buffer.baseAddress, socklen_t(buffer.count), nil, 0, NI_NAMEREQD)
      }
      switch result {
      case 0: return unsafe .name(buffer.baseAddress.map { unsafe Array(String(cString: $0).utf8) })
      case EAI_NONAME: return .name(nil)
      default: return unsafe .failed("the name of \(address.host): \(String(cString: gai_strerror(result)))")
      }
    }
  }
}

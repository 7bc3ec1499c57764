/// Turns backends' names into addresses, off the loops, and remembers them for a while.

internal import CLinux
internal import Dispatch
internal import Glibc
internal import Protocols
internal import Synchronization

package final class Resolver: Sendable {
  /// What is known of a name.
  enum Answer: Equatable, Sendable {
    case addresses([SocketAddress])
    case failed(String)
  }

  private struct Entry {
    var answer: Answer?
    /// When it is asked for again.
    var expires: UInt64
    var isAsking = false
    var waiting: [@Sendable (Answer) -> Void] = []
  }

  private let entries = Mutex<[String: Entry]>([:])
  private let queue = DispatchQueue(label: "proxyd.resolver", attributes: .concurrent)
  private let slots = DispatchSemaphore(value: Resolver.mostAtOnce)
  private let resolve: @Sendable (String) -> Answer

  /// getaddrinfo does not tell a record's life. A backend that moves is found again after this many nanoseconds;
  /// meanwhile the old addresses are used, and they stay in use while asking fails.
  private static let life = Timeouts.seconds(30)
  /// A failure is not asked for again by every login.
  private static let failureLife = Timeouts.seconds(3)
  /// A map may name any host: what is remembered is bounded.
  private static let mostNames = 4_096
  /// Questions at once; each holds a thread for as long as the system's resolver takes.
  private static let mostAtOnce = 8

  /// A resolver that asks the system.
  package convenience init() { self.init(resolve: Resolver.ask) }

  /// With a resolver of a test's own.
  init(resolve: @escaping @Sendable (String) -> Answer) { self.resolve = resolve }

  /// What is known now, or nil: then `later` is called, on some thread, once it is.
  ///
  /// What is known but old is given at once and asked for again behind the caller's back.
  func addresses(of name: String, now: UInt64, later: @escaping @Sendable (Answer) -> Void) -> Answer? {
    let (known, mustAsk) = entries.withLock { entries -> (Answer?, Bool) in
      if entries.count >= Resolver.mostNames, entries[name] == nil {
        entries = entries.filter { $0.value.isAsking }
      }
      var entry = entries[name] ?? Entry(expires: 0)
      let isFresh = entry.answer != nil && now < entry.expires
      // An old failure is worth nothing.
      if case .failed? = entry.answer, !isFresh { entry.answer = nil }
      let mustAsk = !isFresh && !entry.isAsking
      if mustAsk { entry.isAsking = true }
      if entry.answer == nil { entry.waiting.append(later) }
      entries[name] = entry
      return (entry.answer, mustAsk)
    }
    if mustAsk {
      queue.async { @Sendable in
        self.slots.wait()
        let answer = self.resolve(name)
        self.slots.signal()
        self.take(answer, for: name)
      }
    }
    return known
  }

  /// Whether the name is known to have the address. Asks nobody.
  func has(_ name: String, _ address: SocketAddress) -> Bool {
    entries.withLock { entries in
      guard case .addresses(let addresses)? = entries[name]?.answer else { return false }
      return addresses.contains { $0.with(port: 0) == address.with(port: 0) }
    }
  }

  private func take(_ answer: Answer, for name: String) {
    let now = Clock.monotonic.now
    let (waiting, told) = entries.withLock { entries -> ([@Sendable (Answer) -> Void], Answer) in
      var entry = entries[name] ?? Entry(expires: 0)
      let waiting = entry.waiting
      entry.waiting = []
      entry.isAsking = false
      switch answer {
      case .addresses:
        entry.answer = answer
        entry.expires = now + Resolver.life
      case .failed:
        if entry.answer == nil { entry.answer = answer }
        entry.expires = now + Resolver.failureLife
      }
      entries[name] = entry
      return (waiting, entry.answer ?? answer)
    }
    for body in waiting { body(told) }
  }

  /// Asks the system: files, DNS, whatever nsswitch.conf says, in the order of RFC 6724. Blocks.
  private static func ask(_ name: String) -> Answer {
    var hints = unsafe addrinfo()
    unsafe hints.ai_family = AF_UNSPEC
    unsafe hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
    var list: UnsafeMutablePointer<addrinfo>?
    // SAFETY: the list is the system's; it is walked before it is freed, and each address's size is told with it.
    let result = unsafe getaddrinfo(name, nil, &hints, &list)
    guard result == 0 else {
      return .failed(unsafe String(cString: gai_strerror(result)))
    }
    defer { unsafe freeaddrinfo(list) }
    var addresses: [SocketAddress] = []
    var item = unsafe list
    while let info = unsafe item {
      var storage = sockaddr_storage()
      let size = unsafe min(Int(info.pointee.ai_addrlen), MemoryLayout<sockaddr_storage>.size)
      unsafe withUnsafeMutableBytes(of: &storage) {
        if let address = unsafe info.pointee.ai_addr {
          unsafe $0.copyMemory(from: UnsafeRawBufferPointer(start: address, count: size))
        }
      }
      if let address = SocketAddress(storage), !addresses.contains(address) { addresses.append(address) }
      unsafe item = info.pointee.ai_next
    }
    return addresses.isEmpty ? .failed("it has no address") : .addresses(interlaced(addresses))
  }

  /// RFC 8305 §4: the families in turn, the preferred one first, so that one that does not work costs one attempt.
  static func interlaced(_ addresses: [SocketAddress]) -> [SocketAddress] {
    guard let first = addresses.first else { return [] }
    var preferred = addresses.filter { $0.family == first.family }[...]
    var others = addresses.filter { $0.family != first.family }[...]
    var result: [SocketAddress] = []
    while !preferred.isEmpty || !others.isEmpty {
      if let next = preferred.popFirst() { result.append(next) }
      if let next = others.popFirst() { result.append(next) }
    }
    return result
  }
}

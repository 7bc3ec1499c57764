/// An IP address and port, v4 or v6.

internal import CLinux
internal import Glibc
internal import Protocols

package struct SocketAddress: Hashable, Sendable {
  /// The two families of the Internet protocol.
  package enum Family: Hashable, Sendable {
    case v4, v6

    var raw: Int32 {
      switch self {
      case .v4: AF_INET
      case .v6: AF_INET6
      }
    }
  }

  /// The address's bytes in network order; a v4 address is the low 32 bits of `low`.
  private let high: UInt64
  private let low: UInt64
  private let scope: UInt32
  /// The port, in the host's order.
  package let port: UInt16
  /// v4 or v6.
  package let family: Family

  /// For a peer whose address the kernel does not tell.
  static let unknown = SocketAddress(v4: 0, port: 0)

  private init(v4: UInt32, port: UInt16) {
    high = 0
    low = UInt64(v4)
    scope = 0
    self.port = port
    family = .v4
  }

  private init(high: UInt64, low: UInt64, scope: UInt32, port: UInt16) {
    self.high = high
    self.low = low
    self.scope = scope
    self.port = port
    family = .v6
  }

  /// From the kernel's form; nil if it is neither v4 nor v6. A v4 address mapped into v6 is told as v4.
  init?(_ storage: sockaddr_storage) {
    var storage = storage
    switch Int32(storage.ss_family) {
    case AF_INET:
      // SAFETY: the family says which structure the storage holds; it is large enough for both.
      let v4 = unsafe withUnsafePointer(to: &storage) {
        unsafe $0.withMemoryRebound(to: sockaddr_in.self, capacity: 1) { unsafe $0.pointee }
      }
      self.init(v4: UInt32(bigEndian: v4.sin_addr.s_addr), port: UInt16(bigEndian: v4.sin_port))
    case AF_INET6:
      // SAFETY: as above; the sixteen bytes of the address are read as two integers.
      let v6 = unsafe withUnsafePointer(to: &storage) {
        unsafe $0.withMemoryRebound(to: sockaddr_in6.self, capacity: 1) { unsafe $0.pointee }
      }
      var address = v6.sin6_addr
      let (high, low) = unsafe withUnsafeBytes(of: &address) {
        unsafe (
          UInt64(bigEndian: $0.loadUnaligned(as: UInt64.self)),
          UInt64(bigEndian: $0.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
        )
      }
      let port = UInt16(bigEndian: v6.sin6_port)
      if high == 0, low >> 32 == 0xFFFF {
        self.init(v4: UInt32(truncatingIfNeeded: low), port: port)
      } else {
        self.init(high: high, low: low, scope: v6.sin6_scope_id, port: port)
      }
    default: return nil
    }
  }

  /// From a literal address without brackets, `192.0.2.1` or `2001:db8::1` or `fe80::1%eth0`; nil if it is none.
  package init?(literal: String, port: UInt16) {
    var v4 = in_addr()
    // SAFETY: inet_pton fills exactly the structure of the family it is told.
    if unsafe inet_pton(AF_INET, literal, &v4) == 1 {
      self.init(v4: UInt32(bigEndian: v4.s_addr), port: port)
      return
    }
    let parts = literal.split(separator: "%", maxSplits: 1, omittingEmptySubsequences: false)
    var v6 = in6_addr()
    // SAFETY: as above; the sixteen bytes are read as two integers.
    guard let address = parts.first, unsafe inet_pton(AF_INET6, String(address), &v6) == 1 else { return nil }
    let scope = parts.count == 2 ? unsafe if_nametoindex(String(parts[1])) : 0
    guard parts.count == 1 || scope != 0 else { return nil }
    let (high, low) = unsafe withUnsafeBytes(of: &v6) {
      unsafe (
        UInt64(bigEndian: $0.loadUnaligned(as: UInt64.self)),
        UInt64(bigEndian: $0.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
      )
    }
    self.init(high: high, low: low, scope: scope, port: port)
  }

  /// The same address with another port.
  package func with(port: UInt16) -> SocketAddress {
    switch family {
    case .v4: SocketAddress(v4: UInt32(truncatingIfNeeded: low), port: port)
    case .v6: SocketAddress(high: high, low: low, scope: scope, port: port)
    }
  }

  /// The same address with all but its first bits cleared, and no zone.
  func masked(_ bits: Int) -> SocketAddress {
    func keep(_ value: UInt64, _ bits: Int) -> UInt64 {
      bits <= 0 ? 0 : bits >= 64 ? value : value & ~(UInt64.max >> UInt64(bits))
    }
    switch family {
    case .v4: return SocketAddress(v4: UInt32(truncatingIfNeeded: keep(low << 32, bits) >> 32), port: port)
    case .v6: return SocketAddress(high: keep(high, bits), low: keep(low, bits - 64), scope: 0, port: port)
    }
  }

  /// From a peer's words; a v4 address mapped into v6 is told as v4.
  init?(told literal: String, port: UInt16) {
    guard let address = SocketAddress(literal: literal, port: port) else { return nil }
    let isMapped = address.family == .v6 && address.high == 0 && address.low >> 32 == 0xFFFF
    self = isMapped ? SocketAddress(v4: UInt32(truncatingIfNeeded: address.low), port: port) : address
  }

  /// Whether it stands for all of a machine's own addresses.
  var isAny: Bool { high == 0 && low == 0 }

  /// From a PROXY header; nil if its words are no address. A v4 address mapped into v6 is told as v4.
  init?(_ address: ProxyAddress) {
    switch address {
    case .text(let bytes, let port): self.init(told: String(decoding: bytes, as: UTF8.self), port: port)
    case .v4(let number, let port): self.init(v4: number, port: port)
    case .v6(0, let low, let port) where low >> 32 == 0xFFFF: self.init(v4: UInt32(truncatingIfNeeded: low), port: port)
    case .v6(let high, let low, let port): self.init(high: high, low: low, scope: 0, port: port)
    }
  }

  /// Whether it never leaves the machine: 127.0.0.0/8 and ::1.
  var isLoopback: Bool {
    switch family {
    case .v4: low >> 24 == 127
    case .v6: high == 0 && low == 1
    }
  }

  /// For a PROXY header of version 1, in the words of that family.
  func proxyText(as family: Family) -> ProxyAddress {
    let prefix = self.family == .v4 && family == .v6 ? "::ffff:" : ""
    return .text(Array((prefix + host).utf8), port: port)
  }

  /// For a PROXY header of version 2, as an address of that family.
  func proxyAddress(as family: Family) -> ProxyAddress {
    switch (self.family, family) {
    case (.v4, .v4): .v4(UInt32(truncatingIfNeeded: low), port: port)
    case (.v4, .v6): .v6(high: 0, low: 0xFFFF_0000_0000 | low, port: port)
    case (.v6, _): .v6(high: high, low: low, port: port)
    }
  }

  /// Lends the kernel's form.
  func withSocketAddress<R>(_ body: (UnsafePointer<sockaddr>, socklen_t) -> R) -> R {
    switch family {
    case .v4:
      var address = sockaddr_in()
      address.sin_family = sa_family_t(AF_INET)
      address.sin_port = port.bigEndian
      address.sin_addr.s_addr = UInt32(truncatingIfNeeded: low).bigEndian
      // SAFETY: a sockaddr_in may be read as a sockaddr; its size is told.
      return unsafe withUnsafePointer(to: &address) {
        unsafe $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
          unsafe body($0, socklen_t(MemoryLayout<sockaddr_in>.size))
        }
      }
    case .v6:
      var address = sockaddr_in6()
      address.sin6_family = sa_family_t(AF_INET6)
      address.sin6_port = port.bigEndian
      address.sin6_scope_id = scope
      unsafe withUnsafeMutableBytes(of: &address.sin6_addr) {
        unsafe $0.storeBytes(of: high.bigEndian, as: UInt64.self)
        unsafe $0.storeBytes(of: low.bigEndian, toByteOffset: 8, as: UInt64.self)
      }
      // SAFETY: a sockaddr_in6 may be read as a sockaddr; its size is told.
      return unsafe withUnsafePointer(to: &address) {
        unsafe $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
          unsafe body($0, socklen_t(MemoryLayout<sockaddr_in6>.size))
        }
      }
    }
  }

  /// The address without its port, v6 without brackets.
  package var host: String {
    switch family {
    // By hand: each login says addresses some five times, and inet_ntop prints them with the machinery of printf.
    case .v4:
      var text: [UInt8] = []
      text.reserveCapacity(15)
      for shift in stride(from: 24, through: 0, by: -8) {
        let number = UInt8(truncatingIfNeeded: low >> UInt64(shift))
        if number >= 100 { text.append(.ascii("0") + number / 100) }
        if number >= 10 { text.append(.ascii("0") + number / 10 % 10) }
        text.append(.ascii("0") + number % 10)
        if shift > 0 { text.append(.ascii(".")) }
      }
      return String(decoding: text, as: UTF8.self)
    case .v6:
      var text = [CChar](repeating: 0, count: Int(INET6_ADDRSTRLEN))
      var address = in6_addr()
      unsafe withUnsafeMutableBytes(of: &address) {
        unsafe $0.storeBytes(of: high.bigEndian, as: UInt64.self)
        unsafe $0.storeBytes(of: low.bigEndian, toByteOffset: 8, as: UInt64.self)
      }
      // SAFETY: the buffer has room for the longest address.
      _ = unsafe inet_ntop(AF_INET6, &address, &text, socklen_t(text.count))
      return String(decoding: text.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
  }
}

extension SocketAddress: CustomStringConvertible {
  /// `192.0.2.1:143` or `[2001:db8::1]:143`.
  package var description: String {
    switch family {
    case .v4: "\(host):\(port)"
    case .v6: "[\(host)]:\(port)"
    }
  }
}

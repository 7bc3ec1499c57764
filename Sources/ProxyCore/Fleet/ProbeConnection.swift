/// A prober's connection: every wait is a blocking one, with one deadline for all of them together.

internal import Protocols

final class ProbeConnection {
  private var transport: Transport
  private let deadline: UInt64
  let address: SocketAddress

  private init(_ transport: consuming Transport, _ address: SocketAddress, until deadline: UInt64) {
    self.transport = transport
    self.address = address
    self.deadline = deadline
  }

  /// Connects to the first address that takes it; each has its share of the time left. What we lack ourselves is the
  /// trouble only if no address showed another.
  static func open(
    _ addresses: [SocketAddress], until deadline: UInt64
  ) -> Result<ProbeConnection, ProbeTrouble> {
    var trouble: ProbeTrouble?
    var lack: ProbeTrouble?
    for (index, address) in addresses.enumerated() {
      let patience = Patience(until: deadline).share(of: addresses.count - index)
      switch Syscall.streamSocket(address.family) {
      case .failure(let error) where error.isOutOfDescriptors || error.isOutOfMemory: lack = .own("\(error)")
      case .failure(let error): trouble = .backend("\(address): \(error)")
      case .success(let fd):
        let transport = Transport(Descriptor(owning: fd))
        _ = Syscall.setOption(transport.descriptor, .noDelay, 1)
        if let error = Syscall.connect(transport.descriptor, to: address) {
          let words = "\(address): \(error)"
          if error.isLackToConnect { lack = .own(words) } else { trouble = .backend(words) }
        } else if SocketWait.wait(fd, for: .writable, until: patience.deadline).isEmpty {
          trouble = .backend("\(address): it does not answer a connection")
        } else if let error = Syscall.pendingError(transport.descriptor) {
          trouble = .backend("\(address): \(error)")
        } else {
          return .success(ProbeConnection(transport, address, until: deadline))
        }
      }
    }
    return .failure(trouble ?? lack ?? .backend("it has no address"))
  }

  /// When the backend's certificate ends, in seconds since 1970; nil without TLS.
  var certificateEnd: Int? { transport.certificateEnd }

  /// Writes all.
  func say(_ bytes: Span<UInt8>) -> ProbeTrouble? {
    var written = 0
    while written < bytes.count {
      let result = transport.write(bytes.extracting(written...))
      written += result.written
      guard let stop = result.stop else { continue }
      switch stop {
      case .blocked(let why): guard waits(why) else { return .late }
      case .closed: return .closed
      case .failed(let failure): return .backend("\(failure)")
      case .bytes: preconditionFailure("bytes don't stop a write")
      }
    }
    return nil
  }

  /// Reads what there is, at least one byte.
  func hear(into scratch: inout Scratch) -> Result<Int, ProbeTrouble> {
    while true {
      switch transport.read(into: &scratch) {
      case .bytes(let count): return .success(count)
      case .blocked(let why): guard waits(why) else { return .failure(.late) }
      case .closed: return .failure(.closed)
      case .failed(let failure): return .failure(.backend("\(failure)"))
      }
    }
  }

  /// Begins TLS and takes it to the end of its handshake.
  func upgrade(_ context: TLSClientContext, _ name: TLSPeerName) -> ProbeTrouble? {
    guard transport.upgrade(context, name) else { return .own("no memory for TLS") }
    while true {
      switch transport.handshake() {
      case .done: return nil
      case .blocked(let why): guard waits(why) else { return .late }
      case .closed: return .closed
      case .failed(let failure): return .backend("TLS: \(failure)")
      }
    }
  }

  /// Ends our direction; the rest is done when this goes.
  func end() { transport.shutdownWrite() }

  private func waits(_ why: IOResult.Blocked) -> Bool {
    let wanted: Readiness =
      switch why {
      case .readable: .readable
      case .writable: .writable
      }
    return !SocketWait.wait(transport.descriptor.raw, for: wanted, until: deadline).isEmpty
  }
}

/// Why a probe came to no good end.
enum ProbeTrouble: Error, Equatable, Sendable {
  /// The backend's, in words.
  case backend(String)
  /// It has closed.
  case closed
  /// The time is over.
  case late
  /// The proxy's own: nothing was learned about the backend.
  case own(String)

  /// What is told of a backend's own words, in bytes.
  static let longestQuote = 200
}

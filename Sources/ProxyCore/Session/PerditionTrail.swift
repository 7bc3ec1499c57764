/// What a session remembers for Perdition's lines, while they are what is logged; others have none.

internal import Protocols

final class PerditionTrail {
  /// Where the client connected to.
  let destination: SocketAddress
  /// The user's name as a route gives it; nil if it stays.
  private(set) var user: [UInt8]?
  /// The server as `HOST:PORT`; nil as long as there is none.
  private(set) var server: String?
  private var serverTLS = BackendTLS.off
  /// When the relay has been idle for too long, in the loop's nanoseconds.
  private(set) var patience = UInt64.max
  /// When the login is told again, in the loop's nanoseconds.
  private var repetition = UInt64.max

  init(_ destination: SocketAddress) { self.destination = destination }

  /// A login is tried: whatever was known of the one before is forgotten.
  func begin() {
    user = nil
    server = nil
  }

  /// The login goes there.
  func choose(_ backend: Backend, as user: [UInt8]?) {
    self.user = user
    let host =
      switch backend.host {
      case .address(let address): address.host
      case .name(let name): name
      }
    server = "\(host):\(backend.port)"
    serverTLS = backend.link.manner.tls
  }

  /// How a server is spoken to with which TLS stands.
  var serverSecurity: PerditionLine.Security {
    switch serverTLS {
    case .off: .plaintext
    case .startTLS: .starttls
    case .implicit: .ssl
    }
  }

  /// The login is told again then, if at all.
  func repeatLogin(after pause: UInt64?, now: UInt64) { repetition = pause.map { now + $0 } ?? .max }

  /// The relay has moved: when it has to be looked at again.
  func extend(to patience: UInt64) -> UInt64 {
    self.patience = patience
    return next
  }

  /// When the relay has to be looked at again, if nothing moves.
  var next: UInt64 { min(patience, repetition) }
}

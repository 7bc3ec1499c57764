/// A listening socket and what the operator wants of it.

package import Protocols

/// An open listening socket; shared by all loops, closed with its last one.
package final class ListeningSocket: Sendable {
  let descriptor: Descriptor
  /// The address asked for; its port may be 0.
  package let wanted: SocketAddress
  /// The address in use.
  package let address: SocketAddress
  /// What is counted there.
  let meter = ListenerMeter()

  /// As many as the kernel allows wait to be accepted; it cuts this to net.core.somaxconn.
  private static let backlog: Int32 = 4_096

  /// Binds and listens; a port below 1024 takes the right to.
  package init(_ wanted: SocketAddress) throws(SystemError) {
    self.wanted = wanted
    descriptor = Descriptor(owning: try Syscall.streamSocket(wanted.family).get())
    if let error = Syscall.setOption(descriptor, .reuseAddress, 1) { throw error }
    // So that 0.0.0.0 and :: may both be listened on.
    if wanted.family == .v6, let error = Syscall.setOption(descriptor, .v6Only, 1) { throw error }
    // Accepted sockets inherit this: two system calls fewer for each connection.
    _ = Syscall.setOption(descriptor, .noDelay, 1)
    KeepAlive.set(descriptor)
    if let error = Syscall.bind(descriptor, to: wanted) { throw error }
    if let error = Syscall.listen(descriptor, backlog: ListeningSocket.backlog) { throw error }
    address = Syscall.localAddress(descriptor) ?? wanted
  }
}

/// What the operator wants of a listening socket. Sessions keep it; they must not keep the socket, which would stay open,
/// and accept for nobody, as long as one of them lasts.
package final class Listener: Sendable {
  /// The protocol spoken.
  package let mailProtocol: MailProtocol
  /// The address in use, for the log.
  package let address: SocketAddress
  /// What clients are granted.
  let terms: ClientTerms
  /// Who has to send a PROXY header, and everybody else is refused; nil if there is none.
  let proxyNetworks: [Network]?
  let context: TLSContext?
  /// Whose name a client's certificate gives.
  let certificateName: CertificateName
  /// What is counted there.
  package let meter: ListenerMeter

  /// How TLS is used.
  package var tls: TLSPolicy { terms.policy }

  /// The certificate is needed unless TLS is off.
  package init(
    _ listener: ListenerSettings, _ settings: Settings, at address: SocketAddress, _ context: TLSContext?,
    _ meter: ListenerMeter = ListenerMeter()
  ) {
    precondition(listener.tls == .off || context != nil, "a listener with TLS and no certificate")
    mailProtocol = listener.mailProtocol
    terms = ClientTerms(
      policy: listener.tls, limits: settings.limits, mechanisms: listener.mechanisms,
      capabilities: listener.capabilities, greeting: listener.greeting, loginOK: listener.loginOK)
    proxyNetworks = listener.proxyNetworks
    self.address = address
    self.context = context
    certificateName = settings.certificateName
    self.meter = meter
  }
}

/// A socket and what is wanted of it, in one configuration.
package struct BoundListener: Sendable {
  /// The open socket.
  package let socket: ListeningSocket
  /// What is wanted of it.
  package let listener: Listener

  /// A socket with the settings of a configuration.
  package init(
    _ socket: ListeningSocket, _ listener: ListenerSettings, _ settings: Settings, _ context: TLSContext?
  ) {
    self.socket = socket
    self.listener = Listener(listener, settings, at: socket.address, context, socket.meter)
  }
}

/// Notices peers that are gone without a word: a laptop closed, a NAT entry lost.
enum KeepAlive {
  /// Seconds. Below the 5 minutes after which common NATs forget a connection.
  private static let idle: Int32 = 240
  private static let interval: Int32 = 30
  private static let probes: Int32 = 4

  static func set(_ descriptor: borrowing Descriptor) {
    _ = Syscall.setOption(descriptor, .keepAlive, 1)
    _ = Syscall.setOption(descriptor, .keepAliveIdle, idle)
    _ = Syscall.setOption(descriptor, .keepAliveInterval, interval)
    _ = Syscall.setOption(descriptor, .keepAliveCount, probes)
  }
}

/// A connection's bytes, in the clear or under TLS; the session above does not see the difference.

internal import Protocols

struct Transport: ~Copyable {
  let descriptor: Descriptor
  private var tls: TLSSession?

  init(_ descriptor: consuming Descriptor) { self.descriptor = descriptor }

  /// Begins TLS as the server. False if there is no memory for it.
  mutating func upgrade(_ context: TLSContext) -> Bool {
    precondition(!isTLS, "TLS within TLS")
    tls = TLSSession(server: context, on: descriptor)
    return isTLS
  }

  /// Begins TLS as the client of a backend. False if there is no memory for it.
  mutating func upgrade(_ context: TLSClientContext, _ name: TLSPeerName) -> Bool {
    precondition(!isTLS, "TLS within TLS")
    tls = TLSSession(client: context, name: name, on: descriptor)
    return isTLS
  }

  mutating func handshake() -> TLSSession.Handshake {
    tls?.handshake() ?? .done
  }

  /// Reads into the whole of `scratch`, under TLS several records if they are there already.
  mutating func read(into scratch: inout Scratch) -> IOResult {
    // SAFETY: the scratch lends memory that is its own for the time of each call.
    guard isTLS else { return unsafe scratch.fill(from: 0) { unsafe Syscall.receive(descriptor, into: $0) } }
    var count = 0
    while scratch.size - count >= Transport.record {
      switch unsafe scratch.fill(from: count, { unsafe tls?.read(into: $0) ?? .closed }) {
      case .bytes(let more): count += more
      // What stopped it is told again by the next read.
      case let stop: return count > 0 ? .bytes(count) : stop
      }
      guard hasPending else { break }
    }
    return .bytes(count)
  }

  /// Looks at what has come and leaves it in the socket. Not under TLS.
  mutating func peek(into scratch: inout Scratch) -> IOResult {
    precondition(!isTLS, "TLS can't be looked ahead in")
    return unsafe scratch.fill(from: 0) { unsafe Syscall.peek(descriptor, into: $0) }
  }

  /// Takes bytes from the socket that were seen there. False if they are gone.
  mutating func drop(_ count: Int, _ scratch: inout Scratch) -> Bool {
    // SAFETY: the slice lies within the scratch: what was seen fitted there.
    let result = unsafe scratch.fill(from: 0) {
      unsafe Syscall.receive(descriptor, into: UnsafeMutableRawBufferPointer(rebasing: $0[..<count]))
    }
    return result == .bytes(count)
  }

  /// The most a TLS record holds (RFC 8446 §5.1).
  private static let record = 16 << 10

  var isTLS: Bool {
    switch tls {
    case .some: true
    case .none: false
    }
  }

  /// Writes as much as goes.
  mutating func write(_ bytes: Span<UInt8>) -> (written: Int, stop: IOResult?) {
    var written = 0
    while written < bytes.count {
      let rest = bytes.extracting(written...)
      switch tls?.write(rest) ?? Syscall.send(descriptor, rest) {
      case .bytes(let count): written += count
      case let stop: return (written, stop)
      }
    }
    return (written, nil)
  }

  /// Whether bytes wait in TLS, of which the kernel knows nothing.
  var hasPending: Bool {
    switch tls {
    case .some(let tls): tls.hasPending
    case .none: false
    }
  }

  /// Ends our direction.
  mutating func shutdownWrite() {
    tls?.sayGoodbye()
    Syscall.shutdownWrite(descriptor)
  }

  /// What the peer showed of itself, for whoever is told.
  var certificateFacts: ClientCertificateFacts {
    switch tls {
    case .some(let tls): tls.peerFacts
    case .none: .notAsked
    }
  }

  /// What the log says of the connection's TLS.
  var tlsFacts: TLSFacts? {
    switch tls {
    case .some(let tls):
      TLSFacts(
        version: tls.version, cipher: tls.cipher, isResumed: tls.isResumed, serverName: tls.serverName,
        peerSubject: tls.peerSubject)
    case .none: nil
    }
  }
}

extension Transport {
  /// Whether the peer showed a certificate that was verified.
  var certificate: ClientCertificate {
    switch tls {
    case .some(let tls): tls.hasPeerCertificate ? .verified : .none
    case .none: .none
    }
  }

  /// TLS's version, as `TLSv1.3`; nil without TLS.
  var tlsVersion: String? {
    switch tls {
    case .some(let tls): tls.version
    case .none: nil
    }
  }

  /// When the peer's certificate ends, verified or not, in seconds since 1970; nil without one.
  var certificateEnd: Int? {
    switch tls {
    case .some(let tls): tls.peerCertificateEnd
    case .none: nil
    }
  }

  /// The host name the client asked for in TLS.
  var serverName: String? {
    switch tls {
    case .some(let tls): tls.serverName
    case .none: nil
    }
  }

  /// Who the peer is, by its certificate.
  func peerName(_ part: CertificateName) -> [UInt8]? {
    switch tls {
    case .some(let tls):
      switch part {
      case .commonName: tls.peerCommonName
      case .email: tls.peerEmail
      }
    case .none: nil
    }
  }
}

/// What the log says of a connection's TLS.
package struct TLSFacts: Equatable, Sendable {
  /// As `TLSv1.3`.
  package let version: String
  /// OpenSSL's name of it.
  package let cipher: String
  /// Whether the client came back with a ticket.
  package let isResumed: Bool
  /// The host name asked for; nil if none was.
  package let serverName: String?
  /// Whose certificate the client showed; nil if none.
  package let peerSubject: String?
}

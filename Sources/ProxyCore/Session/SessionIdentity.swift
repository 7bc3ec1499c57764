/// Who the client is: what proxies in front of us tell, and what backends are told.

internal import Protocols

extension Session {
  /// How many proxies a login may pass. Dovecot 2.4 begins with 7 as well.
  private static let mostProxies = 7

  /// Reads the PROXY header that a proxy in front of us begins with. Not a byte behind it is taken from the socket: TLS
  /// begins there.
  func readHeader(_ login: PreLogin, on loop: isolated EventLoop) -> Next {
    while true {
      let count: Int
      switch client.peek(into: &loop.scratch) {
      case .bytes(let there): count = there
      case .blocked: return .rest(.client(login))
      case .closed: return .end(SessionEnd(.clientClosed))
      case .failed(let failure): return .end(SessionEnd(client: failure))
      }
      let known = login.input.count
      login.input.append(loop.scratch.span(count))
      switch ProxyHeader.read(login.input.span) {
      case .invalid: return .end(SessionEnd(.proxyHeader, "it is none"))
      case .incomplete:
        // All of it belongs to the header: taken, so that the socket is readable again only when there is more.
        guard client.drop(count, &loop.scratch) else { return .end(SessionEnd(.clientClosed)) }
      case .header(let header, let consumed):
        guard client.drop(consumed - known, &loop.scratch) else { return .end(SessionEnd(.clientClosed)) }
        login.input.removeAll()
        login.header = header
        if let ends = header.ends {
          guard let source = SocketAddress(ends.source), SocketAddress(ends.destination) != nil else {
            return .end(SessionEnd(.proxyHeader, "its words are no addresses"))
          }
          record.origin = source
        }
        login.stage = PreLogin.start(record.listener)
        return welcome(login, on: loop).map { .end($0) } ?? .go(.client(login))
      }
    }
  }

  /// Takes what a trusted proxy told by ID or XCLIENT.
  func adoptFacts(_ login: PreLogin) {
    let facts = login.draft.facts
    guard !facts.isEmpty else { return }
    let address = String(decoding: facts[.address], as: UTF8.self)
    let port = facts.number(.port).flatMap { UInt16(exactly: $0) } ?? 0
    if let origin = SocketAddress(told: address, port: port) { record.origin = origin }
    record.givenName = facts[.session]
  }

  /// How many proxies may still follow; nil if the login has come round in a circle.
  func hopsLeft(_ login: PreLogin) -> Int? {
    let left = login.draft.facts.number(.ttl) ?? Session.mostProxies
    return left > 1 ? left - 1 : nil
  }

  /// Where the client connected to, as far as it is known.
  func destination(_ login: PreLogin) -> SocketAddress? {
    let facts = login.draft.facts
    let port = facts.number(.connectedPort).flatMap { UInt16(exactly: $0) } ?? 0
    return SocketAddress(told: String(decoding: facts[.connectedAddress], as: UTF8.self), port: port)
      ?? login.header.ends.flatMap { SocketAddress($0.destination) } ?? Syscall.localAddress(client.descriptor)
  }

  /// The host name the client asked for in TLS; empty if none.
  private func connectedName(_ login: PreLogin) -> [UInt8] {
    let told = login.draft.facts[.connectedName]
    if !told.isEmpty { return told }
    return client.serverName.map { Array($0.utf8) } ?? login.header.authority
  }

  /// Whether the client came under TLS, to us or to a proxy before.
  private func isEncrypted(_ login: PreLogin) -> Bool { client.isTLS || login.header.tls != nil }

  /// What sources may be asked with.
  func loginFacts(_ login: PreLogin, _ routes: RouteTable) -> LoginFacts {
    var facts = LoginFacts()
    facts.method = login.draft.method
    guard routes.needsFacts else { return facts }
    facts.addresses.clientAddress = record.client.host
    facts.addresses.clientPort = String(record.client.port)
    if let destination = destination(login) {
      facts.addresses.localAddress = destination.host
      facts.addresses.localPort = String(destination.port)
    }
    if let ends = login.header.ends, let source = SocketAddress(ends.source),
      let destination = SocketAddress(ends.destination)
    {
      var header = KeyFacts()
      header.clientAddress = source.host
      header.clientPort = String(source.port)
      header.localAddress = destination.host
      header.localPort = String(destination.port)
      facts.header = header
    }
    facts.attempt = record.attempts
    facts.tls = client.tlsFacts.map {
      LoginFacts.TLS(version: $0.version, cipher: $0.cipher, client: client.certificateFacts)
    }
    return facts
  }

  /// What a backend is told of the client; nothing where the operator does not want it.
  func introduction(_ login: PreLogin, _ route: PlacedRoute) -> ClientFacts {
    var facts = ClientFacts()
    switch route.backend.link.manner.identity {
    case .withheld: return facts
    case .told: break
    }
    facts.set(.session, record.name)
    facts.set(.address, record.client.host)
    facts.set(.port, String(record.client.port))
    if let destination = destination(login) {
      facts.set(.connectedAddress, destination.host)
      facts.set(.connectedPort, String(destination.port))
    }
    facts.set(.ttl, String(hopsLeft(login) ?? 1))
    let told = login.draft.facts[.transport]
    facts.set(.transport, isEncrypted(login) ? "TLS" : "insecure")
    facts.set(.transport, told.span)
    let name = connectedName(login)
    facts.set(.connectedName, name.span)
    return facts
  }

  /// Appends the PROXY header a backend wants.
  func appendProxyHeader(_ login: PreLogin, _ route: PlacedRoute, _ out: inout [UInt8]) {
    let version = route.backend.link.manner.proxyProtocol
    guard version != .off, let destination = destination(login) else { return }
    let source = record.client
    let family: SocketAddress.Family = source.family == .v4 && destination.family == .v4 ? .v4 : .v6
    var header = ProxyHeader()
    switch version {
    case .off: return
    case .v1:
      header.ends = ProxyHeader.Ends(
        source: source.proxyText(as: family), destination: destination.proxyText(as: family))
      header.appendText(isV6: family == .v6, to: &out)
    case .v2:
      header.ends = ProxyHeader.Ends(
        source: source.proxyAddress(as: family), destination: destination.proxyAddress(as: family))
      header.uniqueID = Array(record.name.utf8)
      header.authority = connectedName(login)
      header.tls = login.header.tls
      if let facts = client.tlsFacts {
        var tls = ProxyHeader.TLS()
        tls.version = Array(facts.version.utf8)
        tls.cipher = Array(facts.cipher.utf8)
        tls.commonName = client.peerName(.commonName) ?? []
        header.tls = tls
      }
      header.appendBinary(to: &out)
    }
  }
}

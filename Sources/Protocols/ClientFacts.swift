/// What proxies tell each other about a client: Dovecot's ID and XCLIENT vocabulary, read and written.

/// One thing that is told.
package enum ClientFact: Int, Equatable, Sendable, CaseIterable {
  /// The session's name, the same in every log on the way.
  case session
  case address, port
  /// The address and port the client connected to.
  case connectedAddress, connectedPort
  /// How many proxies may still follow: what stops a loop.
  case ttl
  /// `TLS` or `insecure`: how the client came.
  case transport
  /// The host name the client asked for in TLS.
  case connectedName

  /// The key in IMAP's ID, as Dovecot 2.4 has them.
  var identification: StaticString {
    switch self {
    case .session: "x-session-id"
    case .address: "x-originating-ip"
    case .port: "x-originating-port"
    case .connectedAddress: "x-connected-ip"
    case .connectedPort: "x-connected-port"
    case .ttl: "x-proxy-ttl"
    case .transport: "x-client-transport"
    case .connectedName: "x-connected-name"
    }
  }

  /// The attribute in XCLIENT.
  var attribute: StaticString {
    switch self {
    case .session: "SESSION"
    case .address: "ADDR"
    case .port: "PORT"
    case .connectedAddress: "DESTADDR"
    case .connectedPort: "DESTPORT"
    case .ttl: "TTL"
    case .transport: "CLIENT-TRANSPORT"
    case .connectedName: "DESTNAME"
    }
  }

  /// Whether the value is one: nothing that could be read as the protocol's own words gets through.
  fileprivate func accepts(_ value: Span<UInt8>) -> Bool {
    guard value.count > 0, value.count <= longest else { return false }
    for index in value.indices where !accepts(value[index]) { return false }
    return fits(value)
  }

  /// Whether a number is one of its kind's: whoever asks for a port may take it for one.
  private func fits(_ value: Span<UInt8>) -> Bool {
    switch self {
    case .port, .connectedPort: Int(String(decoding: value.array, as: UTF8.self)) ?? .max <= Int(UInt16.max)
    case .session, .address, .connectedAddress, .ttl, .transport, .connectedName: true
    }
  }

  /// Dovecot takes session names of 64 bytes; a v6 address has 45 with its zone; a host name 255.
  private var longest: Int {
    switch self {
    case .session: 64
    case .address, .connectedAddress: 64
    case .port, .connectedPort: 5
    case .ttl: 3
    case .transport: 8
    case .connectedName: 255
    }
  }

  private func accepts(_ byte: UInt8) -> Bool {
    switch self {
    case .port, .connectedPort, .ttl: byte.isDigit
    case .address, .connectedAddress:
      byte.isDigit || (byte.lowercased >= .ascii("a") && byte.lowercased <= .ascii("z")) || byte == .ascii(":")
        || byte == .ascii(".") || byte == .ascii("%")
    case .session, .transport, .connectedName:
      byte > .space && byte < 0x7F && byte != .ascii("\"") && byte != .ascii("\\") && byte != .ascii("(")
        && byte != .ascii(")") && byte != .ascii("{")
    }
  }
}

/// Facts with their values. Holds no memory while nothing is known.
package struct ClientFacts: Equatable, Sendable {
  private var values: [[UInt8]] = []

  /// Nothing known.
  package init() {}

  /// Whether nothing is known.
  package var isEmpty: Bool { values.isEmpty }

  /// A fact's value; empty if it is not known.
  package subscript(_ fact: ClientFact) -> [UInt8] { values.isEmpty ? [] : values[fact.rawValue] }

  /// Takes a value of our own or of a peer's; one that can't be is passed over.
  package mutating func set(_ fact: ClientFact, _ value: Span<UInt8>) {
    guard fact.accepts(value) else { return }
    if values.isEmpty { values = Array(repeating: [], count: ClientFact.allCases.count) }
    values[fact.rawValue] = value.array
  }

  /// The same for text of our own.
  package mutating func set(_ fact: ClientFact, _ text: String) { set(fact, Array(text.utf8).span) }

  /// The number of a port or of the TTL; nil if it is not known.
  package func number(_ fact: ClientFact) -> Int? { Int(String(decoding: self[fact], as: UTF8.self)) }

  /// Takes a pair of IMAP's ID. A key that is none of ours is passed over.
  mutating func take(identification key: Span<UInt8>, _ value: Span<UInt8>) {
    for fact in ClientFact.allCases where key.equalsIgnoringCase(fact.identification) { set(fact, value) }
  }

  /// Takes XCLIENT's arguments, `NAME=value` parted by blanks. Unknown ones are passed over, as Dovecot does.
  mutating func take(attributes line: Span<UInt8>) {
    var start = 0
    while start < line.count {
      let end = line.firstIndex(of: .space, from: start) ?? line.count
      let word = line.extracting(start..<end)
      if let sign = word.firstIndex(of: .ascii("=")) {
        let name = word.extracting(..<sign)
        for fact in ClientFact.allCases where name.equalsIgnoringCase(fact.attribute) {
          set(fact, word.extracting((sign + 1)...))
        }
      }
      start = end + 1
    }
  }

  /// Appends IMAP's ID pairs, each with a blank before it but the first.
  func append(identificationTo out: inout [UInt8], isFirst: Bool) {
    var isFirst = isFirst
    for fact in ClientFact.allCases where !self[fact].isEmpty {
      if !isFirst { out.append(.space) }
      isFirst = false
      out.append(.ascii("\""))
      out.append(fact.identification)
      out.append("\" \"")
      out.append(contentsOf: self[fact])
      out.append(.ascii("\""))
    }
  }

  /// Appends XCLIENT's arguments, each with a blank before it; of `announced` names only, unless that is empty.
  func append(attributesTo out: inout [UInt8], announced: Span<UInt8>) {
    for fact in ClientFact.allCases where !self[fact].isEmpty {
      guard announced.count == 0 || announced.hasWord(fact.attribute) else { continue }
      out.append(.space)
      out.append(fact.attribute)
      out.append(.ascii("="))
      out.append(contentsOf: self[fact])
    }
  }
}

/// What a backend dialogue is told about the login besides the draft: nothing of it is secret.
package struct BackendTerms: Equatable, Sendable {
  /// What the channel is at the beginning.
  package var channel: BackendChannel
  /// Who the client is, for backends that are to know; empty if they are not.
  package var client: ClientFacts
  /// Whether commands may be sent before the one before is answered.
  package var pace: Pace

  /// How a backend wants its commands.
  package enum Pace: Equatable, Sendable {
    case pipelined
    /// One at a time, for servers that lose what comes early.
    case stepwise
  }

  /// Terms, each but the channel with its default.
  package init(channel: BackendChannel, client: ClientFacts = ClientFacts(), pace: Pace = .pipelined) {
    self.channel = channel
    self.client = client
    self.pace = pace
  }
}

extension Span<UInt8> {
  /// Whether the text stands anywhere, letters compared without regard to case.
  func hasText(_ text: StaticString) -> Bool {
    var start = 0
    while start + text.utf8CodeUnitCount <= count {
      if extracting(start...).startsIgnoringCase(with: text) { return true }
      start += 1
    }
    return false
  }

  /// Whether `word` is among the words that blanks part.
  func hasWord(_ word: StaticString) -> Bool {
    var start = 0
    while start < count {
      let end = firstIndex(of: .space, from: start) ?? count
      if extracting(start..<end).equalsIgnoringCase(word) { return true }
      start = end + 1
    }
    return false
  }
}

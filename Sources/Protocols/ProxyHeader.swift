/// Reads and writes the PROXY protocol's header, versions 1 and 2 (HAProxy's proxy-protocol.txt).

/// An address and port as a header has them; turned into the system's form by whoever has a system.
package enum ProxyAddress: Equatable, Sendable {
  /// Version 1: in words, not looked into.
  case text([UInt8], port: UInt16)
  case v4(UInt32, port: UInt16)
  case v6(high: UInt64, low: UInt64, port: UInt16)
}

/// What a header says of a connection.
package struct ProxyHeader: Equatable, Sendable {
  /// Whose connection it is, and where that was made to; nil if the proxy speaks for itself (LOCAL, UNKNOWN: its own
  /// health checks).
  package var ends: Ends?
  /// The connection's TLS with the client, which the proxy ended; nil if there was none or nothing is told of it.
  package var tls: TLS?
  /// The host name asked for in TLS (PP2_TYPE_AUTHORITY); empty if not told.
  package var authority: [UInt8] = []
  /// The proxy's name for the connection (PP2_TYPE_UNIQUE_ID); empty if not told.
  package var uniqueID: [UInt8] = []

  /// The two ends of a connection.
  package struct Ends: Equatable, Sendable {
    /// The client.
    package var source: ProxyAddress
    /// What it connected to.
    package var destination: ProxyAddress

    /// Two ends of one family.
    package init(source: ProxyAddress, destination: ProxyAddress) {
      self.source = source
      self.destination = destination
    }
  }

  /// What the TLV PP2_TYPE_SSL tells.
  package struct TLS: Equatable, Sendable {
    /// As `TLSv1.3`.
    package var version: [UInt8] = []
    /// OpenSSL's name.
    package var cipher: [UInt8] = []
    /// The common name of the client's certificate; empty without one.
    package var commonName: [UInt8] = []

    /// Nothing known but that there is TLS.
    package init() {}
  }

  /// A header that speaks for the proxy itself.
  package init() {}

  /// What stands at the front of a connection's bytes.
  package enum Reading: Equatable, Sendable {
    /// More bytes must come.
    case incomplete
    /// Not a header; the connection ends.
    case invalid
    /// A header of that many bytes.
    case header(ProxyHeader, consumed: Int)
  }

  /// Reads a header of either version.
  package static func read(_ input: Span<UInt8>) -> Reading {
    guard input.count > 0 else { return .incomplete }
    return input[0] == signature[0] ? readBinary(input) : readText(input)
  }

  // MARK: Version 1

  /// §2.1: at most 107 bytes with the line end.
  private static let longestLine = 107

  private static func readText(_ input: Span<UInt8>) -> Reading {
    let front = input.extracting(..<min(6, input.count))
    guard "PROXY ".utf8.starts(with: front.array) else { return .invalid }
    guard let end = input.firstIndex(of: .lineFeed) else { return input.count < longestLine ? .incomplete : .invalid }
    guard end < longestLine, input[end - 1] == .carriageReturn else { return .invalid }
    let words = split(input.extracting(..<(end - 1)))
    var header = ProxyHeader()
    // UNKNOWN: whatever follows is to be passed over.
    if words.count >= 2, words[1] == Array("UNKNOWN".utf8) { return .header(header, consumed: end + 1) }
    guard words.count == 6, words[1] == Array("TCP4".utf8) || words[1] == Array("TCP6".utf8),
      let sourcePort = port(words[4]), let destinationPort = port(words[5])
    else { return .invalid }
    header.ends = Ends(
      source: .text(words[2], port: sourcePort), destination: .text(words[3], port: destinationPort))
    return .header(header, consumed: end + 1)
  }

  private static func split(_ line: Span<UInt8>) -> [[UInt8]] {
    var words: [[UInt8]] = []
    var start = 0
    while start <= line.count {
      let end = line.firstIndex(of: .space, from: start) ?? line.count
      words.append(line.extracting(start..<end).array)
      start = end + 1
    }
    return words
  }

  private static func port(_ digits: [UInt8]) -> UInt16? {
    guard !digits.isEmpty, digits.count <= 5, digits.allSatisfy(\.isDigit) else { return nil }
    return UInt16(String(decoding: digits, as: UTF8.self))
  }

  // MARK: Version 2

  /// Of each text within.
  private static let longestText = 255
  private static let signature: [UInt8] = [0x0D, 0x0A, 0x0D, 0x0A, 0x00, 0x0D, 0x0A, 0x51, 0x55, 0x49, 0x54, 0x0A]
  /// What may follow the first sixteen bytes. The format allows 65,535; a client's certificate is what makes one long, and
  /// nobody sends that whole.
  private static let longestRest = 4_096

  private static func readBinary(_ input: Span<UInt8>) -> Reading {
    for index in 0..<min(12, input.count) where input[index] != signature[index] { return .invalid }
    guard input.count >= 16 else { return .incomplete }
    let length = Int(input[14]) << 8 | Int(input[15])
    guard input[12] >> 4 == 2, length <= longestRest else { return .invalid }
    guard input.count >= 16 + length else { return .incomplete }
    let rest = input.extracting(16..<(16 + length))
    switch input[12] & 0x0F {
    // LOCAL: the proxy's own connection; the rest is to be passed over.
    case 0: return .header(ProxyHeader(), consumed: 16 + length)
    case 1: break
    default: return .invalid
    }
    var header = ProxyHeader()
    let size: Int
    switch input[13] {
    // TCP over IPv4, over IPv6.
    case 0x11:
      size = 12
      guard length >= size else { return .invalid }
      header.ends = Ends(
        source: .v4(UInt32(number(rest, 0, 4)), port: UInt16(number(rest, 8, 2))),
        destination: .v4(UInt32(number(rest, 4, 4)), port: UInt16(number(rest, 10, 2))))
    case 0x21:
      size = 36
      guard length >= size else { return .invalid }
      header.ends = Ends(
        source: .v6(high: number(rest, 0, 8), low: number(rest, 8, 8), port: UInt16(number(rest, 32, 2))),
        destination: .v6(high: number(rest, 16, 8), low: number(rest, 24, 8), port: UInt16(number(rest, 34, 2))))
    // Unspecified, or a family we are not reached by.
    default: return .header(header, consumed: 16 + length)
    }
    guard header.take(rest.extracting(size...)) else { return .invalid }
    return .header(header, consumed: 16 + length)
  }

  private static func number(_ bytes: Span<UInt8>, _ start: Int, _ count: Int) -> UInt64 {
    var number: UInt64 = 0
    for index in start..<(start + count) { number = number << 8 | UInt64(bytes[index]) }
    return number
  }

  /// §2.2.1: a type, a length of two bytes, a value. Returns false if one does not fit.
  private mutating func take(_ values: Span<UInt8>) -> Bool {
    ProxyHeader.each(values) { type, value in
      switch type {
      // Longer than any host name or session's name is: passed over, so that what we write of it stays short too.
      case Value.authority: authority = value.count <= ProxyHeader.longestText ? value.array : []
      case Value.uniqueID: uniqueID = value.count <= ProxyHeader.longestText ? value.array : []
      case Value.tls:
        // One byte of flags, four of the verification's result, then values within.
        guard value.count >= 5 else { return false }
        guard value[0] & 0x01 != 0 else { return true }
        var facts = TLS()
        let isWhole = ProxyHeader.each(value.extracting(5...)) { type, value in
          guard value.count <= ProxyHeader.longestText else { return true }
          switch type {
          case Value.version: facts.version = value.array
          case Value.commonName: facts.commonName = value.array
          case Value.cipher: facts.cipher = value.array
          default: break
          }
          return true
        }
        tls = facts
        return isWhole
      // Types nobody told us of are to be passed over.
      default: break
      }
      return true
    }
  }

  private static func each(_ values: Span<UInt8>, _ body: (UInt8, Span<UInt8>) -> Bool) -> Bool {
    var start = 0
    while start < values.count {
      guard start + 3 <= values.count else { return false }
      let end = start + 3 + Int(values[start + 1]) << 8 + Int(values[start + 2])
      guard end <= values.count, body(values[start], values.extracting((start + 3)..<end)) else { return false }
      start = end
    }
    return true
  }

  private enum Value {
    static let authority: UInt8 = 0x02
    static let uniqueID: UInt8 = 0x05
    static let tls: UInt8 = 0x20
    static let version: UInt8 = 0x21
    static let commonName: UInt8 = 0x22
    static let cipher: UInt8 = 0x23
  }

  // MARK: Writing

  /// Appends the header in version 2.
  package func appendBinary(to out: inout [UInt8]) {
    var rest: [UInt8] = []
    var family: UInt8 = 0
    switch (ends?.source, ends?.destination) {
    case (.v4(let source, let sourcePort)?, .v4(let destination, let destinationPort)?):
      family = 0x11
      for value in [source, destination] { ProxyHeader.append(UInt64(value), 4, &rest) }
      for value in [sourcePort, destinationPort] { ProxyHeader.append(UInt64(value), 2, &rest) }
    case (.v6(let high, let low, let sourcePort)?, .v6(let otherHigh, let otherLow, let destinationPort)?):
      family = 0x21
      for value in [high, low, otherHigh, otherLow] { ProxyHeader.append(value, 8, &rest) }
      for value in [sourcePort, destinationPort] { ProxyHeader.append(UInt64(value), 2, &rest) }
    default: break
    }
    if family != 0 {
      if !authority.isEmpty { ProxyHeader.append(Value.authority, authority, &rest) }
      if !uniqueID.isEmpty { ProxyHeader.append(Value.uniqueID, uniqueID, &rest) }
      if let tls {
        // PP2_CLIENT_SSL, and a result that says "verified or none shown".
        var value: [UInt8] = [0x01, 0, 0, 0, 0]
        ProxyHeader.append(Value.version, tls.version, &value)
        if !tls.commonName.isEmpty { ProxyHeader.append(Value.commonName, tls.commonName, &value) }
        ProxyHeader.append(Value.cipher, tls.cipher, &value)
        ProxyHeader.append(Value.tls, value, &rest)
      }
    }
    out.append(contentsOf: ProxyHeader.signature)
    out.append(family == 0 ? 0x20 : 0x21)
    out.append(family)
    ProxyHeader.append(UInt64(rest.count), 2, &out)
    out.append(contentsOf: rest)
  }

  private static func append(_ number: UInt64, _ count: Int, _ out: inout [UInt8]) {
    for index in (0..<count).reversed() { out.append(UInt8(truncatingIfNeeded: number >> UInt64(8 * index))) }
  }

  private static func append(_ type: UInt8, _ value: [UInt8], _ out: inout [UInt8]) {
    out.append(type)
    append(UInt64(value.count), 2, &out)
    out.append(contentsOf: value)
  }

  /// Appends the header in version 1, for ends whose addresses are told in words; UNKNOWN without.
  package func appendText(isV6: Bool, to out: inout [UInt8]) {
    guard case .text(let source, let sourcePort)? = ends?.source,
      case .text(let destination, let destinationPort)? = ends?.destination
    else { return out.append("PROXY UNKNOWN\r\n") }
    out.append(isV6 ? "PROXY TCP6 " : "PROXY TCP4 ")
    out.append(contentsOf: source)
    out.append(.space)
    out.append(contentsOf: destination)
    out.append(contentsOf: " \(sourcePort) \(destinationPort)\r\n".utf8)
  }
}

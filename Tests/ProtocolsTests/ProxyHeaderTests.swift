import Testing

@testable import Protocols

private func read(_ bytes: [UInt8]) -> ProxyHeader.Reading { ProxyHeader.read(bytes.span) }
private func read(_ text: String) -> ProxyHeader.Reading { read(Array(text.utf8)) }

private let signature: [UInt8] = [0x0D, 0x0A, 0x0D, 0x0A, 0x00, 0x0D, 0x0A, 0x51, 0x55, 0x49, 0x54, 0x0A]

/// A header of version 2 of its parts.
private func binary(_ command: UInt8, _ family: UInt8, _ rest: [UInt8]) -> [UInt8] {
  signature + [command, family, UInt8(rest.count >> 8), UInt8(rest.count & 0xFF)] + rest
}

private let v4: [UInt8] = [192, 0, 2, 1, 198, 51, 100, 2, 0x12, 0x67, 0x03, 0xE1]
private let v6: [UInt8] =
  [0x20, 0x01, 0x0D, 0xB8] + Array(repeating: 0, count: 11) + [1] + [0x20, 0x01, 0x0D, 0xB8]
  + Array(repeating: 0, count: 11) + [2] + [0x12, 0x67, 0x03, 0xE1]

private func value(_ type: UInt8, _ bytes: [UInt8]) -> [UInt8] {
  [type, UInt8(bytes.count >> 8), UInt8(bytes.count & 0xFF)] + bytes
}

struct ProxyHeaderTests {
  // MARK: Version 1

  @Test(arguments: [
    ("PROXY TCP4 192.0.2.1 198.51.100.2 4711 993\r\n", "192.0.2.1", "198.51.100.2"),
    ("PROXY TCP6 2001:db8::1 2001:db8::2 4711 993\r\n", "2001:db8::1", "2001:db8::2"),
  ])
  func readsText(_ line: String, _ source: String, _ destination: String) {
    var header = ProxyHeader()
    header.ends = ProxyHeader.Ends(
      source: .text(Array(source.utf8), port: 4711), destination: .text(Array(destination.utf8), port: 993))
    #expect(read(line) == .header(header, consumed: line.utf8.count))
    // What stands behind is the client's.
    #expect(read(line + "a NOOP\r\n") == .header(header, consumed: line.utf8.count))
    for count in 0..<line.utf8.count {
      #expect(read(Array(line.utf8.prefix(count))) == .incomplete, "\(count) bytes")
    }
  }

  @Test(arguments: ["PROXY UNKNOWN\r\n", "PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n"])
  func readsUnknown(_ line: String) {
    #expect(read(line) == .header(ProxyHeader(), consumed: line.utf8.count))
  }

  @Test(arguments: [
    "a NOOP\r\n", "proxy TCP4 1.1.1.1 2.2.2.2 1 2\r\n", "PROXX", "PROXY\r\n", "PROXY \r\n", "PROXY TCP4\r\n",
    "PROXY TCP4 1.1.1.1 2.2.2.2 1 2\n", "PROXY TCP5 1.1.1.1 2.2.2.2 1 2\r\n", "PROXY TCP4 1.1.1.1 2.2.2.2 1\r\n",
    "PROXY TCP4 1.1.1.1 2.2.2.2 1 2 3\r\n", "PROXY  TCP4 1.1.1.1 2.2.2.2 1 2\r\n",
    "PROXY TCP4 1.1.1.1  2.2.2.2 1 2\r\n", "PROXY TCP4 1.1.1.1 2.2.2.2 65536 2\r\n",
    "PROXY TCP4 1.1.1.1 2.2.2.2 1 +2\r\n", "PROXY TCP4 1.1.1.1 2.2.2.2 1 \r\n", "PROXY TCP4 1.1.1.1 2.2.2.2 0x1 2\r\n",
    "PROXY tcp4 1.1.1.1 2.2.2.2 1 2\r\n", "\u{16}\u{3}\u{1}", "QUIT\r\n", "PROXY UNKNOWNS\r\n",
  ])
  func refusesText(_ line: String) {
    #expect(read(line) == .invalid)
  }

  @Test func aLineHasABound() {
    // §2.1: 107 bytes with the line end.
    let fitting = "PROXY UNKNOWN " + String(repeating: "x", count: 91) + "\r\n"
    #expect(fitting.utf8.count == 107)
    #expect(read(fitting) == .header(ProxyHeader(), consumed: 107))
    let long = "PROXY UNKNOWN " + String(repeating: "x", count: 92) + "\r\n"
    #expect(read(long) == .invalid)
    #expect(read(Array(long.utf8.prefix(106))) == .incomplete)
    #expect(read(Array(long.utf8.prefix(107))) == .invalid)
  }

  // MARK: Version 2

  private static var v4Header: ProxyHeader {
    var header = ProxyHeader()
    header.ends = ProxyHeader.Ends(
      source: .v4(0xC000_0201, port: 0x1267), destination: .v4(0xC633_6402, port: 993))
    return header
  }

  @Test func readsV4() {
    let bytes = binary(0x21, 0x11, v4)
    #expect(read(bytes + [0x61]) == .header(ProxyHeaderTests.v4Header, consumed: 28))
  }

  @Test func readsV6() {
    var header = ProxyHeader()
    header.ends = ProxyHeader.Ends(
      source: .v6(high: 0x2001_0DB8_0000_0000, low: 1, port: 0x1267),
      destination: .v6(high: 0x2001_0DB8_0000_0000, low: 2, port: 993))
    #expect(read(binary(0x21, 0x21, v6)) == .header(header, consumed: 52))
  }

  @Test(
    arguments: [
      (0x20, 0x00, []), (0x20, 0x11, v4), (0x20, 0xFF, [1, 2, 3]), (0x21, 0x00, []), (0x21, 0x31, [0, 0]),
      (0x21, 0x12, v4),
    ] as [(UInt8, UInt8, [UInt8])])
  func readsTheProxysOwn(_ command: UInt8, _ family: UInt8, _ rest: [UInt8]) {
    let bytes = binary(command, family, rest)
    #expect(read(bytes) == .header(ProxyHeader(), consumed: bytes.count))
  }

  @Test func everyTruncationIsIncomplete() {
    let tls = value(0x20, [0x01, 0, 0, 0, 0] + value(0x21, Array("TLSv1.3".utf8)))
    for bytes in [binary(0x21, 0x11, v4 + tls), binary(0x21, 0x21, v6), binary(0x20, 0, [])] {
      for count in 0..<bytes.count { #expect(read(Array(bytes.prefix(count))) == .incomplete, "\(count) bytes") }
      guard case .header = read(bytes) else {
        Issue.record("not read whole")
        continue
      }
    }
  }

  @Test func everyCorruptSignatureIsInvalid() {
    let bytes = binary(0x21, 0x11, v4)
    for index in 0..<12 {
      var corrupt = bytes
      corrupt[index] ^= 0x20
      #expect(read(corrupt) == .invalid, "byte \(index)")
      // At once, not only when all is there.
      #expect(read(Array(corrupt.prefix(index + 1))) == .invalid, "byte \(index) alone")
    }
  }

  @Test(
    arguments: [
      (0x11, 0x11, v4), (0x31, 0x11, v4), (0x22, 0x11, v4), (0x2F, 0x11, v4), (0x21, 0x11, Array(v4.dropLast())),
      (0x21, 0x21, v4), (0x21, 0x21, Array(v6.dropLast())), (0x21, 0x11, []), (0x21, 0x11, v4 + [0x02]),
      (0x21, 0x11, v4 + [0x02, 0x00]), (0x21, 0x11, v4 + [0x02, 0x00, 0x01]),
      (0x21, 0x11, v4 + [0x02, 0xFF, 0xFF, 0x61]),
      (0x21, 0x11, v4 + value(0x20, [])), (0x21, 0x11, v4 + value(0x20, [1, 0, 0, 0])),
      (0x21, 0x11, v4 + value(0x20, [1, 0, 0, 0, 0, 0x21, 0, 9, 0x61])),
      (0x21, 0x11, v4 + value(0x20, [1, 0, 0, 0, 0, 0x21])),
      (0x21, 0x11, v4 + Array(repeating: 0, count: 4_085)),
    ] as [(UInt8, UInt8, [UInt8])])
  func refusesBinary(_ command: UInt8, _ family: UInt8, _ rest: [UInt8]) {
    #expect(read(binary(command, family, rest)) == .invalid)
  }

  @Test func aLongOneIsRefusedBeforeItCame() {
    #expect(read(signature + [0x21, 0x11, 0xFF, 0xFF]) == .invalid)
    #expect(read(signature + [0x21, 0x11, 0x10, 0x00]) == .incomplete)
    #expect(read(signature + [0x21, 0x11, 0x10, 0x01]) == .invalid)
  }

  @Test func readsValues() {
    let inner =
      value(0x21, Array("TLSv1.3".utf8)) + value(0x22, Array("alice".utf8)) + value(0x23, Array("AES".utf8))
      + value(0x26, Array("RSA".utf8))
    let rest =
      v4 + value(0x01, Array("imap".utf8)) + value(0x02, Array("mail.example.com".utf8)) + value(0x04, [0, 0, 0])
      + value(0x05, Array("id".utf8)) + value(0x20, [0x07, 0, 0, 0, 0] + inner) + value(0xEA, [])
    var header = ProxyHeaderTests.v4Header
    header.authority = Array("mail.example.com".utf8)
    header.uniqueID = Array("id".utf8)
    var tls = ProxyHeader.TLS()
    tls.version = Array("TLSv1.3".utf8)
    tls.commonName = Array("alice".utf8)
    tls.cipher = Array("AES".utf8)
    header.tls = tls
    let bytes = binary(0x21, 0x11, rest)
    #expect(read(bytes) == .header(header, consumed: bytes.count))
  }

  @Test func tlsThatWasNotThereIsNotTold() {
    // PP2_CLIENT_SSL is not set: the values within are for nobody.
    let rest = v4 + value(0x20, [0x06, 0, 0, 0, 0] + value(0x21, Array("TLSv1.3".utf8)))
    let bytes = binary(0x21, 0x11, rest)
    #expect(read(bytes) == .header(ProxyHeaderTests.v4Header, consumed: bytes.count))
  }

  // MARK: Writing

  @Test func whatIsWrittenIsRead() {
    var random = SeededGenerator(seed: 7)
    func some(_ longest: Int) -> [UInt8] {
      (0..<Int.random(in: 0...longest, using: &random)).map { _ in UInt8.random(in: 0...255, using: &random) }
    }
    for round in 0..<300 {
      var header = ProxyHeader()
      if round % 7 != 0 {
        func port() -> UInt16 { UInt16.random(in: 0...UInt16.max, using: &random) }
        func half() -> UInt64 { UInt64.random(in: 0...UInt64.max, using: &random) }
        header.ends =
          round % 2 == 0
          ? ProxyHeader.Ends(
            source: .v4(UInt32(truncatingIfNeeded: half()), port: port()),
            destination: .v4(UInt32(truncatingIfNeeded: half()), port: port()))
          : ProxyHeader.Ends(
            source: .v6(high: half(), low: half(), port: port()),
            destination: .v6(high: half(), low: half(), port: port()))
        header.authority = some(255)
        header.uniqueID = some(64)
        if round % 3 == 0 {
          var tls = ProxyHeader.TLS()
          tls.version = some(10)
          tls.cipher = some(40)
          tls.commonName = some(64)
          header.tls = tls
        }
      }
      var bytes: [UInt8] = []
      header.appendBinary(to: &bytes)
      #expect(read(bytes + some(5)) == .header(header, consumed: bytes.count))
    }
  }

  @Test(arguments: [false, true]) func whatIsWrittenInWordsIsRead(_ isV6: Bool) {
    var header = ProxyHeader()
    let (source, destination) = isV6 ? ("2001:db8::1", "::1") : ("192.0.2.1", "198.51.100.2")
    header.ends = ProxyHeader.Ends(
      source: .text(Array(source.utf8), port: 65535), destination: .text(Array(destination.utf8), port: 0))
    var bytes: [UInt8] = []
    header.appendText(isV6: isV6, to: &bytes)
    #expect(String(decoding: bytes, as: UTF8.self) == "PROXY TCP\(isV6 ? 6 : 4) \(source) \(destination) 65535 0\r\n")
    #expect(read(bytes) == .header(header, consumed: bytes.count))
  }

  @Test func aProxysOwnIsWrittenAsSuch() {
    var text: [UInt8] = []
    ProxyHeader().appendText(isV6: false, to: &text)
    #expect(text == Array("PROXY UNKNOWN\r\n".utf8))
    var bytes: [UInt8] = []
    ProxyHeader().appendBinary(to: &bytes)
    #expect(bytes == binary(0x20, 0, []))
  }

  @Test func chanceTrapsNothing() {
    var random = SeededGenerator(seed: 11)
    var headers = 0
    for _ in 0..<20_000 {
      var bytes = binary(0x21, Bool.random(using: &random) ? 0x11 : 0x21, v6 + value(0x20, [1, 0, 0, 0, 0]))
      for _ in 0..<Int.random(in: 1...4, using: &random) {
        bytes[Int.random(in: 12..<bytes.count, using: &random)] = UInt8.random(in: 0...255, using: &random)
      }
      if case .header(_, let consumed) = read(bytes) {
        headers += 1
        #expect(consumed <= bytes.count)
      }
    }
    #expect(headers > 1_000)
  }
}

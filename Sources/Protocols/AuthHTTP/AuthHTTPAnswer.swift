/// Decides what an HTTP service of nginx's auth_http protocol has said: stricter than nginx, which reads no status, takes a
/// missing Auth-Status for a yes, and understands no names.

package enum AuthHTTPAnswer: Equatable, Sendable {
  case accepted(Accepted)
  case refused(Refused)
  /// The same is to be asked again after so many seconds.
  case again(after: UInt64)
  /// It is no answer that can be used. The reason quotes nothing of it but numbers and names of headers.
  case failed(String)

  /// Where a login goes.
  package struct Accepted: Equatable, Sendable {
    /// `host:port`, or what the service said without a port: a backend's name or a host.
    package var backend: String
    /// The name to log in with there; nil for the client's.
    package var user: [UInt8]?
    /// Whether there is a password to log in with.
    package var hasPassword: Bool

    /// A destination of its parts.
    package init(backend: String, user: [UInt8]? = nil, hasPassword: Bool = false) {
      self.backend = backend
      self.user = user
      self.hasPassword = hasPassword
    }
  }

  /// A no.
  package struct Refused: Equatable, Sendable {
    /// Words for the client: one line of UTF-8 without control characters.
    package var words: [UInt8]
    /// Seconds until the client is told; nil if the service asks for none.
    package var delay: UInt64?

    /// A no of its parts.
    package init(words: [UInt8], delay: UInt64? = nil) {
      self.words = words
      self.delay = delay
    }
  }

  /// The most an answer's header lines may be, in bytes. nginx takes 1,024; a name, a token and a cookie need more.
  package static let mostBytes = 8_192
  /// The longest words for the client. Clients show a line of it.
  static let mostWords = 256
  /// The longest wait that is kept, in seconds. A client gives up sooner than that.
  static let longestWait: UInt64 = 60

  /// Reads an answer's head: the status line and the header lines, each with its end, up to the empty line; what is behind
  /// it is trailers and is not read. An interim answer (RFC 9110 §15.2) may stand before. The password for the backend, if
  /// there is one, goes to `password`.
  package static func read(_ head: Span<UInt8>, password: inout Secret) -> AuthHTTPAnswer {
    guard head.count <= mostBytes else { return .failed("its header lines are longer than \(mostBytes) bytes") }
    var lines = HeadLines()
    var fields = Fields()
    do throws(Fault) {
      let status = try lines.status(head)
      while let line = lines.next(head), !line.isEmpty { try fields.take(head.extracting(line), at: line.lowerBound) }
      return try fields.decide(head, status, &password)
    } catch {
      password.removeAll()
      return .failed(error.reason)
    }
  }

  fileprivate struct Fault: Error {
    let reason: String
  }
}

/// Walks over the lines of an answer's head.
private struct HeadLines {
  private var place = 0

  /// The next line without its end; nil if there is no whole one.
  mutating func next(_ head: Span<UInt8>) -> Range<Int>? {
    guard let end = head.firstIndex(of: .lineFeed, from: place) else { return nil }
    let hasReturn = end > place && head[end - 1] == .carriageReturn
    defer { place = end + 1 }
    return place..<(hasReturn ? end - 1 : end)
  }

  /// The status of the answer proper, behind all interim ones.
  mutating func status(_ head: Span<UInt8>) throws(AuthHTTPAnswer.Fault) -> Int {
    while true {
      guard let line = next(head), let status = HeadLines.status(head.extracting(line)) else {
        throw AuthHTTPAnswer.Fault(reason: "its first line is none of HTTP's")
      }
      guard (100..<200).contains(status) else { return status }
      while let line = next(head), !line.isEmpty {}
    }
  }

  /// RFC 9112 §4, and what curl makes of HTTP/2: `HTTP/1.1 200 OK`.
  private static func status(_ line: Span<UInt8>) -> Int? {
    guard line.startsIgnoringCase(with: "HTTP/"), let blank = line.firstIndex(of: .space), line.count >= blank + 4,
      line.count == blank + 4 || line[blank + 4] == .space
    else { return nil }
    var number = 0
    for index in blank + 1..<blank + 4 {
      guard line[index].isDigit else { return nil }
      number = number * 10 + Int(line[index] - .ascii("0"))
    }
    return number >= 100 ? number : nil
  }
}

/// Where the headers that count stand in an answer's head.
private struct Fields {
  private var values: [Name: Range<Int>] = [:]

  /// The headers that count.
  private enum Name: String, CaseIterable {
    case status = "Auth-Status"
    case server = "Auth-Server"
    case port = "Auth-Port"
    case user = "Auth-User"
    case pass = "Auth-Pass"
    case wait = "Auth-Wait"

    static func named(_ bytes: Span<UInt8>) -> Name? {
      switch true {
      case bytes.equalsIgnoringCase("Auth-Status"): .status
      case bytes.equalsIgnoringCase("Auth-Server"): .server
      case bytes.equalsIgnoringCase("Auth-Port"): .port
      case bytes.equalsIgnoringCase("Auth-User"): .user
      case bytes.equalsIgnoringCase("Auth-Pass"): .pass
      case bytes.equalsIgnoringCase("Auth-Wait"): .wait
      default: nil
      }
    }
  }

  mutating func take(_ line: Span<UInt8>, at start: Int) throws(AuthHTTPAnswer.Fault) {
    let name: Range<Int>
    let value: Range<Int>
    do throws(HTTPHeader.Fault) { (name, value) = try HTTPHeader.parts(line) } catch {
      throw AuthHTTPAnswer.Fault(reason: error.rawValue)
    }
    guard let known = Name.named(line.extracting(name)) else { return }
    guard values[known] == nil else { throw AuthHTTPAnswer.Fault(reason: "\(known.rawValue) is there twice") }
    values[known] = (start + value.lowerBound)..<(start + value.upperBound)
  }

  func decide(
    _ head: Span<UInt8>, _ status: Int, _ password: inout Secret
  ) throws(AuthHTTPAnswer.Fault) -> AuthHTTPAnswer {
    // 401 and 403 are how HTTP says no: with a reason in Auth-Status they are one, and never a yes.
    guard [200, 204, 401, 403].contains(status) else {
      throw AuthHTTPAnswer.Fault(reason: "its status is \(status), expected 200")
    }
    guard let place = values[.status], !place.isEmpty else {
      throw AuthHTTPAnswer.Fault(reason: "there is no Auth-Status (the status is \(status))")
    }
    let word = head.extracting(place)
    let isOkay = word.equals("OK")
    guard isOkay || word.equals("WAIT") else {
      return .refused(AuthHTTPAnswer.Refused(words: Fields.words(word), delay: try wait(head)))
    }
    guard status < 300 else {
      throw AuthHTTPAnswer.Fault(reason: "its status is \(status), and Auth-Status says another thing")
    }
    guard isOkay else { return .again(after: try wait(head) ?? 0) }
    let user = values[.user].flatMap { $0.isEmpty ? nil : head.extracting($0).array }
    let hasPassword = values[.pass].map { !$0.isEmpty } ?? false
    if let place = values[.pass] { password.append(head.extracting(place)) }
    return .accepted(AuthHTTPAnswer.Accepted(backend: try backend(head), user: user, hasPassword: hasPassword))
  }

  /// The server and its port in one.
  private func backend(_ head: Span<UInt8>) throws(AuthHTTPAnswer.Fault) -> String {
    guard let place = values[.server], !place.isEmpty else {
      throw AuthHTTPAnswer.Fault(reason: "there is no Auth-Server")
    }
    // The longest host name has 253 bytes.
    guard place.count <= 256 else { throw AuthHTTPAnswer.Fault(reason: "Auth-Server is longer than a name") }
    var server = head.extracting(place).array
    for byte in server where byte <= .space || byte >= 0x7F {
      throw AuthHTTPAnswer.Fault(reason: "Auth-Server is neither an address nor a name")
    }
    let colons = server.count { $0 == .ascii(":") }
    let isBracketed = server.first == .ascii("[")
    if isBracketed {
      guard server.last == .ascii("]") else {
        throw AuthHTTPAnswer.Fault(reason: "Auth-Server has a port, which belongs to Auth-Port")
      }
    } else if colons == 1 {
      throw AuthHTTPAnswer.Fault(reason: "Auth-Server has a port, which belongs to Auth-Port")
    }
    guard let port = values[.port] else { return String(decoding: server, as: UTF8.self) }
    guard let number = Fields.number(head.extracting(port)), (1...65_535).contains(number) else {
      throw AuthHTTPAnswer.Fault(reason: "Auth-Port is no number from 1 to 65535")
    }
    if colons > 1, !isBracketed { server = [.ascii("[")] + server + [.ascii("]")] }
    return String(decoding: server, as: UTF8.self) + ":\(number)"
  }

  /// Seconds; nil if none are asked for.
  private func wait(_ head: Span<UInt8>) throws(AuthHTTPAnswer.Fault) -> UInt64? {
    guard let place = values[.wait] else { return nil }
    guard let number = Fields.number(head.extracting(place)) else {
      throw AuthHTTPAnswer.Fault(reason: "Auth-Wait is no number of seconds")
    }
    return number == 0 ? nil : min(number, AuthHTTPAnswer.longestWait)
  }

  /// Digits and nothing else; nine at most.
  private static func number(_ text: Span<UInt8>) -> UInt64? {
    guard (1...9).contains(text.count) else { return nil }
    var number: UInt64 = 0
    for index in text.indices {
      guard text[index].isDigit else { return nil }
      number = number * 10 + UInt64(text[index] - .ascii("0"))
    }
    return number
  }

  /// What the client is told: cut, and with a "?" for all that is no UTF-8, which ManageSieve demands.
  private static func words(_ text: Span<UInt8>) -> [UInt8] {
    var words: [UInt8] = []
    for scalar in String(decoding: text.array, as: UTF8.self).unicodeScalars {
      let isText = !(scalar.properties.generalCategory == .control) && scalar != "\u{FFFD}"
      let bytes = isText ? Array(String(scalar).utf8) : [.ascii("?")]
      guard words.count + bytes.count <= AuthHTTPAnswer.mostWords else { break }
      words += bytes
    }
    return words
  }
}

extension Span<UInt8> {
  /// Whether the bytes are exactly those of `text`.
  fileprivate func equals(_ text: StaticString) -> Bool {
    guard count == text.utf8CodeUnitCount else { return false }
    return text.withUTF8Buffer { wanted in
      for index in indices where unsafe self[index] != wanted[index] { return false }
      return true
    }
  }
}

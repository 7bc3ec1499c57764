/// Asks a backend's agent how the backend is, and reads its line: HAProxy's agent-check.

internal import Protocols

enum AgentCheck {
  /// What a line may have, in bytes.
  static let longestLine = 1_024

  /// Asks at the port of the first address that connects; nil if there is no answer by the deadline, or none that can be
  /// read: an agent that is away says nothing about its backend.
  static func ask(_ addresses: [SocketAddress], until deadline: UInt64, _ scratch: inout Scratch) -> AgentReport? {
    guard case .success(let connection) = ProbeConnection.open(addresses, until: deadline) else { return nil }
    var input: [UInt8] = []
    while true {
      var isWhole = false
      switch connection.hear(into: &scratch) {
      case .success(let count): input.append(scratch.span(count))
      case .failure(.closed): isWhole = true
      case .failure: return nil
      }
      switch read(input.span, isWhole: isWhole) {
      case .incomplete: continue
      case .tooLong: return nil
      case .report(let report): return report
      }
    }
  }

  /// What stands at the front of an agent's bytes.
  enum Reading: Equatable, Sendable {
    /// More bytes must come.
    case incomplete
    case tooLong
    case report(AgentReport)
  }

  /// Reads the line at the front. It ends with CR or LF, or with the connection.
  static func read(_ input: Span<UInt8>, isWhole: Bool) -> Reading {
    var end = 0
    while end < input.count, input[end] != .carriageReturn, input[end] != .lineFeed { end += 1 }
    guard end <= longestLine else { return .tooLong }
    guard end < input.count || isWhole else { return .incomplete }
    return .report(AgentReport(input.extracting(..<end)))
  }
}

/// What an agent said, as far as it is understood. Of two words for the same thing the last holds.
package struct AgentReport: Equatable, Sendable {
  /// `ready`, `drain` or `maint`: whether the backend wants users.
  package var admin: AdminState?
  /// `75%`, `weight:75%`: the percentage of its configured weight that it wants.
  package var share: Int?
  /// `weight:N`: the weight that it wants.
  package var weight: Int?
  /// `maxconn:N`: the most sessions that it wants.
  package var sessions: Int?
  /// `up`, or `down`, `fail` and `stopped` with their reason.
  package var health: HealthEvidence?

  /// A report that says nothing.
  package init() {}

  /// Reads a line without its end: words that blanks or commas part, and a text behind a sharp.
  package init(_ line: Span<UInt8>) {
    var start = 0
    var down: Span<UInt8>?
    var text = line.extracting(..<0)
    while start < line.count {
      if AgentReport.isSeparator(line[start]) {
        start += 1
        continue
      }
      if line[start] == .ascii("#") {
        text = line.extracting((start + 1)...)
        break
      }
      var end = start
      while end < line.count, !AgentReport.isSeparator(line[end]) { end += 1 }
      let word = line.extracting(start..<end)
      start = end
      if AgentReport.isDown(word) {
        down = word
      } else if word.equalsIgnoringCase("up") {
        down = nil
        health = .agentUp
      } else {
        take(word)
      }
    }
    if let down { health = .agentDown(AgentReport.reason(down, text)) }
  }

  /// HAProxy parts words at these too.
  private static func isSeparator(_ byte: UInt8) -> Bool { byte == .space || byte == 0x09 || byte == .ascii(",") }

  private static func isDown(_ word: Span<UInt8>) -> Bool {
    word.equalsIgnoringCase("down") || word.equalsIgnoringCase("fail") || word.equalsIgnoringCase("failed")
      || word.equalsIgnoringCase("stopped")
  }

  private mutating func take(_ word: Span<UInt8>) {
    if word.equalsIgnoringCase("ready") {
      admin = .ready
    } else if word.equalsIgnoringCase("drain") {
      admin = .drain
    } else if word.equalsIgnoringCase("maint") {
      admin = .maintenance
    } else if word.startsIgnoringCase(with: "maxconn:") {
      sessions = AgentReport.number(word.extracting(8...)) ?? sessions
    } else {
      let isNamed = word.startsIgnoringCase(with: "weight:")
      let value = isNamed ? word.extracting(7...) : word
      if value.count > 0, value[value.count - 1] == .ascii("%") {
        take(share: AgentReport.number(value.extracting(..<(value.count - 1))))
      } else if isNamed, let number = AgentReport.number(value) {
        weight = number
        share = nil
      }
    }
  }

  private mutating func take(share number: Int?) {
    guard let number else { return }
    share = number
    weight = nil
  }

  /// A number of at most six digits, which no weight and no count of sessions goes beyond.
  private static func number(_ digits: Span<UInt8>) -> Int? {
    guard digits.count > 0, digits.count <= 6 else { return nil }
    var number = 0
    for index in digits.indices {
      guard digits[index].isDigit else { return nil }
      number = number * 10 + Int(digits[index] - .ascii("0"))
    }
    return number
  }

  private static func reason(_ word: Span<UInt8>, _ text: Span<UInt8>) -> String {
    var bytes: [UInt8] = []
    bytes.append("its agent says ")
    for index in word.indices { bytes.append(word[index].lowercased) }
    var start = 0
    while start < text.count, text[start] == .space { start += 1 }
    if start < text.count {
      bytes.append(": ")
      bytes.appendLineSafe(text.extracting(start..<min(text.count, start + ProbeTrouble.longestQuote)))
    }
    return String(decoding: bytes, as: UTF8.self)
  }
}

/// Parts a line of an HTTP header into its name and value, and says what is wrong with one (RFC 9112 §5).

package enum HTTPHeader {
  /// What is wrong with a line.
  package enum Fault: String, Error, Equatable, Sendable {
    case noColon = "a header line has no colon"
    case name = "a header's name is no token"
    case control = "a header holds a control character"
  }

  /// Where name and value stand in a line without its end; blanks around the value belong to neither. A line that begins
  /// with a blank, which once continued the one before, has a name that is none.
  package static func parts(_ line: Span<UInt8>) throws(Fault) -> (name: Range<Int>, value: Range<Int>) {
    for index in line.indices where line[index].isControl && line[index] != .tab { throw .control }
    guard let colon = line.firstIndex(of: .ascii(":")) else { throw .noColon }
    guard colon > 0 else { throw .name }
    for index in 0..<colon where !line[index].isHTTPToken { throw .name }
    var value = (colon + 1)..<line.count
    while let first = value.first, line[first].isBlank { value = (first + 1)..<value.upperBound }
    while let last = value.last, line[last].isBlank { value = value.lowerBound..<last }
    return (0..<colon, value)
  }
}

extension UInt8 {
  /// HT.
  fileprivate static let tab: UInt8 = 0x09

  /// RFC 9110 §5.6.3: OWS.
  fileprivate var isBlank: Bool { self == .space || self == .tab }

  /// RFC 9110 §5.6.2: tchar.
  fileprivate var isHTTPToken: Bool {
    switch self {
    case .ascii("!"), .ascii("#"), .ascii("$"), .ascii("%"), .ascii("&"), .ascii("'"), .ascii("*"), .ascii("+"),
      .ascii("-"), .ascii("."), .ascii("^"), .ascii("_"), .ascii("`"), .ascii("|"), .ascii("~"):
      true
    default: isDigit || (lowercased >= .ascii("a") && lowercased <= .ascii("z"))
    }
  }
}

/// Where an HTTP service is: `http://host:port/path`, `https://…`, or nginx's `unix:/socket:/path`.

internal import Protocols

package struct HTTPAddress: Equatable, Sendable {
  /// As the operator wrote it.
  package let text: String
  /// What curl is told.
  let url: String
  /// The UNIX socket's path; nil for TCP.
  let socket: String?
  /// What the service is told of itself: its host without the port, as nginx says it.
  let host: String

  /// What is wrong with an address.
  package struct Problem: Error, Equatable, Sendable {
    /// In words.
    package let words: String
  }

  /// Reads an address. The name and password that may stand before an "@" are refused: they would be in every log.
  package init(_ text: String) throws(Problem) {
    guard text.utf8.allSatisfy({ $0 > .space && $0 < 0x7F }) else {
      throw Problem(words: "it holds a blank, a control character or a letter beyond ASCII")
    }
    guard !text.utf8.contains(.ascii("#")) else { throw Problem(words: "a fragment (#) is not sent to a server") }
    self.text = text
    if let rest = text.dropping("unix:") {
      let parts = rest.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
      guard let path = parts.first, path.hasPrefix("/") else {
        throw Problem(words: "expected unix:/socket or unix:/socket:/path")
      }
      // A socket's path has 108 bytes with the NUL (unix(7)).
      guard path.utf8.count < 108 else { throw Problem(words: "a socket's path has at most 107 bytes") }
      let uri = parts.count == 2 ? String(parts[1]) : "/"
      guard uri.hasPrefix("/") else { throw Problem(words: "expected a path that begins with / behind the socket") }
      socket = String(path)
      host = "localhost"
      url = "http://localhost\(uri)"
      return
    }
    guard let rest = text.dropping("http://") ?? text.dropping("https://") else {
      throw Problem(words: "expected http://, https:// or unix:")
    }
    let authority = rest.prefix { $0 != "/" && $0 != "?" }
    guard !authority.contains("@") else {
      throw Problem(words: "a name and password in it would be seen in logs: put a header into headers-file")
    }
    guard let place = HostPort(String(authority)), !(authority.hasSuffix(":")) else {
      throw Problem(words: "\"\(authority)\" is neither host nor host:port, v6 in brackets")
    }
    if case .address(let address) = place.host, address.family == .v6, !authority.hasPrefix("[") {
      throw Problem(words: "an address of v6 stands in brackets")
    }
    socket = nil
    host = "\(place.host)"
    url = text
  }
}

extension HTTPAddress {
  /// An address as errors show it, without a password that may be in it.
  package static func masked(_ text: String) -> String {
    guard let end = text.lastIndex(of: "@") else { return text }
    let start = text.firstRange(of: "://")?.upperBound ?? text.startIndex
    return start < end ? "\(text[..<start])***\(text[end...])" : text
  }
}

extension String {
  /// What is behind a beginning, letters compared without regard to case; nil if it begins otherwise.
  fileprivate func dropping(_ beginning: String) -> Substring? {
    prefix(beginning.count).lowercased() == beginning ? dropFirst(beginning.count) : nil
  }
}

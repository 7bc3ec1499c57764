/// What HTTP services are asked with, read once when the configuration is: addresses, the operator's own headers,
/// authorities.

internal import Protocols

package struct HTTPPlan: Sendable {
  /// Tried in order.
  let addresses: [HTTPAddress]
  /// The operator's header lines, each with a NUL behind it.
  let headers: SharedSecret
  /// Whether one of them is Host.
  let namesHost: Bool
  let sendsPassword: Bool
  /// A PEM file; nil for the system's authorities.
  let authority: String?

  /// Reads the file of headers; all that is wrong is told together. `key` is where the configuration has the source.
  init(_ settings: HTTPSettings, key: String) throws(SettingsErrors) {
    var errors: [SettingsError] = []
    var addresses: [HTTPAddress] = []
    for text in settings.urls {
      do throws(HTTPAddress.Problem) { addresses.append(try HTTPAddress(text)) } catch {
        errors.append(SettingsError(key: "\(key).url", problem: "\(HTTPAddress.masked(text)): \(error.words)"))
      }
    }
    var lines = Secret()
    var namesHost = false
    func take(_ line: Span<UInt8>, _ key: String, _ place: String) {
      if let problem = HTTPPlan.problem(line) {
        errors.append(SettingsError(key: key, problem: place + problem))
        return
      }
      namesHost = namesHost || line.startsIgnoringCase(with: "Host:")
      lines.append(line)
      lines.append(.nul)
    }
    for (index, line) in settings.headers.enumerated() {
      take(Array(line.utf8).span, "\(key).headers[\(index)]", "")
    }
    if let file = settings.headersFile {
      switch TextFile.bytes(file) {
      case .failure(let error):
        errors.append(SettingsError(key: "\(key).headers-file", problem: "\(file): it can't be read: \(error)"))
      case .success(var bytes):
        var number = 0
        for line in bytes.split(separator: .lineFeed, omittingEmptySubsequences: false) {
          number += 1
          var line = Array(line)
          defer { line.wipe() }
          if line.last == .carriageReturn { line.removeLast() }
          if line.isEmpty || line.first == .ascii("#") { continue }
          take(line.span, "\(key).headers-file", "\(file):\(number): ")
        }
        bytes.wipe()
      }
    }
    if let file = settings.authority, case .failure(let error) = TextFile.bytes(file) {
      errors.append(SettingsError(key: "\(key).ca", problem: "\(file): it can't be read: \(error)"))
    }
    guard errors.isEmpty else { throw SettingsErrors(errors) }
    self.addresses = addresses
    headers = SharedSecret(lines.span)
    self.namesHost = namesHost
    sendsPassword = settings.sendsPassword
    authority = settings.authority
  }

  /// As the log and `proxyd route` name it. What stands behind a "?" may be a secret.
  var name: String {
    "http " + addresses.map { String($0.text.prefix { $0 != "?" }) }.joined(separator: " ")
  }

  /// What is wrong with a header line of the operator's; nil if nothing is.
  package static func problem(header line: String) -> String? { problem(Array(line.utf8).span) }

  /// As above. Its value is not quoted.
  static func problem(_ line: Span<UInt8>) -> String? {
    do throws(HTTPHeader.Fault) {
      let (name, value) = try HTTPHeader.parts(line)
      let word = String(decoding: line.extracting(name).array.map(\.lowercased), as: UTF8.self)
      if AuthHTTPRequest.names.contains(word) { return "the header \(word) is proxyd's own" }
      if framing.contains(word) { return "the header \(word) is HTTP's own" }
      return value.isEmpty ? "the header \(word) has no value" : nil
    } catch {
      return "\(error.rawValue), expected Name: value"
    }
  }

  /// Headers that say how the request itself is made.
  private static let framing: Set<String> = [
    "connection", "content-length", "expect", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade",
  ]
}

/// The keys of HTTP services, and what is built of them.

internal import ProxyCore

enum HTTPSourceKeys {
  static let all: [ConfigKey] = [
    ConfigKey(
      path: "routes[].http", kind: .map, standard: "none",
      help: """
        An HTTP service that speaks the protocol of nginx's auth_http, asked with nginx's headers. It must answer with \
        status 200 (or 204) and Auth-Status. OK: Auth-Server is a host, an address or, without Auth-Port, a backend's name; \
        Auth-User and Auth-Pass replace the client's. WAIT: it is asked again after Auth-Wait seconds. Any other text is told \
        to the client, after Auth-Wait. It has no word for "not found": routes behind it are asked only with on-failure: next.
        """),
    ConfigKey(
      path: "routes[].http.url", kind: .texts, standard: nil,
      help: """
        http://, https:// or unix:/socket:/path. Of several, the next is asked if one can't be connected to, does not answer \
        in its share of the time, or answers with status 502, 503 or 504. Redirects are not followed.
        """),
    ConfigKey(
      path: "routes[].http.headers", kind: .texts, standard: "none",
      help: "Header lines, \"Name: value\", sent with each question."),
    ConfigKey(
      path: "routes[].http.headers-file", kind: .path, standard: "none",
      help: "A file with more of them, one a line, which are secret. # begins a comment."),
    ConfigKey(
      path: "routes[].http.password", kind: .choice(["withheld", "sent"]), standard: "withheld",
      help: """
        sent: the service is given the password, as by nginx, and OK means that it is right; the name goes as the client wrote \
        it. withheld: there is no Auth-Pass, neither in the question nor in the answer; the service says where users are, \
        by names in small letters, and its answers count for all who give that name, whatever their address.
        """),
    ConfigKey(
      path: "routes[].http.ca", kind: .path, standard: "the system's authorities",
      help: "PEM file with the authorities that sign the service's certificate."),
    ConfigKey(
      path: "routes[].http.connections", kind: .integer(1...256), standard: "8",
      help: "Questions at once; the connections stay open."),
  ]

  static func read(_ section: ConfigSection, _ builder: SettingsBuilder) -> SourceSettings? {
    guard section.required("url") != nil, let urls = section.texts("url") else { return nil }
    for (index, text) in urls.enumerated() {
      do throws(HTTPAddress.Problem) { _ = try HTTPAddress(text) } catch {
        report("\"\(HTTPAddress.masked(text))\" can't be used: \(error.words)", "url", index, urls.count, section)
      }
    }
    let headers = section.texts("headers") ?? []
    for (index, line) in headers.enumerated() {
      if let problem = HTTPPlan.problem(header: line) { report(problem, "headers", index, headers.count, section) }
    }
    let authority = section.text("ca").map { builder.resolve($0) }
    if authority != nil, !urls.contains(where: { $0.lowercased().hasPrefix("https:") }) {
      section.report("it is for https://", "ca")
    }
    return .http(
      HTTPSettings(
        urls: urls, headers: headers, headersFile: section.text("headers-file").map { builder.resolve($0) },
        sendsPassword: section.choice("password", Password.self) == .sent, authority: authority,
        connections: section.integer("connections") ?? 8))
  }

  private enum Password: String {
    case withheld, sent
  }

  /// Reports an entry of a list, or the text that stands for a list of one.
  private static func report(_ problem: String, _ name: String, _ index: Int, _ count: Int, _ section: ConfigSection) {
    let entry = "\(section.path(name))[\(index)]"
    let isListed = section.reader.places[entry] != nil
    section.reader.report(
      problem, key: isListed ? entry : section.path(name),
      at: section.reader.places[isListed ? entry : section.path(name)])
  }
}

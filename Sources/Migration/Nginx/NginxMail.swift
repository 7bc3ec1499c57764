/// The block `mail { }` of an nginx.conf: its servers, each with what it inherits.

internal import Protocols

/// The mail part of a configuration.
package struct NginxMail: Equatable, Sendable {
  /// What stands in `mail { }` itself.
  let common: [NginxDirective]
  /// Its servers.
  let servers: [NginxServer]
  /// What stands beside `mail { }`.
  let beside: [NginxDirective]
  /// Whether there is a `mail { }`.
  package let isThere: Bool

  /// From a whole file; `isAddress` says whether a text is a literal address.
  package init(_ directives: [NginxDirective], isAddress: (String) -> Bool) {
    var common: [NginxDirective] = []
    var beside: [NginxDirective] = []
    var blocks: [NginxDirective] = []
    var isThere = false
    for directive in directives {
      if directive.name == "mail", let block = directive.block {
        isThere = true
        for inside in block {
          if inside.name == "server", inside.block != nil { blocks.append(inside) } else { common.append(inside) }
        }
      } else {
        beside.append(directive)
      }
    }
    self.isThere = isThere
    self.common = common
    self.beside = beside
    servers = blocks.enumerated().map { NginxServer($1, number: $0 + 1, common: common, isAddress: isAddress) }
  }
}

/// A server of `mail { }`.
struct NginxServer: Equatable, Sendable {
  let number: Int
  let place: String
  /// What stands in it.
  let own: [NginxDirective]
  let listens: [NginxListen]
  /// What counts for it, by name: its own, or what it inherits. A list of its own replaces the inherited one.
  private let settings: [String: [NginxDirective]]

  init(_ block: NginxDirective, number: Int, common: [NginxDirective], isAddress: (String) -> Bool) {
    self.number = number
    place = block.place
    own = block.block ?? []
    listens = own.filter { $0.name == "listen" }.map { NginxListen($0, isAddress: isAddress) }
    settings = Dictionary(grouping: common, by: \.name).merging(Dictionary(grouping: own, by: \.name)) { $1 }
  }

  func all(_ name: String) -> [NginxDirective] { settings[name] ?? [] }

  /// The words of a directive; of several, the last's.
  func words(_ name: String) -> [String]? { settings[name]?.last?.words }

  func value(_ name: String) -> String? { words(name)?.first }

  func isOn(_ name: String) -> Bool { value(name) == "on" }

  /// Whether a directive counts for it.
  func obeys(_ directive: NginxDirective) -> Bool { all(directive.name).contains(directive) }

  var mailProtocol: NginxProtocol? {
    value("protocol").map { NginxProtocol(rawValue: $0) }
      ?? listens.lazy.compactMap(\.port).compactMap { NginxProtocol(port: $0) }.first
  }

  /// IMAP or POP3; nil for what proxyd does not speak.
  var kind: MailProtocol? {
    switch mailProtocol {
    case .imap: .imap
    case .pop3: .pop3
    case .smtp, nil: nil
    }
  }

  func tls(_ listen: NginxListen) -> String {
    if listen.isTLS { return "implicit" }
    switch value("starttls") {
    case "on": return "starttls"
    case "only": return "starttls-required"
    default: return "off"
    }
  }

  var hasTLS: Bool { listens.contains { tls($0) != "off" } }

  /// Why it can't be carried over; nil if it can.
  var obstacle: String? {
    switch mailProtocol {
    case nil: return "it has no protocol, which nginx itself refuses"
    case .smtp: return "SMTP is not spoken by proxyd yet: leave this server to nginx"
    case .imap, .pop3: break
    }
    if url == nil { return "it has no auth_http that can be used, so nobody's backend is known" }
    let isReachable = listens.contains {
      if case .address = $0.place { true } else { false }
    }
    return isReachable ? nil : "it has no `listen` that can be carried over"
  }

  /// The service's address as proxyd has it; nil if there is none, or variables are in it.
  var url: String? {
    guard let text = value("auth_http"), !text.isEmpty, !text.contains("$") else { return nil }
    if text.hasPrefix("http://") || text.hasPrefix("unix:") { return text }
    return text.firstRange(of: "://") == nil ? "http://\(text)" : nil
  }

  /// How users are looked up and backends are spoken to. Servers that differ here can't share a configuration.
  var way: Way {
    let verify = value("ssl_verify_client")
    let asks = hasTLS && ["on", "optional"].contains(verify)
    return Way(
      url: url ?? "", headers: all("auth_http_header").map(\.words),
      timeout: NginxTime.milliseconds(value("auth_http_timeout") ?? "60s") ?? 60_000,
      header: isOn("proxy_protocol") ? "v1" : value("proxy_protocol") == "v2" ? "v2" : "off",
      clients: hasTLS ? (asks ? (verify == "on" ? .required : .asked) : .notAsked) : .noTLS,
      authority: asks ? value("ssl_client_certificate") : nil)
  }

  struct Way: Hashable, Sendable {
    let url: String
    let headers: [[String]]
    let timeout: Int
    let header: String
    let clients: Clients
    let authority: String?

    /// Whether clients are asked for certificates.
    enum Clients: Hashable, Sendable {
      case noTLS, notAsked, asked, required
    }

    /// Whether both can be had in one configuration: where no TLS is spoken, nothing is asked for.
    func fits(_ other: Way) -> Bool {
      guard url == other.url, headers == other.headers, timeout == other.timeout, header == other.header else {
        return false
      }
      return clients == .noTLS || other.clients == .noTLS
        || (clients == other.clients && authority == other.authority)
    }
  }

  /// Pairs of certificate and key.
  var pairs: [(certificate: String, key: String)] {
    let keys = all("ssl_certificate_key").compactMap(\.words.first)
    return all("ssl_certificate").compactMap(\.words.first).enumerated().compactMap { index, certificate in
      index < keys.count ? (certificate, keys[index]) : nil
    }
  }

  /// The mechanisms a listener offers: nginx takes PLAIN and LOGIN whatever it announces.
  var mechanisms: [String] {
    let words = words(kind == .pop3 ? "pop3_auth" : "imap_auth") ?? []
    let hasCertificates = way.clients == .asked || way.clients == .required
    return words.contains("external") && hasCertificates ? ["plain", "login", "external"] : ["plain", "login"]
  }

  /// Networks whose PROXY headers are believed.
  var trusted: [String] { all("set_real_ip_from").compactMap(\.words.first).filter { !$0.hasPrefix("unix:") } }
}

/// The proxyd.yaml of servers of nginx that can share one.

internal import Protocols

/// A configuration of servers whose users are looked up alike.
struct NginxConfig {
  let servers: [NginxServer]
  private(set) var draft: ConfigDraft
  /// The certificates shown where a listener has none of its own.
  let pairs: [(certificate: String, key: String)]
  /// Where the paths in the file begin.
  private let prefix: String
  private let isNetwork: (String) -> Bool

  init(
    _ servers: [NginxServer], prefix: String, source: String, _ files: inout ImportFiles, others: Int,
    isNetwork: @escaping (String) -> Bool
  ) {
    self.servers = servers
    self.prefix = prefix
    self.isNetwork = isNetwork
    pairs = servers.lazy.filter(\.hasTLS).map { NginxConfig.usable($0.pairs) }.first { !$0.isEmpty } ?? []
    var head = [
      "Made by `proxyd import nginx` of the mail servers of \(source).",
      "report.txt says what became of each directive, proxyd.yaml(5) what the keys mean.",
    ]
    if others > 0 { head.append("There are \(others + 1) configurations; each is for a proxyd of its own.") }
    draft = ConfigDraft(head: head)
    draft.keys.append(DraftKey("listeners", .list(listeners())))
    if let tls = tls() { draft.keys.append(tls) }
    draft.keys.append(DraftKey("routes", .list([route(&files)])))
    draft.keys.append(DraftKey("backends", .line([]), ["The service names all servers by address and port."]))
    draft.keys.append(unnamed())
    draft.keys += numbers()
  }

  private func path(_ text: String) -> String { text.hasPrefix("/") ? text : prefix + text }

  /// One for ECDSA and one for RSA at most, from files.
  static func usable(_ pairs: [(certificate: String, key: String)]) -> [(certificate: String, key: String)] {
    Array(pairs.filter { isFile($0.certificate) && isFile($0.key) }.prefix(2))
  }

  static func isFile(_ text: String) -> Bool {
    !text.isEmpty && !["data:", "engine:", "store:"].contains { text.hasPrefix($0) } && !text.contains("$")
  }

  /// Whether a listener can believe a network's PROXY headers.
  func takes(network: String) -> Bool { isNetwork(network) }

  // MARK: Listeners

  private func listeners() -> [[DraftKey]] {
    var taken = Set<String>()
    return servers.flatMap { server in
      server.listens.compactMap { listen -> [DraftKey]? in
        guard case .address(let address, _) = listen.place, taken.insert(address).inserted else { return nil }
        return listener(server, listen, address)
      }
    }
  }

  private func listener(_ server: NginxServer, _ listen: NginxListen, _ address: String) -> [DraftKey] {
    let mode = server.tls(listen)
    var keys = [
      DraftKey("protocol", server.kind?.rawValue ?? "", ["\(listen.directive.place): \(listen.directive.shown)"]),
      DraftKey("address", address), DraftKey("tls", mode),
    ]
    let own = NginxConfig.usable(server.pairs)
    if mode != "off", !own.isEmpty, own.map(\.certificate) != pairs.map(\.certificate) {
      keys.append(paths("certificate", own.map(\.certificate), ["ssl_certificate of this server"]))
      keys.append(paths("key", own.map(\.key)))
    }
    if server.mechanisms != ["plain", "login"] { keys.append(DraftKey("mechanisms", .texts(server.mechanisms))) }
    if let words = NginxCapabilities(server)?.words, !words.isEmpty {
      keys.append(DraftKey("capabilities", .texts(words), ["imap_capabilities"]))
    }
    if listen.isHeaded {
      let networks = server.trusted.filter(isNetwork)
      let comments =
        networks.isEmpty
        ? ["listen … proxy_protocol, and no set_real_ip_from: PUT THE LOAD BALANCERS' ADDRESSES HERE"]
        : ["set_real_ip_from"]
      keys.append(DraftKey("proxy-protocol", .texts(networks.isEmpty ? ["127.0.0.1"] : networks), comments))
    }
    return keys
  }

  private func paths(_ name: String, _ texts: [String], _ comments: [String] = []) -> DraftKey {
    texts.count == 1
      ? DraftKey(name, path(texts[0]), comments) : DraftKey(name, .texts(texts.map(path)), comments)
  }

  // MARK: TLS

  private func tls() -> DraftKey? {
    guard !pairs.isEmpty else { return nil }
    var keys = [
      paths("certificate", pairs.map(\.certificate), ["ssl_certificate"]),
      paths("key", pairs.map(\.key), ["ssl_certificate_key"]),
    ]
    if servers.filter(\.hasTLS).allSatisfy({ NginxConfig.isNewest($0.words("ssl_protocols")) }) {
      keys.append(DraftKey("minimum", .text("1.3"), ["ssl_protocols"]))
    }
    if let ciphers = first("ssl_ciphers") { keys.append(DraftKey("ciphers", ciphers, ["ssl_ciphers"])) }
    if let groups = first("ssl_ecdh_curve"), groups != "auto" {
      keys.append(DraftKey("groups", groups, ["ssl_ecdh_curve"]))
    }
    let asking = servers.lazy.map(\.way).first { $0.clients == .asked || $0.clients == .required }
    if let asking, let authority = asking.authority {
      keys.append(
        DraftKey("client-certificates", asking.clients == .required ? "require" : "request", ["ssl_verify_client"]))
      keys.append(DraftKey("client-ca", path(authority), ["ssl_client_certificate"]))
    }
    return DraftKey("tls", .map(keys))
  }

  /// Whether 1.3 alone is spoken.
  static func isNewest(_ words: [String]?) -> Bool { words.map { $0 == ["TLSv1.3"] } ?? false }

  /// The first server's word with TLS that has one.
  func first(_ name: String) -> String? { servers.lazy.filter(\.hasTLS).compactMap { $0.value(name) }.first }

  // MARK: Users and backends

  private func route(_ files: inout ImportFiles) -> [DraftKey] {
    let way = servers[0].way
    var http = [DraftKey("url", way.url), DraftKey("password", "sent")]
    let lines = way.headers.filter { NginxHeader.problem($0) == nil }.map { "\($0[0]): \($0[1])" }
    if !lines.isEmpty {
      let text = lines.map { $0 + "\n" }.joined()
      http.append(DraftKey("headers-file", files.add("auth_http", "headers", .text(text), isSecret: true)))
    }
    return [
      DraftKey("http", .map(http), ["auth_http: the service is asked in the same words, and given the password"]),
      DraftKey(
        "timeout", NginxTime.text(min(max(way.timeout, 10), 60_000)),
        [servers.contains { $0.value("auth_http_timeout") != nil } ? "auth_http_timeout" : "nginx's own default"]),
    ]
  }

  private func unnamed() -> DraftKey {
    var keys = [DraftKey("tls", "off", ["nginx speaks no TLS to mail servers; starttls or implicit is better."])]
    let header = servers[0].way.header
    if header != "off" { keys.append(DraftKey("proxy-protocol", header, ["proxy_protocol"])) }
    return DraftKey("unnamed-backends", .map(keys))
  }

  // MARK: Numbers

  /// The largest of the servers' times, in milliseconds; nil if none has one.
  func longest(_ name: String) -> Int? {
    servers.compactMap { $0.value(name).flatMap(NginxTime.milliseconds) }.max()
  }

  private func numbers() -> [DraftKey] {
    var keys: [DraftKey] = []
    var times: [DraftKey] = []
    if let time = longest("timeout") {
      times.append(DraftKey("login", NginxTime.text(min(max(time, 1_000), 3_600_000)), ["timeout"]))
    }
    if let time = longest("proxy_timeout") {
      times.append(DraftKey("idle", NginxTime.text(min(max(time, 1_000), 604_800_000)), ["proxy_timeout"]))
    }
    if !times.isEmpty { keys.append(DraftKey("timeouts", .map(times))) }
    if let count = servers.compactMap({ $0.value("max_errors").flatMap { Int($0) } }).max() {
      keys.append(
        DraftKey("limits", .map([DraftKey("bad-commands", "\(min(max(count, 1), 1_000))", ["max_errors"])])))
    }
    return keys
  }
}

/// A header of auth_http_header.
enum NginxHeader {
  /// Why it can't be sent; nil if it can.
  static func problem(_ words: [String]) -> String? {
    guard words.count == 2 else { return "it is not a name and a value" }
    let line = Array("\(words[0]): \(words[1])".utf8)
    do throws(HTTPHeader.Fault) {
      let (name, value) = try HTTPHeader.parts(line.span)
      guard name.count == words[0].utf8.count else { return "its name is none" }
      if AuthHTTPRequest.names.contains(words[0].lowercased()) { return "proxyd says this header itself" }
      return value.isEmpty ? "it has no value" : nil
    } catch {
      return error.rawValue
    }
  }
}

/// What a server announces before the login.
struct NginxCapabilities {
  let words: [String]
  /// Words that follow from other keys, or can't be announced.
  let dropped: [String]

  /// Nil if the directive is not there.
  init?(_ server: NginxServer) {
    guard server.kind == .imap, let all = server.words("imap_capabilities") else { return nil }
    // nginx lets one word hold several.
    let split = all.flatMap { $0.split(separator: " ").map(String.init) }
    let unfit = split.filter { word in
      let upper = word.uppercased()
      return upper == "STARTTLS" || upper == "LOGINDISABLED" || upper.hasPrefix("AUTH=")
        || !word.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7F && !"\"\\(){}[]".utf8.contains($0) }
    }
    words = split.filter { !unfit.contains($0) }
    dropped = unfit
  }
}

/// From the mail part of an nginx.conf to configurations of proxyd, files and a report.

internal import Protocols

extension NginxMail {
  /// Makes configurations. `name` is the file's, `prefix` the folder that its relative paths start at, with a slash;
  /// `isNetwork` says whether a text is an address or a network.
  package func plan(name: String, prefix: String, isNetwork: @escaping (String) -> Bool) -> ImportResult {
    var files = ImportFiles()
    let groups = groups()
    let configs = groups.map {
      NginxConfig($0, prefix: prefix, source: name, &files, others: groups.count - 1, isNetwork: isNetwork)
    }
    let names = groups.indices.map { $0 == 0 ? "proxyd.yaml" : "proxyd-\($0 + 1).yaml" }
    var sections: [ReportSection] = []
    if groups.count > 1 {
      sections.append(ReportSection(title: "Configurations", entries: [parting(groups, names)]))
    }
    sections.append(ReportSection(title: "mail { }", entries: common.map { entry($0, configs) }))
    for server in servers {
      let place = groups.firstIndex { $0.contains { $0.number == server.number } }.map { ", in \(names[$0])" } ?? ""
      let label = server.mailProtocol?.rawValue.uppercased() ?? "no protocol"
      sections.append(
        ReportSection(
          title: "server \(server.number) (\(label)) at \(server.place)\(place)", entries: entries(server, configs)))
    }
    sections.append(ReportSection(title: "Beside mail { }", entries: beside.map(NginxBeside.entry)))
    sections.append(ReportSection(title: "What is different though no directive says so", entries: besides(configs)))
    return ImportResult(
      configurations: zip(names, configs).map { ($0, $1.draft) }, files: files.files,
      report: ImportReport(title: "proxyd import nginx: what became of each directive", sections: sections))
  }

  /// Whether there is anything to import.
  package var isUsable: Bool { servers.contains { $0.obstacle == nil } }

  /// Servers that can share a configuration.
  private func groups() -> [[NginxServer]] {
    var groups: [[NginxServer]] = []
    for server in servers where server.obstacle == nil {
      if let index = groups.firstIndex(where: { $0.allSatisfy { $0.way.fits(server.way) } }) {
        groups[index].append(server)
      } else {
        groups.append([server])
      }
    }
    return groups
  }

  private func parting(_ groups: [[NginxServer]], _ names: [String]) -> ReportEntry {
    let parts = zip(groups, names).map { group, name in
      "\(name) for the servers \(group.map { "\($0.number)" }.joined(separator: ", "))"
    }
    return ReportEntry(
      "", "", .changed,
      "the servers differ in auth_http, in proxy_protocol or in how they ask for client certificates, and so are several "
        + "configurations, one proxyd each: \(parts.joined(separator: "; ")).")
  }

  private func entries(_ server: NginxServer, _ configs: [NginxConfig]) -> [ReportEntry] {
    if let obstacle = server.obstacle {
      let all = server.own.map {
        ReportEntry($0.place, NginxMail.shown($0), .notNeeded, "its server is not carried over.")
      }
      return [ReportEntry(server.place, "server { }", .lost, "\(obstacle).")] + all
    }
    return server.own.map { entry($0, configs, of: server) }
  }

  private func entry(_ directive: NginxDirective, _ configs: [NginxConfig], of own: NginxServer? = nil) -> ReportEntry {
    func say(_ verdict: Verdict, _ text: String) -> ReportEntry {
      ReportEntry(directive.place, NginxMail.shown(directive), verdict, text)
    }
    if directive.block != nil { return say(.lost, "this block is not known to the import.") }
    let obeying = own.map { [$0] } ?? servers.filter { $0.obeys(directive) }
    let live = obeying.filter { $0.obstacle == nil }
    guard !live.isEmpty else {
      return say(
        .notNeeded, obeying.isEmpty ? "every server has its own." : "no server that obeys it is carried over.")
    }
    let repeats = [
      "listen", "auth_http_header", "set_real_ip_from", "ssl_certificate", "ssl_certificate_key", "ssl_conf_command",
      "error_log",
    ]
    if !repeats.contains(directive.name), live[0].all(directive.name).last != directive {
      return say(.changed, "it is there twice, which nginx refuses; the last was taken.")
    }
    let answer = NginxVerdicts(servers: live, configs: configs).judge(directive)
    return say(answer.verdict, answer.text)
  }

  /// A directive for people; the value of a header is a secret.
  static func shown(_ directive: NginxDirective) -> String {
    guard directive.name == "auth_http_header", directive.words.count > 1 else { return directive.shown }
    return "auth_http_header \(directive.words[0]) (masked)"
  }

  /// What an operator has to know, whatever is set.
  private func besides(_ configs: [NginxConfig]) -> [ReportEntry] {
    var entries: [ReportEntry] = []
    func say(_ title: String, _ text: String) { entries.append(ReportEntry("", title, .changed, text)) }
    say(
      "the service's answers",
      "must have status 200 (or 204) and Auth-Status: nginx reads no status and takes a missing Auth-Status for OK. 401 and 403 may "
        + "carry a refusal. All header lines may have 8 KB; nginx has 1 KB.")
    say(
      "the service's requests",
      "are of HTTP/1.1 on connections that stay open, and come from up to 8 threads (routes[].http.connections).")
    say(
      "a refused login",
      "leaves the connection open, for limits.failed-logins tries, and is told after timeouts.failure-delay if there is no "
        + "Auth-Wait. nginx closes then.")
    say(
      "a service that can't be asked",
      "is a temporary failure (UNAVAILABLE, [SYS/TEMP]) and the connection stays open; nginx says \"internal server error\" and closes."
    )
    say(
      "the words of a refusal",
      "have a code before them ([AUTHENTICATIONFAILED], [AUTH]), so that clients ask for a new password only then.")
    say(
      "the client's address",
      "is told to backends by ID and XCLIENT where they take it; with Dovecot, put the proxy's address into "
        + "login_trusted_networks.")
    say(
      "names and passwords",
      "with NUL, CR or LF are refused before anybody is asked; an authorization identity in SASL PLAIN is not dropped.")
    if !servers.contains(where: { $0.value("timeout") != nil }) {
      say("before the login", "a client has 3 minutes (timeouts.login); nginx's default is one.")
    }
    if !servers.contains(where: { $0.value("proxy_timeout") != nil }) {
      say("after the login", "a session may be silent for 31 minutes (timeouts.idle); nginx's default is 24 hours.")
    }
    if !servers.contains(where: { $0.value("max_errors") != nil }) {
      say("commands that are not understood", "end a connection after 3 (limits.bad-commands); nginx's default is 5.")
    }
    if configs.contains(where: { !$0.pairs.isEmpty }) {
      say("TLS", "is 1.2 and 1.3; certificates that are renewed are noticed without a reload.")
    }
    return entries
  }
}

/// What stands beside `mail { }`.
enum NginxBeside {
  static func entry(_ directive: NginxDirective) -> ReportEntry {
    func say(_ verdict: Verdict, _ text: String) -> ReportEntry {
      ReportEntry(directive.place, directive.shown, verdict, text)
    }
    switch directive.name {
    case "http", "stream", "rtmp": return say(.notNeeded, "nginx goes on with it: take `mail { }` out of its file.")
    case "events", "worker_processes", "worker_connections", "worker_cpu_affinity", "worker_priority",
      "worker_rlimit_nofile", "thread_pool", "multi_accept", "pcre_jit", "timer_resolution", "lock_file",
      "accept_mutex":
      return say(.notNeeded, "proxyd has a loop for each core, and takes the descriptors it may have.")
    case "user": return say(.notNeeded, "the service unit says who proxyd runs as; there is the key `user` besides.")
    case "load_module", "daemon", "master_process", "pid", "env", "working_directory", "error_log",
      "worker_rlimit_core", "debug_points", "ssl_engine", "ssl_object_cache_inheritable", "google_perftools_profiles":
      return say(.notNeeded, "it concerns nginx itself.")
    case "worker_shutdown_timeout": return say(.changed, "timeouts.shutdown is its like; its default was left.")
    default: return say(.lost, "this directive is not known to the import.")
    }
  }
}

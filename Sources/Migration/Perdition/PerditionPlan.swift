/// From a site of Perdition to configurations of proxyd, files and a report.

internal import Protocols

/// All that an import writes.
package struct ImportResult: Equatable, Sendable {
  /// The configurations, the first of which is proxyd.yaml, with their names.
  package let configurations: [(name: String, draft: ConfigDraft)]
  /// The files they name.
  package let files: [ImportFile]
  /// What became of everything.
  package let report: ImportReport

  /// The same configurations, files and report.
  package static func == (one: ImportResult, other: ImportResult) -> Bool {
    one.configurations.map(\.name) == other.configurations.map(\.name)
      && one.configurations.map(\.draft) == other.configurations.map(\.draft) && one.files == other.files
      && one.report == other.report
  }
}

extension PerditionSite {
  /// Makes configurations of what is known; `isServer` says whether a text is `host[:port]`, `isAddress` whether it
  /// is a literal address.
  package func plan(
    _ materials: [MaterialRequest: Material], isServer: @escaping (String) -> Bool,
    isAddress: @escaping (String) -> Bool
  ) -> ImportResult {
    var files = ImportFiles()
    var report = ImportReport(title: "proxyd import perdition: what became of each option")
    let groups = PerditionGroup.groups(instances)
    var configurations: [(name: String, draft: ConfigDraft)] = []
    var sections: [ReportSection] = []
    if !faults.isEmpty { sections.append(ReportSection(title: "The files together", entries: faults)) }
    if groups.count > 1 { sections.append(ReportSection(title: "Configurations", entries: [parting(groups)])) }
    for (index, group) in groups.enumerated() {
      let name = index == 0 ? "proxyd.yaml" : "proxyd-\(index + 1).yaml"
      let config = PerditionConfig(
        group, materials, &files, name: name, isServer: isServer, isAddress: isAddress, others: groups.count - 1)
      configurations.append((name, config.draft))
      for instance in group.instances {
        let verdicts = PerditionVerdicts(instance, group: group, config: config)
        let source = instance.file.map { " from \($0)" } ?? " without a file"
        sections.append(
          ReportSection(
            title: "\(instance.program) (\(instance.mailProtocol.rawValue.uppercased()))\(source), in \(name)",
            entries: verdicts.entries))
      }
      sections.append(
        ReportSection(title: "Users and servers, in \(name)", entries: config.routes.report + config.report))
    }
    sections.append(ReportSection(title: "What is different though no option says so", entries: besides(groups)))
    report.sections = sections
    return ImportResult(configurations: configurations, files: files.files, report: report)
  }

  private func parting(_ groups: [PerditionGroup]) -> ReportEntry {
    let names = groups.enumerated().map { index, group in
      (index == 0 ? "proxyd.yaml" : "proxyd-\(index + 1).yaml") + " for "
        + group.instances.map(\.program).joined(separator: ", ")
    }
    return ReportEntry(
      "", "", .changed,
      "the instances differ in how users are looked up or in how backends are spoken to, and so are several "
        + "configurations, one "
        + "proxyd each: \(names.joined(separator: "; ")).")
  }

  /// What an operator has to know, whatever is set.
  private func besides(_ groups: [PerditionGroup]) -> [ReportEntry] {
    var entries: [ReportEntry] = []
    func say(_ title: String, _ text: String) { entries.append(ReportEntry("", title, .changed, text)) }
    say(
      "names",
      "are looked up in ASCII lower case, whatever lower_case says, and regular expressions are matched so: two "
        + "spellings of a user can't get two backends."
    )
    if groups.contains(where: { $0.manner.map != .none && !$0.manner.servers.isEmpty }) {
      say(
        "a map that can't be asked",
        "is a temporary failure for the client. Perdition sends such users to outgoing_server; if that is wanted, put "
          + "`on-failure: next` beside the source.")
    }
    say(
      "logins",
      "by SASL PLAIN and LOGIN are offered besides the commands; the key `mechanisms` of a listener says which. The "
        + "backend's "
        + "own words about a login reach the client.")
    say(
      "the client's address",
      "is told to backends by ID and XCLIENT where they take it; with Dovecot, put the proxy's address into "
        + "login_trusted_networks.")
    if groups.contains(where: { $0.instances.contains { PerditionTLS($0).listen != .off } }) {
      say(
        "client certificates",
        "are not asked for. Perdition asks unless told otherwise and refuses clients that show an unknown one; "
          + "tls.client-certificates is for those who want them.")
      say(
        "TLS",
        "is 1.2 and 1.3 toward clients and backends; certificates that are renewed are noticed without a restart.")
    }
    if groups.contains(where: { $0.way.tls != .off && !$0.way.trust.isBlind }) {
      say(
        "backends' certificates",
        "must be valid for the name they are spoken to by, addresses included, and backends are asked by that name "
          + "(SNI), which "
          + "Perdition does not do.")
    }
    if !instances.contains(where: { $0.has(.authenticateTimeout) }) {
      say("before the login", "a client has 3 minutes (timeouts.login); Perdition's default is half an hour.")
    }
    if !instances.contains(where: { $0.has(.timeout) }) {
      say("after the login", "a session may be silent for 31 minutes (timeouts.idle); Perdition's default is 30.")
    }
    if !instances.contains(where: { $0.has(.okayLine) }) {
      say(
        "the words of a login that succeeds",
        "are the backend's. Perdition says \"You are so in\"; login-ok of a listener says the like.")
    }
    return entries
  }
}

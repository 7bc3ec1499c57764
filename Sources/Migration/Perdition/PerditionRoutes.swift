/// The routes of a group: what becomes of its map, with the files that takes.

/// A file of the result.
package struct ImportFile: Equatable, Sendable {
  /// Its name in the folder of the result.
  package let name: String
  /// What is in it.
  package let content: Content
  /// Whether nobody but its owner may read it.
  package let isSecret: Bool

  /// The kinds of content.
  package enum Content: Equatable, Sendable {
    case text(String)
    /// A SQLite map.
    case map([MapRow])
  }

  /// A file of its parts.
  package init(_ name: String, _ content: Content, isSecret: Bool = false) {
    self.name = name
    self.content = content
    self.isSecret = isSecret
  }
}

/// Names for files, one for each content.
struct ImportFiles: Sendable {
  private(set) var files: [ImportFile] = []

  /// The name of a file with that content: `stem.end`, or `stem-2.end` if that is another's.
  mutating func add(_ stem: String, _ end: String, _ content: ImportFile.Content, isSecret: Bool = false) -> String {
    var number = 1
    while true {
      let name = number == 1 ? "\(stem).\(end)" : "\(stem)-\(number).\(end)"
      guard let other = files.first(where: { $0.name == name }) else {
        files.append(ImportFile(name, content, isSecret: isSecret))
        return name
      }
      if other.content == content { return name }
      number += 1
    }
  }
}

/// The routes of one configuration.
struct PerditionRoutes {
  /// Entries of the key `routes`.
  private(set) var routes: [[DraftKey]] = []
  /// What became of the map and its rows.
  private(set) var report: [ReportEntry] = []
  /// What became of map_library and its option string.
  private(set) var verdict: (verdict: Verdict, text: String) = (.carried, "")
  /// Servers that are known from maps, for clients that name theirs.
  private(set) var servers: [String] = []

  private let manner: LookupManner
  private let isGiven: Bool
  private let isServer: (String) -> Bool

  init(
    _ group: PerditionGroup, _ materials: [MaterialRequest: Material], _ files: inout ImportFiles,
    isServer: @escaping (String) -> Bool
  ) {
    manner = group.manner
    isGiven = group.instances[0].has(.mapLibrary) || group.instances[0].has(.mapLibraryOption)
    self.isServer = isServer
    switch manner.map {
    case .none: verdict = (.notNeeded, "there is no map.")
    case .database(_, let path): addDatabase(materials[.popmap(databaseKind, path: path)], path, &files)
    case .nis(let name): addDatabase(materials[.popmap(.gdbm, path: name)], name, &files)
    case .regex(let path): addRegex(materials[.file(path: path)], path, &files)
    case .sql(.mysql, let fields): addMySQL(fields, &files)
    case .sql(.postgresql, let fields): addPostgreSQL(fields, &files)
    case .sql(.odbc, let fields): addODBC(fields, materials[.file(path: PerditionSite.sources)], &files)
    case .ldap(let text): addDirectory(text, &files)
    case .daemon(let socket):
      verdict = (
        .lost,
        "nothing here speaks the protocol of the socket \(socket). Let the daemon's program answer HTTP (a source "
          + "`http`, as nginx's "
          + "auth_http), or write what it knows into a SQLite map."
      )
    case .foreign(let library):
      verdict = (
        .lost,
        "the library \(library) does not come with Perdition. A source `http` asks any program; or write what it "
          + "knows into a SQLite "
          + "map."
      )
    }
  }

  private var databaseKind: PerditionMap.Database {
    guard case .database(let kind, _) = manner.map else { return .gdbm }
    return kind
  }

  /// The keys up to one with which Perdition's lookup fails.
  private var known: [String] { Array(manner.keys.prefix { !PerditionVerdicts.hasUnknownEscape($0) }) }

  /// The key that every source has if query_key is given.
  private var keys: [DraftKey] {
    known.isEmpty ? [] : [DraftKey("keys", .texts(known), ["query_key: asked in order until one is found"])]
  }

  private mutating func addDatabase(_ material: Material?, _ path: String, _ files: inout ImportFiles) {
    guard case .popmap(let popmap, let source)? = material else {
      var reason = "it was not looked for"
      if case .missing(let why)? = material { reason = why }
      if case .nis(let name) = manner.map {
        verdict = (
          .lost,
          "NIS can't be asked. Make a popmap of it with `ypcat -k \(name) | sed 's/ /:/' > popmap` and import again "
            + "with --popmap popmap."
        )
      } else if isGiven {
        verdict = (.lost, "the map \(path) can't be read: \(reason)")
      } else {
        verdict = (
          .notNeeded,
          "no map is set, and the one that Perdition takes then, \(path), can't be read: \(reason) To Perdition that "
            + "is an error "
            + "with each login, and then outgoing_server."
        )
      }
      return
    }
    let rows = PopmapRows(
      popmap, file: source, delimiter: manner.delimiter, keepsUsers: manner.keepsUsers, asksDomains: asksDomains,
      isServer: isServer)
    report += rows.report
    servers += rows.rows.map(\.backend)
    let name = files.add("map", "db", .map(rows.rows))
    let domains = rows.rows.contains { $0.name.hasPrefix("@") }
    let comments = ["map_library and map_library_opt: \(Counted.text(rows.rows.count, "row")) of \(source)"]
    if domains, !domainsComeLast {
      // A domain's row must be found by the key that asks for it, and by no earlier one.
      let query =
        "SELECT backend, login_as FROM users WHERE login = :login UNION ALL SELECT backend, NULL FROM domains "
        + "WHERE '@' || domain = :login"
      routes.append(
        [DraftKey("sqlite", .line([DraftKey("file", name), DraftKey("query", query)]), comments)] + keys)
    } else {
      routes.append([DraftKey("sqlite", name, comments)] + keys)
    }
    verdict = (
      .carried,
      "\(Counted.text(rows.rows.count, "row")) of \(source) became the SQLite map \(name); `proxyd map` reads and "
        + "changes it."
    )
  }

  /// Whether a key can be a delimiter and a domain.
  private var asksDomains: Bool { manner.keys.contains { $0.hasPrefix("\\D") || $0.hasPrefix(manner.delimiter) } }

  /// Whether the first key with a whole name in it is followed by that for its domain, or by none: the SQLite map
  /// asks for both at once.
  private var domainsComeLast: Bool {
    guard let whole = manner.keys.firstIndex(where: { $0 == "\\U" || $0 == "\\u\\D\\d" }) else { return true }
    return manner.keys.dropFirst(whole + 1).first == "\\D\\d" && manner.keys.count == whole + 2
  }

  private mutating func addRegex(_ material: Material?, _ path: String, _ files: inout ImportFiles) {
    guard case .bytes(let bytes, let source)? = material else {
      if case .missing(let why)? = material { verdict = (.lost, "the file of patterns \(path) can't be read: \(why)") }
      return
    }
    let read = PopmapRegex.read(bytes, file: source)
    let file = PopmapRegexFile(
      read.rules, file: source, delimiter: manner.delimiter, keepsUsers: manner.keepsUsers, isServer: isServer)
    report += read.faults + file.report
    servers += read.rules.map { PerditionServer($0.answer, delimiter: manner.delimiter) }.compactMap(\.backend).filter {
      !$0.contains("$")
    }
    let name = files.add(
      "routes", "re", .text("# The patterns of \(source), made by `proxyd import perdition`.\n" + file.text))
    routes.append(
      [
        DraftKey(
          "regex", .line([DraftKey("file", name), DraftKey("perdition-compatible", "true")]),
          [
            "map_library and map_library_opt: \(Counted.text(file.count, "pattern")) of \(source), matched as "
              + "Perdition does"
          ])
      ] + keys)
    verdict = (
      .carried, "\(Counted.text(file.count, "pattern")) of \(source) became \(name), matched as Perdition does."
    )
  }

  private mutating func addMySQL(_ fields: NineFields, _ files: inout ImportFiles) {
    guard let query = query(fields, .mysql) else { return }
    let port = fields.port.isEmpty || fields.port == "0" ? "" : ":\(fields.port)"
    let hosts = fields.hosts.isEmpty ? ["localhost"] : fields.hosts
    let name = password(fields.password, &files)
    addSQL(
      "mysql",
      [
        DraftKey("hosts", .texts(hosts.map { $0 + port })), DraftKey("database", fields.database),
        DraftKey("user", fields.user),
        DraftKey("password-file", name),
        DraftKey("tls", "off", ["Perdition's library has no TLS; `verified` with `ca` protects the way"]),
        DraftKey("query", query),
      ], fields, query)
  }

  private mutating func addPostgreSQL(_ fields: NineFields, _ files: inout ImportFiles) {
    guard let query = query(fields, .postgresql) else { return }
    var words = [("host", fields.hosts.joined(separator: ","))]
    if !fields.port.isEmpty { words.append(("port", fields.port)) }
    words += [("dbname", fields.database), ("user", fields.user)]
    let connection = words.map { "\($0.0)=\(PerditionRoutes.libpq($0.1))" }.joined(separator: " ")
    addSQL(
      "postgresql",
      [
        DraftKey("connection", connection), DraftKey("password-file", password(fields.password, &files)),
        DraftKey("query", query),
      ], fields, query)
  }

  private mutating func addODBC(_ fields: NineFields, _ material: Material?, _ files: inout ImportFiles) {
    guard case .bytes(let bytes, let path)? = material else {
      var why = ""
      if case .missing(let reason)? = material { why = ": \(reason)" }
      verdict = (.lost, "the data sources can't be read\(why) Give them with --odbc FILE.")
      return
    }
    guard let source = DataSource(bytes, name: fields.database) else {
      verdict = (.lost, "\(path) has no data source \"\(fields.database)\". Give the right file with --odbc FILE.")
      return
    }
    func value(_ names: String...) -> String? { names.lazy.compactMap { source.values[$0] }.first { !$0.isEmpty } }
    let host = value("servername", "server", "host") ?? "localhost"
    let database = value("database", "dbq") ?? fields.database
    switch source.driver {
    case .mysql:
      guard let query = query(fields, .mysql) else { return }
      let place =
        value("socket").map { DraftKey("socket", $0) }
        ?? DraftKey("hosts", .texts([host + (value("port").map { ":\($0)" } ?? "")]))
      addSQL(
        "mysql",
        [
          place, DraftKey("database", database), DraftKey("user", fields.user),
          DraftKey("password-file", password(fields.password, &files)), DraftKey("tls", "off"),
          DraftKey("query", query),
        ], fields, query)
    case .postgresql:
      guard let query = query(fields, .postgresql) else { return }
      var words = [("host", host)]
      if let port = value("port") { words.append(("port", port)) }
      words += [("dbname", database), ("user", fields.user)]
      addSQL(
        "postgresql",
        [
          DraftKey("connection", words.map { "\($0.0)=\(PerditionRoutes.libpq($0.1))" }.joined(separator: " ")),
          DraftKey("password-file", password(fields.password, &files)), DraftKey("query", query),
        ], fields, query)
    case .sqlite:
      guard let query = query(fields, .sqlite) else { return }
      routes.append(
        [
          DraftKey(
            "sqlite", .line([DraftKey("file", database), DraftKey("query", query)]),
            ["map_library and map_library_opt: the file of the data source \(fields.database)"])
        ] + keys)
      verdict = (.carried, "the file of the data source \(fields.database) is asked by a query that answers the same.")
    case .other(let driver):
      verdict = (
        .lost,
        "the data source \(fields.database) has the driver \"\(driver)\", and proxyd speaks to MySQL, PostgreSQL and "
          + "SQLite alone. A "
          + "source `http` asks any program; or write the table into a SQLite map."
      )
    }
  }

  private mutating func query(_ fields: NineFields, _ kind: PerditionQuery.Kind) -> String? {
    guard fields.hasPlainNames,
      let query = PerditionQuery.text(fields, kind, delimiter: manner.delimiter, keepsUsers: manner.keepsUsers)
    else {
      verdict = (
        .lost,
        "table \"\(fields.table)\" with the columns \"\(fields.serverColumn)\", \"\(fields.userColumn)\" and "
          + "\"\(fields.portColumn)\" makes no query. Write the source by hand."
      )
      return nil
    }
    return query
  }

  private mutating func addSQL(_ kind: String, _ source: [DraftKey], _ fields: NineFields, _ query: String) {
    routes.append([DraftKey(kind, .map(source), ["map_library and map_library_opt"])] + keys)
    let isSilent = manner.map == .sql(.mysql, fields) && !fields.isGiven
    let missing =
      !isSilent
      ? ""
      : " There is no option string, with which MySQL's library has no host to ask and fails; the "
        + "manual's defaults were taken."
    verdict = (
      isSilent ? .changed : .carried,
      "a source `\(kind)` with a query that answers the same; the key can't break out of it, and connections are "
        + "kept. It takes "
        + "a proxyd built with TRAITS=\(kind == "mysql" ? "MySQL" : "PostgreSQL").\(missing)"
    )
    if kind == "postgresql" {
      report.append(
        ReportEntry(
          "", "table \(fields.table)", .changed,
          "names are looked up in lower case. If SELECT count(*) FROM \(fields.table) WHERE \"\(fields.userColumn)\" "
            + "<> "
            + "lower(\"\(fields.userColumn)\") is not 0, store them so, or let the query compare "
            + "lower(\"\(fields.userColumn)\") and "
            + "give the table an index of that."))
    }
    report.append(
      ReportEntry(
        "", "column \(fields.portColumn.isEmpty ? fields.serverColumn : fields.portColumn)", .changed,
        "a port must be a number; a service's name there is refused as a fault of the map."))
  }

  private mutating func addDirectory(_ text: String, _ files: inout ImportFiles) {
    guard let directory = PerditionDirectory(text) else {
      verdict = (.lost, "\"\(Masked.text(text))\" is no LDAP URL. Write a source `ldap` by hand.")
      return
    }
    let attributes = directory.attributes
    guard let first = attributes.first else {
      verdict = (.lost, "the URL names no attributes. Write a source `ldap` by hand, with backend-attribute.")
      return
    }
    var source = [DraftKey("url", .texts(directory.urls))]
    if let name = directory.bindName {
      source.append(DraftKey("bind-dn", name))
      source.append(DraftKey("password-file", password(directory.password ?? "", &files)))
    }
    source += [
      DraftKey("base", directory.base), DraftKey("scope", directory.scope), DraftKey("filter", directory.filter),
    ]
    source.append(DraftKey("backend-attribute", attributes.count > 1 ? attributes[1] : first))
    if attributes.count > 1, manner.keepsUsers { source.append(DraftKey("login-attribute", first)) }
    if attributes.count > 2 { source.append(DraftKey("port-attribute", attributes[2])) }
    routes.append([DraftKey("ldap", .map(source), ["map_library and map_library_opt"])] + keys)
    verdict = (
      .carried,
      "a source `ldap` that asks the same; the key is escaped, which Perdition does not. It takes a proxyd built "
        + "with TRAITS=LDAP."
    )
    for note in directory.notes { report.append(ReportEntry("", "map_library_opt", .changed, "\(note).")) }
    if directory.version == 2 {
      report.append(
        ReportEntry("", "map_library_opt 2:", .changed, "LDAP is spoken in version 3; OpenLDAP has no other."))
    }
    if attributes.count == 1, !manner.keepsUsers {
      report.append(
        ReportEntry(
          "", "attribute \(first)", .changed,
          "a user in front of the server in it is the name to log in with in proxyd; Perdition passes over it without "
            + "username_from_database."))
    }
    if directory.bindName != nil, directory.urls.contains(where: { $0.hasPrefix("ldap:") }) {
      report.append(
        ReportEntry(
          "", "BINDNAME", .carried,
          "the password crosses the network in plain text, as before; `starttls: on` protects it."))
    }
  }

  private func password(_ text: String, _ files: inout ImportFiles) -> String {
    files.add("map", "pw", .text(text + "\n"), isSecret: true)
  }

  /// A value in libpq's words.
  private static func libpq(_ text: String) -> String {
    let isPlain = !text.isEmpty && !text.contains { " '\\\t".contains($0) }
    if isPlain { return text }
    return "'" + text.map { "'\\".contains($0) ? "\\\($0)" : String($0) }.joined() + "'"
  }
}

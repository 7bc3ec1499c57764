/// Builds the places users are looked up in from the file's tree.

internal import Protocols
internal import ProxyCore
internal import Yams

struct RouteBuilder {
  let builder: SettingsBuilder
  private var reader: ConfigReader { builder.reader }

  init(builder: SettingsBuilder) { self.builder = builder }

  func read(_ file: ConfigSection) -> [RouteSettings]? {
    guard let node = file.required("routes"), let entries = reader.list(node, key: "routes") else { return nil }
    if entries.isEmpty { file.report("the list is empty, expected at least one source", "routes") }
    var routes: [RouteSettings] = []
    for (key, node) in entries {
      guard let entry = reader.section(node, key: key, pattern: "routes[]") else { continue }
      let kinds = entry.order.filter { RouteKeys.kinds.contains($0) }
      guard kinds.count == 1, let kind = kinds.first else {
        reader.report(
          "a source has exactly one of \(RouteKeys.kinds.joined(separator: ", "))", key: key, at: reader.places[key])
        continue
      }
      guard let source = source(kind, entry) else { continue }
      var route = RouteSettings(source)
      readCommon(entry, kind, &route)
      routes.append(route)
    }
    return routes
  }

  private func source(_ kind: String, _ entry: ConfigSection) -> SourceSettings? {
    switch kind {
    case "sqlite": return sqlite(entry)
    case "regex": return regex(entry)
    case "postgresql": return entry.section(kind).flatMap { SQLSourceKeys.postgresql($0, builder) }
    case "mysql": return entry.section(kind).flatMap { SQLSourceKeys.mysql($0, builder) }
    case "ldap": return entry.section(kind).flatMap { LDAPSourceKeys.read($0, builder) }
    case "http": return entry.section(kind).flatMap { HTTPSourceKeys.read($0, builder) }
    case "redis": return entry.section(kind).flatMap { StoreSourceKeys.redis($0, builder) }
    case "cdb": return entry.text("cdb").map { .cdb(file: builder.resolve($0)) }
    case "lmdb": return entry.text("lmdb").map { .lmdb(file: builder.resolve($0)) }
    case "client-named": return entry.values("client-named") { ServerPattern($0) }.map { .clientNamed($0) }
    case "default": return entry.texts("default").map { .fixed(backends: $0) }
    default: preconditionFailure("the table has a source that is not built: \(kind)")
    }
  }

  private func sqlite(_ entry: ConfigSection) -> SourceSettings? {
    guard case .mapping? = entry.node("sqlite") else {
      return entry.text("sqlite").map { .sqlite(file: builder.resolve($0), query: nil) }
    }
    guard let section = entry.section("sqlite"), section.required("file") != nil, let file = section.text("file") else {
      return nil
    }
    return .sqlite(file: builder.resolve(file), query: section.text("query"))
  }

  private func regex(_ entry: ConfigSection) -> SourceSettings? {
    guard case .mapping? = entry.node("regex") else {
      return entry.text("regex").map { .regex(file: builder.resolve($0)) }
    }
    guard let section = entry.section("regex"), section.required("file") != nil, let file = section.text("file") else {
      return nil
    }
    let isCompatible = section.value("perdition-compatible") { ["true": true, "false": false][$0] } ?? false
    return .regex(file: builder.resolve(file), perditionCompatible: isCompatible)
  }

  private func readCommon(_ entry: ConfigSection, _ kind: String, _ route: inout RouteSettings) {
    if let keys = entry.values("keys", { KeyTemplate($0) }) { route.keys = keys }
    if let timeout = entry.duration("timeout") { route.timeout = timeout }
    if let policy = entry.choice("on-failure", FailurePolicy.self) { route.onFailure = policy }
    let isServer = !["sqlite", "regex", "client-named", "default"].contains(kind)
    if !isServer {
      for name in ["timeout", "cache"] where entry.has(name) {
        entry.report("it is for sources that are servers", name)
      }
    }
    if let section = entry.section("cache") {
      var cache = CacheSettings()
      if let time = section.duration("found") { cache.found = time }
      if let time = section.duration("not-found") { cache.notFound = time }
      if let time = section.duration("stale") { cache.stale = time }
      if let count = section.integer("entries") { cache.entries = count }
      route.cache = cache
    }
    if case .http(let http) = route.source, http.sendsPassword, route.cache != nil {
      entry.report("a source that checks passwords is asked each time", "cache")
    }
    guard let check = entry.choice("check-password", PasswordCheck.self) else { return }
    let fits: [String]
    switch check {
    case .none: fits = RouteKeys.kinds
    case .crypt: fits = ["sqlite", "postgresql", "mysql"]
    case .bind: fits = ["ldap"]
    }
    if !fits.contains(kind) {
      entry.report("\(check.rawValue) is for \(fits.joined(separator: ", "))", "check-password")
    }
    if check == .crypt, case .sqlite(_, nil) = route.source {
      entry.report("the tables of schema.sql have no hashes, expected a query of your own", "check-password")
    }
    if check != .none, route.cache != nil, kind == "ldap" {
      entry.report("a source that checks passwords is asked each time", "cache")
    }
    route.check = check
  }
}

/// Builds how names are rewritten.
struct NameBuilder {
  let section: ConfigSection

  func rules() -> NameRules {
    var rules = NameRules()
    if let delimiter = section.text("delimiter") { rules.delimiter = Array(delimiter.utf8) }
    rules.stripDomain = Set(section.words("strip-domain", NamePurpose.self) ?? [])
    rules.addDomain = Set(section.words("add-domain", NamePurpose.self) ?? [])
    rules.lowerCase = Set(section.words("lower-case", NamePurpose.self) ?? [])
    let fixed = section.text("domain")
    let count = section.integer("domain-of-address")
    switch (fixed, count) {
    case (let domain?, nil): rules.domain = .fixed(Array(domain.utf8))
    case (nil, let count?): rules.domain = .ofAddress(strippedLabels: count)
    case (.some, .some): section.report("there is a domain already, expected one of the two", "domain-of-address")
    case (nil, nil):
      if !rules.addDomain.isEmpty {
        section.report("there is no domain to be added, expected domain or domain-of-address", "add-domain")
      }
    }
    if rules.addDomain.isEmpty, fixed != nil || count != nil {
      section.report("it is for the key add-domain, which is missing", fixed == nil ? "domain-of-address" : "domain")
    }
    return rules
  }
}

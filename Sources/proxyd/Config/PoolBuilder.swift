/// Builds pools, and how the health of their members is watched.

internal import Protocols
internal import ProxyCore
internal import Yams

struct PoolBuilder {
  let builder: SettingsBuilder

  func read(_ file: ConfigSection) -> [String: PoolSettings] {
    var pools: [String: PoolSettings] = [:]
    guard let section = file.section("pools") else { return [:] }
    for name in section.order {
      if !SettingsBuilder.isName(name) {
        section.report("a pool's name has letters, digits, dots, dashes and underscores", name)
      }
      guard let node = section.node(name),
        let entry = builder.reader.section(node, key: section.path(name), pattern: "pools.*"),
        entry.required("members") != nil, let members = members(entry)
      else { continue }
      var pool = PoolSettings(members: members, balance: balance(entry))
      pool.sessions = entry.integer("sessions")
      pool.logins = entry.integer("logins")
      if let time = entry.duration("slow-start") { pool.slowStart = time }
      if let time = entry.duration("spread") { pool.spread = time }
      if let rate = entry.integer("move-rate") { pool.moveRate = rate }
      pools[name] = pool
    }
    return pools
  }

  private func members(_ entry: ConfigSection) -> [MemberSettings]? {
    if case .sequence(let names)? = entry.node("members") {
      let members = names.compactMap { node -> MemberSettings? in
        guard case .scalar(let scalar) = node, !scalar.string.isEmpty else { return nil }
        return MemberSettings(scalar.string)
      }
      guard members.count == names.count, !members.isEmpty else {
        entry.report("expected the names of backends", "members")
        return nil
      }
      guard Set(members.map(\.backend)).count == members.count else {
        entry.report("a backend is named twice", "members")
        return nil
      }
      return members
    }
    guard let section = entry.section("members") else { return nil }
    guard !section.order.isEmpty else {
      entry.report("there is none, expected the names of backends", "members")
      return nil
    }
    return section.order.compactMap { name in
      var member = MemberSettings(name)
      // `a:` alone is a member without keys.
      if case .scalar(let scalar)? = section.node(name), scalar.string.isEmpty { return member }
      guard let node = section.node(name),
        let keys = builder.reader.section(node, key: section.path(name), pattern: "pools.*.members.*")
      else { return nil }
      if let weight = keys.integer("weight") { member.weight = weight }
      member.sessions = keys.integer("sessions")
      member.logins = keys.integer("logins")
      member.isBackup = keys.value("backup") { ["true": true, "false": false][$0] } ?? false
      if let tag = keys.value("tag", { SettingsBuilder.isName($0) ? $0 : nil }) { member.tag = tag }
      return member
    }
  }

  private func balance(_ entry: ConfigSection) -> Balance {
    let keys = ["affinity", "ring", "key", "load-bound", "expiry", "pause", "rebalance"]
    let balance = entry.value("balance") { word -> Balance? in
      switch word {
      case "affinity": .affinity(AffinitySettings())
      case "least-sessions": .leastSessions
      case "round-robin": .roundRobin
      case "random-two": .randomTwo
      default: nil
      }
    }
    switch balance ?? .affinity(AffinitySettings()) {
    case .affinity(var affinity):
      if let kind = entry.choice("affinity", AffinitySettings.Kind.self) { affinity.kind = kind }
      if let ring = entry.choice("ring", RingForm.self) { affinity.ring = ring }
      if let key = entry.value("key", { KeyTemplate($0) }) {
        if key.needsFacts { entry.report("a user's place can't depend on the client's address", "key") }
        affinity.key = key
      }
      affinity.loadBound = entry.integer("load-bound")
      if let time = entry.duration("expiry") { affinity.expiry = time }
      if let time = entry.duration("pause") { affinity.pause = time }
      if let rate = entry.integer("rebalance") { affinity.rebalance = rate }
      if affinity.kind == .hash {
        for name in ["expiry", "rebalance"] where entry.has(name) {
          entry.report("it is for affinity: table", name)
        }
      }
      return .affinity(affinity)
    case let other:
      for name in keys where entry.has(name) { entry.report("it is for balance: affinity", name) }
      return other
    }
  }

  /// The settings of a section, where they differ from `usual`.
  func health(_ section: ConfigSection, _ usual: HealthSettings) -> HealthSettings {
    var health = usual
    if let isProbed = section.value("probe", { ["on": true, "off": false][$0] }) { health.isProbed = isProbed }
    if let protocols = section.words("protocols", MailProtocol.self) { health.protocols = protocols }
    if let time = section.duration("interval") { health.interval = time }
    if let time = section.duration("fast-interval") { health.fastInterval = time }
    if let time = section.duration("timeout") { health.timeout = time }
    if let count = section.integer("rise") { health.rise = count }
    if let count = section.integer("fall") { health.fall = count }
    if let count = section.integer("failed-logins") { health.failedLogins = count }
    if let count = section.integer("refused-logins") { health.refusedLogins = count }
    if let port = section.port("agent") { health.agent = port }
    if let time = section.duration("certificate-warning") { health.certificateWarning = time }
    if let login = section.section("login"), login.required("user") != nil, login.required("password-file") != nil,
      let user = login.text("user"), let file = login.text("password-file")
    {
      health.login = ProbeLogin(
        user: user, passwordFile: builder.resolve(file), key: login.path("password-file"))
    }
    return health
  }
}

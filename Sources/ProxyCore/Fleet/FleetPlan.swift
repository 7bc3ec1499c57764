/// What a configuration makes of the backends together, checked before anything changes.

internal import Protocols

package struct FleetPlan: Sendable {
  let pools: [String: PoolSettings]
  let backends: [String: BackendSettings]
  private(set) var book: BackendBook
  let listeners: [ListenerSettings]

  /// Checks that pools name backends, that their rings can be made, and that probes have their passwords.
  init(_ settings: Settings, _ book: BackendBook) throws(SettingsErrors) {
    var errors: [SettingsError] = []
    for (name, pool) in settings.pools.sorted(by: { $0.key < $1.key }) {
      let key = "pools.\(name)"
      if settings.backends[name] != nil {
        errors.append(SettingsError(key: key, problem: "a backend has that name too: a route's answer would be either"))
      }
      for member in pool.members where settings.backends[member.backend] == nil {
        errors.append(SettingsError(key: "\(key).members", problem: "no backend is named \"\(member.backend)\""))
      }
      guard case .affinity(let affinity) = pool.balance else { continue }
      if affinity.kind == .table, settings.stateFile == nil {
        errors.append(
          SettingsError(key: "\(key).affinity", problem: "a table is kept in a file, and the key state-file is missing")
        )
      }
      do throws(Ring.Failure) {
        _ = try Ring(
          form: affinity.ring,
          members: pool.members.enumerated().map { index, member in
            RingMember(
              name: member.backend, address: FleetPlan.address(member.backend, settings.backends),
              weight: member.weight, index: index)
          })
      } catch { errors.append(SettingsError(key: "\(key).ring", problem: "\(error)")) }
    }
    let members = Set(settings.pools.values.flatMap { $0.members.map(\.backend) })
    let logins = members.compactMap { settings.backends[$0]?.health }.filter(\.isProbed).compactMap(\.login)
    for (key, file) in Dictionary(logins.map { ($0.key, $0.passwordFile) }, uniquingKeysWith: { first, _ in first })
      .sorted(by: <)
    {
      do throws(SettingsErrors) { _ = try SecretFile.read(file, key: key) } catch { errors += error.errors }
    }
    guard errors.isEmpty else { throw SettingsErrors(errors) }
    pools = settings.pools
    var backends = settings.backends
    for name in backends.keys where !members.contains(name) { backends[name]?.health.isHeeded = false }
    self.backends = backends
    self.book = book
    listeners = settings.listeners
  }

  /// The pools that remember their users in the state file.
  var tables: Set<String> { Set(pools.keys.filter { expiry(of: $0) != nil }) }

  /// How long the state file keeps users of other pools, in seconds: as long as any pool here remembers its own, so that one
  /// may be renamed and renamed back, and a week at least.
  var keepsStrangers: Int {
    Int(max(FleetPlan.week, pools.keys.compactMap { expiry(of: $0) }.max() ?? 0) / 1_000_000_000)
  }

  private static let week = Timeouts.seconds(7 * 86_400)

  private func expiry(of pool: String) -> UInt64? {
    switch pools[pool]?.balance {
    case .affinity(let affinity)?: affinity.kind == .table ? affinity.expiry : nil
    case .leastSessions?, .roundRobin?, .randomTwo?, nil: nil
    }
  }

  /// The same backends, spoken to with other certificates.
  func with(_ book: BackendBook) -> FleetPlan {
    var plan = self
    plan.book = book
    return plan
  }

  /// A backend's server for each protocol.
  func servers(_ backend: String) -> [MailProtocol: Backend] {
    Dictionary(
      uniqueKeysWithValues: MailProtocol.allCases.compactMap { mailProtocol in
        book.named(backend, mailProtocol).map { (mailProtocol, $0) }
      })
  }

  /// A backend's address as a ring has it: without brackets; its name where it has no literal address.
  static func address(_ backend: String, _ backends: [String: BackendSettings]) -> String {
    switch backends[backend]?.host {
    case .address(let address)?: address.host
    case .name(let name)?: name
    case nil: backend
    }
  }
}

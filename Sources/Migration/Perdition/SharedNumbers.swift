/// Numbers that each instance had for itself and one process has for all.
enum SharedNumbers {
  /// The longest that an instance allows before the login; nil if none says.
  static func login(_ instances: [PerditionInstance]) -> String? {
    let given = instances.compactMap { $0.number(.authenticateTimeout) }
    guard let longest = given.max() else { return nil }
    return given.contains(0) || longest >= 3_600 ? "1h" : "\(longest)s"
  }

  /// The longest silence that an instance allows; nil if none says.
  static func idle(_ instances: [PerditionInstance]) -> String? {
    guard instances.contains(where: { $0.has(.timeout) }) else { return nil }
    let times = instances.map { $0.number(.timeout) ?? 1_800 }
    guard let longest = times.max(), !times.contains(0), longest < 168 * 3_600 else { return "168h" }
    return "\(longest)s"
  }

  /// The sum of all limits; nil if an instance has none.
  static func sessions(_ instances: [PerditionInstance]) -> Int? {
    let limits = instances.map { $0.number(.connectionLimit) ?? 0 }
    guard !limits.contains(0) else { return nil }
    return limits.reduce(0) { min(10_000_000, $0 + min($1, 10_000_000)) }
  }

  /// The shortest time after which an instance logs again; nil if none does.
  static func repetition(_ instances: [PerditionInstance]) -> Int? {
    instances.map { $0.number(.connectRelog) ?? 300 }.filter { $0 > 0 }.min().map { min($0, 86_400) }
  }
}

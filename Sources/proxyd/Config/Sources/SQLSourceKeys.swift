/// The keys of databases that are asked in SQL, and what is built of them.

internal import ProxyCore

enum SQLSourceKeys {
  static let all: [ConfigKey] = [
    ConfigKey(path: "routes[].postgresql", kind: .map, standard: "none", help: "A PostgreSQL database."),
    ConfigKey(path: "routes[].mysql", kind: .map, standard: "none", help: "A MySQL or MariaDB database."),
  ]

  static func postgresql(_ section: ConfigSection, _ builder: SettingsBuilder) -> SourceSettings? { nil }
  static func mysql(_ section: ConfigSection, _ builder: SettingsBuilder) -> SourceSettings? { nil }
}

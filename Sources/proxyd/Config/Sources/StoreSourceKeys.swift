/// The keys of stores of keys and values, and what is built of them.

internal import ProxyCore

enum StoreSourceKeys {
  static let all: [ConfigKey] = [
    ConfigKey(path: "routes[].redis", kind: .map, standard: "none", help: "A Redis server."),
    ConfigKey(path: "routes[].cdb", kind: .path, standard: "none", help: "A file of Bernstein's constant database."),
    ConfigKey(path: "routes[].lmdb", kind: .path, standard: "none", help: "A file of LMDB."),
  ]

  static func redis(_ section: ConfigSection, _ builder: SettingsBuilder) -> SourceSettings? { nil }
}

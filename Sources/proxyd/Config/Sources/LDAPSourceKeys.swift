/// The keys of LDAP directories, and what is built of them.

internal import ProxyCore

enum LDAPSourceKeys {
  static let all: [ConfigKey] = [
    ConfigKey(path: "routes[].ldap", kind: .map, standard: "none", help: "An LDAP directory.")
  ]

  static func read(_ section: ConfigSection, _ builder: SettingsBuilder) -> SourceSettings? { nil }
}

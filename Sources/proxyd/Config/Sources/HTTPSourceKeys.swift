/// The keys of HTTP services, and what is built of them.

internal import ProxyCore

enum HTTPSourceKeys {
  static let all: [ConfigKey] = [
    ConfigKey(
      path: "routes[].http", kind: .map, standard: "none",
      help: "An HTTP service that speaks nginx's auth_http protocol.")
  ]

  static func read(_ section: ConfigSection, _ builder: SettingsBuilder) -> SourceSettings? { nil }
}

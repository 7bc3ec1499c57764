/// The keys of the control socket.

internal import ProxyCore

enum ControlKeys {
  static let all: [ConfigKey] = [
    ConfigKey(
      path: "control", kind: .map, standard: "none",
      help: """
        The socket by which `proxyd status`, `sessions`, `backend`, `top` and the other commands of proxyd(8) speak to the \
        running proxy. A change takes a restart.
        """,
      sample: "control: { socket: \(ControlKeys.usualSocket) }"),
    ConfigKey(
      path: "control.socket", kind: .path, standard: nil,
      help: """
        The path of a unix socket, of at most 107 bytes. Without it there is none. Who may write to it, its owner and its \
        group, may do all that the commands can; the folder is made if it alone is missing.
        """),
    ConfigKey(
      path: "control.group", kind: .text, standard: "the process's own",
      help: "The group whose members may use the socket."),
  ]

  /// Where the systemd unit makes room for it, and where the commands look without being told.
  static let usualSocket = "/run/proxyd/control.sock"
}

extension SettingsBuilder {
  func readControl(_ section: ConfigSection) -> ControlSettings? {
    guard section.required("socket") != nil, let path = section.text("socket") else { return nil }
    return ControlSettings(socket: resolve(path), group: section.text("group"))
  }
}

/// Where the proxy is asked and told at run time.

package struct ControlSettings: Equatable, Sendable {
  /// The socket's path.
  package var socket: String
  /// The group whose members may use it; nil for the process's own.
  package var group: String?

  /// A socket of its parts.
  package init(socket: String, group: String? = nil) {
    self.socket = socket
    self.group = group
  }
}

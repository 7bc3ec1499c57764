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

extension ControlSettings {
  /// Owner and group may write, which is what connecting takes (unix(7)), and nobody else.
  private static let mode: UInt32 = 0o660

  /// Opens the socket, for the user that the process becomes and the group that may use it. Its folder is made if it alone
  /// is missing, as below /run after each start of the machine.
  package func open(for user: UserSettings?) throws(SettingsErrors) -> UnixListener {
    let owner = try Privileges.owner(user, group: group, key: "control.group")
    if let slash = socket.lastIndex(of: "/"), slash != socket.startIndex {
      let folder = String(socket[..<slash])
      if Syscall.makeFolder(folder) == nil { _ = Syscall.give(folder, to: owner.user, owner.group) }
    }
    do throws(UnixListener.Failure) {
      return try UnixListener(socket, mode: ControlSettings.mode, owner: owner)
    } catch { throw SettingsErrors([SettingsError(key: "control.socket", problem: "\(socket): \(error)")]) }
  }
}

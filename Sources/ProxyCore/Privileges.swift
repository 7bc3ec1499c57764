/// Gives up root's rights once they are not needed any more.

internal import Glibc

package enum Privileges {
  /// Whether the process runs as root.
  package static var areRoots: Bool { geteuid() == 0 }

  /// Becomes the user for good. Nothing is done if the process is not root's: then it has nothing to give up.
  package static func drop(to settings: UserSettings) throws(SettingsErrors) {
    guard areRoots else { return }
    // SAFETY: the structures are the C library's and are read before its next call; no other thread runs yet.
    guard let user = unsafe getpwnam(settings.user) else {
      throw SettingsErrors([SettingsError(key: "user", problem: "there is no user \"\(settings.user)\"")])
    }
    let number = unsafe user.pointee.pw_uid
    var group = unsafe user.pointee.pw_gid
    if let name = settings.group {
      guard let found = unsafe getgrnam(name) else {
        throw SettingsErrors([SettingsError(key: "group", problem: "there is no group \"\(name)\"")])
      }
      group = unsafe found.pointee.gr_gid
    }
    if let error = Syscall.become(number, group, named: settings.user) {
      throw SettingsErrors([SettingsError(key: "user", problem: "the process can't become it: \(error)")])
    }
    precondition(number == 0 || setuid(0) != 0, "root's rights could be taken back")
  }
}

/// Gives up root's rights once they are not needed any more.

internal import Glibc

package enum Privileges {
  /// Whether the process runs as root.
  package static var areRoots: Bool { geteuid() == 0 }

  /// Becomes the user for good. Nothing is done if the process is not root's: then it has nothing to give up.
  package static func drop(to settings: UserSettings) throws(SettingsErrors) {
    guard areRoots else { return }
    let (number, group) = try numbers(of: settings)
    if let error = Syscall.become(number, group, named: settings.user) {
      throw SettingsErrors([SettingsError(key: "user", problem: "the process can't become it: \(error)")])
    }
    precondition(number == 0 || setuid(0) != 0, "root's rights could be taken back")
  }

  /// Whom files are given to that the process makes before it becomes the user: the user, or whoever it is; and that
  /// group, or the user's. `key` is where the configuration has the group.
  package static func owner(
    _ settings: UserSettings?, group: String?, key: String
  ) throws(SettingsErrors) -> (user: UInt32, group: UInt32) {
    var owner = (user: geteuid(), group: getegid())
    if areRoots, let settings { owner = try numbers(of: settings) }
    if let group { owner.group = try number(ofGroup: group, key: key) }
    return owner
  }

  /// The name of a group; its number if it has none.
  package static func groupName(_ number: UInt32) -> String {
    // SAFETY: the structure is the C library's and is copied before its next call.
    guard let found = unsafe getgrgid(number) else { return String(number) }
    return unsafe String(cString: found.pointee.gr_name)
  }

  private static func numbers(of settings: UserSettings) throws(SettingsErrors) -> (user: UInt32, group: UInt32) {
    // SAFETY: the structure is the C library's and is read before its next call; no other thread asks for users yet.
    guard let user = unsafe getpwnam(settings.user) else {
      throw SettingsErrors([SettingsError(key: "user", problem: "there is no user \"\(settings.user)\"")])
    }
    var numbers = unsafe (user: user.pointee.pw_uid, group: user.pointee.pw_gid)
    if let name = settings.group { numbers.group = try number(ofGroup: name, key: "group") }
    return numbers
  }

  private static func number(ofGroup name: String, key: String) throws(SettingsErrors) -> UInt32 {
    // SAFETY: as above.
    guard let found = unsafe getgrnam(name) else {
      throw SettingsErrors([SettingsError(key: key, problem: "there is no group \"\(name)\"")])
    }
    return unsafe found.pointee.gr_gid
  }
}

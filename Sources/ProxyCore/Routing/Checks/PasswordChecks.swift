/// Who checks passwords before a backend sees them: hashes of crypt(3), and PAM.

internal import Protocols

/// The check of all passwords by PAM.
package struct PasswordCheckSettings: Equatable, Sendable {
  /// PAM's service, a file of /etc/pam.d.
  package var service: String
  /// How long it may take, in nanoseconds.
  package var timeout: UInt64
  /// Checks at once.
  package var connections: Int

  /// A check of its parts.
  package init(service: String, timeout: UInt64 = Timeouts.seconds(10), connections: Int = 4) {
    self.service = service
    self.timeout = timeout
    self.connections = connections
  }
}

enum PasswordChecks {
  /// The pool that compares passwords with hashes, in so many nanoseconds at most. A hash is meant to cost much: a thread
  /// for each core.
  static func crypt(timeout: UInt64) -> SourcePool {
    let plan = SourcePlan(name: "crypt", connections: Syscall.usableCores, isPersonal: true) { CryptCheck() }
    return SourcePool(plan, timeout: timeout)
  }

  /// The plan of the pool that asks PAM.
  static func pam(_ settings: PasswordCheckSettings) throws(SettingsErrors) -> SourcePlan {
    #if PAM
      return try PAMCheck.plan(settings)
    #else
      throw SettingsErrors([
        SettingsError(key: "password-check.pam", problem: "this proxyd was built without it: swift build --traits PAM")
      ])
    #endif
  }
}

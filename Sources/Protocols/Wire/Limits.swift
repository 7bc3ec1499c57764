/// Every bound a dialogue keeps, with the reason for its value.
package struct Limits: Equatable, Sendable {
  /// The longest command before login in bytes, its literals included. Dovecot takes SASL responses of 8,192 bytes
  /// (a bearer token in base64); a LOGIN with a user name and an app token beside it fits in twice that.
  package var command: Int
  /// Commands that are not understood before the connection is closed. Dovecot: 3, nginx: 5.
  package var badCommands: Int
  /// Refused logins on one connection before it is closed. No peer has a bound; ten guesses are no typing error.
  package var failedLogins: Int

  /// The bounds, each with its default.
  package init(command: Int = 16_384, badCommands: Int = 3, failedLogins: Int = 10) {
    self.command = command
    self.badCommands = badCommands
    self.failedLogins = failedLogins
  }

  /// The longest tag of an IMAP client. Dovecot closes at 126; the longest seen in the wild are under 32.
  package static let tag = 128
  /// The longest user name in bytes. An address has at most 254 (RFC 5321 §4.5.3.1), and `user*master` holds two.
  package static let loginName = 512
  /// The longest line a backend may say before its answer to the login. Dovecot bounds it at 4,096; a long list of
  /// capabilities or an alert is allowed twice that.
  package static let backendLine = 8_192
  /// What a backend may say untagged before its answer to the login, in bytes.
  package static let backendUntagged = 16_384
}

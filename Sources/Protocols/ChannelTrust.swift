/// How far a connection may be trusted with a secret.
///
/// A backend dialogue can't be made without one, and only the driver of the connection makes them: the step that
/// established the trust can't be left out.
package enum ChannelTrust: Equatable, Sendable {
  /// Nothing protects it; the operator configured it so.
  case plaintextByConfiguration
  /// TLS is up.
  case encrypted
}

/// What a listener asks of its clients before a password may be sent: the key `listeners[].tls`.
package enum TLSPolicy: String, Equatable, Sendable, CaseIterable {
  /// No TLS at all.
  case off
  /// STARTTLS or STLS is offered; a password is taken without it too.
  case startTLS = "starttls"
  /// STARTTLS or STLS is offered, and no password is taken without it.
  case startTLSRequired = "starttls-required"
  /// TLS from the first byte (RFC 8314).
  case implicit
}

/// How the connection to a backend is protected before the login: the key `backends.*.tls`.
package enum BackendTLS: String, Equatable, Sendable, CaseIterable {
  /// Not at all: the link is the operator's own.
  case off
  /// STARTTLS or STLS, and no login without it.
  case startTLS = "starttls"
  /// TLS from the first byte.
  case implicit
}

/// What a backend dialogue may say on the channel it begins on.
package enum BackendChannel: Equatable, Sendable {
  case trusted(ChannelTrust)
  /// No word of the client or its login before STARTTLS or STLS. There is no way back to plain text: a backend that
  /// does not offer it is not logged in to.
  case startTLSFirst
}

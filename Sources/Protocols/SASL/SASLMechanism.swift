/// The SASL mechanisms this proxy speaks, and what each means for a login.

/// A mechanism, by its registered name.
package enum SASLMechanism: String, Equatable, Hashable, Sendable, CaseIterable {
  /// RFC 4616.
  case plain = "PLAIN"
  /// Never standardised (draft-murchison-sasl-login-00), still what Outlook sends.
  case login = "LOGIN"
  /// Google's, older than OAUTHBEARER and still the more common.
  case xoauth2 = "XOAUTH2"
  /// RFC 7628.
  case oauthBearer = "OAUTHBEARER"
  /// RFC 7677. Relayed: the password never comes here.
  case scramSHA256 = "SCRAM-SHA-256"
  /// RFC 5802. Relayed as well.
  case scramSHA1 = "SCRAM-SHA-1"
  /// RFC 4422, appendix A: the client's certificate says who it is.
  case external = "EXTERNAL"

  /// The mechanism of that name, letters compared without regard to case (RFC 4422 §3.1 has upper case only; clients
  /// differ).
  package init?(_ name: Span<UInt8>) {
    for mechanism in SASLMechanism.allCases where name.equalsIgnoringCase(mechanism.name) {
      self = mechanism
      return
    }
    return nil
  }

  /// The registered name.
  package var name: StaticString {
    switch self {
    case .plain: "PLAIN"
    case .login: "LOGIN"
    case .xoauth2: "XOAUTH2"
    case .oauthBearer: "OAUTHBEARER"
    case .scramSHA256: "SCRAM-SHA-256"
    case .scramSHA1: "SCRAM-SHA-1"
    case .external: "EXTERNAL"
    }
  }

  /// Whether the server speaks first, so that an empty initial response says nothing.
  var beginsWithServer: Bool {
    switch self {
    case .login: true
    case .plain, .xoauth2, .oauthBearer, .scramSHA256, .scramSHA1, .external: false
    }
  }

  /// Whether the backend checks something that a name written anew would spoil: SCRAM signs the name with all else.
  package var bindsName: Bool {
    switch self {
    case .scramSHA256, .scramSHA1: true
    case .plain, .login, .xoauth2, .oauthBearer, .external: false
    }
  }

  fileprivate var bit: UInt8 {
    switch self {
    case .plain: 1
    case .login: 2
    case .xoauth2: 4
    case .oauthBearer: 8
    case .scramSHA256: 16
    case .scramSHA1: 32
    case .external: 64
    }
  }
}

/// The mechanisms a backend offers.
struct SASLMechanisms: Equatable, Sendable {
  private var bits: UInt8 = 0

  mutating func insert(_ mechanism: SASLMechanism) { bits |= mechanism.bit }
  func contains(_ mechanism: SASLMechanism) -> Bool { bits & mechanism.bit != 0 }

  /// Inserts the mechanisms named in a list that blanks part.
  mutating func insert(names: Span<UInt8>) {
    var start = 0
    while start < names.count {
      let end = names.firstIndex(of: .space, from: start) ?? names.count
      if let mechanism = SASLMechanism(names.extracting(start..<end)) { insert(mechanism) }
      start = end + 1
    }
  }

  /// The one to log in with: the client's own, else the best that carries what the client gave. Nil if only the
  /// protocol's command can, or nothing.
  func choice(for method: LoginDraft.Method, hasAuthorizationIdentity: Bool) -> SASLMechanism? {
    let candidates: [SASLMechanism] =
      switch method {
      case .command, .sasl(.plain): [.plain, .login]
      case .sasl(.login): [.login, .plain]
      case .sasl(.xoauth2): [.xoauth2, .oauthBearer]
      case .sasl(.oauthBearer): [.oauthBearer, .xoauth2]
      case .sasl(.scramSHA256): [.scramSHA256]
      case .sasl(.scramSHA1): [.scramSHA1]
      case .sasl(.external): [.external]
      }
    return candidates.first { contains($0) && !(hasAuthorizationIdentity && $0 == .login) }
  }
}

extension LoginDraft.Method {
  /// Whether a name and a password are what the client gave, so that the protocol's own command carries them too.
  var isPassword: Bool {
    switch self {
    case .command, .sasl(.plain), .sasl(.login): true
    case .sasl(.xoauth2), .sasl(.oauthBearer), .sasl(.scramSHA256), .sasl(.scramSHA1), .sasl(.external): false
    }
  }
}

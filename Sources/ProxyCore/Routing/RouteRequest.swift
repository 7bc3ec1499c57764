/// A login's question for its backend, with all a source may be asked with.

package import Protocols

package struct RouteRequest: Sendable {
  /// The user's name as the client gave it.
  package let user: [UInt8]
  /// The protocol the user came with.
  package let mailProtocol: MailProtocol
  /// How names are rewritten.
  package let rules: NameRules
  /// What is known of the login besides.
  package let facts: LoginFacts
  /// The name that is looked up, before it is made a key.
  package let lookupName: [UInt8]

  /// A question; `addressName` is the name of the address the client connected to, where the rules need it, and
  /// `authenticator` whose password it is, if not the user's: a master user's (RFC 4422 §2).
  package init(
    user: [UInt8], authenticator: [UInt8] = [], mailProtocol: MailProtocol, rules: NameRules = NameRules(),
    facts: LoginFacts = LoginFacts(),
    addressName: [UInt8]? = nil
  ) {
    self.user = user
    self.mailProtocol = mailProtocol
    self.rules = rules
    self.facts = facts
    lookupName = rules.name(user, for: .lookup, addressName: addressName)
    isForAnother = !authenticator.isEmpty && authenticator != user
    checkName = rules.name(isForAnother ? authenticator : user, for: .check, addressName: addressName)
  }

  /// The name whose password is checked.
  package let checkName: [UInt8]
  /// Whether the password is another's than the user's: what a source knows of the user can't tell whether it is right.
  package let isForAnother: Bool

  /// The question for one of a source's keys.
  func query(_ key: KeyTemplate) -> RouteQuery {
    RouteQuery(user: key.key(lookupName, rules, facts.addresses), mailProtocol: mailProtocol, rules: rules)
  }
}

/// What is known of a login besides its name.
package struct LoginFacts: Equatable, Sendable {
  /// Both ends of the client's connection.
  package var addresses = KeyFacts()
  /// How the credentials were given.
  package var method = LoginDraft.Method.command
  /// The number of the login on its connection, from 1.
  package var attempt = 1
  /// Both ends in the words of a PROXY header; nil if there was none.
  package var header: KeyFacts?
  /// TLS's version and cipher with the client, as OpenSSL names them; nil without TLS.
  package var tls: TLS?

  /// TLS with the client.
  package struct TLS: Equatable, Sendable {
    /// As `TLSv1.3`.
    package var version: String
    /// As `TLS_AES_128_GCM_SHA256`.
    package var cipher: String
    /// What the client showed of itself.
    package var client: ClientCertificateFacts

    /// TLS of its parts.
    package init(version: String, cipher: String, client: ClientCertificateFacts) {
      self.version = version
      self.cipher = cipher
      self.client = client
    }
  }

  /// Facts of nobody.
  package init() {}

  /// What the client's credentials can prove to us.
  package var proof: Proof {
    switch method {
    case .command, .sasl(.plain), .sasl(.login): .password
    case .sasl(.external): .certificate
    case .sasl(.xoauth2), .sasl(.oauthBearer), .sasl(.scramSHA1), .sasl(.scramSHA256): .none
    }
  }

  /// What credentials can prove to us.
  package enum Proof: Equatable, Sendable {
    /// A password, which can be checked.
    case password
    /// A certificate, which was verified.
    case certificate
    /// A token or an exchange, which only others can judge.
    case none
  }
}

/// What a source off the loops is asked.
package struct SourceRequest: Sendable {
  /// The key, in lower case.
  package let query: RouteQuery
  /// The user's name, rewritten for lookups, in the case the client gave it.
  package let user: [UInt8]
  /// What is known of the login.
  package let facts: LoginFacts
  /// What there is to be checked.
  package let credential: Credential

  /// What a source has to check.
  package enum Credential: Sendable {
    /// Nothing: the source is not asked to.
    case none
    /// A certificate proved the user.
    case proven
    case password(SharedSecret)
    /// A password, and what crypt(3) has made of the right one.
    case hashed(SharedSecret, hash: SharedSecret)
  }

  /// A question of its parts.
  package init(query: RouteQuery, user: [UInt8], facts: LoginFacts = LoginFacts(), credential: Credential = .none) {
    self.query = query
    self.user = user
    self.facts = facts
    self.credential = credential
  }
}

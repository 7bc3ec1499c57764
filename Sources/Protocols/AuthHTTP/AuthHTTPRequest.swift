/// Says what an HTTP service of nginx's auth_http protocol is asked: the header lines, in nginx's order and escaping.

package struct AuthHTTPRequest: Equatable, Sendable {
  /// How the credentials were given.
  package var method = LoginDraft.Method.command
  /// The name asked for.
  package var user: [UInt8] = []
  /// The protocol the user came with.
  package var mailProtocol = MailProtocol.imap
  /// The number of the login on its connection, from 1.
  package var attempt = 1
  /// The client's address as text.
  package var clientAddress = ""
  /// Both ends of the connection in the words of a PROXY header; nil if there was none.
  package var header: KeyFacts?
  /// TLS with the client; nil without.
  package var tls: TLS?

  /// TLS with the client, as the service is told.
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

  /// What the service is given of the password.
  package enum Password: Equatable, Sendable {
    /// The password that the client gave.
    case sent
    /// There is none: a certificate proved the user. The header is there, and empty.
    case empty
    /// It is not for the service to know. There is no such header.
    case withheld
  }

  /// Questions of nobody.
  package init() {}

  /// The names of the headers said here, in lower case; an operator's own must be others.
  package static let names: Set<String> = [
    "auth-method", "auth-user", "auth-pass", "auth-salt", "auth-protocol", "auth-login-attempt", "client-ip",
    "client-host", "proxy-protocol-addr", "proxy-protocol-port", "proxy-protocol-server-addr",
    "proxy-protocol-server-port", "auth-ssl", "auth-ssl-protocol", "auth-ssl-cipher", "auth-ssl-verify",
    "auth-ssl-subject", "auth-ssl-issuer", "auth-ssl-serial", "auth-ssl-fingerprint", "auth-ssl-cert",
  ]

  /// Appends the header lines, each with a NUL behind it, as C has it: no line holds one. `secret` is the client's password,
  /// which is said if `password` wants it.
  package func render(_ password: Password, _ secret: Span<UInt8>, into lines: inout Secret) {
    AuthHTTPRequest.line("Auth-Method: ", Array(methodName.utf8), &lines)
    AuthHTTPRequest.line("Auth-User: ", user, &lines, escaped: true)
    switch password {
    case .sent:
      for byte in "Auth-Pass: ".utf8 { lines.append(byte) }
      for index in secret.indices { AuthHTTPRequest.escape(secret[index], &lines) }
      lines.append(.nul)
    case .empty: AuthHTTPRequest.line("Auth-Pass: ", [], &lines)
    case .withheld: break
    }
    AuthHTTPRequest.line("Auth-Protocol: ", Array(mailProtocol.rawValue.utf8), &lines)
    AuthHTTPRequest.line("Auth-Login-Attempt: ", Array(String(attempt).utf8), &lines)
    AuthHTTPRequest.line("Client-IP: ", Array(clientAddress.utf8), &lines)
    if let header {
      AuthHTTPRequest.line("Proxy-Protocol-Addr: ", Array(header.clientAddress.utf8), &lines)
      AuthHTTPRequest.line("Proxy-Protocol-Port: ", Array(header.clientPort.utf8), &lines)
      AuthHTTPRequest.line("Proxy-Protocol-Server-Addr: ", Array(header.localAddress.utf8), &lines)
      AuthHTTPRequest.line("Proxy-Protocol-Server-Port: ", Array(header.localPort.utf8), &lines)
    }
    guard let tls else { return }
    AuthHTTPRequest.line("Auth-SSL: ", Array("on".utf8), &lines)
    AuthHTTPRequest.line("Auth-SSL-Protocol: ", Array(tls.version.utf8), &lines)
    AuthHTTPRequest.line("Auth-SSL-Cipher: ", Array(tls.cipher.utf8), &lines)
    switch tls.client {
    case .notAsked: break
    case .none: AuthHTTPRequest.line("Auth-SSL-Verify: ", Array("NONE".utf8), &lines)
    case .verified(let subject, let issuer, let serial, let fingerprint):
      AuthHTTPRequest.line("Auth-SSL-Verify: ", Array("SUCCESS".utf8), &lines)
      AuthHTTPRequest.line("Auth-SSL-Subject: ", Array(subject.utf8), &lines)
      AuthHTTPRequest.line("Auth-SSL-Issuer: ", Array(issuer.utf8), &lines)
      AuthHTTPRequest.line("Auth-SSL-Serial: ", AuthHTTPRequest.hexadecimal(serial), &lines)
      AuthHTTPRequest.line("Auth-SSL-Fingerprint: ", AuthHTTPRequest.hexadecimal(fingerprint).map(\.lowercased), &lines)
    }
  }

  /// nginx's word for how the credentials were given: `plain` for every way to say a password. What it has no word for goes
  /// by SASL's name.
  private var methodName: String {
    switch method {
    case .command, .sasl(.plain), .sasl(.login): "plain"
    case .sasl(let mechanism): mechanism.rawValue.lowercased()
    }
  }

  private static func line(
    _ name: String, _ value: [UInt8], _ lines: inout Secret, escaped isEscaped: Bool = false
  ) {
    for byte in name.utf8 { lines.append(byte) }
    for byte in value {
      // Only what a client wrote can hold what is no text; of the rest it would be a mistake of ours.
      if isEscaped { escape(byte, &lines) } else { lines.append(byte.isControl ? .ascii("?") : byte) }
    }
    lines.append(.nul)
  }

  /// Control characters, blank and "%" in two digits, and all else as it is: DEL and bytes beyond ASCII, too.
  private static func escape(_ byte: UInt8, _ lines: inout Secret) {
    guard byte <= .space || byte == .ascii("%") else { return lines.append(byte) }
    lines.append(.ascii("%"))
    for digit in hexadecimal([byte]) { lines.append(digit) }
  }

  private static func hexadecimal(_ bytes: [UInt8]) -> [UInt8] {
    bytes.flatMap { byte in
      [byte >> 4, byte & 0xF].map { $0 < 10 ? .ascii("0") + $0 : .ascii("A") + $0 - 10 }
    }
  }
}

/// What a client showed of itself in TLS.
package enum ClientCertificateFacts: Equatable, Sendable {
  /// Clients are not asked for certificates.
  case notAsked
  case none
  /// Subject and issuer as RFC 2253 writes them, the number, and the SHA-1 of all of it.
  case verified(subject: String, issuer: String, serial: [UInt8], fingerprint: [UInt8])
}

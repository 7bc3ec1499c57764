/// The one table of Perdition's options: names, letters, what they take, and what becomes of them.

internal import Protocols

/// An option of Perdition 2.2; the raw value is its long name.
package enum PerditionOption: String, CaseIterable, Sendable {
  case mailProtocol = "protocol"
  case bindAddress = "bind_address"
  case listenPort = "listen_port"
  case connectionLimit = "connection_limit"
  case inetdMode = "inetd_mode"
  case noDaemon = "no_daemon"
  case pidFile = "pid_file"
  case username, group
  case noBindBanner = "no_bind_banner"
  case noLookup = "no_lookup"
  case keepAlive = "tcp_keepalive"
  case configFile = "config_file"
  case help
  case outgoingServer = "outgoing_server"
  case outgoingPort = "outgoing_port"
  case mapLibrary = "map_library"
  case mapLibraryOption = "map_library_opt"
  case queryKey = "query_key"
  case domainDelimiter = "domain_delimiter"
  case stripDomain = "strip_domain"
  case addDomain = "add_domain"
  case explicitDomain = "explicit_domain"
  case lowerCase = "lower_case"
  case usernameFromDatabase = "username_from_database"
  case clientServerSpecification = "client_server_specification"
  case authenticateIn = "authenticate_in"
  case loginDisabled = "login_disabled"
  case okayLine = "ok_line"
  case serverResponseLine = "server_resp_line"
  case serverOkayLine = "server_ok_line"
  case authenticateTimeout = "authenticate_timeout"
  case timeout
  case connectRelog = "connect_relog"
  case logFacility = "log_facility"
  case debug, quiet
  case connectionLogging = "connection_logging"
  case logPassword = "log_passwd"
  case capability
  case imapCapability = "imap_capability"
  case popCapability = "pop_capability"
  case sieveCapability = "managesieve_capability"
  case tlsMode = "ssl_mode"
  case certificateFile = "ssl_cert_file"
  case keyFile = "ssl_key_file"
  case chainFile = "ssl_ca_chain_file"
  case authorityFile = "ssl_ca_file"
  case authorityPath = "ssl_ca_path"
  case noCertificateVerify = "ssl_no_cert_verify"
  case noClientCertificateVerify = "ssl_no_client_cert_verify"
  case noNameVerify = "ssl_no_cn_verify"
  case authorityAcceptSelfSigned = "ssl_ca_accept_self_signed"
  case acceptSelfSigned = "ssl_cert_accept_self_signed"
  case acceptExpired = "ssl_cert_accept_expired"
  case acceptNotYetValid = "ssl_cert_accept_not_yet_valid"
  case verifyDepth = "ssl_cert_verify_depth"
  case parametersFile = "ssl_dh_params_file"
  case passphraseDescriptor = "ssl_passphrase_fd"
  case passphraseFile = "ssl_passphrase_file"
  case listenCiphers = "ssl_listen_ciphers"
  case outgoingCiphers = "ssl_outgoing_ciphers"
  case listenMinimum = "ssl_listen_min_proto_version"
  case outgoingMinimum = "ssl_outgoing_min_proto_version"
  case listenMaximum = "ssl_listen_max_proto_version"
  case outgoingMaximum = "ssl_outgoing_max_proto_version"
  case listenCompression = "ssl_listen_compression"
  case outgoingCompression = "ssl_outgoing_compression"
  case noCipherServerPreference = "ssl_no_cipher_server_preference"

  /// What stands behind an option's name.
  package enum Kind: Equatable, Sendable {
    case flag, text
    /// Decimal digits; Perdition stops reading at anything else.
    case number
  }

  /// What it takes.
  package var kind: Kind {
    switch self {
    case .inetdMode, .noDaemon, .noBindBanner, .noLookup, .keepAlive, .help, .usernameFromDatabase,
      .clientServerSpecification, .authenticateIn, .loginDisabled, .serverResponseLine, .serverOkayLine, .debug, .quiet,
      .connectionLogging, .noCertificateVerify, .noClientCertificateVerify, .noNameVerify, .authorityAcceptSelfSigned,
      .acceptSelfSigned, .acceptExpired, .acceptNotYetValid, .listenCompression, .outgoingCompression,
      .noCipherServerPreference:
      .flag
    case .connectionLimit, .authenticateTimeout, .timeout, .connectRelog, .verifyDepth, .passphraseDescriptor: .number
    case .mailProtocol, .bindAddress, .listenPort, .pidFile, .username, .group, .configFile, .outgoingServer,
      .outgoingPort, .mapLibrary, .mapLibraryOption, .queryKey, .domainDelimiter, .stripDomain, .addDomain,
      .explicitDomain, .lowerCase, .okayLine, .logFacility, .logPassword, .capability, .imapCapability, .popCapability,
      .sieveCapability, .tlsMode, .certificateFile, .keyFile, .chainFile, .authorityFile, .authorityPath,
      .parametersFile, .passphraseFile, .listenCiphers, .outgoingCiphers, .listenMinimum, .outgoingMinimum,
      .listenMaximum, .outgoingMaximum:
      .text
    }
  }

  /// Its short name.
  package var letter: Character? { PerditionOption.letters.first { $0.value == self }?.key }

  private static let letters: [Character: PerditionOption] = [
    "P": .mailProtocol, "b": .bindAddress, "l": .listenPort, "L": .connectionLimit, "i": .inetdMode, "u": .username,
    "g": .group, "B": .noBindBanner, "n": .noLookup, "f": .configFile, "h": .help, "s": .outgoingServer,
    "p": .outgoingPort, "M": .mapLibrary, "m": .mapLibraryOption, "D": .domainDelimiter, "S": .stripDomain,
    "A": .addDomain, "e": .explicitDomain, "U": .usernameFromDatabase, "c": .clientServerSpecification,
    "a": .authenticateIn, "O": .okayLine, "o": .serverResponseLine, "t": .timeout, "F": .logFacility, "d": .debug,
    "q": .quiet, "C": .connectionLogging, "I": .capability,
  ]

  /// The option of a short name.
  package init?(letter: Character) {
    guard let option = PerditionOption.letters[letter] else { return nil }
    self = option
  }

  /// Whether every line of it counts; of the others the last one does.
  var accumulates: Bool { [.tlsMode, .stripDomain, .addDomain, .lowerCase].contains(self) }

  /// Given on the command line and in the file, the file's counts: not what the manual says, but what Perdition does.
  var isFilesOwn: Bool { [.bindAddress, .outgoingServer, .queryKey].contains(self) }

  /// Options of the file that Perdition forgets when this one is on the command line.
  var blocks: [PerditionOption] {
    let accident: [PerditionOption: [PerditionOption]] = [
      .bindAddress: [.connectionLimit, .addDomain, .authenticateIn], .listenCiphers: [.outgoingCiphers],
      .outgoingCiphers: [.listenCiphers], .connectionLogging: [.debug], .debug: [.connectionLogging],
      .noClientCertificateVerify: [.noCertificateVerify], .serverOkayLine: [.serverResponseLine],
      .serverResponseLine: [.serverOkayLine],
    ]
    return accident[self] ?? []
  }

  /// The setting for a report: passwords are masked.
  func shown(_ value: String?) -> String {
    guard let value else { return rawValue }
    guard self == .mapLibraryOption else { return "\(rawValue) \(value.isEmpty ? "\"\"" : value)" }
    return "\(rawValue) \(Masked.text(value))"
  }
}

/// Strings that may hold a password, for a report.
enum Masked {
  /// The sixth of nine fields, and what an LDAP URL binds with.
  static func text(_ value: String) -> String {
    var bytes = Array(value.utf8)
    let mark = Array("x-bindpw=".utf8)
    if let start = bytes.indices.first(where: { bytes[$0...].prefix(mark.count).map(\.lowercased) == mark }) {
      let end = bytes[start...].firstIndex(of: .ascii(",")) ?? bytes.endIndex
      bytes.replaceSubrange(start + mark.count..<end, with: Array("***".utf8))
      return String(decoding: bytes, as: UTF8.self)
    }
    if value.contains("://") { return value }
    var fields = value.split(separator: ":", omittingEmptySubsequences: false).map(String.init)
    if fields.count > 5, !fields[5].isEmpty { fields[5] = "***" }
    return fields.joined(separator: ":")
  }
}

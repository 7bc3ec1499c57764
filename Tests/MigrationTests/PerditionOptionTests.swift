import Testing

@testable import Migration

/// The table of options against Perdition's own manual.
struct PerditionOptionTests {
  /// perdition(8) of 2.2: letter, name, and `=` where it takes a value. `server_ok_line` is `server_resp_line` by its
  /// old name.
  static let manual = """
    A add_domain= | a authenticate_in | authenticate_timeout= | B no_bind_banner | b bind_address= | C connection_logging
    connect_relog= | c client_server_specification | D domain_delimiter= | d debug | e explicit_domain= | F log_facility=
    f config_file= | g group= | h help | I capability= | imap_capability= | i inetd_mode | L connection_limit=
    l listen_port= | login_disabled | log_passwd= | lower_case= | managesieve_capability= | M map_library=
    m map_library_opt= | no_daemon | n no_lookup | O ok_line= | server_ok_line | o server_resp_line | P protocol=
    p outgoing_port= | s outgoing_server= | pid_file= | pop_capability= | S strip_domain= | t timeout= | tcp_keepalive
    u username= | U username_from_database | q quiet | query_key= | ssl_mode= | ssl_ca_chain_file= | ssl_ca_file=
    ssl_ca_path= | ssl_ca_accept_self_signed | ssl_cert_file= | ssl_dh_params_file= | ssl_cert_accept_self_signed
    ssl_cert_accept_expired | ssl_cert_accept_not_yet_valid | ssl_cert_verify_depth= | ssl_key_file=
    ssl_listen_ciphers= | ssl_outgoing_ciphers= | ssl_no_cert_verify | ssl_no_client_cert_verify | ssl_no_cn_verify
    ssl_passphrase_fd= | ssl_passphrase_file= | ssl_listen_min_proto_version= | ssl_outgoing_min_proto_version=
    ssl_listen_max_proto_version= | ssl_outgoing_max_proto_version= | ssl_listen_compression | ssl_outgoing_compression
    ssl_no_cipher_server_preference
    """

  @Test func theTableIsTheManuals() {
    var names = Set<String>()
    for line in PerditionOptionTests.manual.split(whereSeparator: { $0 == "\n" || $0 == "|" }) {
      let words = line.split(separator: " ")
      guard let word = words.last else { continue }
      let name = word.hasSuffix("=") ? word.dropLast() : word
      names.insert(String(name))
      let option = PerditionOption(rawValue: String(name))
      #expect(option != nil, "\(name)")
      #expect(option?.kind == .flag ? !word.hasSuffix("=") : word.hasSuffix("="), "\(name)")
      #expect(option?.letter == (words.count > 1 ? words[0].first : nil), "\(name)")
    }
    #expect(names.count == PerditionOption.allCases.count)
  }
}

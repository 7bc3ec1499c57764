/// libldap's C interface with owners and values: a connection to a directory server, what is asked on it, and its answers.

#if LDAP

  internal import CLDAP
  internal import Glibc
  internal import Protocols

  /// Why a server gave no answer.
  enum LDAPFailure: Error, Equatable, Sendable {
    /// No connection, or none any more.
    case broken(String)
    case late
    /// The server says no to the connection itself: to StartTLS, or to the name we log in with.
    case rejected(String)

    var words: String {
      switch self {
      case .broken(let words), .rejected(let words): words
      case .late: "it did not answer in time"
      }
    }
  }

  /// A connection, closed with its last use.
  @safe
  final class LDAPSession {
    private let raw: OpaquePointer
    /// Its server, as `ldaps://ldap.example.net`.
    let url: String

    /// The most entries asked for: a second one tells that the first is not the only one.
    private static let sizeLimit: Int32 = 2
    /// Seconds of silence before the kernel asks whether the server is still there, between questions, and how many.
    private static let keepAlive: (idle: Int32, interval: Int32, probes: Int32) = (60, 10, 3)

    private init(_ raw: OpaquePointer, _ url: String) {
      unsafe self.raw = raw
      self.url = url
    }

    deinit { unsafe ldap_unbind_ext(raw, nil, nil) }

    // MARK: Connecting

    /// Connects, with TLS where it is wanted. StartTLS is demanded: without it nothing is said.
    static func open(_ url: String, _ settings: LDAPSettings, _ patience: Patience) -> Result<LDAPSession, LDAPFailure>
    {
      var created: OpaquePointer?
      // SAFETY: libldap gives a handle if it says success; the session owns it from here on.
      let result = unsafe ldap_initialize(&created, url)
      guard result == LDAP_SUCCESS, let raw = unsafe created else { return .failure(.broken(words(result))) }
      let session = unsafe LDAPSession(raw, url)
      let hasTLS = url.hasPrefix("ldaps:") || settings.startsTLS && url.hasPrefix("ldap:")
      guard session.configure(hasTLS ? settings.tls : .off, patience) else {
        return .failure(.broken("TLS can't be set up"))
      }
      if settings.startsTLS, url.hasPrefix("ldap:") {
        if let failure = session.startTLS(patience) { return .failure(failure) }
      } else {
        let result = unsafe ldap_connect(raw)
        guard result == LDAP_SUCCESS else { return .failure(session.failure(result, patience)) }
      }
      return .success(session)
    }

    /// Sets what libldap's own files and environment may have set otherwise.
    private func configure(_ tls: SourceTLS, _ patience: Patience) -> Bool {
      var version = LDAP_VERSION3
      var aliases = LDAP_DEREF_NEVER
      var interval = patience.interval
      var (idle, probeInterval, probes) = LDAPSession.keepAlive
      // SAFETY: every option is given a value of the type ldap_set_option(3) names for it, which it copies.
      unsafe ldap_set_option(raw, LDAP_OPT_PROTOCOL_VERSION, &version)
      unsafe ldap_set_option(raw, LDAP_OPT_REFERRALS, nil)
      unsafe ldap_set_option(raw, LDAP_OPT_DEREF, &aliases)
      // Any pointer says yes.
      unsafe ldap_set_option(raw, LDAP_OPT_RESTART, &version)
      unsafe ldap_set_option(raw, LDAP_OPT_NETWORK_TIMEOUT, &interval)
      unsafe ldap_set_option(raw, LDAP_OPT_X_KEEPALIVE_IDLE, &idle)
      unsafe ldap_set_option(raw, LDAP_OPT_X_KEEPALIVE_INTERVAL, &probeInterval)
      unsafe ldap_set_option(raw, LDAP_OPT_X_KEEPALIVE_PROBES, &probes)
      var demand: Int32
      switch tls {
      case .off: return true
      case .verified(let authority):
        demand = LDAP_OPT_X_TLS_DEMAND
        if let authority {
          // Only these: a folder of ldap.conf's would be asked too.
          guard unsafe ldap_set_option(raw, LDAP_OPT_X_TLS_CACERTFILE, authority) == LDAP_OPT_SUCCESS,
            unsafe ldap_set_option(raw, LDAP_OPT_X_TLS_CACERTDIR, nil) == LDAP_OPT_SUCCESS
          else { return false }
        }
      case .unverified: demand = LDAP_OPT_X_TLS_NEVER
      }
      var minimum = LDAPSession.minimumTLS
      var isServer: Int32 = 0
      return unsafe ldap_set_option(raw, LDAP_OPT_X_TLS_REQUIRE_CERT, &demand) == LDAP_OPT_SUCCESS
        && ldap_set_option(raw, LDAP_OPT_X_TLS_PROTOCOL_MIN, &minimum) == LDAP_OPT_SUCCESS
        && ldap_set_option(raw, LDAP_OPT_X_TLS_NEWCTX, &isServer) == LDAP_OPT_SUCCESS
    }

    /// TLS 1.2, as libldap counts: LDAP_OPT_X_TLS_PROTOCOL_TLS1_2.
    private static let minimumTLS: Int32 = 0x303

    /// RFC 4511 §4.14. The extended operation is waited for by ourselves, since libldap's own wait has no bound.
    private func startTLS(_ patience: Patience) -> LDAPFailure? {
      var message: Int32 = 0
      let asked = unsafe ldap_start_tls(raw, nil, nil, &message)
      guard asked == LDAP_SUCCESS else { return failure(asked, patience) }
      switch wait(message, patience) {
      case .failure(let failure): return failure
      case .success(let reply):
        let (code, words) = result(reply)
        guard code == LDAP_SUCCESS else { return .rejected("StartTLS: \(words)") }
      }
      let installed = unsafe ldap_install_tls(raw)
      return installed == LDAP_SUCCESS ? nil : failure(installed, patience)
    }

    // MARK: Asking

    /// RFC 4513 §5.1.3: logs in with a name and its password. The result's code, and the server's words for it.
    ///
    /// An empty password is the caller's to refuse: it would be taken for nobody's login, which succeeds (§5.1.2).
    func bind(_ name: String, _ password: Span<UInt8>, _ patience: Patience) -> Result<LDAPResult, LDAPFailure> {
      precondition(password.count > 0, "an unauthenticated bind")
      var message: Int32 = 0
      let asked = unsafe password.withUnsafeBytes { bytes in
        // SAFETY: libldap copies the password into its request and does not write to it.
        var credentials = unsafe berval(
          bv_len: ber_len_t(bytes.count),
          bv_val: UnsafeMutablePointer(mutating: bytes.baseAddress?.assumingMemoryBound(to: CChar.self)))
        return unsafe ldap_sasl_bind(raw, name, nil, &credentials, nil, nil, &message)
      }
      guard asked == LDAP_SUCCESS else { return .failure(failure(asked, patience)) }
      return wait(message, patience).map { reply in
        let (code, words) = result(reply)
        return LDAPResult(code: Int(code), words: words)
      }
    }

    /// Searches for entries, two at most, and of the first one takes the attributes of the settings.
    func search(base: String, filter: String, _ settings: LDAPSettings, _ patience: Patience) -> Result<
      LDAPResult, LDAPFailure
    > {
      let wanted = [settings.backendAttribute] + [settings.loginAttribute, settings.portAttribute].compactMap { $0 }
      var message: Int32 = 0
      var interval = patience.interval
      let names = CStrings(wanted)
      // SAFETY: libldap copies the base, the filter and the names into its request.
      let asked = unsafe ldap_search_ext(
        raw, base, settings.scope.raw, filter, names.pointer, 0, nil, nil, &interval, LDAPSession.sizeLimit, &message)
      guard asked == LDAP_SUCCESS else { return .failure(failure(asked, patience)) }
      return wait(message, patience).map { reply in
        let (code, words) = result(reply)
        var found = LDAPResult(code: Int(code), words: words)
        found.count = unsafe max(0, Int(ldap_count_entries(raw, reply.raw)))
        found.references = unsafe max(0, Int(ldap_count_references(raw, reply.raw)))
        found.entry = entry(reply, settings)
        return found
      }
    }

    private func entry(_ reply: LDAPReply, _ settings: LDAPSettings) -> LDAPEntry? {
      // SAFETY: the entry is a part of the reply, which outlives it; the name is copied and freed.
      guard let first = unsafe ldap_first_entry(raw, reply.raw), let name = unsafe ldap_get_dn(raw, first) else {
        return nil
      }
      defer { unsafe ldap_memfree(name) }
      func values(_ attribute: String?) -> [[UInt8]] {
        guard let attribute, let values = unsafe ldap_get_values_len(raw, first, attribute) else { return [] }
        defer { unsafe ldap_value_free_len(values) }
        // SAFETY: the list has as many values as libldap counts, each with its length.
        return (0..<Int(unsafe ldap_count_values_len(values))).map { index in
          guard let value = unsafe values[index]?.pointee, let bytes = unsafe value.bv_val else { return [] }
          return unsafe Array(UnsafeRawBufferPointer(start: bytes, count: Int(value.bv_len)))
        }
      }
      var entry = unsafe LDAPEntry(name: String(cString: name))
      entry.backends = values(settings.backendAttribute)
      entry.logins = values(settings.loginAttribute)
      entry.ports = values(settings.portAttribute)
      return entry
    }

    // MARK: Waiting

    /// All of the answer to a question.
    private func wait(_ message: Int32, _ patience: Patience) -> Result<LDAPReply, LDAPFailure> {
      var interval = patience.interval
      var reply: OpaquePointer?
      let kind = unsafe ldap_result(raw, message, LDAP_MSG_ALL, &interval, &reply)
      if kind == 0 { return .failure(.late) }
      guard kind > 0, let reply = unsafe reply else { return .failure(.broken(lastWords)) }
      return .success(unsafe LDAPReply(reply))
    }

    /// The result that ends an answer, with its words: libldap's for the code, and what the server adds.
    private func result(_ reply: LDAPReply) -> (Int32, String) {
      var code = LDAP_OTHER
      var added: UnsafeMutablePointer<CChar>?
      let parsed = unsafe ldap_parse_result(raw, reply.raw, &code, nil, &added, nil, nil, 0)
      defer { unsafe ldap_memfree(added) }
      guard parsed == LDAP_SUCCESS else { return (parsed, LDAPSession.words(parsed)) }
      return (code, LDAPSession.words(code, unsafe added.map { unsafe String(cString: $0) } ?? ""))
    }

    /// Why libldap could not send a question, or make a connection.
    private func failure(_ code: Int32, _ patience: Patience) -> LDAPFailure {
      if code == LDAP_TIMEOUT || patience.isOver { return .late }
      return .broken(code == LDAP_SERVER_DOWN || code == LDAP_CONNECT_ERROR ? lastWords : LDAPSession.words(code))
    }

    /// libldap's words for its last failure, with what GnuTLS adds.
    private var lastWords: String {
      var code = LDAP_OTHER
      var added: UnsafeMutablePointer<CChar>?
      // SAFETY: the options are an int, and a text that is ours to free.
      unsafe ldap_get_option(raw, LDAP_OPT_RESULT_CODE, &code)
      unsafe ldap_get_option(raw, LDAP_OPT_DIAGNOSTIC_MESSAGE, &added)
      defer { unsafe ldap_memfree(added) }
      return LDAPSession.words(code, unsafe added.map { unsafe String(cString: $0) } ?? "")
    }

    /// libldap's words for a code, and what was added to them. For a certificate that is not accepted, libldap on GnuTLS has
    /// no words and says so.
    private static func words(_ code: Int32, _ added: String) -> String {
      let isTLS = added.contains("unknown error code")
      let more = isTLS ? "TLS failed, most likely its certificate is not from an authority that is known here" : added
      return words(code) + (more.isEmpty ? "" : ": \(more)")
    }

    private static func words(_ code: Int32) -> String {
      // SAFETY: the text is a constant of libldap's.
      unsafe String(cString: ldap_err2string(code))
    }

    // MARK: Checking what the operator wrote

    /// Whether it can be a filter. libldap tells when it is about to ask, which needs no server: the place leads nowhere.
    static func isFilter(_ text: String) -> Bool {
      var created: OpaquePointer?
      guard unsafe ldap_initialize(&created, "ldapi://%2f") == LDAP_SUCCESS, let raw = unsafe created else {
        return true
      }
      defer { unsafe ldap_unbind_ext(raw, nil, nil) }
      var message: Int32 = 0
      return unsafe ldap_search_ext(raw, "", LDAP_SCOPE_BASE, text, nil, 0, nil, nil, nil, 1, &message)
        != LDAP_FILTER_ERROR
    }

    /// Whether it can be a distinguished name.
    static func isName(_ text: String) -> Bool {
      var name: LDAPDN?
      guard unsafe ldap_str2dn(text, &name, UInt32(LDAP_DN_FORMAT_LDAPV3)) == LDAP_SUCCESS else { return false }
      unsafe ldap_dnfree(name)
      return true
    }
  }

  /// The messages of an answer, freed with it.
  @safe
  private final class LDAPReply {
    fileprivate let raw: OpaquePointer
    init(_ raw: OpaquePointer) { unsafe self.raw = raw }
    deinit { unsafe ldap_msgfree(raw) }
  }

  /// A list of texts as C has it, for the time of a call.
  @safe
  private final class CStrings {
    fileprivate let pointer: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>
    private let count: Int

    init(_ texts: [String]) {
      count = texts.count
      // SAFETY: one place more than there are texts, for the NULL that ends the list.
      unsafe pointer = .allocate(capacity: texts.count + 1)
      unsafe pointer.initialize(repeating: nil, count: texts.count + 1)
      for (index, text) in texts.enumerated() { unsafe pointer[index] = strdup(text) }
    }

    deinit {
      for index in 0..<count { unsafe free(pointer[index]) }
      unsafe pointer.deallocate()
    }
  }

  extension LDAPSettings.Scope {
    fileprivate var raw: Int32 {
      switch self {
      case .base: LDAP_SCOPE_BASE
      case .one: LDAP_SCOPE_ONELEVEL
      case .sub: LDAP_SCOPE_SUBTREE
      }
    }
  }

#endif

/// Asks PAM whether a password is a user's and whether that user may come in.

#if PAM

  internal import CPAM
  internal import Glibc
  internal import Protocols

  /// Each check begins and ends a transaction of its own: libpam may be used by several threads as long as each has its own
  /// handle (pam(3)). Whether a module may is the module's affair; Debian's own do.
  final class PAMCheck: SourceConnection {
    private let service: String

    init(_ service: String) { self.service = service }

    /// Where services are described, as Debian's libpam looks for them.
    private static let folders = ["/etc/pam.d", "/usr/lib/pam.d", "/usr/share/pam.d"]

    /// The plan, if the service is there: to PAM an unknown one is a service that refuses everybody.
    static func plan(_ settings: PasswordCheckSettings) throws(SettingsErrors) -> SourcePlan {
      let service = settings.service
      func wrong(_ problem: String) -> SettingsErrors {
        SettingsErrors([SettingsError(key: "password-check.pam", problem: problem)])
      }
      guard !service.isEmpty, !service.utf8.contains(.ascii("/")), !service.utf8.contains(where: \.isControl) else {
        throw wrong("expected a service's name, without a folder")
      }
      let isThere = PAMCheck.folders.contains { folder in
        if case .success = TextFile.read("\(folder)/\(service)") { true } else { false }
      }
      guard isThere else { throw wrong("there is no file /etc/pam.d/\(service) that can be read") }
      return SourcePlan(name: "pam \(service)", connections: settings.connections, isPersonal: true) {
        PAMCheck(service)
      }
    }

    /// The time is the modules': once begun, a check can't be ended.
    func answer(_ request: SourceRequest, until deadline: UInt64) -> SourceReply {
      guard case .password(let password) = request.credential else { preconditionFailure("a check without a password") }
      return .answer(password.withSpan { check(request.user, $0, request.facts) })
    }

    private func check(_ user: [UInt8], _ password: Span<UInt8>, _ facts: LoginFacts) -> SourceAnswer {
      // To C both end with their first NUL: what stands behind it would not be checked.
      guard !user.isEmpty, !user.contains(.nul), password.firstIndex(of: .nul) == nil else {
        return .refused(SourceAnswer.Refusal())
      }
      var secret = Secret(password)
      secret.append(.nul)
      return unsafe secret.span.withUnsafeBytes { bytes in
        // SAFETY: the conversation reads the password only while this transaction lasts.
        var conversation = unsafe pam_conv(
          conv: PAMCheck.converse, appdata_ptr: UnsafeMutableRawPointer(mutating: bytes.baseAddress))
        return unsafe ask(String(decoding: user, as: UTF8.self), &conversation, facts)
      }
    }

    private func ask(_ user: String, _ conversation: UnsafePointer<pam_conv>, _ facts: LoginFacts) -> SourceAnswer {
      var created: OpaquePointer?
      let started = unsafe pam_start(service, user, conversation, &created)
      // SAFETY: without a handle libpam's words are still constants.
      guard started == PAM_SUCCESS, let handle = unsafe created else {
        return .failed("PAM can't be asked: \(unsafe String(cString: pam_strerror(nil, started)))")
      }
      var status = PAM_SUCCESS
      defer { unsafe pam_end(handle, status) }
      // SAFETY: the items are texts, which libpam copies.
      if !facts.addresses.clientAddress.isEmpty {
        status = unsafe pam_set_item(handle, PAM_RHOST, facts.addresses.clientAddress)
      }
      // The client waits for a refusal as long as `timeouts.failure-delay` says; a module's own wait would hold a thread.
      if status == PAM_SUCCESS { status = unsafe pam_without_delay(handle) }
      let flags = Int32(bitPattern: PAM_SILENT | PAM_DISALLOW_NULL_AUTHTOK)
      if status == PAM_SUCCESS { status = unsafe pam_authenticate(handle, flags) }
      if status == PAM_SUCCESS { status = unsafe pam_acct_mgmt(handle, flags) }
      switch status {
      case PAM_SUCCESS: return .found(Destination(""))
      case PAM_AUTH_ERR, PAM_USER_UNKNOWN, PAM_MAXTRIES, PAM_ACCT_EXPIRED, PAM_PERM_DENIED, PAM_NEW_AUTHTOK_REQD,
        PAM_AUTHTOK_EXPIRED, PAM_CRED_EXPIRED:
        return .refused(SourceAnswer.Refusal())
      default: return .failed(unsafe String(cString: pam_strerror(handle, status)))
      }
    }

    /// Answers a module's questions: the password to one that is not shown on a screen, nothing to what is only said, and to
    /// anything else there is no answer.
    private static let converse:
      @convention(c) (
        Int32, UnsafeMutablePointer<UnsafePointer<pam_message>?>?,
        UnsafeMutablePointer<UnsafeMutablePointer<pam_response>?>?,
        UnsafeMutableRawPointer?
      ) -> Int32 = { count, messages, place, password in
        guard (1...Int32(PAM_MAX_NUM_MSG)).contains(count), let messages = unsafe messages, let place = unsafe place,
          let password = unsafe password,
          // SAFETY: pam_conv(3): the list is one block of C's allocator, as are the texts in it; the caller frees them.
          let list = unsafe calloc(Int(count), MemoryLayout<pam_response>.size)
        else { return PAM_CONV_ERR }
        let responses = unsafe list.bindMemory(to: pam_response.self, capacity: Int(count))
        for index in 0..<Int(count) {
          switch unsafe messages[index]?.pointee.msg_style {
          case PAM_PROMPT_ECHO_OFF:
            // SAFETY: the password ends with NUL.
            unsafe responses[index].resp = strdup(password.assumingMemoryBound(to: CChar.self))
            guard unsafe responses[index].resp != nil else { return unsafe PAMCheck.abandon(responses, index) }
          case PAM_TEXT_INFO, PAM_ERROR_MSG: continue
          default: return unsafe PAMCheck.abandon(responses, index)
          }
        }
        unsafe place.pointee = responses
        return PAM_SUCCESS
      }

    /// Frees answers that are not given, the passwords among them wiped.
    private static func abandon(_ responses: UnsafeMutablePointer<pam_response>, _ count: Int) -> Int32 {
      for index in 0..<count {
        guard let text = unsafe responses[index].resp else { continue }
        unsafe explicit_bzero(text, strlen(text))
        unsafe free(text)
      }
      unsafe free(responses)
      return PAM_CONV_ERR
    }
  }

#endif

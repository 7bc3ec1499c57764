/// Sends one GET after the other by libcurl and keeps the head of the answer; the only place that calls it.

#if HTTP

  internal import CCurl
  internal import Glibc
  internal import Protocols

  @safe
  final class CurlHandle {
    /// SAFETY: this object's alone; used by the one thread that has the object, and cleaned up when that goes.
    private let raw: UnsafeMutableRawPointer
    private let reply = Reply()
    /// SAFETY: as above; curl writes a C string there while a transfer runs.
    private let words: UnsafeMutablePointer<CChar>

    /// Why there is no answer.
    struct Failure {
      let reason: String
      /// Whether a server was reached.
      let isConnected: Bool
    }

    /// What the callbacks of one transfer fill in.
    private final class Reply {
      var head: [UInt8] = []
      var bodyBytes = 0
      /// Why the transfer is broken off; nil while it is not.
      var excess: String?

      init() { head.reserveCapacity(AuthHTTPAnswer.mostBytes) }
    }

    /// A body is read so that the connection can be used again; a longer one is no answer to a question like this.
    private static let mostBody = 65_536

    /// curl's own set-up must be done once, before any thread uses it.
    private static let isSetUp = curl_global_init(Int(CURL_GLOBAL_DEFAULT)) == CURLE_OK

    /// A handle for that many servers; nil if curl can't be set up. `authority` is a PEM file, nil for the system's.
    init?(authority: String?, connections: Int) {
      guard CurlHandle.isSetUp, let raw = unsafe curl_easy_init() else { return nil }
      unsafe self.raw = unsafe raw
      unsafe words = .allocate(capacity: Int(CURL_ERROR_SIZE))
      unsafe words.initialize(repeating: 0, count: Int(CURL_ERROR_SIZE))
      unsafe _ = proxyd_curl_set_pointer(raw, CURLOPT_ERRORBUFFER, words)
      set(CURLOPT_NOSIGNAL, 1)
      set(CURLOPT_HTTPGET, 1)
      set(CURLOPT_FOLLOWLOCATION, 0)
      set(CURLOPT_PATH_AS_IS, 1)
      set(CURLOPT_MAXCONNECTS, max(1, connections))
      set(CURLOPT_HTTP_VERSION, Int(CURL_HTTP_VERSION_1_1))
      set(CURLOPT_SSLVERSION, Int(CURL_SSLVERSION_TLSv1_2))
      set(CURLOPT_SSL_VERIFYPEER, 1)
      set(CURLOPT_SSL_VERIFYHOST, 2)
      set(CURLOPT_PROTOCOLS_STR, "http,https")
      // No proxy, whatever the environment says.
      set(CURLOPT_PROXY, "")
      if let authority {
        set(CURLOPT_CAINFO, authority)
        // The system's folder would be believed besides.
        set(CURLOPT_CAPATH, nil)
      }
      setCallbacks()
    }

    deinit {
      unsafe curl_easy_cleanup(raw)
      unsafe words.deallocate()
    }

    /// The status of the last answer.
    var status: Int {
      var status = 0
      unsafe _ = proxyd_curl_number(raw, CURLINFO_RESPONSE_CODE, &status)
      return status
    }

    /// Reads the last answer, and wipes it.
    func takeAnswer(password: inout Secret) -> AuthHTTPAnswer {
      var head: [UInt8] = []
      swap(&head, &reply.head)
      defer {
        head.wipe()
        swap(&head, &reply.head)
      }
      return AuthHTTPAnswer.read(head.span, password: &password)
    }

    /// Wipes the last answer, which may hold a password.
    private func forget() {
      reply.head.wipe()
      reply.bodyBytes = 0
      reply.excess = nil
    }

    /// Asks. `lines` are header lines, each with a NUL behind it. Nil if there is an answer, of whatever kind.
    func get(_ address: HTTPAddress, _ lines: borrowing Secret, milliseconds: Int) -> Failure? {
      forget()
      set(CURLOPT_URL, address.url)
      set(CURLOPT_UNIX_SOCKET_PATH, address.socket)
      set(CURLOPT_TIMEOUT_MS, milliseconds)
      set(CURLOPT_CONNECTTIMEOUT_MS, milliseconds)
      guard let list = unsafe CurlHandle.list(lines) else {
        return Failure(reason: "there is no memory for a request", isConnected: true)
      }
      unsafe _ = proxyd_curl_set_pointer(raw, CURLOPT_HTTPHEADER, list)
      let code = unsafe curl_easy_perform(raw)
      unsafe _ = proxyd_curl_set_pointer(raw, CURLOPT_HTTPHEADER, nil)
      unsafe CurlHandle.wipe(list)
      guard code != CURLE_OK else { return nil }
      let excess = reply.excess
      forget()
      return failure(code, excess, milliseconds)
    }

    private func failure(_ code: CURLcode, _ excess: String?, _ milliseconds: Int) -> Failure {
      if let excess { return Failure(reason: excess, isConnected: true) }
      let words = unsafe String(cString: curl_easy_strerror(code))
      switch code {
      case CURLE_COULDNT_CONNECT: return Failure(reason: "it can't be connected to", isConnected: false)
      case CURLE_COULDNT_RESOLVE_HOST: return Failure(reason: "its name can't be resolved", isConnected: false)
      case CURLE_OPERATION_TIMEDOUT:
        return Failure(reason: "it did not answer within \(milliseconds) ms", isConnected: true)
      case CURLE_PEER_FAILED_VERIFICATION:
        let reason = unsafe String(cString: self.words)
        return Failure(reason: "its certificate is not accepted: \(reason)", isConnected: false)
      case CURLE_SSL_CACERT_BADFILE: return Failure(reason: "the file of authorities can't be used", isConnected: false)
      case CURLE_SSL_CONNECT_ERROR: return Failure(reason: "TLS can't be set up with it", isConnected: false)
      case CURLE_GOT_NOTHING, CURLE_RECV_ERROR, CURLE_SEND_ERROR, CURLE_PARTIAL_FILE:
        return Failure(reason: "it closed the connection before its answer was whole", isConnected: true)
      case CURLE_UNSUPPORTED_PROTOCOL, CURLE_WEIRD_SERVER_REPLY:
        return Failure(reason: "what it says is not HTTP", isConnected: true)
      // curl has a hundred codes: the rest in its own words, which quote nothing of a request.
      default: return Failure(reason: words, isConnected: true)
      }
    }

    // MARK: Options

    private func set(_ option: CURLoption, _ number: Int) {
      let code = unsafe proxyd_curl_set_number(raw, option, number)
      precondition(code == CURLE_OK, "curl does not know an option")
    }

    /// curl keeps a copy of the text.
    private func set(_ option: CURLoption, _ text: String?) {
      // SAFETY: the text lives as long as the call.
      let code =
        if let text {
          unsafe text.withCString { unsafe proxyd_curl_set_pointer(raw, option, $0) }
        } else {
          unsafe proxyd_curl_set_pointer(raw, option, nil)
        }
      precondition(code == CURLE_OK, "curl does not know an option")
    }

    private func setCallbacks() {
      // SAFETY: the callbacks run within `curl_easy_perform` only, while this object holds the reply.
      let context = unsafe Unmanaged.passUnretained(reply).toOpaque()
      unsafe _ = proxyd_curl_set_pointer(raw, CURLOPT_HEADERDATA, context)
      unsafe _ = proxyd_curl_set_pointer(raw, CURLOPT_WRITEDATA, context)
      unsafe _ = proxyd_curl_set_write(raw, CURLOPT_HEADERFUNCTION) { bytes, size, count, context in
        guard let bytes = unsafe bytes, let context = unsafe context else { return 0 }
        let reply = unsafe Unmanaged<Reply>.fromOpaque(context).takeUnretainedValue()
        guard reply.head.count + size * count <= AuthHTTPAnswer.mostBytes else {
          reply.excess = "its header lines are longer than \(AuthHTTPAnswer.mostBytes) bytes"
          return 0
        }
        // SAFETY: curl says how many bytes there are.
        let line = unsafe UnsafeRawBufferPointer(start: bytes, count: size * count)
        unsafe reply.head.append(contentsOf: line)
        return size * count
      }
      unsafe _ = proxyd_curl_set_write(raw, CURLOPT_WRITEFUNCTION) { _, size, count, context in
        guard let context = unsafe context else { return 0 }
        let reply = unsafe Unmanaged<Reply>.fromOpaque(context).takeUnretainedValue()
        reply.bodyBytes += size * count
        guard reply.bodyBytes <= CurlHandle.mostBody else {
          reply.excess = "its body is longer than \(CurlHandle.mostBody) bytes"
          return 0
        }
        return size * count
      }
    }

    // MARK: Header lines

    /// curl's list of header lines; the caller wipes it. Nil if there is no memory.
    private static func list(_ lines: borrowing Secret) -> UnsafeMutablePointer<curl_slist>? {
      // No header of curl's own besides Host.
      var list = unsafe curl_slist_append(nil, "Accept:")
      // SAFETY: every line ends with a NUL, so that C reads it within the secret's bytes, which live as long as the call.
      unsafe lines.span.withUnsafeBufferPointer { bytes in
        var start = 0
        for index in bytes.indices where unsafe bytes[index] == .nul {
          guard let whole = unsafe list, let base = bytes.baseAddress else { return }
          let line = unsafe UnsafeRawPointer(base + start).assumingMemoryBound(to: CChar.self)
          // "Name: " without a value stands for no header to curl; "Name;" is one without a value.
          let isEmpty = unsafe index >= 2 && bytes[index - 1] == .space && bytes[index - 2] == .ascii(":")
          var next: UnsafeMutablePointer<curl_slist>?
          if isEmpty {
            let name = unsafe String(decoding: bytes[start..<index - 2], as: UTF8.self)
            unsafe next = curl_slist_append(whole, name + ";")
          } else {
            unsafe next = curl_slist_append(whole, line)
          }
          if unsafe next == nil { unsafe wipe(whole) }
          unsafe list = next
          start = index + 1
        }
      }
      return unsafe list
    }

    /// Overwrites a list's lines, one of which may hold a password, and frees it. (What curl itself copied into its buffer
    /// for sending is out of reach.)
    private static func wipe(_ list: UnsafeMutablePointer<curl_slist>) {
      var node: UnsafeMutablePointer<curl_slist>? = unsafe list
      while let this = unsafe node {
        // SAFETY: each node holds a C string of its own.
        if let text = unsafe this.pointee.data { unsafe explicit_bzero(text, strlen(text)) }
        unsafe node = this.pointee.next
      }
      unsafe curl_slist_free_all(list)
    }
  }

#endif

/// What is remembered of a session for its one line in the log. No secret is among it.

internal import Protocols

struct SessionRecord {
  let id: SessionID
  /// Who connected: the client, or a proxy in front of us.
  let peer: SocketAddress
  /// Who the client is, where a proxy told.
  var origin: SocketAddress?
  /// The name a trusted proxy gave the session, to be the same in every log.
  var givenName: [UInt8] = []
  let listener: Listener
  /// In the loop's nanoseconds.
  let began: UInt64
  /// From the connection to the accepted login.
  var loginTook: UInt64?
  /// How the client last gave its credentials.
  var method: LoginDraft.Method?
  /// The name the client last gave.
  var login: [UInt8] = []
  /// Who logs in for that user; empty if it is the user.
  var authenticator: [UInt8] = []
  /// Whether that name was accepted.
  var isLoggedIn = false
  var backend: String?
  /// The address of it that was last connected to.
  var backendAddress: SocketAddress?
  /// TLS's version with the backend, as `TLSv1.3`: short enough to need no memory of its own.
  var backendTLS: String?
  var attempts = 0
  var lastFailure: LoginFailure.Reason?
  /// Bytes of the relay, as the client sent and received them; TLS is not counted.
  var fromClient: UInt64 = 0
  var toClient: UInt64 = 0
  /// When the relay last carried any, in the loop's nanoseconds.
  var lastByte: UInt64 = 0
  /// What is counted of the backend the login was sent to; nil if it was not, or that is over.
  var meter: BackendMeter?
  /// Who looks at the login.
  var traces: [Trace] = []
  /// What Perdition's lines are made of; nil where they are not logged.
  var trail: PerditionTrail?

  init(id: SessionID, peer: SocketAddress, listener: Listener, began: UInt64) {
    self.id = id
    self.peer = peer
    self.listener = listener
    self.began = began
  }

  /// The session's name, in our log and in the backend's.
  var name: String { givenName.isEmpty ? id.text : String(decoding: givenName, as: UTF8.self) }

  /// The client's address, as far as it is known.
  var client: SocketAddress { origin ?? peer }

  /// The fields by which an event is told to be this session's.
  func addIdentity(to line: inout LogLine) {
    line.add("session", name)
    line.add("protocol", listener.mailProtocol.rawValue)
    line.add("peer", client.description)
    if origin != nil { line.add("via", peer.description) }
    line.add("listener", listener.address.description)
  }

  /// Where the login was sent, as far as it came.
  func addBackend(to line: inout LogLine) {
    if let backend { line.add("backend", backend) }
    if let backendAddress { line.add("address", backendAddress.description) }
  }

  /// The session's line. `tls` is asked of the connection at its end: kept here, its words would cost an idle session
  /// their memory.
  func add(to line: inout LogLine, _ end: SessionEnd, doing: String, tls: TLSFacts?, at now: UInt64) {
    addIdentity(to: &line)
    line.add("tls", tls?.version ?? "none")
    if let tls {
      line.add("cipher", tls.cipher)
      if tls.isResumed { line.add("resumed", "yes") }
      if let name = tls.serverName { line.add("sni", name) }
      if let subject = tls.peerSubject { line.add("certificate", subject) }
    }
    if let method { line.add("method", method.word) }
    if !login.isEmpty { line.add("login", login) }
    if !authenticator.isEmpty { line.add("authenticated", authenticator) }
    addBackend(to: &line)
    if let backendTLS { line.add("backend_tls", backendTLS) }
    line.add("attempts", attempts)
    if let lastFailure, !isLoggedIn { line.add("failure", lastFailure.rawValue) }
    line.add("in", fromClient)
    line.add("out", toClient)
    if let loginTook { line.add("login_ms", loginTook / 1_000_000) }
    line.add("duration_ms", (now - began) / 1_000_000)
    line.add("end", end.reason.rawValue)
    line.add("blame", end.reason.blame.rawValue)
    line.add("doing", doing)
    if let detail = end.detail { line.add("detail", detail) }
  }
}

extension LoginDraft.Method {
  /// As the log has it.
  var word: String {
    switch self {
    case .command: "command"
    case .sasl(let mechanism): mechanism.rawValue
    }
  }
}

/// A session's name in the log: unique for as long as the logs are kept.
struct SessionID: Equatable, Sendable {
  /// 32 bits of seconds since 1970, 8 of the loop's number, 24 of a count.
  private let raw: UInt64

  init(second: Int, loop: Int, count: Int) {
    raw = UInt64(UInt32(truncatingIfNeeded: second)) << 32 | UInt64(loop & 0xFF) << 24 | UInt64(count & 0xFF_FFFF)
  }

  /// Thirteen letters and digits of Crockford's base 32, in the order of time.
  var text: String {
    unsafe String(unsafeUninitializedCapacity: 13) { buffer in
      for position in 0..<13 {
        let shift = UInt64(60 - 5 * position)
        unsafe buffer[position] = SessionID.digits[Int(raw >> shift & 0x1F)]
      }
      return 13
    }
  }

  private static let digits = Array("0123456789abcdefghjkmnpqrstvwxyz".utf8)
}

/// Where a session stands. A phase owns resources; what was said is the dialogues' business.

internal import Protocols

enum SessionPhase: ~Copyable {
  /// The conversation with the client, up to a login and after a refused one.
  case client(PreLogin)
  /// Waiting for the route: a locked map, a name being resolved, or the pause before a refusal.
  case waiting(PreLogin, Wait)
  /// Connecting to a backend that has several addresses, or that we speak first to.
  case connecting(Connecting)
  /// Logging in at a backend, and connecting to it if all that is awaited is its greeting.
  case backend(BackendLogin)
  case relay(Relay)
  /// The last words are said: waiting for the client to take them.
  case closing(Closing)
  case ended

  /// What it is doing, for people and the log.
  var doing: String {
    switch self {
    case .client(let login): login.stage.doing
    case .waiting(_, let wait): wait.doing
    case .connecting: "connecting to the backend"
    case .backend(let login): login.doing
    case .relay: "relaying"
    case .closing: Closing.doing
    case .ended: "nothing"
    }
  }

  /// The login and its search, if it waits for a source's answer to that search.
  func searching(_ number: Int) -> (PreLogin, RouteSearch)? {
    switch self {
    case .waiting(let login, let wait): wait.search(number).map { (login, $0) }
    case .client: nil
    case .connecting: nil
    case .backend: nil
    case .relay: nil
    case .closing: nil
    case .ended: nil
    }
  }

  /// The login and its route, if it waits for the addresses of that name.
  func resolving(_ name: String) -> (PreLogin, PlacedRoute)? {
    switch self {
    case .waiting(let login, let wait): wait.route(to: name).map { (login, $0) }
    case .client: nil
    case .connecting: nil
    case .backend: nil
    case .relay: nil
    case .closing: nil
    case .ended: nil
    }
  }

  /// The login and its route, if it waits for a place, or has one where the client's password was not said yet.
  func placing() -> (PreLogin, Route)? {
    switch self {
    case .waiting(let login, let wait): wait.route.map { (login, $0) }
    case .connecting(let connecting): (connecting.login, connecting.route.route)
    case .backend(let backend): backend.isCommitted ? nil : (backend.login, backend.route.route)
    case .client: nil
    case .relay: nil
    case .closing: nil
    case .ended: nil
    }
  }

  /// Whether several connections may be under way.
  var isConnecting: Bool {
    switch self {
    case .connecting: true
    case .client: false
    case .waiting: false
    case .backend: false
    case .relay: false
    case .closing: false
    case .ended: false
    }
  }

  /// Whether the client waits for somebody else's word.
  var isAwayFromClient: Bool {
    // A case a line: the compiler does not match several of a type that can't be copied.
    switch self {
    case .waiting: true
    case .connecting: true
    case .backend(let backend): backend.stage != .client
    case .client: false
    case .relay: false
    case .closing: false
    case .ended: false
    }
  }
}

/// What a session in `SessionPhase.waiting` waits for.
enum Wait {
  /// The time to tell a refusal.
  case refusal(LoginRefusal, at: UInt64)
  /// The name of the address the client connected to.
  case addressName(until: UInt64)
  /// A source's answer.
  case source(RouteSearch, until: UInt64)
  /// The time a source wants to be asked again: a map that a writer holds, a service that asks for patience.
  case pause(RouteSearch, until: UInt64)
  /// A place in a pool: the directory's word, the end of the user's sessions elsewhere, a turn at a gate.
  case place(Route, until: UInt64)
  /// A backend's addresses.
  case resolver(PlacedRoute, until: UInt64)

  var doing: String {
    switch self {
    case .refusal: "delaying a refusal"
    case .addressName: "looking up the local address's name"
    case .source: "looking up the backend"
    case .pause: "waiting to ask for the backend again"
    case .place: "waiting for a place at a backend"
    case .resolver: "resolving the backend's name"
    }
  }

  /// The search of that number, if its source's answer is waited for.
  fileprivate func search(_ number: Int) -> RouteSearch? {
    switch self {
    case .source(let search, _): search.number == number ? search : nil
    case .refusal, .addressName, .pause, .place, .resolver: nil
    }
  }

  /// The route, if it is to that name, whose addresses are waited for.
  fileprivate func route(to name: String) -> PlacedRoute? {
    switch self {
    case .resolver(let route, _): route.backend.host == .name(name) ? route : nil
    case .refusal, .addressName, .source, .pause, .place: nil
    }
  }

  /// The route, if it is known.
  fileprivate var route: Route? {
    switch self {
    case .place(let route, _): route
    case .resolver(let route, _): route.route
    case .refusal, .addressName, .source, .pause: nil
    }
  }

  /// When it has to be looked at again.
  var deadline: UInt64 {
    switch self {
    case .refusal(_, let time): time
    case .addressName(let until), .source(_, let until), .pause(_, let until), .place(_, let until),
      .resolver(_, let until):
      until
    }
  }
}

/// A session before its login is accepted: what the relay has no use for, and is freed then.
final class PreLogin {
  var dialogue: ClientDialogue
  var draft = LoginDraft()
  /// Bytes of the client's not consumed yet.
  var input = ByteQueue()
  /// What was said and not taken yet.
  var output = ByteQueue()
  var stage: Stage
  /// What a PROXY header said of the connection.
  var header = ProxyHeader()
  /// The handshake waits for the socket to take more.
  var handshakeWrites = false
  /// The name of the address the client connected to; nil if it is not known, or there is none.
  var addressName: [UInt8]?
  /// Referrals followed since the login was asked for.
  var referrals = 0
  var clock = LoginClock()
  /// When the whole login must be over, in the loop's nanoseconds.
  let deadline: UInt64

  enum Stage {
    /// A PROXY header is awaited.
    case header
    /// The TLS handshake, from the first byte or after STARTTLS.
    case handshake
    case commands
    /// The answer to STARTTLS is on its way.
    case upgrading

    var doing: String {
      switch self {
      case .header: "waiting for a PROXY header"
      case .handshake: "TLS handshake with the client"
      case .commands: "waiting for a command"
      case .upgrading: "answering STARTTLS"
      }
    }
  }

  init(_ listener: Listener, deadline: UInt64) {
    dialogue = ClientDialogue(listener.mailProtocol, listener.terms)
    stage = listener.proxyNetworks == nil ? PreLogin.start(listener) : .header
    self.deadline = deadline
  }

  /// How a connection begins once it is known whose it is.
  static func start(_ listener: Listener) -> Stage { listener.terms.policy == .implicit ? .handshake : .commands }
}

/// A session whose last words are said.
///
/// Closing at once would lose them: bytes of the client's still unread make the kernel answer with a reset, and a reset
/// makes the client's kernel throw away what it has not read.
struct Closing: ~Copyable {
  var output: ByteQueue
  let end: SessionEnd
  var isShutDown = false
  /// Bytes read and thrown away.
  var discarded = 0
  /// The client is not told before: its backend is lost with all that were there, and not all shall come back at once.
  /// Nothing is left to be said then.
  var holds: UInt64 = 0

  var deadline: UInt64

  init(_ login: PreLogin, _ end: SessionEnd, at now: UInt64) {
    output = exchange(&login.output, with: ByteQueue())
    self.end = end
    deadline = now + Closing.patience
  }

  /// A relay whose end is kept from the client for a while.
  init(_ end: SessionEnd, holds: UInt64) {
    output = ByteQueue()
    self.end = end
    self.holds = holds
    deadline = holds
  }

  static let doing = "saying goodbye"
  /// How long a client may take to read the last words.
  private static let patience = Timeouts.seconds(5)
  /// What a client may still send meanwhile.
  static let mostDiscarded = 1 << 20
}

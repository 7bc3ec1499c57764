/// A login on its way through a backend: the connection there, and the dialogue on it.

internal import Protocols

struct BackendLogin: ~Copyable {
  let login: PreLogin
  let route: PlacedRoute
  var transport: Transport
  var dialogue: BackendDialogue
  /// Bytes of the backend's not consumed yet.
  var input = ByteQueue()
  /// What was said and not taken yet; it may hold the password.
  var output = ByteQueue()
  /// Addresses not tried yet.
  let others: ArraySlice<SocketAddress>
  /// Whether there is another address, or another member of the pool.
  private let hasOthers: Bool
  var stage: Stage
  /// The dialogue, for whoever looks at it; nil if nobody does.
  var trace: TracedDialogue?
  /// Whether the client's credentials may have been said: no other address is tried then, a password is guessed once.
  private(set) var isCommitted = false
  /// When the backend must have answered.
  let deadline: UInt64
  /// When the connection must stand.
  let connectDeadline: UInt64

  enum Stage: Equatable {
    /// Nothing is known of the connection; the greeting will tell that it stands.
    case connecting
    /// The PROXY header is on its way, before everything else.
    case preamble
    /// TLS, from the first byte or after STARTTLS. It may wait for the socket to take more.
    case handshake(Handshake, writes: Bool)
    case dialogue
    /// The backend's challenge was passed on, and the client's answer is awaited.
    case client
  }

  enum Handshake: Equatable { case implicit, startTLS }

  init(
    _ login: PreLogin, _ route: PlacedRoute, _ dialogue: BackendDialogue, _ transport: consuming Transport,
    stage: Stage,
    others: ArraySlice<SocketAddress>, hasOthers: Bool, deadline: UInt64, connectDeadline: UInt64
  ) {
    self.login = login
    self.route = route
    self.transport = transport
    self.dialogue = dialogue
    self.stage = stage
    self.others = others
    self.hasOthers = hasOthers
    self.deadline = deadline
    self.connectDeadline = connectDeadline
  }

  var doing: String {
    switch stage {
    case .connecting, .preamble: "connecting to the backend"
    case .handshake: "TLS handshake with the backend"
    case .dialogue: dialogue.doing.rawValue
    case .client: BackendDoing.client.rawValue
    }
  }

  /// The dialogue has said something: what it waits for now tells whether that was the login.
  mutating func noteCommitment() {
    switch dialogue.doing {
    case .greeting, .startTLS, .capability: break
    case .answer, .client: isCommitted = true
    }
  }

  /// When it is given up. An address has the time for a connection up to the login, as long as there is another: one that
  /// accepts and says nothing would else keep the others from their turn.
  var patience: UInt64 {
    stage == .connecting || !isCommitted && hasOthers ? connectDeadline : deadline
  }

  /// What the backend's descriptor is to be watched for.
  var interest: PollSet.Interest {
    switch stage {
    case .connecting, .dialogue, .client: PollSet.Interest(reads: true, writes: !output.isEmpty)
    case .preamble: PollSet.Interest(reads: false, writes: true)
    case .handshake(_, let writes): PollSet.Interest(reads: !writes, writes: writes)
    }
  }

  /// Lets the dialogue read one line after the other; returns how much it used up and leaves its last word in `action`.
  mutating func listen(_ bytes: Span<UInt8>, _ reply: inout [UInt8], _ action: inout BackendAction) -> Int {
    var consumed = 0
    while consumed < bytes.count {
      let step = dialogue.receive(bytes.extracting(consumed...), login.draft, &reply)
      trace?.hear(bytes.extracting(consumed..<consumed + step.consumed))
      consumed += step.consumed
      action = step.action
      // A dialogue that gave up waits for nothing, and has said nothing with its last step.
      if case .failed = step.action { break }
      noteCommitment()
      guard step.action == .proceed else { break }
    }
    return consumed
  }

  /// The same with what is kept in `input`.
  mutating func listenAgain(_ reply: inout [UInt8], _ action: inout BackendAction) {
    let kept = exchange(&input, with: ByteQueue())
    let consumed = listen(kept.span, &reply, &action)
    input.append(kept.span.extracting(consumed...))
  }

  /// Writes; what does not go is kept.
  mutating func say(_ bytes: Span<UInt8>) -> IOFailure? {
    var written = 0
    if output.isEmpty, bytes.count > 0 {
      let result = transport.write(bytes)
      written = result.written
      if case .failed(let failure)? = result.stop { return failure }
    }
    output.append(bytes.extracting(written...))
    return nil
  }

  /// Writes what was kept.
  mutating func flush() -> IOFailure? {
    let kept = exchange(&output, with: ByteQueue())
    return say(kept.span)
  }

  /// Moves what the backend said and nobody read to `queue`; returns how much.
  borrowing func copyInput(to queue: inout ByteQueue) -> Int {
    queue.append(input.span)
    return input.count
  }

  /// Gives the connection out; all else goes.
  consuming func releaseTransport() -> Transport { transport }
}

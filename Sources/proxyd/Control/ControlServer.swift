/// Serves the control socket: a thread that accepts, and one for each client. No loop ever waits for any of it.

internal import Dispatch
internal import Logging
internal import ProxyCore

// A build for ThreadSanitizer has a Mutex of ProxyCore's.
#if !PROXYD_TSAN
  internal import struct Synchronization.Mutex
#endif

final class ControlServer: Sendable {
  private let listener: UnixListener
  private let desk: ControlDesk
  private let log: Log
  private let patience: Patience
  private let clients = Mutex<[ObjectIdentifier: UnixStream]>([:])
  /// Entered by each client's thread.
  private let served = DispatchGroup()

  /// Clients at once.
  static let mostClients = 32

  /// How long clients are waited for, in nanoseconds.
  struct Patience: Sendable {
    /// A request that has begun must be whole within this time.
    var request = Timeouts.seconds(10)
    /// A client may say nothing for so long between two requests.
    var idle = Timeouts.seconds(300)
    /// A client must take a part of an answer within this time.
    var answer = Timeouts.seconds(10)
  }

  /// Nobody is served before `start`.
  init(_ listener: UnixListener, _ actions: any ControlActions, log: Log, patience: Patience = Patience()) {
    self.listener = listener
    self.patience = patience
    desk = ControlDesk(actions: actions)
    self.log = log
  }

  /// Begins to serve; returns why it can't.
  func start() -> SystemError? { WorkerThread.start { self.serve() } }

  /// Ends it: nobody can connect any more, and who is connected is let go, after the answer that is under way.
  func stop() {
    listener.close()
    let streams = clients.withLock { Array($0.values) }
    for stream in streams { stream.shutdownRead() }
    _ = served.wait(timeout: .now() + ControlServer.lastPatience)
    for stream in streams { stream.shutdown() }
  }

  /// For answers that are under way at the end.
  private static let lastPatience = DispatchTimeInterval.seconds(1)

  private func serve() {
    while let stream = listener.accept() {
      let isWelcome = clients.withLock { clients in
        guard clients.count < ControlServer.mostClients else { return false }
        clients[ObjectIdentifier(stream)] = stream
        return true
      }
      guard isWelcome else {
        let problem = ControlProblem(.busy, "\(ControlServer.mostClients) clients are connected, and no more may be")
        // What fits in a socket's buffer goes at once; nobody is waited for.
        _ = stream.write(AnswerWriter().error(problem), within: 0)
        continue
      }
      served.enter()
      if let error = WorkerThread.start({ self.serve(stream) }) {
        log.logger.warning("no thread for a client of the control socket", metadata: ["reason": "\(error)"])
        leave(stream)
      }
    }
  }

  private func leave(_ stream: UnixStream) {
    clients.withLock { $0[ObjectIdentifier(stream)] = nil }
    served.leave()
  }

  private func serve(_ stream: UnixStream) {
    defer { leave(stream) }
    let talk = ControlTalk(stream, patience: patience.answer)
    var lines = UnixLines(stream, longest: ControlRequest.longestLine)
    while true {
      switch lines.next(within: patience.request, idle: patience.idle) {
      case .line(let line):
        guard answer(line, talk, stream.peer) else { return }
      case .tooLong:
        let problem = ControlProblem(.tooLong, "a request has \(ControlRequest.longestLine) bytes at most")
        _ = talk.end(problem)
        return
      case .late, .closed: return
      }
    }
  }

  /// Answers a request; false if nobody takes the answer.
  private func answer(_ line: [UInt8], _ talk: ControlTalk, _ peer: PeerProcess?) -> Bool {
    var request: ControlRequest?
    do throws(ControlProblem) {
      let known = try ControlRequest(line)
      request = known
      if known.command == .trace { tell(known, peer, "begun") }
      let closing = try desk.perform(known, talk)
      if known.command != .trace { tell(known, peer, closing.words) }
      return talk.end(closing)
    } catch {
      if let request { tell(request, peer, error.code.rawValue) }
      return talk.end(error)
    }
  }

  /// One line for what changes something.
  private func tell(_ request: ControlRequest, _ peer: PeerProcess?, _ result: String) {
    guard request.command.changes(request) else { return }
    log.line(.notice, "control") { line in
      line.add("command", request.command.rawValue)
      for (name, value) in request.words { line.add(name, value) }
      line.add("uid", peer.map { String($0.user) } ?? "unknown")
      line.add("pid", peer.map { String($0.process) } ?? "unknown")
      line.add("result", result)
    }
  }
}

/// One client's side of it: gathers what is said, and notices when nobody listens.
private final class ControlTalk: AnswerSink {
  private let stream: UnixStream
  private let writer = AnswerWriter()
  /// For a part of an answer to be taken, in nanoseconds.
  private let patience: UInt64
  private var waiting: [UInt8] = []
  private var isBroken = false

  /// Rows are gathered to so many bytes before they are written.
  private static let portion = 32 << 10

  init(_ stream: UnixStream, patience: UInt64) {
    self.stream = stream
    self.patience = patience
  }

  var isClosed: Bool { isBroken || stream.isClosed }

  func row(_ value: some Codable) -> Bool {
    waiting += writer.row(value)
    return waiting.count < ControlTalk.portion || flush()
  }

  func flush() -> Bool {
    guard !isBroken else { return false }
    if !waiting.isEmpty, !stream.write(waiting, within: patience) { isBroken = true }
    waiting.removeAll(keepingCapacity: true)
    return !isBroken
  }

  func end(_ closing: AnswerEnd) -> Bool {
    switch closing {
    case .count(let count): waiting += writer.done(ToldCount(count: count))
    case .bounds(let count):
      let bounds = Histogram.bounds.map { Int($0 / 1_000) }
      waiting += writer.done(ToldBounds(count: count, bounds: bounds))
    case .status(let status): waiting += writer.done(status)
    case .setting(let setting): waiting += writer.done(setting)
    case .level(let level): waiting += writer.done(ToldLevel(level: level.rawValue))
    }
    return flush()
  }

  func end(_ problem: ControlProblem) -> Bool {
    waiting += writer.error(problem)
    return flush()
  }
}

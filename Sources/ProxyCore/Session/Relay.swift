/// Carries bytes both ways after the login, and looks at none of them.
///
/// Nothing is held while nothing flows: what is read into the loop's scratch is written at once, and only a tail that the
/// other side does not take is kept. While there is one, its source is not read: a client that stops reading costs one
/// tail and no more.

internal import Protocols

struct Relay: ~Copyable {
  var backend: Transport
  /// The client's bytes on their way to the backend.
  var up: Flow
  /// The backend's bytes on their way to the client.
  var down: Flow
  /// Who ended its direction first; who did is why the session ends.
  private var first: Session.Side?

  init(_ backend: consuming Transport) {
    self.backend = backend
    up = Flow()
    down = Flow()
  }

  /// One direction.
  struct Flow: ~Copyable {
    /// What the sink did not take.
    var queue = ByteQueue()
    var state = State.open
    /// TLS wants the sink readable before it can be written to.
    var writeNeedsRead = false
    /// TLS wants the source writable before it can be read from.
    var readNeedsWrite = false
    /// Bytes taken from the source.
    var count: UInt64 = 0
    /// Whether the last of them ended a line. Nothing more is known of what is relayed, and it is enough to tell that a
    /// last word of ours would not stand in the middle of one of the backend's.
    var endsLine = true
    /// Whether the session is asked before the sink is told that the source has ended.
    var keepsEnd = false

    enum State: Equatable {
      case open
      /// The source ended; the queue is still to be written.
      case draining
      /// The sink was told the end, or takes nothing any more.
      case ended
    }

    /// Whether the source may be read from.
    var isReading: Bool { state == .open && queue.isEmpty }

    /// The sink takes nothing any more.
    mutating func stop() {
      queue.removeAll()
      state = .ended
    }
  }

  /// One side has ended its direction.
  var isHalfClosed: Bool { up.state != .open || down.state != .open }

  /// Remembers who ended first.
  mutating func noteEnds() {
    guard first == nil else { return }
    if down.state != .open { first = .backend } else if up.state != .open { first = .client }
  }

  /// Whether a last word may be said to the client.
  var takesFarewell: Bool { down.state == .open && down.queue.isEmpty && down.endsLine }

  /// Why the session is over; nil if it is not.
  var end: SessionEnd? {
    guard up.state == .ended, down.state == .ended else { return nil }
    return SessionEnd(first == .client ? .clientClosed : .backendClosed)
  }

  /// What the client's descriptor is to be watched for.
  var clientInterest: PollSet.Interest {
    PollSet.Interest(
      reads: up.isReading || down.writeNeedsRead,
      writes: !down.queue.isEmpty && !down.writeNeedsRead || up.readNeedsWrite)
  }

  /// What the backend's descriptor is to be watched for.
  var backendInterest: PollSet.Interest {
    PollSet.Interest(
      reads: down.isReading || up.writeNeedsRead, writes: !up.queue.isEmpty && !up.writeNeedsRead || down.readNeedsWrite
    )
  }

  /// What came of moving bytes one way.
  enum Moved: Equatable {
    case idle
    /// There is more, but the others shall have their turn.
    case more
    /// The source has ended, all it said is written, and the sink does not know yet.
    case sourceEnded
    case sourceFailed(IOFailure)
    case sinkFailed(IOFailure)
  }

  /// Reads of one session in one turn: with four records each, a megabyte before the others have theirs.
  static let mostReads = 16

  /// Moves what there is from `source` to `sink`.
  static func move(
    _ flow: inout Flow, from source: inout Transport, to sink: inout Transport, _ scratch: inout Scratch
  ) -> Moved {
    flow.writeNeedsRead = false
    flow.readNeedsWrite = false
    for _ in 0..<mostReads {
      if !flow.queue.isEmpty {
        let (written, stop) = sink.write(flow.queue.span)
        flow.queue.removeFirst(written)
        if let stop { return stopped(stop, &flow) }
      }
      switch flow.state {
      case .open: break
      case .draining where flow.keepsEnd: return .sourceEnded
      case .draining:
        sink.shutdownWrite()
        flow.state = .ended
        return .idle
      case .ended: return .idle
      }
      switch source.read(into: &scratch) {
      case .bytes(let count):
        flow.count += UInt64(count)
        flow.endsLine = scratch.span(count)[count - 1] == .lineFeed
        let (written, stop) = sink.write(scratch.span(count))
        if written < count { flow.queue.append(scratch.span(count).extracting(written...)) }
        if let stop { return stopped(stop, &flow) }
        // A short read says that the socket is empty: one system call saved. TLS has to be asked.
        if count < scratch.size, !source.hasPending { return .idle }
      case .blocked(.readable): return .idle
      case .blocked(.writable):
        flow.readNeedsWrite = true
        return .idle
      case .closed: flow.state = .draining
      case .failed(let failure): return .sourceFailed(failure)
      }
    }
    return .more
  }

  private static func stopped(_ stop: IOResult, _ flow: inout Flow) -> Moved {
    switch stop {
    case .blocked(.writable): return .idle
    case .blocked(.readable):
      flow.writeNeedsRead = true
      return .idle
    case .failed(let failure): return .sinkFailed(failure)
    case .closed: return .sinkFailed(.tls(TLSFailure(reason: "closed")))
    case .bytes: preconditionFailure("a write that moved bytes did not stop")
    }
  }
}

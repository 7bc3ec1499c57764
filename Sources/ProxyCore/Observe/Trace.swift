/// Shows an operator how one user's logins go, while somebody looks: bounded, and without secrets.
///
/// A session asks once a login whether anybody looks, by one relaxed load; only if so it keeps who does, and tells them.

package import Dispatch
internal import Protocols
internal import Synchronization

/// Something that happened to a traced login.
package struct TraceEvent: Equatable, Sendable {
  /// When, as logs have it.
  package let time: String
  /// The session's name in the log.
  package let session: String
  /// What kind of thing.
  package let kind: Kind
  /// What, in one line that any terminal can show.
  package let text: String

  /// The raw value is what is shown.
  package enum Kind: String, Equatable, Sendable, CaseIterable {
    /// The client has given its credentials.
    case login
    /// What the sources answered.
    case lookup
    /// The member of the pool, and why that one.
    case place
    case connect
    /// TLS with the backend.
    case tls
    /// What the backend says.
    case backend
    /// What is said to the backend.
    case proxyd
    case verdict
    case end
    /// Events that were too many.
    case lost
  }
}

/// How much somebody may be shown.
package struct TraceBounds: Equatable, Sendable {
  /// How long, in nanoseconds.
  package var time = Timeouts.seconds(300)
  /// Lines in all.
  package var lines = 10_000

  /// What is usual.
  package init() {}

  /// No trace is longer.
  package static let longest = Timeouts.seconds(3_600)
  /// No trace has more lines.
  package static let mostLines = 100_000
  /// Lines within a second; what is beyond is counted and left out.
  static let linesPerSecond = 200
  /// Lines that wait to be read.
  static let mostWaiting = 1_000
}

/// Somebody who looks at a user's logins.
package final class Trace: Sendable {
  private let pattern: NamePattern
  private let arrived = DispatchSemaphore(value: 0)
  private let state: Mutex<State>
  /// When it is over, by the monotonic clock.
  private let end: UInt64

  private struct State {
    var waiting: [TraceEvent] = []
    var left: Int
    /// The second under way, and its lines.
    var second: UInt64 = 0
    var count = 0
    /// Events left out since the last that was not, and the last of them.
    var lost = 0
    var lastLost: TraceEvent?

    /// Tells how many were left out, as of that event.
    mutating func tellLost(_ event: TraceEvent) {
      let text = "\(lost) lines were too many"
      waiting.append(TraceEvent(time: event.time, session: event.session, kind: .lost, text: text))
      (lost, lastLost) = (0, nil)
    }
  }

  fileprivate init(_ pattern: NamePattern, _ bounds: TraceBounds) {
    self.pattern = pattern
    state = Mutex(State(left: min(bounds.lines, TraceBounds.mostLines)))
    end = Clock.monotonic.now + min(bounds.time, TraceBounds.longest)
  }

  fileprivate func wants(_ name: [UInt8]) -> Bool { pattern.matches(name) }

  /// Nobody looks any more: sessions that know of it still tell it nothing.
  fileprivate func close() {
    state.withLock { state in
      state.left = 0
      state.waiting = []
    }
  }

  /// Takes an event, if the bounds allow.
  fileprivate func put(_ event: TraceEvent) {
    let now = Clock.monotonic.now
    let second = now / 1_000_000_000
    state.withLock { state in
      guard state.left > 0, now < end else { return }
      if state.second != second { (state.second, state.count) = (second, 0) }
      guard state.count < TraceBounds.linesPerSecond, state.waiting.count < TraceBounds.mostWaiting else {
        state.lost += 1
        state.lastLost = event
        return
      }
      if state.lost > 0 { state.tellLost(event) }
      state.count += 1
      state.left -= 1
      state.waiting.append(event)
    }
    arrived.signal()
  }

  /// What came, after at most that time; nil once the trace is over and all was taken.
  package func next(within time: DispatchTimeInterval) -> [TraceEvent]? {
    _ = arrived.wait(timeout: .now() + time)
    let now = Clock.monotonic.now
    let (events, left) = state.withLock { state in
      // Maybe no other event comes that would tell it.
      if let event = state.lastLost, state.second != now / 1_000_000_000 || now >= end { state.tellLost(event) }
      defer { state.waiting = [] }
      return (state.waiting, state.left)
    }
    return events.isEmpty && (left == 0 || now >= end) ? nil : events
  }
}

/// All who look.
package final class Traces: Sendable {
  private let count = Atomic<Int>(0)
  private let traces = Mutex<[Trace]>([])

  /// As many may look at once.
  package static let most = 4

  /// Nobody looks.
  package init() {}

  /// Begins to look at a user's logins, by a name or a pattern as the log has it or the client says it. Nil if as many look
  /// already as may.
  package func begin(_ user: String, _ bounds: TraceBounds) -> Trace? {
    let trace = Trace(NamePattern(user), bounds)
    return traces.withLock { traces in
      guard traces.count < Traces.most else { return nil }
      traces.append(trace)
      count.store(traces.count, ordering: .relaxed)
      return trace
    }
  }

  /// Nobody looks there any more.
  package func end(_ trace: Trace) {
    trace.close()
    traces.withLock { traces in
      traces.removeAll { $0 === trace }
      count.store(traces.count, ordering: .relaxed)
    }
  }

  /// Whether anybody looks at all.
  var isOn: Bool { count.load(ordering: .relaxed) > 0 }

  /// Who looks at a user of one of these names.
  func watching(_ names: [[UInt8]]) -> [Trace] {
    traces.withLock { $0.filter { trace in names.contains { trace.wants($0) } } }
  }
}

extension [Trace] {
  /// Tells all of them.
  func tell(_ kind: TraceEvent.Kind, _ text: String, session: String) {
    let event = TraceEvent(time: WallTime.now().text, session: session, kind: kind, text: text)
    for trace in self { trace.put(event) }
  }
}

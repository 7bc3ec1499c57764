/// Takes finished lines from all loops and writes them from a thread of its own, so that a full disk or a stuck reader
/// never holds up a session.

internal import CLinux
internal import Dispatch
internal import Glibc
package import Logging
internal import Protocols
internal import Synchronization

package final class LogWriter: Sendable {
  private let state: Mutex<State>
  private let queue = DispatchQueue(label: "proxyd.log")

  private struct State: ~Copyable {
    var lines: [Line] = []
    var size = 0
    /// Lines that found no room, or that could not be written.
    var dropped = 0
    var isScheduled = false
    var sink: Sink
  }

  private struct Line: Sendable {
    let level: Logger.Level
    let bytes: [UInt8]
  }

  /// What waits to be written is bounded; lines beyond are dropped and counted. A line has about 300 bytes.
  private static let mostBytes = 4 << 20
  /// Lines are gathered this long before they are written together; a warning goes at once.
  private static let gather = DispatchTimeInterval.milliseconds(50)

  package init(_ destination: LogSettings.Destination) throws(SystemError) {
    state = Mutex(State(sink: try Sink(destination)))
  }

  /// Writes to another place from here on, or opens the same file anew.
  package func redirect(_ destination: LogSettings.Destination) throws(SystemError) {
    flush()
    let sink = try Sink(destination)
    state.withLock { $0.sink = sink }
  }

  package func write(_ bytes: [UInt8], level: Logger.Level) {
    let delay: DispatchTimeInterval? = state.withLock { state in
      guard state.size + bytes.count <= LogWriter.mostBytes else {
        state.dropped += 1
        return nil
      }
      state.lines.append(Line(level: level, bytes: bytes))
      state.size += bytes.count
      let isUrgent = level >= .warning
      guard isUrgent || !state.isScheduled else { return nil }
      state.isScheduled = true
      return isUrgent ? .never : LogWriter.gather
    }
    switch delay {
    case nil: return
    case .never?: queue.async { @Sendable in self.drain() }
    case let delay?: queue.asyncAfter(deadline: .now() + delay) { @Sendable in self.drain() }
    }
  }

  /// Writes all there is before it returns.
  package func flush() { queue.sync { drain() } }

  private func drain() {
    let (lines, dropped, sink) = state.withLock { state in
      let taken = (state.lines, state.dropped, state.sink)
      state.lines = []
      state.size = 0
      state.dropped = 0
      state.isScheduled = false
      return taken
    }
    var lost = dropped
    switch sink.kind {
    case .stream:
      var text: [UInt8] = []
      for line in lines { text.append(contentsOf: line.bytes) }
      if !sink.write(text) { lost += lines.count }
    case .datagrams: for line in lines where !sink.write(line.bytes) { lost += 1 }
    case .syslog: for line in lines { sink.log(line.bytes, severity: line.level.syslogSeverity) }
    }
    guard lost > 0 else { return }
    // Said with the next lines that can be written: a log that lost something says so.
    state.withLock { $0.dropped += dropped == 0 ? lost : 0 }
    if dropped > 0 {
      var line = LogLine(sink.kind == .datagrams ? .journal : .text, level: .warning, event: "log lines lost", time: .now())
      line.add("lines", lost)
      _ = sink.write(line.finish())
    }
  }
}

/// Where lines end up.
private final class Sink: Sendable {
  let kind: Kind
  private let descriptor: Descriptor?

  enum Kind: Equatable, Sendable {
    case stream
    case datagrams
    case syslog
  }

  init(_ destination: LogSettings.Destination) throws(SystemError) {
    switch destination {
    case .stderr:
      kind = .stream
      descriptor = Descriptor(owning: try Syscall.duplicate(STDERR_FILENO).get())
    case .file(let path):
      kind = .stream
      descriptor = Descriptor(owning: try Syscall.openForAppending(path).get())
    case .journald:
      kind = .datagrams
      let socket = Descriptor(owning: try Syscall.datagramSocket().get())
      if let error = Syscall.connect(socket, toUnix: Sink.journal) { throw error }
      descriptor = consume socket
    case .syslog:
      kind = .syslog
      descriptor = nil
      unsafe openlog("proxyd", LOG_PID | LOG_NDELAY, LOG_MAIL)
    }
  }

  private static let journal = "/run/systemd/journal/socket"

  /// False if the bytes, or some of them, are lost.
  func write(_ bytes: [UInt8]) -> Bool {
    switch descriptor {
    case .some(let descriptor): Syscall.writeAll(descriptor, bytes.span)
    case .none: false
    }
  }

  /// vsyslog never tells whether it succeeded.
  func log(_ bytes: [UInt8], severity: Int) {
    var text = bytes
    while text.last == .lineFeed { text.removeLast() }
    text.append(.nul)
    // SAFETY: the text ends with NUL and is an argument of the format, not the format.
    unsafe text.withUnsafeBufferPointer { buffer in
      unsafe buffer.withMemoryRebound(to: CChar.self) { buffer in
        guard let base = buffer.baseAddress else { return }
        unsafe withVaList([base]) { unsafe vsyslog(Int32(severity), "%s", $0) }
      }
    }
  }
}

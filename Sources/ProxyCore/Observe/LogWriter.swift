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

  fileprivate struct Line: Sendable {
    let level: Logger.Level
    let bytes: [UInt8]
    var identity = LogIdentity.proxyd
    /// Since 1970.
    var second = WallTime.second
  }

  /// What waits to be written is bounded; lines beyond are dropped and counted. A line has about 300 bytes.
  private static let mostBytes = 4 << 20
  /// Lines are gathered this long before they are written together; a warning goes at once.
  private static let gather = DispatchTimeInterval.milliseconds(50)

  /// Fails if the destination can't be opened.
  package init(_ settings: LogSettings) throws(SystemError) {
    state = Mutex(State(sink: try Sink(settings)))
  }

  /// Writes to another place from here on, or opens the same file anew.
  package func redirect(_ settings: LogSettings) throws(SystemError) {
    flush()
    let sink = try Sink(settings)
    state.withLock { $0.sink = sink }
  }

  /// Takes a finished line; it is written soon, a warning at once.
  package func write(_ bytes: [UInt8], level: Logger.Level, _ identity: LogIdentity = .proxyd) {
    let delay: DispatchTimeInterval? = state.withLock { state in
      guard state.size + bytes.count <= LogWriter.mostBytes else {
        state.dropped += 1
        return nil
      }
      state.lines.append(Line(level: level, bytes: bytes, identity: identity))
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
    var lost = dropped + lines.count - sink.write(lines)
    guard lost > 0 else { return }
    // A log that lost something says so as soon as it can.
    var line = LogLine(sink.style, level: .warning, event: "log lines lost", time: .now())
    line.add("lines", lost)
    lost -= lost * sink.write([Line(level: .warning, bytes: line.finish())])
    if lost > 0 { state.withLock { $0.dropped += lost } }
  }
}

/// Where lines end up.
private final class Sink: Sendable {
  let style: LogLine.Style
  private let kind: Kind
  /// What lines of a stream begin with; nil for nothing.
  private let header: SyslogHeader?

  private enum Kind: ~Copyable, Sendable {
    case stream(Descriptor)
    case datagrams(Descriptor)
    case syslog
  }

  init(_ settings: LogSettings) throws(SystemError) {
    style = settings.style
    header = settings.format == .perdition ? SyslogHeader() : nil
    switch settings.destination {
    case .stderr: kind = .stream(Descriptor(owning: try Syscall.duplicate(STDERR_FILENO).get()))
    case .file(let path): kind = .stream(Descriptor(owning: try Syscall.openForAppending(path).get()))
    case .journald:
      let socket = Descriptor(owning: try Syscall.datagramSocket().get())
      if let error = Syscall.connect(socket, toUnix: Sink.journal) { throw error }
      kind = .datagrams(socket)
    case .syslog:
      kind = .syslog
      Sink.openlog(.proxyd)
    }
  }

  /// From here on lines are that program's.
  private static func openlog(_ identity: LogIdentity) {
    // SAFETY: syslog keeps the pointer; it is to static memory, and ends with NUL.
    unsafe identity.tag.utf8Start.withMemoryRebound(to: CChar.self, capacity: identity.tag.utf8CodeUnitCount + 1) {
      unsafe Glibc.openlog($0, LOG_PID | LOG_NDELAY, LOG_MAIL)
    }
  }

  private static let journal = "/run/systemd/journal/socket"

  /// Writes the lines and returns how many of them are sure to be written.
  func write(_ lines: [LogWriter.Line]) -> Int {
    switch kind {
    case .stream(let descriptor):
      var text: [UInt8] = []
      for line in lines {
        header?.append(line.identity, second: line.second, to: &text)
        text.append(contentsOf: line.bytes)
      }
      return Syscall.writeAll(descriptor, text.span) ? lines.count : 0
    case .datagrams(let descriptor):
      return lines.count { Syscall.writeAll(descriptor, $0.bytes.span) }
    case .syslog:
      for line in lines {
        if header != nil { Sink.openlog(line.identity) }
        log(line)
      }
      // vsyslog never tells whether it succeeded.
      return lines.count
    }
  }

  private func log(_ line: LogWriter.Line) {
    var text = line.bytes
    while text.last == .lineFeed { text.removeLast() }
    text.append(.nul)
    // SAFETY: the text ends with NUL and is an argument of the format, not the format.
    unsafe text.withUnsafeBufferPointer { buffer in
      unsafe buffer.withMemoryRebound(to: CChar.self) { buffer in
        guard let base = buffer.baseAddress else { return }
        unsafe withVaList([base]) { unsafe vsyslog(Int32(line.level.syslogSeverity), "%s", $0) }
      }
    }
  }
}

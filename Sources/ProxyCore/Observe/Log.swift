/// The log: swift-log for what happens to the proxy, and one line for each session, built without a dictionary so that
/// its fields keep their order.

package import Logging
internal import Protocols
internal import Synchronization

package final class Log: Sendable {
  private let writer: LogWriter
  private let shared: LevelAndStyle
  /// For all events but the sessions'.
  package let logger: Logger

  /// Fails if the destination can't be opened.
  package init(_ settings: LogSettings) throws(SystemError) {
    let writer = try LogWriter(settings)
    self.writer = writer
    let shared = LevelAndStyle(settings)
    self.shared = shared
    logger = Logger(label: "proxyd") { _ in LineHandler(writer: writer, shared: shared) }
  }

  /// Logs as `settings` say from here on; a file is opened anew.
  package func reconfigure(_ settings: LogSettings) throws(SystemError) {
    try writer.redirect(settings)
    shared.set(settings)
  }

  /// The least urgent lines that are written. One set here holds until it is set again or the settings are.
  package var level: Logger.Level {
    get { shared.threshold }
    set { shared.threshold = newValue }
  }

  /// Writes a line built by `build`, if lines of that level are wanted.
  package func line(_ level: Logger.Level, _ event: String, _ build: (inout LogLine) -> Void) {
    guard let style = shared.style(for: level) else { return }
    var line = LogLine(style, level: level, event: event, time: style == .journal ? nil : .now())
    build(&line)
    writer.write(line.finish(), level: level)
  }

  /// Whether sessions are told in Perdition's lines.
  var isPerdition: Bool { shared.isPerdition }

  /// Writes a line of Perdition's, as the program a listener stands for.
  func perdition(_ line: PerditionLine, _ identity: LogIdentity) {
    guard let style = shared.style(for: line.level) else { return }
    var bytes = line.text
    switch style {
    case .text, .json: bytes.append(.lineFeed)
    case .journal:
      let text = String(decoding: bytes, as: UTF8.self)
      bytes = LogLine(.journal, level: line.level, event: text, time: nil, identity: identity).finish()
    }
    writer.write(bytes, level: line.level, identity)
  }

  /// Writes all there is before it returns.
  package func flush() { writer.flush() }
}

/// The settings that every line asks for.
private final class LevelAndStyle: Sendable {
  private let level: Atomic<Int>
  private let perdition = Atomic(false)
  private let style = Mutex(LogLine.Style.text)

  init(_ settings: LogSettings) {
    level = Atomic(0)
    set(settings)
  }

  func set(_ settings: LogSettings) {
    level.store(settings.level.rank, ordering: .relaxed)
    style.withLock { $0 = settings.style }
    perdition.store(settings.format == .perdition, ordering: .relaxed)
  }

  var threshold: Logger.Level {
    get { Logger.Level.allCases[level.load(ordering: .relaxed)] }
    set { level.store(newValue.rank, ordering: .relaxed) }
  }

  var isPerdition: Bool { perdition.load(ordering: .relaxed) }

  /// How a line of that level is written; nil if it is not wanted.
  func style(for level: Logger.Level) -> LogLine.Style? {
    level.rank >= self.level.load(ordering: .relaxed) ? style.withLock { $0 } : nil
  }
}

extension Logger.Level {
  /// Higher is more urgent.
  fileprivate var rank: Int { Logger.Level.allCases.firstIndex(of: self) ?? 0 }
}

/// swift-log's door to the writer.
private struct LineHandler: LogHandler {
  let writer: LogWriter
  let shared: LevelAndStyle
  var metadata: Logger.Metadata = [:]
  /// The writer decides; here everything passes.
  var logLevel = Logger.Level.trace

  subscript(metadataKey key: String) -> Logger.Metadata.Value? {
    get { metadata[key] }
    set { metadata[key] = newValue }
  }

  func log(event: LogEvent) {
    guard let style = shared.style(for: event.level) else { return }
    var line = LogLine(style, level: event.level, event: "\(event.message)", time: style == .journal ? nil : .now())
    let fields = metadata.merging(event.metadata ?? [:]) { _, new in new }
    for (name, value) in fields.sorted(by: { $0.key < $1.key }) { line.add(name, "\(value)") }
    writer.write(line.finish(), level: event.level)
  }
}

/// What is logged, how and where to.

package import Logging

package struct LogSettings: Equatable, Sendable {
  /// The least urgent lines wanted.
  package var level: Logger.Level
  /// How they are written.
  package var format: Format
  /// Where to.
  package var destination: Destination
  /// How often the line that tells a login is written again while its session lasts, in nanoseconds; nil for once. Of the
  /// format `perdition` only.
  package var repetition: UInt64?

  /// How a line is written.
  package enum Format: String, Equatable, Sendable, CaseIterable {
    /// `key=value`, one line an event.
    case text
    /// One JSON object a line.
    case json
    /// Perdition's lines for sessions, as a syslog file has them; all else as `text`.
    case perdition
  }

  /// Where lines go.
  package enum Destination: Equatable, Sendable {
    case stderr
    /// Its socket: the fields arrive as fields.
    case journald
    case syslog
    /// A file, opened anew with every reload.
    case file(String)
  }

  /// The settings, each with its default.
  package init(
    level: Logger.Level = .info, format: Format = .text, destination: Destination = .stderr, repetition: UInt64? = nil
  ) {
    self.level = level
    self.format = format
    self.destination = destination
    self.repetition = repetition
  }

  /// How a line is written. journald has its own protocol, whatever the format.
  var style: LogLine.Style {
    switch (destination, format) {
    case (.journald, _): .journal
    case (.stderr, .text), (.syslog, .text), (.file, .text): .text
    case (.stderr, .perdition), (.syslog, .perdition), (.file, .perdition): .text
    case (.stderr, .json), (.syslog, .json), (.file, .json): .json
    }
  }
}

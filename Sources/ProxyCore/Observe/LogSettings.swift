/// What is logged, how and where to.

package import Logging

package struct LogSettings: Equatable, Sendable {
  /// The least urgent lines wanted.
  package var level: Logger.Level
  /// How they are written.
  package var format: Format
  /// Where to.
  package var destination: Destination

  /// How a line is written.
  package enum Format: String, Equatable, Sendable, CaseIterable {
    /// `key=value`, one line an event.
    case text
    /// One JSON object a line.
    case json
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
  package init(level: Logger.Level = .info, format: Format = .text, destination: Destination = .stderr) {
    self.level = level
    self.format = format
    self.destination = destination
  }

  /// How a line is written. journald has its own protocol, whatever the format.
  var style: LogLine.Style {
    switch (destination, format) {
    case (.journald, _): .journal
    case (.stderr, .text), (.syslog, .text), (.file, .text): .text
    case (.stderr, .json), (.syslog, .json), (.file, .json): .json
    }
  }
}

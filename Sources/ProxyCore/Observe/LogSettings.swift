/// What is logged, how and where to.

package import Logging

package struct LogSettings: Equatable, Sendable {
  package var level: Logger.Level
  package var format: Format
  package var destination: Destination

  package enum Format: String, Equatable, Sendable, CaseIterable {
    /// `key=value`, one line an event.
    case text
    /// One JSON object a line.
    case json
  }

  package enum Destination: Equatable, Sendable {
    case stderr
    /// Its socket: the fields arrive as fields.
    case journald
    case syslog
    /// A file, opened anew with every reload.
    case file(String)
  }

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

/// The commands of the control protocol, and what each takes.

enum ControlCommand: String, Equatable, Sendable, CaseIterable {
  case status
  case sessions
  case kick
  case who
  case backends
  case backend
  case affinityList = "affinity-list"
  case affinityMap = "affinity-map"
  case affinityMove = "affinity-move"
  case affinityForget = "affinity-forget"
  case affinityFlush = "affinity-flush"
  case affinityDump = "affinity-dump"
  case affinityLoad = "affinity-load"
  case metrics
  case reload
  case logLevel = "loglevel"
  case trace

  /// What it takes.
  var arguments: [ControlArgument] {
    switch self {
    case .status, .backends, .metrics, .reload: []
    case .sessions: ControlCommand.filter + [ControlArgument("limit", .number(1...1_000_000))]
    case .kick, .who: ControlCommand.filter
    case .backend:
      [
        ControlArgument("backend", .text, isRequired: true),
        ControlArgument("state", .choice(["ready", "drain", "maint", "removed"])),
        ControlArgument("weight", .weight),
      ]
    case .affinityList, .affinityDump, .affinityFlush:
      [ControlArgument("pool", .text), ControlArgument("backend", .text)]
    case .affinityMap, .affinityForget:
      [ControlArgument("user", .text, isRequired: true), ControlArgument("pool", .text)]
    case .affinityMove:
      [
        ControlArgument("user", .text, isRequired: true), ControlArgument("backend", .text, isRequired: true),
        ControlArgument("pool", .text),
      ]
    case .affinityLoad: [ControlArgument("entries", .entries, isRequired: true), ControlArgument("pool", .text)]
    case .logLevel:
      [ControlArgument("level", .choice(["trace", "debug", "info", "notice", "warning", "error", "critical"]))]
    case .trace:
      [
        ControlArgument("user", .text, isRequired: true), ControlArgument("seconds", .number(1...3_600)),
        ControlArgument("lines", .number(1...100_000)),
      ]
    }
  }

  /// Which sessions are meant.
  private static let filter = [
    ControlArgument("user", .text), ControlArgument("backend", .text), ControlArgument("address", .text),
    ControlArgument("where", .text), ControlArgument("session", .text),
  ]

  /// Whether it changes anything, and is logged. A level that is only asked for does not.
  func changes(_ request: ControlRequest) -> Bool {
    switch self {
    case .kick, .backend, .affinityMove, .affinityForget, .affinityFlush, .affinityLoad, .reload: true
    case .logLevel: request.has("level")
    // It changes nothing, and shows what a user does: who looked is told.
    case .trace: true
    case .status, .sessions, .who, .backends, .affinityList, .affinityMap, .affinityDump, .metrics: false
    }
  }
}

/// Something a command takes.
struct ControlArgument: Equatable, Sendable {
  let name: String
  let kind: Kind
  let isRequired: Bool

  enum Kind: Equatable, Sendable {
    /// Any text but an empty one.
    case text
    case number(ClosedRange<Int>)
    case choice([String])
    /// A number, or `default`.
    case weight
    case entries

    func takes(_ value: ControlValue) -> Bool {
      switch (self, value) {
      case (.text, .text(let text)): !text.isEmpty
      case (.number(let range), .number(let number)): range.contains(number)
      case (.choice(let words), .text(let text)): words.contains(text)
      case (.weight, .number(let number)): ControlArgument.weights.contains(number)
      case (.weight, .text(let text)): text == "default"
      case (.entries, .entries(let entries)): entries.allSatisfy { !$0.user.isEmpty && !$0.backend.isEmpty }
      case (.text, _), (.number, _), (.choice, _), (.weight, .entries), (.entries, _): false
      }
    }

    /// In words that end an error.
    var expected: String {
      switch self {
      case .text: "a text that is not empty"
      case .number(let range): "a number, \(range.lowerBound) to \(range.upperBound)"
      case .choice(let words): words.dropLast().joined(separator: ", ") + " or \(words[words.count - 1])"
      case .weight:
        "a number, \(ControlArgument.weights.lowerBound) to \(ControlArgument.weights.upperBound), or default"
      case .entries: "a list of objects with user and backend"
      }
    }
  }

  /// As the configuration's `weight`.
  static let weights = 0...1_000

  init(_ name: String, _ kind: Kind, isRequired: Bool = false) {
    self.name = name
    self.kind = kind
    self.isRequired = isRequired
  }
}

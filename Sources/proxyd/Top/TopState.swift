/// What `proxyd top` knows and shows: takes what the proxy says and what keys are pressed, and says what is to be done.

struct TopState: Equatable, Sendable {
  private(set) var view = View.backends
  private(set) var status: ToldStatus?
  private(set) var rates = Rates()
  private(set) var backends: [BackendRow] = []
  private(set) var sessions: [SessionRow] = []
  /// The backend whose sessions are shown; nil for all.
  private(set) var guestsOf: String?
  /// What is asked before anything is changed.
  private(set) var question: Question?
  /// What came of the last change, or why there is nothing to be seen.
  private(set) var message: String?
  private(set) var showsHelp = false
  private var order: [View: Order] = [
    .backends: Order(column: 0, isDescending: false), .sessions: Order(column: 10, isDescending: true),
  ]
  /// Whom the keys are for, by name: the row moves when the order changes.
  private var chosen: [View: String] = [:]
  /// Where that row was last.
  private var place: [View: Int] = [:]
  /// When the last sample was taken, in nanoseconds.
  private var sampled: UInt64?
  /// Rows on the last page that was drawn.
  var page = 10

  enum View: Equatable, Hashable, Sendable { case backends, sessions }

  /// By which column, and how.
  struct Order: Equatable, Sendable {
    var column: Int
    var isDescending: Bool
  }

  /// A second's worth.
  struct Rates: Equatable, Sendable {
    var logins = 0.0
    var `in` = 0.0
    var out = 0.0
  }

  /// A backend, and what it does in a second.
  struct BackendRow: Equatable, Sendable {
    let told: ToldBackend
    var rates = Rates()
    /// Its part of all sessions, in percent.
    var share = 0
  }

  /// A session, and what it carries in a second.
  struct SessionRow: Equatable, Sendable {
    let told: ToldSession
    var rates = Rates()
  }

  /// What is to be done if the answer is yes.
  struct Question: Equatable, Sendable {
    let words: String
    let command: ControlCommand
    let arguments: [String: ControlValue]
  }

  /// What a key asks for.
  enum Effect: Equatable, Sendable {
    case none
    case quit
    /// The terminal is given back until the program is continued.
    case suspend
    /// Other rows are wanted.
    case refresh
    case perform(ControlCommand, [String: ControlValue])
  }

  /// Sessions shown at most; a proxy with more takes a filter.
  static let mostSessions = 1_000

  // MARK: What the proxy says

  /// A sample, at a time in nanoseconds.
  mutating func take(_ status: ToldStatus, _ told: [ToldBackend], _ sessions: [ToldSession], at time: UInt64) {
    let seconds = sampled.map { Double(time - min($0, time)) / 1e9 } ?? 0
    // The same process, and some time between: else there is nothing to compare with.
    let before = seconds > 0 && self.status?.pid == status.pid ? self.status : nil
    rates =
      before.map { before in
        Rates(
          logins: TopState.rate(before.logins, status.logins, seconds),
          in: TopState.rate(before.in, status.in, seconds),
          out: TopState.rate(before.out, status.out, seconds))
      } ?? Rates()
    let earlier = Dictionary(backends.map { ($0.told.backend, $0.told) }) { first, _ in first }
    let all = told.reduce(0) { $0 + $1.sessions }
    backends = told.map { told in
      var row = BackendRow(told: told)
      row.share = all > 0 ? (told.sessions * 200 + all) / (2 * all) : 0
      if before != nil, let last = earlier[told.backend] {
        row.rates = Rates(
          logins: TopState.rate(last.acceptedLogins, told.acceptedLogins, seconds),
          in: TopState.rate(last.in, told.in, seconds), out: TopState.rate(last.out, told.out, seconds))
      }
      return row
    }
    let known = Dictionary(self.sessions.map { ($0.told.session, $0.told) }) { first, _ in first }
    self.sessions = sessions.map { told in
      var row = SessionRow(told: told)
      if before != nil, let last = known[told.session] {
        row.rates.in = TopState.rate(last.in, told.in, seconds)
        row.rates.out = TopState.rate(last.out, told.out, seconds)
      }
      return row
    }
    self.status = status
    sampled = time
    if isLost { message = nil }
    isLost = false
    sort()
  }

  private static func rate(_ before: Int, _ now: Int, _ seconds: Double) -> Double {
    Double(max(0, now - before)) / seconds
  }

  /// Whether the message says that nobody answers.
  private var isLost = false

  /// Nobody answers.
  mutating func lose(_ words: String) {
    message = words
    isLost = true
    sampled = nil
  }

  /// What came of a change.
  mutating func tell(_ words: String) {
    message = words
    isLost = false
  }

  // MARK: Keys

  mutating func press(_ key: TopKey) -> Effect {
    if let asked = question {
      question = nil
      // Whatever is no yes is a no.
      guard key == .letter("y") || key == .letter("Y") else { return .none }
      return .perform(asked.command, asked.arguments)
    }
    if !isLost { message = nil }
    if showsHelp {
      showsHelp = false
      return key == .letter("q") ? .quit : .none
    }
    switch key {
    case .up: choose(-1)
    case .down: choose(1)
    case .pageUp: choose(-page)
    case .pageDown: choose(page)
    case .home: choose(-Int(Int32.max))
    case .end: choose(Int(Int32.max))
    case .enter:
      guard view == .backends, let name = selected else { return .none }
      return show(.sessions, of: name)
    case .tab: return show(view == .backends ? .sessions : .backends, of: nil)
    case .escape:
      guard view == .sessions else { return .none }
      return show(.backends, of: nil)
    case .letter(let letter): return press(letter)
    }
    return .none
  }

  private mutating func press(_ letter: Character) -> Effect {
    switch letter {
    case "q", "\u{3}", "\u{4}": return .quit
    case "\u{1A}": return .suspend
    case "h", "?": showsHelp = true
    case "b": return show(.backends, of: nil)
    case "s": return show(.sessions, of: nil)
    case "<", ",": turn(-1)
    case ">", ".": turn(1)
    case "i": order[view]?.isDescending.toggle()
    case "d": ask(.drain)
    case "r": ask(.ready)
    case "m": ask(.maintenance)
    case "k": askToKick()
    default: return .none
    }
    sort()
    return .none
  }

  private mutating func show(_ view: View, of backend: String?) -> Effect {
    self.view = view
    if view == .sessions {
      guestsOf = backend
      sessions = []
      chosen[.sessions] = nil
      place[.sessions] = nil
    }
    return .refresh
  }

  private mutating func turn(_ step: Int) {
    let columns = TopColumns.titles(view).count
    guard var order = order[view] else { return }
    order.column = (order.column + step + columns) % columns
    // Names begin with the first, numbers with the most.
    order.isDescending = TopColumns.isNumber(view, order.column)
    self.order[view] = order
  }

  /// A state that the keys can set.
  private enum Wish: String {
    case ready, drain
    case maintenance = "maint"
  }

  private mutating func ask(_ wish: Wish) {
    guard view == .backends, let name = selected else { return }
    guard backends.contains(where: { $0.told.backend == name && $0.told.state != nil }) else {
      message = "\(name) is not in the configuration: it has no state"
      return
    }
    let words: String
    switch wish {
    case .ready: words = "Is \(name) to take part?"
    case .drain: words = "Is \(name) to get no new users?"
    case .maintenance: words = "Are the users of \(name) to be moved?"
    }
    question = Question(
      words: "\(words) (y/n)", command: .backend, arguments: ["backend": .text(name), "state": .text(wish.rawValue)])
  }

  private mutating func askToKick() {
    guard view == .sessions, let name = selected, let row = sessions.first(where: { $0.told.session == name }) else {
      return
    }
    let whose = row.told.user.isEmpty ? row.told.client : row.told.user
    question = Question(
      words: "Is the session \(name) of \(whose) to be ended? (y/n)", command: .kick,
      arguments: ["session": .text(name)])
  }

  // MARK: Rows

  var sorting: Order { order[view] ?? Order(column: 0, isDescending: false) }

  /// The rows' names, in their order.
  private var names: [String] {
    switch view {
    case .backends: backends.map(\.told.backend)
    case .sessions: sessions.map(\.told.session)
    }
  }

  /// The row whom the keys are for; nil if there is none.
  var selectedIndex: Int? {
    let names = names
    guard !names.isEmpty else { return nil }
    return chosen[view].flatMap { names.firstIndex(of: $0) } ?? 0
  }

  private var selected: String? { selectedIndex.map { names[$0] } }

  private mutating func choose(_ step: Int) {
    guard let index = selectedIndex else { return }
    let names = names
    let next = max(0, min(names.count - 1, index + step))
    chosen[view] = names[next]
    place[view] = next
  }

  private mutating func sort() {
    let sorting = sorting
    switch view {
    case .backends: backends = TopColumns.sorted(backends, sorting)
    case .sessions: sessions = TopColumns.sorted(sessions, sorting)
    }
    // Who is chosen stays so. If that one is gone, it is whoever stands in its place.
    let names = names
    if let index = chosen[view].flatMap({ names.firstIndex(of: $0) }) {
      place[view] = index
    } else {
      chosen[view] = names.isEmpty ? nil : names[min(place[view] ?? 0, names.count - 1)]
    }
  }
}

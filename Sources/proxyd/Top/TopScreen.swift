/// Draws what `proxyd top` shows, as lines for a terminal of a size.

/// A line: parts of it with how they look. Together they are no wider than the terminal.
struct ScreenLine: Equatable, Sendable {
  private(set) var parts: [Part] = []

  struct Part: Equatable, Sendable {
    let text: String
    let look: Look
  }

  enum Look: Equatable, Sendable {
    case plain, bold
    /// A title, and the one that rows are sorted by.
    case title, sortedTitle
    case selected
    /// Something to mend, and something to keep an eye on.
    case bad, doubtful
    case question

    /// ECMA-48's SGR.
    var code: String {
      switch self {
      case .plain: "0"
      case .bold: "0;1"
      case .title: "0;7"
      case .sortedTitle: "0;1;4;7"
      case .selected: "0;1;7"
      case .bad: "0;31"
      case .doubtful: "0;33"
      case .question: "0;1;33"
      }
    }
  }

  /// Adds a part.
  mutating func add(_ text: String, _ look: Look) { parts.append(Part(text: text, look: look)) }

  /// The text alone.
  var text: String { parts.map(\.text).joined() }
}

extension TopState {
  /// As many lines as the terminal has, none wider than it.
  func screen(width: Int, height: Int) -> [ScreenLine] {
    var lines = head(width)
    lines += showsHelp ? help(width) : rows(width, height - lines.count - 1)
    lines = Array(lines.prefix(max(0, height - 1)))
    while lines.count < height - 1 { lines.append(ScreenLine()) }
    if height > 0 { lines.append(foot(width)) }
    return lines
  }

  /// Rows that a terminal of that height has room for.
  static func room(height: Int) -> Int { max(1, height - headHeight - 2) }

  /// Lines above the titles.
  private static let headHeight = 3

  private static func line(_ text: String, _ look: ScreenLine.Look, _ width: Int) -> ScreenLine {
    var line = ScreenLine()
    line.add(ShownText(text).cut(to: width).text, look)
    return line
  }

  private func head(_ width: Int) -> [ScreenLine] {
    guard let status else {
      return [TopState.line("proxyd", .bold, width), word(width), ScreenLine()]
    }
    let state = status.state == "running" ? "" : ", \(status.state)"
    return [
      TopState.line(
        "proxyd \(status.version)\(state), up \(Human.time(status.uptime * 1_000))   "
          + "sessions \(status.sessions) of \(status.limit)   users \(status.users) remembered", .bold, width),
      TopState.line(
        "logins \(TopColumns.rate(rates.logins))/s (\(status.logins) accepted, \(status.failedLogins) not)   "
          + "in \(Human.bytes(Int(rates.in)))/s   out \(Human.bytes(Int(rates.out)))/s", .plain, width),
      word(width),
    ]
  }

  /// What is asked or told.
  private func word(_ width: Int) -> ScreenLine {
    if let question { return TopState.line(question.words, .question, width) }
    if let message { return TopState.line(message, .doubtful, width) }
    guard view == .sessions else { return ScreenLine() }
    let whose = guestsOf.map { "sessions at \($0)" } ?? "all sessions"
    let most = sessions.count >= TopState.mostSessions ? ", the first \(TopState.mostSessions)" : ""
    return TopState.line(whose + most, .plain, width)
  }

  private func foot(_ width: Int) -> ScreenLine {
    let keys =
      switch view {
      case .backends: "q quit  h help  s sessions  enter its sessions  <> sort  i invert  d drain  r ready  m maint"
      case .sessions: "q quit  h help  b backends  <> sort  i invert  k kick"
      }
    return TopState.line(keys, .plain, width)
  }

  private func help(_ width: Int) -> [ScreenLine] {
    [
      "", "up, down, page up, page down, home, end   choose a row",
      "tab, s, b      the other view; sessions; backends", "enter          the sessions of the chosen backend",
      "< and >        sort by the column to the left or right", "i              the other way round",
      "d r m          the chosen backend gets no new users; takes part; has its users moved",
      "k              end the chosen session", "q              quit", "", "Any key goes on.",
    ].map { TopState.line($0, .plain, width) }
  }

  // MARK: Rows

  private func rows(_ width: Int, _ height: Int) -> [ScreenLine] {
    guard height > 0 else { return [] }
    let cells: [[ShownText]]
    let looks: [ScreenLine.Look]
    switch view {
    case .backends:
      cells = backends.map { TopColumns.texts($0) }
      looks = backends.map { TopState.look($0.told) }
    case .sessions:
      cells = sessions.map { TopColumns.texts($0) }
      looks = sessions.map { _ in .plain }
    }
    let titles = TopColumns.titles(view).map { ShownText($0) }
    // Of all rows and not of those that are seen: columns stand still while one goes up and down.
    let widths = titles.indices.map { column in cells.reduce(titles[column].width) { max($0, $1[column].width) } }
    let room = height - 1
    let chosen = selectedIndex
    let first = max(0, min((chosen ?? 0) - room / 2, cells.count - room))
    var lines = [titleLine(titles, widths, width)]
    for index in first..<min(cells.count, first + max(0, room)) {
      let look = index == chosen ? .selected : looks[index]
      lines.append(TopState.rowLine(cells[index], widths, view, look, width))
    }
    return lines
  }

  private static func look(_ backend: ToldBackend) -> ScreenLine.Look {
    if backend.health == "down" { return .bad }
    let isReady = backend.state == nil || backend.state == "ready"
    return backend.health == "doubted" || !isReady || backend.agent != nil ? .doubtful : .plain
  }

  private func titleLine(_ titles: [ShownText], _ widths: [Int], _ width: Int) -> ScreenLine {
    var line = ScreenLine()
    var left = width
    for (column, title) in titles.enumerated() where left > 0 {
      let columns = min(widths[column], left)
      let text = title.fit(columns, toTheRight: TopColumns.isNumber(view, column))
      line.add(text, column == sorting.column ? .sortedTitle : .title)
      left -= columns
      let gap = min(left, column == titles.count - 1 ? left : 2)
      if gap > 0 { line.add(String(repeating: " ", count: gap), .title) }
      left -= gap
    }
    return line
  }

  private static func rowLine(
    _ cells: [ShownText], _ widths: [Int], _ view: View, _ look: ScreenLine.Look, _ width: Int
  ) -> ScreenLine {
    var text = ""
    var left = width
    for (column, cell) in cells.enumerated() where left > 0 {
      let columns = min(widths[column], left)
      text += cell.fit(columns, toTheRight: TopColumns.isNumber(view, column))
      left -= columns
      let gap = min(2, left)
      text += String(repeating: " ", count: gap)
      left -= gap
    }
    if look == .selected { text += String(repeating: " ", count: left) }
    var line = ScreenLine()
    line.add(text, look)
    return line
  }
}

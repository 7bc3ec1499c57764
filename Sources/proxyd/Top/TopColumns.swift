/// The columns of `proxyd top`: what stands in each, and how rows are put in order by it.

enum TopColumns {
  private enum Cell {
    case text(String)
    case number(Double, String)
  }

  private static let backends: [(title: String, isNumber: Bool)] = [
    ("BACKEND", false), ("STATE", false), ("HEALTH", false), ("SESSIONS", true), ("SHARE", true), ("ENTERING", true),
    ("LOGINS/S", true), ("IN/S", true), ("OUT/S", true), ("WEIGHT", true), ("REFUSED", true), ("FAILED", true),
    ("POOLS", false), ("REASON", false),
  ]

  private static let sessions: [(title: String, isNumber: Bool)] = [
    ("SESSION", false), ("USER", false), ("PROTOCOL", false), ("CLIENT", false), ("BACKEND", false), ("AGE", true),
    ("IDLE", true), ("IN", true), ("OUT", true), ("IN/S", true), ("OUT/S", true), ("TLS", false), ("DOING", false),
  ]

  private static func columns(_ view: TopState.View) -> [(title: String, isNumber: Bool)] {
    switch view {
    case .backends: backends
    case .sessions: sessions
    }
  }

  static func titles(_ view: TopState.View) -> [String] { columns(view).map(\.title) }
  static func isNumber(_ view: TopState.View, _ column: Int) -> Bool { columns(view)[column].isNumber }

  // MARK: Cells

  private static func cells(_ row: TopState.BackendRow) -> [Cell] {
    let told = row.told
    return [
      .text(told.backend), .text(BackendsCommand.state(told) ?? ""), .text(told.health ?? ""), count(told.sessions),
      .number(Double(told.sessions), "\(row.share)%"), count(told.entering),
      .number(row.rates.logins, rate(row.rates.logins)),
      bytes(row.rates.in), bytes(row.rates.out),
      .number(Double(told.weight ?? -1), BackendsCommand.weight(told) ?? ""), count(told.refusedLogins),
      count(told.failedLogins), .text(told.pools.joined(separator: " ")), .text(told.reason ?? ""),
    ]
  }

  private static func cells(_ row: TopState.SessionRow) -> [Cell] {
    let told = row.told
    return [
      .text(told.session), .text(told.user), .text(told.protocol), .text(told.client), .text(told.backend ?? ""),
      .number(Double(told.age), Human.time(told.age)),
      .number(Double(told.idle ?? -1), told.idle.map(Human.time) ?? ""), bytes(Double(told.in)),
      bytes(Double(told.out)), bytes(row.rates.in), bytes(row.rates.out), .text(told.tls ?? ""), .text(told.doing),
    ]
  }

  private static func bytes(_ number: Double) -> Cell { .number(number, Human.bytes(Int(number))) }

  private static func count(_ number: Int) -> Cell { .number(Double(number), String(number)) }

  /// With a tenth where that says something.
  static func rate(_ rate: Double) -> String {
    let tenths = Int((rate * 10).rounded())
    return tenths < 1_000 ? "\(tenths / 10).\(tenths % 10)" : String(tenths / 10)
  }

  /// What stands in a row's columns; a dash for nothing.
  static func texts(_ row: TopState.BackendRow) -> [ShownText] { cells(row).map(text) }
  static func texts(_ row: TopState.SessionRow) -> [ShownText] { cells(row).map(text) }

  private static func text(_ cell: Cell) -> ShownText {
    switch cell {
    case .text(let text), .number(_, let text): ShownText(text.isEmpty ? "-" : text)
    }
  }

  // MARK: Order

  static func sorted(_ rows: [TopState.BackendRow], _ order: TopState.Order) -> [TopState.BackendRow] {
    sorted(rows, order, name: \.told.backend, cells)
  }

  static func sorted(_ rows: [TopState.SessionRow], _ order: TopState.Order) -> [TopState.SessionRow] {
    sorted(rows, order, name: \.told.session, cells)
  }

  /// By the column, and by name where that does not tell.
  private static func sorted<Row>(
    _ rows: [Row], _ order: TopState.Order, name: (Row) -> String, _ cells: (Row) -> [Cell]
  ) -> [Row] {
    let keyed = rows.map { (row: $0, cells: cells($0), name: name($0)) }
    return keyed.sorted { precedes($0.cells, $1.cells, order) ?? ($0.name < $1.name) }.map(\.row)
  }

  /// Nil if they are alike in that column.
  private static func precedes(_ one: [Cell], _ other: [Cell], _ order: TopState.Order) -> Bool? {
    let isBefore: Bool
    switch (one[order.column], other[order.column]) {
    case (.number(let first, _), .number(let second, _)):
      if first == second { return nil }
      isBefore = first < second
    case (.text(let first), .text(let second)):
      if first == second { return nil }
      isBefore = first < second
    case (.number, .text), (.text, .number): preconditionFailure("a column of texts and numbers")
    }
    return isBefore != order.isDescending
  }
}

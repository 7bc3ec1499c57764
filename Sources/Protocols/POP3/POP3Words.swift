/// Takes a POP3 line apart: a keyword of three or four letters, then an argument (RFC 1939 §3).
struct POP3Words: Equatable, Sendable {
  let command: Command?
  /// All behind the blank after the keyword. Its own blanks are kept: they may belong to a password.
  let argument: Range<Int>

  /// The commands that have a meaning before login.
  enum Command: Equatable, Sendable, CaseIterable {
    case capa, stls, user, pass, auth, apop, xclient, noop, quit

    fileprivate var word: StaticString {
      switch self {
      case .capa: "CAPA"
      case .stls: "STLS"
      case .user: "USER"
      case .pass: "PASS"
      case .auth: "AUTH"
      case .apop: "APOP"
      case .xclient: "XCLIENT"
      case .noop: "NOOP"
      case .quit: "QUIT"
      }
    }

    /// Whether it takes an argument. One given to a command without is a mistake, not to be overlooked.
    fileprivate var takesArgument: Bool {
      switch self {
      case .user, .pass, .auth, .apop, .xclient: true
      case .capa, .stls, .noop, .quit: false
      }
    }
  }

  init(_ line: Span<UInt8>) {
    let end = line.firstIndex(of: .space) ?? line.count
    let keyword = line.extracting(..<end)
    argument = min(end + 1, line.count)..<line.count
    var found: Command?
    for candidate in Command.allCases where keyword.equalsIgnoringCase(candidate.word) { found = candidate }
    let hasArgument = !argument.isEmpty
    command = found.flatMap { $0.takesArgument || !hasArgument ? $0 : nil }
  }
}

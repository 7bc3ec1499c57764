/// One daemon of Perdition: the options that count for it, and what they mean together.

package import Protocols

/// An instance with all its settings.
package struct PerditionInstance: Equatable, Sendable {
  /// The program's name, as it stands in the log.
  package let program: String
  /// The protocol of that name.
  private let programProtocol: PerditionProtocol
  /// The file it reads; nil if there is none.
  package let file: String?
  /// Its settings in order, with those that don't count.
  package let settings: [PerditionSetting]
  /// What was wrong with its file and command line.
  package let faults: [ReportEntry]

  /// An instance of a file and a command line, of which Perdition lets the one or the other win.
  package init(
    program mailProtocol: PerditionProtocol, program name: String? = nil, file: String?,
    fileArguments: PerditionArguments?,
    commandLine: [PerditionArguments] = []
  ) {
    programProtocol = mailProtocol
    program = name ?? mailProtocol.program
    self.file = file
    let command = commandLine.flatMap(\.settings)
    let onCommand = Set(command.map(\.option))
    let blocked = Dictionary(
      command.flatMap { setting in setting.option.blocks.map { ($0, setting) } },
      uniquingKeysWith: { first, _ in first })
    var filed = fileArguments?.settings ?? []
    for index in filed.indices {
      let option = filed[index].option
      if option == .help || option == .configFile {
        filed[index].ignored = "Perdition passes over it in a file."
      } else if onCommand.contains(option), !option.isFilesOwn {
        filed[index].ignored = "the command line has it too, and counts."
      } else if let blocker = blocked[option] {
        filed[index].ignored =
          "\(blocker.option.rawValue) on the command line makes Perdition forget it, by a defect; so it has had no "
          + "effect, and "
          + "was left out here."
      }
    }
    let counting = Set(filed.filter { $0.ignored == nil }.map(\.option))
    var all = command.map { setting in
      var setting = setting
      if setting.option.isFilesOwn, counting.contains(setting.option) {
        setting.ignored =
          "the file has it too, and the file's is what Perdition takes, whatever its manual says: so it was all along."
      }
      return setting
    }
    all += filed
    for index in all.indices where all[index].ignored == nil && !all[index].option.accumulates {
      if let later = all[(index + 1)...].first(where: { $0.option == all[index].option && $0.ignored == nil }) {
        all[index].ignored = "a later one counts, \(later.place)."
      }
    }
    settings = all
    faults = commandLine.flatMap(\.faults) + (fileArguments?.faults ?? [])
  }

  /// The value that counts; nil if there is none or it is empty.
  package func value(_ option: PerditionOption) -> String? {
    guard let value = settings.last(where: { $0.option == option && $0.ignored == nil })?.value, !value.isEmpty else {
      return nil
    }
    return value
  }

  /// Whether the option is given and counts, with a value or without.
  package func has(_ option: PerditionOption) -> Bool {
    settings.contains { $0.option == option && $0.ignored == nil }
  }

  /// The entries of all its lists.
  func list(_ option: PerditionOption) -> [String] {
    settings.filter { $0.option == option && $0.ignored == nil }.flatMap { setting in
      (setting.value ?? "").split(separator: ",", omittingEmptySubsequences: true).map(String.init)
    }
  }

  /// The number that counts; nil if there is none. An empty one is 0.
  func number(_ option: PerditionOption) -> Int? {
    let setting = settings.last { $0.option == option && $0.ignored == nil }
    return setting?.value.map { $0.isEmpty ? 0 : Int($0) ?? Int.max }
  }

  /// Its program and file, which no other instance has both of.
  var label: String { program + (file.map { " (\($0))" } ?? "") }

  /// What it speaks.
  package var mailProtocol: PerditionProtocol {
    value(.mailProtocol).flatMap { PerditionProtocol(rawValue: $0.lowercased()) } ?? programProtocol
  }
}

extension PerditionProtocol {
  /// The program's name in Debian's start script.
  package var program: String { self == .imap4s ? "perdition.imaps" : "perdition.\(rawValue)" }

  /// The same in proxyd.
  package var mailProtocol: MailProtocol {
    switch self {
    case .pop3, .pop3s: .pop3
    case .imap4, .imap4s: .imap
    case .managesieve: .manageSieve
    }
  }

  /// Where it listens, and where it expects a backend, unless told otherwise.
  var port: UInt16 {
    switch self {
    case .pop3: 110
    case .pop3s: 995
    case .imap4: 143
    case .imap4s: 993
    case .managesieve: 4190
    }
  }

  /// The protocol whose daemon reads a file of that name, with or without folders: `perdition.imap4.conf`.
  /// Nil if the name says none; then it is the daemon that is called `perdition`, which speaks POP3.
  package init?(fileName: String) {
    let name = fileName.split(separator: "/").last.map(String.init) ?? fileName
    switch name {
    case "perdition.imaps.conf": self = .imap4s
    default:
      guard let named = PerditionProtocol.allCases.first(where: { name == "perdition.\($0.rawValue).conf" }) else {
        return nil
      }
      self = named
    }
  }
}

/// How TLS is used by an instance, from its ssl_mode.
struct PerditionTLS: Equatable, Sendable {
  let listen: TLSPolicy
  let outgoing: BackendTLS
  /// STARTTLS if the backend offers it, plain text if not.
  let isOpportunistic: Bool
  /// Both kinds are asked for on one side.
  let isContradictory: Bool
  /// Words that Perdition does not know.
  let unknown: [String]
  /// What follows from the protocol, not from ssl_mode.
  let isByProtocol: Bool

  init(_ instance: PerditionInstance) {
    var words = Set<String>()
    var unknown: [String] = []
    for word in instance.list(.tlsMode) {
      if PerditionTLS.known.contains(word.lowercased()) {
        words.insert(word.lowercased())
      } else {
        unknown.append(word)
      }
    }
    isByProtocol = words.isEmpty
    if words.isEmpty, [.imap4s, .pop3s].contains(instance.mailProtocol) { words = ["ssl_all"] }
    let isForced = !words.isDisjoint(with: ["tls_listen_force", "tls_all_force"])
    let offers = isForced || !words.isDisjoint(with: ["tls_listen", "tls_all"])
    let isImplicit = !words.isDisjoint(with: ["ssl_listen", "ssl_all"])
    listen = isImplicit ? .implicit : isForced ? .startTLSRequired : offers ? .startTLS : .off
    let demands = !words.isDisjoint(with: ["tls_outgoing_force", "tls_all_force"])
    let asks = demands || !words.isDisjoint(with: ["tls_outgoing", "tls_all"])
    let isImplicitOut = !words.isDisjoint(with: ["ssl_outgoing", "ssl_all"])
    outgoing = isImplicitOut ? .implicit : asks ? .startTLS : .off
    isOpportunistic = !isImplicitOut && asks && !demands
    isContradictory = isImplicit && offers || isImplicitOut && asks
    self.unknown = unknown
  }

  static let known: Set<String> = [
    "none", "ssl_listen", "ssl_outgoing", "ssl_all", "tls_listen", "tls_outgoing", "tls_all", "tls_listen_force",
    "tls_outgoing_force", "tls_all_force",
  ]
}

/// For what an option about names counts.
struct PerditionStates: Equatable, Hashable, Sendable {
  /// proxyd's names of the states, in its order.
  private(set) var states: [String] = []
  /// Labels of the host's name to cut, of add_domain alone.
  private(set) var depth = 1
  /// Words that Perdition does not know.
  private(set) var unknown: [String] = []

  init(_ instance: PerditionInstance, _ option: PerditionOption) {
    var found = Set<String>()
    for word in instance.list(option) {
      switch word.lowercased() {
      case "servername_lookup", "server_lookup": found.insert("lookup")
      case "local_authentication", "local_auth": found.insert("check")
      case "remote_login": found.insert("backend")
      case "all": found.formUnion(["lookup", "check", "backend"])
      default:
        if option == .addDomain, let number = Int(word), number >= 0 { depth = number } else { unknown.append(word) }
      }
    }
    states = ["lookup", "check", "backend"].filter { found.contains($0) }
  }

  /// The same without a state.
  func without(_ state: String) -> PerditionStates {
    var copy = self
    copy.states.removeAll { $0 == state }
    return copy
  }
}

/// A server with or without a port, as Perdition reads it: `[user<delimiter>]host[:port]`.
package struct PerditionServer: Hashable, Sendable {
  /// Before the last delimiter; nil if there is none.
  package let user: String?
  /// The host, v6 in brackets.
  package let host: String
  /// A number or a service's name; nil if there is none.
  package let port: String?

  /// Never fails: what is no host is seen later.
  package init(_ text: String, delimiter: String) {
    var rest = text[...]
    if !delimiter.isEmpty, let place = text.lastRange(of: delimiter) {
      user = String(text[..<place.lowerBound])
      rest = text[place.upperBound...]
    } else {
      user = nil
    }
    if rest.hasPrefix("["), let close = rest.lastIndex(of: "]") {
      let behind = rest[rest.index(after: close)...]
      host = String(rest[...close])
      port = behind.hasPrefix(":") ? String(behind.dropFirst()) : nil
    } else if let colon = rest.lastIndex(of: ":") {
      host = String(rest[..<colon])
      port = String(rest[rest.index(after: colon)...])
    } else {
      host = String(rest)
      port = nil
    }
  }

  /// `host[:port]` with the port as a number; nil if the port is a name that is not known.
  package var backend: String? {
    // A literal v6 address without brackets loses its last group to the port.
    guard host.hasPrefix("[") || !host.contains(":") else { return nil }
    guard let port, !port.isEmpty else { return host }
    return PerditionServer.number(port).map { "\(host):\($0)" }
  }

  /// A port's number, of a number or of a mail service's name.
  package static func number(_ port: String) -> UInt16? {
    if let number = UInt16(port), number > 0, port.allSatisfy(\.isNumber) { return number }
    let services: [String: UInt16] = [
      "imap": 143, "imap2": 143, "imaps": 993, "pop3": 110, "pop-3": 110, "pop3s": 995, "sieve": 4190, "imap3": 220,
      "pop2": 109, "pop-2": 109,
    ]
    return services[port]
  }
}

extension String {
  /// Where the text stands last.
  func lastRange(of text: String) -> Range<Index>? {
    var start = endIndex
    while start > startIndex {
      start = index(before: start)
      if self[start...].hasPrefix(text) { return start..<index(start, offsetBy: text.count) }
    }
    return nil
  }
}

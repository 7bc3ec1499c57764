/// The words of nginx's directives: times, places to listen, switches.

internal import Protocols

enum NginxTime {
  private static let units: [(name: String, milliseconds: Int)] = [
    ("ms", 1), ("y", 31_536_000_000), ("M", 2_592_000_000), ("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000),
    ("m", 60_000), ("s", 1_000),
  ]

  /// Milliseconds of `60`, `60s`, `1m 30s` or `500ms`; nil if the text is none of these.
  static func milliseconds(_ text: String) -> Int? {
    var rest = text[...]
    var total = 0
    guard !rest.isEmpty else { return nil }
    while !rest.isEmpty {
      let digits = rest.prefix { ("0"..."9").contains($0) }
      guard !digits.isEmpty, digits.count <= 9, let number = Int(digits) else { return nil }
      rest = rest.dropFirst(digits.count)
      if let unit = units.first(where: { rest.hasPrefix($0.name) }) {
        total += number * unit.milliseconds
        rest = rest.dropFirst(unit.name.count)
      } else {
        guard rest.isEmpty || rest.first == " " else { return nil }
        total += number * 1_000
      }
      rest = rest.drop { $0 == " " }
    }
    return total
  }

  /// As proxyd writes it.
  static func text(_ milliseconds: Int) -> String {
    milliseconds % 1_000 == 0 ? "\(milliseconds / 1_000)s" : "\(milliseconds)ms"
  }
}

/// A protocol of nginx's mail proxy.
enum NginxProtocol: String, Hashable, Sendable {
  case imap, pop3, smtp

  /// The protocol nginx takes for a port.
  init?(port: Int) {
    switch port {
    case 143, 993: self = .imap
    case 110, 995: self = .pop3
    case 25, 465, 587: self = .smtp
    default: return nil
    }
  }
}

/// A `listen` of a server.
struct NginxListen: Equatable, Sendable {
  let directive: NginxDirective
  let place: Place
  var isTLS = false
  var isHeaded = false
  /// Parameters that have no counterpart.
  var odd: [String] = []

  enum Place: Equatable, Sendable {
    /// As proxyd has it, and whether nginx would have understood another thing by it.
    case address(String, note: String?)
    case unusable(String)
  }

  /// The port, if there is one.
  let port: Int?

  init(_ directive: NginxDirective, isAddress: (String) -> Bool) {
    self.directive = directive
    let text = directive.words.first ?? ""
    var isWide = false
    for word in directive.words.dropFirst() {
      switch word {
      case "ssl": isTLS = true
      case "proxy_protocol": isHeaded = true
      case "ipv6only=off": isWide = true
      case "bind", "default", "ipv6only=on": break
      default: odd.append(word)
      }
    }
    if text.hasPrefix("unix:") {
      place = .unusable("proxyd listens on addresses, not on UNIX sockets")
      port = nil
      return
    }
    let parts = NginxListen.parts(text)
    let number = Int(parts.port).flatMap { (1...65_535).contains($0) ? $0 : nil }
    port = number
    guard let number else {
      place = .unusable("it has no port")
      return
    }
    switch parts.host {
    case "*", "": place = .address("0.0.0.0:\(number)", note: nil)
    case "localhost": place = .address("127.0.0.1:\(number)", note: "nginx asks the resolver for localhost")
    case "[::]" where isWide: place = .address("*:\(number)", note: nil)
    default:
      let bare =
        parts.host.hasPrefix("[") && parts.host.hasSuffix("]")
        ? String(parts.host.dropFirst().dropLast()) : parts.host
      place =
        isAddress(bare)
        ? .address("\(parts.host):\(number)", note: nil)
        : .unusable("a listener's address must be a literal one, and \"\(parts.host)\" is none")
    }
  }

  /// A port alone, or what is before and behind the last colon outside brackets.
  private static func parts(_ text: String) -> (host: String, port: String) {
    if text.allSatisfy({ ("0"..."9").contains($0) }) { return ("*", text) }
    guard let colon = text.lastIndex(of: ":"), !text[colon...].contains("]") else { return (text, "") }
    return (String(text[..<colon]), String(text[text.index(after: colon)...]))
  }
}

/// Decides which of several identities a client means by the name it asks for.

struct TLSNames: Equatable, Sendable {
  /// Places by name, in small letters.
  private var exact: [String: Int] = [:]
  /// Places by what follows `*.`.
  private var wild: [String: Int] = [:]

  /// The names of each identity; where two have one name, it is the first's.
  init(_ names: [[String]]) {
    for (place, names) in names.enumerated() {
      for name in names.map(TLSNames.folded) {
        if name.hasPrefix("*.") {
          let parent = String(name.dropFirst(2))
          wild[parent] = wild[parent] ?? place
        } else {
          exact[name] = exact[name] ?? place
        }
      }
    }
  }

  /// An exact name wins over a wildcard, which stands for one label and not for several (RFC 9525 §6.3).
  func place(of name: String) -> Int? {
    let name = TLSNames.folded(name)
    if let place = exact[name] { return place }
    guard let dot = name.firstIndex(of: "."), dot != name.startIndex else { return nil }
    return wild[String(name[name.index(after: dot)...])]
  }

  /// Some clients send the root's dot, against RFC 6066 §3.
  private static func folded(_ name: String) -> String {
    let name = name.hasSuffix(".") ? name.dropLast() : name[...]
    // Host names are ASCII; other letters are left to differ.
    return String(decoding: name.utf8.map { (0x41...0x5A).contains($0) ? $0 | 0x20 : $0 }, as: UTF8.self)
  }
}

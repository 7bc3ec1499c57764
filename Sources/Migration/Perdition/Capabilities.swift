/// What an instance announces before the login, as proxyd's key has it.

internal import Protocols

/// What an instance announces before the login.
struct Capabilities: Equatable {
  /// The option it comes from.
  let option: PerditionOption
  /// The words for the key `capabilities`; nil if nothing is set.
  let words: [String]?
  /// Words that follow from other keys, or can't be announced.
  let dropped: [String]

  init(_ instance: PerditionInstance) {
    let own: PerditionOption =
      switch instance.mailProtocol.mailProtocol {
      case .imap: .imapCapability
      case .pop3: .popCapability
      case .manageSieve: .sieveCapability
      }
    option = instance.value(own) == nil && instance.value(.capability) != nil ? .capability : own
    guard let text = instance.value(option) else {
      words = nil
      dropped = []
      return
    }
    switch instance.mailProtocol.mailProtocol {
    case .pop3:
      words = []
      dropped = [text]
    case .imap:
      let all = text.split(separator: " ").map(String.init)
      let unfit = all.filter { word in
        let upper = word.uppercased()
        return upper == "STARTTLS" || upper == "LOGINDISABLED" || upper.hasPrefix("AUTH=")
          || !Capabilities.isPlain(word)
      }
      dropped = unfit
      words = all.filter { !unfit.contains($0) }
    case .manageSieve:
      let lines = Capabilities.sieveLines(text)
      words = lines.first { $0.name == "SIEVE" }?.value.split(separator: " ").map(String.init).filter(
        Capabilities.isPlain)
      dropped = lines.filter { $0.name != "SIEVE" }.map(\.name)
    }
  }

  private static func isPlain(_ word: String) -> Bool {
    word.utf8.allSatisfy { $0 > 0x20 && $0 < 0x7F && !"\"\\(){}[]".utf8.contains($0) }
  }

  /// `"SIEVE" "fileinto reject"  "SASL" "PLAIN"`: lines with two blanks between.
  private static func sieveLines(_ text: String) -> [(name: String, value: String)] {
    var strings: [String] = []
    var current: String?
    for character in text {
      if character == "\"" {
        if let string = current {
          strings.append(string)
          current = nil
        } else {
          current = ""
        }
      } else {
        current?.append(character)
      }
    }
    let names: Set<String> = [
      "IMPLEMENTATION", "SIEVE", "SASL", "NOTIFY", "VERSION", "STARTTLS", "MAXREDIRECTS", "LANGUAGE", "OWNER",
    ]
    var lines: [(name: String, value: String)] = []
    var index = 0
    while index < strings.count {
      let name = strings[index].uppercased()
      let hasValue = index + 1 < strings.count && !names.contains(strings[index + 1].uppercased())
      lines.append((name, hasValue ? strings[index + 1] : ""))
      index += hasValue ? 2 : 1
    }
    return lines
  }
}

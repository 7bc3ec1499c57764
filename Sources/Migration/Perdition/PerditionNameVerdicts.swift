/// What became of options of names and maps.

internal import Protocols

extension PerditionVerdicts {
  func mapLibrary() -> Answer {
    let manner = group.manner
    return manner.isClosed && config.routes.verdict.verdict == .lost
      ? (.lost, config.routes.verdict.text) : config.routes.verdict
  }

  func mapLibraryOption() -> Answer {
    let manner = group.manner
    if manner.map == .none { return (.notNeeded, "there is no map.") }
    return (
      config.routes.verdict.verdict,
      instance.has(.mapLibrary) ? "see map_library." : config.routes.verdict.text
    )
  }

  func queryKey() -> Answer {
    let manner = group.manner
    guard !manner.keys.isEmpty else { return (.notNeeded, "it is empty: the whole name is the key.") }
    let unknown = manner.keys.filter { PerditionVerdicts.hasUnknownEscape($0) }
    if !unknown.isEmpty {
      return (
        .lost,
        "\(unknown.joined(separator: ", ")) has an escape that Perdition does not know, and its lookup fails there. "
          + "Known are \\U \\u "
          + "\\D \\d \\i \\I \\p \\P \\\\; in the file a backslash is written twice or in single quotes."
      )
    }
    guard manner.map != .none else { return (.notNeeded, "there is no map to ask.") }
    let plain = manner.keys.filter { !$0.contains("\\") }
    let hint =
      plain.isEmpty
      ? "" : " (\(plain.joined(separator: ", ")) is the same for everybody: likely a backslash was eaten.)"
    return (.carried, "keys: [\(manner.keys.joined(separator: ", "))] of the source.\(hint)")
  }

  func domainDelimiter(_ value: String) -> Answer {
    return value == "@"
      ? (.notNeeded, "that is proxyd's own.")
      : (.carried, "names.delimiter: \(value), in names and in the map's answers.")
  }

  func stripDomain(_ option: PerditionOption) -> Answer {
    let manner = group.manner
    return states(option, "strip-domain", manner.strip)
  }

  func addDomain(_ option: PerditionOption) -> Answer {
    let manner = group.manner
    let answer = states(option, "add-domain", manner.add)
    guard answer.verdict == .carried else { return answer }
    let domain = manner.domain.map { "domain: \($0)" } ?? "domain-of-address: \(min(10, manner.add.depth))"
    return (.carried, "\(answer.text) With \(domain).")
  }

  func explicitDomain(_ value: String) -> Answer {
    let manner = group.manner
    return manner.domain == nil
      ? (.notNeeded, "without add_domain it has no effect.") : (.carried, "names.domain: \(value).")
  }

  func lowerCase(_ option: PerditionOption) -> Answer {
    let manner = group.manner
    let all = PerditionStates(instance, .lowerCase)
    let answer = states(option, "lower-case", manner.lower)
    if manner.lower.states.isEmpty, all.unknown.isEmpty {
      return (.notNeeded, "proxyd always looks up names in lower case.")
    }
    return answer
  }

  func clientServerSpecification() -> Answer {
    let manner = group.manner
    let known = manner.servers + config.routes.servers
    guard !known.isEmpty else { return (.lost, "see \"Users and servers\" below.") }
    return (
      .changed,
      "the route `client-named` takes user\(manner.delimiter)server for the \(Set(known).count) servers that the map "
        + "and outgoing_server "
        + "name. Perdition connects to any host and port a client names; add to the list what clients need."
    )
  }

  func states(_ option: PerditionOption, _ key: String, _ taken: PerditionStates) -> Answer {
    let own = PerditionStates(instance, option)
    if !own.unknown.isEmpty {
      let words = own.unknown.map { "\"\($0)\"" }.joined(separator: ", ")
      return (
        .changed,
        "names.\(key): [\(taken.states.joined(separator: ", "))]. Perdition drops \(words), which it does not know "
          + "(a blank behind a "
          + "comma is part of the word), and so did the import."
      )
    }
    if taken.states.isEmpty {
      return (
        .notNeeded, own.states.isEmpty ? "no state is named." : "it has no effect with client_server_specification."
      )
    }
    return (.carried, "names.\(key): [\(taken.states.joined(separator: ", "))].")
  }

  static func hasUnknownEscape(_ key: String) -> Bool {
    var rest = key[...]
    while let character = rest.popFirst() {
      guard character == "\\" else { continue }
      guard let next = rest.popFirst(), "UuDdiIpP\\".contains(next) else { return true }
    }
    return false
  }
}

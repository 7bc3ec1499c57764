/// What became of options of listeners, servers and the process.

internal import Protocols

extension PerditionVerdicts {
  func mailProtocol() -> Answer {
    return (.carried, "listeners[].protocol: \(instance.mailProtocol.mailProtocol.rawValue).")
  }

  func bindAddress() -> Answer {
    var texts: [String] = []
    var verdict = Verdict.carried
    for address in config.addresses[instance.label] ?? [] {
      switch address {
      case .listener(let text): texts.append("a listener at \(text)")
      case .unusable(let text, let why):
        verdict = .lost
        texts.append("no listener for \(text): \(why)")
      }
    }
    return (verdict, texts.joined(separator: "; ") + ".")
  }

  func listenPort(_ value: String) -> Answer {
    guard PerditionServer.number(value) != nil else {
      return (
        .lost, "\"\(value)\" is no port's number and no mail service's name. Write the number and import again."
      )
    }
    return (.carried, "the port in listeners[].address.")
  }

  func connectionLimit(_ option: PerditionOption) -> Answer {
    guard instance.number(option) != 0 else { return (.notNeeded, "0 is no limit.") }
    guard let sessions = SharedNumbers.sessions(group.instances) else {
      return (
        .changed, "not all instances of this configuration have a limit, so there is none but that of open files."
      )
    }
    return (
      .changed,
      "limits.sessions: \(sessions), of all instances together. Beyond it clients wait; Perdition's daemon ends there."
    )
  }

  func inetdMode() -> Answer {
    return (
      .lost,
      "proxyd is one process that listens by itself. Take the line out of inetd's configuration and start proxyd "
        + "instead; the port "
        + "is that of the protocol unless listen_port says otherwise."
    )
  }

  func username(_ option: PerditionOption, _ value: String) -> Answer {
    let key = option == .username ? "user" : "group"
    let taken = group.instances.lazy.compactMap { $0.value(option) }.first
    guard let taken, taken == value else {
      return (
        .changed, "another instance says \"\(taken ?? "")\", and one process has one: \(key): \(taken ?? "nobody")."
      )
    }
    return (
      .carried, "\(key): \(value). What is read again while it runs, certificates' keys too, must be readable to it."
    )
  }

  func noLookup() -> Answer {
    return (
      .notNeeded,
      "it only kept the address in the banner numeric. (It never switched the map off, whatever its name.)"
    )
  }

  func outgoingPort(_ value: String) -> Answer {
    guard let port = PerditionServer.number(value) else {
      return (
        .lost, "\"\(value)\" is no port's number and no mail service's name. Write the number and import again."
      )
    }
    guard chosen?.port == port else { return (.changed, "see \"the way to the backends\" below.") }
    return (.carried, "the port of servers that are named without one, \(port).")
  }

  func outgoingServer() -> Answer {
    let servers = OutgoingServers(instance).servers
    var texts = ["backends and the route `default`, for users whom nothing else knows"]
    if servers.count > 1 { texts.append("the \(servers.count) take turns") }
    if servers.contains(where: { $0.user != nil }) {
      texts.append("a user in front of a server is passed over, as before")
    }
    let bad = servers.filter { $0.backend == nil }.map { "\($0.host):\($0.port ?? "")" }
    if !bad.isEmpty {
      return (.lost, "\(bad.joined(separator: ", ")): the port is no number and no mail service's name.")
    }
    return (.carried, texts.joined(separator: "; ") + ".")
  }
}

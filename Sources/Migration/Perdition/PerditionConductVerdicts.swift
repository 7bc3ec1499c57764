/// What became of options of logins, times, the log and what is announced.

internal import Protocols

extension PerditionVerdicts {
  func authenticateIn() -> Answer {
    if instance.mailProtocol == .managesieve {
      return (
        .changed,
        "password-check: { pam: perdition }. With ManageSieve Perdition fails there always; proxyd does not."
      )
    }
    return (
      .carried,
      "password-check: { pam: perdition }; the service's file in /etc/pam.d stays. It takes a proxyd built with "
        + "TRAITS=PAM."
    )
  }

  func loginDisabled() -> Answer {
    return (
      .changed,
      "a first route refuses everybody, for this configuration's listeners alone. LOGINDISABLED is not announced; a "
        + "proxyd that is "
        + "not started says it better."
    )
  }

  func okayLine(_ value: String) -> Answer {
    if instance.has(.serverResponseLine) || instance.has(.serverOkayLine) {
      return (.notNeeded, "with server_resp_line it has no effect.")
    }
    if value.isEmpty { return (.notNeeded, "it is empty.") }
    switch OwnWords.read(value, .loginOK, instance.mailProtocol.mailProtocol) {
    case .success: return (.carried, "listeners[].login-ok.")
    case .failure(let fault): return (.changed, "the backend's own words are passed on: \(fault.rawValue).")
    }
  }

  func authenticateTimeout(_ option: PerditionOption) -> Answer {
    let text = SharedNumbers.login(group.instances) ?? ""
    switch instance.number(option) ?? 0 {
    case 0:
      return (
        .changed, "timeouts.login: \(text), the longest there is; a client that never logs in is not kept for ever."
      )
    case 3_601...: return (.changed, "timeouts.login: \(text), the longest there is.")
    default:
      return (
        .carried, "timeouts.login: \(text). It runs from the connection on, and is not put off by what a client says."
      )
    }
  }

  func connectRelog(_ option: PerditionOption) -> Answer {
    guard let seconds = SharedNumbers.repetition(group.instances) else {
      return (.notNeeded, "0 is never; log.repeat is left out.")
    }
    return seconds == instance.number(option)
      ? (.carried, "log.repeat: \(seconds)s.") : (.changed, "log.repeat: \(seconds)s, the shortest of all instances.")
  }

  func logFacility(_ value: String) -> Answer {
    let taken = group.instances.lazy.compactMap { $0.value(.logFacility) }.first ?? ""
    if taken != value { return (.changed, "another instance says \"\(taken)\", and one process has one log.") }
    if ["-", "+"].contains(value) { return (.carried, "log.to: stderr.") }
    if value.hasPrefix("/") {
      return (
        .carried,
        "log.to: \(value). It is opened anew on SIGHUP, and must be writable to the user then."
      )
    }
    return value == "mail"
      ? (.carried, "log.to: syslog, whose facility is mail.")
      : (
        .changed,
        "log.to: syslog; the facility is always mail, not \(value). Let the syslog daemon sort by the program's "
          + "name, proxyd."
      )
  }

  func quiet() -> Answer {
    if instance.has(.debug) { return (.notNeeded, "debug overrides it.") }
    if group.instances.contains(where: { $0.has(.debug) }) {
      return (.changed, "another instance of this configuration has debug, which overrides it for all.")
    }
    return group.instances.allSatisfy { $0.has(.quiet) }
      ? (.carried, "log.level: error.")
      : (.changed, "other instances of this configuration are not quiet, and nor is it.")
  }

  func connectionLogging() -> Answer {
    return instance.has(.debug)
      ? (.changed, "what is said is never logged, since passwords are in it; log.level: debug tells the steps.")
      : (.notNeeded, "without debug it has no effect.")
  }

  func logPassword(_ value: String) -> Answer {
    return value.lowercased() == "never"
      ? (.notNeeded, "proxyd never logs a password.")
      : (.changed, "proxyd never logs a password; there is no way to make it.")
  }

  func capability(_ option: PerditionOption, _ value: String) -> Answer {
    return capabilities(option, value)
  }

  func timeout() -> Answer {
    let text = SharedNumbers.idle(group.instances) ?? ""
    guard let own = instance.number(.timeout), own > 0 else {
      return (.changed, "timeouts.idle: \(text), the longest there is; a session is not kept for ever without a byte.")
    }
    var warning = ""
    if own < 1_860 {
      warning =
        " Clients in IMAP IDLE are silent for up to 29 minutes, and are cut off by less than 31m; leave the key out "
        + "for that."
    }
    return text == "\(own)s"
      ? (.carried, "timeouts.idle: \(text).\(warning)")
      : (.changed, "timeouts.idle: \(text), the longest of all instances.\(warning)")
  }

  func capabilities(_ option: PerditionOption, _ value: String) -> Answer {
    guard !value.isEmpty else { return (.notNeeded, "it is empty.") }
    let taken = Capabilities(instance)
    guard taken.option == option else {
      return (.notNeeded, "it is not for this protocol, or the option for this protocol counts.")
    }
    if instance.mailProtocol.mailProtocol == .pop3 {
      return (.changed, "POP3 has no such list in proxyd: it announces what it can do, and nothing else.")
    }
    let dropped = taken.dropped.joined(separator: ", ")
    let follows =
      dropped.isEmpty
      ? "" : " Left out: \(dropped) (it follows from `tls` and `mechanisms`, or is proxyd's own to say)."
    guard let words = taken.words, !words.isEmpty else {
      return (.changed, "nothing is left for listeners[].capabilities, so proxyd's usual ones are announced.\(follows)")
    }
    return (
      dropped.isEmpty ? .carried : .changed, "listeners[].capabilities: \(words.joined(separator: " ")).\(follows)"
    )
  }
}

/// Reads what a backend says to a probe, and knows what a probe says, in each protocol.

/// What a line means where it stands.
enum ProbeWord: Equatable, Sendable {
  /// Nothing yet.
  case more
  /// A capability that stands for TLS.
  case startTLS
  /// IMAP's goodbye before the answer to LOGOUT.
  case bye
  case good
  case bad(ProbeFault)

  // MARK: Said

  static func startTLSCommand(_ mailProtocol: MailProtocol) -> StaticString {
    switch mailProtocol {
    case .imap: "S STARTTLS\r\n"
    case .pop3: "STLS\r\n"
    case .manageSieve: "STARTTLS\r\n"
    }
  }

  static func goodbyeCommand(_ mailProtocol: MailProtocol) -> StaticString {
    switch mailProtocol {
    case .imap: "Q LOGOUT\r\n"
    case .pop3: "QUIT\r\n"
    case .manageSieve: "LOGOUT\r\n"
    }
  }

  // MARK: Heard

  /// A line of the greeting. RFC 9051 §7.1.4: PREAUTH would be somebody's mailbox without a login.
  static func greeting(_ line: Span<UInt8>, _ mailProtocol: MailProtocol) -> ProbeWord {
    switch mailProtocol {
    case .imap: return line.begins(with: "* OK") ? .good : .bad(.badGreeting)
    case .pop3: return line.begins(with: "+OK") ? .good : .bad(.badGreeting)
    case .manageSieve:
      var reader = ManageSieveReader()
      if let name = ManageSieveReader.value(reader.next(line), line) {
        return name.span.equalsIgnoringCase("STARTTLS") ? .startTLS : .more
      }
      return ManageSieveStatus.read(line)?.status == .ok ? .good : .bad(.badGreeting)
    }
  }

  /// A line of the answer to STARTTLS or STLS.
  static func startTLS(_ line: Span<UInt8>, _ mailProtocol: MailProtocol) -> ProbeWord {
    switch mailProtocol {
    case .imap:
      if line.begins(with: "S OK") { return .good }
      if line.begins(with: "* BYE") { return .bad(.protocolError) }
      return line.begins(with: "*") ? .more : .bad(line.begins(with: "S") ? .noTLS : .protocolError)
    case .pop3: return line.begins(with: "+OK") ? .good : .bad(.noTLS)
    case .manageSieve: return ManageSieveStatus.read(line)?.status == .ok ? .good : .bad(.noTLS)
    }
  }

  /// A line of the answer to LOGOUT or QUIT.
  static func goodbye(_ line: Span<UInt8>, _ mailProtocol: MailProtocol) -> ProbeWord {
    switch mailProtocol {
    case .imap:
      if line.begins(with: "Q OK") { return .good }
      if line.begins(with: "* BYE") { return .bye }
      return line.begins(with: "*") ? .more : .bad(.protocolError)
    case .pop3: return line.begins(with: "+OK") ? .good : .bad(.protocolError)
    case .manageSieve: return ManageSieveStatus.read(line)?.status == .ok ? .good : .bad(.protocolError)
    }
  }
}

/// Finds where a line ends; in ManageSieve its literals belong to it.
enum ProbeFramer: Equatable, Sendable {
  case lines(LineFramer)
  case sieve(ManageSieveFramer)

  init(_ mailProtocol: MailProtocol) {
    switch mailProtocol {
    case .imap, .pop3: self = .lines(LineFramer())
    case .manageSieve: self = .sieve(ManageSieveFramer())
    }
  }

  /// The line at the front of `input`, which holds all bytes not consumed so far.
  mutating func next(in input: Span<UInt8>) -> ManageSieveFramer.Outcome {
    switch self {
    case .lines(var lines):
      let line = lines.nextLine(in: input)
      self = .lines(lines)
      guard let line else { return input.count > Limits.backendLine ? .tooLong : .incomplete }
      return line.end > Limits.backendLine ? .tooLong : .line(text: line.text.upperBound, end: line.end)
    case .sieve(var framer):
      let outcome = framer.next(in: input, limit: Limits.backendLine)
      self = .sieve(framer)
      return outcome
    }
  }
}

extension Span<UInt8> {
  /// Whether the first words are these, letters compared without regard to case.
  fileprivate func begins(with words: StaticString) -> Bool {
    startsIgnoringCase(with: words) && (count == words.utf8CodeUnitCount || self[words.utf8CodeUnitCount] == .space)
  }
}

/// Decides what to say to a POP3 backend to log a user in there.
///
/// One round trip after the greeting: USER and PASS go in one write, AUTH PLAIN with its initial response.
package struct POP3BackendDialogue: Equatable, Sendable {
  private var state = State.greeting(LineFramer())
  private let trust: ChannelTrust

  private enum State: Equatable, Sendable {
    case greeting(LineFramer)
    /// USER and PASS were sent; USER's answer comes first.
    case user(LineFramer)
    /// The answer that decides is awaited. `hasResponse`: AUTH's response is said already.
    case answer(LineFramer, hasResponse: Bool)
    case over
  }

  /// The trust is the proof that the driver took the steps which the operator wants before a secret is said.
  package init(trust: ChannelTrust) { self.trust = trust }

  /// What it waits for, for people.
  package var doing: BackendDoing {
    switch state {
    case .greeting: .greeting
    case .user, .answer, .over: .answer
    }
  }

  /// Takes at most one line from the front of `input`. `out` may hold the password afterwards.
  package mutating func receive(
    _ input: Span<UInt8>, _ draft: borrowing LoginDraft, _ out: inout [UInt8]
  ) -> BackendStep {
    switch state {
    case .greeting(var lines):
      guard let line = lines.nextLine(in: input) else { return needLine(input, .greeting(lines)) }
      return greeting(input.extracting(line.text), line.end, draft, &out)
    case .user(var lines):
      guard let line = lines.nextLine(in: input) else { return needLine(input, .user(lines)) }
      guard POP3Status(input.extracting(line.text)) == .ok else { return decide(input.extracting(line.text), line.end) }
      state = .answer(LineFramer(), hasResponse: true)
      return BackendStep(line.end, .proceed)
    case .answer(var lines, let hasResponse):
      guard let line = lines.nextLine(in: input) else {
        return needLine(input, .answer(lines, hasResponse: hasResponse))
      }
      guard !hasResponse, POP3Status(input.extracting(line.text)) == .more else {
        return decide(input.extracting(line.text), line.end)
      }
      SASLExchange.appendPlain(draft, to: &out)
      out.endLine()
      state = .answer(LineFramer(), hasResponse: true)
      return BackendStep(line.end, .proceed)
    case .over: preconditionFailure("bytes given to a dialogue that is over")
    }
  }

  private mutating func needLine(_ input: Span<UInt8>, _ next: State) -> BackendStep {
    guard input.count <= Limits.backendLine else {
      return fail(.protocolError, input.extracting(first: 80), input.count)
    }
    state = next
    return BackendStep(0, .read)
  }

  private mutating func greeting(
    _ line: Span<UInt8>, _ consumed: Int, _ draft: borrowing LoginDraft, _ out: inout [UInt8]
  ) -> BackendStep {
    guard POP3Status(line) == .ok else { return fail(.badGreeting, line, consumed) }
    switch draft.method {
    case .command:
      out.append("USER ")
      out.append(draft.name.span)
      out.append("\r\nPASS ")
      out.append(draft.password.span)
      out.endLine()
      state = .user(LineFramer())
    case .sasl:
      let start = out.count
      out.append("AUTH PLAIN ")
      SASLExchange.appendPlain(draft, to: &out)
      // RFC 5034 §4: a line with an initial response has at most 255 bytes, CRLF included; a longer response waits for
      // the "+".
      let fits = out.count - start <= 253
      if !fits {
        for index in start..<out.count { out[index] = 0 }
        out.removeLast(out.count - start)
        out.append("AUTH PLAIN")
      }
      out.endLine()
      state = .answer(LineFramer(), hasResponse: fits)
    }
    return BackendStep(consumed, .proceed)
  }

  private mutating func decide(_ line: Span<UInt8>, _ consumed: Int) -> BackendStep {
    switch POP3Status(line) {
    case .ok:
      state = .over
      return BackendStep(consumed, .accepted(POP3Status.answer(line)))
    case .error:
      state = .over
      let answer = POP3Status.answer(line)
      return BackendStep(consumed, .refused(POP3BackendDialogue.refusal(answer), answer))
    case .more, nil: return fail(.protocolError, line, consumed)
    }
  }

  /// RFC 3206. The words of a plain refusal are replaced: some servers tell in them which users exist.
  private static func refusal(_ answer: BackendAnswer) -> LoginRefusal {
    switch answer.codeName {
    case "", "auth": .credentials
    default: .backend(answer)
    }
  }

  private mutating func fail(_ fault: BackendFault, _ line: Span<UInt8>, _ consumed: Int) -> BackendStep {
    state = .over
    var text: [UInt8] = []
    text.appendLineSafe(line)
    return BackendStep(consumed, .failed(fault, BackendAnswer(text: text)))
  }
}

/// The first word of a POP3 server's line.
private enum POP3Status: Equatable, Sendable {
  case ok, error
  /// "+": it waits for a response (RFC 5034 §4).
  case more

  init?(_ line: Span<UInt8>) {
    let word = line.extracting(..<(line.firstIndex(of: .space) ?? line.count))
    if word.equalsIgnoringCase("+OK") {
      self = .ok
    } else if word.equalsIgnoringCase("-ERR") {
      self = .error
    } else if word.equalsIgnoringCase("+") {
      self = .more
    } else {
      return nil
    }
  }

  /// Behind the status: an optional code in brackets (RFC 2449 §8), then words for people.
  static func answer(_ line: Span<UInt8>) -> BackendAnswer {
    var answer = BackendAnswer()
    guard let blank = line.firstIndex(of: .space) else { return answer }
    let text = line.extracting((blank + 1)...)
    guard text.count > 0, text[0] == .ascii("["), let close = text.firstIndex(of: .ascii("]")) else {
      answer.text.appendLineSafe(text)
      return answer
    }
    answer.code.appendLineSafe(text.extracting(1..<close))
    let rest = text.extracting((close + 1)...)
    answer.text.appendLineSafe(rest.count > 0 && rest[0] == .space ? rest.extracting(1...) : rest)
    return answer
  }
}

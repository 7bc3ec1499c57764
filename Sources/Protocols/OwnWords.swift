/// Words for people that an operator chose instead of ours, in lines that clients read.
package struct OwnWords: Equatable, Sendable {
  /// The words; no byte of them ends a line, or is read as something else where they stand.
  package let bytes: [UInt8]

  /// Where the words stand.
  package enum Place: Equatable, Sendable, CaseIterable {
    /// In the greeting.
    case greeting
    /// In the line that tells that a login succeeded.
    case loginOK
  }

  /// Why words can't stand there.
  package enum Fault: String, Error, Equatable, Sendable, CaseIterable {
    case empty = "there are no words"
    case tooLong = "it is longer than 400 bytes"
    case controlCharacter = "it holds a control character"
    case beyondASCII = "it holds letters beyond ASCII, and this protocol's lines have none"
    case responseCode = "it begins with \"[\", from which clients read a response code"
    case timestamp = "it holds \"<\", from which clients read a time stamp for APOP"
  }

  /// RFC 1939 §3: a response has 512 bytes with its line end; the rest is for a backend's response code.
  package static let longest = 400

  /// Words that may stand there in lines of that protocol, or why these can't.
  package static func read(
    _ text: String, _ place: Place, _ mailProtocol: MailProtocol
  ) -> Result<OwnWords, Fault> {
    let bytes = Array(text.utf8)
    guard !bytes.isEmpty else { return .failure(.empty) }
    guard bytes.count <= longest else { return .failure(.tooLong) }
    // C1's controls too (U+0080 to U+009F): some terminals obey them.
    guard text.unicodeScalars.allSatisfy({ $0.value >= 0x20 && !(0x7F...0x9F).contains($0.value) }) else {
      return .failure(.controlCharacter)
    }
    let isASCII = bytes.allSatisfy { $0 < 0x80 }
    let isCode = bytes[0] == .ascii("[")
    switch (mailProtocol, place) {
    // RFC 5804 §1.2: a string, UTF-8.
    case (.manageSieve, .greeting), (.manageSieve, .loginOK): break
    // RFC 9051 §9: text is of CHAR. In the greeting a code stands before it already.
    case (.imap, .greeting): guard isASCII else { return .failure(.beyondASCII) }
    // RFC 2449 §8 has response codes for POP3.
    case (.imap, .loginOK), (.pop3, .loginOK):
      guard isASCII else { return .failure(.beyondASCII) }
      guard !isCode else { return .failure(.responseCode) }
    // RFC 1939 §7: what stands in angle brackets is what APOP's digest is made with.
    case (.pop3, .greeting):
      guard isASCII else { return .failure(.beyondASCII) }
      guard !isCode else { return .failure(.responseCode) }
      guard !bytes.contains(.ascii("<")) else { return .failure(.timestamp) }
    }
    return .success(OwnWords(bytes: bytes))
  }
}

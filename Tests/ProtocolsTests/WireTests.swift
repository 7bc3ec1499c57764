import Testing

@testable import Protocols

/// What a secret holds; a macro can't look into one itself.
private func bytes(_ secret: borrowing Secret) -> [UInt8] { secret.span.array }

private func equals(_ text: String, _ word: StaticString) -> Bool { Array(text.utf8).span.equalsIgnoringCase(word) }
private func starts(_ text: String, _ word: StaticString) -> Bool {
  Array(text.utf8).span.startsIgnoringCase(with: word)
}

struct Base64Tests {
  /// RFC 4648 §10, and what is not canonical.
  @Test(arguments: [
    ("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9vYg==", "foob"), ("Zm9vYmE=", "fooba"),
    ("Zm9vYmFy", "foobar"), ("AGFsaWNlAHNlY3JldA==", "\0alice\0secret"), ("+/+/", nil as String?),
  ])
  func decodes(_ text: String, _ expected: String?) {
    var secret = Secret()
    let works = Base64.decode(Array(text.utf8).span, into: &secret)
    #expect(works)
    let decoded = bytes(secret)
    if let expected { #expect(decoded == Array(expected.utf8)) }
  }

  @Test(arguments: [
    "Z", "Zg", "Zg=", "Zg===", "=", "====", "Zh==", "Zm9=", "Zm8=Zm8=", "Zm 8", "Zm9v\r\n", "Zm9-", "*", "Z===", "é===",
  ])
  func refuses(_ text: String) {
    var secret = Secret()
    let works = Base64.decode(Array(text.utf8).span, into: &secret)
    #expect(!works)
  }

  @Test func encodesWhatItDecodes() {
    var random = SeededGenerator(seed: 1)
    for count in 0..<200 {
      let bytes = (0..<count).map { _ in UInt8.random(in: 0...255, using: &random) }
      var text: [UInt8] = []
      Base64.encode(bytes.span, into: &text)
      var secret = Secret()
      let works = Base64.decode(text.span, into: &secret)
      #expect(works)
      let decoded = secret.span.array
      #expect(decoded == bytes)
    }
  }
}

struct SecretTests {
  @Test func growsAndEmpties() {
    var secret = Secret()
    let bytes = (0..<1_000).map { UInt8(truncatingIfNeeded: $0) }
    for byte in bytes { secret.append(byte) }
    let grown = secret.span.array
    #expect(grown == bytes)
    secret.removeAll()
    let count = secret.count
    #expect(count == 0)
    secret.append(Array("again".utf8).span)
    let again = secret.span.array
    #expect(again == Array("again".utf8))
  }

  @Test func wipesAnArray() {
    var bytes = Array("secret".utf8)
    bytes.reserveCapacity(64)
    let address = bytes.withUnsafeBufferPointer { UnsafeRawPointer($0.baseAddress!) }
    bytes.wipe()
    #expect(bytes.isEmpty)
    // The storage is the array's still: what was in it can be looked at.
    bytes.append(contentsOf: repeatElement(0xFF, count: 1))
    bytes.withUnsafeBytes { #expect($0.baseAddress == address) }
    for offset in 1..<6 { #expect(address.load(fromByteOffset: offset, as: UInt8.self) == 0) }
  }
}

struct LineFramerTests {
  @Test func findsLinesHoweverTheyCome() {
    let text = Array("one\r\ntwo\n\r\n\nthree \r x\r\n".utf8)
    for size in 1...text.count {
      var framer = LineFramer()
      var buffer: [UInt8] = []
      var lines: [String] = []
      for start in stride(from: 0, to: text.count, by: size) {
        buffer += text[start..<min(start + size, text.count)]
        while true {
          let bytes = buffer
          guard let line = framer.nextLine(in: bytes.span) else { break }
          lines.append(String(decoding: bytes[line.text], as: UTF8.self))
          buffer.removeFirst(line.end)
        }
      }
      #expect(lines == ["one", "two", "", "", "three \r x"], "pieces of \(size)")
      #expect(buffer.isEmpty)
    }
  }
}

struct ByteClassTests {
  @Test func comparesWithoutCase() {
    #expect(equals("LoGiN", "LOGIN"))
    #expect(!equals("LOGI", "LOGIN"))
    #expect(!equals("LOGINS", "LOGIN"))
    #expect(starts("* OK ready", "* ok"))
    #expect(!starts("* O", "* OK"))
    // Only letters fold: "[" and "{" differ in the same bit.
    #expect(!equals("[", "{"))
  }

  @Test func linesOfPeersStayOneLine() {
    var out: [UInt8] = []
    out.appendLineSafe(Array("a\rb\nc\0d\u{7F}é".utf8).span)
    #expect(String(decoding: out, as: UTF8.self) == "a?b?c?d?é")
  }

  @Test(arguments: 0...255 as ClosedRange<UInt8>) func tagsAreTheGrammars(_ byte: UInt8) {
    // RFC 9051 §9: atom-specials are ( ) { SP CTL % * " \ ]; a tag may have ] and not +.
    let isSpecial = byte < 0x21 || byte > 0x7E || "(){%*\"\\+".utf8.contains(byte)
    #expect(byte.isIMAPTag == !isSpecial)
  }
}

struct LoginDraftTests {
  @Test(arguments: [
    ("alice", "secret", "", nil), ("", "secret", "", LoginFault.emptyName), ("al\u{1}ice", "x", "", .badCharacters),
    ("alice\r\nDELE 1", "x", "", .badCharacters), ("alice", "pw\r\nDELE 1", "", .badCharacters),
    ("alice", "pw\n", "", .badCharacters), ("alice", "p\0w", "", .badCharacters),
    ("alice", "x", "b\0b", .badCharacters),
    ("alice", "pa\u{7}ss\tword", "", nil), ("grün", "grüße", "", nil), ("alice", "", "", nil),
  ])
  func faults(_ name: String, _ password: String, _ authorization: String, _ expected: LoginFault?) {
    var draft = LoginDraft()
    draft.name = Array(name.utf8)
    draft.authorizationIdentity = Array(authorization.utf8)
    draft.password.append(Array(password.utf8).span)
    let fault = draft.fault()
    #expect(fault == expected)
  }

  @Test func longAndBrokenNames() {
    var draft = LoginDraft()
    draft.name = [UInt8](repeating: 0x61, count: Limits.loginName)
    let fitting = draft.fault()
    #expect(fitting == nil)
    draft.name.append(0x61)
    let long = draft.fault()
    #expect(long == .longName)
    draft.name = [0x61, 0xFF]
    let broken = draft.fault()
    #expect(broken == .badCharacters)
  }

  @Test func renamesWhoeverIsAskedFor() {
    var draft = LoginDraft()
    draft.name = Array("master".utf8)
    draft.authorizationIdentity = Array("alice".utf8)
    let asked = draft.user
    #expect(asked == Array("alice".utf8))
    draft.renameUser(Array("alice2".utf8))
    let (renamed, kept) = (draft.authorizationIdentity, draft.name)
    #expect(renamed == Array("alice2".utf8))
    #expect(kept == Array("master".utf8))
    draft.reset()
    draft.name = Array("bob".utf8)
    draft.renameUser(Array("bob2".utf8))
    let (user, count) = (draft.user, draft.password.count)
    #expect(user == Array("bob2".utf8))
    #expect(count == 0)
  }
}

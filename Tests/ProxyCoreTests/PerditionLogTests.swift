import Foundation
import Logging
import Testing

@testable import Protocols
@testable import ProxyCore

/// Lines as Perdition 2.2 of Debian 12 wrote them; the test with the real one is Tests/Integration/test_perdition_log.py.
struct PerditionLineTests {
  private func ends(_ source: String = "127.0.0.1", _ destination: String = "127.0.0.1") throws -> PerditionLine.Ends {
    PerditionLine.Ends(
      source: try #require(SocketAddress(literal: source, port: 51_678)),
      destination: try #require(SocketAddress(literal: destination, port: 143)))
  }

  private func auth(
    _ user: String, _ authenticator: String = "", _ client: PerditionLine.Security = .plaintext,
    _ server: PerditionLine.Security = .plaintext, _ identity: LogIdentity = .imap4
  ) -> PerditionLine.Auth {
    PerditionLine.Auth(
      clientSecurity: client,
      names: PerditionLine.Names(user: Array(user.utf8), authenticator: Array(authenticator.utf8)),
      server: user == "nobody" ? identity.noServer : "127.0.0.1:40067", identity: identity, serverSecurity: server)
  }

  private func text(_ line: PerditionLine) -> String { String(decoding: line.text, as: UTF8.self) }

  @Test func linesAreInPerditionsWords() throws {
    let ends = try ends()
    let names = auth("alice").names
    let table: [(PerditionLine, String)] = [
      (.connect(ends), "Connect:  127.0.0.1:51678->127.0.0.1:143"),
      (.connect(try self.ends("2001:db8::1", "::1")), "Connect:  2001:db8::1:51678->::1:143"),
      (
        .auth(ends, auth("alice"), .ok),
        #"Auth: 127.0.0.1:51678->127.0.0.1:143 client-secure=plaintext authorisation_id=NONE authentication_id="alice" server="127.0.0.1:40067" protocol=IMAP4 server-secure=plaintext status="ok""#
      ),
      (
        .auth(ends, auth("nobody", "", .ssl, .plaintext, .imap4s), .failed(.noServer)),
        #"Auth: 127.0.0.1:51678->127.0.0.1:143 client-secure=ssl authorisation_id=NONE authentication_id="nobody" server="(null):imaps" protocol=IMAP4S server-secure=plaintext status="failed: Could not determine server""#
      ),
      (
        .auth(ends, auth("bob", "nobody", .starttls, .ssl, .manageSieve), .failed(.reauthentication)),
        #"Auth: 127.0.0.1:51678->127.0.0.1:143 client-secure=starttls authorisation_id="bob" authentication_id="nobody" server="127.0.0.1:40067" protocol=MANAGESIEVE server-secure=ssl status="failed: Re-Authentication Failure""#
      ),
      (
        .closing(ends, names, received: 10, sent: 64),
        #"Closing session: 127.0.0.1:51678->127.0.0.1:143 authorisation_id=NONE authentication_id="alice" received=10 sent=64"#
      ),
      (
        .closingNull(ends),
        #"Closing NULL session: 127.0.0.1:51678->127.0.0.1:143 authorisation_id=NONE authentication_id="(null)""#
      ),
      (
        .readError(ends),
        "Fatal Error reading authentication information from client 127.0.0.1:51678->127.0.0.1:143: Exiting child"
      ),
      (
        .readTimeout(ends),
        "Fatal Error: Timeout reading authentication information from client 127.0.0.1:51678->127.0.0.1:143: Exiting child"
      ),
      (.pipeTimeout, "Timeout piping data."), (.noSSL, "Fatal error establishing SSL connection to client"),
      (.noTLS, "Fatal error establishing TLS connection"),
    ]
    for (line, expected) in table { #expect(text(line) == expected) }
  }

  @Test func aNameStaysInItsField() throws {
    let name = "a\" status=\"ok\"\r\n\u{1B}\\é"
    let expected = #"authentication_id="a\" status=\"ok\"\r\n\u001b\\é" server="#
    #expect(text(.auth(try ends(), auth(name), .ok)).contains(expected))
    var names = auth("").names
    names = PerditionLine.Names(user: [0xFF, 0x00], authenticator: [])
    #expect(
      text(.closing(try ends(), names, received: 0, sent: 0)).contains(#"authentication_id="\#u{FFFD}\u0000" received"#)
    )
  }

  @Test func theIdentityIsTheListeners() {
    let table: [(MailProtocol, TLSPolicy, String)] = [
      (.imap, .off, "perdition.imap4"), (.imap, .startTLS, "perdition.imap4"),
      (.imap, .startTLSRequired, "perdition.imap4"), (.imap, .implicit, "perdition.imap4s"),
      (.pop3, .startTLS, "perdition.pop3"), (.pop3, .implicit, "perdition.pop3s"),
      (.manageSieve, .off, "perdition.managesieve"), (.manageSieve, .implicit, "perdition.managesieve"),
    ]
    for (mailProtocol, policy, tag) in table { #expect("\(LogIdentity(mailProtocol, policy).tag)" == tag) }
  }

  /// The whole table, so that whoever adds a reason says what Perdition would have.
  @Test func everyReasonHasPerditionsWords() {
    let table: [(LoginFailure.Reason, String?)] = [
      (.emptyName, "Could not determine server"), (.longName, "Could not determine server"),
      (.badCharacters, "Could not determine server"), (.unknownUser, "Could not determine server"),
      (.lookupFailed, "Could not determine server"), (.lookupBusy, "Could not determine server"), (.cancelled, nil),
      (.disabled, "Login Disabled"), (.certificateName, "local authentication failure"),
      (.wrongPassword, "local authentication failure"), (.refused, "Re-Authentication Failure"),
      (.refusedOtherwise, "Re-Authentication Failure"), (.backendUnresolved, "Could not connect to server"),
      (.noSocket, "Could not connect to server"), (.backendUnreachable, "Could not connect to server"),
      (.connectTimeout, "Could not connect to server"), (.backendTimeout, "Connection Negotiation Failure"),
      (.backendClosed, "Connection Negotiation Failure"), (.backendError, "Connection Negotiation Failure"),
      (.backendGreeting, "Connection Negotiation Failure"), (.backendProtocol, "Connection Negotiation Failure"),
      (.backendCertificate, "Connection Negotiation Failure"), (.backendTLS, "Connection Negotiation Failure"),
      (.loop, "Connection Negotiation Failure"), (.backendStartTLS, "TLS not present"),
      (.backendMechanism, "SASL mechanism unavailable"), (.nameRewritten, "SASL mechanism unavailable"),
      (.uncheckable, "SASL mechanism unavailable"), (.noMaster, "SASL mechanism unavailable"),
      (.userLimit, "Could not determine server"), (.userAddressLimit, "Could not determine server"),
      (.noMember, "Could not determine server"), (.poolFull, "Could not determine server"),
      (.moving, "Could not determine server"), (.directoryFailed, "Could not determine server"),
    ]
    #expect(Set(table.map(\.0)) == Set(LoginFailure.Reason.allCases))
    for (reason, words) in table {
      #expect(reason.perditions(.manageSieve, isGuess: true)?.rawValue == words, "\(reason)")
    }
    #expect(LoginFailure.Reason.backendStartTLS.perditions(.imap, isGuess: false) == .negotiation)
    #expect(LoginFailure.Reason.backendStartTLS.perditions(.pop3, isGuess: false) == .noTLS)
    #expect(LoginFailure.Reason.backendMechanism.perditions(.imap, isGuess: false) == .loginDisabled)
    // A backend that can't let anybody in now gets nobody banned.
    #expect(LoginFailure.Reason.refusedOtherwise.perditions(.imap, isGuess: false) == .negotiation)
  }

  @Test func everyEndHasPerditionsWords() throws {
    let ends = try ends()
    let table: [(SessionEnd.Reason, PerditionLine?)] = [
      (.logout, .closingNull(ends)), (.tooManyFailedLogins, .closingNull(ends)), (.shutdown, .closingNull(ends)),
      (.outOfMemory, .closingNull(ends)), (.clientClosed, .readError(ends)), (.clientError, .readError(ends)),
      (.startTLSInjection, .readError(ends)), (.tooManyBadCommands, .readError(ends)),
      (.commandTooLong, .readError(ends)), (.anotherProtocol, .readError(ends)), (.loginTimeout, .readTimeout(ends)),
      (.clientTLS, .noTLS), (.proxyHeader, nil), (.untrustedProxy, nil), (.backendClosed, .closingNull(ends)),
      (.backendError, .closingNull(ends)), (.idleTimeout, .closingNull(ends)),
      (.halfClosedTimeout, .closingNull(ends)), (.kicked, .closingNull(ends)), (.moved, .closingNull(ends)),
      (.backendLost, .closingNull(ends)), (.addressLimit, .closingNull(ends)),
    ]
    #expect(Set(table.map(\.0)) == Set(SessionEnd.Reason.allCases))
    for (reason, line) in table { #expect(reason.perditions(ends, .startTLS, isHandshake: false) == line, "\(reason)") }
    #expect(SessionEnd.Reason.clientTLS.perditions(ends, .implicit, isHandshake: true) == .noSSL)
    #expect(SessionEnd.Reason.clientClosed.perditions(ends, .implicit, isHandshake: true) == .noSSL)
    #expect(SessionEnd.Reason.clientError.perditions(ends, .startTLS, isHandshake: true) == .noTLS)
  }

  @Test func aTrailRepeatsOnlyWhenItIsTold() throws {
    let trail = PerditionTrail(try #require(SocketAddress(literal: "127.0.0.1", port: 1)))
    #expect(trail.extend(to: 100) == 100)
    trail.repeatLogin(after: 10, now: 50)
    #expect(trail.next == 60)
    #expect(trail.extend(to: 55) == 55)
    #expect(trail.extend(to: 200) == 60)
    #expect(trail.patience == 200)
    trail.repeatLogin(after: nil, now: 60)
    #expect(trail.next == 200)
    #expect(trail.serverSecurity == .plaintext && trail.server == nil)
  }
}

struct SyslogHeaderTests {
  @Test func itIsAsInASyslogFile() throws {
    let header = SyslogHeader(host: "mail", process: 42)
    func text(_ identity: LogIdentity, _ second: Int) -> String {
      var bytes: [UInt8] = []
      header.append(identity, second: second, to: &bytes)
      return String(decoding: bytes, as: UTF8.self)
    }
    // Whatever the zone, Foundation knows it too.
    let formatter = DateFormatter()
    formatter.locale = Locale(identifier: "en_US_POSIX")
    for second in [1_795_500_000, 1_788_220_861, 1_767_225_600] {
      let date = Date(timeIntervalSince1970: Double(second))
      formatter.dateFormat = "MMM"
      let month = formatter.string(from: date)
      formatter.dateFormat = "d"
      let day = formatter.string(from: date)
      formatter.dateFormat = "HH:mm:ss"
      let padded = day.count == 1 ? " \(day)" : day
      #expect(
        text(.imap4s, second) == "\(month) \(padded) \(formatter.string(from: date)) mail perdition.imap4s[42]: ")
    }
    #expect(text(.proxyd, 0).hasSuffix(" mail proxyd[42]: "))
  }

  @Test func everyLineOfAFileHasIt() throws {
    let folder = try Folder()
    let settings = LogSettings(format: .perdition, destination: .file(folder.file("log")))
    let log = try Log(settings)
    #expect(log.isPerdition)
    log.perdition(.pipeTimeout, .pop3s)
    log.logger.warning("odd", metadata: ["key": "x y"])
    log.flush()
    var plain = settings
    plain.format = .text
    try log.reconfigure(plain)
    #expect(!log.isPerdition)
    log.logger.notice("plain")
    log.flush()
    let lines = try String(contentsOfFile: folder.file("log"), encoding: .utf8).split(separator: "\n")
    try #require(lines.count == 3)
    let front = #/^[A-Z][a-z]{2} [ 1-3]\d \d\d:\d\d:\d\d \S+ /#
    #expect(lines[0].replacing(front, with: "") == "perdition.pop3s[\(getpid())]: Timeout piping data.")
    #expect(lines[1].replacing(front, with: "").hasPrefix("proxyd[\(getpid())]: time="))
    #expect(lines[1].hasSuffix(#" level=warning event=odd key="x y""#))
    #expect(lines[2].hasPrefix("time="))
  }

  @Test func linesNobodyWantsAreNotWritten() throws {
    let folder = try Folder()
    let log = try Log(LogSettings(level: .notice, format: .perdition, destination: .file(folder.file("log"))))
    let address = try #require(SocketAddress(literal: "127.0.0.1", port: 1))
    log.perdition(.connect(PerditionLine.Ends(source: address, destination: address)), .imap4)
    log.perdition(.pipeTimeout, .imap4)
    log.flush()
    let lines = try String(contentsOfFile: folder.file("log"), encoding: .utf8).split(separator: "\n")
    #expect(lines.count == 1 && lines[0].hasSuffix("Timeout piping data."))
  }

  @Test func journaldKnowsTheProgram() {
    let line = LogLine(.journal, level: .notice, event: "Timeout piping data.", time: nil, identity: .pop3)
    #expect(
      String(decoding: line.finish(), as: UTF8.self)
        == "MESSAGE=Timeout piping data.\nPRIORITY=5\nSYSLOG_IDENTIFIER=perdition.pop3\n")
  }
}

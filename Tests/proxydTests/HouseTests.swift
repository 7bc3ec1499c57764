import Foundation
import Testing

@testable import Protocols
@testable import ProxyCore

/// The rules of the house that the compiler does not know.
struct HouseTests {
  private struct Source {
    let path: String
    let text: String
    /// The lines without comments.
    let code: [Substring]

    init(path: String, text: String) {
      self.path = path
      self.text = text
      code = text.split(separator: "\n", omittingEmptySubsequences: false).map { line in
        line.drop { $0 == " " }.hasPrefix("//") ? "" : line
      }
    }

    /// How often a line without comments matches. Foundation's expressions, which are some twenty times as fast here as Swift's.
    func count(_ pattern: String) throws -> Int {
      let expression = try NSRegularExpression(pattern: pattern, options: .anchorsMatchLines)
      let text = code.joined(separator: "\n")
      return expression.numberOfMatches(in: text, range: NSRange(text.startIndex..., in: text))
    }
  }

  private static let everySource = Result { try read("Sources") }

  /// The sources of a folder. Those of the program are read once.
  private static func sources(_ folder: String) throws -> [Source] {
    folder == "Sources" ? try everySource.get() : try read(folder)
  }

  private static func read(_ folder: String) throws -> [Source] {
    let root = ConfigKeysTests.root.path
    let files = FileManager.default.enumerator(atPath: root + "/" + folder)?.compactMap { $0 as? String } ?? []
    return try files.filter { $0.hasSuffix(".swift") }.sorted().map {
      Source(
        path: "\(folder)/\($0)", text: try String(contentsOfFile: "\(root)/\(folder)/\($0)", encoding: .utf8))
    }
  }

  private static func committed(_ path: String) throws -> String {
    try String(contentsOf: ConfigKeysTests.root.appending(path: path), encoding: .utf8)
  }

  @Test func protocolsImportsNothing() throws {
    let sources = try HouseTests.sources("Sources/Protocols")
    #expect(sources.count > 10)
    for source in sources {
      #expect(try source.count(#"^\s*(@\w+ )*(public |package |internal )?import "#) == 0, "\(source.path)")
    }
  }

  /// A C library is spoken to in one room.
  @Test(arguments: [
    (#"\berrno\b"#, ["ProxyCore/Net/Syscall.swift"]),
    (#"\b(SSL|ERR|X509|ASN1|EVP)_\w+\("#, ["ProxyCore/TLS/"]),
    (#"\bsqlite3?_\w+\("#, ["ProxyCore/Routing/SQLiteDatabase.swift"]),
    (#"\bPQ[a-zA-Z]+\("#, ["ProxyCore/Routing/SQL/PostgreSQLServer.swift", "SQL/PostgreSQLSession.swift"]),
    (#"\bmysql_\w+\("#, ["ProxyCore/Routing/SQL/MySQLSession.swift"]),
    (#"\bpcre2_\w+\("#, ["ProxyCore/Routing/RegexPattern.swift"]),
    (#"\b(ldap|ber)_\w+\("#, ["ProxyCore/Routing/LDAP/LDAPSession.swift"]),
    (#"\b(redis[A-Z]\w*|freeReplyObject)\("#, ["ProxyCore/Routing/Stores/RedisSession.swift"]),
    (#"\bpam_\w+\("#, ["ProxyCore/Routing/Checks/PAMCheck.swift"]),
    (#"\bcrypt_\w+\("#, ["ProxyCore/Routing/Checks/CryptCheck.swift"]),
    (#"\blinux_\w+\("#, ["ProxyCore/Net/Syscall.swift", "Net/UnixCalls.swift", "Loop/PollSet.swift"]),
    (#"\bimport Yams\b"#, ["proxyd/Config/"]),
    (#"\bimport ArgumentParser\b"#, ["proxyd/Main.swift", "proxyd/Commands/"]),
    (#"\bimport Foundation\b"#, []),
    (#"\bimport FoundationEssentials\b"#, ["proxyd/Control/"]),
    (#"\b(tcsetattr|tcgetattr|ioctl)\("#, ["proxyd/Top/Terminal.swift"]),
  ])
  func roomsKeepToThemselves(_ pattern: String, _ rooms: [String]) throws {
    for source in try HouseTests.sources("Sources") where !rooms.contains(where: { source.path.contains($0) }) {
      #expect(try source.count(pattern) == 0, "\(source.path) holds \(pattern)")
    }
  }

  @Test func nothingAwaitsOnALoop() throws {
    for folder in ["Sources/ProxyCore/Loop", "Sources/ProxyCore/Session"] {
      for source in try HouseTests.sources(folder) { #expect(try source.count(#"\bawait\b"#) == 0, "\(source.path)") }
    }
  }

  /// Pinned: whoever adds one changes this number, and says why in the commit.
  @Test(arguments: [
    (#"@unchecked Sendable"#, 1), (#"nonisolated\(unsafe\)"#, 3), (#"try!"#, 0), (#"\bas!"#, 0), (#"fatalError\("#, 1),
    (#"withoutActuallyEscaping|unsafeBitCast|unsafelyUnwrapped"#, 1), (#"@_optimize\(none\)"#, 1),
    (#"\bTODO\b|\bFIXME\b"#, 0),
  ])
  func exceptionsAreCounted(_ pattern: String, _ number: Int) throws {
    let count = try HouseTests.sources("Sources").reduce(0) { try $0 + $1.count(pattern) }
    #expect(count == number, "\(pattern)")
  }

  @Test func unsafeCodeIsCounted() throws {
    let count = try HouseTests.sources("Sources").reduce(0) { try $0 + $1.count(#"\bunsafe\b"#) }
    #expect(count <= 850, "\(count) places are unsafe")
    // Who holds memory or a C object says why that is sound.
    for source in try HouseTests.sources("Sources") where try source.count(#"\bunsafe\b"#) > 2 {
      #expect(source.text.contains("SAFETY:"), "\(source.path)")
    }
  }

  /// A build for ThreadSanitizer has a lock of its own, in every module: outside ProxyCore, which shadows it, the library's is
  /// imported by name and in other builds only. `make thread` looks at the objects, too.
  @Test(arguments: ["Sources", "Tests"])
  func theSanitizerSeesEveryLock(_ folder: String) throws {
    for source in try HouseTests.sources(folder)
    where !source.path.hasPrefix("Sources/ProxyCore/") && !source.path.hasSuffix("HouseTests.swift") {
      if source.path.hasSuffix("Sanitizers/Locks.swift") { continue }
      #expect(try source.count(#"import Synchronization\b(?!\.)"#) == 0, "\(source.path)")
      let imports = try source.count(#"import struct Synchronization\.Mutex"#)
      let others = try source.count(#"#if !PROXYD_TSAN\n  (internal )?import struct Synchronization\.Mutex\n#endif"#)
      #expect(imports == others, "\(source.path)")
    }
  }

  /// Each look at a closure that stands in a Mutex by itself wraps it once more: a thousand looks later a call goes through
  /// a thousand wrappers. In a struct it stays what it is.
  @Test(arguments: ["Sources", "Tests"])
  func noClosureIsAMutexsValue(_ folder: String) throws {
    for source in try HouseTests.sources(folder) where !source.path.hasSuffix("HouseTests.swift") {
      #expect(try source.count(#"Mutex<(Optional<)?\(*(@\w+ )*\([^{}=]*->"#) == 0, "\(source.path)")
    }
  }

  @Test func filesAreShort() throws {
    for source in try HouseTests.sources("Sources") { #expect(source.code.count <= 400, "\(source.path)") }
  }

  /// One sentence at the top says what a file is for.
  @Test func filesSayWhatTheyAreFor() throws {
    for source in try HouseTests.sources("Sources") {
      let first = source.text.split(separator: "\n").first {
        !$0.hasPrefix("internal import") && !$0.hasPrefix("package import")
      }
      #expect(first?.hasPrefix("/// ") == true, "\(source.path)")
    }
  }

  @Test func packageDeclarationsAreDocumented() throws {
    let declaration = try NSRegularExpression(
      pattern: #"^\s*(@\w+ |nonisolated |nonisolated\(unsafe\) )*package (?!import)"#)
    func isDeclaration(_ line: Substring) -> Bool {
      guard line.contains("package ") else { return false }
      let text = String(line)
      return declaration.firstMatch(in: text, range: NSRange(text.startIndex..., in: text)) != nil
    }
    for source in try HouseTests.sources("Sources") {
      let lines = source.text.split(separator: "\n", omittingEmptySubsequences: false)
      for (index, line) in lines.enumerated() where isDeclaration(line) {
        let before = lines[..<index].last { !$0.drop { $0 == " " }.hasPrefix("@") } ?? ""
        let isHead = lines[..<index].allSatisfy {
          $0.isEmpty || $0.hasPrefix("///") || $0.contains("import ") || $0.hasPrefix("@")
        }
        #expect(isHead || before.drop { $0 == " " }.hasPrefix("///"), "\(source.path):\(index + 1): \(line)")
      }
    }
  }

  /// Every RFC that the code names has its line in the status table, and every line there is named by the code.
  @Test func theStatusTableHoldsTheCodesRFCs() throws {
    let number = try Regex(#"RFC (\d+)"#)
    func numbers(_ text: String) -> Set<String> { Set(text.matches(of: number).map { String(text[$0.range]) }) }
    let named = try HouseTests.sources("Sources").reduce(into: Set<String>()) { $0.formUnion(numbers($1.text)) }
    let table = try HouseTests.committed("docs/RFCStatus.md").split(separator: "\n").filter { $0.hasPrefix("| RFC ") }
    let listed = Set(table.compactMap { numbers(String($0.prefix(10))).first })
    #expect(named == listed)
  }

  /// The manual knows every reason that can stand in the log.
  @Test func theManualHoldsTheLogsReasons() throws {
    let manual = try HouseTests.committed("etc/proxyd.8")
    let words = Set(manual.split { " \n,".contains($0) }.map(String.init))
    for reason in SessionEnd.Reason.allCases { #expect(words.contains(reason.rawValue), "\(reason.rawValue)") }
    for reason in LoginFailure.Reason.allCases { #expect(words.contains(reason.rawValue), "\(reason.rawValue)") }
  }

  /// The table of answers has every reason of a failed login, and every sentence as the code says it.
  @Test func theAnswersAreTrue() throws {
    let table = try HouseTests.committed("docs/Answers.md")
    for reason in LoginFailure.Reason.allCases { #expect(table.contains("`\(reason.rawValue)`"), "\(reason.rawValue)") }
    let refusals: [LoginRefusal] = [
      .credentials, .unavailable, .misconfigured, .disabled, .limit, .mechanism, .cancelled,
    ]
    let logins: [MailProtocol: String] = [
      .imap: "a LOGIN alice secret\r\n", .pop3: "USER alice\r\nPASS secret\r\n",
      .manageSieve: "AUTHENTICATE \"PLAIN\" \"AGFsaWNlAHNlY3JldA==\"\r\n",
    ]
    for mailProtocol in MailProtocol.allCases {
      for refusal in refusals {
        var dialogue = ClientDialogue(mailProtocol, ClientTerms(policy: .off))
        var draft = LoginDraft()
        var out: [UInt8] = []
        let login = Array(try #require(logins[mailProtocol]).utf8)
        var consumed = 0
        var action = ClientAction.proceed
        while action == .proceed {
          let step = dialogue.receive(login.span.extracting(consumed...), &draft, &out)
          consumed += step.consumed
          action = step.action
        }
        #expect(action == .authenticate)
        out.removeAll()
        _ = dialogue.conclude(.refused(refusal), &out)
        let said = String(decoding: out, as: UTF8.self).split(separator: "\r\n").map(String.init)
        let line = try #require(said.first)
        #expect(table.contains("`\(mailProtocol == .imap ? String(line.dropFirst(2)) : line)`"), "\(line)")
      }
      for words in Farewell.allCases {
        var dialogue = ClientDialogue(mailProtocol, ClientTerms(policy: .off))
        var out: [UInt8] = []
        dialogue.farewell(words, &out)
        let line = String(decoding: out, as: UTF8.self).split(separator: "\r\n").first ?? ""
        #expect(table.contains("`\(line)`"), "\(line)")
      }
    }
  }

  /// The documents the README names are there, and so are its commands.
  @Test func theReadmeIsTrue() throws {
    let readme = try HouseTests.committed("README.md")
    let link = try Regex(#"\]\(([^)#:]+)\)"#)
    var count = 0
    for match in readme.matches(of: link) {
      let path = String(readme[match.range].dropFirst(2).dropLast())
      #expect(FileManager.default.fileExists(atPath: ConfigKeysTests.root.appending(path: path).path), "\(path)")
      count += 1
    }
    #expect(count >= 8)
    let makefile = try HouseTests.committed("Makefile")
    for target in ["run", "test", "build", "install", "lint"] {
      #expect(makefile.contains("\n\(target):"), "\(target)")
      #expect(readme.contains("make \(target)"), "\(target)")
    }
  }
}

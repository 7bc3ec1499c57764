// swift-format-ignore-file: NeverForceUnwrap
// A test that unwraps nil fails, which is what it is for.

import Testing

@testable import ProxyCore

struct DirectoryTextTests {
  @Test(arguments: [
    (DirectoryEntry(user: "alice", member: "a", expires: nil), "alice\ta"),
    (
      DirectoryEntry(user: "user@example.com", member: "mail-2", expires: 1_800_000_000),
      "user@example.com\tmail-2\t1800000000"
    ),
    (DirectoryEntry(user: "", member: "a", expires: 0), "\ta\t0"),
    (
      DirectoryEntry(user: "a\tb\nc\r\\d\u{0}\u{7F}", member: "x y", expires: nil),
      "a\\x09b\\x0ac\\x0d\\\\d\\x00\\x7f\tx y"
    ),
    (DirectoryEntry(user: "jörg\u{301}", member: "ü", expires: nil), "jörg\u{301}\tü"),
    (DirectoryEntry(user: "# no comment", member: "a", expires: nil), "# no comment\ta"),
  ])
  func linesOfUsers(_ entry: DirectoryEntry, _ line: String) throws {
    let written = DirectoryText.line(entry)
    #expect(Array(written.utf8) == Array(line.utf8))
    let read = try #require(try DirectoryText.entry(line[...]))
    #expect(read == entry && Array(read.user.utf8) == Array(entry.user.utf8))
  }

  @Test func anEmptyLineIsNothing() throws { #expect(try DirectoryText.entry("") == nil) }

  @Test(arguments: [
    ("alice", DirectoryText.Problem.fields(1)), ("a\tb\t1\t2", .fields(4)), ("alice\t", .noMember),
    ("alice\ta\t", .time("")), ("alice\ta\tsoon", .time("soon")), ("alice\ta\t-5", .time("-5")),
    ("alice\ta\t99999999999999999999", .time("99999999999999999999")), ("a\\\ta", .escape), ("a\\n\ta", .escape),
    ("a\\x0\ta", .escape), ("a\\x+f\ta", .escape), ("a\\xg0\ta", .escape), ("a\\xff\ta", .encoding),
    ("a\tb\\", .escape),
    // What `doveadm director map` prints.
    ("<unknown>             1669653170 127.0.0.12     2026-11-24 04:18:09", .fields(1)),
  ])
  func linesThatSayNothing(_ line: String, _ problem: DirectoryText.Problem) {
    #expect(throws: problem) { try DirectoryText.entry(line[...]) }
    #expect(!problem.description.isEmpty)
  }

  /// Whatever a name holds, it comes back.
  @Test func everythingComesBack() throws {
    var random = SeededGenerator(seed: 11)
    for _ in 0..<2_000 {
      let user = String(
        (0..<Int.random(in: 0..<20, using: &random)).map { _ in
          Character(Unicode.Scalar(UInt8.random(in: 0...255, using: &random)))
        })
      let entry = DirectoryEntry(user: user, member: "m" + user, expires: Bool.random(using: &random) ? 5 : nil)
      let line = DirectoryText.line(entry)
      #expect(!line.utf8.contains { $0 < 0x20 && $0 != 9 })
      #expect(try DirectoryText.entry(line[...]) == entry)
    }
  }
}

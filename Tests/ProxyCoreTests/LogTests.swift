import Foundation
import Logging
import Testing

@testable import ProxyCore

struct LogLineTests {
  private func line(_ style: LogLine.Style) -> String {
    var line = LogLine(style, level: .info, event: "session", time: WallTime(seconds: 1_795_500_000, milliseconds: 7))
    line.add("session", "abc")
    line.add("login", Array("a \"b\"\\\r\n\u{1}é\u{7F}".utf8))
    line.add("empty", "")
    line.add("in", 42)
    line.add("own-name", "x=y")
    return String(decoding: line.finish(), as: UTF8.self)
  }

  @Test func text() {
    #expect(
      line(.text)
        == #"time=2026-11-24T06:00:00.007Z level=info event=session session=abc login="a \"b\"\\\r\n\u0001é\u007f" empty="" in=42 own-name="x=y""#
        + "\n")
  }

  @Test func json() throws {
    let text = line(.json)
    #expect(text.hasSuffix("}\n"))
    #expect(text.filter { $0 == "\n" }.count == 1)
    let object = try #require(try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any])
    #expect(object["login"] as? String == "a \"b\"\\\r\n\u{1}é\u{7F}")
    #expect(object["in"] as? Int == 42)
    #expect(object["time"] as? String == "2026-11-24T06:00:00.007Z")
    #expect(object.count == 8)
  }

  @Test func journal() {
    var line = LogLine(.journal, level: .warning, event: "two words", time: nil)
    line.add("own-name", "x")
    line.add("in", 42)
    line.add("many", "a\nb")
    var expected = Array(
      "MESSAGE=two words\nPRIORITY=4\nSYSLOG_IDENTIFIER=proxyd\nPROXYD_OWN_NAME=x\nPROXYD_IN=42\n".utf8)
    expected += Array("PROXYD_MANY\n".utf8) + [3, 0, 0, 0, 0, 0, 0, 0] + Array("a\nb\n".utf8)
    #expect(line.finish() == expected)
  }

  @Test(arguments: [
    (0, "1970-01-01T00:00:00.000Z"), (951_782_400, "2000-02-29T00:00:00.000Z"),
    (4_102_444_799, "2099-12-31T23:59:59.000Z"),
  ])
  func times(_ seconds: Int, _ text: String) {
    #expect(WallTime(seconds: seconds, milliseconds: 0).text == text)
  }
}

struct SessionIDTests {
  @Test func namesAreDistinctAndInOrder() {
    let first = SessionID(second: 1_795_500_000, loop: 0, count: 1).text
    let second = SessionID(second: 1_795_500_000, loop: 0, count: 2).text
    let other = SessionID(second: 1_795_500_000, loop: 1, count: 1).text
    let later = SessionID(second: 1_795_500_001, loop: 0, count: 1).text
    #expect(first.count == 13)
    #expect(first.allSatisfy { $0.isASCII && ($0.isLowercase || $0.isNumber) })
    #expect([later, other, second, first].sorted() == [first, second, other, later])
    #expect(SessionID(second: 0, loop: 0, count: 0).text == "0000000000000")
    #expect(SessionID(second: -1, loop: 255, count: -1).text == "fzzzzzzzzzzzz")
  }
}

struct LogTests {
  private func settings(_ file: String, _ level: Logger.Level = .info, _ format: LogSettings.Format = .text)
    -> LogSettings
  {
    LogSettings(level: level, format: format, destination: .file(file))
  }

  @Test func linesReachTheFileInOrder() throws {
    let folder = try Folder()
    let log = try Log(settings(folder.file("log")))
    for number in 0..<1_000 { log.line(.info, "e") { $0.add("number", number) } }
    log.logger.notice("hello", metadata: ["b": "2", "a": "1"])
    log.flush()
    let lines = try String(contentsOfFile: folder.file("log"), encoding: .utf8).split(separator: "\n")
    #expect(lines.count == 1_001)
    #expect(lines[999].hasSuffix("event=e number=999"))
    #expect(lines[1_000].hasSuffix("level=notice event=hello a=1 b=2"))
  }

  @Test func levelsAreKept() throws {
    let folder = try Folder()
    let log = try Log(settings(folder.file("log"), .warning))
    log.line(.info, "quiet") { _ in Issue.record("a line nobody wants was built") }
    log.logger.notice("quiet")
    log.logger.error("loud")
    try log.reconfigure(settings(folder.file("log"), .debug))
    log.logger.debug("quieter")
    log.flush()
    let text = try String(contentsOfFile: folder.file("log"), encoding: .utf8)
    #expect(text.contains("event=loud") && text.contains("event=quieter"))
    #expect(!text.contains("event=quiet\n"))
  }

  @Test func aRotatedFileIsOpenedAnew() throws {
    let folder = try Folder()
    let log = try Log(settings(folder.file("log")))
    log.logger.notice("one")
    log.flush()
    #expect(rename(folder.file("log"), folder.file("log.1")) == 0)
    try log.reconfigure(settings(folder.file("log"), .info, .json))
    log.logger.notice("two")
    log.flush()
    #expect(try String(contentsOfFile: folder.file("log.1"), encoding: .utf8).contains("one"))
    #expect(try String(contentsOfFile: folder.file("log"), encoding: .utf8).contains("\"event\":\"two\""))
  }

  @Test func aFileThatCannotBeOpenedKeepsTheOldOne() throws {
    let folder = try Folder()
    let log = try Log(settings(folder.file("log")))
    #expect(throws: SystemError.self) { try log.reconfigure(settings(folder.path)) }
    log.logger.notice("still here")
    log.flush()
    #expect(try String(contentsOfFile: folder.file("log"), encoding: .utf8).contains("still here"))
  }

  /// /dev/full is a disk without room.
  @Test func aFullDiskLosesLinesAndSaysSo() throws {
    let folder = try Folder()
    let log = try Log(settings("/dev/full"))
    for _ in 0..<10 { log.logger.notice("lost") }
    log.flush()
    try log.reconfigure(settings(folder.file("log")))
    log.logger.notice("kept")
    log.flush()
    let text = try String(contentsOfFile: folder.file("log"), encoding: .utf8)
    #expect(text.contains("kept"))
    #expect(text.contains("log lines lost"))
    #expect(text.contains("lines=10"))
  }
}

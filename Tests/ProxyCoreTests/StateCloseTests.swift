import Foundation
import Testing

@testable import ProxyCore

struct StateCloseTests {
  /// What was changed just before the end is in the file, also if to write it takes longer than a disk's silence may.
  @Test func theEndWaitsAsLongAsItIsWritten() throws {
    let folder = try Folder()
    let path = folder.file("state.db")
    let time = PlayedTime()
    let file = try StateFile(path, time: time.time, patience: 300_000_000) { _ in }
    let directory = try LocalDirectory(pool: "mail", affinity(.table), file: file, time: time.time)
    let count = 60_000
    for number in 0..<count { directory.move("user\(number)@example.org", to: "a") }
    let began = Date()
    file.close()
    #expect(Date().timeIntervalSince(began) > 0.3, "it is no test if that is quick: take more users")
    #expect(try afterKill(path, folder).users().count == count)
  }
}

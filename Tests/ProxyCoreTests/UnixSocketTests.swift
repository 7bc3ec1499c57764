// swift-format-ignore-file: NeverForceUnwrap

import Dispatch
import Foundation
import Glibc
import Testing

@testable import ProxyCore

struct UnixSocketTests {
  private func mode(_ path: String) -> mode_t? {
    var found = stat()
    return lstat(path, &found) == 0 ? found.st_mode & 0o7777 : nil
  }

  private func listen(_ path: String, mode: UInt32 = 0o660) throws(UnixListener.Failure) -> UnixListener {
    try UnixListener(path, mode: mode, owner: nil)
  }

  private func failure(_ path: String) -> UnixListener.Failure? {
    do throws(UnixListener.Failure) {
      _ = try listen(path)
      return nil
    } catch { return error }
  }

  /// (What a mask does to it is tested with the program: a mask is a whole process's.)
  @Test func theMode() throws {
    let folder = try Folder()
    let listener = try listen(folder.file("s"))
    #expect(mode(folder.file("s")) == 0o660)
    let narrow = try listen(folder.file("t"), mode: 0o600)
    #expect(mode(folder.file("t")) == 0o600)
    listener.close()
    narrow.close()
  }

  @Test func aPathThatFits() throws {
    let folder = try Folder()
    let room = UnixListener.longestPath - folder.file("").utf8.count
    let path = folder.file(String(repeating: "s", count: room))
    #expect(path.utf8.count == 107)
    let listener = try listen(path)
    #expect((try? UnixStream.connect(path).get()) != nil)
    #expect(listener.accept() != nil)
    listener.close()
    #expect(failure(path + "s") == .tooLong(108))
    #expect("\(UnixListener.Failure.tooLong(108))".contains("107"))
  }

  @Test func oneThatIsLeftBehindIsReplaced() throws {
    let folder = try Folder()
    let path = folder.file("s")
    do {
      // Closed without its file: as a process leaves it that was killed.
      _ = try listen(path)
    }
    #expect(mode(path) != nil)
    #expect(UnixStream.connect(path).isFailure(ECONNREFUSED))
    let listener = try listen(path)
    #expect((try? UnixStream.connect(path).get()) != nil)
    // One that lives is not.
    #expect(failure(path) == .inUse)
    #expect("\(UnixListener.Failure.inUse)" == "another proxyd answers there")
    #expect((try? UnixStream.connect(path).get()) != nil)
    listener.close()
    #expect(mode(path) == nil)
    #expect(UnixStream.connect(path).isFailure(ENOENT))
  }

  /// A queue that is full is somebody who is slow.
  @Test func oneThatIsBusyLives() throws {
    let folder = try Folder()
    let listener = try listen(folder.file("s"))
    var waiting: [UnixStream] = []
    while case .success(let stream) = UnixStream.connect(folder.file("s")) { waiting.append(stream) }
    #expect(waiting.count >= 32)
    #expect(failure(folder.file("s")) == .inUse)
    listener.close()
  }

  @Test func otherFilesAreLeftAlone() throws {
    let folder = try Folder()
    let path = try folder.write("s", "text")
    #expect(failure(path) == .notASocket)
    #expect(try String(contentsOfFile: path, encoding: .utf8) == "text")
    // A link to a socket is none.
    let listener = try listen(folder.file("t"))
    symlink(folder.file("t"), folder.file("u"))
    #expect(failure(folder.file("u")) == .notASocket)
    #expect(failure(folder.file("none/s")) == .system("it can't be bound", SystemError(ENOENT)))
    // What has taken our file's place is not removed.
    unlink(folder.file("t"))
    let other = try listen(folder.file("t"))
    listener.close()
    #expect(mode(folder.file("t")) != nil)
    other.close()
    #expect(mode(folder.file("t")) == nil)
  }

  @Test func theGroup() throws {
    let folder = try Folder()
    let group = getegid()
    let listener = try UnixListener(folder.file("s"), mode: 0o660, owner: (geteuid(), group))
    #expect(UnixListener.group(of: folder.file("s")) == Privileges.groupName(group))
    #expect(UnixListener.group(of: folder.file("none")) == nil)
    listener.close()
  }

  @Test func acceptEndsWithTheListener() throws {
    let folder = try Folder()
    let listener = try listen(folder.file("s"))
    let ended = DispatchSemaphore(value: 0)
    DispatchQueue.global().async {
      while listener.accept() != nil {}
      ended.signal()
    }
    listener.close()
    #expect(ended.wait(timeout: .now() + 10) == .success)
  }

  // MARK: Streams

  private func pair(_ folder: Folder) throws -> (client: UnixStream, server: UnixStream) {
    let listener = try listen(folder.file("s"))
    defer { listener.close() }
    let client = try UnixStream.connect(folder.file("s")).get()
    return (client, try #require(listener.accept()))
  }

  @Test func whoIsThere() throws {
    let (client, server) = try pair(try Folder())
    #expect(server.peer == PeerProcess(process: getpid(), user: geteuid()))
    #expect(!server.isClosed)
    client.shutdown()
    #expect(server.isClosed)
  }

  @Test func lines() throws {
    let (client, server) = try pair(try Folder())
    var lines = UnixLines(server, longest: 10)
    let second = Timeouts.seconds(5)
    func next(idle: UInt64 = Timeouts.seconds(5)) -> UnixLines.Next { lines.next(within: second, idle: idle) }
    func say(_ text: String) { #expect(client.write(Array(text.utf8), within: second)) }
    say("one\ntwo\r\n\n0123456789\nfi")
    #expect(next() == .line(Array("one".utf8)))
    #expect(next() == .line(Array("two".utf8)))
    #expect(next() == .line([]))
    #expect(next() == .line(Array("0123456789".utf8)))
    say("ve\n")
    #expect(next() == .line(Array("five".utf8)))
    #expect(next(idle: 1) == .late)
    // One that has begun has the time for a line, not that between two.
    say("x")
    #expect(lines.next(within: Timeouts.milliseconds(20), idle: second) == .late)
    say("\n0123456789A\n")
    #expect(next() == .line(Array("x".utf8)))
    #expect(next() == .tooLong)
  }

  @Test func aLineWithoutAnEnd() throws {
    let (client, server) = try pair(try Folder())
    var lines = UnixLines(server, longest: 100_000)
    #expect(client.write([UInt8](repeating: 0x61, count: 100_000), within: Timeouts.seconds(5)))
    client.shutdown()
    #expect(lines.next(within: Timeouts.seconds(5), idle: Timeouts.seconds(5)) == .closed)
    let (other, longer) = try pair(try Folder())
    DispatchQueue.global().async {
      _ = other.write([UInt8](repeating: 0x61, count: 200_000), within: Timeouts.seconds(10))
    }
    lines = UnixLines(longer, longest: 100_000)
    #expect(lines.next(within: Timeouts.seconds(5), idle: Timeouts.seconds(5)) == .tooLong)
  }

  /// Who does not read is waited for, and not for ever.
  @Test func aReaderThatDoesNotRead() throws {
    let (client, server) = try pair(try Folder())
    #expect(!server.write([UInt8](repeating: 0, count: 10 << 20), within: Timeouts.milliseconds(50)))
    client.shutdown()
    #expect(!server.write([1], within: Timeouts.seconds(5)))
  }
}

extension Result where Failure == SystemError {
  fileprivate func isFailure(_ code: Int32) -> Bool {
    if case .failure(let error) = self { error.code == code } else { false }
  }
}

/// What a reload promises whoever asked for it.

import Foundation
import Testing

@testable import Protocols
@testable import ProxyCore

struct ReloadTests {
  private let folder: Folder
  private let proxy: Proxy
  private let changed: Settings
  /// Each holds a loop up.
  private let gates = [Gate(), Gate()]

  init() throws {
    folder = try Folder()
    var settings = Settings.to(1)
    settings.log = LogSettings(level: .debug, format: .text, destination: .file(folder.file("log")))
    settings.loops = gates.count
    proxy = try Proxy(settings, log: try Log(settings.log))
    try proxy.start()
    for (loop, gate) in zip(proxy.house.allLoops, gates) { loop.post { _ in gate.pass() } }
    settings.sessions = 17
    changed = settings
  }

  private func reload() -> Shared<Bool> {
    let isDone = Shared(false)
    let (proxy, changed) = (proxy, changed)
    DispatchQueue.global().async {
      try? proxy.reload(changed)
      isDone.withLock { $0 = true }
    }
    return isDone
  }

  /// Whoever hears that it is done may connect at once, and must not meet the old configuration.
  @Test func itIsDoneWhenEachLoopHasGoneOver() {
    defer { proxy.stop(now: true) }
    let isDone = reload()
    eventually("it has begun") { proxy.settings.sessions == 17 }
    for gate in gates {
      // For what must not happen there is no condition to wait for.
      usleep(50_000)
      #expect(!isDone.value)
      gate.open()
    }
    eventually("it is done") { isDone.value }
  }

  /// Nobody waits for ever, and nobody is told that all have gone over when they have not.
  @Test func aLoopThatDoesNotGetToItIsToldOf() throws {
    defer { proxy.stop(now: true) }
    gates[0].open()
    let isDone = reload()
    eventually("it is done", seconds: 20) { isDone.value }
    gates[1].open()
    let log = folder.file("log")
    let told = "event loops are busy and go over to the change when they can"
    try eventually("it is told") { try String(contentsOfFile: log, encoding: .utf8).contains(told) }
  }
}

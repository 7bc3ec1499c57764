/// What a reload promises whoever asked for it.

import Foundation
import Testing

@testable import Protocols
@testable import ProxyCore

struct ReloadTests {
  /// Whoever hears that it is done may connect at once, and must not meet the old configuration.
  @Test func itIsDoneWhenEachLoopHasGoneOver() throws {
    let folder = try Folder()
    var settings = Settings.to(1)
    settings.log = LogSettings(level: .debug, format: .text, destination: .file(folder.file("log")))
    settings.loops = 2
    let proxy = try Proxy(settings, log: try Log(settings.log))
    try proxy.start()
    defer { proxy.stop(now: true) }
    let gates = [Gate(), Gate()]
    for (loop, gate) in zip(proxy.house.allLoops, gates) { loop.post { _ in gate.pass() } }
    let isDone = Shared(false)
    let changed = settings
    DispatchQueue.global().async {
      try? proxy.reload(changed)
      isDone.withLock { $0 = true }
    }
    for gate in gates {
      usleep(50_000)
      #expect(!isDone.value)
      gate.open()
    }
    eventually("it is done") { isDone.value }
  }
}

import Foundation
import Glibc
import Testing

@testable import Protocols
@testable import ProxyCore

// In a build for ThreadSanitizer ProxyCore has a Mutex of its own.
#if !PROXYD_TSAN
  import struct Synchronization.Mutex
#endif

/// When probes are made, and when not.
extension ProberTests {
  @Test func maintenanceStopsProbes() throws {
    for admin in [AdminState.maintenance, .removed] {
      let stage = ProbeStage()
      let standing = try stage.add([.imap: closedPort()])
      _ = stage.first()
      standing.set(admin)
      try stage.pass(1)
      let count = stage.evidence().count
      try stage.pass(20)
      #expect(stage.evidence().count == count)
      standing.set(.ready)
      stage.probers.probeNow("a")
      eventually("it is probed again") { stage.evidence().count > count }
      // Drained is not gone.
      standing.set(.drain)
      let again = stage.evidence().count
      eventually("it is probed on") { stage.evidence().count > again + 3 }
    }
  }

  /// What is found in a round that was under way when maintenance began is not told.
  @Test func maintenanceBeginsWithinARound() throws {
    let server = TestServer()
    let stage = ProbeStage()
    let standing = try stage.add([.imap: server.port])
    let peer = server.accept()
    standing.set(.maintenance)
    peer.close()
    try stage.pass(20)
    #expect(stage.evidence().isEmpty)
  }

  @Test func probeNowWakes() throws {
    let stage = ProbeStage()
    // A configuration is adopted with each that is added, and then all are probed.
    try stage.pass(1)
    try stage.add([.imap: closedPort()]) {
      $0.interval = Timeouts.seconds(3_600)
      $0.fastInterval = Timeouts.seconds(3_600)
      $0.fall = 1_000
    }
    _ = stage.first()
    try stage.pass(20)
    #expect(stage.evidence().count == 1)
    // Not before the fast interval is over, however often it is asked.
    for _ in 0..<100 { stage.probers.probeNow("a") }
    try stage.pass(20)
    #expect(stage.evidence().count == 1)

    let other = ProbeStage()
    try other.pass(1)
    let server = TestServer()
    let standing = try other.add([.imap: server.port]) { $0.interval = Timeouts.seconds(3_600) }
    // Asked for while one is under way, it is the next.
    let peer = server.accept()
    for _ in 0..<100 { other.probers.probeNow("a") }
    playVisit(peer, .imap)
    playVisit(server.accept(), .imap)
    eventually("both are told") { other.evidence().count == 2 }
    try other.pass(20)
    #expect(other.evidence().count == 2)
    // And between two: at once.
    _ = standing.learn(.loginFailed("x"), at: Clock.monotonic.now)
    other.probers.probeNow("a")
    playVisit(server.accept(), .imap)
    eventually("it is told") { other.evidence().count == 3 }
    // The doubt is over, and so is the haste.
    #expect(standing.snapshot(at: 0).health == .up)
    try other.pass(20)
    #expect(other.evidence().count == 3)
    other.probers.probeNow("nobody")
  }

  /// In doubt the next comes after the fast interval.
  @Test func doubtIsFast() throws {
    let stage = ProbeStage()
    try stage.add([.imap: closedPort()]) { $0.interval = Timeouts.seconds(3_600) }
    eventually("it is lost") { stage.evidence().count > 5 }
  }

  /// One that hangs keeps nobody else waiting.
  @Test func aHungBackendIsAlone() throws {
    let server = TestServer()
    let stage = ProbeStage()
    try stage.add([.imap: server.port])
    let peer = server.accept()
    try stage.pass(50)
    #expect(stage.evidence().isEmpty)
    playVisit(peer, .imap)
    #expect(stage.first() == .probeSucceeded)
  }

  /// A reload ends it; of what is under way then nothing is told. The others go on.
  @Test func aReloadDropsIt() throws {
    let server = TestServer()
    let stage = ProbeStage()
    try stage.add([.imap: server.port])
    try stage.add([.imap: closedPort()], named: "b")
    let peer = server.accept()
    _ = stage.first("b")
    stage.drop("a")
    playVisit(peer, .imap)
    try stage.pass(20)
    #expect(stage.evidence().isEmpty)
    let count = stage.evidence("b").count
    eventually("the other goes on") { stage.evidence("b").count > count }
    stage.drop("b")
    try stage.pass(1)
    let last = stage.evidence("b").count
    try stage.pass(20)
    #expect(stage.evidence("b").count <= last)
  }

  /// What is not probed and has no agent has no thread.
  @Test func oneThatIsNotProbed() throws {
    let stage = ProbeStage()
    try stage.add([.imap: closedPort()]) { $0.isProbed = false }
    try stage.pass(20)
    #expect(stage.evidence().isEmpty)
  }

  /// A visit's socket is closed with it: whoever writes to it then is told.
  @Test(arguments: ["* OK ready\r\n", "* BYE busy\r\n"])
  func socketsAreClosed(_ greeting: String) throws {
    let server = TestServer()
    let stage = ProbeStage()
    try stage.add([.imap: server.port])
    let peer = server.accept()
    peer.send(greeting)
    if greeting.contains("OK") {
      _ = peer.hear("Q LOGOUT\r\n")
      peer.send("* BYE\r\nQ OK\r\n")
    }
    eventually("it is closed") { Glibc.send(peer.fd, "x", 1, Int32(MSG_NOSIGNAL)) < 0 }
  }
}

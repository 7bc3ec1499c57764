import Glibc
import Testing

@testable import Protocols
@testable import ProxyCore

struct RelayTests {
  /// Bytes arrive whole and in order through a sink that stalls at random, and what is held meanwhile is bounded.
  @Test(arguments: 1...8) func orderAndBoundThroughStalls(_ seed: Int) {
    var random = SplitMix(seed: UInt64(seed))
    let (near, source) = makePair()
    let (sink, far) = makePair(buffer: 8_192)
    var from = Transport(Descriptor(owning: source))
    var to = Transport(Descriptor(owning: sink))
    var flow = Relay.Flow()
    var scratch = Scratch(size: EventLoop.scratchSize)
    var sent: [UInt8] = []
    var heard: [UInt8] = []
    let total = 3_000_000
    var longest = 0
    while heard.count < total {
      if sent.count < total, Bool.random(using: &random) {
        let piece = (0..<Int.random(in: 1...90_000, using: &random)).map {
          UInt8(truncatingIfNeeded: (sent.count + $0) &* 31)
        }
        let count = write(near, piece, min(piece.count, total - sent.count))
        if count > 0 { sent += piece[..<count] }
      }
      let moved = Relay.move(&flow, from: &from, to: &to, &scratch)
      #expect(moved == .idle || moved == .more)
      let held = flow.queue.count
      longest = max(longest, held)
      if Bool.random(using: &random) {
        var buffer = [UInt8](repeating: 0, count: Int.random(in: 1...200_000, using: &random))
        let count = read(far, &buffer, buffer.count)
        if count > 0 { heard += buffer[..<count] }
      }
    }
    #expect(heard == sent)
    #expect(longest > 0, "the sink never stalled")
    #expect(longest <= EventLoop.scratchSize)
    let count = flow.count
    #expect(count == UInt64(total))
    close(near)
    close(far)
  }

  /// The end of the source is told to the sink behind the last byte, and not before.
  @Test func theEndComesBehindTheLastByte() {
    let (near, source) = makePair()
    let (sink, far) = makePair(buffer: 8_192)
    var from = Transport(Descriptor(owning: source))
    var to = Transport(Descriptor(owning: sink))
    var flow = Relay.Flow()
    var scratch = Scratch(size: EventLoop.scratchSize)
    // More than the sink's socket takes.
    let text = [UInt8](repeating: 0x61, count: 200_000)
    let written = write(near, text, text.count)
    shutdown(near, Int32(SHUT_WR))
    var moved = Relay.move(&flow, from: &from, to: &to, &scratch)
    #expect(moved == .idle)
    let isHeld = !flow.queue.isEmpty
    #expect(isHeld)
    var heard = 0
    var isOver = false
    for _ in 0..<1_000 where !isOver {
      var buffer = [UInt8](repeating: 0, count: 50_000)
      let count = read(far, &buffer, buffer.count)
      if count > 0 { heard += count }
      isOver = count == 0
      moved = Relay.move(&flow, from: &from, to: &to, &scratch)
    }
    #expect(isOver)
    #expect(heard == written)
    let state = flow.state
    #expect(state == .ended)
    // The other direction is open still.
    #expect(write(far, "x", 1) == 1)
    var back = Relay.Flow()
    let answered = Relay.move(&back, from: &to, to: &from, &scratch)
    #expect(answered == .idle)
    var byte: UInt8 = 0
    #expect(read(near, &byte, 1) == 1)
    close(near)
    close(far)
  }

  @Test func playedErrorsAreTold() {
    let (near, source) = makePair()
    let (sink, far) = makePair()
    var from = Transport(Descriptor(owning: source))
    var to = Transport(Descriptor(owning: sink))
    var scratch = Scratch(size: EventLoop.scratchSize)
    let reset = IOFailure.system(SystemError(ECONNRESET))
    let pipe = IOFailure.system(SystemError(EPIPE))
    KernelPlay.write(.receive, on: source, [.failed(reset)])
    var flow = Relay.Flow()
    var moved = Relay.move(&flow, from: &from, to: &to, &scratch)
    #expect(moved == .sourceFailed(reset))
    _ = write(near, "hello", 5)
    KernelPlay.write(.send, on: sink, [.failed(pipe)])
    moved = Relay.move(&flow, from: &from, to: &to, &scratch)
    #expect(moved == .sinkFailed(pipe))
    close(near)
    close(far)
  }

  /// The same under TLS, with records of all sizes.
  @Test func orderThroughStallsUnderTLS() throws {
    let files = try SharedCertificate.get()
    let context = try TLSContext(
      TLSServerSettings(identities: [TLSIdentitySettings(pairs: [files])]), alpn: "imap", predecessor: nil)
    let (near, client) = makePair()
    let (backend, far) = makePair()
    var tls = Transport(Descriptor(owning: client))
    let isUpgraded = tls.upgrade(context)
    #expect(isUpgraded)
    let peer = TLSClient(near)
    var isDone = false
    for _ in 0..<10 where !isDone {
      let clientIsDone = peer.shakeHands()
      isDone = tls.handshake() == .done && clientIsDone
    }
    #expect(isDone)
    var plain = Transport(Descriptor(owning: backend))
    var down = Relay.Flow()
    var up = Relay.Flow()
    var scratch = Scratch(size: EventLoop.scratchSize)
    var random = SplitMix(seed: 7)
    var sent = 0
    var heard = 0
    var mistakes = 0
    while heard < 2_000_000 {
      let piece = (0..<Int.random(in: 1...40_000, using: &random)).map { UInt8(ascii: "a") + UInt8((sent + $0) % 26) }
      let count = write(far, piece, piece.count)
      if count > 0 { sent += count }
      let moved = Relay.move(&down, from: &plain, to: &tls, &scratch)
      #expect(moved == .idle || moved == .more)
      if Int.random(in: 0..<3, using: &random) == 0, let text = peer.read() {
        for byte in text.utf8 {
          if byte != UInt8(ascii: "a") + UInt8(heard % 26) { mistakes += 1 }
          heard += 1
        }
      }
    }
    #expect(mistakes == 0)
    // And up: several records in one go.
    for _ in 0..<20 { #expect(peer.write(String(repeating: "u", count: 1_000)) == 1_000) }
    var arrived = 0
    while arrived < 20_000 {
      let moved = Relay.move(&up, from: &tls, to: &plain, &scratch)
      #expect(moved == .idle)
      var buffer = [UInt8](repeating: 0, count: 65_536)
      let count = read(far, &buffer, buffer.count)
      #expect(count > 1_000, "records are not gathered")
      arrived += max(count, 1)
    }
    #expect(arrived == 20_000)
    close(near)
    close(far)
  }
}

/// The same numbers in every run.
struct SplitMix: RandomNumberGenerator {
  private var state: UInt64

  init(seed: UInt64) { state = seed }

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var mixed = state
    mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
    mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
    return mixed ^ (mixed >> 31)
  }
}

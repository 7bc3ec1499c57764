/// A relay's turns: bytes both ways, and what is made of its end.

internal import Protocols

extension Session {
  /// Moves what there is to move. `side`: where something happened; nil if it may be anywhere.
  func carry(_ carried: consuming Relay, _ side: Side?, on loop: isolated EventLoop) -> Next {
    var relay = carried
    // A side that had no event has nothing to read; asking it would cost a system call.
    if side != .backend || !relay.up.queue.isEmpty {
      switch Relay.move(&relay.up, from: &client, to: &relay.backend, &loop.scratch) {
      case .idle, .sourceEnded: break
      case .more: loop.again(token)
      case .sourceFailed(let failure): return end(relay, SessionEnd(client: failure), on: loop)
      // What the backend said before it went is still the client's.
      case .sinkFailed: relay.up.stop()
      }
    }
    if side != .client || !relay.down.queue.isEmpty {
      switch Relay.move(&relay.down, from: &relay.backend, to: &client, &loop.scratch) {
      case .idle: break
      case .more: loop.again(token)
      case .sourceEnded:
        meterBytes(relay, on: loop)
        // A client that ended first waits for this.
        if relay.up.state == .open, let kept = keepBack(SessionEnd(.backendClosed), on: loop) { return kept }
        relay.down.keepsEnd = false
        return carry(relay, .backend, on: loop)
      case .sourceFailed(let failure):
        meterBytes(relay, on: loop)
        if let kept = keepBack(SessionEnd(backend: failure), on: loop) { return kept }
        return end(relay, SessionEnd(backend: failure), on: loop)
      case .sinkFailed(let failure): return end(relay, SessionEnd(client: failure), on: loop)
      }
    }
    relay.noteEnds()
    guard let end = relay.end else { return .rest(.relay(relay)) }
    return self.end(relay, end, on: loop)
  }

  private func end(_ relay: consuming Relay, _ end: SessionEnd, on loop: isolated EventLoop) -> Next {
    meterBytes(relay, on: loop)
    client.shutdownWrite()
    return .end(end)
  }
}

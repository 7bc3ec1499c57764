/// The last steps of a session that ends in words: they are said, and the client has time to read them.

internal import Protocols

extension Session {
  /// The backend has ended a relay. Where the pool's clients are to be let go bit by bit, and many are being lost at once,
  /// the client is kept for a while; nil to let it go.
  func keepBack(_ end: SessionEnd, on loop: isolated EventLoop) -> Next? {
    guard case .pool(let pool, let claim)? = lease, let standing = claim.member?.standing else { return nil }
    let spread = pool.settings.spread
    guard spread > 0, standing.isLosingMany(at: loop.now) else { return nil }
    return .go(.closing(Closing(end, holds: loop.now + UInt64.random(in: 0..<spread))))
  }

  /// Throws away what the client says to a backend that is gone.
  private func hold(_ held: consuming Closing, on loop: isolated EventLoop) -> Next {
    var closing = held
    while closing.discarded < Closing.mostDiscarded {
      switch client.read(into: &loop.scratch) {
      case .bytes(let count): closing.discarded += count
      case .blocked: return .rest(.closing(closing))
      case .closed, .failed: return .end(closing.end)
      }
    }
    return .end(closing.end)
  }

  /// Says the rest, then waits for the client to close, so that it can read what was said.
  func close(_ closed: consuming Closing, on loop: isolated EventLoop) -> Next {
    var closing = closed
    if loop.now < closing.holds { return hold(closing, on: loop) }
    if !closing.isShutDown {
      let (written, stop) = client.write(closing.output.span)
      closing.output.removeFirst(written)
      switch stop {
      case nil:
        client.shutdownWrite()
        closing.isShutDown = true
      case .blocked?: return .rest(.closing(closing))
      case .bytes?, .closed?, .failed?: return .end(closing.end)
      }
    }
    while closing.discarded < Closing.mostDiscarded {
      switch client.read(into: &loop.scratch) {
      case .bytes(let count): closing.discarded += count
      case .blocked: return .rest(.closing(closing))
      case .closed, .failed: return .end(closing.end)
      }
    }
    return .end(closing.end)
  }
}

/// Puts a value in another's place and gives that one out.
func exchange<T: ~Copyable>(_ place: inout T, with value: consuming T) -> T {
  let old = place
  place = value
  return old
}

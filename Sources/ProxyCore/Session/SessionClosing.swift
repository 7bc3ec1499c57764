/// The last steps of a session that ends in words: they are said, and the client has time to read them.

internal import Protocols

extension Session {
  /// Says the rest, then waits for the client to close, so that it can read what was said.
  func close(_ closed: consuming Closing, on loop: isolated EventLoop) -> Next {
    var closing = closed
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

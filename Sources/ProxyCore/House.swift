/// What all loops share: the log, the door's count, the resolver, and word of a loop that has no session left.

internal import Logging
internal import Synchronization

package final class House: Sendable {
  package let log: Log
  package let admission: Admission
  let resolver: Resolver
  private let whenEmpty = Mutex<(@Sendable (Int) -> Void)?>(nil)
  /// When the last warning about a lack was said, in loop time.
  private let lastLack = Mutex<UInt64>(0)

  /// Warnings about a lack are at least this far apart.
  private static let lackPause = Timeouts.seconds(60)

  package init(log: Log, admission: Admission, resolver: Resolver) {
    self.log = log
    self.admission = admission
    self.resolver = resolver
  }

  /// Calls `body` with a loop's number each time the loop's last session ends.
  package func notifyWhenEmpty(_ body: @escaping @Sendable (Int) -> Void) { whenEmpty.withLock { $0 = body } }

  func loopIsEmpty(_ index: Int) {
    let body = whenEmpty.withLock { $0 }
    body?(index)
  }

  /// Says, once a minute at most, that connections are not accepted for now.
  func tellLack(_ lack: Door.Lack, at time: UInt64) {
    let isDue = lastLack.withLock { last in
      guard last == 0 || time >= last + House.lackPause else { return false }
      last = time
      return true
    }
    guard isDue else { return }
    switch lack {
    case .limit:
      log.logger.warning("accepting rests: the limit of sessions is reached", metadata: ["sessions": "\(admission.count)"])
    case .lack(let error):
      log.logger.warning(
        "accepting rests: the system gives no more descriptors",
        metadata: ["reason": "\(error)", "sessions": "\(admission.count)"])
    }
  }
}

/// What a loop works with until the next reload.
package struct LoopPlan: Sendable {
  package let listeners: [Listener]
  package let routes: RoutePlan
  package let settings: Settings

  package init(listeners: [Listener], routes: RoutePlan, settings: Settings) {
    self.listeners = listeners
    self.routes = routes
    self.settings = settings
  }
}

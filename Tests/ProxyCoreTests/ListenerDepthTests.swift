import Foundation
import Testing

@testable import Protocols
@testable import ProxyCore

/// Whoever listens to what happens all the time is called as directly the hundredth time as the first: a closure that Swift
/// wraps anew at each look lies deeper each time, and the wrappers stay for good.
struct ListenerDepthTests {
  /// The frames that a call of the listener goes through, the first time and the hundredth.
  private func depths(_ call: (@escaping @Sendable () -> Void) -> () -> Void) -> (first: Int?, last: Int?) {
    let depths = Shared<[Int]>([])
    let again = call { depths.withLock { $0.append(Thread.callStackReturnAddresses.count) } }
    for _ in 0..<100 { again() }
    return (depths.value.first, depths.value.last)
  }

  @Test func aLoopThatIsEmpty() throws {
    let stage = try LoopStage(Settings(listeners: [], routes: [], backends: [:]))
    let depths = depths { heard in
      stage.house.notifyWhenEmpty { _ in heard() }
      return { stage.house.loopIsEmpty(0) }
    }
    #expect(depths.first != nil)
    #expect(depths.first == depths.last)
  }

  @Test func aRecall() throws {
    let played = PlayedTime()
    let directory = try LocalDirectory(pool: "mail", affinity(.table), time: played.time)
    let depths = depths { heard in
      directory.onRecall { _ in heard() }
      _ = directory.placeNow("alice", .to("a"))
      return { directory.run(.recall, "alice") }
    }
    #expect(depths.first != nil)
    #expect(depths.first == depths.last)
  }
}

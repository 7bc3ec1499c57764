/// The rate at which a backend is emptied.

import Testing

@testable import ProxyCore

struct EvictionQuotaTests {
  /// Milliseconds of the steps, and how many go at each, at ten a second.
  @Test(arguments: [
    ([100, 200, 300], [1, 1, 1]),
    // Steps that come late make good for it.
    ([150, 300, 500, 700], [1, 2, 2, 2]),
    // Not for a standstill.
    ([100, 5_100, 5_200], [1, 3, 1]),
    // Nobody goes before it is their turn.
    ([10, 20, 99, 100], [0, 0, 0, 1]),
  ])
  func steps(_ moments: [Int], _ expected: [Int]) {
    var quota = EvictionQuota(rate: 10, at: 7_000_000)
    #expect(moments.map { quota.take(100, at: 7_000_000 + UInt64($0) * 1_000_000) } == expected)
  }

  /// As many as there are, and no credit for those who are not.
  @Test func few() {
    var quota = EvictionQuota(rate: 1_000, at: 0)
    #expect(quota.take(3, at: 200_000_000) == 3)
  }

  /// Whenever the steps come, as many have gone as the rate allows, or one less: no step was longer than may be.
  @Test func anySteps() {
    var random = SeededGenerator(seed: 3)
    for rate in [1.0, 7.5, 500, 100_000] {
      var quota = EvictionQuota(rate: rate, at: 0)
      var (now, gone): (UInt64, Int) = (0, 0)
      for _ in 0..<1_000 {
        now += UInt64.random(in: 0...EvictionQuota.longestStep, using: &random)
        gone += quota.take(.max, at: now)
        let allowed = rate * Double(now) / 1e9
        #expect((allowed - 1.01...allowed + 0.01).contains(Double(gone)))
      }
    }
  }
}

/// Counters that all loops write and anybody reads: plain, one for each case of an enum, and of how long things took.
///
/// Relaxed atomics in place: counting costs no lock, no memory and no look-up. Who reads several of them sees each at a
/// moment of its own.

internal import Synchronization

/// A number that grows; or, of what is present, goes up and down.
package final class Counter: Sendable {
  private let number = Atomic<Int>(0)

  /// Nothing counted yet.
  package init() {}

  /// The count.
  package var value: Int { number.load(ordering: .relaxed) }

  func add(_ more: Int = 1) { number.add(more, ordering: .relaxed) }
  func subtract() { number.subtract(1, ordering: .relaxed) }
}

/// A counter for each case of an enum.
package final class CaseCounters<Case: CaseIterable & Equatable & Sendable>: Sendable {
  private let numbers = InlineArray<64, Atomic<Int>> { _ in Atomic(0) }
  private let cases = Array(Case.allCases)

  /// Nothing counted yet.
  package init() { precondition(cases.count <= 64, "an enum with more cases than there is room for") }

  func add(_ one: Case) {
    guard let index = cases.firstIndex(of: one) else { return }
    numbers[index].add(1, ordering: .relaxed)
  }

  /// What was counted of a case.
  package subscript(_ one: Case) -> Int {
    cases.firstIndex(of: one).map { numbers[$0].load(ordering: .relaxed) } ?? 0
  }

  /// The cases that were counted at all.
  package var counted: [(one: Case, count: Int)] {
    cases.indices.compactMap { index in
      let count = numbers[index].load(ordering: .relaxed)
      return count == 0 ? nil : (cases[index], count)
    }
  }
}

/// How long things took, in buckets that double from 64 µs to 67 s.
package final class Histogram: Sendable {
  /// 64 µs times 2 to the power of 0 up to 20, and one bucket beyond.
  private static let bucketCount = 22
  /// The first bucket's upper bound, in nanoseconds.
  private static let first: UInt64 = 64_000

  private let buckets = InlineArray<22, Atomic<Int>> { _ in Atomic(0) }
  private let total = Atomic<UInt64>(0)

  /// Nothing counted yet.
  package init() {}

  /// The buckets' upper bounds in nanoseconds, each part of its bucket; the last bucket has none.
  package static let bounds: [UInt64] = (0..<bucketCount - 1).map { first << $0 }

  func record(_ nanoseconds: UInt64) {
    buckets[Histogram.bucket(nanoseconds)].add(1, ordering: .relaxed)
    // Beyond the word's end it begins again, as any counter does: after five centuries of waiting.
    total.wrappingAdd(nanoseconds, ordering: .relaxed)
  }

  private static func bucket(_ nanoseconds: UInt64) -> Int {
    guard nanoseconds > first else { return 0 }
    let steps = (nanoseconds - 1) / first
    return min(UInt64.bitWidth - steps.leadingZeroBitCount, bucketCount - 1)
  }

  /// What was counted up to now.
  package var reading: Reading {
    var counts: [Int] = []
    counts.reserveCapacity(Histogram.bucketCount)
    for index in 0..<Histogram.bucketCount { counts.append(buckets[index].load(ordering: .relaxed)) }
    return Reading(buckets: counts, sum: total.load(ordering: .relaxed))
  }

  /// A histogram at a moment.
  package struct Reading: Equatable, Sendable {
    /// How many were in each bucket alone, one more than there are bounds.
    package let buckets: [Int]
    /// All times together, in nanoseconds.
    package let sum: UInt64

    /// How many there were.
    package var count: Int { buckets.reduce(0, +) }

    /// The bound below which that part of them lies, in nanoseconds; nil if there were none, or it lies beyond the last.
    package func quantile(_ part: Double) -> UInt64? {
      let wanted = Int((Double(count) * part).rounded(.up))
      guard count > 0 else { return nil }
      var below = 0
      for (number, bound) in zip(buckets, Histogram.bounds) {
        below += number
        if below >= wanted { return bound }
      }
      return nil
    }
  }
}

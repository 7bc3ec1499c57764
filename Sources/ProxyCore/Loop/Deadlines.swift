/// When each session's patience ends: one time for each slot, and a bound below which none lies.
///
/// A deadline is moved with every relayed chunk and almost never reached, so moving it is one store and finding the
/// expired is a scan: 50,000 slots take 50 µs, and a scan is due only when the earliest known deadline is reached.
struct Deadlines {
  private var times: [UInt64] = []
  /// No deadline is earlier. It may be too early, never too late.
  private(set) var next = UInt64.max

  /// Scans are at least this far apart, in nanoseconds: many sessions with deadlines close together cost one.
  private static let grain = Timeouts.milliseconds(20)

  /// Sets a slot's deadline; `.max` for none.
  mutating func set(_ index: Int, _ time: UInt64) {
    while times.count <= index { times.append(.max) }
    times[index] = time
    if time < next { next = time }
  }

  /// Puts the slots whose time has come into `expired` and forgets their deadlines.
  mutating func expire(now: UInt64, into expired: inout [Int]) {
    guard now >= next else { return }
    var earliest = UInt64.max
    for index in times.indices {
      if times[index] <= now {
        expired.append(index)
        times[index] = .max
      } else if times[index] < earliest {
        earliest = times[index]
      }
    }
    next = earliest == .max ? .max : max(earliest, now + Deadlines.grain)
  }
}

/// Measures a directory of users: memory, questions, loading, and users that are new. See `directory` beside it.

import CLinux
import Dispatch
import Glibc
import ProxyCore
import Synchronization

@main
enum DirectoryBenchmark {
  static func main() throws {
    let users = CommandLine.arguments.dropFirst().first.flatMap { Int($0) } ?? 1_000_000
    let rounds = CommandLine.arguments.dropFirst(2).first.flatMap { Int($0) } ?? 3
    let folder = "/tmp/proxyd-directory-\(getpid())"
    mkdir(folder, 0o700)
    defer { for name in ["", "-wal"] { unlink(folder + "/state.db" + name) }; rmdir(folder) }
    let path = folder + "/state.db"
    var table = Table()
    for _ in 0..<rounds { try grow(users, &table) }
    for _ in 0..<rounds {
      for name in ["", "-wal"] { unlink(path + name) }
      try fill(path, users)
      try round(path, users, &table)
    }
    for size in [2, 10, 100] { ring(size, &table) }
    table.write()
  }

  /// Twenty bytes each.
  static func name(_ number: Int) -> String {
    let digits = String(number)
    return "user" + String(repeating: "0", count: 8 - digits.utf8.count) + digits + "@example"
  }

  static func settings() -> AffinitySettings {
    var settings = AffinitySettings()
    settings.kind = .table
    settings.expiry = 86_400_000_000_000
    return settings
  }

  static let question = PlaceQuestion(preferred: "mail-1") { _ in true }

  /// Six hours from now: what the file has been told is old then.
  static let later = DirectoryTime(
    now: DirectoryTime.system.now, wall: { DirectoryTime.system.wall() + 21_600 }, after: DirectoryTime.system.after)

  static func open(_ path: String) throws -> StateFile {
    try StateFile(path) { news in print("the file says: \(news)") }
  }

  static func seconds(_ body: () throws -> Void) rethrows -> Double {
    let began = DispatchTime.now().uptimeNanoseconds
    try body()
    return Double(DispatchTime.now().uptimeNanoseconds - began) / 1e9
  }

  /// Nanoseconds this thread has run: who else is on the machine does not count.
  static func threadTime() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time)
    return UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec)
  }

  static func cpu() -> Double {
    var usage = rusage()
    getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage)
    func time(_ value: timeval) -> Double { Double(value.tv_sec) + Double(value.tv_usec) / 1e6 }
    return time(usage.ru_utime) + time(usage.ru_stime)
  }

  /// Kilobytes of this process's own.
  static func resident() -> Int {
    guard let file = fopen("/proc/self/smaps_rollup", "r") else { return 0 }
    defer { fclose(file) }
    var line = [CChar](repeating: 0, count: 256)
    while fgets(&line, 256, file) != nil {
      let text = String(decoding: line.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
      if text.hasPrefix("Private_Dirty:") { return Int(text.split(separator: " ")[1]) ?? 0 }
    }
    return 0
  }

  /// CPU seconds of this thread.
  static func cpuSeconds(_ body: () throws -> Void) rethrows -> Double {
    let began = threadTime()
    try body()
    return Double(threadTime() - began) / 1e9
  }

  /// A file with all users.
  static func fill(_ path: String, _ users: Int) throws {
    let file = try open(path)
    let directory = try LocalDirectory(pool: "mail", settings(), file: file)
    for number in 0..<users { directory.move(name(number), to: "mail-\(number % 20)") }
    while directory.isUnwritten { usleep(100_000) }
    file.close()
  }

  /// All users come, and nothing is kept in a file: what the growth of the tables makes anybody wait.
  static func grow(_ users: Int, _ table: inout Table) throws {
    let directory = try LocalDirectory(pool: "mail", settings())
    var times: [UInt32] = []
    times.reserveCapacity(users)
    for number in 0..<users {
      let name = name(number)
      let began = threadTime()
      _ = directory.locate(name, question, later: { _ in })
      times.append(UInt32(clamping: threadTime() - began))
    }
    times.sort()
    table.add("CPU us for a new user in memory, median", Double(times[users / 2]) / 1e3)
    table.add("  one in ten thousand", Double(times[users - users / 10_000 - 1]) / 1e3)
    table.add("  the longest", Double(times[users - 1]) / 1e3)
  }

  static func round(_ path: String, _ users: Int, _ table: inout Table) throws {
    malloc_trim(0)
    let before = resident()
    let file = try open(path)
    var made: LocalDirectory?
    let loading = try cpuSeconds { made = try LocalDirectory(pool: "mail", settings(), file: file, time: later) }
    guard let directory = made, directory.count == users else { fatalError("not all users are there") }
    table.add("CPU seconds to load \(users) users", loading)
    table.add("bytes for a remembered user, of the table", Double(directory.memory) / Double(users))
    malloc_trim(0)
    table.add("bytes for a remembered user, of the process", Double(resident() - before) * 1_024 / Double(users))

    // Known users, one after the other, in no order.
    var generator = SystemRandomNumberGenerator()
    let names = (0..<200_000).map { _ in name(Int.random(in: 0..<users, using: &generator)) }
    var answered = 0
    var asked = Set<String>()
    let known = names.filter { asked.insert($0).inserted }
    let questions = cpuSeconds {
      for name in known where directory.locate(name, question, later: { _ in }) != nil { answered += 1 }
    }
    guard answered == known.count else { fatalError("a known user had to wait") }
    table.add("CPU us for a question about a known user", questions * 1e6 / Double(known.count))
    let departures = cpuSeconds { for name in known { directory.depart(name, wasThere: true) } }
    table.add("CPU us for a departure", departures * 1e6 / Double(known.count))
    // All of their stamps are old in the file.
    let before1 = cpu()
    while directory.isUnwritten { usleep(10_000) }
    table.add("CPU us to write an old stamp anew", (cpu() - before1) * 1e6 / Double(known.count))

    // New users, each in the file before the answer: as many at once as there are sessions, then one by one.
    for waiting in [1, 64, 1_000] {
      let count = waiting == 1 ? 5_000 : 100_000
      let prefix = "new\(waiting)-"
      let before2 = cpu()
      let took = seconds { ask(directory, prefix, count, waiting) }
      table.add("new users a second, \(waiting) at once", Double(count) / took)
      table.add("CPU us for a new user, \(waiting) at once", (cpu() - before2) * 1e6 / Double(count))
      for number in 0..<count { directory.depart(prefix + name(number), wasThere: true) }
      for number in 0..<count { _ = directory.forget(prefix + name(number)) }
    }

    var entries = 0
    let walk = cpuSeconds {
      directory.forEach { portion in
        entries += portion.count
        return true
      }
    }
    table.add("CPU seconds to list all users", walk)
    file.close()
  }

  static func ask(_ directory: LocalDirectory, _ prefix: String, _ count: Int, _ waiting: Int) {
    let places = DispatchSemaphore(value: waiting)
    let finished = DispatchSemaphore(value: 0)
    let left = Atomic(count)
    @Sendable func done() {
      places.signal()
      if left.subtract(1, ordering: .relaxed).newValue == 0 { finished.signal() }
    }
    for number in 0..<count {
      places.wait()
      if directory.locate(prefix + name(number), question, later: { _ in done() }) != nil { done() }
    }
    finished.wait()
  }

  static func ring(_ size: Int, _ table: inout Table) {
    for form in RingForm.allCases {
      let members = (0..<size).map {
        RingMember(name: "mail-\($0)", address: "192.0.2.\($0 + 1)", weight: 100, index: $0)
      }
      var made: Ring?
      let building = cpuSeconds { made = try? Ring(form: form, members: members) }
      guard let ring = made else { fatalError("no ring") }
      table.add("CPU ms to make a ring (\(form.rawValue)), \(size) members", building * 1e3)
      let names = (0..<100_000).map(name)
      var sum = 0
      let looking = cpuSeconds { for name in names { sum += ring.member(for: name) ?? 0 } }
      guard sum > 0 else { fatalError("nobody") }
      table.add("CPU us for a look at a ring (\(form.rawValue)), \(size) members", looking * 1e6 / Double(names.count))
    }
  }
}

/// Figures by their names, in the order they came.
struct Table {
  private var names: [String] = []
  private var figures: [String: [Double]] = [:]

  mutating func add(_ name: String, _ figure: Double) {
    if figures[name] == nil { names.append(name) }
    figures[name, default: []].append(figure)
  }

  func write() {
    print("| median [min..max] | |\n|---|---|")
    for name in names {
      let sorted = (figures[name] ?? []).sorted()
      guard let low = sorted.first, let high = sorted.last else { continue }
      let median = sorted[sorted.count / 2]
      print("| \(name) | \(text(median))" + (sorted.count > 1 ? " [\(text(low))..\(text(high))] |" : " |"))
    }
  }

  private func text(_ figure: Double) -> String {
    if figure >= 1_000 { return String(Int(figure.rounded())) }
    let tenths = (figure * (figure < 10 ? 100 : 10)).rounded() / (figure < 10 ? 100 : 10)
    return "\(tenths)"
  }
}

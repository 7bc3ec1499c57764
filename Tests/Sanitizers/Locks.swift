/// Shows what ThreadSanitizer makes of a lock: threads that add to a dictionary, each time within `withLock`, and the sanitizer
/// reports a race or not. `run` says which must be reported.
///
/// library: the standard library's `Mutex`. annotated: the same, and the sanitizer is told of each hand-over, by its own
/// functions: if no race is reported then, the lock did hand over, and the sanitizer had not seen it. stand-in: the `Mutex` of
/// a build for the sanitizer (Sources/ProxyCore/Loop/Mutex.swift). none: no lock at all, which is a race.

internal import Glibc
internal import Synchronization

// The stand-in is compiled into this module, and is named so here.
typealias LibraryMutex = Synchronization.Mutex
typealias StandIn = Locks.Mutex

@_silgen_name("__tsan_acquire") func tsanAcquire(_ address: UnsafeRawPointer)
@_silgen_name("__tsan_release") func tsanRelease(_ address: UnsafeRawPointer)

final class Shared: @unchecked Sendable {
  let library = LibraryMutex<[Int: Int]>([:])
  let standIn = StandIn<[Int: Int]>([:])
  var bare = 0
  let address = UnsafeRawPointer(UnsafeMutableRawPointer.allocate(byteCount: 8, alignment: 8))
}

let shared = Shared()
let manner = CommandLine.arguments[1]

func work(_: UnsafeMutableRawPointer?) -> UnsafeMutableRawPointer? {
  for number in 0..<20_000 {
    let key = number & 31
    switch manner {
    case "library": shared.library.withLock { $0[key] = $0[key] == nil ? number : nil }
    case "annotated":
      shared.library.withLock {
        tsanAcquire(shared.address)
        $0[key] = $0[key] == nil ? number : nil
        tsanRelease(shared.address)
      }
    case "stand-in": shared.standIn.withLock { $0[key] = $0[key] == nil ? number : nil }
    default: shared.bare += 1
    }
  }
  return nil
}

@main
enum Main {
  static func main() {
    var threads = [pthread_t](repeating: 0, count: 4)
    for index in threads.indices {
      pthread_create(&threads[index], nil, work, nil)
    }
    for thread in threads { pthread_join(thread, nil) }
    print("\(manner): done")
  }
}

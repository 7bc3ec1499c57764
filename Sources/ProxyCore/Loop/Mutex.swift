/// Stands in for the standard library's `Mutex` in a build for ThreadSanitizer, in every module, and only there.
///
/// Under contention the library's is handed over by the kernel (FUTEX_UNLOCK_PI), which the sanitizer does not see: it reports
/// races between two sections of one lock (Tests/Sanitizers shows it). It knows pthread's. `make thread` fails if an object
/// of the build refers to the library's.

#if PROXYD_TSAN
  internal import Glibc

  /// A lock around a value, as the standard library's.
  @safe
  package struct Mutex<Value: ~Copyable>: ~Copyable, @unchecked Sendable {
    private let lock: UnsafeMutablePointer<pthread_mutex_t>
    private let value: UnsafeMutablePointer<Value>

    /// Not locked.
    package init(_ initial: consuming sending Value) {
      // SAFETY: both are this value's alone until `deinit`; the value is touched under the lock only.
      unsafe lock = .allocate(capacity: 1)
      unsafe lock.initialize(to: pthread_mutex_t())
      unsafe pthread_mutex_init(lock, nil)
      unsafe value = .allocate(capacity: 1)
      unsafe value.initialize(to: initial)
    }

    deinit {
      unsafe pthread_mutex_destroy(lock)
      unsafe lock.deallocate()
      unsafe value.deinitialize(count: 1)
      unsafe value.deallocate()
    }

    /// Runs the body while nobody else is inside; throws what the body does.
    package borrowing func withLock<Result: ~Copyable, Failure: Error>(
      _ body: (inout Value) throws(Failure) -> Result
    ) throws(Failure) -> Result {
      unsafe pthread_mutex_lock(lock)
      defer { unsafe pthread_mutex_unlock(lock) }
      return try unsafe body(&value.pointee)
    }
  }
#endif

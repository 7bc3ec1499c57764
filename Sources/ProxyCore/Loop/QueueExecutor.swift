/// Runs an actor on a serial Dispatch queue. (Linux has no DispatchSerialQueue to do it.)

internal import Dispatch

final class QueueExecutor: SerialExecutor {
  let queue: DispatchQueue
  /// Readable when something was put on the queue: the loop may be waiting in epoll on it for up to `EventLoop.linger`.
  let kick: Descriptor

  init(label: String, kick: consuming Descriptor) {
    queue = DispatchQueue(label: label)
    self.kick = kick
  }

  func enqueue(_ job: consuming ExecutorJob) {
    let job = UnownedJob(job)
    // SAFETY: the executor outlives its actor, and the actor is kept by its jobs.
    queue.async { unsafe job.runSynchronously(on: self.asUnownedSerialExecutor()) }
    Syscall.kick(kick)
  }

  func checkIsolated() { dispatchPrecondition(condition: .onQueue(queue)) }
}

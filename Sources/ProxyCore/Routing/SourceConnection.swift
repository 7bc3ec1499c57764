/// What a source off the loops consists of: connections that may block, each used by one thread.

/// A connection to a source's server, or an open file. Made on the thread that uses it; connects when it is first asked.
package protocol SourceConnection: AnyObject {
  /// Asks, and may block for the answer until `deadline`, in nanoseconds of `Clock.monotonic`, and no longer.
  ///
  /// A connection that was idle and proves broken is opened anew, once, within the same time.
  func answer(_ request: SourceRequest, until deadline: UInt64) -> SourceReply
}

/// What came of a question.
package enum SourceReply: Equatable, Sendable {
  case answer(SourceAnswer)
  /// No connection could be made: others need not try for a while.
  case unreachable(String)
}

/// How a source's connections are made.
package struct SourcePlan: Sendable {
  /// The source as `proxyd route` and the log name it. No secret is in it.
  let name: String
  /// Connections at most, one thread each.
  let connections: Int
  /// Whether it is given the client's password, so that its answers are for that login alone: they are neither shared nor
  /// remembered.
  let isPersonal: Bool
  /// Whether it tells its server who the client is: of equal questions at the same time, whoever asked first.
  let needsFacts: Bool
  /// Makes one, without connecting yet.
  let make: @Sendable () -> any SourceConnection

  /// A plan of its parts.
  init(
    name: String, connections: Int, isPersonal: Bool = false, needsFacts: Bool = false,
    make: @escaping @Sendable () -> any SourceConnection
  ) {
    self.name = name
    self.connections = connections
    self.isPersonal = isPersonal
    self.needsFacts = isPersonal || needsFacts
    self.make = make
  }
}

/// What the control protocol can ask of the proxy and tell it; a test plays them.

internal import Logging
internal import ProxyCore

protocol ControlActions: Sendable {
  /// The backends together.
  var fleet: any FleetActions { get }

  func status() -> ToldStatus
  func listeners() -> [ToldListener]
  /// Hands the sessions that are meant to `body`; false from it ends that. False if the proxy does not answer.
  func sessions(_ filter: SessionFilter, _ body: (ToldSession) -> Bool) -> Bool
  /// Ends the sessions that are meant; nil if the proxy does not answer.
  func kick(_ filter: SessionFilter) -> Int?
  /// Who is logged in; nil if the proxy does not answer.
  func users(_ filter: SessionFilter) -> [ToldUser]?
  func metrics() -> [ToldMetric]
  /// Returns what is wrong with the configuration; nothing if it is adopted.
  func reload() -> [String]
  func logLevel() -> Logger.Level
  func setLogLevel(_ level: Logger.Level)
  /// Begins to look at a user's logins; nil if too many look already.
  func beginTrace(_ user: String, _ bounds: TraceBounds) -> Trace?
  func endTrace(_ trace: Trace)
}

/// What can be asked of the fleet and told it.
protocol FleetActions: Sendable {
  /// All backends, and the servers that maps name by their address, by name.
  func backends() -> [ToldBackend]
  /// How it is set then; nil if there is no such backend.
  func set(_ backend: String, state: AdminState?, weight: WeightChange?) -> ToldSetting?
  /// Users remembered by pools with affinity.
  func userCount() -> Int
  /// Hands the users that are remembered to `body`; false from it ends that.
  func places(pool: String?, backend: String?, _ body: (ToldPlace) -> Bool) throws(ControlProblem)
  func map(_ user: String, pool: String?) throws(ControlProblem) -> [ToldMapping]
  func move(_ user: String, to backend: String, pool: String?) throws(ControlProblem)
  /// Returns in how many pools the user was known.
  func forget(_ user: String, pool: String?) throws(ControlProblem) -> Int
  /// Has the users of a backend placed anew, or all users; returns how many.
  func flush(_ backend: String?, pool: String?) throws(ControlProblem) -> Int
  /// Returns how many were taken.
  func load(_ entries: [ControlEntry], pool: String?) throws(ControlProblem) -> Int
}

/// What becomes of a weight.
enum WeightChange: Equatable, Sendable {
  case to(Int)
  /// The configuration's.
  case standard
}

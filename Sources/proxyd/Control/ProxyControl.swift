/// What the control protocol does to the running proxy.

internal import Glibc
internal import Logging
internal import Protocols
internal import ProxyCore

struct ProxyControl: ControlActions {
  private let changes: Changes
  private let began = ServiceManager.microseconds

  init(_ changes: Changes) { self.changes = changes }

  private var proxy: Proxy { changes.proxy }
  private var house: House { changes.proxy.house }
  var fleet: any FleetActions { FleetControl(proxy: changes.proxy) }

  func status() -> ToldStatus {
    let backends = house.meters.allBackends.map(\.meter)
    let views = house.fleet.views
    let file = house.fleet.stateFile
    return ToldStatus(
      version: Proxyd.version, pid: Int(getpid()), state: proxy.isStopping ? "stopping" : "running",
      uptime: Int((ServiceManager.microseconds - began) / 1_000_000), loops: proxy.settings.loops,
      sessions: proxy.sessions, limit: house.admission.limit,
      logins: backends.reduce(0) { $0 + $1.accepted.value },
      failedLogins: house.meters.failures.counted.reduce(0) { $0 + $1.count },
      in: backends.reduce(0) { $0 + $1.bytesIn.value }, out: backends.reduce(0) { $0 + $1.bytesOut.value },
      users: fleet.userCount(), logLevel: changes.log.level.rawValue, backends: views.count,
      lostBackends: views.count { $0.stands.health.isDown }, stateFile: file?.path, stateTrouble: file?.lack)
  }

  func listeners() -> [ToldListener] {
    proxy.listeners.map { listener in
      let meter = listener.meter
      return ToldListener(
        listener: listener.address.description, protocol: listener.mailProtocol.rawValue, tls: listener.tls.rawValue,
        sessions: meter.present.value, accepted: meter.accepted.value, handshakes: meter.handshakes.value,
        failedHandshakes: meter.failedHandshakes.value, logins: meter.logins.value,
        refusedLogins: meter.refused.value, in: meter.bytesIn.value, out: meter.bytesOut.value)
    }
  }

  func sessions(_ filter: SessionFilter, _ body: (ToldSession) -> Bool) -> Bool {
    house.eachSession(filter) { rows in rows.allSatisfy { body(ProxyControl.told($0)) } }
  }

  private static func told(_ row: SessionRow) -> ToldSession {
    ToldSession(
      session: row.name, user: row.user, loggedIn: row.isLoggedIn, protocol: row.mailProtocol.rawValue,
      client: row.client, listener: row.listener, backend: row.backend, address: row.backendAddress, doing: row.doing,
      age: Int(row.age / 1_000_000), idle: row.idle.map { Int($0 / 1_000_000) }, in: Int(clamping: row.fromClient),
      out: Int(clamping: row.toClient), tls: row.tls, backendTls: row.backendTLS)
  }

  func kick(_ filter: SessionFilter) -> Int? { house.kick(filter, .kick) }

  /// As many addresses of a user are told.
  private static let mostAddresses = 20

  func users(_ filter: SessionFilter) -> [ToldUser]? {
    house.users(filter)?.map { user in
      ToldUser(
        user: user.user, sessions: user.sessions,
        addresses: Array(user.addresses.sorted().prefix(ProxyControl.mostAddresses)),
        addressCount: user.addresses.count, backends: user.backends.sorted(),
        protocols: user.protocols.map(\.rawValue).sorted())
    }
  }

  func metrics() -> [ToldMetric] {
    house.metrics(proxy.listeners).map { metric in
      let labels = Dictionary(metric.labels.map { ($0.name, $0.value) }) { first, _ in first }
      var told = ToldMetric(name: metric.name, labels: labels, type: "")
      switch metric.value {
      case .counter(let number): (told.type, told.value) = ("counter", number)
      case .gauge(let number): (told.type, told.value) = ("gauge", number)
      case .times(let reading):
        told.type = "histogram"
        told.count = reading.count
        told.sum = Int(clamping: reading.sum / 1_000)
        told.buckets = reading.buckets
      }
      return told
    }
  }

  func reload() -> [String] { changes.reload() }

  func logLevel() -> Logger.Level { changes.log.level }
  func setLogLevel(_ level: Logger.Level) { changes.log.level = level }

  func beginTrace(_ user: String, _ bounds: TraceBounds) -> Trace? { house.traces.begin(user, bounds) }
  func endTrace(_ trace: Trace) { house.traces.end(trace) }
}

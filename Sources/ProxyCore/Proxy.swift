/// The proxy as a whole: its loops, its listening sockets, and the changes it goes through.

internal import Dispatch
internal import Logging
internal import Synchronization

package final class Proxy: Sendable {
  /// What its loops share.
  package let house: House
  private let loops: [EventLoop]
  private let state: Mutex<State>
  private let stopped = DispatchSemaphore(value: 0)
  private let watch = Mutex<CertificateWatch?>(nil)
  /// Changes come one after the other: a reload, renewed certificates, a stop. Each may take as long as reading a large
  /// file of patterns; no loop ever waits for one.
  private let changing = Mutex<Void>(())

  private struct State {
    var current: Prepared
    /// The numbers of the loops that still have sessions, once the proxy is stopping.
    var busy: Set<Int>?
  }

  /// A configuration with all it names opened.
  private struct Prepared: Sendable {
    let settings: Settings
    /// The listeners of the settings that are open, in the order of the plan's.
    let wanted: [ListenerSettings]
    let plan: LoopPlan
    let tls: TLSBook
    /// How the files that TLS is made of stood before they were read.
    let files: CertificateWatch.Snapshot
    let fleet: FleetPlan
    let warnings: [SettingsError]
  }

  /// Opens everything the settings name and begins to listen; no connection is accepted before `start`.
  package init(_ settings: Settings, log: Log) throws(SettingsErrors) {
    let prepared = try Proxy.prepare(settings, predecessor: nil)
    let descriptors = Syscall.raiseDescriptorLimit()
    let most = settings.sessions ?? Admission.sessions(descriptors: descriptors)
    house = House(log: log, admission: Admission(most: most), resolver: Resolver())
    var loops: [EventLoop] = []
    for index in 0..<settings.loops {
      do throws(SystemError) { loops.append(try EventLoop(index: index, house: house, plan: prepared.plan)) } catch {
        throw SettingsErrors([SettingsError(key: "loops", problem: "an event loop can't be made: \(error)")])
      }
    }
    self.loops = loops
    house.set(loops)
    state = Mutex(State(current: prepared))
    tell(prepared.warnings)
    house.notifyWhenEmpty { [weak self] index in self?.loopIsEmpty(index) }
  }

  /// The cores this process may use: the default number of loops.
  package static var usableCores: Int { Syscall.usableCores }

  /// Opens what is written to, as whoever the process has become, and begins to accept. Fails if the state file can't be
  /// used.
  package func start() throws(SettingsErrors) {
    try changing.withLock { _ throws(SettingsErrors) in
      let (settings, fleet) = state.withLock { ($0.current.settings, $0.current.fleet) }
      try house.fleet.open(settings.stateFile, for: fleet)
      house.fleet.adopt(fleet)
    }
    for loop in loops { loop.start() }
    house.fleet.probe(house.resolver)
    let files = state.withLock { $0.current.files }
    let watch = CertificateWatch(files) { @Sendable [weak self] in self?.reloadCertificates() }
    self.watch.withLock { $0 = watch }
  }

  /// The addresses listened on, with the ports the kernel chose where 0 was asked for.
  package var addresses: [SocketAddress] {
    state.withLock { $0.current.plan.listeners.map(\.listener.address) }
  }

  /// The listeners there are.
  package var listeners: [Listener] { state.withLock { $0.current.plan.listeners.map(\.listener) } }

  /// The configuration in use.
  package var settings: Settings { state.withLock { $0.current.settings } }

  /// Whether it accepts no connection any more.
  package var isStopping: Bool { state.withLock { $0.busy != nil } }

  /// Sessions now.
  package var sessions: Int { house.admission.count }

  /// Goes over to other settings: all of them, or none if one can't be used. Sessions stay.
  package func reload(_ settings: Settings) throws(SettingsErrors) {
    try changing.withLock { _ throws(SettingsErrors) in
      let (current, isStopping) = state.withLock { ($0.current, $0.busy != nil) }
      // The ports are closed already, and nobody would accept at new ones.
      if isStopping { throw SettingsErrors([SettingsError(key: "", problem: "the proxy is stopping")]) }
      let prepared = try Proxy.prepare(settings, predecessor: current)
      try house.fleet.open(settings.stateFile, for: prepared.fleet)
      do throws(SystemError) { try house.log.reconfigure(settings.log) } catch {
        throw SettingsErrors([SettingsError(key: "log.to", problem: "it can't be opened: \(error)")])
      }
      tell(prepared.warnings)
      if settings.control != current.settings.control {
        tell([SettingsError(key: "control", problem: "a change takes a restart")])
      }
      if settings.loops != loops.count { tell([SettingsError(key: "loops", problem: "a change takes a restart")]) }
      house.admission.allow(settings.sessions ?? Admission.sessions(descriptors: Syscall.raiseDescriptorLimit()))
      watch.withLock { $0?.follow(prepared.files) }
      adopt(prepared)
    }
  }

  /// Returns when each loop has gone over: whoever is told that it is done may connect at once, and meets the new one.
  private func adopt(_ prepared: Prepared) {
    state.withLock { $0.current = prepared }
    // Before the loops: a route of theirs may name a new pool.
    house.fleet.adopt(prepared.fleet)
    let adopted = DispatchSemaphore(value: 0)
    for loop in loops {
      loop.post {
        $0.adopt(prepared.plan)
        adopted.signal()
      }
    }
    let end = DispatchTime.now() + Proxy.adoption
    let late = loops.count { _ in adopted.wait(timeout: end) == .timedOut }
    guard late > 0 else { return }
    house.log.logger.warning(
      "event loops are busy and go over to the change when they can", metadata: ["loops": "\(late)"])
  }

  /// A loop's turn takes milliseconds; one that waits for a map that is locked, `timeouts.lookup` for each login. So long it
  /// is waited for.
  private static let adoption = DispatchTimeInterval.seconds(5)

  /// Goes over to the certificates, keys and authorities that are there now, towards clients and towards backends each for
  /// itself; what can't be used stays as it was. Routes are not touched: they change when the operator says so.
  private func reloadCertificates() {
    changing.withLock { _ in
      let (current, isStopping) = state.withLock { ($0.current, $0.busy != nil) }
      guard !isStopping else { return }
      var errors: [SettingsError] = []
      var (tls, routes, fleet) = (current.tls, current.plan.routes, current.fleet)
      do throws(SettingsErrors) { tls = try TLSBook(current.settings, predecessor: current.tls) } catch {
        errors += error.errors
      }
      do throws(SettingsErrors) {
        let book = try BackendBook(current.settings)
        routes = routes.with(book)
        fleet = fleet.with(book)
      } catch { errors += error.errors }
      for problem in errors {
        house.log.logger.error(
          "certificates changed and can't be used, the old ones stay",
          metadata: ["key": "\(problem.key)", "problem": "\(problem.problem)"])
      }
      let listeners = zip(current.plan.listeners, current.wanted).map { bound, wanted in
        BoundListener(bound.socket, wanted, current.settings, tls.context(wanted))
      }
      adopt(
        Prepared(
          settings: current.settings, wanted: current.wanted,
          plan: LoopPlan(listeners: listeners, routes: routes, settings: current.settings), tls: tls,
          files: current.files, fleet: fleet, warnings: []))
      if errors.isEmpty {
        tell(tls.warnings)
        house.log.logger.notice("certificates reloaded")
      }
    }
  }

  /// What is wrong with the settings, and what is odd, without listening or serving.
  package static func check(_ settings: Settings) throws(SettingsErrors) -> [SettingsError] {
    var errors: [SettingsError] = []
    var warnings: [SettingsError] = []
    do throws(SettingsErrors) {
      let routes = try RoutePlan(settings)
      warnings += routes.warnings
      _ = try FleetPlan(settings, routes.backends)
    } catch { errors += error.errors }
    do throws(SettingsErrors) { warnings += try TLSBook(settings, predecessor: nil).warnings } catch {
      errors += error.errors
    }
    guard errors.isEmpty else { throw SettingsErrors(errors) }
    return warnings
  }

  // MARK: Stopping

  /// Stops accepting and ends the sessions that are not logged in. Relays may go on for the time the settings give them,
  /// or end now.
  package func stop(now: Bool) {
    let grace = changing.withLock { _ in closeDoors(now: now) }
    house.fleet.endProbes()
    for loop in loops { loop.post { $0.retire() } }
    let deadline = DispatchTime.now() + .nanoseconds(Int(clamping: grace))
    DispatchQueue.global().asyncAfter(deadline: deadline) { @Sendable in
      for loop in self.loops { loop.post { $0.endSessions() } }
    }
  }

  /// Gives up the listening sockets; returns how long relays may go on.
  private func closeDoors(now: Bool) -> UInt64 {
    state.withLock { state in
      if state.busy == nil { state.busy = Set(loops.map(\.index)) }
      let current = state.current
      state.current = Prepared(
        settings: current.settings, wanted: [], plan: current.plan.withoutListeners, tls: current.tls,
        files: current.files, fleet: current.fleet, warnings: [])
      return now ? 0 : state.current.settings.timeouts.shutdown
    }
  }

  /// Returns when the last session is over.
  package func waitUntilStopped() {
    stopped.wait()
    for loop in loops { loop.post { $0.end() } }
    // The two know each other.
    house.set([])
    house.fleet.close()
    house.log.flush()
  }

  private func loopIsEmpty(_ index: Int) {
    let isLast = state.withLock { state in
      guard state.busy?.remove(index) != nil else { return false }
      return state.busy?.isEmpty ?? false
    }
    if isLast { stopped.signal() }
  }

  // MARK: Preparing

  private static func prepare(_ settings: Settings, predecessor: Prepared?) throws(SettingsErrors) -> Prepared {
    let files = CertificateWatch.Snapshot(settings.tlsFiles)
    var errors: [SettingsError] = []
    var routes: RoutePlan?
    var fleet: FleetPlan?
    do throws(SettingsErrors) {
      let opened = try RoutePlan(settings)
      routes = opened
      fleet = try FleetPlan(settings, opened.backends)
    } catch { errors += error.errors }
    var tls: TLSBook?
    do throws(SettingsErrors) { tls = try TLSBook(settings, predecessor: predecessor?.tls) } catch {
      errors += error.errors
    }
    // Sockets come last: a port is not taken for settings that can't be used.
    guard errors.isEmpty, let routes, let fleet, let tls else { throw SettingsErrors(errors) }
    let bound = try listen(settings, tls, predecessor)
    let plan = LoopPlan(listeners: bound.listeners, routes: routes, settings: settings)
    return Prepared(
      settings: settings, wanted: bound.wanted, plan: plan, tls: tls, files: files, fleet: fleet,
      warnings: routes.warnings + tls.warnings + bound.warnings)
  }

  /// Opens the sockets that are not open yet; those of the predecessor are used further.
  private static func listen(
    _ settings: Settings, _ tls: TLSBook, _ predecessor: Prepared?
  ) throws(SettingsErrors) -> (listeners: [BoundListener], wanted: [ListenerSettings], warnings: [SettingsError]) {
    var open = predecessor?.plan.listeners.map(\.socket) ?? []
    var listeners: [BoundListener] = []
    var opened: [ListenerSettings] = []
    var warnings: [SettingsError] = []
    var errors: [SettingsError] = []
    for wanted in settings.listeners {
      if let known = open.firstIndex(where: { $0.wanted == wanted.address }) {
        listeners.append(BoundListener(open.remove(at: known), wanted, settings, tls.context(wanted)))
        opened.append(wanted)
        continue
      }
      do throws(SystemError) {
        listeners.append(BoundListener(try ListeningSocket(wanted.address), wanted, settings, tls.context(wanted)))
        opened.append(wanted)
      } catch {
        let problem = "\(wanted.address) can't be listened on: \(error)"
        let found = SettingsError(key: "\(wanted.key).address", problem: problem)
        if wanted.isAny, error.isUnknownFamily { warnings.append(found) } else { errors.append(found) }
      }
    }
    guard errors.isEmpty else { throw SettingsErrors(errors) }
    return (listeners, opened, warnings)
  }

  private func tell(_ warnings: [SettingsError]) {
    for warning in warnings {
      let place = warning.place.map { "\($0.file):\($0.line): " } ?? ""
      house.log.logger.warning(
        "configuration", metadata: ["key": "\(warning.key)", "problem": "\(place)\(warning.problem)"])
    }
  }
}

/// What the fleet remembers over a restart: the state file, and what operators told about backends.

internal import Logging
internal import Synchronization

extension Fleet {
  // MARK: The file

  /// Opens the file of what is remembered over a restart, unless it is open: another one takes a restart. Users in it that
  /// no pool of the plan will ask for are forgotten when they are old.
  func open(_ path: String?, for plan: FleetPlan) throws(SettingsErrors) {
    let known = state.withLock { state in
      state.began = state.began ?? DirectoryTime.system.now()
      return state.file
    }
    if let known, known.path != path {
      log.logger.warning("a change takes a restart", metadata: ["key": "state-file"])
    }
    guard known == nil, let path else { return }
    let file: StateFile
    do throws(StateFileError) {
      file = try StateFile(path) { [log] news in
        switch news {
        case .trouble(let reason):
          log.logger.error(
            "the state file can't be written: what is new is remembered in memory only",
            metadata: ["file": "\(path)", "reason": "\(reason)"])
        case .complete: log.logger.notice("the state file is written again", metadata: ["file": "\(path)"])
        }
      }
    } catch {
      throw SettingsErrors([SettingsError(key: "state-file", problem: "\(error)")])
    }
    let forgotten = file.forget(allBut: plan.tables, before: WallTime.second - plan.keepsStrangers)
    for (pool, users) in forgotten.sorted(by: { $0.key < $1.key }) {
      log.logger.notice(
        "users of a pool that is gone are forgotten",
        metadata: ["file": "\(path)", "pool": "\(pool)", "users": "\(users)"])
    }
    listening.withLock { _ in
      let known = state.withLock { state in
        state.file = file
        return Array(state.standings.values) + Array(state.past.standings.values)
      }
      // What was told without a file is kept from now on.
      for standing in known {
        if let row = standing.row(over: file.row(of: standing.name), since: WallTime.second) { file.keep(row) }
      }
    }
  }

  /// Writes what is left to be written.
  func close() {
    let file = state.withLock { $0.file.take() }
    file?.close()
  }

  // MARK: What operators want

  /// Takes an operator's word about a backend.
  @discardableResult
  package func setAdmin(_ backend: String, _ admin: AdminState) -> Told {
    guard let standing = standing(backend) else { return .unknownBackend }
    let told = listening.withLock { _ in
      standing.set(admin)
      return keep(standing)
    }
    log.logger.notice("backend set", metadata: ["backend": "\(backend)", "state": "\(admin.rawValue)"])
    decideOnGuests(standing)
    if admin.takesPart { probers.withLock { $0 }?.probeNow(backend) }
    return told
  }

  /// Takes a weight an operator set; nil for the configuration's.
  @discardableResult
  package func setWeight(_ backend: String, _ weight: Int?) -> Told {
    guard let standing = standing(backend) else { return .unknownBackend }
    let told = listening.withLock { _ in
      standing.set(weight: weight)
      return keep(standing)
    }
    log.logger.notice(
      "backend set", metadata: ["backend": "\(backend)", "weight": "\(weight.map(String.init) ?? "default")"])
    rebuild(backend)
    return told
  }

  /// Takes what operators told a process before: at the start, or when a reload names the file.
  func recall(_ row: BackendRow, _ standing: BackendStanding) {
    guard standing.recall(row) else { return }
    log.logger.notice(
      "a backend is as operators set it before the start",
      metadata: [
        "backend": "\(standing.name)", "state": "\(standing.admin.rawValue)",
        "weight": "\(standing.weight.map(String.init) ?? "default")",
      ])
  }

  /// Keeps what operators told about a backend.
  private func keep(_ standing: BackendStanding) -> Told {
    guard let file = state.withLock({ $0.file }) else { return .notKept("there is no state-file") }
    guard let row = standing.row(over: file.row(of: standing.name), since: WallTime.second) else { return .kept }
    return file.save(row).map { .notKept($0) } ?? .kept
  }
}

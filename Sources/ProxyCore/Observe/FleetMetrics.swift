/// The fleet's part of the metrics: backends as they stand, pools, and the state file.

extension House {
  /// All there is, of the process and of these listeners.
  package func metrics(_ listeners: [Listener]) -> [Metric] { meters.metrics(listeners) + fleet.metrics }
}

extension Fleet {
  /// What there is of the backends and pools of the configuration.
  var metrics: [Metric] {
    let now = clock.now
    var all: [Metric] = []
    for standing in standings { all += Fleet.metrics(standing, at: now) }
    for pool in pools { all += Fleet.metrics(pool) }
    if let stateFile { all += Fleet.metrics(stateFile) }
    return all
  }

  private static func metrics(_ standing: BackendStanding, at now: UInt64) -> [Metric] {
    let meter = standing.meter
    let label = ("backend", standing.name)
    func counter(_ name: String, _ counter: Counter) -> Metric {
      Metric("proxyd_backend_\(name)_total", .counter(counter.value), label)
    }
    var all = [
      Metric("proxyd_backend_up", .gauge(standing.snapshot(at: now).health.isDown ? 0 : 1), label),
      counter("losses", meter.losses), counter("recoveries", meter.recoveries), counter("probes", meter.probes),
      counter("failed_probes", meter.failedProbes), counter("void_probes", meter.voidProbes),
      counter("agent_checks", meter.agentChecks), counter("failed_agent_checks", meter.failedAgentChecks),
    ]
    if let last = meter.lastProbe {
      all.append(Metric("proxyd_backend_last_probe_timestamp_seconds", .gauge(last), label))
      all.append(Metric("proxyd_backend_probe_seconds", .times(meter.probeTimes.reading), label))
    }
    return all
  }

  private static func metrics(_ pool: Pool) -> [Metric] {
    let label = ("pool", pool.name)
    var all = [Metric("proxyd_pool_sessions", .gauge(pool.sessions), label)]
    if let directory = pool.directory {
      all.append(Metric("proxyd_pool_users", .gauge(directory.count), label))
      all.append(Metric("proxyd_pool_pauses_total", .counter(directory.pauses), label))
    }
    for (wait, count) in pool.meter.waits.counted {
      all.append(Metric("proxyd_pool_waits_total", .counter(count), label, ("reason", wait.rawValue)))
    }
    for (wait, count) in pool.meter.expired.counted {
      all.append(Metric("proxyd_pool_expired_waits_total", .counter(count), label, ("reason", wait.rawValue)))
    }
    return all
  }

  private static func metrics(_ file: StateFile) -> [Metric] {
    let meter = file.meter
    func counter(_ name: String, _ counter: Counter) -> Metric {
      Metric("proxyd_state_file_\(name)_total", .counter(counter.value))
    }
    return [
      counter("rows", meter.rows), counter("batches", meter.batches), counter("failures", meter.failures),
      counter("stalls", meter.stalls), Metric("proxyd_state_file_trusted", .gauge(file.isTrusted ? 1 : 0)),
      Metric("proxyd_state_file_batch_seconds", .times(meter.times.reading)),
    ]
  }
}

/// All counters and histograms as a list of named values, for whoever shows or exports them.

internal import Protocols

/// A value with a name and labels, as Prometheus has them.
package struct Metric: Equatable, Sendable {
  /// As `proxyd_logins_total`.
  package let name: String
  /// What tells it from others of its name.
  package let labels: [Label]
  /// The value.
  package let value: Value

  /// A label.
  package struct Label: Equatable, Sendable {
    /// Its name.
    package let name: String
    /// Its value.
    package let value: String
  }

  /// What kind of value.
  package enum Value: Equatable, Sendable {
    /// It grows.
    case counter(Int)
    /// It goes up and down.
    case gauge(Int)
    /// How long things took.
    case times(Histogram.Reading)
  }

  init(_ name: String, _ value: Value, _ labels: (String, String)...) {
    self.name = name
    self.labels = labels.map { Label(name: $0.0, value: $0.1) }
    self.value = value
  }
}

extension Meters {
  /// All there is, of the process and of these listeners.
  package func metrics(_ listeners: [Listener]) -> [Metric] {
    var all: [Metric] = []
    for listener in listeners { all += Meters.metrics(listener) }
    for (name, meter) in allBackends { all += Meters.metrics(name, meter) }
    for (reason, count) in ends.counted {
      all.append(
        Metric(
          "proxyd_session_ends_total", .counter(count), ("reason", reason.rawValue), ("blame", reason.blame.rawValue)))
    }
    for (eviction, count) in evictions.counted {
      all.append(
        Metric("proxyd_session_evictions_total", .counter(count), ("reason", eviction.rawValue)))
    }
    for (doing, count) in endsByDoing {
      all.append(Metric("proxyd_session_ends_doing_total", .counter(count), ("doing", doing)))
    }
    for (reason, count) in failures.counted {
      all.append(Metric("proxyd_login_failures_total", .counter(count), ("reason", reason.rawValue)))
    }
    for phase in LoginPhase.allCases {
      all.append(Metric("proxyd_phase_seconds", .times(histogram(phase).reading), ("phase", phase.rawValue)))
    }
    return all
  }

  private static func metrics(_ listener: Listener) -> [Metric] {
    let meter = listener.meter
    let labels = (("listener", listener.address.description), ("protocol", listener.mailProtocol.rawValue))
    func counter(_ name: String, _ counter: Counter) -> Metric {
      Metric("proxyd_listener_\(name)_total", .counter(counter.value), labels.0, labels.1)
    }
    var all = [
      counter("accepted", meter.accepted), counter("handshakes", meter.handshakes),
      counter("failed_handshakes", meter.failedHandshakes), counter("logins", meter.logins),
      counter("refused_logins", meter.refused), counter("in_bytes", meter.bytesIn),
      counter("out_bytes", meter.bytesOut),
      Metric("proxyd_listener_sessions", .gauge(meter.present.value), labels.0, labels.1),
    ]
    for (reason, count) in meter.ends.counted {
      all.append(
        Metric("proxyd_listener_ends_total", .counter(count), labels.0, labels.1, ("reason", reason.rawValue)))
    }
    return all
  }

  private static func metrics(_ name: String, _ meter: BackendMeter) -> [Metric] {
    let label = ("backend", name)
    func counter(_ name: String, _ counter: Counter) -> Metric {
      Metric("proxyd_backend_\(name)_total", .counter(counter.value), label)
    }
    var all = [
      counter("tried_logins", meter.tried), counter("accepted_logins", meter.accepted),
      counter("refused_logins", meter.refused), counter("failed_logins", meter.failed),
      counter("in_bytes", meter.bytesIn), counter("out_bytes", meter.bytesOut),
      Metric("proxyd_backend_sessions", .gauge(meter.present.value), label),
    ]
    for (reason, count) in meter.failures.counted {
      all.append(Metric("proxyd_backend_failures_total", .counter(count), label, ("reason", reason.rawValue)))
    }
    for (reason, count) in meter.ends.counted {
      all.append(Metric("proxyd_backend_ends_total", .counter(count), label, ("reason", reason.rawValue)))
    }
    return all
  }
}

// swift-format-ignore-file: NeverForceUnwrap

import Dispatch
import Testing

@testable import Protocols
@testable import ProxyCore

struct HistogramTests {
  /// A bound belongs to its own bucket, and what is above it to the next.
  @Test func bucketsDouble() {
    #expect(Histogram.bounds.count == 21)
    #expect(Histogram.bounds.first == 64_000)
    #expect(Histogram.bounds.last == 67_108_864_000)
    for (index, bound) in Histogram.bounds.enumerated() {
      let histogram = Histogram()
      histogram.record(bound)
      histogram.record(bound + 1)
      histogram.record(bound - 1)
      let reading = histogram.reading
      #expect(reading.buckets[index] == 2, "\(bound)")
      #expect(reading.buckets[index + 1] == 1, "\(bound)")
      #expect(reading.count == 3)
      #expect(reading.sum == 3 * bound)
    }
  }

  @Test func theEndsAreCountedToo() {
    let histogram = Histogram()
    #expect(histogram.reading.quantile(0.5) == nil)
    histogram.record(0)
    histogram.record(.max)
    #expect(histogram.reading.buckets.first == 1)
    #expect(histogram.reading.buckets.last == 1)
    // Beyond the word's end the sum begins again.
    histogram.record(11)
    #expect(histogram.reading.sum == 10)
  }

  @Test func quantiles() {
    let histogram = Histogram()
    for _ in 0..<98 { histogram.record(50_000) }
    histogram.record(1_000_000)
    histogram.record(100_000_000_000)
    #expect(histogram.reading.quantile(0.5) == 64_000)
    #expect(histogram.reading.quantile(0.98) == 64_000)
    #expect(histogram.reading.quantile(0.99) == 1_024_000)
    #expect(histogram.reading.quantile(1) == nil)
  }

  /// Every case has a counter of its own.
  @Test func casesAreCountedApart() {
    let counters = CaseCounters<LoginFailure.Reason>()
    for (index, reason) in LoginFailure.Reason.allCases.enumerated() {
      for _ in 0...index { counters.add(reason) }
    }
    for (index, reason) in LoginFailure.Reason.allCases.enumerated() { #expect(counters[reason] == index + 1) }
    #expect(counters.counted.map(\.one) == LoginFailure.Reason.allCases)
    #expect(CaseCounters<SessionEnd.Reason>().counted.isEmpty)
  }

  @Test func countingFromManyThreadsLosesNothing() {
    let histogram = Histogram()
    let counters = CaseCounters<SessionEnd.Reason>()
    DispatchQueue.concurrentPerform(iterations: 4) { number in
      for turn in 0..<10_000 {
        histogram.record(UInt64(turn * number) * 1_000)
        counters.add(.shutdown)
      }
    }
    #expect(histogram.reading.count == 40_000)
    #expect(counters[.shutdown] == 40_000)
  }

  /// Servers that a map names are many: beyond a bound they are counted together.
  @Test func unnamedBackendsAreBounded() {
    let meters = Meters()
    for number in 0..<Meters.mostBackends + 50 { meters.backend("host-\(number):143").tried.add() }
    #expect(meters.allBackends.count == Meters.mostBackends + 1)
    #expect(meters.backend(Meters.others).tried.value == 50)
    #expect(meters.backend("host-7:143").tried.value == 1)
    #expect(meters.backend("another") === meters.backend(Meters.others))
  }
}

/// What sessions leave in the counters.
struct MeterTests {
  /// A client that has asked for a login, and the backend it is sent to.
  private func ask(_ stage: LoopStage, _ server: TestServer) -> (client: Peer, backend: Peer) {
    let client = stage.connect()
    _ = client.hear("\r\n")
    client.send("a LOGIN alice secret\r\n")
    return (client, server.accept())
  }

  /// The backend hears the login and answers.
  private func answer(_ backend: Peer, _ words: String) {
    backend.send("* OK [CAPABILITY IMAP4rev1] ready\r\n")
    _ = backend.hear("\r\n")
    backend.send("L \(words)\r\n")
  }

  @Test func aSessionFromBeginningToEnd() throws {
    let server = TestServer()
    let stage = try LoopStage(.to(server.port))
    let meters = stage.house.meters
    let (client, backend) = ask(stage, server)
    let meter = meters.backend("a")
    #expect(meter.tried.value == 1)
    stage.advance(seconds: 1)
    answer(backend, "OK in")
    _ = client.hear("a OK")
    let listener = stage.onLoop { $0.sessions.all.first?.record.listener.meter }!
    // Bytes are counted while the relay goes on.
    client.send("b NOOP\r\n")
    _ = backend.hear("NOOP\r\n")
    backend.send("b OK 1234567890\r\n")
    _ = client.hear("1234567890\r\n")
    stage.onLoop { _ in }
    #expect(meter.accepted.value == 1)
    #expect(meter.present.value == 1)
    #expect(listener.logins.value == 1)
    #expect(meter.bytesIn.value == 8)
    #expect(listener.bytesIn.value == 8)
    #expect(meter.bytesOut.value == 17)
    #expect(listener.bytesOut.value == 17)
    client.close()
    _ = backend.hearsClose()
    backend.close()
    _ = stage.sessionLine()
    #expect(meter.present.value == 0)
    #expect(meter.ends[.clientClosed] == 1)
    #expect(listener.present.value == 0)
    #expect(listener.accepted.value == 1)
    #expect(listener.ends[.clientClosed] == 1)
    #expect(meters.ends[.clientClosed] == 1)
    #expect(meters.endsByDoing.map(\.doing) == ["relaying"])
    // The second between the credentials and the greeting is the connection's; the verdict came at once.
    let second = Timeouts.seconds(1)
    let expected: [LoginPhase: (count: Int, sum: UInt64)] = [
      .handshake: (0, 0), .lookup: (1, 0), .placement: (0, 0), .connect: (1, second), .backendLogin: (1, 0),
      .login: (1, second),
    ]
    for phase in LoginPhase.allCases {
      let reading = meters.histogram(phase).reading
      #expect(reading.count == expected[phase]!.count, "\(phase)")
      #expect(reading.sum == expected[phase]!.sum, "\(phase)")
    }
  }

  @Test func whatABackendRefusesIsNotItsFailure() throws {
    let server = TestServer()
    let stage = try LoopStage(.to(server.port))
    let (client, backend) = ask(stage, server)
    answer(backend, "NO [AUTHENTICATIONFAILED] no")
    _ = client.hear("a NO")
    let meter = stage.house.meters.backend("a")
    #expect(meter.refused.value == 1)
    #expect(meter.failed.value == 0)
    #expect(meter.failures[.refused] == 1)
    #expect(stage.house.meters.failures[.refused] == 1)
    // The client's next mistake is not the backend's.
    client.send("b LOGIN \"\" secret\r\n")
    eventually("the second refusal") { stage.house.meters.failures[.emptyName] == 1 }
    client.close()
    _ = stage.sessionLine()
    #expect(meter.failed.value == 0)
    #expect(meter.tried.value == 1)
    #expect(meter.ends[.clientClosed] == 0)
  }

  /// A client that goes in the middle leaves a login that has come to nothing.
  @Test func aLoginWithoutAVerdict() throws {
    let server = TestServer()
    let stage = try LoopStage(.to(server.port))
    let (client, backend) = ask(stage, server)
    client.close()
    _ = stage.sessionLine()
    let meter = stage.house.meters.backend("a")
    #expect(meter.failed.value == 1)
    #expect(meter.tried.value == 1)
    #expect(meter.present.value == 0)
    backend.close()
  }

  @Test func whatCantBeReached() throws {
    let free = TestServer().port
    let stage = try LoopStage(.to(free))
    let client = stage.connect()
    _ = client.hear("\r\n")
    client.send("a LOGIN alice secret\r\n")
    _ = client.hear("a NO [UNAVAILABLE]")
    let meter = stage.house.meters.backend("a")
    #expect(meter.failed.value == 1)
    #expect(meter.failures.counted.map(\.one) == [.backendUnreachable])
    #expect(meter.failures[.backendUnreachable] == 1)
    #expect(stage.house.meters.failures[.backendUnreachable] == 1)
    #expect(stage.house.meters.histogram(.connect).reading.count == 0)
  }

  /// Of two addresses the first is dead: that is counted, and the login is well.
  @Test func anAddressThatIsPassedOver() throws {
    let server = TestServer()
    var settings = Settings.to(server.port)
    settings.backends["a"]?.host = Host("mail.example.net")!
    let addresses = ["127.0.0.2", "127.0.0.1"].map { SocketAddress(literal: $0, port: 0)! }
    let stage = try LoopStage(settings, resolver: Resolver { _ in .addresses(addresses) })
    let (client, backend) = ask(stage, server)
    answer(backend, "OK in")
    _ = client.hear("a OK")
    let meter = stage.house.meters.backend("a")
    #expect(meter.failures[.backendUnreachable] == 1)
    #expect(meter.failed.value == 0)
    #expect(meter.accepted.value == 1)
  }

  @Test func handshakes() throws {
    let folder = try Folder()
    let stage = try LoopStage(.to(1, certificate: try makeCertificate(folder)))
    let client = stage.connect(.imap, .implicit)
    client.send("GET / HTTP/1.0\r\n\r\n")
    _ = client.hearsClose()
    _ = stage.sessionLine()
    let meters = stage.house.meters
    #expect(meters.histogram(.handshake).reading.count == 0)
    #expect(meters.endsByDoing.map(\.doing) == ["TLS handshake with the client"])
  }

  /// The list has every counter, with names and labels that stay.
  @Test func metricsAreNamed() throws {
    let meters = Meters()
    let wanted = ListenerSettings(
      mailProtocol: .pop3, address: SocketAddress(literal: "127.0.0.1", port: 110)!, tls: .off)
    let listener = Listener(wanted, .to(1), at: wanted.address, nil)
    listener.meter.accepted.add(3)
    listener.meter.ends.add(.logout)
    meters.backend("a").tried.add()
    meters.backend("a").failures.add(.connectTimeout)
    meters.ends.add(.logout)
    meters.failures.add(.connectTimeout)
    meters.countEnd(doing: "relaying")
    meters.histogram(.connect).record(1)
    func text(_ metric: Metric) -> String {
      let labels = metric.labels.map { "\($0.name)=\($0.value)" }.joined(separator: ",")
      return switch metric.value {
      case .counter(let number): "\(metric.name){\(labels)} \(number)"
      case .gauge(let number): "\(metric.name){\(labels)} \(number) now"
      case .times(let reading): "\(metric.name){\(labels)} \(reading.count) times"
      }
    }
    let lines = meters.metrics([listener]).map(text)
    let known = "listener=127.0.0.1:110,protocol=pop3"
    for line in [
      "proxyd_listener_accepted_total{\(known)} 3", "proxyd_listener_sessions{\(known)} 0 now",
      "proxyd_listener_ends_total{\(known),reason=logout} 1", "proxyd_backend_tried_logins_total{backend=a} 1",
      "proxyd_backend_failures_total{backend=a,reason=connect-timeout} 1", "proxyd_backend_sessions{backend=a} 0 now",
      "proxyd_session_ends_total{reason=logout,blame=nobody} 1", "proxyd_session_ends_doing_total{doing=relaying} 1",
      "proxyd_login_failures_total{reason=connect-timeout} 1", "proxyd_phase_seconds{phase=connect} 1 times",
      "proxyd_phase_seconds{phase=backend-login} 0 times",
    ] {
      #expect(lines.contains(line), "\(line) of \(lines)")
    }
    #expect(Set(lines).count == lines.count)
  }
}

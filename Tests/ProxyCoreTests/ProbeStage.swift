// swift-format-ignore-file: NeverForceUnwrap
// A test that unwraps nil fails, which is what it is for.

import Foundation
import Testing

@testable import Protocols
@testable import ProxyCore

// In a build for ThreadSanitizer ProxyCore has a Mutex of its own.
#if !PROXYD_TSAN
  import struct Synchronization.Mutex
#endif

/// Probers against backends that the test plays on loopback.
final class ProbeStage {
  let probers: Probers
  private let heard: Heard
  private var targets: [ProbeTarget] = []

  /// What the probers told.
  final class Heard: Sendable {
    let evidence = Mutex<[String: [HealthEvidence]]>([:])
    let reports = Mutex<[AgentReport]>([])
    let warnings = Mutex<[ProbeWarning]>([])
    let standings = Mutex<[String: BackendStanding]>([:])
  }

  init(resolver: Resolver = Resolver()) {
    let heard = Heard()
    self.heard = heard
    probers = Probers(
      resolver,
      ProbeEars(
        learn: { name, evidence in
          let standing = heard.standings.withLock { $0[name] }
          _ = standing?.learn(evidence, at: Clock.monotonic.now)
          heard.evidence.withLock { $0[name, default: []].append(evidence) }
        },
        agent: { _, report in heard.reports.withLock { $0.append(report) } },
        warn: { _, warning in heard.warnings.withLock { $0.append(warning) } }))
  }

  deinit { probers.end() }

  /// Another backend that is probed, fast unless told otherwise.
  @discardableResult
  func add(
    _ ports: [MailProtocol: UInt16], _ manner: BackendManner = BackendManner(), named name: String = "a",
    host: String = "127.0.0.1", _ change: (inout HealthSettings) -> Void = { _ in }
  ) throws -> BackendStanding {
    var settings = HealthSettings()
    settings.interval = Timeouts.milliseconds(20)
    settings.fastInterval = Timeouts.milliseconds(5)
    settings.timeout = Timeouts.seconds(20)
    change(&settings)
    let standing = BackendStanding(name, settings)
    let link = try BackendLink(manner, key: "backends.\(name)")
    let backends = Dictionary(
      uniqueKeysWithValues: ports.map { ($0, Backend(name: name, host: Host(host)!, port: $1, link)) })
    heard.standings.withLock { $0[name] = standing }
    targets.append(ProbeTarget(standing: standing, settings: settings, backends: backends))
    probers.adopt(targets)
    return standing
  }

  /// Takes a backend away.
  func drop(_ name: String) {
    targets.removeAll { $0.name == name }
    probers.adopt(targets)
  }

  func evidence(_ name: String = "a") -> [HealthEvidence] { heard.evidence.withLock { $0[name] ?? [] } }

  /// What was told of a backend first.
  func first(_ name: String = "a", _ location: SourceLocation = #_sourceLocation) -> HealthEvidence? {
    eventually("\(name) is told of", location) { !evidence(name).isEmpty }
    return evidence(name).first
  }

  /// Why the first probe failed.
  func failure(_ location: SourceLocation = #_sourceLocation) -> String {
    switch first("a", location) {
    case .probeFailed(let why)?: return why
    case let other:
      Issue.record("no failure: \(String(describing: other))", sourceLocation: location)
      return ""
    }
  }

  var reports: [AgentReport] { heard.reports.withLock { $0 } }
  var warnings: [ProbeWarning] { heard.warnings.withLock { $0 } }

  /// Lets a backend that nobody is at be probed so many times: meanwhile the others had their turns.
  func pass(_ rounds: Int = 8, _ location: SourceLocation = #_sourceLocation) throws {
    if heard.standings.withLock({ $0["fence"] }) == nil { try add([.imap: closedPort()], named: "fence") }
    let before = evidence("fence").count
    eventually("rounds pass", location) { evidence("fence").count >= before + rounds }
  }
}

/// A port that nobody listens at.
func closedPort() -> UInt16 { TestServer().port }

/// Plays one good visit.
func playVisit(_ peer: Peer, _ mailProtocol: MailProtocol) {
  switch mailProtocol {
  case .imap:
    peer.send("* OK ready\r\n")
    _ = peer.hear("Q LOGOUT\r\n")
    peer.send("* BYE bye\r\nQ OK done\r\n")
  case .pop3:
    peer.send("+OK ready\r\n")
    _ = peer.hear("QUIT\r\n")
    peer.send("+OK bye\r\n")
  case .manageSieve:
    peer.send("\"SASL\" \"PLAIN\"\r\nOK\r\n")
    _ = peer.hear("LOGOUT\r\n")
    peer.send("OK\r\n")
  }
  #expect(peer.hearsClose())
  #expect(peer.heard.isEmpty)
}

import Foundation
import Testing

// In a build for ThreadSanitizer ProxyCore has a Mutex of its own.
#if !PROXYD_TSAN
  import struct Synchronization.Mutex
#endif

@testable import Protocols
@testable import ProxyCore

/// A source off the loops that answers as a test says, and counts what it is asked.
final class PlayedSource: Sendable {
  private let answer: @Sendable (SourceRequest) -> SourceReply
  private let isPersonal: Bool
  private let connections: Int
  private let asked = Mutex<[String]>([])
  private let made = Mutex(0)

  init(
    isPersonal: Bool = false, connections: Int = 4, answer: @escaping @Sendable (SourceRequest) -> SourceReply
  ) {
    self.isPersonal = isPersonal
    self.connections = connections
    self.answer = answer
  }

  /// The keys it was asked for.
  var keys: [String] { asked.withLock { $0 } }
  /// Connections made.
  var connectionsMade: Int { made.withLock { $0 } }

  var plan: SourcePlan {
    SourcePlan(name: "played", connections: connections, isPersonal: isPersonal) {
      self.made.withLock { $0 += 1 }
      return Connection(self)
    }
  }

  /// Routes with this source first, then those of the settings.
  func plan(_ settings: Settings, _ change: (inout RouteSettings) -> Void = { _ in }) throws -> RoutePlan {
    var settings = settings
    var route = RouteSettings(.cdb(file: "played"))
    change(&route)
    settings.routes.insert(route, at: 0)
    return try RoutePlan(settings) { route, _ throws(SettingsErrors) in
      if case .cdb = route.source { self.plan } else { nil }
    }
  }

  private final class Connection: SourceConnection {
    let source: PlayedSource
    init(_ source: PlayedSource) { self.source = source }

    func answer(_ request: SourceRequest, until deadline: UInt64) -> SourceReply {
      source.asked.withLock { $0.append(String(decoding: request.query.login, as: UTF8.self)) }
      return source.answer(request)
    }
  }
}

/// Decides what the answer of a directory means: RFC 4511's result, and the attributes of the one entry that was found.

internal import Protocols

/// What a search brought.
struct LDAPResult: Equatable, Sendable {
  /// RFC 4511 §4.1.9.
  var code: Int
  /// The server's words for it.
  var words = ""
  /// Entries that came, of which there are two at most.
  var count = 0
  /// Places the server names for what it does not hold itself (RFC 4511 §4.5.3).
  var references = 0
  /// The first entry.
  var entry: LDAPEntry?

  /// The results that mean something to us.
  enum Code {
    static let success = 0
    static let noSuchObject = 32
    static let invalidCredentials = 49
  }
}

/// An entry, as far as it was asked for.
struct LDAPEntry: Equatable, Sendable {
  let name: String
  /// The values of the attributes asked for, in the settings' order: backend, login, port.
  var backends: [[UInt8]] = []
  var logins: [[UInt8]] = []
  var ports: [[UInt8]] = []
}

extension LDAPSettings {
  /// The entry a search found, or what its result means. More than one entry is a failure: which comes first is chance.
  ///
  /// `isNamed` tells that the search began at an entry named after the user; that it is missing means there is no user.
  func entry(_ result: LDAPResult, isNamed: Bool) -> Result<LDAPEntry, LDAPVerdict> {
    guard result.count < 2 else { return .failure(LDAPVerdict(.failed("more than one entry fits"))) }
    switch result.code {
    case LDAPResult.Code.success:
      if let entry = result.entry { return .success(entry) }
      guard result.references == 0 else {
        let words = "it refers to other servers for a part of the base, expected a base that it holds whole"
        return .failure(LDAPVerdict(.failed(words)))
      }
      return .failure(LDAPVerdict(.notFound))
    case LDAPResult.Code.noSuchObject where isNamed: return .failure(LDAPVerdict(.notFound))
    case LDAPResult.Code.noSuchObject: return .failure(LDAPVerdict(.failed("the base \"\(base)\" is not there")))
    default: return .failure(LDAPVerdict(.failed(result.words)))
    }
  }

  /// Where an entry sends its user.
  func answer(_ entry: LDAPEntry) -> SourceAnswer {
    guard let backend = entry.backends.first else { return .failed("the entry has no \(backendAttribute)") }
    // A set of values has no order (RFC 4511 §4.1.7).
    for (attribute, values) in [
      (backendAttribute, entry.backends), (loginAttribute, entry.logins), (portAttribute, entry.ports),
    ] where values.count > 1 {
      return .failed("the entry has \(values.count) values of \(attribute ?? ""), expected one")
    }
    let login = entry.logins.first.flatMap { $0.isEmpty ? nil : $0 }
    let answer = SourceAnswer(String(decoding: backend, as: UTF8.self), loginAs: login)
    guard case .found(var destination) = answer, let text = entry.ports.first else { return answer }
    guard let port = HostPort.port(String(decoding: text, as: UTF8.self)[...]) else {
      return .failed("the entry's \(portAttribute ?? "") is no port")
    }
    guard let place = HostPort(destination.backend), place.port == nil else {
      return .failed("the entry has a \(portAttribute ?? ""), and its \(backendAttribute) is no host without a port")
    }
    destination.backend = "\(place.host):\(port)"
    return .found(destination)
  }
}

/// An answer that is no entry.
struct LDAPVerdict: Error, Equatable, Sendable {
  let answer: SourceAnswer

  init(_ answer: SourceAnswer) { self.answer = answer }
}

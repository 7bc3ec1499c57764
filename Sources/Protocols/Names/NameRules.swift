/// Rewrites a client's user name for each purpose it is put to, as Perdition's lower_case, strip_domain and add_domain do.

/// What a name is put to. Perdition's states servername_lookup, local_authentication and remote_login, and the log.
package enum NamePurpose: String, Hashable, Sendable, CaseIterable {
  /// The question for the user's backend.
  case lookup
  /// The check of the password before a backend sees it.
  case check
  /// The login at the backend.
  case backend
  /// What is logged.
  case log
}

/// How names are rewritten. Each purpose begins with the name as the client gave it, or as a route renamed it.
package struct NameRules: Equatable, Sendable {
  /// What parts a name and its domain; the last one counts.
  package var delimiter: [UInt8] = [.ascii("@")]
  /// The purposes for which the domain is dropped, with its delimiter.
  package var stripDomain: Set<NamePurpose> = []
  /// The purposes for which a name without a domain is given one.
  package var addDomain: Set<NamePurpose> = []
  /// The domain that is added.
  package var domain: AddedDomain = .ofAddress(strippedLabels: 0)
  /// The purposes for which ASCII letters become small. Lookups are in lower case whatever stands here.
  package var lowerCase: Set<NamePurpose> = []

  /// Where an added domain comes from.
  package enum AddedDomain: Equatable, Sendable {
    case fixed([UInt8])
    /// The name of the address the client connected to, without so many of its first labels.
    case ofAddress(strippedLabels: Int)
  }

  /// One rewriting that did something, for people.
  package enum Step: String, Equatable, Sendable {
    case strippedDomain = "domain stripped"
    case addedDomain = "domain added"
    case lowerCased = "lower case"
  }

  /// Rules that change nothing.
  package init() {}

  /// Whether the name of the local address has to be known.
  package var needsAddressName: Bool {
    switch domain {
    case .fixed: false
    case .ofAddress: !addDomain.isEmpty
    }
  }

  /// The name for a purpose. `addressName` is the name of the local address; nil if it has none.
  package func name(_ name: [UInt8], for purpose: NamePurpose, addressName: [UInt8]? = nil) -> [UInt8] {
    steps(name, for: purpose, addressName: addressName).last?.name ?? name
  }

  /// The rewritings that did something, in their order, each with the name it left.
  package func steps(
    _ name: [UInt8], for purpose: NamePurpose, addressName: [UInt8]? = nil
  ) -> [(step: Step, name: [UInt8])] {
    var steps: [(step: Step, name: [UInt8])] = []
    var name = name
    if stripDomain.contains(purpose), let (user, _) = split(name), !user.isEmpty {
      name = Array(user)
      steps.append((.strippedDomain, name))
    }
    if addDomain.contains(purpose), split(name) == nil, let added = added(addressName) {
      name += delimiter + added
      steps.append((.addedDomain, name))
    }
    if lowerCase.contains(purpose), name.contains(where: { $0 != $0.lowercased }) {
      name = name.map(\.lowercased)
      steps.append((.lowerCased, name))
    }
    return steps
  }

  /// What stands before and behind the last delimiter; nil if there is none.
  package func split(_ name: [UInt8]) -> (user: ArraySlice<UInt8>, domain: ArraySlice<UInt8>)? {
    guard let place = name.lastRange(of: delimiter) else { return nil }
    return (name[..<place.lowerBound], name[place.upperBound...])
  }

  /// The domain that is added; nil if it is not known, or no label is left of it.
  private func added(_ addressName: [UInt8]?) -> [UInt8]? {
    switch domain {
    case .fixed(let domain): return domain
    case .ofAddress(let count):
      guard let addressName else { return nil }
      let labels = addressName.split(separator: .ascii(".")).dropFirst(count)
      return labels.isEmpty ? nil : Array(labels.joined(separator: [.ascii(".")]))
    }
  }
}

extension [UInt8] {
  /// Where `part` occurs last; nil if it does not, or is empty.
  fileprivate func lastRange(of part: [UInt8]) -> Range<Int>? {
    guard !part.isEmpty, part.count <= count else { return nil }
    for start in stride(from: count - part.count, through: 0, by: -1)
    where self[start..<start + part.count].elementsEqual(part) {
      return start..<start + part.count
    }
    return nil
  }
}

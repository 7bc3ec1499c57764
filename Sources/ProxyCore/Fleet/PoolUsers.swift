/// What operators ask of a pool's users: where one is and would be, and that one goes elsewhere.

internal import Dispatch
package import Protocols

/// Where a user is and would be, as Dovecot's `doveadm director status USER` tells it.
package struct PoolPlace: Equatable, Sendable {
  /// The user, as the pool's key has it.
  package let user: String
  /// What the directory knows; nil for nothing.
  package let entry: DirectoryEntry?
  /// Where the user's sessions are; nil for no sessions.
  package let present: String?
  /// The ring's member as backends stand now; nil if none takes users.
  package let home: String?
  /// The ring's member if all took users, with the weights of the configuration or the operator's.
  package let configured: String?
}

/// What came of an operator's wish for a user.
package enum UserAnswer: Equatable, Sendable {
  case done
  /// The pool does not keep users where they are.
  case noAffinity
  /// No member of the pool has that name.
  case noMember
  /// The directory does not know the user.
  case unknown
}

extension Pool {
  /// The user as the pool's key has it, from the name at the backend. Of some names the key leaves nothing, as `\d` of a
  /// domain: it is taken as it is, which is how a list of the users has it.
  package func key(of name: String, _ rules: NameRules) -> String {
    switch settings.balance {
    case .affinity(let affinity):
      let key = Pool.key(Array(name.utf8), affinity, rules)
      return key.isEmpty ? String(decoding: name.utf8.map(\.lowercased), as: UTF8.self) : key
    case .leastSessions, .roundRobin, .randomTwo: return name
    }
  }

  /// In lower case, as the director's ring has it.
  static func key(_ name: [UInt8], _ affinity: AffinitySettings, _ rules: NameRules) -> String {
    String(decoding: affinity.key.key(name, rules, KeyFacts()).map(\.lowercased), as: UTF8.self)
  }

  /// Where a user is and would be; nil without affinity. `tag`: the site the user's route asks for.
  package func place(of user: String, tag: String? = nil) -> PoolPlace? {
    guard let directory, let residents else { return nil }
    let plan = plan
    let now = plan.choice(tag: tag, tried: [], at: time)
    let always = Choice(
      plan.members.map {
        Candidate(
          weight: $0.weight, sessions: 0, takes: tag == nil || $0.settings.tag == tag, isBackup: $0.settings.isBackup)
      })
    return PoolPlace(
      user: user, entry: directory.lookup(user), present: residents.member(of: UserKey(user)),
      home: plan.ringMember(user, now).map { plan.members[$0].name },
      configured: plan.ringMember(user, always).map { plan.members[$0].name })
  }

  /// Moves a user: the sessions elsewhere are ended, and the next login goes to the member.
  package func move(_ user: String, to member: String) -> UserAnswer {
    guard let directory else { return .noAffinity }
    guard plan.index(of: member) != nil else { return .noMember }
    directory.move(user, to: member)
    return .done
  }

  /// Forgets a user: the sessions are ended, and the ring decides about the next login.
  package func forget(_ user: String) -> UserAnswer {
    guard let directory else { return .noAffinity }
    return directory.forget(user) ? .done : .unknown
  }

  /// Forgets all users of a member, or of all: who has no sessions at once, the others at the pool's rate, so that their
  /// next login is where the ring has them; but nobody who has another place by then. Returns how many of each there are;
  /// nil without affinity.
  package func flush(member: String?) -> (idle: Int, present: Int)? {
    guard let directory else { return nil }
    var idle: [String] = []
    var present: [DirectoryEntry] = []
    directory.forEach { portion in
      for entry in portion where member == nil || entry.member == member {
        if entry.expires == nil { present.append(entry) } else { idle.append(entry.user) }
      }
      return true
    }
    for user in idle { _ = directory.forget(user) }
    let rate = max(1, settings.moveRate)
    for (tick, entries) in Dictionary(grouping: present.enumerated(), by: { $0.offset * 10 / rate }) {
      DispatchQueue.global(qos: .utility).asyncAfter(deadline: .now() + .milliseconds(100 * tick)) { @Sendable in
        for (_, entry) in entries where directory.lookup(entry.user)?.member == entry.member {
          _ = directory.forget(entry.user)
        }
      }
    }
    return (idle.count, present.count)
  }

  /// The users the directory has at a member, or all; at most so many, in portions given to `body`.
  package func users(at member: String?, _ body: ([DirectoryEntry]) -> Bool) {
    directory?.forEach { portion in
      let wanted = member.map { member in portion.filter { $0.member == member } } ?? portion
      return wanted.isEmpty || body(wanted)
    }
  }
}

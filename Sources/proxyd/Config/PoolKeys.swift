/// The keys of pools and of how the health of their members is watched.

enum PoolKeys {
  private static let second: UInt64 = 1_000_000_000
  private static let hour = 3_600 * second

  static let all: [ConfigKey] = pools + affinity + HealthKeys.all("health", isTop: true)

  private static let pools: [ConfigKey] = [
    ConfigKey(
      path: "pools", kind: .map, standard: "none",
      help: """
        Backends of which each can serve every user of the pool, by the names that routes answer: `pool`, or `pool/tag` for \
        the members with that tag.
        """,
      sample: """
        # pools:
        #   mail: { members: [ a, b ] }
        """),
    ConfigKey(
      path: "pools.*", kind: .map, standard: nil,
      help: "A pool's name: letters, digits, dots, dashes and underscores; none of a backend's."),
    ConfigKey(
      path: "pools.*.members", kind: .map, standard: nil,
      help: "Its backends: a list of names, or a map of names with the keys below."),
    ConfigKey(path: "pools.*.members.*", kind: .map, standard: nil, help: "A backend's name."),
    ConfigKey(
      path: "pools.*.members.*.weight", kind: .integer(0...1_000), standard: "100",
      help: """
        Its share, in comparison with the others'; Dovecot Director's vhost count. 0 for no new users. `proxyd backend` \
        changes it at run time.
        """),
    ConfigKey(
      path: "pools.*.members.*.sessions", kind: .integer(1...10_000_000), standard: "none",
      help: "The most sessions at it. Users without a place go to others, and a login that has to go there is refused."),
    ConfigKey(
      path: "pools.*.members.*.logins", kind: .integer(1...1_000_000), standard: "none",
      help: "The most logins in progress at it; others wait in line, within timeouts.backend-login."),
    ConfigKey(
      path: "pools.*.members.*.backup", kind: .choice(["true", "false"]), standard: "false",
      help: "Whether it serves only when no other member can."),
    ConfigKey(
      path: "pools.*.members.*.tag", kind: .text, standard: "none",
      help: "The site it is at, for routes that answer `pool/tag`; Dovecot Director's tag."),
    ConfigKey(
      path: "pools.*.balance", kind: .choice(["affinity", "least-sessions", "round-robin", "random-two"]),
      standard: "affinity",
      help: """
        Who gets a login. affinity: all sessions of a user, in every protocol, are at one member at a time, as shared \
        storage needs it. least-sessions: the member with the fewest sessions for its weight. round-robin: in turn. \
        random-two: the one with fewer sessions of two drawn by weight. A change from or to affinity takes a restart.
        """),
    ConfigKey(
      path: "pools.*.sessions", kind: .integer(1...10_000_000), standard: "none",
      help: "The most sessions in the pool; a login beyond it is refused."),
    ConfigKey(
      path: "pools.*.logins", kind: .integer(1...1_000_000), standard: "none",
      help: "The most logins in progress in the pool; others wait in line, within timeouts.backend-login."),
    ConfigKey(
      path: "pools.*.slow-start", kind: .duration(0...24 * hour), standard: "0s",
      help: "How long a member that has come back takes to its full share of new users; it begins with a twentieth."),
    ConfigKey(
      path: "pools.*.spread", kind: .duration(0...hour), standard: "0s",
      help: """
        When a member is lost, its clients are let go within this time instead of all at once, so that they don't all come \
        back at once. 0: connections end when the member's end do.
        """),
    ConfigKey(
      path: "pools.*.move-rate", kind: .integer(1...100_000), standard: "100",
      help: "Users a second that are moved off a member in maintenance."),
  ]

  private static let affinity: [ConfigKey] = [
    ConfigKey(
      path: "pools.*.affinity", kind: .choice(["hash", "table"]), standard: "hash",
      help: """
        What is remembered of users without sessions. hash: nothing, the ring tells their member again. table: their \
        member, in the state file, for the time `expiry`. A change takes a restart.
        """),
    ConfigKey(
      path: "pools.*.ring", kind: .choice(["proxyd", "director"]), standard: "proxyd",
      help: """
        How a user without a place is given one. proxyd: a consistent ring of the members' names. director: Dovecot \
        Director's ring of their addresses, so that a site changes over without moving a user; weights are its vhost counts.
        """),
    ConfigKey(
      path: "pools.*.key", kind: .text, standard: "\\U",
      help: """
        What users are told apart by, of the name at the backend in lower case: \\U all of it, \\u what is before its last \
        @, \\d the domain, which keeps a domain together. As Dovecot's director_username_hash %Lu, %Ln and %Ld. A change \
        takes a restart.
        """),
    ConfigKey(
      path: "pools.*.load-bound", kind: .integer(101...1_000), standard: "none",
      help: """
        A member gets no new users beyond this percentage of its fair share of the sessions; they go to the next on the ring.
        """),
    ConfigKey(
      path: "pools.*.expiry", kind: .duration(10 * second...8_760 * hour), standard: "15m",
      help: "How long a table remembers a user after the last session. Dovecot's director_user_expire."),
    ConfigKey(
      path: "pools.*.pause", kind: .duration(0...60 * second), standard: "2s",
      help: """
        Between the end of a user's last session at one member and the first at another; logins wait meanwhile. With \
        `affinity: hash` also after the start, for the sessions of the process before. Dovecot's director_user_kick_delay.
        """),
    ConfigKey(
      path: "pools.*.rebalance", kind: .integer(0...10_000_000), standard: "0",
      help: """
        Remembered users an hour that are moved to where the ring would have them, as after a member has come back. 0: they \
        stay where they are.
        """),
    ConfigKey(
      path: "state-file", kind: .path, standard: "none",
      help: """
        A SQLite file that proxyd alone writes: where users are (`affinity: table`), and what operators told about backends \
        at run time. Without it both are forgotten at the end. A reload may add it; another change takes a restart.
        """,
      sample: "# state-file: /var/lib/proxyd/state.db"),
  ]
}

/// The keys of how a backend's health is watched: for all, and for one.
enum HealthKeys {
  private static let second: UInt64 = 1_000_000_000

  static func all(_ path: String, isTop: Bool = false) -> [ConfigKey] {
    [
      ConfigKey(
        path: path, kind: .map, standard: isTop ? "as below" : "as the key `health`",
        help: isTop
          ? "How the health of pools' members is watched; a backend may have keys of its own."
          : "How this backend's health is watched, where it differs from the key `health`.",
        sample: isTop ? "# health: { interval: 5s, rise: 2, fall: 3 }" : ""),
      ConfigKey(
        path: "\(path).probe", kind: .choice(["on", "off"]), standard: "on",
        help: """
          Whether members are asked how they are: connect, TLS as for logins, greeting, goodbye. off: only logins tell, and \
          a lost member is let back on trial.
          """),
      ConfigKey(
        path: "\(path).protocols", kind: .words(["imap", "pop3", "managesieve"]), standard: "those of the listeners",
        help: "What is probed. A member that lacks one of its services is lost for all."),
      ConfigKey(
        path: "\(path).interval", kind: .duration(second / 10...3_600 * second), standard: "5s",
        help: "Between two probes, give or take a tenth."),
      ConfigKey(
        path: "\(path).fast-interval", kind: .duration(second / 10...3_600 * second), standard: "1s",
        help: "The same while its state is in doubt, and while it is lost."),
      ConfigKey(
        path: "\(path).timeout", kind: .duration(second / 10...60 * second), standard: "5s",
        help: "For one probe, from the connection to the goodbye."),
      ConfigKey(
        path: "\(path).rise", kind: .integer(1...100), standard: "2",
        help: "Good probes in a row after which a lost member is back. One that is lost again and again takes longer."),
      ConfigKey(
        path: "\(path).fall", kind: .integer(1...100), standard: "3",
        help: "Bad probes in a row after which a member is lost."),
      ConfigKey(
        path: "\(path).failed-logins", kind: .integer(1...1_000), standard: "3",
        help: "Logins in a row that could not reach it after which it is lost, whatever the probes say."),
      ConfigKey(
        path: "\(path).refused-logins", kind: .integer(1...100_000), standard: "20",
        help: "Logins in a row that it refused as unavailable after which it is lost."),
      ConfigKey(
        path: "\(path).login", kind: .map, standard: "none", help: "A test account that probes log in with."),
      ConfigKey(path: "\(path).login.user", kind: .text, standard: nil, help: "Its name."),
      ConfigKey(
        path: "\(path).login.password-file", kind: .path, standard: nil,
        help: "A file whose first line is its password."),
      ConfigKey(
        path: "\(path).agent", kind: .port, standard: "none",
        help: """
          A port where the backend tells how it is, as HAProxy's agent-check: a line of words such as 75%, drain, maint, \
          ready, down or up.
          """),
      ConfigKey(
        path: "\(path).certificate-warning", kind: .duration(0...8_760 * 3_600 * second), standard: "336h",
        help: "A certificate that ends within this time is warned of."),
    ]
  }
}

/// The keys of the places users are looked up in: what each has in common, and the sources that need no library more.

enum RouteKeys {
  private static let second: UInt64 = 1_000_000_000
  private static let day = 86_400 * second

  static let all: [ConfigKey] =
    sources + SQLSourceKeys.all + LDAPSourceKeys.all + HTTPSourceKeys.all + StoreSourceKeys.all + last + common

  /// The names of all sources, for the choice between them.
  static let kinds = [
    "sqlite", "regex", "postgresql", "mysql", "ldap", "http", "redis", "cdb", "lmdb", "client-named", "default",
  ]

  private static let sources: [ConfigKey] = [
    ConfigKey(
      path: "routes", kind: .list, standard: nil,
      help: """
        Where users' backends are looked up, with the name in lower case. The sources are asked in order and the first \
        that knows the user wins. A source that can't be asked is a temporary failure for the client; it never counts as \
        "not found", unless its `on-failure` says so. A source answers [user@]backend or [user@]pool; the backend ! closes an account.
        """,
      sample: """
        routes:
          - sqlite: map.db
          - regex: routes.re
          - default: a
        """),
    ConfigKey(
      path: "routes[].sqlite", kind: .path, standard: "none",
      help: """
        A SQLite file with the tables `users` and `domains` (see schema.sql); a user's row beats its domain's, and the \
        backend ! closes an account. Or a map with the two keys below. Committed changes count at once, and so does a file that replaces this one.
        """),
    ConfigKey(
      path: "routes[].sqlite.file", kind: .path, standard: nil, help: "The SQLite file, for a query of your own."),
    ConfigKey(
      path: "routes[].sqlite.query", kind: .text, standard: "the tables of schema.sql",
      help: """
        A SELECT that returns the backend and, if there is a second column, the name to log in with there. Parameters: \
        :login (the whole name), :local and :domain (before and behind its last @), :protocol (imap, pop3 or managesieve). The \
        backend ! stands for a closed account.
        """),
    ConfigKey(
      path: "routes[].regex", kind: .path, standard: "none",
      help: """
        A file with a rule a line, `PATTERN: [user@]backend`. A pattern (PCRE2) must match the whole name, letters \
        compared without regard to case; $1 to $9 stand for its groups, $0 for the name. # begins a comment. Or a map \
        with the two keys below.
        """),
    ConfigKey(
      path: "routes[].regex.file", kind: .path, standard: nil, help: "The file, for a dialect of its own."),
    ConfigKey(
      path: "routes[].regex.perdition-compatible", kind: .choice(["true", "false"]), standard: "false",
      help: """
        Read and answer as Perdition's posix_regex does with a popmap.re: its quoting, POSIX's extended regular \
        expressions, and a match anywhere in the name, whose text before the match becomes the front of the answer. \
        Letters are compared without regard to case all the same.
        """),
  ]

  private static let last: [ConfigKey] = [
    ConfigKey(
      path: "routes[].client-named", kind: .texts, standard: "none",
      help: """
        Servers that clients may name themselves, by logging in as user@server: names, addresses or networks, with a port \
        where another than the protocol's own is allowed. Whoever asks for another server is looked up further down.
        """),
    ConfigKey(
      path: "routes[].default", kind: .texts, standard: "none",
      help: """
        The pool or backend of everybody who comes this far; of several, each login is sent to the next, which knows nothing \
        of their health: a pool does.
        """),
  ]

  private static let common: [ConfigKey] = [
    ConfigKey(
      path: "routes[].keys", kind: .texts, standard: "the whole name",
      help: """
        What the source is asked for, in order until something is found, made of parts of the name: \\U all of it, \\u and \
        \\d what is before and behind the last delimiter, \\D the delimiter, \\i and \\p the client's address and port, \\I \
        and \\P those it connected to. As Perdition's query_key.
        """),
    ConfigKey(
      path: "routes[].timeout", kind: .duration(10_000_000...60 * second), standard: "2s",
      help: "How long the source may take to answer. A SQLite file has timeouts.lookup."),
    ConfigKey(
      path: "routes[].on-failure", kind: .choice(["stop", "next"]), standard: "stop",
      help: """
        What happens if the source can't be asked. stop: the client is told to try again later. next: the next source is \
        asked, as if this one did not know the user; its answer may be a stranger's backend.
        """),
    ConfigKey(
      path: "routes[].cache", kind: .map, standard: "none",
      help: "What is remembered of the answers of a source that is a server; not of one that checks passwords."),
    ConfigKey(
      path: "routes[].cache.found", kind: .duration(0...day), standard: "60s", help: "How long a backend is."),
    ConfigKey(
      path: "routes[].cache.not-found", kind: .duration(0...day), standard: "10s",
      help: "How long it is that a user is unknown."),
    ConfigKey(
      path: "routes[].cache.stale", kind: .duration(0...7 * day), standard: "0s",
      help: "How much longer both are used while the source can't be asked."),
    ConfigKey(
      path: "routes[].cache.entries", kind: .integer(1...10_000_000), standard: "100000",
      help: "Answers remembered at most; the oldest go first."),
    ConfigKey(
      path: "routes[].check-password", kind: .choice(["none", "crypt", "bind"]), standard: "none",
      help: """
        Whether the password is checked before a backend sees it. crypt: the query's third column is a hash in a format of \
        crypt(3) (sqlite, postgresql, mysql). bind: by logging in as the user (ldap).
        """),
  ]
}

/// The keys of how names are rewritten.
enum NameKeys {
  private static let purposes = ["lookup", "check", "backend", "log"]

  static let all: [ConfigKey] = [
    ConfigKey(
      path: "names", kind: .map, standard: "as below",
      help: """
        How clients' names are rewritten: first stripped, then added to, then made lower case, each for the purposes \
        listed. lookup: the question for the backend. check: the check of the password. backend: the login there. log: \
        what is logged. Each begins with the name as the client gave it, or as a route renamed it. `proxyd route` shows \
        every step.
        """,
      sample: "# names: { strip-domain: [backend], lower-case: [backend] }"),
    ConfigKey(
      path: "names.delimiter", kind: .text, standard: "\"@\"",
      help: "What parts a name and its domain. The last one in a name counts."),
    ConfigKey(
      path: "names.strip-domain", kind: .words(purposes), standard: "none",
      help: "Where the domain is dropped, with its delimiter."),
    ConfigKey(
      path: "names.add-domain", kind: .words(purposes), standard: "none",
      help: "Where a name without a domain is given one."),
    ConfigKey(path: "names.domain", kind: .text, standard: "none", help: "The domain that is added."),
    ConfigKey(
      path: "names.domain-of-address", kind: .integer(0...10), standard: "none",
      help: """
        The domain that is added is the name of the address the client connected to, without so many of its first labels: \
        with 1, imap.example.org gives example.org. An address without a name adds nothing.
        """),
    ConfigKey(
      path: "names.lower-case", kind: .words(purposes), standard: "[lookup]",
      help: "Where ASCII letters become small. Lookups are in lower case in any case."),
  ]
}

/// The keys of the check of all passwords.
enum PasswordCheckKeys {
  private static let second: UInt64 = 1_000_000_000

  static let all: [ConfigKey] = [
    ConfigKey(
      path: "password-check", kind: .map, standard: "none",
      help: """
        Has passwords checked before any backend sees them, once a backend was found. Tokens and SCRAM can't be checked and \
        are refused then; a client's certificate was.
        """,
      sample: "# password-check: { pam: proxyd }"),
    ConfigKey(
      path: "password-check.pam", kind: .text, standard: nil,
      help: "The PAM service, a file of /etc/pam.d: its modules for auth and account are asked."),
    ConfigKey(
      path: "password-check.timeout", kind: .duration(second / 10...60 * second), standard: "10s",
      help: "How long a check may take."),
    ConfigKey(
      path: "password-check.connections", kind: .integer(1...256), standard: "4", help: "Checks at once."),
  ]
}

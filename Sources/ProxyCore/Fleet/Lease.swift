/// What a session holds of the fleet: a claim to a pool's member, or its count at a backend.

enum Lease: Sendable {
  /// A place in a pool, or the wish for one.
  case pool(Pool, Claim)
  /// A named backend without a pool, being logged in to or logged in.
  case backend(BackendStanding, isAdmitted: Bool)

  /// The backend that is meant, once it is known.
  var standing: BackendStanding? {
    switch self {
    case .pool(_, let claim): claim.member?.standing
    case .backend(let standing, _): standing
    }
  }

  /// The trial that the login is, where its backend is lost.
  var trial: HealthTrial? {
    switch self {
    case .pool(_, let claim): claim.trial
    case .backend: nil
    }
  }

  /// The loss of its backend after which the session was placed there; nil if that was not lost then.
  var loss: Int? {
    switch self {
    case .pool(_, let claim): claim.loss
    case .backend: nil
    }
  }

  /// Whether the server may let the login in, or has: it has heard the password, whatever becomes of its answer here.
  mutating func note(mayBeIn: Bool) {
    switch self {
    case .pool(let pool, var claim):
      claim.mayBeIn = mayBeIn
      self = .pool(pool, claim)
    case .backend: break
    }
  }

  /// The login succeeded.
  mutating func admit() {
    switch self {
    case .pool(let pool, var claim):
      pool.admitted(&claim)
      self = .pool(pool, claim)
    case .backend(let standing, _):
      standing.settle()
      self = .backend(standing, isAdmitted: true)
    }
  }

  /// Gives all back.
  consuming func release() {
    switch self {
    case .pool(let pool, var claim): pool.release(&claim)
    case .backend(let standing, let isAdmitted):
      if !isAdmitted { standing.settle() }
      standing.depart()
    }
  }
}

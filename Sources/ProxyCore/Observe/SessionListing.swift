/// Shows sessions to other threads, and ends them: in portions, so that no loop is held up however many there are.
///
/// A session stays in its slot for life, so slot after slot is looked at, and between two portions the loop has its other
/// work: who is there all the time is seen once, who comes or goes meanwhile may be missed.

internal import Dispatch
package import Protocols
internal import Synchronization

/// A session at a moment.
package struct SessionRow: Sendable {
  /// Where it can be reached.
  package let handle: SessionHandle
  private let id: SessionID
  private let givenName: [UInt8]
  private let login: [UInt8]
  private let peer: SocketAddress
  private let door: SocketAddress
  private let backendPlace: SocketAddress?
  /// The protocol it speaks.
  package let mailProtocol: MailProtocol
  /// Whether its login was accepted.
  package let isLoggedIn: Bool
  /// The backend's name; nil before there is one.
  package let backend: String?
  /// What it is doing.
  package let doing: String
  /// Since it began, in nanoseconds.
  package let age: UInt64
  /// Since a byte was last relayed, in nanoseconds; nil before the login.
  package let idle: UInt64?
  /// Bytes relayed from the client.
  package let fromClient: UInt64
  /// Bytes relayed to the client.
  package let toClient: UInt64
  /// The version of TLS with the client, as `TLSv1.3`; nil without.
  package let tls: String?
  /// The version of TLS with the backend; nil without.
  package let backendTLS: String?

  fileprivate init(_ session: Session, on loop: isolated EventLoop) {
    let record = session.record
    handle = SessionHandle(loop: loop.index, token: session.token)
    id = record.id
    givenName = record.givenName
    login = record.login
    peer = record.client
    door = record.listener.address
    backendPlace = record.backendAddress
    mailProtocol = record.listener.mailProtocol
    isLoggedIn = record.isLoggedIn
    backend = record.backend
    doing = session.doing
    age = loop.now - record.began
    idle = record.isLoggedIn ? loop.now - record.lastByte : nil
    fromClient = record.fromClient
    toClient = record.toClient
    tls = session.client.tlsVersion
    backendTLS = record.backendTLS
  }

  // Texts are made when they are asked for: not on the loop.

  /// Its name in the log.
  package var name: String { givenName.isEmpty ? id.text : String(decoding: givenName, as: UTF8.self) }
  /// The name the client last gave, as the log has it; empty before.
  package var user: String { String(decoding: login, as: UTF8.self) }
  /// The client's address and port.
  package var client: String { peer.description }
  /// The client's address alone.
  package var clientHost: String { peer.host }
  /// Our address.
  package var listener: String { door.description }
  /// The backend's address; nil before there is one.
  package var backendAddress: String? { backendPlace?.description }
}

extension EventLoop {
  /// Sessions looked at in one turn.
  fileprivate static let portion = 1_000
  /// Sessions ended in one turn: each is some system calls.
  fileprivate static let kicks = 100

  /// The sessions that are meant of those in the slots from `start` on, and the first slot not looked at; nil at the end.
  fileprivate func rows(from start: Int, _ filter: SessionFilter) -> (rows: [SessionRow], next: Int?) {
    readClock()
    let end = min(start + EventLoop.portion, sessions.capacity)
    var rows: [SessionRow] = []
    for index in start..<max(start, end) {
      guard let session = sessions.session(at: index), filter.matches(session.record, doing: session.doing) else {
        continue
      }
      rows.append(SessionRow(session, on: self))
    }
    return (rows, end < sessions.capacity ? end : nil)
  }

  /// Ends the sessions that are meant, as `rows` finds them; returns how many it has ended.
  fileprivate func kick(
    from start: Int, _ filter: SessionFilter, _ eviction: Eviction
  ) -> (count: Int, next: Int?) {
    var count = 0
    var index = start
    while index < min(start + EventLoop.portion, sessions.capacity), count < EventLoop.kicks {
      if let session = sessions.session(at: index), session.doing != Closing.doing,
        filter.matches(session.record, doing: session.doing)
      {
        kick(session.token, eviction)
        count += 1
      }
      index += 1
    }
    return (count, index < sessions.capacity ? index : nil)
  }
}

extension House {
  /// Hands the sessions that are meant to `body`, in portions; false from it ends that. Not to be called on a loop: it
  /// waits. False if a loop does not answer.
  package func eachSession(_ filter: SessionFilter, _ body: ([SessionRow]) -> Bool) -> Bool {
    for loop in allLoops {
      var start: Int? = 0
      while let place = start {
        guard let (rows, next) = House.ask(loop, { $0.rows(from: place, filter) }).take(within: House.patience)
        else { return false }
        if !rows.isEmpty, !body(rows) { return true }
        start = next
      }
    }
    return true
  }

  /// Ends the sessions that are meant, wherever they are; returns how many. Not to be called on a loop: it waits. Nil if a
  /// loop does not answer.
  package func kick(_ filter: SessionFilter, _ eviction: Eviction) -> Int? {
    var count = 0
    var places = allLoops.map { (loop: $0, start: 0) }
    while !places.isEmpty {
      // All are asked before one has answered: a proxy that stops does so with its last session, and answers no more.
      let asked = places.map { loop, start in (loop, House.ask(loop) { $0.kick(from: start, filter, eviction) }) }
      places = []
      for (loop, box) in asked {
        guard let (kicked, next) = box.take(within: House.patience) else { return nil }
        count += kicked
        if let next { places.append((loop, next)) }
      }
    }
    return count
  }

  /// How long a loop may be busy with something else. One that has ended never answers.
  private static let patience = DispatchTimeInterval.seconds(5)

  private static func ask<Answer: Sendable>(
    _ loop: EventLoop, _ question: @escaping @Sendable (isolated EventLoop) -> Answer
  ) -> Box<Answer> {
    let box = Box<Answer>()
    loop.post { box.put(question($0)) }
    return box
  }

  /// A loop's answer on its way.
  private final class Box<Answer: Sendable>: Sendable {
    private let arrived = DispatchSemaphore(value: 0)
    private let answer = Mutex<Answer?>(nil)

    func put(_ value: Answer) {
      answer.withLock { $0 = value }
      arrived.signal()
    }

    func take(within time: DispatchTimeInterval) -> Answer? {
      guard arrived.wait(timeout: .now() + time) == .success else { return nil }
      return answer.withLock { $0 }
    }
  }
}

/// A user with sessions here.
package struct UserPresence: Equatable, Sendable {
  /// The name, as the log has it.
  package let user: String
  /// Sessions that are logged in.
  package internal(set) var sessions = 0
  /// The addresses they come from, without ports.
  package internal(set) var addresses: Set<String> = []
  /// The backends they are at.
  package internal(set) var backends: Set<String> = []
  /// The protocols they speak.
  package internal(set) var protocols: Set<MailProtocol> = []
}

extension House {
  /// Who is logged in, by name. Whoever says goodbye is at no backend any more, and may be at another one again. Nil if a
  /// loop does not answer.
  package func users(_ filter: SessionFilter) -> [UserPresence]? {
    var users: [UserKey: UserPresence] = [:]
    let isComplete = eachSession(filter) { rows in
      for row in rows where row.isLoggedIn && row.doing != Closing.doing {
        let name = UserKey(row.user)
        var user = users[name] ?? UserPresence(user: name.name)
        user.sessions += 1
        user.addresses.insert(row.clientHost)
        if let backend = row.backend { user.backends.insert(backend) }
        user.protocols.insert(row.mailProtocol)
        users[name] = user
      }
      return true
    }
    return isComplete ? users.values.sorted { $0.user < $1.user } : nil
  }
}

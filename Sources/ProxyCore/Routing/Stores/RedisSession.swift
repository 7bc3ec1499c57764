/// hiredis's C interface with owners and values: a connection to a Redis server, a command, its reply.

#if Redis

  internal import CHiredis
  internal import Glibc
  internal import Protocols

  /// Why a server gave no reply.
  enum RedisFailure: Error, Equatable, Sendable {
    /// No connection, or none any more.
    case broken(String)
    case late
    /// It says no to the connection itself.
    case rejected(String)

    var words: String {
      switch self {
      case .broken(let words), .rejected(let words): words
      case .late: "it did not answer in time"
      }
    }
  }

  /// What a server replies.
  enum RedisReply: Equatable, Sendable {
    case bytes([UInt8])
    case none
    case list([RedisReply])
    /// As `WRONGTYPE Operation against a key holding the wrong kind of value`.
    case error(String)
    /// A number or a status.
    case other
  }

  extension Host {
    /// As a resolver takes it: v6 without brackets.
    fileprivate var bare: String {
      switch self {
      case .address(let address): address.host
      case .name(let name): name
      }
    }
  }

  /// A connection, closed with its last use.
  @safe
  final class RedisSession {
    private let raw: UnsafeMutablePointer<redisContext>

    /// The most a reply may have, in bytes. A backend and a name are short; what is longer is another program's.
    private static let longestReply = 64 << 10

    private init(_ raw: UnsafeMutablePointer<redisContext>) { unsafe self.raw = raw }

    deinit { unsafe redisFree(raw) }

    static func open(_ place: RedisSettings.Place, _ patience: Patience) -> Result<RedisSession, RedisFailure> {
      let context =
        switch place {
        case .socket(let path): unsafe redisConnectUnixWithTimeout(path, patience.interval)
        case .host(let server):
          unsafe redisConnectWithTimeout(
            server.host.bare, Int32(server.port ?? RedisSettings.port), patience.interval)
        }
      guard let context = unsafe context else { return .failure(.broken("no memory for a connection")) }
      let session = unsafe RedisSession(context)
      if let failure = session.failure(patience) { return .failure(failure) }
      if case .host = place { unsafe redisEnableKeepAlive(context) }
      return .success(session)
    }

    /// Sends a command of arguments, each with its length, so that nothing in one can end it; waits for the reply.
    func ask(_ arguments: [[UInt8]], _ patience: Patience) -> Result<RedisReply, RedisFailure> {
      var flat = arguments.flatMap { $0 }
      // One of them may be a password.
      defer { flat.wipe() }
      var lengths = arguments.map(\.count)
      let appended = unsafe flat.withUnsafeBytes { bytes in
        var start = 0
        // An empty array has no memory, and an empty argument needs none.
        var pointers = unsafe lengths.map { length -> UnsafePointer<CChar>? in
          defer { start += length }
          return unsafe bytes.baseAddress.map { unsafe ($0 + start).assumingMemoryBound(to: CChar.self) }
        }
        // SAFETY: as many pointers as lengths, all within the buffer; hiredis copies the arguments.
        return unsafe redisAppendCommandArgv(raw, Int32(arguments.count), &pointers, &lengths)
      }
      guard appended == REDIS_OK else { return .failure(failure(patience) ?? .broken("no memory for a command")) }
      var isSent: Int32 = 0
      while isSent == 0 {
        if let failure = bound(patience) { return .failure(failure) }
        guard unsafe redisBufferWrite(raw, &isSent) == REDIS_OK else { return .failure(failure(patience) ?? .late) }
      }
      return receive(patience)
    }

    /// hiredis's own wait begins anew with every piece of a reply; this one ends at the deadline.
    private func receive(_ patience: Patience) -> Result<RedisReply, RedisFailure> {
      while true {
        var reply: UnsafeMutableRawPointer?
        guard unsafe redisGetReplyFromReader(raw, &reply) == REDIS_OK else {
          return .failure(failure(patience) ?? .broken("no reply can be read"))
        }
        if let reply = unsafe reply {
          // SAFETY: hiredis's own reader made it, so it is a redisReply; it is copied and freed.
          defer { unsafe freeReplyObject(reply) }
          return unsafe .success(RedisReply(reply.assumingMemoryBound(to: redisReply.self)))
        }
        guard unsafe raw.pointee.reader.pointee.len <= RedisSession.longestReply else {
          return .failure(.broken("its reply is longer than \(RedisSession.longestReply) bytes"))
        }
        if let failure = bound(patience) { return .failure(failure) }
        guard unsafe redisBufferRead(raw) == REDIS_OK else { return .failure(failure(patience) ?? .late) }
      }
    }

    /// Lets the kernel wait no longer than there is time.
    private func bound(_ patience: Patience) -> RedisFailure? {
      if patience.isOver { return .late }
      return unsafe redisSetTimeout(raw, patience.interval) == REDIS_OK ? nil : .broken("no time-out can be set")
    }

    /// What is wrong with the connection; nil if nothing is.
    private func failure(_ patience: Patience) -> RedisFailure? {
      guard unsafe raw.pointee.err != 0 else { return nil }
      if patience.isOver { return .late }
      // SAFETY: the text ends with NUL within its array.
      let words = unsafe withUnsafeBytes(of: &raw.pointee.errstr) { bytes in
        unsafe String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
      }
      return .broken(words)
    }
  }

  extension RedisReply {
    fileprivate init(_ reply: UnsafePointer<redisReply>) {
      // SAFETY: what a type has is as hiredis.h says: texts with their length, lists with their count.
      switch unsafe reply.pointee.type {
      case REDIS_REPLY_STRING: self = .bytes(unsafe RedisReply.text(reply))
      case REDIS_REPLY_NIL: self = .none
      case REDIS_REPLY_ERROR: self = .error(unsafe String(decoding: RedisReply.text(reply), as: UTF8.self))
      case REDIS_REPLY_ARRAY:
        self = .list(
          (0..<(unsafe reply.pointee.elements)).map { index in
            guard let element = unsafe reply.pointee.element[index] else { return .none }
            return unsafe RedisReply(element)
          })
      default: self = .other
      }
    }

    private static func text(_ reply: UnsafePointer<redisReply>) -> [UInt8] {
      unsafe Array(UnsafeRawBufferPointer(start: reply.pointee.str, count: reply.pointee.len))
    }
  }

#endif

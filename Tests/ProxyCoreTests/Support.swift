// swift-format-ignore-file: NeverForceUnwrap
// A test that unwraps nil fails, which is what it is for.

import Foundation
import Glibc
import Testing

// In a build for ThreadSanitizer ProxyCore has a Mutex of its own.
#if !PROXYD_TSAN
  import struct Synchronization.Mutex
#endif

@testable import Protocols
@testable import ProxyCore

/// A folder that goes with the test.
final class Folder {
  let path: String

  init() throws {
    path = NSTemporaryDirectory() + "proxyd-test." + UUID().uuidString
    try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: true)
  }

  deinit { try? FileManager.default.removeItem(atPath: path) }

  func file(_ name: String) -> String { path + "/" + name }

  func write(_ name: String, _ text: String) throws -> String {
    try text.write(toFile: file(name), atomically: false, encoding: .utf8)
    return file(name)
  }
}

/// Runs a program and returns what it printed; the test fails if it fails. Not by Foundation's Process, which reads beyond
/// a buffer when a thousand descriptors are open, as AddressSanitizer sees.
@discardableResult
func run(_ argv: String...) throws -> String {
  var ends: [Int32] = [-1, -1]
  try #require(pipe(&ends) == 0)
  for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
  let output = FileHandle(fileDescriptor: ends[0], closeOnDealloc: true)
  var actions = posix_spawn_file_actions_t()
  posix_spawn_file_actions_init(&actions)
  defer { posix_spawn_file_actions_destroy(&actions) }
  for end in [STDOUT_FILENO, STDERR_FILENO] { posix_spawn_file_actions_adddup2(&actions, ends[1], end) }
  var words = argv.map { strdup($0) } + [nil]
  var environment = ProcessInfo.processInfo.environment.map { strdup("\($0)=\($1)") } + [nil]
  defer { for word in words + environment { free(word) } }
  var pid: pid_t = 0
  let error = posix_spawnp(&pid, argv[0], &actions, nil, &words, &environment)
  close(ends[1])
  try #require(error == 0, "\(argv[0]): \(String(cString: strerror(error)))")
  let text = String(decoding: output.readDataToEndOfFile(), as: UTF8.self)
  var status: Int32 = 0
  while waitpid(pid, &status, 0) < 0 { try #require(errno == EINTR) }
  try #require(status == 0, "\(argv.joined(separator: " ")): \(text)")
  return text
}

/// A certificate and its key.
func makeCertificate(_ folder: Folder, _ name: String = "mail", days: Int = 30) throws -> CertificateSettings {
  try run(
    "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "\(days)",
    "-subj", "/CN=localhost", "-keyout", folder.file("\(name).key"), "-out", folder.file("\(name).crt"))
  return CertificateSettings(certificate: folder.file("\(name).crt"), key: folder.file("\(name).key"))
}

/// Two ends of a connection, each taking about `buffer` bytes before it stalls.
func makePair(buffer: Int32? = nil) -> (Int32, Int32) {
  var ends: [Int32] = [0, 0]
  precondition(socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0, &ends) == 0)
  for end in ends {
    _ = fcntl(end, F_SETFL, O_NONBLOCK)
    if var buffer { setsockopt(end, SOL_SOCKET, SO_SNDBUF, &buffer, 4) }
  }
  return (ends[0], ends[1])
}

/// Waits until the condition holds; nothing sleeps and hopes.
func eventually(
  _ what: String, seconds: Double = 60, _ location: SourceLocation = #_sourceLocation, _ condition: () throws -> Bool
) rethrows {
  let end = Date().addingTimeInterval(seconds)
  while try !condition() {
    guard Date() < end else {
      Issue.record("not within \(seconds) s: \(what)", sourceLocation: location)
      return
    }
    usleep(2_000)
  }
}

/// A client's or a server's end of a connection, spoken to with blocking calls.
final class Peer: @unchecked Sendable {
  let fd: Int32
  private var isOpen = true
  private(set) var heard: [UInt8] = []

  init(_ fd: Int32) {
    self.fd = fd
    _ = fcntl(fd, F_SETFL, 0)
    var patience = timeval(tv_sec: 60, tv_usec: 0)
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
  }

  deinit { close() }

  func send(_ text: String) { send(Array(text.utf8)) }

  func send(_ bytes: [UInt8]) { _ = Glibc.send(fd, bytes, bytes.count, Int32(MSG_NOSIGNAL)) }

  /// Reads until the text appears, and returns all that was heard up to and with it; it is forgotten then.
  func hear(_ text: String, _ location: SourceLocation = #_sourceLocation) -> String {
    let wanted = Array(text.utf8)
    while true {
      if let range = heard.firstRange(of: wanted) {
        let front = heard[..<range.upperBound]
        heard.removeFirst(range.upperBound)
        return String(decoding: front, as: UTF8.self)
      }
      var buffer = [UInt8](repeating: 0, count: 65_536)
      let count = recv(fd, &buffer, buffer.count, 0)
      guard count > 0 else {
        Issue.record(
          "closed or silent before \(text): \(String(decoding: heard, as: UTF8.self))", sourceLocation: location)
        return String(decoding: heard, as: UTF8.self)
      }
      heard += buffer[..<count]
    }
  }

  /// Whether the other side closes; what it says before is kept in `heard`.
  func hearsClose() -> Bool {
    while true {
      var buffer = [UInt8](repeating: 0, count: 65_536)
      let count = recv(fd, &buffer, buffer.count, 0)
      if count == 0 || count < 0 && errno == ECONNRESET { return true }
      guard count > 0 else { return false }
      heard += buffer[..<count]
    }
  }

  /// The next byte; nil if there is none.
  func next() -> UInt8? {
    if !heard.isEmpty { return heard.removeFirst() }
    var byte: UInt8 = 0
    return recv(fd, &byte, 1, 0) == 1 ? byte : nil
  }

  func endDirection() { _ = shutdown(fd, Int32(SHUT_WR)) }

  /// Makes the close a reset.
  func reset() {
    var linger = linger(l_onoff: 1, l_linger: 0)
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, socklen_t(MemoryLayout<linger>.size))
    close()
  }

  func close() {
    if isOpen { Glibc.close(fd) }
    isOpen = false
  }
}

/// A listening socket on loopback for a test's own backend.
final class TestServer: @unchecked Sendable {
  private let fd: Int32
  let port: UInt16

  convenience init(backlog: Int32 = 16) { self.init(backlog: backlog, at: 0x7F00_0001, port: 0)! }

  /// Nil if the port is taken at that address.
  init?(backlog: Int32 = 16, at host: UInt32, port wanted: UInt16) {
    fd = socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_addr.s_addr = host.bigEndian
    address.sin_port = wanted.bigEndian
    var length = socklen_t(MemoryLayout<sockaddr_in>.size)
    let fd = fd
    let isBound = withUnsafeMutablePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { pointer in
        bind(fd, pointer, length) == 0 && listen(fd, backlog) == 0 && getsockname(fd, pointer, &length) == 0
      }
    }
    port = UInt16(bigEndian: address.sin_port)
    guard isBound else { return nil }
    var patience = timeval(tv_sec: 60, tv_usec: 0)
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
  }

  deinit { close(fd) }

  /// The next connection.
  func accept() -> Peer {
    let accepted = Glibc.accept(fd, nil, nil)
    precondition(accepted >= 0, "nobody connected")
    return Peer(accepted)
  }
}

/// One loop with a clock that goes when a test says so, and the log of its sessions.
final class LoopStage {
  let folder: Folder
  let loop: EventLoop
  let house: House
  let clock = PlayedClock()
  let settings: Settings
  private let tls: TLSBook
  private let logFile: String

  init(
    _ settings: Settings, resolver: Resolver = Resolver(), addressNames: AddressNames = AddressNames(),
    routes: RoutePlan? = nil, directory: (any UserDirectory)? = nil, sessions: Int = 100
  ) throws {
    folder = try Folder()
    logFile = folder.file("log")
    var settings = settings
    settings.log = LogSettings(level: .debug, format: .text, destination: .file(logFile))
    self.settings = settings
    // A book has contexts for the listeners of its settings only.
    var all = settings
    all.listeners = MailProtocol.allCases.map {
      ListenerSettings(mailProtocol: $0, address: LoopStage.address, tls: settings.tls == nil ? .off : .implicit)
    }
    tls = try TLSBook(all, predecessor: nil)
    let log = try Log(settings.log)
    house = House(
      log: log, admission: Admission(most: sessions), resolver: resolver, addressNames: addressNames,
      clock: .played(clock))
    let routes = try routes ?? RoutePlan(settings)
    let plan = LoopPlan(listeners: [], routes: routes, settings: settings)
    loop = try EventLoop(index: 0, house: house, plan: plan, clock: .played(clock))
    house.set([loop])
    if let directory { house.fleet.useForTest(directory) }
    house.fleet.adopt(try FleetPlan(settings, routes.backends))
    loop.start()
  }

  deinit {
    // The two know each other.
    house.set([])
    loop.post { $0.end() }
  }

  /// A client's end of a new session.
  func connect(
    _ mailProtocol: MailProtocol = .imap, _ policy: TLSPolicy = .off,
    mechanisms: [SASLMechanism] = [.plain, .login], proxyNetworks: [Network]? = nil
  ) -> Peer {
    let (ours, theirs) = makePair()
    let wanted = ListenerSettings(
      mailProtocol: mailProtocol, address: LoopStage.address, tls: policy, mechanisms: mechanisms,
      proxyNetworks: proxyNetworks)
    let listener = Listener(wanted, settings, at: wanted.address, tls.context(wanted))
    loop.post { $0.adoptForTest(Descriptor(owning: theirs), listener) }
    return Peer(ours)
  }

  private static let address = SocketAddress(literal: "127.0.0.1", port: 143)!

  /// Lets time pass, and the loop notice it. A turn that is under way has read the clock already and may take the message all the
  /// same: the second comes after it, and wakes the loop once more.
  func advance(seconds: UInt64) {
    clock.advance(seconds: seconds)
    onLoop { _ in }
    loop.post { _ in }
  }

  /// Ends all sessions by an operator's word.
  func kickAll(_ eviction: Eviction) {
    house.kick(onLoop { loop in loop.sessions.all.map { SessionHandle(loop: 0, token: $0.token) } }, eviction)
  }

  /// What the only session is doing.
  func doing() -> String? { onLoop { $0.sessions.all.first?.doing } }

  /// Bytes that wait in the only session's socket.
  func unread() -> Int {
    var count: Int32 = 0
    _ = ioctl(clientDescriptor(), UInt(FIONREAD), &count)
    return Int(count)
  }

  /// The descriptor of the only session's client.
  func clientDescriptor() -> Int32 { onLoop { $0.sessions.all.first?.client.descriptor.raw } ?? -1 }

  /// Asks the loop something.
  func onLoop<Value: Sendable>(_ body: @escaping @Sendable (isolated EventLoop) -> Value) -> Value {
    let answer = Answer<Value>()
    loop.post { answer.set(body($0)) }
    return answer.get()
  }

  func log() -> String {
    house.log.flush()
    return (try? String(contentsOfFile: logFile, encoding: .utf8)) ?? ""
  }

  /// The fields of the first session line, once it is there.
  func sessionLine(_ location: SourceLocation = #_sourceLocation) -> String {
    var line = ""
    eventually("a session line", location) {
      line = log().split(separator: "\n").map(String.init).first { $0.contains("event=session ") } ?? ""
      return !line.isEmpty
    }
    return line
  }
}

extension AgentReport {
  /// A state and a share, as an agent tells them.
  init(_ admin: AdminState?, share: Int?) {
    self.init()
    self.admin = admin
    self.share = share
  }
}

extension Route {
  /// The server of a route that is to one.
  var backend: Backend {
    switch target {
    case .backend(let backend): backend
    case .pool: preconditionFailure("a pool is no backend")
    }
  }
}

extension Settings {
  /// The same servers as a pool that keeps users where they are.
  func pooled(_ balance: Balance = .affinity(AffinitySettings())) -> Settings {
    var settings = self
    settings.pools = [
      "mail": PoolSettings(members: backends.keys.sorted().map { MemberSettings($0) }, balance: balance)
    ]
    settings.routes = [.fixed(backend: "mail")]
    for name in backends.keys { settings.backends[name]?.health.isProbed = false }
    return settings
  }
}

/// A directory that answers when and what a test says.
final class PlayedDirectory: UserDirectory {
  private let state = Mutex(State())

  private struct State {
    var answer: PlaceAnswer?
    var waiting: [(user: String, later: @Sendable (PlaceAnswer) -> Void)] = []
    var departed: [String] = []
    var recall: (@Sendable (String) -> Void)?
  }

  /// What it says from here on; nil for nothing yet.
  func set(_ answer: PlaceAnswer?) { state.withLock { $0.answer = answer } }

  /// Answers the oldest question.
  func tell(_ answer: PlaceAnswer) {
    let later = state.withLock { $0.waiting.isEmpty ? nil : $0.waiting.removeFirst().later }
    later?(answer)
  }

  var questions: [String] { state.withLock { $0.waiting.map(\.user) } }
  /// Who left, with a "!" if a session had been let in.
  var departed: [String] { state.withLock { $0.departed } }
  func recall(_ user: String) { state.withLock { $0.recall }?(user) }

  func locate(
    _ user: String, _ question: PlaceQuestion, later: @escaping @Sendable (PlaceAnswer) -> Void
  ) -> PlaceAnswer? {
    state.withLock { state in
      if state.answer == nil { state.waiting.append((user, later)) }
      return state.answer
    }
  }

  func depart(_ user: String, wasThere: Bool) { state.withLock { $0.departed.append(user + (wasThere ? "!" : "")) } }
  func move(_ user: String, to member: String) {}
  func forget(_ user: String) -> Bool { false }
  func lookup(_ user: String) -> DirectoryEntry? { nil }
  func forEach(_ body: ([DirectoryEntry]) -> Bool) {}
  var count: Int { 0 }
  var pauses: Int { 0 }
  func onRecall(_ body: @escaping @Sendable (String) -> Void) { state.withLock { $0.recall = body } }
}

/// A value from another thread.
private final class Answer<Value: Sendable>: @unchecked Sendable {
  private let semaphore = DispatchSemaphore(value: 0)
  private var value: Value?

  func set(_ value: Value) {
    self.value = value
    semaphore.signal()
  }

  func get() -> Value {
    semaphore.wait()
    return value!
  }
}

extension Settings {
  /// A default backend at a port.
  static func to(_ port: UInt16, certificate: CertificateSettings? = nil) -> Settings {
    Settings(
      listeners: [], tls: certificate.map { TLSServerSettings(identities: [TLSIdentitySettings(pairs: [$0])]) },
      routes: [.fixed(backend: "a")],
      backends: [
        "a": BackendSettings(
          host: Host("127.0.0.1")!, ports: [.imap: port, .pop3: port, .manageSieve: port])
      ])
  }
}

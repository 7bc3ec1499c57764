// swift-format-ignore-file: NeverForceUnwrap

import Foundation
import Glibc
import Logging
import ProxyCore
import Testing

// A build for ThreadSanitizer has a Mutex of ProxyCore's.
#if !PROXYD_TSAN
  import struct Synchronization.Mutex
#endif

@testable import proxyd

/// A proxy and a fleet that a test plays: what is asked of them is written down.
private final class PlayedProxy: ControlActions, FleetActions {
  let calls = Mutex<[String]>([])
  let level = Mutex(Logger.Level.info)
  let traces = Traces()
  /// Sessions told.
  let sessionCount: Int
  let problems: [String]

  init(sessions: Int = 2, problems: [String] = []) {
    sessionCount = sessions
    self.problems = problems
  }

  var fleet: any FleetActions { self }
  private func note(_ call: String) { calls.withLock { $0.append(call) } }

  func status() -> ToldStatus {
    ToldStatus(
      version: "1", pid: 7, state: "running", uptime: 3, loops: 2, sessions: sessionCount, limit: 9, logins: 5,
      failedLogins: 1, in: 10, out: 20, users: 4, logLevel: level.withLock { $0.rawValue })
  }

  func listeners() -> [ToldListener] {
    [
      ToldListener(
        listener: "127.0.0.1:143", protocol: "imap", tls: "off", sessions: 1, accepted: 2, handshakes: 3,
        failedHandshakes: 4, logins: 5, refusedLogins: 6, in: 7, out: 8)
    ]
  }

  func sessions(_ filter: SessionFilter, _ body: (ToldSession) -> Bool) -> Bool {
    note("sessions \(filter.backend ?? "-") \(filter.doing ?? "-") \(filter.session ?? "-") \(filter.user != nil)")
    for number in 0..<sessionCount {
      let session = ToldSession(
        session: "s\(number)", user: "alice", loggedIn: true, protocol: "imap", client: "127.0.0.1:1",
        listener: "127.0.0.1:143", doing: "relaying", age: 1, in: 2, out: 3)
      guard body(session) else { return true }
    }
    return filter.backend != "silent"
  }

  func kick(_ filter: SessionFilter) -> Int? {
    note("kick \(filter.backend ?? "-")")
    return filter.backend == "silent" ? nil : 3
  }

  func users(_ filter: SessionFilter) -> [ToldUser]? {
    [
      ToldUser(
        user: "alice", sessions: 2, addresses: ["127.0.0.1"], addressCount: 1, backends: ["a"], protocols: ["imap"])
    ]
  }

  func metrics() -> [ToldMetric] { [ToldMetric(name: "n", labels: ["a": "b"], type: "counter", value: 1)] }
  func reload() -> [String] { problems }
  func logLevel() -> Logger.Level { level.withLock { $0 } }
  func setLogLevel(_ level: Logger.Level) { self.level.withLock { $0 = level } }
  func beginTrace(_ user: String, _ bounds: TraceBounds) -> Trace? {
    note("trace \(user) \(bounds.time / 1_000_000_000) \(bounds.lines)")
    return traces.begin(user, bounds)
  }
  func endTrace(_ trace: Trace) {
    traces.end(trace)
    note("end")
  }

  func backends() -> [ToldBackend] {
    [
      ToldBackend(
        backend: "a", state: "ready", health: "up", sessions: 1, triedLogins: 2, acceptedLogins: 3, refusedLogins: 4,
        failedLogins: 5, in: 6, out: 7)
    ]
  }
  func set(_ backend: String, state: AdminState?, weight: WeightChange?) -> ToldSetting? {
    note("set \(backend) \(state?.rawValue ?? "-") \(weight.map { "\($0)" } ?? "-")")
    return backend == "a" ? ToldSetting(backend: "a", state: state?.rawValue ?? "ready") : nil
  }
  func userCount() -> Int { 4 }
  func places(pool: String?, backend: String?, _ body: (ToldPlace) -> Bool) throws(ControlProblem) {
    note("places \(pool ?? "-") \(backend ?? "-")")
    if pool == "none" { throw ControlProblem(.notFound, "there is no pool \"none\"") }
    _ = body(ToldPlace(pool: "p", user: "alice", backend: "a"))
  }
  func map(_ user: String, pool: String?) throws(ControlProblem) -> [ToldMapping] {
    [ToldMapping(pool: "p", user: user, current: "a", hashed: "b", configured: "c")]
  }
  func move(_ user: String, to backend: String, pool: String?) throws(ControlProblem) {
    note("move \(user) \(backend) \(pool ?? "-")")
  }
  func forget(_ user: String, pool: String?) throws(ControlProblem) -> Int { user == "nobody" ? 0 : 1 }
  func flush(_ backend: String?, pool: String?) throws(ControlProblem) -> Int {
    note("flush \(backend ?? "-") \(pool ?? "-")")
    return 12
  }
  func load(_ entries: [ControlEntry], pool: String?) throws(ControlProblem) -> Int {
    note("load \(entries.map { "\($0.user)@\($0.backend)" }) \(pool ?? "-")")
    return entries.count
  }
}

/// A server with a played proxy behind it, in a folder of its own.
private final class Stage {
  let folder = NSTemporaryDirectory() + "proxyd-control." + UUID().uuidString
  let proxy: PlayedProxy
  let server: ControlServer
  let log: Log
  var path: String { folder + "/s" }

  init(_ proxy: PlayedProxy = PlayedProxy(), patience: ControlServer.Patience = ControlServer.Patience()) throws {
    self.proxy = proxy
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    log = try Log(LogSettings(destination: .file(folder + "/log")))
    server = ControlServer(
      try UnixListener(folder + "/s", mode: 0o660, owner: nil), proxy, log: log, patience: patience)
    #expect(server.start() == nil)
  }

  deinit {
    server.stop()
    try? FileManager.default.removeItem(atPath: folder)
  }

  func connect() throws -> Talk { Talk(try UnixStream.connect(path).get()) }

  /// Asks on a connection of its own; returns the answer's lines.
  func ask(_ text: String) throws -> [String] { try connect().ask(text) }

  func logged() throws -> String {
    log.flush()
    return try String(contentsOfFile: folder + "/log", encoding: .utf8)
  }
}

/// A client's side.
private final class Talk {
  let stream: UnixStream
  private var lines: UnixLines

  init(_ stream: UnixStream) {
    self.stream = stream
    lines = UnixLines(stream, longest: 1 << 20)
  }

  func say(_ text: String) { #expect(stream.write(Array(text.utf8), within: Timeouts.seconds(10))) }

  func line() -> String? {
    if case .line(let line) = lines.next(within: Timeouts.seconds(20), idle: Timeouts.seconds(20)) {
      String(decoding: line, as: UTF8.self)
    } else {
      nil
    }
  }

  func answer() -> [String] {
    var all: [String] = []
    while let line = line() {
      all.append(line)
      if !line.hasPrefix("{\"row\"") { break }
    }
    return all
  }

  func ask(_ text: String) -> [String] {
    say(text + "\n")
    return answer()
  }
}

struct ControlServerTests {
  @Test func everyCommand() throws {
    let stage = try Stage()
    func ask(_ text: String) throws -> String { try stage.ask(text).joined(separator: "\n") }
    let status = try stage.ask(#"{"command":"status"}"#)
    #expect(status.count == 2)
    #expect(status[0].hasPrefix(#"{"row":{"accepted":2,"failed_handshakes":4,"#))
    #expect(status[1].contains(#""pid":7,"sessions":2,"state":"running","uptime":3"#))
    #expect(try stage.ask(#"{"command":"sessions","user":"a*","where":"relay","session":"s"}"#).count == 3)
    #expect(try ask(#"{"command":"sessions","limit":1}"#).contains(#"{"done":{"count":1}}"#))
    #expect(try ask(#"{"command":"kick","backend":"a"}"#) == #"{"done":{"count":3}}"#)
    #expect(try ask(#"{"command":"who"}"#).contains(#""user":"alice"}}"#))
    #expect(try ask(#"{"command":"backends"}"#).contains(#""backend":"a""#))
    #expect(
      try ask(#"{"command":"backend","backend":"a","state":"maint"}"#) == #"{"done":{"backend":"a","state":"maint"}}"#)
    _ = try ask(#"{"command":"backend","backend":"a","weight":7}"#)
    _ = try ask(#"{"command":"backend","backend":"a","weight":"default","state":"ready"}"#)
    #expect(try ask(#"{"command":"affinity-list","pool":"p"}"#).hasSuffix(#"{"done":{"count":1}}"#))
    #expect(try ask(#"{"command":"affinity-dump","backend":"a"}"#).contains(#""user":"alice""#))
    #expect(try ask(#"{"command":"affinity-map","user":"x"}"#).contains(#""hashed":"b""#))
    #expect(try ask(#"{"command":"affinity-move","user":"x","backend":"b"}"#) == #"{"done":{"count":1}}"#)
    #expect(try ask(#"{"command":"affinity-forget","user":"x"}"#) == #"{"done":{"count":1}}"#)
    #expect(try ask(#"{"command":"affinity-flush"}"#) == #"{"done":{"count":12}}"#)
    #expect(
      try ask(#"{"command":"affinity-load","entries":[{"user":"x","backend":"b"}],"pool":"p"}"#)
        == #"{"done":{"count":1}}"#)
    #expect(try ask(#"{"command":"metrics"}"#).contains(#""bounds":[64,128,"#))
    #expect(try ask(#"{"command":"reload"}"#) == #"{"done":{"count":0}}"#)
    #expect(try ask(#"{"command":"loglevel"}"#) == #"{"done":{"level":"info"}}"#)
    #expect(try ask(#"{"command":"loglevel","level":"debug"}"#) == #"{"done":{"level":"debug"}}"#)
    #expect(
      stage.proxy.calls.withLock { $0 } == [
        "sessions - relay s true", "sessions - - - false", "kick a", "set a maint -", "set a - to(7)",
        "set a ready standard", "places p -", "places - a", "move x b -", "flush - -", #"load ["x@b"] p"#,
      ])
  }

  @Test func whatCantBeDone() throws {
    let stage = try Stage(PlayedProxy(problems: ["x.yaml:1:2: tls: no"]))
    func ask(_ text: String) throws -> String { try stage.ask(text).joined(separator: "\n") }
    func error(_ code: String, _ message: String) -> String {
      #"{"error":{"code":"\#(code)","message":"\#(message)"}}"#
    }
    #expect(
      try ask(#"{"command":"kick"}"#)
        == error("argument", "kick needs to know whom: user, backend, address, where or session"))
    #expect(try ask(#"{"command":"sessions","address":"x"}"#).contains("address: \\\"x\\\" is no address or network"))
    let silence = error("unavailable", "the proxy does not answer: it stops, or is overloaded")
    #expect(try ask(#"{"command":"kick","backend":"silent"}"#) == silence)
    #expect(try ask(#"{"command":"sessions","backend":"silent"}"#).hasSuffix(silence))
    #expect(
      try ask(#"{"command":"backend","backend":"a"}"#)
        == error("argument", "backend needs to know what: state or weight"))
    #expect(
      try ask(#"{"command":"backend","backend":"z","state":"drain"}"#)
        == error("not-found", "there is no backend \\\"z\\\" in the configuration"))
    #expect(try ask(#"{"command":"affinity-list","pool":"none"}"#).hasPrefix(#"{"error":{"code":"not-found""#))
    #expect(try ask(#"{"command":"affinity-forget","user":"nobody"}"#).hasPrefix(#"{"error":{"code":"not-found""#))
    #expect(
      try stage.ask(#"{"command":"reload"}"#) == [
        #"{"row":{"problem":"x.yaml:1:2: tls: no"}}"#,
        error("refused", "the configuration can't be used, the old one stays"),
      ])
  }

  /// Several at once are answered in order, and a mistake ends nothing.
  @Test func oneConnection() throws {
    let stage = try Stage()
    let talk = try stage.connect()
    talk.say("{\"command\":\"loglevel\"}\r\nnonsense\n{\"command\":\"who\"}\n{\"command\":\"x\"}\n{\"comm")
    #expect(talk.answer() == [#"{"done":{"level":"info"}}"#])
    #expect(talk.answer() == [#"{"error":{"code":"syntax","message":"the line is no JSON object"}}"#])
    #expect(talk.answer().count == 2)
    #expect(talk.answer().first?.hasPrefix(#"{"error":{"code":"command","#) == true)
    #expect(talk.ask(#"and":"loglevel"}"#) == [#"{"done":{"level":"info"}}"#])
  }

  /// `echo … | nc -U`: the client has said all, and waits for the answer.
  @Test func halfClosed() throws {
    let stage = try Stage(PlayedProxy(sessions: 5_000))
    let fd = try raw(stage.path)
    defer { close(fd) }
    let request = Array("{\"command\":\"sessions\"}\n".utf8)
    #expect(send(fd, request, request.count, 0) == request.count)
    shutdown(fd, Int32(SHUT_WR))
    var all: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 65_536)
    while true {
      let count = recv(fd, &buffer, buffer.count, 0)
      guard count > 0 else { break }
      all += buffer[..<count]
    }
    let lines = String(decoding: all, as: UTF8.self).split(separator: "\n")
    #expect(lines.count == 5_001)
    #expect(lines.last == #"{"done":{"count":5000}}"#)
  }

  private func raw(_ path: String) throws -> Int32 {
    let fd = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
    let result = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        connect(fd, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
    try #require(result == 0)
    return fd
  }

  @Test func aRequestThatIsTooLong() throws {
    let stage = try Stage()
    let talk = try stage.connect()
    let filler = String(repeating: " ", count: ControlRequest.longestLine - 22)
    #expect(talk.ask("{\"command\":\"loglevel\"\(filler)}") == [#"{"done":{"level":"info"}}"#])
    talk.say(String(repeating: " ", count: ControlRequest.longestLine + 1))
    #expect(talk.answer() == [#"{"error":{"code":"too-long","message":"a request has 65536 bytes at most"}}"#])
    #expect(talk.line() == nil)
  }

  /// One that begins a request and does not end it, one that says nothing, one that does not read.
  @Test(arguments: ["{\"command\"", "", "{\"command\":\"sessions\"}\n"])
  func slowClients(_ text: String) throws {
    var patience = ControlServer.Patience()
    patience.request = Timeouts.milliseconds(50)
    patience.idle = text.isEmpty ? Timeouts.milliseconds(50) : Timeouts.seconds(20)
    patience.answer = Timeouts.milliseconds(50)
    let stage = try Stage(PlayedProxy(sessions: 1_000_000), patience: patience)
    let talk = try stage.connect()
    if !text.isEmpty { talk.say(text) }
    let end = Date().addingTimeInterval(60)
    while !talk.stream.isClosed, Date() < end { usleep(2_000) }
    #expect(talk.stream.isClosed)
  }

  @Test func tooManyClients() throws {
    let stage = try Stage()
    var talks: [Talk] = []
    for _ in 0..<ControlServer.mostClients {
      let talk = try stage.connect()
      #expect(talk.ask(#"{"command":"loglevel"}"#) == [#"{"done":{"level":"info"}}"#])
      talks.append(talk)
    }
    #expect(
      try stage.connect().answer()
        == [#"{"error":{"code":"busy","message":"32 clients are connected, and no more may be"}}"#])
    // A place that is given up can be taken.
    talks.removeLast().stream.shutdown()
    let end = Date().addingTimeInterval(60)
    var answer: [String] = []
    while Date() < end {
      let talk = try stage.connect()
      // Who is not let in may be gone before it has asked.
      _ = talk.stream.write(Array("{\"command\":\"loglevel\"}\n".utf8), within: Timeouts.seconds(10))
      answer = talk.answer()
      if answer == [#"{"done":{"level":"info"}}"#] { break }
    }
    #expect(answer == [#"{"done":{"level":"info"}}"#])
  }

  @Test func theEnd() throws {
    let stage = try Stage()
    let talk = try stage.connect()
    #expect(!talk.ask(#"{"command":"loglevel"}"#).isEmpty)
    stage.server.stop()
    #expect(talk.line() == nil)
    #expect(!FileManager.default.fileExists(atPath: stage.path))
  }

  /// What changes something is logged with who did it; what only looks is not.
  @Test func whoDidIt() throws {
    let stage = try Stage()
    for request in [
      #"{"command":"kick","backend":"a"}"#, #"{"command":"backend","backend":"z","state":"drain"}"#,
      #"{"command":"loglevel","level":"info"}"#, #"{"command":"affinity-move","user":"x y","backend":"b"}"#,
    ] { _ = try stage.ask(request) }
    for command in ["status", "sessions", "who", "backends", "metrics", "loglevel", "affinity-list"] {
      _ = try stage.ask(#"{"command":"\#(command)"}"#)
    }
    let lines = try stage.logged().split(separator: "\n").map { $0.drop { $0 != " " }.dropFirst() }
    let who = "uid=\(geteuid()) pid=\(getpid())"
    #expect(
      lines == [
        "level=notice event=control command=kick backend=a \(who) result=3",
        "level=notice event=control command=backend backend=z state=drain \(who) result=not-found",
        "level=notice event=control command=loglevel level=info \(who) result=info",
        "level=notice event=control command=affinity-move backend=b user=\"x y\" \(who) result=1",
      ])
  }

  @Test func aTrace() throws {
    let stage = try Stage()
    let talk = try stage.connect()
    talk.say("{\"command\":\"trace\",\"user\":\"alice\",\"seconds\":60,\"lines\":2}\n")
    let end = Date().addingTimeInterval(60)
    while stage.proxy.calls.withLock({ $0.isEmpty }), Date() < end { usleep(1_000) }
    #expect(stage.proxy.calls.withLock { $0 } == ["trace alice 60 2"])
    // As many as may be look: another can't.
    var others: [Trace] = []
    while let trace = stage.proxy.traces.begin("x", TraceBounds()) { others.append(trace) }
    #expect(
      try stage.ask(#"{"command":"trace","user":"bob"}"#)
        == [#"{"error":{"code":"busy","message":"4 traces are on, and no more may be"}}"#])
    // Whoever stops looking is noticed.
    talk.stream.shutdown()
    while stage.proxy.calls.withLock({ $0.last != "end" }), Date() < end { usleep(1_000) }
    #expect(stage.proxy.calls.withLock { $0.last } == "end")
    #expect(try stage.logged().contains("command=trace lines=2 seconds=60 user=alice"))
  }
}

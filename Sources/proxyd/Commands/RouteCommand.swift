/// `proxyd route`: says where a user would be sent, and who says so, step by step.

internal import ArgumentParser
internal import Dispatch
internal import Protocols
internal import ProxyCore

// A build for ThreadSanitizer has a Mutex of ProxyCore's.
#if !PROXYD_TSAN
  internal import struct Synchronization.Mutex
#endif

struct RouteCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "route", abstract: "Show where a user would be sent, without logging in.",
    discussion: """
      Shows how the name is rewritten, what each source answers, and where the user would be sent. No password is given to \
      anybody: a source that checks passwords is asked as if a certificate had proved the user. Ends with status 0 if a \
      backend was found, 1 if no source knows the user, 2 if a source failed. With a list of users, those without a backend \
      are told, and what a lookup took.
      """)

  @OptionGroup var config: ConfigOption

  @Option(name: [.customLong("protocol")], help: "The protocol the user would come with.")
  var mailProtocol = MailProtocol.imap

  @Option(help: "The client's address, for keys and services that are told it.")
  var client = "127.0.0.1"

  @Option(name: .customLong("address-name"), help: "The name of the address the client connects to, for add-domain.")
  var addressName: String?

  @Option(help: "A file of names, one a line; - for standard input.")
  var users: String?

  @Argument(help: "The name the user would log in with.")
  var user: String?

  func validate() throws {
    guard (user == nil) != (users == nil) else { throw ValidationError("expected a user, or --users FILE") }
  }

  func run() throws {
    let file = try config.load()
    let plan: RoutePlan
    do throws(SettingsErrors) { plan = try RoutePlan(file.settings) } catch {
      _ = fail(file.locate(error))
      throw ExitCode(2)
    }
    let table = RouteTable(plan)
    if let user { try show(user, file.settings, table) }
    if let users { try count(users, file.settings, table) }
  }

  private func request(_ user: String, _ rules: NameRules) -> RouteRequest {
    var facts = LoginFacts()
    facts.addresses.clientAddress = client
    facts.method = .sasl(.external)
    return RouteRequest(
      user: Array(user.utf8), mailProtocol: mailProtocol, rules: rules, facts: facts,
      addressName: addressName.map { Array($0.utf8) })
  }

  /// One user, with every step.
  private func show(_ user: String, _ settings: Settings, _ table: RouteTable) throws {
    let request = request(user, settings.names)
    let addressName = addressName.map { Array($0.utf8) }
    say("user", user)
    tell(settings.names.steps(request.user, for: .lookup, addressName: addressName), of: .lookup)
    var search = table.search(request)
    let outcome = wait(&search, lookup: settings.timeouts.lookup)
    for passed in search.takePassedOver() { say("passed over", "\(passed.source): \(passed.reason)") }
    for answered in search.trace {
      say("asked", "\(answered.source) for \"\(text(answered.key))\": \(words(answered.answer))")
    }
    try conclude(outcome, user, settings.names, addressName)
  }

  /// Many users: those without a backend, and what a lookup took.
  private func count(_ users: String, _ settings: Settings, _ table: RouteTable) throws {
    let names: [Substring]
    switch TextFile.read(users == "-" ? nil : users) {
    case .success(let text): names = TextFile.lines(text).filter { !$0.isEmpty }
    case .failure(let error):
      Console.error("\(users): it can't be read: \(error)")
      throw ExitCode(2)
    }
    var (found, unknown, failed) = (0, 0, 0)
    let began = Moment.now
    for name in names {
      var search = table.search(request(String(name), settings.names))
      switch wait(&search, lookup: settings.timeouts.lookup) {
      case .found: found += 1
      case .disabled, .unknownUser, .refused:
        unknown += 1
        Console.say("unknown: \(name)")
      case .uncheckable(let source):
        failed += 1
        Console.say("failed: \(name): \(source) has no password to check")
      case .busy:
        failed += 1
        Console.say("failed: \(name): a map is locked by a writer")
      case .failed(let source, let reason):
        failed += 1
        Console.say("failed: \(name): \(source): \(reason)")
      }
    }
    let each = names.isEmpty ? 0 : (Moment.now - began) / UInt64(names.count)
    Console.say(
      "\(names.count) users: \(found) found, \(unknown) unknown, \(failed) failed, \(each / 1_000).\(each / 100 % 10) us each"
    )
    if failed > 0 { throw ExitCode(2) }
    if unknown > 0 { throw ExitCode.failure }
  }

  private func conclude(
    _ outcome: RouteOutcome, _ user: String, _ rules: NameRules, _ addressName: [UInt8]?
  ) throws {
    switch outcome {
    case .found(let route):
      say("source", route.source)
      switch route.target {
      case .backend(let backend): say("backend", "\(backend.name) (\(backend.host):\(backend.port))")
      // Which member it is depends on who is there: `proxyd affinity map` asks the running proxy.
      case .pool: say("pool", route.target.name)
      }
      let name = route.loginAs ?? Array(user.utf8)
      let steps = rules.steps(name, for: .backend, addressName: addressName)
      tell(steps, of: .backend)
      say("login as", text(steps.last?.name ?? name))
    case .disabled(let source):
      say("source", source)
      say("disabled", "nobody is let in under this name")
      throw ExitCode.failure
    case .unknownUser:
      say("unknown", "no source knows this user")
      throw ExitCode.failure
    case .refused(let source, _):
      say("refused", "\(source) refuses the user")
      throw ExitCode.failure
    case .uncheckable(let source):
      say("failed", "\(source) has no password to check")
      throw ExitCode(2)
    case .busy:
      say("failed", "a map is locked by a writer")
      throw ExitCode(2)
    case .failed(let source, let reason):
      say("failed", "\(source): \(reason)")
      throw ExitCode(2)
    }
  }

  /// Lets the search go on until it is done; what a loop does with a session that waits, a command does by waiting itself.
  private func wait(_ search: inout RouteSearch, lookup: UInt64) -> RouteOutcome {
    let answers = Answers()
    while true {
      let step = search.advance(now: Moment.now, lookup: lookup, password: [UInt8]().span) { turn, answer in
        answers.put(turn, answer)
      }
      switch step {
      case .done(let outcome): return outcome
      case .again(let time): Moment.sleep(until: time)
      case .waiting(let until):
        if let (turn, answer) = answers.wait(until: until), search.take(answer, turn: turn) { continue }
        search.expire()
      }
    }
  }

  private func tell(_ steps: [(step: NameRules.Step, name: [UInt8])], of purpose: NamePurpose) {
    for (step, name) in steps { say("\(purpose.rawValue) name", "\(text(name)) (\(step.rawValue))") }
  }

  private func words(_ answer: SourceAnswer) -> String {
    switch answer {
    case .found(let destination):
      (destination.loginAs.map { "\(text($0)) at " } ?? "") + destination.backend
    case .disabled: "closed account"
    case .notFound: "not found"
    case .refused: "refused"
    case .busy: "locked by a writer"
    case .again(let pause): "asks for \(pause / 1_000_000) ms"
    case .failed(let reason): "failed: \(reason)"
    }
  }

  private func text(_ bytes: [UInt8]) -> String { String(decoding: bytes, as: UTF8.self) }

  private func say(_ label: String, _ words: String) {
    Console.say((label + ":").padded(to: 14) + words)
  }
}

/// Where the answers of threads arrive that a command waits for.
private final class Answers: Sendable {
  private let answers = Mutex<[(turn: Int, answer: SourceAnswer)]>([])
  private let signal = DispatchSemaphore(value: 0)

  func put(_ turn: Int, _ answer: SourceAnswer) {
    answers.withLock { $0.append((turn, answer)) }
    signal.signal()
  }

  /// The next answer; nil if there is none until then.
  func wait(until time: UInt64) -> (Int, SourceAnswer)? {
    let left = time > Moment.now ? time - Moment.now : 0
    guard signal.wait(timeout: .now() + .nanoseconds(Int(clamping: left))) == .success else { return nil }
    return answers.withLock { $0.isEmpty ? nil : $0.removeFirst() }
  }
}

/// The loops' time, for a command.
private enum Moment {
  static var now: UInt64 { DispatchTime.now().uptimeNanoseconds }

  static func sleep(until time: UInt64) {
    let left = time > now ? time - now : 0
    _ = DispatchSemaphore(value: 0).wait(timeout: .now() + .nanoseconds(Int(clamping: left)))
  }
}

extension String {
  fileprivate func padded(to width: Int) -> String { self + String(repeating: " ", count: max(1, width - count)) }
}

extension MailProtocol: ExpressibleByArgument {}

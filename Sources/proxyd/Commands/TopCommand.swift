/// `proxyd top`: the running proxy, live.

internal import ArgumentParser
internal import ProxyCore

struct TopCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "top", abstract: "Watch the running proxy: backends, sessions and what they do in a second.",
    discussion: "Keys are listed at the bottom; each that changes something asks before.")

  @Option(help: "Seconds between two looks, 1 to 60.") var delay = 1
  @OptionGroup var place: PlaceOption

  func validate() throws {
    guard (1...60).contains(delay) else { throw ValidationError("\(delay): expected 1 to 60 seconds for --delay") }
  }

  func run() throws {
    let path = try place.path()
    // Who can't reach the proxy is told so on the usual screen.
    var client: ControlClient? = try place.connect()
    guard let terminal = Terminal() else {
      Console.error("top needs a terminal; see backends and sessions, with --json for programs")
      throw ExitCode.failure
    }
    defer { terminal.leave() }
    var state = TopState()
    var next: UInt64 = 0
    while true {
      if TopCommand.now >= next {
        look(&state, &client, path)
        next = TopCommand.now + UInt64(delay) * 1_000
      }
      let size = terminal.size
      state.page = TopState.room(height: size.height)
      terminal.draw(state.screen(width: size.width, height: size.height))
      let now = TopCommand.now
      guard let bytes = terminal.keys(within: next > now ? Int(next - now) : 0) else { return }
      for key in TopKey.read(bytes) {
        switch state.press(key) {
        case .none: break
        case .quit: return
        case .suspend: Terminal.suspend()
        // At once: the next key may be for what is seen then.
        case .refresh: look(&state, &client, path)
        case .perform(let command, let arguments):
          perform(command, arguments, &state, &client)
          look(&state, &client, path)
        }
      }
    }
  }

  /// Milliseconds.
  private static var now: UInt64 { ServiceManager.microseconds / 1_000 }

  private static let lost = "proxyd does not answer; it is asked again"

  /// Takes a sample, on a new connection if the last has ended.
  private func look(_ state: inout TopState, _ client: inout ControlClient?, _ path: String) {
    do {
      if client == nil { client = try ControlClient(path) }
      guard var asked = client else { return }
      defer { client = asked }
      let status = try asked.value(.status, [:], row: ToldListener.self, done: ToldStatus.self)
      let backends = try asked.value(.backends, [:], row: ToldBackend.self, done: ToldCount.self)
      var sessions: [ToldSession] = []
      if state.view == .sessions {
        var arguments: [String: ControlValue] = ["limit": .number(TopState.mostSessions)]
        if let backend = state.guestsOf { arguments["backend"] = .text(backend) }
        sessions = try asked.value(.sessions, arguments, row: ToldSession.self, done: ToldCount.self).rows
      }
      state.take(status.done, backends.rows, sessions, at: ServiceManager.microseconds * 1_000)
    } catch {
      client = nil
      state.lose((error as? ControlClient.Unreachable)?.words ?? TopCommand.lost)
    }
  }

  private func perform(
    _ command: ControlCommand, _ arguments: [String: ControlValue], _ state: inout TopState,
    _ client: inout ControlClient?
  ) {
    guard var asked = client else { return state.lose(TopCommand.lost) }
    defer { client = asked }
    do {
      var words = "done"
      let problem = try asked.ask(command, arguments) { kind, line in
        if command == .kick, kind == .done, let done = AnswerReader().value(line, ToldCount.self) {
          words = KickCommand.words(done.count)
        }
        if command == .backend, kind == .done, let done = AnswerReader().value(line, ToldSetting.self) {
          words = BackendCommand.words(done)
        }
        return true
      }
      state.tell(problem?.message ?? words)
    } catch { state.lose((error as? ControlClient.Unreachable)?.words ?? TopCommand.lost) }
  }
}

/// The terminal of `proxyd top`: taken over for a while, and given back on every way out.
///
/// SAFETY: what the C library fills in is a structure of ours, lent for the time of a call.

internal import Dispatch
internal import Glibc
internal import ProxyCore

final class Terminal {
  /// How the terminal was before; read once, before anything is changed. Nil if there is none.
  private static let before: termios? = {
    var settings = termios()
    return unsafe tcgetattr(STDIN_FILENO, &settings) == 0 ? settings : nil
  }()

  /// The other screen, without a cursor; and back.
  private static let begin: StaticString = "\u{1B}[?1049h\u{1B}[?25l\u{1B}[2J"
  private static let end: StaticString = "\u{1B}[0m\u{1B}[?25h\u{1B}[?1049l"

  /// Readable once a signal has come that changes what is to be drawn.
  private let wake: EventFlag
  private let signals: [any DispatchSourceSignal]

  /// Takes the terminal over; nil if input or output is none.
  init?() {
    guard isatty(STDIN_FILENO) == 1, isatty(STDOUT_FILENO) == 1, Terminal.before != nil, let wake = EventFlag() else {
      return nil
    }
    self.wake = wake
    let queue = DispatchQueue(label: "proxyd.terminal")
    func source(_ number: Int32, _ body: @escaping @Sendable () -> Void) -> any DispatchSourceSignal {
      signal(number, SIG_IGN)
      let source = DispatchSource.makeSignalSource(signal: number, queue: queue)
      source.setEventHandler { @Sendable in body() }
      source.activate()
      return source
    }
    var signals = [SIGINT, SIGTERM, SIGHUP, SIGQUIT].map { number in
      source(number) {
        Terminal.leave()
        // As if nobody had caught it: whoever waits for us learns of it.
        signal(number, SIG_DFL)
        kill(getpid(), number)
      }
    }
    signals.append(source(SIGWINCH) { wake.set() })
    signals.append(source(SIGTSTP) { Terminal.suspend() })
    signals.append(
      source(SIGCONT) {
        Terminal.enter()
        wake.set()
      })
    self.signals = signals
    // A mistake of ours ends the process where it stands: the terminal is given back all the same. Only what is allowed
    // in a signal's handler is called (signal-safety(7)).
    for number in [SIGILL, SIGTRAP, SIGSEGV, SIGBUS, SIGFPE, SIGABRT] {
      signal(number) { number in
        Terminal.leave()
        signal(number, SIG_DFL)
        raise(number)
      }
    }
    Terminal.enter()
  }

  /// Gives it back.
  func leave() {
    for source in signals { source.cancel() }
    Terminal.leave()
  }

  /// Gives it back until the program is continued.
  static func suspend() {
    leave()
    kill(getpid(), SIGSTOP)
  }

  private static func enter() {
    guard var settings = before else { return }
    // Keys one by one, and none of them a signal or an echo.
    settings.c_lflag &= ~tcflag_t(ICANON | ECHO | ISIG | IEXTEN)
    settings.c_iflag &= ~tcflag_t(IXON | ICRNL)
    _ = unsafe tcsetattr(STDIN_FILENO, TCSAFLUSH, &settings)
    say(begin)
  }

  private static func leave() {
    guard var settings = before else { return }
    say(end)
    _ = unsafe tcsetattr(STDIN_FILENO, TCSAFLUSH, &settings)
  }

  private static func say(_ text: StaticString) {
    unsafe _ = Glibc.write(STDOUT_FILENO, text.utf8Start, text.utf8CodeUnitCount)
  }

  /// Columns and lines.
  var size: (width: Int, height: Int) {
    var size = winsize()
    guard unsafe ioctl(STDOUT_FILENO, UInt(TIOCGWINSZ), &size) == 0, size.ws_col > 0, size.ws_row > 0 else {
      return (80, 24)
    }
    return (Int(size.ws_col), Int(size.ws_row))
  }

  /// Draws all lines; none is wider than the terminal.
  func draw(_ lines: [ScreenLine]) {
    var text = "\u{1B}[H"
    for (index, line) in lines.enumerated() {
      for part in line.parts { text += "\u{1B}[\(part.look.code)m\(part.text)" }
      text += "\u{1B}[0m\u{1B}[K"
      if index < lines.count - 1 { text += "\r\n" }
    }
    text += "\u{1B}[J"
    Console.write(Array(text.utf8))
  }

  /// What the keys say, after at most that time in milliseconds; nothing if none was pressed or the size has changed. Nil
  /// if there is no terminal any more.
  func keys(within milliseconds: Int) -> [UInt8]? {
    switch wake.wait(orReadable: STDIN_FILENO, milliseconds: milliseconds) {
    case .set, .late: return []
    case .readable: break
    }
    var buffer = [UInt8](repeating: 0, count: 256)
    let count = unsafe read(STDIN_FILENO, &buffer, buffer.count)
    return count > 0 ? Array(buffer[..<count]) : nil
  }
}

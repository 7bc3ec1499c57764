/// The terminal of `proxyd top`: taken over for a while, and given back on every way out.
///
/// SAFETY: what the C library fills in is a structure of ours, lent for the time of a call.

internal import Glibc
internal import ProxyCore

struct Terminal {
  /// How the terminal was before; read once, before anything is changed. Nil if there is none.
  private static let before: termios? = {
    var settings = termios()
    return unsafe tcgetattr(STDIN_FILENO, &settings) == 0 ? settings : nil
  }()

  /// Set once a signal has come that changes what is to be drawn.
  private static let wake = EventFlag()

  /// The other screen, without a cursor; and back.
  private static let begin: StaticString = "\u{1B}[?1049h\u{1B}[?25l\u{1B}[2J"
  private static let end: StaticString = "\u{1B}[0m\u{1B}[?25h\u{1B}[?1049l"

  /// Takes the terminal over; nil if input or output is none.
  init?() {
    guard isatty(STDIN_FILENO) == 1, isatty(STDOUT_FILENO) == 1, Terminal.before != nil, Terminal.wake != nil else {
      return nil
    }
    Terminal.catchSignals()
    Terminal.enter()
  }

  /// What ends the process where it stands, a mistake of ours among it: the terminal is given back all the same.
  private static let deadly = [SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGILL, SIGTRAP, SIGSEGV, SIGBUS, SIGFPE, SIGABRT]

  /// Handlers and no sources of Dispatch's: those are not there yet when they are made, and a signal in between is lost.
  /// Only what is allowed in a handler is called (signal-safety(7)).
  private static func catchSignals() {
    for number in deadly {
      signal(number) { number in
        Terminal.leave()
        // As if nobody had caught it: whoever waits for us learns of it. It is pending until the handler returns.
        signal(number, SIG_DFL)
        raise(number)
      }
    }
    signal(SIGTSTP) { _ in Terminal.suspend() }
    signal(SIGCONT) { _ in
      Terminal.enter()
      Terminal.wake?.set()
    }
    signal(SIGWINCH) { _ in Terminal.wake?.set() }
  }

  /// Gives it back.
  func leave() {
    for number in Terminal.deadly + [SIGTSTP, SIGCONT, SIGWINCH] { signal(number, SIG_DFL) }
    Terminal.leave()
  }

  /// Gives it back until the program is continued.
  static func suspend() {
    leave()
    raise(SIGSTOP)
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
    switch Terminal.wake?.wait(orReadable: STDIN_FILENO, milliseconds: milliseconds) {
    case .set?, .late?, nil: return []
    case .readable?: break
    }
    var buffer = [UInt8](repeating: 0, count: 256)
    let count = unsafe read(STDIN_FILENO, &buffer, buffer.count)
    return count > 0 ? Array(buffer[..<count]) : nil
  }
}

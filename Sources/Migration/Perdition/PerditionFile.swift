/// Reads the text of perdition.conf and popmap.re into words, exactly as Perdition's file reader does.

internal import Protocols

/// A file of lines of words.
///
/// The rules were found by asking Perdition 2.2: a line ends with CR or LF; a backslash before either joins, before
/// anything else makes it plain; single quotes keep all, double quotes all but the backslash; line ends within quotes
/// vanish; `#` outside quotes begins a comment. A word that no blank and no line end has ended at the end of the file
/// is lost.
package struct PerditionFile: Equatable, Sendable {
  /// The lines that say something.
  package let lines: [Line]
  /// What is not as its writer meant it.
  package let oddities: [Oddity]

  /// How a line becomes words.
  package enum Form: Sendable {
    /// perdition.conf: the first word, and all the rest as one.
    case options
    /// popmap.re: every blank parts words.
    case words
  }

  /// One line, joined with those that continue it.
  package struct Line: Equatable, Sendable {
    /// Where it begins.
    package let number: Int
    /// A blank stands before it. Where options are read, all of such a line is one word, and belongs to nothing.
    package let isIndented: Bool
    /// Its words, at least one.
    package let words: [String]
  }

  /// Something odd about the text.
  package struct Oddity: Equatable, Sendable {
    /// Where it is.
    package let line: Int
    /// What it is.
    package let kind: Kind

    /// The kinds of oddity.
    package enum Kind: Equatable, Sendable {
      /// The last word has no line end behind it, so it is lost; with the line as far as it was read.
      case lostLastLine(String)
      /// A quote that begins here is never closed; all behind it is lost.
      case openQuote
      /// A word is cut to `longest` bytes.
      case tooLong
      /// A backslash before CR LF joins nothing: the CR is eaten, the LF ends the line.
      case continuationBeforeCRLF
      /// A NUL ends the word.
      case nul
    }
  }

  /// Perdition's buffer for a word.
  static let longest = 4_096

  /// Reads text; any bytes have a meaning.
  package static func read(_ bytes: [UInt8], as form: Form = .options) -> PerditionFile {
    var reader = Reader(form: form)
    reader.read(bytes)
    return PerditionFile(lines: reader.lines, oddities: reader.oddities)
  }

  private struct Reader {
    let form: Form
    var lines: [Line] = []
    var oddities: [Oddity] = []

    private var number = 1
    private var start = 1
    private var words: [[UInt8]] = []
    private var word: [UInt8]?
    /// Blanks within an option's value, unless the line ends behind them.
    private var blanks: [UInt8] = []
    private var isIndented = false
    private var quote: (byte: UInt8, line: Int)?
    private var isComment = false

    init(form: Form) { self.form = form }

    mutating func read(_ bytes: [UInt8]) {
      var index = 0
      while index < bytes.count {
        let byte = bytes[index]
        index += 1
        guard byte == .ascii("\\"), quote?.byte != .ascii("'") else {
          take(byte)
          if endsLine(byte, bytes, index) { number += 1 }
          continue
        }
        guard index < bytes.count else { break }
        let next = bytes[index]
        index += 1
        if next == .lineFeed || next == .carriageReturn {
          let isCut = next == .carriageReturn && index < bytes.count && bytes[index] == .lineFeed
          // Behind the first word a joined line begins the next one, if only with nothing.
          if !isComment, !words.isEmpty { begin() }
          if isCut { note(.continuationBeforeCRLF) } else { number += 1 }
        } else if !isComment {
          put(next)
        }
      }
      endFile()
    }

    /// CR LF ends one line for people, and two for Perdition.
    private func endsLine(_ byte: UInt8, _ bytes: [UInt8], _ next: Int) -> Bool {
      byte == .lineFeed || (byte == .carriageReturn && (next >= bytes.count || bytes[next] != .lineFeed))
    }

    private mutating func take(_ byte: UInt8) {
      let isEnd = byte == .lineFeed || byte == .carriageReturn
      if isEnd, quote == nil {
        endLine()
      } else if isComment {
        return
      } else if let open = quote {
        if byte == open.byte { quote = nil } else if !isEnd { put(byte) }
      } else if byte == .ascii("'") || byte == .ascii("\"") {
        quote = (byte, number)
        begin()
      } else if byte == .ascii("#") {
        isComment = true
      } else if byte == .space || byte == .ascii("\t") {
        blank(byte)
      } else {
        put(byte)
      }
    }

    private mutating func note(_ kind: Oddity.Kind, at line: Int? = nil) {
      oddities.append(Oddity(line: line ?? number, kind: kind))
    }

    /// A word begins or goes on, perhaps without a byte.
    private mutating func begin() {
      if words.isEmpty, word == nil { start = number }
      word = (word ?? []) + blanks
      blanks = []
    }

    private mutating func put(_ byte: UInt8) {
      begin()
      word?.append(byte)
    }

    private mutating func blank(_ byte: UInt8) {
      guard let ended = word else {
        if words.isEmpty { isIndented = true }
        return
      }
      if form == .options, words.count == 1 || isIndented {
        blanks.append(byte)
      } else {
        words.append(ended)
        word = nil
      }
    }

    private mutating func endLine() {
      if let word { words.append(word) }
      finish()
      isComment = false
    }

    private mutating func finish() {
      if !words.isEmpty {
        lines.append(Line(number: start, isIndented: isIndented, words: words.map { bounded($0) }))
      }
      words = []
      word = nil
      blanks = []
      isIndented = false
    }

    private mutating func bounded(_ word: [UInt8]) -> String {
      var word = word[...]
      if word.count > PerditionFile.longest {
        note(.tooLong, at: start)
        word = word.prefix(PerditionFile.longest)
      }
      if let nul = word.firstIndex(of: 0) {
        note(.nul, at: start)
        word = word[..<nul]
      }
      return String(decoding: word, as: UTF8.self)
    }

    /// Perdition has taken a word that a blank has ended, and no other.
    private mutating func endFile() {
      if let quote { note(.openQuote, at: quote.line) }
      if let word {
        let text = (words + [word]).map { String(decoding: $0, as: UTF8.self) }.joined(separator: " ")
        note(.lostLastLine(text), at: start)
      }
      finish()
    }
  }
}

/// Reads nginx.conf into directives, exactly as nginx parts it into words: quotes, escapes, comments, blocks, includes.

internal import Protocols

/// A directive with its words, and its block if it has one.
package struct NginxDirective: Equatable, Sendable {
  /// `file:line`, where it ends, as nginx counts in its own errors.
  package let place: String
  /// The first word.
  package let name: String
  /// The others, escapes undone; variables stay as they are.
  package let words: [String]
  /// What stands between its braces; nil if it ends with a semicolon.
  package let block: [NginxDirective]?

  /// As it was written, in one line.
  var shown: String { ([name] + words).joined(separator: " ") + (block == nil ? "" : " { }") }
}

/// What an `include` finds.
package enum NginxInclude: Sendable {
  /// Files in order; none for a pattern that matches none.
  case files([(name: String, bytes: [UInt8])])
  case missing(String)
}

/// A configuration nginx would not start with.
package struct NginxSyntaxError: Error, Equatable, Sendable {
  /// `file:line`.
  package let place: String
  /// What is wrong, in nginx's words where it has some.
  package let problem: String

  /// An error at its place.
  package init(place: String, problem: String) {
    self.place = place
    self.problem = problem
  }
}

/// A configuration, its includes in their places.
package enum NginxConf {
  /// nginx's own buffer for a word.
  private static let longest = 4_096
  /// Files within files: more is a circle.
  private static let deepest = 16

  /// Reads a file. `include` is asked for every pattern, which is relative to the folder of nginx.conf.
  package static func read(
    name: String, bytes: [UInt8], include: (String) -> NginxInclude
  ) throws(NginxSyntaxError) -> [NginxDirective] {
    try read(name, bytes, 0, include)
  }

  private static func read(
    _ name: String, _ bytes: [UInt8], _ depth: Int, _ include: (String) -> NginxInclude
  ) throws(NginxSyntaxError) -> [NginxDirective] {
    var reader = Reader(name: name, bytes: bytes)
    return try block(&reader, depth, isNested: false, include)
  }

  private static func block(
    _ reader: inout Reader, _ depth: Int, isNested: Bool, _ include: (String) -> NginxInclude
  ) throws(NginxSyntaxError) -> [NginxDirective] {
    var directives: [NginxDirective] = []
    while true {
      let (words, end) = try reader.next()
      switch end {
      case .file:
        if isNested { throw reader.error("unexpected end of file, expecting \"}\"") }
        return directives
      case .close:
        guard isNested else { throw reader.error("unexpected \"}\"") }
        return directives
      case .semicolon where words[0] == "include" && words.count == 2:
        guard depth < deepest else { throw reader.error("files include each other more than \(deepest) deep") }
        switch include(words[1]) {
        case .missing(let reason): throw reader.error("include \(words[1]): \(reason)")
        case .files(let files):
          for file in files { directives += try read(file.name, file.bytes, depth + 1, include) }
        }
      case .semicolon:
        directives.append(
          NginxDirective(place: reader.place, name: words[0], words: Array(words.dropFirst()), block: nil))
      case .open:
        let place = reader.place
        guard reader.depth < 64 else { throw reader.error("blocks within blocks, too deep") }
        reader.depth += 1
        let inside = try block(&reader, depth, isNested: true, include)
        reader.depth -= 1
        directives.append(
          NginxDirective(place: place, name: words[0], words: Array(words.dropFirst()), block: inside))
      }
    }
  }

  private struct Reader {
    let name: String
    let bytes: [UInt8]
    var depth = 0
    private var index = 0
    private var line = 1

    enum End {
      case semicolon, open, close, file
    }

    init(name: String, bytes: [UInt8]) {
      self.name = name
      self.bytes = bytes
    }

    var place: String { "\(name):\(line)" }

    func error(_ problem: String) -> NginxSyntaxError { NginxSyntaxError(place: place, problem: problem) }

    /// The words up to the end of a directive.
    mutating func next() throws(NginxSyntaxError) -> (words: [String], end: End) {
      var words: [String] = []
      while index < bytes.count {
        let byte = bytes[index]
        switch byte {
        case .space, .ascii("\t"), .carriageReturn, .lineFeed: advance()
        case .ascii("#"):
          while index < bytes.count, bytes[index] != .lineFeed { advance() }
        case .ascii(";"), .ascii("{"):
          advance()
          guard !words.isEmpty else { throw error("unexpected \"\(byte == .ascii(";") ? ";" : "{")\"") }
          return (words, byte == .ascii(";") ? .semicolon : .open)
        case .ascii("}"):
          advance()
          guard words.isEmpty else { throw error("unexpected \"}\"") }
          return ([], .close)
        case .ascii("\""), .ascii("'"): words.append(try quoted(byte))
        default: words.append(try plain())
        }
      }
      guard words.isEmpty else { throw error("unexpected end of file, expecting \";\" or \"}\"") }
      return ([], .file)
    }

    private mutating func advance() {
      if bytes[index] == .lineFeed { line += 1 }
      index += 1
    }

    /// A word in quotes; behind it must be a blank or the directive's end.
    private mutating func quoted(_ quote: UInt8) throws(NginxSyntaxError) -> String {
      advance()
      let start = index
      while index < bytes.count, bytes[index] != quote {
        if bytes[index] == .ascii("\\") { advance() }
        if index < bytes.count { advance() }
      }
      guard index < bytes.count else { throw error("unexpected end of file, expecting a closing quote") }
      let word = try text(start..<index)
      advance()
      guard index < bytes.count else { return word }
      switch bytes[index] {
      case .space, .ascii("\t"), .carriageReturn, .lineFeed, .ascii(";"), .ascii("{"), .ascii(")"): return word
      default: throw error("unexpected \"\(printable(bytes[index]))\" behind a quote")
      }
    }

    /// A word without quotes: up to a blank, a semicolon or a brace that opens a block. `${` opens none.
    private mutating func plain() throws(NginxSyntaxError) -> String {
      let start = index
      var isVariable = false
      loop: while index < bytes.count {
        let byte = bytes[index]
        switch byte {
        case .ascii("\\"):
          advance()
          isVariable = false
          if index < bytes.count { advance() }
          continue loop
        case .space, .ascii("\t"), .carriageReturn, .lineFeed, .ascii(";"): break loop
        case .ascii("{") where !isVariable: break loop
        default: isVariable = byte == .ascii("$")
        }
        advance()
      }
      return try text(start..<index)
    }

    /// Undoes escapes: a backslash is dropped before quotes and itself, with t, r and n it is a control character, and before
    /// anything else it stays.
    private func text(_ range: Range<Int>) throws(NginxSyntaxError) -> String {
      guard range.count < longest else { throw error("too long parameter") }
      var word: [UInt8] = []
      var place = range.lowerBound
      while place < range.upperBound {
        let byte = bytes[place]
        place += 1
        guard byte == .ascii("\\"), place < range.upperBound else {
          word.append(byte)
          continue
        }
        let next = bytes[place]
        place += 1
        switch next {
        case .ascii("\""), .ascii("'"), .ascii("\\"): word.append(next)
        case .ascii("t"): word.append(.ascii("\t"))
        case .ascii("r"): word.append(.carriageReturn)
        case .ascii("n"): word.append(.lineFeed)
        default: word += [byte, next]
        }
      }
      return String(decoding: word, as: UTF8.self)
    }

    private func printable(_ byte: UInt8) -> Character {
      byte > 0x20 && byte < 0x7F ? Character(Unicode.Scalar(byte)) : "?"
    }
  }
}

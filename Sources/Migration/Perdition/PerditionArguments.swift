/// Reads Perdition's options from a file's lines or a command line, as its argument parser does.

/// One option as it was given.
package struct PerditionSetting: Equatable, Sendable {
  /// The option.
  package let option: PerditionOption
  /// Its value; nil for a flag.
  package let value: String?
  /// `file:line`, or the variable of the defaults file.
  package let place: String
  /// Why it does not count; nil if it does.
  package var ignored: String?
}

/// What a list of arguments says.
package struct PerditionArguments: Equatable, Sendable {
  /// The options, those that don't count included.
  package var settings: [PerditionSetting] = []
  /// What is wrong with the arguments.
  package var faults: [ReportEntry] = []
  /// Whether Perdition would not have started with them.
  package var isRefused: Bool { !refusals.isEmpty }
  /// Why it would not have started.
  private var refusals: [ReportEntry] = []

  private struct Word {
    let text: String
    let place: String
    /// Whose line it is the front of.
    let line: PerditionFile.Line?
    /// Whether it comes from a command line.
    var isCommand = false
  }

  /// From a file; `name` is what its places begin with.
  package static func file(_ file: PerditionFile, name: String) -> PerditionArguments {
    var words: [Word] = []
    for line in file.lines {
      let place = "\(name):\(line.number)"
      let key = line.words[0]
      if line.isIndented {
        words.append(Word(text: key, place: place, line: line))
      } else if !key.isEmpty {
        words.append(Word(text: (key.count == 1 ? "-" : "--") + key, place: place, line: line))
      }
      words += line.words.dropFirst().map { Word(text: $0, place: place, line: nil) }
    }
    var arguments = parse(words)
    let lost = file.oddities.compactMap { if case .lostLastLine = $0.kind { "\(name):\($0.line)" } else { nil } }
    // A name whose value the end of the file cut off is told once.
    arguments.faults.removeAll { lost.contains($0.place) }
    if arguments.isRefused {
      // Perdition would not have started: what the writer meant is all there is to go by.
      let meant = asMeant(file, name: name)
      arguments.settings = meant.settings
      arguments.faults = arguments.refusals + meant.faults
    }
    let isOpen = file.oddities.contains { $0.kind == .openQuote }
    let oddities = file.oddities.filter { oddity in
      if case .lostLastLine = oddity.kind { !isOpen } else { true }
    }
    arguments.faults = oddities.map { explain($0, name: name) } + arguments.faults
    return arguments
  }

  /// From a command line in words.
  package static func commandLine(_ words: [String], place: String) -> PerditionArguments {
    parse(words.map { Word(text: $0, place: place, line: nil, isCommand: true) })
  }

  /// popt's rules, and Perdition's: an unknown option or a bad number ends the reading, and what came before counts; a
  /// word that belongs to nothing refuses all.
  private static func parse(_ words: [Word]) -> PerditionArguments {
    var arguments = PerditionArguments()
    var index = 0
    var strays: [Word] = []
    var stop: (word: Word, problem: String)?
    scan: while index < words.count, stop == nil {
      let word = words[index]
      index += 1
      let text = word.text
      if text == "--" {
        strays += words[index...]
        break scan
      }
      if text.hasPrefix("--") {
        let name = text.dropFirst(2).prefix { $0 != "=" }
        let given = text.contains("=") ? String(text.dropFirst(3 + name.count)) : nil
        guard let option = PerditionOption(rawValue: String(name)) else {
          stop = (word, "there is no option \"\(name)\"")
          break
        }
        if option.kind == .flag, given != nil {
          stop = (word, "\(name) takes no value")
        } else if let problem = arguments.take(option, given, word, words, &index) {
          stop = (word, problem)
        }
      } else if text.hasPrefix("-"), text.count > 1 {
        var letters = text.dropFirst()
        while let letter = letters.popFirst(), stop == nil {
          guard let option = PerditionOption(letter: letter) else {
            stop = (word, "there is no option \"\(letter)\"")
            break
          }
          var given: String?
          if option.kind != .flag, !letters.isEmpty {
            given = String(letters.first == "=" ? letters.dropFirst() : letters)
            letters = ""
          }
          if let problem = arguments.take(option, given, word, words, &index) { stop = (word, problem) }
        }
      } else {
        strays.append(word)
      }
    }
    if let stop {
      arguments.stopped(at: stop.word, stop.problem, before: words[index...])
      for stray in strays {
        let shown = stray.line?.words.joined(separator: " ") ?? stray.text
        arguments.faults.append(
          ReportEntry(
            stray.place, Masked.text(shown), .lost,
            "this belongs to no option; Perdition passes over it, and so did the import."))
      }
      return arguments
    }
    for stray in strays
    where !arguments.refusals.contains(where: { $0.place == stray.place && stray.line == nil && !stray.isCommand }) {
      let shown = stray.line?.words.joined(separator: " ") ?? stray.text
      let what =
        stray.line == nil ? "\"\(stray.text)\" is a value that no option takes" : "the line begins with a blank"
      let remedy = stray.isCommand ? "It was passed over." : "It was read as its writer must have meant it."
      arguments.refusals.append(
        ReportEntry(
          stray.place, Masked.text(shown), .changed, "\(what): Perdition would not have started. \(remedy)"))
    }
    arguments.faults += arguments.refusals
    return arguments
  }

  /// What is wrong, or nil.
  private mutating func take(
    _ option: PerditionOption, _ given: String?, _ word: Word, _ words: [Word], _ index: inout Int
  ) -> String? {
    guard option.kind != .flag else {
      settings.append(PerditionSetting(option: option, value: nil, place: word.place))
      return nil
    }
    var value = given
    if value == nil, index < words.count {
      let next = words[index]
      index += 1
      value = next.text
      if next.line != nil, word.line != nil {
        faults.append(
          ReportEntry(
            word.place, option.rawValue, .changed,
            "it has no value here, so Perdition takes the next line's name for it, and so was it read."))
      }
    }
    guard let value else { return "\(option.rawValue) has no value" }
    if option.kind == .number, !value.utf8.allSatisfy({ $0 >= 0x30 && $0 <= 0x39 }) {
      return "\(option.rawValue) takes a number, not \"\(value)\""
    }
    switch (option, value.lowercased()) {
    case (.mailProtocol, let name) where PerditionProtocol(rawValue: name) == nil:
      refuse(word, "there is no protocol \"\(value)\"; POP3, POP3S, IMAP4, IMAP4S and MANAGESIEVE are known")
    case (.logPassword, let name) where !["never", "fail", "ok", "always"].contains(name):
      refuse(word, "log_passwd is never, fail, ok or always")
    default: settings.append(PerditionSetting(option: option, value: value, place: word.place))
    }
    return nil
  }

  private mutating func refuse(_ word: Word, _ problem: String) {
    refusals.append(
      ReportEntry(word.place, word.text, .lost, "\(problem): Perdition would not have started. It was passed over."))
  }

  private mutating func stopped(at word: Word, _ problem: String, before rest: ArraySlice<Word>) {
    faults.append(
      ReportEntry(
        word.place, word.text, .lost,
        "\(problem). Perdition reads no further than this and starts with what came before; so did the import. If it "
          + "is a "
          + "mistake, mend the line and import again."))
    for behind in rest where behind.line != nil {
      let line = behind.line?.words.joined(separator: " ") ?? behind.text
      faults.append(
        ReportEntry(
          behind.place, Masked.text(line), .lost,
          "it stands behind an option that ends Perdition's reading, so it has no effect there; nothing was made of "
            + "it here."))
    }
  }

  /// Each line for itself, blanks in front passed over.
  private static func asMeant(_ file: PerditionFile, name: String) -> PerditionArguments {
    var meant = PerditionArguments()
    for line in file.lines {
      let place = "\(name):\(line.number)"
      // An indented line is one word, of which the first blank ends the name.
      let words = line.isIndented ? parts(line.words[0]) : line.words
      let text = words[0]
      let key = String(text.prefix { $0 != "=" })
      let value = text.contains("=") ? String(text.dropFirst(key.count + 1)) : words.dropFirst().first
      let option = key.count == 1 ? key.first.flatMap { PerditionOption(letter: $0) } : PerditionOption(rawValue: key)
      guard let option else {
        meant.faults.append(
          ReportEntry(place, line.words.joined(separator: " "), .lost, "there is no option \"\(key)\"."))
        continue
      }
      switch option.kind {
      case .flag:
        if let value, ["false", "no", "off", "0"].contains(value.lowercased()) {
          meant.faults.append(
            ReportEntry(place, "\(key) \(value)", .notNeeded, "a flag that is written as off was read as off."))
        } else {
          meant.settings.append(PerditionSetting(option: option, value: nil, place: place))
        }
      case .text where value != nil, .number where value?.utf8.allSatisfy({ $0 >= 0x30 && $0 <= 0x39 }) == true:
        let isBad =
          option == .mailProtocol && PerditionProtocol(rawValue: value?.lowercased() ?? "") == nil
          || option == .logPassword && !["never", "fail", "ok", "always"].contains(value?.lowercased())
        if !isBad { meant.settings.append(PerditionSetting(option: option, value: value, place: place)) }
      case .text, .number:
        meant.faults.append(
          ReportEntry(place, line.words.joined(separator: " "), .lost, "it has no value of its kind."))
      }
    }
    return meant
  }

  private static func parts(_ line: String) -> [String] {
    let key = line.prefix { $0 != " " && $0 != "\t" }
    let value = line[key.endIndex...].drop { $0 == " " || $0 == "\t" }
    return [String(key)] + (value.isEmpty ? [] : [String(value)])
  }

  private static func explain(_ oddity: PerditionFile.Oddity, name: String) -> ReportEntry {
    let place = "\(name):\(oddity.line)"
    return switch oddity.kind {
    case .lostLastLine(let text):
      ReportEntry(
        place, Masked.text(text), .lost,
        "the last line has no line end, so Perdition never sees it, and nothing was made of it. If it is meant, end "
          + "the "
          + "line and import again.")
    case .openQuote:
      ReportEntry(
        place, "", .lost,
        "the quote that begins here is never closed; Perdition loses all behind it, and so did the import.")
    case .tooLong:
      ReportEntry(place, "", .lost, "Perdition cuts this to \(PerditionFile.longest) bytes, and so did the import.")
    case .continuationBeforeCRLF:
      ReportEntry(
        place, "", .changed,
        "a backslash joins no lines that end with CR LF: to Perdition the next line stands for itself, and so was it "
          + "read."
      )
    case .nul: ReportEntry(place, "", .changed, "Perdition reads up to the NUL, and so did the import.")
    }
  }
}

/// What Perdition calls a protocol; the raw value is its name in lower case.
package enum PerditionProtocol: String, CaseIterable, Sendable {
  case pop3, pop3s, imap4, imap4s, managesieve
}

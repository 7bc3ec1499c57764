/// Turns a configuration file into settings, or into a list of all that is wrong with it.

internal import Logging
internal import Protocols
internal import ProxyCore
internal import Yams

struct ConfigFile {
  let settings: Settings
  private let reader: ConfigReader

  /// Reads and types the file. What it names is not opened yet.
  init(_ path: String) throws(ConfigErrors) {
    let text: String
    switch TextFile.read(path) {
    case .success(let read): text = read
    case .failure(let error):
      throw ConfigErrors(errors: [ConfigError(file: path, place: nil, key: "", problem: "it can't be read: \(error)")])
    }
    try self.init(text, path: path)
  }

  init(_ text: String, path: String) throws(ConfigErrors) {
    let reader = ConfigReader(file: path)
    guard let root = try ConfigFile.parse(text, path) else {
      throw ConfigErrors(errors: [ConfigError(file: path, place: nil, key: "", problem: "the file is empty")])
    }
    let builder = SettingsBuilder(reader: reader, folder: ConfigFile.folder(of: path))
    guard let settings = builder.build(root), reader.errors.isEmpty else { throw ConfigErrors(errors: reader.errors) }
    self.settings = settings
    self.reader = reader
  }

  /// Where the file has what an error of the core is about.
  func locate(_ error: SettingsError) -> ConfigError {
    if let place = error.place {
      return ConfigError(
        file: place.file, place: ConfigError.Place(line: place.line, column: place.column), key: error.key,
        problem: error.problem)
    }
    // `routes[1].sqlite` stands for itself or, written as a map, for what it holds.
    return ConfigError(file: reader.file, place: reader.places[error.key], key: error.key, problem: error.problem)
  }

  func locate(_ errors: SettingsErrors) -> ConfigErrors { ConfigErrors(errors: errors.errors.map(locate)) }

  private static func parse(_ text: String, _ path: String) throws(ConfigErrors) -> Node? {
    do {
      return try compose(yaml: text)
    } catch let error as YamlError {
      throw ConfigErrors(errors: [ConfigFile.error(error, path)])
    } catch {
      throw ConfigErrors(errors: [ConfigError(file: path, place: nil, key: "", problem: "\(error)")])
    }
  }

  private static func error(_ error: YamlError, _ path: String) -> ConfigError {
    func at(_ mark: Mark?, _ problem: String, key: String = "") -> ConfigError {
      ConfigError(file: path, place: mark.map { ConfigError.Place($0) }, key: key, problem: problem)
    }
    switch error {
    case .scanner(let context, let problem, let mark, _), .parser(let context, let problem, let mark, _),
      .composer(let context, let problem, let mark, _):
      let context = context.map { " (\($0.text))" } ?? ""
      return at(mark, "not YAML: \(problem)\(context)")
    case .duplicatedKeysInMapping(let duplicates, let context):
      return at(
        context.mark, "this key is given twice in one map, expected once", key: duplicates.joined(separator: ", "))
    case .reader(let problem, _, _, _): return at(nil, "not YAML: \(problem)")
    case .no, .memory, .writer, .emitter, .representer, .dataCouldNotBeDecoded: return at(nil, "not YAML: \(error)")
    }
  }

  private static func folder(of path: String) -> String {
    path.lastIndex(of: "/").map { String(path[...$0]) } ?? ""
  }
}

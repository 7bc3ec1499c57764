/// Reads a password that a source's server is logged in to with from a file of its own.

internal import Protocols

enum SecretFile {
  /// The file's first line. `key` is where the configuration names the file.
  static func read(_ path: String, key: String) throws(SettingsErrors) -> SharedSecret {
    switch TextFile.bytes(path) {
    case .failure(let error):
      throw SettingsErrors([SettingsError(key: key, problem: "\(path): it can't be read: \(error)")])
    case .success(var bytes):
      defer { bytes.wipe() }
      let end = bytes.firstIndex(of: .lineFeed) ?? bytes.endIndex
      let line = bytes.span.extracting(0..<(end > 0 && bytes[end - 1] == .carriageReturn ? end - 1 : end))
      guard line.count > 0 else {
        throw SettingsErrors([
          SettingsError(key: key, problem: "\(path): its first line is empty, expected a password")
        ])
      }
      return SharedSecret(line)
    }
  }
}

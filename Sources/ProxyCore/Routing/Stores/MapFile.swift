/// Looks users up in a file of keys and values that others make: a cdb or an LMDB file, asked for the name and then for
/// its domain.
///
/// It is read with `pread`, never through a memory map: a file cut short under our feet is an error and not a signal. So
/// neither format needs its library, and both are always there.

internal import Protocols

final class MapFile: SourceConnection {
  private let format: Format
  private let path: String
  private var open: Open?

  /// How keys are found in the file.
  enum Format: String, Equatable, Sendable {
    case cdb, lmdb
  }

  /// The file that was read last.
  private final class Open {
    let identity: FileIdentity
    let bytes: FileBytes

    init(_ identity: FileIdentity, _ bytes: FileBytes) {
      self.identity = identity
      self.bytes = bytes
    }
  }

  /// Threads, and lookups at once. They wait for the disk if for anything.
  private static let threads = 2

  init(_ format: Format, _ path: String) {
    self.format = format
    self.path = path
  }

  /// The plan of a file that was found to be one.
  static func plan(_ format: Format, _ path: String, key: String) throws(SettingsErrors) -> SourcePlan {
    let file = MapFile(format, path)
    let nobody = RouteQuery(user: Array("nobody@invalid".utf8), mailProtocol: .imap)
    let answer = file.answer(nobody, Patience(until: Clock.monotonic.now + Timeouts.seconds(2)))
    if case .failed(let words) = answer {
      throw SettingsErrors([SettingsError(key: key, problem: "\(path): \(words)")])
    }
    return SourcePlan(name: "\(format.rawValue) \(path)", connections: threads) { MapFile(format, path) }
  }

  func answer(_ request: SourceRequest, until deadline: UInt64) -> SourceReply {
    .answer(answer(request.query, Patience(until: deadline)))
  }

  private func answer(_ query: RouteQuery, _ patience: Patience) -> SourceAnswer {
    do throws(MapFileError) {
      let file = try current().bytes
      for key in [query.login] + (query.domain.map { [[.ascii("@")] + $0] } ?? []) {
        let value =
          switch format {
          case .cdb: try CDBFormat.value(of: key, in: file, patience)
          case .lmdb: try LMDBFormat.value(of: key, in: file, patience)
          }
        if let value { return SourceAnswer(String(decoding: value, as: UTF8.self)) }
      }
      return .notFound
    } catch {
      // Whatever it was, the next login opens the file anew.
      open = nil
      return .failed(error.words)
    }
  }

  /// The file, opened anew if it was replaced.
  private func current() throws(MapFileError) -> Open {
    guard let identity = FileIdentity(path) else {
      open = nil
      throw MapFileError("there is no such file")
    }
    if let open, open.identity == identity { return open }
    open = nil
    switch Syscall.openForReading(path) {
    case .failure(let error): throw MapFileError("it can't be read: \(error)")
    case .success(let fd):
      let fresh = Open(identity, .file(OpenFile(Descriptor(owning: fd))))
      open = fresh
      return fresh
    }
  }
}

/// Why a file has no answer.
struct MapFileError: Error, Equatable, Sendable {
  let words: String
  init(_ words: String) { self.words = words }

  /// The file ends where more of it must be.
  static let short = MapFileError("it is cut short")
  static let late = MapFileError("it could not be read in time")
  /// No user's backend is that long: reading on would only cost memory.
  static let longValue = MapFileError("the user's value is longer than \(longestValue) bytes")
  static let longestValue = 4_096
}

/// A file as a table of bytes.
enum FileBytes {
  case file(OpenFile)
  /// A test's.
  case memory([UInt8])

  /// So many bytes from a place.
  func read(_ count: Int, at offset: UInt64) throws(MapFileError) -> [UInt8] {
    switch self {
    case .memory(let bytes):
      guard offset <= bytes.count, count <= bytes.count - Int(offset) else { throw .short }
      return Array(bytes[Int(offset)..<Int(offset) + count])
    case .file(let file): return try file.read(count, at: offset)
    }
  }
}

/// A file that is open, closed with its last use.
final class OpenFile {
  private let descriptor: Descriptor

  init(_ descriptor: consuming Descriptor) { self.descriptor = descriptor }

  fileprivate func read(_ count: Int, at offset: UInt64) throws(MapFileError) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: count)
    // SAFETY: the array is this call's alone.
    let result = unsafe bytes.withUnsafeMutableBytes { unsafe Syscall.read(descriptor, at: offset, into: $0) }
    switch result {
    case .success(count): return bytes
    case .success: throw .short
    case .failure(let error): throw MapFileError("it can't be read: \(error)")
    }
  }
}

extension [UInt8] {
  /// A number of so many bytes, the least first.
  func number(_ count: Int, at index: Int) -> UInt64 {
    self[index..<index + count].reversed().reduce(0) { $0 << 8 | UInt64($1) }
  }
}

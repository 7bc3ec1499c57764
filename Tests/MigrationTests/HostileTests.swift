import Testing

@testable import Migration

/// Whatever stands in a file, an import ends, and says something.
struct HostileTests {
  /// Splitmix64, so that a failure can be repeated.
  struct Dice: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
      state &+= 0x9E37_79B9_7F4A_7C15
      var mixed = state
      mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
      mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
      return mixed ^ (mixed >> 31)
    }
  }

  /// Bytes that mean something somewhere, and some that don't.
  private static func soup(_ dice: inout Dice, words: [String]) -> [UInt8] {
    var bytes: [UInt8] = []
    for _ in 0..<Int.random(in: 0...40, using: &dice) {
      switch Int.random(in: 0...5, using: &dice) {
      case 0: bytes.append(UInt8.random(in: 0...255, using: &dice))
      case 1, 2: bytes += Array((words.randomElement(using: &dice) ?? "").utf8)
      case 3:
        bytes.append(HostileTests.marks.randomElement(using: &dice) ?? 0)
      case 4: bytes.append(0x0A)
      default: bytes.append(0x20)
      }
    }
    return bytes
  }

  private static let marks = Array("\n\r \\'\"#:=,%$[]()".utf8)
  private static let options = PerditionOption.allCases.map(\.rawValue)
  private static let values = [
    "ssl_all", "tls_listen", "none", "all", "servername_lookup", "imap4s", "libperditiondb_gdbm.so.0",
    "libperditiondb_posix_regex.so.0", "libperditiondb_mysql.so.0", "libperditiondb_ldap.so.0",
    "libperditiondb_odbc.so.0",
    "ldap://h/b?a?sub?(u=%s)", "h:p:d:t:u:p:s:u:p", "user@host:143", "[::1]:143", "99999999999999999999", "0",
    "\\U,\\d", "",
    "HEADER=END\n", "DATA=END\n", "# GDBM dump\n#:len=3\nYWJj\n", "+3,5:abc->hello\n", "RUN_PERDITION=yes\n", "FLAGS=",
    "$1", "^a: b\n",
  ]

  @Test(arguments: 0..<20)
  func nothingTraps(_ seed: UInt64) {
    var dice = Dice(state: seed)
    for _ in 0..<200 {
      let words = HostileTests.options + HostileTests.values
      let bytes = HostileTests.soup(&dice, words: words)
      let other = HostileTests.soup(&dice, words: HostileTests.values)
      _ = PopmapRegex.read(bytes, file: "f")
      _ = Popmap.dump(other)
      _ = PerditionDirectory(String(decoding: other, as: UTF8.self))
      _ = DataSource(other, name: "a")
      let site = PerditionSite(
        files: [("perdition.imap4.conf", bytes), ("perdition.conf", other)],
        defaults: Bool.random(using: &dice) ? ("defaults", other) : nil)
      let materials = Dictionary(
        uniqueKeysWithValues: site.requests.map { request -> (MaterialRequest, Material) in
          switch request {
          case .popmap: (request, .popmap(Popmap.text(other), path: "p"))
          case .file, .authorities: (request, .bytes(other, path: "p"))
          }
        })
      let result = site.plan(
        materials, isServer: { !$0.isEmpty && !$0.contains(" ") }, isAddress: { $0 == "127.0.0.1" })
      #expect(result.configurations.count >= (site.instances.isEmpty ? 0 : 1))
      for configuration in result.configurations {
        #expect(configuration.draft.text.utf8.allSatisfy { $0 >= 0x20 || $0 == 0x0A })
      }
      #expect(result.report.text.utf8.allSatisfy { $0 >= 0x20 || $0 == 0x0A })
    }
  }
}

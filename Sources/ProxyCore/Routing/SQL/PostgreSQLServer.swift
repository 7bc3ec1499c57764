/// Where a PostgreSQL database is, as the operator's connection string says it.

#if PostgreSQL
  internal import CPostgreSQL
  internal import Protocols

  struct PostgreSQLServer: Sendable {
    /// As the operator wrote it, without a secret.
    let connection: String
    let password: SharedSecret?
    /// What the server is told besides: ours, then the operator's, which win.
    let options: String
    /// The hosts as the string lists them; empty for libpq's own choice.
    let hosts: [Place]

    /// One of several hosts; empty where the string has nothing.
    struct Place: Equatable, Sendable {
      var host: String
      var address: String
      var port: String

      /// Whether libpq speaks of this place.
      func matches(_ other: Place) -> Bool {
        (port.isEmpty || port == other.port) && (address.isEmpty || address == other.address)
          && (host.isEmpty || host == other.host)
      }

      /// libpq's words for these places.
      static func words(_ places: [Place]) -> [(String, String)] {
        func list(_ part: (Place) -> String) -> String { places.map(part).joined(separator: ",") }
        return [("host", list(\.host)), ("hostaddr", list(\.address)), ("port", list(\.port))].filter { word in
          word.1.contains { $0 != "," }
        }
      }
    }

    /// What is wrong with a connection string.
    struct Failure: Error {
      let problem: String
    }

    /// `timeout`, in nanoseconds, is how long the server works for a question at most.
    init(_ connection: String, password: SharedSecret?, timeout: UInt64) throws(Failure) {
      let words = try PostgreSQLServer.parse(connection)
      var hosts: [Place] = []
      let names = PostgreSQLServer.list(words["host"])
      let addresses = PostgreSQLServer.list(words["hostaddr"])
      let ports = PostgreSQLServer.list(words["port"])
      let count = max(names.count, addresses.count)
      guard names.isEmpty || addresses.isEmpty || names.count == addresses.count, count > 0 || ports.count <= 1,
        [0, 1, max(1, count)].contains(ports.count)
      else { throw Failure(problem: "the lists of hosts, addresses and ports are not of one length") }
      for index in 0..<count {
        hosts.append(
          Place(
            host: names.isEmpty ? "" : names[index], address: addresses.isEmpty ? "" : addresses[index],
            port: ports.isEmpty ? "" : ports[ports.count == 1 ? 0 : index]))
      }
      self.connection = connection
      self.password = password
      self.hosts = hosts
      // A query that nobody waits for any more is ended by the server itself.
      let limits = "-c default_transaction_read_only=on -c statement_timeout=\(max(1, timeout / 1_000_000))"
      options = [limits, words["options"] ?? ""].filter { !$0.isEmpty }.joined(separator: " ")
    }

    private static func list(_ text: String?) -> [String] {
      guard let text, !text.isEmpty else { return [] }
      return text.split(separator: ",", omittingEmptySubsequences: false).map(String.init)
    }

    /// The words of a connection string that have a value, by libpq's rules. A secret is refused: the string is logged.
    private static func parse(_ connection: String) throws(Failure) -> [String: String] {
      var error: UnsafeMutablePointer<CChar>?
      // SAFETY: libpq's list ends with an entry without keyword; all texts are copied before it is freed.
      guard let options = unsafe PQconninfoParse(connection, &error) else {
        let words = unsafe error.map { unsafe String(cString: $0) } ?? "there is no memory"
        unsafe PQfreemem(error)
        // libpq quotes what it does not understand, which may be a piece of a password.
        let mayTell = !connection.contains("password") && !connection.contains("@")
        throw Failure(
          problem: mayTell
            ? SQLComplaint.line(words) : "it is no connection string of libpq's; does it hold a password?")
      }
      defer { unsafe PQconninfoFree(options) }
      var words: [String: String] = [:]
      var entry = unsafe options
      while let keyword = unsafe entry.pointee.keyword {
        let name = unsafe String(cString: keyword)
        if let value = unsafe entry.pointee.val {
          // libpq marks what must not be shown with a star.
          guard unsafe entry.pointee.dispchar?.pointee != CChar(UInt8(ascii: "*")), name != "passfile" else {
            throw Failure(problem: "\(name) must not be in the connection string, expected the key password-file")
          }
          words[name] = unsafe String(cString: value)
        }
        unsafe entry += 1
      }
      return words
    }
  }
#endif

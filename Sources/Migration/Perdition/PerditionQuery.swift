/// Perdition's SQL lookups as queries of proxyd: the port behind the server, and a user in front of it only if wanted.

/// Writes the query for a table.
enum PerditionQuery {
  /// The kinds of SQL that proxyd's sources speak.
  enum Kind: Sendable { case mysql, postgresql, sqlite }

  /// `delimiter` parts user and server within the column; nil if the SQL can't say it.
  static func text(_ fields: NineFields, _ kind: Kind, delimiter: String, keepsUsers: Bool) -> String? {
    let literal =
      "'" + delimiter.map { $0 == "'" ? "''" : $0 == "\\" && kind == .mysql ? "\\\\" : String($0) }.joined() + "'"
    let server: String
    let port: String
    switch kind {
    case .mysql, .sqlite:
      server = fields.serverColumn
      port = fields.portColumn
    case .postgresql:
      // Perdition cuts these at the first blank, for columns of type char(n).
      server = "split_part(\(fields.serverColumn)::text, ' ', 1)"
      port = fields.portColumn.isEmpty ? "" : "split_part(\(fields.portColumn)::text, ' ', 1)"
    }
    guard let (host, user) = parts(server, kind, delimiter, literal) else { return nil }
    var backend = host
    if !port.isEmpty {
      let joined = kind == .mysql ? "CONCAT(\(host), ':', \(port))" : "\(host) || ':' || \(port)"
      backend = "CASE WHEN \(port) IS NULL OR \(port) = '' THEN \(host) ELSE \(joined) END"
    }
    let column = kind == .postgresql ? "\"\(fields.userColumn)\"" : fields.userColumn
    return "SELECT \(backend)\(keepsUsers ? ", \(user)" : "") FROM \(fields.table) WHERE \(column) = :login LIMIT 1"
  }

  /// The server behind the last delimiter, and the user before it.
  private static func parts(
    _ server: String, _ kind: Kind, _ delimiter: String, _ literal: String
  ) -> (host: String, user: String)? {
    switch kind {
    case .mysql:
      let host = "SUBSTRING_INDEX(\(server), \(literal), -1)"
      let cut = delimiter.count
      return (
        host,
        "CASE WHEN LOCATE(\(literal), \(server)) > 0 THEN LEFT(\(server), CHAR_LENGTH(\(server)) - "
          + "CHAR_LENGTH(\(host)) - \(cut)) END"
      )
    case .postgresql:
      let pattern = delimiter.map {
        $0.isLetter || $0.isNumber || $0 == "@" ? String($0) : $0 == "'" ? "''" : "\\\($0)"
      }
      .joined()
      return ("regexp_replace(\(server), '^.*\(pattern)', '')", "substring(\(server) from '^(.*)\(pattern)')")
    case .sqlite:
      guard delimiter.count == 1 else { return nil }
      let front = "length(rtrim(\(server), replace(\(server), \(literal), '')))"
      return ("substr(\(server), \(front) + 1)", "nullif(substr(\(server), 1, \(front) - 1), '')")
    }
  }
}

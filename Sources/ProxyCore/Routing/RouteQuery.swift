/// Whose backend is looked for.

package import Protocols

package struct RouteQuery: Hashable, Sendable {
  /// The key asked for in ASCII lower case: the user's name, unless the route makes another of it. Dovecot compares names
  /// so by default; two spellings of a user must not be sent to two backends.
  package let login: [UInt8]
  /// The protocol the user came with.
  package let mailProtocol: MailProtocol
  /// Where the last delimiter stands in `login`.
  private let delimiter: Range<Int>?

  /// A question for a key.
  package init(user: [UInt8], mailProtocol: MailProtocol, rules: NameRules = NameRules()) {
    login = user.map(\.lowercased)
    delimiter = rules.split(login).map { $0.user.endIndex..<$0.domain.startIndex }
    self.mailProtocol = mailProtocol
  }

  /// Before the last delimiter; all of the name if there is none.
  package var local: ArraySlice<UInt8> { login[..<(delimiter?.lowerBound ?? login.endIndex)] }
  /// Behind the last delimiter; nil if there is none.
  package var domain: ArraySlice<UInt8>? { delimiter.map { login[$0.upperBound...] } }
}

/// Reads where a backend sends a user who is not at home there: the response code REFERRAL of each protocol.

package enum Referral {
  /// `host:port` of a response code, or nil if it is no referral.
  ///
  /// IMAP `REFERRAL imap://user;AUTH=*@host:port/` (RFC 2221), POP3 `REFERRAL/user@host:port` (Dovecot),
  /// ManageSieve `REFERRAL "sieve://user@host:port"` (RFC 5804 §1.3), with the quotes or, from Dovecot, without. The user
  /// in it is passed over: who may log in is the route's word, not a backend's.
  package static func target(_ code: [UInt8]) -> String? {
    let code = code.span
    guard code.startsIgnoringCase(with: "REFERRAL"), code.count > 9, code[8] == .space || code[8] == .ascii("/") else {
      return nil
    }
    var url = code.extracting(9...)
    if url.count > 0, url[0] == .ascii("\"") { url = url.extracting(1...) }
    if url.count > 0, url[url.count - 1] == .ascii("\"") { url = url.extracting(..<(url.count - 1)) }
    let schemes: [StaticString] = ["imap://", "imaps://", "pop://", "sieve://"]
    for scheme in schemes where url.startsIgnoringCase(with: scheme) {
      url = url.extracting(scheme.utf8CodeUnitCount...)
      break
    }
    if let slash = url.firstIndex(of: .ascii("/")) { url = url.extracting(..<slash) }
    var index = url.count
    while index > 0, url[index - 1] != .ascii("@") { index -= 1 }
    let target = url.extracting(index...)
    guard target.count > 0, target.count <= 255 + 8 else { return nil }
    for position in target.indices where target[position] <= .space || target[position] >= 0x7F { return nil }
    return String(decoding: target.array, as: UTF8.self)
  }
}

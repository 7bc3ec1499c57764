/// Who a line of the log is from, as syslog tells: proxyd, or the program of Perdition's that a listener stands for.

internal import Protocols

package enum LogIdentity: Equatable, Sendable, CaseIterable {
  case proxyd
  case imap4
  /// With TLS from the first byte.
  case imap4s
  case pop3
  /// With TLS from the first byte.
  case pop3s
  case manageSieve

  /// Whose part a listener has.
  init(_ mailProtocol: MailProtocol, _ policy: TLSPolicy) {
    switch (mailProtocol, policy) {
    case (.imap, .implicit): self = .imap4s
    case (.imap, .off), (.imap, .startTLS), (.imap, .startTLSRequired): self = .imap4
    case (.pop3, .implicit): self = .pop3s
    case (.pop3, .off), (.pop3, .startTLS), (.pop3, .startTLSRequired): self = .pop3
    case (.manageSieve, _): self = .manageSieve
    }
  }

  /// The name before the process's number; fail2ban and other readers know lines by it.
  var tag: StaticString {
    switch self {
    case .proxyd: "proxyd"
    case .imap4: "perdition.imap4"
    case .imap4s: "perdition.imap4s"
    case .pop3: "perdition.pop3"
    case .pop3s: "perdition.pop3s"
    case .manageSieve: "perdition.managesieve"
    }
  }
}

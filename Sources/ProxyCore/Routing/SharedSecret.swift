/// Holds a secret that goes from one thread to another: a password to the thread that checks it.

internal import Protocols
internal import Synchronization

package final class SharedSecret: Sendable {
  private let secret: Mutex<Secret>

  /// A copy of the bytes.
  package init(_ span: Span<UInt8>) { secret = Mutex(Secret(span)) }

  /// Lends the bytes.
  package func withSpan<Result: ~Copyable>(_ body: (Span<UInt8>) -> Result) -> Result {
    secret.withLock { body($0.span) }
  }
}

extension SharedSecret: Equatable {
  /// Whether the bytes are the same.
  package static func == (one: SharedSecret, other: SharedSecret) -> Bool {
    one === other || one.withSpan { one in other.withSpan { other in one.array == other.array } }
  }
}

extension SharedSecret: CustomStringConvertible, CustomReflectable {
  /// Never the secret.
  package var description: String { "(secret)" }
  /// Nothing is to be seen inside.
  package var customMirror: Mirror { Mirror(self, children: []) }
}

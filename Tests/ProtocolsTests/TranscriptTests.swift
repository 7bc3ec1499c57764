import Foundation
import Testing

@testable import Protocols

/// Every transcript, with its input whole, byte by byte, in each two pieces, and in random pieces: what is said and
/// decided must not depend on where the network cuts.
struct TranscriptTests {
  static let all: [String] = {
    let folder = URL(filePath: #filePath).deletingLastPathComponent().appending(path: "Transcripts")
    let files = FileManager.default.enumerator(at: folder, includingPropertiesForKeys: nil)
    return (files?.compactMap { ($0 as? URL)?.path } ?? []).filter { $0.hasSuffix(".txt") }.sorted()
  }()

  @Test func thereAreTranscripts() { #expect(TranscriptTests.all.count >= 416) }

  @Test(arguments: all) func plays(_ path: String) throws {
    let name = path.split(separator: "/").suffix(2).joined(separator: "/")
    let transcript = try Transcript(name: name, text: try String(contentsOfFile: path, encoding: .utf8))
    let whole = transcript.play { [$0] }
    #expect(whole == transcript.expected, "\(name)")
    #expect(transcript.play { $0.map { [$0] } } == whole, "\(name), byte by byte")
    let longest = transcript.runs.map(\.given.count).max() ?? 0
    // Long input is cut at places spread over it, so that a large literal does not take minutes.
    let stride = max(1, longest / 400)
    for place in Swift.stride(from: 1, to: longest, by: stride) {
      let cut = transcript.play { bytes in
        place < bytes.count ? [Array(bytes[..<place]), Array(bytes[place...])] : [bytes]
      }
      #expect(cut == whole, "\(name), cut at \(place)")
    }
    var random = SeededGenerator(seed: 20_261_124)
    for _ in 0..<20 {
      let pieces = transcript.play { bytes in
        var pieces: [[UInt8]] = []
        var rest = bytes[...]
        while !rest.isEmpty {
          let count = Int.random(in: 1...max(1, min(rest.count, 40)), using: &random)
          pieces.append(Array(rest.prefix(count)))
          rest = rest.dropFirst(count)
        }
        return pieces
      }
      #expect(pieces == whole, "\(name), in random pieces")
    }
  }
}

/// The same numbers in every run (SplitMix64).
struct SeededGenerator: RandomNumberGenerator {
  private var state: UInt64

  init(seed: UInt64) { state = seed }

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var mixed = state
    mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
    mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
    return mixed ^ (mixed >> 31)
  }
}

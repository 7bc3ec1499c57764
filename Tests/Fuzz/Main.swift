/// All fuzz targets in one program, compiled beside Protocols and Migration (see `run`).

import Glibc

@testable import Protocols

/// What libFuzzer calls with every input: the target that the environment's PROXYD_FUZZ names gets it.
@_cdecl("LLVMFuzzerTestOneInput")
public func fuzz(_ start: UnsafePointer<UInt8>, _ count: Int) -> CInt {
  let bytes = Array(UnsafeBufferPointer(start: start, count: count))
  if let dialogue {
    fuzzDialogue(dialogue, bytes)
  } else if !fuzzAnswer(target, bytes), !fuzzControl(target, bytes) {
    fatalError("PROXYD_FUZZ names no target")
  }
  return 0
}

private let target = getenv("PROXYD_FUZZ").map { String(cString: $0) } ?? ""
private let dialogue = DialogueTarget(target)

/// What a target promises; libFuzzer keeps the input that breaks it.
func expect(_ condition: Bool, _ what: String) { if !condition { fatalError(what) } }

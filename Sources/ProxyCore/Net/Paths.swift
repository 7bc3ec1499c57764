/// Finds files by patterns, and folders' true paths.

internal import Glibc

package enum Paths {
  /// The paths that a pattern of the shell's matches, in order; one without pattern characters matches itself if it is there.
  package static func matching(_ pattern: String) -> [String] {
    var found = unsafe glob_t()
    // SAFETY: the structure is filled by the call and freed behind it, whatever came of it.
    defer { unsafe globfree(&found) }
    guard unsafe glob(pattern, 0, nil, &found) == 0, let paths = unsafe found.gl_pathv else { return [] }
    return unsafe (0..<Int(found.gl_pathc)).compactMap { index in
      unsafe paths[index].map { unsafe String(cString: $0) }
    }
  }

  /// A folder's path from the root, with a slash behind it; as it was given if it is not there.
  package static func absolute(folder: String) -> String {
    // SAFETY: the text is allocated by the call, and freed once it is copied.
    guard let text = unsafe realpath(folder, nil) else { return folder.hasSuffix("/") ? folder : folder + "/" }
    defer { unsafe free(text) }
    let path = unsafe String(cString: text)
    return path.hasSuffix("/") ? path : path + "/"
  }
}

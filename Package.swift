// swift-tools-version: 6.2
// proxyd: an IMAP and POP3 proxy. Four modules (see docs/Decisions.md): Protocols knows the mail protocols and imports
// nothing, ProxyCore does the work, Migration reads other proxies' configurations, proxyd is the program.

import PackageDescription

/// What every Swift target of this package is compiled with.
let house: [SwiftSetting] = [
  .swiftLanguageMode(.v6),
  .strictMemorySafety(),
  .treatAllWarnings(as: .error),
  .enableUpcomingFeature("ExistentialAny"),
  .enableUpcomingFeature("InternalImportsByDefault"),
  .enableUpcomingFeature("MemberImportVisibility"),
  // `@_lifetime`, for a property that lends a `Span`.
  .enableExperimentalFeature("Lifetimes"),
]

/// Tests may be plain.
let tests: [SwiftSetting] = [.swiftLanguageMode(.v6), .enableExperimentalFeature("Lifetimes")]

let package = Package(
  name: "mailproxyd",
  products: [
    .executable(name: "proxyd", targets: ["proxyd"])
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
    .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
    .package(url: "https://github.com/jpsim/Yams", from: "6.2.2"),
  ],
  targets: [
    .systemLibrary(name: "COpenSSL", pkgConfig: "openssl", providers: [.apt(["libssl-dev"])]),
    .systemLibrary(name: "CSQLite", pkgConfig: "sqlite3", providers: [.apt(["libsqlite3-dev"])]),
    .systemLibrary(name: "CPCRE2", pkgConfig: "libpcre2-8", providers: [.apt(["libpcre2-dev"])]),
    .systemLibrary(name: "CLinux"),

    .target(name: "Protocols", swiftSettings: house),
    .target(
      name: "ProxyCore",
      dependencies: [
        "Protocols", "COpenSSL", "CSQLite", "CPCRE2", "CLinux",
        .product(name: "Logging", package: "swift-log"),
      ],
      swiftSettings: house),
    .target(name: "Migration", dependencies: ["Protocols"], swiftSettings: house),
    .executableTarget(
      name: "proxyd",
      dependencies: [
        "Protocols", "ProxyCore", "Migration",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
        .product(name: "Logging", package: "swift-log"),
        .product(name: "Yams", package: "Yams"),
      ],
      swiftSettings: house),

    .testTarget(name: "ProtocolsTests", dependencies: ["Protocols"], exclude: ["Transcripts"], swiftSettings: tests),
    .testTarget(name: "ProxyCoreTests", dependencies: ["ProxyCore", "COpenSSL"], swiftSettings: tests),
    .testTarget(
      name: "MigrationTests", dependencies: ["Migration", "ProxyCore"], exclude: ["Corpus"], swiftSettings: tests),
    .testTarget(name: "proxydTests", dependencies: ["proxyd"], swiftSettings: tests),
  ]
)

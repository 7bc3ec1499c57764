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

/// Whether only the tests of what shares memory are built, for ThreadSanitizer (see `make thread`).
let onlyThreads = Context.environment["PROXYD_TESTS"] == "threads"

/// The tests of values, which nobody shares.
let testsOfValues: [Target] = [
  .testTarget(name: "ProtocolsTests", dependencies: ["Protocols"], exclude: ["Transcripts"], swiftSettings: tests),
  .testTarget(
    name: "MigrationTests", dependencies: ["Migration", "ProxyCore"], exclude: ["Corpus", "NginxCorpus"],
    swiftSettings: tests),
]

let package = Package(
  name: "mailproxyd",
  products: [
    .executable(name: "proxyd", targets: ["proxyd"])
  ],
  // Where users may be looked up besides files: each needs a library more, so none is built unless
  // asked for. `swift build --traits PostgreSQL,LDAP`, or `--enable-all-traits`.
  traits: [
    .trait(name: "PostgreSQL", description: "Routes from PostgreSQL (libpq)."),
    .trait(name: "MySQL", description: "Routes from MySQL and MariaDB (libmariadb)."),
    .trait(name: "LDAP", description: "Routes and password checks from LDAP (libldap)."),
    .trait(name: "HTTP", description: "Routes from an HTTP service, as nginx's auth_http (libcurl)."),
    .trait(name: "Redis", description: "Routes from Redis (hiredis)."),
    .trait(name: "PAM", description: "Password checks by PAM."),
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
    .systemLibrary(name: "CCrypt"),
    .systemLibrary(name: "CPostgreSQL", pkgConfig: "libpq", providers: [.apt(["libpq-dev"])]),
    .systemLibrary(name: "CMariaDB", pkgConfig: "libmariadb", providers: [.apt(["libmariadb-dev"])]),
    .systemLibrary(name: "CLDAP", pkgConfig: "ldap", providers: [.apt(["libldap-dev"])]),
    .systemLibrary(name: "CCurl", pkgConfig: "libcurl", providers: [.apt(["libcurl4-openssl-dev"])]),
    .systemLibrary(name: "CHiredis", providers: [.apt(["libhiredis-dev"])]),
    .systemLibrary(name: "CPAM", providers: [.apt(["libpam0g-dev"])]),

    .target(name: "Protocols", swiftSettings: house),
    .target(
      name: "ProxyCore",
      dependencies: [
        "Protocols", "COpenSSL", "CSQLite", "CPCRE2", "CLinux", "CCrypt",
        .target(name: "CPostgreSQL", condition: .when(traits: ["PostgreSQL"])),
        .target(name: "CMariaDB", condition: .when(traits: ["MySQL"])),
        .target(name: "CLDAP", condition: .when(traits: ["LDAP"])),
        .target(name: "CCurl", condition: .when(traits: ["HTTP"])),
        .target(name: "CHiredis", condition: .when(traits: ["Redis"])),
        .target(name: "CPAM", condition: .when(traits: ["PAM"])),
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

    // One program runs all tests; this is how it starts.
    .target(name: "TestProcess", path: "Tests/TestProcess"),
    .testTarget(name: "ProxyCoreTests", dependencies: ["ProxyCore", "COpenSSL", "TestProcess"], swiftSettings: tests),
    .testTarget(name: "proxydTests", dependencies: ["proxyd"], swiftSettings: tests),
  ] + (onlyThreads ? [] : testsOfValues)
)

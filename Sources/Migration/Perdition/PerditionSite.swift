/// All instances of a site, and which of them can share one configuration of proxyd.

internal import Protocols

/// What the planning wants to know of the machine; asked for first, so that planning itself touches nothing.
package enum MaterialRequest: Hashable, Sendable {
  /// A database file made of a popmap, or the popmap itself.
  case popmap(PerditionMap.Database, path: String)
  /// A text file.
  case file(path: String)
  /// A folder of authorities' certificates, joined.
  case authorities(folder: String)
}

/// What was found.
package enum Material: Equatable, Sendable {
  /// Bytes of a file, and the path they were read from.
  case bytes([UInt8], path: String)
  /// A popmap's entries, and the path they were read from.
  case popmap(Popmap, path: String)
  /// It can't be had, and why.
  case missing(String)
}

/// A site.
package struct PerditionSite: Equatable, Sendable {
  /// Its daemons.
  package let instances: [PerditionInstance]
  /// What concerns no single instance.
  package let faults: [ReportEntry]

  /// A file by its name, with its bytes.
  package typealias File = (name: String, bytes: [UInt8])

  /// Reads configuration files: each is an instance; or, with Debian's defaults, those that run there, each with its
  /// own file by the order in which Perdition searches.
  package init(files: [File], defaults: File?) {
    func arguments(_ file: File) -> PerditionArguments {
      PerditionArguments.file(PerditionFile.read(file.bytes), name: file.name)
    }
    guard let defaults else {
      instances = files.map { file in
        let mailProtocol = PerditionProtocol(fileName: file.name)
        return PerditionInstance(
          program: mailProtocol ?? .pop3, program: mailProtocol?.program ?? "perdition", file: file.name,
          fileArguments: arguments(file))
      }
      faults = []
      return
    }
    let read = PerditionDefaults.read(defaults.bytes, name: defaults.name)
    var faults = read.faults
    var used = Set<String>()
    instances = read.instances.map { instance in
      let lines = instance.flags.map { PerditionArguments.commandLine($0.words, place: $0.place) }
      let named = lines.flatMap(\.settings).last { $0.option == .configFile }?.value
      let own =
        named.map { [$0] } ?? [
          "\(instance.mailProtocol.program).conf", "perdition.\(instance.mailProtocol.rawValue).conf", "perdition.conf",
        ]
      let file = own.lazy.compactMap { wanted in
        files.first { PerditionSite.base($0.name) == PerditionSite.base(wanted) }
      }
      .first
      if let file { used.insert(file.name) }
      if let named, file == nil {
        faults.append(
          ReportEntry(
            instance.flags.last?.place ?? "", "config_file \(named)", .lost,
            "\(instance.mailProtocol.program) reads this file, which was not given. Import again with it."))
      }
      return PerditionInstance(
        program: instance.mailProtocol, file: file?.name, fileArguments: file.map(arguments), commandLine: lines)
    }
    for file in files where !used.contains(file.name) {
      faults.append(
        ReportEntry(file.name, "", .notNeeded, "no instance that runs reads this file, so nothing of it was imported."))
    }
    self.faults = faults
  }

  private static func base(_ path: String) -> String { path.split(separator: "/").last.map(String.init) ?? path }

  /// All that planning wants to know.
  package var requests: [MaterialRequest] {
    var requests: [MaterialRequest] = []
    for instance in instances {
      switch PerditionMap(instance) {
      case .database(let kind, let path): requests.append(.popmap(kind, path: path))
      case .regex(let path): requests.append(.file(path: path))
      case .sql(.odbc, _): requests.append(.file(path: PerditionSite.sources))
      case .nis(let name): requests.append(.popmap(.gdbm, path: name))
      case .none, .sql, .ldap, .daemon, .foreign: break
      }
      if PerditionTLS(instance).outgoing != .off {
        requests.append(.authorities(folder: Trust.folder(instance)))
        if let file = instance.value(.authorityFile) { requests.append(.file(path: PerditionMap.absolute(file))) }
      }
      if let chain = instance.value(.chainFile), PerditionTLS(instance).listen != .off {
        requests.append(.file(path: PerditionMap.absolute(chain)))
        requests.append(.file(path: CertificatePaths(instance).certificate))
      }
    }
    var seen = Set<MaterialRequest>()
    return requests.filter { seen.insert($0).inserted }
  }

  /// Where ODBC's data sources stand; another file may be given in its place.
  package static let sources = "/etc/odbc.ini"
}

/// The certificate an instance shows.
struct CertificatePaths: Hashable, Sendable {
  let certificate: String
  let key: String
  let chain: String?

  init(_ instance: PerditionInstance) {
    certificate = PerditionMap.absolute(instance.value(.certificateFile) ?? "perdition.crt.pem")
    key = PerditionMap.absolute(instance.value(.keyFile) ?? "perdition.key.pem")
    chain = instance.value(.chainFile).map(PerditionMap.absolute)
  }
}

/// How an instance judges a backend's certificate.
struct Trust: Hashable, Sendable {
  /// Nothing is verified, or not the name.
  let isBlind: Bool
  let file: String?
  let folder: String

  init(_ instance: PerditionInstance) {
    isBlind = instance.has(.noCertificateVerify) || instance.has(.noNameVerify)
    file = isBlind ? nil : instance.value(.authorityFile).map(PerditionMap.absolute)
    folder = isBlind ? "" : Trust.folder(instance)
  }

  static func folder(_ instance: PerditionInstance) -> String {
    PerditionMap.absolute(instance.value(.authorityPath) ?? "perdition.ca/")
  }
}

/// The way from an instance to its backends.
struct BackendWay: Equatable, Sendable {
  let tls: BackendTLS
  /// The port of servers that are named without one.
  let port: UInt16
  /// The ports given with each of outgoing_server's names.
  let serverPorts: [UInt16?]
  let trust: Trust

  init(_ instance: PerditionInstance) {
    tls = PerditionTLS(instance).outgoing
    port = instance.value(.outgoingPort).flatMap(PerditionServer.number) ?? instance.mailProtocol.port
    serverPorts = OutgoingServers(instance).servers.map { $0.port.flatMap(PerditionServer.number) }
    trust = Trust(instance)
  }

  /// Better protected ways first, then those whose port fits.
  func rank(_ mailProtocol: MailProtocol) -> Int {
    let protection =
      switch tls {
      case .implicit: 4
      case .startTLS: 2
      case .off: 0
      }
    return protection + (port == mailProtocol.port(tls) ? 1 : 0)
  }
}

/// The servers of outgoing_server.
struct OutgoingServers: Sendable {
  let servers: [PerditionServer]

  init(_ instance: PerditionInstance) {
    servers = instance.list(.outgoingServer).map { text in
      PerditionServer(text, delimiter: instance.value(.domainDelimiter) ?? "@")
    }
  }

  /// A host as a backend's address: v6 without brackets.
  static func address(_ host: String) -> String {
    host.hasPrefix("[") && host.hasSuffix("]") ? String(host.dropFirst().dropLast()) : host
  }
}

/// How an instance rewrites names and looks them up. Instances that differ here can't share a configuration.
struct LookupManner: Hashable, Sendable {
  let map: PerditionMap
  let keys: [String]
  let delimiter: String
  let strip: PerditionStates
  let add: PerditionStates
  let domain: String?
  let lower: PerditionStates
  let keepsUsers: Bool
  let isClientNamed: Bool
  let servers: [String]
  let isChecked: Bool
  let isClosed: Bool

  init(_ instance: PerditionInstance) {
    map = PerditionMap(instance)
    keys = instance.value(.queryKey)?.split(separator: ",").map(String.init) ?? []
    delimiter = instance.value(.domainDelimiter) ?? "@"
    isClientNamed = instance.has(.clientServerSpecification)
    let strip = PerditionStates(instance, .stripDomain)
    self.strip = isClientNamed ? strip.without("lookup") : strip
    let add = PerditionStates(instance, .addDomain)
    self.add = isClientNamed ? add.without("lookup") : add
    domain = add.states.isEmpty ? nil : instance.value(.explicitDomain)
    // The lookup is in lower case anyway.
    lower = PerditionStates(instance, .lowerCase).without("lookup")
    keepsUsers = instance.has(.usernameFromDatabase)
    servers = OutgoingServers(instance).servers.map(\.host)
    isChecked = instance.has(.authenticateIn)
    isClosed = instance.has(.loginDisabled)
  }
}

/// Instances that become one configuration.
struct PerditionGroup: Sendable {
  let instances: [PerditionInstance]
  let manner: LookupManner
  /// The way each protocol takes to its backends.
  let ways: [MailProtocol: BackendWay]

  /// The way of all of them: they have that in common.
  var way: BackendWay { ways[instances[0].mailProtocol.mailProtocol] ?? BackendWay(instances[0]) }

  /// Parts instances into as few groups as can be.
  static func groups(_ instances: [PerditionInstance]) -> [PerditionGroup] {
    var groups: [PerditionGroup] = []
    for (manner, members) in parted(instances, by: LookupManner.init) {
      var ways: [MailProtocol: BackendWay] = [:]
      for instance in members {
        let mailProtocol = instance.mailProtocol.mailProtocol
        let way = BackendWay(instance)
        if let other = ways[mailProtocol], other.rank(mailProtocol) >= way.rank(mailProtocol) { continue }
        ways[mailProtocol] = way
      }
      let shared = parted(members) { instance -> SharedWay in
        let way = ways[instance.mailProtocol.mailProtocol] ?? BackendWay(instance)
        return SharedWay(tls: way.tls, trust: way.tls == .off ? nil : way.trust)
      }
      groups += shared.map { _, members in
        let protocols = Set(members.map(\.mailProtocol.mailProtocol))
        return PerditionGroup(instances: members, manner: manner, ways: ways.filter { protocols.contains($0.key) })
      }
    }
    return groups
  }

  private struct SharedWay: Hashable {
    let tls: BackendTLS
    let trust: Trust?
  }

  private static func parted<Key: Hashable>(
    _ instances: [PerditionInstance], by key: (PerditionInstance) -> Key
  ) -> [(Key, [PerditionInstance])] {
    var parts: [(Key, [PerditionInstance])] = []
    for instance in instances {
      let key = key(instance)
      if let index = parts.firstIndex(where: { $0.0 == key }) {
        parts[index].1.append(instance)
      } else {
        parts.append((key, [instance]))
      }
    }
    return parts
  }
}

/// What the program does on a signal.

internal import Dispatch
internal import Glibc
internal import Logging
internal import ProxyCore

/// Listens to signals for as long as it is kept.
struct Signals {
  private let sources: [any DispatchSourceSignal]

  init(_ changes: Changes) {
    let queue = DispatchQueue(label: "proxyd.signals")
    sources = [
      Signals.source(SIGHUP, queue) { changes.reload() },
      Signals.source(SIGTERM, queue) { changes.stop(now: false) },
      Signals.source(SIGINT, queue) { changes.stop(now: true) },
    ]
  }

  /// For the time before they are handled: a reload asked for meanwhile is what happens anyway.
  static func ignoreUntilHandled() {
    signal(SIGHUP, SIG_IGN)
    // A peer that is gone is an error of the write, not a signal; OpenSSL writes without MSG_NOSIGNAL.
    signal(SIGPIPE, SIG_IGN)
  }

  func end() {
    for source in sources { source.cancel() }
  }

  private static func source(
    _ number: Int32, _ queue: DispatchQueue, _ body: @escaping @Sendable () -> Void
  ) -> any DispatchSourceSignal {
    let source = DispatchSource.makeSignalSource(signal: number, queue: queue)
    source.setEventHandler { @Sendable in body() }
    // Dispatch catches the signal some time after this: until then it does what it does without us. Ignored, a stop that
    // was asked for just then would be lost.
    let isCaught = DispatchSemaphore(value: 0)
    source.setRegistrationHandler { @Sendable in isCaught.signal() }
    source.activate()
    isCaught.wait()
    return source
  }
}

/// The changes a running proxy goes through.
struct Changes: Sendable {
  let proxy: Proxy
  let log: Log
  let configFile: String
  let service: ServiceManager

  /// Goes over to what the configuration says now; if that can't be used, nothing changes. Returns what is wrong with it.
  @discardableResult
  func reload() -> [String] {
    defer { service.tell("READY=1") }
    service.tell("RELOADING=1\nMONOTONIC_USEC=\(ServiceManager.microseconds)")
    do throws(ConfigErrors) {
      let file = try ConfigFile(configFile)
      do throws(SettingsErrors) { try proxy.reload(file.settings) } catch { throw file.locate(error) }
      log.logger.notice(
        "reloaded", metadata: ["listeners": "\(proxy.addresses.map(\.description).joined(separator: ","))"])
      return []
    } catch {
      for problem in error.errors {
        log.logger.error("reload refused, the old configuration stays", metadata: ["problem": "\(problem)"])
      }
      return error.errors.map(\.description)
    }
  }

  func stop(now: Bool) {
    log.logger.notice(now ? "stopping at once" : "stopping", metadata: ["sessions": "\(proxy.sessions)"])
    service.tell("STOPPING=1")
    proxy.stop(now: now)
  }
}

/// `proxyd run`: serves until it is told to stop.

internal import ArgumentParser
internal import Dispatch
internal import Logging
internal import ProxyCore

struct RunCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "run", abstract: "Run the proxy in the foreground.",
    discussion: """
      SIGHUP reads the configuration, maps of patterns and certificates anew; what can't be used is refused and the \
      old state kept. SIGTERM stops accepting and lets sessions end; SIGINT stops at once.
      """)

  @OptionGroup var config: ConfigOption

  func run() throws {
    Signals.ignoreUntilHandled()
    let file = try config.load()
    let log: Log
    do throws(SystemError) { log = try Log(file.settings.log) } catch {
      let error = SettingsError(key: "log.to", problem: "it can't be opened: \(error)")
      throw fail(ConfigErrors(errors: [file.locate(error)]))
    }
    let proxy: Proxy
    do throws(SettingsErrors) { proxy = try Proxy(file.settings, log: log) } catch { throw fail(file.locate(error)) }
    let door: UnixListener?
    do throws(SettingsErrors) { door = try file.settings.control?.open(for: file.settings.user) } catch {
      throw fail(file.locate(error))
    }
    if let user = file.settings.user {
      do throws(SettingsErrors) { try Privileges.drop(to: user) } catch { throw fail(file.locate(error)) }
    } else if Privileges.areRoots {
      log.logger.warning("running as root; the key user names somebody else")
    }
    let service = ServiceManager()
    let changes = Changes(proxy: proxy, log: log, configFile: config.file, service: service)
    let signals = Signals(changes)
    do throws(SettingsErrors) { try proxy.start() } catch { throw fail(file.locate(error)) }
    let control = door.map { ControlServer($0, ProxyControl(changes), log: log) }
    if let error = control?.start() {
      log.logger.error("the control socket can't be served", metadata: ["reason": "\(error)"])
    }
    log.logger.notice(
      "ready",
      metadata: [
        "version": "\(Proxyd.version)", "listeners": "\(proxy.addresses.map(\.description).joined(separator: ","))",
        "loops": "\(file.settings.loops)",
      ])
    service.tell("READY=1")
    proxy.waitUntilStopped()
    signals.end()
    control?.stop()
    log.logger.notice("stopped")
    log.flush()
  }
}

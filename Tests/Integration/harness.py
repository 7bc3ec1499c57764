"""Starts real Dovecot backends and a real proxyd on loopback ports, in a temporary folder, and ends them by pid.

Everything waits for a condition and has a deadline; nothing sleeps and hopes."""
import collections
import contextlib
import os
import pathlib
import random
import resource
import shutil
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROXYD = os.environ.get("PROXYD", str(ROOT / ".build" / "release" / "proxyd"))
# The one that was built with all package traits.
PROXYD_ALL = os.environ.get("PROXYD_ALL", str(ROOT / ".build-all" / "release" / "proxyd"))
# A library that has every proxyd nap around its system calls, or none: see naps.c.
NAPS = os.environ.get("NAPS")
PASSWORD = 'pa ss"wo\\rd'
# How long a condition may take that will come true, in seconds. Long: it is only waited out by a test that fails.
DEADLINE = 120 if NAPS else 60
# How much of a log a failed test prints, in bytes.
LOG_TAIL = 6_000


def wait_for(what, condition, seconds=DEADLINE):
    """Returns the condition's first true value."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.002)


FIRST_PORT, LAST_PORT, MOST_WORKERS = 20_000, 31_999, 12


def own_ports():
    """The ports of this process, in random order: each of the processes that run tests side by side has a range of its own,
    and what runs beside them the last one. Below those that the system gives to clients, so that none of them takes it
    first."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", f"gw{MOST_WORKERS - 1}")
    number, size = int(worker.removeprefix("gw")), (LAST_PORT + 1 - FIRST_PORT) // MOST_WORKERS
    if number >= MOST_WORKERS:
        raise AssertionError(f"at most {MOST_WORKERS} processes have ports of their own")
    return random.SystemRandom().sample(range(FIRST_PORT + number * size, FIRST_PORT + (number + 1) * size), size)


PORTS = collections.deque(own_ports())
LOOPBACKS = ("127.0.0.1", "::1")


def free_port():
    """A port that is free, v4 and v6, and that was given to nobody else here for long."""
    for _ in range(len(PORTS)):
        port = PORTS.popleft()
        PORTS.append(port)
        with socket.socket() as v4, socket.socket(socket.AF_INET6) as v6, contextlib.suppress(OSError):
            v4.bind(("0.0.0.0", port))
            v6.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            v6.bind(("::", port))
            return port
    raise AssertionError("no free port")


def free_ports(*names):
    """A port for each name."""
    return {name: free_port() for name in names}


def unverified():
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


UNVERIFIED = unverified()  # one for all: making it reads every authority of the system


def connects(port, host="127.0.0.1"):
    with contextlib.suppress(OSError):
        socket.create_connection((host, port), timeout=1).close()
        return True
    return False


def greets(port, host="127.0.0.1", tls=False, say=b""):
    """Whether a server answers who connects: it says something, after it has heard `say`."""
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        client = stack.enter_context(socket.create_connection((host, port), timeout=5))
        if tls:
            client = stack.enter_context(UNVERIFIED.wrap_socket(client))
        client.sendall(say)
        return bool(client.recv(4_096))
    return False


def freeze(pid):
    """Stops a process, and returns once none of its threads runs: until then one may still read a question."""
    def is_frozen():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            stats = [path.read_text() for path in pathlib.Path(f"/proc/{pid}/task").glob("*/stat")]
            return all(stat.rpartition(")")[2].split()[0] in "TtZX" for stat in stats)
        return True
    os.kill(pid, signal.SIGSTOP)
    wait_for(f"process {pid} stands still", is_frozen)


class Process:
    """A child in its own process group, ended by pid; and with its tests, if they are told to end."""

    alive = set()

    def __init__(self, argv, log, **options):
        self.log_path = pathlib.Path(log)
        self.log_file = open(log, "ab")
        self.popen = subprocess.Popen([str(a) for a in argv], stdin=subprocess.DEVNULL, stdout=self.log_file,
                                      stderr=self.log_file, start_new_session=True, **options)
        Process.alive.add(self.popen.pid)

    @property
    def pid(self):
        return self.popen.pid

    def log(self):
        return self.log_path.read_text(errors="replace")

    def is_running(self):
        return self.popen.poll() is None

    def wait_ready(self, what, *answers):
        """Waits until each of the functions returns true: exactly what the tests will use must answer. If the process ends
        before, or is late, it is stopped and the error holds its output."""
        missing = list(answers)

        def ready():
            while missing and missing[0]():
                missing.pop(0)
            return not missing or not self.is_running()
        try:
            wait_for(f"{what} is ready", ready)
            if not self.is_running():
                raise AssertionError(f"{what} ended with {self.popen.returncode}")
        except AssertionError as error:
            with contextlib.suppress(AssertionError):
                self.stop()
            raise AssertionError(f"{error}\n{self.log()[-LOG_TAIL:]}") from None

    def send_signal(self, number):
        self.popen.send_signal(number)

    def stop(self, number=signal.SIGTERM, seconds=DEADLINE):
        if self.is_running():
            self.popen.send_signal(number)
            try:
                self.popen.wait(seconds)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()
                raise AssertionError(f"{self.popen.args[0]} did not stop:\n{self.log()[-2000:]}")
        self.log_file.close()
        Process.alive.discard(self.popen.pid)
        return self.popen.returncode

    @staticmethod
    def end_all(number, _):
        """The handler of SIGTERM: no test goes on, and no server is left."""
        for pid in Process.alive:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        os._exit(128 + number)


DOVECOT = """
base_dir = {dir}/run
log_path = {dir}/dovecot.log
auth_verbose = yes
protocols = imap pop3
listen = 127.0.0.1, ::1
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain login
auth_failure_delay = 0
mail_location = maildir:{dir}/mail/%u
mail_max_userip_connections = 2000
first_valid_uid = 1
default_process_limit = 1500
default_client_limit = 4000
passdb {{
  driver = passwd-file
  args = scheme=PLAIN {dir}/passwd
}}
userdb {{
  driver = static
  args = uid=mail gid=mail home={dir}/mail/%u
}}
service imap-login {{
  service_count = 0
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = 0
  }}
}}
service pop3-login {{
  service_count = 0
  inet_listener pop3 {{
    port = {pop3}
  }}
  inet_listener pop3s {{
    port = 0
  }}
}}
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service stats {{
  unix_listener stats-writer {{
    mode = 0
  }}
}}
"""


class Dovecot:
    """A real backend. Every user it knows has the same password and a message that tells whose backend it is."""

    def __init__(self, folder, name, users, password=PASSWORD):
        self.name = name
        self.dir = pathlib.Path(folder) / f"dovecot-{name}"
        self.dir.mkdir()
        os.chmod(self.dir, 0o755)
        self.imap, self.pop3 = free_port(), free_port()
        (self.dir / "passwd").write_text("".join(f"{user}:{{PLAIN}}{password}\n" for user in users))
        for user in users:
            self.deliver(user, f"Subject: this is backend {name}\r\n\r\nhello {user}\r\n".encode())
        subprocess.run(["chown", "-R", "mail:mail", str(self.dir / "mail")], check=True)
        self.process = None
        self.start()

    def deliver(self, user, message, number=1):
        new = self.dir / "mail" / user / "new"
        new.mkdir(parents=True, exist_ok=True)
        for sibling in ("cur", "tmp"):
            (new.parent / sibling).mkdir(exist_ok=True)
        (new / f"{number}.test").write_bytes(message)

    def configuration(self):
        return DOVECOT.format(dir=self.dir, imap=self.imap, pop3=self.pop3)

    def start(self):
        config = self.dir / "dovecot.conf"
        config.write_text(self.configuration())
        self.process = Process(["/usr/sbin/dovecot", "-F", "-c", config], self.dir / "output.log")
        self.process.wait_ready(f"Dovecot {self.name}", *self.answers())

    def answers(self):
        """What must answer before it is used: each protocol on each address. Dovecot greets once it can check passwords."""
        return [lambda port=port, host=host: greets(port, host) for port in (self.imap, self.pop3) for host in LOOPBACKS]

    def log(self):
        path = self.dir / "dovecot.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def stop(self):
        if self.process:
            self.process.stop()
            self.process = None


def running(program, config, log, **options):
    """A proxyd that runs."""
    if NAPS:
        options["env"] = {**options.get("env", os.environ), "LD_PRELOAD": NAPS}
    return Process([program, "run", "--config", config], log, **options)


class Proxy:
    """A real proxyd. `config` is YAML with {names} for ports, which are chosen here."""

    def __init__(self, folder, config, name="proxyd", program=PROXYD, **ports):
        self.program = program
        self.dir = pathlib.Path(folder)
        self.ports = {}
        for key in ("imap", "imaps", "pop3", "pop3s", "imap_required", "pop3_required", "imap_off", "pop3_off"):
            self.ports[key] = free_port()
        self.ports.update(ports)
        self.config = self.dir / f"{name}.yaml"
        self.write(config)
        self.log_path = self.dir / f"{name}.log"
        self.process = None

    def write(self, config):
        self.config.write_text(config.format(**self.ports))

    def start(self, **options):
        # An earlier one of the same name may have logged there.
        before = self.log_path.read_text().count("event=ready") if self.log_path.exists() else 0
        self.process = running(self.program, self.config, self.log_path, **options)
        self.wait_log("event=ready", before + 1)
        return self

    @property
    def pid(self):
        return self.process.pid

    def log(self):
        return self.process.log()

    def wait_log(self, text, count=1, seconds=DEADLINE):
        def found():
            if self.log().count(text) >= count:
                return True
            if not self.process.is_running():
                raise AssertionError(f"proxyd ended before it said {text!r}:\n{self.log()}")
            return False
        try:
            wait_for(f"proxyd says {text!r} {count} times", found, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log()[-3000:]}")

    def reload(self):
        before = self.log().count("event=reloaded")
        self.process.send_signal(signal.SIGHUP)
        self.wait_log("event=reloaded", before + 1)

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def memory(self):
        """KiB of anonymous memory."""
        for line in pathlib.Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("RssAnon"):
                return int(line.split()[1])
        raise AssertionError("no RssAnon")

    def sessions(self):
        """The session lines of the log, as dicts."""
        return [fields(line) for line in self.log().splitlines() if "event=session " in line]

    def failures(self, count=0):
        """The logins that failed, as dicts; waits until there are that many. A client hears of it before the log does."""
        self.wait_log("event=login-failed ", count)
        return [fields(line) for line in self.log().splitlines() if "event=login-failed " in line]

    def wait_session(self, seconds=DEADLINE, **wanted):
        """The first session line with these fields."""
        def found():
            for session in self.sessions():
                if all(session.get(key) == value for key, value in wanted.items()):
                    return session
            return None
        try:
            return wait_for(f"a session line with {wanted}", found, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log()[-3000:]}")

    def stop(self, number=signal.SIGTERM):
        if self.process:
            code = self.process.stop(number)
            process, self.process = self.process, None
            if code != 0:
                raise AssertionError(f"proxyd ended with {code}:\n{process.log()[-3000:]}")


def fields(line):
    """key=value pairs of a log line, quotes taken off."""
    import json
    import re
    return {key: json.loads(value) if value.startswith('"') else value
            for key, value in re.findall(r'([\w-]+)=("(?:[^"\\]|\\.)*"|\S+)', line)}


def make_certificate(folder, name="mail", days="30", *extra):
    """An ECDSA certificate and its key; returns the paths."""
    crt, key = pathlib.Path(folder) / f"{name}.crt", pathlib.Path(folder) / f"{name}.key"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days",
                    days, "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1",
                    "-keyout", key, "-out", crt, *extra], check=True, stderr=subprocess.DEVNULL)
    return crt, key


def make_map(path, users=(), domains=(), journal="WAL"):
    """A SQLite map as an operator would make it with any tool."""
    database = sqlite3.connect(path)
    database.execute(f"PRAGMA journal_mode={journal}")
    database.executescript((ROOT / "etc" / "schema.sql").read_text())
    database.executemany("INSERT OR REPLACE INTO users(login, backend, login_as) VALUES(?, ?, ?)", users)
    database.executemany("INSERT OR REPLACE INTO domains(domain, backend) VALUES(?, ?)", domains)
    database.commit()
    database.close()


class Lines:
    """A client that speaks lines over a socket, and waits for what it expects."""

    def __init__(self, port, host="127.0.0.1", tls=False, context=None, timeout=DEADLINE):
        self.socket = socket.create_connection((host, port), timeout=timeout)
        self.buffer = b""
        self.context = context or UNVERIFIED
        if tls:
            self.start_tls()

    def start_tls(self):
        self.socket = self.context.wrap_socket(self.socket, server_hostname="localhost")

    def send(self, data):
        self.socket.sendall(data if isinstance(data, bytes) else data.encode())

    def line(self):
        """The next line without its end; None if the peer closed."""
        while b"\n" not in self.buffer:
            data = self.socket.recv(65536)
            if not data:
                return None if not self.buffer else self._rest()
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\n")
        return line.rstrip(b"\r").decode(errors="replace")

    def _rest(self):
        rest, self.buffer = self.buffer, b""
        return rest.decode(errors="replace")

    def until(self, prefix):
        """All lines up to the one that begins with the prefix."""
        lines = []
        while True:
            line = self.line()
            if line is None:
                raise AssertionError(f"closed before {prefix!r}: {lines}")
            lines.append(line)
            if line.startswith(prefix):
                return lines

    def ask(self, command, prefix):
        self.send(command + "\r\n")
        return self.until(prefix)

    def closed(self):
        """Whether the peer closes, whatever it says before."""
        try:
            while True:
                data = self.socket.recv(65536)
                if not data:
                    return True
                self.buffer += data
        except ConnectionResetError:
            return True

    def close(self):
        with contextlib.suppress(OSError):
            self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()




def quoted(text):
    """As an IMAP quoted string."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def imap_login(client, user, password=PASSWORD, tag="a"):
    """Logs in after the greeting; returns the answer's last line."""
    return client.ask(f"{tag} LOGIN {quoted(user)} {quoted(password)}", f"{tag} ")[-1]


class Service:
    """Accepts connections, and runs `serve` for each in a thread.

    A socket is closed only when no thread is inside a call on it: one that is would go on with whatever is given the
    same number next, such as the next test's listener, and take a connection from it."""

    def __init__(self, listener, serve):
        self.listener, self.serve = listener, serve
        self.connections, self.threads = [], []
        self.thread = threading.Thread(target=self._accept, daemon=True)
        self.thread.start()

    def _accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._run, args=(connection,), daemon=True)
            self.connections.append(connection)
            self.threads.append(thread)
            thread.start()

    def _run(self, connection):
        with contextlib.suppress(OSError), connection:
            self.serve(connection)

    def close(self):
        """Nobody listens any more, and all connections end."""
        self._end([self.listener], [self.thread])
        self._end(self.connections, self.threads)

    @staticmethod
    def _end(sockets, threads):
        for one in sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(DEADLINE)
            if thread.is_alive():
                raise AssertionError("a thread does not notice that its socket was shut down")
        for one in sockets:
            one.close()


class FakeBackend:
    """A backend that says what a test wrote down: a function of a connected socket, run in a thread."""

    def __init__(self, behave):
        listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = listener.getsockname()[1]
        self.behave = behave
        self.service = Service(listener, lambda connection: self.behave(connection))

    @property
    def connections(self):
        """All there ever were."""
        return self.service.connections

    def close(self):
        self.service.close()


class TemporaryFolder:
    """A folder that goes with its test, unless KEEP is set. A test that fails prints the ends of the logs in it."""

    present = []
    gone = []  # logs of folders that went with this test: (name, its end)

    def __init__(self):
        self.path = tempfile.mkdtemp(prefix="proxyd-test.")
        os.chmod(self.path, 0o755)
        TemporaryFolder.present.append(self)

    def logs(self):
        """The ends of all logs of servers and of proxyd: (name, text)."""
        found = []
        paths = [pathlib.Path(folder) / name for folder, _, names in os.walk(self.path) for name in names]
        for path in sorted(path for path in paths if path.suffix in (".log", ".out") or path.name == "log"):
            # Servers that run may remove theirs meanwhile.
            with contextlib.suppress(OSError), open(path, "rb") as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - LOG_TAIL))
                if text := file.read().decode(errors="replace"):
                    found.append((str(path.relative_to(self.path)), text))
        return found

    def remove(self):
        TemporaryFolder.present.remove(self)
        with contextlib.suppress(OSError):
            TemporaryFolder.gone += self.logs()
        if os.environ.get("KEEP"):
            print(f"kept: {self.path}", file=sys.stderr)
        else:
            shutil.rmtree(self.path, ignore_errors=True)


class ProxyTest(unittest.TestCase):
    """A test with a folder of its own and whatever it started, ended behind it."""

    program = PROXYD

    def setUp(self):
        self.folder = TemporaryFolder()
        self.addCleanup(self.folder.remove)
        self.dir = pathlib.Path(self.folder.path)

    def backend(self, name, users):
        backend = Dovecot(self.dir, name, users)
        self.addCleanup(backend.stop)
        return backend

    def fake(self, behave):
        backend = FakeBackend(behave)
        self.addCleanup(backend.close)
        return backend

    def proxy(self, config, name="proxyd", options=None, **ports):
        proxy = Proxy(self.dir, config, name, self.program, **ports)
        proxy.start(**(options or {}))
        self.addCleanup(proxy.stop)
        return proxy


signal.signal(signal.SIGTERM, Process.end_all)


def raise_descriptor_limit():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


raise_descriptor_limit()

#!/usr/bin/python3
"""Counts what proxyd does for a login, a command and a relayed chunk, and compares it with Tests/Counts/expected.json.

Instructions in user space and calls of the allocator are counted by callgrind, system calls by strace: both are the same
whatever else the machine does, so a row that grows by more than 3 % is a change of proxyd and not of the weather. One run
warms up: it does a little of each row. The others warm up and then do one row many times; what they did more, divided, is
the cost of one. So the start counts nothing, and neither does what happens once. A row that costs too much is measured up to
three times, and its least counts: a loop that had to wait longer than usual does a little more.

usage: counts.py [--accept] [ROW ...]    --accept writes what was measured to expected.json; name rows to accept only those."""
import argparse
import collections
import contextlib
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "Integration"))

from harness import PROXYD, FakeBackend, Lines, Process, free_port, make_certificate, wait_for  # noqa: E402

EXPECTED = HERE / "expected.json"
# A row may grow by so much. Two runs of one binary differ by less than a tenth of it.
TOLERANCE = 0.03
CHUNK = 16 << 10
# A program under callgrind needs some fifty times as long.
PATIENCE = 120
ALLOCATORS = {"malloc", "calloc", "realloc", "posix_memalign", "aligned_alloc"}

CONFIGURATION = """
loops: 1
listeners:
  - {{ protocol: imap, address: "127.0.0.1:{plain}", tls: "off" }}
  - {{ protocol: imap, address: "127.0.0.1:{tls}", tls: implicit }}
tls: {{ certificate: mail.crt, key: mail.key }}
routes:
  - regex: routes.re
  - default: a
state-file: state.db
health: {{ probe: "off" }}
backends:
  a: {{ address: 127.0.0.1, ports: {{ imap: {backend} }} }}
  b: {{ address: 127.0.0.1, ports: {{ imap: {backend} }} }}
pools: {{ mail: {{ members: [ a, b ], affinity: table }} }}
timeouts: {{ login: 120s, connect: 120s, backend-login: 120s }}
"""


# The backend and the clients

def serve(connection):
    """A backend that lets everybody in. FETCH says a chunk, APPEND takes one."""
    connection.sendall(b"* OK [CAPABILITY IMAP4rev1 SASL-IR LITERAL+ AUTH=PLAIN] ready\r\n")
    file = connection.makefile("rb")
    for line in file:
        tag, verb = line.split()[:2]
        if verb == b"FETCH":
            connection.sendall(b"x" * CHUNK)
        elif verb == b"APPEND":
            file.read(CHUNK)
            connection.sendall(tag + b" OK\r\n")
        else:
            connection.sendall(tag + b" OK\r\n")
            if verb == b"LOGOUT":
                return


@contextlib.contextmanager
def logged_in(proxy, user, tls):
    """A client that is logged in, and then out: after it proxyd has logged the session's end and does nothing more."""
    ended = proxy.log().count("event=session ")
    with Lines(proxy.ports["tls" if tls else "plain"], tls=tls, timeout=PATIENCE) as client:
        # Nothing of a request waits for the acknowledgement of what went before.
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client.until("* OK")
        client.ask(f"a LOGIN {user} secret", "a OK")
        yield client
        client.ask("z LOGOUT", "z OK")
        client.closed()
    wait_for("the session's line", lambda: proxy.log().count("event=session ") > ended)


def logins(proxy, user, tls, count):
    for number in range(count):
        with logged_in(proxy, f"{user}{number % 5}", tls):
            pass


def commands(proxy, user, tls, count):
    with logged_in(proxy, user, tls) as client:
        for _ in range(count):
            client.ask("b NOOP", "b OK")


def down(proxy, user, tls, count):
    with logged_in(proxy, user, tls) as client:
        for _ in range(count):
            client.send("b FETCH\r\n")
            missing = CHUNK
            while missing:
                missing -= len(client.socket.recv(missing))


def up(proxy, user, tls, count):
    with logged_in(proxy, user, tls) as client:
        for _ in range(count):
            client.send(b"b APPEND\r\n" + b"x" * CHUNK)
            client.until("b OK")


Row = collections.namedtuple("Row", "name work user tls few many")
ROWS = [
    Row("TLS login", logins, "alice", True, 5, 40),
    Row("plain login", logins, "alice", False, 5, 80),
    Row("pooled login with table", logins, "pooled", False, 5, 80),
    Row("NOOP both ways", commands, "alice", False, 5, 1_000),
    Row("NOOP both ways, TLS", commands, "alice", True, 5, 1_000),
    Row("16 KiB down", down, "alice", False, 5, 500),
    Row("16 KiB up", up, "alice", False, 5, 500),
    Row("16 KiB down, TLS", down, "alice", True, 5, 500),
    Row("16 KiB up, TLS", up, "alice", True, 5, 500),
]
# How often threads wait, and say so to each other, depends on how the system runs them; a little, also how often the loop changes
# what it waits for, which is a figure of its own.
WAITING = ("total", "futex", "sched_yield", "epoll_wait", "epoll_pwait", "epoll_ctl", "timerfd_settime", "gettid", "newfstatat")
SYSTEM_CALLS = ("TLS login", "plain login", "pooled login with table", "NOOP both ways", "NOOP both ways, TLS")


class Site:
    """A folder with a backend, and with proxyd as it is installed."""

    def __init__(self, folder):
        self.folder = folder
        make_certificate(folder)
        (folder / "routes.re").write_text("pooled.*: mail\n")
        # Valgrind can't read Swift's debugging information.
        subprocess.run(["strip", "-o", folder / "proxyd", PROXYD], check=True)
        self.backend = FakeBackend(serve)
        self.warm = {}

    def run(self, tool, row):
        """One proxyd under the tool, from its start to its end: it warms up, and does the row if there is one."""
        for state in self.folder.glob("state.db*"):
            state.unlink()
        ports = {"plain": free_port(), "tls": free_port()}
        config, log = self.folder / "proxyd.yaml", self.folder / "proxyd.log"
        config.write_text(CONFIGURATION.format(backend=self.backend.port, **ports))
        log.unlink(missing_ok=True)
        proxy = Process([*tool, self.folder / "proxyd", "run", "--config", config], log)
        proxy.ports = ports
        try:
            proxy.wait_ready("proxyd", lambda: "event=ready" in proxy.log())
            for each in ROWS:
                each.work(proxy, each.user, each.tls, each.few)
            if row:
                row.work(proxy, row.user, row.tls, row.many)
        finally:
            # strace does not hand it on; callgrind is the program itself.
            if proxy.is_running():
                os.killpg(proxy.pid, signal.SIGTERM)
            proxy.popen.wait(PATIENCE)
            proxy.log_file.close()

    def cost(self, tool, row):
        """What one operation costs."""
        if tool not in self.warm:
            self.warm[tool] = tool(self, None)
        return {key: (value - self.warm[tool].get(key, 0)) / row.many for key, value in tool(self, row).items()}


# What the tools say

def profile(path):
    """Instructions and calls of the allocator, by who makes them, of a profile that callgrind wrote."""
    instructions, allocations = collections.Counter(), collections.Counter()
    names = {"ob": {}, "fn": {}}
    maker, called, is_call = "proxyd", "", False
    name_line = re.compile(r"(c?)(ob|fn)=\((\d+)\)(?: (.*))?")
    for line in path.open(errors="replace"):
        first = line[0]
        if first in "+-*0123456789":
            if is_call:
                is_call = False
            else:
                instructions[maker] += int(line.rsplit(" ", 1)[1])
        elif line.startswith("calls="):
            is_call = True
            if called in ALLOCATORS:
                allocations[maker] += int(line[6:].split()[0])
        elif match := name_line.match(line):
            callee, kind, number, name = match.groups()
            if name is not None:
                names[kind][number] = name.strip()
            if kind == "ob" and not callee:
                maker = "OpenSSL" if re.search("libcrypto|libssl", names[kind][number]) else "proxyd"
            elif kind == "fn" and callee:
                called = names[kind][number].partition("'")[0]
    return {"instructions": instructions.total(), "instructions outside OpenSSL": instructions["proxyd"],
            "allocations": allocations["proxyd"], "allocations of OpenSSL": allocations["OpenSSL"]}


def callgrind(site, row):
    out = site.folder / "callgrind.out"
    site.run(["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}"], row)
    return profile(out)


def strace(site, row):
    out = site.folder / "strace.out"
    site.run(["strace", "-f", "-qq", "-c", "-U", "name,calls", "-o", out], row)
    calls = {name: int(number) for name, number in re.findall(r"^(\w+) +(\d+)$", out.read_text(), re.MULTILINE)}
    return {"system calls": sum(number for name, number in calls.items() if name not in WAITING),
            "epoll_ctl calls": calls.get("epoll_ctl", 0)}


def measure(site, row):
    """{figure's name: value} of a row."""
    figures = site.cost(callgrind, row)
    if row.name in SYSTEM_CALLS:
        figures.update(site.cost(strace, row))
    return {f"{row.name}: {name}": value for name, value in figures.items() if row.tls or "OpenSSL" not in name}


# What is right

def bound(name, expected):
    """The most that a figure may be. A relayed chunk allocates nothing; what is left there is the row's one login, and each return
    of the loop to Dispatch, which it does every few chunks where all is fifty times as slow."""
    return expected * (1 + TOLERANCE) + slack(name)


def slack(name):
    """What a figure may differ by besides."""
    return 0.25 if "allocations" in name else 1 if "epoll_ctl" in name else 0


def compare(figures, expected):
    """The lines that say what is wrong, and those that say what became better."""
    worse, better = [], []
    for name, value in figures.items():
        known = expected.get(name)
        if known is None:
            worse.append(f"{name}: {value:,.2f}, and no figure is expected")
        elif value > bound(name, known):
            ratio = f", {value / known - 1:+.1%}" if known else ""
            worse.append(f"{name}: {value:,.2f} instead of {known:,.2f}{ratio}")
        elif value < known * (1 - TOLERANCE) - slack(name):
            better.append(f"{name}: {value:,.2f} instead of {known:,.2f}, {value / known - 1:+.1%}")
    return worse, better


HOW = """
`make counts` prints all figures, `Tests/Counts/counts.py "plain login"` those of one row. If a growth is wanted,
`make counts ACCEPT=1` writes the figures to Tests/Counts/expected.json: commit it, and say why in the commit."""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--accept", action="store_true")
    parser.add_argument("rows", nargs="*")
    options = parser.parse_args()
    expected = json.loads(EXPECTED.read_text()) if EXPECTED.exists() else {}
    figures = {}
    with tempfile.TemporaryDirectory(prefix="proxyd-counts.") as name:
        site = Site(pathlib.Path(name))
        figures["stripped binary: bytes"] = (site.folder / "proxyd").stat().st_size
        for row in ROWS:
            if options.rows and row.name not in options.rows:
                continue
            found = measure(site, row)
            for _ in range(2):
                if options.accept or compare(found, expected)[0]:
                    site.warm.clear()
                    found = {key: min(value, found[key]) for key, value in measure(site, row).items()}
            figures.update(found)
            for key, value in found.items():
                print(f"{key}: {value:,.2f}", flush=True)
        site.backend.close()
    if options.accept:
        figures = {key: round(value, 2) for key, value in figures.items()}
        EXPECTED.write_text(json.dumps({**expected, **figures}, indent=1) + "\n")
        return print(f"accepted: {len(figures)} figures")
    worse, better = compare(figures, expected)
    for line in better:
        print(f"counts: better: {line}: accept it, so that it stays")
    for line in worse:
        print(f"counts: {line}")
    if worse:
        sys.exit(HOW)
    print(f"counts: {len(figures)} figures are as expected")


if __name__ == "__main__":
    main()

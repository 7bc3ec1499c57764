"""log.format: perdition. The same scripted sessions at Debian's Perdition and at proxyd leave the same lines, but for
dates, processes and ports; and fail2ban's own filter finds the failures in proxyd's log, and nothing else."""
import base64
import concurrent.futures
import os
import pathlib
import re
import subprocess
import time

from backends import FullDovecot, free_ports
from harness import PROXYD, Lines, Process, Proxy, ProxyTest, greets, make_certificate, running, wait_for

PASSWORD = "secret"
FILTER = "/etc/fail2ban/filter.d/perdition.conf"
TLS = "[TLS]"  # the client begins TLS
HANG_UP = "[gone]"  # the client closes without a word
GARBAGE = "[garbage]"  # the client says something else than TLS

# An instance of Perdition is a listener of proxyd's: the program's name, the protocol, TLS, the address.
INSTANCES = {
    "imap4": ("imap4", "imap", "starttls", "127.0.0.1"),
    "imap4s": ("imap4s", "imap", "implicit", "127.0.0.1"),
    "pop3": ("pop3", "pop3", "starttls", "127.0.0.1"),
    "pop3s": ("pop3s", "pop3", "implicit", "127.0.0.1"),
    "managesieve": ("managesieve", "managesieve", "starttls", "127.0.0.1"),
    "v6": ("imap4", "imap", "starttls", "::1"),
    "impatient": ("imap4", "imap", "starttls", "127.0.0.1"),
}
# Seconds for a login, and for silence after it.
PATIENCE = {"impatient": 4}
MODES = {"starttls": "tls_listen", "implicit": "ssl_listen"}

PERDITION = """
protocol {protocol}
bind_address {address}:{port}
ssl_mode {mode}
ssl_cert_file {certificate}
ssl_key_file {key}
ssl_no_client_cert_verify
map_library {library}
map_library_opt {popmap}
username_from_database
username nobody
group nogroup
log_facility {log}
authenticate_timeout {patience}
timeout {patience}
connect_relog 0
"""

CONFIG = """
listeners:
{listeners}
tls: {{ certificate: {certificate}, key: {key} }}
routes:
{routes}
timeouts: {{ login: {patience}s, idle: {patience}s, failure-delay: 0s }}
log: {{ format: perdition, to: {log}{more} }}
"""

# Rules with the ports of one protocol, which Perdition's map has to name: it would write "imap" for 143.
POPMAP = """
^(alice|bob): 127.0.0.1:{backend}
'^o"k$': 127.0.0.1:{backend}
^named: localhost:{backend}
^six: [::1]:{backend}
'^as_(.*)$': $1@127.0.0.1:{backend}
^down: 127.0.0.1:{closed}
^bye: 127.0.0.1:{bye}
^disabled: 127.0.0.1:{disabled}
"""


def plain(authorization, name, password=PASSWORD):
    token = base64.b64encode(f"{authorization}\0{name}\0{password}".encode()).decode()
    return f'AUTHENTICATE "PLAIN" "{token}"'


# Each scenario: the instance, then what the client says; None waits for the other side to close.
SCENARIOS = {
    "login": ("imap4", ["a LOGIN alice secret", "b LOGOUT"]),
    "login, commands, hang-up": ("imap4", ["a LOGIN bob secret", "b NOOP", HANG_UP]),
    "wrong password": ("imap4", ["a LOGIN alice wrong", "b LOGOUT"]),
    "wrong password, hang-up": ("imap4", ["a LOGIN alice wrong", HANG_UP]),
    "wrong password, then the right one": ("imap4", ["a LOGIN alice wrong", "b LOGIN alice secret", "c LOGOUT"]),
    "unknown user": ("imap4", ["a LOGIN nobody secret", "b LOGOUT"]),
    "no name": ("imap4", ['a LOGIN "" secret', "b LOGOUT"]),
    "backend down": ("imap4", ["a LOGIN down secret", "b LOGOUT"]),
    "backend says BYE": ("imap4", ["a LOGIN bye secret", "b LOGOUT"]),
    "backend takes no passwords": ("imap4", ["a LOGIN disabled secret", "b LOGOUT"]),
    "backend by its name": ("imap4", ["a LOGIN named secret", "b LOGOUT"]),
    "backend by its v6 address": ("imap4", ["a LOGIN six secret", "b LOGOUT"]),
    "name from the map": ("imap4", ["a LOGIN as_bob secret", "b LOGOUT"]),
    "wrong password for a name from the map": ("imap4", ["a LOGIN as_bob wrong", "b LOGOUT"]),
    "nothing but LOGOUT": ("imap4", ["a LOGOUT"]),
    "hang-up": ("imap4", [HANG_UP]),
    "hang-up after a command": ("imap4", ["a NOOP", HANG_UP]),
    "silence before the login": ("impatient", [None]),
    "silence after the login": ("impatient", ["a LOGIN alice secret", None]),
    "STARTTLS": ("imap4", ["a STARTTLS", TLS, "b LOGIN alice secret", "c LOGOUT"]),
    "STARTTLS, wrong password": ("imap4", ["a STARTTLS", TLS, "b LOGIN alice wrong", "c LOGOUT"]),
    "STARTTLS, no TLS": ("imap4", ["a STARTTLS", GARBAGE]),
    "STARTTLS, hang-up": ("imap4", ["a STARTTLS", HANG_UP]),
    "imaps": ("imap4s", [TLS, "a LOGIN alice secret", "b LOGOUT"]),
    "imaps, wrong password": ("imap4s", [TLS, "a LOGIN alice wrong", "b LOGOUT"]),
    "imaps, unknown user": ("imap4s", [TLS, "a LOGIN nobody secret", "b LOGOUT"]),
    "imaps, no TLS": ("imap4s", [GARBAGE]),
    "imaps, hang-up in the handshake": ("imap4s", [HANG_UP]),
    "imaps, hang-up": ("imap4s", [TLS, "a NOOP", HANG_UP]),
    "pop3": ("pop3", ["USER alice", "PASS secret", "QUIT"]),
    "pop3, wrong password": ("pop3", ["USER alice", "PASS wrong", "QUIT"]),
    "pop3, unknown user": ("pop3", ["USER nobody", "PASS secret", "QUIT"]),
    "pop3, backend down": ("pop3", ["USER down", "PASS secret", "QUIT"]),
    "pop3, nothing but QUIT": ("pop3", ["QUIT"]),
    "pop3, hang-up": ("pop3", ["USER alice", HANG_UP]),
    "pop3 with STLS": ("pop3", ["STLS", TLS, "USER alice", "PASS secret", "QUIT"]),
    "pop3s": ("pop3s", [TLS, "USER alice", "PASS wrong", "QUIT"]),
    "managesieve": ("managesieve", [plain("", "alice"), "LOGOUT"]),
    "managesieve, wrong password": ("managesieve", [plain("", "alice", "wrong"), "LOGOUT"]),
    "managesieve, for somebody else": ("managesieve", [plain("bob", "alice", "wrong"), "LOGOUT"]),
    "managesieve, unknown user": ("managesieve", [plain("", "nobody"), "LOGOUT"]),
    "managesieve, hang-up": ("managesieve", [HANG_UP]),
    "v6": ("v6", ["a LOGIN alice secret", "b LOGOUT"]),
    "v6, wrong password": ("v6", ["a LOGIN alice wrong", HANG_UP]),
}

# What fail2ban's filter counts: a refused password, and a client that goes before its login. It knows v4 only,
# and nobody who logs in for somebody else.
FAILURE = re.compile(
    r': Auth: \S+->127\.0\.0\.1:\S+ .* authorisation_id=NONE .*'
    r'"failed: (local authentication failure|Re-Authentication Failure)"$'
    r'|: Fatal Error reading authentication information from client \S+->127\.0\.0\.1:')

LINE = re.compile(r"^([A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d) (?:(\S+) )?(perdition\.\S+|proxyd)\[(\d+)\]: (.*)$")


def says_bye(connection):
    connection.sendall(b"* BYE not today\r\n")


def takes_no_passwords(connection):
    """An IMAP server with LOGINDISABLED."""
    connection.sendall(b"* OK [CAPABILITY IMAP4rev1 LOGINDISABLED] ready\r\n")
    for line in connection.makefile("rb"):
        tag, command = line.split()[:2]
        if command == b"CAPABILITY":
            connection.sendall(b"* CAPABILITY IMAP4rev1 LOGINDISABLED\r\n")
        connection.sendall(tag + b" OK done\r\n")
        if command == b"LOGOUT":
            return


def play(protocol, host, port, steps):
    """Says what the scenario has; returns the client's port."""
    def answer(client, command):
        if protocol == "imap":
            client.until("* " if command is None else command.split()[0] + " ")
        elif protocol == "pop3":
            client.line()
        else:
            while not re.match(r"(OK|NO|BYE)\b", client.line()):
                pass

    with Lines(port, host=host, timeout=30) as client:
        source = client.socket.getsockname()[1]
        steps = list(steps)
        begins_with_tls = steps[0] in (TLS, GARBAGE) or (steps == [HANG_UP] and protocol == "implicit")
        if not begins_with_tls and protocol != "implicit":
            answer(client, None)
        for step in steps:
            if step is None:
                client.closed()
            elif step == HANG_UP:
                return source
            elif step == GARBAGE:
                client.send("this is no TLS record at all\r\n" * 4)
                client.closed()
                return source
            elif step == TLS:
                client.start_tls()
                if begins_with_tls and step is steps[0]:
                    answer(client, None)
            else:
                client.send(step + "\r\n")
                answer(client, step)
        client.closed()
        return source


class PerditionLogTest(ProxyTest):
    maxDiff = None

    def setUp(self):
        super().setUp()
        self.certificate = make_certificate(self.dir)
        self.dovecot = FullDovecot(self.dir, "a", ["alice", "bob", "named", "six"], PASSWORD,
                                   certificate=self.certificate)
        self.addCleanup(self.dovecot.stop)
        self.places = {"bye": self.fake(says_bye).port, "disabled": self.fake(takes_no_passwords).port,
                       **free_ports("closed")}
        self.ports = free_ports(*INSTANCES)

    def popmap(self, protocol):
        path = self.dir / f"popmap.{protocol}.re"
        path.write_text(POPMAP.format(backend=self.dovecot.ports[protocol], **self.places))
        return path

    def perdition(self, instance):
        """A real Perdition; its child processes must be able to write to the log."""
        program, protocol, tls, address = INSTANCES[instance]
        log = self.dir / f"perdition.{instance}.log"
        log.touch()
        os.chmod(log, 0o666)
        config = self.dir / f"{instance}.conf"
        config.write_text(PERDITION.format(
            protocol=program.upper(), address=f"[{address}]" if ":" in address else address, port=self.ports[instance],
            mode=MODES[tls], certificate=self.certificate[0], key=self.certificate[1],
            library=next(pathlib.Path("/usr/lib").glob("*/libperditiondb_posix_regex.so.0")),
            popmap=self.popmap(protocol), patience=PATIENCE.get(instance, 30), log=log))
        process = Process([f"/usr/sbin/perdition.{program}", "--no_daemon", "-f", config, "--pid_file", ""],
                          self.dir / f"{instance}.out")
        self.addCleanup(process.stop)
        process.wait_ready(f"perdition as {instance}", lambda: greets(self.ports[instance], address, tls=tls == "implicit"))
        return log

    def proxyd(self, instances, more=""):
        """proxyd on other ports, with its log in a file. Its one file of rules is for one protocol."""
        self.ports = free_ports(*instances)
        listeners = []
        for instance in instances:
            _, protocol, tls, address = INSTANCES[instance]
            host = f"[{address}]" if ":" in address else address
            listeners.append(f'  - {{ protocol: {protocol}, address: "{host}:{self.ports[instance]}", tls: {tls}, '
                             f"mechanisms: [plain] }}")
        routes = f"  - regex: {{ file: {self.popmap(protocol)}, perdition-compatible: true }}"
        log = self.dir / "perdition.log"
        config = CONFIG.format(listeners="\n".join(listeners), routes=routes, log=log, more=more,
                               certificate=self.certificate[0], key=self.certificate[1],
                               patience=PATIENCE.get(instance, 30))
        proxy = Proxy(self.dir, config.replace("{", "{{").replace("}", "}}"))
        proxy.process = running(PROXYD, proxy.config, proxy.log_path)
        self.addCleanup(proxy.stop)
        wait_for("proxyd is ready", lambda: log.exists() and "event=ready" in log.read_text())
        return proxy, log

    def lines(self, log):
        """The log's lines of sessions, as matches; every line is one of syslog's form."""
        found = []
        for line in log.read_text().splitlines():
            match = LINE.match(line)
            self.assertIsNotNone(match, line)
            if match[3] != "proxyd":
                found.append(match)
        return found

    def session(self, log, source, what, group):
        """What was logged of the session that came from that port, once it is over; `group` says which are its."""
        def found():
            lines = self.lines(log)
            first = next((index for index, line in enumerate(lines)
                          if re.match(rf"Connect:  \S+:{source}->", line[5])), None)
            if first is None:
                return None
            mine = group(lines, first)
            return mine if re.match("Closing|Fatal", mine[-1][5]) else None
        return wait_for(f"the end of {what} is logged", found)

    def normalised(self, line, source, destination):
        text = f"{line[3]}: {line[5]}"
        text = text.replace(f":{source}->", ":SOURCE->").replace(f":{destination}", ":DESTINATION")
        for name, port in {**self.places, **self.dovecot.ports}.items():
            text = text.replace(f':{port}"', f':{name.upper()}"')
        return text

    def scenario_lines(self, name, log, group):
        instance, steps = SCENARIOS[name]
        _, protocol, tls, address = INSTANCES[instance]
        kind = "implicit" if tls == "implicit" and steps[0] != TLS else protocol
        try:
            source = play(kind, address, self.ports[instance], steps)
        except Exception as error:
            raise AssertionError(f"{name}: {error}\n{log.read_text()[-2000:]}") from error
        return [self.normalised(line, source, self.ports[instance])
                for line in self.session(log, source, name, group)]

    def perditions(self, names):
        """All scenarios side by side: every session is a process of its own. Who has little patience goes first."""
        logs = {instance: self.perdition(instance) for instance in {SCENARIOS[name][0] for name in names}}
        found = {}

        def group(lines, first):
            return [line for line in lines[first:] if line[4] == lines[first][4]]

        for is_patient in (False, True):
            batch = [name for name in names if (SCENARIOS[name][0] not in PATIENCE) == is_patient]
            with concurrent.futures.ThreadPoolExecutor(len(batch)) as pool:
                played = {name: pool.submit(self.scenario_lines, name, logs[SCENARIOS[name][0]], group)
                          for name in batch}
                found.update({name: future.result() for name, future in played.items()})
        return found

    def ours(self, names):
        """One scenario after the other, since all are told by one process."""
        def group(lines, first):
            return lines[first:]
        found, logs = {}, []
        for instances in (["imap4", "imap4s", "v6"], ["impatient"], ["pop3", "pop3s"], ["managesieve"]):
            proxy, log = self.proxyd(instances)
            for name in names:
                if SCENARIOS[name][0] in instances:
                    found[name] = self.scenario_lines(name, log, group)
            proxy.stop()
            logs.append(log.rename(self.dir / f"{instances[0]}.log"))
        whole = self.dir / "all.log"
        whole.write_text("".join(log.read_text() for log in logs))
        return found, whole

    def fail2ban(self, log):
        """The lines that Debian's filter takes for failures; every line's date must be understood."""
        done = subprocess.run(["fail2ban-regex", "--usedns", "no", "--print-all-matched", log, FILTER],
                              capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        count = len(log.read_text().splitlines())
        counts = re.search(r"Lines: (\d+) lines, (\d+) ignored, (\d+) matched, (\d+) missed", done.stdout)
        self.assertEqual(int(counts[1]), count, done.stdout)
        dates = sum(int(number) for number in re.findall(r"^\|\s+\[(\d+)\] .*Day.*$", done.stdout, re.M))
        self.assertEqual(dates, count, done.stdout)
        matched = re.search(r"\|- Matched line\(s\):\n((?:\|  .*\n)*)", done.stdout)
        lines = [line[3:] for line in matched[1].splitlines()] if matched else []
        self.assertEqual(len(lines), int(counts[3]), done.stdout)
        return lines

    def test_the_same_lines_as_perdition_and_what_fail2ban_makes_of_them(self):
        theirs = self.perditions(SCENARIOS)
        ours, log = self.ours(SCENARIOS)
        for name in SCENARIOS:
            with self.subTest(name):
                self.assertEqual(ours[name], theirs[name])
        # Each of these was seen, so that nothing is equal because nothing happened.
        said = " ".join(line for lines in ours.values() for line in lines)
        for words in ('status="ok"', "Re-Authentication Failure", "Could not determine server",
                      "Could not connect to server", "Connection Negotiation Failure", "Login Disabled",
                      "client-secure=starttls", "client-secure=ssl",
                      'authorisation_id="bob" authentication_id="alice"', "Timeout piping data.",
                      "Closing NULL session", "Fatal Error: Timeout reading", "establishing TLS connection",
                      "establishing SSL connection",
                      "protocol=IMAP4S", "protocol=POP3S", "protocol=MANAGESIEVE", "::1:SOURCE->::1:DESTINATION"):
            self.assertIn(words, said)
        lines = [line for line in log.read_text().splitlines() if FAILURE.search(line)]
        self.assertGreater(len(lines), 12)
        self.assertEqual(self.fail2ban(log), lines)

    def test_names_do_not_break_fields(self):
        proxy, log = self.proxyd(["imap4"])
        forged = 'x" server="h" protocol=IMAP4 server-secure=plaintext status="failed: Re-Authentication Failure"'
        names = {'o"k': r'o\"k', forged: forged.replace('"', r"\""), "tab\there": r"tab\there",
                 "line\nbreak": r"line\nbreak", "\x1b[2J": r"\u001b[2J", "back\\slash": r"back\\slash",
                 "grün": "grün", "bad\udcff": "bad\ufffd"}
        for name, written in names.items():
            with self.subTest(name), Lines(self.ports["imap4"]) as client:
                client.line()
                raw = name.encode("utf-8", "surrogateescape")
                client.send(b"a LOGIN {%d+}\r\n%s {1+}\r\nx\r\n" % (len(raw), raw))
                client.until("a NO")
                client.ask("b LOGOUT", "b ")
                wait_for("it is logged", lambda: f' authentication_id="{written}" server="' in log.read_text())
        wait_for("all sessions are over", lambda: log.read_text().count("Closing NULL session") == len(names))
        self.assertEqual(len(self.lines(log)), 3 * len(names))
        # o"k has a backend that refuses it; no other name makes a failure of itself.
        self.assertEqual([line for line in self.fail2ban(log) if r'"o\"k"' not in line], [])

    def test_a_login_is_told_again_while_its_session_lasts(self):
        proxy, log = self.proxyd(["impatient"], more=", repeat: 1s")
        def told():
            return [line[5] for line in self.lines(log) if line[5].startswith("Auth: ")]
        with Lines(self.ports["impatient"]) as client:
            client.line()
            begun = time.monotonic()
            client.ask("a LOGIN alice secret", "a OK")
            # Beyond the idle time-out: what is told must not count as traffic, and traffic must count.
            for count in range(2, 7):
                wait_for(f"it is told {count} times", lambda: len(told()) >= count)
                client.ask("b NOOP", "b OK")
            self.assertGreater(time.monotonic() - begun, PATIENCE["impatient"] + 0.5)
            self.assertLess(time.monotonic() - begun, 3 * PATIENCE["impatient"])
            told_by_then = len(told())
            idle = time.monotonic()
            self.assertTrue(client.closed())
            self.assertLess(time.monotonic() - idle, 2 * PATIENCE["impatient"])
        wait_for("the end is logged", lambda: "Closing session: " in log.read_text())
        self.assertEqual(len(set(told())), 1, "the lines are the same")
        self.assertGreaterEqual(len(told()), told_by_then + 1)
        # The log is behind what is told by two at most.
        self.assertLessEqual(len(told()), told_by_then + PATIENCE["impatient"] + 2)
        self.assertIn("Timeout piping data.", log.read_text())

    def test_the_format_changes_with_a_reload(self):
        proxy, log = self.proxyd(["imap4"], more=", repeat: 1s")
        config = proxy.config.read_text()
        old = Lines(self.ports["imap4"])
        self.addCleanup(old.close)
        old.line()
        old.ask("a LOGIN alice secret", "a OK")
        proxy.config.write_text(config.replace("format: perdition", "format: text").replace(", repeat: 1s", ""))
        proxy.process.send_signal(1)
        wait_for("it is reloaded", lambda: "event=reloaded" in log.read_text())
        before = log.read_text().count("Auth: ")
        new = Lines(self.ports["imap4"])
        self.addCleanup(new.close)
        new.line()
        new.ask("a LOGIN bob secret", "a OK")
        # Both are told in proxyd's own line, whatever they began as; nothing more is repeated.
        for client, user in ((old, "alice"), (new, "bob")):
            client.ask("b NOOP", "b OK")
            client.ask("c LOGOUT", "c ")
            client.close()
            wait_for(f"the end of {user}'s session", lambda: f"login={user} " in log.read_text())
        self.assertLessEqual(log.read_text().count("Auth: "), before)
        proxy.config.write_text(config)
        proxy.process.send_signal(1)
        wait_for("it is reloaded", lambda: log.read_text().count("event=reloaded") == 2)
        with Lines(self.ports["imap4"]) as client:
            client.line()
            client.ask("a LOGOUT", "a ")
        wait_for("it is told", lambda: "Closing NULL session" in log.read_text())


if __name__ == "__main__":
    import unittest
    unittest.main()

"""The control socket and the commands over it, as operators and their programs use them: against a real proxyd."""
import base64
import contextlib
import fcntl
import grp
import json
import os
import pathlib
import pty
import pwd
import re
import select
import signal
import socket
import stat
import struct
import subprocess
import termios
import threading
import time
import unittest

from harness import DEADLINE, PASSWORD, PROXYD, Lines, Process, Proxy, ProxyTest, imap_login, make_certificate, wait_for

CONFIG = """
loops: 2
listeners:
  - {{ protocol: imap, address: "127.0.0.1:{imap}", tls: starttls, mechanisms: [plain, login, xoauth2] }}
  - {{ protocol: imap, address: "127.0.0.1:{imaps}", tls: implicit }}
  - {{ protocol: pop3, address: "127.0.0.1:{pop3}", tls: starttls }}
tls: {{ certificate: mail.crt, key: mail.key }}
routes:
  - default: mail
backends:
  a: {{ address: 127.0.0.1, ports: {{ imap: {a}, pop3: {a_pop3} }} }}
  b: {{ address: 127.0.0.1, ports: {{ imap: {b}, pop3: {b} }} }}
health: {{ probe: "off" }}
pools: {{ mail: {{ members: [a, b], pause: 0s, move-rate: 100000 }} }}
timeouts: {{ failure-delay: 0, connect: 10s, backend-login: 10s, shutdown: 0 }}
control: {{ socket: run/control.sock }}
"""


def converse(connection):
    """Plays an IMAP backend that lets everybody in but who has no, and answers every command after."""
    lines = connection.makefile("rb")
    connection.sendall(b"* OK [CAPABILITY IMAP4rev1 SASL-IR LITERAL+ AUTH=PLAIN AUTH=LOGIN AUTH=XOAUTH2] ready\r\n")
    for line in lines:
        tag, command = line.split()[:2]
        if command in (b"LOGIN", b"AUTHENTICATE") and b"refused" in line:
            connection.sendall(tag + b" NO you said " + line)
        elif command == b"LOGOUT":
            connection.sendall(b"* BYE\r\n" + tag + b" OK\r\n")
            return
        else:
            connection.sendall(tag + b" OK done\r\n")


class Control:
    """A program that speaks the protocol."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(DEADLINE)
        self.socket.connect(str(path))
        self.file = self.socket.makefile("rb")

    def send(self, text):
        self.socket.sendall(text if isinstance(text, bytes) else text.encode())

    def answer(self):
        """The rows, and the last line: ("done", value) or ("error", value); None if the connection ends before."""
        rows = []
        for line in self.file:
            (kind, value), = json.loads(line).items()
            if kind != "row":
                return rows, kind, value
            rows.append(value)
        return None

    def ask(self, command, **arguments):
        self.send(json.dumps({"command": command, **arguments}) + "\n")
        return self.answer()

    def close(self):
        self.file.close()
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class ControlTest(ProxyTest):
    def setUp(self):
        super().setUp()
        make_certificate(self.dir)
        self.path = self.dir / "run" / "control.sock"
        self.a, self.b = self.fake(converse), self.fake(converse)

    def start(self, extra="", config=CONFIG, name="proxyd", **options):
        return self.proxy(config + extra, name, options=options, a=self.a.port, b=self.b.port, a_pop3=self.a.port)

    def talk(self):
        control = Control(self.path)
        self.addCleanup(control.close)
        return control

    def ask(self, command, **arguments):
        with Control(self.path) as control:
            return control.ask(command, **arguments)

    def done(self, command, **arguments):
        """The rows, and the last line's value; the test fails if that is an error."""
        rows, kind, value = self.ask(command, **arguments)
        self.assertEqual(kind, "done", value)
        return rows, value

    def run_command(self, *argv, code=0, **options):
        """A subcommand of proxyd, over the socket."""
        done = subprocess.run([PROXYD, *map(str, argv), "--socket", self.path], capture_output=True, text=True,
                              timeout=DEADLINE, **options)
        self.assertEqual(done.returncode, code, done.stderr + done.stdout)
        return done.stdout if code == 0 else done.stderr

    def log_in(self, proxy, user, tls=False):
        client = Lines(proxy.ports["imaps" if tls else "imap"], tls=tls)
        self.addCleanup(client.close)
        client.until("* OK")
        self.assertIn("a OK", imap_login(client, user))
        return client


def as_user(name, groups):
    """What a child does to become somebody else."""
    user = pwd.getpwnam(name)

    def become():
        os.setgroups([grp.getgrnam(group).gr_gid for group in groups])
        os.setgid(user.pw_gid)
        os.setuid(user.pw_uid)
    return become


class Socket(ControlTest):
    def mode(self):
        found = os.lstat(self.path)
        self.assertTrue(stat.S_ISSOCK(found.st_mode))
        return stat.S_IMODE(found.st_mode), pwd.getpwuid(found.st_uid).pw_name, grp.getgrgid(found.st_gid).gr_name

    def test_mode_and_owner_whatever_the_mask(self):
        for mask in (0, 0o022, 0o077, 0o777 & ~0o300):
            with self.subTest(mask=oct(mask)):
                proxy = Proxy(self.dir, CONFIG + "log: {{ to: stderr }}\n", a=1, b=1, a_pop3=1)
                proxy.start(preexec_fn=lambda: os.umask(mask))
                try:
                    self.assertEqual(self.mode()[0], 0o660)
                    self.assertEqual(self.done("loglevel")[1], {"level": "info"})
                finally:
                    proxy.stop()
                self.assertFalse(self.path.exists())

    def test_group(self):
        """Its members may use it, others are told which group it is; the folder that is missing is made."""
        os.chmod(self.dir, 0o755)
        for name in ("mail.crt", "mail.key"):
            os.chmod(self.dir / name, 0o644)
        config = CONFIG.replace("control.sock }}", "control.sock, group: games }}") + "user: nobody\n"
        self.start(config=config)
        self.assertEqual(self.mode(), (0o660, "nobody", "games"))
        self.assertIn("nobody", pwd.getpwuid(os.stat(self.path.parent).st_uid).pw_name)
        words = self.run_command("status", code=2, preexec_fn=as_user("mail", ["mail"]))
        self.assertEqual(words, f"{self.path}: permission denied: the socket is for its owner and the group games\n")
        self.assertIn("running for", self.run_command("status", preexec_fn=as_user("mail", ["mail", "games"])))
        self.assertIn("running for", self.run_command("status", preexec_fn=as_user("nobody", [])))

    def test_the_users_group_without_one_told(self):
        for name in ("mail.crt", "mail.key"):
            os.chmod(self.dir / name, 0o644)
        self.start("user: mail\n")
        self.assertEqual(self.mode(), (0o660, "mail", "mail"))

    def test_what_cant_be_opened(self):
        for control, problem in (
            ("{{ socket: none/deeper/s }}", "it can't be bound: No such file or directory"),
            ("{{ socket: mail.crt }}", "there is a file that is no socket"),
            ("{{ socket: /tmp/" + "x" * 103 + " }}", "the path has 108 bytes, and a socket's has 107 at most"),
            ("{{ socket: s, group: nosuchgroup }}", 'control.group: there is no group "nosuchgroup"'),
            ("{{ group: mail }}", "control.socket: this key is missing, expected a file's path"),
        ):
            with self.subTest(control=control):
                proxy = Proxy(self.dir, re.sub("control: .*", "control: " + control, CONFIG), a=1, b=1, a_pop3=1)
                done = subprocess.run([PROXYD, "run", "--config", proxy.config], capture_output=True, text=True, timeout=DEADLINE)
                self.assertEqual(done.returncode, 1)
                self.assertIn(problem, done.stderr)
                self.assertRegex(done.stderr, r"proxyd\.yaml:\d+:\d+: control")
        self.assertIn("BEGIN CERTIFICATE", (self.dir / "mail.crt").read_text())

    def test_a_second_proxyd(self):
        first = self.start()
        other = Proxy(self.dir, CONFIG, "other", a=1, b=1, a_pop3=1)
        done = subprocess.run([PROXYD, "run", "--config", other.config], capture_output=True, text=True, timeout=DEADLINE)
        self.assertEqual(done.returncode, 1)
        self.assertIn(f"control.socket: {self.path}: another proxyd answers there", done.stderr)
        self.assertEqual(self.done("status")[1]["pid"], first.pid)

    def test_one_left_behind(self):
        """A killed proxyd leaves its file; nobody answers there, and the next takes its place."""
        first = self.start()
        first.process.popen.kill()
        first.process.popen.wait()
        first.process.log_file.close()
        first.process = None
        self.assertTrue(self.path.exists())
        self.assertIn("nobody answers", self.run_command("status", code=2))
        second = self.start(name="second")
        self.assertEqual(self.done("status")[1]["pid"], second.pid)
        second.stop()
        self.assertFalse(self.path.exists())
        self.assertIn("there is no socket", self.run_command("status", code=2))

    def test_another_file_is_left_alone_at_the_end(self):
        proxy = self.start()
        self.path.unlink()
        self.path.write_text("somebody else's")
        proxy.stop()
        self.assertEqual(self.path.read_text(), "somebody else's")

    def test_it_stays_while_sessions_end(self):
        proxy = self.start(config=CONFIG.replace("shutdown: 0", "shutdown: 60s"))
        client = self.log_in(proxy, "alice")
        proxy.process.send_signal(signal.SIGTERM)
        proxy.wait_log("event=stopping")
        wait_for("it is stopping", lambda: self.done("status")[1]["state"] == "stopping")
        self.assertEqual(self.done("kick", user="alice")[1], {"count": 1})
        client.until("* BYE")
        proxy.stop()
        self.assertFalse(self.path.exists())

    def test_a_change_takes_a_restart(self):
        proxy = self.start()
        proxy.write(CONFIG.replace("control.sock", "other.sock"))
        proxy.reload()
        self.assertIn("key=control problem=\"a change takes a restart\"", proxy.log())
        self.assertEqual(self.done("status")[1]["pid"], proxy.pid)
        self.assertFalse((self.dir / "run" / "other.sock").exists())


class Protocol(ControlTest):
    def setUp(self):
        super().setUp()
        self.running = self.start()

    def test_garbage(self):
        """Whatever is said, the next request is answered."""
        talk = self.talk()
        for line in (b"\n", b"\0\n", b"\xff\xfe\n", b"[" * 60_000 + b"\n", b'{"command":' * 5_000 + b"\n", b"GET / HTTP/1.1\r\n",
                     b'{"command":"status","command":7}\n', b'{"command":"\\ud800"}\n', b"{" * 512 + b"}" * 512 + b"\n"):
            talk.send(line)
            rows, kind, value = talk.answer()
            self.assertEqual((rows, kind), ([], "error"), line[:40])
            self.assertIn(value["code"], ("syntax", "command", "argument"))
        self.assertEqual(talk.ask("loglevel")[1:], ("done", {"level": "info"}))

    def test_huge_line(self):
        talk = self.talk()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(1_000):
                talk.send(b"x" * 65_536)
        with contextlib.suppress(ConnectionResetError):
            rows, kind, value = talk.answer()
            self.assertEqual((rows, kind, value["code"]), ([], "error", "too-long"))
        self.assertEqual(self.done("loglevel")[1], {"level": "info"})

    def test_half_closed(self):
        talk = self.talk()
        talk.send('{"command":"loglevel"}\n{"command":"who"}\n{"command":"never whole"')
        talk.socket.shutdown(socket.SHUT_WR)
        self.assertEqual(talk.answer()[1:], ("done", {"level": "info"}))
        self.assertEqual(talk.answer()[1:], ("done", {"count": 0}))
        self.assertIsNone(talk.answer())

    def test_a_trace_for_who_has_said_all(self):
        talk = self.talk()
        talk.send('{"command":"trace","user":"alice","lines":3}\n')
        talk.socket.shutdown(socket.SHUT_WR)
        self.running.wait_log("command=trace")
        self.log_in(self.running, "alice")
        rows, kind, value = talk.answer()
        self.assertEqual((len(rows), kind, value), (3, "done", {"count": 3}))

    def test_many_clients(self):
        talks = [self.talk() for _ in range(32)]
        for talk in talks:
            self.assertEqual(talk.ask("loglevel")[1], "done")
        self.assertEqual(self.talk().answer()[1:], ("error", {"code": "busy", "message": "32 clients are connected, and no more may be"}))
        self.assertIn("32 clients are connected", self.run_command("status", code=1))
        talks.pop().close()
        wait_for("a place", self.is_answered)

    def is_answered(self):
        with Control(self.path) as control:
            with contextlib.suppress(BrokenPipeError):
                control.send('{"command":"loglevel"}\n')
            answer = control.answer()
            return answer and answer[1] == "done"

    def test_a_reader_that_does_not_read(self):
        """It costs nobody else anything, and is let go."""
        clients = []
        for _ in range(700):
            client = Lines(self.running.ports["imap"])
            self.addCleanup(client.close)
            clients.append(client)
        for client in clients:
            client.until("* OK")
        wait_for("all are listed", lambda: len(self.done("sessions")[0]) == 700)
        slow = socket.socket(socket.AF_UNIX)
        self.addCleanup(slow.close)
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        slow.connect(str(self.path))
        slow.sendall(b'{"command":"sessions"}\n' * 100)
        before = time.monotonic()
        self.log_in(self.running, "alice")
        self.assertEqual(len(self.done("sessions")[0]), 701)
        self.assertLess(time.monotonic() - before, 5)
        # What it has not taken within ten seconds is not kept for it.
        slow.settimeout(DEADLINE)
        poll = select.poll()
        poll.register(slow, 0)
        self.assertTrue(wait_for("it is let go", lambda: any(event & select.POLLHUP for _, event in poll.poll(0))))

    def test_only_what_fits_is_listed(self):
        for user in ("alice", "bob"):
            self.log_in(self.running, user)
        self.log_in(self.running, "carol", tls=True)

        def users(**filter_):
            return sorted(row["user"] for row in self.done("sessions", **filter_)[0])
        self.assertEqual(users(), ["alice", "bob", "carol"])
        self.assertEqual(users(user="A*"), ["alice"])
        self.assertEqual(users(address="127.0.0.0/8"), ["alice", "bob", "carol"])
        self.assertEqual(users(address="192.0.2.1"), [])
        self.assertEqual(users(where="relay"), ["alice", "bob", "carol"])
        self.assertEqual(users(where="command"), [])
        self.assertEqual(sorted(users(backend="a") + users(backend="b")), ["alice", "bob", "carol"])
        self.assertEqual(len(self.done("sessions", limit=2)[0]), 2)
        row = self.done("sessions", user="carol")[0][0]
        self.assertEqual(users(session=row["session"]), ["carol"])
        self.assertEqual((row["tls"], row["protocol"], row["doing"], row["logged_in"]), ("TLSv1.3", "imap", "relaying", True))
        self.assertNotIn("backend_tls", row)
        code = self.ask("sessions", address="nonsense")[2]["code"]
        self.assertEqual(code, "argument")

    def test_bytes_are_live(self):
        client = self.log_in(self.running, "alice")
        client.ask("b NOOP", "b OK")

        def counted():
            row = self.done("sessions", user="alice")[0][0]
            return (row["in"], row["out"]) == (8, 11)
        wait_for("the bytes are listed", counted)
        backend = next(row for row in self.done("backends")[0] if row["sessions"])
        self.assertEqual((backend["in"], backend["out"], backend["accepted_logins"]), (8, 11, 1))
        status = self.done("status")[1]
        self.assertEqual((status["in"], status["out"], status["logins"], status["sessions"]), (8, 11, 1, 1))

    def test_metrics(self):
        with Lines(self.running.ports["imaps"], tls=True) as client:
            client.until("* OK")
            imap_login(client, "alice")
            client.ask("b LOGOUT", "b OK")
        with Lines(self.running.ports["imap"]) as client:
            client.until("* OK")
            self.assertIn("a NO", imap_login(client, "refused"))
        self.running.wait_session(login="alice")
        self.running.wait_session(login="refused")
        rows, done = self.done("metrics")
        values = {(row["name"], *sorted(row["labels"].items())): row.get("value", row.get("count")) for row in rows}
        imaps = (("listener", f"127.0.0.1:{self.running.ports['imaps']}"), ("protocol", "imap"))
        self.assertEqual(values["proxyd_listener_handshakes_total", *imaps], 1)
        self.assertEqual(values["proxyd_listener_logins_total", *imaps], 1)
        self.assertEqual(values["proxyd_login_failures_total", ("reason", "refused")], 1)
        self.assertEqual(values["proxyd_session_ends_doing_total", ("doing", "relaying")], 1)
        for phase, count in (("handshake", 1), ("lookup", 2), ("placement", 2), ("connect", 2), ("backend-login", 1), ("login", 1)):
            self.assertEqual(values["proxyd_phase_seconds", ("phase", phase)], count, phase)
        for row in rows:
            if row["type"] == "histogram":
                self.assertEqual(sum(row["buckets"]), row["count"])
                self.assertEqual(len(row["buckets"]), len(done["bounds"]) + 1)
        # A reload keeps what was counted.
        self.running.reload()
        again = {(row["name"], *sorted(row["labels"].items())): row.get("value", row.get("count")) for row in self.done("metrics")[0]}
        self.assertEqual(values, again)


class Commands(ControlTest):
    def setUp(self):
        super().setUp()
        self.running = self.start()

    def table(self, *argv, **options):
        """A table's rows as dicts; columns begin where their titles do, or end there."""
        lines = self.run_command(*argv, **options).splitlines()
        return [dict(zip(re.split(r"  +", lines[0].strip()), re.split(r"  +", line.strip()))) for line in lines[1:]]

    def test_status(self):
        self.log_in(self.running, "alice")
        lines = self.run_command("status").splitlines()
        self.assertRegex(lines[0], rf"^proxyd \S+, process {self.running.pid}, running for \S+$")
        self.assertIn("logins    1 accepted, 0 not", lines)
        self.assertRegex(lines[-3], rf"^127.0.0.1:{self.running.ports['imap']} +imap +starttls +1 ")
        self.assertEqual(len(lines[lines.index("") + 1:]), 4)

    def test_sessions_who_and_kick(self):
        client = self.log_in(self.running, "alice")
        other = self.log_in(self.running, "bob")
        again = self.log_in(self.running, "bob")
        rows = self.table("sessions")
        self.assertEqual(sorted(row["USER"] for row in rows), ["alice", "bob", "bob"])
        self.assertEqual({row["DOING"] for row in rows}, {"relaying"})
        self.assertEqual([row["USER"] for row in self.table("sessions", "--user", "alice")], ["alice"])
        self.assertEqual([(row["USER"], row["SESSIONS"], row["ADDRESSES"]) for row in self.table("who")],
                         [("alice", "1", "127.0.0.1"), ("bob", "2", "127.0.0.1")])
        name = self.table("sessions", "--user", "alice")[0]["SESSION"]
        self.assertEqual(self.run_command("kick", "--session", name), "1 session ended\n")
        client.until("* BYE")
        self.assertEqual(self.run_command("kick", "--user", "BOB", "--where", "relaying"), "2 sessions ended\n")
        for gone in (other, again):
            gone.until("* BYE")
            self.assertTrue(gone.closed())
        self.assertEqual(self.run_command("kick", "--user", "bob"), "0 sessions ended\n")
        self.running.wait_session(login="alice", end="kicked", session=name)
        self.running.wait_log("command=kick", 3)
        self.assertRegex(self.running.log(), rf"event=control command=kick session={name} uid=0 pid=\d+ result=1\n")
        self.run_command("kick", code=64)

    def test_backends(self):
        self.assertEqual([(row["BACKEND"], row["STATE"], row["HEALTH"], row["WEIGHT"], row["POOLS"]) for row in self.table("backends")],
                         [("a", "ready", "up", "100", "mail"), ("b", "ready", "up", "100", "mail")])
        self.assertEqual(self.run_command("backend", "a", "drain"),
                         "a: drain (not kept over a restart: there is no state-file)\n")
        self.assertEqual(self.run_command("backend", "b", "weight", "50"), "b: ready, weight 50 (not kept over a restart: there is no state-file)\n")
        self.assertEqual([(row["STATE"], row["WEIGHT"]) for row in self.table("backends")], [("drain", "100"), ("ready", "50*")])
        # Nobody new goes to one that is drained.
        for user in ("u1", "u2", "u3", "u4"):
            self.log_in(self.running, user)
        self.assertEqual({row["BACKEND"] for row in self.table("sessions")}, {"b"})
        self.assertEqual(self.run_command("backend", "b", "weight", "default"), "b: ready (not kept over a restart: there is no state-file)\n")
        # Who is at one in maintenance is moved.
        self.run_command("backend", "a", "ready")
        self.run_command("backend", "b", "maint")
        wait_for("all are moved", lambda: not self.table("sessions"))
        self.log_in(self.running, "u1")
        self.assertEqual({row["BACKEND"] for row in self.table("sessions")}, {"a"})
        self.assertEqual(self.run_command("backend", "z", "drain", code=1), 'there is no backend "z" in the configuration\n')
        for argv in (("a",), ("a", "up"), ("a", "weight"), ("a", "weight", "x"), ("a", "drain", "7")):
            self.run_command("backend", *argv, code=64)

    def test_affinity(self):
        self.log_in(self.running, "alice")
        member = self.table("sessions")[0]["BACKEND"]
        other = "b" if member == "a" else "a"
        row = self.table("affinity", "map", "ALICE")[0]
        self.assertEqual((row["USER"], row["POOL"], row["CURRENT"], row["HASHED"], row["CONFIGURED"]),
                         ("alice", "mail", member, member, member))
        self.assertEqual(self.run_command("affinity", "move", "alice", other), "")
        wait_for("the session there is ended", lambda: not self.table("sessions"))
        self.log_in(self.running, "alice")
        self.assertEqual(self.table("sessions")[0]["BACKEND"], other)
        self.assertEqual(self.table("affinity", "map", "alice")[0]["CURRENT"], other)
        for argv in (("move", "alice", "z"), ("list", "--pool", "z"), ("map", "x", "--pool", "z"), ("forget", "nobody"), ("flush", "z")):
            self.run_command("affinity", *argv, code=1)

    def test_affinity_files(self):
        """What dump prints, load takes."""
        for user in ("alice", "bob"):
            self.log_in(self.running, user)
        dump = self.run_command("affinity", "dump")
        rows = {(row["USER"], row["BACKEND"]) for row in self.table("affinity", "list")}
        self.assertEqual({tuple(line.split("\t")[:2]) for line in dump.splitlines()}, rows)
        path = self.dir / "users"
        path.write_text("# moved\ncarol\tb\ndave\ta\tmail\n" + dump)
        self.assertEqual(self.run_command("affinity", "load", path), f"{2 + len(rows)} users\n")
        self.assertEqual(self.table("affinity", "map", "carol")[0]["CURRENT"], "b")
        self.assertEqual(self.table("affinity", "map", "dave")[0]["CURRENT"], "a")
        self.assertEqual(self.run_command("affinity", "load", input="erin\ta\n"), "1 users\n")
        path.write_text("carol\tb\nx\n")
        self.assertEqual(self.run_command("affinity", "load", path, code=1), f"{path}:2: expected a user, a tab and a backend\n")
        path.write_text("frank\tb\nx\tnone\n")
        self.assertIn('"none" is no member', self.run_command("affinity", "load", path, code=1))
        # A name no login can have.
        for argv in (("load", path), ("move", "er\x01in", "a")):
            path.write_text("frank\ta\ner\x01in\ta\n")
            self.assertIn("no control characters", self.run_command("affinity", *argv, code=1))
        self.assertNotIn("frank", self.run_command("affinity", "dump"))

    def test_standard_input_of_any_kind(self):
        """sshd gives a command sockets; another program may have made its end one that does not wait."""
        for make in (socket.socketpair, os.pipe):
            with self.subTest(kind=make.__name__), contextlib.ExitStack() as ends:
                reading, writing = (ends.enter_context(end if make is socket.socketpair else os.fdopen(end, mode, 0))
                                    for end, mode in zip(make(), ("rb", "wb")))
                os.set_blocking(reading.fileno(), False)
                loading = subprocess.Popen([PROXYD, "affinity", "load", "--socket", self.path], stdin=reading,
                                           stdout=subprocess.PIPE, text=True)
                self.addCleanup(loading.stdout.close)
                os.write(writing.fileno(), b"carol\tb\n")
                self.assertRaises(subprocess.TimeoutExpired, loading.wait, 0.2)
                os.write(writing.fileno(), b"dave\ta\n")
                writing.close()
                self.assertEqual((loading.stdout.read(), loading.wait(DEADLINE)), ("2 users\n", 0))

    def test_an_answer_that_cant_be_written(self):
        """A dump on a full disk must not pass for a whole one."""
        for argv in (("affinity", "dump"), ("affinity", "dump", "--json"), ("status",), ("metrics", "--json")):
            self.log_in(self.running, "alice")
            with self.subTest(argv=argv), open("/dev/full", "w", encoding="utf-8") as full:
                done = subprocess.run([PROXYD, *argv, "--socket", self.path], stdout=full, stderr=subprocess.PIPE,
                                      text=True, timeout=DEADLINE, check=False)
                self.assertEqual((done.returncode, done.stderr), (74, "standard output can't be written\n"))

    def test_standard_output_that_does_not_wait(self):
        with Control(self.path) as control:
            for start in range(0, 10000, 1000):
                users = [{"user": f"user{number}", "backend": "a"} for number in range(start, start + 1000)]
                self.assertEqual(control.ask("affinity-load", entries=users)[2], {"count": 1000})
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        with os.fdopen(reading, "rb") as output:
            dumping = subprocess.Popen([PROXYD, "affinity", "dump", "--socket", self.path], stdout=writing)
            os.close(writing)
            self.assertRaises(subprocess.TimeoutExpired, dumping.wait, 0.5)
            self.assertEqual(output.read().count(b"\n"), 10000)
        self.assertEqual(dumping.wait(DEADLINE), 0)

    def test_who_reads_slowly_has_it_all(self):
        """As with a pager: the proxy lets go of who takes nothing for ten seconds, or is gone by then."""
        with Control(self.path) as control:
            for start in range(0, 20000, 1000):
                users = [{"user": f"user{number}", "backend": "a"} for number in range(start, start + 1000)]
                self.assertEqual(control.ask("affinity-load", entries=users)[2], {"count": 1000})
        write = {"x86_64": "1 0x1 ", "aarch64": "64 0x1 "}[os.uname().machine]
        readers = []
        for option in ([], ["--json"]):
            reader = subprocess.Popen([PROXYD, "affinity", "dump", *option, "--socket", self.path], stdout=subprocess.PIPE)
            readers.append(reader)
            self.addCleanup(reader.stdout.close)
            wait_for("its pipe is full", lambda: pathlib.Path(f"/proc/{reader.pid}/syscall").read_text().startswith(write))
        self.running.process.popen.kill()
        self.running.process.popen.wait()
        self.running.process.log_file.close()
        self.running.process = None
        for reader, lines in zip(readers, (20000, 20001)):
            self.assertEqual(reader.stdout.read().count(b"\n"), lines)
            self.assertEqual(reader.wait(DEADLINE), 0)

    def test_reload(self):
        self.assertEqual(self.run_command("reload"), "reloaded\n")
        self.running.wait_log("event=reloaded")
        config = self.running.config.read_text()
        self.running.config.write_text(config.replace("default: mail", "default: none").replace("loops: 2", "loops: x"))
        words = self.run_command("reload", code=1)
        self.assertIn(f"{self.running.config}:2:8: loops: \"x\" can't be used", words)
        self.assertTrue(words.endswith("the configuration can't be used, the old one stays\n"), words)
        self.log_in(self.running, "alice")

    def test_log_level(self):
        self.assertEqual(self.run_command("loglevel"), "info\n")
        self.assertEqual(self.run_command("loglevel", "error"), "error\n")
        with Lines(self.running.ports["imap"]) as client:
            client.ask("a LOGOUT", "a OK")
        wait_for("it is over", lambda: not self.done("sessions")[0])
        self.assertEqual(self.run_command("loglevel", "debug"), "debug\n")
        with Lines(self.running.ports["imap"]) as client:
            client.ask("a LOGOUT", "a OK")
        self.running.wait_session(end="logout")
        self.assertEqual(len(self.running.sessions()), 1)
        # A reload has it as the configuration has.
        self.running.reload()
        self.assertEqual(self.run_command("loglevel"), "info\n")
        self.assertIn("level: expected", self.run_command("loglevel", "loud", code=1))

    def test_metrics_as_a_table(self):
        self.log_in(self.running, "alice")
        rows = {(row["NAME"], row["LABELS"]): row for row in self.table("metrics")}
        self.assertEqual(rows["proxyd_phase_seconds", "phase=login"]["VALUE"], "1")
        self.assertRegex(rows["proxyd_phase_seconds", "phase=login"]["99% WITHIN"], r"^\d+(us|ms|s)$")

    def test_json(self):
        """The protocol's lines as they are, from every command."""
        self.log_in(self.running, "alice")
        for argv in (("status",), ("sessions",), ("who",), ("backends",), ("backend", "a", "ready"), ("affinity", "map", "alice"),
                     ("affinity", "list"), ("affinity", "dump"), ("affinity", "move", "x", "a"), ("affinity", "flush"), ("reload",),
                     ("loglevel",), ("metrics",), ("kick", "--user", "alice"), ("trace", "alice", "--seconds", "1")):
            with self.subTest(argv=argv):
                lines = self.run_command(*argv, "--json").splitlines()
                kinds = [next(iter(json.loads(line))) for line in lines]
                self.assertEqual(kinds, ["row"] * (len(lines) - 1) + ["done"])
        done = subprocess.run([PROXYD, "backend", "z", "drain", "--json", "--socket", self.path], capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stderr), (1, ""))
        self.assertEqual(json.loads(done.stdout)["error"]["code"], "not-found")

    def test_where_the_socket_is(self):
        done = subprocess.run([PROXYD, "status", "--config", self.running.config], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        bare = self.dir / "bare.yaml"
        bare.write_text(self.running.config.read_text().replace("control:", "# control:"))
        done = subprocess.run([PROXYD, "status", "--config", bare], capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stderr),
                         (2, f"{bare}: control.socket: this key is missing, there is no socket to speak to proxyd by\n"))
        self.assertEqual(subprocess.run([PROXYD, "status", "--config", "/none"], capture_output=True).returncode, 2)

    def test_names_can_do_nothing_to_a_terminal(self):
        """A name is what a client says: it is shown, and does nothing."""
        client = Lines(self.running.ports["imap"])
        self.addCleanup(client.close)
        client.until("* OK")
        imap_login(client, "\u009b31mx\u202ey")
        text = self.run_command("sessions")
        self.assertIn(r"\u{9b}31mx\u{202e}y", text)
        self.assertFalse(set(text) & {"\x1b", "\x9b", "\u202e"})


class Domains(ControlTest):
    def test_what_is_listed_can_be_told(self):
        """Where domains are told apart, a list has their names: those do for whoever takes a user, and for load."""
        proxy = self.start(config=CONFIG.replace("pause: 0s", "pause: 0s, key: '\\d'"))
        for user in ("alice@example.org", "bob@EXAMPLE.ORG", "carol@example.net", "dave"):
            self.log_in(proxy, user)

        def domains():
            return {row["user"]: row["backend"] for row in self.done("affinity-list")[0]}
        before = domains()
        self.assertEqual(set(before), {"example.org", "example.net", ""})
        dump = self.run_command("affinity", "dump")
        self.assertEqual({line.split("\t")[0] for line in dump.splitlines()}, {"example.org", "example.net"})
        other = "b" if before["example.org"] == "a" else "a"
        self.run_command("affinity", "move", "example.org", other)
        self.assertEqual(domains(), {**before, "example.org": other})
        wait_for("whoever was there has been told to go",
                 lambda: self.done("affinity-map", user="Example.org")[0][0]["current"] == other)
        self.assertEqual(self.done("affinity-map", user="erin@example.org")[0][0]["current"], other)
        self.run_command("affinity", "forget", "example.org")
        self.run_command("affinity", "flush")
        # Who is still to be told to go would be forgotten after the load.
        wait_for("all have been told to go", lambda: not self.done("sessions")[0])
        self.assertEqual(self.run_command("affinity", "load", input=dump), "2 users\n")
        self.assertEqual({name: at for name, at in domains().items() if name}, {name: at for name, at in before.items() if name})


class Tags(ControlTest):
    def test_the_rings_member_of_a_site(self):
        self.start(config=CONFIG.replace("members: [a, b]", "members: {{ a: {{ tag: x }}, b: {{ tag: y }} }}"))
        for tag, member in (("x", "a"), ("y", "b")):
            rows = self.done("affinity-map", user="alice", pool=f"mail/{tag}")[0]
            self.assertEqual([(row["pool"], row["hashed"], row["configured"]) for row in rows], [("mail", member, member)])
        self.assertEqual(len(self.done("affinity-map", user="alice", pool="mail")[0]), 1)
        for pool in ("mail/z", "mail/", "z/x"):
            self.assertEqual(self.ask("affinity-map", user="alice", pool=pool)[2]["code"], "not-found")


class Traces(ControlTest):
    SECRETS = ("s3cret-Wort", "t0ken." + "abcdefgh" * 8)

    def setUp(self):
        super().setUp()
        self.running = self.start()

    def trace(self, user="alice"):
        """A trace that is on, as a process; its lines are read with `lines`."""
        # Of the log the last line tells that it has begun.
        before = self.running.log().count("command=trace")
        process = subprocess.Popen([PROXYD, "trace", user, "--seconds", "60", "--socket", self.path], stdout=subprocess.PIPE,
                                   stderr=subprocess.STDOUT, text=True)

        def end():
            process.kill()
            process.wait()
            process.stdout.close()
        self.addCleanup(end)
        self.running.wait_log("command=trace", before + 1)
        return process

    def until(self, process, word):
        lines = []
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            if word in line:
                return lines
        raise AssertionError(f"no {word} in {lines}")

    def check(self, lines, *wanted):
        """No line holds a secret in any of its forms, and all that is wanted is there, in that order."""
        text = "\n".join(lines)
        for secret in self.SECRETS:
            forms = [secret, base64.b64encode(secret.encode()).decode(), base64.b64encode(f"\0alice\0{secret}".encode()).decode(),
                     base64.b64encode(f"user=alice\x01auth=Bearer {secret}\x01\x01".encode()).decode()]
            for form in forms:
                self.assertNotIn(form.lower(), text.lower())
                self.assertNotIn(form[-12:].lower(), text.lower())
        place = 0
        for want in wanted:
            found = re.search(want, text[place:], re.M)
            self.assertIsNotNone(found, f"no {want} behind {text[:place]!r} in\n{text}")
            place += found.end()
        session = {line.split()[1] for line in lines}
        self.assertEqual(len(session), 1, lines)
        return session.pop()

    def test_a_login_from_beginning_to_end(self):
        process = self.trace("AL*")
        with Lines(self.running.ports["imap"]) as client:
            client.until("* OK")
            self.assertIn("a OK", imap_login(client, "alice", self.SECRETS[0]))
            client.ask("b LOGOUT", "b OK")
            # The backend is the first to close, and not the client.
            self.assertEqual(client.socket.recv(1), b"")
        name = self.check(
            self.until(process, " end "), r" login imap from 127\.0\.0\.1:\d+, command, no TLS, user \"alice\"$",
            r" lookup default: the pool mail$", r" place [ab] of mail, as alice$", r" connect 127\.0\.0\.1:\d+$",
            r" backend \* OK \[CAPABILITY ", r" proxyd L LOGIN \(\d+ bytes hidden\)$", r" backend L OK done$", r" verdict accepted$",
            r" end (backend|client)-closed, relaying$")
        self.running.wait_session(session=name)

    def test_every_way_to_log_in(self):
        """A backend that repeats all it hears, in capitals too."""
        plain = base64.b64encode(f"\0alice\0{self.SECRETS[0]}".encode()).decode()
        token = base64.b64encode(f"user=alice\x01auth=Bearer {self.SECRETS[1]}\x01\x01".encode()).decode()
        part = [base64.b64encode(word.encode()).decode() for word in ("alice", self.SECRETS[0])]

        def echo(connection):
            lines = connection.makefile("rb")
            connection.sendall(b"* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN AUTH=LOGIN AUTH=XOAUTH2 LOGINDISABLED] hi\r\n")
            heard = []
            for line in lines:
                heard.append(line.strip())
                if line.startswith(b"L ") or len(heard) < (3 if b"LOGIN" in heard[0] else 2):
                    connection.sendall(b"+ \r\n")
                    continue
                for said in heard:
                    connection.sendall(b"* OK you said " + said + b"\r\n* OK " + said.upper() + b"\r\n")
                connection.sendall(b"L NO " + heard[-1] + b"\r\n")
        self.a.behave = self.b.behave = echo
        for name, said in (("PLAIN", ["a AUTHENTICATE PLAIN " + plain]), ("LOGIN", ["a AUTHENTICATE LOGIN", *part]),
                           ("XOAUTH2", ["a AUTHENTICATE XOAUTH2 " + token])):
            with self.subTest(name):
                process = self.trace()
                with Lines(self.running.ports["imap"]) as client:
                    client.until("* OK")
                    for line in said[:-1]:
                        client.ask(line, "+")
                    client.send(said[-1] + "\r\n")
                    client.until("a NO")
                self.check(self.until(process, " end "), rf" proxyd L AUTHENTICATE {name} \(\d+ bytes hidden\)$",
                           r" backend \(it repeats the credentials\)$", r" verdict refused: \(it repeats the credentials\)$")

    def test_pop3(self):
        def pop3(connection):
            lines = connection.makefile("rb")
            connection.sendall(b"+OK hi\r\n")
            user, password = next(lines), next(lines)
            connection.sendall(b"+OK\r\n-ERR what is " + password.strip() + b" of " + user)
        self.a.behave = self.b.behave = pop3
        process = self.trace()
        with Lines(self.running.ports["pop3"]) as client:
            client.until("+OK")
            client.ask("USER alice", "+OK")
            client.ask(f"PASS {self.SECRETS[0]}", "-ERR")
        self.check(self.until(process, " end "), r" login pop3 from ", r" proxyd USER \(\d+ bytes hidden\)$", r" backend \+OK$",
                   r" backend \(it repeats the credentials\)$", r" verdict refused")

    def test_others_are_not_shown(self):
        process = self.trace("alice")
        self.log_in(self.running, "bob")
        with Lines(self.running.ports["imap"]) as client:
            client.until("* OK")
            imap_login(client, "alice", self.SECRETS[0])
        lines = self.until(process, " end ")
        self.assertNotIn("bob", "\n".join(lines))

    def test_four_at_once_and_no_more(self):
        traces = [self.trace() for _ in range(4)]
        self.assertEqual(self.run_command("trace", "alice", code=1), "4 traces are on, and no more may be\n")
        # Whoever stops looking makes room.
        traces[0].send_signal(signal.SIGINT)
        traces[0].wait()
        wait_for("room for another", lambda: self.ask("trace", user="x", seconds=1)[1] == "done")


class Screen:
    """What a terminal of a size shows of what is written to it: enough of ECMA-48 for what proxyd writes."""

    def __init__(self, width, height):
        self.resize(width, height)
        self.alternate = False
        self.cursor_shown = True
        self.overflows = []
        self.frames = 0
        self.pending = b""

    def resize(self, width, height):
        self.width, self.height = width, height
        self.cells = [[" "] * width for _ in range(height)]
        self.row = self.column = 0

    def feed(self, data):
        self.pending += data
        try:
            text, self.pending = self.pending.decode(), b""
        except UnicodeDecodeError:
            return
        # A sequence may be cut.
        cut = text.rfind("\x1b")
        if cut >= 0 and not re.match(r"\x1b\[[?0-9;]*[A-Za-z]", text[cut:]):
            text, self.pending = text[:cut], text[cut:].encode()
        for piece in re.findall(r"\x1b\[[?0-9;]*[A-Za-z]|[^\x1b]", text):
            if piece.startswith("\x1b["):
                self.control(piece[2:-1], piece[-1])
            elif piece == "\r":
                self.column = 0
            elif piece == "\n":
                self.row += 1
                if self.row >= self.height:
                    self.overflows.append("a line too many")
                    self.row = self.height - 1
            else:
                if self.column >= self.width:
                    self.overflows.append("".join(self.cells[self.row]))
                    continue
                self.cells[self.row][self.column] = piece
                self.column += 1

    def control(self, parameters, final):
        if (parameters, final) == ("?1049", "h"):
            self.alternate = True
        elif (parameters, final) == ("?1049", "l"):
            self.alternate = False
        elif parameters == "?25":
            self.cursor_shown = final == "h"
        elif final == "H":
            self.row = self.column = 0
            self.frames += 1
        elif final == "K":
            self.cells[self.row][self.column:] = [" "] * (self.width - self.column)
        elif final == "J":
            if parameters == "2":
                self.cells = [[" "] * self.width for _ in range(self.height)]
            else:
                self.cells[self.row][self.column:] = [" "] * (self.width - self.column)
                for row in range(self.row + 1, self.height):
                    self.cells[row] = [" "] * self.width

    def lines(self):
        return ["".join(row).rstrip() for row in self.cells]

    def text(self):
        return "\n".join(self.lines())


class Top(ControlTest):
    def setUp(self):
        super().setUp()
        self.running = self.start()

    def top(self, width=120, height=20, *argv):
        self.master, slave = pty.openpty()
        self.addCleanup(os.close, self.master)
        self.screen = Screen(width, height)
        self.resize(width, height)
        self.before = termios.tcgetattr(slave)
        self.slave = slave
        self.addCleanup(os.close, slave)
        # A session of its own, whose terminal it is: else a signal of the terminal's reaches nobody.
        self.process = subprocess.Popen([PROXYD, "top", "--socket", self.path, *argv], stdin=slave, stdout=slave, stderr=slave,
                                        start_new_session=True,
                                        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        self.addCleanup(self.end)
        self.see("q quit")

    def end(self):
        self.process.kill()
        self.process.wait()

    def resize(self, width, height):
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))
        self.screen.resize(width, height)

    def read(self, seconds=0.05):
        if select.select([self.master], [], [], seconds)[0]:
            with contextlib.suppress(OSError):
                self.screen.feed(os.read(self.master, 65536))

    def see(self, wanted, seconds=DEADLINE):
        """Waits until the screen shows it."""
        end = time.monotonic() + seconds
        while not re.search(wanted, self.screen.text(), re.M):
            if time.monotonic() > end:
                raise AssertionError(f"no {wanted!r} in\n{self.screen.text()}")
            self.read()
        self.assertEqual(self.screen.overflows, [])

    def press(self, keys):
        os.write(self.master, keys.encode())

    def expect_given_back(self, code):
        """The terminal is as it was, on every way out."""
        end = time.monotonic() + DEADLINE
        while self.process.poll() is None and time.monotonic() < end:
            self.read()
        self.read(0)
        self.assertEqual(self.process.poll(), code)
        while self.screen.alternate and time.monotonic() < end:
            self.read()
        self.assertFalse(self.screen.alternate)
        self.assertTrue(self.screen.cursor_shown)
        self.assertEqual(termios.tcgetattr(self.slave), self.before)

    def test_it_is_live(self):
        self.top()
        self.assertTrue(self.screen.alternate)
        self.assertFalse(self.screen.cursor_shown)
        self.assertNotEqual(termios.tcgetattr(self.slave), self.before)
        self.see(r"^proxyd \S+, up \S+   sessions 0 of ")
        self.see(r"^BACKEND +STATE +HEALTH +SESSIONS ")
        self.see(r"^a +ready +up +0 ")
        self.log_in(self.running, "alice")
        self.see(r"sessions 1 of ")
        self.see(r"^[ab] +ready +up +1 +100% ")
        self.press("s")
        self.see(r"^all sessions$")
        self.see(r"^\S{13} +alice +imap +127\.0\.0\.1:\d+ +[ab] ")
        self.press("q")
        self.expect_given_back(0)

    def test_keys_that_change(self):
        client = self.log_in(self.running, "alice")
        self.top()
        self.see("^b +ready")
        self.press("\x1b[B" + "d")
        self.see(r"^Is b to get no new users\? \(y/n\)$")
        self.press("n")
        self.press("d")
        self.see(r"^Is b to get")
        self.press("y")
        self.see(r"^b: drain \(not kept over a restart: there is no state-file\)$")
        self.see("^b +drain ")
        self.press("ry")
        self.see("^b +ready ")
        self.press("\x1b[Amy")
        self.see("^a +maint ")
        self.press("ry")
        self.see("^a +ready ")
        self.press("sk")
        self.see(r"^Is the session \S+ of alice to be ended\? \(y/n\)$")
        self.press("y")
        self.see("^1 session ended$")
        client.until("* BYE")
        self.press("?")
        self.see("end the chosen session")
        self.press("x")
        self.press("\x03")
        self.expect_given_back(0)
        self.running.wait_log("command=kick")

    def test_the_window_changes(self):
        for number in range(30):
            self.log_in(self.running, f"user{number}")
        self.top(100, 12)
        self.press("s")
        self.see("^SESSION +USER")
        for width, height in ((40, 8), (200, 50), (20, 4), (9, 3), (100, 24)):
            self.resize(width, height)
            os.kill(self.process.pid, signal.SIGWINCH)
            # What was drawn for the size before is on its way still, by keys and by the clock: how much, nobody knows.
            wait_for("all fits", self.fits)
            self.see("^q qui" if width < 40 else "^q quit")
            wait_for("the last line", lambda: (self.read(), self.screen.lines()[-1].startswith("q qui"))[1])
            self.assertEqual(self.screen.overflows, [])

    def fits(self):
        """Whether frame after frame fits: one that was drawn for another size may do so too."""
        self.screen.overflows.clear()
        self.frame()
        self.frame()
        return not self.screen.overflows

    def frame(self):
        """Waits until all is drawn that was drawn before a key was pressed, and one time more."""
        for _ in range(2):
            before = self.screen.frames
            self.press("\x1b[B")
            wait_for("a frame", lambda: (self.read(), self.screen.frames > before)[1])

    def test_signals(self):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGABRT, signal.SIGSEGV, signal.SIGILL):
            with self.subTest(signal=number):
                self.top()
                self.process.send_signal(number)
                self.expect_given_back(-number)

    def test_stopped_and_continued(self):
        self.top()
        for stop in (lambda: self.press("\x1a"), lambda: self.process.send_signal(signal.SIGTSTP)):
            stop()

            def is_stopped():
                self.read(0.01)
                fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(") ")[1]
                return fields.startswith("T")
            wait_for("it is stopped", is_stopped)
            while self.screen.alternate:
                self.read()
            self.assertEqual(termios.tcgetattr(self.slave), self.before)
            self.process.send_signal(signal.SIGCONT)
            wait_for("it is back", lambda: (self.read(), self.screen.alternate)[1])
            self.see("^BACKEND")
        self.press("q")
        self.expect_given_back(0)

    def test_the_terminal_goes(self):
        self.top()
        self.running.stop()
        self.see("there is no socket|connection ended|nobody answers|does not answer")
        # It comes back, and so does what is seen.
        self.start(name="again")
        self.see(r"up \S+   sessions 0")
        self.press("q")
        self.expect_given_back(0)

    def test_it_takes_a_terminal(self):
        self.assertIn("top needs a terminal", self.run_command("top", code=1, stdin=subprocess.DEVNULL))
        self.assertEqual(subprocess.run([PROXYD, "top", "--socket", "/none"], capture_output=True).returncode, 2)
        self.run_command("top", "--delay", "0", code=64)


if __name__ == "__main__":
    unittest.main()

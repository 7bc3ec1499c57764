"""What goes wrong around a proxy: backends, maps, certificates, descriptors, clients. Nothing crashes, hangs or leaks."""
import contextlib
import os
import pathlib
import signal
import socket
import sqlite3
import ssl
import subprocess
import threading
import time
import unittest

from harness import (DEADLINE, PASSWORD, Lines, ProxyTest, connects, free_port, imap_login, make_certificate, make_map,
                     unverified, wait_for)

CONFIG = """
loops: 2
listeners:
  - {{ protocol: imap, address: "127.0.0.1:{imap}", tls: starttls }}
  - {{ protocol: imap, address: "127.0.0.1:{imaps}", tls: implicit }}
  - {{ protocol: pop3, address: "127.0.0.1:{pop3}", tls: starttls }}
tls: {{ certificate: mail.crt, key: mail.key }}
routes:
  - default: a
backends:
  a: {{ address: 127.0.0.1, ports: {{ imap: {a_imap}, pop3: {a_pop3} }} }}
timeouts: {{ failure-delay: 0, connect: 10s, backend-login: 10s, lookup: 3s }}
"""

GREETING = b"* OK [CAPABILITY IMAP4rev1 SASL-IR LITERAL+ AUTH=PLAIN] ready\r\n"


def read_line(connection):
    data = b""
    while not data.endswith(b"\n"):
        piece = connection.recv(1)
        if not piece:
            return data
        data += piece
    return data


def accept_login(connection):
    """Plays an IMAP backend up to the accepted login."""
    connection.sendall(GREETING)
    read_line(connection)
    connection.sendall(b"L OK [CAPABILITY IMAP4rev1] Logged in\r\n")


class BackendFaults(ProxyTest):
    def setUp(self):
        super().setUp()
        make_certificate(self.dir)

    def start(self, behave=None, port=None, config=CONFIG):
        self.backend_port = port or self.fake(behave).port
        proxy = self.proxy(config, a_imap=self.backend_port, a_pop3=self.backend_port)
        # A first session has Dispatch make its timers.
        with Lines(proxy.ports["imap"]) as client:
            client.until("* OK")
            client.ask("a LOGOUT", "a OK")
        proxy.wait_session(end="logout")
        self.idle_descriptors = proxy.descriptors()
        return proxy

    def expect_unavailable(self, proxy, failure):
        """Both protocols tell a temporary failure, the client may go on, and nothing is left open."""
        with Lines(proxy.ports["imap"]) as client:
            client.until("* OK")
            self.assertEqual(imap_login(client, "alice"), "a NO [UNAVAILABLE] Account is temporarily unavailable.")
            client.ask("b NOOP", "b OK")
        with Lines(proxy.ports["pop3"]) as client:
            client.until("+OK")
            client.ask("USER alice", "+OK")
            self.assertEqual(client.ask(f"PASS {PASSWORD}", "-ERR")[-1],
                             "-ERR [SYS/TEMP] Account is temporarily unavailable.")
            client.ask("QUIT", "+OK")
        self.assertEqual({line["failure"] for line in proxy.failures(2)}, failure)
        proxy.wait_log("event=session ", 3)
        wait_for("no descriptor is left open", lambda: proxy.descriptors() <= self.idle_descriptors)

    def test_down(self):
        self.expect_unavailable(self.start(port=free_port()), {"backend-unreachable"})

    def test_hanging(self):
        # Less than `connect`: that the backend has accepted counts, not which time-out comes first.
        config = CONFIG.replace("backend-login: 10s", "backend-login: 2s")
        self.expect_unavailable(self.start(lambda connection: connection.recv(1), config=config), {"backend-timeout"})

    def test_closing_at_once(self):
        self.expect_unavailable(self.start(lambda connection: connection.close()), {"backend-closed"})

    def test_garbage(self):
        self.expect_unavailable(self.start(lambda connection: connection.sendall(b"\0\xff\r\n" * 100)),
                                {"backend-greeting"})

    def test_endless_line(self):
        def behave(connection):
            while True:
                connection.sendall(b"x" * 65536)
        self.expect_unavailable(self.start(behave), {"backend-protocol"})

    def test_closing_in_the_middle_of_the_login(self):
        def behave(connection):
            connection.sendall(GREETING)
            read_line(connection)
            connection.close()
        proxy = self.start(behave)
        with Lines(proxy.ports["imap"]) as client:
            client.until("* OK")
            self.assertIn("a NO [UNAVAILABLE]", imap_login(client, "alice"))
        self.assertEqual(proxy.failures(1)[0]["failure"], "backend-closed")
        self.assertEqual(proxy.failures()[0]["detail"], "waiting for the backend's answer to the login")

    def test_every_address_is_tried(self):
        """localhost is ::1 and 127.0.0.1; the backend listens on v4 only."""
        backend = self.fake(accept_login)
        proxy = self.proxy(CONFIG.replace("address: 127.0.0.1, ports", "address: localhost, ports"),
                           a_imap=backend.port, a_pop3=backend.port)
        with Lines(proxy.ports["imap"]) as client:
            client.until("* OK")
            self.assertIn("a OK", imap_login(client, "alice"))
        session = proxy.wait_session(login="alice")
        self.assertEqual(session["address"], f"127.0.0.1:{backend.port}")

    def test_killed_in_the_relay(self):
        backend = self.backend("a", ["alice"])
        proxy = self.proxy(CONFIG, a_imap=backend.imap, a_pop3=backend.pop3)
        with Lines(proxy.ports["imaps"], tls=True) as client:
            client.until("* OK")
            self.assertIn("a OK", imap_login(client, "alice"))
            client.ask("b SELECT INBOX", "b OK")
            backend.stop()
            self.assertTrue(client.closed())
        self.assertIn(proxy.wait_session(login="alice")["end"], ("backend-closed", "backend-error"))
        with Lines(proxy.ports["imap"]) as client:
            client.until("* OK")
            self.assertIn("a NO [UNAVAILABLE]", imap_login(client, "alice"))
            backend.start()
            self.assertIn("b OK", imap_login(client, "alice", tag="b"))

    def test_reset_in_the_relay(self):
        def behave(connection):
            accept_login(connection)
            read_line(connection)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.close()
        proxy = self.start(behave)
        with Lines(proxy.ports["imap"]) as client:
            client.until("* OK")
            self.assertIn("a OK", imap_login(client, "alice"))
            client.send("b NOOP\r\n")
            self.assertTrue(client.closed())
        self.assertEqual(proxy.wait_session(login="alice")["end"], "backend-error")

    def test_bytes_behind_the_ok_come_first(self):
        def behave(connection):
            connection.sendall(GREETING)
            read_line(connection)
            connection.sendall(b"L OK Logged in\r\n* 1 EXISTS\r\n* 2 EXISTS\r\n")
            self.assertEqual(read_line(connection), b"b NOOP\r\n")
            connection.sendall(b"b OK\r\n")
        proxy = self.start(behave)
        with Lines(proxy.ports["imap"]) as client:
            client.send("a LOGIN alice secret\r\nb NOOP\r\n")
            self.assertEqual(client.until("b OK")[1:], ["a OK Logged in", "* 1 EXISTS", "* 2 EXISTS", "b OK"])

    def test_half_close_both_ways(self):
        """The backend ends its direction first and still hears the client; then the other way round."""
        heard = []

        def behave(connection):
            accept_login(connection)
            if not heard:
                connection.shutdown(socket.SHUT_WR)
            heard.append(b"".join(iter(lambda: connection.recv(65536), b"")))
            if len(heard) == 2:
                connection.sendall(b"* the last word\r\n")
        proxy = self.start(behave)
        for tls in (False, True):
            with self.subTest(tls=tls):
                heard.clear()
                with Lines(proxy.ports["imaps" if tls else "imap"], tls=tls) as client:
                    client.until("* OK")
                    self.assertIn("a OK", imap_login(client, "alice"))
                    self.assertIsNone(client.line())
                    # Python's TLS sockets give up with the peer's close_notify; the plain one may go on.
                    if not tls:
                        client.send("still talking\r\n")
                    client.close()
                wait_for("the backend hears the end", lambda: len(heard) == 1)
                self.assertEqual(heard[0], b"" if tls else b"still talking\r\n")
        heard[:] = [b"x"]
        with Lines(proxy.ports["imap"]) as client:
            client.until("* OK")
            self.assertIn("a OK", imap_login(client, "alice"))
            client.send("the end\r\n")
            client.socket.shutdown(socket.SHUT_WR)
            self.assertEqual(client.line(), "* the last word")
            self.assertIsNone(client.line())
        self.assertEqual(heard[1], b"the end\r\n")

    def test_a_client_that_leaves_during_the_login(self):
        arrived = threading.Event()
        left = threading.Event()

        def behave(connection):
            connection.sendall(GREETING)
            read_line(connection)
            arrived.set()
            if connection.recv(1) == b"":
                left.set()
        proxy = self.start(behave)
        client = Lines(proxy.ports["imap"])
        client.until("* OK")
        client.send("a LOGIN alice secret\r\n")
        self.assertTrue(arrived.wait(DEADLINE))
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        self.assertTrue(left.wait(DEADLINE), "the backend's connection is kept for nobody")
        self.assertEqual(proxy.wait_session(login="alice")["end"], "client-closed")


class ReaderFaults(ProxyTest):
    """A client that stops reading costs at most 256 KiB, plain and under TLS, and nobody else notices."""

    def check(self, tls):
        make_certificate(self.dir)
        sent = [0]

        def behave(connection):
            accept_login(connection)
            if read_line(connection) != b"b FETCH\r\n":
                connection.sendall(b"b OK\r\n")
                connection.recv(1)
                return
            block = b"x" * (1 << 20)
            with contextlib.suppress(OSError):
                for _ in range(1024):
                    connection.sendall(block)
                    sent[0] += len(block)
        backend = self.fake(behave)
        proxy = self.proxy(CONFIG, a_imap=backend.port, a_pop3=backend.port)
        port = proxy.ports["imaps" if tls else "imap"]
        # One session before, so that what the first costs is not counted.
        with Lines(port, tls=tls) as client:
            client.until("* OK")
            self.assertIn("a OK", imap_login(client, "alice"))
            client.ask("b NOOP", "b OK")
        with Lines(port, tls=tls) as client:
            client.until("* OK")
            self.assertIn("a OK", imap_login(client, "alice"))
            before = proxy.memory()
            client.send("b FETCH\r\n")

            def stalled():
                count = sent[0]
                time.sleep(0.3)  # between two looks at a counter that must have stopped, not for something to happen
                return count and sent[0] == count
            wait_for("the backend is held back", stalled)
            self.assertLess(sent[0], 1 << 30)
            self.assertLessEqual(proxy.memory() - before, 256)
            with Lines(port, tls=tls) as other:
                other.until("* OK")
                self.assertIn("a OK", imap_login(other, "bob"))
                other.ask("b NOOP", "b OK")
            # It goes on where it stopped, to the last byte.
            received = len(client.buffer)
            while received < 1 << 30:
                data = client.socket.recv(1 << 20)
                self.assertTrue(data, "closed too early")
                received += len(data)
        self.assertGreaterEqual(int(proxy.wait_session(login="alice", end="client-closed").get("out", 0)), 0)

    def test_plain(self):
        self.check(tls=False)

    def test_tls(self):
        self.check(tls=True)

    def test_a_client_that_never_reads_answers(self):
        """Commands are not answered beyond what the client takes."""
        make_certificate(self.dir)
        proxy = self.proxy(CONFIG, a_imap=1, a_pop3=1)
        before = proxy.memory()
        client = socket.create_connection(("127.0.0.1", proxy.ports["imap"]))
        client.settimeout(1)
        with contextlib.suppress(TimeoutError):
            for _ in range(20_000):
                client.sendall(b"a CAPABILITY\r\n" * 100)
        self.assertLessEqual(proxy.memory() - before, 1024)
        client.close()
        proxy.wait_session()


class MapFaults(ProxyTest):
    def setUp(self):
        super().setUp()
        make_certificate(self.dir)
        self.backend_a = self.fake(accept_login)
        self.map = self.dir / "map.db"
        self.config = CONFIG.replace("  - default: a", "  - sqlite: map.db\n  - default: a")

    def start(self):
        return self.proxy(self.config, a_imap=self.backend_a.port, a_pop3=self.backend_a.port)

    def login(self, proxy, user="alice"):
        with Lines(proxy.ports["imap"]) as client:
            client.until("* OK")
            return imap_login(client, user)

    def test_corrupt_and_missing_is_a_temporary_failure_and_never_the_default(self):
        make_map(self.map, users=[("alice", "a", None)], journal="DELETE")
        proxy = self.start()
        self.assertIn("a OK", self.login(proxy))
        self.assertIn("a OK", self.login(proxy, "default"))
        good = self.map.read_bytes()
        for damage in (b"garbage" * 4096, good[:4096], b"", None):
            with self.subTest(damage=damage and damage[:8]):
                if damage is None:
                    self.map.unlink()
                else:
                    self.map.write_bytes(damage)
                for user in ("alice", "default"):
                    self.assertEqual(self.login(proxy, user), "a NO [UNAVAILABLE] Account is temporarily unavailable.")
        self.assertEqual({line["failure"] for line in proxy.failures(8)}, {"lookup-failed"})
        self.map.write_bytes(good)
        self.assertIn("a OK", self.login(proxy))

    def test_locked(self):
        make_map(self.map, users=[("alice", "a", None)], journal="DELETE")
        proxy = self.start()
        writer = sqlite3.connect(self.map, isolation_level=None)
        writer.execute("BEGIN EXCLUSIVE")
        self.assertIn("a NO [UNAVAILABLE]", self.login(proxy))
        self.assertEqual(proxy.failures(1)[0]["failure"], "lookup-busy")
        # A lock that goes in time is waited for.
        with Lines(proxy.ports["imap"]) as client:
            client.until("* OK")
            client.send("a LOGIN alice secret\r\n")
            writer.execute("COMMIT")
            self.assertIn("a OK", client.until("a ")[-1])
        writer.close()

    def test_replaced_file(self):
        make_map(self.map, users=[("alice", "a", None)], journal="DELETE")
        proxy = self.start()
        self.assertIn("a OK", self.login(proxy))
        make_map(self.dir / "new.db", users=[("alice", "127.0.0.1:1", None)], journal="DELETE")
        os.rename(self.dir / "new.db", self.map)
        self.assertIn("a NO [UNAVAILABLE]", self.login(proxy))
        self.assertEqual(proxy.failures(1)[0]["backend"], "127.0.0.1:1")


class ReloadFaults(ProxyTest):
    def setUp(self):
        super().setUp()
        make_certificate(self.dir)
        (self.dir / "routes.re").write_text("alice: a\n")
        self.backend_a = self.fake(self.echo)
        self.config = CONFIG.replace("  - default: a", "  - regex: routes.re")

    @staticmethod
    def echo(connection):
        accept_login(connection)
        while True:
            line = read_line(connection)
            if not line:
                return
            connection.sendall(line)

    def start(self):
        return self.proxy(self.config, a_imap=self.backend_a.port, a_pop3=self.backend_a.port)

    def refused(self, proxy, count):
        before = proxy.log().count("event=reloaded")
        proxy.process.send_signal(signal.SIGHUP)
        proxy.wait_log("reload refused", count)
        self.assertEqual(proxy.log().count("event=reloaded"), before)

    def test_bad_input_keeps_the_old_state_and_all_sessions(self):
        proxy = self.start()
        good = proxy.config.read_text()
        certificate = (self.dir / "mail.crt").read_text()
        key = (self.dir / "mail.key").read_text()
        other = pathlib.Path(make_certificate(self.dir, "other")[1]).read_text()
        with Lines(proxy.ports["imaps"], tls=True) as client:
            client.until("* OK")
            self.assertIn("a OK", imap_login(client, "alice"))
            damages = {
                "yaml": lambda: proxy.config.write_text("listeners: ["),
                "empty": lambda: proxy.config.write_text(""),
                "missing": lambda: proxy.config.unlink(),
                "unknown key": lambda: proxy.config.write_text(good + "bogus: 1\n"),
                "regex": lambda: (self.dir / "routes.re").write_text("(: a\n"),
                "regex missing": lambda: (self.dir / "routes.re").unlink(),
                "certificate": lambda: (self.dir / "mail.crt").write_text("no certificate\n"),
                "key of another": lambda: (self.dir / "mail.key").write_text(other),
                "port in use": lambda: proxy.config.write_text(good.replace(
                    f"127.0.0.1:{proxy.ports['pop3']}", f"127.0.0.1:{self.backend_a.port}")),
            }
            for count, (name, damage) in enumerate(damages.items(), 1):
                with self.subTest(damage=name):
                    damage()
                    self.refused(proxy, count)
                    proxy.config.write_text(good)
                    (self.dir / "routes.re").write_text("alice: a\n")
                    (self.dir / "mail.crt").write_text(certificate)
                    (self.dir / "mail.key").write_text(key)
                    # The session goes on, and new ones are as before.
                    client.ask(f"x{count} hello", f"x{count} hello")
                    with Lines(proxy.ports["imaps"], tls=True) as fresh:
                        fresh.until("* OK")
                        self.assertIn("a OK", imap_login(fresh, "alice"))
                    with Lines(proxy.ports["pop3"]) as fresh:
                        fresh.until("+OK")
            proxy.reload()
            client.ask("y hello", "y hello")

    def test_what_changes_with_a_reload(self):
        proxy = self.start()
        old_certificate = self.served(proxy)
        old_port = proxy.ports["pop3"]
        with Lines(proxy.ports["imap"]) as client, Lines(old_port) as early:
            client.until("* OK")
            early.until("+OK")
            self.assertIn("a OK", imap_login(client, "alice"))
            with Lines(proxy.ports["imap"]) as stranger:
                stranger.until("* OK")
                self.assertIn("a NO [AUTHENTICATIONFAILED]", imap_login(stranger, "bob"))
            make_certificate(self.dir)
            (self.dir / "routes.re").write_text("bob: a\nalice: a\n")
            proxy.ports["pop3"] = free_port()
            proxy.write(self.config.replace("loops: 2", "loops: 2\nlimits: {{ bad-commands: 1 }}"))
            proxy.reload()
            # A new certificate, rule, port and limit; the old port is closed although a session came through it.
            self.assertNotEqual(self.served(proxy), old_certificate)
            with Lines(proxy.ports["imap"]) as stranger:
                stranger.until("* OK")
                self.assertIn("a OK", imap_login(stranger, "bob"))
            with Lines(proxy.ports["pop3"]) as fresh:
                fresh.until("+OK")
                fresh.ask("BOGUS", "-ERR Too many invalid commands.")
            wait_for("the old port is closed", lambda: not connects(old_port))
            early.ask("NOOP", "+OK")
            early.ask("BOGUS", "-ERR Unknown command")
            client.ask("z hello", "z hello")

    def served(self, proxy):
        with Lines(proxy.ports["imaps"], tls=True) as client:
            return client.socket.getpeercert(binary_form=True)

    def test_expired_certificate(self):
        """It is warned of and served: a client that does not look is better off than with none."""
        expire(self.dir)
        proxy = self.start()
        proxy.wait_log("the certificate expired at 2020-01-02T00:00:00")
        with Lines(proxy.ports["imaps"], tls=True) as client:
            client.until("* OK")
        context = unverified()
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(self.dir / "mail.crt")
        with self.assertRaisesRegex(Exception, "certificate has expired"):
            Lines(proxy.ports["imaps"], tls=True, context=context)


def expire(folder):
    """Makes mail.crt a certificate that ended on 2020-01-02."""
    make_certificate(folder)
    (folder / "ca.conf").write_text(f"""
[ca]
default_ca = c
[c]
database = {folder}/index
new_certs_dir = {folder}
serial = {folder}/serial
default_md = sha256
policy = p
[p]
commonName = supplied
""")
    (folder / "index").write_text("")
    (folder / "serial").write_text("01\n")
    subprocess.run(["openssl", "req", "-new", "-key", folder / "mail.key", "-subj", "/CN=localhost", "-out",
                    folder / "mail.csr"], check=True, stderr=subprocess.DEVNULL)
    subprocess.run(["openssl", "ca", "-batch", "-notext", "-selfsign", "-config", folder / "ca.conf", "-keyfile",
                    folder / "mail.key", "-in", folder / "mail.csr", "-startdate", "20200101000000Z", "-enddate",
                    "20200102000000Z", "-out", folder / "mail.crt"], check=True, stderr=subprocess.DEVNULL)


class DescriptorFaults(ProxyTest):
    """ulimit -n 256: accepting rests while nothing is left, goes on by itself, and says so once a minute at most."""

    def check(self, extra):
        make_certificate(self.dir)
        backend = self.fake(accept_login)
        proxy = self.proxy(CONFIG + extra, a_imap=backend.port, a_pop3=backend.port,
                           options={"preexec_fn": limit_descriptors})
        began = time.monotonic()
        for attempt in range(2):
            clients = []
            for _ in range(300):
                client = Lines(proxy.ports["imap"])
                client.socket.settimeout(0.05)
                clients.append(client)
            greeted = sum(1 for client in clients if self.is_greeted(client))
            self.assertGreater(greeted, 50)
            self.assertLess(greeted, 300)
            proxy.wait_log("accepting rests")
            # Those who are in are served. The others come in when these go.
            inside = [client for client in clients if client.buffer or client.greeted][:10]
            for client in inside:
                client.socket.settimeout(DEADLINE)
                client.ask("a NOOP", "a OK")
            for client in clients:
                client.close()
            wait_for("all have gone", lambda: proxy.descriptors() < 40)
            with Lines(proxy.ports["imap"]) as client:
                client.until("* OK")
                self.assertIn("a OK", imap_login(client, "alice"))
        self.assertLessEqual(proxy.log().count("accepting rests"), 1 + (time.monotonic() - began) // 60)
        self.assertTrue(proxy.process.is_running())

    def is_greeted(self, client):
        client.greeted = False
        with contextlib.suppress(TimeoutError, OSError):
            client.greeted = (client.line() or "").startswith("* OK")
        return client.greeted

    def test_limit_of_sessions(self):
        self.check("")

    def test_no_descriptors(self):
        """The limit is set beyond what the system gives: accept itself fails."""
        self.check("limits: {{ sessions: 100000 }}\n")

    def test_no_descriptor_for_the_backend(self):
        make_certificate(self.dir)
        backend = self.fake(accept_login)
        proxy = self.proxy(CONFIG + "limits: {{ sessions: 100000 }}\n", a_imap=backend.port, a_pop3=backend.port,
                           options={"preexec_fn": limit_descriptors})
        first = Lines(proxy.ports["imap"])
        first.until("* OK")
        others = [Lines(proxy.ports["imap"]) for _ in range(300)]
        proxy.wait_log("accepting rests")
        self.assertEqual(imap_login(first, "alice"), "a NO [UNAVAILABLE] Account is temporarily unavailable.")
        self.assertEqual(proxy.failures(1)[0]["failure"], "no-socket")
        for other in others:
            other.close()
        wait_for("all have gone", lambda: proxy.descriptors() < 40)
        self.assertIn("b OK", imap_login(first, "alice", tag="b"))
        first.close()


def limit_descriptors():
    import resource
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))


class Stopping(ProxyTest):
    def setUp(self):
        super().setUp()
        make_certificate(self.dir)
        self.backend_a = self.fake(ReloadFaults.echo)

    def start(self, extra=""):
        return self.proxy(CONFIG + extra, a_imap=self.backend_a.port, a_pop3=self.backend_a.port)

    def sessions(self, proxy):
        early, pop3, relay = Lines(proxy.ports["imap"]), Lines(proxy.ports["pop3"]), Lines(proxy.ports["imaps"], tls=True)
        early.until("* OK")
        pop3.until("+OK")
        relay.until("* OK")
        self.assertIn("a OK", imap_login(relay, "alice"))
        for client in (early, pop3, relay):
            self.addCleanup(client.close)
        return early, pop3, relay

    def test_term_lets_relays_end(self):
        proxy = self.start()
        early, pop3, relay = self.sessions(proxy)
        proxy.process.send_signal(signal.SIGTERM)
        self.assertEqual(early.line(), "* BYE Server shutting down.")
        self.assertIsNone(early.line())
        self.assertEqual(pop3.line(), "-ERR [SYS/TEMP] Server shutting down.")
        early.close()
        pop3.close()
        wait_for("the ports are closed", lambda: not connects(proxy.ports["imap"]))
        relay.ask("b hello", "b hello")
        self.assertTrue(proxy.process.is_running())
        relay.close()
        proxy.process.popen.wait(DEADLINE)
        self.assertEqual(proxy.process.popen.returncode, 0)
        self.assertIn("event=stopped", proxy.log())

    def test_term_ends_relays_in_the_end(self):
        config = CONFIG.replace("failure-delay: 0", "failure-delay: 0, shutdown: 1s")
        proxy = self.proxy(config, a_imap=self.backend_a.port, a_pop3=self.backend_a.port)
        _, _, relay = self.sessions(proxy)
        proxy.process.send_signal(signal.SIGTERM)
        self.assertTrue(relay.closed())
        proxy.process.popen.wait(DEADLINE)
        self.assertEqual(proxy.wait_session(login="alice")["end"], "shutdown")

    def test_int_ends_all(self):
        proxy = self.start()
        early, _, relay = self.sessions(proxy)
        proxy.process.send_signal(signal.SIGINT)
        self.assertTrue(early.closed())
        self.assertTrue(relay.closed())
        proxy.process.popen.wait(DEADLINE)
        self.assertEqual(proxy.process.popen.returncode, 0)

    def test_idle_sessions_are_ended(self):
        config = CONFIG.replace("failure-delay: 0", "failure-delay: 0, idle: 1s, login: 8s")
        proxy = self.proxy(config, a_imap=self.backend_a.port, a_pop3=self.backend_a.port)
        early, pop3, relay = self.sessions(proxy)
        self.assertTrue(relay.closed())
        self.assertEqual(early.line(), "* BYE Disconnected for inactivity.")
        self.assertEqual(pop3.line(), "-ERR Disconnected for inactivity.")
        self.assertEqual(proxy.wait_session(login="alice")["end"], "idle-timeout")
        proxy.wait_session(end="login-timeout", protocol="imap")
        proxy.wait_session(end="login-timeout", protocol="pop3")


if __name__ == "__main__":
    unittest.main()

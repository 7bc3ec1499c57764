"""Logins through proxyd to two real Dovecot backends, with real clients."""
import concurrent.futures
import imaplib
import itertools
import poplib
import random
import select
import subprocess
import threading
import unittest

from harness import (DEADLINE, PASSWORD, UNVERIFIED, Dovecot, Lines, Proxy, TemporaryFolder, imap_login, make_certificate, make_map,
                     quoted, wait_for)

CONFIG = """
loops: 2
listeners:
  - {{ protocol: imap, address: "127.0.0.1:{imap}", tls: starttls }}
  - {{ protocol: imap, address: "[::1]:{imap}", tls: starttls }}
  - {{ protocol: imap, address: "127.0.0.1:{imaps}", tls: implicit }}
  - {{ protocol: imap, address: "[::1]:{imaps}", tls: implicit }}
  - {{ protocol: imap, address: "127.0.0.1:{imap_required}", tls: starttls-required }}
  - {{ protocol: pop3, address: "127.0.0.1:{pop3}", tls: starttls }}
  - {{ protocol: pop3, address: "127.0.0.1:{pop3s}", tls: implicit }}
  - {{ protocol: pop3, address: "[::1]:{pop3s}", tls: implicit }}
  - {{ protocol: pop3, address: "127.0.0.1:{pop3_required}", tls: starttls-required }}
tls: {{ certificate: mail.crt, key: mail.key }}
routes:
  - sqlite: map.db
  - regex: routes.re
  - default: a
backends:
  a: {{ address: 127.0.0.1, ports: {{ imap: {a_imap}, pop3: {a_pop3} }} }}
  b: {{ address: localhost, ports: {{ imap: {b_imap}, pop3: {b_pop3} }} }}
timeouts: {{ failure-delay: 200ms }}
"""

# How a name is routed: (what the client says, the backend it must reach).
ROUTES = {
    "sqlite user": ("user@sqlite.example", "b"),
    "sqlite user renamed": ("renamed@sqlite.example", "b"),
    "sqlite user beats its domain": ("user@domain.example", "a"),
    "sqlite domain": ("other@domain.example", "b"),
    "regex": ("alias_joe@regex.example", "b"),
    "regex by address": ("direct@regex.example", "b"),
    "default": ("somebody@default.example", "a"),
    "capital letters": ("USER@SQLite.Example", "b"),
}
USERS = ["user@sqlite.example", "real-name", "user@domain.example", "other@domain.example", "joe@regex.example",
         "direct@regex.example", "somebody@default.example", "big@default.example"]
TRANSPORTS = ("plain", "starttls", "implicit")


class LoginTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = TemporaryFolder()
        cls.addClassCleanup(cls.folder.remove)
        users = USERS + [f"load{i}@default.example" for i in range(200)]
        cls.a = Dovecot(cls.folder.path, "a", users)
        cls.addClassCleanup(cls.a.stop)
        cls.b = Dovecot(cls.folder.path, "b", users)
        cls.addClassCleanup(cls.b.stop)
        cls.certificate, _ = make_certificate(cls.folder.path)
        make_map(f"{cls.folder.path}/map.db",
                 users=[("user@sqlite.example", "b", None), ("renamed@sqlite.example", "b", "real-name"),
                        ("user@domain.example", "a", None)],
                 domains=[("domain.example", "b")])
        with open(f"{cls.folder.path}/routes.re", "w") as rules:
            rules.write("# aliases\n"
                        "alias_(.*)@regex\\.example: $1@regex.example@b   # the name there\n"
                        f"direct@regex\\.example: 127.0.0.1:{cls.b.imap}\n")
        cls.proxy = Proxy(cls.folder.path, CONFIG, a_imap=cls.a.imap, a_pop3=cls.a.pop3, b_imap=cls.b.imap,
                          b_pop3=cls.b.pop3)
        cls.proxy.start()
        cls.addClassCleanup(cls.proxy.stop)

    # Clients

    def imap(self, transport, host="127.0.0.1"):
        if transport == "implicit":
            return imaplib.IMAP4_SSL(host, self.proxy.ports["imaps"], ssl_context=UNVERIFIED, timeout=DEADLINE)
        client = imaplib.IMAP4(host, self.proxy.ports["imap"], timeout=DEADLINE)
        if transport == "starttls":
            client.starttls(UNVERIFIED)
        return client

    def pop3(self, transport):
        if transport == "implicit":
            return poplib.POP3_SSL("127.0.0.1", self.proxy.ports["pop3s"], context=UNVERIFIED, timeout=DEADLINE)
        client = poplib.POP3("127.0.0.1", self.proxy.ports["pop3"], timeout=DEADLINE)
        if transport == "starttls":
            client.stls(UNVERIFIED)
        return client

    def curl(self, protocol, transport, user, path):
        port = self.proxy.ports[{"imap": "imap", "pop3": "pop3"}[protocol] + ("s" if transport == "implicit" else "")]
        scheme = protocol + ("s" if transport == "implicit" else "")
        argv = ["curl", "--silent", "--show-error", "--insecure", "--max-time", str(DEADLINE), "--user",
                f"{user}:{PASSWORD}", f"{scheme}://127.0.0.1:{port}/{path}"]
        if transport == "starttls":
            argv.insert(1, "--ssl-reqd")
        done = subprocess.run(argv, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    # The matrix

    def test_imap_matrix_with_imaplib(self):
        for transport, (route, (user, backend)) in itertools.product(TRANSPORTS, ROUTES.items()):
            with self.subTest(transport=transport, route=route):
                client = self.imap(transport)
                self.assertEqual(client.login(user, PASSWORD)[0], "OK")
                client.select("INBOX")
                _, data = client.fetch("1", "(BODY[HEADER.FIELDS (SUBJECT)])")
                self.assertIn(f"this is backend {backend}".encode(), data[0][1])
                self.assertIn("IDLE", client.capability()[1][0].decode())
                client.logout()

    def test_pop3_matrix_with_poplib(self):
        for transport, (route, (user, backend)) in itertools.product(TRANSPORTS, ROUTES.items()):
            if route == "regex by address":
                continue  # its rule names an IMAP port
            with self.subTest(transport=transport, route=route):
                client = self.pop3(transport)
                client.user(user)
                self.assertTrue(client.pass_(PASSWORD).startswith(b"+OK"))
                _, lines, _ = client.retr(1)
                self.assertIn(f"Subject: this is backend {backend}".encode(), lines)
                client.quit()

    def test_matrix_with_curl(self):
        for transport, (route, (user, backend)) in itertools.product(TRANSPORTS, ROUTES.items()):
            with self.subTest(protocol="imap", transport=transport, route=route):
                text = self.curl("imap", transport, user, "INBOX;UID=1")
                self.assertIn(f"this is backend {backend}", text)
            if route != "regex by address":
                with self.subTest(protocol="pop3", transport=transport, route=route):
                    self.assertIn(f"this is backend {backend}", self.curl("pop3", transport, user, "1"))

    def test_over_ipv6(self):
        for transport in TRANSPORTS:
            with self.subTest(transport=transport):
                client = self.imap(transport, host="::1")
                client.login("user@sqlite.example", PASSWORD)
                client.logout()
        wait_for("a session line with a v6 peer",
                 lambda: any(session["peer"].startswith("[::1]:") for session in self.proxy.sessions()))

    # The seed's commands

    def s_client(self, *arguments):
        argv = ["openssl", "s_client", *arguments]
        return Talk(argv)

    def test_seed_imaps(self):
        with self.s_client("-connect", f"127.0.0.1:{self.proxy.ports['imaps']}") as client:
            client.until("* OK [CAPABILITY")
            client.send(f"a LOGIN user@sqlite.example {quoted(PASSWORD)}\n")
            client.until("a OK")
            client.send('b LIST "" "*"\n')
            self.assertIn("INBOX", client.until("b OK"))
            client.send("c LOGOUT\n")
            client.until("c OK")

    def test_seed_imap_starttls(self):
        with self.s_client("-connect", f"127.0.0.1:{self.proxy.ports['imap']}", "-crlf", "-starttls", "imap") as client:
            client.until("---\n")
            client.send(f"a LOGIN user@sqlite.example {quoted(PASSWORD)}\n")
            client.until("a OK")
            client.send('b LIST "" "*"\n')
            self.assertIn("INBOX", client.until("b OK"))

    def test_seed_pop3s(self):
        with self.s_client("-connect", f"127.0.0.1:{self.proxy.ports['pop3s']}") as client:
            client.until("+OK proxyd ready.")
            client.send("USER user@sqlite.example\n")
            client.until("+OK Password, please.")
            client.send(f"PASS {PASSWORD}\n")
            client.until("+OK Logged in.")
            client.send("LIST\n")
            self.assertIn("1 ", client.until("\n."))

    def test_seed_pop3_starttls(self):
        with self.s_client("-connect", f"127.0.0.1:{self.proxy.ports['pop3']}", "-crlf", "-starttls", "pop3") as client:
            client.until("---\n")
            client.send("USER user@sqlite.example\n")
            client.until("+OK Password, please.")
            client.send(f"PASS {PASSWORD}\n")
            client.until("+OK Logged in.")
            client.send("LIST\n")
            self.assertIn("1 ", client.until("\n."))

    # Every form of a login

    def test_imap_login_forms(self):
        user, size = "somebody@default.example", len(PASSWORD)
        forms = {
            "quoted": f"a LOGIN {user} {quoted(PASSWORD)}\r\n",
            "non-synchronising literals": f"a LOGIN {{{len(user)}+}}\r\n{user} {{{size}+}}\r\n{PASSWORD}\r\n",
            "mixed": f"a LOGIN {{{len(user)}+}}\r\n{user} {quoted(PASSWORD)}\r\n",
            "bare line feed": f"a LOGIN {user} {quoted(PASSWORD)}\n",
        }
        for name, text in forms.items():
            with self.subTest(form=name), Lines(self.proxy.ports["imap"]) as client:
                client.until("* OK")
                client.send(text)
                self.assertIn("a OK [CAPABILITY", client.until("a ")[-1])
        with self.subTest(form="synchronising literals"), Lines(self.proxy.ports["imap"]) as client:
            client.until("* OK")
            client.ask(f"a LOGIN {{{len(user)}}}", "+ ")
            client.ask(f"{user} {{{size}}}", "+ ")
            self.assertIn("a OK", client.ask(PASSWORD, "a ")[-1])

    def test_imap_byte_by_byte(self):
        with Lines(self.proxy.ports["imap"]) as client:
            client.until("* OK")
            for byte in f"a LOGIN somebody@default.example {quoted(PASSWORD)}\r\n".encode():
                client.send(bytes([byte]))
            self.assertIn("a OK", client.until("a ")[-1])

    def test_sasl(self):
        client = self.imap("implicit")
        client.authenticate("PLAIN", lambda _: f"\0somebody@default.example\0{PASSWORD}".encode())
        client.logout()
        client = self.imap("starttls")
        answers = iter([b"somebody@default.example", PASSWORD.encode()])
        client.authenticate("LOGIN", lambda _: next(answers))
        client.logout()
        for protocol, options in itertools.product(("imap", "pop3"), ("AUTH=PLAIN", "AUTH=LOGIN")):
            with self.subTest(protocol=protocol, options=options):
                port = self.proxy.ports[protocol + "s"]
                for extra in ([], ["--sasl-ir"]):
                    done = subprocess.run(
                        ["curl", "-sSk", "--max-time", str(DEADLINE), "--login-options", options, *extra, "-u",
                         f"somebody@default.example:{PASSWORD}", f"{protocol}s://127.0.0.1:{port}/"],
                        capture_output=True, text=True)
                    self.assertEqual(done.returncode, 0, done.stderr)

    # Order of bytes

    def test_pipelined_behind_the_login(self):
        with Lines(self.proxy.ports["imap"]) as client:
            client.send(f"a LOGIN somebody@default.example {quoted(PASSWORD)}\r\nb SELECT INBOX\r\nc NOOP\r\nd LOGOUT\r\n")
            lines = client.until("d OK")
            tags = [line.split()[0] for line in lines if line[0] in "abcd"]
            self.assertEqual(tags, ["a", "b", "c", "d"])
            self.assertTrue(client.closed())
        with Lines(self.proxy.ports["pop3"]) as client:
            client.send(f"USER somebody@default.example\r\nPASS {PASSWORD}\r\nSTAT\r\nQUIT\r\n")
            lines = client.until("+OK Logging out")
            self.assertRegex(lines[3], r"^\+OK \d+ \d+$")

    def test_half_closed_client_gets_its_answers(self):
        import socket
        with Lines(self.proxy.ports["imap"]) as client:
            client.send(f"a LOGIN somebody@default.example {quoted(PASSWORD)}\r\nb NOOP\r\nc LOGOUT\r\n")
            client.socket.shutdown(socket.SHUT_WR)
            lines = client.until("c OK")
            self.assertTrue(any(line.startswith("b OK") for line in lines))

    # Refusals

    def test_wrong_password_then_right(self):
        with Lines(self.proxy.ports["imap"]) as client:
            client.until("* OK")
            self.assertEqual(imap_login(client, "somebody@default.example", "wrong"),
                             "a NO [AUTHENTICATIONFAILED] Authentication failed.")
            self.assertIn("b OK", imap_login(client, "somebody@default.example", tag="b"))
        with Lines(self.proxy.ports["pop3"]) as client:
            client.until("+OK")
            client.ask("USER somebody@default.example", "+OK")
            self.assertEqual(client.ask("PASS wrong", "-ERR")[-1], "-ERR [AUTH] Authentication failed.")
            client.ask("USER somebody@default.example", "+OK")
            client.ask(f"PASS {PASSWORD}", "+OK")

    def test_plaintext_login_is_refused_where_tls_is_required(self):
        with Lines(self.proxy.ports["imap_required"]) as client:
            self.assertIn("LOGINDISABLED", client.until("* OK")[-1])
            self.assertIn("a NO [PRIVACYREQUIRED]", client.ask("a LOGIN somebody@default.example {5}", "a ")[-1])
            client.ask("b STARTTLS", "b OK")
            client.start_tls()
            self.assertIn("AUTH=PLAIN", client.ask("c CAPABILITY", "c OK")[0])
            self.assertIn("d OK", imap_login(client, "somebody@default.example", tag="d"))
        with Lines(self.proxy.ports["pop3_required"]) as client:
            client.until("+OK")
            self.assertIn("-ERR [AUTH]", client.ask("USER somebody@default.example", "-ERR")[-1])
            client.ask("STLS", "+OK")
            client.start_tls()
            client.ask("USER somebody@default.example", "+OK")
            client.ask(f"PASS {PASSWORD}", "+OK")

    def test_bytes_behind_starttls_end_the_session(self):
        for port, command in (("imap", "a STARTTLS"), ("pop3", "STLS")):
            with self.subTest(command=command), Lines(self.proxy.ports[port]) as client:
                client.until("* OK" if port == "imap" else "+OK")
                client.send(command + "\r\nb NOOP\r\n")
                self.assertTrue(client.closed())
                self.assertNotIn(b"b OK", client.buffer)
        self.proxy.wait_log("end=starttls-injection", 2)
        # Bytes that come a moment later are no TLS handshake.
        with Lines(self.proxy.ports["imap"]) as client:
            client.until("* OK")
            client.ask("a STARTTLS", "a OK")
            client.send("b NOOP\r\n")
            self.assertTrue(client.closed())
        self.proxy.wait_session(end="client-tls")

    # Amounts

    def test_large_message_both_ways(self):
        generator = random.Random(1)
        line = lambda: bytes(generator.choices(range(33, 127), k=74)) + b"\r\n"
        body = b"Subject: large\r\n\r\n" + b"".join(line() for _ in range(25_000_000 // 76))
        for transport in TRANSPORTS:
            with self.subTest(transport=transport):
                client = self.imap(transport)
                client.login("big@default.example", PASSWORD)
                folder = f"large-{transport}"
                client.create(folder)
                self.assertEqual(client.append(folder, None, None, body)[0], "OK")
                client.select(folder)
                _, data = client.fetch("1", "(BODY.PEEK[])")
                self.assertEqual(len(data[0][1]), len(body))
                self.assertTrue(data[0][1] == body, "the message changed on its way")
                client.logout()
        self.a.deliver("somebody@default.example", body.replace(b"\r\n", b"\n"), number=2)
        client = self.pop3("implicit")
        client.user("somebody@default.example")
        client.pass_(PASSWORD)
        _, lines, _ = client.retr(2)
        self.assertTrue(b"\r\n".join(lines) + b"\r\n" == body, "the message changed on its way")
        client.dele(2)
        client.quit()
        session = self.proxy.wait_session(login="big@default.example", tls="none")
        self.assertGreater(int(session["in"]), len(body))
        self.assertGreater(int(session["out"]), len(body))

    def test_two_hundred_sessions_at_once_with_reloads_and_changes(self):
        """Two hundred sessions stay while the configuration is reloaded and the map changes, and none is lost."""
        barrier = threading.Barrier(201, timeout=60)
        done = threading.Event()

        def session(number):
            client = self.imap(TRANSPORTS[number % 3])
            client.login(f"load{number}@default.example", PASSWORD)
            client.select("INBOX")
            barrier.wait()
            rounds = 0
            while not done.is_set():
                self.assertEqual(client.noop()[0], "OK")
                rounds += 1
            client.logout()
            return rounds

        with concurrent.futures.ThreadPoolExecutor(200) as pool:
            futures = [pool.submit(session, number) for number in range(200)]
            barrier.wait()
            try:
                for round_number in range(5):
                    backend = "ab"[round_number % 2]
                    make_map(f"{self.folder.path}/map.db", users=[("moving@default.example", backend, "real-name")])
                    client = self.imap("implicit")
                    client.login("moving@default.example", PASSWORD)
                    client.select("INBOX")
                    _, data = client.fetch("1", "(BODY[HEADER.FIELDS (SUBJECT)])")
                    self.assertIn(f"this is backend {backend}".encode(), data[0][1])
                    client.logout()
                    self.proxy.reload()
            finally:
                done.set()
            rounds = [future.result(60) for future in futures]
        self.assertGreater(min(rounds), 0)

    # Log

    def test_one_line_for_each_session_and_no_secret(self):
        client = self.imap("implicit")
        client.login("user@sqlite.example", PASSWORD)
        client.logout()
        session = self.proxy.wait_session(login="user@sqlite.example", tls="TLSv1.3", protocol="imap")
        self.assertEqual(session["backend"], "b")
        self.assertEqual(session["cipher"], "TLS_AES_128_GCM_SHA256")
        self.assertIn(session["end"], ("client-closed", "backend-closed"))
        self.assertGreater(int(session["out"]), 0)
        for key in ("session", "peer", "listener", "attempts", "in", "login_ms", "duration_ms", "blame", "doing"):
            self.assertIn(key, session)
        with Lines(self.proxy.ports["imap"]) as client:
            client.until("* OK")
            imap_login(client, "user@sqlite.example", "a very secret guess")
            client.ask("b LOGOUT", "b OK")
        self.proxy.wait_log("event=login-failed")
        log = self.proxy.log()
        for secret in (PASSWORD, "very secret guess"):
            self.assertNotIn(secret, log)
        ids = [session["session"] for session in self.proxy.sessions()]
        self.assertEqual(len(ids), len(set(ids)))


class Talk:
    """A command-line client spoken to through pipes."""

    def __init__(self, argv):
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.text = ""

    def send(self, text):
        self.process.stdin.write(text.encode())
        self.process.stdin.flush()

    def until(self, wanted):
        """Reads until the text appears; returns what came before it and itself."""
        def found():
            if wanted in self.text:
                return True
            if select.select([self.process.stdout], [], [], 0.1)[0]:
                self.text += self.process.stdout.read1(65536).decode(errors="replace")
            return wanted in self.text
        try:
            wait_for(f"{self.process.args[0]} prints {wanted!r}", found)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.text}")
        before, _, rest = self.text.partition(wanted)
        self.text = rest
        return before + wanted

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.terminate()
        self.process.wait()
        self.process.stdout.close()


if __name__ == "__main__":
    unittest.main()

"""Users in PostgreSQL and MariaDB: real servers, and what can go wrong with them. Both have to do the same."""
import contextlib
import re
import signal
import subprocess
import threading
import time

from harness import (PROXYD_ALL, FakeBackend, Lines, ProxyTest, TemporaryFolder, free_port, imap_login,
                     make_certificate, wait_for)
from sources_sql import SQL_PASSWORD, MariaDB, PostgreSQL

CONFIG = """
loops: 2
listeners:
  - {{ protocol: imap, address: "127.0.0.1:{imap}", tls: off }}
  - {{ protocol: pop3, address: "127.0.0.1:{pop3}", tls: off }}
routes:
ROUTES
backends:
  a: {{ address: 127.0.0.1, ports: {{ imap: A_PORT }} }}
  b: {{ address: 127.0.0.1, ports: {{ imap: B_PORT }} }}
timeouts: {{ failure-delay: 0, connect: 10s, backend-login: 10s }}
"""
UNAVAILABLE = "a NO [UNAVAILABLE] Account is temporarily unavailable."
UNKNOWN = "a NO [AUTHENTICATIONFAILED] Authentication failed."
INJECTIONS = ["' OR 1=1 --", "' OR '1'='1", "x'; DROP TABLE users; --", "\\'; DROP TABLE users; --", "\\", "'", '"',
              "''", "%", "_", "alice%", "alice\\", "alice'--", "$1", "?", ":login", "alice\u00a0", "\uff41lice",
              "E'\\x61'", "*/", "/*", "alice;", "`", "$$alice$$", "0", "a" * 200]


class Mailbox(FakeBackend):
    """A backend that lets everybody in and knows who that was."""

    def __init__(self):
        self.logins = []
        super().__init__(self.serve)

    def serve(self, connection):
        connection.sendall(b"* OK [CAPABILITY IMAP4rev1 LITERAL+] ready\r\n")
        file = connection.makefile("rb")
        line = file.readline().decode()
        while line.endswith("}\r\n"):
            line = line[:-2] + file.readline().decode()
        self.logins.append(line.split(" ")[2].strip('"'))
        connection.sendall(b"L OK [CAPABILITY IMAP4rev1] Logged in\r\n")
        for line in file:
            connection.sendall(line.split()[0] + b" OK done\r\n")


class SQLCase:
    """A server for the tests of a class, with the same users for each of them."""

    program = PROXYD_ALL
    with_tls = False

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        folder = TemporaryFolder()
        cls.addClassCleanup(folder.remove)
        certificate = make_certificate(folder.path) if cls.with_tls else None
        cls.certificate = certificate
        cls.server = cls.kind(folder.path, certificate)
        cls.addClassCleanup(cls.server.stop)

    def setUp(self):
        super().setUp()
        if not self.server.process:
            self.server.start()
        self.addCleanup(self.server.signal_all, signal.SIGCONT)
        self.server.sql("DELETE FROM users")
        self.server.insert(("alice", "a"), ("bob", "b", "robert"), ("carol", "!"), ("dave", None), ("eve", ""),
                           ("frank", "nobody@b", "fr@nk"), ("slow", "a"))
        self.write_password(SQL_PASSWORD)
        self.a, self.b = Mailbox(), Mailbox()
        self.addCleanup(self.a.close)
        self.addCleanup(self.b.close)

    def write_password(self, text):
        (self.dir / "sql.pw").write_text(text + "\nnot this\n")

    def start(self, source, common="", before="", behind="", **options):
        common = "".join(f"    {line}\n" for line in common.splitlines())
        routes = f"{before}  - {source}\n{common}{behind}".replace("{", "{{").replace("}", "}}")
        config = CONFIG.replace("ROUTES", routes).replace("A_PORT", str(self.a.port))
        return self.proxy(config.replace("B_PORT", str(self.b.port)), **options)

    def login(self, proxy, user):
        with Lines(proxy.ports["imap"]) as client:
            client.until("* OK")
            return imap_login(client, user)

    def timed(self, proxy, user):
        begin = time.monotonic()
        return self.login(proxy, user), time.monotonic() - begin

    def expect(self, proxy, user, backend, name=None):
        before = len(backend.logins)
        answer = self.login(proxy, user)
        self.assertTrue(answer.startswith("a OK"), answer)
        self.assertEqual(backend.logins[before:], [name or user])

    def expect_failure(self, proxy, user, words):
        """A temporary failure, and the log says why."""
        def failures():
            return [line["detail"] for line in proxy.failures()
                    if line["failure"] == "lookup-failed" and line["login"] == user]
        before = len(failures())
        self.assertEqual(self.login(proxy, user), UNAVAILABLE)
        detail = wait_for("the failure is logged", lambda: failures()[before:])[0]
        self.assertIn(words, detail)
        return detail

    def in_background(self, *calls):
        """Starts the calls side by side; returns their results when asked."""
        results = [None] * len(calls)

        def run(index, call):
            results[index] = call()
        threads = [threading.Thread(target=run, args=pair, daemon=True) for pair in enumerate(calls)]
        for thread in threads:
            thread.start()

        def join():
            for thread in threads:
                thread.join(30)
            return results
        return join

    def write_rules(self):
        (self.dir / "routes.re").write_text("zoe|quick: b\n")
        return "  - regex: routes.re\n"

    def check(self, source, words):
        """`proxyd check` refuses the configuration, names the place, and keeps the secret."""
        config = self.dir / "check.yaml"
        routes = f"  - {source}\n"
        text = CONFIG.replace("ROUTES", routes).replace("{{", "{").replace("}}", "}")
        for name, port in (("{imap}", "1143"), ("{pop3}", "1110"), ("A_PORT", "1"), ("B_PORT", "1")):
            text = text.replace(name, port)
        config.write_text(text)
        done = subprocess.run([self.program, "check", "--config", config], capture_output=True, text=True, timeout=60)
        self.assertNotEqual(done.returncode, 0, done.stdout)
        self.assertIn(words, done.stderr)
        self.assertRegex(done.stderr, r"check\.yaml:\d+:\d+: routes\[0\]\.")
        self.assertNotIn("hush", done.stderr)


class SQLSource(SQLCase):
    """The tests, for each kind of server."""

    # Answers

    def test_answers(self):
        proxy = self.start(self.server.source(), behind=self.write_rules())
        self.expect(proxy, "alice", self.a)
        self.expect(proxy, "ALICE", self.a)
        self.expect(proxy, "bob", self.b, "robert")
        self.expect(proxy, "frank", self.b, "fr@nk")
        self.expect(proxy, "zoe", self.b)
        self.assertEqual(self.login(proxy, "unknown"), UNKNOWN)
        self.assertNotIn(self.login(proxy, "carol"), [UNKNOWN, UNAVAILABLE])
        self.expect_failure(proxy, "dave", "the user's row names no backend")
        self.expect_failure(proxy, "eve", "the user's row names no backend")
        # A change counts at once.
        self.server.sql("UPDATE users SET backend = 'b' WHERE login = 'alice'")
        self.expect(proxy, "alice", self.b)
        self.server.sql("DELETE FROM users WHERE login = 'alice'")
        self.assertEqual(self.login(proxy, "alice"), UNKNOWN)

    def test_parameters(self):
        query = ("SELECT backend FROM users -- it's :nobody\n      WHERE login = :local AND :domain = 'x.org' AND "
                 ":protocol = 'imap' AND :login <> ':login'")
        # A block of YAML keeps the lines.
        source = self.server.source("QUERY").replace('"QUERY"', "|\n        " + query.replace("\n", "\n  "))
        proxy = self.start(source)
        self.expect(proxy, "alice@x.org", self.a)
        self.expect(proxy, "frank@x.org", self.b, "nobody")
        self.assertEqual(self.login(proxy, "alice@x.net"), UNKNOWN)
        self.assertEqual(self.login(proxy, "alice"), UNKNOWN)
        with Lines(proxy.ports["pop3"]) as client:
            client.until("+OK")
            client.ask("USER alice@x.org", "+OK")
            self.assertIn("[AUTH]", client.ask("PASS x", "-ERR")[-1])

    def test_many_rows(self):
        """The first counts, and the connection can be used again."""
        self.server.sql("INSERT INTO users SELECT concat('many', a.login, b.login, c.login), 'zzz', NULL, NULL "
                        "FROM users a, users b, users c")
        query = "SELECT backend, login_as, 3, 4, 5 FROM users WHERE login >= :login ORDER BY login"
        proxy = self.start(self.server.source(query, connections=1))
        for _ in range(3):
            self.expect(proxy, "alice", self.a)
        self.assertEqual(self.server.sessions(), 1)

    def test_injection(self):
        proxy = self.start(self.server.source())
        for name in INJECTIONS:
            with self.subTest(name=name):
                self.assertEqual(self.login(proxy, name), UNKNOWN)
        names = [name.lower() for name in INJECTIONS]
        self.assertEqual(len(set(names)), len(INJECTIONS))
        # And each is a name like others, if it is there.
        for name in names:
            with self.subTest(name=name):
                self.server.sql("DELETE FROM users WHERE login_as = 'injected'")
                self.server.insert((name, "b", "injected"))
                self.expect(proxy, name, self.b, "injected")
        self.assertEqual(int(self.server.sql("SELECT count(*) FROM users WHERE login <> 'x'")), 8)
        # What is no text never gets that far.
        asked = self.server.asked()
        for name in (b"alice\0", b"\0", b"al\xffice"):
            with Lines(proxy.ports["imap"]) as client:
                client.until("* OK")
                client.send(b"a LOGIN {%d+}\r\n%b secret\r\n" % (len(name), name))
                self.assertNotIn("a OK", client.until("a ")[-1])
        self.assertEqual(self.server.asked(), asked)
        self.assertTrue(proxy.process.is_running())

    # Refusals

    def test_wrong_password(self):
        self.write_password("an old pass'word")
        proxy = self.start(self.server.source(), "on-failure: stop")
        detail = self.expect_failure(proxy, "alice", self.kind.denied)
        self.write_password(SQL_PASSWORD)
        proxy.reload()
        self.expect(proxy, "alice", self.a)
        for secret in ("an old pass'word", SQL_PASSWORD):
            self.assertNotIn(secret, proxy.log())
        self.assertNotIn("alice", detail)

    def test_broken_queries(self):
        proxy = self.start(self.server.source("SELECT backend FROM nowhere WHERE login = :login"))
        self.expect_failure(proxy, "alice", self.kind.broken)
        # Mended at the server, it counts at once.
        self.server.sql("CREATE VIEW nowhere AS SELECT * FROM users")
        self.addCleanup(self.server.sql, "DROP VIEW nowhere")
        self.server.sql(self.kind.grant)
        self.expect(proxy, "alice", self.a)

    def test_values_stay_out_of_the_log(self):
        proxy = self.start(self.server.source(self.kind.quoting))
        detail = self.expect_failure(proxy, "s3cret", "the query failed (SQLSTATE")
        self.assertNotIn("s3cret", detail)

    def test_nothing_is_written(self):
        proxy = self.start(self.server.source("SELECT backend FROM users WHERE login = :login AND writer() = 1"))
        self.expect_failure(proxy, "alice", "SQLSTATE 25006")
        self.assertEqual(self.server.sql("SELECT count(*) FROM users WHERE login = 'written'").strip(), "0")

    def test_check(self):
        self.check(self.server.source("SELECT 1 WHERE 'a' = :name"), "query: line 1, column 22 of the query: the "
                   "parameter :name is unknown; :login, :local, :domain, :protocol are given")
        self.check(self.server.source("DELETE FROM users"), "expected a SELECT")
        self.check(self.server.source("SELECT 1; SELECT 2"), "there are several statements")
        self.check(self.server.source(connections=0), "connections")
        (self.dir / "sql.pw").unlink()
        self.check(self.server.source(), "sql.pw: it can't be read: No such file or directory")
        self.write_password("")
        self.check(self.server.source(), "sql.pw: its first line is empty, expected a password")

    # Faults

    def test_killed_in_mid_query(self):
        proxy = self.start(self.server.source(self.slow(30)), "timeout: 20s")
        self.expect(proxy, "alice", self.a)
        slow = self.in_background(lambda: self.timed(proxy, "slow"))
        wait_for("the query is under way", lambda: self.server.running() == 1)
        self.server.kill()
        answer, seconds = slow()[0]
        self.assertEqual(answer, UNAVAILABLE)
        self.assertLess(seconds, 10)
        self.expect_failure(proxy, "alice", str(self.server.port))
        self.server.start()
        self.back(proxy, "alice")
        self.expect(proxy, "bob", self.b, "robert")

    def slow(self, seconds):
        return ("SELECT backend, login_as FROM users WHERE login = :login "
                f"AND (login <> 'slow' OR {self.kind.sleep % seconds})")

    def back(self, proxy, user):
        """The proxy leaves a server alone for a while that was away."""
        wait_for("the source is asked again", lambda: self.login(proxy, user).startswith("a OK"))

    def test_late(self):
        """A query that takes too long ends in time, at the server too, and the next is asked."""
        proxy = self.start(self.server.source(self.slow(30), connections=1), "timeout: 2s")
        answer, seconds = self.timed(proxy, "slow")
        self.assertEqual(answer, UNAVAILABLE)
        self.assertGreater(seconds, 1.9)
        self.assertLess(seconds, 4.8)
        self.expect(proxy, "alice", self.a)
        wait_for("the server gave up", lambda: self.server.running() == 0)

    def asked(self, proxy, user):
        """As timed, but of a login whose question is asked: just after a connection failed the server is left alone for a
        moment, and the log says so of each login that is answered at once."""
        while True:
            left_alone = f"login={user} failure=lookup-failed detail=\".*tried again in "
            before = len(re.findall(left_alone, proxy.log()))
            answer, seconds = self.timed(proxy, user)
            if seconds > 1:
                return answer, seconds
            wait_for("it is left alone", lambda: len(re.findall(left_alone, proxy.log())) > before)

    def hang(self, proxy):
        """Nobody waits longer than the source may take, and who does not need it does not wait."""
        self.expect(proxy, "quick", self.b)
        waiting = self.in_background(*[lambda n=n: self.asked(proxy, f"user{n}") for n in range(12)])
        for _ in range(5):
            answer, seconds = self.timed(proxy, "quick")
            self.assertTrue(answer.startswith("a OK"), answer)
            self.assertLess(seconds, 7.5)
        for answer, seconds in waiting():
            self.assertEqual(answer, UNAVAILABLE)
            self.assertGreater(seconds, 7.9)
            self.assertLess(seconds, 12)

    def test_hanging(self):
        proxy = self.start(self.server.source(), "timeout: 8s", before=self.write_rules())
        self.expect(proxy, "alice", self.a)
        self.server.freeze()
        self.hang(proxy)
        # Now there is no connection any more, and none is to be had.
        self.hang(proxy)
        self.server.signal_all(signal.SIGCONT)
        self.back(proxy, "alice")

    def test_silent(self):
        """Something that accepts and says nothing."""
        silent = self.fake(lambda connection: connection.recv(1_000_000) and connection.recv(1))
        source = self.server.source().replace(str(self.server.port), str(silent.port))
        proxy = self.start(source, "timeout: 8s", before=self.write_rules())
        self.hang(proxy)

    def test_nonsense(self):
        """Something that speaks another protocol."""
        other = self.fake(lambda connection: connection.sendall(b"* OK [CAPABILITY IMAP4rev1] " + b"\xff" * 5_000))
        source = self.server.source().replace(str(self.server.port), str(other.port))
        proxy = self.start(source, "timeout: 2s")
        self.expect_failure(proxy, "alice", "")
        self.assertTrue(proxy.process.is_running())

    def test_restart(self):
        """A connection that stood idle while its server was restarted costs nobody a login."""
        proxy = self.start(self.server.source())
        self.expect(proxy, "alice", self.a)
        for way in (self.server.stop, self.server.kill):
            way()
            self.server.start()
            self.expect(proxy, "alice", self.a)
        self.assertEqual(proxy.failures(), [])
        self.server.stop()
        self.expect_failure(proxy, "alice", "onnect")
        self.server.start()
        self.back(proxy, "alice")

    def test_next(self):
        proxy = self.start(self.server.source(), "on-failure: next", behind=self.write_rules())
        self.server.kill()
        self.expect(proxy, "zoe", self.b)
        proxy.wait_log("event=source-failed")
        self.assertEqual(self.login(proxy, "alice"), UNKNOWN)

    def test_hosts(self):
        """A host that is silent is passed over, and so is one where nobody listens."""
        silent = self.fake(lambda connection: connection.recv(1_000_000) and connection.recv(1))
        source = self.server.several([free_port(), silent.port, self.server.port])
        proxy = self.start(source, "timeout: 10s")
        answer, seconds = self.timed(proxy, "alice")
        self.assertTrue(answer.startswith("a OK"), answer)
        self.assertLess(seconds, 9.9)
        self.assertEqual(len(silent.connections), 1)
        self.expect(proxy, "bob", self.b, "robert")

    # The pool

    def test_cache(self):
        proxy = self.start(self.server.source(), "cache: { found: 10m, not-found: 10m }")
        self.expect(proxy, "alice", self.a)
        self.assertEqual(self.login(proxy, "unknown"), UNKNOWN)
        asked = self.server.asked()
        self.expect(proxy, "alice", self.a)
        self.expect(proxy, "Alice", self.a)
        self.assertEqual(self.login(proxy, "unknown"), UNKNOWN)
        self.assertEqual(self.server.asked(), asked)
        self.server.kill()
        self.expect(proxy, "alice", self.a)
        self.assertEqual(self.login(proxy, "unknown"), UNKNOWN)
        self.expect_failure(proxy, "bob", "onnect")

    def test_stale(self):
        proxy = self.start(self.server.source(), "cache: { found: 100ms, not-found: 100ms, stale: 10m }")
        self.expect(proxy, "alice", self.a)
        self.assertEqual(self.login(proxy, "unknown"), UNKNOWN)
        self.server.sql("UPDATE users SET backend = 'b' WHERE login = 'alice'")
        # Asked again as soon as the answer is old.
        wait_for("the change counts", lambda: self.login(proxy, "alice") and len(self.b.logins) > 0)
        self.server.kill()
        wait_for("the answer is old", lambda: self.login(proxy, "bob") == UNAVAILABLE)
        for _ in range(3):
            self.expect(proxy, "alice", self.b)
            self.assertEqual(self.login(proxy, "unknown"), UNKNOWN)

    def test_equal_questions_are_asked_once(self):
        proxy = self.start(self.server.source(self.slow(3)), "timeout: 20s")
        self.expect(proxy, "alice", self.a)
        asked = self.server.asked()
        with contextlib.ExitStack() as stack:
            clients = [stack.enter_context(Lines(proxy.ports["imap"])) for _ in range(100)]
            for client in clients:
                client.until("* OK")
            for client in clients:
                client.send("a LOGIN slow secret\r\n")
            for client in clients:
                self.assertTrue(client.until("a ")[-1].startswith("a OK"))
        self.assertEqual(self.server.asked(), asked + 1)

    def test_connections_are_bounded(self):
        query = f"SELECT backend FROM users WHERE login = :login AND {self.kind.sleep % 0.3}"
        self.server.insert(*[(f"user{n}", "a") for n in range(24)])
        proxy = self.start(self.server.source(query, connections=3), "timeout: 30s")
        answers = self.in_background(*[lambda n=n: self.login(proxy, f"user{n}") for n in range(24)])
        most = 0
        end = time.monotonic() + 60
        while len(self.a.logins) < 24 and time.monotonic() < end:
            most = max(most, self.server.sessions())
            self.assertLessEqual(most, 3)
        self.assertEqual({answer[:4] for answer in answers()}, {"a OK"})
        self.assertEqual(most, 3)


class TLSSource(SQLCase):
    """The same servers, which take the proxy's user by TLS only."""

    with_tls = True

    def protected(self, name, authority=None, host="localhost"):
        return self.start(self.server.source(more=self.kind.protection[name].format(ca=authority), host=host))

    def test_without(self):
        self.expect_failure(self.protected("off"), "alice", self.kind.unprotected)

    def test_verified(self):
        for host in ("localhost", "127.0.0.1"):
            proxy = self.protected("verified", self.certificate[0], host)
            self.expect(proxy, "alice", self.a)
            proxy.stop()

    def test_another_authority(self):
        other, _ = make_certificate(self.dir, "other")
        self.expect_failure(self.protected("verified", other), "alice", "certificate")

    def test_another_name(self):
        """A certificate of the right authority, for other names."""
        self.expect_failure(self.protected("verified", self.certificate[0], "127.0.0.2"), "alice", "ertificate")

    def test_unverified(self):
        self.expect(self.protected("unverified"), "alice", self.a)


class PostgreSQLSource(SQLSource, ProxyTest):
    kind = PostgreSQL

    def test_passwords_in_the_connection_are_refused(self):
        for word in ("password=hush", "passfile=/hush", "sslpassword=hush"):
            with self.subTest(word=word):
                words = f"{word.partition('=')[0]} must not be in the connection string"
                self.check(self.server.source(more=word), words)
        uri = self.server.source().replace(f"host=127.0.0.1 port={self.server.port}", "postgresql://proxyd:hush@h/d")
        self.check(uri.replace(" dbname=postgres user=proxyd ", ""), "password must not be in the connection string")
        self.check(self.server.source(more="password=x hush"), "it is no connection string")


class MySQLSource(SQLSource, ProxyTest):
    kind = MariaDB

    def test_check_of_places(self):
        source = self.server.source()
        hosts = source.partition("\n")[2].partition("\n")[0] + "\n"
        self.check(source.replace(hosts, ""), "mysql.hosts: this key is missing")
        self.check(source.replace(hosts, hosts + "      socket: s\n"), "there are hosts already")
        self.check(source.replace(hosts, "      socket: s\n      tls: verified\n"), "it is for hosts")
        self.check(source + "      ca: x\n", "it is for the verification of certificates")
        self.check(source + "      tls: verified\n      ca: missing.crt\n", "missing.crt: it can't be read")

    def test_socket(self):
        source = self.server.source()
        hosts = source.partition("\n")[2].partition("\n")[0] + "\n"
        proxy = self.start(source.replace(hosts, f"      socket: {self.server.socket}\n"))
        self.expect(proxy, "alice", self.a)


class PostgreSQLByTLS(TLSSource, ProxyTest):
    kind = PostgreSQL


class MySQLByTLS(TLSSource, ProxyTest):
    kind = MariaDB

"""Users in LDAP, Redis, cdb and LMDB, and checks of their passwords: real servers, and what can go wrong with them."""
import base64
import concurrent.futures
import os
import socket
import sqlite3
import subprocess
import threading
import time
import unittest

from backends import Authority
from harness import PROXYD_ALL, Lines, ProxyTest, free_port, imap_login, quoted, wait_for
from sources_dir import (ADMIN, Mailbox, PAMService, Redis, Slapd, crypted, entry, make_cdb, make_lmdb, unread)

CONFIG = """
loops: 2
listeners:
  - {{ protocol: imap, address: "127.0.0.1:{imap}", tls: off, mechanisms: [plain, login, xoauth2] }}
routes:
ROUTES
backends:
  a: {{ address: 127.0.0.1, ports: {{ imap: A_PORT }} }}
  b: {{ address: 127.0.0.1, ports: {{ imap: B_PORT }} }}
timeouts: {{ failure-delay: 0, connect: 10s, backend-login: 10s }}
"""
UNAVAILABLE = "a NO [UNAVAILABLE] Account is temporarily unavailable."
REFUSED = "a NO [AUTHENTICATIONFAILED] Authentication failed."
PASSWORD = 'pa ss"wo\\rd'
# Names that mean something in a filter, in a distinguished name, in Redis's protocol or in a pattern. None of them is a user.
INJECTIONS = ["*", "a*", "ali?e", ")(uid=*", "alice)(|(uid=*", "*)(uid=*))(|(uid=*", "\\2a", "alice\\00", "\\", "(", ")",
              "alice,ou=mail", "alice+cn=x", "uid=alice", "#alice", "(uid=alice)", "alice)", "|", "&", "!", "%u", "%%", "%s%s%n",
              "$6", "*3", "$5\\r\\nalice", "alice:backend", "\u0430lice", "{alice}", "GET", "a" * 200]
SERVERS_WAIT = "    timeout: 3s\n"


class SourceTest(ProxyTest):
    program = PROXYD_ALL

    def setUp(self):
        super().setUp()
        self.a, self.b = Mailbox(), Mailbox()
        self.addCleanup(self.a.close)
        self.addCleanup(self.b.close)

    def start(self, routes, more="", **options):
        text = CONFIG.replace("ROUTES", routes.replace("{", "{{").replace("}", "}}")) + more
        return self.proxy(text.replace("A_PORT", str(self.a.port)).replace("B_PORT", str(self.b.port)), **options)

    def login(self, proxy, user, password=PASSWORD):
        with Lines(proxy.ports["imap"]) as client:
            client.until("* OK")
            if user.isascii():
                return imap_login(client, user, password)
            client.send(f"a LOGIN {{{len(user.encode())}}}\r\n")
            client.until("+")
            return client.ask(f"{user} {quoted(password)}", "a ")[-1]

    def timed(self, proxy, user, password=PASSWORD):
        begin = time.monotonic()
        return self.login(proxy, user, password), time.monotonic() - begin

    def expect(self, proxy, user, backend, name=None, password=PASSWORD):
        before = len(backend.logins)
        answer = self.login(proxy, user, password)
        self.assertTrue(answer.startswith("a OK"), f"{answer}\n{proxy.log()[-2000:]}")
        self.assertEqual(backend.logins[before:], [name or user])

    def expect_no(self, proxy, user, password=PASSWORD):
        """An unknown user, or a wrong password; no backend hears of it."""
        before = self.a.logins + self.b.logins
        self.assertEqual(self.login(proxy, user, password), REFUSED, proxy.log()[-2000:])
        self.assertEqual(self.a.logins + self.b.logins, before)

    def expect_failure(self, proxy, user, *words, password=PASSWORD):
        """A temporary failure; the log says why, and no secret."""
        def failures():
            return [line for line in proxy.failures() if line["failure"] == "lookup-failed"]
        before = len(failures())
        self.assertEqual(self.login(proxy, user, password), UNAVAILABLE)
        failure = wait_for("the failure is logged", lambda: failures()[before:])[0]
        for word in words:
            self.assertIn(word, failure["detail"])
        self.assertNotIn(password, proxy.log())
        return failure["detail"]

    def expect_all_unknown(self, proxy, names=INJECTIONS):
        for name in names:
            with self.subTest(name=name):
                self.expect_no(proxy, name)
        # A line end in a name ends at the dialogue.
        with Lines(proxy.ports["imap"]) as client:
            client.until("* OK")
            client.send(b"a LOGIN {12}\r\n")
            client.until("+")
            client.send(b"alice\r\nalice " + quoted(PASSWORD).encode() + b"\r\n")
            self.assertRegex(client.line(), "^a (NO|BAD) ")


class ServerTest:
    """What has to hold for every server, whatever it speaks. `route` is the source, `server` the server, with the users of
    `USERS`, and `break_user` makes an entry that can't be used."""

    def common(self, more=""):
        return self.start(self.route() + SERVERS_WAIT + more)

    def test_found(self):
        proxy = self.common()
        self.expect(proxy, "alice", self.a)
        self.expect(proxy, "ALICE", self.a)
        self.expect(proxy, "bob@example.org", self.b, "robert")
        self.expect(proxy, "dora", self.b, "d@ra")

    def test_found_beside_the_name(self):
        """A name that has all that is special, and is a user."""
        proxy = self.common()
        for name in self.strange:
            self.expect(proxy, name, self.a)

    def test_not_found(self):
        proxy = self.common()
        self.expect_no(proxy, "nobody")
        self.expect_all_unknown(proxy)
        self.expect(proxy, "alice", self.a)

    def test_not_found_goes_on(self):
        proxy = self.common("  - default: b\n")
        self.expect(proxy, "nobody", self.b)
        self.expect(proxy, "alice", self.a)

    def test_closed(self):
        proxy = self.common("  - default: b\n")
        self.assertRegex(self.login(proxy, "carol"), r"^a NO ")
        self.assertEqual(self.a.logins + self.b.logins, [])

    def test_unusable_entries(self):
        """Known users whose backend can't be told never become unknown ones."""
        proxy = self.common("  - default: b\n")
        for user, words in self.unusable.items():
            with self.subTest(user=user):
                self.expect_failure(proxy, user, words)
        self.assertEqual(self.b.logins, [])

    def test_restart_is_not_noticed(self):
        proxy = self.common()
        self.expect(proxy, "alice", self.a)
        self.server.stop()
        self.server.start()
        self.restore()
        self.expect(proxy, "alice", self.a)

    def test_away_and_back(self):
        proxy = self.common()
        self.expect(proxy, "alice", self.a)
        self.server.kill()
        self.expect_failure(proxy, "alice")
        answer, seconds = self.timed(proxy, "alice")
        self.assertEqual(answer, UNAVAILABLE)
        self.assertLess(seconds, 2)
        self.server.start()
        self.restore()
        wait_for("the server is asked again", lambda: self.login(proxy, "alice").startswith("a OK"))

    def test_killed_in_a_query(self):
        proxy = self.common()
        self.expect(proxy, "alice", self.a)
        self.server.pause()
        with Lines(proxy.ports["imap"]) as client:
            client.until("* OK")
            client.send(f"a LOGIN alice {quoted(PASSWORD)}\r\n")
            wait_for("the question is at the server", lambda: unread(self.server.port))
            begin = time.monotonic()
            self.server.kill()
            self.assertEqual(client.until("a ")[-1], UNAVAILABLE)
            self.assertLess(time.monotonic() - begin, 2.5)

    def test_hanging(self):
        proxy = self.common()
        self.expect(proxy, "alice", self.a)
        self.server.pause()
        answer, seconds = self.timed(proxy, "alice")
        self.assertEqual(answer, UNAVAILABLE)
        self.assertTrue(2.8 < seconds < 6, seconds)
        self.assertIn("did not answer in time", proxy.failures(1)[-1]["detail"])
        # New connections hang as well, and those who wait do so side by side.
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: self.timed(proxy, "alice"), range(8)))
        for answer, seconds in answers:
            self.assertEqual(answer, UNAVAILABLE)
            self.assertLess(seconds, 9)
        self.server.resume()
        wait_for("the server is asked again", lambda: self.login(proxy, "alice").startswith("a OK"))

    def test_hanging_delays_nobody_else(self):
        make_cdb(self.dir / "map.cdb", {"quick": "b"})
        proxy = self.start(f"  - cdb: map.cdb\n{self.route()}    timeout: 5s\n")
        self.expect(proxy, "alice", self.a)
        self.server.pause()
        with Lines(proxy.ports["imap"]) as client:
            client.until("* OK")
            client.send(f"a LOGIN alice {quoted(PASSWORD)}\r\n")
            wait_for("the question is at the server", lambda: unread(self.server.port))
            begin = time.monotonic()
            self.expect(proxy, "quick", self.b)
            self.assertLess(time.monotonic() - begin, 2)
            self.server.resume()
            self.assertTrue(client.until("a ")[-1].startswith("a OK"))

    def test_next_if_it_fails(self):
        proxy = self.common("    on-failure: next\n  - default: b\n")
        self.server.kill()
        self.expect(proxy, "alice", self.b)

    def test_many_at_once(self):
        proxy = self.common()
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda i: self.login(proxy, ["alice", "nobody"][i % 2]), range(120)))
        self.assertTrue(all(answer.startswith("a OK") for answer in answers[::2]), answers)
        self.assertEqual(set(answers[1::2]), {REFUSED})

    def test_route_command(self):
        proxy = self.common()
        done = subprocess.run([self.program, "route", "--config", proxy.config, "bob@example.org"], capture_output=True,
                              text=True, timeout=20)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(f"source:       {self.name()}\n", done.stdout)
        self.assertIn("login as:     robert\n", done.stdout)


LDAP_USERS = (
    entry("alice", PASSWORD, mail="a") + entry("bob@example.org", PASSWORD, mail="b", sn="robert")
    + entry("carol", PASSWORD, mail="!") + entry("dora", PASSWORD, mail="d@ra@b") + entry("nomail", PASSWORD)
    + entry("two", mail=["a", "b"]) + entry("twonames", mail="a", sn=["x", "y"]) + entry("twice", mail="a")
    + "dn: ou=other,dc=example,dc=org\nobjectClass: organizationalUnit\nou: other\n\n"
    + entry("twice", under="ou=other,dc=example,dc=org", mail="b") + entry("strange", mail="no such backend")
    + entry("odd(*)\\,+\"<>;=#n\u00e4me", PASSWORD, mail="a") + entry("#sharp", PASSWORD, mail="a") + entry("p", mail="127.0.0.1", l="PORT")
    + entry("badport", mail="127.0.0.1", l="imap") + entry("twoports", mail="127.0.0.1:143", l="143")
    + entry("empty@", mail="@") + entry("nopassword", mail="a"))


class LDAP(ServerTest, SourceTest):
    strange = ["odd(*)\\,+\"<>;=#n\u00e4me", "#sharp"]
    unusable = {"nomail": "has no mail", "two": "2 values of mail", "twonames": "2 values of sn",
                "twice": "more than one entry", "strange": '"no such backend" is neither',
                "badport": "l is no port", "twoports": "no host without a port", "empty@": "names no backend"}

    def setUp(self):
        super().setUp()
        self.server = Slapd(self.dir, ldif=LDAP_USERS.replace("PORT", "143"))
        self.addCleanup(self.server.stop)

    def restore(self):
        pass

    def name(self):
        return f"ldap {self.server.url}"

    def route(self, url=None, more=""):
        return f"""  - ldap:
      url: {url or self.server.url}
      base: dc=example,dc=org
      filter: (&(objectClass=account)(uid=%u))
      backend-attribute: mail
      login-attribute: sn
      port-attribute: l
{more}"""

    def test_port(self):
        self.server.modify(f"dn: uid=p,ou=mail,dc=example,dc=org\nchangetype: modify\nreplace: l\nl: {self.b.port}\n")
        proxy = self.common()
        self.expect(proxy, "p", self.b)

    def test_name_in_the_base(self):
        """The entry itself is named: that it is missing means there is no such user, that the rest is does not."""
        proxy = self.start(self.route().replace("base: dc=", 'base: "uid=%u,ou=mail,dc=').replace(
            "=org\n", '=org"\n      scope: base\n').replace("(&(objectClass=account)(uid=%u))", "(objectClass=*)"))
        self.expect(proxy, "alice", self.a)
        for name in self.strange:
            self.expect(proxy, name, self.a)
        self.expect_all_unknown(proxy)

    def test_missing_base_is_a_failure(self):
        proxy = self.start(self.route().replace("base: dc=", "base: ou=nowhere,dc="))
        self.expect_failure(proxy, "alice", "ou=nowhere")

    def test_references_are_a_failure(self):
        """What another server has, this one does not know not to exist."""
        self.server.modify("dn: ou=elsewhere,dc=example,dc=org\nchangetype: add\nobjectClass: referral\n"
                           "objectClass: extensibleObject\nou: elsewhere\nref: ldap://127.0.0.1:1/ou=x\n")
        proxy = self.common("  - default: b\n")
        self.expect(proxy, "alice", self.a)
        self.expect_failure(proxy, "nobody", "refers to other servers")

    def test_second_server_if_the_first_is_down(self):
        proxy = self.start(self.route(f"[ ldap://127.0.0.1:{free_port()}, {self.server.url} ]") + SERVERS_WAIT)
        self.expect(proxy, "alice", self.a)
        self.expect_no(proxy, "nobody")

    def test_second_server_if_the_first_hangs(self):
        other = Slapd(self.dir, "other", ldif=entry("alice", mail="a"))
        self.addCleanup(other.stop)
        proxy = self.start(self.route(f"[ {other.url}, {self.server.url} ]") + "    timeout: 6s\n")
        self.expect(proxy, "alice", self.a)
        other.pause()
        self.expect(proxy, "alice", self.a)
        other.resume()

    def test_all_servers_down_are_named(self):
        ports = [free_port(), free_port()]
        proxy = self.start(self.route(f"[ ldap://127.0.0.1:{ports[0]}, 'ldap://[::1]:{ports[1]}' ]"))
        self.expect_failure(proxy, "alice", f"ldap://127.0.0.1:{ports[0]}: ", f"ldap://[::1]:{ports[1]}: ")


class LDAPLogin(SourceTest):
    """Who searches, and how the connection is protected."""

    def slapd(self, **options):
        server = Slapd(self.dir, ldif=LDAP_USERS.replace("PORT", "143"), **options)
        self.addCleanup(server.stop)
        return server

    def route(self, url, more=""):
        return f"""  - ldap:
      url: {url}
      base: ou=mail,dc=example,dc=org
      scope: one
      filter: (uid=%u)
      backend-attribute: mail
{more}    timeout: 5s
"""

    def test_bind(self):
        server = self.slapd(anonymous="auth")
        (self.dir / "ldap.pw").write_text(ADMIN[1] + "\nnot this\n")
        proxy = self.start(self.route(server.url, f"      bind-dn: {ADMIN[0]}\n      password-file: ldap.pw\n"))
        self.expect(proxy, "alice", self.a)
        self.expect_no(proxy, "nobody")

    def test_bind_with_a_wrong_password(self):
        server = self.slapd(anonymous="auth")
        (self.dir / "ldap.pw").write_text("wrong secret\n")
        proxy = self.start(self.route(server.url, f"      bind-dn: {ADMIN[0]}\n      password-file: ldap.pw\n"))
        self.expect_failure(proxy, "alice", "Invalid credentials")
        self.assertNotIn("wrong secret", proxy.log())

    def authorities(self):
        good, other = Authority(self.dir, "good"), Authority(self.dir, "other")
        return good, other

    def test_tls(self):
        good, other = self.authorities()
        server = self.slapd(certificate=good.issue("ldap", ["ldap.example.org", "127.0.0.1"]))
        # (libldap compares "localhost" with the machine's own name.)
        tls, plain = f"ldaps://127.0.0.1:{server.tls_port}", f"ldap://127.0.0.1:{server.port}"
        cases = [
            (tls, "", good, True), (tls, "", other, False), (tls, "", None, False), (plain, "      starttls: on\n", good, True),
            (plain, "      starttls: on\n", other, False), (plain, "      starttls: on\n", None, False),
        ]
        for number, (url, more, authority, works) in enumerate(cases):
            with self.subTest(url=url, authority=authority):
                ca = f"      ca: {authority.certificate}\n" if authority else ""
                proxy = self.start(self.route(url, more + ca), name=f"proxyd{number}")
                if works:
                    self.expect(proxy, "alice", self.a)
                    self.expect_no(proxy, "nobody")
                else:
                    self.expect_failure(proxy, "alice", url, "TLS failed")

    def test_tls_for_another_name(self):
        good, _ = self.authorities()
        server = self.slapd(certificate=good.issue("ldap", ["ldap.example.org"]))
        for number, (url, more) in enumerate([(f"ldaps://localhost:{server.tls_port}", ""),
                                              (f"ldaps://127.0.0.1:{server.tls_port}", ""),
                                              (f"ldap://localhost:{server.port}", "      starttls: on\n")]):
            with self.subTest(url=url):
                proxy = self.start(self.route(url, f"{more}      ca: {good.certificate}\n"), name=f"proxyd{number}")
                self.expect_failure(proxy, "alice", url)
        proxy = self.start(self.route(f"ldaps://localhost:{server.tls_port}", "      insecure-no-verification: true\n"),
                           name="insecure")
        self.expect(proxy, "alice", self.a)

    def test_starttls_is_demanded(self):
        """A server without TLS is told nothing."""
        server = self.slapd()
        (self.dir / "ldap.pw").write_text(ADMIN[1])
        proxy = self.start(self.route(
            server.url, f"      starttls: on\n      bind-dn: {ADMIN[0]}\n      password-file: ldap.pw\n"))
        self.expect_failure(proxy, "alice", "StartTLS")

    def test_handshake_that_hangs(self):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            for number, (scheme, more) in enumerate([("ldaps", ""), ("ldap", "      starttls: on\n")]):
                url = f"{scheme}://127.0.0.1:{silent.getsockname()[1]}"
                proxy = self.start(self.route(url, more), name=f"proxyd{number}")
                answer, seconds = self.timed(proxy, "alice")
                self.assertEqual(answer, UNAVAILABLE)
                self.assertTrue(4.8 < seconds < 8, seconds)
                # The thread has given up as well: it would not be there for the next one.
                answer, seconds = self.timed(proxy, "alice")
                self.assertEqual(answer, UNAVAILABLE)
                self.assertLess(seconds, 8)


class LDAPCheck(SourceTest):
    """The password is checked by a login as the entry."""

    def setUp(self):
        super().setUp()
        self.server = Slapd(self.dir, ldif=LDAP_USERS.replace("PORT", "143"))
        self.addCleanup(self.server.stop)
        self.proxyd = self.start(f"""  - ldap:
      url: {self.server.url}
      base: ou=mail,dc=example,dc=org
      filter: (uid=%u)
      backend-attribute: mail
      login-attribute: sn
    check-password: bind
    timeout: 5s
  - default: b
""")

    def test_right_and_wrong(self):
        for _ in range(3):
            self.expect(self.proxyd, "alice", self.a)
            self.expect_no(self.proxyd, "alice", "wrong")
            self.expect_no(self.proxyd, "alice", PASSWORD + " ")
        self.expect(self.proxyd, "bob@example.org", self.b, "robert")
        self.expect(self.proxyd, "odd(*)\\,+\"<>;=#n\u00e4me", self.a)
        self.expect_no(self.proxyd, "nopassword")
        self.expect(self.proxyd, "nobody", self.b)

    def test_empty_password(self):
        """RFC 4513 §5.1.2: to the directory it would be nobody's login, and succeed."""
        with Lines(self.proxyd.ports["imap"]) as client:
            client.until("* OK")
            self.assertEqual(client.ask('a LOGIN alice ""', "a ")[-1], REFUSED)
        self.assertEqual(self.a.logins, [])

    def test_token(self):
        token = base64.b64encode(b"user=alice\1auth=Bearer x\1\1").decode()
        with Lines(self.proxyd.ports["imap"]) as client:
            client.until("* OK")
            self.assertRegex(client.ask(f"a AUTHENTICATE XOAUTH2 {token}", "a ")[-1], "^a NO ")
        self.assertEqual(self.a.logins + self.b.logins, [])

    def test_many_at_once(self):
        """Each login is answered for its own password, whoever else asks for the same user."""
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda i: self.login(self.proxyd, "alice", [PASSWORD, "wrong"][i % 2]), range(100)))
        self.assertTrue(all(answer.startswith("a OK") for answer in answers[::2]), answers)
        self.assertEqual(set(answers[1::2]), {REFUSED})

    def test_restart_and_hanging(self):
        self.expect(self.proxyd, "alice", self.a)
        self.server.stop()
        self.server.start()
        self.expect(self.proxyd, "alice", self.a)
        self.server.pause()
        answer, seconds = self.timed(self.proxyd, "alice", "wrong")
        self.assertEqual(answer, UNAVAILABLE)
        self.assertLess(seconds, 10)
        self.server.kill()
        self.expect_failure(self.proxyd, "alice")
        self.assertEqual(self.b.logins, [])


class RedisStrings(ServerTest, SourceTest):
    strange = ["odd(*)\\,+\"<>;=#n\u00e4me", "with blank", "%n"]
    unusable = {"list": "WRONGTYPE", "empty@": "names no backend", "strange": '"no such backend" is neither',
                "long": "longer than"}
    fields = ""

    def setUp(self):
        super().setUp()
        self.server = Redis(self.dir)
        self.addCleanup(self.server.stop)
        self.restore()

    def restore(self):
        for user, value in {"alice": "a", "bob@example.org": "robert@b", "carol": "!", "dora": "d@ra@b", "empty@": "@",
                            "strange": "no such backend", "long": "x" * 100_000, **dict.fromkeys(self.strange, "a")}.items():
            self.server.ask("SET", f"user:{user}", value)
        self.server.ask("RPUSH", "user:list", "a")

    def name(self):
        return f"redis 127.0.0.1:{self.server.port}"

    def route(self, place=None, more=""):
        return f"""  - redis:
      {place or f"address: 127.0.0.1:{self.server.port}"}
      key: user:%u
{self.fields}{more}"""

    def test_other_places(self):
        for number, place in enumerate([f"socket: {self.server.socket}", f'address: "[::1]:{self.server.port}"',
                                        f"address: localhost:{self.server.port}"]):
            with self.subTest(place=place):
                proxy = self.start(self.route(place), name=f"proxyd{number}")
                self.expect(proxy, "alice", self.a)

    def test_database_and_password(self):
        self.server.ask("ACL", "SETUSER", "proxy", "on", ">redis secret", "~*", "+get", "+hmget", "+select")
        self.server.ask("ACL", "SETUSER", "default", "resetpass", ">default secret")
        self.server.ask("-n", "3", "SET", "user:alice", "b", password="default secret")
        (self.dir / "redis.pw").write_text("redis secret\n")
        named = self.start(self.route(more="      user: proxy\n      password-file: redis.pw\n"), name="named")
        if not self.fields:
            self.expect(named, "alice", self.a)
            third = self.start(self.route(more="      user: proxy\n      password-file: redis.pw\n      database: 3\n"), name="third")
            self.expect(third, "alice", self.b)
        nobody = self.start(self.route(), name="nobody")
        self.expect_failure(nobody, "alice", "NOAUTH")
        (self.dir / "wrong.pw").write_text("wrong secret\n")
        wrong = self.start(self.route(more="      user: proxy\n      password-file: wrong.pw\n"), name="wrong")
        self.expect_failure(wrong, "alice", "AUTH: WRONGPASS")
        self.assertNotIn("wrong secret", wrong.log())

    def test_a_server_without_auth_is_not_quoted(self):
        """Its error repeats what it was given."""
        self.server.stop()
        self.server.options = ["--rename-command", "AUTH", ""]
        self.server.start()
        (self.dir / "redis.pw").write_text("redis secret\n")
        proxy = self.start(self.route(more="      password-file: redis.pw\n"))
        self.expect_failure(proxy, "alice", "AUTH: ERR")
        self.assertNotIn("redis secret", proxy.log())

    def test_reply_that_trickles(self):
        """A byte now and then does not hold a thread beyond its time."""
        over = threading.Event()
        self.addCleanup(over.set)

        def trickle(connection):
            connection.recv(4096)
            connection.sendall(b"$2000\r\n")
            while not over.wait(0.05):
                connection.sendall(b"x")
        server = self.fake(trickle)
        proxy = self.start(self.route(f"address: 127.0.0.1:{server.port}") + SERVERS_WAIT)
        for _ in range(3):
            answer, seconds = self.timed(proxy, "alice")
            self.assertEqual(answer, UNAVAILABLE)
            self.assertLess(seconds, 6)
        wait_for("the connections are closed", lambda: all(c.fileno() < 0 for c in server.connections))

    def test_nonsense(self):
        for number, words in enumerate([b"hello\r\n", b"$-5\r\n", b"*1000000000\r\n", b":1\r\n", b"+OK\r\n", b"\r\n", b""]):
            with self.subTest(words=words):
                server = self.fake(lambda connection, words=words: (connection.recv(4096), connection.sendall(words)))
                proxy = self.start(self.route(f"address: 127.0.0.1:{server.port}") + SERVERS_WAIT, name=f"proxyd{number}")
                self.expect_failure(proxy, "alice")


class RedisHashes(RedisStrings):
    fields = "      backend-field: backend\n      login-field: login\n"
    unusable = {"list": "WRONGTYPE", "string": "WRONGTYPE", "nobackend": "no field backend"}

    def restore(self):
        for user, fields in {"alice": ("backend", "a"), "bob@example.org": ("backend", "b", "login", "robert"),
                             "carol": ("backend", "!"), "dora": ("backend", "d@ra@b", "login", ""),
                             "nobackend": ("login", "x"), **dict.fromkeys(self.strange, ("backend", "a"))}.items():
            self.server.ask("HSET", f"user:{user}", *fields)
        self.server.ask("RPUSH", "user:list", "a")
        self.server.ask("SET", "user:string", "a")


class FileTest:
    """What has to hold for every file of keys and values. `write` makes it, or replaces it."""

    pairs = {"alice": "a", "bob@example.org": "robert@b", "carol": "!", "@example.com": "b", "user@example.com": "a",
             "empty@": "@", "odd\\*(n\u00e4me": "a"}

    def test_all(self):
        self.write({**self.pairs, **{f"user{i}": "a" for i in range(5000)}})
        proxy = self.start(f"  - {self.kind}: {self.file}\n")
        self.expect(proxy, "ALICE", self.a, "ALICE")
        self.expect(proxy, "bob@example.org", self.b, "robert")
        self.expect(proxy, "x@example.com", self.b)
        self.expect(proxy, "user@example.com", self.a)
        self.expect(proxy, "odd\\*(n\u00e4me", self.a)
        for number in (0, 1, 17, 4999):
            self.expect(proxy, f"user{number}", self.a)
        self.expect_no(proxy, "user5000")
        self.expect_no(proxy, "x@example.net")
        self.expect_all_unknown(proxy)
        self.assertRegex(self.login(proxy, "carol"), "^a NO ")
        self.expect_failure(proxy, "empty@", "names no backend")

    def test_replaced_and_broken(self):
        self.write(self.pairs)
        proxy = self.start(f"  - {self.kind}: {self.file}\n  - default: b\n")
        self.expect(proxy, "alice", self.a)
        self.write({"alice": "b"})
        self.expect(proxy, "alice", self.b)
        whole = self.file.read_bytes()
        # Cut short while it is open, byte by byte of its front: a failure each time, and not a signal.
        for size in (len(whole) // 2, 2048, 100, 7, 0):
            os.truncate(self.file, size)
            self.expect_failure(proxy, "alice")
        self.file.unlink()
        self.expect_failure(proxy, "alice", "there is no such file")
        self.file.write_bytes(whole)
        self.expect(proxy, "alice", self.b)

    def test_what_is_none(self):
        self.write(self.pairs)
        proxy = self.start(f"  - {self.kind}: {self.file}\n")
        for text in (b"", b"no map", b"x" * 100_000):
            self.file.write_bytes(text)
            done = subprocess.run([self.program, "check", "--config", proxy.config], capture_output=True, text=True)
            self.assertEqual(done.returncode, 1, text)
            self.assertIn(f"routes[0].{self.kind}: {self.file}: ", done.stderr)
        self.file.unlink()
        done = subprocess.run([self.program, "check", "--config", proxy.config], capture_output=True, text=True)
        self.assertIn("there is no such file", done.stderr)

    def test_many_at_once_while_it_changes(self):
        self.write({f"user{i}": "a" for i in range(2000)})
        proxy = self.start(f"  - {self.kind}: {self.file}\n")
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            logins = [pool.submit(self.login, proxy, f"user{i}") for i in range(200)]
            for round in range(5):
                self.write({f"user{i}": "ab"[i % 2] for i in range(2000 + round)})
            answers = [login.result() for login in logins]
        self.assertTrue(all(answer.startswith("a OK") for answer in answers), answers)


class CDB(FileTest, SourceTest):
    kind = "cdb"

    def setUp(self):
        super().setUp()
        self.file = self.dir / "map.cdb"

    def write(self, pairs):
        make_cdb(self.file, pairs)


class LMDB(FileTest, SourceTest):
    kind = "lmdb"

    def setUp(self):
        super().setUp()
        self.file = self.dir / "map.lmdb"

    def write(self, pairs):
        fresh = self.dir / "fresh.lmdb"
        make_lmdb(fresh, pairs)
        fresh.rename(self.file)
        (self.dir / "fresh.lmdb-lock").unlink()

    def test_written_in_place(self):
        """Others change the file itself, again and again, while it is read."""
        make_lmdb(self.file, {f"user{i}": "a" for i in range(3000)})
        proxy = self.start(f"  - lmdb: {self.file}\n")
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            logins = [pool.submit(self.login, proxy, f"user{i * 7}") for i in range(400)]
            for round in range(20):
                make_lmdb(self.file, {f"user{i}": "ab"[round % 2] for i in range(3000)})
            answers = [login.result() for login in logins]
        self.assertTrue(all(answer.startswith("a OK") for answer in answers), answers)
        make_lmdb(self.file, {"user1": "b", "long": "x" * 5000, "x" * 400: "b"})
        self.expect(proxy, "user1", self.b)
        self.expect_failure(proxy, "long", "longer than")
        self.expect(proxy, "x" * 400, self.b)


class Crypt(SourceTest):
    """The third column of a query is the password's hash."""

    def setUp(self):
        super().setUp()
        self.database = sqlite3.connect(self.dir / "users.db")
        self.addCleanup(self.database.close)
        self.database.execute("CREATE TABLE accounts(name TEXT PRIMARY KEY, server TEXT, hash TEXT)")
        self.proxyd = self.start("""  - sqlite:
      file: users.db
      query: "SELECT server, NULL, hash FROM accounts WHERE name = :login"
    check-password: crypt
  - default: b
""")

    def insert(self, name, hash, server="a"):
        self.database.execute("INSERT OR REPLACE INTO accounts VALUES(?, ?, ?)", (name, server, hash))
        self.database.commit()

    def test_methods(self):
        methods = {"md5": "$1$", "sha256": "$5$", "sha512": "$6$", "bcrypt": "$2b$", "yescrypt": "$y$", "des": "ab"}
        for name, prefix in methods.items():
            hash = crypted(PASSWORD, prefix, 4 if name == "bcrypt" else 0) if name != "des" else crypted(PASSWORD, "")
            self.insert(name, hash)
            with self.subTest(method=name):
                self.expect(self.proxyd, name, self.a)
                self.expect_no(self.proxyd, name, "wrong")
                self.expect_no(self.proxyd, name, "")
                if name != "des":
                    self.expect_no(self.proxyd, name, PASSWORD + "x")
                self.insert(name, hash[:-1] + ("x" if hash[-1] != "x" else "y"))
                self.assertNotEqual(self.login(self.proxyd, name)[:4], "a OK")

    def test_dovecots_words(self):
        for scheme, prefix in [("CRYPT", "$y$"), ("SHA512-CRYPT", "$6$"), ("sha256-crypt", "$5$"), ("BLF-CRYPT", "$2b$"),
                               ("MD5-CRYPT", "$1$")]:
            self.insert("user", f"{{{scheme}}}{crypted(PASSWORD, prefix, 4 if prefix == '$2b$' else 0)}")
            with self.subTest(scheme=scheme):
                self.expect(self.proxyd, "user", self.a)
                self.expect_no(self.proxyd, "user", "wrong")

    def test_locked(self):
        for hash in ("!", "*", "!!", "!" + crypted(PASSWORD, "$6$"), "*LK*", "{CRYPT}!"):
            self.insert("user", hash)
            with self.subTest(hash=hash):
                self.expect_no(self.proxyd, "user")

    def test_unusable(self):
        """A check that can't be made lets nobody in, sends nobody to the next source, and tells no hash."""
        good = crypted(PASSWORD, "$6$")
        cases = {"{PLAIN}secret-in-row": "{PLAIN}", "{SSHA512}c2VjcmV0LWluLXJvdw==": "{SSHA512}",
                 "{ARGON2ID}$argon2id$v=19$m=65536": "{ARGON2ID}", "secret-in-row": "not the form",
                 "$9$secret-in-row": "does not know its method", "{secret-in-row": "known scheme",
                 "{secret in row}x": "known scheme", "{SECRETINROWSECRETINROWSECRETINROW}x": "known scheme",
                 "{SHA512-CRYPT.b64}" + good: "{SHA512-CRYPT.B64}", "{CRYPT}": "empty", "x": "not the form"}
        for hash, words in cases.items():
            self.insert("user", hash)
            with self.subTest(hash=hash):
                self.expect_failure(self.proxyd, "user", words)
        self.insert("user", None)
        self.expect_failure(self.proxyd, "user", "no password")
        self.assertNotRegex(self.proxyd.log().lower(), "secret.?in.?row|c2vjcmv0")
        self.assertEqual(self.a.logins + self.b.logins, [])

    def test_long_password(self):
        self.insert("user", crypted("x" * 500, "$6$"))
        self.expect(self.proxyd, "user", self.a, password="x" * 500)
        self.expect_no(self.proxyd, "user", "x" * 501)
        self.expect_no(self.proxyd, "user", "x" * 2000)

    def test_next_source_is_not_checked(self):
        self.expect(self.proxyd, "nobody", self.b)

    def test_many_at_once(self):
        self.insert("user", crypted(PASSWORD, "$2b$", 5))
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda i: self.login(self.proxyd, "user", [PASSWORD, "wrong"][i % 2]), range(60)))
        self.assertTrue(all(answer.startswith("a OK") for answer in answers[::2]), answers)
        self.assertEqual(set(answers[1::2]), {REFUSED})


PAM = """auth [success=2 default=ignore] pam_exec.so quiet expose_authtok {script}
auth requisite pam_faildelay.so delay=10000000
auth requisite pam_deny.so
auth required pam_permit.so
account [success=1 default=ignore] pam_exec.so quiet {script}
account requisite pam_deny.so
account required pam_permit.so
"""
SCRIPT = """#!/bin/sh
echo "$PAM_TYPE $PAM_SERVICE $PAM_USER $PAM_RHOST" >> {dir}/asked
case $PAM_TYPE in
auth) exec grep -qxF "$PAM_USER $(tr -d '\\0')" {dir}/users ;;
account) test "$PAM_USER" != expired ;;
esac
"""


class PAMChecks(SourceTest):
    """libpam looks for services in /etc/pam.d only, so this needs root."""

    def setUp(self):
        super().setUp()
        (self.dir / "users").write_text("".join(f"{user} {PASSWORD}\n" for user in ("alice", "expired", "bob@example.org")))
        script = self.dir / "script"
        script.write_text(SCRIPT.format(dir=self.dir))
        script.chmod(0o755)
        self.service = PAMService("check", PAM.format(script=script))
        self.addCleanup(self.service.remove)

    def check(self, more="", routes="  - default: a\n", service=None, **options):
        service = service or self.service
        return self.start(routes, f"password-check: {{{{ pam: {service.name}, timeout: 6s }}}}\n{more}", **options)

    def test_right_and_wrong(self):
        proxy = self.check()
        self.expect(proxy, "alice", self.a)
        answer, seconds = self.timed(proxy, "alice", "wrong")
        self.assertEqual(answer, REFUSED)
        # pam_faildelay's ten seconds would hold a thread; the client waits as long as our own key says.
        self.assertLess(seconds, 9)
        self.expect_no(proxy, "alice", "")
        self.expect_no(proxy, "nobody")
        self.expect_no(proxy, "expired")
        self.assertEqual(self.a.logins, ["alice"])
        asked = (self.dir / "asked").read_text().splitlines()
        self.assertIn(f"auth {self.service.name} alice 127.0.0.1", asked)
        self.assertIn(f"account {self.service.name} alice 127.0.0.1", asked)
        self.assertNotIn(PASSWORD, proxy.log())

    def test_names_are_rewritten(self):
        proxy = self.check("names: {{ strip-domain: [check] }}\n")
        self.expect(proxy, "alice@example.org", self.a)

    def test_token(self):
        proxy = self.check()
        token = base64.b64encode(b"user=alice\1auth=Bearer x\1\1").decode()
        with Lines(proxy.ports["imap"]) as client:
            client.until("* OK")
            self.assertRegex(client.ask(f"a AUTHENTICATE XOAUTH2 {token}", "a ")[-1], "^a NO ")
        self.assertEqual(self.a.logins, [])

    def test_many_at_once(self):
        proxy = self.check()
        with concurrent.futures.ThreadPoolExecutor(12) as pool:
            answers = list(pool.map(lambda i: self.login(proxy, "alice", [PASSWORD, "wrong"][i % 2]), range(48)))
        self.assertTrue(all(answer.startswith("a OK") for answer in answers[::2]), answers)
        self.assertEqual(set(answers[1::2]), {REFUSED})

    def test_broken_service(self):
        """What can't be checked is not let in, and is no wrong password."""
        service = PAMService("broken", "auth required pam_exec.so quiet /nonexistent\naccount required pam_permit.so\n")
        self.addCleanup(service.remove)
        proxy = self.check(service=service)
        self.expect_failure(proxy, "alice")
        self.assertEqual(self.a.logins, [])

    def test_module_that_asks_for_something_else(self):
        """A question that is shown on a screen is none for a password."""
        service = PAMService("echo", "auth required pam_unix.so\naccount required pam_permit.so\n")
        self.addCleanup(service.remove)
        proxy = self.check(service=service)
        self.expect_no(proxy, "no-such-user")

    def test_hanging(self):
        (self.dir / "script").write_text("#!/bin/sh\nexec sleep 30\n")
        proxy = self.check()
        answer, seconds = self.timed(proxy, "alice")
        self.assertEqual(answer, UNAVAILABLE)
        self.assertTrue(5.8 < seconds < 10, seconds)

    def test_unknown_service(self):
        proxy = self.check()
        text = proxy.config.read_text().replace(self.service.name, "proxyd-no-such-service")
        (self.dir / "other.yaml").write_text(text)
        done = subprocess.run([self.program, "check", "--config", self.dir / "other.yaml"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 1)
        self.assertIn("password-check.pam: there is no file /etc/pam.d/proxyd-no-such-service", done.stderr)


if __name__ == "__main__":
    unittest.main()

"""Mail programs from Debian and Python's own clients, at Dovecot and through proxyd: the results are the same."""
import hashlib
import imaplib
import os
import pathlib
import poplib
import random
import re
import select
import ssl
import subprocess
import tempfile
import time
import unittest

from backends import PROTOCOLS, Authority, FullDovecot, free_ports
from clients import TOKENS, SieveClient, encoded
from harness import DEADLINE, PASSWORD, Proxy, TemporaryFolder, quoted, wait_for
from test_logins import Talk

USER, MANY, FEW = "alice@example.com", "many@example.com", "few@example.com"
MESSAGE = f"Subject: this is backend a\r\n\r\nhello {USER}\r\n"
MESSAGES, FEW_MESSAGES = 400, 20
SCRIPT = 'require "fileinto";\nif header :contains "subject" "lists" {\n  fileinto "Lists";\n}\n'

CONFIG = "listeners:" + "".join(f"""
  - {{{{ protocol: {protocol}, address: "127.0.0.1:{{{protocol}}}", tls: starttls, mechanisms: *all }}}}
  - {{{{ protocol: {protocol}, address: "127.0.0.1:{{{protocol}s}}", tls: implicit, mechanisms: *all }}}}"""
                               for protocol in PROTOCOLS).replace(
    "*all", "[plain, login, xoauth2, oauthbearer, scram-sha-256, scram-sha-1]") + """
tls: {{ certificate: {certificate}, key: {key} }}
routes:
  - default: a
backends:
  a:
    address: 127.0.0.1
    ports: {{ imap: {a_imap}, pop3: {a_pop3}, managesieve: {a_managesieve} }}
    tls: starttls
    ca: ca/ca.crt
    tls-name: localhost
"""


def many_messages():
    """Several hundred messages of many sizes, the same at every call."""
    generator = random.Random(5)
    for number in range(MESSAGES):
        lines = [f"Subject: message {number}", f"Message-ID: <{number}@example.com>", ""]
        lines += ["".join(generator.choices("abcdefghij. ", k=70)) for _ in range(generator.randrange(1, 150))]
        yield "\n".join(lines) + "\n"


class ClientTests:
    """The tests; the classes below say what they talk to."""

    @classmethod
    def setUpClass(cls):
        cls.folder = TemporaryFolder()
        cls.addClassCleanup(cls.folder.remove)
        cls.ca = Authority(cls.folder.path)
        cls.certificate = cls.ca.issue("good", ["localhost", "127.0.0.1"])
        cls.dovecot = FullDovecot(cls.folder.path, "a", [USER, MANY, FEW], certificate=cls.certificate)
        cls.addClassCleanup(cls.dovecot.stop)
        for number, message in enumerate(many_messages(), 2):
            cls.dovecot.deliver(MANY, message.encode(), number)
            if number < FEW_MESSAGES + 2:
                cls.dovecot.deliver(FEW, message.encode(), number)
        cls.ports = cls.connect()

    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(dir=self.folder.path))
        self.context = ssl.create_default_context(cafile=self.ca.certificate)

    def run_program(self, *argv, code=0, stdin="", **environment):
        """Runs it, with a home of its own; returns what it says."""
        done = subprocess.run([str(argument) for argument in argv], input=stdin.encode(), capture_output=True,
                              timeout=60, env={**os.environ, "HOME": str(self.dir), **environment})
        out, errors = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        self.assertEqual(done.returncode, code, f"{argv}\n{out[-2000:]}\n{errors[-2000:]}")
        return out

    # openssl s_client

    def s_client(self, port, *options):
        return Talk(["openssl", "s_client", "-connect", f"localhost:{self.ports[port]}", "-CAfile",
                     str(self.ca.certificate), "-verify_return_error", "-verify_hostname", "localhost", *options])

    def imap_dialogue(self, client):
        client.send(f"a LOGIN {USER} {quoted(PASSWORD)}\n")
        client.until("a OK")
        client.send('b LIST "" "*"\n')
        self.assertIn("INBOX", client.until("b OK"))
        client.send("c FETCH 1 BODY\n")
        client.until("c BAD")
        client.send("d LOGOUT\n")
        client.until("d OK")

    def pop3_dialogue(self, client):
        client.send(f"USER {USER}\n")
        client.until("+OK")
        client.send(f"PASS {PASSWORD}\n")
        client.until("+OK Logged in.")
        client.send("LIST\n")
        self.assertIn("\n1 ", client.until("\n."))
        client.send("quit\n")
        client.until("+OK Logging out")

    def sieve_dialogue(self, client):
        client.until('"SASL"')
        client.until("\nOK ")
        client.send(f'AUTHENTICATE "PLAIN" "{encoded(f"{chr(0)}{USER}{chr(0)}{PASSWORD}".encode())}"\n')
        client.until('OK "Logged in."')
        client.send("CAPABILITY\n")
        self.assertIn('"SIEVE"', client.until('OK "Capability completed."'))
        client.send("LOGOUT\n")
        client.until("OK ")

    def test_s_client_imaps(self):
        with self.s_client("imaps") as client:
            client.until("* OK [CAPABILITY")
            self.imap_dialogue(client)

    def test_s_client_imap_starttls(self):
        with self.s_client("imap", "-crlf", "-starttls", "imap") as client:
            client.until("---\n")
            self.imap_dialogue(client)

    def test_s_client_pop3s(self):
        with self.s_client("pop3s") as client:
            client.until("+OK")
            self.pop3_dialogue(client)

    def test_s_client_pop3_starttls(self):
        with self.s_client("pop3", "-crlf", "-starttls", "pop3") as client:
            client.until("---\n")
            self.pop3_dialogue(client)

    def test_s_client_sieve_starttls(self):
        with self.s_client("managesieve", "-crlf", "-starttls", "sieve") as client:
            client.until("---\n")
            self.sieve_dialogue(client)

    def test_s_client_sieve_implicit(self):
        with self.s_client("managesieves") as client:
            self.sieve_dialogue(client)

    # curl

    def curl(self, protocol, transport, path, *options, user=f"{USER}:{PASSWORD}", code=0):
        end = "s" if transport == "implicit" else ""
        options += ("--ssl-reqd",) if transport == "starttls" else ()
        return self.run_program("curl", "--silent", "--show-error", "--max-time", DEADLINE, "--cacert",
                                self.ca.certificate, "--user", user, *options,
                                f"{protocol}{end}://localhost:{self.ports[protocol + end]}/{path}", code=code)

    def test_curl(self):
        for transport in ("none", "starttls", "implicit"):
            for path, expected in (("INBOX;UID=1", MESSAGE), ("", '* LIST (\\HasNoChildren) "." INBOX\r\n')):
                with self.subTest(protocol="imap", transport=transport, path=path):
                    self.assertEqual(self.curl("imap", transport, path), expected)
            for path, expected in (("1", MESSAGE), ("", f"1 {len(MESSAGE)}\r\n")):
                with self.subTest(protocol="pop3", transport=transport, path=path):
                    self.assertEqual(self.curl("pop3", transport, path), expected)

    def test_curl_mechanisms(self):
        """curl 7.88 does not do XOAUTH2 where OAUTHBEARER is offered, whatever it is told."""
        token = ("--oauth2-bearer", self.dovecot.token(USER))
        for protocol, path in (("imap", "INBOX;UID=1"), ("pop3", "1")):
            for mechanism in ("PLAIN", "LOGIN", *TOKENS):
                for initial in ((), ("--sasl-ir",)):
                    with self.subTest(protocol=protocol, mechanism=mechanism, initial=initial):
                        options = ("--login-options", f"AUTH={mechanism}", *initial)
                        user = f"{USER}:{PASSWORD}"
                        if mechanism in TOKENS:
                            options, user = options + token, f"{USER}:"
                        self.assertEqual(self.curl(protocol, "starttls", path, *options, user=user), MESSAGE)
            self.dovecot.wait_login(user=USER, protocol=protocol, method="OAUTHBEARER")

    def test_curl_is_refused(self):
        denied = 67
        bad = ("--oauth2-bearer", self.dovecot.token(USER, expires=1000))
        for protocol in ("imap", "pop3"):
            with self.subTest(protocol=protocol, mechanism="PLAIN"):
                self.curl(protocol, "implicit", "", user=f"{USER}:wrong", code=denied)
            for mechanism in TOKENS:
                with self.subTest(protocol=protocol, mechanism=mechanism):
                    self.curl(protocol, "implicit", "", "--login-options", f"AUTH={mechanism}", *bad, user=f"{USER}:",
                              code=denied)

    def test_curl_uploads(self):
        message = self.dir / "message"
        text = "Subject: uploaded\r\n\r\n" + "0123456789\r\n" * 50_000
        message.write_bytes(text.encode())
        self.curl("imap", "implicit", "", "--request", "CREATE uploads")
        self.curl("imap", "implicit", "uploads", "--upload-file", message)
        self.assertTrue(self.curl("imap", "implicit", "uploads;UID=1") == text, "it changed on its way")

    # Python

    def imap(self, transport):
        if transport == "implicit":
            return imaplib.IMAP4_SSL("localhost", self.ports["imaps"], ssl_context=self.context, timeout=DEADLINE)
        client = imaplib.IMAP4("localhost", self.ports["imap"], timeout=DEADLINE)
        if transport == "starttls":
            client.starttls(self.context)
        return client

    def test_imaplib(self):
        for transport in ("none", "starttls", "implicit"):
            with self.subTest(transport=transport), self.imap(transport) as client:
                self.assertEqual(client.login(USER, PASSWORD)[0], "OK")
                self.assertIn("IDLE", client.capability()[1][0].decode())
                client.select("INBOX")
                self.assertEqual(client.fetch("1", "(BODY[])")[1][0][1].decode(), MESSAGE)
                self.assertEqual(client.uid("search", "subject", '"backend a"'), ("OK", [b"1"]))
        words = {"PLAIN": f"\0{USER}\0{PASSWORD}",
                 "XOAUTH2": f"user={USER}\1auth=Bearer {self.dovecot.token(USER)}\1\1"}
        for mechanism, word in words.items():
            with self.subTest(mechanism=mechanism), self.imap("starttls") as client:
                self.assertEqual(client.authenticate(mechanism, lambda _: word.encode())[0], "OK")
        with self.imap("starttls") as client, self.assertRaisesRegex(imaplib.IMAP4.error, "AUTHENTICATIONFAILED"):
            client.login(USER, "wrong")

    def test_poplib(self):
        for transport in ("none", "starttls", "implicit"):
            with self.subTest(transport=transport):
                if transport == "implicit":
                    client = poplib.POP3_SSL("localhost", self.ports["pop3s"], context=self.context, timeout=DEADLINE)
                else:
                    client = poplib.POP3("localhost", self.ports["pop3"], timeout=DEADLINE)
                    if transport == "starttls":
                        client.stls(self.context)
                self.addCleanup(client.close)
                with self.assertRaisesRegex(poplib.error_proto, r"-ERR \[AUTH\] Authentication failed\."):
                    client.user(USER)
                    client.pass_("wrong")
                client.user(USER)
                client.pass_(PASSWORD)
                self.assertEqual(client.stat(), (1, len(MESSAGE)))
                self.assertEqual(b"\r\n".join(client.retr(1)[1]).decode() + "\r\n", MESSAGE)
                self.assertEqual(len(client.uidl()[1]), 1)
                self.assertIn("TOP", client.capa())
                client.quit()

    # fetchmail

    def fetchmail(self, protocol, transport, code=0):
        end = "s" if transport == "implicit" else ""
        tls = {"none": "sslproto ''", "starttls": "sslproto tls1.2+ sslcertck", "implicit": "ssl sslcertck"}[transport]
        word = "".join(f"\\x{byte:02x}" for byte in PASSWORD.encode())
        rc = self.dir / "fetchmailrc"
        rc.write_text(f'poll localhost service {self.ports[protocol + end]} protocol {protocol} '
                      f'{"uidl" if protocol == "pop3" else ""} user "{FEW}" password "{word}" {tls} '
                      f'sslcertfile {self.ca.certificate} keep no rewrite mda "cat >> {self.dir}/mbox"\n')
        rc.chmod(0o600)
        return self.run_program("fetchmail", "--fetchmailrc", rc, "--nosyslog", "--nodetach", "--idfile", self.dir / "ids",
                                "--pidfile", self.dir / "pid", code=code, FETCHMAILHOME=str(self.dir), LC_ALL="C")

    def fetched(self):
        """The numbers of the messages that fetchmail delivered."""
        return sorted(map(int, re.findall(r"^Subject: message (\d+)$", (self.dir / "mbox").read_text(), re.M)))

    def test_fetchmail(self):
        """Twice, with nothing new the second time, and over each TLS."""
        no_mail = 1
        for transport in ("none", "starttls", "implicit"):
            for protocol in ("pop3", "imap"):
                with self.subTest(protocol=protocol, transport=transport):
                    self.forget_seen()
                    (self.dir / "mbox").write_text("")
                    (self.dir / "ids").unlink(missing_ok=True)
                    self.fetchmail(protocol, transport)
                    self.assertEqual(self.fetched(), list(range(FEW_MESSAGES)))
                    self.fetchmail(protocol, transport, code=no_mail)
                    self.assertEqual(len(self.fetched()), FEW_MESSAGES)

    def forget_seen(self):
        with self.imap("implicit") as client:
            client.login(FEW, PASSWORD)
            client.select("INBOX")
            client.store("1:*", "-FLAGS.SILENT", "(\\Seen)")

    # mbsync

    def mbsync(self, transport, mechanism):
        kind = {"none": "None", "starttls": "STARTTLS", "implicit": "IMAPS"}[transport]
        (self.dir / "mail").mkdir(exist_ok=True)
        (self.dir / "mbsyncrc").write_text(f"""
IMAPAccount far
Host localhost
Port {self.ports["imaps" if transport == "implicit" else "imap"]}
User {MANY}
PassCmd "cat {self.dir}/password"
SSLType {kind}
CertificateFile {self.ca.certificate}
AuthMechs {mechanism}

IMAPStore far
Account far

MaildirStore near
Path {self.dir}/mail/
Inbox {self.dir}/mail/INBOX

Channel all
Far :far:
Near :near:
Create Near
Sync All
SyncState *
""")
        (self.dir / "password").write_text(PASSWORD)
        before = len(self.bodies())
        self.run_program("mbsync", "--config", self.dir / "mbsyncrc", "all")
        return wait_for("the backend's line of the session", lambda: self.bodies()[before:])[0]

    def bodies(self):
        """How many messages each session that has ended took from the backend, by the backend's log."""
        return [int(count) for count in re.findall(rf"imap\({MANY}\)<.* body_count=(\d+)", self.dovecot.log())]

    def mail(self):
        """The messages in the synchronised folder: {name without flags: hash without mbsync's own header}."""
        files = [path for folder in ("new", "cur") for path in (self.dir / "mail" / "INBOX" / folder).iterdir()]
        return {path.name.split(",")[0]:
                hashlib.sha256(re.sub(rb"(?m)^X-TUID: .*\n", b"", path.read_bytes(), count=1)).hexdigest()
                for path in files}

    def test_mbsync(self):
        """Several hundred messages, twice: nothing is copied again."""
        expected = {hashlib.sha256(message.encode()).hexdigest() for message in many_messages()}
        for transport, mechanism in (("starttls", "LOGIN"), ("implicit", "PLAIN"), ("starttls", "SCRAM-SHA-256"),
                                     ("none", "SCRAM-SHA-1")):
            with self.subTest(transport=transport, mechanism=mechanism):
                self.dir = pathlib.Path(tempfile.mkdtemp(dir=self.folder.path))
                self.assertEqual(self.mbsync(transport, mechanism), MESSAGES + 1)
                first = self.mail()
                self.assertLessEqual(expected, set(first.values()))
                self.assertEqual(len(first), MESSAGES + 1)
                self.assertEqual(self.mbsync(transport, mechanism), 0)
                self.assertEqual(self.mail(), first)
                if mechanism.startswith("SCRAM"):
                    self.dovecot.wait_login(user=MANY, method=mechanism)

    def test_mbsync_sends(self):
        self.mbsync("implicit", "LOGIN")
        text = b"Subject: from here\n\n" + b"0123456789\n" * 10_000
        (self.dir / "mail" / "INBOX" / "new" / "1.here").write_bytes(text)
        for _ in range(2):
            self.assertEqual(self.mbsync("implicit", "LOGIN"), 0)
        with self.imap("implicit") as client:
            client.login(MANY, PASSWORD)
            client.select("INBOX")
            number = client.search(None, "SUBJECT", '"from here"')[1][0].decode()
            self.assertRegex(number, r"^\d+$")
            there = client.fetch(number, "(BODY.PEEK[TEXT])")[1][0][1]
            self.assertEqual(there, b"0123456789\r\n" * 10_000)
            client.store(number, "+FLAGS", "\\Deleted")
            client.expunge()

    # neomutt

    def neomutt(self, port, authenticator):
        """Opens INBOX, copies all there is to a file, and leaves; returns the file's text."""
        out, rc = self.dir / "copied", self.dir / "muttrc"
        out.unlink(missing_ok=True)
        rc.write_text(f"""
set imap_user="{USER}"
set imap_pass={quoted(PASSWORD)}
set imap_authenticators="{authenticator}"
set imap_oauth_refresh_command="echo {self.dovecot.token(USER)}"
set certificate_file={self.ca.certificate}
set ssl_force_tls=yes ssl_starttls=yes
set confirmappend=no confirmcreate=no quit=yes delete=no move=no wait_key=no mark_old=no sleep_time=0
push "<tag-pattern>~A<enter><tag-prefix><copy-message><kill-line>{out}<enter><exit>"
""")
        url = f"{port}://localhost:{self.ports[port]}/INBOX"
        screen = in_terminal(["neomutt", "-n", "-F", str(rc), "-f", url], self.dir)
        self.assertTrue(out.exists(), screen[-2000:])
        self.assertIn("this is backend a", screen)
        return out.read_text()

    def test_neomutt(self):
        for port, authenticator in (("imaps", "plain"), ("imap", "login"), ("imap", "oauthbearer"),
                                    ("imaps", "xoauth2")):
            with self.subTest(port=port, authenticator=authenticator):
                lines = self.neomutt(port, authenticator).splitlines()
                self.assertIn("Subject: this is backend a", lines)
                self.assertIn(f"hello {USER}", lines)
                if authenticator.upper() in TOKENS:
                    self.dovecot.wait_login(user=USER, protocol="imap", method=authenticator.upper())

    # ManageSieve

    def sieve_connect(self, *arguments, code=0, password=PASSWORD):
        return self.run_program("sieve-connect", "--server", "localhost", "--port", self.ports["managesieve"], "--user",
                                USER, "--passwordfd", "0", "--tlscafile", self.ca.certificate, *arguments,
                                stdin=password + "\n", code=code)

    def test_sieve_connect(self):
        script = self.dir / "lists.sieve"
        script.write_text(SCRIPT)
        for mechanism in ("PLAIN", "LOGIN"):
            with self.subTest(mechanism=mechanism):
                how = ("--authmech", mechanism)
                self.sieve_connect(*how, "--upload", "--localsieve", script, "--remotesieve", "lists")
                self.sieve_connect(*how, "--activate", "--remotesieve", "lists")
                self.assertIn('"lists" ACTIVE', self.sieve_connect(*how, "--list"))
                self.sieve_connect(*how, "--download", "--remotesieve", "lists", "--localsieve", self.dir / "back")
                self.assertEqual((self.dir / "back").read_text().replace("\r\n", "\n"), SCRIPT)
                self.sieve_connect(*how, "--deactivate")
                self.sieve_connect(*how, "--delete", "--remotesieve", "lists")
                self.assertEqual(self.sieve_connect(*how, "--list").strip(), "")

    def test_sieve_session(self):
        """Scripts as literals both ways, over each TLS."""
        text = SCRIPT + "# " + "x" * 30_000 + "\n"
        for transport in ("none", "starttls", "implicit"):
            port = self.ports["managesieves" if transport == "implicit" else "managesieve"]
            with self.subTest(transport=transport), SieveClient(port, tls=transport) as client:
                self.assertTrue(client.login("SCRAM-SHA-256", USER, PASSWORD).ok)
                client.command(f'PUTSCRIPT "big" {{{len(text)}+}}\r\n{text}', "OK")
                self.assertEqual(client.command("LISTSCRIPTS", "")[0], '"big"')
                got = client.command('GETSCRIPT "big"')
                self.assertEqual(got[0], quoted(text))
                client.command('DELETESCRIPT "big"', "OK")
                client.command(f'PUTSCRIPT "wrong" "{encoded(b"no script")}"', "NO")
                client.log_out()
                self.assertTrue(client.closed())


def in_terminal(argv, home, seconds=DEADLINE):
    """Runs a full-screen program until it ends; returns all it wrote."""
    master, slave = os.openpty()
    process = subprocess.Popen(argv, stdin=slave, stdout=slave, stderr=slave, start_new_session=True, cwd=home,
                               env={**os.environ, "TERM": "vt100", "HOME": str(home), "LC_ALL": "C"})
    os.close(slave)
    screen, end = b"", time.monotonic() + seconds
    try:
        while True:
            if not select.select([master], [], [], max(0, end - time.monotonic()))[0]:
                raise AssertionError(f"{argv[0]} did not end:\n{screen[-2000:].decode(errors='replace')}")
            try:
                data = os.read(master, 65536)
            except OSError:  # how Linux tells that the other side is closed
                data = b""
            if not data:
                break
            screen += data
        process.wait(seconds)
    finally:
        process.kill()
        process.wait()
        os.close(master)
    return screen.decode(errors="replace")


class DirectClients(ClientTests, unittest.TestCase):
    """At Dovecot itself."""

    @classmethod
    def connect(cls):
        return cls.dovecot.ports


class ProxiedClients(ClientTests, unittest.TestCase):
    """Through proxyd, to the same Dovecot by verified STARTTLS."""

    @classmethod
    def connect(cls):
        ports = free_ports(*(protocol + end for protocol in PROTOCOLS for end in ("", "s")))
        cls.proxy = Proxy(cls.folder.path, CONFIG, **ports, certificate=cls.certificate[0], key=cls.certificate[1],
                          **{f"a_{name}": port for name, port in cls.dovecot.ports.items()})
        cls.proxy.start()
        cls.addClassCleanup(cls.proxy.stop)
        return cls.proxy.ports


if __name__ == "__main__":
    unittest.main()

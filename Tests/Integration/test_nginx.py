"""The same scripted sessions through Debian's nginx mail proxy and, on the same ports, through proxyd with the configuration
that `proxyd import nginx` made of nginx's: what differs is exactly what the table below and docs/FromNginx.md say."""
import base64
import concurrent.futures
import os
import subprocess

from harness import PROXYD_ALL, ROOT, Dovecot, ProxyTest, free_port, greets, make_certificate, running
from sources_http import Answerer, NginxMail, says
from test_perdition import SERVICES, TLS, is_implicit, meaning, play

MAIL = """
  server_name localhost;
  auth_http 127.0.0.1:{service}/auth;
  auth_http_header X-Auth-Key "of the site";
  proxy_pass_error_message on;
  ssl_certificate {dir}/mail.crt;
  ssl_certificate_key {dir}/mail.key;
  ssl_protocols TLSv1.2 TLSv1.3;
  imap_capabilities IMAP4rev1 UIDPLUS IDLE LITERAL+;
  server {{ listen 127.0.0.1:{imap4}; protocol imap; starttls on; }}
  server {{ listen 127.0.0.1:{imap4s} ssl; protocol imap; }}
  server {{ listen 127.0.0.1:{pop3}; protocol pop3; starttls on; }}
  server {{ listen 127.0.0.1:{pop3s} ssl; protocol pop3; }}
"""


def sasl(*words):
    return base64.b64encode("\0".join(words).encode()).decode()


# Each scenario: the service, then what the client says.
SCENARIOS = {
    "imap commands before the login": ("imap4", ["a CAPABILITY", "b NOOP", "c LOGOUT"]),
    "imap login": ("imap4", ["a LOGIN alice secret", "b SELECT INBOX", "c LOGOUT"]),
    "imap login with literals": ("imap4", ["a LOGIN {5}", "alice {6}", "secret", "b LOGOUT"]),
    "imap login with non-synchronising literals": ("imap4", ["a LOGIN {5+}\r\nalice {6+}\r\nsecret", "b LOGOUT"]),
    "imap login under another name": ("imap4", ["a LOGIN alias other", "b LOGOUT"]),
    "imap AUTHENTICATE PLAIN": ("imap4", ["a AUTHENTICATE PLAIN " + sasl("", "alice", "secret"), "b LOGOUT"]),
    "imap AUTHENTICATE PLAIN in two steps": (
        "imap4", ["a AUTHENTICATE PLAIN", sasl("", "alice", "secret"), "b LOGOUT"]),
    "imap AUTHENTICATE LOGIN": ("imap4", ["a AUTHENTICATE LOGIN", sasl("alice"), sasl("secret"), "b LOGOUT"]),
    "imap AUTHENTICATE with an authorization identity": (
        "imap4", ["a AUTHENTICATE PLAIN " + sasl("bob", "alice", "secret"), "b LOGOUT"]),
    "imap AUTHENTICATE given up": ("imap4", ["a AUTHENTICATE PLAIN", "*", "b LOGOUT"]),
    "imap wrong password with Auth-Wait, then the right one": (
        "imap4", ["a LOGIN alice wrong", "b LOGIN alice secret", "c LOGOUT"]),
    "imap wrong password without Auth-Wait": ("imap4", ["a LOGIN closed wrong", "b LOGOUT"]),
    "imap wrong password at the backend": ("imap4", ["a LOGIN stale secret", "b LOGOUT"]),
    "imap backend down": ("imap4", ["a LOGIN down secret", "b LOGOUT"]),
    "imap service fails": ("imap4", ["a LOGIN broken secret", "b LOGOUT"]),
    "imap service says no status": ("imap4", ["a LOGIN statusless secret", "b LOGOUT"]),
    "imap service names the host": ("imap4", ["a LOGIN named secret", "b LOGOUT"]),
    "imap ID before the login": ("imap4", ["a ID NIL", "b LOGOUT"]),
    "imap unknown command": ("imap4", ["a SELECT INBOX", "b LOGOUT"]),
    "imap pipelined command": ("imap4", ["a LOGIN alice secret\r\nb NOOP", "c NOOP", "d LOGOUT"]),
    "imap STARTTLS": ("imap4", ["a STARTTLS", TLS, "b CAPABILITY", "c LOGIN alice secret", "d LOGOUT"]),
    "imaps": ("imap4s", [TLS, "a CAPABILITY", "b LOGIN alice secret", "c LOGOUT"]),
    "pop3 commands before the login": ("pop3", ["CAPA", "NOOP", "QUIT"]),
    "pop3 login": ("pop3", ["USER alice", "PASS secret", "STAT", "QUIT"]),
    "pop3 login with blanks in the password": ("pop3", ["USER blank", "PASS pa ss", "QUIT"]),
    "pop3 wrong password with Auth-Wait, then the right one": (
        "pop3", ["USER alice", "PASS wrong", "USER alice", "PASS secret", "QUIT"]),
    "pop3 wrong password without Auth-Wait": ("pop3", ["USER closed", "PASS wrong", "QUIT"]),
    "pop3 backend down": ("pop3", ["USER down", "PASS x", "QUIT"]),
    "pop3 a long password": ("pop3", ["USER alice", "PASS " + "x" * 200, "QUIT"]),
    "pop3 AUTH PLAIN": ("pop3", ["AUTH PLAIN " + sasl("", "alice", "secret"), "QUIT"]),
    "pop3 PASS without USER": ("pop3", ["PASS secret", "QUIT"]),
    "pop3 STLS": ("pop3", ["STLS", TLS, "CAPA", "USER alice", "PASS secret", "QUIT"]),
    "pop3s": ("pop3s", [TLS, "USER alice", "PASS secret", "QUIT"]),
}


# What an answer comes to differs here and nowhere else, for the reason given; docs/FromNginx.md says each in these words.
# Besides, the words of answers are the proxy's own, refusals carry a response code, and IMAP's greeting has the capabilities.
OPEN = "A refused login leaves the connection open."
TEMPORARY = "A backend or a service that can't be used is a temporary failure, and the connection stays open."
STRICT = "A service's answer without Auth-Status, or with a status other than 200, is a failure."
NAMED = "Auth-Server may be a host's name, and a v6 address in brackets."
IDENTITY = "An authorization identity is not dropped."
ID = "ID is answered before the login."
LONG = "Long passwords and tokens are taken in POP3, too."
DIFFERENCES = {
    ("imap wrong password without Auth-Wait", "b LOGOUT"): OPEN,
    ("imap wrong password at the backend", "b LOGOUT"): OPEN,
    ("pop3 wrong password without Auth-Wait", "QUIT"): OPEN,
    ("imap backend down", "a LOGIN down secret"): TEMPORARY,
    ("imap backend down", "b LOGOUT"): TEMPORARY,
    ("pop3 backend down", "QUIT"): TEMPORARY,
    ("imap service fails", "a LOGIN broken secret"): STRICT,
    ("imap service says no status", "a LOGIN statusless secret"): STRICT,
    ("imap service names the host", "a LOGIN named secret"): NAMED,
    ("imap service names the host", "b LOGOUT"): NAMED,
    ("imap AUTHENTICATE with an authorization identity",
     "a AUTHENTICATE PLAIN " + sasl("bob", "alice", "secret")): IDENTITY,
    ("imap ID before the login", "a ID NIL"): ID,
    ("pop3 a long password", "QUIT"): LONG,
}


class NginxTests(ProxyTest):
    maxDiff = None

    def setUp(self):
        super().setUp()
        make_certificate(self.dir)
        os.chmod(self.dir / "mail.key", 0o644)
        self.dovecot = Dovecot(self.dir, "a", ["alice", "bob"], "secret")
        self.addCleanup(self.dovecot.stop)
        with open(self.dovecot.dir / "passwd", "a") as passwd:
            passwd.write("blank:{PLAIN}pa ss\n")
        self.closed = free_port()
        self.service = Answerer(self.answer)
        self.addCleanup(self.service.stop)

    def answer(self, request):
        """What a site's service says: it knows some users, and has some faults."""
        user, password = request["Auth-User"].decode(), request["Auth-Pass"].decode()
        port = self.dovecot.pop3 if request["Auth-Protocol"] == b"pop3" else self.dovecot.imap
        place = ["Auth-Server: 127.0.0.1", f"Auth-Port: {port}"]
        okay = ["Auth-Status: OK", *place]
        users = {"alice": "secret", "blank": "pa%20ss"}
        if request["X-Auth-Key"] != b"of the site":
            return says("Auth-Status: the key is wrong")
        if users.get(user) == password or user == "stale":
            return says(*okay)
        if user == "alias":
            return says(*okay, "Auth-User: alice", "Auth-Pass: secret")
        if user == "named":
            return says("Auth-Status: OK", "Auth-Server: localhost", place[1], "Auth-User: alice")
        if user == "down":
            return says("Auth-Status: OK", place[0], f"Auth-Port: {self.closed}")
        if user == "broken":
            return says(*okay, "Auth-User: alice", status="500 Oops")
        if user == "statusless":
            return says(*place, "Auth-User: alice")
        wait = [] if user == "closed" else ["Auth-Wait: 1"]
        return says("Auth-Status: Invalid login or password", *wait)

    def play(self, ports):
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            played = {name: pool.submit(play, service, ports[service], steps)
                      for name, (service, steps) in SCENARIOS.items()}
            return {name: future.result() for name, future in played.items()}

    def test_the_same_sessions(self):
        ports = {name: free_port() for name in SERVICES if name != "managesieve"}
        nginx = NginxMail(self.dir, MAIL.format(dir=self.dir, service=self.service.port, **ports),
                          {port: {"tls": is_implicit(name)} for name, port in ports.items()})
        try:
            theirs = self.play(ports)
        finally:
            nginx.stop()
        out = self.dir / "out"
        done = subprocess.run([PROXYD_ALL, "import", "nginx", nginx.dir / "nginx.conf", "--output", out],
                              capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("proxyd.yaml: ok", done.stdout)
        self.assertEqual(os.stat(out / "auth_http.headers").st_mode & 0o777, 0o600)
        self.assertNotIn("of the site", (out / "proxyd.yaml").read_text() + (out / "report.txt").read_text())
        proxy = running(PROXYD_ALL, out / "proxyd.yaml", self.dir / "proxyd.log")
        try:
            proxy.wait_ready("proxyd", *(lambda name=name, port=port: greets(port, tls=is_implicit(name))
                                         for name, port in ports.items()))
            ours = self.play(ports)
        finally:
            proxy.stop()
        found = {}
        for name, (service, _) in SCENARIOS.items():
            for (step, their_lines), (_, our_lines) in zip(theirs[name], ours[name]):
                protocol = SERVICES[service]
                if step == "(greeting)":
                    words = 2 if protocol == "imap" else 1
                    self.assertEqual([line.split()[:words] for line in their_lines],
                                     [line.split()[:words] for line in our_lines])
                elif meaning(protocol, their_lines) != meaning(protocol, our_lines):
                    found[(name, step)] = (their_lines, our_lines)
        self.assertEqual(set(found), set(DIFFERENCES),
                         {key: found.get(key) for key in set(found) ^ set(DIFFERENCES)})
        for name, transcript in ours.items():
            self.assertEqual(transcript[-1][1][-1], "<closed>", name)

    def test_the_page_tells_all_differences(self):
        page = " ".join((ROOT / "docs" / "FromNginx.md").read_text().split())
        for reason in set(DIFFERENCES.values()):
            self.assertIn(reason.rstrip("."), page)

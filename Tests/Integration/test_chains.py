"""proxyd behind and before other proxies: the last backend knows where the client came from. And what sslscan says."""
import contextlib
import itertools
import re
import subprocess
import unittest
import xml.etree.ElementTree

from backends import CLIENT_ADDRESS, PROTOCOLS, Authority, FullDovecot, HAProxy, free_ports
from clients import CLIENTS, TRANSPORTS, connected
from harness import DEADLINE, PASSWORD, Proxy, TemporaryFolder, wait_for

USER = "alice@example.com"
# Where the client comes from, and where it then connects to.
SOURCES = ((CLIENT_ADDRESS, "127.0.0.1"), ("::1", "::1"))
PORT_NAMES = [protocol + end for protocol in PROTOCOLS for end in ("", "s")]


def listeners(*, starttls=True, implicit=True, rest="", mechanisms="plain, login, xoauth2, oauthbearer, scram-sha-256"):
    """Listeners of all protocols on both loopback addresses, on the ports {imap}, {imaps} and so on."""
    lines = []
    for protocol in PROTOCOLS:
        for end, tls, wanted in (("", "starttls", starttls), ("s", "implicit", implicit)):
            for address in ("127.0.0.1", "[::1]") if wanted else ():
                lines.append(f'  - {{{{ protocol: {protocol}, address: "{address}:{{{protocol}{end}}}", tls: {tls}, '
                             f'mechanisms: [{mechanisms}]{rest} }}}}\n')
    return "listeners:\n" + "".join(lines)


def configuration(backend, *, before="", **options):
    """proxyd's, with one backend: the YAML of it, with {b_imap} and so on for its ports."""
    return f"""
{listeners(**options)}
{before}
tls: {{{{ certificate: {{certificate}}, key: {{key}} }}}}
routes:
  - default: b
backends:
  b: {{{{ address: 127.0.0.1, {backend} }}}}
timeouts: {{{{ failure-delay: 0 }}}}
"""


CLEAR = "tls: off, ports: {{ imap: {b_imap}, pop3: {b_pop3}, managesieve: {b_managesieve} }}"
STARTTLS = CLEAR.replace("off", "starttls") + ", ca: ca/ca.crt, tls-name: localhost"
IMPLICIT = ("tls: implicit, ports: {{ imap: {b_imaps}, pop3: {b_pop3s}, managesieve: {b_managesieves} }}, "
            "ca: ca/ca.crt, tls-name: localhost")
TRUSTING = 'trusted-proxies: ["127.0.0.1", "::1"]'


class ChainTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = TemporaryFolder()
        cls.addClassCleanup(cls.folder.remove)
        cls.ca = Authority(cls.folder.path)
        cls.certificate = cls.ca.issue("good", ["localhost", "127.0.0.1"])
        cls.dovecot = FullDovecot(cls.folder.path, "last", [USER], certificate=cls.certificate)
        cls.addClassCleanup(cls.dovecot.stop)

    def proxy(self, name, ports, config, own=None):
        """A proxyd whose backend has these ports; its files have the test's name, so that its log begins anew."""
        certificate, key = self.certificate
        proxy = Proxy(self.folder.path, config, f"{self._testMethodName}-{name}", certificate=certificate, key=key,
                      **(own or free_ports(*PORT_NAMES)), **{f"b_{key}": port for key, port in ports.items()})
        proxy.start()
        self.addCleanup(proxy.stop)
        return proxy

    def log_in(self, ports, protocol, transport, source, host, mechanism="PLAIN"):
        """Logs in and out; returns the address and the port it came from."""
        port = ports[protocol + ("s" if transport == "implicit" else "")]
        with CLIENTS[protocol](port, host=host, tls=transport, source=source) as client:
            word = self.dovecot.token(USER) if mechanism == "XOAUTH2" else PASSWORD
            result = client.login(mechanism, USER, word)
            self.assertTrue(result.ok, result)
            self.assertTrue(client.works())
            client.log_out()
            return client

    def check(self, ports, proxies, *, transports=TRANSPORTS, mechanisms=("PLAIN",), same_session=True, without=()):
        """A client of each kind is known to the last backend, and by the same session to all on the way."""
        cases = itertools.product(PROTOCOLS, transports, mechanisms, SOURCES)
        for protocol, transport, mechanism, (source, host) in cases:
            if (protocol, transport) in without:
                continue
            with self.subTest(protocol=protocol, transport=transport, mechanism=mechanism, source=source):
                client = self.log_in(ports, protocol, transport, source, host, mechanism)
                login = self.dovecot.wait_login(protocol=protocol, rip=source, rport=str(client.port))
                self.assertEqual(login["user"], USER)
                for proxy in proxies if same_session else ():
                    session = proxy.wait_session(session=login["session"])
                    self.assertEqual(session["login"], USER)


class TwoProxyds(ChainTest):
    MECHANISMS = ("PLAIN", "XOAUTH2", "SCRAM-SHA-256")

    def chain(self, link, **options):
        inner = self.proxy("inner", self.dovecot.ports, configuration(STARTTLS, before=TRUSTING))
        outer = self.proxy("outer", inner.ports, configuration(link, **options))
        return outer, inner

    def test_in_clear(self):
        outer, inner = self.chain(CLEAR)
        self.check(outer.ports, (outer, inner))

    def test_starttls(self):
        outer, inner = self.chain(STARTTLS)
        self.check(outer.ports, (outer, inner), transports=("starttls",), mechanisms=self.MECHANISMS)

    def test_implicit(self):
        outer, inner = self.chain(IMPLICIT)
        self.check(outer.ports, (outer, inner), transports=("implicit",), mechanisms=self.MECHANISMS)

    def test_proxy_protocol_between(self):
        """The inner one takes a PROXY header instead of believing ID and XCLIENT."""
        own = free_ports(*PORT_NAMES)
        config = configuration(STARTTLS, rest=', proxy-protocol: ["127.0.0.0/8"]')
        inner = self.proxy("inner", self.dovecot.ports, config, own=own)
        outer = self.proxy("outer", own, configuration(STARTTLS + ", proxy-protocol: v2"))
        self.check(outer.ports, (inner,), transports=("implicit",))

    def test_nobody_else_is_believed(self):
        """Whoever is not among the trusted proxies may say what he likes."""
        config = configuration(STARTTLS, before='trusted-proxies: ["192.0.2.1"]')
        proxy = self.proxy("inner", self.dovecot.ports, config)
        for protocol in PROTOCOLS:
            with self.subTest(protocol=protocol):
                with CLIENTS[protocol](proxy.ports[protocol], source=CLIENT_ADDRESS) as client:
                    if protocol == "imap":
                        client.ask('i ID ("x-originating-ip" "192.0.2.99" "x-originating-port" "99" '
                                   '"x-session-id" "forged")', "i OK")
                    else:
                        client.send("XCLIENT ADDR=192.0.2.99 PORT=99 SESSION=forged\r\n")
                        client.next()
                    self.assertTrue(client.login("PLAIN", USER, PASSWORD).ok)
                    client.log_out()
                self.dovecot.wait_login(protocol=protocol, rip=CLIENT_ADDRESS, rport=str(client.port))
        self.assertNotIn("192.0.2.99", self.dovecot.log())
        self.assertNotIn("session=<forged>", self.dovecot.log())


class Loops(ChainTest):
    """A proxy that leads to itself ends in one answer, soon."""

    CODES = {"imap": {"SERVERBUG", "UNAVAILABLE"}, "pop3": {"SYS/PERM", "SYS/TEMP"},
             "managesieve": {"TRYLATER", "TRYLATER/NORETRY"}}

    def expect_end(self, proxies):
        for protocol in PROTOCOLS:
            with self.subTest(protocol=protocol):
                with CLIENTS[protocol](proxies[0].ports[protocol], source=CLIENT_ADDRESS) as client:
                    result = client.login("PLAIN", USER, PASSWORD)
                    self.assertFalse(result.ok, result)
                    self.assertIn(result.code, self.CODES[protocol], result)
        for proxy in proxies:
            wait_for("all sessions have ended", lambda: not established(proxy))
        self.assertLess(sum(len(proxy.sessions()) for proxy in proxies), 10 * len(PROTOCOLS))

    def test_itself(self):
        own = free_ports(*PORT_NAMES)
        self.expect_end([self.proxy("loop", own, configuration(CLEAR, before=TRUSTING), own=own)])

    def test_one_another(self):
        here, there = free_ports(*PORT_NAMES), free_ports(*PORT_NAMES)
        config = configuration(CLEAR, before=TRUSTING)
        self.expect_end([self.proxy("here", there, config, own=here), self.proxy("there", here, config, own=there)])


def established(proxy):
    """Connections on the proxy's ports."""
    done = subprocess.run(["ss", "-Htn", "state", "established"], capture_output=True, text=True, check=True)
    return [line for line in done.stdout.splitlines()
            if any(f":{proxy.ports[name]} " in line + " " for name in PORT_NAMES)]


class BehindDovecot(ChainTest):
    """A Dovecot proxy in front, as at a site that moves step by step."""

    def front(self, target, fields):
        """It passes all users on, to a port for each protocol."""
        name = f"{self._testMethodName}-front"
        table = self.ca.dir / name
        services = zip(PROTOCOLS, ("imap", "pop3", "sieve"))
        table.write_text("".join(
            f"{service}:::::::proxy=y host=127.0.0.1 port={target[protocol]} nopassword=y {fields}\n"
            for protocol, service in services))
        passdb = f"passdb {{\n  driver = passwd-file\n  args = username_format=%s {table}\n}}\n"
        front = DovecotProxy(self.folder.path, name, [USER], certificate=self.certificate, extra=passdb)
        self.addCleanup(front.stop)
        return front

    def check_fields(self, fields):
        proxy = self.proxy("behind", self.dovecot.ports, configuration(STARTTLS, before=TRUSTING))
        front = self.front(proxy.ports, fields)
        without = [("managesieve", "implicit")]  # Dovecot has no such port
        self.check(front.ports, (proxy,), without=without)
        sessions = {login["session"] for login in self.dovecot.logins()}
        count = (len(PROTOCOLS) * len(TRANSPORTS) - len(without)) * len(SOURCES)
        wait_for("the front tells of them all", lambda: front.log().count("Started proxying to ") >= count)
        started = re.findall(r"Started proxying to .*session=<([^>]*)>", front.log())
        self.assertEqual(len(started), count, front.log()[-3000:])
        self.assertLessEqual(set(started), sessions)

    def test_in_clear(self):
        self.check_fields("")

    def test_starttls(self):
        self.check_fields("starttls=any-cert")

    def test_the_mechanism_is_kept(self):
        self.check_fields("proxy_mech=%m")


class DovecotProxy(FullDovecot):
    """Knows no user: whoever comes is passed on."""

    def configuration(self):
        extra, self.extra = self.extra, ""
        text = re.sub(r"(?ms)^passdb \{.*?^\}\n", "", super().configuration())
        return re.sub(r"(?m)^auth_mechanisms = .*$", "auth_mechanisms = plain login", text) + extra


class BehindHAProxy(ChainTest):
    """HAProxy spreads TCP connections and tells by the PROXY protocol where they came from."""

    def haproxy(self, target, option, tls=False):
        """On ports of its own, each for the one of the same name there or, if it ends TLS, for the one without."""
        ports = free_ports(*PORT_NAMES)
        listens = {}
        for name, port in ports.items():
            binds = [(address, port, self.certificate if tls else None) for address in ("127.0.0.1", "::1")]
            listens[name] = (binds, target[name.removesuffix("s") if tls else name])
        front = HAProxy(self.folder.path, listens, option)
        self.addCleanup(front.stop)
        return ports

    def front(self, option, tls=False):
        config = configuration(STARTTLS, rest=', proxy-protocol: ["127.0.0.0/8"]')
        proxy = self.proxy("behind", self.dovecot.ports, config)
        return self.haproxy(proxy.ports, option, tls), proxy

    def test_version_1(self):
        ports, proxy = self.front("send-proxy")
        self.check(ports, (proxy,))

    def test_version_2(self):
        ports, proxy = self.front("send-proxy-v2")
        self.check(ports, (proxy,))

    def test_version_2_after_tls(self):
        """HAProxy ends the TLS and tells of it."""
        ports, proxy = self.front("send-proxy-v2-ssl-cn", tls=True)
        self.check(ports, (proxy,), transports=("implicit",))

    def test_only_with_a_header_and_only_from_there(self):
        header = b"PROXY TCP4 192.0.2.9 192.0.2.10 1 2\r\n"
        proxy = self.proxy("strict", self.dovecot.ports,
                           configuration(STARTTLS, rest=', proxy-protocol: ["127.0.0.9"]', implicit=False))
        cases = {"no header": ("127.0.0.9", b"x NOOP\r\n"), "garbage": ("127.0.0.9", b"PROXY TCP4 bogus\r\n"),
                 "no version 2": ("127.0.0.9", b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c" + b"\0" * 12),
                 "another network": (CLIENT_ADDRESS, header)}
        for protocol in PROTOCOLS:
            for name, (source, preface) in cases.items():
                with self.subTest(protocol=protocol, case=name):
                    self.assertEqual(said_before_closing(proxy.ports[protocol], source, preface), b"")
            with self.subTest(protocol=protocol, case="good"):
                with CLIENTS[protocol](proxy.ports[protocol], source="127.0.0.9", preface=header) as client:
                    self.assertTrue(client.login("PLAIN", USER, PASSWORD).ok)
                self.dovecot.wait_login(protocol=protocol, rip="192.0.2.9", rport="1")


def said_before_closing(port, source, data):
    """What the server says to this until it closes the connection, which it must."""
    said = b""
    with connected("127.0.0.1", port, source, DEADLINE) as client, contextlib.suppress(ConnectionError):
        client.sendall(data)
        while received := client.recv(65536):
            said += received
    return said


class ProxyProtocolOut(ChainTest):
    """To Dovecot's listeners with haproxy=yes.

    Dovecot believes ID and XCLIENT by the address in the header, the client's: so it names the session itself."""

    def check_version(self, version, link):
        ports = {protocol: self.dovecot.ports[f"{protocol}_haproxy"] for protocol in PROTOCOLS}
        proxy = self.proxy(f"out{version}", ports, configuration(f"{link}, proxy-protocol: {version}"))
        self.check(proxy.ports, (proxy,), same_session=False)

    def test_version_1(self):
        self.check_version("v1", CLEAR)

    def test_version_2(self):
        self.check_version("v2", CLEAR)

    def test_version_2_and_starttls(self):
        self.check_version("v2", STARTTLS)

    def test_version_1_and_starttls(self):
        self.check_version("v1", STARTTLS)


class Scans(ChainTest):
    """sslscan at every port that has TLS, with the default settings."""

    def scan(self, port, *options):
        done = subprocess.run(["sslscan", "--xml=-", "--no-colour", *options, f"localhost:{port}"], capture_output=True,
                              text=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)
        tree = xml.etree.ElementTree.fromstring(done.stdout.strip()).find("ssltest")
        self.assertIsNotNone(tree, done.stdout)
        return tree

    def check_scan(self, tree):
        enabled = {(item.get("type"), item.get("version")) for item in tree.iter("protocol")
                   if item.get("enabled") == "1"}
        self.assertEqual(enabled, {("tls", "1.2"), ("tls", "1.3")})
        self.assertEqual({item.get("supported") for item in tree.iter("renegotiation")}, {"0"})
        self.assertLessEqual({item.get("supported") for item in tree.iter("compression")}, {"0"})
        heartbleed = [item.get("vulnerable") for item in tree.iter("heartbleed")]
        self.assertEqual(set(heartbleed), {"0"})
        ciphers = list(tree.iter("cipher"))
        self.assertEqual({item.get("sslversion") for item in ciphers}, {"TLSv1.2", "TLSv1.3"})
        for item in ciphers:
            with self.subTest(cipher=item.get("cipher")):
                self.assertIn(item.get("strength"), ("strong", "acceptable"))
                self.assertGreaterEqual(int(item.get("bits")), 128)
                self.assertRegex(item.get("cipher"), r"^(TLS_|ECDHE-|DHE-)")
                self.assertRegex(item.get("cipher"), r"GCM|CHACHA20|CCM$")
        groups = list(tree.iter("group"))
        self.assertTrue(groups)
        for item in groups:
            with self.subTest(group=item.get("name")):
                self.assertGreaterEqual(int(item.get("bits")), 112)
        certificate = next(tree.iter("certificate"))
        self.assertEqual(certificate.findtext("expired"), "false")
        self.assertEqual(certificate.findtext("self-signed"), "false")
        self.assertEqual(certificate.find("pk").get("error"), "false")

    def test_default_settings(self):
        proxy = self.proxy("scanned", self.dovecot.ports, configuration(CLEAR))
        for port, *options in (("imaps",), ("pop3s",), ("managesieves",), ("imap", "--starttls-imap"),
                               ("pop3", "--starttls-pop3")):
            with self.subTest(port=port):
                self.check_scan(self.scan(proxy.ports[port], *options))


if __name__ == "__main__":
    unittest.main()

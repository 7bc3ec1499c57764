"""Every protocol, mechanism and TLS, to Dovecot and through proxyd, with the backend's own log as the witness."""
import concurrent.futures
import itertools
import json
import ssl
import unittest

from backends import (CLIENT_ADDRESS, EXPIRED, MASTER, MASTER_PASSWORD, PROTOCOLS, Authority, FullDovecot, free_ports,
                      pin, self_signed)
from clients import CLIENTS, COMMAND, MECHANISMS, TOKENS, TRANSPORTS, ways
from harness import PASSWORD, Dovecot, Proxy, TemporaryFolder, make_map, unverified, wait_for

USER = "alice@example.com"

# What a client is told about a wrong password or token: (response code, text).
REFUSED = {
    "imap": ("AUTHENTICATIONFAILED", "a NO [AUTHENTICATIONFAILED] Authentication failed."),
    "pop3": ("AUTH", "-ERR [AUTH] Authentication failed."),
    "managesieve": ("", 'NO "Authentication failed."'),
}
# And about a backend that must not be trusted. A mail program does not ask for the password again then.
TEMPORARY = {"imap": {"UNAVAILABLE", "SERVERBUG"}, "pop3": {"SYS/TEMP", "SYS/PERM"},
             "managesieve": {"TRYLATER", "TRYLATER/NORETRY"}}
# What the challenge says about a token that is not good.
TOKEN_STATUS = {"XOAUTH2": "401", "OAUTHBEARER": "invalid_token"}


def secret(backend, mechanism, user=USER, right=True):
    if mechanism in TOKENS:
        return backend.token(user) if right else backend.token(user, expires=1000)
    return PASSWORD if right else "wrong"


def presenting(certificate):
    """A context that shows a client certificate."""
    context = unverified()
    context.load_cert_chain(*certificate)
    return context


def in_parallel(work, cases):
    """Runs the work on each case; returns [(case, what it returned or raised)]."""
    def run(case):
        try:
            return case, work(*case)
        except Exception as error:
            return case, error
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        return list(pool.map(run, cases))


class MatrixTest(unittest.TestCase):
    """A folder, an authority and certificates of its own."""

    @classmethod
    def setUpClass(cls):
        cls.folder = TemporaryFolder()
        cls.addClassCleanup(cls.folder.remove)
        cls.ca = Authority(cls.folder.path)
        cls.good = cls.ca.issue("good", ["mail-a.example.net", "localhost", "127.0.0.1"])

    @classmethod
    def backend(cls, name, users, **options):
        backend = FullDovecot(cls.folder.path, name, users, certificate=cls.good, **options)
        cls.addClassCleanup(backend.stop)
        return backend

    def expect_login(self, client, mechanism, user, word, **options):
        result = client.login(mechanism, user, word, **options)
        self.assertTrue(result.ok, result)
        self.assertTrue(client.works(), "logged in and may do nothing")

    def expect_refused(self, results):
        """Each of them was told that the password is wrong, or of the token first."""
        for (protocol, mechanism, *rest), result in results:
            with self.subTest(protocol=protocol, mechanism=mechanism, rest=rest):
                if isinstance(result, Exception):
                    raise result
                self.assertFalse(result.ok)
                self.assertEqual((result.code, result.final), REFUSED[protocol])
                if mechanism in TOKENS:
                    status = json.loads(result.challenges[-1])
                    self.assertEqual(status["status"], TOKEN_STATUS[mechanism])
                    self.assertIn("openid-configuration", status)


class DirectToDovecot(MatrixTest):
    """What Dovecot itself does, so that the tests below compare with the truth."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.expired = cls.ca.issue("expired", ["mail-a.example.net"], period=EXPIRED)
        cls.alice = cls.ca.issue("alice", common_name=USER)
        cls.dovecot = cls.backend("a", [USER], certificates={"127.0.0.11": cls.expired}, client_ca=cls.ca.certificate)

    def client(self, protocol, transport, **options):
        port = self.dovecot.ports[protocol + ("s" if transport == "implicit" else "")]
        return CLIENTS[protocol](port, tls=transport, **options)

    def test_every_login(self):
        for protocol, transport in itertools.product(PROTOCOLS, TRANSPORTS):
            for mechanism, initial, form in ways(protocol):
                case = dict(protocol=protocol, transport=transport, mechanism=mechanism, initial=initial, form=form)
                with self.subTest(**case), self.client(protocol, transport) as client:
                    word = secret(self.dovecot, mechanism)
                    self.expect_login(client, mechanism, USER, word, initial=initial, form=form)
                    client.log_out()

    def test_every_refusal(self):
        def work(protocol, mechanism, initial, form):
            with self.client(protocol, "none") as client:
                wrong = secret(self.dovecot, mechanism, right=False)
                result = client.login(mechanism, USER, wrong, initial=initial, form=form)
                self.expect_login(client, "PLAIN", USER, PASSWORD)
                return result
        self.expect_refused(in_parallel(work, [(protocol, *way) for protocol in PROTOCOLS for way in ways(protocol)]))

    def test_bad_tokens(self):
        """A signature that is not the key's, a token of somebody else, one that is none."""
        token = self.dovecot.token(USER)
        other = self.dovecot.token("bob@example.com")
        bad = {"signature": token[:-6] + "AAAAAA", "somebody else": other, "garbage": "x"}

        def work(protocol, mechanism, name):
            with self.client(protocol, "none") as client:
                return client.login(mechanism, USER, bad[name])
        self.expect_refused(in_parallel(work, itertools.product(PROTOCOLS, TOKENS, bad)))

    def test_announced_mechanisms(self):
        for protocol in PROTOCOLS:
            with self.subTest(protocol=protocol), self.client(protocol, "starttls") as client:
                self.assertEqual(set(client.mechanisms()), {*MECHANISMS, "EXTERNAL"})

    def test_external(self):
        for protocol, transport, initial in itertools.product(PROTOCOLS, TRANSPORTS[1:], (True, False)):
            if (protocol, transport) == ("managesieve", "implicit"):
                continue  # that TLS is HAProxy's
            with self.subTest(protocol=protocol, transport=transport, initial=initial):
                with self.client(protocol, transport, context=presenting(self.alice)) as client:
                    self.expect_login(client, "EXTERNAL", "", "", initial=initial)

        def work(protocol, *_):
            with self.client(protocol, "starttls") as client:
                return client.login("EXTERNAL", "", "")
        self.expect_refused(in_parallel(work, [(protocol, "EXTERNAL") for protocol in PROTOCOLS]))

    def test_master_users(self):
        for protocol in PROTOCOLS:
            with self.subTest(protocol=protocol):
                with self.client(protocol, "none") as client:
                    self.expect_login(client, "PLAIN", MASTER, MASTER_PASSWORD, authzid=USER)
                with self.client(protocol, "none") as client:
                    self.expect_login(client, "PLAIN", f"{USER}*{MASTER}", MASTER_PASSWORD)

    def test_who_the_client_is(self):
        """The log knows the address by TCP, by PROXY protocol, by ID and by XCLIENT."""
        for protocol in PROTOCOLS:
            with self.subTest(protocol=protocol):
                with self.client(protocol, "none", source=CLIENT_ADDRESS) as client:
                    self.expect_login(client, "PLAIN", USER, PASSWORD)
                    self.dovecot.wait_login(protocol=protocol, rip=CLIENT_ADDRESS, rport=str(client.port))
                header = b"PROXY TCP4 192.0.2.1 192.0.2.2 1001 143\r\n"
                with CLIENTS[protocol](self.dovecot.ports[protocol + "_haproxy"], preface=header) as client:
                    self.expect_login(client, "PLAIN", USER, PASSWORD)
                self.dovecot.wait_login(protocol=protocol, rip="192.0.2.1", rport="1001", real_rip="127.0.0.1")
                with self.client(protocol, "starttls") as client:
                    if protocol == "imap":
                        client.ask('i ID ("x-session-id" "abc-imap" "x-originating-ip" "2001:db8::3" '
                                   '"x-originating-port" "1003" "x-proxy-ttl" "4")', "i OK")
                    else:
                        client.send(f"XCLIENT ADDR=2001:db8::3 PORT=1003 SESSION=abc-{protocol} TTL=4\r\n")
                        self.assertIn(client.next(), ("+OK Updated", 'OK "Updated"'))
                    self.expect_login(client, "PLAIN", USER, PASSWORD)
                self.dovecot.wait_login(protocol=protocol, rip="2001:db8::3", rport="1003", session=f"abc-{protocol}",
                                        real_rip="127.0.0.1", transport="TLS")

    def test_certificates_by_address(self):
        for address, (certificate, _) in (("127.0.0.1", self.good), ("127.0.0.11", self.expired)):
            with self.subTest(address=address), self.client("imap", "starttls", host=address) as client:
                served = ssl.DER_cert_to_PEM_cert(client.socket.getpeercert(binary_form=True))
                self.assertEqual(served, certificate.read_text())


LISTENERS = "".join(f"""
  - {{{{ protocol: {protocol}, address: "127.0.0.1:{{{protocol}}}", tls: starttls, mechanisms: *all }}}}
  - {{{{ protocol: {protocol}, address: "127.0.0.1:{{{protocol}s}}", tls: implicit, mechanisms: *all }}}}"""
                    for protocol in PROTOCOLS).replace(
    "*all", "[plain, login, xoauth2, oauthbearer, scram-sha-256, scram-sha-1, external]")

TLS = """
tls:
  certificate: {proxy_certificate}
  key: {proxy_key}
  client-certificates: request
  client-ca: ca/ca.crt
  client-name: cn
"""

PORTS = {
    False: "{{ imap: {a_imap}, pop3: {a_pop3}, managesieve: {a_managesieve} }}",
    True: "{{ imap: {a_imaps}, pop3: {a_pop3s}, managesieve: {a_managesieves} }}",
}


def entry(name, tls, rest, address="127.0.0.1"):
    return f"  {name}: {{{{ address: {address}, ports: {PORTS[tls == 'implicit']}, tls: {tls}{rest} }}}}\n"


# Backends that must be reached: name → (TLS, further keys, address).
GOOD_BACKENDS = {
    "clear": ("off", "", "127.0.0.1"),
    "starttls": ("starttls", ", ca: ca/ca.crt, tls-name: mail-a.example.net", "127.0.0.1"),
    "implicit": ("implicit", ", ca: ca/ca.crt, tls-name: mail-a.example.net", "127.0.0.1"),
    "pinned-starttls": ("starttls", ', pins: ["{self_signed_pin}"]', "127.0.0.12"),
    "pinned-implicit": ("implicit", ', pins: ["{other_pin}", "{self_signed_pin}"]', "127.0.0.12"),
}
# More of them, tried with fewer logins.
SPECIAL_BACKENDS = {
    "by-address": ("starttls", ", ca: ca/ca.crt", "127.0.0.1"),
    "pinned-expired": ("starttls", ', pins: ["{expired_pin}"]', "127.0.0.11"),
    "unverified": ("implicit", ", insecure-no-verification: true", "127.0.0.11"),
}
BAD_BACKENDS = {
    f"{name}-{tls}": (tls, rest, address)
    for tls in ("starttls", "implicit")
    for name, rest, address in (
        ("wrong-name", ", ca: ca/ca.crt, tls-name: mail-b.example.net", "127.0.0.1"),
        ("expired", ", ca: ca/ca.crt, tls-name: mail-a.example.net", "127.0.0.11"),
        ("self-signed", ", ca: ca/ca.crt, tls-name: mail-a.example.net", "127.0.0.12"),
        ("unknown-authority", ", tls-name: mail-a.example.net", "127.0.0.1"),
        ("wrong-pin", ', pins: ["{other_pin}"]', "127.0.0.12"),
    )
}
BACKENDS = GOOD_BACKENDS | SPECIAL_BACKENDS | BAD_BACKENDS

CONFIG = f"""
loops: 2
listeners:{LISTENERS}
{TLS}
routes:
  - sqlite: map.db
backends:
{"".join(entry(name, tls, rest, address) for name, (tls, rest, address) in BACKENDS.items())}
  master-separator:
    address: 127.0.0.1
    ports: {PORTS[False]}
    tls: off
    master: {{{{ user: {MASTER}, password-file: master.pw, separator: "*" }}}}
  master-authzid:
    address: 127.0.0.1
    ports: {PORTS[False]}
    tls: off
    master: {{{{ user: {MASTER}, password-file: master.pw }}}}
  strict:
    address: 127.0.0.1
    ports: {{{{ imap: {{strict_imap}}, pop3: {{strict_pop3}}, managesieve: {{strict_managesieve}} }}}}
    tls: starttls
    ca: ca/ca.crt
    tls-name: mail-a.example.net
    certificate: ca/proxy-client.crt
    key: ca/proxy-client.key
  strict-without:
    address: 127.0.0.1
    ports: {{{{ imap: {{strict_imap}}, pop3: {{strict_pop3}}, managesieve: {{strict_managesieve}} }}}}
    tls: starttls
    ca: ca/ca.crt
    tls-name: mail-a.example.net
  no-starttls:
    address: 127.0.0.1
    ports: {{{{ imap: {{old_imap}}, pop3: {{old_pop3}} }}}}
    tls: starttls
    insecure-no-verification: true
timeouts: {{{{ failure-delay: 0 }}}}
"""


def address_of(backend):
    """The user of a backend; its domain is the route."""
    return f"alice@{backend}.example"


class Matrix(MatrixTest):
    """{imap, pop3, managesieve} × client TLS × backend TLS × mechanisms, through proxyd to Dovecot."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        expired = cls.ca.issue("expired", ["mail-a.example.net"], period=EXPIRED)
        alone = self_signed(cls.folder.path, "alone", ["mail-a.example.net"])
        other = self_signed(cls.folder.path, "other", ["mail-a.example.net"])
        certificate, key = cls.ca.issue("proxyd", ["localhost", "127.0.0.1"])
        cls.ca.issue("proxy-client", common_name="proxyd")
        routes = [*BACKENDS, "master-separator", "master-authzid", "strict", "strict-without", "no-starttls"]
        users = [address_of(name) for name in routes]
        cls.dovecot = cls.backend("a", users, certificates={"127.0.0.11": expired, "127.0.0.12": alone})
        cls.strict = cls.backend("strict", users, client_ca=cls.ca.certificate, clients="required")
        cls.old = Dovecot(cls.folder.path, "old", users)
        cls.addClassCleanup(cls.old.stop)
        make_map(f"{cls.folder.path}/map.db", domains=[(f"{name}.example", name) for name in routes],
                 users=[("renamed@clear.example", "clear", address_of("clear"))])
        with open(f"{cls.folder.path}/master.pw", "w") as file:
            file.write(MASTER_PASSWORD + "\n")
        ports = free_ports(*(protocol + end for protocol in PROTOCOLS for end in ("", "s")))
        cls.proxy = Proxy(
            cls.folder.path, CONFIG, **ports, proxy_certificate=certificate, proxy_key=key,
            self_signed_pin=pin(alone[0]), other_pin=pin(other[0]), expired_pin=pin(expired[0]),
            old_imap=cls.old.imap, old_pop3=cls.old.pop3,
            **{f"a_{name}": port for name, port in cls.dovecot.ports.items()},
            **{f"strict_{name}": port for name, port in cls.strict.ports.items()})
        cls.proxy.start()
        cls.addClassCleanup(cls.proxy.stop)

    def client(self, protocol, transport="none", **options):
        port = self.proxy.ports[protocol + ("s" if transport == "implicit" else "")]
        return CLIENTS[protocol](port, tls=transport, source=CLIENT_ADDRESS, **options)

    def check(self, cases, backend=None):
        """Logs in as each case says and compares both logs: [(protocol, transport, backend, (mechanism, …))]."""
        backend = backend or self.dovecot
        seen = []
        for protocol, transport, route, (mechanism, initial, form) in cases:
            case = dict(protocol=protocol, transport=transport, backend=route, mechanism=mechanism, initial=initial,
                        form=form)
            with self.subTest(**case), self.client(protocol, transport) as client:
                user = address_of(route)
                self.expect_login(client, mechanism, user, secret(backend, mechanism, user), initial=initial, form=form)
                client.log_out()
                seen.append((case, client.port))
        self.compare_logs(seen, backend)

    def compare_logs(self, seen, backend):
        """proxyd's line and Dovecot's are about the same session, and both know who the client is."""
        peers = {f"{CLIENT_ADDRESS}:{port}" for _, port in seen}

        def told():
            sessions = {session["peer"]: session for session in self.proxy.sessions()}
            return sessions if peers <= sessions.keys() else None
        sessions = wait_for("a session line for each client", told)
        ids = {sessions[peer]["session"] for peer in peers}
        self.assertEqual(len(ids), len(peers))
        wait_for("the backend tells of them all", lambda: ids <= {login["session"] for login in backend.logins()})
        logins = {login["session"]: login for login in backend.logins()}
        for case, port in seen:
            with self.subTest(log="both", **case):
                session = sessions[f"{CLIENT_ADDRESS}:{port}"]
                login = logins[session["session"]]
                self.assertEqual(session["backend"], case["backend"])
                self.assertEqual(session["login"], address_of(case["backend"]))
                self.assertEqual((login["user"], login["protocol"]), (address_of(case["backend"]), case["protocol"]))
                self.assertEqual((login["rip"], login["rport"]), (CLIENT_ADDRESS, str(port)))
                self.assertEqual(login["real_rip"], "127.0.0.1")
                by_haproxy = case["protocol"] == "managesieve" and BACKENDS.get(case["backend"], ("",))[0] == "implicit"
                self.assertEqual(login["transport"], "secured" if case["backend"] == "clear" or by_haproxy else "TLS")
                if case["mechanism"] in TOKENS or case["mechanism"].startswith("SCRAM"):
                    self.assertEqual(login["method"], case["mechanism"])

    def test_matrix_imap(self):
        self.check(itertools.product(("imap",), TRANSPORTS, GOOD_BACKENDS, ways("imap")))

    def test_matrix_pop3(self):
        self.check(itertools.product(("pop3",), TRANSPORTS, GOOD_BACKENDS, ways("pop3")))

    def test_matrix_managesieve(self):
        self.check(itertools.product(("managesieve",), TRANSPORTS, GOOD_BACKENDS, ways("managesieve")))

    def test_other_good_backends(self):
        """The address as the name, a pin for an expired certificate, no verification at all."""
        self.check(itertools.product(PROTOCOLS, ("starttls",), SPECIAL_BACKENDS, [("PLAIN", True, "quoted")]))

    def test_client_certificate_for_the_backend(self):
        ways_to_log_in = [("PLAIN", True, "quoted"), ("SCRAM-SHA-256", False, "quoted")]
        self.check(itertools.product(PROTOCOLS, ("implicit",), ("strict",), ways_to_log_in), self.strict)
        for protocol in PROTOCOLS:
            with self.subTest(protocol=protocol), self.client(protocol) as client:
                self.assertFalse(client.login("PLAIN", address_of("strict-without"), PASSWORD).ok)

    def expect_unavailable(self, cases):
        """A temporary failure each, the connection goes on, and the backend heard of no credentials."""
        def work(protocol, mechanism, backend):
            user = address_of(backend)
            with self.client(protocol, "starttls") as client:
                result = client.login(mechanism, user, secret(self.dovecot, mechanism, user))
                self.expect_login(client, "PLAIN", address_of("clear"), PASSWORD)
                client.log_out()
                return result
        for (protocol, mechanism, backend), result in in_parallel(work, cases):
            with self.subTest(protocol=protocol, mechanism=mechanism, backend=backend):
                if isinstance(result, Exception):
                    raise result
                self.assertFalse(result.ok, result)
                self.assertIn(result.code, TEMPORARY[protocol], result)
                self.assertNotIn("AUTHENTICATIONFAILED", result.final)
        logs = self.dovecot.log() + self.old.log()
        for backend in {backend for _, _, backend in cases}:
            self.assertNotIn(address_of(backend), logs)
            wait_for(f"the log blames {backend}", lambda: backend in
                     {failure.get("backend") for failure in self.proxy.failures()})

    def test_certificates_that_must_not_be_accepted(self):
        mechanisms = ("PLAIN", "XOAUTH2", "SCRAM-SHA-256")
        self.expect_unavailable(list(itertools.product(PROTOCOLS, mechanisms, BAD_BACKENDS)))

    def test_starttls_is_required(self):
        """A backend without it gets no password in clear."""
        self.expect_unavailable(list(itertools.product(("imap", "pop3"), ("PLAIN", "SCRAM-SHA-256"), ("no-starttls",))))

    def test_refusals(self):
        """Wrong passwords and tokens are told as Dovecot tells them, and the connection goes on."""
        def work(protocol, mechanism, initial, form, backend):
            user = address_of(backend)
            with self.client(protocol, "starttls") as client:
                wrong = secret(self.dovecot, mechanism, user, right=False)
                result = client.login(mechanism, user, wrong, initial=initial, form=form)
                right = secret(self.dovecot, mechanism, user)
                self.expect_login(client, mechanism, user, right, initial=initial, form=form)
                client.log_out()
                return result
        self.expect_refused(in_parallel(work, [(protocol, *way, backend) for protocol in PROTOCOLS
                                               for way in ways(protocol) for backend in ("clear", "starttls")]))

    def test_announced_mechanisms(self):
        for protocol, transport in itertools.product(PROTOCOLS, TRANSPORTS[1:]):
            with self.subTest(protocol=protocol, transport=transport), self.client(protocol, transport) as client:
                self.assertLessEqual(set(MECHANISMS), set(client.mechanisms()))

    def test_external(self):
        """The certificate's name logs in through the backend's master user, in both forms of that."""
        seen = []
        cases = itertools.product(PROTOCOLS, TRANSPORTS[1:], ("master-separator", "master-authzid"), (True, False))
        certificates = {name: self.ca.issue(f"user-{name}", common_name=address_of(name))
                        for name in ("master-separator", "master-authzid")}
        for protocol, transport, backend, initial in cases:
            case = dict(protocol=protocol, transport=transport, backend=backend, initial=initial)
            context = presenting(certificates[backend])
            with self.subTest(**case), self.client(protocol, transport, context=context) as client:
                self.expect_login(client, "EXTERNAL", "", "", initial=initial)
                client.log_out()
                seen.append((case, client.port))
        sessions = {f"{CLIENT_ADDRESS}:{port}": case for case, port in seen}
        for peer, case in sessions.items():
            with self.subTest(log="both", **case):
                session = self.proxy.wait_session(peer=peer)
                login = self.dovecot.wait_login(session=session["session"])
                self.assertEqual((login["user"], login["rip"]), (address_of(case["backend"]), CLIENT_ADDRESS))

    def test_external_without_a_certificate(self):
        for protocol in PROTOCOLS:
            with self.subTest(protocol=protocol), self.client(protocol, "starttls") as client:
                result = client.login("EXTERNAL", "", "", authzid=address_of("master-separator"))
                self.assertFalse(result.ok, result)
        stranger = Authority(self.folder.path, "stranger").issue("mallory", common_name=address_of("master-separator"))
        with self.subTest(certificate="of a strange authority"), self.assertRaises((OSError, AssertionError)):
            with self.client("imap", "implicit", context=presenting(stranger)) as client:
                self.expect_login(client, "EXTERNAL", "", "")

    def test_scram_and_a_rewritten_name(self):
        """SCRAM signs the name, so it can't be changed on the way; a password can go with another."""
        for protocol in PROTOCOLS:
            with self.subTest(protocol=protocol), self.client(protocol) as client:
                result = client.login("SCRAM-SHA-256", "renamed@clear.example", PASSWORD)
                self.assertFalse(result.ok, result)
                self.expect_login(client, "PLAIN", "renamed@clear.example", PASSWORD)

    def test_no_secret_in_the_log(self):
        token = self.dovecot.token(address_of("clear"))
        for protocol, (mechanism, word) in itertools.product(PROTOCOLS, (("PLAIN", PASSWORD), ("XOAUTH2", token))):
            with self.client(protocol) as client:
                self.expect_login(client, mechanism, address_of("clear"), word)
                client.log_out()
            self.proxy.wait_session(peer=client.peer)
        for text in (PASSWORD, token, MASTER_PASSWORD):
            self.assertNotIn(text, self.proxy.log())


class Untrusted(MatrixTest):
    """A backend that does not trust proxyd lets users in all the same, and the operator is told once what to change."""

    def test_one_warning(self):
        dovecot = self.backend("a", [USER], trusted="192.0.2.1")
        ports = free_ports(*(protocol + end for protocol in PROTOCOLS for end in ("", "s")))
        certificate, key = self.ca.issue("proxyd", ["localhost"])
        proxy = Proxy(self.folder.path, f"""
listeners:{LISTENERS}
{TLS}
routes:
  - default: a
backends:
{entry("a", "off", "")}
""", **ports, proxy_certificate=certificate, proxy_key=key,
                      **{f"a_{name}": port for name, port in dovecot.ports.items()})
        proxy.start()
        self.addCleanup(proxy.stop)
        for protocol in PROTOCOLS * 2:
            with self.subTest(protocol=protocol):
                with CLIENTS[protocol](proxy.ports[protocol], source=CLIENT_ADDRESS) as client:
                    self.expect_login(client, "PLAIN", USER, PASSWORD)
                    client.log_out()
                proxy.wait_session(peer=client.peer)
        self.assertEqual({login["rip"] for login in dovecot.logins()}, {"127.0.0.1"})
        self.assertEqual(proxy.log().count("login_trusted_networks"), 1, proxy.log())


if __name__ == "__main__":
    unittest.main()

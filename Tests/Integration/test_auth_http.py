"""Routes by HTTP: proxyd with services that speak nginx's auth_http protocol, and beside nginx itself."""
import base64
import os
import socket
import ssl
import subprocess
import tempfile
import threading
import time

from backends import Authority
from harness import PASSWORD, PROXYD_ALL, Lines, Proxy, ProxyTest, imap_login, make_certificate, quoted, wait_for
from sources_http import Answerer, NginxAnswerer, NginxMail, says, sends

CONFIG = """
loops: 2
listeners:
  - {{ protocol: imap, address: "127.0.0.1:{imap}", tls: starttls }}
  - {{ protocol: imap, address: "127.0.0.1:{imaps}", tls: implicit }}
  - {{ protocol: pop3, address: "127.0.0.1:{pop3}", tls: starttls }}
tls: {{ certificate: mail.crt, key: mail.key }}
routes:
  - http: {{ {http} }}
    timeout: {timeout}
    {common}
{more}
backends:
  a: {{ address: 127.0.0.1, ports: {{ imap: {a_imap}, pop3: {a_pop3} }} }}
unnamed-backends: {{ tls: "off" }}
timeouts: {{ failure-delay: 100ms }}
"""
USERS = ["joe@example.org", "real-name", "mixed@example.org"]
OK = "a OK "
WRONG = "a NO [AUTHENTICATIONFAILED] "
AWAY = "a NO [UNAVAILABLE] "


class AuthHTTPTest(ProxyTest):
    def setUp(self):
        super().setUp()
        make_certificate(self.dir)
        self.a = self.backend("a", USERS)

    def answerer(self, behave, **options):
        answerer = Answerer(behave, **options)
        self.addCleanup(answerer.stop)
        return answerer

    def nginx(self, users, **options):
        answerer = NginxAnswerer(self.dir, users, **options)
        self.addCleanup(answerer.stop)
        return answerer

    def routed(self, url, *, password="sent", timeout="5s", common="", more="", extra="", name="proxyd"):
        http = f'url: {url if url.startswith("[") else quoted(url)}, password: {password}{extra}'
        proxy = Proxy(self.dir, CONFIG, name, program=PROXYD_ALL, http=http, timeout=timeout, common=common, more=more,
                      a_imap=self.a.imap, a_pop3=self.a.pop3)
        proxy.start()
        self.addCleanup(proxy.stop)
        return proxy

    def login(self, proxy, user="joe@example.org", password=PASSWORD):
        with Lines(proxy.ports["imap"]) as client:
            client.until("* OK")
            return imap_login(client, user, password)

    def detail(self, proxy, count=1):
        """What the log says of that failed login."""
        proxy.wait_log("event=login-failed", count)
        return proxy.failures()[count - 1]

    # Answers of a real nginx

    def test_found(self):
        """A host and port, a backend's name, another name there: nginx says so, and the user gets in."""
        answerer = self.nginx({
            "joe@example.org": {"auth_status": "OK", "auth_server": "127.0.0.1", "auth_port": self.a.imap},
            "Mixed@Example.org": {"auth_status": "OK", "auth_server": "a"},
            "alias": {"auth_status": "OK", "auth_server": "localhost", "auth_port": self.a.imap,
                      "auth_user": "real-name"}})
        proxy = self.routed(answerer.url)
        for user, backend, there in (("joe@example.org", f"127.0.0.1:{self.a.imap}", "joe@example.org"),
                                     ("Mixed@Example.org", "a", "mixed@example.org"),
                                     ("alias", f"localhost:{self.a.imap}", "real-name")):
            with self.subTest(user):
                self.assertTrue(self.login(proxy, user).startswith(OK))
                self.assertEqual(proxy.wait_session(login=user)["backend"], backend)
                wait_for("Dovecot's log has the login", lambda: f"user=<{there}>" in self.a.log())
        self.assertTrue(self.login(proxy, password="wrong").startswith(WRONG), "the backend checks the password, too")

    def test_refused_in_the_services_words(self):
        answerer = self.nginx({"closed": {"auth_status": "Your account is closed."}})
        proxy = self.routed(answerer.url)
        self.assertEqual(self.login(proxy, "nobody"), WRONG + "Invalid login")
        self.assertEqual(self.login(proxy, "closed"), WRONG + "Your account is closed.")
        self.assertEqual(self.detail(proxy)["failure"], "wrong-password")
        with Lines(proxy.ports["pop3"]) as client:
            client.until("+OK")
            client.ask("USER closed", "+OK")
            self.assertEqual(client.ask("PASS x", "-ERR")[-1], "-ERR [AUTH] Your account is closed.")

    def test_refused_after_a_while(self):
        answerer = self.nginx({"slow": {"auth_status": "Slow down", "auth_wait": "5"}})
        proxy = self.routed(answerer.url)
        start = time.monotonic()
        self.assertEqual(self.login(proxy, "slow"), WRONG + "Slow down")
        self.assertGreaterEqual(time.monotonic() - start, 5)
        start = time.monotonic()
        self.login(proxy, "nobody")
        self.assertLess(time.monotonic() - start, 5)

    def test_reconnects_to_a_restarted_nginx(self):
        answerer = self.nginx({"joe@example.org": {"auth_status": "OK", "auth_server": "a"}})
        proxy = self.routed(answerer.url)
        self.assertTrue(self.login(proxy).startswith(OK))
        answerer.stop()
        self.assertTrue(self.login(proxy).startswith(AWAY))
        self.assertIn("can't be connected to", self.detail(proxy)["detail"])
        answerer.start()
        wait_for("a login works again", lambda: self.login(proxy).startswith(OK))

    def test_https_is_verified(self):
        authority, other = Authority(self.dir), Authority(self.dir, "other")
        users = {"joe@example.org": {"auth_status": "OK", "auth_server": "a"}}
        answerer = self.nginx(users, certificate=authority.issue("answerer", ["localhost", "127.0.0.1"]))
        url = f"https://localhost:{answerer.port}/auth"
        cases = {"right": (url, authority, OK, None), "other authority": (url, other, AWAY, "certificate"),
                 "system's authorities": (url, None, AWAY, "certificate"),
                 "by address": (f"https://127.0.0.1:{answerer.port}/auth", authority, OK, None),
                 "another name": (f"https://[::1]:{answerer.port}/auth", authority, AWAY, "certificate")}
        for name, (url, authority, expected, reason) in cases.items():
            with self.subTest(name):
                proxy = self.routed(url, extra=f", ca: {authority.certificate}" if authority else "",
                                    name=name.replace(" ", "-"))
                self.assertTrue(self.login(proxy).startswith(expected))
                if reason:
                    self.assertIn(reason, self.detail(proxy)["detail"])

    # What the service is told

    def test_connections_stay_open(self):
        answerer = self.answerer(lambda request: says("Auth-Status: OK", "Auth-Server: a", body=b"x" * 1000))
        proxy = self.routed(answerer.url, extra=", connections: 1")
        for _ in range(5):
            self.assertTrue(self.login(proxy).startswith(OK))
        self.assertEqual((len(answerer.requests), answerer.connections), (5, 1))

    def test_a_withheld_password_is_not_told(self):
        answerer = self.answerer(lambda request: says("Auth-Status: OK", "Auth-Server: a"))
        proxy = self.routed(answerer.url, password="withheld")
        self.assertTrue(self.login(proxy, "Mixed@Example.org").startswith(OK))
        request = answerer.wait()
        self.assertIsNone(request["Auth-Pass"])
        self.assertEqual(request["Auth-User"], b"mixed@example.org")
        self.assertEqual(request["Client-IP"], b"127.0.0.1")
        self.assertNotIn(b"wo", request.head)

    def test_withheld_answers_are_remembered(self):
        answerer = self.answerer(lambda request: says("Auth-Status: OK", "Auth-Server: a"))
        proxy = self.routed(answerer.url, password="withheld", common="cache: {{ found: 60s }}".replace("{{", "{")
                            .replace("}}", "}"))
        for _ in range(3):
            self.assertTrue(self.login(proxy).startswith(OK))
        self.assertEqual(len(answerer.requests), 1)

    def test_a_password_is_never_given_to_somebody_unproved(self):
        """Else whoever knows a name would be logged in with the password the service answers."""
        password = PASSWORD.replace("\\", "\\\\")
        answerer = self.answerer(lambda request: says("Auth-Status: OK", "Auth-Server: a", f"Auth-Pass: {PASSWORD}"))
        proxy = self.routed(answerer.url, password="withheld")
        self.assertTrue(self.login(proxy, password="guess").startswith(AWAY))
        self.assertIn("Auth-Pass", self.detail(proxy)["detail"])
        self.assertNotIn(password, proxy.log())

    def test_another_password(self):
        answerer = self.answerer(lambda request: says("Auth-Status: OK", "Auth-Server: a", "Auth-User: real-name",
                                                      f"Auth-Pass: {PASSWORD}"))
        proxy = self.routed(answerer.url)
        self.assertTrue(self.login(proxy, "joe", "the one of the service").startswith(OK))
        self.assertEqual(answerer.wait()["Auth-Pass"], b"the%20one%20of%20the%20service")

    def test_headers_of_the_operator(self):
        (self.dir / "headers").write_text("# comment\nX-Key: hidden value\n")
        answerer = self.answerer(lambda request: says("Auth-Status: OK", "Auth-Server: a"))
        proxy = self.routed(answerer.url, extra=', headers: ["X-Open: 1", "Host: mail.example.org"], headers-file: headers')
        self.assertTrue(self.login(proxy).startswith(OK))
        request = answerer.wait()
        self.assertEqual(request.block[-2:], [b"X-Open: 1", b"X-Key: hidden value"])
        self.assertEqual(request["Host"], b"mail.example.org")
        self.assertEqual(sum(line.startswith(b"Host") for line in request.lines), 1)
        self.assertNotIn("hidden", proxy.log())

    def test_injections(self):
        """Whatever a name holds, it is one value of one header."""
        answerer = self.answerer(lambda request: says("Auth-Status: no such user"))
        proxy = self.routed(answerer.url)
        for name, told in (("a%0D%0AAuth-Status: OK", b"a%250D%250AAuth-Status:%20OK"), ("a' OR '1'='1", b"a'%20OR%20'1'='1"),
                           ("*)(uid=*", b"*)(uid=*"), ("$(reboot)", b"$(reboot)"), ("a;b", b"a;b"), ("%s%n", b"%25s%25n"),
                           ("jürgen", "jürgen".encode())):
            with self.subTest(name):
                before = len(answerer.requests)
                self.assertEqual(self.login(proxy, name), WRONG + "no such user")
                self.assertEqual(answerer.wait(before + 1)["Auth-User"], told)
        before = len(answerer.requests)
        with Lines(proxy.ports["imap"]) as client:
            client.until("* OK")
            for word in (b"\0us\r\nClient-IP: 10.0.0.1\0pw", b"\0user\0pw\r\nDELE 1"):
                answer = client.ask("a AUTHENTICATE PLAIN " + base64.b64encode(word).decode(), "a ")[-1]
                self.assertTrue(answer.startswith("a NO"), answer)
        self.assertEqual(len(answerer.requests), before, "what can't be said to a backend is not asked for")

    # Trouble

    def test_answers_that_are_none(self):
        """Each is a failure of the service: never a yes, and never somebody else's fault."""
        good = ["Auth-Status: OK", "Auth-Server: a"]
        answers = {
            "no status": (says("Auth-Server: a", "Auth-Port: 143"), "no Auth-Status"),
            "500 with good headers": (says(*good, status="500 Oops"), "status is 500"),
            "401 with good headers": (says(*good, status="401 Unauthorized"), "status is 401"),
            "redirect": (says(*good, "Location: http://127.0.0.1:1/", status="302 Found"), "status is 302"),
            "not found": (says(status="404 Not Found"), "status is 404"),
            "no server": (says("Auth-Status: OK"), "no Auth-Server"),
            "twice": (says(*good, "Auth-Server: b"), "twice"),
            "port 0": (says("Auth-Status: OK", "Auth-Server: 127.0.0.1", "Auth-Port: 0"), "Auth-Port"),
            "9 KB": (says(*good, "X: " + "x" * 9_000), "longer than 8192"),
            "9 KB in many": (says(*good, *[f"X-{i}: {'x' * 90}" for i in range(100)]), "longer than 8192"),
            "large body": (says(*good, body=b"x" * 100_000), "body is longer"),
            "not HTTP": (b"+OK hello\r\n\r\n", "not HTTP"),
            "HTTP/0.9": (b"Auth-Status: OK\nAuth-Server: a\n\n", "not HTTP"),
            "NUL": (says(*good, "Auth-User: a\0b"), ""),
            "a name nobody has": (says("Auth-Status: OK", "Auth-Server: a_b!"), "neither a backend's name"),
            "folded": (says("Auth-Status: OK", "Auth-Server: a", " b"), ""),
        }
        answer = [b""]
        answerer = self.answerer(lambda request: answer[0])
        proxy = self.routed(answerer.url, extra=", connections: 1")
        for number, (name, (said, reason)) in enumerate(answers.items(), 1):
            with self.subTest(name):
                answer[0] = said
                self.assertTrue(self.login(proxy).startswith(AWAY))
                failure = self.detail(proxy, number)
                self.assertEqual(failure["failure"], "lookup-failed")
                self.assertIn(reason, failure["detail"])
                answer[0] = says(*good)
                self.assertTrue(self.login(proxy).startswith(OK), "and the next answer is heard")
        self.assertNotIn(PASSWORD.replace("\\", "\\\\"), proxy.log())

    def test_status_and_words(self):
        answerer = self.answerer(lambda request: says("Auth-Status: Not you", status="403 Forbidden"))
        self.assertEqual(self.login(self.routed(answerer.url)), WRONG + "Not you")

    def test_words_are_one_line(self):
        answerer = self.answerer(lambda request: says("Auth-Status: a\tb\udcff" + "c" * 400))
        self.assertEqual(self.login(self.routed(answerer.url)), WRONG + "a?b?" + "c" * 252)

    def test_hanging(self):
        answerer = self.answerer(lambda request: None)
        proxy = self.routed(answerer.url, timeout="300ms")
        self.assertTrue(self.login(proxy).startswith(AWAY))
        self.assertRegex(self.detail(proxy)["detail"], "did not answer (in time|within)")

    def test_killed_in_the_middle(self):
        arrived = threading.Event()

        def behave(_):
            arrived.set()
        answerer = self.answerer(behave)
        proxy = self.routed(answerer.url, timeout="10s")
        with Lines(proxy.ports["imap"]) as client:
            client.until("* OK")
            client.send(f"a LOGIN joe {quoted(PASSWORD)}\r\n")
            self.assertTrue(arrived.wait(10))
            answerer.stop()
            self.assertTrue(client.until("a ")[-1].startswith(AWAY))
        answerer.behave = lambda request: says("Auth-Status: OK", "Auth-Server: a")
        answerer.start()
        wait_for("a login works again", lambda: self.login(proxy).startswith(OK))

    def test_waits_as_told(self):
        answers = [says("Auth-Status: WAIT", "Auth-Wait: 1"), says("Auth-Status: WAIT"),
                   says("Auth-Status: OK", "Auth-Server: a")]
        answerer = self.answerer(lambda request: answers.pop(0))
        proxy = self.routed(answerer.url)
        start = time.monotonic()
        self.assertTrue(self.login(proxy).startswith(OK))
        self.assertGreaterEqual(time.monotonic() - start, 1)
        self.assertEqual(len({tuple(request.block) for request in answerer.requests}), 1, "the same is asked again")
        self.assertEqual(len(answerer.requests), 3)

    def test_another_url_takes_over(self):
        good = says("Auth-Status: OK", "Auth-Server: a")
        first = self.answerer(lambda request: says(status="503 Away"))
        second = self.answerer(lambda request: good)
        proxy = self.routed(f"[{first.url}, {second.url}]", timeout="10s", extra=", connections: 1")
        self.assertTrue(self.login(proxy).startswith(OK))
        self.assertEqual((len(first.requests), len(second.requests)), (1, 1))
        first.behave = lambda request: good
        self.assertTrue(self.login(proxy).startswith(OK))
        self.assertEqual((len(first.requests), len(second.requests)), (1, 2), "what failed rests for a while")
        second.stop()
        self.assertTrue(self.login(proxy).startswith(OK))
        self.assertEqual(len(first.requests), 2)
        first.stop()
        self.assertTrue(self.login(proxy).startswith(AWAY))

    def test_a_hanging_url_leaves_time_for_the_next(self):
        first = self.answerer(lambda request: None)
        second = self.answerer(lambda request: says("Auth-Status: OK", "Auth-Server: a"))
        proxy = self.routed(f"[{first.url}, {second.url}]", timeout="6s")
        self.assertTrue(self.login(proxy).startswith(OK))
        first.behave = lambda request: says("Auth-Status: no")
        self.assertTrue(self.login(proxy).startswith(OK), "a no is not asked for")

    def test_the_next_route_if_the_operator_wants(self):
        answerer = self.answerer(lambda request: says("Auth-Status: no", status="500 Oops"))
        proxy = self.routed(answerer.url, common="on-failure: next", more="  - default: a")
        self.assertTrue(self.login(proxy).startswith(OK))
        proxy.wait_log("event=source-failed")

    # Places

    def test_sockets_and_v6(self):
        folder = tempfile.mkdtemp(prefix="proxyd-test.", dir="/tmp")
        self.addCleanup(os.rmdir, folder)
        os.chmod(folder, 0o755)
        good = says("Auth-Status: OK", "Auth-Server: a")
        local = self.answerer(lambda request: good, path=f"{folder}/s")
        proxy = self.routed(f"unix:{folder}/s:/where?x=1", name="unix")
        self.assertTrue(self.login(proxy).startswith(OK))
        self.assertEqual(local.wait().path, "/where?x=1")
        self.assertEqual(local.wait()["Host"], b"localhost")
        v6 = self.answerer(lambda request: sends(self.a.imap, host="::ffff:127.0.0.1"), host="::1")
        proxy = self.routed(v6.url, name="v6")
        self.assertTrue(self.login(proxy).startswith(OK))
        self.assertEqual(v6.wait()["Host"], b"[::1]")

    def test_environment_and_redirects_count_for_nothing(self):
        trap = self.answerer(lambda request: says("Auth-Status: no"))
        answerer = self.answerer(lambda request: says("Auth-Status: OK", "Auth-Server: a", f"Location: {trap.url}"))
        proxy = Proxy(self.dir, CONFIG, program=PROXYD_ALL, http=f'url: "{answerer.url}"', timeout="5s", common="", more="",
                      a_imap=self.a.imap, a_pop3=self.a.pop3)
        proxy.start(env=dict(os.environ, http_proxy=trap.url, HTTP_PROXY=trap.url, ALL_PROXY=trap.url, no_proxy=""))
        self.addCleanup(proxy.stop)
        self.assertTrue(self.login(proxy).startswith(OK))
        self.assertEqual(trap.requests, [])

    def test_check_names_what_is_wrong(self):
        config = self.dir / "wrong.yaml"
        config.write_text("""
listeners: [{ protocol: imap, address: "127.0.0.1:1430", tls: "off" }]
routes:
  - http: { url: [http://a/, "http://u:secret@b/"], headers: ["X-Key"], password: sent }
    cache: { found: 1s }
  - http: { url: ftp://a, ca: x.pem }
  - http: { headers-file: missing }
backends: {}
""")
        done = subprocess.run([PROXYD_ALL, "check", "--config", config], capture_output=True, text=True)
        self.assertEqual(done.returncode, 1)
        for words in ('4:30: routes[0].http.url[1]: "http://***@b/" ', "routes[0].http.headers[0]: ", "5:12: routes[0].cache",
                      '6:18: routes[1].http.url: "ftp://a" ', "routes[1].http.ca: it is for https://",
                      "routes[2].http.url: this key is missing"):
            self.assertIn(words, done.stdout + done.stderr)
        self.assertNotIn("secret", done.stdout + done.stderr)


class BesideNginxTest(ProxyTest):
    """The same logins through nginx's mail proxy and through proxyd: the service is asked in the same bytes."""

    NGINX = """
  server_name localhost;
  auth_http 127.0.0.1:{service}/auth;
  auth_http_header X-Auth-Key "a secret";
  ssl_certificate {dir}/mail.crt;
  ssl_certificate_key {dir}/mail.key;
  ssl_protocols TLSv1.2 TLSv1.3;
  imap_auth plain login external;
  pop3_auth plain;
  server {{ listen 127.0.0.1:{imap}; protocol imap; starttls on; }}
  ssl_verify_client optional;
  ssl_client_certificate {ca};
  server {{ listen 127.0.0.1:{imaps} ssl; protocol imap; }}
  server {{ listen 127.0.0.1:{pop3}; protocol pop3; }}
  server {{ listen 127.0.0.1:{headed} proxy_protocol; protocol imap; set_real_ip_from 127.0.0.1; }}
"""
    PROXYD = """
listeners:
  - {{ protocol: imap, address: "127.0.0.1:{imap}", tls: starttls, mechanisms: [plain, login, external] }}
  - {{ protocol: imap, address: "127.0.0.1:{imaps}", tls: implicit, mechanisms: [plain, login, external] }}
  - {{ protocol: pop3, address: "127.0.0.1:{pop3}", tls: "off" }}
  - {{ protocol: imap, address: "127.0.0.1:{headed}", tls: "off", proxy-protocol: 127.0.0.1 }}
tls: {{ certificate: mail.crt, key: mail.key, client-certificates: request, client-ca: "{ca}" }}
routes:
  - http: {{ url: "http://127.0.0.1:{service}/auth", headers: ["X-Auth-Key: a secret"], password: sent }}
backends: {{}}
timeouts: {{ failure-delay: 100ms }}
"""

    def test_the_same_is_asked(self):
        make_certificate(self.dir)
        authority = Authority(self.dir)
        certificate = authority.issue("joe", common_name="joe@example.org")
        for path in self.dir.glob("*.[ck]*"):
            os.chmod(path, 0o644)
        service = Answerer(lambda request: says("Auth-Status: No", "Auth-Wait: 1"))
        self.addCleanup(service.stop)
        asked = {}
        from harness import free_port
        names = ("imap", "imaps", "pop3", "headed")
        ports = {name: free_port() for name in names}
        nginx = NginxMail(self.dir, self.NGINX.format(dir=self.dir, service=service.port, ca=authority.certificate, **ports),
                          {ports["imap"]: {}, ports["imaps"]: {"tls": True}, ports["pop3"]: {},
                           ports["headed"]: {"say": b"PROXY UNKNOWN\r\n"}})
        self.addCleanup(nginx.stop)
        asked["nginx"] = self.play(ports, service, certificate)
        nginx.stop()
        proxy = Proxy(self.dir, self.PROXYD, program=PROXYD_ALL, service=service.port, ca=authority.certificate,
                      headed=free_port())
        proxy.start()
        self.addCleanup(proxy.stop)
        asked["proxyd"] = self.play(proxy.ports, service, certificate)
        self.assertEqual(len(asked["nginx"]), len(asked["proxyd"]))
        for wanted, said in zip(asked["nginx"], asked["proxyd"]):
            self.assertEqual([self.plain(line) for line in said], [self.plain(line) for line in wanted])

    @staticmethod
    def plain(line):
        """A header line; of the ciphers of TLS 1.3 each server prefers another."""
        return b"Auth-SSL-Cipher: TLS_" if line.startswith(b"Auth-SSL-Cipher: TLS_") else line

    def play(self, ports, service, certificate):
        """Logs in in every way; returns what the service was asked."""
        del service.requests[:]
        count = 0

        def asked():
            nonlocal count
            count += 1
            service.wait(count)
        for user, password in (("joe@example.org", PASSWORD), ('us"er %x', "a+b %41"), ("Jürgen", "pässword"), ("a;b:c", ": ")):
            with Lines(ports["imap"]) as client:
                client.until("* OK")
                client.ask(f"a LOGIN {quoted(user)} {quoted(password)}", "a NO")
                asked()
                word = base64.b64encode(f"\0{user}\0{password}".encode()).decode()
                client.ask(f"b AUTHENTICATE PLAIN {word}", "b NO")
                asked()
                client.ask("c AUTHENTICATE LOGIN", "+")
                client.ask(base64.b64encode(user.encode()).decode(), "+")
                client.ask(base64.b64encode(password.encode()).decode(), "c NO")
                asked()
        with Lines(ports["imap"]) as client:
            client.until("* OK")
            client.ask("a STARTTLS", "a OK")
            client.start_tls()
            imap_login(client, "joe")
            asked()
        with Lines(ports["pop3"]) as client:
            client.until("+OK")
            client.ask("USER joe user", "+OK")
            client.ask("PASS pass word", "-ERR")
            asked()
        for versions in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = ssl.create_default_context()
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            context.minimum_version = context.maximum_version = versions
            context.set_ciphers("ECDHE-ECDSA-AES256-GCM-SHA384")
            with Lines(ports["imaps"], tls=True, context=context) as client:
                client.until("* OK")
                imap_login(client, "joe")
                asked()
            context.load_cert_chain(*certificate)
            with Lines(ports["imaps"], tls=True, context=context) as client:
                client.until("* OK")
                imap_login(client, "joe")
                asked()
            # In a session of its own: nginx says an earlier login's password with it.
            with Lines(ports["imaps"], tls=True, context=context) as client:
                client.until("* OK")
                client.ask("b AUTHENTICATE EXTERNAL", "+")
                client.ask(base64.b64encode(b"joe@example.org").decode(), "b NO")
                asked()
        for header in ("PROXY TCP4 192.0.2.7 192.0.2.1 4711 143\r\n", "PROXY TCP6 2001:db8::7 2001:db8::1 4711 143\r\n"):
            with Lines(ports["headed"]) as client:
                client.send(header)
                client.until("* OK")
                imap_login(client, "joe")
                asked()
        return [request.block for request in service.requests]

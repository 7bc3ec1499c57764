"""The program's subcommands, as an operator calls them."""
import json
import os
import pathlib
import pwd
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import unittest

from harness import (DEADLINE, PROXYD, ROOT, Lines, Proxy, ProxyTest, connects, free_port, imap_login, make_certificate,
                     make_map, running, unverified, wait_for)
from test_faults import CONFIG, accept_login


def run(*argv, stdin="", **options):
    return subprocess.run([PROXYD, *map(str, argv)], capture_output=True, text=True, input=stdin, timeout=DEADLINE, **options)


class Commands(ProxyTest):
    def setUp(self):
        super().setUp()
        make_certificate(self.dir)
        self.config = self.dir / "proxyd.yaml"
        self.config.write_text(f"""listeners:
  - {{ protocol: imap, address: "127.0.0.1:{free_port()}", tls: starttls }}
tls: {{ certificate: mail.crt, key: mail.key }}
routes:
  - sqlite: map.db
  - regex: routes.re
  - default: a
backends:
  a: {{ address: 127.0.0.1, ports: {{ imap: 20143, pop3: 20110 }} }}
  b: {{ address: "2001:db8::1" }}
""")
        (self.dir / "routes.re").write_text("alias_(.*): $1@b\n")
        make_map(self.dir / "map.db", users=[("alice@example.com", "b", "al")], domains=[("example.org", "mail.example.net:993")])

    # check

    def test_check(self):
        done = run("check", "--config", self.config)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, f"{self.config}: ok\n", ""))

    def test_check_says_all_that_is_wrong_with_its_place(self):
        text = self.config.read_text()
        (self.dir / "mail.key").write_text("no key\n")
        (self.dir / "map.db").write_text("no database" * 100)
        (self.dir / "routes.re").write_text("fine: a\n(: b\n")
        self.config.write_text(text.replace("default: a", "default: c"))
        done = run("check", "--config", self.config)
        self.assertEqual(done.returncode, 1)
        errors = done.stderr.splitlines()
        expected = [
            (f"{self.config}:5:13: routes[0].sqlite: ", "file is not a database"),
            (f"{self.dir}/routes.re:2:2: routes[1].regex: ", "not a regular expression: missing closing parenthesis"),
            (f"{self.config}:7:14: routes[2].default: ", 'no backend or pool is named "c"'),
            (f"{self.config}:3:36: tls.key: ", "the key can't be used"),
        ]
        self.assertEqual(len(errors), len(expected), done.stderr)
        for error, (place, problem) in zip(errors, expected):
            self.assertTrue(error.startswith(place), error)
            self.assertIn(problem, error)
        # run refuses the same.
        refused = run("run", "--config", self.config)
        self.assertEqual(refused.returncode, 1)
        self.assertEqual(refused.stderr, done.stderr)

    def test_run_refuses_a_port_in_use(self):
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            text = self.config.read_text()
            self.config.write_text(re.sub(r"127\.0\.0\.1:\d+", f"127.0.0.1:{port}", text))
            done = run("run", "--config", self.config)
        self.assertEqual(done.returncode, 1)
        self.assertIn(f"{self.config}:2:32: listeners[0].address: 127.0.0.1:{port} can't be listened on: Address already in use",
                      done.stderr)

    def test_check_warns(self):
        (self.dir / "routes.re").write_text("(.*)@(.*): $2\n")
        database = sqlite3.connect(self.dir / "map.db")
        database.execute("INSERT INTO users(login, backend) VALUES('Bob', 'a')")
        database.commit()
        database.close()
        done = run("check", "--config", self.config)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn('"Bob" has capital letters', done.stdout)
        self.assertIn(f"{self.dir}/routes.re:1:1", done.stdout)

    # route

    def test_route(self):
        cases = {
            ("imap", "Alice@Example.com"): (0, "Alice@Example.com", f"sqlite {self.dir}/map.db", "b ([2001:db8::1]:143)", "al"),
            ("pop3", "x@example.org"): (0, "x@example.org", f"sqlite {self.dir}/map.db", "mail.example.net:993 (mail.example.net:993)",
                                        "x@example.org"),
            ("imap", "alias_joe"): (0, "alias_joe", f"regex {self.dir}/routes.re", "b ([2001:db8::1]:143)", "joe"),
            ("pop3", "somebody"): (0, "somebody", "default", "a (127.0.0.1:20110)", "somebody"),
        }
        for (protocol, user), (code, name, source, backend, login_as) in cases.items():
            with self.subTest(user=user):
                done = run("route", "--config", self.config, "--protocol", protocol, user)
                self.assertEqual(done.returncode, code, done.stderr)
                lines = [line.split(":", 1) for line in done.stdout.splitlines()]
                said = {label: words.strip() for label, words in lines if label != "asked"}
                self.assertEqual(said, {"user": name, "source": source, "backend": backend, "login as": login_as})
                asked = [words.strip() for label, words in lines if label == "asked"]
                self.assertIn(f'for "{user.lower()}"', asked[-1])
                self.assertTrue(all(line.endswith(": not found") for line in asked[:-1]), asked)

    def test_route_shows_every_step(self):
        text = self.config.read_text() + "names: { strip-domain: [backend], add-domain: [lookup], domain: example.com }\n"
        self.config.write_text(text)
        done = run("route", "--config", self.config, "Alice")
        self.assertEqual(done.returncode, 0, done.stderr)
        lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
        self.assertEqual(lines, [
            "user: Alice", "lookup name: Alice@example.com (domain added)",
            f'asked: sqlite {self.dir}/map.db for "alice@example.com": al at b', f"source: sqlite {self.dir}/map.db",
            "backend: b ([2001:db8::1]:143)", "login as: al"])

    def test_route_of_many_users(self):
        (self.dir / "users").write_text("alice@example.com\nnobody@example.net\n\nx@example.org\n")
        self.config.write_text(self.config.read_text().replace("  - default: a\n", ""))
        done = run("route", "--config", self.config, "--users", self.dir / "users")
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn("unknown: nobody@example.net\n", done.stdout)
        self.assertRegex(done.stdout, r"3 users: 2 found, 1 unknown, 0 failed, [0-9.]+ us each\n")
        self.assertEqual(run("route", "--config", self.config, "--users", "/none").returncode, 2)

    def test_route_of_nobody_and_of_a_broken_map(self):
        self.config.write_text(self.config.read_text().replace("  - default: a\n", ""))
        self.assertEqual(run("route", "--config", self.config, "somebody").returncode, 1)
        (self.dir / "map.db").unlink()
        done = run("route", "--config", self.config, "somebody")
        self.assertEqual(done.returncode, 2)
        self.assertIn("there is no such file", done.stderr)

    # map

    def test_map(self):
        file = self.dir / "new.db"
        def map_(*argv, stdin="", code=0):
            done = run("map", *argv, "--map", file, stdin=stdin)
            self.assertEqual(done.returncode, code, done.stderr)
            return done.stdout
        map_("get", "alice", code=1)
        map_("set", "Alice", "a")
        map_("set", "bob", "192.0.2.1:143", "--login-as", "robert")
        map_("set", "@Example.com", "b")
        self.assertEqual(map_("get", "ALICE"), "alice\ta\n")
        self.assertEqual(map_("list"), "@example.com\tb\nalice\ta\nbob\t192.0.2.1:143\trobert\n")
        self.assertEqual(map_("list", "--backend", "b"), "@example.com\tb\n")
        exported = map_("export")
        map_("delete", "alice")
        map_("delete", "alice", code=1)
        map_("import", stdin="# new\ncarol\tc\r\n@x.org\ta\n")
        self.assertEqual(map_("list"), "@example.com\tb\n@x.org\ta\nbob\t192.0.2.1:143\trobert\ncarol\tc\n")
        path = self.dir / "export.tsv"
        path.write_text(exported)
        self.assertEqual(map_("import", "--replace", path), "3 rows\n")
        self.assertEqual(map_("export"), exported)

    def test_map_mistakes_change_nothing(self):
        file = self.dir / "new.db"
        run("map", "set", "alice", "a", "--map", file)
        for text, place in (("x\ty\nz\n", "standard input:2:"), ("a\tb\tc\td\n", "standard input:1:"), ("a\t\n", "standard input:1:"),
                            ("\tb\n", "standard input:1:"), ("@x\tb\tname\n", "standard input:1:")):
            with self.subTest(text=text):
                done = run("map", "import", "--replace", "--map", file, stdin=text)
                self.assertNotEqual(done.returncode, 0)
                self.assertIn(place, done.stderr)
                self.assertEqual(run("map", "list", "--map", file).stdout, "alice\ta\n")
        for argv in (("set", "a b\tc", ""), ("set", "", "a"), ("set", "a", "b c"), ("set", "@x", "a", "--login-as", "y")):
            self.assertNotEqual(run("map", *argv, "--map", file).returncode, 0)
        self.assertNotEqual(run("map", "list", "--map", self.dir / "none.db").returncode, 0)
        self.assertFalse((self.dir / "none.db").exists())
        self.assertNotEqual(run("map", "list").returncode, 0)
        done = run("map", "list", "--config", self.config)
        self.assertEqual(done.stdout, "@example.org\tmail.example.net:993\nalice@example.com\tb\tal\n")

    # config

    def test_config(self):
        done = run("config", "explain", "timeouts.idle")
        self.assertEqual(done.returncode, 0)
        self.assertIn("default: 31m", done.stdout)
        self.assertIn("listeners[].tls", run("config", "explain", "listeners").stdout)
        self.assertNotEqual(run("config", "explain", "nonsense").returncode, 0)
        self.assertEqual(run("config", "sample").stdout, (ROOT / "etc" / "proxyd.yaml").read_text())

    def test_the_sample_passes_check(self):
        sample = self.dir / "sample.yaml"
        sample.write_text(run("config", "sample").stdout)
        done = run("check", "--config", sample)
        self.assertEqual(done.returncode, 0, done.stderr)

    def test_version_and_help(self):
        self.assertRegex(run("--version").stdout, r"^\d+\.\d+\.\d+\n$")
        for argv in ([], ["run"], ["check"], ["route"], ["map"], ["map", "import"], ["config"]):
            self.assertEqual(run(*argv, "--help").returncode, 0)
        self.assertNotEqual(run("bogus").returncode, 0)


class Running(ProxyTest):
    def setUp(self):
        super().setUp()
        make_certificate(self.dir)
        self.fake_backend = self.fake(accept_login)

    def start(self, extra="", **options):
        return self.proxy(CONFIG + extra, a_imap=self.fake_backend.port, a_pop3=self.fake_backend.port, options=options)

    def start_logging_to_a_file(self):
        """A proxy whose readiness is read in its own log file."""
        proxy = Proxy(self.dir, CONFIG + "log: {{ format: json, to: out.json }}\n", a_imap=self.fake_backend.port,
                      a_pop3=self.fake_backend.port)
        proxy.process = running(PROXYD, proxy.config, proxy.log_path)
        self.addCleanup(proxy.stop)
        log = self.dir / "out.json"
        wait_for("proxyd is ready", lambda: log.exists() and '"event":"ready"' in log.read_text())
        return proxy

    def test_service_manager(self):
        """Type=notify: ready, reloading, stopping, as sd_notify(3) has them."""
        path = str(self.dir / "notify")
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(listener.close)
        listener.bind(path)
        listener.settimeout(DEADLINE)
        proxy = self.start(env={**os.environ, "NOTIFY_SOCKET": path})
        self.assertEqual(listener.recv(4096), b"READY=1")
        proxy.reload()
        self.assertRegex(listener.recv(4096).decode(), r"^RELOADING=1\nMONOTONIC_USEC=\d+$")
        self.assertEqual(listener.recv(4096), b"READY=1")
        proxy.process.send_signal(signal.SIGTERM)
        self.assertEqual(listener.recv(4096), b"STOPPING=1")

    def test_json_log_in_a_file_that_is_rotated(self):
        log = self.dir / "out.json"
        proxy = self.start_logging_to_a_file()
        with Lines(proxy.ports["imap"]) as client:
            client.until("* OK")
            imap_login(client, 'we"ird\u00e9')
        wait_for("the session's line", lambda: log.exists() and '"event":"session"' in log.read_text())
        lines = [json.loads(line) for line in log.read_text().splitlines()]
        session = next(line for line in lines if line["event"] == "session")
        self.assertEqual(session["login"], 'we"ird\u00e9')
        self.assertIsInstance(session["duration_ms"], int)
        log.rename(self.dir / "old.json")
        proxy.process.send_signal(signal.SIGHUP)
        wait_for("a new file", lambda: log.exists() and "reloaded" in log.read_text())

    def test_becomes_another_user(self):
        """Root binds, nobody serves; what the user can't read refuses a reload."""
        for name in ("mail.crt", "mail.key"):
            os.chmod(self.dir / name, 0o600)
        proxy = self.start("user: nobody\n")
        status = pathlib.Path(f"/proc/{proxy.pid}/status").read_text()
        nobody = str(pwd.getpwnam("nobody").pw_uid)
        self.assertEqual(next(line for line in status.splitlines() if line.startswith("Uid")).split()[1:], [nobody] * 4)
        groups = next(line for line in status.splitlines() if line.startswith("Groups")).split()[1:]
        self.assertNotIn("0", groups)
        with Lines(proxy.ports["imaps"], tls=True) as client:
            client.until("* OK")
            self.assertIn("a OK", imap_login(client, "alice"))
        proxy.process.send_signal(signal.SIGHUP)
        proxy.wait_log("reload refused")
        self.assertIn("Permission denied", proxy.log())
        os.chmod(self.dir / "mail.crt", 0o644)
        os.chown(self.dir / "mail.key", int(nobody), -1)
        proxy.reload()

    def test_certificates_are_noticed(self):
        """A renewed certificate is shown without a signal; half a pair is left alone, and sessions and tickets stay."""
        def stay(connection):
            accept_login(connection)
            while connection.recv(4096):
                connection.sendall(b"b OK\r\n")
        self.fake_backend = self.fake(stay)
        proxy = self.start()

        def shown():
            context = unverified()
            with socket.create_connection(("127.0.0.1", proxy.ports["imaps"]), timeout=DEADLINE) as raw:
                with context.wrap_socket(raw) as tls:
                    tls.recv(100)
                    return tls.getpeercert(binary_form=True)
        old = shown()
        client = Lines(proxy.ports["imaps"], tls=True)
        self.addCleanup(client.close)
        client.until("* OK")
        self.assertIn("a OK", imap_login(client, "alice"))
        ticket = self.dir / "ticket"
        self.ticket(proxy, "-sess_out", ticket)
        other = self.dir / "other"
        other.mkdir()
        make_certificate(other)
        os.replace(other / "mail.crt", self.dir / "mail.crt")
        proxy.wait_log("certificates changed and can't be used, the old ones stay")
        self.assertIn("key=tls.key", proxy.log())
        self.assertEqual(shown(), old)
        os.replace(other / "mail.key", self.dir / "mail.key")
        proxy.wait_log("certificates reloaded")
        self.assertNotEqual(shown(), old)
        self.assertIn("Reused", self.ticket(proxy, "-sess_in", ticket))
        self.assertIn("b OK", client.ask("b NOOP", "b ")[-1])

    def ticket(self, proxy, *options):
        """What openssl s_client says of a session with a login in it, TLS 1.2 so that the ticket is there at once."""
        done = subprocess.run(["openssl", "s_client", "-tls1_2", "-connect", f"127.0.0.1:{proxy.ports['imaps']}",
                               *map(str, options)], input="a LOGOUT\r\n", capture_output=True, text=True, timeout=DEADLINE)
        return done.stdout

    def test_nothing_begins_behind_a_stop(self):
        """A reload while relays have their grace opens no port that nobody accepts at."""
        def stay(connection):
            accept_login(connection)
            connection.recv(4096)
        self.fake_backend = self.fake(stay)
        proxy = self.start()
        with Lines(proxy.ports["imap"]) as client:
            client.until("* OK")
            self.assertIn("a OK", imap_login(client, "alice"))
            proxy.process.send_signal(signal.SIGTERM)
            proxy.wait_log("event=stopping")
            wait_for("the port is closed", lambda: not connects(proxy.ports["imap"]))
            proxy.process.send_signal(signal.SIGHUP)
            proxy.wait_log("the proxy is stopping")
            self.assertFalse(connects(proxy.ports["imap"]))

    def test_renewed_certificates_leave_routes_alone(self):
        """A file of patterns that is being edited counts with a reload and not before, and holds no certificate back."""
        (self.dir / "routes.re").write_text("bob: a\n")
        proxy = self.start()
        text = proxy.config.read_text()
        proxy.config.write_text(text.replace("routes:", "routes:\n  - regex: routes.re"))
        proxy.reload()
        (self.dir / "routes.re").write_text("(: a\n")
        other = self.dir / "other"
        other.mkdir()
        make_certificate(other)
        os.replace(other / "mail.key", self.dir / "mail.key")
        os.replace(other / "mail.crt", self.dir / "mail.crt")
        proxy.wait_log("certificates reloaded")
        with Lines(proxy.ports["imaps"], tls=True) as client:
            client.until("* OK")
            self.assertIn("a OK", imap_login(client, "bob"))

    def test_unknown_user_is_refused(self):
        config = self.dir / "user.yaml"
        config.write_text(CONFIG.format(imap=free_port(), imaps=free_port(), pop3=free_port(), a_imap=1, a_pop3=1)
                          + "user: nosuchuser\n")
        done = run("run", "--config", config)
        self.assertEqual(done.returncode, 1)
        self.assertIn('user: there is no user "nosuchuser"', done.stderr)

    def test_install(self):
        """What `make install` puts where, and that it runs from there."""
        subprocess.run(["make", "-s", "-C", ROOT, "install-files", f"DESTDIR={self.dir}/root"], check=True, capture_output=True)
        installed = sorted(str(path.relative_to(self.dir / "root")) for path in (self.dir / "root").rglob("*") if path.is_file())
        self.assertEqual(installed, [
            "etc/proxyd/proxyd.yaml.sample", "lib/systemd/system/proxyd.service", "usr/local/sbin/proxyd",
            "usr/local/share/man/man5/proxyd.yaml.5", "usr/local/share/man/man8/proxyd.8",
            "usr/local/share/proxyd/schema.sql"])
        binary = self.dir / "root" / "usr" / "local" / "sbin" / "proxyd"
        self.assertEqual(subprocess.run([binary, "--version"], capture_output=True).returncode, 0)

    def test_manual_pages_have_no_mistakes(self):
        mandoc = shutil.which("mandoc")
        self.assertIsNotNone(mandoc, "mandoc is not installed")
        for page in ("proxyd.8", "proxyd.yaml.5"):
            done = subprocess.run([mandoc, "-Tlint", "-Wwarning", ROOT / "etc" / page], capture_output=True, text=True)
            self.assertEqual(done.stdout, "")


if __name__ == "__main__":
    unittest.main()

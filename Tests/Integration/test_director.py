"""A Dovecot Director and proxyd beside it: both have each user at the same backend, whatever the weights and whoever is
down. A site that changes over moves nobody."""
import json
import os
import pathlib
import random
import socket
import subprocess
import unittest

from harness import Process, Proxy, TemporaryFolder, free_port

DIRECTOR = """\
base_dir = {dir}/run
state_dir = {dir}/state
log_path = {dir}/dovecot.log
default_internal_user = nobody
default_internal_group = nogroup
default_login_user = nobody
protocols =
ssl = no
disable_plaintext_auth = no
director_servers = 127.0.0.1:{port}
director_mail_servers = {hosts}
{more}
service director {{
  unix_listener director-admin {{
    mode = 0600
  }}
  fifo_listener login/proxy-notify {{
    mode = 0666
  }}
  inet_listener {{
    port = {port}
    address = 127.0.0.1
  }}
}}
service anvil {{
  chroot =
}}
"""

SITE = """\
listeners:
  - {{ protocol: imap, address: "127.0.0.1:{imap}", tls: "off" }}
control: {{ socket: control.sock }}
health: {{ probe: "off" }}
backends:
%s
pools:
  mail:
    ring: director
    key: '%s'
    members:
%s
routes:
  - default: mail
"""


class Director:
    """A director alone: a ring of one."""

    def __init__(self, folder, hosts, more=""):
        self.dir = pathlib.Path(folder) / "director"
        self.dir.mkdir()
        os.chmod(self.dir, 0o755)
        (self.dir / "state").mkdir()
        self.config = self.dir / "dovecot.conf"
        self.config.write_text(DIRECTOR.format(dir=self.dir, port=free_port(), hosts=" ".join(hosts), more=more))
        self.process = Process(["/usr/sbin/dovecot", "-F", "-c", self.config], self.dir / "output.log")
        self.process.wait_ready("the director", lambda: self.run("status").returncode == 0)

    def run(self, *words):
        return subprocess.run(["doveadm", "-c", self.config, "director", *words], capture_output=True, text=True)

    def do(self, *words):
        done = self.run(*words)
        assert done.returncode == 0 and not done.stderr, (words, done.stdout, done.stderr)

    def hashed(self, user):
        """Where the ring of now has the user."""
        lines = dict(line.split(": ", 1) for line in self.run("status", user).stdout.splitlines() if ": " in line)
        return lines["Hashed"]

    def stop(self):
        self.process.stop()


class Control:
    """The control socket, spoken to as it is documented."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(path))
        self.file = self.socket.makefile("rwb")

    def ask(self, command, **arguments):
        self.file.write(json.dumps({"command": command, **arguments}).encode() + b"\n")
        self.file.flush()
        rows = []
        while True:
            line = json.loads(self.file.readline())
            if "row" not in line:
                assert "done" in line, line
                return rows
            rows.append(line["row"])

    def close(self):
        self.file.close()
        self.socket.close()


class Agreement(unittest.TestCase):
    HOSTS = [f"127.0.0.{number}" for number in (11, 12, 13, 200)] + ["::1"]

    def setUp(self):
        folder = TemporaryFolder()
        self.addCleanup(folder.remove)
        self.folder = folder.path

    def begin(self, hosts, key=r"\U", more=""):
        director = Director(self.folder, hosts, more)
        self.addCleanup(director.stop)
        names = {host: f"m{number}" for number, host in enumerate(hosts)}
        backends = "\n".join(f"  {name}: {{{{ address: \"{host}\" }}}}" for host, name in names.items())
        members = "\n".join(f"      {name}: {{{{ weight: 100 }}}}" for name in names.values())
        proxy = Proxy(self.folder, SITE % (backends, key, members))
        proxy.start()
        self.addCleanup(proxy.stop)
        control = Control(proxy.dir / "control.sock")
        self.addCleanup(control.close)
        return director, control, names

    def compare(self, director, control, names, users):
        seen = set()
        for user in users:
            theirs = names[director.hashed(user)]
            (row,) = control.ask("affinity-map", user=user)
            self.assertEqual((user, row["hashed"]), (user, theirs))
            seen.add(theirs)
        return seen

    def users(self, count, seed):
        draw = random.Random(seed)
        letters = "abcdefghijklmnopqrstuvwxyzABCXYZ0123456789.-_+"
        # doveadm takes a first dash for an option.
        return [draw.choice("aBz") + "".join(draw.choices(letters, k=draw.randint(0, 20))) + draw.choice(["", "@example.com", "@Example.ORG"])
                for _ in range(count)]

    def test_users_are_at_the_same_backend(self):
        director, control, names = self.begin(self.HOSTS)
        self.assertEqual(self.compare(director, control, names, self.users(120, 1)), set(names.values()))
        # Other weights, and one that gets nobody any more.
        for host, weight in ((self.HOSTS[0], 10), (self.HOSTS[1], 250), (self.HOSTS[4], 0)):
            director.do("update", host, str(weight))
            control.ask("backend", backend=names[host], weight=weight)
        seen = self.compare(director, control, names, self.users(120, 2))
        self.assertNotIn(names[self.HOSTS[4]], seen)
        # One that is down, and one that is back.
        director.do("down", self.HOSTS[1])
        control.ask("backend", backend=names[self.HOSTS[1]], state="drain")
        seen = self.compare(director, control, names, self.users(80, 3))
        self.assertNotIn(names[self.HOSTS[1]], seen)
        director.do("up", self.HOSTS[1])
        control.ask("backend", backend=names[self.HOSTS[1]], state="ready")
        self.assertIn(names[self.HOSTS[1]], self.compare(director, control, names, self.users(80, 4)))

    def test_names_without_their_domain(self):
        director, control, names = self.begin(self.HOSTS[:2], r"\u", "director_username_hash = %Ln")
        self.compare(director, control, names, self.users(60, 5))


if __name__ == "__main__":
    unittest.main()

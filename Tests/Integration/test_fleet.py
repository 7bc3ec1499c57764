"""Users stay where they are: a storm of logins and faults over recording members, and what a member that fails costs."""
import asyncio
import contextlib
import json
import os
import random
import re
import signal
import socket
import sys
import time
import unittest

from backends import PROTOCOLS, free_ports
from clients import CLIENTS, COMMAND
from fleet import RESET, Site
from harness import DEADLINE, ProxyTest, wait_for
from storm import Storm

SEED = int(os.environ.get("FLEET_SEED", "5"))
SECONDS = float(os.environ.get("FLEET_SECONDS", "15"))

CONFIGURATION = """
loops: 2
listeners:
{listeners}
routes:
  - default: mail
backends:
{backends}
pools:
  mail: {{ members: {{ {members} }}, {pool} }}
health: {{ {health} }}
timeouts: {{ {timeouts} }}
limits: {{ {limits} }}
state-file: state.db
control: {{ socket: control.sock }}
log: {{ level: info }}
{more}
"""


class FleetTest(ProxyTest):
    """A site of three members and a pool of them."""

    names = "abc"
    pool = "affinity: hash, pause: 300ms"
    health = "interval: 300ms, fast-interval: 100ms, timeout: 2s, rise: 1, fall: 2"
    timeouts = "login: 30s, connect: 500ms, backend-login: 2s, failure-delay: 0"
    limits = "failed-logins: 1000"
    more = ""

    def setUp(self):
        super().setUp()
        self.site = Site(self.names)
        self.addCleanup(self.site.stop)
        self.ports = free_ports(*PROTOCOLS)
        self.weights = {name: 100 for name in self.names}

    def configuration(self, keys=None, backends=None, **changes):
        """`keys`: further ones of members, by name."""
        listeners = "\n".join(f'  - {{ protocol: {protocol}, address: "127.0.0.1:{port}", tls: off }}'
                              for protocol, port in self.ports.items())
        members = ", ".join(f"{name}: {{ weight: {weight}{(keys or {}).get(name, '')} }}"
                            for name, weight in self.weights.items())
        parts = {key: changes.get(key, getattr(self, key)) for key in ("pool", "health", "timeouts", "limits", "more")}
        return CONFIGURATION.format(listeners=listeners, members=members,
                                    backends=backends or self.site.backends(self.weights), **parts)

    def start(self, **changes):
        self.proxyd = self.proxy(self.configuration(**changes).replace("{", "{{").replace("}", "}}"))
        return self.proxyd

    def reload(self, **changes):
        self.proxyd.config.write_text(self.configuration(**changes))
        self.proxyd.reload()

    def connect(self, protocol="imap", **options):
        client = CLIENTS[protocol](self.ports[protocol], **options)
        self.addCleanup(client.close)
        return client

    def log_in(self, user, protocol="imap", password="secret", client=None, **options):
        """A client and how its login went, with the time it took in `client.took`."""
        client = client or self.connect(protocol, **options)
        began = time.monotonic()
        result = client.login("PLAIN" if protocol == "managesieve" else COMMAND, user, password)
        client.took = time.monotonic() - began
        return client, result

    def enter(self, user, protocol="imap", **options):
        """A client that is logged in."""
        client, result = self.log_in(user, protocol, **options)
        self.assertTrue(result.ok, result.final)
        return client

    def users_of(self, member, count, prefix="u"):
        """Users whom the pool gives to that member, found by asking; nobody stays logged in."""
        users = []
        for number in range(100 * count):
            user = f"{prefix}{number}"
            client = self.enter(user)
            if self.site.where(user) == {member}:
                users.append(user)
            client.log_out()
            client.close()
            if len(users) == count:
                wait_for("all have left", lambda: self.site.count() == 0)
                return users
        raise AssertionError(f"{member} gets nobody")

    def operate(self, command, **arguments):
        """Asks the running proxyd over its control socket; returns the rows of the answer."""
        with socket.socket(socket.AF_UNIX) as control, control.makefile("rw") as stream:
            control.settimeout(DEADLINE)
            control.connect(str(self.dir / "control.sock"))
            stream.write(json.dumps({"command": command, **arguments}) + "\n")
            stream.flush()
            rows = []
            for line in stream:
                answer = json.loads(line)
                self.assertNotIn("error", answer, f"{command} {arguments}")
                if "done" in answer:
                    return rows
                rows.append(answer["row"])
        raise AssertionError(f"{command} {arguments}: no answer")

    def expect_no_violation(self):
        self.assertEqual(self.site.call(lambda: list(self.site.violations)), [])


class Invariant(FleetTest):
    """No user is at two members at once, whatever happens, and no login that was accepted is lost."""

    names = "abcdef"

    def restart(self):
        """proxyd is killed without notice and started again."""
        self.proxyd.process.stop(signal.SIGKILL)
        self.proxyd.start()

    def check(self, pool):
        self.pool = pool
        self.start()
        idle = self.proxyd.descriptors()
        storm = Storm(self, SEED, SECONDS, calm="ab")
        try:
            complaints = storm.play()
        finally:
            print(f"\nseed {SEED}: {storm.summary()}", file=sys.stderr)
        if complaints:
            more = f"\n... and {len(complaints) - 20} more" if len(complaints) > 20 else ""
            self.fail(f"seed {SEED}:\n" + "\n".join(complaints[:20]) + more)
        self.check_calm(storm.users, idle)

    def check_calm(self, users, idle):
        """After the storm everything is as if there had been none."""
        wait_for("no session is left", lambda: self.site.count() == 0)
        wait_for("no descriptor is left", lambda: self.proxyd.descriptors() <= idle + 4)
        clients = [self.enter(user, protocol) for user in users for protocol in PROTOCOLS]
        for client in clients:
            self.assertTrue(client.works())
        for user in users:
            self.assertEqual(len(self.site.where(user)), 1)
        self.assertEqual(self.site.count(), len(clients))
        for client in clients:
            client.log_out()
            client.close()
        wait_for("no session is left", lambda: self.site.count() == 0)
        self.expect_no_violation()

    def test_hash(self):
        self.check("affinity: hash, pause: 300ms")

    def test_table(self):
        self.check("affinity: table, pause: 300ms, expiry: 10s")


if __name__ == "__main__":
    unittest.main()

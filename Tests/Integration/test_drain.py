"""A member with two thousand sessions is drained and loses none; maintenance empties it, at the rate the operator states."""
import resource
import select
import socket
import time

from harness import DEADLINE, wait_for
from test_fleet import FleetTest

SESSIONS = 2_000


class Drained(FleetTest):
    names = "ab"
    pool = "affinity: hash, pause: 200ms, move-rate: 500"
    health = "interval: 2s, timeout: 2s"

    def setUp(self):
        # Each session is a socket here and one at the member; proxyd inherits the bound for its own two.
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], min(before[1], 16_384)), before[1]))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, before)
        super().setUp()

    def fill(self):
        """As many sessions as are wanted, of as many users, all at a: b takes nobody yet."""
        self.operate("backend", backend="b", state="drain")
        sockets = []
        for start in range(0, SESSIONS, 200):
            batch = []
            for number in range(start, start + 200):
                client = socket.create_connection(("127.0.0.1", self.ports["imap"]), DEADLINE)
                self.addCleanup(client.close)
                client.sendall(f"a LOGIN user{number} secret\r\n".encode())
                batch.append(client)
            for client in batch:
                self.expect(client, b"a OK ")
            sockets += batch
        self.operate("backend", backend="b", state="ready")
        self.assertEqual(self.site.count("a"), SESSIONS)
        return sockets

    def expect(self, client, words):
        """Reads up to the line that begins so."""
        heard = b""
        while not any(line.startswith(words) for line in heard.split(b"\n")[:-1]):
            more = client.recv(4_096)
            self.assertTrue(more, heard)
            heard += more
        return heard

    def test_drain_loses_nobody(self):
        self.start()
        sockets = self.fill()
        self.operate("backend", backend="a", state="drain")
        # Who is there may open more there; who is new goes elsewhere.
        self.enter("user7", "pop3")
        self.assertEqual(self.site.where("user7"), {"a"})
        for number in range(20):
            self.enter(f"new{number}")
            self.assertEqual(self.site.where(f"new{number}"), {"b"})
        for number, client in enumerate(sockets):
            client.sendall(b"b ECHO %d\r\n" % number)
        for number, client in enumerate(sockets):
            self.expect(client, b"b OK %d" % number)
        self.assertEqual(self.site.count("a"), SESSIONS + 1)
        self.assertEqual(self.backend("a")["sessions"], SESSIONS + 1)
        # Those who leave stay away.
        sockets[0].sendall(b"c LOGOUT\r\n")
        self.expect(sockets[0], b"c OK")
        sockets[0].close()
        # That the member has closed is not yet that proxyd knows it.
        wait_for("the user has left", lambda: self.backend("a")["sessions"] == SESSIONS)
        self.enter("user0")
        self.assertEqual(self.site.where("user0"), {"b"})
        self.expect_no_violation()

    def test_maintenance_empties_it_at_its_rate(self):
        self.start()
        sockets = self.fill()
        began = time.monotonic()
        self.operate("backend", backend="a", state="maint")
        # Seconds until each was told; 500 users a second, in steps of a tenth.
        told = []
        left = {client.fileno(): client for client in sockets}
        poll = select.poll()
        for number in left:
            poll.register(number, select.POLLIN)
        while left:
            ready = poll.poll(DEADLINE * 1_000)
            self.assertTrue(ready, f"{len(left)} were left alone")
            for number, _ in ready:
                client = left.pop(number)
                poll.unregister(number)
                self.expect(client, b"* BYE ")
                told.append(time.monotonic() - began)
        wait_for("it is empty", lambda: self.site.count("a") == self.backend("a")["sessions"] == 0)
        # Never faster than stated: at any moment as many have gone as the rate allows, and a step more.
        for number, moment in enumerate(sorted(told)):
            self.assertLessEqual(number, 500 * (moment + 0.2), f"{number} had gone after {moment:.2f} s")
        # And not much slower: 2,000 are four seconds' work.
        self.assertLess(max(told), 8)
        self.enter("user1")
        self.assertEqual(self.site.where("user1"), {"b"})
        self.expect_no_violation()

    def test_maintenance_that_is_taken_back_ends(self):
        self.start()
        sockets = self.fill()
        self.operate("backend", backend="a", state="maint")
        wait_for("some have gone", lambda: self.site.count("a") < SESSIONS - 100)
        self.operate("backend", backend="a", state="ready")
        # The step that was under way may still come; then nobody is told any more, for as long as many steps take.
        wait_for("the last step is over", lambda: len(self.echo(sockets)) == self.site.count("a"))
        staying = self.echo(sockets)
        self.assertGreater(len(staying), SESSIONS // 4)
        until = time.monotonic() + 1
        while time.monotonic() < until:
            self.assertEqual(self.echo(staying), staying)

    def echo(self, sockets):
        """Those whose session is there still."""
        for client in sockets:
            try:
                client.sendall(b"e ECHO x\r\n")
            except OSError:
                pass
        here = []
        for client in sockets:
            try:
                heard = client.recv(4_096)
                while heard and not heard.endswith(b"\n"):
                    heard += client.recv(4_096)
            except OSError:
                heard = b""
            if heard == b"e OK x\r\n":
                here.append(client)
        return here

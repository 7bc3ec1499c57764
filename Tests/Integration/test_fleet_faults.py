"""What a proxy lacks itself is no member's fault; and what the fleet's counters say of probes, moves and the state file."""
import ctypes
import json
import os
import pathlib
import subprocess
import time
import unittest

from harness import PROXYD, wait_for
from test_fleet import FleetTest

LIBC = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNET = 0x40000000
PORT_RANGE = pathlib.Path("/proc/sys/net/ipv4/ip_local_port_range")


def call(function, *arguments):
    if function(*arguments) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


class PortsTest(FleetTest):
    """In a network of its own: the thread's, and that of all that it starts."""

    names = "a"

    def setUp(self):
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        self.addCleanup(os.close, before)
        call(LIBC.unshare, CLONE_NEWNET)
        self.addCleanup(call, LIBC.setns, before, CLONE_NEWNET)
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        super().setUp()

    def health_of(self, name):
        argv = [PROXYD, "backends", "--json", "--socket", str(self.proxyd.dir / "control.sock")]
        lines = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=20).stdout.splitlines()
        rows = [json.loads(line).get("row") for line in lines]
        return next(row["health"] for row in rows if row and row["backend"] == name)

    def test_a_proxy_without_a_port_left(self):
        """Towards a server there are so many ports and no more: neither logins nor probes that get none speak against it,
        and its sessions go on."""
        self.start()
        clients = [self.connect() for _ in range(60)]
        usual = PORT_RANGE.read_text()
        PORT_RANGE.write_text("50000 50009")
        inside = []
        while True:
            client, result = self.log_in(f"u{len(inside)}", client=clients.pop())
            if not result.ok:
                break
            inside.append(client)
        self.assertIn("UNAVAILABLE", result.final)
        # Logins and many probes' time. A probe may have had the last port, and leave it to a login.
        end = time.monotonic() + 2
        while time.monotonic() < end:
            _, result = self.log_in("another", client=clients[-1])
            if result.ok:
                inside.append(clients.pop())
        self.assertTrue(0 < len(inside) <= 10, len(inside))
        self.assertNotEqual(self.health_of("a"), "down")
        self.assertNotIn("backend lost", self.proxyd.log())
        self.proxyd.wait_log("failure=no-socket")
        PORT_RANGE.write_text(usual)
        _, result = self.log_in("another", client=clients[0])
        self.assertTrue(result.ok, result.final)
        for client in inside:
            self.assertTrue(client.works())


class MetersTest(FleetTest):
    """What an operator sees of the fleet in `metrics` and `status`."""

    pool = "affinity: table, pause: 300ms"

    def values(self):
        return {(row["name"], *row["labels"].values()): row.get("value", row.get("count")) for row in self.operate("metrics")}

    def count(self, *name):
        return self.values().get(name, 0)

    def expect(self, least, *name):
        """The counter comes to that, and no further at that moment."""
        wait_for(f"{name} is {least}", lambda: self.count(*name) >= least)
        self.assertEqual(self.count(*name), least)

    def status(self):
        argv = [PROXYD, "status", "--socket", str(self.dir / "control.sock")]
        lines = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=20).stdout.splitlines()
        return dict(line.split(maxsplit=1) for line in lines if line)

    def test_probes(self):
        """Real ones, of members that are well and of one that dies and comes back."""
        self.start()
        for name in self.names:
            wait_for("probes", lambda: self.count("proxyd_backend_probes_total", name) >= 3)
        values = self.values()
        for name in self.names:
            self.assertEqual(values["proxyd_backend_up", name], 1)
            self.assertLess(abs(values["proxyd_backend_last_probe_timestamp_seconds", name] - time.time()), 5)
            for zero in ("failed_probes", "void_probes", "losses", "recoveries", "agent_checks"):
                self.assertEqual(values[f"proxyd_backend_{zero}_total", name], 0, zero)
        # A histogram for each, of as many as were made.
        row = next(row for row in self.operate("metrics") if row["name"] == "proxyd_backend_probe_seconds")
        self.assertGreaterEqual(row["count"], 3)
        self.assertGreater(row["sum"], 0)
        self.assertEqual(self.status()["backends"], "3")
        self.site["a"].kill()
        self.expect(1, "proxyd_backend_losses_total", "a")
        values = self.values()
        self.assertEqual(values["proxyd_backend_up", "a"], 0)
        # As many as `fall`.
        self.assertGreaterEqual(values["proxyd_backend_failed_probes_total", "a"], 2)
        self.assertGreater(values["proxyd_backend_probes_total", "a"], values["proxyd_backend_failed_probes_total", "a"])
        self.assertEqual(values["proxyd_backend_failed_probes_total", "b"], 0)
        self.assertEqual(self.status()["backends"], "3, 1 lost")
        self.site["a"].revive()
        self.expect(1, "proxyd_backend_recoveries_total", "a")
        self.assertEqual(self.count("proxyd_backend_up", "a"), 1)
        # A reload keeps what was counted.
        before = self.values()
        self.reload()
        after = self.values()
        self.assertLessEqual({name for name, *_ in before}, {name for name, *_ in after})
        for name in ("probes", "failed_probes", "losses", "recoveries"):
            key = f"proxyd_backend_{name}_total", "a"
            self.assertGreaterEqual(after[key], before[key], key)

    def test_moves(self):
        """Who is ended and who has to wait."""
        self.start(pool="affinity: table, pause: 3s")
        client = self.enter("alice")
        member, = self.site.where("alice")
        other = next(name for name in self.names if name != member)
        self.operate("affinity-move", user="alice", backend=other)
        self.assertIn("BYE", client.next())
        self.expect(1, "proxyd_session_evictions_total", "move")
        moved = self.enter("alice")
        self.assertEqual(self.site.where("alice"), {other})
        values = self.values()
        # The pause; and before it the file was waited for.
        self.assertEqual(values["proxyd_pool_pauses_total", "mail"], 1)
        self.assertGreaterEqual(values["proxyd_pool_waits_total", "mail", "place"], 1)
        self.assertEqual(values["proxyd_pool_users", "mail"], 1)
        self.assertEqual(values["proxyd_pool_sessions", "mail"], 1)
        self.operate("backend", backend=other, state="maint")
        self.assertIn("BYE", moved.next())
        self.expect(1, "proxyd_session_evictions_total", "maint")
        self.assertNotIn(("proxyd_pool_expired_waits_total", "mail", "place"), self.values())

    def test_the_state_file(self):
        self.start()
        for number in range(5):
            self.enter(f"u{number}")
        self.expect(5, "proxyd_state_file_rows_total")
        # A batch's rows are counted before it is.
        values = wait_for("all is counted", lambda: (now := self.values())["proxyd_state_file_batches_total",]
                          == now["proxyd_state_file_batch_seconds",] and now)
        self.assertEqual(values["proxyd_state_file_trusted",], 1)
        self.assertEqual(values["proxyd_state_file_failures_total",], 0)
        self.assertTrue(0 < values["proxyd_state_file_batches_total",] <= 5)
        file = self.dir / "state.db"
        self.assertEqual(self.status()["state"], str(file))
        # It is taken away, and nothing can be put in its place.
        for part in ("", "-wal"):
            os.unlink(f"{file}{part}")
        file.mkdir()
        self.enter("another")
        self.proxyd.wait_log("the state file can't be written")
        values = self.values()
        self.assertEqual(values["proxyd_state_file_trusted",], 0)
        self.assertGreaterEqual(values["proxyd_state_file_failures_total",], 1)
        self.assertRegex(self.status()["state"], rf"^{file}, not written: .+; what is new is remembered in memory only$")
        file.rmdir()
        self.proxyd.wait_log("the state file is written again")
        values = self.values()
        self.assertEqual(values["proxyd_state_file_trusted",], 1)
        self.assertGreaterEqual(values["proxyd_state_file_rows_total",], 11)
        self.assertEqual(self.status()["state"], str(file))


if __name__ == "__main__":
    unittest.main()

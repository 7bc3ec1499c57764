"""What a proxy lacks itself is no member's fault."""
import ctypes
import json
import os
import pathlib
import subprocess
import time
import unittest

from harness import PROXYD
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
        self.assertTrue(0 < len(inside) <= 10, len(inside))
        # Logins and many probes' time.
        end = time.monotonic() + 2
        while time.monotonic() < end:
            _, result = self.log_in("another", client=clients[0])
            self.assertFalse(result.ok)
        self.assertNotEqual(self.health_of("a"), "down")
        self.assertNotIn("backend lost", self.proxyd.log())
        self.assertIn("failure=no-socket", self.proxyd.log())
        PORT_RANGE.write_text(usual)
        _, result = self.log_in("another", client=clients[1])
        self.assertTrue(result.ok, result.final)
        for client in inside:
            self.assertTrue(client.works())


if __name__ == "__main__":
    unittest.main()

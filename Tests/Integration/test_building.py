"""What building and the gate promise: PATH does not matter, no server is left enabled, a growth is named, a failure too."""
import os
import pathlib
import subprocess
import sys
import time

from harness import DEADLINE, ROOT, ProxyTest

sys.path.insert(0, str(ROOT / "Tests" / "Counts"))
sys.path.insert(0, str(ROOT / "Tests"))

FAKES = {
    # Nothing is installed before, all that is asked for after.
    "dpkg-query": 'grep -qx "${!#}" "$ROOT/installed" 2>/dev/null && echo -n installed',
    "apt-get": r'''
[ -x "$ROOT/usr/sbin/policy-rc.d" ] && ! "$ROOT/usr/sbin/policy-rc.d" || exit 1
printf '%s\n' "$@" >> "$ROOT/installed"
touch "$ROOT/etc/systemd/system/multi-user.target.wants/dovecot.service"
touch "$ROOT/etc/systemd/system/sockets.target.wants/dovecot.socket"
touch "$ROOT/etc/rc2.d/S01perdition" "$ROOT/etc/rc2.d/K01slapd"''',
    "systemctl": 'echo "$@" >> "$ROOT/told"; rm "$ROOT"/etc/systemd/system/*.wants/"$2"',
    "update-rc.d": 'echo "$@" >> "$ROOT/told"; mv "$ROOT/etc/rc2.d/S01$1" "$ROOT/etc/rc2.d/K01$1"',
}


class Packages(ProxyTest):
    def setUp(self):
        super().setUp()
        self.root = self.dir / "root"
        for folder in ("bin", "run/lock", "usr/sbin", "etc/rc2.d", "etc/systemd/system/multi-user.target.wants",
                       "etc/systemd/system/sockets.target.wants"):
            (self.root / folder).mkdir(parents=True)
        for name, text in FAKES.items():
            path = self.root / "bin" / name
            path.write_text(f"#!/bin/bash\n{text}\n")
            path.chmod(0o755)

    def install(self, kind):
        environment = {**os.environ, "ROOT": str(self.root), "PATH": f"{self.root}/bin:{os.environ['PATH']}"}
        subprocess.run([ROOT / "etc/demo/packages", kind], env=environment, check=True, timeout=DEADLINE)
        return (self.root / "installed").read_text().split()

    def test_no_server_is_left_enabled(self):
        """What begins at boot since the installation is disabled; what an administrator had enabled stays."""
        (self.root / "etc/systemd/system/multi-user.target.wants/nginx.service").touch()
        self.install("test")
        told = (self.root / "told").read_text().splitlines()
        self.assertEqual(sorted(told), ["disable dovecot.service", "disable dovecot.socket", "perdition disable"])
        left = {path.name for path in self.root.glob("etc/**/*") if path.is_file()}
        self.assertEqual(left, {"nginx.service", "K01perdition", "K01slapd"})
        self.assertFalse((self.root / "usr/sbin/policy-rc.d").exists())

    def test_building_needs_no_server(self):
        installed = self.install("build")
        self.assertIn("libssl-dev", installed)
        self.assertEqual([name for name in installed if "dovecot" in name or "postgresql" in name or name == "nginx-light"], [])
        before = len(installed)
        self.assertEqual(len(self.install("build")), before, "installed twice")
        self.assertIn("dovecot-imapd", self.install("run"))


class Building(ProxyTest):
    def test_path_does_not_matter(self):
        """The package manager builds all anew where PATH differs."""
        def path(before):
            environment = {**os.environ, "PATH": f"{before}:{os.environ['PATH']}"}
            return subprocess.run(["make", "-s", "path"], cwd=ROOT, env=environment, capture_output=True, text=True, check=True,
                                  timeout=DEADLINE).stdout
        self.assertEqual(path("/nonexistent"), path("/somewhere/else"))

    def test_a_growth_is_named(self):
        from counts import compare
        expected = {"plain login: instructions": 1_000, "16 KiB up: allocations": 0, "NOOP: system calls": 6}
        cases = {1_029: 0, 1_031: 1, 1_040: 1, 971: 0}
        for value, count in cases.items():
            with self.subTest(value=value):
                worse, better = compare({**expected, "plain login: instructions": value}, expected)
                self.assertEqual((len(worse), better), (count, []))
        worse, better = compare({**expected, "plain login: instructions": 1_040}, expected)
        self.assertEqual(worse, ["plain login: instructions: 1,040.00 instead of 1,000.00, +4.0%"])
        self.assertEqual(len(compare({**expected, "plain login: instructions": 900}, expected)[1]), 1)
        self.assertIn("16 KiB up", compare({**expected, "16 KiB up: allocations": 1}, expected)[0][0])
        self.assertIn("no figure is expected", compare({"new: instructions": 1}, expected)[0][0])

    def test_a_step_that_fails_is_named_and_ends_the_others(self):
        (self.dir / "Makefile").write_text("quick:\n\t@true\nbroken:\n\t@echo error: here; false\nslow:\n\t@sleep 600\n")
        script = (f"import sys, pathlib; sys.path.insert(0, {str(ROOT / 'Tests')!r}); import gate\n"
                  f"gate.ROOT = pathlib.Path({str(self.dir)!r}); gate.LOGS = gate.ROOT / '.build-gate'\n"
                  "gate.LANES = [[gate.Step('quick'), gate.Step('broken', ('quick',)), gate.Step('never')], [gate.Step('slow')]]\n"
                  "gate.main()\n")
        began = time.monotonic()
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=DEADLINE)
        self.assertLess(time.monotonic() - began, DEADLINE)
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        self.assertIn("quick: passed", done.stdout)
        self.assertIn("error: here", done.stdout)
        self.assertIn("make test: broken failed", done.stdout)
        self.assertIn("Only it: make broken", done.stdout)
        self.assertFalse(pathlib.Path(self.dir / ".build-gate" / "never.log").exists())

"""Users stay where they are: a storm of logins and faults over recording members, and what a member that fails costs."""
import concurrent.futures
import json
import os
import re
import signal
import socket
import sys
import time
import unittest

from backends import PROTOCOLS, free_ports
from clients import CLIENTS, COMMAND
from fleet import Site
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
    timeouts = "login: 30s, connect: 5s, backend-login: 10s, failure-delay: 0"
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
                self.wait_until_all_have_left()
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

    def failures(self, count):
        """Why logins failed, once there are so many lines of it: they are written by a thread of their own."""
        return wait_for(f"{count} failures are logged", lambda: len(found := [
            line["failure"] for line in self.proxyd.failures()]) >= count and found)

    def expect_failures(self, *failures):
        self.assertEqual(self.failures(len(failures)), list(failures))

    def backend(self, name):
        """What proxyd tells of it."""
        return next(row for row in self.operate("backends") if row["backend"] == name)

    def wait_until_all_have_left(self):
        """Members notice it before proxyd does: it has told them, and takes note then."""
        wait_for("no session is left", lambda: self.site.count() == 0 == sum(
            row["sessions"] for row in self.operate("backends")))

    def expect_no_violation(self):
        self.assertEqual(self.site.call(lambda: list(self.site.violations)), [])


class Invariant(FleetTest):
    """No user is at two members at once, whatever happens, and no login that was accepted is lost."""

    # The recorder has all members in one loop: under a storm it may take a moment to answer a probe, and is not lost for it.
    health = "interval: 300ms, fast-interval: 100ms, timeout: 1s, rise: 1, fall: 3"
    # As the storm reckons with: see storm.ANSWER.
    timeouts = "login: 30s, connect: 500ms, backend-login: 2s, failure-delay: 0"

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
        self.wait_until_all_have_left()
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
        self.wait_until_all_have_left()
        self.expect_no_violation()

    def test_hash(self):
        self.check("affinity: hash, pause: 300ms")

    def test_table(self):
        self.check("affinity: table, pause: 300ms, expiry: 10s")

    def test_a_pause_over_a_restart(self):
        """A killed process has left the user's session to the kernel, and the ring of the next one tells another member: the
        old one has the pause to finish."""
        for affinity in ("hash", "table"):
            with self.subTest(affinity=affinity):
                self.weights = dict.fromkeys(self.names, 100)
                pool = f"affinity: {affinity}, pause: 1s"
                self.start(pool=pool)
                self.enter("alice")
                member, = self.site.where("alice")
                self.weights[member] = 0
                self.proxyd.config.write_text(self.configuration(pool=pool))
                began = time.monotonic()
                self.restart()
                client = self.enter("alice")
                self.assertGreaterEqual(time.monotonic() - began, 1)
                self.assertNotIn(member, self.site.where("alice"))
                client.log_out()
                client.close()
                self.proxyd.stop()
        self.expect_no_violation()



class Faults(FleetTest):
    """What one of three members may do to its own users, and that nobody else's notice. Nobody is probed: what is
    connected is connected by logins."""

    health = "probe: off, failed-logins: 3, refused-logins: 6"
    timeouts = "login: 30s, connect: 2s, backend-login: 3s, failure-delay: 0"
    CONNECT = 2  # seconds, as in timeouts
    LOGIN = 3  # likewise
    PROMPT = 1.5  # seconds that a login takes at most which waits for no time-out: less than CONNECT, busy machines or not

    def setUp(self):
        super().setUp()
        self.start()
        self.sick = self.users_of("a", 14)
        self.well = self.users_of("b", 4, prefix="v") + self.users_of("c", 4, prefix="w")

    def together(self, users, protocols=PROTOCOLS):
        """All log in at once: how each login went, with the time it took."""
        def one(number, user):
            return self.log_in(user, protocols[number % len(protocols)], f"secret of {user}")
        with concurrent.futures.ThreadPoolExecutor(len(users)) as pool:
            return list(pool.map(one, range(len(users)), users))

    def expect_undisturbed(self):
        """Users of the other members log in as if nothing were."""
        for number, user in enumerate(self.well):
            client, result = self.log_in(user, PROTOCOLS[number % len(PROTOCOLS)])
            self.assertTrue(result.ok, result.final)
            self.assertLess(client.took, self.PROMPT)
            client.log_out()
            client.close()

    def expect_lost(self):
        """The member is lost: its users are elsewhere, at once, and nothing is asked of it any more."""
        self.proxyd.wait_log('event="backend lost" backend=a ')
        before = self.site["a"].connects.total()
        for client, result in self.together(self.sick[6:]):
            self.assertTrue(result.ok, result.final)
            self.assertLess(client.took, self.PROMPT)
            self.assertTrue(client.works())
        self.assertEqual(self.site["a"].connects.total(), before)
        self.expect_undisturbed()
        self.expect_no_violation()

    def check_unheard(self, slowest):
        """A member that no login says its password to: it costs each of its first users so much time, and no login."""
        before = self.site["a"].connects.total()
        first = self.sick[:6]
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            undisturbed = pool.submit(self.expect_undisturbed)
            logins = self.together(first)
            undisturbed.result()
        for client, result in logins:
            self.assertTrue(result.ok, result.final)
            self.assertLess(client.took, slowest)
            self.assertTrue(client.works())
        # Each has tried it once, if at all.
        self.assertLessEqual(self.site["a"].connects.total() - before, len(first))
        self.assertTrue(all(self.site.where(user) != {"a"} for user in first))
        self.expect_lost()

    def test_accepts_and_never_speaks(self):
        self.site["a"].behave("frozen")
        self.check_unheard(self.CONNECT + self.PROMPT)

    def test_nobody_answers_the_address(self):
        """Packets to it are lost. One connect time-out is the price, and once it is lost nobody pays it."""
        self.site["a"].swallow()
        self.check_unheard(self.CONNECT + self.PROMPT)
        failures = self.tried()
        self.assertEqual(set(failures), {"connect-timeout"})
        self.assertLessEqual(len(failures), 6)

    def test_resets_each_connection(self):
        self.site["a"].behave("resets")
        self.check_unheard(self.PROMPT)

    def test_nobody_listens(self):
        self.site["a"].kill()
        self.check_unheard(self.PROMPT)

    def tried(self):
        """What the logins that were let in elsewhere met with at the first member."""
        self.proxyd.wait_log("failure=")
        return re.findall(r"failure=(\S+)", self.proxyd.log())

    def check_heard(self, longest, answer):
        """A member that hears passwords: they are said to nobody else, so its first users are refused."""
        for client, result in self.together(self.sick[:6]):
            self.assertFalse(result.ok, result.final)
            self.assertIn(answer, result.final)
            self.assertIn(result.code, ("UNAVAILABLE", "SYS/TEMP", "TRYLATER"))
            self.assertLess(client.took, longest)
        for user in self.sick[:6]:
            self.assertLessEqual(set(self.site.call(lambda: self.site.heard[f"secret of {user}"])), {"a"})
        self.expect_lost()

    def test_greets_and_hangs(self):
        self.site["a"].behave("greets")
        self.check_heard(self.LOGIN + self.PROMPT, "temporarily unavailable")

    def test_refuses_as_unavailable(self):
        self.site["a"].behave("refuses")
        self.check_heard(self.PROMPT, "Not now")

    def test_sessions_of_a_frozen_member_are_ended_when_their_user_comes_again(self):
        """The user's sessions there end with a word, the pause goes by, and only then the new login goes elsewhere."""
        user = self.sick[0]
        old = [self.enter(user, protocol) for protocol in PROTOCOLS]
        self.site["a"].behave("frozen")
        self.together(self.sick[1:5])
        self.proxyd.wait_log('event="backend lost" backend=a ')
        began = time.monotonic()
        new = self.enter(user)
        self.assertGreaterEqual(time.monotonic() - began, 0.3)
        self.assertTrue(new.works())
        self.assertEqual([client.next() for client in old], [
            "* BYE Disconnected by the server; connect again.",
            "-ERR [SYS/TEMP] Disconnected by the server; connect again.",
            'BYE (TRYLATER) "Disconnected by the server; connect again."'])
        self.assertTrue(all(client.closed() for client in old))
        self.expect_no_violation()

    def test_a_login_that_was_given_up_counts_as_there(self):
        """The member has heard the password and says nothing: it may let the user in whenever it likes. The next login
        goes elsewhere no sooner than the pause after the connection was closed."""
        self.reload(pool="affinity: hash, pause: 1s")
        self.site["a"].behave("greets")
        user = self.sick[0]
        began = time.monotonic()
        logins = self.together([user, *self.sick[1:5]])
        self.assertFalse(any(result.ok for _, result in logins))
        self.proxyd.wait_log('event="backend lost" backend=a ')
        self.enter(user)
        self.assertGreaterEqual(time.monotonic() - began, self.LOGIN + 1)

    def test_all_members_are_down(self):
        for member in self.site.members.values():
            member.kill()
        # Three logins tell that nobody is there.
        first = self.together(self.sick[:3] + self.well)
        for name in self.names:
            self.proxyd.wait_log(f'event="backend lost" backend={name} ')
        before = self.failures(len([result for _, result in first if not result.ok]))
        for client, result in self.together(self.sick):
            self.assertFalse(result.ok)
            self.assertIn("Account is temporarily unavailable.", result.final)
            self.assertIn(result.code, ("UNAVAILABLE", "SYS/TEMP", "TRYLATER"))
            self.assertLess(client.took, self.PROMPT)
        self.assertEqual(set(self.failures(len(before) + len(self.sick))[len(before):]), {"no-member"})

    def test_a_name_without_address(self):
        """A member whose name nobody knows is as one that nobody reaches."""
        port = ", ".join(f"{protocol}: {port}" for protocol, port in self.site.ports.items())
        self.reload(backends=f"  a: {{ address: no-such-host.invalid, ports: {{ {port} }} }}\n" + self.site.backends("bc"))
        with concurrent.futures.ThreadPoolExecutor(1) as pool:
            undisturbed = pool.submit(self.expect_undisturbed)
            logins = self.together(self.sick[:6])
            undisturbed.result()
        for _, result in logins:
            self.assertTrue(result.ok, result.final)
        self.assertEqual(set(self.tried()), {"backend-unresolved"})
        self.expect_lost()


class Flapping(FleetTest):
    """A member that comes and goes is not believed for long: its users stay where they went."""

    def test_flapping(self):
        self.start()
        users = self.users_of("a", 5)
        well = self.users_of("b", 5, prefix="v")
        end = time.monotonic() + 8
        while time.monotonic() < end:
            self.site["a"].kill()
            self.check(users, well, time.monotonic() + 0.7)
            self.site["a"].revive()
            self.check(users, well, time.monotonic() + 0.7)
        self.expect_no_violation()
        log = self.proxyd.log()
        # Back at once after the first time, and 10 s after the second.
        self.assertLessEqual(log.count('event="backend lost" backend=a '), 2)
        self.assertLessEqual(log.count('event="backend recovered" backend=a'), 1)
        self.assertNotIn('event="backend lost" backend=b ', log)

    def check(self, users, well, until):
        while time.monotonic() < until:
            for user in users + well:
                client = self.enter(user)
                self.assertLess(client.took, 3)
                client.log_out()
                client.close()


class Limits(FleetTest):
    """Bounds at the door, at members and at the pool."""

    health = "probe: off"

    def refused(self, user, protocol, code, **options):
        client, result = self.log_in(user, protocol, **options)
        self.assertFalse(result.ok, result.final)
        self.assertEqual(result.code, code)
        return client

    codes = {"imap": "LIMIT", "pop3": "IN-USE", "managesieve": "TRYLATER"}

    def test_sessions_of_a_user(self):
        self.start(limits="user-sessions: 2")
        first, _ = self.enter("alice", "imap"), self.enter("Alice", "managesieve")
        refused = [self.refused("alice", protocol, code) for protocol, code in self.codes.items()]
        self.enter("bob")
        self.expect_failures(*["user-limit"] * 3)
        first.log_out()
        first.close()
        wait_for("the place is free", lambda: self.log_in("alice", client=refused[0])[1].ok)
        self.refused("alice", "imap", "LIMIT")

    def test_sessions_of_a_user_from_an_address(self):
        self.start(limits="user-address-sessions: 1")
        self.enter("alice", source="127.0.0.2")
        for protocol, code in self.codes.items():
            self.refused("alice", protocol, code, source="127.0.0.2")
        self.enter("alice", source="127.0.0.3")
        self.enter("bob", source="127.0.0.2")

    def test_connections_from_an_address(self):
        self.start(limits="address-sessions: 2")
        first, _ = self.connect(source="127.0.0.2"), self.enter("alice", source="127.0.0.2")
        said = {}
        for protocol, port in self.ports.items():
            with socket.create_connection(("127.0.0.1", port), source_address=("127.0.0.2", 0)) as client:
                client.settimeout(DEADLINE)
                said[protocol] = client.makefile("rb").read().decode().splitlines()[-1]
        self.assertEqual(said, {"imap": "* BYE [LIMIT] Too many connections.",
                                "pop3": "-ERR [SYS/TEMP] Too many connections.",
                                "managesieve": 'BYE (TRYLATER) "Too many connections."'})
        self.enter("alice", source="127.0.0.3")
        first.log_out()
        first.close()
        self.proxyd.wait_session(end="logout")
        self.enter("alice", source="127.0.0.2")

    def test_sessions_of_a_member(self):
        """A full member gets no new users, and its own are refused."""
        self.start()
        users = self.users_of("a", 4)
        self.reload(keys={"a": ", sessions: 2"})
        self.enter(users[0])
        self.enter(users[1])
        self.refused(users[0], "imap", "UNAVAILABLE")
        self.expect_failures("pool-full")
        for user in users[2:]:
            self.enter(user)
            self.assertNotIn("a", self.site.where(user))
        self.assertEqual(self.site.count("a"), 2)
        self.expect_no_violation()

    def test_sessions_of_a_pool(self):
        self.start(pool="affinity: hash, pause: 300ms, sessions: 3")
        clients = [self.enter(f"user{number}") for number in range(3)]
        refused = self.refused("user3", "imap", "UNAVAILABLE")
        self.expect_failures("pool-full")
        clients[0].log_out()
        clients[0].close()
        wait_for("there is room", lambda: self.log_in("user3", client=refused)[1].ok)

    def check_line(self, users, most, members):
        """Many log in at once; so many are let to a member at a time, and all get in."""
        self.site.call(lambda: [setattr(member, "delay", 0.15) for member in self.site.members.values()])
        with concurrent.futures.ThreadPoolExecutor(len(users)) as pool:
            for result in pool.map(lambda user: self.log_in(user)[1], users):
                self.assertTrue(result.ok, result.final)
        begins = sorted(session.begin - 0.15 for session in self.site.sessions if session.user in users
                        and session.member in members)[-len(users):]
        # A login begins when another one has had its answer: never more than so many in any such time.
        for first, last in zip(begins, begins[most:]):
            self.assertGreaterEqual(last - first, 0.14)

    def test_logins_at_a_member(self):
        self.start()
        users = self.users_of("a", 6)
        self.reload(keys={"a": ", logins: 2"})
        self.check_line(users, 2, "a")

    def test_logins_at_a_pool(self):
        self.start(pool="affinity: hash, pause: 300ms, logins: 3")
        self.check_line([f"user{number}" for number in range(9)], 3, self.names)

    def test_a_line_that_is_too_long(self):
        """Who has stood in it for timeouts.backend-login is refused; who is in it stays in it."""
        self.start(pool="affinity: hash, pause: 0s, logins: 1", timeouts="backend-login: 1s, connect: 500ms, failure-delay: 0")
        for member in self.site.members.values():
            member.behave("greets")
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            results = list(pool.map(lambda user: self.log_in(user)[1], ("alice", "bob", "carol")))
        self.assertEqual([result.code for result in results], ["UNAVAILABLE"] * 3)
        failures = self.failures(3)
        self.assertIn("pool-full", failures)
        self.assertIn("backend-timeout", failures)
        for member in self.site.members.values():
            member.behave("well")
        for user in ("alice", "bob", "carol"):
            self.enter(user)


if __name__ == "__main__":
    unittest.main()

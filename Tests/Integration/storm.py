"""A storm over a site: many users come and go in all protocols while members fail and are changed under them.

Everything is drawn from one seed. Afterwards each visit has to be accounted for: a login that got its OK was let in by a
member and carried bytes both ways, and whatever went wrong did so for one of the events that were played."""
import asyncio
import base64
import collections
import contextlib
import dataclasses
import datetime
import gc
import random
import signal
import socket
import time

from backends import PROTOCOLS
from fleet import RESET
from harness import fields

ANSWER = 12  # seconds for the answer to a login: the wait for a place, and three members that fail one after the other
ECHO = 12  # seconds for an answer in the relay; no member is frozen for so long
RATE = 200  # visits a second
MOST = 300  # visits at once
HARM = ("kill", "freeze", "greet", "refuse")  # what members suffer
EMPTYING = ("remove", "maint", "move")  # what has users moved


class Closed(Exception):
    """The server closed, or said that it will."""


@dataclasses.dataclass(slots=True)
class Event:
    """Something that was done to proxyd, a member or a user."""
    kind: str
    subject: str | None
    begin: float
    end: float | None = None


class Visit:
    """A client's connection: logs in, has tokens echoed for a while, and leaves."""

    def __init__(self, number, user, protocol, stay, leaves, uses_sasl):
        self.password, self.user, self.protocol = f"p{number}", user, protocol
        self.stay, self.leaves, self.uses_sasl = stay, leaves, uses_sasl
        self.began = time.monotonic()
        self.answered = self.ended = None
        self.outcome = self.answer = self.last = None
        self.peer = None
        self.echoes = 0
        self.has_left = False
        self.reader = self.writer = None

    async def run(self, port, ending):
        try:
            async with asyncio.timeout(ANSWER):
                self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port)
                self.peer = "%s:%d" % self.writer.get_extra_info("sockname")[:2]
                self.outcome = "in" if await self.log_in() else "refused"
        except TimeoutError:
            self.outcome = "hung"
        except (OSError, Closed) as error:
            self.outcome = "closed" if self.writer else "unreachable"
            self.answer = self.answer or str(error)
        self.answered = time.monotonic()
        try:
            if self.outcome == "in":
                await self.use(ending)
        except TimeoutError:
            self.outcome = "mute"
        except (OSError, Closed) as error:
            self.last = repr(error)
        finally:
            self.ended = time.monotonic()
            if self.writer:
                self.writer.transport.abort()

    async def line(self):
        line = await self.reader.readline()
        if not line.endswith(b"\n"):
            raise Closed(line.decode())
        return line.decode().rstrip("\r\n")

    def send(self, text):
        self.writer.write(f"{text}\r\n".encode())

    async def log_in(self):
        plain = base64.b64encode(f"\0{self.user}\0{self.password}".encode()).decode()
        await self.until("* OK", "+OK", "OK")
        if self.protocol == "imap":
            self.send(f"a AUTHENTICATE PLAIN {plain}" if self.uses_sasl else f"a LOGIN {self.user} {self.password}")
        elif self.protocol == "managesieve":
            self.send(f'AUTHENTICATE "PLAIN" "{plain}"')
        elif self.uses_sasl:
            self.send(f"AUTH PLAIN {plain}")
        else:
            self.send(f"USER {self.user}\r\nPASS {self.password}")
            await self.until("+OK", "-ERR")
        self.answer = await self.until("a ", "+OK", "-ERR", "OK", "NO", "BYE")
        # Nothing else ends the connection: a client that has lost its place is told so and let go.
        if "Disconnected" in self.answer:
            raise Closed(self.answer)
        return self.answer.startswith(("a OK", "+OK", "OK"))

    async def until(self, *words):
        while not (line := await self.line()).startswith(words):
            if line.startswith("* BYE"):
                raise Closed(line)
        return line

    async def use(self, ending):
        end = time.monotonic() + self.stay
        while True:
            token = f"{self.password}.{self.echoes}"
            self.send({"imap": "e ECHO ", "pop3": "ECHO ", "managesieve": "ECHO "}[self.protocol] + token)
            async with asyncio.timeout(ECHO):
                if not (line := await self.line()).endswith(token):
                    raise Closed(line)
            self.echoes += 1
            rest = end - time.monotonic()
            if rest <= 0 or ending.is_set():
                break
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(rest, 0.5)):
                    raise Closed(await self.line())
        self.has_left = True
        if self.leaves == "logout":
            self.send({"imap": "z LOGOUT", "pop3": "QUIT", "managesieve": "LOGOUT"}[self.protocol])
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ECHO):
                    await self.reader.read()
        elif self.leaves == "reset":
            self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)


class Storm:
    """Plays events on a test's site and proxyd, for so many seconds. Members in `calm` come to no harm."""

    def __init__(self, test, seed, seconds, calm, users=120):
        self.test, self.site, self.seconds, self.calm = test, test.site, seconds, calm
        self.random = random.Random(seed)
        self.users = [f"user{number}" for number in range(users)]
        self.events, self.visits = [], []
        self.causes = collections.Counter()
        self.removed = set()
        self.suffering = set()

    def play(self):
        """Returns what can't be accounted for."""
        self.site.run(self.storm(), self.seconds + 60)
        return self.complaints()

    @contextlib.contextmanager
    def event(self, kind, subject=None):
        event = Event(kind, subject, time.monotonic())
        self.events.append(event)
        try:
            yield
        finally:
            event.end = time.monotonic()

    async def storm(self):
        self.began = time.monotonic()
        self.end = self.began + self.seconds
        ending = asyncio.Event()
        running = set()
        async with asyncio.TaskGroup() as group:
            group.create_task(self.harm())
            group.create_task(self.change())
            group.create_task(self.bother())
            group.create_task(self.watch())
            while time.monotonic() < self.end:
                await asyncio.sleep(self.random.expovariate(RATE))
                if len(running) < MOST:
                    visit = self.visit()
                    task = group.create_task(visit.run(self.test.ports[visit.protocol], ending))
                    running.add(task)
                    task.add_done_callback(running.discard)
        # The group has waited for those who came; nobody stays longer than a few seconds.

    async def watch(self):
        """Clients and members share a loop. While that stands still, as on a machine that others use, proxyd finds members that
        don't answer."""
        try:
            while time.monotonic() < self.end:
                # What is recorded stays: to walk through all of it would stop the loop for seconds in a long run.
                gc.freeze()
                begin = time.monotonic()
                await asyncio.sleep(0.1)
                if time.monotonic() - begin > 0.5:
                    self.events.append(Event("stall", None, begin, time.monotonic()))
        finally:
            gc.unfreeze()

    def visit(self):
        draw = self.random
        visit = Visit(len(self.visits), draw.choice(self.users), draw.choice(PROTOCOLS),
                      min(draw.expovariate(1.2), 6), draw.choice(("logout", "logout", "close", "reset")),
                      draw.random() < 0.5)
        self.visits.append(visit)
        return visit

    # What members suffer.

    async def harm(self):
        """Two members at most suffer at a time."""
        async with asyncio.TaskGroup() as group:
            while time.monotonic() < self.end - 3:
                await asyncio.sleep(self.random.uniform(0.1, 0.8))
                well = [name for name in self.site.members if name not in self.calm and name not in self.suffering
                        and name not in self.removed]
                if well and len(self.suffering) < 2:
                    name = self.random.choice(well)
                    self.suffering.add(name)
                    group.create_task(self.suffer(name))

    async def suffer(self, name):
        kind, member = self.random.choice(HARM), self.site[name]
        with self.event(kind, name):
            if kind == "kill":
                member.kill()
            else:
                member.behave({"freeze": "frozen", "greet": "greets", "refuse": "refuses"}[kind])
            await asyncio.sleep(self.random.uniform(0.2, 2.5))
            member.revive()
        self.suffering.discard(name)

    # What operators do.

    async def change(self):
        ways = [self.reweigh, self.remove, self.drain, self.maintain]
        restarts = [self.end - self.seconds * share for share in (2 / 3, 1 / 3)]
        if self.seconds > 60:
            restarts = [self.end - second for second in range(int(self.seconds), 10, -20)]
        while time.monotonic() < self.end - 2:
            await asyncio.sleep(self.random.uniform(0.05, 0.4))
            if restarts and time.monotonic() > restarts[0]:
                restarts.pop(0)
                await self.restart()
            else:
                await self.random.choice(ways)()

    async def bother(self):
        """Users are moved and kicked. proxyd may be away at the moment, or the member just taken out."""
        while time.monotonic() < self.end - 2:
            await asyncio.sleep(self.random.uniform(0.02, 0.2))
            with contextlib.suppress(OSError, AssertionError):
                await self.random.choice((self.move, self.kick))()

    async def restart(self):
        with self.event("restart"):
            await asyncio.to_thread(self.test.restart)

    async def reweigh(self):
        name = self.random.choice(list(self.test.weights))
        self.test.weights[name] = self.random.choice((0, 50, 100, 200)) if name not in self.calm else 100
        with self.event("reweigh", name):
            await asyncio.to_thread(self.test.reload)

    async def remove(self):
        """A member leaves the configuration, and comes back."""
        name = self.random.choice([name for name in self.test.weights if name not in self.calm])
        weight = self.test.weights.pop(name)
        self.removed.add(name)
        with self.event("remove", name):
            await asyncio.to_thread(self.test.reload)
            await asyncio.sleep(self.random.uniform(0.2, 1.5))
            self.test.weights[name] = weight
            await asyncio.to_thread(self.test.reload)
        self.removed.discard(name)

    async def drain(self):
        """Also one that comes to no harm may get no new users."""
        name = self.random.choice([name for name in self.test.weights])
        with self.event("drain", name):
            await self.operate("backend", backend=name, state="drain")
            await asyncio.sleep(self.random.uniform(0.1, 1))
            await self.operate("backend", backend=name, state="ready")

    async def maintain(self):
        name = self.random.choice([name for name in self.test.weights if name not in self.calm])
        with self.event("maint", name):
            await self.operate("backend", backend=name, state="maint")
            await asyncio.sleep(self.random.uniform(0.1, 1))
            await self.operate("backend", backend=name, state="ready")

    async def move(self):
        """Twice in a row, now and then: the second is heard while the first goes on."""
        user = self.random.choice(self.users)
        for _ in range(self.random.choice((1, 1, 2))):
            with self.event("move", user):
                await self.operate("affinity-move", user=user, backend=self.random.choice(list(self.test.weights)))

    async def kick(self):
        user = self.random.choice(self.users)
        with self.event("kick", user):
            await self.operate("kick", user=user)

    async def operate(self, command, **arguments):
        await asyncio.to_thread(self.test.operate, command, **arguments)

    # The accounts.

    def complaints(self):
        # Its line stands behind those of all that has happened.
        self.test.proxyd.reload()
        found = list(self.site.violations)
        records = {session.password: session for session in self.site.sessions}
        self.ends, self.failures = collections.defaultdict(list), collections.defaultdict(list)
        for line in self.test.proxyd.log_path.read_text(errors="replace").splitlines():
            if "event=session " in line:
                entry = fields(line)
                self.ends[entry["peer"], entry.get("login"), entry["protocol"]].append(entry)
            elif "event=login-failed " in line:
                entry = fields(line)
                self.failures[entry["peer"], entry.get("login"), entry["protocol"]].append(entry)
        for visit in self.visits:
            why = self.complaint(visit, records.get(visit.password))
            if why and "for nothing" in why and self.happened(("stall",), None, visit.began - 2, visit.ended):
                why = self.cause("the test itself stood still")
            if why:
                found.append(f"{visit.user} by {visit.protocol} with {visit.password} from {visit.peer}, "
                             f"{visit.outcome} {visit.answer!r}, {visit.echoes} echoes, {visit.last}, from "
                             f"{visit.began - self.began:.3f} to {visit.ended - self.began:.3f} s: {why}")
        return found

    def complaint(self, visit, record):
        """What is wrong with a visit; None if it is accounted for."""
        if visit.outcome in ("hung", "mute"):
            return "no answer in time"
        if visit.outcome == "in" and not record:
            return "no member let it in"
        if visit.outcome == "in" and visit.has_left:
            return None if visit.echoes else "it carried nothing"
        if self.happened(("restart",), None, visit.began, visit.ended):
            return self.cause("restart")
        if visit.outcome == "unreachable":
            return "proxyd did not take the connection"
        if visit.outcome == "refused":
            return self.refusal(visit, record)
        return self.end_of(visit)

    def refusal(self, visit, record):
        if record:
            # Its answer went down with it.
            if self.happened(("kill",), record.member, record.begin, visit.answered):
                return self.cause("refused: killed when it had let the login in")
            # Its answer came when it was given up.
            if self.happened(("freeze", "greet"), record.member, visit.began, record.begin):
                return self.cause("refused: let in too late")
            return f"refused, and {record.member} had let it in"
        entry = self.nearest(self.failures[visit.peer, visit.user, visit.protocol], visit.answered)
        if not entry:
            return self.unlogged(visit, "refused")
        failure, member = entry["failure"], entry.get("backend")
        if failure.startswith("backend-") or failure == "connect-timeout":
            isKnown = self.happened(HARM, member, visit.began - 1, visit.answered)
        elif failure == "refused-by-backend":
            isKnown = self.happened(("refuse",), member, visit.began, visit.answered)
        else:
            isKnown = failure == "moving" and self.happened((*HARM, *EMPTYING), None, 0, visit.answered)
        return self.cause(f"refused: {failure}") if isKnown else f"refused for nothing: {entry}"

    def end_of(self, visit):
        """A connection that the server ended."""
        entry = self.nearest(self.ends[visit.peer, visit.user, visit.protocol], visit.ended)
        if not entry:
            return self.unlogged(visit, "ended")
        end, member = entry["end"], entry.get("backend")
        if end in ("backend-closed", "backend-error", "client-closed", "client-error"):
            # A backend's reset may be met by what the client says, and then the client is the next to close.
            isKnown = self.happened(("kill",), member, visit.began, visit.ended)
        elif end == "backend-lost":
            isKnown = self.happened(HARM, member, 0, visit.ended)
        elif end == "moved":
            isKnown = self.happened(EMPTYING, None, 0, visit.ended)
        else:
            isKnown = end == "kicked" and self.happened(("kick",), visit.user, visit.began, visit.ended)
        return self.cause(f"ended: {end}") if isKnown else f"ended for nothing: {entry}"

    @staticmethod
    def nearest(entries, moment):
        """The entry of about that moment: in a long run ports are used again."""
        wall = time.time() - time.monotonic() + moment

        def distance(entry):
            return abs(datetime.datetime.fromisoformat(entry["time"]).timestamp() - wall)
        found = min(entries, key=distance, default=None)
        return found if found and distance(found) < 3 else None

    def unlogged(self, visit, word):
        # Lines are written by a thread of their own, and the last ones go with their process.
        if self.happened(("restart",), None, visit.ended, visit.ended + 1):
            return self.cause(f"{word}: shortly before a restart")
        return f"{word}, and the log does not tell"

    def cause(self, words):
        self.causes[words] += 1

    def happened(self, kinds, subject, begin, end):
        """Whether such an event overlaps that time."""
        return any(event.kind in kinds and subject in (None, event.subject) and event.begin <= end
                   and (event.end is None or event.end >= begin) for event in self.events)

    def summary(self):
        kinds = collections.Counter(event.kind for event in self.events)
        took = sorted(visit.answered - visit.began for visit in self.visits if visit.answered)
        count = collections.Counter(visit.outcome for visit in self.visits)
        return (f"{len(self.visits)} visits {dict(count)}; {len(self.events)} events {dict(kinds)}; "
                f"{dict(self.causes)}; slowest login {took[-1]:.2f} s; "
                f"{self.site.overtaken} closes had overtaken their reading")

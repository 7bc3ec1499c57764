"""A site of members that record who is where: backends for IMAP, POP3 and ManageSieve that take any password.

All of them run in one thread and one event loop, and whatever happens to them is done there: what is recorded first
happened first, and no lock can be forgotten. When a member lets a user in, no session of the user's may be open at
another one. That is asked of the kernel (TCP_INFO), not of what this loop has heard: a close that stands in the kernel and
was not read yet has happened. So the rule has no margin of time."""
import asyncio
import base64
import collections
import contextlib
import dataclasses
import re
import socket
import threading
import time

from backends import PROTOCOLS, free_ports
from harness import DEADLINE

ESTABLISHED = 1  # of tcpi_state in the kernel's struct tcp_info
RESET = b"\1\0\0\0\0\0\0\0"  # SO_LINGER of 0 s: close says RST
UNAVAILABLE = {"imap": "NO [UNAVAILABLE] Not now.", "pop3": "-ERR [SYS/TEMP] Not now.",
               "managesieve": 'NO (TRYLATER) "Not now."'}
SIEVE_CAPABILITIES = '"IMPLEMENTATION" "recorder"\r\n"SASL" "PLAIN"\r\n"SIEVE" "fileinto"\r\n'


@dataclasses.dataclass(eq=False, slots=True)
class Session:
    """A login that a member let in. The password tells it from all others of the test."""
    user: str
    password: str
    member: str
    protocol: str
    begin: float
    connection: "Dialogue"
    end: float | None = None

    def is_open(self):
        """Whether the proxy has not closed it, as the kernel knows."""
        return self.end is None and self.connection.is_open()


class Site:
    """Members by name, each with an address of its own, and the record of all sessions."""

    def __init__(self, names):
        self.loop = asyncio.new_event_loop()
        self.ports = free_ports(*PROTOCOLS)
        self.sessions = []
        self.present = collections.defaultdict(list)
        self.heard = collections.defaultdict(list)  # password: the members it was said to
        self.violations = []
        # Closes that had been heard of by the kernel only when the user was let in elsewhere.
        self.overtaken = 0
        self.members = {name: Member(self, name, f"127.0.1.{number}") for number, name in enumerate(names, 1)}
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        for member in self.members.values():
            member.revive()

    def __getitem__(self, name):
        return self.members[name]

    def run(self, coroutine, seconds=DEADLINE):
        """Runs it in the site's loop."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        try:
            return future.result(seconds)
        except BaseException:
            future.cancel()
            raise

    def call(self, function, *arguments):
        """Calls it in the site's loop."""
        if threading.current_thread() is self.thread:
            return function(*arguments)

        async def body():
            return function(*arguments)
        return self.run(body())

    def begin(self, session):
        now = session.begin
        for other in self.present[session.user]:
            if other.member == session.member:
                continue
            if other.is_open():
                self.violations.append(
                    f"{session.user} is let in at {session.member} by {session.protocol} with {session.password}, and is"
                    f" at {other.member} by {other.protocol} since {now - other.begin:.3f} s with {other.password}")
            else:
                self.overtaken += 1
        self.present[session.user].append(session)
        self.sessions.append(session)

    def end(self, session):
        if session.end is None:
            session.end = time.monotonic()
            self.present[session.user].remove(session)

    def where(self, user):
        """The names of the members where the user has sessions."""
        return self.call(lambda: {session.member for session in self.present[user] if session.is_open()})

    def count(self, member=None):
        """Sessions open at a member, or at all."""
        return self.call(lambda: sum(session.is_open() for sessions in self.present.values() for session in sessions
                                     if member in (None, session.member)))

    def backends(self, names=None, keys=""):
        """Members as `backends` of a configuration, in YAML; `keys` are further ones of each."""
        ports = ", ".join(f"{protocol}: {port}" for protocol, port in self.ports.items())
        return "".join(f"  {name}: {{ address: {self.members[name].address}, ports: {{ {ports} }}{keys} }}\n"
                       for name in names or self.members)

    def stop(self):
        def close():
            for member in self.members.values():
                member.kill()
        self.call(close)
        self.run(self.settle())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(DEADLINE)
        self.loop.close()

    @staticmethod
    async def settle():
        """Ends all tasks, and lets closed connections be told of it."""
        for task in asyncio.all_tasks():
            if task is not asyncio.current_task():
                task.cancel()
        for _ in range(5):
            await asyncio.sleep(0)


class Member:
    """One of the site's backends. `manner` is how it behaves:

    well: lets everybody in. frozen: accepts connections and never speaks, old ones too. greets: greets and then never
    speaks. refuses: says [UNAVAILABLE] to logins. resets: ends each new connection with RST. Killed, nobody listens."""

    def __init__(self, site, name, address):
        self.site, self.name, self.address = site, name, address
        self.manner = "well"
        self.delay = 0  # between a login and its answer, in seconds
        self.connects = collections.Counter()  # connections that were accepted, by protocol
        self.connections = set()
        self.listeners = []

    @property
    def is_up(self):
        return bool(self.listeners)

    def behave(self, manner):
        self.site.call(self._behave, manner)

    def _behave(self, manner):
        before, self.manner = self.manner, manner
        if before in ("frozen", "greets"):
            # What was said to it meanwhile is heard now.
            for connection in list(self.connections):
                connection.act()

    def kill(self):
        """Its process is gone: nobody listens, and all connections are reset."""
        self.site.call(self._kill)

    def _kill(self):
        for listener in self.listeners:
            listener.close()
        self.listeners = []
        for connection in list(self.connections):
            connection.reset()

    def revive(self):
        """It listens, and is well."""
        self.site.call(self._revive)

    def _revive(self):
        self._behave("well")
        if not all(isinstance(listener, Listener) for listener in self.listeners):
            self._kill()
        if not self.listeners:
            self.listeners = [Listener(self, protocol, port) for protocol, port in self.site.ports.items()]

    def swallow(self):
        """Nobody answers its address: connections to it are neither accepted nor refused, as if packets were lost."""
        self.site.call(self._swallow)

    def _swallow(self):
        self._kill()
        for protocol, port in self.site.ports.items():
            self.listeners.append(Hole(self.address, port))


class Listener:
    """Accepts a member's connections for one protocol."""

    def __init__(self, member, protocol, port):
        self.member, self.protocol = member, protocol
        self.socket = socket.create_server((member.address, port), backlog=1024)
        self.socket.setblocking(False)
        member.site.loop.add_reader(self.socket, self.accept)

    def accept(self):
        with contextlib.suppress(BlockingIOError):
            for _ in range(100):
                connection, _ = self.socket.accept()
                connection.setblocking(False)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                Dialogue(self.member, self.protocol, connection)

    def close(self):
        self.member.site.loop.remove_reader(self.socket)
        self.socket.close()


class Hole:
    """A listener whose line of connections is full for ever: the kernel drops all further ones."""

    def __init__(self, address, port):
        self.socket = socket.create_server((address, port), backlog=0)
        self.fillers = []
        for _ in range(3):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex((address, port))
            self.fillers.append(filler)

    def close(self):
        for filler in self.fillers:
            filler.close()
        self.socket.close()


class Dialogue:
    """A member's side of a connection. It hears lines, and lets everybody in."""

    def __init__(self, member, protocol, connection):
        self.member, self.protocol, self.socket = member, protocol, connection
        self.buffer = b""
        self.user = ""
        self.session = None
        self.is_greeted = self.is_waiting = self.is_over = False
        self.expects = self.command
        member.connects[protocol] += 1
        member.connections.add(self)
        if member.manner == "resets":
            return self.reset()
        member.site.loop.add_reader(connection, self.readable)
        self.act()

    def is_open(self):
        if self.is_over:
            return False
        return self.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == ESTABLISHED

    def readable(self):
        try:
            data = self.socket.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            return self.close()
        if not data:
            return self.close()
        self.buffer += data
        self.act()

    def say(self, text):
        if self.is_over:
            return
        try:
            # Answers are short: a peer that does not take them is gone.
            self.socket.send(text.encode())
        except OSError:
            self.close()

    def close(self):
        if self.is_over:
            return
        self.is_over = True
        self.member.site.loop.remove_reader(self.socket)
        self.socket.close()
        self.member.connections.discard(self)
        if self.session:
            self.member.site.end(self.session)

    def reset(self):
        if not self.is_over:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self.close()

    def act(self):
        """Goes on as far as the member's manner and the lines that are there allow."""
        if self.is_over or self.member.manner == "frozen":
            return
        if not self.is_greeted:
            self.is_greeted = True
            self.say({"imap": "* OK [CAPABILITY IMAP4rev1 SASL-IR LITERAL+ AUTH=PLAIN] ready\r\n",
                      "pop3": "+OK ready\r\n", "managesieve": SIEVE_CAPABILITIES + "OK\r\n"}[self.protocol])
        while self.member.manner != "greets" and not self.is_waiting and not self.is_over:
            line, end, rest = self.buffer.partition(b"\n")
            if not end:
                return
            self.buffer = rest
            self.expects(line.rstrip(b"\r").decode(errors="replace"))

    def command(self, line):
        getattr(self, self.protocol)(line)

    def imap(self, line):
        tag, _, rest = line.partition(" ")
        verb, _, arguments = rest.partition(" ")
        verb = verb.upper()
        if verb == "LOGOUT":
            self.say(f"* BYE\r\n{tag} OK\r\n")
            self.close()
        elif verb == "ECHO":
            self.say(f"{tag} OK {arguments}\r\n")
        elif self.session or verb in ("ID", "NOOP"):
            self.say(f"{tag} OK {verb}\r\n")
        elif verb == "CAPABILITY":
            self.say(f"* CAPABILITY IMAP4rev1 SASL-IR LITERAL+ AUTH=PLAIN\r\n{tag} OK\r\n")
        elif verb == "LOGIN":
            user, password = re.findall(r'"((?:[^"\\]|\\.)*)"|(\S+)', arguments)
            self.login(*(re.sub(r"\\(.)", r"\1", "".join(pair)) for pair in (user, password)), f"{tag} ")
        elif verb == "AUTHENTICATE":
            self.plain(arguments, f"{tag} ")
        else:
            self.say(f"{tag} BAD {verb}\r\n")

    def pop3(self, line):
        verb, _, arguments = line.partition(" ")
        verb = verb.upper()
        if verb == "QUIT":
            self.say("+OK\r\n")
            self.close()
        elif verb == "ECHO":
            self.say(f"+OK {arguments}\r\n")
        elif self.session:
            self.say(f"+OK {verb}\r\n")
        elif verb == "CAPA":
            self.say("+OK\r\nUSER\r\nSASL PLAIN\r\n.\r\n")
        elif verb == "USER":
            self.user = arguments
            self.say("+OK\r\n")
        elif verb == "PASS":
            self.login(self.user, arguments, "")
        elif verb == "AUTH":
            self.plain(arguments, "")
        else:
            self.say(f"-ERR {verb}\r\n")

    def managesieve(self, line):
        verb, _, arguments = line.partition(" ")
        verb = verb.upper()
        if verb == "LOGOUT":
            self.say("OK\r\n")
            self.close()
        elif verb == "ECHO":
            self.say(f"OK {arguments}\r\n")
        elif self.session or verb == "NOOP":
            self.say(f'OK "{verb}"\r\n')
        elif verb == "AUTHENTICATE":
            self.plain(arguments.replace('"', ""), "")
        else:
            self.say(f'NO "{verb}"\r\n')

    def plain(self, arguments, tag):
        mechanism, _, initial = arguments.partition(" ")
        if mechanism.upper() != "PLAIN" or not initial:
            raise AssertionError(f"a login that the recorder does not know: {arguments}")
        _, user, password = base64.b64decode(initial).decode().split("\0")
        self.login(user, password, tag)

    def login(self, user, password, tag):
        self.member.site.heard[password].append(self.member.name)
        if self.member.delay:
            self.is_waiting = True
            self.member.site.loop.call_later(self.member.delay, self.answer_late, user, password, tag)
        else:
            self.answer(user, password, tag)

    def answer_late(self, *login):
        if self.member.manner in ("frozen", "greets"):
            self.member.site.loop.call_later(0.05, self.answer_late, *login)
            return
        self.is_waiting = False
        self.answer(*login)
        self.act()

    def answer(self, user, password, tag):
        # Who has closed is not let in: a server that starts a session finds its client gone.
        if not self.is_open():
            return self.close()
        if self.member.manner == "refuses":
            return self.say(f"{tag}{UNAVAILABLE[self.protocol]}\r\n")
        self.session = Session(user, password, self.member.name, self.protocol, time.monotonic(), self)
        self.member.site.begin(self.session)
        self.say({"imap": f"{tag}OK [CAPABILITY IMAP4rev1] Logged in\r\n", "pop3": "+OK Logged in\r\n",
                  "managesieve": 'OK "Logged in"\r\n'}[self.protocol])

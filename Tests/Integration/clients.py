"""Clients of the three protocols that log in by every mechanism, with and without initial response, over every TLS."""
import base64
import hashlib
import hmac
import re
import secrets
import socket
from typing import NamedTuple

from harness import DEADLINE, UNVERIFIED, Lines, quoted

TRANSPORTS = ("none", "starttls", "implicit")
MECHANISMS = ("PLAIN", "LOGIN", "XOAUTH2", "OAUTHBEARER", "SCRAM-SHA-256", "SCRAM-SHA-1")
TOKENS = ("XOAUTH2", "OAUTHBEARER")
COMMAND = "command"  # LOGIN in IMAP, USER and PASS in POP3


class Result(NamedTuple):
    """How a login went: the answer's last line, its response code, the challenges in between, decoded."""
    ok: bool
    final: str
    code: str
    challenges: list


# Mechanisms: step() takes a challenge and returns the response; the initial response answers an empty challenge.

class Plain:
    def __init__(self, user, secret, authzid=""):
        self.messages = [f"{authzid}\0{user}\0{secret}".encode()]

    def step(self, challenge):
        if not self.messages:
            raise AssertionError(f"a challenge too many: {challenge!r}")
        return self.messages.pop(0)

    def finish(self, _):
        """Takes the data that came with success; None if none came."""


class Login(Plain):
    def __init__(self, user, secret, authzid=""):
        self.messages = [user.encode(), secret.encode()]


class External(Plain):
    def __init__(self, user, secret, authzid=""):
        self.messages = [authzid.encode()]


class XOAuth2(Plain):
    def __init__(self, user, secret, authzid=""):
        self.messages = [f"user={user}\1auth=Bearer {secret}\1\1".encode(), b""]


class OAuthBearer(Plain):
    def __init__(self, user, secret, authzid=""):
        self.messages = [f"n,a={saslname(user)},\1host=localhost\1port=143\1auth=Bearer {secret}\1\1".encode(), b"\1"]


class Scram:
    """RFC 5802 and 7677, without channel binding. The server must prove that it knows the password as well."""

    def __init__(self, user, secret, authzid="", algorithm="sha256"):
        self.algorithm, self.secret = algorithm, secret.encode()
        self.header = f"n,{'a=' + saslname(authzid) if authzid else ''},"
        self.nonce = secrets.token_urlsafe(18)
        self.first = f"n={saslname(user)},r={self.nonce}"
        self.state, self.signature = "first", None

    def step(self, challenge):
        if self.state == "first":
            if challenge:
                raise AssertionError(f"the server began: {challenge!r}")
            self.state = "final"
            return (self.header + self.first).encode()
        if self.state == "final":
            self.state = "verify"
            return self._final(challenge.decode())
        if self.state == "verify":
            self._verify(challenge)
            return b""
        raise AssertionError(f"a challenge too many: {challenge!r}")

    def _final(self, challenge):
        values = dict(part.split("=", 1) for part in challenge.split(","))
        if not values["r"].startswith(self.nonce) or values["r"] == self.nonce:
            raise AssertionError(f"the server's nonce is not ours and its own: {challenge}")
        salted = hashlib.pbkdf2_hmac(self.algorithm, self.secret, base64.b64decode(values["s"]), int(values["i"]))
        bare = f"c={base64.b64encode(self.header.encode()).decode()},r={values['r']}"
        message = f"{self.first},{challenge},{bare}".encode()
        key = self._hmac(salted, b"Client Key")
        signature = self._hmac(hashlib.new(self.algorithm, key).digest(), message)
        self.signature = self._hmac(self._hmac(salted, b"Server Key"), message)
        proof = bytes(a ^ b for a, b in zip(key, signature))
        return f"{bare},p={base64.b64encode(proof).decode()}".encode()

    def _hmac(self, key, message):
        return hmac.new(key, message, self.algorithm).digest()

    def _verify(self, data):
        expected = b"v=" + base64.b64encode(self.signature)
        if data != expected:
            raise AssertionError(f"the server's signature is {data!r}, not {expected!r}")
        self.state = "verified"

    def finish(self, data):
        if data is not None:
            self._verify(data)
        if self.state != "verified":
            raise AssertionError(f"the server let us in without its signature, in state {self.state}")


class ScramSHA1(Scram):
    def __init__(self, user, secret, authzid=""):
        super().__init__(user, secret, authzid, "sha1")


SASL = {"PLAIN": Plain, "LOGIN": Login, "EXTERNAL": External, "XOAUTH2": XOAuth2, "OAUTHBEARER": OAuthBearer,
        "SCRAM-SHA-256": Scram, "SCRAM-SHA-1": ScramSHA1}


def saslname(name):
    return name.replace("=", "=3D").replace(",", "=2C")


def encoded(data):
    return base64.b64encode(data).decode()


def connected(host, port, source, timeout, used=set()):
    """A connection from this address and from a port that no client before had, so that logs can be told apart."""
    if not source:
        return socket.create_connection((host, port), timeout=timeout)
    for _ in range(1000):
        candidate = socket.socket(socket.AF_INET6 if ":" in source else socket.AF_INET)
        try:
            candidate.bind((source, 0))
            if candidate.getsockname()[:2] not in used:
                used.add(candidate.getsockname()[:2])
                candidate.settimeout(timeout)
                candidate.connect((host, port))
                return candidate
        except BaseException:
            candidate.close()
            raise
        candidate.close()
    raise AssertionError("no port that was not used before")


class Client(Lines):
    """A connected client past the greeting, and past STARTTLS with tls="starttls".

    `source` is the address it comes from, `preface` what it sends before all else (a PROXY header)."""

    def __init__(self, port, host="127.0.0.1", tls="none", source=None, context=None, name="localhost", preface=b"",
                 timeout=DEADLINE):
        self.socket = connected(host, port, source, timeout)
        self.buffer, self.context, self.name = b"", context or UNVERIFIED, name
        self.address, self.port = self.socket.getsockname()[:2]
        try:
            if preface:
                self.send(preface)
            if tls == "implicit":
                self.start_tls()
            self.greet()
            if tls == "starttls":
                self.ask_for_tls()
        except BaseException:
            self.close()
            raise

    @property
    def peer(self):
        """As proxyd's log writes it."""
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"

    def start_tls(self):
        if self.buffer:
            raise AssertionError(f"in clear before TLS: {self.buffer!r}")
        self.socket = self.context.wrap_socket(self.socket, server_hostname=self.name)

    def next(self):
        """The next line, which must come."""
        line = self.line()
        if line is None:
            raise AssertionError("closed instead of an answer")
        return line

    def login(self, mechanism, user, secret, *, initial=True, authzid="", form="quoted"):
        """Logs in with SASL or, by COMMAND, without; `form` is how strings are sent: quoted or literal."""
        if mechanism == COMMAND:
            return self.command_login(user, secret, form)
        state = SASL[mechanism](user, secret, authzid)
        return self.authenticate(mechanism, state, state.step(b"") if initial else None, form)

    def answer(self, state, challenges, line):
        """The response, in base64, to a challenge, in base64."""
        try:
            challenges.append(base64.b64decode(line, validate=True))
        except ValueError:
            raise AssertionError(f"a challenge that is no base64: {line!r}")
        return encoded(state.step(challenges[-1]))


class IMAPClient(Client):
    protocol = "imap"

    def greet(self):
        self.greeting = self.next()
        if not self.greeting.startswith("* OK"):
            raise AssertionError(f"no greeting: {self.greeting}")

    def ask_for_tls(self):
        answer = self.ask("t STARTTLS", "t ")[-1]
        if not answer.startswith("t OK"):
            raise AssertionError(f"no TLS: {answer}")
        self.start_tls()

    def capabilities(self):
        line = next(line for line in self.ask("c CAPABILITY", "c OK") if line.startswith("* CAPABILITY "))
        return line.split()[2:]

    def mechanisms(self):
        return [word[5:] for word in self.capabilities() if word.startswith("AUTH=")]

    def command_login(self, user, secret, form):
        if form == "quoted":
            self.send(f"a LOGIN {quoted(user)} {quoted(secret)}\r\n")
        else:
            self.ask(f"a LOGIN {{{len(user.encode())}}}", "+")
            self.ask(f"{user} {{{len(secret.encode())}}}", "+")
            self.send(f"{secret}\r\n")
        return self.result(self.until("a ")[-1], [])

    def authenticate(self, name, state, initial, _):
        self.send(f"a AUTHENTICATE {name}" + ("" if initial is None else f" {encoded(initial) or '='}") + "\r\n")
        challenges = []
        while True:
            line = self.next()
            if line.startswith("+"):
                self.send(self.answer(state, challenges, line[2:]) + "\r\n")
            elif line.startswith("a "):
                result = self.result(line, challenges)
                if result.ok:
                    state.finish(None)
                return result

    def result(self, line, challenges):
        match = re.match(r"a (OK|NO|BAD) (?:\[([A-Z/-]+)[^\]]*\] )?", line)
        if not match:
            raise AssertionError(f"no answer to a login: {line}")
        return Result(match[1] == "OK", line, match[2] or "", challenges)

    def works(self):
        """Something only a user who is logged in may do."""
        return self.ask("w STATUS INBOX (MESSAGES)", "w ")[-1].startswith("w OK")

    def log_out(self):
        self.ask("z LOGOUT", "z OK")


class POP3Client(Client):
    protocol = "pop3"

    def greet(self):
        self.greeting = self.next()
        if not self.greeting.startswith("+OK"):
            raise AssertionError(f"no greeting: {self.greeting}")

    def ask_for_tls(self):
        self.send("STLS\r\n")
        if not (answer := self.next()).startswith("+OK"):
            raise AssertionError(f"no TLS: {answer}")
        self.start_tls()

    def capabilities(self):
        self.send("CAPA\r\n")
        return self.until(".")[1:-1]

    def mechanisms(self):
        return next(line for line in self.capabilities() if line.startswith("SASL")).split()[1:]

    def command_login(self, user, secret, _):
        self.send(f"USER {user}\r\n")
        line = self.next()
        if line.startswith("+OK"):
            self.send(f"PASS {secret}\r\n")
            line = self.next()
        return self.result(line, [])

    def authenticate(self, name, state, initial, _):
        self.send(f"AUTH {name}" + ("" if initial is None else f" {encoded(initial) or '='}") + "\r\n")
        challenges = []
        while (line := self.next()) == "+" or line.startswith("+ "):
            self.send(self.answer(state, challenges, line[2:]) + "\r\n")
        result = self.result(line, challenges)
        if result.ok:
            state.finish(None)
        return result

    def result(self, line, challenges):
        match = re.match(r"(\+OK|-ERR)(?: \[([A-Z/-]+)\])?", line)
        if not match:
            raise AssertionError(f"no answer to a login: {line}")
        return Result(match[1] == "+OK", line, match[2] or "", challenges)

    def works(self):
        self.send("STAT\r\n")
        return self.next().startswith("+OK")

    def log_out(self):
        self.ask("QUIT", "+OK")


class SieveClient(Client):
    protocol = "managesieve"

    def greet(self):
        self.greeting = self.response()
        if not self.greeting[-1].startswith("OK"):
            raise AssertionError(f"no greeting: {self.greeting}")

    def ask_for_tls(self):
        self.command("STARTTLS", "OK")
        self.start_tls()
        self.greet()

    def capabilities(self):
        """The capabilities that were announced last, by name."""
        return {match[1].upper(): match[2] for line in self.greeting
                if (match := re.match(r'"([^"]*)"(?: "(.*)")?$', line))}

    def mechanisms(self):
        return self.capabilities()["SASL"].split()

    def exactly(self, count):
        while len(self.buffer) < count:
            data = self.socket.recv(65536)
            if not data:
                raise AssertionError("closed in a literal")
            self.buffer += data
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def logical_line(self):
        """A line whose literals are turned to quoted strings."""
        text = ""
        while True:
            line = self.next()
            match = re.search(r"\{(\d+)\+?\}$", line)
            if not match:
                return text + line
            text += line[:match.start()] + quoted(self.exactly(int(match[1])).decode(errors="replace"))

    def response(self):
        """All lines to OK, NO or BYE."""
        lines = []
        while True:
            lines.append(self.logical_line())
            if re.match(r"(OK|NO|BYE)\b", lines[-1], re.I):
                return lines

    def command(self, text, wanted=""):
        self.send(text + "\r\n")
        lines = self.response()
        if not lines[-1].startswith(wanted):
            raise AssertionError(f"{text}: {lines}")
        return lines

    @staticmethod
    def string(text, form):
        return quoted(text) if form == "quoted" else f"{{{len(text.encode())}+}}\r\n{text}"

    def command_login(self, user, secret, form):
        raise AssertionError("ManageSieve has no login command")

    def authenticate(self, name, state, initial, form):
        self.send(f"AUTHENTICATE {self.string(name, form)}"
                  + ("" if initial is None else " " + self.string(encoded(initial), form)) + "\r\n")
        challenges = []
        while True:
            line = self.logical_line()
            if not line.startswith('"'):
                break
            self.send(self.string(self.answer(state, challenges, line.strip('"')), form) + "\r\n")
        result = self.result(line, challenges)
        if result.ok:
            data = re.match(r'OK \(SASL "([^"]*)"\)', line)
            state.finish(base64.b64decode(data[1]) if data else None)
        return result

    def result(self, line, challenges):
        match = re.match(r"(OK|NO|BYE)(?: \(([A-Z/-]+)[^)]*\))?", line)
        if not match:
            raise AssertionError(f"no answer to a login: {line}")
        return Result(match[1] == "OK", line, match[2] or "", challenges)

    def works(self):
        return self.command("LISTSCRIPTS")[-1].startswith("OK")

    def log_out(self):
        self.command("LOGOUT", "OK")


CLIENTS = {"imap": IMAPClient, "pop3": POP3Client, "managesieve": SieveClient}


def ways(protocol, mechanisms=MECHANISMS):
    """Every way to log in: (mechanism, with initial response, form of strings)."""
    if protocol == "imap":
        yield COMMAND, False, "quoted"
        yield COMMAND, False, "literal"
    elif protocol == "pop3":
        yield COMMAND, False, "quoted"
    for mechanism in mechanisms:
        for initial in (True, False):
            yield mechanism, initial, "quoted"
            if protocol == "managesieve":
                yield mechanism, initial, "literal"

"""The same scripted sessions through Debian's Perdition and, on the same ports, through proxyd with the configuration that
`proxyd import perdition` made of Perdition's: what differs is exactly what the table below and docs/FromPerdition.md say."""
import concurrent.futures
import os
import pathlib
import re
import subprocess
import unittest

from backends import FullDovecot, free_ports
from harness import PROXYD, ROOT, Lines, Process, TemporaryFolder, greets, make_certificate, running

SERVICES = {"imap4": "imap", "imap4s": "imap", "pop3": "pop3", "pop3s": "pop3", "managesieve": "managesieve"}
PASSWORD = "secret"
PLAIN = "AGFsaWNlAHNlY3JldA=="  # alice, secret
WRONG_PLAIN = "AGFsaWNlAG5vcGU="

COMMON = """
outgoing_port {backend}
username nobody
group nogroup
ssl_no_client_cert_verify
log_facility {log}
authenticate_timeout 30
"""
MODES = {
    "imap4": "protocol IMAP4\nssl_mode tls_listen\n",
    "imap4s": "protocol IMAP4S\nssl_mode ssl_listen\n",
    "pop3": "protocol POP3\nssl_mode tls_listen\n",
    "pop3s": "protocol POP3S\nssl_mode ssl_listen\n",
    "managesieve": "protocol MANAGESIEVE\nssl_mode tls_listen\n",
}
POPMAP = "alice:127.0.0.1\nbob:127.0.0.1\nblank:127.0.0.1\nalias:alice@127.0.0.1\n@example.org:127.0.0.1\ndown:127.0.0.1:{closed}\n"

TLS = "[TLS]"
# Each scenario: the service, then what the client says. A pair of lines in one string is sent in one write.
SCENARIOS = {
    "imap commands before the login": ("imap4", ["a CAPABILITY", "b NOOP", "c LOGOUT"]),
    "imap login with atoms": ("imap4", ["a LOGIN alice secret", "b SELECT INBOX", "c CAPABILITY", "d LOGOUT"]),
    "imap login with quoted strings": ("imap4", ['a LOGIN "alice" "secret"', "b LOGOUT"]),
    "imap login with literals": ("imap4", ["a LOGIN {5}", "alice {6}", "secret", "b LOGOUT"]),
    "imap login with a literal and a quoted string": ("imap4", ["a LOGIN {5}", 'alice "secret"', "b LOGOUT"]),
    "imap login with an atom and a literal": ("imap4", ["a LOGIN alice {6}", "secret", "b LOGOUT"]),
    "imap login with non-synchronising literals": ("imap4", ["a LOGIN {5+}\r\nalice {6+}\r\nsecret", "b LOGOUT"]),
    "imap wrong password, then the right one": (
        "imap4", ["a LOGIN alice wrong", "b CAPABILITY", "c LOGIN alice secret", "d LOGOUT"]),
    "imap unknown user": ("imap4", ["a LOGIN nobody secret", "b LOGOUT"]),
    "imap backend down": ("imap4", ["a LOGIN down secret", "b LOGOUT"]),
    "imap domain in the map": ("imap4", ["a LOGIN carol@example.org secret", "b LOGOUT"]),
    "imap user in the map's answer is passed over": ("imap4", ["a LOGIN alias secret", "b LOGOUT"]),
    "imap pipelined command": ("imap4", ["a LOGIN alice secret\r\nb NOOP", "c NOOP", "d LOGOUT"]),
    "imap ID before the login": ("imap4", ["a ID NIL", "b LOGOUT"]),
    "imap AUTHENTICATE PLAIN": ("imap4", [f"a AUTHENTICATE PLAIN {PLAIN}", "b LOGOUT"]),
    "imap unknown command": ("imap4", ["a SELECT INBOX", "b LOGOUT"]),
    "imap LOGIN without a password": ("imap4", ["a LOGIN alice", "b LOGOUT"]),
    "imap argument where none belongs": ("imap4", ["a NOOP x", "b LOGOUT"]),
    "imap STARTTLS": ("imap4", ["a STARTTLS", TLS, "b CAPABILITY", "c LOGIN alice secret", "d LOGOUT"]),
    "imap STARTTLS, wrong password, then the right one": (
        "imap4", ["a STARTTLS", TLS, "b LOGIN alice wrong", "c CAPABILITY", "d LOGIN alice secret", "e LOGOUT"]),
    "imap STARTTLS twice": ("imap4", ["a STARTTLS", TLS, "b STARTTLS", "c LOGOUT"]),
    "imaps": ("imap4s", [TLS, "a CAPABILITY", "b LOGIN alice secret", "c LOGOUT"]),
    "pop3 commands before the login": ("pop3", ["CAPA", "QUIT"]),
    "pop3 login": ("pop3", ["USER alice", "PASS secret", "STAT", "QUIT"]),
    "pop3 login with blanks in the password": ("pop3", ["USER blank", "PASS pa ss", "QUIT"]),
    "pop3 wrong password, then the right one": (
        "pop3", ["USER alice", "PASS wrong", "USER alice", "PASS secret", "QUIT"]),
    "pop3 unknown user": ("pop3", ["USER nobody", "PASS x", "QUIT"]),
    "pop3 backend down": ("pop3", ["USER down", "PASS x", "QUIT"]),
    "pop3 pipelined command": ("pop3", ["USER alice\r\nPASS secret\r\nSTAT", "NOOP", "QUIT"]),
    "pop3 PASS without USER": ("pop3", ["PASS secret", "QUIT"]),
    "pop3 AUTH": ("pop3", [f"AUTH PLAIN {PLAIN}", "QUIT"]),
    "pop3 STLS": ("pop3", ["STLS", TLS, "CAPA", "USER alice", "PASS secret", "QUIT"]),
    "pop3s": ("pop3s", [TLS, "USER alice", "PASS secret", "QUIT"]),
    "managesieve commands before the login": ("managesieve", ["CAPABILITY", "NOOP", "LOGOUT"]),
    "managesieve login": (
        "managesieve", [f'AUTHENTICATE "PLAIN" "{PLAIN}"', "LISTSCRIPTS", "LOGOUT"]),
    "managesieve login with a literal": (
        "managesieve", [f'AUTHENTICATE "PLAIN" {{20+}}\r\n{PLAIN}', "LISTSCRIPTS", "LOGOUT"]),
    "managesieve wrong password, then the right one": (
        "managesieve", [f'AUTHENTICATE "PLAIN" "{WRONG_PLAIN}"', f'AUTHENTICATE "PLAIN" "{PLAIN}"', "LOGOUT"]),
    "managesieve NOOP with a tag": ("managesieve", ['NOOP "x"', "LOGOUT"]),
    "managesieve STARTTLS": ("managesieve", ["STARTTLS", TLS, f'AUTHENTICATE "PLAIN" "{PLAIN}"', "LOGOUT"]),
}


# What an answer comes to differs here and nowhere else, for the reason given; docs/FromPerdition.md says each in these words.
# Besides, the words of answers are the proxy's own, refusals carry a response code, and lists of capabilities are longer.
MIXED = "A literal and a quoted string in one LOGIN are both understood."
PIPELINED = "Commands sent together with the login are not lost."
ID = "ID is answered before the login."
SASL = "SASL PLAIN and LOGIN are taken, with and without an initial response."
REMEMBERED = "TLS is still known after a failed login."
TAGGED = "ManageSieve's NOOP with a tag is answered."
DIFFERENCES = {
    ("imap login with a literal and a quoted string", 'alice "secret"'): MIXED,
    ("imap pipelined command", "c NOOP"): PIPELINED,
    ("imap ID before the login", "a ID NIL"): ID,
    ("imap AUTHENTICATE PLAIN", f"a AUTHENTICATE PLAIN {PLAIN}"): SASL,
    ("imap STARTTLS, wrong password, then the right one", "c CAPABILITY"): REMEMBERED,
    ("pop3 pipelined command", "USER alice\r\nPASS secret\r\nSTAT"): PIPELINED,
    ("pop3 AUTH", f"AUTH PLAIN {PLAIN}"): SASL,
    ("managesieve NOOP with a tag", 'NOOP "x"'): TAGGED,
}


def meaning(protocol, lines):
    """What an answer comes to: statuses and the backend's data, without the words."""
    if protocol == "imap":
        said = []
        for line in lines:
            status = re.match(r"(\S+) (OK|NO|BAD|BYE)\b", line)
            capabilities = re.search(r"CAPABILITY ([^\]]*)", line)
            offers = sorted({"STARTTLS", "LOGINDISABLED"} & set(capabilities.group(1).split())) if capabilities else []
            if line.startswith("* CAPABILITY "):
                said += offers
            elif status and not re.match(r"\* OK \[(UID|UNSEEN|PERMANENT|HIGHEST)", line):
                said += offers + [f"{status.group(1)} {status.group(2)}"]
            elif line.startswith("+ "):
                said.append("+")
            else:
                said.append(re.sub(r"\d+", "N", line))
        return said
    if protocol == "pop3":
        if lines[-1] == ".":
            return [lines[0].split()[0]] + [line for line in lines if line == "STLS"]
        return [line.split()[0] for line in lines]
    return [line.split()[0].strip('"') for line in lines if not re.match('"(NOTIFY|IMPLEMENTATION|VERSION|SASL)"', line)]


def is_last(protocol, command, line, lines):
    """Whether an answer is whole."""
    if protocol == "imap":
        if command is None:
            return line.startswith("* ")
        return line.startswith("+ ") or bool(re.match(rf"({command.split()[0]}|\*) (OK|NO|BAD) ", line))
    if protocol == "pop3":
        is_list = command == "CAPA" and lines[0].startswith("+OK")
        return line == "." if is_list else True
    return bool(re.match(r"(OK|NO|BYE)\b", line))


def shortened(capabilities):
    return " ".join(["CAPABILITY <LIST>"] + sorted({"STARTTLS", "LOGINDISABLED"} & set(capabilities.group(1).split())))


def normalised(line):
    line = re.sub(r" [0-9a-f]{8}(\"?)$", r" HEX\1", line)
    line = re.sub(r"ready on \S+", "ready on HOST", line)
    line = re.sub(r"CAPABILITY (IMAP4rev1 [A-Z0-9+=|. _-]*IDLE[^\]]*)", shortened, line)
    line = re.sub(r'^"SIEVE" .*', '"SIEVE" <EXTENSIONS>', line)
    line = re.sub(r"UIDVALIDITY \d+", "UIDVALIDITY N", line)
    return re.sub(r" \([0-9. +]+ secs\)", "", line)


def play(service, port, steps):
    """The transcript: for each step, what was said and every line of the answer."""
    protocol = SERVICES[service]
    said = []
    with Lines(port, timeout=25) as client:
        steps = list(steps)
        if steps[0] == TLS:
            client.start_tls()
            steps.pop(0)
        tag = None

        def answer(command):
            lines = []
            while True:
                try:
                    line = client.line()
                except ConnectionResetError:
                    line = None
                if line is None:
                    return lines + ["<closed>"]
                lines.append(normalised(line))
                if is_last(protocol, command, line, lines):
                    return lines

        said.append(("(greeting)", answer(None)))
        for step in steps:
            if step == TLS:
                client.start_tls()
                if protocol == "managesieve":
                    said.append((TLS, answer(step)))
                continue
            try:
                client.send(step + "\r\n")
            except ConnectionError:
                said.append((step, ["<closed>"]))
                break
            first = step.split("\r\n")[0]
            if protocol == "imap" and re.match(r"[a-z]\d* ", first):
                tag = first
            command = tag if protocol == "imap" else first
            try:
                lines = answer(command)
            except TimeoutError:
                lines = ["<silence>"]
            # Of several POP3 commands in one write each has its answer, if it has one.
            if protocol == "pop3" and "\r\n" in step:
                client.socket.settimeout(5)
                try:
                    for _ in step.split("\r\n")[1:]:
                        lines += answer(first)
                except TimeoutError:
                    lines.append("<silence>")
                client.socket.settimeout(25)
            said.append((step, lines))
            if lines[-1:] == ["<closed>"]:
                break
        if said[-1][1][-1] != "<closed>":
            said.append(("(end)", ["<closed>"] if client.closed() else ["<open>"]))
    return said


def is_implicit(service):
    """Whether the service begins with TLS."""
    return service.endswith("s")


class Perdition:
    """One real Perdition a service, as Debian runs them."""

    def __init__(self, folder, confs, ports):
        self.daemons = [
            Process([f"/usr/sbin/perdition.{'imaps' if service == 'imap4s' else service}", "--no_daemon", "-f", conf,
                     "--pid_file", ""], folder / f"{service}.out") for service, conf in confs.items()]
        try:
            for service, daemon in zip(confs, self.daemons):
                daemon.wait_ready(f"perdition for {service}", lambda: greets(ports[service], tls=is_implicit(service)))
        except AssertionError:
            self.stop()
            raise

    def stop(self):
        for daemon in self.daemons:
            daemon.stop()


class PerditionTests(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        folder = TemporaryFolder()
        self.addCleanup(folder.remove)
        self.folder = pathlib.Path(folder.path)
        self.certificate = make_certificate(self.folder)
        self.dovecot = FullDovecot(self.folder, "a", ["alice", "bob", "carol@example.org"], PASSWORD,
                                   certificate=self.certificate)
        self.addCleanup(self.dovecot.stop)
        with open(self.dovecot.dir / "passwd", "a") as passwd:
            passwd.write("blank:{PLAIN}pa ss\n")
        self.ports = free_ports(*SERVICES, "closed")

    def configure(self, services, lookup):
        """Perdition's files for these services."""
        confs = {}
        for service in services:
            confs[service] = self.folder / f"perdition.{service}.conf"
            confs[service].write_text(
                MODES[service] + f"bind_address 127.0.0.1:{self.ports[service]}\n"
                + f"ssl_cert_file {self.certificate[0]}\nssl_key_file {self.certificate[1]}\n" + lookup
                + COMMON.format(backend=self.dovecot.ports[SERVICES[service]], log=self.folder / f"{service}.log"))
        return confs

    def play_both(self, confs, scenarios, *words):
        """The transcripts of Perdition and, with what was imported of its files, of proxyd on the same ports."""
        perdition = Perdition(self.folder, confs, self.ports)
        try:
            theirs = self.play(scenarios)
        finally:
            perdition.stop()
        done = subprocess.run([PROXYD, "import", "perdition", *confs.values(), *words, "--output", self.folder / "out"],
                              capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        config = self.folder / "out" / "proxyd.yaml"
        check = subprocess.run([PROXYD, "check", "--config", config], capture_output=True, text=True, timeout=60)
        self.assertEqual(check.returncode, 0, check.stderr)
        proxy = running(PROXYD, config, self.folder / "proxyd.log")
        try:
            proxy.wait_ready("proxyd", *(lambda service=service: greets(self.ports[service], tls=is_implicit(service))
                                         for service in confs))
            ours = self.play(scenarios)
        finally:
            proxy.stop()
        return theirs, ours

    def play(self, scenarios):
        with concurrent.futures.ThreadPoolExecutor(len(scenarios)) as pool:
            played = {name: pool.submit(play, service, self.ports[service], steps)
                      for name, (service, steps) in scenarios.items()}
            return {name: future.result() for name, future in played.items()}

    def differences(self, scenarios, theirs, ours):
        """The steps whose answers come to something else, with both answers."""
        found = {}
        for name, (service, _) in scenarios.items():
            self.assertEqual([step for step, _ in theirs[name]][:1], ["(greeting)"])
            for (step, their_lines), (_, our_lines) in zip(theirs[name], ours[name]):
                protocol = SERVICES[service]
                if meaning(protocol, their_lines) != meaning(protocol, our_lines):
                    found[(name, step)] = (their_lines, our_lines)
        return found

    def test_the_same_sessions(self):
        (self.folder / "popmap").write_text(POPMAP.format(closed=self.ports["closed"]))
        with open(self.folder / "popmap") as popmap:
            subprocess.run(["makegdbm", self.folder / "popmap.gdbm.db"], stdin=popmap, check=True)
        os.chmod(self.folder / "popmap.gdbm.db", 0o644)
        library = next(pathlib.Path("/usr/lib").glob("*/libperditiondb_gdbm.so.0"))
        confs = self.configure(SERVICES, f"map_library {library}\nmap_library_opt {self.folder}/popmap.gdbm.db\n"
                                         "query_key '\\U,\\D\\d'\n")
        theirs, ours = self.play_both(confs, SCENARIOS)
        found = self.differences(SCENARIOS, theirs, ours)
        self.assertEqual(set(found), set(DIFFERENCES), {key: found[key] for key in set(found) ^ set(DIFFERENCES) if key in found})
        # A session goes on where the other's did: no answer is missing at the end.
        for name, transcript in ours.items():
            self.assertEqual(transcript[-1][1][-1], "<closed>", name)
        # Refusals say why in a code, which Perdition's never do.
        for name, code in {"imap unknown user": "[AUTHENTICATIONFAILED]", "imap backend down": "[UNAVAILABLE]",
                           "pop3 unknown user": "[AUTH]", "pop3 backend down": "[SYS/TEMP]"}.items():
            refusals = [line for _, lines in ours[name] for line in lines if re.search(r"(^| )(NO|-ERR) ", line)]
            self.assertEqual(len(refusals), 1, ours[name])
            self.assertIn(code, refusals[0])

    def test_the_page_tells_all_differences(self):
        page = " ".join((ROOT / "docs" / "FromPerdition.md").read_text().split())
        for reason in set(DIFFERENCES.values()):
            self.assertIn(reason.rstrip("."), page)

    def test_patterns_names_and_words(self):
        """popmap.re, names from the map, rewritten names, the operator's words, the backend's own words."""
        (self.folder / "popmap.re").write_text(
            "# users\n^alias_(.*)$: $1@127.0.0.1\n'^(alice|bob)$': 127.0.0.1\n"
            f"^down$: 127.0.0.1:{self.ports['closed']}\n^\\\\.x: 127.0.0.1\ncarol: localhost\n")
        library = next(pathlib.Path("/usr/lib").glob("*/libperditiondb_posix_regex.so.0"))
        lookup = (f"map_library {library}\nmap_library_opt {self.folder}/popmap.re\nusername_from_database\n"
                  "lower_case servername_lookup,remote_login\nstrip_domain servername_lookup\nadd_domain remote_login\n"
                  "explicit_domain example.org\n")
        # carol's mailbox is that of her whole address; the others' domain is not known to the backend.
        scenarios = {
            "a name in capitals": ("imap4", ["a LOGIN Carol secret", "b LOGOUT"]),
            "a name in capitals with its domain": ("imap4", ["a LOGIN Carol@Example.ORG secret", "b LOGOUT"]),
            "another domain": ("imap4", ["a LOGIN carol@example.net secret", "b LOGOUT"]),
            "a name the backend has without a domain": ("imap4", ["a LOGIN alice secret", "b LOGOUT"]),
            "a name from the map": ("imap4", ["a LOGIN alias_carol secret", "b LOGOUT"]),
            "a backend that is down": ("imap4", ["a LOGIN down secret", "b LOGOUT"]),
            "nobody": ("imap4", ["a LOGIN nobody secret", "b LOGOUT"]),
            "pop3": ("pop3", ["USER carol", "PASS secret", "STAT", "QUIT"]),
        }
        for words in ("ok_line \"Welcome, mate\"\n", "server_resp_line\n"):
            with self.subTest(words=words):
                confs = self.configure(["imap4", "pop3"], lookup + words)
                theirs, ours = self.play_both(confs, scenarios, "--force")
                self.assertEqual(self.differences(scenarios, theirs, ours), {})
                good = {name: next(line for line in reversed(ours[name][1][1])) for name in scenarios}
                if words.startswith("ok_line"):
                    self.assertTrue(good["a name in capitals"].endswith(" Welcome, mate"), good)
                    self.assertEqual(ours["pop3"][2], ("PASS secret", ["+OK Welcome, mate"]))
                else:
                    self.assertTrue(good["a name in capitals"].endswith("Logged in"), good)

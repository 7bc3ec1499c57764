"""Servers and files users are looked up in: slapd, Redis, cdb, LMDB, and the services of PAM; on loopback, in a folder,
ended by pid."""
import ctypes
import ctypes.util
import os
import pathlib
import re
import signal
import subprocess

from harness import LOOPBACKS, FakeBackend, Process, free_port, freeze


class Mailbox(FakeBackend):
    """An IMAP backend that lets everybody in and knows who that was."""

    def __init__(self):
        self.logins = []
        super().__init__(self.serve)

    def serve(self, connection):
        connection.sendall(b"* OK [CAPABILITY IMAP4rev1 LITERAL+] ready\r\n")
        file = connection.makefile("rb")
        line = file.readline().decode()
        if not line:
            return
        # A literal stands for an argument; in a quoted string a backslash is before what stands for itself.
        pieces = line.rstrip("\r\n").split(" ", 2)[2:]
        while pieces[-1].endswith("+}"):
            count = int(pieces[-1].rpartition("{")[2][:-2])
            pieces[-1] = pieces[-1].rpartition("{")[0]
            pieces += [file.read(count).decode(), file.readline().decode().rstrip("\r\n")]
        name = pieces[0] or pieces[1]
        self.logins.append(re.match(r'"((?:[^"\\]|\\.)*)"', name)[1].replace("\\", "") if name[0] == '"' else
                           name.split(" ")[0] if pieces[0] else name)
        connection.sendall(b"L OK [CAPABILITY IMAP4rev1] Logged in\r\n")
        for line in file:
            connection.sendall(line.split()[0] + b" OK done\r\n")


def unread(port):
    """Bytes that the server on that port has not read yet, on all its connections."""
    total = 0
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in pathlib.Path(table).read_text().splitlines()[1:]:
            columns = line.split()
            # 0A is LISTEN, where the number counts connections.
            if int(columns[1].rpartition(":")[2], 16) == port and columns[3] != "0A":
                total += int(columns[4].partition(":")[2], 16)
    return total


class Server:
    """What slapd and Redis have in common."""

    process = None

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.popen.wait()
        self.stop()

    def pause(self):
        freeze(self.process.pid)

    def resume(self):
        if self.process and self.process.is_running():
            self.process.send_signal(signal.SIGCONT)

    def stop(self):
        if self.process:
            self.resume()
            self.process.stop()
            self.process = None


ADMIN = ("cn=admin,dc=example,dc=org", "admin secret")

SLAPD = """
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
modulepath /usr/lib/ldap
moduleload back_mdb
pidfile {dir}/slapd.pid
{tls}
access to attrs=userPassword by anonymous auth by * none
access to dn.exact="" by * read
access to * by dn.exact="{admin}" read by anonymous {anonymous}
database mdb
suffix "dc=example,dc=org"
directory {dir}/db
rootdn "cn=root,dc=example,dc=org"
rootpw root
index uid eq
"""


class Slapd(Server):
    """A real OpenLDAP. `anonymous` says what it lets nobody in particular do: read, or nothing but log in."""

    def __init__(self, folder, name="slapd", certificate=None, anonymous="read", ldif=""):
        self.dir = pathlib.Path(folder) / name
        (self.dir / "db").mkdir(parents=True)
        self.port, self.tls_port = free_port(), free_port()
        self.has_tls = certificate is not None
        crt, key = certificate or (None, None)
        tls = f"TLSCertificateFile {crt}\nTLSCertificateKeyFile {key}\nTLSVerifyClient never" if certificate else ""
        self.config = self.dir / "slapd.conf"
        self.config.write_text(SLAPD.format(dir=self.dir, admin=ADMIN[0], anonymous=anonymous, tls=tls))
        entries = self.dir / "entries.ldif"
        entries.write_text(f"""dn: dc=example,dc=org
objectClass: domain
dc: example

dn: {ADMIN[0]}
objectClass: applicationProcess
objectClass: simpleSecurityObject
cn: admin
userPassword: {ADMIN[1]}

dn: ou=mail,dc=example,dc=org
objectClass: organizationalUnit
ou: mail

{ldif}""")
        subprocess.run(["/usr/sbin/slapadd", "-q", "-f", self.config, "-l", entries], check=True, capture_output=True)
        self.start()

    @property
    def url(self):
        return f"ldap://127.0.0.1:{self.port}"

    def start(self):
        urls = self.url + (f" ldaps://127.0.0.1:{self.tls_port}" if self.has_tls else "")
        self.process = Process(["/usr/sbin/slapd", "-d", "0", "-f", self.config, "-h", urls], self.dir / "log")
        self.process.wait_ready("slapd", *(lambda url=url: self.answers(url) for url in urls.split()))

    def answers(self, url):
        """Whether the administrator finds the entries there."""
        done = subprocess.run(["ldapsearch", "-x", "-LLL", "-H", url, "-D", ADMIN[0], "-w", ADMIN[1], "-b", "dc=example,dc=org",
                               "-s", "base", "dn"], env={**os.environ, "LDAPTLS_REQCERT": "never"}, capture_output=True)
        return done.returncode == 0

    def modify(self, ldif):
        subprocess.run(["ldapmodify", "-x", "-H", self.url, "-D", "cn=root,dc=example,dc=org", "-w", "root"], input=ldif,
                       text=True, check=True, capture_output=True)


def entry(uid, password=None, under="ou=mail,dc=example,dc=org", **attributes):
    """An LDIF entry of an account with any attributes; a list has several values."""
    import base64

    def line(name, value):
        return f"{name}:: {base64.b64encode(value.encode()).decode()}\n"
    escaped = "".join(c if c.isalnum() else "".join(f"\\{byte:02x}" for byte in c.encode()) for c in uid)
    text = line("dn", f"uid={escaped},{under}") + "objectClass: account\nobjectClass: extensibleObject\n" + line("uid", uid)
    for name, value in attributes.items():
        for one in value if isinstance(value, list) else [value]:
            text += line(name, one)
    return text + (line("userPassword", password) if password else "") + "\n"


class Redis(Server):
    """A real Redis, without persistence."""

    def __init__(self, folder, *options):
        self.dir = pathlib.Path(folder) / "redis"
        self.dir.mkdir()
        self.port = free_port()
        self.socket = self.dir / "redis.sock"
        self.options = options
        self.start()

    def start(self):
        self.process = Process(
            ["/usr/bin/redis-server", "--port", self.port, "--bind", "127.0.0.1", "::1", "--unixsocket", self.socket, "--save",
             "", "--dir", self.dir, *self.options], self.dir / "log")
        # The administrator asks through the socket, proxyd at the ports.
        ways = [["-s", self.socket], *(["-h", host, "-p", str(self.port)] for host in LOOPBACKS)]
        self.process.wait_ready("redis-server", *(lambda way=way: self.answers(way) for way in ways))

    @staticmethod
    def answers(way):
        """Whether it says something to a client that comes this way: PONG, or that it wants a password."""
        done = subprocess.run(["redis-cli", *way, "PING"], capture_output=True, text=True)
        return done.stdout.startswith(("PONG", "NOAUTH"))

    def ask(self, *arguments, password=None):
        """A command, as the administrator."""
        options = ["--user", "default", "--pass", password, "--no-auth-warning"] if password else []
        done = subprocess.run(["redis-cli", "-s", self.socket, *options, *arguments], text=True, check=True,
                              capture_output=True)
        if done.stdout.startswith(("ERR", "WRONG", "NOAUTH", "NOPERM")):
            raise AssertionError(done.stdout)
        return done.stdout


def make_cdb(path, pairs):
    """Replaces a cdb file with Debian's own tool."""
    records = b"".join(b"+%d,%d:%s->%s\n" % (len(key), len(value), key, value) for key, value in encoded(pairs)) + b"\n"
    subprocess.run(["cdb", "-c", path], input=records, check=True, capture_output=True)


def make_lmdb(path, pairs, append=False):
    """Writes into an LMDB file with Debian's own tool; made if it is missing."""
    def printed(text):
        return b" " + b"".join(bytes([b]) if 0x20 <= b < 0x7F and b != 0x5C else b"\\%02x" % b for b in text) + b"\n"
    records = b"VERSION=3\nformat=print\ntype=btree\nmapsize=67108864\nHEADER=END\n"
    records += b"".join(printed(key) + printed(value) for key, value in encoded(pairs)) + b"DATA=END\n"
    subprocess.run(["mdb_load", *(["-a"] if append else []), "-n", path], input=records, check=True, capture_output=True)


def encoded(pairs):
    return [(key.encode(), value.encode()) for key, value in dict(pairs).items()]


def crypted(password, prefix, cost=0):
    """A hash of the system's crypt(3), of the method that begins so."""
    library = ctypes.CDLL("libcrypt.so.1")
    library.crypt_gensalt.restype = library.crypt.restype = ctypes.c_char_p
    library.crypt_gensalt.argtypes = [ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p, ctypes.c_int]
    library.crypt.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
    salt = library.crypt_gensalt(prefix.encode(), cost, None, 0)
    return library.crypt(password.encode(), salt).decode()


class PAMService:
    """A service in /etc/pam.d, where libpam looks for it, for the time of a test; needs root."""

    folder = pathlib.Path("/etc/pam.d")

    def __init__(self, name, text):
        self.name = f"proxyd-test-{os.getpid()}-{name}"
        self.path = self.folder / self.name
        self.path.write_text(text)

    def remove(self):
        self.path.unlink()

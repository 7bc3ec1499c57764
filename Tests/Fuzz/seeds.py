"""Makes fuzz seeds: of transcripts what the dialogue is given, behind three bytes of choice; of the corpus of imports its
files; of the rest what is written down here."""
import pathlib
import re
import sys

source, corpus = map(pathlib.Path, sys.argv[1:3])
giver = "C" if source.name.endswith("client") else "S"
ESCAPES = {"r": b"\r", "n": b"\n", "0": b"\0"}


def unescape(text):
    """The escapes of a transcript (Tests/ProtocolsTests/Transcript.swift)."""
    data = b""
    for part in re.findall(r"\\x[0-9A-Fa-f]{2}|\\.|[^\\]+", text):
        if part.startswith("\\x"):
            data += bytes([int(part[2:], 16)])
        elif part.startswith("\\"):
            data += ESCAPES.get(part[1], part[1].encode())
        else:
            data += part.encode()
    return data


IMPORTS = source.parent


def write(seeds):
    for number, data in enumerate(seeds):
        (corpus / f"seed-{number}").write_bytes(data if isinstance(data, bytes) else data.encode())
    sys.exit()


def sites(pattern):
    return [path for path in sorted(IMPORTS.glob("*/" + pattern)) if path.is_file()]


if source.name == "perdition-site":
    seeds = []
    for folder in sorted({path.parent for path in sites("perdition*.conf")}):
        confs = sorted(folder.glob("perdition*.conf"))
        others = [path.read_bytes() for name in ("default*", "popmap*") for path in sorted(folder.glob(name))[:1]]
        seeds.append(b"\0".join([confs[0].read_bytes(), confs[-1].read_bytes(), *others]))
    write(seeds)
if source.name == "perdition-map":
    write([path.read_bytes() for path in sites("popmap*")])
if source.name == "perdition-words":
    write([path.read_bytes() for path in sites("*odbc*") + sites("default*")] + [
        "localhost:3306:dbPerdition:tblPerdition:perdition:secret:servername:user:port",
        "2:ldap://localhost/ou=mailbox,dc=nodomain?username,mailhost,port?one?(uid=%s)?!BINDNAME=cn=a%2Cdc=b,X-BINDPW=c"])
if source.name == "nginx-mail":
    write([path.read_bytes() for path in sites("*nginx*.conf")])
if source.name == "auth-http":
    write(["HTTP/1.1 200 OK\r\nAuth-Status: OK\r\nAuth-Server: 192.0.2.1\r\nAuth-Port: 143\r\nAuth-User: x\r\nAuth-Pass: y\r\n\r\n",
           "HTTP/1.0 200\r\nauth-status: Invalid login\r\nAuth-Wait: 3\r\n\r\n",
           "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\nAuth-Status: WAIT\nAuth-Wait: 1\n\n"])
if source.name == "name-templates":
    write(["\\U,\\u\\D\\d\0joe@example.org", "(uid=%u)(mail=%n@%d)%%%s\0a*(b)\\c@d"])
if source.name == "sql-query":
    write(["SELECT backend, login_as FROM users WHERE login = :login AND p = ':local' -- :domain\n;",
           "SELECT a::text, $$:login$$, E'\\':login', \"x:y\" FROM t WHERE d = :domain /* :x */ AND q = :protocol",
           "SELECT `a:b` FROM t WHERE l = :local # :login"])
if source.name == "control-request":
    write(['{"command":"status"}', '{"command":"sessions","user":"a*","where":"relaying","limit":7}',
           '{"command":"backend","backend":"a","state":"drain","weight":"default"}', '{"command":"trace","user":"\\u00e9","seconds":60}',
           '{"command":"affinity-load","entries":[{"user":"x","backend":"a"}],"pool":"p"}', '{"command":"kick","address":"192.0.2.0/24"}'])
if source.name == "shown-text":
    write(["plain", "gr\u00fcn \u65e5\u672c e\u0301", "\x1b[2J\x9b31m\u202eabc\u200b", "\x1b[A\x1b[5~q\r"])
if source.name == "proxy-header":
    V4 = bytes([192, 0, 2, 1, 198, 51, 100, 2, 18, 103, 3, 225])
    TLS = b"\x20\x00\x0f\x01\0\0\0\0\x21\x00\x07TLSv1.3"
    SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
    for number, data in enumerate([
        b"PROXY TCP4 192.0.2.1 198.51.100.2 4711 993\r\n",
        b"PROXY UNKNOWN\r\n",
        SIGNATURE + b"\x21\x11\0\x0c" + V4,
        SIGNATURE + b"\x21\x11\0\x1e" + V4 + TLS,
        SIGNATURE + b"\x21\x21\0\x24" + V4 * 3,
        SIGNATURE + b"\x20\0\0\0",
    ]):
        (corpus / f"seed-{number}").write_bytes(b"\x80\0\0" + data)

for path in source.glob("*.txt"):
    data = b""
    for line in path.read_text().splitlines()[1:]:
        if line.startswith((f"{giver}: ", f"{giver}- ")):
            data += unescape(line[3:]) + (b"\r\n" if line[1] == ":" else b"")
    for choice in range(8):
        (corpus / f"{path.stem}-{choice}").write_bytes(bytes([0x80, choice * 37 % 256, choice]) + data[:4000])

"""Makes fuzz seeds of transcripts: what the dialogue is given, behind three bytes of choice."""
import pathlib
import re
import sys

source, corpus = map(pathlib.Path, sys.argv[1:3])
giver = "S" if source.name.endswith("backend") else "C"
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

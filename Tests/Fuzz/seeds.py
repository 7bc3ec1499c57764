"""Makes fuzz seeds of transcripts: what the dialogue is given, behind one byte of choice."""
import pathlib
import sys

source, corpus = map(pathlib.Path, sys.argv[1:3])
giver = "S" if source.name.endswith("backend") else "C"
for path in source.glob("*.txt"):
    data = b""
    for line in path.read_text().splitlines()[1:]:
        if line.startswith(f"{giver}: "):
            data += line[3:].encode() + b"\r\n"
        elif line.startswith(f"{giver}- "):
            data += line[3:].replace("\\r", "\r").replace("\\n", "\n").replace("\\0", "\0").encode()
    for choice in range(4):
        (corpus / f"{path.stem}-{choice}").write_bytes(bytes([0x80 | choice]) + data[:4000])

"""regex with perdition-compatible: true, against the library that Perdition itself asks: random files of rules, random
names, the same answers. SEED and FILES of the environment choose others, and more of them."""
import concurrent.futures
import ctypes
import os
import pathlib
import random
import re
import subprocess
import tempfile
import unittest

from harness import PROXYD

SEED = int(os.environ.get("SEED", "1"))
FILES = int(os.environ.get("FILES", "40"))
NAMES = 6

# Pieces of patterns, as they stand in a file: a backslash that is to arrive is doubled.
PATTERNS = ["a", "b", "ab", ".", "[ab]", "[^a@]", "(a|ab)", "(b)", "(a*)", "(.*)", "@", "x", r"\\.", "(a|b)*", "b+",
            "(c)?", "[[:alpha:]]", "a{2}", "^", "$", "(^a|b)", "(b|bc|c)", "[]a]", r"\\b", "()", ".*", "(", "a**", "a{",
            "+", "a|b", "ab|b", ")"]
ANSWERS = ["h", "$1", "$0", "$2", "h$1", "$1@h", "a.$1", "$3x", "x:143", "h:imap", "u@h$1", "$", '"h i"', "$$1"]

CONFIG = """
listeners:
  - { protocol: imap, address: "127.0.0.1:1143", tls: off }
routes:
  - regex: { file: popmap.re, perdition-compatible: true }
"""


class Library:
    """Debian's posix_regex map. It holds one map at a time."""

    def __init__(self):
        path = next(pathlib.Path("/usr/lib").glob("*/libperditiondb_posix_regex.so.0"))
        self.library = ctypes.CDLL(str(path))

    def open(self, file):
        """Whether Perdition would start with it."""
        self.library.dbserver_fini()
        return self.library.dbserver_init(str(file).encode()) == 0

    def answer(self, name):
        """What it says; None if it knows nobody."""
        value, length = ctypes.c_char_p(), ctypes.c_size_t()
        code = self.library.dbserver_get(name.encode(), None, ctypes.byref(value), ctypes.byref(length))
        return value.value.decode() if code == 0 else None


def pattern(generator):
    text = "".join(generator.choice(PATTERNS) for _ in range(generator.randint(1, 4)))
    kind = generator.random()
    if kind < 0.1:
        return "'" + text.replace("\\\\", "\\") + "'"
    return f'"{text}"' if kind < 0.15 else text


def line(generator):
    text = pattern(generator) + generator.choice([":"] * 5 + ["", " :"])
    text += generator.choice([" ", " ", "\t", "  ", ""]) + generator.choice(ANSWERS)
    kind = generator.random()
    if kind < 0.05:
        text += " # c " + generator.choice(["'", "\\", ""])
    elif kind < 0.1:
        text += " " + pattern(generator)
    elif kind < 0.15:
        text += f" {pattern(generator)}: z"
    elif kind < 0.18:
        text = "#" + text
    elif kind < 0.2:
        text = " " + text
    elif kind < 0.22:
        text = text[:3] + "\\\n" + text[3:]
    return text + generator.choice(["\n"] * 4 + ["\r\n", "\n\n", "\r"])


def routed(folder, name):
    """What the source is told to answer, put together as Perdition has it; None for nobody."""
    done = subprocess.run([PROXYD, "route", "--config", folder / "proxyd.yaml", name], capture_output=True, text=True,
                          timeout=60)
    answer = re.search(r'^asked: .* for ".*?": (.*)$', done.stdout, re.M)
    assert answer, done.stdout + done.stderr
    if answer[1] == "not found":
        return None
    if "is empty" in answer[1]:
        return "(empty)"
    user, at, backend = answer[1].rpartition(" at ")
    return f"{user}@{backend}" if at else backend


def theirs(answer):
    """Perdition's answer, as far as the two may differ: here a server without a name is refused, and so is a user."""
    if answer is None:
        return None
    user, at, server = answer.rpartition("@")
    if not server or at and not user:
        return "(empty)"
    return re.sub(":imap$", ":143", answer)


class PatternTests(unittest.TestCase):
    def test_the_same_answers(self):
        generator = random.Random(SEED)
        library = Library()
        compared = refused = unread = 0
        with tempfile.TemporaryDirectory(prefix="proxyd-patterns-") as path:
            folder = pathlib.Path(path)
            (folder / "proxyd.yaml").write_text(CONFIG)
            for _ in range(FILES):
                text = "".join(line(generator) for _ in range(generator.randint(1, 4)))
                if generator.random() < 0.1:
                    text = text.rstrip("\r\n")
                (folder / "popmap.re").write_text(text, newline="")
                check = subprocess.run([PROXYD, "check", "--config", folder / "proxyd.yaml"], capture_output=True,
                                       text=True, timeout=60)
                # What Perdition reads in a way nobody wants is refused.
                if "an indented line" in check.stderr:
                    refused += 1
                    continue
                opens = library.open(folder / "popmap.re")
                self.assertEqual(check.returncode == 0, opens, f"{text!r}\n{check.stderr}")
                if not opens:
                    unread += 1
                    continue
                names = ["".join(generator.choice(["a", "b", "ab", "c", "@", "x", ".", "abc"])
                                 for _ in range(generator.randint(1, 5))) for _ in range(NAMES)]
                with concurrent.futures.ThreadPoolExecutor(4) as pool:
                    for name, ours in zip(names, pool.map(lambda name: routed(folder, name), names)):
                        self.assertEqual(ours, theirs(library.answer(name)), f"{text!r} {name!r}")
                        compared += 1
        # Not all of it may have been garbage.
        self.assertGreater(compared, FILES * NAMES / 3, f"refused {refused}, unread {unread}")


if __name__ == "__main__":
    unittest.main()

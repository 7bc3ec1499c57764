"""Two real Dovecot backends and proxyd in front of them, on loopback ports, until Ctrl-C. For looking and trying."""
import os
import pathlib
import signal
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "Tests" / "Integration"))

from harness import PROXYD, Dovecot, Proxy, TemporaryFolder, make_certificate, make_map  # noqa: E402

PASSWORD = "demo"
CONFIG = """\
listeners:
  - {{ protocol: imap, address: "127.0.0.1:{imap}", tls: starttls }}
  - {{ protocol: imap, address: "127.0.0.1:{imaps}", tls: implicit }}
  - {{ protocol: pop3, address: "127.0.0.1:{pop3}", tls: starttls }}
  - {{ protocol: pop3, address: "127.0.0.1:{pop3s}", tls: implicit }}
tls: {{ certificate: mail.crt, key: mail.key }}
state-file: state.db
control: {{ socket: control.sock }}
routes:
  - sqlite: map.db
  - default: mail
pools:
  mail: {{ members: [ a, b ], affinity: table }}
backends:
  a: {{ address: 127.0.0.1, ports: {{ imap: {a_imap}, pop3: {a_pop3} }} }}
  b: {{ address: 127.0.0.1, ports: {{ imap: {b_imap}, pop3: {b_pop3} }} }}
"""
TEXT = """
proxyd runs, with two Dovecot backends behind it. Everything is in {folder} and goes with Ctrl-C.

  alice@example.com is on backend a, all of example.org on backend b, everybody else where the pool of both has room. Passwords:
  {password}

Look at the mail of a user on each backend:

  curl -k --user alice@example.com:{password} 'imaps://127.0.0.1:{imaps}/INBOX;UID=1'
  curl -k --user bob@example.org:{password} 'imaps://127.0.0.1:{imaps}/INBOX;UID=1'
  curl -k --ssl-reqd --user alice@example.com:{password} 'pop3://127.0.0.1:{pop3}/1'
  curl -k --user bob@example.org:{password} 'pop3s://127.0.0.1:{pop3s}/1'

Talk to it yourself (then: a LOGIN alice@example.com {password}, or USER bob@example.org and PASS {password}):

  openssl s_client -connect 127.0.0.1:{imaps}
  openssl s_client -connect 127.0.0.1:{imap} -crlf -starttls imap
  openssl s_client -connect 127.0.0.1:{pop3s}
  openssl s_client -connect 127.0.0.1:{pop3} -crlf -starttls pop3

Ask and change the map while it runs:

  {proxyd} route --config {config} --protocol imap bob@example.org
  {proxyd} map set alice@example.com b --config {config}
  {proxyd} map list --config {config}

See who is there, and move them (most are clearer with a client that stays, as openssl above):

  {proxyd} top --config {config}
  {proxyd} backends --config {config}
  {proxyd} affinity map carol@example.com --config {config}
  {proxyd} backend b drain --config {config}
  {proxyd} sessions --config {config}

Its log:
"""


def main():
    folder = TemporaryFolder()
    stop = []
    try:
        users = ["alice@example.com", "bob@example.org"]
        backends = {}
        for name in "ab":
            backends[name] = Dovecot(folder.path, name, users, password=PASSWORD)
            stop.insert(0, backends[name].stop)
        make_certificate(folder.path)
        make_map(f"{folder.path}/map.db", users=[("alice@example.com", "a", None)], domains=[("example.org", "b")])
        proxy = Proxy(folder.path, CONFIG, a_imap=backends["a"].imap, a_pop3=backends["a"].pop3,
                      b_imap=backends["b"].imap, b_pop3=backends["b"].pop3)
        proxy.start()
        stop.insert(0, proxy.stop)
        print(TEXT.format(folder=folder.path, password=PASSWORD, proxyd=os.path.relpath(PROXYD), config=proxy.config,
                          **proxy.ports), flush=True)
        follow(proxy)
    finally:
        for end in stop:
            end()
        folder.remove()


def follow(proxy):
    """Prints the log until a signal ends it."""
    ended = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.append(True))
    with open(proxy.log_path) as log:
        while not ended and proxy.process.is_running():
            text = log.read()
            if text:
                print(text, end="", flush=True)
            else:
                signal.sigtimedwait([], 0.2)


if __name__ == "__main__":
    main()

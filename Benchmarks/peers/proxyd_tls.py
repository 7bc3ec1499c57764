"""proxyd with TLS to its backend, verified: what the second leg costs."""

from . import proxyd

NAME = "proxyd, backend TLS"
FEATURES = {"tls", "starttls", "plain", "pop3"}


def start(env):
    # The same configuration, but for the link; its backend is one more process, metered apart.
    imap, pop3 = env.port("aux"), str(int(env.port("aux")) + 1)
    env.spawn("backend", [env.tool("mailbackend"), "--imap", imap, "--pop3", pop3, "--cert", env.cert, "--key", env.key])
    write = env.write

    def secure(name, text):
        link = f"tls: implicit, tls-name: localhost, ca: \"{env.cert}\","
        text = text.replace("a: { address: 127.0.0.1,", f"a: {{ address: 127.0.0.1, {link}")
        text = text.replace(f"imap: {env.backend_imap}, pop3: {env.backend_pop3}", f"imap: {imap}, pop3: {pop3}")
        assert link in text and f"imap: {imap}," in text
        return write(name, text)

    env.write = secure
    proxyd.start(env)

"""Dovecot backends that speak everything: three protocols, STARTTLS and implicit TLS, tokens, SCRAM, PROXY protocol,
several certificates, client certificates, master users. And the authority that issues the certificates."""
import base64
import hashlib
import hmac
import json
import os
import pathlib
import re
import subprocess
import time

from harness import LOOPBACKS, PASSWORD, Dovecot, Process, connects, free_ports, greets, wait_for

MASTER, MASTER_PASSWORD = "proxymaster", "master's secret"
PROTOCOLS = ("imap", "pop3", "managesieve")
CLIENT_ADDRESS = "127.0.0.5"  # where clients of the tests come from, so that nobody takes it for a proxy
EXPIRED = ("20200101000000Z", "20200102000000Z")

CONFIGURATION = """
base_dir = {dir}/run
log_path = {dir}/dovecot.log
auth_verbose = yes
protocols = imap pop3 sieve
listen = {listen}
login_trusted_networks = {trusted}
login_log_format_elements = user=<%u> method=%m rip=%{{rip}} rport=%{{rport}} lip=%{{lip}} real_rip=%{{real_rip}} %c \
session=<%{{session}}>
haproxy_trusted_networks = 127.0.0.0/8 ::1
ssl = yes
ssl_cert = <{certificate}
ssl_key = <{key}
disable_plaintext_auth = no
auth_mechanisms = plain login xoauth2 oauthbearer scram-sha-256 scram-sha-1
auth_failure_delay = 0
auth_master_user_separator = *
mail_location = maildir:{dir}/mail/%u
mail_max_userip_connections = 2000
first_valid_uid = 1
default_process_limit = 300
default_client_limit = 4000
passdb {{
  driver = passwd-file
  args = scheme=PLAIN {dir}/masters
  master = yes
  result_success = continue
}}
passdb {{
  driver = oauth2
  mechanisms = xoauth2 oauthbearer
  args = {dir}/oauth2.conf
}}
passdb {{
  driver = passwd-file
  mechanisms = plain login scram-sha-256 scram-sha-1
  args = scheme=PLAIN {dir}/passwd
}}
userdb {{
  driver = static
  args = uid=mail gid=mail home={dir}/mail/%u
}}
plugin {{
  sieve = file:~/sieve;active=~/active.sieve
}}
service imap-login {{
  service_count = 0
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = {imaps}
    ssl = yes
  }}
  inet_listener imap_haproxy {{
    port = {imap_haproxy}
    haproxy = yes
  }}
}}
service pop3-login {{
  service_count = 0
  inet_listener pop3 {{
    port = {pop3}
  }}
  inet_listener pop3s {{
    port = {pop3s}
    ssl = yes
  }}
  inet_listener pop3_haproxy {{
    port = {pop3_haproxy}
    haproxy = yes
  }}
}}
service managesieve-login {{
  service_count = 0
  inet_listener sieve {{
    port = {managesieve}
  }}
  inet_listener sieve_haproxy {{
    port = {managesieve_haproxy}
    haproxy = yes
  }}
}}
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service stats {{
  unix_listener stats-writer {{
    mode = 0
  }}
}}
"""

CLIENT_CERTIFICATES = {
    "named": """
auth_mechanisms = $auth_mechanisms external
auth_ssl_username_from_cert = yes
passdb {
  driver = static
  mechanisms = external
  args = nopassword
}""",
    "required": "auth_ssl_require_client_cert = yes",
}


class FullDovecot(Dovecot):
    """A backend with everything on. Its ports are self.ports: imap, imaps, imap_haproxy and so on.

    HAProxy ends the TLS of managesieves: Dovecot 2.3.19 can do that itself, but then, one time in a hundred, it reads a
    command and does not notice. So a login there is logged as secured, not as TLS, and shows no client certificate.

    `certificates` are further addresses it listens on, each with a certificate of its own: {address: (crt, key)}.
    `client_ca` makes it ask for client certificates: with clients="named" their common name is the user, and EXTERNAL
    is offered; with clients="required" nobody logs in without one. `extra` is appended to its configuration."""

    def __init__(self, folder, name, users, password=PASSWORD, *, certificate, trusted="127.0.0.1 ::1",
                 certificates=None, client_ca=None, clients="named", extra=""):
        self.certificate, self.certificates = certificate, certificates or {}
        self.trusted, self.client_ca, self.clients, self.extra = trusted, client_ca, clients, extra
        self.token_key = os.urandom(32)
        self.ports = free_ports(*(protocol + kind for protocol in PROTOCOLS for kind in ("", "s", "_haproxy")))
        self.front = None
        super().__init__(folder, name, users, password)

    def configuration(self):
        self.imap, self.pop3 = self.ports["imap"], self.ports["pop3"]
        (self.dir / "masters").write_text(f"{MASTER}:{{PLAIN}}{MASTER_PASSWORD}\n")
        keys = self.dir / "keys" / "default" / "HS256"
        keys.mkdir(parents=True, exist_ok=True)
        (keys / "default").write_text(base64.b64encode(self.token_key).decode())
        (self.dir / "oauth2.conf").write_text(f"""
introspection_mode = local
local_validation_key_dict = fs:posix:prefix={self.dir}/keys/
username_attribute = sub
openid_configuration_url = https://login.example.net/.well-known/openid-configuration
""")
        text = CONFIGURATION.format(dir=self.dir, listen=", ".join(["127.0.0.1", "::1", *self.certificates]),
                                    trusted=self.trusted, certificate=self.certificate[0], key=self.certificate[1],
                                    **self.ports)
        for address, (certificate, key) in self.certificates.items():
            text += f"local {address} {{\n  ssl_cert = <{certificate}\n  ssl_key = <{key}\n}}\n"
        if self.client_ca:
            text += f"""
ssl_ca = <{self.client_ca}
ssl_verify_client_cert = yes
ssl_require_crl = no
{CLIENT_CERTIFICATES[self.clients]}
"""
        return text + self.extra

    def answers(self):
        hosts = (*LOOPBACKS, *self.certificates)
        header = b"PROXY TCP4 127.0.0.1 127.0.0.1 1 1\r\n"
        return [lambda port=port, host=host, options=options: greets(port, host, **options)
                for protocol in PROTOCOLS for host in hosts
                for port, options in ((self.ports[protocol], {}), (self.ports[protocol + "_haproxy"], {"say": header}),
                                      *([] if protocol == "managesieve" else [(self.ports[protocol + "s"], {"tls": True})]))]

    def start(self):
        super().start()
        try:
            certificates = {"127.0.0.1": self.certificate, "::1": self.certificate, **self.certificates}
            binds = [(address, self.ports["managesieves"], pair) for address, pair in certificates.items()]
            self.front = HAProxy(self.dir, {"managesieves": (binds, self.ports["managesieve"])})
            self.front.process.wait_ready("managesieves", *(lambda host=host, port=port: greets(port, host, tls=True)
                                                            for host, port, _ in binds))
        except BaseException:
            self.stop()
            raise

    def stop(self):
        if self.front:
            self.front.stop()
            self.front = None
        super().stop()

    def token(self, user, **claims):
        """A bearer token that is good here for the user, unless a claim is changed."""
        return make_token(self.token_key, user, **claims)

    def logins(self):
        """The logins of the log, as dicts: protocol, user, method, rip, rport, lip, real_rip, transport, session."""
        return [match.groupdict() for line in self.log().splitlines() if (match := LOGIN.search(line))]

    def wait_login(self, **wanted):
        """The first login with these values."""
        def found():
            for login in self.logins():
                if all(login.get(key) == value for key, value in wanted.items()):
                    return login
            return None
        try:
            return wait_for(f"a login of {wanted} at {self.name}", found)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log()[-3000:]}")


class HAProxy:
    """Passes TCP connections on: {name: ([(address, port, certificate and key or None)], port there)}.

    `option` is said of the server: send-proxy-v2 and the like."""

    def __init__(self, folder, listens, option=""):
        lines = ["global", "  maxconn 2000", "defaults", "  mode tcp", "  timeout connect 10s", "  timeout client 60s",
                 "  timeout server 60s"]
        for name, (binds, target) in listens.items():
            lines.append(f"listen {name}")
            for number, (address, port, certificate) in enumerate(binds):
                crypt = ""
                if certificate:
                    pem = pathlib.Path(folder) / f"haproxy-{name}-{number}.pem"
                    pem.write_text(certificate[0].read_text() + certificate[1].read_text())
                    crypt = f" ssl crt {pem}"
                lines.append(f"  bind {address}:{port}{crypt}")
            lines.append(f"  server there 127.0.0.1:{target} {option}")
        config = pathlib.Path(folder) / "haproxy.cfg"
        config.write_text("\n".join(lines) + "\n")
        self.process = Process(["/usr/sbin/haproxy", "-db", "-f", config], pathlib.Path(folder) / "haproxy.log")
        self.process.wait_ready("haproxy", *(lambda port=port, address=address: connects(port, address)
                                             for binds, _ in listens.values() for address, port, _ in binds))

    def stop(self):
        self.process.stop()


LOGIN = re.compile(r"(?P<protocol>imap|pop3|managesieve)-login: Info: Login: user=<(?P<user>[^>]*)>, "
                   r"method=(?P<method>\S+), rip=(?P<rip>\S+), rport=(?P<rport>\d+), lip=(?P<lip>\S+), "
                   r"real_rip=(?P<real_rip>[^,]+)(?:, (?P<transport>TLS|secured))?, session=<(?P<session>[^>]*)>")


def make_token(key, user, *, algorithm="HS256", issued=None, expires=None, kid="default"):
    """A JSON web token signed with a shared key."""
    now = int(time.time())
    head = {"typ": "JWT", "alg": algorithm, "kid": kid}
    # Dovecot's clock may be a moment behind, and it refuses what was issued after.
    claims = {"sub": user, "iat": now - 60 if issued is None else issued,
              "exp": now + 3600 if expires is None else expires}
    text = ".".join(_base64url(json.dumps(part, separators=(",", ":")).encode()) for part in (head, claims))
    return text + "." + _base64url(hmac.new(key, text.encode(), hashlib.sha256).digest())


def _base64url(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Authority:
    """A certificate authority of the tests: self.certificate is its own, issue() makes others."""

    def __init__(self, folder, name="ca"):
        self.dir = pathlib.Path(folder) / name
        self.dir.mkdir()
        os.chmod(self.dir, 0o755)
        self.certificate, self.key = self.dir / f"{name}.crt", self.dir / f"{name}.key"
        _openssl("req", "-x509", *NEW_KEY["ecdsa"], "-nodes", "-days", "30", "-subj", f"/CN=Test authority {name}",
                 "-addext", "keyUsage=critical,keyCertSign,cRLSign", "-keyout", self.key, "-out", self.certificate)
        (self.dir / "index").write_text("")
        (self.dir / "index.attr").write_text("unique_subject = no\n")
        (self.dir / "ca.conf").write_text(f"""
[ca]
default_ca = c
[c]
database = {self.dir}/index
new_certs_dir = {self.dir}
certificate = {self.certificate}
private_key = {self.key}
rand_serial = yes
default_md = sha256
default_days = 30
copy_extensions = copyall
policy = p
[p]
commonName = optional
emailAddress = optional
""")

    def issue(self, file, names=(), *, kind="ecdsa", common_name=None, email=None, period=None):
        """A certificate for DNS names and IP addresses; returns the paths of it and its key.

        `period` is (first, last) as in EXPIRED."""
        crt, key, csr = (self.dir / f"{file}.{end}" for end in ("crt", "key", "csr"))
        subject = f"/CN={common_name or (names[0] if names else file)}" + (f"/emailAddress={email}" if email else "")
        _openssl("req", "-new", *NEW_KEY[kind], "-nodes", "-subj", subject, *_alternatives(names), "-keyout", key,
                 "-out", csr)
        dates = ("-startdate", period[0], "-enddate", period[1]) if period else ()
        _openssl("ca", "-batch", "-notext", "-config", self.dir / "ca.conf", "-in", csr, "-out", crt, *dates)
        return crt, key


def self_signed(folder, file, names, kind="ecdsa"):
    """A certificate nobody vouches for; returns the paths of it and its key."""
    crt, key = (pathlib.Path(folder) / f"{file}.{end}" for end in ("crt", "key"))
    _openssl("req", "-x509", *NEW_KEY[kind], "-nodes", "-days", "30", "-subj", f"/CN={names[0]}", *_alternatives(names),
             "-keyout", key, "-out", crt)
    return crt, key


def pin(certificate):
    """The SHA-256 of a certificate's public key (SPKI), in base64."""
    public = _openssl("x509", "-in", certificate, "-noout", "-pubkey")
    der = _openssl("pkey", "-pubin", "-outform", "DER", stdin=public)
    return base64.b64encode(hashlib.sha256(der).digest()).decode()


NEW_KEY = {
    "ecdsa": ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
    "rsa": ("-newkey", "rsa:2048"),
}


def _alternatives(names):
    def kind(name):
        return "IP" if ":" in name or name.replace(".", "").isdigit() else "DNS"
    return ("-addext", "subjectAltName=" + ",".join(f"{kind(name)}:{name}" for name in names)) if names else ()


def _openssl(*arguments, stdin=b""):
    done = subprocess.run(["openssl", *map(str, arguments)], input=stdin, capture_output=True)
    if done.returncode != 0:
        raise AssertionError(f"openssl {' '.join(map(str, arguments))}\n{done.stderr.decode(errors='replace')}")
    return done.stdout

"""Services that answer nginx's auth_http protocol: a real nginx, and scripts that also say what no service should; and
nginx's own mail proxy, to compare with."""
import contextlib
import os
import pathlib
import pwd
import socket
import threading

from harness import LOOPBACKS, Process, Service, free_port, greets, wait_for

NGINX = "/usr/sbin/nginx"
MAIL_MODULE = "/usr/lib/nginx/modules/ngx_mail_module.so"

FRAME = """
daemon off;
error_log stderr info;
pid {dir}/nginx.pid;
worker_processes 1;
events {{ worker_connections 512; }}
"""

HTTP = """
http {{
  access_log {dir}/access.log;
  client_body_temp_path {dir}/body;
  proxy_temp_path {dir}/proxy;
  fastcgi_temp_path {dir}/fastcgi;
  uwsgi_temp_path {dir}/uwsgi;
  scgi_temp_path {dir}/scgi;
{maps}
  server {{
    listen 127.0.0.1:{port}{ssl};
    listen [::1]:{port}{ssl};
{certificate}
    location = /auth {{
      add_header Auth-Status $auth_status always;
      add_header Auth-Server $auth_server always;
      add_header Auth-Port $auth_port always;
      add_header Auth-User $auth_user always;
      add_header Auth-Wait $auth_wait always;
      return 204;
    }}
  }}
}}
"""


class Nginx:
    """A real nginx with a configuration, run as nobody, ended by pid. `answers` are functions that say whether it answers."""

    def __init__(self, folder, name, text, answers):
        self.dir = pathlib.Path(folder) / name
        self.dir.mkdir()
        self.text, self.answers, self.process = text, answers, None
        nobody = pwd.getpwnam("nobody")
        os.chown(self.dir, nobody.pw_uid, nobody.pw_gid)
        self.start()

    def start(self):
        config = self.dir / "nginx.conf"
        config.write_text(self.text.replace("@DIR@", str(self.dir)))
        account = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.getuid() == 0 else {}
        self.process = Process([NGINX, "-p", self.dir, "-c", config, "-e", "stderr"], f"{self.dir}.log", **account)
        self.process.wait_ready("nginx", *self.answers)

    def stop(self):
        if self.process:
            self.process.stop()
            self.process = None


class NginxAnswerer(Nginx):
    """nginx as an auth_http service: `users` is {name: {header's variable: value}}; others get `Invalid login`."""

    def __init__(self, folder, users, name="answerer", certificate=None):
        self.port = free_port()
        maps = ""
        for variable, standard in (("auth_status", "Invalid login"), ("auth_server", ""), ("auth_port", ""),
                                   ("auth_user", ""), ("auth_wait", "")):
            rows = "".join(f'    "{user}" "{values[variable]}";\n' for user, values in users.items()
                           if variable in values)
            maps += f'  map $http_auth_user ${variable} {{\n    default "{standard}";\n{rows}  }}\n'
        directory = pathlib.Path(folder) / name
        text = (FRAME + HTTP).format(
            dir=directory, port=self.port, maps=maps, ssl=" ssl" if certificate else "",
            certificate=f"    ssl_certificate {certificate[0]};\n    ssl_certificate_key {certificate[1]};"
            if certificate else "")
        if certificate:
            for path in certificate:
                os.chmod(path, 0o644)
        request = b"GET /auth HTTP/1.0\r\n\r\n"
        super().__init__(folder, name, text, [
            lambda host=host: greets(self.port, host, tls=bool(certificate), say=request) for host in LOOPBACKS])

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/auth"


class NginxMail(Nginx):
    """nginx's mail proxy; `mail` is what stands in its block `mail`, `ports` those it listens on and how each is made to
    greet: {port: options of `greets`}."""

    def __init__(self, folder, mail, ports, name="nginx-mail"):
        text = f"load_module {MAIL_MODULE};\n" + FRAME.format(dir=pathlib.Path(folder) / name) + f"mail {{\n{mail}\n}}\n"
        super().__init__(folder, name, text, [lambda port=port, options=options: greets(port, **options)
                                              for port, options in ports.items()])


class Request:
    """What a service was asked, as it came."""

    def __init__(self, head):
        self.head = head
        first, *self.lines = head.split(b"\r\n")
        self.path = first.split(b" ")[1].decode()

    def __getitem__(self, name):
        """The value of a header; None if it is missing."""
        for line in self.lines:
            key, _, value = line.partition(b":")
            if key.lower() == name.lower().encode():
                return value.strip()
        return None

    @property
    def block(self):
        """The header lines in order, blanks at their ends taken off."""
        return [line.rstrip() for line in self.lines if line]


class Answerer:
    """A service that says what `behave` returns for a request: bytes, or None to hang until it is closed.

    `behave` may also raise ConnectionAbortedError to close at once."""

    def __init__(self, behave, port=0, host="127.0.0.1", path=None):
        self.behave, self.path, self.host = behave, path, host
        self.requests, self.connections = [], 0
        self.lock = threading.Lock()
        self.port = port
        self.start()

    def start(self):
        if self.path:
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(self.path)
            listener.listen(64)
            os.chmod(self.path, 0o666)
        else:
            family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
            listener = socket.create_server((self.host, self.port), family=family, backlog=256)
            self.port = listener.getsockname()[1]
        self.closed = threading.Event()
        self.service = Service(listener, self._serve)

    @property
    def url(self):
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/auth"

    def _serve(self, connection):
        with self.lock:
            self.connections += 1
        buffer = b""
        while True:
            while b"\r\n\r\n" not in buffer:
                data = connection.recv(65536)
                if not data:
                    return
                buffer += data
            head, _, buffer = buffer.partition(b"\r\n\r\n")
            request = Request(head)
            with self.lock:
                self.requests.append(request)
            answer = self.behave(request)
            if answer is None:
                self.closed.wait()
                return
            connection.sendall(answer)
            if b"HTTP/1.0" in head.split(b"\r\n")[0]:
                return

    def stop(self):
        """Ends the service and every connection, as if it were killed."""
        self.closed.set()
        self.service.close()
        if self.path:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)

    def wait(self, count=1):
        """The request of that number."""
        wait_for(f"{count} requests", lambda: len(self.requests) >= count)
        return self.requests[count - 1]


def says(*lines, status="200 OK", body=b""):
    """An answer of header lines."""
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *lines]
    return "".join(line + "\r\n" for line in head).encode(errors="surrogateescape") + b"\r\n" + body


def sends(port, *lines, host="127.0.0.1"):
    """An answer that sends the user there."""
    return says("Auth-Status: OK", f"Auth-Server: {host}", f"Auth-Port: {port}", *lines)

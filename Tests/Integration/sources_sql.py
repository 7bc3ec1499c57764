"""Real PostgreSQL and MariaDB on loopback ports, in a temporary folder, as the users their packages made, ended by pid.

Both have a table `users(login, backend, login_as, hash)`, a user `proxyd` who may read it, and a log of every query."""
import contextlib
import os
import pathlib
import pwd
import re
import shutil
import signal
import subprocess

from harness import Process, free_port, freeze, greets

SQL_PASSWORD = "pa'ss w\"o\\rd of the database"
TABLE = """
CREATE TABLE users (login VARCHAR(255) PRIMARY KEY, backend VARCHAR(255), login_as VARCHAR(255), hash VARCHAR(255));
"""


class Server:
    """What both have in common."""

    def __init__(self, folder, name, user):
        self.dir = pathlib.Path(folder) / name
        self.dir.mkdir()
        os.chmod(self.dir, 0o755)
        # Of its own: MariaDB removes at its start what it takes for left-over files of an earlier one, and takes those of
        # another that runs for such.
        self.temporary = self.dir / "tmp"
        self.temporary.mkdir()
        self.user = pwd.getpwnam(user)
        for path in (self.dir, self.temporary):
            os.chown(path, self.user.pw_uid, self.user.pw_gid)
        self.port = free_port()
        self.process = None
        self.queries = self.dir / "queries.log"

    def as_user(self, argv):
        return ["setpriv", f"--reuid={self.user.pw_uid}", f"--regid={self.user.pw_gid}", "--clear-groups", "--",
                *map(str, argv)]

    def once(self, *argv):
        """Runs a program to its end, as the server's user."""
        done = subprocess.run(self.as_user(argv), cwd=self.dir, capture_output=True, text=True, timeout=120,
                              env={"PATH": os.environ["PATH"], "HOME": str(self.dir), "LC_ALL": "C",
                                   "TMPDIR": str(self.temporary)})
        if done.returncode != 0:
            raise AssertionError(f"{argv}: {done.stdout}{done.stderr}")
        return done.stdout

    def start(self):
        self.process = Process(self.as_user(self.argv()), self.dir / "output.log", cwd=self.dir)
        self.process.wait_ready(self.dir.name, self.answers, *(lambda host=host: self.answers_at(host) for host in self.hosts))
        return self

    def answers(self):
        """Whether the administrator, who comes by the socket, is answered."""
        with contextlib.suppress(AssertionError):
            self.sql("SELECT 1", **self.anywhere)
            return True
        return False

    def processes(self):
        """The server and its children."""
        if not self.process:
            return []
        pids = [self.process.pid]
        for pid in filter(str.isdigit, os.listdir("/proc")):
            with contextlib.suppress(OSError, IndexError):
                stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
                if int(stat.rpartition(")")[2].split()[1]) == self.process.pid:
                    pids.append(int(pid))
        return pids

    def signal_all(self, number):
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def freeze(self):
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                freeze(pid)

    def kill(self):
        """As a machine that dies, but that what was committed is there afterwards."""
        if self.process:
            self.signal_all(signal.SIGKILL)
            self.process.popen.wait()
            self.process.log_file.close()
            self.process = None

    def stop(self):
        if self.process:
            self.signal_all(signal.SIGCONT)
            process, self.process = self.process, None
            process.stop(self.ending, 60)

    def insert(self, *rows):
        def values(row):
            texts = ("NULL" if text is None else self.literal(text) for text in (*row, *[None] * (4 - len(row))))
            return f"({', '.join(texts)})"
        self.sql(f"INSERT INTO users VALUES {', '.join(map(values, rows))}")

    def asked(self):
        """How often the users were asked for, by the proxy."""
        return len(re.findall("SELECT backend", self.queries.read_text(errors="replace")))


class PostgreSQL(Server):
    ending = signal.SIGINT  # fast shutdown
    hosts = ("127.0.0.1", "127.0.0.2", "::1")
    anywhere = {}

    def __init__(self, folder, certificate=None, name="postgresql"):
        super().__init__(folder, name, "postgres")
        self.bin = max(pathlib.Path("/usr/lib/postgresql").iterdir(), key=lambda path: int(path.name)) / "bin"
        self.data = self.dir / "data"
        self.once(self.bin / "initdb", "-D", self.data, "-U", "postgres", "-E", "UTF8", "--no-sync", "--auth=trust")
        # The administrator comes by the socket.
        way = "hostssl" if certificate else "host"
        (self.data / "pg_hba.conf").write_text("local all postgres trust\n"
                                               f"{way} all proxyd localhost scram-sha-256\n")
        options = {"port": self.port, "listen_addresses": "'127.0.0.1,127.0.0.2,::1'",
                   "unix_socket_directories": f"'{self.dir}'", "fsync": "off",
                   "log_statement": "all", "logging_collector": "off", "max_connections": 50}
        if certificate:
            for source, target in zip(certificate, ("server.crt", "server.key")):
                shutil.copy(source, self.data / target)
                os.chown(self.data / target, self.user.pw_uid, self.user.pw_gid)
                os.chmod(self.data / target, 0o600)
            options["ssl"] = "on"
        with open(self.data / "postgresql.conf", "a") as file:
            file.writelines(f"{key} = {value}\n" for key, value in options.items())
        self.queries = self.dir / "output.log"
        self.start()
        password = SQL_PASSWORD.replace("'", "''")
        self.sql(f"CREATE ROLE proxyd LOGIN PASSWORD '{password}'")
        self.sql(TABLE + "GRANT SELECT ON users TO proxyd")
        self.sql(self.writer)

    def argv(self):
        return [self.bin / "postgres", "-D", self.data]

    def answers_at(self, host):
        with contextlib.suppress(AssertionError):
            self.once(self.bin / "pg_isready", "-q", "-h", host, "-p", str(self.port))
            return True
        return False

    def sql(self, text):
        return self.once(self.bin / "psql", "-h", self.dir, "-p", str(self.port), "-U", "postgres", "-XAtq", "-v",
                         "ON_ERROR_STOP=1", "-c", text)

    def literal(self, text):
        return "'" + text.replace("'", "''") + "'"

    def sessions(self):
        """The proxy's connections."""
        return int(self.sql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'proxyd'"))

    def running(self):
        """The proxy's queries under way."""
        return int(self.sql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'proxyd' "
                            "AND state = 'active'"))

    def source(self, query="SELECT backend, login_as FROM users WHERE login = :login", more="", connections=2,
               host="127.0.0.1"):
        """The route's lines, for a proxy whose folder has the password's file."""
        return (f"postgresql:\n      connection: \"host={host} port={self.port} dbname=postgres user=proxyd {more}\"\n"
                f"      password-file: sql.pw\n      query: \"{query}\"\n      connections: {connections}")

    def several(self, ports):
        """The source at several ports."""
        return self.source().replace(f"port={self.port}", f"port={','.join(map(str, ports))}").replace(
            "host=127.0.0.1", "host=" + ",".join(["127.0.0.1"] * len(ports)))

    protection = {"off": "sslmode=disable", "verified": "sslmode=verify-full sslrootcert={ca}",
                  "unverified": "sslmode=require"}
    unprotected = "no encryption"
    sleep = "pg_sleep(%s) IS NOT NULL"
    denied = "password authentication failed"
    grant = "GRANT SELECT ON nowhere TO proxyd"
    # The server quotes the value in its complaint.
    quoting = "SELECT backend FROM users WHERE 1 = CAST(CAST(:login AS text) AS integer)"
    writer = ("CREATE FUNCTION writer() RETURNS integer LANGUAGE sql VOLATILE SECURITY DEFINER AS "
              "$$INSERT INTO users VALUES ('written'); SELECT 1$$")
    broken = 'relation "nowhere" does not exist (SQLSTATE 42P01)'


class MariaDB(Server):
    ending = signal.SIGTERM
    hosts = ("127.0.0.1", "127.0.0.2", "::1")
    anywhere = {"database": ""}

    def __init__(self, folder, certificate=None, name="mariadb"):
        super().__init__(folder, name, "mysql")
        self.data, self.socket = self.dir / "data", self.dir / "s"
        self.once("mariadb-install-db", "--no-defaults", f"--datadir={self.data}", "--skip-test-db",
                  "--auth-root-authentication-method=normal")
        self.requirement = "REQUIRE SSL" if certificate else ""
        self.options = [f"--datadir={self.data}", f"--tmpdir={self.temporary}", f"--socket={self.socket}", f"--port={self.port}",
                        "--bind-address=127.0.0.1,127.0.0.2,::1", "--skip-name-resolve=0", "--general-log=1",
                        f"--general-log-file={self.queries}", "--innodb-flush-log-at-trx-commit=2",
                        "--innodb-buffer-pool-size=16M", f"--pid-file={self.dir}/pid", "--max-connections=50",
                        "--character-set-server=utf8mb4", "--collation-server=utf8mb4_bin"]
        if certificate:
            for source, target in zip(certificate, ("server.crt", "server.key")):
                shutil.copy(source, self.dir / target)
                os.chown(self.dir / target, self.user.pw_uid, self.user.pw_gid)
            self.options += [f"--ssl-cert={self.dir}/server.crt", f"--ssl-key={self.dir}/server.key"]
        self.start()
        password = SQL_PASSWORD.replace("\\", "\\\\").replace("'", "''")
        self.sql("CREATE DATABASE mail", database="")
        self.sql(TABLE)
        self.sql(self.writer)
        for host in ("localhost", "127.0.0.1", "127.0.0.2", "::1"):
            self.sql(f"CREATE USER proxyd@'{host}' IDENTIFIED BY '{password}' {self.requirement}; "
                     f"GRANT SELECT, EXECUTE ON mail.* TO proxyd@'{host}'")

    def argv(self):
        return ["/usr/sbin/mariadbd", "--no-defaults", *self.options]

    def sql(self, text, database="mail"):
        return self.once("mariadb", "--no-defaults", f"--socket={self.socket}", "-uroot", "-BN", "-e", text, database)

    def answers_at(self, host):
        # It speaks first. A connection that is broken off counts against its host, a hundred are too many.
        return greets(self.port, host)

    def literal(self, text):
        return f"CONVERT(X'{text.encode().hex()}' USING utf8mb4)"

    def sessions(self):
        return int(self.sql("SELECT count(*) FROM information_schema.processlist WHERE user = 'proxyd'"))

    def running(self):
        return int(self.sql("SELECT count(*) FROM information_schema.processlist WHERE user = 'proxyd' "
                            "AND command = 'Execute'"))

    def asked(self):
        return len(re.findall(r"Execute\s.*SELECT backend", self.queries.read_text(errors="replace")))

    def source(self, query="SELECT backend, login_as FROM users WHERE login = :login", more="", connections=2,
               host="127.0.0.1"):
        return (f"mysql:\n      hosts: [\"{host}:{self.port}\"]\n      database: mail\n      user: proxyd\n"
                f"      password-file: sql.pw\n      query: \"{query}\"\n      connections: {connections}\n"
                + (f"      {more}\n" if more else ""))

    def several(self, ports):
        hosts = ", ".join(f'"127.0.0.1:{port}"' for port in ports)
        return self.source().replace(f'"127.0.0.1:{self.port}"', hosts)

    protection = {"off": "tls: off", "verified": "tls: verified\n      ca: {ca}",
                  "unverified": "tls: insecure-no-verification"}
    unprotected = "Access denied"
    sleep = "sleep(%s) IS NOT NULL"
    denied = "Access denied for user 'proxyd'@'localhost'"
    grant = "SELECT 1"
    quoting = "SELECT backend FROM users WHERE quoting(:login) = 1"
    writer = ("DELIMITER //\nCREATE FUNCTION writer() RETURNS INT SQL SECURITY DEFINER BEGIN "
              "INSERT INTO users(login) VALUES ('written'); RETURN 1; END//\n"
              "CREATE FUNCTION quoting(value TEXT) RETURNS INT BEGIN "
              "SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = value; RETURN 1; END//")
    broken = "Table 'mail.nowhere' doesn't exist (SQLSTATE 42S02)"

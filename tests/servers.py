"""Real servers for tests: PostgreSQL, pgbouncer and Redis of this machine, each private to a test worker.

A test that needs a server is skipped where its programs are missing. With the variable
``THANX_TESTS_NEED_SERVERS`` it fails instead.
"""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

NEED = "THANX_TESTS_NEED_SERVERS"
PASSWORD = "dsn-s3cret"  # of all servers, so that tests can look for it in errors
_numbers = count()


def found(program: str) -> str:
    """The path of a server's program; the test is skipped if it is not installed."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    where = os.pathsep.join([*map(str, reversed(folders)), os.environ["PATH"], "/usr/sbin"])
    path = shutil.which(program, path=where)
    if path is None:
        missing = f"{program} is not installed"
        if os.environ.get(NEED):
            pytest.fail(missing)
        pytest.skip(missing)
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """A server as a child process, as another user if this one is root."""

    user = None if os.getuid() else pwd.getpwnam("nobody").pw_uid

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def command(self) -> list[str]:
        raise NotImplementedError

    def is_ready(self) -> bool:
        raise NotImplementedError

    def start(self) -> None:
        """Start the server, and wait until it serves."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command(), cwd=self.folder, stdout=log, stderr=log, user=self.user
            )
        while not self.is_ready():
            assert self.process.poll() is None, (self.folder / "log").read_text()
            time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGKILL) -> None:
        """End the server with a signal, and wait until it has gone."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait()
            self.process = None

    def run(self, *command: str) -> None:
        """Run a program to its end as the user of the server."""
        done = subprocess.run(command, cwd=self.folder, capture_output=True, check=False, user=self.user)
        assert done.returncode == 0, done.stderr.decode()

    def write(self, name: str, text: str) -> Path:
        """A file that the user of the server can read."""
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o644)
        return path


class PostgresServer(Server):
    """A PostgreSQL server that writes to the disk as in production. `fresh` gives an empty database."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.initdb, self.postgres, self.psql = found("initdb"), found("postgres"), found("psql")
        password = self.write("password", PASSWORD)
        self.run(self.initdb, "-D", "data", "-U", "thanx", "-A", "scram-sha-256", f"--pwfile={password}")

    def command(self) -> list[str]:
        settings = {
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.folder),
            "max_connections": "60",
            "shared_buffers": "16MB",
            "log_min_messages": "fatal",
        }
        given = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [self.postgres, "-D", "data", "-p", str(self.port), *given]

    def is_ready(self) -> bool:
        return self._psql("postgres", "SELECT 1").returncode == 0

    def dsn(self, database: str, port: int | None = None) -> str:
        return f"postgresql://thanx:{PASSWORD}@127.0.0.1:{port or self.port}/{database}"

    def sql(self, database: str, statement: str) -> str:
        """The result of a statement, as text."""
        done = self._psql(database, statement)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def _psql(self, database: str, statement: str) -> subprocess.CompletedProcess[str]:
        command = [self.psql, "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-c", statement]
        return subprocess.run(
            [*command, self.dsn(database)], text=True, capture_output=True, check=False, cwd=self.folder
        )


class PgBouncer(Server):
    """A pgbouncer in transaction mode, with two connections to each database of a PostgreSQL server."""

    def __init__(self, folder: Path, postgres: PostgresServer) -> None:
        super().__init__(folder)
        self.pgbouncer, self.psql, self.postgres = found("pgbouncer"), found("psql"), postgres
        users = self.write("users", f'"thanx" "{PASSWORD}"\n')
        lines = [
            "[databases]",
            f"* = host=127.0.0.1 port={postgres.port}",
            "[pgbouncer]",
            "listen_addr = 127.0.0.1",
            f"listen_port = {self.port}",
            "unix_socket_dir =",
            "auth_type = scram-sha-256",
            f"auth_file = {users}",
            "pool_mode = transaction",
            "default_pool_size = 2",
            "server_login_retry = 1",
        ]
        self.settings = self.write("settings", "\n".join(lines) + "\n")

    def command(self) -> list[str]:
        return [self.pgbouncer, str(self.settings)]

    def is_ready(self) -> bool:
        dsn = self.postgres.dsn("postgres", self.port)
        return not subprocess.run(
            [self.psql, "-X", "-c", "SELECT 1", dsn], capture_output=True, check=False
        ).returncode


class RedisServer(Server):
    """A Redis server that keeps its data when it is killed."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.redis = found("redis-server")

    def command(self) -> list[str]:
        settings = {"port": str(self.port), "bind": "127.0.0.1", "requirepass": PASSWORD, "save": ""}
        settings |= {"appendonly": "yes", "appendfsync": "everysec", "dir": str(self.folder)}
        return [self.redis, *(part for name, value in settings.items() for part in (f"--{name}", value))]

    @property
    def url(self) -> str:
        return f"redis://:{PASSWORD}@127.0.0.1:{self.port}/0"

    def is_ready(self) -> bool:
        try:
            return self.ask("PING") == "+PONG"
        except OSError:
            return False

    def ask(self, command: str) -> str:
        """The first line of the answer to a command."""
        with (
            socket.create_connection(("127.0.0.1", self.port)) as connection,
            connection.makefile("rb") as got,
        ):
            connection.sendall(f"AUTH {PASSWORD}\r\n{command}\r\n".encode())
            got.readline()
            return got.readline().decode().strip()


def folder_of(server: str) -> "TemporaryDirectory[str]":
    """A folder that the user of a server can write to, with a path short enough for a socket."""
    folder = TemporaryDirectory(prefix=f"thanx-{server}-", ignore_cleanup_errors=True)
    if Server.user is not None:
        shutil.chown(folder.name, Server.user)
    return folder


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    found("postgres")
    with folder_of("postgres") as folder:
        server = PostgresServer(Path(folder))
        server.start()
        yield server
        server.stop(signal.SIGINT)


@pytest.fixture(scope="session")
def pgbouncer(postgres: PostgresServer) -> Iterator[PgBouncer]:
    found("pgbouncer")
    with folder_of("pgbouncer") as folder:
        server = PgBouncer(Path(folder), postgres)
        server.start()
        yield server
        server.stop()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    found("redis-server")
    with folder_of("redis") as folder:
        server = RedisServer(Path(folder))
        server.start()
        yield server
        server.stop()


@pytest.fixture
def database(postgres: PostgresServer) -> Iterator[str]:
    """The name of an empty database, which is dropped after the test."""
    name = f"test{next(_numbers)}"
    postgres.sql("postgres", f"CREATE DATABASE {name}")
    yield name
    if postgres.process is None:  # the test failed after stopping it
        postgres.start()
    postgres.sql("postgres", f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def dsn(postgres: PostgresServer, database: str) -> str:
    """The DSN of an empty database."""
    return postgres.dsn(database)


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The URL of an empty Redis database."""
    redis_server.ask("FLUSHALL")
    return redis_server.url

"""A PostgreSQL server of the tests' own: made where a test asks for it, in a folder of its own, gone at the end.

A test takes the fixture `cluster` and from it a database, which costs about 30 milliseconds::

    with cluster.database() as dsn:
        psycopg.connect(dsn)

:func:`pair` makes a primary and its synchronous standby. A server runs as an unprivileged user, since PostgreSQL
refuses root. It ends with the process that started it, however that ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.deploy.servers import reserved_port

__all__ = ["ROLE", "Cluster", "pair", "running"]

# The program's role: it owns its databases, and may do nothing else.
ROLE = "dynpin"
_ADMIN = "postgres"
_PREFIX = "dynpin-postgres-"
# Generous, since a busy machine is not a fault of the server's.
_PATIENCE = 120.0
# Bytes that must be free where the data is held in memory.
_MEMORY = 2**30
# A loss of power is no part of most tests, and syncing is most of what a test would wait for.
_SETTINGS = {
    "autovacuum": "off",
    "fsync": "off",
    "full_page_writes": "off",
    "jit": "off",
    "listen_addresses": "127.0.0.1",
    "log_min_messages": "warning",
    "max_connections": "80",
    "max_wal_size": "128MB",
    "shared_buffers": "16MB",
}
_numbers = itertools.count(1)


def _programs() -> Path:
    """The folder of the newest PostgreSQL of Debian; skips where there is none."""
    found = sorted(
        Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3].partition(".")[0])
    )
    if not found or shutil.which("setpriv") is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    return found[-1].parent


def _user() -> dict[str, Any]:
    """Who runs the server, as subprocess takes it: this user, or in place of root one without rights."""
    if os.geteuid() != 0:
        return {}
    for name in (_ADMIN, "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    pytest.skip("PostgreSQL refuses root, and there is no user postgres or nobody")


@dataclass
class Cluster:
    """One server of PostgreSQL, with its data in `folder`.

    Attributes:
        folder: holds the data, the Unix socket and the log; its owner alone may enter.
        port: where it listens on 127.0.0.1, for as long as this lives, whether the server runs or not.
        password: of `ROLE` and of replication. By the Unix socket the administrator needs none.
        settings: what postgresql.conf would hold.
        lock: a descriptor, locked as long as somebody uses the folder.
    """

    folder: Path
    port: int
    password: str
    programs: Path
    user: Mapping[str, Any]
    settings: dict[str, str]
    lock: int
    _process: subprocess.Popen[bytes] | None = None
    _templates: dict[str, str] = field(default_factory=dict[str, str])

    def __post_init__(self) -> None:
        self.own(self.folder)

    def own(self, path: Path) -> None:
        """Give a file to the server's user."""
        if self.user:
            os.chown(path, self.user["user"], self.user["group"])

    # -- the server ---------------------------------------------------------------------------------------------------

    def initialise(self, *options: str) -> None:
        """Make an empty server, sorting texts as people do (and not by their bytes), as Debian's servers do.

        The options are those of initdb.
        """
        as_people_sort = ["--locale-provider=icu", "--icu-locale=en"] if int(self.programs.parts[-2]) >= 15 else []
        self.run(
            *("initdb", "--pgdata", str(self.data), "--username", _ADMIN, "--encoding=UTF8", "--locale=C"),
            *("--auth-local=trust", "--auth-host=scram-sha-256", "--no-sync", *as_people_sort, *options),
        )
        self.start()
        with self.admin() as connection:
            role = sql.SQL("CREATE ROLE {} LOGIN REPLICATION PASSWORD {}")
            connection.execute(role.format(sql.Identifier(ROLE), sql.Literal(self.password)))

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def log(self) -> str:
        """What the server has said so far."""
        return (self.folder / "log").read_text()

    def run(self, program: str, *arguments: str) -> None:
        """Run one of PostgreSQL's programs as the server's user."""
        done = subprocess.run(
            [str(self.programs / program), *arguments],
            **self.ways(),
            capture_output=True,
            text=True,
            check=False,
            timeout=_PATIENCE,
        )
        assert done.returncode == 0, f"{program}: {done.stdout}{done.stderr}"

    def start(self) -> None:
        """Start the server, and return when it answers."""
        assert self._process is None, "it runs already"
        settings = {**self.settings, "port": str(self.port), "unix_socket_directories": str(self.folder)}
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                # SIGINT is a fast shutdown. It comes too where the process that started this is killed.
                ["setpriv", "--pdeathsig", "INT", str(self.programs / "postgres"), "-D", str(self.data)]
                + [f"--{name}={value}" for name, value in settings.items()],
                **self.ways(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C is for the tests, which stop it then.
                start_new_session=True,
                pass_fds=[self.lock],
            )
        deadline = time.monotonic() + _PATIENCE
        while True:
            with contextlib.suppress(psycopg.OperationalError):
                self.admin().close()
                return
            assert self._process.poll() is None, f"PostgreSQL does not start: {self.log}"
            assert time.monotonic() < deadline, f"PostgreSQL does not answer: {self.log}"
            time.sleep(0.02)

    def stop(self) -> None:
        """Stop the server as an administrator does: connections end, and everything is written."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(_PATIENCE)
            self._process = None

    def ended(self) -> int:
        """Wait until the server has ended by itself; its exit code."""
        assert self._process is not None, "it does not run"
        code = self._process.wait(_PATIENCE)
        self._process = None
        return code

    def kill(self) -> None:
        """End the server and every process of it by SIGKILL, as a machine ends that loses its power."""
        assert self._process is not None, "it does not run"
        self._process.send_signal(signal.SIGSTOP)
        # None of these is reaped while the first one stands still, so that each number is still that process.
        for process in self._children():
            os.kill(process, signal.SIGKILL)
        self._process.kill()
        self._process.wait()
        self._process = None

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """The server takes connections and answers nothing, as one does whose disk or machine hangs."""
        assert self._process is not None, "it does not run"
        self._process.send_signal(signal.SIGSTOP)
        processes = [*self._children(), self._process.pid]
        for process in processes:
            os.kill(process, signal.SIGSTOP)
        try:
            yield
        finally:
            for process in processes:
                os.kill(process, signal.SIGCONT)

    def promote(self) -> None:
        """Make a primary of a standby, which then waits for nobody.

        A standby has the settings of its primary. It would wait for a synchronous standby of its own with each commit.
        """
        with self.admin() as connection:
            self._configure(connection, "")
            connection.execute("SELECT pg_promote()")

    def follow(self, primary: Cluster) -> None:
        """Become the synchronous standby of a server that runs, in place of whatever this was."""
        shutil.rmtree(self.data, ignore_errors=True)
        with primary.admin() as connection:
            self._configure(connection, self.name)
            reached = f"host=127.0.0.1 port={primary.port} user={ROLE} password={primary.password}"
            self.run(
                *("pg_basebackup", "--pgdata", str(self.data), "--checkpoint=fast", "--no-sync"),
                *("--write-recovery-conf", "--dbname", f"{reached} application_name={self.name}"),
            )
            self.start()
            deadline = time.monotonic() + _PATIENCE
            while connection.execute("SELECT sync_state FROM pg_stat_replication").fetchall() != [("sync",)]:
                assert time.monotonic() < deadline, f"the standby does not follow: {self.log}"
                time.sleep(0.02)

    @property
    def name(self) -> str:
        """What the primary calls this standby."""
        return f"server_{self.port}"

    @staticmethod
    def _configure(connection: psycopg.Connection[tuple[Any, ...]], standby: str) -> None:
        change = sql.SQL("ALTER SYSTEM SET synchronous_standby_names = {}")
        connection.execute(change.format(sql.Literal(standby)))
        connection.execute("SELECT pg_reload_conf()")

    def processor_time(self) -> float:
        """Seconds that the server's processes have worked, those too that have ended; in hundredths."""
        assert self._process is not None, "it does not run"
        ticks = 0
        for process in (self._process.pid, *self._children()):
            with contextlib.suppress(FileNotFoundError):  # it has ended meanwhile
                # proc(5): the 14th to 17th field; the second, a name in brackets, may hold spaces.
                fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
                ticks += sum(map(int, fields[11 : 15 if process == self._process.pid else 13]))
        return ticks / os.sysconf("SC_CLK_TCK")

    def _children(self) -> list[int]:
        return [int(pid) for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()]

    @property
    def pid(self) -> int:
        """The server's first process."""
        assert self._process is not None, "it does not run"
        return self._process.pid

    def ways(self) -> dict[str, Any]:
        """How subprocess runs a program beside the server."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
        return {**self.user, "cwd": self.folder, "env": {**environment, "LC_ALL": "C"}}

    # -- databases ----------------------------------------------------------------------------------------------------

    def admin(self, database: str = "postgres") -> psycopg.Connection[tuple[Any, ...]]:
        """A connection of the administrator's, by the Unix socket; what it writes waits for no standby."""
        return psycopg.connect(
            host=str(self.folder),
            port=self.port,
            user=_ADMIN,
            dbname=database,
            autocommit=True,
            connect_timeout=10,
            options="-c synchronous_commit=local",
        )

    def dsn(self, database: str, *others: Cluster, **parameters: str) -> str:
        """How a program reaches a database by TCP; on other servers too, whichever answers."""
        hosts = ",".join(f"127.0.0.1:{one.port}" for one in (self, *others))
        query = "&".join(f"{name}={value}" for name, value in parameters.items())
        return f"postgresql://{ROLE}:{self.password}@{hosts}/{database}{'?' if query else ''}{query}"

    @contextlib.contextmanager
    def database(self, template: str = "template1", tablespace: str = "pg_default") -> Iterator[str]:
        """A database of the program's own, as a copy of a template; gives its DSN, and drops it in the end."""
        name = self._create(template, tablespace)
        try:
            yield self.dsn(name)
        finally:
            if self._process is not None:
                with self.admin() as connection:
                    drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)")
                    connection.execute(drop.format(sql.Identifier(name)))

    def template(self, name: str, prepare: Callable[[str], object]) -> str:
        """The name of a database that `prepare` has filled once, from its DSN, for :meth:`database` to copy.

        No connection to it may be left open: PostgreSQL copies no database that somebody uses.
        """
        if name not in self._templates:
            database = self._create("template1")
            prepare(self.dsn(database))
            self._templates[name] = database
        return self._templates[name]

    def _create(self, template: str, tablespace: str = "pg_default") -> str:
        name = f"test_{next(_numbers)}"
        create = sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE {} TABLESPACE {}")
        with self.admin() as connection:
            connection.execute(create.format(*map(sql.Identifier, (name, ROLE, template, tablespace))))
        return name


@contextlib.contextmanager
def running(*options: str, **settings: str) -> Iterator[Cluster]:
    """A server that runs. Skips where there is none.

    The options are those of initdb; the keywords are PostgreSQL's settings, such as fsync="on".
    """
    with _empty({**_SETTINGS, **settings}) as cluster:
        cluster.initialise(*options)
        yield cluster


@contextlib.contextmanager
def pair(**settings: str) -> Iterator[tuple[Cluster, Cluster]]:
    """A primary, and the synchronous standby without which it commits nothing."""
    with running(**settings) as primary, _empty(primary.settings, primary.password) as standby:
        standby.follow(primary)
        yield primary, standby


@contextlib.contextmanager
def _empty(settings: dict[str, str], password: str | None = None) -> Iterator[Cluster]:
    programs, user = _programs(), _user()
    # Not in pytest's folder, which the server's user may not enter; and a socket's path has 107 bytes at most.
    # Memory copies a template ten times as fast as a disk; what is to survive a loss of power is on a disk.
    memory = Path("/dev/shm")
    fits = settings["fsync"] == "off" and memory.is_dir() and shutil.disk_usage(memory).free > _MEMORY
    with _folder(memory if fits else Path("/tmp")) as (folder, lock), reserved_port() as port:
        cluster = Cluster(folder, port, password or secrets.token_urlsafe(12), programs, user, settings, lock)
        try:
            yield cluster
        finally:
            cluster.stop()


@contextlib.contextmanager
def _folder(base: Path) -> Iterator[tuple[Path, int]]:
    """A folder, and a lock that is held while it is used; those that killed processes left behind are removed."""
    for left in base.glob(f"{_PREFIX}*/lock"):
        with contextlib.suppress(FileNotFoundError, BlockingIOError), left.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left.parent)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
    try:
        with (folder / "unlocked").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            (folder / "unlocked").rename(folder / "lock")
            yield folder, lock.fileno()
    finally:
        shutil.rmtree(folder)

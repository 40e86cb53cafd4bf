"""SQLite files: safe opening, permissions, migrations, transactions, and errors explained."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import Enum, auto
from errno import EACCES, EINVAL, EISDIR
from pathlib import Path
from threading import Lock
from time import monotonic, sleep

import attrs

BUSY = 30.0
"""Seconds to wait for another process that has locked a file."""

_PRIVATE = 0o600


class Problem(Enum):
    """Why a file cannot be used."""

    LOCKED = auto()
    FULL = auto()
    READ_ONLY = auto()
    DAMAGED = auto()
    NO_DATABASE = auto()
    CANNOT_OPEN = auto()
    NOT_READ_OR_WRITTEN = auto()
    REFUSED = auto()
    SYSTEM = auto()
    FOREIGN = auto()
    NEWER = auto()
    NO_SHARED_MEMORY = auto()


@attrs.frozen
class Trouble:
    """A problem with a file, in the words of SQLite or the system.

    Attributes:
        code: SQLite's error code, if there is one.
        unsure: the changes may turn out to be written once the file is opened again.
    """

    problem: Problem
    detail: str
    code: str = ""
    unsure: bool = False


Failure = Callable[[Trouble], Exception]
"""Makes the error that users get."""


@attrs.frozen
class Format:
    """A kind of file.

    Args:
        application_id: identifies the files. Source: sqlite.org, PRAGMA application_id.
        migrations: the SQL that leads from each version of the schema, from 0, to the next.
        durable: a finished transaction survives a power failure, not only a crash of the process.
        log_required: refuse the file if it cannot have a write-ahead log.
    """

    application_id: int
    migrations: Sequence[str] = attrs.field(repr=False)
    durable: bool
    log_required: bool


_PROBLEMS = {
    "SQLITE_BUSY": Problem.LOCKED,
    "SQLITE_FULL": Problem.FULL,
    "SQLITE_READONLY": Problem.READ_ONLY,
    "SQLITE_CORRUPT": Problem.DAMAGED,
    "SQLITE_NOTADB": Problem.NO_DATABASE,
    "SQLITE_CANTOPEN": Problem.CANNOT_OPEN,
    "SQLITE_IOERR": Problem.NOT_READ_OR_WRITTEN,
}


class _CommitFailedError(Exception):
    """A transaction failed at its very end, where its changes may have reached the disk: SQLite has taken it
    back for this process only, and whoever opens the file next may find it done."""


@contextmanager
def explained(failure: Failure) -> Iterator[None]:
    """Turn errors of SQLite and the disk into the errors that ``failure`` makes."""
    try:
        yield
    except _CommitFailedError as error:
        raise failure(_trouble(error.__cause__, unsure=True)) from error.__cause__
    except sqlite3.Error as error:
        raise failure(_trouble(error)) from error
    except OSError as error:
        raise failure(Trouble(Problem.SYSTEM, error.strerror or str(error))) from error


def _trouble(error: BaseException | None, *, unsure: bool = False) -> Trouble:
    code = getattr(error, "sqlite_errorname", None) or type(error).__name__
    found = (problem for start, problem in _PROBLEMS.items() if code.startswith(start))
    return Trouble(next(found, Problem.REFUSED), str(error), code, unsure)


@contextmanager
def transaction(connection: sqlite3.Connection, kind: str = "IMMEDIATE") -> Iterator[None]:
    """A transaction. IMMEDIATE excludes other writers; DEFERRED is for reading one consistent state."""
    connection.execute(f"BEGIN {kind}")
    try:
        yield
        _commit(connection)
    except BaseException:
        if connection.in_transaction:
            with suppress(sqlite3.Error):  # the first error says more
                connection.execute("ROLLBACK")
        raise


def _commit(connection: sqlite3.Connection) -> None:
    try:
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        if connection.in_transaction:  # the commit did not start: the file is locked
            raise
        raise _CommitFailedError from error


def connect(path: Path, form: Format, failure: Failure) -> sqlite3.Connection:
    """Open or create a file, for use by one thread at a time. Only its owner can read it.

    A file of another kind is refused, and not changed.
    """
    with explained(failure):
        _make_sure_of(path)
        connection = sqlite3.connect(path, timeout=BUSY, isolation_level=None, check_same_thread=False)
        try:
            _check(connection, form, failure)
            make_private(path)
            _use_log(connection, form, failure)
            for beside in ("-wal", "-shm"):
                make_private(path.with_name(path.name + beside))
            connection.execute(f"PRAGMA synchronous = {'FULL' if form.durable else 'NORMAL'}")
            _migrate(connection, form)
        except BaseException:
            connection.close()
            raise
    return connection


def _make_sure_of(path: Path) -> None:
    """Create the file if it is missing. Anything that is not a writable regular file is refused.

    An existing file is not opened: closing it would release the locks that other connections of this process
    hold on it. Source: sqlite.org/howtocorrupt.html, 2.2.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
    try:
        os.close(os.open(path, flags, 0o600))
    except FileExistsError:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(EISDIR, os.strerror(EISDIR)) from None
        if not stat.S_ISREG(mode):
            raise OSError(EINVAL, "Not a regular file") from None
        if not os.access(path, os.R_OK | os.W_OK, effective_ids=os.access in os.supports_effective_ids):
            raise PermissionError(EACCES, os.strerror(EACCES)) from None


def make_private(path: Path) -> None:
    """Restrict an existing file to its owner."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return
    if stat.S_ISREG(found.st_mode) and stat.S_IMODE(found.st_mode) != _PRIVATE:
        path.chmod(_PRIVATE)


_INHERITED: list[sqlite3.Connection] = []
"""Connections that a parent process has opened: a forked child must not even close them.
Source: sqlite.org/howtocorrupt.html, 2.6."""


def leave_to_parent(connection: sqlite3.Connection | None) -> None:
    """Keep a forked child from closing an inherited connection."""
    if connection is not None:
        _INHERITED.append(connection)


def close_idle(connection: sqlite3.Connection, in_use: Lock, process: int) -> None:
    """Close a connection, but only in the process that opened it, and only if no thread is using it.

    A transaction may be waiting for another process, and the end of this process does not wait for it.
    """
    if process != os.getpid():
        leave_to_parent(connection)
    elif in_use.acquire(blocking=False):
        connection.close()


def _check(connection: sqlite3.Connection, form: Format, failure: Failure) -> None:
    with transaction(
        connection, "DEFERRED"
    ):  # one consistent state: another process may be creating the file
        application = _pragma(connection, "application_id")
        version = _pragma(connection, "user_version")
        tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if application != form.application_id and (application or version or tables):
        raise failure(Trouble(Problem.FOREIGN, "it is a database of another application"))
    if version > len(form.migrations):
        raise failure(Trouble(Problem.NEWER, str(version)))


def _use_log(connection: sqlite3.Connection, form: Format, failure: Failure) -> None:
    """Switch to the write-ahead log. SQLite does not wait for another process that does the same."""
    until = monotonic() + BUSY
    while True:
        try:
            mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        except sqlite3.OperationalError as error:
            if not form.log_required:
                return
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or monotonic() > until:
                raise
            sleep(0.01)
            continue
        if mode != "wal" and form.log_required:
            raise failure(Trouble(Problem.NO_SHARED_MEMORY, "it is on a file system without shared memory"))
        return


def _migrate(connection: sqlite3.Connection, form: Format) -> None:
    if _pragma(connection, "user_version") == len(form.migrations):
        return
    with transaction(connection):
        for version in range(_pragma(connection, "user_version"), len(form.migrations)):
            for statement in form.migrations[version].split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {version + 1}")
        connection.execute(f"PRAGMA application_id = {form.application_id}")


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])

"""SQLite files: opening, permissions, migrations, transactions, and the mapping of errors."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import Enum, auto
from errno import EACCES, EDQUOT, EINVAL, EISDIR, ENOSPC
from pathlib import Path
from threading import Lock
from time import monotonic, sleep

import attrs

BUSY = 30.0
"""How long to wait for a file that another process has locked, in seconds."""

_PRIVATE = 0o600


class Problem(Enum):
    """Why a file cannot be used."""

    LOCKED = auto()
    FULL = auto()
    READ_ONLY = auto()
    DAMAGED = auto()
    NOT_A_DATABASE = auto()
    CANNOT_OPEN = auto()
    INPUT_OUTPUT = auto()
    OTHER = auto()
    SYSTEM = auto()
    FOREIGN = auto()
    NEWER = auto()
    NO_SHARED_MEMORY = auto()


@attrs.frozen
class Trouble:
    """A problem with a file, as SQLite or the operating system describes it.

    Attributes:
        code: the name of SQLite's error code; empty if there is none.
        unsure: the transaction may still take effect when the file is opened again.
    """

    problem: Problem
    detail: str
    code: str = ""
    unsure: bool = False


ErrorFactory = Callable[[Trouble], Exception]
"""Makes the error that the user gets."""


@attrs.frozen
class Format:
    """A kind of file.

    Args:
        application_id: marks files of this kind. Source: sqlite.org, PRAGMA application_id.
        migrations: for each version of the schema, from 0, the SQL that leads to the next.
        durable: whether a finished transaction survives a power failure, and not only a crash.
        log_required: whether to refuse a file that cannot have a write-ahead log.
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
    "SQLITE_NOTADB": Problem.NOT_A_DATABASE,
    "SQLITE_CANTOPEN": Problem.CANNOT_OPEN,
    "SQLITE_IOERR": Problem.INPUT_OUTPUT,
}
_FULL = {ENOSPC, EDQUOT}


class _CommitFailedError(Exception):
    """The commit of a transaction failed after it may have written its changes to the disk.

    SQLite has rolled the transaction back for this process only. When the file is opened again, it may turn
    out to be committed.
    """


@contextmanager
def explained(make_error: ErrorFactory) -> Iterator[None]:
    """Turn errors of SQLite and the operating system into the errors that ``make_error`` makes."""
    try:
        yield
    except _CommitFailedError as error:
        raise make_error(_trouble(error.__cause__, unsure=True)) from error.__cause__
    except sqlite3.Error as error:
        raise make_error(_trouble(error)) from error
    except OSError as error:
        problem = Problem.FULL if error.errno in _FULL else Problem.SYSTEM
        raise make_error(Trouble(problem, error.strerror or str(error))) from error


def _trouble(error: BaseException | None, *, unsure: bool = False) -> Trouble:
    code = getattr(error, "sqlite_errorname", None) or type(error).__name__
    matching = (problem for start, problem in _PROBLEMS.items() if code.startswith(start))
    return Trouble(next(matching, Problem.OTHER), str(error), code, unsure)


@contextmanager
def transaction(connection: sqlite3.Connection, kind: str = "IMMEDIATE") -> Iterator[None]:
    """A transaction. IMMEDIATE excludes other writers; DEFERRED reads one consistent state."""
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


def connect(path: Path, form: Format, make_error: ErrorFactory) -> sqlite3.Connection:
    """Open or create a file that only its owner can read. One thread at a time may use the connection.

    A file of another kind is refused and not changed.
    """
    with explained(make_error):
        _create_or_check(path)
        connection = sqlite3.connect(path, timeout=BUSY, isolation_level=None, check_same_thread=False)
        try:
            _check_kind(connection, form, make_error)
            real = path.resolve()
            _make_private(real)
            _use_log(connection, form, make_error)
            for suffix in ("-wal", "-shm"):
                _make_private(real.with_name(real.name + suffix))
            connection.execute(f"PRAGMA synchronous = {'FULL' if form.durable else 'NORMAL'}")
            _migrate(connection, form)
        except BaseException:
            connection.close()
            raise
    return connection


def _create_or_check(path: Path) -> None:
    """Create a missing file, and refuse anything but a writable regular file.

    An existing file is not opened, since closing it would release the locks of other connections in this
    process. Source: sqlite.org/howtocorrupt.html, 2.2.
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


def _make_private(path: Path) -> None:
    """Restrict an existing file to its owner. A link is left alone: SQLite does not follow it either."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if stat.S_ISREG(found.st_mode) and stat.S_IMODE(found.st_mode) != _PRIVATE:
        path.chmod(_PRIVATE)


_INHERITED: list[sqlite3.Connection] = []
"""Connections of a parent process. A forked child must not close them, not even by garbage collection.
Source: sqlite.org/howtocorrupt.html, 2.6."""


def leave_to_parent(connection: sqlite3.Connection | None) -> None:
    """Keep an inherited connection open for the rest of this forked process."""
    if connection is not None:
        _INHERITED.append(connection)


def close_idle(connection: sqlite3.Connection, in_use: Lock, process: int) -> None:
    """Close a connection if this process opened it and no thread is using it.

    A transaction may be waiting for another process, and must not delay the exit of this one.
    """
    if process != os.getpid():
        leave_to_parent(connection)
    elif in_use.acquire(blocking=False):
        connection.close()


def _check_kind(connection: sqlite3.Connection, form: Format, make_error: ErrorFactory) -> None:
    # In one transaction, since another process may be creating the file.
    with transaction(connection, "DEFERRED"):
        application = _pragma(connection, "application_id")
        version = _pragma(connection, "user_version")
        tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if application != form.application_id and (application or version or tables):
        raise make_error(Trouble(Problem.FOREIGN, "it is a database of another application"))
    if version > len(form.migrations):
        raise make_error(Trouble(Problem.NEWER, str(version)))


def _use_log(connection: sqlite3.Connection, form: Format, make_error: ErrorFactory) -> None:
    """Switch to the write-ahead log. SQLite itself does not wait for another process that is switching."""
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
            raise make_error(
                Trouble(Problem.NO_SHARED_MEMORY, "it is on a file system without shared memory")
            )
        return


def _migrate(connection: sqlite3.Connection, form: Format) -> None:
    if _pragma(connection, "user_version") == len(form.migrations):
        return
    with transaction(connection):
        for version in range(_pragma(connection, "user_version"), len(form.migrations)):
            for statement in _statements(form.migrations[version]):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {version + 1}")
        connection.execute(f"PRAGMA application_id = {form.application_id}")


def _statements(script: str) -> Iterator[str]:
    """The statements of a script; those of a trigger's body stay together."""
    statement = ""
    for part in script.split(";"):
        statement += part + ";"
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])

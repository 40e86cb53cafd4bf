"""Opening a ledger's file: is it one, how old is it, and who may read it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

from thanx_async._core.errors import LedgerError

APPLICATION_ID = 0x74786C67
"""Marks the file as a ledger ("txlg"). Source: sqlite.org, PRAGMA application_id."""

MIGRATIONS: list[str] = [
    """
    CREATE TABLE runs (
        run_id TEXT PRIMARY KEY,
        base_url TEXT NOT NULL,
        client_id TEXT NOT NULL,
        campaign_id TEXT NOT NULL,
        merchant_id TEXT NOT NULL,
        variant_id TEXT NOT NULL,
        batch_size INTEGER NOT NULL,
        deduplicate INTEGER NOT NULL,
        canary INTEGER,
        created_at REAL NOT NULL,
        changed_at REAL NOT NULL,
        total INTEGER,
        batches INTEGER,
        revoked_at REAL,
        owner TEXT,
        owned_until REAL NOT NULL DEFAULT 0
    ) WITHOUT ROWID;
    CREATE TABLE batches (
        run_id TEXT NOT NULL REFERENCES runs,
        number INTEGER NOT NULL,
        key TEXT NOT NULL,
        first INTEGER NOT NULL,
        count INTEGER NOT NULL,
        gaps BLOB NOT NULL,
        digest BLOB NOT NULL,
        state TEXT NOT NULL,
        recorded_at REAL NOT NULL,
        job_id TEXT,
        outcome BLOB,
        slot INTEGER NOT NULL,
        size INTEGER NOT NULL,
        PRIMARY KEY (run_id, number)
    ) WITHOUT ROWID;
    CREATE UNIQUE INDEX slots ON batches (slot) WHERE state = 'in_doubt';
    """,
]
"""What leads from each version of the schema, from 0, to the next."""

_BUSY = 30.0
_REASONS = {
    "SQLITE_BUSY": "another process has locked it; try again once that one is done",
    "SQLITE_FULL": "the disk is full; free some space and start the same run again",
    "SQLITE_READONLY": "it is read-only; make the file and its folder writable",
    "SQLITE_CORRUPT": "it is damaged; restore it from a copy",
    "SQLITE_NOTADB": "it is not a ledger but some other file; give another path",
    "SQLITE_CANTOPEN": "it cannot be opened; is it a folder, or does its folder not exist?",
    "SQLITE_IOERR": "the disk did not read or write it",
}


def connect(path: Path) -> sqlite3.Connection:
    """Open the file, or make it, for use by one thread at a time; only its owner can read it."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    path.chmod(0o600)
    connection = sqlite3.connect(path, timeout=_BUSY, isolation_level=None, check_same_thread=False)
    try:
        _check(connection, path)
        _use_log(connection, path)
        connection.execute("PRAGMA synchronous = FULL")
        _migrate(connection)
    except BaseException:
        connection.close()
        raise
    return connection


def _check(connection: sqlite3.Connection, path: Path) -> None:
    with transaction(connection, "DEFERRED"):  # at one moment, since another process may be making the file
        application = _pragma(connection, "application_id")
        tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    if application != APPLICATION_ID and (application or tables):
        raise LedgerError(f"{path} is not a ledger but some other database; give another path")
    version = _pragma(connection, "user_version")
    if version > len(MIGRATIONS):
        raise LedgerError(
            f"the ledger {path} was written by a newer thanx_async (its version is {version}, this one knows"
            f" {len(MIGRATIONS)}); update thanx_async"
        )


def _use_log(connection: sqlite3.Connection, path: Path) -> None:
    """Switch to the write-ahead log; SQLite itself does not wait for others who do so at the same time."""
    until = monotonic() + _BUSY
    while True:
        try:
            mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or monotonic() > until:
                raise
            sleep(0.01)
            continue
        if mode != "wal":
            raise LedgerError(f"the ledger {path} is on a file system without shared memory, which it needs")
        return


def _migrate(connection: sqlite3.Connection) -> None:
    if _pragma(connection, "user_version") == len(MIGRATIONS):
        return
    with transaction(connection):
        for version in range(_pragma(connection, "user_version"), len(MIGRATIONS)):
            for statement in MIGRATIONS[version].split(";"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {version + 1}")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    return int(connection.execute(f"PRAGMA {name}").fetchone()[0])


@contextmanager
def transaction(connection: sqlite3.Connection, kind: str = "IMMEDIATE") -> Iterator[None]:
    """All or nothing, alone among all processes; one that is DEFERRED only reads, and sees one state."""
    connection.execute(f"BEGIN {kind}")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn errors of the database and the disk into a `LedgerError` that says what to do."""
    try:
        yield
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", None) or type(error).__name__
        reason = next((text for start, text in _REASONS.items() if name.startswith(start)), str(error))
        raise LedgerError(f"the ledger {path} cannot be used: {reason} ({name})") from error
    except OSError as error:
        raise LedgerError(f"the ledger {path} cannot be used: {error.strerror}") from error

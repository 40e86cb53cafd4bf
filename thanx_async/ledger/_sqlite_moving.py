"""`MovingFile`: a ledger file whose content goes to another place, after which nobody writes to the file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import time
from typing import Any

from thanx_async._core.errors import LeaseError, LedgerError
from thanx_async._core.sqlite import transaction
from thanx_async.ledger._lanes import MOVED
from thanx_async.ledger._owner import Owner
from thanx_async.ledger._sqlite_bodies import BodyFile
from thanx_async.ledger._sqlite_schema import connect, explained, readable

_AT_ONCE = 10_000
_TABLES = (
    *("runs", "batches", "lanes", "guests", "waiting", "ended", "heard", "forgotten", "trust", "events"),
    "choices",
)
_MARKS = [
    f"CREATE TRIGGER moved_{table}_{event} BEFORE {event} ON {table} BEGIN"
    f" SELECT RAISE(ABORT, 'the file was {MOVED}'); END"
    for table in _TABLES
    for event in ("INSERT", "UPDATE", "DELETE")
]

Row = Sequence[Any]


def check_not_moved(db: sqlite3.Connection, path: Path) -> None:
    """Make sure that a file was not moved.

    Raises:
        LedgerError: it was.
    """
    if place := _moved_to(db):
        raise LedgerError(f"the ledger {path} was {MOVED} at {place}: use it there, and delete the file")


def _moved_to(db: sqlite3.Connection) -> str | None:
    if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'moved'").fetchone() is None:
        return None
    place: str = db.execute("SELECT place FROM moved").fetchone()[0]
    return place


class MovingFile:
    """An open ledger file, for use by one thread at a time.

    Attributes:
        is_marked: whether an earlier attempt has marked the file as moved.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        if not path.is_file():
            raise LedgerError(f"there is no outbox {path}")
        with explained(path):
            self._db = connect(path)
            try:
                self.is_marked = _moved_to(self._db) is not None
                self._bodies = BodyFile(path.with_name(path.name + "-bodies"))
            except BaseException:
                self._db.close()
                raise

    def close(self) -> None:
        """Close the file."""
        self._db.close()
        self._bodies.close()

    def mark(self, place: str) -> None:
        """Mark the file as moved. From then on no process can change it.

        Raises:
            LeaseError: a process is working on a run.
        """
        with explained(self._path), transaction(self._db):
            self._check_free()
            self._db.execute("CREATE TABLE moved (place TEXT NOT NULL)")
            self._db.execute("INSERT INTO moved VALUES (?)", (place,))
            for statement in _MARKS:
                self._db.execute(statement)

    def unmark(self) -> None:
        """Let the file be used again, as the move has certainly failed."""
        with explained(self._path), transaction(self._db):
            self._db.execute("DROP TABLE moved")
            for statement in _MARKS:
                self._db.execute(f"DROP TRIGGER IF EXISTS {statement.split()[2]}")

    def _check_free(self) -> None:
        rows = self._db.execute(
            "SELECT run_id, owner FROM runs WHERE owner IS NOT NULL AND owned_until > ?", (time(),)
        )
        for run_id, owner in rows.fetchall():
            with readable(self._path, f"the lease of run {run_id!r}"):
                worker = Owner.living(owner)
            if worker is not None:
                raise LeaseError(
                    f"run {run_id!r} is being worked on by {worker}; stop that process or drain first"
                )

    def rows(self, query: str) -> Iterator[list[Row]]:
        """The rows of a query, in slices."""
        with explained(self._path):
            found = self._db.execute(query)
            while rows := found.fetchmany(_AT_ONCE):
                yield rows

    def value(self, query: str) -> int:
        """The one number that a query returns, 0 for NULL."""
        with explained(self._path):
            return int(self._db.execute(query).fetchone()[0] or 0)

    def count(self, table: str) -> int:
        """The number of rows in a table."""
        return self.value(f"SELECT count(*) FROM {table}")  # noqa: S608 - a name of ours

    def body(self, slot: int, size: int) -> bytes:
        """The request body of a batch in doubt."""
        with explained(self._path):
            return self._bodies.read(slot, size)

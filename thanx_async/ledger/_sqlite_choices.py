"""`ChoiceTable`, which guests the runs in a ledger file have chosen."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from time import time

from thanx_async._core.sqlite import transaction
from thanx_async.ledger._choices import Choose, Ranges
from thanx_async.ledger._sqlite_runs import RunTable
from thanx_async.ledger._sqlite_schema import explained


class ChoiceTable:
    """The choices in one open ledger file. Methods named like those of `SQLiteLanes` do the same."""

    def __init__(self, db: sqlite3.Connection, path: Path, runs: RunTable) -> None:
        self._db = db
        self._path = path
        self._runs = runs

    def choose(self, run_id: str, guests: Sequence[bytes], choose: Choose) -> None:
        with explained(self._path), transaction(self._db):
            self._runs.renew(run_id, time())
            known = {guest: self._known(guest) for guest in guests}
            rows = [(run_id, guest, place) for guest, place in choose(known).items()]
            self._db.executemany("INSERT INTO choices (run_id, guest, position) VALUES (?, ?, ?)", rows)

    def _known(self, guest: bytes) -> dict[str, int]:
        query = "SELECT run_id, position FROM choices WHERE guest = ?"
        return dict(self._db.execute(query, (guest,)).fetchall())

    def unchoose(self, run_id: str, ranges: Ranges) -> None:
        with explained(self._path), transaction(self._db):
            self._runs.renew(run_id, time())
            self._db.executemany(
                "DELETE FROM choices WHERE run_id = ? AND position BETWEEN ? AND ?",
                [(run_id, *part) for part in ranges],
            )

    def has_chosen(self, run_id: str) -> bool:
        with explained(self._path):
            query = "SELECT 1 FROM choices WHERE run_id = ? LIMIT 1"
            return self._db.execute(query, (run_id,)).fetchone() is not None

"""The table of what webhooks told of jobs at any process of the machine, in a ledger file."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from time import time

from thanx_async._batches import EndedJob
from thanx_async._core.sqlite import transaction
from thanx_async.ledger._rows import EVENTS_LAST
from thanx_async.ledger._sqlite_schema import explained, readable

_RELAYED = """
    SELECT e.job_id, e.told FROM batches AS b JOIN events AS e ON e.job_id = b.job_id
    WHERE b.run_id = ? AND b.state = 'accepted'
"""


class EventTable:
    """What webhooks told, in one open ledger file."""

    def __init__(self, db: sqlite3.Connection, path: Path) -> None:
        self._db = db
        self._path = path
        self._seen: dict[str, tuple[int, int]] = {}

    def relay(self, job: EndedJob) -> None:
        """See `RelayLedger.relay`."""
        now = time()
        with explained(self._path), transaction(self._db):
            self._db.execute("DELETE FROM events WHERE heard_at < ?", (now - EVENTS_LAST,))
            self._db.execute("INSERT OR IGNORE INTO events VALUES (?, ?, ?)", (job.job_id, now, job.packed()))

    def relayed(self, run_id: str) -> list[EndedJob]:
        """See `RelayLedger.relayed`. While nobody has changed the file, it is not searched."""
        with explained(self._path):
            version = (self._db.execute("PRAGMA data_version").fetchone()[0], self._db.total_changes)
            if self._seen.get(run_id) == version:
                return []
            self._seen[run_id] = version
            rows = self._db.execute(_RELAYED, (run_id,)).fetchall()
            if rows:
                with transaction(self._db):
                    self._db.executemany("DELETE FROM events WHERE job_id = ?", [row[:1] for row in rows])
        with readable(self._path, "an event"):
            return [EndedJob.unpacked(told) for _, told in rows]

"""`History`, which deletes old runs and batches from a ledger, and counts the progress of runs."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from time import time

from thanx_async._batches import SERVICE_RUNS
from thanx_async._core.sqlite import transaction
from thanx_async.ledger._records import RunProgress, RunRecord
from thanx_async.ledger._rows import RUN_FIELDS
from thanx_async.ledger._sqlite_runs import run_of
from thanx_async.ledger._sqlite_schema import explained

_CHUNK = 500

_SERVICE = f"run_id GLOB '{SERVICE_RUNS}[0-9a-f]*' AND length(run_id) = {len(SERVICE_RUNS) + 32}"
_FREE = "(owner IS NULL OR owned_until <= :now)"
_COMPLETE = f"""
    SELECT run_id FROM runs WHERE changed_at < :before AND {_FREE} AND batches > 0
    AND batches = (SELECT count(*) FROM batches AS b WHERE b.run_id = runs.run_id)
    AND NOT EXISTS (SELECT 1 FROM batches AS b WHERE b.run_id = runs.run_id AND b.state != 'finished')
"""  # noqa: S608 - fixed text
_TO_FORGET = f"{_COMPLETE} UNION SELECT run_id FROM runs JOIN forgotten USING (run_id)"  # noqa: S608 - fixed
_MARK = f"""
    INSERT OR IGNORE INTO forgotten SELECT run_id, changed_at FROM runs
    WHERE run_id = :run_id AND run_id IN ({_COMPLETE})
"""  # noqa: S608 - fixed text
_DELETE = """
    DELETE FROM batches WHERE run_id IN (SELECT run_id FROM forgotten WHERE run_id = :run_id)
    AND number IN (SELECT number FROM batches WHERE run_id = :run_id LIMIT :most)
"""
_DELETE_RUN = "DELETE FROM runs WHERE run_id IN (SELECT run_id FROM forgotten WHERE run_id = :run_id)"
_EMPTY = f"""
    DELETE FROM runs WHERE changed_at < :before AND {_FREE} AND revoked_at IS NULL
    AND (coalesce(batches, 0) = 0 OR {_SERVICE}) AND run_id NOT IN (SELECT run_id FROM lanes)
    AND NOT EXISTS (SELECT 1 FROM batches AS b WHERE b.run_id = runs.run_id)
"""  # noqa: S608 - fixed text
_PROGRESS = f"""
    SELECT {", ".join(f"r.{column}" for column in RUN_FIELDS)},
        coalesce(sum(b.state = 'in_doubt'), 0),
        coalesce(sum(b.state = 'accepted'), 0),
        coalesce(sum(b.state = 'finished'), 0),
        coalesce(sum(json_extract(CAST(b.outcome AS TEXT), '$.issued')), 0),
        coalesce(sum(b.job_id IS NOT NULL AND (b.outcome IS NULL
            OR (json_extract(CAST(b.outcome AS TEXT), '$.state') != 'revoked'
                AND json_extract(CAST(b.outcome AS TEXT), '$.issued') > 0))), 0)
    FROM runs AS r LEFT JOIN batches AS b ON b.run_id = r.run_id
    WHERE r.run_id NOT IN (SELECT run_id FROM forgotten)
    GROUP BY r.run_id ORDER BY r.created_at, r.run_id
"""  # noqa: S608 - fixed text


class History:
    """Deletion and counting in one open ledger file.

    The id of a deleted run is kept, so that the run is not issued again by mistake. All batches of an
    incomplete run are kept, since a resumed run needs them. The run of a service (`AsyncBatcher.add`) has no
    input to resume, so its finished batches are deleted even while the service is running.
    """

    def __init__(self, db: sqlite3.Connection, path: Path) -> None:
        self._db = db
        self._path = path

    def forget(self, before: float) -> Iterator[None]:
        """Delete runs and batches that ended before a time. Each step is one short transaction."""
        with explained(self._path):
            times = {"before": before, "now": time()}
            complete = self._db.execute(_TO_FORGET, times).fetchall()
        for (run_id,) in complete:
            yield from self._forget_run(run_id, before)
        with explained(self._path):
            services = self._db.execute(
                f"SELECT run_id FROM runs WHERE {_SERVICE} AND created_at < ?",  # noqa: S608 - fixed text
                (before,),
            ).fetchall()
        for (run_id,) in services:
            yield from self._forget_finished(run_id, before)
        with explained(self._path), transaction(self._db):
            self._db.execute(_EMPTY, {"before": before, "now": time()})
        yield

    def _forget_run(self, run_id: str, before: float) -> Iterator[None]:
        """Delete a run. The first step marks it as deleted, so that no process resumes the rest of it."""
        with explained(self._path), transaction(self._db):
            self._db.execute(_MARK, {"run_id": run_id, "before": before, "now": time()})
        deleted = _CHUNK
        while deleted == _CHUNK:
            with explained(self._path), transaction(self._db):
                deleted = self._db.execute(_DELETE, {"run_id": run_id, "most": _CHUNK}).rowcount
                if deleted < _CHUNK:
                    self._db.execute(_DELETE_RUN, {"run_id": run_id})
            yield

    def _forget_finished(self, run_id: str, before: float) -> Iterator[None]:
        """Delete finished batches of a service, oldest first, up to the first recent one."""
        last, reached_recent = -1, False
        while not reached_recent:
            with explained(self._path), transaction(self._db):
                rows = self._db.execute(
                    "SELECT number, state, recorded_at FROM batches WHERE run_id = ? AND number > ?"
                    " ORDER BY number LIMIT ?",
                    (run_id, last, _CHUNK),
                ).fetchall()
                old = [row for row in rows if row[2] < before]
                numbers = [(run_id, number) for number, state, _ in old if state == "finished"]
                self._db.executemany("DELETE FROM batches WHERE run_id = ? AND number = ?", numbers)
            last = rows[-1][0] if rows else last
            reached_recent = len(old) < _CHUNK
            yield

    def progress(self) -> list[RunProgress]:
        """The progress of all runs, oldest first."""
        with explained(self._path):
            rows = self._db.execute(_PROGRESS).fetchall()
        width = len(RUN_FIELDS)
        return [RunProgress(self._run(row[:width]), *row[width:]) for row in rows]

    def _run(self, row: tuple[object, ...]) -> RunRecord:
        return run_of(row, self._path)

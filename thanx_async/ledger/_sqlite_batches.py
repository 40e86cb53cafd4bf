"""`LedgerFile`, an open ledger file, and its table of batches, in short SQL transactions."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Mapping
from itertools import count, islice
from math import inf
from pathlib import Path
from time import time

import attrs

from thanx_async._batches import BatchOutcome, Positions, digest_of
from thanx_async._core import sqlite
from thanx_async._core.errors import LedgerError
from thanx_async._core.escaping import get_logger
from thanx_async._core.sqlite import transaction
from thanx_async.ledger._records import BatchRecord, BatchState
from thanx_async.ledger._sqlite_bodies import STRIDE, BodyFile
from thanx_async.ledger._sqlite_history import History
from thanx_async.ledger._sqlite_runs import RunTable
from thanx_async.ledger._sqlite_schema import connect, explained, readable

_Row = tuple[str, int, str, int, int, bytes, bytes, str, float, str | None, bytes | None]
_COLUMNS = "run_id, number, key, first, count, gaps, digest, state, recorded_at, job_id, outcome"

_STEPS_AT_START = 20

_log = get_logger("thanx_async.ledger")


class LedgerFile:
    """An open ledger file and the file of request bodies beside it, for use by one thread at a time.

    Methods named like those of `Ledger` do the same.
    """

    def __init__(self, path: Path, *, keep_for: float = inf) -> None:
        self._path = path
        self._keep_for = keep_for
        self._forgetting: Iterator[None] = iter(())
        self._freed: dict[int, int] = {}
        self._version: int | None = None
        with explained(path):
            self._db = connect(path)
            self.runs = RunTable(self._db, path)
            self.history = History(self._db, path)
            try:
                self._bodies = BodyFile(path.with_name(path.name + "-bodies"))
                try:
                    self._take_over()
                except BaseException:
                    self._bodies.close()
                    raise
            except BaseException:
                self._db.close()
                raise

    def start_forgetting(self) -> bool:
        """Start to delete runs and batches older than ``keep_for``. Returns whether there may be more."""
        self._forgetting = iter(()) if self._keep_for == inf else self.history.forget(time() - self._keep_for)
        return self.forget_more(_STEPS_AT_START)

    def forget_more(self, steps: int = 1) -> bool:
        """Continue with ``steps`` short transactions. Returns whether there may be more to delete."""
        try:
            return sum(1 for _ in islice(self._forgetting, steps)) == steps
        except LedgerError as error:  # a ledger that keeps too much is better than none
            _log.warning("finished runs were not forgotten: %s", error)
            return False

    def batch_of(self, job_id: str) -> BatchRecord | None:
        """The batch that Thanx accepted as this job, or None."""
        with explained(self._path):
            row = self._db.execute(f"SELECT {_COLUMNS} FROM batches WHERE job_id = ?", (job_id,)).fetchone()  # noqa: S608 - fixed columns
        return _batch(row, self._path) if row else None

    def close(self) -> None:
        """Release all runs of this process, wipe unused slots and close the files."""
        with explained(self._path):
            try:
                self.runs.release_all()
                self._scrub()
            finally:
                self._db.close()
                self._bodies.close()

    def leave_to_parent(self) -> None:
        """Leave the file, its claims and its slots to the parent, in a forked child."""
        sqlite.leave_to_parent(self._db)
        self._bodies.close()

    def batches(self, run_id: str) -> list[BatchRecord]:
        with explained(self._path):
            rows = self._db.execute(
                f"SELECT {_COLUMNS} FROM batches WHERE run_id = ? ORDER BY number",  # noqa: S608 - fixed columns
                (run_id,),
            ).fetchall()
        return [_batch(row, self._path) for row in rows]

    def in_doubt(self) -> list[BatchRecord]:
        with explained(self._path):
            rows = self._db.execute(
                f"SELECT {_COLUMNS} FROM batches"  # noqa: S608 - fixed columns
                " WHERE state = 'in_doubt' ORDER BY recorded_at"
            ).fetchall()
        return [_batch(row, self._path) for row in rows]

    def body(self, run_id: str, number: int) -> bytes:
        with explained(self._path):
            row = self._db.execute(
                "SELECT slot, size, digest FROM batches"
                " WHERE run_id = ? AND number = ? AND state = 'in_doubt'",
                (run_id, number),
            ).fetchone()
            with readable(self._path, f"batch {number} of run {run_id!r}"):
                body = self._bodies.read(row[0], row[1]) if row else b""
        if not body or digest_of(body) != row[2]:
            raise LedgerError(
                f"the bytes of batch {number} of run {run_id!r} are not in {self._path}-bodies; start the run"
                " again with its input, or settle the batch by hand"
            )
        return body

    def record(self, batch: BatchRecord, body: bytes) -> BatchRecord:
        if len(body) > STRIDE:
            raise LedgerError(f"batch {batch.number} has {len(body):,} bytes, more than {STRIDE:,}")
        batch = attrs.evolve(batch, recorded_at=time())
        with explained(self._path, key=batch.key), transaction(self._db):
            self.runs.renew(batch.run_id, batch.recorded_at)
            known = self._batch(batch.run_id, batch.number)
            if known is None:
                self._insert(batch, body)
        return known or batch

    def _batch(self, run_id: str, number: int) -> BatchRecord | None:
        row = self._db.execute(
            f"SELECT {_COLUMNS} FROM batches WHERE run_id = ? AND number = ?",  # noqa: S608 - fixed columns
            (run_id, number),
        ).fetchone()
        return _batch(row, self._path) if row else None

    def _insert(self, batch: BatchRecord, body: bytes) -> None:
        slot, stale = self._free_slot()
        self._freed[slot] = max(stale, len(body))  # until the commit
        self._bodies.write(slot, body, stale=stale)
        positions = batch.positions
        self._db.execute(
            f"INSERT INTO batches ({_COLUMNS}, slot, size)"  # noqa: S608 - fixed columns
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL, ?, ?)",
            (
                batch.run_id,
                batch.number,
                batch.key,
                positions.first,
                positions.count,
                positions.packed(),
                batch.digest,
                BatchState.IN_DOUBT.value,
                batch.recorded_at,
                slot,
                len(body),
            ),
        )

    def accept(self, run_id: str, number: int, job_id: str) -> None:
        with explained(self._path):
            freed = self._db.execute(
                "UPDATE batches SET state = 'accepted', job_id = ?"
                " WHERE run_id = ? AND number = ? AND state = 'in_doubt' RETURNING slot, size",
                (job_id, run_id, number),
            ).fetchall()
            self._free(freed)
            known = None if freed else self._batch(run_id, number)
        if not freed and (known is None or known.job_id != job_id):
            raise LedgerError(_conflict(run_id, number, job_id, known))

    def finish(self, run_id: str, outcomes: Mapping[int, BatchOutcome]) -> None:
        with explained(self._path), transaction(self._db):
            for number, outcome in outcomes.items():
                freed = self._db.execute(
                    "UPDATE batches SET state = 'finished', outcome = ?"
                    " WHERE run_id = ? AND number = ? RETURNING slot, size",
                    (outcome.packed(), run_id, number),
                ).fetchall()
                self._free(freed)
            self._db.execute("UPDATE runs SET changed_at = ? WHERE run_id = ?", (time(), run_id))

    def withdraw(self, run_id: str, number: int) -> None:
        with explained(self._path), transaction(self._db):
            if not self.runs.is_own(run_id):
                raise LedgerError(
                    f"run {run_id!r} was taken over by another process, which may send its batch {number}"
                )
            freed = self._db.execute(
                "DELETE FROM batches WHERE run_id = ? AND number = ? AND state = 'in_doubt'"
                " RETURNING slot, size",
                (run_id, number),
            ).fetchall()
            self._free(freed)

    def release(self, run_id: str) -> None:
        with explained(self._path):
            try:
                with transaction(self._db):
                    self._review_freed(self._used_slots())
                    self._wipe_freed()
            finally:
                self.runs.release(run_id)

    def _free(self, slots: Iterable[tuple[int, int]]) -> None:
        """Note the slots that may be overwritten, with the lengths of their bytes."""
        for slot, size in slots:
            self._freed[slot] = max(size, self._freed.get(slot, 0))

    def _free_slot(self) -> tuple[int, int]:
        """A free slot, and the number of stale bytes in it. The caller holds a transaction.

        A slot that this process freed is preferred, since overwriting it saves wiping it. The other freed
        slots are wiped.
        """
        self._review_freed(used := self._used_slots())
        if self._freed:
            slot, stale = self._freed.popitem()
        else:
            slot = _lowest_free(used)
            stale = self._bodies.length(slot)
        self._wipe_freed()
        return slot, stale

    def _review_freed(self, used: set[int]) -> None:
        """Check which freed slots are still free, and how many bytes they hold.

        A slot may be wiped only after the commit that freed it. Since then, another process may have used the
        slot, and freed it again with more bytes.
        """
        for slot in used.intersection(self._freed):
            del self._freed[slot]
        version = self._db.execute("PRAGMA data_version").fetchone()[0]
        if version != self._version:
            self._version = version
            self._freed = {slot: max(size, self._bodies.length(slot)) for slot, size in self._freed.items()}

    def _wipe_freed(self) -> None:
        while self._freed:
            slot, size = self._freed.popitem()
            self._bodies.wipe(slot, size)

    def _used_slots(self) -> set[int]:
        rows = self._db.execute("SELECT slot FROM batches WHERE state = 'in_doubt'").fetchall()
        with readable(self._path, "the place of a batch in doubt"):
            return {operator.index(row[0]) for row in rows}

    def _take_over(self) -> None:
        with transaction(self._db):
            used = self._used_slots()
            self._bodies.adopt(used, is_new=self.runs.is_new())
            self._bodies.scrub(used)

    def _scrub(self) -> None:
        with transaction(self._db):
            self._bodies.scrub(self._used_slots())


def _lowest_free(used: set[int]) -> int:
    return next(slot for slot in count() if slot not in used)


def _batch(row: _Row, path: Path) -> BatchRecord:
    run_id, number, key, first, size, gaps, digest, state, recorded_at, job_id, outcome = row
    with readable(path, f"batch {number!r} of run {run_id!r}"):
        batch = BatchRecord(
            run_id,
            number,
            key,
            Positions.unpacked(first, size, gaps),
            digest,
            BatchState(state),
            recorded_at,
            job_id,
            BatchOutcome.unpacked(outcome) if outcome is not None else None,
        )
        _check_row(batch)
    return batch


def _check_row(batch: BatchRecord) -> None:
    """Raise a `ValueError` or `TypeError` unless the row is a valid batch."""
    outcome, count = batch.outcome, len(batch.positions)
    sound = _is_text(batch.run_id) and _is_text(batch.key) and count > 0
    sound = sound and batch.number >= 0 and batch.positions.first >= 0 and batch.recorded_at >= 0
    if batch.state is BatchState.ACCEPTED:
        sound = sound and _is_text(batch.job_id)
    if outcome is not None:
        sound = sound and _is_text(outcome.state) and 0 <= outcome.issued <= count
        sound = sound and all(0 <= index < count and _is_text(reason) for index, reason in outcome.failures)
    if not sound or (outcome is not None) != (batch.state is BatchState.FINISHED):
        raise ValueError


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _conflict(run_id: str, number: int, job_id: str, known: BatchRecord | None) -> str:
    if known is None:
        return f"batch {number} of run {run_id!r}, accepted as job {job_id}, is not recorded any more"
    return (
        f"batch {number} of run {run_id!r} is job {known.job_id}, and was now accepted as job {job_id} too:"
        " its guests may have two rewards; look at both jobs, and revoke one"
    )

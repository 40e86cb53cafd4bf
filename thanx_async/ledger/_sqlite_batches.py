"""The ledger's SQL: short transactions of one thread at a time. Nothing here knows of the event loop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import count
from pathlib import Path
from time import time

import attrs

from thanx_async._batches import BatchOutcome, Positions, digest_of
from thanx_async._core import sqlite
from thanx_async._core.errors import LedgerError
from thanx_async._core.sqlite import transaction
from thanx_async.ledger._records import BatchRecord, BatchState
from thanx_async.ledger._sqlite_bodies import STRIDE, BodyFile
from thanx_async.ledger._sqlite_runs import RunTable
from thanx_async.ledger._sqlite_schema import connect, explained

_COLUMNS = "run_id, number, key, first, count, gaps, digest, state, recorded_at, job_id, outcome"


class LedgerFile:
    """One open ledger file and the file of bytes beside it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._freed: dict[int, int] = {}
        self._version: int | None = None
        with explained(path):
            self._db = connect(path)
            self.runs = RunTable(self._db, path)
            try:
                self._bodies = BodyFile(path.with_name(path.name + "-bodies"))
                self._scrub()
            except BaseException:
                self._db.close()
                raise

    def close(self) -> None:
        with explained(self._path):
            try:
                self.runs.release_all()
                self._scrub()
            finally:
                self._db.close()
                self._bodies.close()

    def leave_to_parent(self) -> None:
        """In a forked child: the file, its claims and its slots are the parent's."""
        sqlite.leave_to_parent(self._db)
        self._bodies.close()

    def batches(self, run_id: str) -> list[BatchRecord]:
        with explained(self._path):
            rows = self._db.execute(
                f"SELECT {_COLUMNS} FROM batches WHERE run_id = ? ORDER BY number",  # noqa: S608 - fixed columns
                (run_id,),
            ).fetchall()
        return [_batch(row) for row in rows]

    def in_doubt(self) -> list[BatchRecord]:
        with explained(self._path):
            rows = self._db.execute(
                f"SELECT {_COLUMNS} FROM batches"  # noqa: S608 - fixed columns
                " WHERE state = 'in_doubt' ORDER BY recorded_at"
            ).fetchall()
        return [_batch(row) for row in rows]

    def body(self, run_id: str, number: int) -> bytes:
        with explained(self._path):
            row = self._db.execute(
                "SELECT slot, size, digest FROM batches"
                " WHERE run_id = ? AND number = ? AND state = 'in_doubt'",
                (run_id, number),
            ).fetchone()
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
        return _batch(row) if row else None

    def _insert(self, batch: BatchRecord, body: bytes) -> None:
        slot, stale = self._free_slot()
        self._freed[slot] = max(stale, len(body))  # until it is committed
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
            raise LedgerError(_surprise(run_id, number, job_id, known))

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
        """Forget a batch that was not sent; but one who has taken the run over may be sending it."""
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
        """Note what may be overwritten, and how long it is."""
        for slot, size in slots:
            self._freed[slot] = max(size, self._freed.get(slot, 0))

    def _free_slot(self) -> tuple[int, int]:
        """Within a transaction, a slot that nobody uses, and how many stale bytes are in it; what else this
        process has freed is wiped. Overwriting such a slot saves wiping it."""
        self._review_freed(used := self._used_slots())
        if self._freed:
            slot, stale = self._freed.popitem()
        else:
            slot = _lowest_free(used)
            stale = self._bodies.length(slot)
        self._wipe_freed()
        return slot, stale

    def _review_freed(self, used: set[int]) -> None:
        """A slot may be wiped only once its freeing is committed: it must not be in doubt again. And another
        process that has written since may have used a slot, and freed it again; what somebody has used since
        it does not wipe."""
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
        return {row[0] for row in rows}

    def _scrub(self) -> None:
        with transaction(self._db):
            self._bodies.scrub(self._used_slots())


def _lowest_free(used: set[int]) -> int:
    return next(slot for slot in count() if slot not in used)


def _batch(
    row: tuple[str, int, str, int, int, bytes, bytes, str, float, str | None, bytes | None],
) -> BatchRecord:
    run_id, number, key, first, size, gaps, digest, state, recorded_at, job_id, outcome = row
    return BatchRecord(
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


def _surprise(run_id: str, number: int, job_id: str, known: BatchRecord | None) -> str:
    if known is None:
        return f"batch {number} of run {run_id!r}, accepted as job {job_id}, is not recorded any more"
    return (
        f"batch {number} of run {run_id!r} is job {known.job_id}, and was now accepted as job {job_id} too:"
        " its guests may have two rewards; look at both jobs, and revoke one"
    )

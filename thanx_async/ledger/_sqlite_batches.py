"""`LedgerFile`, an open ledger file, and its table of batches, in short SQL transactions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from itertools import count, islice, starmap
from math import inf
from pathlib import Path
from time import time

import attrs

from thanx_async._batches import BatchOutcome, digest_of
from thanx_async._core import sqlite
from thanx_async._core.errors import LeaseError, LedgerError
from thanx_async._core.escaping import get_logger
from thanx_async._core.sqlite import transaction
from thanx_async.ledger import _refusals as refusals
from thanx_async.ledger._lanes import Seqs
from thanx_async.ledger._records import BatchRecord, BatchState
from thanx_async.ledger._rows import BATCH_COLUMNS
from thanx_async.ledger._sqlite_bodies import STRIDE, BodyFile, check_place
from thanx_async.ledger._sqlite_events import EventTable
from thanx_async.ledger._sqlite_held import HeldBatches
from thanx_async.ledger._sqlite_history import History
from thanx_async.ledger._sqlite_lanes import LaneTable
from thanx_async.ledger._sqlite_moving import check_not_moved
from thanx_async.ledger._sqlite_rows import batch_of
from thanx_async.ledger._sqlite_runs import RunTable
from thanx_async.ledger._sqlite_schema import connect, explained, readable
from thanx_async.ledger._sqlite_trust import TrustTable

_STEPS_AT_START = 20
_SELECT = f"SELECT {BATCH_COLUMNS} FROM batches"  # noqa: S608 - fixed columns

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
        with explained(path), ExitStack() as undo:
            self._db = connect(path)
            undo.callback(self._db.close)
            check_not_moved(self._db, path)
            self._db.execute("PRAGMA secure_delete = ON")
            self.runs = RunTable(self._db, path)
            self.history = History(self._db, path)
            self.trust = TrustTable(self._db, path)
            self.events = EventTable(self._db, path)
            self.lanes = LaneTable(self._db, path, self.runs, self)
            self.held = HeldBatches(self._db, path, self.runs, self.lanes, self)
            self._bodies = BodyFile(path.with_name(path.name + "-bodies"))
            undo.callback(self._bodies.close)
            self._take_over()
            undo.pop_all()

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
            found = self._select("WHERE job_id = ?", job_id)
        return found[0] if found else None

    def _select(self, where: str, *arguments: object) -> list[BatchRecord]:
        rows = self._db.execute(f"{_SELECT} {where}", arguments).fetchall()
        return [batch_of(row, self._path) for row in rows]

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

    def batches(self, run_id: str, where: str = "") -> list[BatchRecord]:
        with explained(self._path):
            return self._select(f"WHERE run_id = ? {where} ORDER BY number", run_id)

    def placed(self, run_id: str, seq: int) -> tuple[BatchRecord, Seqs] | None:
        """The batch that a lane's guest is in, and its guests. The caller holds a transaction."""
        rows = self._db.execute(
            f"SELECT seqs, {BATCH_COLUMNS} FROM batches"  # noqa: S608 - fixed columns
            " WHERE run_id = ? AND first <= ? AND seqs IS NOT NULL ORDER BY first DESC",
            (run_id, seq),
        )
        for packed, *row in rows:
            with readable(self._path, f"batch {row[1]!r} of lane {run_id!r}"):
                seqs = Seqs.unpacked(packed)
            if seqs.index(seq) is not None:
                return batch_of(row, self._path), seqs
        return None

    def in_doubt(self) -> list[BatchRecord]:
        with explained(self._path):
            return self._select("WHERE state = 'in_doubt' ORDER BY recorded_at")

    def body(self, run_id: str, number: int) -> bytes:
        with explained(self._path):
            row = self._db.execute(
                "SELECT slot, size, digest FROM batches"
                " WHERE run_id = ? AND number = ? AND state = 'in_doubt'",
                (run_id, number),
            ).fetchone()
            with readable(self._path, f"batch {number} of run {run_id!r}"):
                body = self._bodies.read(*check_place(*row[:2])) if row else b""
        if not body or digest_of(body) != row[2]:
            raise LedgerError(
                f"the bytes of batch {number} of run {run_id!r} are not in {self._path}-bodies; start the run"
                " again with its input, or settle the batch by hand"
            )
        return body

    def record_all(self, batches: Sequence[tuple[BatchRecord, bytes]]) -> list[BatchRecord]:
        with explained(self._path, key=batches[0][0].key), transaction(self._db):
            return [self._record(batch, body) for batch, body in batches]

    def _record(self, batch: BatchRecord, body: bytes) -> BatchRecord:
        if len(body) > STRIDE:
            raise LedgerError(f"batch {batch.number} has {len(body):,} bytes, more than {STRIDE:,}")
        batch = attrs.evolve(batch, recorded_at=time())
        self.runs.renew(batch.run_id, batch.recorded_at)
        known = self._batch(batch.run_id, batch.number)
        if known is None:
            self.insert(batch, body)
        return known or batch

    def _batch(self, run_id: str, number: int) -> BatchRecord | None:
        found = self._select("WHERE run_id = ? AND number = ?", run_id, number)
        return found[0] if found else None

    def insert(self, batch: BatchRecord, body: bytes, seqs: Seqs | None = None) -> None:
        """Insert a batch in doubt; with the numbers of its guests if it is a lane's.

        The caller holds a transaction.
        """
        slot, stale = self._free_slot()
        self._freed[slot] = max(stale, len(body))  # until the commit
        self._bodies.write(slot, body, stale=stale)
        positions = batch.positions
        self._db.execute(
            f"INSERT INTO batches ({BATCH_COLUMNS}, slot, size, seqs)"  # noqa: S608 - fixed columns
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, NULL, NULL, NULL, ?, ?, ?)",
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
                seqs and seqs.packed(),
            ),
        )

    def accept(self, run_id: str, number: int, job_id: str) -> None:
        with explained(self._path):
            self.accepted(run_id, number, job_id)

    def accepted(self, run_id: str, number: int, job_id: str) -> None:
        """Record that Thanx accepted a batch, as a part of the caller's transaction, if there is one."""
        freed = self._db.execute(
            "UPDATE batches SET state = 'accepted', job_id = ?, held = NULL"
            " WHERE run_id = ? AND number = ? AND state = 'in_doubt' RETURNING slot, size",
            (job_id, run_id, number),
        ).fetchall()
        self._free(freed)
        known = None if freed else self._batch(run_id, number)
        if not freed and (known is None or known.job_id != job_id):
            raise refusals.other_job(run_id, number, job_id, known)

    def finish(self, run_id: str, outcomes: Mapping[int, BatchOutcome]) -> None:
        with explained(self._path), transaction(self._db):
            for number, outcome in outcomes.items():
                self.finished(run_id, number, outcome)
            self._db.execute("UPDATE runs SET changed_at = ? WHERE run_id = ?", (time(), run_id))

    def finished(self, run_id: str, number: int, outcome: BatchOutcome) -> None:
        """Record the outcome of a batch. The caller holds a transaction."""
        self.lanes.count_issued(run_id, number, outcome.issued)
        freed = self._db.execute(
            "UPDATE batches SET state = 'finished', outcome = ?"
            " WHERE run_id = ? AND number = ? RETURNING slot, size",
            (outcome.packed(), run_id, number),
        ).fetchall()
        self._free(freed)

    def withdraw(self, run_id: str, number: int) -> None:
        with explained(self._path), transaction(self._db):
            if not self.runs.is_own(run_id):
                raise LeaseError(
                    f"run {run_id!r} was taken over by another process, which may send its batch {number}"
                )
            if taken := self.take_out(run_id, number):
                self.lanes.give_back(run_id, *taken)

    def take_out(self, run_id: str, number: int) -> tuple[Seqs, bytes] | None:
        """Delete a batch in doubt. Returns the guests and the body of a lane's batch.

        The caller holds a transaction.
        """
        row = self._db.execute(
            "SELECT seqs FROM batches WHERE run_id = ? AND number = ? AND state = 'in_doubt'",
            (run_id, number),
        ).fetchone()
        if row is None:
            return None
        of_lane = None if row[0] is None else (Seqs.unpacked(row[0]), self.body(run_id, number))
        freed = self._db.execute(
            "DELETE FROM batches WHERE run_id = ? AND number = ? RETURNING slot, size", (run_id, number)
        ).fetchall()
        self._free(freed)
        return of_lane

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
        with readable(self._path, "the place of a batch"):
            for slot, size in starmap(check_place, slots):
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
            slot = next(slot for slot in count() if slot not in used)
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
            return {check_place(row[0])[0] for row in rows}

    def _take_over(self) -> None:
        with transaction(self._db):
            used = self._used_slots()
            self._bodies.adopt(used, is_new=self.runs.is_new())
            self._bodies.scrub(used)

    def _scrub(self) -> None:
        with transaction(self._db):
            self._bodies.scrub(self._used_slots())

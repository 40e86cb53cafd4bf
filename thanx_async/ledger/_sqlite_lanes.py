"""`LaneTable`, the lanes of a ledger file and their guests, in short SQL transactions."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from time import time
from typing import Protocol
from uuid import uuid4

import attrs

from thanx_async._batches import Positions, batch_key, digest_of
from thanx_async._core.errors import LedgerError
from thanx_async._core.sqlite import transaction
from thanx_async.identifiers import normalise_all
from thanx_async.ledger._lanes import (
    LANES,
    TARGET,
    Encode,
    Fate,
    GuestState,
    LaneReport,
    LaneView,
    NewGuest,
    Put,
    Seqs,
    fate_in,
    values_of,
)
from thanx_async.ledger._owner import Owner
from thanx_async.ledger._records import BatchRecord, RunRecord
from thanx_async.ledger._sqlite_runs import RUN_COLUMNS, RunTable, run_of
from thanx_async.ledger._sqlite_schema import explained, readable

_FORGETS_AT_ONCE = 1000


class BatchTable(Protocol):
    """What lanes need of the table of batches, in a transaction of theirs."""

    def insert(self, batch: BatchRecord, body: bytes, seqs: Seqs) -> None:
        """Insert a batch in doubt, with its body."""

    def take_out(self, run_id: str, number: int) -> tuple[Seqs, bytes] | None:
        """Delete a batch in doubt. Returns its guests and its body, None if there is no such batch."""

    def batches(self, run_id: str, where: str = "") -> list[BatchRecord]:
        """Batches of a run, ordered by number."""

    def placed(self, run_id: str, seq: int) -> tuple[BatchRecord, Seqs] | None:
        """The batch that a lane's guest is in."""


class LaneTable:
    """The lanes in one open ledger file. Methods named like those of `LaneLedger` do the same."""

    def __init__(self, db: sqlite3.Connection, path: Path, runs: RunTable, batches: BatchTable) -> None:
        self._db = db
        self._path = path
        self._runs = runs
        self._batches = batches
        self._numbers: dict[str, int] = {}

    def open(self, lane: RunRecord) -> tuple[RunRecord, int]:
        columns = ", ".join(f"r.{column}" for column in RUN_COLUMNS)
        same = " AND ".join(f"{column} = ?" for column in TARGET)
        query = f"SELECT lane, {columns} FROM runs AS r JOIN lanes USING (run_id) WHERE {same}"  # noqa: S608 - fixed
        wanted = [getattr(lane, column) for column in TARGET]
        with explained(self._path), transaction(self._db):
            row = self._db.execute(query, wanted).fetchone()
            if row is not None:
                return run_of(row[1:], self._path), row[0]
            created = attrs.evolve(lane, run_id=f"{LANES}{uuid4().hex}", created_at=time(), changed_at=time())
            self._runs.insert(created)
            return created, self._db.execute(
                "INSERT INTO lanes (run_id) VALUES (?) RETURNING lane", (created.run_id,)
            ).fetchone()[0]

    def number(self, run_id: str) -> int:
        """The number of a lane in the tables of guests."""
        if run_id not in self._numbers:
            with explained(self._path):
                row = self._db.execute("SELECT lane FROM lanes WHERE run_id = ?", (run_id,)).fetchone()
            if row is None:
                raise LedgerError(f"{self._path} has no lane {run_id!r}")
            self._numbers[run_id] = row[0]
        return self._numbers[run_id]

    def put(self, run_id: str, guests: Sequence[NewGuest]) -> list[Put]:
        lane, now = self.number(run_id), time()
        with explained(self._path), transaction(self._db):
            self._check_not_revoked(run_id)
            return [self._put_one(lane, guest, now) for guest in guests]

    def _put_one(self, lane: int, guest: NewGuest, now: float) -> Put:
        row = self._db.execute(
            "INSERT INTO guests (lane, id, digest, put_at) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
            " RETURNING seq",
            (lane, guest.id, guest.digest, now),
        ).fetchone()
        if row is not None:
            self._wait(lane, [(row[0], guest.value)])
            return Put.NEW
        known = self._db.execute("SELECT digest FROM guests WHERE id = ?", (guest.id,)).fetchone()
        return Put.KNOWN if known[0] == guest.digest else Put.REUSED

    def _wait(self, lane: int, guests: list[tuple[int, str]]) -> None:
        self._db.executemany(
            "INSERT INTO waiting (lane, seq, value) VALUES (?, ?, ?)",
            ((lane, seq, value) for seq, value in guests),
        )

    def _check_not_revoked(self, run_id: str) -> None:
        row = self._db.execute("SELECT revoked_at FROM runs WHERE run_id = ?", (run_id,)).fetchone()
        if row is None or row[0] is not None:
            raise LedgerError(f"the lane {run_id!r} was revoked: nothing more of it is issued")

    def view(self, run_id: str, most: int) -> LaneView:
        lane = self.number(run_id)
        with explained(self._path):
            count = self._db.execute(
                "SELECT count(*) FROM (SELECT 1 FROM waiting WHERE lane = ? LIMIT ?)", (lane, most)
            ).fetchone()[0]
            waited = self._waited(lane) if count else 0.0
            heard = self._heard(run_id)
        return LaneView(count, waited, heard)

    def _waited(self, lane: int) -> float:
        row = self._db.execute(
            "SELECT put_at FROM guests WHERE seq = (SELECT min(seq) FROM waiting WHERE lane = ?)", (lane,)
        ).fetchone()
        return max(0.0, time() - row[0]) if row else 0.0

    def _heard(self, run_id: str) -> tuple[str, ...]:
        query = "FROM heard WHERE job_id IN (SELECT job_id FROM batches WHERE run_id = ?)"
        if self._db.execute("SELECT 1 FROM heard LIMIT 1").fetchone() is None:
            return ()
        with transaction(self._db):
            rows = self._db.execute(f"DELETE {query} RETURNING job_id", (run_id,)).fetchall()
        return tuple(row[0] for row in rows)

    def cut(self, run_id: str, size: int, encode: Encode) -> tuple[BatchRecord, bytes] | None:
        lane, now = self.number(run_id), time()
        with explained(self._path), transaction(self._db):
            self._runs.renew(run_id, now)
            self._check_not_revoked(run_id)
            rows = self._db.execute(
                "SELECT seq, value FROM waiting WHERE lane = ? ORDER BY seq LIMIT ?", (lane, size)
            ).fetchall()
            taken = self._valid(lane, rows)
            if not taken:
                return None
            values, seqs = list(taken), Seqs.of(list(taken.values()))
            self._stop_waiting(lane, seqs)
            return self._record(run_id, seqs, encode(values), now)

    def _valid(self, lane: int, rows: list[tuple[int, str]]) -> dict[str, int]:
        """The guests to send, by value. Whoever is no identifier, as other programs may put, is rejected."""
        values, reasons = normalise_all([value for _, value in rows])
        taken: dict[str, int] = {}
        for index, ((seq, _), value) in enumerate(zip(rows, values, strict=True)):
            if index in reasons:
                self._end(lane, seq, GuestState.REJECTED, reasons[index])
            else:
                taken.setdefault(value, seq)
        return taken

    def _end(self, lane: int, seq: int, state: GuestState, reason: str | None) -> bool:
        """End the waiting of a guest, in the caller's transaction. Returns whether the guest still waited."""
        found = self._db.execute("DELETE FROM waiting WHERE lane = ? AND seq = ?", (lane, seq)).rowcount
        if found:
            self._db.execute("INSERT INTO ended VALUES (?, ?, ?)", (seq, state.value, reason))
        return bool(found)

    def _stop_waiting(self, lane: int, seqs: Seqs) -> None:
        self._db.executemany(
            "DELETE FROM waiting WHERE lane = ? AND seq BETWEEN ? AND ?",
            [(lane, start, start + length - 1) for start, length in seqs.ranges()],
        )

    def _record(self, run_id: str, seqs: Seqs, body: bytes, now: float) -> tuple[BatchRecord, bytes]:
        number = self._db.execute(
            "UPDATE lanes SET next_number = next_number + 1 WHERE run_id = ? RETURNING next_number - 1",
            (run_id,),
        ).fetchone()[0]
        positions = Positions(seqs.first, len(seqs))
        key, digest = batch_key(run_id, number), digest_of(body)
        batch = BatchRecord(run_id, number, key, positions, digest, recorded_at=now)
        self._batches.insert(batch, body, seqs)
        return batch, body

    def split(self, run_id: str, number: int, encode: Encode) -> None:
        with explained(self._path), transaction(self._db):
            self._runs.renew(run_id, time())
            found = self._batches.take_out(run_id, number)
            if found is None:
                raise LedgerError(f"batch {number} of lane {run_id!r} is not in doubt any more")
            seqs, body = found
            values = values_of(body)
            middle = len(values) // 2
            for part, half in zip(seqs.split(middle), (values[:middle], values[middle:]), strict=True):
                self._record(run_id, part, encode(half), time())

    def give_back(self, run_id: str, seqs: Seqs, body: bytes) -> None:
        """Let the guests of a batch wait again, in the caller's transaction."""
        self._wait(self.number(run_id), list(zip(seqs, values_of(body), strict=True)))

    def open_batches(self, run_id: str) -> list[BatchRecord]:
        return self._batches.batches(run_id, "AND state != 'finished'")

    def fate(self, run_id: str, guest: bytes, replay_within: float) -> Fate | None:
        with explained(self._path), transaction(self._db, "DEFERRED"):
            row = self._db.execute(
                "SELECT g.seq, w.seq IS NOT NULL, e.state, e.reason FROM guests AS g"
                " LEFT JOIN waiting AS w ON w.lane = g.lane AND w.seq = g.seq"
                " LEFT JOIN ended AS e ON e.seq = g.seq WHERE g.id = ?",
                (guest,),
            ).fetchone()
            if row is None:
                return None
            seq, waits, ended, reason = row
            with readable(self._path, f"guest {seq!r}"):
                if ended is not None:
                    return Fate(GuestState(ended), reason)
            if waits:
                return Fate(GuestState.WAITING)
            placed = self._batches.placed(run_id, seq)
        if placed is None:  # the batch is forgotten
            return None
        batch, seqs = placed
        return fate_in(batch, seqs.index(seq), replay_within)

    def cancel(self, run_id: str, guest: bytes) -> bool:
        lane = self.number(run_id)
        with explained(self._path), transaction(self._db):
            row = self._db.execute("SELECT seq FROM guests WHERE id = ?", (guest,)).fetchone()
            if row is None:
                return False
            return self._end(lane, row[0], GuestState.CANCELLED, None)

    def report(self, run_id: str, replay_within: float) -> LaneReport:
        lane, now = self.number(run_id), time()
        with explained(self._path), transaction(self._db, "DEFERRED"):
            waiting = self._db.execute("SELECT count(*) FROM waiting WHERE lane = ?", (lane,)).fetchone()[0]
            waited = self._waited(lane) if waiting else 0.0
            doubtful, held, accepted, rewards = self._db.execute(
                _COUNTS, (now - replay_within, run_id)
            ).fetchone()
            owner, until, note, noted_until = self._db.execute(
                "SELECT owner, owned_until, note, noted_until FROM runs JOIN lanes USING (run_id)"
                " WHERE run_id = ?",
                (run_id,),
            ).fetchone()
        return LaneReport(
            waiting,
            waited,
            doubtful - held,
            held,
            accepted,
            rewards,
            _owner(owner) if owner and until > now else None,
            note if noted_until > now else None,
        )

    def note(self, run_id: str, text: str | None, seconds: float) -> None:
        with explained(self._path), transaction(self._db):
            self._db.execute(
                "UPDATE lanes SET note = ?, noted_until = ? WHERE run_id = ?",
                (text, time() + seconds, run_id),
            )

    def hear(self, job_id: str) -> None:
        with explained(self._path), transaction(self._db):
            self._db.execute(
                "INSERT OR IGNORE INTO heard SELECT job_id FROM batches WHERE job_id = ?"
                " AND state = 'accepted' AND seqs IS NOT NULL",
                (job_id,),
            )

    def forget_guests(self, run_id: str, before: float) -> int:
        lane = self.number(run_id)
        with explained(self._path), transaction(self._db):
            self._db.execute(
                "DELETE FROM batches WHERE run_id = ? AND number IN (SELECT number FROM batches"
                " WHERE run_id = ? AND state = 'finished' AND recorded_at < ? LIMIT 100)",
                (run_id, run_id, before),
            )
            open_from = self._db.execute(
                "SELECT min(first) FROM batches WHERE run_id = ?", (run_id,)
            ).fetchone()[0]
            waiting_from = self._db.execute(
                "SELECT min(seq) FROM waiting WHERE lane = ?", (lane,)
            ).fetchone()[0]
            limit = min((seq for seq in (open_from, waiting_from) if seq is not None), default=2**63 - 1)
            seqs = self._db.execute(
                "DELETE FROM guests WHERE seq IN (SELECT seq FROM guests WHERE lane = ? AND seq < ?"
                " AND put_at < ? ORDER BY seq LIMIT ?) RETURNING seq",
                (lane, limit, before, _FORGETS_AT_ONCE),
            ).fetchall()
            self._db.executemany("DELETE FROM ended WHERE seq = ?", seqs)
        return len(seqs)


_COUNTS = """
    SELECT coalesce(sum(state = 'in_doubt'), 0),
        coalesce(sum(state = 'in_doubt' AND recorded_at < ?), 0),
        coalesce(sum(state = 'accepted'), 0),
        coalesce(sum(CASE WHEN state != 'finished' THEN count
            ELSE json_extract(CAST(outcome AS TEXT), '$.issued') END), 0)
    FROM batches WHERE run_id = ?
"""


def _owner(text: str) -> str | None:
    owner = Owner.unpacked(text)
    return None if owner.is_certainly_dead() else f"process {owner.pid} on {owner.host}"

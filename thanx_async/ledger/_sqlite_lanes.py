"""`LaneTable`, the lanes of a ledger file, in short SQL transactions."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from time import time
from typing import Protocol
from uuid import uuid4

import attrs

from thanx_async._batches import values_of
from thanx_async._core.errors import LedgerError
from thanx_async._core.sqlite import transaction
from thanx_async.ledger import _refusals as refusals
from thanx_async.ledger._lane_settings import with_settings
from thanx_async.ledger._lanes import (
    LANES,
    TARGET,
    Cut,
    Encode,
    Fate,
    GuestState,
    LaneReport,
    LaneView,
    NewGuest,
    Put,
    Seqs,
    fate_in,
    halves_of,
    new_cut,
)
from thanx_async.ledger._owner import Owner
from thanx_async.ledger._records import BatchRecord, RunRecord
from thanx_async.ledger._rows import RUN_FIELDS
from thanx_async.ledger._sqlite_guests import GuestTable, cancel_if_revoked
from thanx_async.ledger._sqlite_runs import RunTable, run_of
from thanx_async.ledger._sqlite_schema import explained, readable

_OPEN = f"""
    SELECT lane, {", ".join(f"r.{column}" for column in RUN_FIELDS)}
    FROM runs AS r JOIN lanes USING (run_id) WHERE {" AND ".join(f"{column} = ?" for column in TARGET)}
"""  # noqa: S608 - fixed columns
_CONFIGURE = """
    UPDATE runs SET keep_ids = coalesce(?, keep_ids), replay_within = coalesce(?, replay_within)
    WHERE run_id = ?
"""
_COUNTS = """
    SELECT coalesce(sum(state = 'in_doubt' AND NOT is_held), 0), coalesce(sum(is_held), 0),
        coalesce(sum(state = 'accepted' AND NOT is_held), 0)
    FROM (SELECT state,
            held IS NOT NULL OR (state = 'in_doubt' AND recorded_at < :now - replay_within) AS is_held
        FROM batches JOIN runs USING (run_id) WHERE run_id = :run_id AND state != 'finished')
"""
_REWARDS = """
    SELECT issued + (SELECT coalesce(sum(count), 0) FROM batches AS b
        WHERE b.run_id = lanes.run_id AND state != 'finished')
    FROM lanes WHERE run_id = ?
"""
_ISSUED = """
    UPDATE lanes SET issued = issued + :issued - coalesce(
        (SELECT coalesce(json_extract(CAST(outcome AS TEXT), '$.issued'), 0) FROM batches AS b
        WHERE b.run_id = lanes.run_id AND number = :number), :issued)
    WHERE run_id = :run_id
"""
_OWNER = """
    SELECT owner, owned_until, note, noted_until FROM runs JOIN lanes USING (run_id) WHERE run_id = ?
"""
_HEARD = """
    DELETE FROM heard WHERE (SELECT run_id FROM batches AS b WHERE b.job_id = heard.job_id) = ?
    RETURNING job_id
"""
_FORGET = """
    DELETE FROM batches WHERE run_id = ? AND number IN (SELECT number FROM batches
        WHERE run_id = ? AND state = 'finished' AND recorded_at < ? LIMIT 100)
"""


class BatchTable(Protocol):
    """What lanes need of the table of batches, in a transaction of theirs."""

    def insert(self, batch: BatchRecord, body: bytes, seqs: Seqs | None = None) -> None:
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
        self._guests = GuestTable(db)
        self._numbers: dict[str, int] = {}

    def open(self, lane: RunRecord) -> tuple[RunRecord, int]:
        """See `LaneLedger.open_lane`."""
        with explained(self._path), transaction(self._db):
            row = self._db.execute(_OPEN, [getattr(lane, column) for column in TARGET]).fetchone()
            if row is not None:
                found = run_of(row[1:], self._path)
                known = with_settings(found, lane)
                if known != found:
                    self._configure(known.run_id, known.keep_ids, known.replay_within)
                return known, row[0]
            now = time()
            created = attrs.evolve(lane, run_id=f"{LANES}{uuid4().hex}", created_at=now, changed_at=now)
            created = with_settings(created, lane)
            self._runs.insert(created)
            self._db.execute("INSERT INTO lanes (run_id) VALUES (?)", (created.run_id,))
            return created, self._number(created.run_id)

    def configure(self, run_id: str, keep_ids: float | None, replay_within: float | None) -> None:
        """See `LaneLedger.configure`."""
        with explained(self._path), transaction(self._db):
            self._configure(run_id, keep_ids, replay_within)

    def _configure(self, run_id: str, keep_ids: float | None, replay_within: float | None) -> None:
        self._db.execute(_CONFIGURE, (keep_ids, replay_within, run_id))

    def _number(self, run_id: str) -> int:
        """The number of a lane in the tables of guests. The caller holds a transaction."""
        if run_id not in self._numbers:
            row = self._db.execute("SELECT lane FROM lanes WHERE run_id = ?", (run_id,)).fetchone()
            if row is None:
                raise LedgerError(f"{self._path} has no lane {run_id!r}")
            self._numbers[run_id] = row[0]
        return self._numbers[run_id]

    def put(self, run_id: str, guests: Sequence[NewGuest]) -> list[Put]:
        with explained(self._path), transaction(self._db):
            self._check_not_revoked(run_id)
            lane, now = self._number(run_id), time()
            return [self._guests.put(lane, guest, now) for guest in guests]

    def _check_not_revoked(self, run_id: str) -> None:
        row = self._db.execute("SELECT revoked_at FROM runs WHERE run_id = ?", (run_id,)).fetchone()
        if row is None or row[0] is not None:
            raise refusals.revoked(run_id)

    def view(self, run_id: str, most: int) -> LaneView:
        with explained(self._path), transaction(self._db, "DEFERRED"):
            lane = self._number(run_id)
            count = self._guests.waiting(lane, most)
            waited = self._guests.waited(lane) if count else 0.0
            any_heard = self._db.execute("SELECT 1 FROM heard LIMIT 1").fetchone()
        return LaneView(count, waited, self._take_heard(run_id) if any_heard else ())

    def _take_heard(self, run_id: str) -> tuple[str, ...]:
        with explained(self._path), transaction(self._db):
            return tuple(row[0] for row in self._db.execute(_HEARD, (run_id,)).fetchall())

    def cut(self, run_id: str, size: int, encode: Encode) -> Cut | None:
        with explained(self._path), transaction(self._db):
            self._runs.renew(run_id, time())
            self._check_not_revoked(run_id)
            taken = self._guests.take(self._number(run_id), size)
            if taken is None:
                return None
            values, seqs = taken
            return self._record(run_id, seqs, encode(values))

    def _record(self, run_id: str, seqs: Seqs, body: bytes) -> Cut:
        number = self._db.execute(
            "UPDATE lanes SET next_number = next_number + 1 WHERE run_id = ? RETURNING next_number - 1",
            (run_id,),
        ).fetchall()[0][0]
        cut = new_cut(run_id, number, seqs, body)
        self._batches.insert(cut.batch, body, seqs)
        return cut

    def split(self, run_id: str, number: int, encode: Encode) -> list[Cut]:
        with explained(self._path), transaction(self._db):
            self._runs.renew(run_id, time())
            found = self._batches.take_out(run_id, number)
            if found is None:
                raise refusals.not_in_doubt(run_id, number)
            return [self._record(run_id, part, encode(half)) for part, half in halves_of(*found)]

    def give_back(self, run_id: str, seqs: Seqs, body: bytes) -> None:
        """Let guests of a batch wait again, unless the lane was revoked. The caller holds a transaction."""
        self._guests.wait_again(self._number(run_id), seqs, values_of(body))
        cancel_if_revoked(self._db, run_id)

    def open_batches(self, run_id: str) -> list[BatchRecord]:
        return self._batches.batches(run_id, "AND state != 'finished'")

    def fate(self, run_id: str, guest: bytes) -> Fate | None:
        with explained(self._path), transaction(self._db, "DEFERRED"):
            found = self._guests.find(guest)
            if found is None:
                return None
            seq, waits, ended, reason = found
            if ended is not None:
                with readable(self._path, f"guest {seq!r}"):
                    return Fate(GuestState(ended), reason)
            placed = None if waits else self._batches.placed(run_id, seq)
            query = "SELECT replay_within FROM runs WHERE run_id = ?"
            (replay_within,) = self._db.execute(query, (run_id,)).fetchone()
        if placed is None:  # otherwise the batch is forgotten
            return Fate(GuestState.WAITING) if waits else None
        batch, seqs = placed
        return fate_in(batch, seqs.index(seq), replay_within)

    def cancel(self, run_id: str, guest: bytes) -> bool:
        with explained(self._path), transaction(self._db):
            found = self._guests.find(guest)
            if found is None:
                return False
            return self._guests.end(self._number(run_id), found[0], GuestState.CANCELLED, None)

    def report(self, run_id: str) -> LaneReport:
        now = time()
        with explained(self._path), transaction(self._db, "DEFERRED"):
            lane = self._number(run_id)
            waiting, waited = self._guests.waiting(lane), self._guests.waited(lane)
            counts = self._db.execute(_COUNTS, {"now": now, "run_id": run_id}).fetchone()
            owner, until, note, noted_until = self._db.execute(_OWNER, (run_id,)).fetchone()
        in_doubt, held, accepted = counts
        return LaneReport(
            waiting=waiting,
            waited=waited,
            in_doubt=in_doubt,
            held=held,
            accepted=accepted,
            owner=Owner.living(owner if until > now else None),
            note=note if noted_until > now else None,
        )

    def rewards(self, run_id: str) -> int:
        with explained(self._path):
            count: int = self._db.execute(_REWARDS, (run_id,)).fetchone()[0]
        return count

    def count_issued(self, run_id: str, number: int, issued: int) -> None:
        """Count the rewards of a batch that is about to be finished, or finished anew.

        Nothing is counted for a run that is no lane. The caller holds a transaction.
        """
        self._db.execute(_ISSUED, {"run_id": run_id, "number": number, "issued": issued})

    def note(self, run_id: str, text: str | None, seconds: float) -> None:
        with explained(self._path), transaction(self._db):
            self._db.execute(
                "UPDATE lanes SET note = ?, noted_until = ? WHERE run_id = ?",
                (text, time() + seconds, run_id),
            )

    def hear(self, job_id: str) -> None:
        with explained(self._path), transaction(self._db):
            self.heard(job_id)

    def heard(self, job_id: str) -> None:
        """Take in news of a job. The caller holds a transaction."""
        self._db.execute(
            "INSERT OR IGNORE INTO heard SELECT job_id FROM batches WHERE job_id = ?"
            " AND state = 'accepted' AND seqs IS NOT NULL",
            (job_id,),
        )

    def forget_guests(self, run_id: str, before: float) -> int:
        with explained(self._path), transaction(self._db):
            self._db.execute(_FORGET, (run_id, run_id, before))
            query = "SELECT min(first) FROM batches WHERE run_id = ? AND seqs IS NOT NULL"
            first_open = self._db.execute(query, (run_id,)).fetchone()[0]
            return self._guests.forget(self._number(run_id), before, first_open)

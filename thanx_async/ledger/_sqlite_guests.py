"""`GuestTable`, the guests of all lanes in a ledger file: their ids, and the values of those who wait."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from time import time

from thanx_async.identifiers import normalise_all
from thanx_async.ledger._lanes import REVOKED, GuestState, NewGuest, Put, Seqs

_FORGETS_AT_ONCE = 1000


def cancel_if_revoked(db: sqlite3.Connection, run_id: str) -> None:
    """Cancel the guests who wait in a lane, if the lane was revoked. The caller holds a transaction."""
    lane = db.execute(
        "SELECT lane FROM lanes JOIN runs USING (run_id) WHERE run_id = ? AND revoked_at IS NOT NULL",
        (run_id,),
    ).fetchone()
    if lane is not None:
        cancelled = (GuestState.CANCELLED.value, REVOKED, *lane)
        db.execute("INSERT INTO ended SELECT seq, ?, ? FROM waiting WHERE lane = ?", cancelled)
        db.execute("DELETE FROM waiting WHERE lane = ?", lane)


class GuestTable:
    """The guests in one open ledger file. The caller holds a transaction.

    Lanes are given by their numbers, and guests by the numbers that they get when they are put.
    """

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def put(self, lane: int, guest: NewGuest, now: float) -> Put:
        """Put a guest, unless the id is known."""
        row = self._db.execute(
            "INSERT INTO guests (lane, id, digest, put_at) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
            " RETURNING seq",
            (lane, guest.id, guest.digest, now),
        ).fetchone()
        if row is not None:
            self._db.execute("INSERT INTO waiting VALUES (?, ?, ?)", (lane, row[0], guest.value))
            return Put.NEW
        known = self._db.execute("SELECT digest FROM guests WHERE id = ?", (guest.id,)).fetchone()
        return Put.KNOWN if known[0] == guest.digest else Put.REUSED

    def wait_again(self, lane: int, seqs: Seqs, values: Sequence[str]) -> None:
        """Let guests wait again."""
        guests = zip(seqs, values, strict=True)
        self._db.executemany("INSERT INTO waiting VALUES (?, ?, ?)", [(lane, *guest) for guest in guests])

    def waiting(self, lane: int, most: int = -1) -> int:
        """The number of guests who wait, counted up to ``most``; -1 for all of them."""
        query = "SELECT count(*) FROM (SELECT 1 FROM waiting WHERE lane = ? LIMIT ?)"
        count: int = self._db.execute(query, (lane, most)).fetchone()[0]
        return count

    def waited(self, lane: int) -> float:
        """For how many seconds the oldest guest has waited; 0 if nobody waits."""
        row = self._db.execute(
            "SELECT put_at FROM guests WHERE seq = (SELECT min(seq) FROM waiting WHERE lane = ?)", (lane,)
        ).fetchone()
        return max(0.0, time() - row[0]) if row else 0.0

    def take(self, lane: int, size: int) -> tuple[list[str], Seqs] | None:
        """Take out the guests who have waited longest, each value once. The values are returned in order.

        Whoever is no identifier, as another program may put, is rejected.
        """
        rows = self._db.execute(
            "SELECT seq, value FROM waiting WHERE lane = ? ORDER BY seq LIMIT ?", (lane, size)
        ).fetchall()
        values, reasons = normalise_all([value for _, value in rows])
        taken: dict[str, int] = {}
        for index, ((seq, _), value) in enumerate(zip(rows, values, strict=True)):
            if index in reasons:
                self.end(lane, seq, GuestState.REJECTED, reasons[index])
            else:
                taken.setdefault(value, seq)
        if not taken:
            return None
        seqs = Seqs.of(list(taken.values()))
        self._db.executemany(
            "DELETE FROM waiting WHERE lane = ? AND seq BETWEEN ? AND ?",
            [(lane, start, start + length - 1) for start, length in seqs.ranges()],
        )
        return list(taken), seqs

    def end(self, lane: int, seq: int, state: GuestState, reason: str | None) -> bool:
        """End the waiting of a guest. Returns whether the guest still waited."""
        found = self._db.execute("DELETE FROM waiting WHERE lane = ? AND seq = ?", (lane, seq)).rowcount
        if found:
            self._db.execute("INSERT INTO ended VALUES (?, ?, ?)", (seq, state.value, reason))
        return bool(found)

    def find(self, guest: bytes) -> tuple[int, bool, str | None, str | None] | None:
        """The number of the guest with this id, whether the guest waits, and how and why the wait ended."""
        row = self._db.execute(
            "SELECT g.seq, w.seq IS NOT NULL, e.state, e.reason FROM guests AS g"
            " LEFT JOIN waiting AS w ON w.lane = g.lane AND w.seq = g.seq"
            " LEFT JOIN ended AS e ON e.seq = g.seq WHERE g.id = ?",
            (guest,),
        ).fetchone()
        return None if row is None else (row[0], bool(row[1]), row[2], row[3])

    def forget(self, lane: int, before: float, first_open: int | None) -> int:
        """Delete some of the guests who were put before a time. Returns how many.

        Args:
            lane: the lane's number.
            before: the time, in seconds since 1970.
            first_open: the first guest in a batch that is kept.
        """
        waiting = self._db.execute("SELECT min(seq) FROM waiting WHERE lane = ?", (lane,)).fetchone()[0]
        limit = min((seq for seq in (first_open, waiting) if seq is not None), default=2**63 - 1)
        seqs = self._db.execute(
            "DELETE FROM guests WHERE seq IN (SELECT seq FROM guests WHERE lane = ? AND seq < ?"
            " AND put_at < ? ORDER BY seq LIMIT ?) RETURNING seq",
            (lane, limit, before, _FORGETS_AT_ONCE),
        ).fetchall()
        self._db.executemany("DELETE FROM ended WHERE seq = ?", seqs)
        return len(seqs)

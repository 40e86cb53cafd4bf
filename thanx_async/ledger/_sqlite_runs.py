"""`RunTable`, the table of runs, and the lease by which one process at a time works on a run."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from time import time
from types import UnionType

import attrs

from thanx_async._core.errors import LeaseError, LedgerError
from thanx_async._core.sqlite import transaction
from thanx_async.ledger import _refusals as refusals
from thanx_async.ledger._owner import Owner
from thanx_async.ledger._records import RunRecord
from thanx_async.ledger._rows import RUN_COLUMNS, RUN_FIELDS
from thanx_async.ledger._sqlite_guests import cancel_if_revoked
from thanx_async.ledger._sqlite_schema import explained, readable

LEASE = 300.0
"""How long a claim lasts unless renewed, in seconds. An open `SQLiteLedger` renews its claims."""

_NOT_FORGOTTEN = "run_id NOT IN (SELECT run_id FROM forgotten)"


class RunTable:
    """The runs in one open ledger file. Methods named like those of `Ledger` do the same.

    A run that this process has given up may still be claimed in the file, if that could not be written. The
    claims of such runs are kept, so that they are in nobody's way, and released later.
    """

    def __init__(self, db: sqlite3.Connection, path: Path) -> None:
        self._db = db
        self._path = path
        self._owners: dict[str, str] = {}
        self._given_up: dict[str, str] = {}

    def claim(self, run: RunRecord) -> RunRecord:
        """See `Ledger.claim`."""
        owner = Owner.new().packed()
        try:
            known = self._claim(run, owner)
        except LeaseError:
            raise
        except LedgerError:
            self._given_up[owner] = run.run_id  # the commit may have taken effect
            raise
        self._owners[run.run_id] = owner
        return known

    def _claim(self, run: RunRecord, owner: str) -> RunRecord:
        now = time()
        with explained(self._path), transaction(self._db):
            self._check_not_forgotten(run.run_id)
            known = self.find(run.run_id)
            if known is not None and self._may_change(known, run):
                self._check_free(run.run_id, now)
                self._db.execute("DELETE FROM runs WHERE run_id = ?", (run.run_id,))
                known = None
            if known is None:
                known = attrs.evolve(run, created_at=now, changed_at=now)
                self.insert(known)
            elif differences := run.differences(known):
                raise refusals.other_settings(run.run_id, differences)
            self._check_free(run.run_id, now)
            self._set_owner(run.run_id, owner, now + LEASE)
        return known

    def insert(self, run: RunRecord) -> None:
        """Insert a run. The caller holds a transaction."""
        placeholders = ", ".join("?" * len(RUN_FIELDS))
        self._db.execute(
            f"INSERT INTO runs ({RUN_COLUMNS}) VALUES ({placeholders})",  # noqa: S608 - fixed columns
            attrs.astuple(run),
        )

    def _may_change(self, known: RunRecord, run: RunRecord) -> bool:
        """Whether the run takes over new settings, since it has no batches, as after a wrong campaign."""
        query = "SELECT 1 FROM batches WHERE run_id = ? LIMIT 1"
        return run.would_change(known) and self._db.execute(query, (run.run_id,)).fetchone() is None

    def _check_not_forgotten(self, run_id: str) -> None:
        row = self._db.execute("SELECT ended_at FROM forgotten WHERE run_id = ?", (run_id,)).fetchone()
        if row is not None:
            raise refusals.forgotten(run_id, row[0])

    def _check_free(self, run_id: str, now: float) -> None:
        text, until = self._owner(run_id)
        with readable(self._path, f"the lease of run {run_id!r}"):
            if text is None or until <= now or text in self._given_up:
                return
            if (owner := Owner.unpacked(text)).is_certainly_dead():
                return
        raise refusals.in_use(run_id, owner, until - now)

    def _owner(self, run_id: str) -> tuple[str | None, float]:
        row = self._db.execute("SELECT owner, owned_until FROM runs WHERE run_id = ?", (run_id,)).fetchone()
        return row or (None, 0.0)

    def _set_owner(self, run_id: str, owner: str | None, until: float) -> None:
        self._db.execute(
            "UPDATE runs SET owner = ?, owned_until = ? WHERE run_id = ?", (owner, until, run_id)
        )

    def release(self, run_id: str) -> None:
        self._give_up(run_id)
        self._release_given_up()

    def _give_up(self, *run_ids: str) -> None:
        for run_id in run_ids:
            if (owner := self._owners.pop(run_id, None)) is not None:
                self._given_up[owner] = run_id

    def _release_given_up(self) -> None:
        if not self._given_up:
            return
        with explained(self._path), transaction(self._db):
            for owner, run_id in self._given_up.items():
                if self._owner(run_id)[0] == owner:
                    self._set_owner(run_id, None, 0.0)
        self._given_up.clear()

    def release_all(self) -> None:
        """Release all runs of this process."""
        self._give_up(*self._owners)
        self._release_given_up()

    def is_new(self) -> bool:
        """Whether no run was ever recorded."""
        query = "SELECT 1 FROM runs UNION ALL SELECT 1 FROM forgotten LIMIT 1"
        return self._db.execute(query).fetchone() is None

    def find(self, run_id: str) -> RunRecord | None:
        with explained(self._path):
            rows = self._db.execute(
                f"SELECT {RUN_COLUMNS} FROM runs WHERE run_id = ? AND {_NOT_FORGOTTEN}",  # noqa: S608 - fixed columns
                (run_id,),
            ).fetchall()
        return run_of(rows[0], self._path) if rows else None

    def all(self) -> list[RunRecord]:
        with explained(self._path):
            rows = self._db.execute(
                f"SELECT {RUN_COLUMNS} FROM runs WHERE {_NOT_FORGOTTEN} ORDER BY created_at, run_id"  # noqa: S608 - fixed columns
            ).fetchall()
        return [run_of(row, self._path) for row in rows]

    def save(self, run: RunRecord) -> None:
        with explained(self._path), transaction(self._db):
            self._db.execute(
                "UPDATE runs SET total = ?, batches = ?, revoked_at = COALESCE(?, revoked_at), changed_at = ?"
                " WHERE run_id = ?",
                (run.total, run.batches, run.revoked_at, time(), run.run_id),
            )
            cancel_if_revoked(self._db, run.run_id)

    def is_own(self, run_id: str) -> bool:
        """Whether this process still has the run's lease. The caller holds a transaction."""
        owner, _ = self._owner(run_id)
        return owner is not None and owner == self._owners.get(run_id)

    def renew_all(self) -> None:
        """Renew all leases that this process still has, and release what it has given up."""
        self._release_given_up()
        if not self._owners:
            return
        now = time()
        with explained(self._path), transaction(self._db):
            for run_id, owner in self._owners.items():
                if self.is_own(run_id):
                    self._set_owner(run_id, owner, now + LEASE)

    def renew(self, run_id: str, now: float) -> None:
        """Renew the run's lease if it is due. The caller holds a transaction.

        Raises:
            LedgerError: another process has taken over the run.
        """
        owner, until = self._owner(run_id)
        if not self.is_own(run_id):
            raise refusals.taken_over(run_id)
        if until < now + LEASE / 2:
            self._set_owner(run_id, owner, now + LEASE)


def run_of(row: tuple[object, ...], path: Path) -> RunRecord:
    """The run in a row of the table."""
    fields = dict(zip(RUN_FIELDS, row, strict=True))
    with readable(path, f"run {fields['run_id']!r}"):
        if not all(isinstance(value, _KINDS.get(name, str)) for name, value in fields.items()):
            raise TypeError
    fields["deduplicate"] = bool(fields["deduplicate"])
    return RunRecord(**fields)  # type: ignore[arg-type]  # the columns are named and typed as the fields


_KINDS: dict[str, type | UnionType] = {
    "batch_size": int,
    "deduplicate": int,
    "canary": int | None,
    "created_at": float,
    "changed_at": float,
    "total": int | None,
    "batches": int | None,
    "revoked_at": float | None,
    "keep_ids": float | None,
    "replay_within": float | None,
}

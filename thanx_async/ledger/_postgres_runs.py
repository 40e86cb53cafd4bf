"""The runs of a ledger in PostgreSQL, and the lease by which one process at a time works on a run."""

from __future__ import annotations

from collections.abc import Sequence
from time import time

import attrs

from thanx_async._core.postgres_connection import Connection, Row
from thanx_async.ledger import _refusals as refusals
from thanx_async.ledger._owner import Owner
from thanx_async.ledger._records import RunProgress, RunRecord
from thanx_async.ledger._rows import RUN_COLUMNS, RUN_FIELDS

LEASE = 30
"""How long a claim lasts unless renewed, in seconds. An open `PostgresLedger` renews its claims."""

_VALUES = ", ".join(f"${number}" for number in range(1, len(RUN_FIELDS) + 1))
_SELECT = f"SELECT {RUN_COLUMNS} FROM thanx.runs"  # noqa: S608 - fixed columns
_NOT_FORGOTTEN = "NOT EXISTS (SELECT FROM thanx.forgotten AS f WHERE f.run_id = runs.run_id)"
_OWNER = """
    SELECT owner, extract(epoch FROM owned_until - clock_timestamp())::float8 AS remaining
    FROM thanx.runs WHERE run_id = $1 FOR UPDATE
"""
_LEASE = f"UPDATE thanx.runs SET owner = $2, owned_until = clock_timestamp() + interval '{LEASE} s'"  # noqa: S608 - fixed
_PROGRESS = f"""
    SELECT {", ".join(f"runs.{column}" for column in RUN_FIELDS)},
        count(*) FILTER (WHERE b.state = 'in_doubt') AS in_doubt,
        count(*) FILTER (WHERE b.state = 'accepted') AS accepted,
        count(*) FILTER (WHERE b.state = 'finished') AS finished,
        coalesce(sum(b.issued), 0)::bigint AS issued,
        count(*) FILTER (WHERE b.job_id IS NOT NULL AND NOT b.is_revoked AND coalesce(b.issued, 1) > 0)
            AS to_take_back
    FROM thanx.runs AS runs LEFT JOIN thanx.batches AS b USING (run_id)
    WHERE {_NOT_FORGOTTEN} GROUP BY runs.run_id ORDER BY runs.created_at, runs.run_id
"""  # noqa: S608 - fixed columns


class Runs:
    """The runs that one process works on. Each method with a connection is part of the caller's transaction.

    Attributes:
        owners: by run, the claim under which this process works on it.
        given_up: the runs of claims under which this process works no more, by claim. The database may still
            have them, if the commit failed that took them or gave them back.
    """

    def __init__(self) -> None:
        self.owners: dict[str, str] = {}
        self.given_up: dict[str, str] = {}

    def give_up(self, *run_ids: str) -> None:
        """Work on these runs no more."""
        for run_id in run_ids:
            if (owner := self.owners.pop(run_id, None)) is not None:
                self.given_up[owner] = run_id

    async def claim(self, connection: Connection, run: RunRecord, owner: str) -> RunRecord:
        """See `Ledger.claim`. Note ``owner`` in `owners` after the commit."""
        now = time()
        created = attrs.evolve(run, created_at=now, changed_at=now)
        await self.insert(connection, created)
        await self._check_free(connection, run.run_id)  # locks the run, so that it is not forgotten meanwhile
        await self._check_not_forgotten(connection, run.run_id)
        known = await self.find(connection, run.run_id)
        assert known is not None  # noqa: S101 - it was inserted, or there already
        if known != created and await self._may_change(connection, known, run):
            known = created
            await self._replace(connection, created)
        elif differences := run.differences(known):
            raise refusals.other_settings(run.run_id, differences)
        await connection.execute(f"{_LEASE} WHERE run_id = $1", run.run_id, owner)
        return known

    async def insert(self, connection: Connection, run: RunRecord) -> None:
        """Insert a run, unless there is one with this id."""
        await connection.execute(
            f"INSERT INTO thanx.runs ({RUN_COLUMNS}) VALUES ({_VALUES}) ON CONFLICT DO NOTHING",  # noqa: S608 - fixed columns
            *attrs.astuple(run),
        )

    async def _replace(self, connection: Connection, run: RunRecord) -> None:
        pairs = ", ".join(f"{column} = ${number}" for number, column in enumerate(RUN_FIELDS, 1))
        await connection.execute(
            f"UPDATE thanx.runs SET {pairs} WHERE run_id = $1",  # noqa: S608 - fixed columns
            *attrs.astuple(run),
        )

    async def _may_change(self, connection: Connection, known: RunRecord, run: RunRecord) -> bool:
        """Whether the run takes over new settings, since it has no batches, as after a wrong campaign."""
        query = "SELECT EXISTS (SELECT FROM thanx.batches WHERE run_id = $1)"
        return run.would_change(known) and not await connection.fetchval(query, run.run_id)

    async def _check_not_forgotten(self, connection: Connection, run_id: str) -> None:
        query = "SELECT ended_at FROM thanx.forgotten WHERE run_id = $1"
        if (ended_at := await connection.fetchval(query, run_id)) is not None:
            raise refusals.forgotten(run_id, ended_at)

    async def _check_free(self, connection: Connection, run_id: str) -> None:
        row = await connection.fetchrow(_OWNER, run_id)
        text = row["owner"] if row else None
        if row is None or text is None or row["remaining"] <= 0:
            return
        owner = Owner.unpacked(text)
        if text not in self.given_up and not owner.is_certainly_dead():
            raise refusals.in_use(run_id, owner, row["remaining"])

    async def check_own(self, connection: Connection, run_id: str) -> None:
        """Lock the run, and renew its lease.

        Raises:
            LeaseError: another process has taken over the run.
        """
        row = await connection.fetchrow(_OWNER, run_id)
        owner = self.owners.get(run_id)
        if row is None or owner is None or row["owner"] != owner:
            raise refusals.taken_over(run_id)
        if row["remaining"] < LEASE / 2:
            await connection.execute(f"{_LEASE} WHERE run_id = $1", run_id, owner)

    async def renew_all(self, connection: Connection) -> None:
        """Renew all leases that this process still has."""
        for run_id, owner in list(self.owners.items()):
            await connection.execute(f"{_LEASE} WHERE run_id = $1 AND owner = $2", run_id, owner)

    async def release(self, connection: Connection, owners: Sequence[str]) -> None:
        """Let other processes claim the runs that were given up with these claims."""
        await connection.executemany(
            "UPDATE thanx.runs SET owner = NULL, owned_until = NULL WHERE run_id = $1 AND owner = $2",
            [(self.given_up[owner], owner) for owner in owners],
        )

    async def find(self, connection: Connection, run_id: str) -> RunRecord | None:
        """The run with this id, or None."""
        row = await connection.fetchrow(f"{_SELECT} AS runs WHERE run_id = $1 AND {_NOT_FORGOTTEN}", run_id)
        return None if row is None else run_in(row)

    async def all(self, connection: Connection) -> list[RunRecord]:
        """All runs, oldest first."""
        rows = await connection.fetch(f"{_SELECT} AS runs WHERE {_NOT_FORGOTTEN} ORDER BY created_at, run_id")
        return [run_in(row) for row in rows]

    async def progress(self, connection: Connection) -> list[RunProgress]:
        """The progress of all runs, oldest first."""
        return [
            RunProgress(
                run_in(row),
                row["in_doubt"],
                row["accepted"],
                row["finished"],
                row["issued"],
                row["to_take_back"],
            )
            for row in await connection.fetch(_PROGRESS)
        ]

    async def save(self, connection: Connection, run: RunRecord) -> None:
        """See `Ledger.save_run`."""
        await connection.execute(
            "UPDATE thanx.runs SET total = $2, batches = $3, revoked_at = coalesce($4, revoked_at),"
            " changed_at = $5 WHERE run_id = $1",
            run.run_id,
            run.total,
            run.batches,
            run.revoked_at,
            time(),
        )


def run_in(row: Row) -> RunRecord:
    """The run in a row of the table."""
    return RunRecord(**{column: row[column] for column in RUN_FIELDS})

"""`PostgresLanes`, a ledger with lanes in PostgreSQL, for `PostgresOutbox`."""

from __future__ import annotations

from collections.abc import Sequence
from time import time
from uuid import uuid4

import attrs
import orjson

from thanx_async._batches import BatchOutcome
from thanx_async._core.errors import LedgerError
from thanx_async._core.escaping import get_logger
from thanx_async._core.postgres_connection import Connection
from thanx_async._core.tasks import to_its_end
from thanx_async.ledger import _postgres_batches as batches
from thanx_async.ledger import _postgres_choices as choices
from thanx_async.ledger import _postgres_guests as guests
from thanx_async.ledger import _postgres_reports as reports
from thanx_async.ledger import _refusals as refusals
from thanx_async.ledger._choices import Choose, Ranges
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
    Settlement,
    halves_of,
    new_cut,
)
from thanx_async.ledger._postgres import PostgresLedger
from thanx_async.ledger._postgres_runs import run_in
from thanx_async.ledger._records import BatchRecord, RunRecord

_log = get_logger("thanx_async.ledger")

_OPEN = "SELECT lane, runs.* FROM thanx.lanes JOIN thanx.runs USING (run_id) WHERE target = $1"
_INSERT = "INSERT INTO thanx.lanes (run_id, target) VALUES ($1, $2) ON CONFLICT (target) DO NOTHING"
_CONFIGURE = """
    UPDATE thanx.runs SET keep_ids = coalesce($2, keep_ids), replay_within = coalesce($3, replay_within)
    WHERE run_id = $1
"""
_NOTE = """
    UPDATE thanx.lanes SET note = $2, noted_until = clock_timestamp() + make_interval(secs => $3)
    WHERE run_id = $1
"""
_NUMBER = "UPDATE thanx.lanes SET next_number = next_number + 1 WHERE run_id = $1 RETURNING next_number - 1"
_HEARD = """
    DELETE FROM thanx.heard
    WHERE $1 = (SELECT run_id FROM thanx.batches AS b WHERE b.job_id = heard.job_id LIMIT 1) RETURNING job_id
"""
_HEAR = """
    INSERT INTO thanx.heard SELECT job_id FROM thanx.batches
    WHERE job_id = $1 AND state = 'accepted' AND seqs IS NOT NULL ON CONFLICT DO NOTHING
"""
_FORGET = """
    DELETE FROM thanx.batches WHERE (run_id, number) IN (SELECT run_id, number FROM thanx.batches
        WHERE run_id = $1 AND state = 'finished' AND recorded_at < $2 LIMIT 100)
"""
_VACUUMS_FROM = 50_000
_ROW = 75  # bytes of a waiting guest, without the index


class PostgresLanes(PostgresLedger):
    """A `PostgresLedger` that is a `LaneLedger` as well. Methods do what the protocol says."""

    _taken = 0  # since the last vacuum

    async def open_lane(self, lane: RunRecord) -> tuple[RunRecord, int]:
        """The lane with this target, and its number."""
        return await to_its_end(self._open_lane(lane))

    async def _open_lane(self, lane: RunRecord) -> tuple[RunRecord, int]:
        target = orjson.dumps([getattr(lane, name) for name in TARGET]).decode()
        async with self._transaction(durable=True) as connection:
            row = await connection.fetchrow(_OPEN, target)
            if row is None:
                now = time()
                run = attrs.evolve(lane, run_id=f"{LANES}{uuid4().hex}", created_at=now, changed_at=now)
                run = with_settings(run, lane)
                await self._runs.insert(connection, run)
                if await connection.execute(_INSERT, run.run_id, target) == "INSERT 0 0":
                    await connection.execute("DELETE FROM thanx.runs WHERE run_id = $1", run.run_id)
                row = await connection.fetchrow(_OPEN, target)
            assert row is not None  # noqa: S101 - it was there, or inserted by this process or another
            found, known = run_in(row), with_settings(run_in(row), lane)
            if found != known:
                await connection.execute(_CONFIGURE, known.run_id, known.keep_ids, known.replay_within)
            return known, row["lane"]

    async def configure(self, run_id: str, *, keep_ids: float | None, replay_within: float | None) -> None:
        """Change settings of a lane."""
        await to_its_end(self._configure(run_id, keep_ids, replay_within))

    async def _configure(self, run_id: str, keep_ids: float | None, replay_within: float | None) -> None:
        async with self._transaction(durable=True) as connection:
            await connection.execute(_CONFIGURE, run_id, keep_ids, replay_within)

    async def put(self, run_id: str, new: Sequence[NewGuest]) -> list[Put]:
        """Put guests into a lane."""
        return await to_its_end(self._put(run_id, new))

    async def _put(self, run_id: str, new: Sequence[NewGuest]) -> list[Put]:
        async with self._transaction() as connection:
            lane = await self._lane(connection, run_id, to_change=True)
            return await guests.put(connection, lane, new)

    async def _lane(self, connection: Connection, run_id: str, *, to_change: bool = False) -> int:
        """The number of a lane, which must not be revoked if it is to be changed."""
        query = "SELECT lane, revoked_at FROM thanx.lanes JOIN thanx.runs USING (run_id) WHERE run_id = $1"
        row = await connection.fetchrow(query, run_id)
        if row is None:
            raise LedgerError(f"{self.label} has no lane {run_id!r}")
        if to_change and row["revoked_at"] is not None:
            raise refusals.revoked(run_id)
        lane: int = row["lane"]
        return lane

    async def view(self, run_id: str, most: int) -> LaneView:
        """What waits in the lane."""
        async with self._transaction() as connection:
            lane = await self._lane(connection, run_id)
            count = await guests.waiting(connection, lane, most)
            seconds = await guests.waited(connection, lane) if count else 0.0
            rows = []
            if await connection.fetchval("SELECT EXISTS (SELECT FROM thanx.heard)"):
                rows = list(await connection.fetch(_HEARD, run_id))
        return LaneView(count, seconds, tuple(row["job_id"] for row in rows))

    async def cut(self, run_id: str, size: int, encode: Encode) -> Cut | None:
        """Cut and record a batch."""
        await self._vacuum_if_due()
        while True:
            try:
                cut = await to_its_end(self._cut(run_id, size, encode))
            except guests.GuestsLeftError:
                continue
            self._taken += 0 if cut is None else len(cut.batch.positions)
            return cut

    async def _vacuum_if_due(self) -> None:
        """Make the room of guests who were taken out usable again, once that is half of the table or more.

        The server's own vacuum looks once a minute, in which a million guests may come and go.
        """
        if self._taken < _VACUUMS_FROM:
            return
        async with self._transaction() as connection:
            size: int = await connection.fetchval("SELECT pg_relation_size('thanx.waiting')")
        if 2 * _ROW * self._taken >= size:
            self._taken = 0
            try:
                await self._database.vacuum("waiting")
            except LedgerError as error:  # the table is larger than it needs to be
                _log.warning("the table of waiting guests was not vacuumed: %s", error)

    async def _cut(self, run_id: str, size: int, encode: Encode) -> Cut | None:
        async with self._transaction(durable=True) as connection:
            await self._runs.check_own(connection, run_id)
            taken = await guests.take(connection, await self._lane(connection, run_id, to_change=True), size)
            if taken is None:
                return None
            values, seqs = taken
            return await self._record_cut(connection, run_id, seqs, encode(values))

    async def _record_cut(self, connection: Connection, run_id: str, seqs: Seqs, body: bytes) -> Cut:
        number: int = await connection.fetchval(_NUMBER, run_id)
        cut = new_cut(run_id, number, seqs, body)
        await batches.insert(connection, cut.batch, body, seqs)
        return cut

    async def split(self, run_id: str, number: int, encode: Encode) -> list[Cut]:
        """Replace a batch by its halves."""
        return await to_its_end(self._split(run_id, number, encode))

    async def _split(self, run_id: str, number: int, encode: Encode) -> list[Cut]:
        async with self._transaction(durable=True) as connection:
            await self._runs.check_own(connection, run_id)
            found = await batches.take_out(connection, run_id, number)
            if found is None:
                raise refusals.not_in_doubt(run_id, number)
            return [
                await self._record_cut(connection, run_id, part, encode(half))
                for part, half in halves_of(*found)
            ]

    async def open_batches(self, run_id: str) -> list[BatchRecord]:
        """The batches that are in doubt or accepted."""
        async with self._transaction() as connection:
            return await batches.select(
                connection, "WHERE run_id = $1 AND state <> 'finished' ORDER BY number", run_id
            )

    async def hold(self, run_id: str, number: int, reason: str) -> None:
        """Give up a batch."""
        await to_its_end(self._hold(run_id, number, reason))

    async def _hold(self, run_id: str, number: int, reason: str) -> None:
        async with self._transaction(durable=True) as connection:
            await self._runs.check_own(connection, run_id)
            await batches.hold(connection, run_id, number, reason)

    async def settle(self, run_id: str, number: int, settlement: Settlement) -> None:
        """Settle a held batch."""
        await to_its_end(self._settle(run_id, number, settlement))

    async def _settle(self, run_id: str, number: int, settlement: Settlement) -> None:
        in_doubt = not isinstance(settlement, BatchOutcome)
        async with self._transaction(durable=True) as connection:
            await batches.touch(connection, run_id)
            await batches.check_held(connection, run_id, number, in_doubt=in_doubt)
            if isinstance(settlement, BatchOutcome):
                await batches.finish(connection, run_id, {number: settlement})
            elif settlement is not None:
                await batches.accept(connection, run_id, number, settlement)
                await connection.execute(_HEAR, settlement)
            elif taken := await batches.take_out(connection, run_id, number):
                await guests.wait_again(connection, run_id, *taken)

    async def fate(self, run_id: str, guest: bytes) -> Fate | None:
        """The fate of the guest with this id."""
        async with self._transaction() as connection:
            return await reports.fate(connection, run_id, guest)

    async def cancel(self, run_id: str, guest: bytes) -> bool:
        """Take a waiting guest out."""
        return await to_its_end(self._cancel(run_id, guest))

    async def _cancel(self, run_id: str, guest: bytes) -> bool:
        async with self._transaction() as connection:
            seq = await guests.number_of(connection, guest)
            if seq is None:
                return False
            lane = await self._lane(connection, run_id)
            return await guests.end(connection, lane, seq, GuestState.CANCELLED, None)

    async def report(self, run_id: str) -> LaneReport:
        """The numbers of the lane."""
        async with self._transaction() as connection:
            lane = await self._lane(connection, run_id)
            return await reports.report(connection, run_id, lane)

    async def rewards(self, run_id: str) -> int:
        """The number of guests who have or may have a reward."""
        async with self._transaction() as connection:
            return await reports.rewards(connection, run_id)

    async def note(self, run_id: str, text: str | None, seconds: float) -> None:
        """Write down why nothing is sent."""
        async with self._transaction() as connection:
            await connection.execute(_NOTE, run_id, text, seconds)

    async def hear(self, job_id: str) -> None:
        """Take in that a job has ended."""
        async with self._transaction() as connection:
            await connection.execute(_HEAR, job_id)

    async def forget_guests(self, run_id: str, before: float) -> int:
        """Delete ids that were put before a time."""
        async with self._transaction() as connection:
            lane = await self._lane(connection, run_id)
            await connection.execute(_FORGET, run_id, before)
            return await guests.forget(connection, run_id, lane, before)

    async def choose(self, run_id: str, guests: Sequence[bytes], choose: Choose) -> None:
        """Let a claimed run decide about guests, at a time when no other run does."""
        await to_its_end(self._choose(run_id, guests, choose))

    async def _choose(self, run_id: str, guests: Sequence[bytes], choose: Choose) -> None:
        async with self._transaction(durable=True) as connection:
            await self._runs.check_own(connection, run_id)
            await choices.choose(connection, run_id, guests, choose)

    async def unchoose(self, run_id: str, ranges: Ranges) -> None:
        """Forget what a claimed run has decided about the guests at some positions."""
        await to_its_end(self._unchoose(run_id, ranges))

    async def _unchoose(self, run_id: str, ranges: Ranges) -> None:
        async with self._transaction(durable=True) as connection:
            await self._runs.check_own(connection, run_id)
            await choices.unchoose(connection, run_id, ranges)

    async def has_chosen(self, run_id: str) -> bool:
        """Whether a run has decided about any guest."""
        async with self._transaction() as connection:
            return await choices.has_chosen(connection, run_id)

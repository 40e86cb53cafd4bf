"""Copies a ledger file to PostgreSQL, with the ids of its runs and the numbers and keys of its batches."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar
from uuid import UUID

import attrs
import orjson

from thanx_async._batches import BatchOutcome
from thanx_async._core.addresses import ServerAddress
from thanx_async._core.errors import LedgerError, LedgerUnavailableError
from thanx_async._core.postgres import SCHEMES, Database
from thanx_async._core.postgres_connection import Connection
from thanx_async._core.postgres_errors import Problem, Trouble
from thanx_async._core.tasks import to_its_end
from thanx_async._core.worker import Worker
from thanx_async.ledger._lanes import TARGET, Seqs
from thanx_async.ledger._postgres_batches import multirange
from thanx_async.ledger._postgres_schema import LEDGER_TABLES
from thanx_async.ledger._postgres_trust import ADD as ADD_TRUST
from thanx_async.ledger._rows import BATCH_FIELDS, RUN_COLUMNS, RUN_FIELDS
from thanx_async.ledger._sqlite_moving import MovingFile, Row
from thanx_async.ledger._sqlite_schema import readable

T = TypeVar("T")

_RUNS = f"SELECT {RUN_COLUMNS} FROM runs"  # noqa: S608 - fixed columns
_LANES = f"""
    SELECT lane, run_id, next_number, issued, {", ".join(f"r.{column}" for column in TARGET)}
    FROM lanes JOIN runs AS r USING (run_id)
"""  # noqa: S608 - fixed columns
_BATCH = BATCH_FIELDS[:-1]
_BATCHES = f"SELECT slot, size, seqs, outcome, {', '.join(_BATCH)} FROM batches"  # noqa: S608 - fixed columns
_INSERT = f"""
    INSERT INTO thanx.batches ({", ".join(_BATCH)}, outcome, issued, is_revoked, body, seqs)
    VALUES ({", ".join(f"${place}" for place in range(1, 16))}, $16::text::int8multirange)
"""  # noqa: S608 - fixed columns
_LANE = """
    INSERT INTO thanx.lanes (run_id, target, next_number, issued) VALUES ($1, $2, $3, $4) RETURNING lane
"""
_CONFLICT = """
    SELECT run_id FROM (
        SELECT run_id FROM thanx.runs UNION ALL SELECT run_id FROM thanx.forgotten
    ) AS known WHERE run_id = ANY($1) LIMIT 1
"""
_LOCK = "LOCK TABLE thanx.guests, thanx.runs, thanx.lanes, thanx.forgotten IN SHARE ROW EXCLUSIVE MODE"
_RESERVE = (
    "SELECT setval('thanx.guests_seq_seq', last_value + $1::bigint) - $1::bigint FROM thanx.guests_seq_seq"
)
_ALIKE = (
    ("forgotten", ("run_id", "ended_at")),
    ("heard", ("job_id",)),
    ("choices", ("run_id", "guest", "position")),
)
_RUN_IDS = "SELECT run_id FROM runs UNION SELECT run_id FROM forgotten"
_GUESTS = "SELECT seq, lane, put_at, id, digest FROM guests"
_WAITING = "SELECT seq, w.lane, put_at, value FROM waiting AS w JOIN guests USING (seq)"
_TRUST = "SELECT base_url, client_id, confirmed, with_failures, broken FROM trust"
_LAST = "SELECT max(seq) FROM sqlite_sequence WHERE name = 'guests'"


@attrs.frozen
class Copied:
    """How much was copied: numbers of runs (an outbox is one), batches, guests of outboxes, and of those who
    wait to be sent."""

    runs: int
    batches: int
    guests: int
    waiting: int


async def copy_file(path: Path, dsn: str) -> Copied:
    """Copy a ledger file; see `thanx_async.postgres.copy_outbox`."""
    address = ServerAddress("dsn", dsn, SCHEMES)
    del dsn  # no traceback shows it

    def error(trouble: Trouble) -> LedgerError:
        text = f"cannot copy to PostgreSQL at {address.label}: {trouble.detail}; {trouble.advice}"
        away = trouble.problem in {Problem.AWAY, Problem.CONFLICT}
        failure = LedgerUnavailableError(text) if away else LedgerError(text)
        failure.in_doubt = trouble.unsure
        return failure

    database = Database(address, LEDGER_TABLES, error, what="the copy", connections=1, timeout=600)
    try:
        return await _Copy(path, database).run()
    finally:
        await database.aclose()


class _Copy:
    """Moves one file. The file is marked first, so that at no time two places can be written to."""

    def __init__(self, path: Path, database: Database) -> None:
        self._path = path
        self._database = database
        self._worker = Worker("thanx-copy")

    async def run(self) -> Copied:
        try:
            async with self._opened() as file:
                await to_its_end(self._move(file))
                return await self._do(lambda: _counted(file))
        finally:
            self._worker.stop()

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[MovingFile]:
        file = await self._do(lambda: MovingFile(self._path))
        try:
            yield file
        finally:
            await self._do(file.close)

    async def _move(self, file: MovingFile) -> None:
        was_marked = file.is_marked
        if not was_marked:
            await self._check_no_conflict(file)
            await self._do(lambda: file.mark(self._database.address.label))
        try:
            async with self._database.transaction(synchronous_commit="on") as connection:
                await connection.execute(_LOCK)
                if not (was_marked and await self._conflict(connection, file)):  # otherwise it has arrived
                    with readable(self._path, "a row"):
                        await self._fill(connection, file)
        except Exception as error:
            if not was_marked and not getattr(error, "in_doubt", False):
                await self._do(file.unmark)
            raise

    async def _check_no_conflict(self, file: MovingFile) -> None:
        async with self._database.transaction() as connection:
            found = await self._conflict(connection, file)
        if found is not None:
            raise LedgerError(f"the database has {found} already: nothing was copied; go on with the file")

    async def _conflict(self, connection: Connection, file: MovingFile) -> str | None:
        """What the database has already of the file, in words."""
        async for rows in self._slices(file, _RUN_IDS):
            if found := await connection.fetchval(_CONFLICT, [row[0] for row in rows]):
                return f"run {found!r}"
        query = "SELECT target FROM thanx.lanes WHERE target = ANY($1) LIMIT 1"
        async for rows in self._slices(file, _LANES):
            if found := await connection.fetchval(query, [_target(row[4:]) for row in rows]):
                return f"an outbox for {found}"
        return None

    async def _fill(self, connection: Connection, file: MovingFile) -> None:
        """Copy everything. The guests get numbers that nobody has in the database, in the same order."""
        offset: int = await connection.fetchval(_RESERVE, await self._do(lambda: file.value(_LAST)))
        async for rows in self._slices(file, _RUNS):
            await connection.copy("runs", RUN_FIELDS, map(_run, rows))
        lanes: dict[object, int] = {}
        async for rows in self._slices(file, _LANES):
            for lane, run_id, number, issued, *target in rows:
                values = (run_id, _target(target), number, issued)
                lanes[lane] = await connection.fetchval(_LANE, *values)
        async for rows in self._slices(file, _BATCHES, lambda row: _batch(file, row, offset)):
            await connection.executemany(_INSERT, rows)
        await self._fill_guests(connection, file, lanes, offset)
        for table, columns in _ALIKE:
            query = f"SELECT {', '.join(columns)} FROM {table}"  # noqa: S608 - fixed names
            async for rows in self._slices(file, query):
                await connection.copy(table, columns, rows)
        async for rows in self._slices(file, _TRUST, _trust):
            await connection.executemany(ADD_TRUST, rows)

    async def _fill_guests(
        self, connection: Connection, file: MovingFile, lanes: Mapping[object, int], offset: int
    ) -> None:
        def guest(row: Row) -> Row:
            seq, lane, put_at, id, digest = row
            return seq + offset, lanes[lane], _time(put_at), UUID(bytes=id), digest

        def waiting(row: Row) -> Row:
            seq, lane, put_at, value = row
            return seq + offset, lanes[lane], _time(put_at), value

        async for rows in self._slices(file, _GUESTS, guest):
            await connection.copy("guests", ("seq", "lane", "put_at", "id", "digest"), rows)
        async for rows in self._slices(file, _WAITING, waiting):
            await connection.copy("waiting", ("seq", "lane", "put_at", "value"), rows)
        async for rows in self._slices(file, "SELECT seq, state, reason FROM ended"):
            await connection.copy(
                "ended", ("seq", "state", "reason"), [(row[0] + offset, *row[1:]) for row in rows]
            )

    async def _slices(
        self, file: MovingFile, query: str, change: Callable[[Row], Row] = tuple
    ) -> AsyncIterator[list[Row]]:
        """The rows of a query, changed, in slices. The file is read in the thread."""
        found = file.rows(query)

        def read() -> list[Row]:
            return [change(row) for row in next(found, [])]

        while rows := await self._do(read):
            yield rows

    async def _do(self, work: Callable[[], T]) -> T:
        return await to_its_end(self._worker.do(work))


def _run(row: Row) -> Row:
    fields = dict(zip(RUN_FIELDS, row, strict=True))
    return tuple((fields | {"deduplicate": bool(fields["deduplicate"])}).values())


def _batch(file: MovingFile, row: Row, offset: int) -> Row:
    """The parameters of `_INSERT` for a row of `_BATCHES`."""
    slot, size, packed, outcome, *fields = row
    found = None if outcome is None else BatchOutcome.unpacked(outcome)
    seqs = None if packed is None else Seqs.unpacked(packed).shifted(offset)
    batch = dict(zip(_BATCH, fields, strict=True))
    if seqs is not None:
        batch["first"] = seqs.first
    return (
        *batch.values(),
        outcome,
        found and found.issued,
        found is not None and found.state == "revoked",
        file.body(slot, size) if batch["state"] == "in_doubt" else None,
        seqs and multirange(seqs),
    )


def _trust(row: Row) -> Row:
    return *row[:-1], bool(row[-1])


def _target(fields: Sequence[object]) -> str:
    return orjson.dumps(list(fields)).decode()


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _counted(file: MovingFile) -> Copied:
    return Copied(*[file.count(table) for table in ("runs", "batches", "guests", "waiting")])

"""The batches of a ledger in PostgreSQL. Each function is part of the caller's transaction."""

from __future__ import annotations

from collections.abc import Mapping
from time import time

import attrs

from thanx_async._batches import BatchOutcome, digest_of
from thanx_async._core.errors import LedgerError
from thanx_async._core.postgres_connection import Connection, Row
from thanx_async.ledger import _refusals as refusals
from thanx_async.ledger._lanes import LANES, Seqs
from thanx_async.ledger._records import BatchRecord
from thanx_async.ledger._rows import BATCH_COLUMNS, BATCH_FIELDS, batch_in

_SELECT = f"SELECT {BATCH_COLUMNS} FROM thanx.batches"  # noqa: S608 - fixed columns
_ONE = f"{_SELECT} WHERE run_id = $1 AND number = $2"
_INSERT = f"""
    INSERT INTO thanx.batches ({BATCH_COLUMNS}, body, seqs)
    VALUES ($1, $2, $3, $4, $5, $6, $7, 'in_doubt', $8, NULL, NULL, NULL, $9, $10::text::int8multirange)
"""  # noqa: S608 - fixed columns
_TAKE_OUT = """
    DELETE FROM thanx.batches WHERE run_id = $1 AND number = $2 AND state = 'in_doubt'
    RETURNING body, seqs::text AS seqs
"""
_ACCEPT = """
    UPDATE thanx.batches SET state = 'accepted', job_id = $3, held = NULL, body = NULL
    WHERE run_id = $1 AND number = $2 AND state = 'in_doubt'
"""
_HOLD = """
    UPDATE thanx.batches SET held = $3 WHERE run_id = $1 AND number = $2 AND state <> 'finished'
"""
_HELD = """
    SELECT state FROM thanx.batches
    WHERE run_id = $1 AND number = $2 AND state <> 'finished' AND held IS NOT NULL FOR UPDATE
"""
_FINISH = """
    UPDATE thanx.batches SET state = 'finished', outcome = $3, issued = $4, is_revoked = $5, body = NULL
    WHERE run_id = $1 AND number = $2
"""


_ISSUED = """
    WITH known AS (SELECT coalesce(issued, 0) AS issued FROM thanx.batches
        WHERE run_id = $1 AND number = $2 FOR UPDATE)
    UPDATE thanx.lanes SET issued = lanes.issued + $3 - known.issued FROM known WHERE run_id = $1
"""  # before _FINISH, which replaces what is known


async def select(connection: Connection, where: str, *arguments: object) -> list[BatchRecord]:
    """The batches that a condition selects."""
    return [batch_of(row) for row in await connection.fetch(f"{_SELECT} {where}", *arguments)]


async def find(connection: Connection, run_id: str, number: int) -> BatchRecord | None:
    """The batch with this number, or None."""
    row = await connection.fetchrow(_ONE, run_id, number)
    return None if row is None else batch_of(row)


async def insert(connection: Connection, batch: BatchRecord, body: bytes, seqs: Seqs | None = None) -> None:
    """Insert a batch in doubt; with the numbers of its guests if it is a lane's."""
    positions = batch.positions
    await connection.execute(
        _INSERT,
        batch.run_id,
        batch.number,
        batch.key,
        positions.first,
        positions.count,
        positions.packed(),
        batch.digest,
        batch.recorded_at,
        bytes(body),
        None if seqs is None else multirange(seqs),
    )


async def body(connection: Connection, run_id: str, number: int) -> bytes:
    """See `Ledger.body`."""
    query = "SELECT body, digest FROM thanx.batches WHERE run_id = $1 AND number = $2 AND state = 'in_doubt'"
    row = await connection.fetchrow(query, run_id, number)
    if row is None or row["body"] is None or digest_of(row["body"]) != row["digest"]:
        raise LedgerError(
            f"the bytes of batch {number} of run {run_id!r} are not in the ledger; start the run again with"
            " its input, or settle the batch by hand"
        )
    found: bytes = row["body"]
    return found


async def take_out(connection: Connection, run_id: str, number: int) -> tuple[Seqs, bytes] | None:
    """Delete a batch in doubt. Returns the guests and the body of a lane's batch."""
    row = await connection.fetchrow(_TAKE_OUT, run_id, number)
    return None if row is None or row["seqs"] is None else (seqs_of(row["seqs"]), row["body"])


async def record(connection: Connection, batch: BatchRecord, content: bytes) -> BatchRecord:
    """Record a batch, unless there is one with this number. Returns the recorded one."""
    known = await find(connection, batch.run_id, batch.number)
    if known is None:
        batch = attrs.evolve(batch, recorded_at=time())
        await insert(connection, batch, content)
    return known or batch


async def accept(connection: Connection, run_id: str, number: int, job_id: str) -> None:
    """See `Ledger.accept`."""
    if await connection.execute(_ACCEPT, run_id, number, job_id) == "UPDATE 1":
        return
    known = await find(connection, run_id, number)
    if known is None or known.job_id != job_id:
        raise refusals.other_job(run_id, number, job_id, known)


async def hold(connection: Connection, run_id: str, number: int, reason: str) -> None:
    """See `LaneLedger.hold`."""
    await connection.execute(_HOLD, run_id, number, reason)


async def check_held(connection: Connection, run_id: str, number: int, *, in_doubt: bool) -> None:
    """Lock a held batch; one that is in doubt, if it has to be.

    Raises:
        LedgerError: it is not held.
    """
    state = await connection.fetchval(_HELD, run_id, number)
    if state is None or (in_doubt and state != "in_doubt"):
        raise refusals.not_held(run_id, number)


async def finish(connection: Connection, run_id: str, outcomes: Mapping[int, BatchOutcome]) -> None:
    """See `Ledger.finish`."""
    rows = [
        (run_id, number, outcome.packed(), outcome.issued, outcome.state == "revoked")
        for number, outcome in outcomes.items()
    ]
    await touch(connection, run_id)
    if run_id.startswith(LANES):
        await connection.executemany(_ISSUED, [(run_id, row[1], row[3]) for row in rows])
    await connection.executemany(_FINISH, rows)


async def touch(connection: Connection, run_id: str) -> None:
    """Note that the run changes. As for a cut, the run is locked first, and its batches and lane after it."""
    await connection.execute("UPDATE thanx.runs SET changed_at = $2 WHERE run_id = $1", run_id, time())


def batch_of(row: Row) -> BatchRecord:
    """The batch in a row of the table.

    Raises:
        LedgerError: the row is damaged.
    """
    try:
        return batch_in(tuple(row[column] for column in BATCH_FIELDS))
    except (TypeError, ValueError, LookupError, OverflowError, AttributeError) as error:
        raise LedgerError(
            f"the ledger cannot be used: batch {row['number']!r} of run {row['run_id']!r} is damaged;"
            " restore the database from a copy"
        ) from error


def multirange(seqs: Seqs) -> str:
    """The numbers as the text of an ``int8multirange``."""
    return "{" + ",".join(f"[{start},{start + length})" for start, length in seqs.ranges()) + "}"


def seqs_of(text: str) -> Seqs:
    """The numbers in the text of an ``int8multirange``."""
    bounds = [int(bound) for bound in text.strip("{}[)").replace("),[", ",").split(",")]
    return Seqs.of_ranges(list(zip(bounds[::2], bounds[1::2], strict=True)))

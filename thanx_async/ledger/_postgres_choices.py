"""Which guests the runs in a PostgreSQL ledger have chosen. The caller holds a transaction."""

from __future__ import annotations

from collections.abc import Sequence

from thanx_async._core.postgres_connection import Connection
from thanx_async.ledger._choices import Choose, Ranges

_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('thanx.choices', 0))"
_KNOWN = "SELECT guest, run_id, position FROM thanx.choices WHERE guest = ANY($1)"
_INSERT = """
    INSERT INTO thanx.choices (run_id, guest, position)
    SELECT $1, guest, position FROM unnest($2::bytea[], $3::bigint[]) AS chosen (guest, position)
"""
_DELETE = """
    DELETE FROM thanx.choices USING unnest($2::bigint[], $3::bigint[]) AS part (first, last)
    WHERE run_id = $1 AND position BETWEEN part.first AND part.last
"""


async def choose(connection: Connection, run_id: str, guests: Sequence[bytes], choose: Choose) -> None:
    """Decide about guests, one run after the other."""
    await connection.execute(_LOCK)
    known: dict[bytes, dict[str, int]] = {guest: {} for guest in guests}
    for row in await connection.fetch(_KNOWN, list(guests)):
        known[row["guest"]][row["run_id"]] = row["position"]
    chosen = choose(known)
    await connection.execute(_INSERT, run_id, list(chosen), list(chosen.values()))


async def unchoose(connection: Connection, run_id: str, ranges: Ranges) -> None:
    """Forget decisions of a run."""
    if ranges:
        firsts, lasts = zip(*ranges, strict=True)
        await connection.execute(_DELETE, run_id, firsts, lasts)


async def has_chosen(connection: Connection, run_id: str) -> bool:
    """Whether a run has decided about any guest."""
    query = "SELECT EXISTS (SELECT FROM thanx.choices WHERE run_id = $1)"
    found: bool = await connection.fetchval(query, run_id)
    return found

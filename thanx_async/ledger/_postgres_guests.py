"""The guests of lanes in PostgreSQL. Each function is part of the caller's transaction."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from thanx_async._batches import values_of
from thanx_async._core.postgres_connection import Connection
from thanx_async.identifiers import normalise_all
from thanx_async.ledger._lanes import REVOKED, GuestState, NewGuest, Put, Seqs

_FORGETS_AT_ONCE = 1000
_PUT_MANY = """
    WITH given AS (SELECT * FROM unnest($2::uuid[], $3::bigint[], $4::text[]) AS t (id, digest, value)),
    new AS (
        INSERT INTO thanx.guests (id, lane, digest) SELECT id, $1, digest FROM given ORDER BY id
        ON CONFLICT (id) DO NOTHING RETURNING id, seq
    ),
    waits AS (
        INSERT INTO thanx.waiting (lane, seq, value) SELECT $1, seq, value FROM new JOIN given USING (id)
    )
    SELECT id FROM new
"""
_FIND = "SELECT seq FROM thanx.guests WHERE id = $1"
_WAITING = "SELECT count(*) FROM (SELECT FROM thanx.waiting WHERE lane = $1 LIMIT $2) AS t"
_WAITED = """
    SELECT extract(epoch FROM clock_timestamp() - put_at)::float8 FROM thanx.waiting
    WHERE lane = $1 ORDER BY seq LIMIT 1
"""
_WAIT_AGAIN = """
    INSERT INTO thanx.waiting (lane, seq, value, put_at)
    SELECT l.lane, t.seq, t.value, coalesce(g.put_at, clock_timestamp())
    FROM thanx.lanes AS l CROSS JOIN unnest($2::bigint[], $3::text[]) AS t (seq, value)
    LEFT JOIN (SELECT seq, put_at FROM thanx.guests WHERE seq BETWEEN $4 AND $5) AS g USING (seq)
    WHERE l.run_id = $1
"""
_CANCEL = """
    WITH gone AS (
        DELETE FROM thanx.waiting AS w USING thanx.lanes AS l JOIN thanx.runs AS r USING (run_id)
        WHERE r.run_id = $1 AND r.revoked_at IS NOT NULL AND w.lane = l.lane RETURNING w.seq
    )
    INSERT INTO thanx.ended (seq, state, reason) SELECT seq, $2, $3 FROM gone
"""
_FORGET = """
    WITH kept AS (
        SELECT min(first) AS seq FROM thanx.batches WHERE run_id = $1 AND seqs IS NOT NULL
        UNION ALL SELECT min(seq) FROM thanx.waiting WHERE lane = $2
    ), old AS (
        DELETE FROM thanx.guests WHERE id IN (
            SELECT id FROM thanx.guests WHERE lane = $2 AND put_at < to_timestamp($3)
            AND seq < coalesce((SELECT min(seq) FROM kept), 9223372036854775807) LIMIT $4)
        RETURNING seq
    ), ends AS (DELETE FROM thanx.ended WHERE seq IN (SELECT seq FROM old))
    SELECT count(*) FROM old
"""  # one statement: a batch that is cut meanwhile keeps its guests


async def put(connection: Connection, lane: int, guests: Sequence[NewGuest]) -> list[Put]:
    """Put guests. Returns for each of them what became of it."""
    first: dict[bytes, NewGuest] = {}
    for guest in guests:
        first.setdefault(guest.id, guest)
    rows = await connection.fetch(
        _PUT_MANY,
        lane,
        [UUID(bytes=id) for id in first],
        [guest.digest for guest in first.values()],
        [guest.value for guest in first.values()],
    )
    new = {row["id"].bytes for row in rows}
    digests = {id: first[id].digest for id in new}
    if known := [UUID(bytes=id) for id in first if id not in new]:
        query = "SELECT id, digest FROM thanx.guests WHERE id = ANY($1::uuid[])"
        digests |= {row["id"].bytes: row["digest"] for row in await connection.fetch(query, known)}
    return [_result(guest, digests, is_new=guest.id in new and first[guest.id] is guest) for guest in guests]


def _result(guest: NewGuest, digests: dict[bytes, int], *, is_new: bool) -> Put:
    if is_new:
        return Put.NEW
    return Put.KNOWN if digests.get(guest.id, guest.digest) == guest.digest else Put.REUSED


async def waiting(connection: Connection, lane: int, most: int | None = None) -> int:
    """The number of guests who wait, counted up to ``most``."""
    count: int = await connection.fetchval(_WAITING, lane, most)
    return count


async def waited(connection: Connection, lane: int) -> float:
    """For how many seconds the oldest guest has waited; 0 if nobody waits."""
    seconds: float | None = await connection.fetchval(_WAITED, lane)
    return max(0.0, seconds or 0.0)


async def take(connection: Connection, lane: int, size: int) -> tuple[list[str], Seqs] | None:
    """Take out the guests who have waited longest, each value once. The values are returned in order.

    Whoever is no identifier, as another program may put, is rejected.
    """
    rows = await connection.fetch(
        "SELECT seq, value FROM thanx.waiting WHERE lane = $1 ORDER BY seq LIMIT $2", lane, size
    )
    values, reasons = normalise_all([row["value"] for row in rows])
    taken: dict[str, int] = {}
    for index, (row, value) in enumerate(zip(rows, values, strict=True)):
        if index in reasons:
            await end(connection, lane, row["seq"], GuestState.REJECTED, reasons[index])
        else:
            taken.setdefault(value, row["seq"])
    if not taken:
        return None
    numbers = list(taken.values())
    deleted = await connection.execute(
        "DELETE FROM thanx.waiting WHERE lane = $1 AND seq = ANY($2::bigint[])", lane, numbers
    )
    if deleted != f"DELETE {len(numbers)}":
        raise GuestsLeftError("guests were taken out while a batch was cut")
    return list(taken), Seqs.of(numbers)


class GuestsLeftError(Exception):
    """Guests were cancelled while a batch was cut. Nothing has changed, and the batch can be cut again."""


async def wait_again(connection: Connection, run_id: str, seqs: Seqs, body: bytes) -> None:
    """Let the guests of a batch wait again, unless the lane was revoked."""
    numbers = list(seqs)
    await connection.execute(_WAIT_AGAIN, run_id, numbers, values_of(body), numbers[0], numbers[-1])
    await cancel_if_revoked(connection, run_id)


async def cancel_if_revoked(connection: Connection, run_id: str) -> None:
    """Cancel the guests who wait in a lane, if the lane was revoked."""
    await connection.execute(_CANCEL, run_id, GuestState.CANCELLED.value, REVOKED)


async def end(connection: Connection, lane: int, seq: int, state: GuestState, reason: str | None) -> bool:
    """End the waiting of a guest. Returns whether the guest still waited."""
    query = "DELETE FROM thanx.waiting WHERE lane = $1 AND seq = $2"
    if await connection.execute(query, lane, seq) != "DELETE 1":
        return False
    await connection.execute("INSERT INTO thanx.ended VALUES ($1, $2, $3)", seq, state.value, reason)
    return True


async def number_of(connection: Connection, guest: bytes) -> int | None:
    """The number of the guest with this id, None if the id is unknown."""
    seq: int | None = await connection.fetchval(_FIND, UUID(bytes=guest))
    return seq


async def forget(connection: Connection, run_id: str, lane: int, before: float) -> int:
    """Delete some of the guests who were put before a time, in seconds since 1970. Returns how many.

    Guests who wait, or are in a batch that is kept, stay, and so do all who came after them.
    """
    count: int = await connection.fetchval(_FORGET, run_id, lane, before, _FORGETS_AT_ONCE)
    return count

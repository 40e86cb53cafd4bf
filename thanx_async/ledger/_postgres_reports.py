"""What is told of a lane in PostgreSQL: its numbers, and the fates of its guests."""

from __future__ import annotations

from time import time
from uuid import UUID

from thanx_async._core.postgres_connection import Connection
from thanx_async.ledger import _postgres_batches as batches
from thanx_async.ledger import _postgres_guests as guests
from thanx_async.ledger._lanes import REVOKED, Fate, GuestState, LaneReport, fate_in
from thanx_async.ledger._owner import Owner
from thanx_async.ledger._rows import BATCH_FIELDS

_FATE = f"""
    SELECT g.seq, w.seq IS NOT NULL AS waits, e.state AS ended, e.reason, b.seqs::text AS seqs,
        r.replay_within, r.revoked_at IS NOT NULL AS is_revoked,
        {", ".join(f"b.{column}" for column in BATCH_FIELDS)}
    FROM thanx.guests AS g JOIN thanx.runs AS r ON r.run_id = $1
    LEFT JOIN thanx.waiting AS w ON w.lane = g.lane AND w.seq = g.seq
    LEFT JOIN thanx.ended AS e ON e.seq = g.seq
    LEFT JOIN thanx.batches AS b ON b.run_id = $1 AND b.seqs @> g.seq
    WHERE g.id = $2
"""  # noqa: S608 - fixed columns
_REPORT = """
    SELECT count(*) FILTER (WHERE state = 'in_doubt' AND NOT is_held) AS in_doubt,
        count(*) FILTER (WHERE is_held) AS held,
        count(*) FILTER (WHERE state = 'accepted' AND NOT is_held) AS accepted
    FROM (SELECT state,
            held IS NOT NULL OR (state = 'in_doubt' AND recorded_at < $2 - replay_within) AS is_held
        FROM thanx.batches JOIN thanx.runs USING (run_id) WHERE run_id = $1 AND state <> 'finished') AS open
"""
_REWARDS = """
    SELECT issued + (SELECT coalesce(sum(count), 0)::bigint FROM thanx.batches AS b
        WHERE b.run_id = lanes.run_id AND state <> 'finished')
    FROM thanx.lanes WHERE run_id = $1
"""
_OWNER = """
    SELECT CASE WHEN owned_until > clock_timestamp() THEN owner END AS owner,
        CASE WHEN noted_until > clock_timestamp() THEN note END AS note, revoked_at IS NOT NULL AS is_revoked
    FROM thanx.runs JOIN thanx.lanes USING (run_id) WHERE run_id = $1
"""


async def fate(connection: Connection, run_id: str, guest: bytes) -> Fate | None:
    """The fate of the guest with this id."""
    found = await connection.fetchrow(_FATE, run_id, UUID(bytes=guest))
    if found is None:
        return None
    if found["ended"] is not None:
        return Fate(GuestState(found["ended"]), found["reason"])
    if found["waits"] and found["is_revoked"]:  # put in a transaction that was open meanwhile
        return Fate(GuestState.CANCELLED, REVOKED)
    if found["number"] is None:  # otherwise the batch is forgotten
        return Fate(GuestState.WAITING) if found["waits"] else None
    index = batches.seqs_of(found["seqs"]).index(found["seq"])
    return fate_in(batches.batch_of(found), index, found["replay_within"])


async def report(connection: Connection, run_id: str, lane: int) -> LaneReport:
    """The numbers of the lane."""
    waiting = await guests.waiting(connection, lane)
    waited = await guests.waited(connection, lane)
    counts = await connection.fetchrow(_REPORT, run_id, time())
    owner = await connection.fetchrow(_OWNER, run_id)
    assert counts is not None and owner is not None  # noqa: S101, PT018 - an aggregate, and a lane's run
    return LaneReport(
        waiting=0 if owner["is_revoked"] else waiting,
        waited=0.0 if owner["is_revoked"] else waited,
        in_doubt=counts["in_doubt"],
        held=counts["held"],
        accepted=counts["accepted"],
        owner=Owner.living(owner["owner"]),
        note=owner["note"],
    )


async def rewards(connection: Connection, run_id: str) -> int:
    """The number of guests who have or may have a reward."""
    count: int = await connection.fetchval(_REWARDS, run_id)
    return count

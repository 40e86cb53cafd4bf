"""What webhooks told of jobs, in PostgreSQL. Each function is part of the caller's transaction."""

from __future__ import annotations

from time import time

from thanx_async._batches import EndedJob
from thanx_async._core.postgres_connection import Connection
from thanx_async.ledger._rows import EVENTS_LAST

_RELAYED = """
    DELETE FROM thanx.events AS e USING thanx.batches AS b
    WHERE e.job_id = b.job_id AND b.run_id = $1 AND b.state = 'accepted' RETURNING e.told
"""


async def relay(connection: Connection, job: EndedJob) -> None:
    """See `RelayLedger.relay`."""
    now = time()
    await connection.execute("DELETE FROM thanx.events WHERE heard_at < $1", now - EVENTS_LAST)
    await connection.execute(
        "INSERT INTO thanx.events VALUES ($1, $2, $3) ON CONFLICT DO NOTHING", job.job_id, now, job.packed()
    )


async def relayed(connection: Connection, run_id: str) -> list[EndedJob]:
    """See `RelayLedger.relayed`."""
    return [EndedJob.unpacked(row["told"]) for row in await connection.fetch(_RELAYED, run_id)]

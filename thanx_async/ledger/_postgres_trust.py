"""The table of how far the webhook events of a credential can be trusted, in PostgreSQL."""

from __future__ import annotations

from thanx_async._batches import Trust
from thanx_async._core.postgres_connection import Connection

ADD = """
    INSERT INTO thanx.trust AS t VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT (base_url, client_id) DO UPDATE SET confirmed = t.confirmed + excluded.confirmed,
        with_failures = t.with_failures + excluded.with_failures, broken = t.broken OR excluded.broken
"""
_FIND = "SELECT confirmed, with_failures, broken FROM thanx.trust WHERE base_url = $1 AND client_id = $2"


async def exchange_trust(connection: Connection, base_url: str, client_id: str, news: Trust) -> Trust:
    """See `TrustLedger.exchange_trust`."""
    if news != Trust():
        await connection.execute(ADD, base_url, client_id, news.confirmed, news.with_failures, news.broken)
    row = await connection.fetchrow(_FIND, base_url, client_id)
    return Trust() if row is None else Trust(row["confirmed"], row["with_failures"], row["broken"])

"""Deletes old runs and batches from a ledger in PostgreSQL."""

from __future__ import annotations

from math import inf
from time import time

from thanx_async._batches import SERVICE_RUNS
from thanx_async._core.postgres import Database

_CHUNK = 500
_FREE = "(r.owner IS NULL OR r.owned_until <= clock_timestamp())"
_SERVICE = f"r.run_id ~ '^{SERVICE_RUNS}[0-9a-f]{{32}}$'"
_MARK = f"""
    INSERT INTO thanx.forgotten SELECT r.run_id, r.changed_at FROM thanx.runs AS r
    WHERE r.changed_at < $1 AND {_FREE} AND r.batches > 0
    AND r.batches = (SELECT count(*) FROM thanx.batches AS b WHERE b.run_id = r.run_id)
    AND NOT EXISTS (SELECT FROM thanx.batches AS b WHERE b.run_id = r.run_id AND b.state <> 'finished')
    FOR UPDATE SKIP LOCKED ON CONFLICT DO NOTHING
"""  # noqa: S608 - fixed text
_DELETE = """
    DELETE FROM thanx.batches WHERE (run_id, number) IN (
        SELECT run_id, number FROM thanx.batches JOIN thanx.forgotten USING (run_id) LIMIT $1)
"""
_DELETE_RUNS = f"""
    DELETE FROM thanx.runs AS r USING thanx.forgotten AS f WHERE f.run_id = r.run_id AND {_FREE}
    AND NOT EXISTS (SELECT FROM thanx.batches AS b WHERE b.run_id = r.run_id)
"""  # noqa: S608 - fixed text
_DELETE_OF_SERVICES = f"""
    DELETE FROM thanx.batches WHERE (run_id, number) IN (
        SELECT b.run_id, b.number FROM thanx.batches AS b JOIN thanx.runs AS r USING (run_id)
        WHERE {_SERVICE} AND b.state = 'finished' AND b.recorded_at < $1 LIMIT $2)
"""  # noqa: S608 - fixed text
_EMPTY = f"""
    WITH deleted AS (
        DELETE FROM thanx.runs AS r WHERE r.changed_at < $1 AND {_FREE} AND r.revoked_at IS NULL
        AND (coalesce(r.batches, 0) = 0 OR {_SERVICE})
        AND NOT EXISTS (SELECT FROM thanx.batches AS b WHERE b.run_id = r.run_id)
        AND NOT EXISTS (SELECT FROM thanx.lanes AS l WHERE l.run_id = r.run_id)
        RETURNING run_id
    ) DELETE FROM thanx.choices WHERE run_id IN (SELECT run_id FROM deleted)
"""  # noqa: S608 - fixed text


async def forget(database: Database, keep_for: float) -> None:
    """Delete runs and batches that ended more than ``keep_for`` seconds ago, in short transactions.

    The id of a deleted run is kept, so that the run is not issued again by mistake.
    """
    if keep_for == inf:
        return
    before = time() - keep_for
    async with database.transaction() as connection:
        await connection.execute(_MARK, before)
    for statement, arguments in ((_DELETE, ()), (_DELETE_OF_SERVICES, (before,))):
        deleted = _CHUNK
        while deleted == _CHUNK:
            async with database.transaction() as connection:
                status = await connection.execute(statement, *arguments, _CHUNK)
                deleted = int(status.rpartition(" ")[2])
    async with database.transaction() as connection:
        await connection.execute(_DELETE_RUNS)
        await connection.execute(_EMPTY, before)

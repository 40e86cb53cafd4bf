"""Outboxes that an earlier version has made."""
# ruff: noqa: S608 - the statements are the tests' own

from contextlib import closing
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.helpers import TARGET
from thanx_async import SQLiteOutbox
from thanx_async._core import sqlite
from thanx_async._core.addresses import ServerAddress
from thanx_async._core.postgres import SCHEMES, Database, Tables
from thanx_async.ledger import LEDGER_TABLES, BatchOutcome
from thanx_async.ledger._sqlite_schema import APPLICATION_ID, MIGRATIONS
from thanx_async.limiter import LIMITER_TABLES
from thanx_async.outbox import StoredOutbox
from thanx_async.postgres import PostgresOutbox, migrate

pytestmark = pytest.mark.realtime

FIELDS = ("base_url", "client_id", "campaign_id", "merchant_id", "variant_id")
SETTINGS: dict[str, Any] = {**TARGET, "client_id": "c", "base_url": "https://api.example.com"}
RUN = f"lane-{'0' * 32}"
VALUES = [SETTINGS[field] for field in FIELDS]
RUN_ROW = f"""
    INSERT INTO thanx.runs (run_id, {", ".join(FIELDS)}, batch_size, deduplicate, created_at, changed_at)
    VALUES ('{RUN}', {", ".join(map(repr, VALUES))}, 10000, false, 0.0, 0.0)
"""
BATCH_ROW = f"""
    INSERT INTO thanx.batches
        (run_id, number, key, first, count, gaps, digest, state, recorded_at, {{columns}})
    VALUES ('{RUN}', 0, 'key', 1, 3, '', '', 'finished', 0.0, {{values}})
"""
OUTCOME = BatchOutcome("completed", 2, ((1, "no"),)).packed()


def error(trouble: object) -> Exception:
    return AssertionError(trouble)


async def check(first: StoredOutbox[Any], second: StoredOutbox[Any]) -> None:
    """The rewards of an outbox count, and the first that opens it sets what it had not."""
    async with first:
        assert (first.lane.run.run_id, first.keep_ids) == (RUN, None)
        assert await first.ledger.rewards(RUN) == 2
    async with second:
        assert (second.keep_ids, second.replay_within) == (None, 86_400)


async def test_an_older_file(tmp_path: Path) -> None:
    """A file of an earlier version keeps its outboxes, and how many rewards they have issued."""
    path = tmp_path / "outbox.sqlite"
    form = sqlite.Format(APPLICATION_ID, MIGRATIONS[:3], durable=True, log_required=True)
    with closing(sqlite.connect(path, form, error)) as db:
        db.execute(RUN_ROW.replace("thanx.", ""))
        values = f"x'{OUTCOME.hex()}', x'', 0, 0"
        db.execute(BATCH_ROW.replace("thanx.", "").format(columns="outcome, seqs, slot, size", values=values))
        db.execute("INSERT INTO lanes (run_id) VALUES (?)", (RUN,))
    await check(
        SQLiteOutbox(path, **SETTINGS, keep_ids=None),
        SQLiteOutbox(path, **SETTINGS),
    )


async def test_an_older_database(dsn: str) -> None:
    """A database of an earlier version keeps its outboxes, and how many rewards they have issued."""
    address = ServerAddress("dsn", dsn, SCHEMES)
    for tables in (LIMITER_TABLES, Tables("ledger", LEDGER_TABLES.migrations[:1])):
        database = Database(address, tables, error, what="the test")
        await database.init()
        await database.aclose()
    connection = await asyncpg.connect(dsn)
    await connection.execute(RUN_ROW)
    values = rf"'\x{OUTCOME.hex()}', 2, '{{[1,4)}}'"
    await connection.execute(BATCH_ROW.format(columns="outcome, issued, seqs", values=values))
    target = "[" + ",".join(f'"{value}"' for value in VALUES) + "]"
    await connection.execute("INSERT INTO thanx.lanes (run_id, target) VALUES ($1, $2)", RUN, target)
    await connection.close()
    await migrate(dsn)
    await check(
        PostgresOutbox(dsn, **SETTINGS, keep_ids=None),
        PostgresOutbox(dsn, **SETTINGS),
    )

"""Guests who are put in the caller's own transaction, with each driver, on real databases."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import asyncpg
import attrs
import psycopg
import pytest
from psycopg.rows import dict_row
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from tests.helpers import TARGET
from thanx_async import IdReusedError, LedgerError, SQLiteOutbox
from thanx_async.postgres import PostgresOutbox, init

pytestmark = pytest.mark.realtime

URL = "http://127.0.0.1:1"


@pytest.fixture
async def outbox(dsn: str) -> AsyncIterator[PostgresOutbox]:
    await init(dsn)
    async with PostgresOutbox(dsn, **TARGET, client_id="c", base_url=URL) as opened:
        yield opened


async def waiting(outbox: PostgresOutbox | SQLiteOutbox) -> int:
    return (await outbox.status()).waiting


async def test_asyncpg(outbox: PostgresOutbox, dsn: str) -> None:
    """What is rolled back leaves nothing; what is committed is put once; a second put waits for the first."""
    connection = await asyncpg.connect(dsn)
    transaction = connection.transaction()
    await transaction.start()
    assert await outbox.put("a@example.com", id="1", using=connection)
    await transaction.rollback()
    assert await waiting(outbox) == 0
    transaction = connection.transaction()
    await transaction.start()
    assert await outbox.put("a@example.com", id="1", using=connection)
    second = asyncio.create_task(outbox.put("a@example.com", id="1"))
    assert await outbox.put("b@example.com", id="2")  # nobody else waits
    assert not second.done()
    await transaction.commit()
    assert not await second
    assert await waiting(outbox) == 2
    with pytest.raises(IdReusedError):
        await outbox.put_many([("c@example.com", "3"), ("other@example.com", "1")], using=connection)
    await connection.close()


async def test_a_put_that_is_committed_after_a_revocation(outbox: PostgresOutbox, dsn: str) -> None:
    """A guest whose put was not committed when the outbox was revoked is cancelled, too."""
    connection = await asyncpg.connect(dsn)
    async with connection.transaction():
        await outbox.put("a@example.com", id="1", using=connection)
        await outbox.ledger.save_run(attrs.evolve(outbox.lane.run, revoked_at=1.0))
    outcome = await outbox.outcome("1")
    assert (outcome.state.value, outcome.reason) == ("cancelled", "the outbox was revoked")
    assert await waiting(outbox) == 0
    with pytest.raises(LedgerError, match="the outbox was revoked"):
        await outbox.put("b@example.com", id="2", using=connection)
    await connection.close()


async def test_psycopg(outbox: PostgresOutbox, dsn: str) -> None:
    """Connections of both kinds, whatever their rows are."""
    kept: Any = dict_row
    async with await psycopg.AsyncConnection.connect(dsn, row_factory=kept) as connection:
        assert await outbox.put("a@example.com", id="1", using=connection)
        await connection.rollback()
        assert await waiting(outbox) == 0
        assert await outbox.put("a@example.com", id="1", using=connection)
    with psycopg.connect(dsn, row_factory=kept) as blocking:
        assert not await outbox.put("a@example.com", id="1", using=blocking)
        assert await outbox.put("b@example.com", id="2", using=blocking)
        blocking.rollback()
        blocking.execute(*outbox.statement("c@example.com", id="3"))
    assert await waiting(outbox) == 2


async def test_sqlalchemy(outbox: PostgresOutbox, dsn: str) -> None:
    """Sessions and connections of SQLAlchemy."""
    engine = create_async_engine(dsn.replace("postgresql://", "postgresql+asyncpg://"))
    async with AsyncSession(engine) as session:
        await session.execute(text("SELECT 1"))
        assert await outbox.put("a@example.com", id="1", using=session)
        await session.rollback()
        assert await waiting(outbox) == 0
        assert await outbox.put("a@example.com", id="1", using=session)
        await session.commit()
    async with engine.begin() as connection:
        assert not await outbox.put("a@example.com", id="1", using=connection)
        assert await outbox.put("b@example.com", id="2", using=connection)
    await engine.dispose()
    assert await waiting(outbox) == 2


async def test_sqlite(tmp_path: Path) -> None:
    """A connection to the same file; what is rolled back leaves nothing."""
    path = tmp_path / "outbox.sqlite"
    async with SQLiteOutbox(path, **TARGET, client_id="c", base_url=URL) as outbox:
        with closing(sqlite3.connect(path)) as connection:
            assert await outbox.put("a@example.com", id="1", using=connection)
            connection.rollback()
            assert await waiting(outbox) == 0
            assert await outbox.put("a@example.com", id="1", using=connection)
            assert not await outbox.put("a@example.com", id="1", using=connection)
            with pytest.raises(IdReusedError):
                await outbox.put("b@example.com", id="1", using=connection)
            connection.execute(*outbox.statement("b@example.com", id="2"))
            connection.commit()
            assert await waiting(outbox) == 2
            lane = outbox.lane.run
            await outbox.ledger.save_run(attrs.evolve(lane, revoked_at=1.0))
            with pytest.raises(LedgerError, match="was revoked"):
                await outbox.put("c@example.com", id="3", using=connection)

"""Connections that cannot be used for a put, on real databases: each is an error that changes nothing."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import (
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import Session

from tests.helpers import TARGET
from tests.servers import PostgresServer
from thanx_async import ConfigurationError, IdReusedError, LedgerError, SQLiteOutbox
from thanx_async.errors import LedgerUnavailableError
from thanx_async.postgres import PostgresOutbox, init

pytestmark = pytest.mark.realtime

URL = "http://127.0.0.1:1"
STATEMENT = r"execute the SQL and parameters that statement\(\) returns"


@pytest.fixture
async def outbox(dsn: str) -> AsyncIterator[PostgresOutbox]:
    await init(dsn)
    async with PostgresOutbox(dsn, **TARGET, client_id="c", base_url=URL) as opened:
        yield opened
        assert (await opened.status()).waiting == 0


@pytest.fixture
async def engine(dsn: str) -> AsyncIterator[AsyncEngine]:
    made = create_async_engine(dsn.replace("postgresql://", "postgresql+asyncpg://"))
    yield made
    await made.dispose()


class Derived(asyncpg.Connection):  # type: ignore[misc]  # asyncpg has no types
    """A connection of the application's own class."""


class DerivedPsycopg(psycopg.AsyncConnection[Any]):
    """Likewise, with another name."""


class DerivedSession(AsyncSession):
    """Likewise."""


async def test_derived_connections(outbox: PostgresOutbox, dsn: str, engine: AsyncEngine) -> None:
    """Subclasses of connections, connections of a pool, and scoped sessions work like what they stand for."""
    connection = await asyncpg.connect(dsn, connection_class=Derived)
    assert await outbox.put("a@example.com", id="1", using=connection)  # without a transaction: at once
    await connection.close()
    assert await outbox.cancel("1")
    async with asyncpg.create_pool(dsn, min_size=1) as pool, pool.acquire() as pooled:
        assert not await outbox.put("a@example.com", id="1", using=pooled)
    async with await DerivedPsycopg.connect(dsn, cursor_factory=psycopg.AsyncRawCursor) as derived:
        assert not await outbox.put("a@example.com", id="1", using=derived)
    async with DerivedSession(engine) as session:
        assert not await outbox.put("a@example.com", id="1", using=session)
    sessions = async_scoped_session(async_sessionmaker(engine), scopefunc=lambda: 1)
    assert not await outbox.put("a@example.com", id="1", using=sessions)
    with pytest.raises(IdReusedError, match="pair 1: the id '1' was put before"):
        await outbox.put_many([("a@example.com", "1"), ("b@example.com", "1")], using=sessions)
    await sessions.remove()


async def test_other_objects(outbox: PostgresOutbox, dsn: str, engine: AsyncEngine) -> None:
    """What is no connection, or one that would block the event loop, is refused by name, with the way out."""
    sync = create_engine("sqlite://")
    async with asyncpg.create_pool(dsn, min_size=0) as pool:
        with closing(sqlite3.connect(":memory:")) as file, Session(sync) as session, sync.connect() as other:
            for using in (pool, file, session, other, engine, "dsn", 5):
                with pytest.raises(ConfigurationError, match=STATEMENT) as caught:
                    await outbox.put("a@example.com", id="1", using=using)
                assert caught.value.argument == "using"
                assert type(using).__qualname__ in str(caught.value)


async def test_a_synchronous_session_with_a_statement(outbox: PostgresOutbox, dsn: str) -> None:
    """The way out for SQLAlchemy without asyncio."""
    sync = create_engine(dsn.replace("postgresql://", "postgresql+psycopg://"))
    with Session(sync) as session:
        session.connection().exec_driver_sql(*outbox.statement("a@example.com", id="1"))
        session.rollback()
    sync.dispose()


async def test_closed_connections(outbox: PostgresOutbox, dsn: str, engine: AsyncEngine) -> None:
    """A closed connection is a store that cannot be reached: the caller's broker keeps the message."""
    first = await asyncpg.connect(dsn)
    await first.close()
    second = await psycopg.AsyncConnection.connect(dsn)
    await second.close()
    third = psycopg.connect(dsn)
    third.close()
    for using in (first, second, third):
        with pytest.raises(LedgerUnavailableError, match="closed"):
            await outbox.put("a@example.com", id="1", using=using)
    async with engine.connect() as fourth:
        pass
    with pytest.raises(LedgerError, match="closed"):
        await outbox.put("a@example.com", id="1", using=fourth)


async def test_a_failed_transaction(outbox: PostgresOutbox, dsn: str, engine: AsyncEngine) -> None:
    """A transaction that has failed before takes nothing, and the error says what to do."""
    async with engine.connect() as connection:
        with pytest.raises(Exception, match="division by zero"):
            await connection.execute(text("SELECT 1/0"))
        with pytest.raises(LedgerError, match=r"aborted.*; it has failed before: roll it back") as caught:
            await outbox.put("a@example.com", id="1", using=connection)
        assert caught.value.sqlstate == "25P02"
        await connection.rollback()
        assert await outbox.put("a@example.com", id="1", using=connection)
    blocking = psycopg.connect(dsn)
    with pytest.raises(psycopg.Error):
        blocking.execute("SELECT 1/0")
    with pytest.raises(LedgerError, match="aborted"):
        await outbox.put("a@example.com", id="1", using=blocking)
    blocking.close()


async def test_other_databases(outbox: PostgresOutbox, postgres: PostgresServer, database: str) -> None:
    """A database without tables, or with those of other outboxes, takes nothing, by any way of putting."""
    empty, other = (postgres.dsn(f"{database}{end}") for end in ("empty", "other"))
    for end in ("empty", "other"):
        postgres.sql("postgres", f"CREATE DATABASE {database}{end}")
    await init(other)
    async with PostgresOutbox(other, **TARGET, client_id="other", base_url=URL) as foreign:
        for dsn in (empty, other):
            engine = create_async_engine(dsn.replace("postgresql://", "postgresql+psycopg://"))
            async with engine.connect() as connection:
                with pytest.raises(ConfigurationError, match="must be a connection to the outbox's own"):
                    await outbox.put("a@example.com", id="1", using=connection)
            await engine.dispose()
            async with await psycopg.AsyncConnection.connect(dsn) as raw:
                with pytest.raises(psycopg.Error):
                    await raw.execute(*outbox.statement("a@example.com", id="1"))
        assert (await foreign.status()).waiting == 0


async def test_files(tmp_path: Path) -> None:
    """Of a file: another file, a closed connection, a locked file, and another kind of connection."""
    path, elsewhere = tmp_path / "outbox.sqlite", tmp_path / "other.sqlite"
    async with (
        SQLiteOutbox(path, **TARGET, client_id="c", base_url=URL) as outbox,
        SQLiteOutbox(elsewhere, **TARGET, client_id="c", base_url=URL) as other,
    ):
        with closing(sqlite3.connect(elsewhere)) as connection:
            with pytest.raises(
                ConfigurationError, match=r"must be a connection to .*outbox\.sqlite, or have"
            ):
                await outbox.put("a@example.com", id="1", using=connection)
            connection.row_factory = sqlite3.Row
            connection.execute("ATTACH ? AS 'the \"guests\"'", (str(path),))
            assert await outbox.put("a@example.com", id="1", using=connection)
            connection.commit()
        assert [(await one.status()).waiting for one in (outbox, other)] == [1, 0]
        with pytest.raises(LedgerError, match="closed database"):
            await outbox.put("b@example.com", id="2", using=connection)
        with closing(sqlite3.connect(path)) as holder, closing(sqlite3.connect(path, timeout=0)) as late:
            holder.execute("BEGIN IMMEDIATE")
            with pytest.raises(LedgerUnavailableError, match="locked"):
                await outbox.put("b@example.com", id="2", using=late)
        with pytest.raises(ConfigurationError, match=STATEMENT):
            await outbox.put("b@example.com", id="2", using=object())
        assert (await outbox.status()).waiting == 1

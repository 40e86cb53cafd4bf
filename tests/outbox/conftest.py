"""Outboxes on each backend, a client without rate limits, and an emulator."""

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.helpers import TARGET
from thanx_async import LocalRateLimiter, RateLimit, SQLiteOutbox, ThanxClient
from thanx_async.emulator import Emulator, JobSpeed
from thanx_async.outbox import StoredOutbox
from thanx_async.postgres import PostgresOutbox, init

Make = Callable[..., StoredOutbox[Any]]
"""Makes an outbox on the same store each time; keyword arguments replace the usual ones."""


Sql = Callable[[str], Awaitable[None]]
"""Runs a statement behind the outbox's back. The tables have the same names everywhere."""


@pytest.fixture
def sql(store: str) -> Sql:
    async def run(statement: str) -> None:
        if store.startswith("postgresql://"):
            connection = await asyncpg.connect(store)
            await connection.execute(statement)
            await connection.close()
        else:
            with closing(sqlite3.connect(store)) as db, db:
                db.execute(statement.replace("thanx.", ""))

    return run


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    speed = JobSpeed(identifiers_per_second=1e6, start_delay=0.01, revoke_seconds=0.01)
    async with Emulator(limits=[(100_000, 1)], speed=speed) as running:
        yield running


@pytest.fixture
async def client(emulator: Emulator, soon: None) -> AsyncIterator[ThanxClient]:
    limiter = LocalRateLimiter([RateLimit(100_000, 1)])
    async with ThanxClient("c", "s3cret", base_url=emulator.url, limiter=limiter) as opened:
        yield opened


@pytest.fixture(params=["sqlite", "postgres"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place for outboxes: a file, or an empty database."""
    if request.param == "sqlite":
        return str(tmp_path / "outbox.sqlite")
    dsn: str = request.getfixturevalue("dsn")
    await init(dsn)
    return dsn


@pytest.fixture
def make(store: str, emulator: Emulator) -> Make:
    """Makes outboxes on one store, which the test opens."""
    settings = {**TARGET, "client_id": "c", "base_url": emulator.url}

    def made(**changes: Any) -> StoredOutbox[Any]:
        kind = PostgresOutbox if store.startswith("postgresql://") else SQLiteOutbox
        return kind(store, **{**settings, **changes})

    return made


@pytest.fixture
async def outbox(make: Make) -> AsyncIterator[StoredOutbox[Any]]:
    async with make() as opened:
        yield opened

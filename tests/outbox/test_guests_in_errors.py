"""No guest is found in what an error of an outbox brings along."""

import asyncio
import gc
import logging
import pickle
import signal
import sqlite3
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import asyncpg
import attrs
import psycopg
import pytest
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from tests.helpers import TARGET
from tests.outbox.conftest import Make
from tests.servers import PostgresServer
from tests.test_secrets import chain
from thanx_async.errors import IdReusedError, InvalidIdentifierError, LedgerError, ThanxError
from thanx_async.outbox import StoredOutbox
from thanx_async.postgres import PostgresOutbox, init

pytestmark = pytest.mark.realtime

GUEST = "jane.doe.marker"
ADDRESS = f"{GUEST}@example.com"
Box = StoredOutbox[Any]
Use = Callable[[Box, Any], Awaitable[object]]


async def put(outbox: Box, using: Any) -> object:
    return await outbox.put(ADDRESS, id="1", using=using)


async def put_many(outbox: Box, using: Any) -> object:
    return await outbox.put_many([("other@example.com", "0"), (ADDRESS, "1")], using=using)


async def put_async(outbox: Box, using: Any) -> object:
    async def pairs() -> AsyncIterator[tuple[str, str]]:
        yield ADDRESS, "1"

    return await outbox.put_many(pairs(), using=using)


PUTS: list[Use] = [put, put_many, put_async]


def is_clean(error: BaseException) -> None:
    """Check messages, notes, attributes, and the local variables of frames, of the whole chain."""
    for one in chain(error):
        shown = traceback.TracebackException.from_exception(one, capture_locals=True, compact=False)
        frames = [
            f"{frame.filename} {frame.locals}" for frame in shown.stack if "/tests/" not in frame.filename
        ]
        for text in (*frames, f"{one} {one!r} {vars(one)}"):
            assert GUEST not in text, text
    assert GUEST.encode() not in pickle.dumps(error)


@contextmanager
def clean(kind: type[BaseException] = ThanxError, match: str | None = None) -> Iterator[None]:
    """Check that an error is raised, and is clean."""
    with pytest.raises(kind, match=match) as caught:
        yield
    is_clean(caught.value)


@pytest.fixture(autouse=True)
def logs(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing that this package logs shows the guest."""
    caplog.set_level(logging.DEBUG, "thanx_async")
    yield
    assert GUEST not in "".join(row.getMessage() for row in caplog.records if row.name.startswith("thanx"))


async def psycopg_connection(dsn: str) -> Any:
    return await psycopg.AsyncConnection.connect(dsn)


async def blocking_connection(dsn: str) -> Any:
    return psycopg.connect(dsn)


async def session(dsn: str) -> Any:
    return AsyncSession(create_async_engine(dsn.replace("postgresql://", "postgresql+asyncpg://")))


async def session_on_psycopg(dsn: str) -> Any:
    return AsyncSession(create_async_engine(dsn.replace("postgresql://", "postgresql+psycopg://")))


CONNECTS = [asyncpg.connect, psycopg_connection, blocking_connection, session, session_on_psycopg, None]


async def close(using: Any) -> None:
    if using is not None:
        with suppress(Exception):
            ended = using.close()
            if ended is not None:
                await ended
        if isinstance(using, AsyncSession):
            assert using.bind is not None
            await using.bind.dispose()  # type: ignore[union-attr]  # it is an engine
    gc.collect()


async def roll_back(using: Any) -> None:
    if isinstance(using, psycopg.Connection):
        using.rollback()
    elif hasattr(using, "rollback"):
        await using.rollback()


@pytest.fixture(params=CONNECTS, ids=lambda connect: getattr(connect, "__name__", "own"))
async def using(
    request: pytest.FixtureRequest, dsn: str, postgres_outbox: PostgresOutbox
) -> AsyncIterator[Any]:
    """A connection of the caller's, or None for the outbox's own."""
    made = None if request.param is None else await request.param(dsn)
    yield made
    await close(made)


@pytest.fixture
async def postgres_outbox(dsn: str) -> AsyncIterator[PostgresOutbox]:
    await init(dsn)
    async with PostgresOutbox(dsn, **TARGET, client_id="c") as opened:
        yield opened


@pytest.mark.parametrize("use", PUTS)
async def test_invalid_guests(make: Make, use: Use, monkeypatch: pytest.MonkeyPatch) -> None:
    """An invalid guest, an invalid id, an item that is no pair, and an outbox that is not open."""
    with clean():
        await use(make(), None)
    with clean():
        make().statement(ADDRESS, id="1")
    async with make() as outbox:
        for bad in (
            f"{ADDRESS}\0",
            f"{GUEST}@",
            f"{ADDRESS}{'x' * 300}",
            ("email", GUEST),
            {"type": ADDRESS},
        ):
            monkeypatch.setattr("tests.outbox.test_guests_in_errors.ADDRESS", bad)
            with clean(InvalidIdentifierError, "^pair [01]: |^(?!pair)"):
                await use(outbox, None)
            with clean(InvalidIdentifierError):
                outbox.statement(bad, id="1")
        for bad_id in ("", 5, "\0"):
            with clean():
                await outbox.put(ADDRESS, id=bad_id)  # type: ignore[arg-type]  # the point of the test
            with clean(match="pair 1: id "):
                await outbox.put_many([("a@example.com", "0"), (f"{GUEST}@example.com", bad_id)])  # type: ignore[list-item]  # on purpose
        for odd in (f"{GUEST}@example.com", [f"{GUEST}@example.com"], (f"{GUEST}@example.com", "1", "2")):
            with clean(match="pair 0: pairs must be pairs of an identifier and an id"):
                await outbox.put_many([odd])  # type: ignore[list-item]  # on purpose
        with clean(match="pairs must be an iterable or async iterable of pairs, not 5"):
            await outbox.put_many(5)  # type: ignore[arg-type]  # on purpose


async def test_places(make: Make) -> None:
    """The place of a pair is counted from 0 over all slices; who came before is put."""
    async with make() as outbox:
        await outbox.put("first@example.com", id="17000")
        pairs = [(f"{number}@example.com", str(number)) for number in range(17_001)]
        with clean(IdReusedError, "^pair 17000: the id '17000' was put before"):
            await outbox.put_many(pairs)
        assert (await outbox.status()).waiting == 17_001
        pairs[16_999] = ("nobody", "x")
        with clean(InvalidIdentifierError, "^pair 16999: "):
            await outbox.put_many(iter(pairs))


@pytest.mark.parametrize("use", PUTS)
async def test_refused_ids(postgres_outbox: PostgresOutbox, using: Any, use: Use) -> None:
    """An id of another guest, and a revoked outbox."""
    await postgres_outbox.put("other@example.com", id="1")
    with clean(IdReusedError):
        await use(postgres_outbox, using)
    await roll_back(using)
    await postgres_outbox.ledger.save_run(attrs.evolve(postgres_outbox.lane.run, revoked_at=1.0))
    with clean(LedgerError, "was revoked"):
        await use(postgres_outbox, using)


@pytest.mark.parametrize("use", PUTS)
async def test_failures_of_the_server(
    postgres_outbox: PostgresOutbox, using: Any, use: Use, postgres: PostgresServer, database: str
) -> None:
    """Triggers that show the row, a statement timeout, a missing table, and a server that has gone."""
    postgres.sql(
        database,
        "CREATE FUNCTION shows() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " RAISE EXCEPTION 'no' USING DETAIL = NEW.value; END $$;"
        "CREATE TRIGGER shows BEFORE INSERT ON thanx.waiting FOR EACH ROW EXECUTE FUNCTION shows()",
    )
    with clean(LedgerError):
        await use(postgres_outbox, using)
    await roll_back(using)
    postgres.sql(
        database, "DROP TRIGGER shows ON thanx.waiting; ALTER TABLE thanx.waiting ADD CHECK (value = '')"
    )
    with clean(LedgerError):
        await use(postgres_outbox, using)
    await roll_back(using)
    if using is not None:
        postgres.sql(database, "DROP FUNCTION thanx.put(integer, uuid, bigint, text)")
        with clean():
            await use(postgres_outbox, using)
        await roll_back(using)
    postgres.stop(signal.SIGQUIT)  # its backends would outlive it by a moment otherwise, and still answer
    with clean(LedgerError):
        await use(postgres_outbox, using)
    for other in (postgres_outbox.outcome("1"), postgres_outbox.cancel("1")):
        with clean(LedgerError):
            await other


async def test_a_lock(postgres_outbox: PostgresOutbox, using: Any, dsn: str) -> None:
    """A put that waits for another transaction, and times out or is cancelled."""
    holder = await asyncpg.connect(dsn)
    await holder.execute("BEGIN; LOCK thanx.guests")
    putting = asyncio.create_task(put(postgres_outbox, using))
    while not await holder.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
        await asyncio.sleep(0.01)
    putting.cancel()
    await holder.execute("SELECT pg_cancel_backend(pid) FROM pg_locks WHERE NOT granted")
    with pytest.raises((asyncio.CancelledError, LedgerError)) as caught:
        await putting
    is_clean(caught.value)
    await holder.close()


async def test_a_file(make: Make, store: str) -> None:
    """Of a file: an id of another guest, a revoked outbox, and a locked or closed connection."""
    if store.startswith("postgresql"):
        pytest.skip("not a file")
    async with make() as outbox:
        await outbox.put("other@example.com", id="1")
        with closing(sqlite3.connect(store, timeout=0)) as connection:
            await _is_refused(outbox, connection, "was put before")
            with closing(sqlite3.connect(store)) as holder:
                holder.execute("BEGIN IMMEDIATE")
                with clean(LedgerError, "locked"):
                    await put(outbox, connection)
            connection.rollback()
            await outbox.ledger.save_run(attrs.evolve(outbox.lane.run, revoked_at=1.0))
            await _is_refused(outbox, connection, "was revoked|was put before")
        with clean(LedgerError, "closed"):
            await put_many(outbox, connection)


async def _is_refused(outbox: Box, connection: sqlite3.Connection, match: str) -> None:
    for use in PUTS:
        for using in (None, connection):
            with clean(LedgerError, match):
                await use(outbox, using)
            connection.rollback()

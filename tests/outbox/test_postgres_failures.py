"""Outboxes in PostgreSQL while the server crashes, is restored from a dump, or is behind pgbouncer."""

import asyncio
import random
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress

import pytest

from tests.helpers import guests, issuing, until
from tests.outbox.test_conformance import LINGER, drain, draining, states
from tests.outbox.worker import AnyOutbox, client_at, outbox_at
from tests.servers import PgBouncer, PostgresServer, found
from thanx_async import IdempotencyConflictError, ThanxClient
from thanx_async.emulator import Emulator, Faults
from thanx_async.errors import LedgerError, LedgerUnavailableError
from thanx_async.postgres import init

pytestmark = pytest.mark.realtime

CRASHES = 4
FAULTS = Faults(reset_before=0.05, reset_after=0.05, html_502=0.05, error_500=0.05, seed=7)
"""One request in five goes wrong."""


@pytest.fixture
async def store(dsn: str) -> str:
    """The DSN of a database with empty tables."""
    await init(dsn)
    return dsn


@pytest.fixture
async def outbox(store: str, emulator: Emulator) -> AsyncIterator[AnyOutbox]:
    async with outbox_at(store, emulator.url) as opened:
        yield opened


async def crash(postgres: PostgresServer) -> None:
    """End the server without a checkpoint, and start it again."""
    await asyncio.to_thread(postgres.stop, signal.SIGQUIT)
    await asyncio.to_thread(postgres.start)


async def put_until_known(outbox: AnyOutbox, name: str) -> int:
    """Put a guest again and again, as a broker delivers, until it succeeds. Returns how often it failed."""
    failures = 0
    while True:
        try:
            await outbox.put(name, id=f"order of {name}")
        except LedgerUnavailableError:
            failures += 1
            await asyncio.sleep(0.02)
        else:
            return failures


async def put_all(outbox: AnyOutbox, names: Iterable[str]) -> int:
    """Put guests from 20 handlers at the same time. Returns how many puts failed."""
    queue, failures = list(names), 0

    async def handler() -> None:
        nonlocal failures
        while queue:
            failures += await put_until_known(outbox, queue.pop())

    await asyncio.gather(*[handler() for _ in range(20)])
    return failures


async def is_drained(outbox: AnyOutbox, emulator: Emulator, names: list[str]) -> None:
    """Each guest has exactly one reward, and every outcome is known."""
    outcomes = [await outbox.outcome(f"order of {name}", timeout=0) for name in names]
    assert Counter(outcome.state.value for outcome in outcomes) == {"issued": len(names)}
    assert emulator.reward_counts() == dict.fromkeys(names, 1)
    assert 422 not in {row.status for row in emulator.requests}


async def test_a_crash_while_guests_are_put(
    outbox: AnyOutbox, postgres: PostgresServer, emulator: Emulator, client: ThanxClient
) -> None:
    """A put that fails can be repeated, and one that returned is kept, also by a crash right after it."""
    names, draw = guests(1500), random.Random(1)
    deliveries = [*names, *names]
    draw.shuffle(deliveries)
    putting = asyncio.create_task(put_all(outbox, deliveries))
    for _ in range(CRASHES):
        await asyncio.sleep(draw.uniform(0.05, 0.2))
        await crash(postgres)
    assert await putting > 0
    assert (await outbox.status()).waiting == len(names)
    assert await asyncio.gather(*[outbox.put(name, id=f"order of {name}") for name in names]) == [
        False
    ] * len(names)
    await drain(outbox, client)
    await is_drained(outbox, emulator, names)


async def test_a_crash_while_it_drains(
    outbox: AnyOutbox, postgres: PostgresServer, emulator: Emulator, soon: None
) -> None:
    """A drain goes on when the server is back, at once, and sends again what it had not recorded."""
    names, draw = guests(1000), random.Random(2)
    emulator.faults = FAULTS
    async with client_at(emulator.url) as client, draining(outbox, client) as task:
        for number in range(CRASHES):
            before, part = len(issuing(emulator)), names[number::CRASHES]
            putting = asyncio.create_task(put_all(outbox, [*part, *part]))
            while len(issuing(emulator)) == before:
                await asyncio.sleep(0.01)
            await asyncio.sleep(draw.uniform(0, 0.1))
            await crash(postgres)
            await putting
        emulator.faults = Faults()
        for name in names:
            await known(outbox, name)
        assert not task.done()
    await is_drained(outbox, emulator, names)


async def known(outbox: AnyOutbox, name: str) -> None:
    """Wait for a guest's outcome."""
    assert (await outbox.outcome(f"order of {name}")).issued


async def test_a_server_that_is_away(
    outbox: AnyOutbox, postgres: PostgresServer, emulator: Emulator, client: ThanxClient
) -> None:
    """Without the server puts fail, and say so; a drain that was started waits for the server."""
    await outbox.put("jane@example.com", id="1")
    await asyncio.to_thread(postgres.stop, signal.SIGQUIT)
    for failing in (outbox.put("john@example.com", id="2"), outbox.outcome("1"), outbox.status()):
        with pytest.raises(LedgerUnavailableError, match="check that the server is running") as caught:
            await failing
        assert not caught.value.in_doubt
    task = asyncio.create_task(drain(outbox, client))
    await asyncio.wait([task], timeout=0.1)
    await asyncio.to_thread(postgres.start)
    await task
    assert await states(outbox, "1") == ["issued"]
    with pytest.raises(LedgerError, match="knows no outcome of the id '2'"):
        await outbox.outcome("2")
    assert emulator.reward_counts() == {"jane@example.com": 1}


async def test_opened_while_the_server_is_away(
    store: str, postgres: PostgresServer, emulator: Emulator
) -> None:
    """An outbox that cannot be opened says why, and can be opened later."""
    outbox = outbox_at(store, emulator.url)
    await asyncio.to_thread(postgres.stop, signal.SIGQUIT)
    with pytest.raises(LedgerUnavailableError, match="check that the server is running"):
        await outbox.__aenter__()
    await asyncio.to_thread(postgres.start)
    async with outbox:
        assert await outbox.put("jane@example.com", id="1")


async def test_behind_pgbouncer(
    store: str,
    database: str,
    postgres: PostgresServer,
    pgbouncer: PgBouncer,
    emulator: Emulator,
    client: ThanxClient,
) -> None:
    """In transaction mode, with fewer connections than callers, everything works as without it."""
    names = guests(300)
    behind = outbox_at(postgres.dsn(database, pgbouncer.port), emulator.url)
    async with behind, outbox_at(store, emulator.url) as direct, draining(behind, client):
        puts = [behind.put(name, id=f"order of {name}") for name in names]
        puts += [direct.put(name, id=f"order of {name}") for name in names]
        assert sum(await asyncio.gather(*puts)) == len(names)
        assert not await behind.put_many((name, f"order of {name}") for name in names)
        await asyncio.gather(*[known(behind, name) for name in names])
    async with outbox_at(store, emulator.url) as direct:
        await is_drained(direct, emulator, names)


class Dump:
    """A dump of a database, as an operator makes and restores it."""

    def __init__(self, postgres: PostgresServer, database: str) -> None:
        self._postgres, self._database = postgres, database
        self._file = postgres.folder / f"{database}.dump"
        postgres.run(found("pg_dump"), "-Fc", "-f", str(self._file), postgres.dsn(database))

    def restore(self) -> None:
        name = self._database
        self._postgres.sql("postgres", f"DROP DATABASE {name} WITH (FORCE)")
        self._postgres.sql("postgres", f"CREATE DATABASE {name}")
        self._postgres.run(found("pg_restore"), "-d", self._postgres.dsn(name), str(self._file))


async def put_some(store: str, url: str, *names: str) -> None:
    async with outbox_at(store, url) as outbox:
        await outbox.put_many((name, f"order of {name}") for name in names)


async def test_a_dump_of_before_a_claim(
    store: str, database: str, postgres: PostgresServer, emulator: Emulator, client: ThanxClient
) -> None:
    """A restored database has forgotten a batch: its number is used again, Thanx refuses other guests under
    its key, and the outbox stops by name. Nobody gets a second reward."""
    old, new = guests(3), "new@example.com"
    await put_some(store, emulator.url, *old)
    dump = await asyncio.to_thread(Dump, postgres, database)
    async with outbox_at(store, emulator.url) as outbox:
        await drain(outbox, client)
    await asyncio.to_thread(dump.restore)
    await put_some(store, emulator.url, new)
    for _ in range(2):
        async with outbox_at(store, emulator.url) as outbox:
            with pytest.raises(IdempotencyConflictError, match="HTTP 422"):
                await drain(outbox, client)
            assert set(await states(outbox, *[f"order of {name}" for name in (*old, new)])) == {"in_doubt"}
    assert emulator.reward_counts() == dict.fromkeys(old, 1)
    assert len(set(issuing(emulator))) == 1


async def test_a_dump_and_the_same_guests(
    store: str, database: str, postgres: PostgresServer, emulator: Emulator, client: ThanxClient
) -> None:
    """If the same guests wait as before, the batch is the same, and Thanx answers with the same job."""
    names = guests(5)
    await put_some(store, emulator.url, *names)
    dump = await asyncio.to_thread(Dump, postgres, database)
    for _ in range(2):
        async with outbox_at(store, emulator.url) as outbox:
            await drain(outbox, client)
            await is_drained(outbox, emulator, names)
        await asyncio.to_thread(dump.restore)
    assert emulator.jobs_accepted == 1
    assert len(issuing(emulator)) == 2


async def test_a_lease_that_runs_out_while_it_sends(
    outbox: AnyOutbox,
    store: str,
    database: str,
    postgres: PostgresServer,
    emulator: Emulator,
    client: ThanxClient,
) -> None:
    """Two processes may then send the same batch, with the same key; the one that lost it cuts no other."""
    names = guests(40)
    emulator.faults = Faults(delay=0.3)
    async with outbox_at(store, emulator.url) as other, draining(outbox, client) as first:
        await outbox.put_many((name, f"order of {name}") for name in names[:20])
        await until(lambda: issuing(emulator))
        postgres.sql(database, "UPDATE thanx.runs SET owned_until = clock_timestamp() - interval '1 s'")
        async with draining(other, client) as second:
            await until(lambda: len(issuing(emulator)) > 1)
            await other.put_many((name, f"order of {name}") for name in names[20:])
            await asyncio.gather(*[known(other, name) for name in names])
            assert not first.done()
            assert not second.done()
    await is_drained(outbox, emulator, names)


async def test_cancelled_while_a_batch_is_cut(
    outbox: AnyOutbox, emulator: Emulator, client: ThanxClient
) -> None:
    """Guests who are cancelled at any moment are either taken out or issued, never both or neither."""
    names = guests(300)
    async with draining(outbox, client):
        await asyncio.gather(*[put_and_perhaps_cancel(outbox, name) for name in names])
        found: Counter[str] = Counter()
        for name in names:
            outcome = await outbox.outcome(f"order of {name}")
            found[outcome.state.value] += 1
            assert (name in emulator.reward_counts()) == outcome.issued
    assert found["issued"] + found["cancelled"] == len(names)
    assert found["cancelled"]


async def put_and_perhaps_cancel(outbox: AnyOutbox, name: str) -> None:
    await outbox.put(name, id=f"order of {name}")
    await asyncio.sleep(random.Random(name).uniform(0, 3 * LINGER))
    with suppress(LedgerUnavailableError):
        await outbox.cancel(f"order of {name}")


async def test_room_is_used_again(
    outbox: AnyOutbox,
    emulator: Emulator,
    postgres: PostgresServer,
    database: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A drain itself vacuums the table of waiting guests, once enough of it is not used any more."""
    monkeypatch.setattr("thanx_async.ledger._postgres_lanes._VACUUMS_FROM", 1)
    monkeypatch.setattr("thanx_async.ledger._postgres_lanes._ROW", 10_000)
    async with client_at(emulator.url) as client:
        for name in ("a@example.com", "b@example.com"):
            await outbox.put(name, id=name)
            await outbox.drain(client, linger=LINGER, until_empty=True)
    counted = "SELECT vacuum_count FROM pg_stat_user_tables WHERE relname = 'waiting'"
    await until(lambda: postgres.sql(database, counted) == "1")

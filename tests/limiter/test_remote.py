"""Limiters on servers: restarts, outages of the server, pgbouncer, and errors that say what to do."""

import asyncio
import logging
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise

import pytest

from tests.core.test_postgres import clean
from tests.helpers import until
from tests.limiter.sending import check, send
from tests.limiter.stores import SHORT, Place
from tests.servers import PASSWORD, PgBouncer, PostgresServer, RedisServer, Server
from thanx_async import ConfigurationError, RateLimit, ThanxClient
from thanx_async.emulator import Counter, Emulator
from thanx_async.limiter import _postgres as _limiter_postgres
from thanx_async.limiter import _redis as _limiter_redis
from thanx_async.limiter._store import StoreAwayError
from thanx_async.postgres import PostgresRateLimiter, init, migrate
from thanx_async.redis import RedisRateLimiter

pytestmark = pytest.mark.realtime
Places = Callable[[], Place]
FAST = [RateLimit(20, 0.5)]


@pytest.fixture
def server(remote: Places, request: pytest.FixtureRequest) -> Server:
    """The server of a place."""
    found: Server = request.getfixturevalue("postgres" if remote().kind == "postgres" else "redis_server")
    return found


@pytest.fixture
def stop(server: Server) -> Callable[[], None]:
    """Ends the server as a crash does."""
    how = signal.SIGQUIT if isinstance(server, PostgresServer) else signal.SIGKILL
    return lambda: server.stop(how)


async def test_a_crash_of_the_server(remote: Places, server: Server, stop: Callable[[], None]) -> None:
    """Requests that wait when the server crashes go on when it is back, and no limit is broken."""
    sent: list[float] = []
    async with remote() as shared:
        limiters = [shared.limiter(FAST) for _ in range(3)]
        tasks = [
            asyncio.create_task(send(limiter, sent, took=0.01, clock=time.monotonic))
            for limiter in limiters
            for _ in range(15)
        ]
        await until(lambda: len(sent) > 5)
        await asyncio.to_thread(stop)
        await until(lambda: any(limiter.status().reason for limiter in limiters))
        before = len(sent)
        await asyncio.to_thread(server.start)
        await asyncio.gather(*tasks)
    assert 5 < before < 45
    assert len(sent) == 45
    check(sorted(sent), FAST)


async def test_a_server_that_is_away(
    remote: Places, server: Server, stop: Callable[[], None], caplog: pytest.LogCaptureFixture
) -> None:
    """Without the server nothing is sent, an answer is no error and not lost, and it is told once."""
    caplog.set_level(logging.WARNING, logger="thanx_async")
    sent: list[float] = []
    async with remote() as shared:
        limiter = shared.limiter([RateLimit(2, 0.5)])
        async with limiter.slot() as slot:
            stop()
            slot.answered(200, {})
        waiting = [asyncio.create_task(send(limiter, sent)) for _ in range(2)]
        await until(lambda: limiter.status().waiting == 2 and limiter.status().reason)
        status = limiter.status()
        assert status.reason == f"'{shared.name}' in {_named(server)}, which does not answer"
        assert status.held_for > 0
        assert "does not answer" in repr(limiter)
        assert isinstance(limiter, PostgresRateLimiter | RedisRateLimiter)
        for _ in range(3):
            with pytest.raises(StoreAwayError, match=r"cannot reach .* check that the server is"):
                await limiter.refresh()
        waiting.pop().cancel()
        assert not sent
        server.start()
        await waiting.pop()
        state = await shared.state()
    assert len(sent) == 1
    assert (state.tickets, state.flights, state.tokens) == ([], {}, 2)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2
    assert "cannot reach" in told[0]
    assert told[0].endswith("requests wait until it answers")
    assert told[1].endswith("answers again")
    assert PASSWORD not in caplog.text


def _named(server: Server) -> str:
    if isinstance(server, PostgresServer):
        return f"PostgreSQL at 127.0.0.1:{server.port}/limits"
    return f"Redis at 127.0.0.1:{server.port}/0"


async def test_an_answer_that_came_during_an_outage(
    remote: Places, server: Server, stop: Callable[[], None]
) -> None:
    """It is recorded as soon as the server is back, so that other processes do not wait for its lease."""
    sent: list[float] = []
    async with remote() as shared:
        limiter, other = shared.limiter([RateLimit(1, 0.1)]), shared.limiter([RateLimit(1, 0.1)])
        async with limiter.slot() as slot:
            stop()
            slot.answered(200, {})
        server.start()
        async with asyncio.timeout(30):
            await send(other, sent)
    assert len(sent) == 1


async def test_a_server_that_comes_back_unusable(dsn: str, postgres: PostgresServer, database: str,
                                                 caplog: pytest.LogCaptureFixture) -> None:  # fmt: skip
    """An answer that can't be recorded after an outage is told once, and requests raise what is wrong."""
    caplog.set_level(logging.WARNING, logger="thanx_async")
    await init(dsn)
    async with Place("postgres", dsn) as shared:
        limiter = shared.limiter(FAST)
        async with limiter.slot():
            postgres.stop(signal.SIGQUIT)
        postgres.start()
        postgres.sql(database, "DROP TABLE thanx.limiter")
        await until(lambda: "could not be recorded" in caplog.text)
        assert limiter.status().reason != "does not answer"
        with pytest.raises(ConfigurationError, match=r"run `await thanx_async\.postgres\.init"):
            await send(limiter, [])
    assert caplog.text.count("could not be recorded") == 1


async def test_closed_during_an_outage(remote: Places, server: Server, stop: Callable[[], None]) -> None:
    """A limiter that is closed while the server is away raises nothing, and can be used again."""
    async with remote() as shared:
        limiter = shared.limiter(FAST)
        assert isinstance(limiter, PostgresRateLimiter | RedisRateLimiter)
        async with limiter.slot():
            stop()
        await limiter.aclose()
        server.start()
        await send(limiter, [])


async def test_a_write_that_may_have_been_lost(remote: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the answer to a write is lost, the slot that it may have taken is given back."""
    async with remote() as shared:
        limiter = shared.limiter([RateLimit(2, 0.2), RateLimit(3, 60)])
        await send(limiter, [])
        assert isinstance(limiter, PostgresRateLimiter | RedisRateLimiter)
        backend = limiter._backend
        usual = backend.swap
        lost = 0

        async def swap(*arguments: object) -> bool:
            nonlocal lost
            done = await usual(*arguments)  # type: ignore[arg-type]  # as it was called
            if lost < 2:
                lost += 1
                raise StoreAwayError("the answer is lost", store="the server")
            return done

        monkeypatch.setattr(backend, "swap", swap)
        async with asyncio.timeout(20):
            await send(limiter, [])
            await send(limiter, [])
        assert (await shared.state()).windows[1].total == 3


async def test_a_server_that_forgets(remote: Places, server: Server) -> None:
    """What a crash or a failover loses, a process that is running writes again."""
    async with remote() as shared:
        limits = [RateLimit(4, 0.2), RateLimit(5, 60)]
        limiter = shared.limiter(limits)
        for _ in range(3):
            await send(limiter, [])
        if isinstance(server, PostgresServer):
            server.sql("limits", "DELETE FROM thanx.limiter")
        elif isinstance(server, RedisServer):
            server.ask("FLUSHALL")
        await send(limiter, [])
        fresh = shared.limiter(limits)
        assert isinstance(fresh, PostgresRateLimiter | RedisRateLimiter)
        assert (await fresh.refresh()).windows[1].used == 4


async def test_cancelled_while_the_server_hangs(remote: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that waits for a server that accepts connections and never answers ends at once."""
    monkeypatch.setattr(_limiter_postgres, "TIMEOUT", 0.3)
    monkeypatch.setattr(_limiter_redis, "TIMEOUT", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        address = f"u:{PASSWORD}@127.0.0.1:{hanging.getsockname()[1]}/0"
        limiter = (
            PostgresRateLimiter(f"postgresql://{address}")
            if remote().kind == "postgres"
            else RedisRateLimiter(f"redis://{address}")
        )
        task = asyncio.create_task(send(limiter, []))
        await until(lambda: limiter.status().reason)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        clean(caught.value)
        await limiter.aclose()


async def test_limits_through_pgbouncer(limiter_dsn: str, pgbouncer: PgBouncer) -> None:
    """Limiters behind pgbouncer in transaction mode keep the limits together with one that is not."""
    sent: list[float] = []
    async with Place("postgres", limiter_dsn) as shared:
        direct = shared.limiter(FAST)
        shared.where = pgbouncer.postgres.dsn("limits", pgbouncer.port)
        limiters = [direct, *[shared.limiter(FAST) for _ in range(4)]]
        async with asyncio.TaskGroup() as group:
            for limiter in limiters * 8:
                group.create_task(send(limiter, sent, took=0.01, clock=time.monotonic))
    assert len(sent) == 40
    check(sorted(sent), FAST)


async def test_a_client_with_shared_limits(remote: Places) -> None:
    """Two clients of two machines are never refused."""
    async with Emulator(limits=[(5, 1.0)], counter=Counter.SLIDING_LOG) as emulator, remote() as shared:

        async def machine() -> None:
            async with ThanxClient("c", "t", base_url=emulator.url, limiter=shared.limiter()) as client:
                await asyncio.gather(*[client.get_scopes() for _ in range(6)])

        await asyncio.gather(machine(), machine())
        times = [row.time for row in emulator.requests]
    assert emulator.refused == 0
    assert all(later - earlier > 0.15 for earlier, later in pairwise(times))


def test_one_limiter_in_two_loops(remote: Places) -> None:
    """One loop after another may use a limiter; two at the same time are an error."""
    shared = remote()
    limiter = shared.limiter(FAST)
    assert isinstance(limiter, PostgresRateLimiter | RedisRateLimiter)

    async def use() -> None:
        async with limiter:
            await send(limiter, [])
            with pytest.raises(ConfigurationError, match="open on another event loop"):
                await asyncio.to_thread(asyncio.run, send(limiter, []))

    asyncio.run(use())
    asyncio.run(use())
    assert limiter.status().windows[0].used == 2


async def test_a_database_without_the_table(dsn: str) -> None:
    """The error says what creates the table, which then serves; creating it again changes nothing."""
    async with Place("postgres", dsn) as shared:
        limiter = shared.limiter()
        with pytest.raises(ConfigurationError, match=r"run `await thanx_async\.postgres\.init\(dsn\)` once"):
            await send(limiter, [])
        with pytest.raises(ConfigurationError, match="tables of the rate limiter are missing"):
            await migrate(dsn)
        await init(dsn)
        await send(limiter, [])
        await init(dsn)
        await migrate(dsn)
        assert (await shared.state()).tokens == 1


@pytest.mark.parametrize("state", [b"", b"x", b"\0" * 40])
async def test_a_damaged_state(remote: Places, server: Server, state: bytes) -> None:
    """What is not the state of a limiter is refused, and not overwritten."""
    async with remote() as shared:
        limiter = shared.limiter()
        await send(limiter, [])
        if isinstance(server, PostgresServer):
            server.sql("limits", f"UPDATE thanx.limiter SET state = '\\x{state.hex()}'")  # noqa: S608 - a hexadecimal number
        elif isinstance(server, RedisServer):
            text = "".join(f"\\x{byte:02x}" for byte in b"\0" * 16 + state)
            server.ask(f'SET thanx:limiter:1:{shared.name} "{text}"')
        for again in (limiter, shared.limiter()):
            with pytest.raises(ConfigurationError, match=f"cannot use '{shared.name}'.*content is damaged"):
                await send(again, [])


@pytest.mark.parametrize(
    ("url", "phrase"),
    [
        (f"http://u:{PASSWORD}@localhost", "url must be a URL that begins with redis:// or"),
        (f"redis://:{PASSWORD}/@localhost", "percent-encode"),
        (f"redis://localhost:{PASSWORD}", "not a valid URL"),
    ],
)
def test_wrong_urls(url: str, phrase: str) -> None:
    """A URL that cannot be used is refused at once, and not shown."""
    with pytest.raises(ConfigurationError, match=phrase) as caught:
        RedisRateLimiter(url)
    clean(caught.value)


@pytest.mark.parametrize("make", [PostgresRateLimiter, RedisRateLimiter])
def test_arguments(make: Callable[..., object]) -> None:
    """Wrong arguments are errors that name them and do not show the address."""
    address = f"{'redis' if make is RedisRateLimiter else 'postgresql'}://u:{PASSWORD}@localhost/0"
    for arguments, phrase in (({"limits": []}, "limits is empty"), ({"name": ""}, "name is empty")):
        with pytest.raises(ConfigurationError, match=phrase) as caught:
            make(address, **arguments)
        clean(caught.value)
    assert PASSWORD not in repr(make(address))


async def test_a_user_that_is_refused(redis_server: RedisServer, limiter_dsn: str) -> None:
    """A wrong password is an error at once, which shows no password."""
    for limiter in (
        RedisRateLimiter(redis_server.url.replace(PASSWORD, f"{PASSWORD}x")),
        PostgresRateLimiter(limiter_dsn.replace(PASSWORD, f"{PASSWORD}x")),
    ):
        with pytest.raises(ConfigurationError, match=r"cannot use .*; check the") as caught:
            await limiter.refresh()
        assert not isinstance(caught.value, StoreAwayError)
        clean(caught.value)
        await limiter.aclose()


async def test_a_key_of_somebody_else(redis_server: RedisServer) -> None:
    """A key with another type is refused, and left alone."""
    redis_server.ask("RPUSH thanx:limiter:1:taken x")
    async with Place("redis", redis_server.url) as shared:
        shared.name = "taken"
        with pytest.raises(ConfigurationError, match="WRONGTYPE"):
            await send(shared.limiter(), [])
    assert redis_server.ask("LLEN thanx:limiter:1:taken") == ":1"
    redis_server.ask("DEL thanx:limiter:1:taken")


async def test_a_key_expires(redis_server: RedisServer) -> None:
    """The key of a limiter that is no longer used goes by itself, a day after its longest window."""
    async with Place("redis", redis_server.url) as shared:
        await send(shared.limiter([*SHORT, RateLimit(9, 100_000)]), [])
        left = int(redis_server.ask(f"TTL thanx:limiter:1:{shared.name}")[1:])
    assert 186_000 < left <= 186_400


@pytest.mark.parametrize(("extra", "package"), [("postgres", "asyncpg"), ("redis", "redis")])
def test_without_the_extra(extra: str, package: str) -> None:
    """Without its package a backend is an import error that names the extra; nothing else needs it."""
    text = f"""
import sys
sys.modules["{package}"] = None
from thanx_async import *
from thanx_async.limiter import *
try:
    import thanx_async.{extra}
except ImportError as error:
    assert isinstance(error, ConfigurationError)
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout == f"the package {package} is not installed: run pip install 'thanx_async[{extra}]'\n"

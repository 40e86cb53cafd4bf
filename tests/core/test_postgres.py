"""PostgreSQL as backends use it: transactions, versions of tables, restarts, errors without the password."""

import asyncio
import logging
import os
import pickle
import signal
import socket
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import asyncpg
import pytest

from tests.servers import PASSWORD, PgBouncer, PostgresServer
from tests.test_secrets import chain
from thanx_async import ConfigurationError
from thanx_async._core.addresses import ServerAddress
from thanx_async._core.postgres import SCHEMES, Database, Tables
from thanx_async._core.postgres_errors import Problem, Trouble

pytestmark = pytest.mark.realtime

FIRST = "CREATE TABLE thanx.things (name text PRIMARY KEY, count integer NOT NULL)"
SECOND = "ALTER TABLE thanx.things ADD COLUMN kind text; CREATE INDEX ON thanx.things (kind)"
OLD = Tables("things", [FIRST])
NEW = Tables("things", [FIRST, SECOND])


class DatabaseError(ConfigurationError):
    """The error of these tests, with what it was made from."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(f"{trouble.detail}; {trouble.advice}")
        self.trouble = trouble


def database_of(dsn: str, tables: Tables = OLD, *, connections: int = 3, timeout: float = 20) -> Database:
    address = ServerAddress("dsn", dsn, SCHEMES)
    return Database(
        address, tables, DatabaseError, what="the store", connections=connections, timeout=timeout
    )


@asynccontextmanager
async def using(dsn: str, tables: Tables = OLD, *, connections: int = 3) -> AsyncIterator[Database]:
    database = database_of(dsn, tables, connections=connections)
    try:
        yield database
    finally:
        await database.aclose()


@asynccontextmanager
async def opened(dsn: str, *, connections: int = 3) -> AsyncIterator[Database]:
    """A database with its tables and two things."""
    async with using(dsn, connections=connections) as database:
        await database.init()
        async with database.transaction() as connection:
            await connection.executemany("INSERT INTO thanx.things VALUES ($1, $2)", [("a", 1), ("b", 2)])
        yield database


async def count(database: Database, name: str = "a") -> int | None:
    async with database.transaction() as connection:
        found: int | None = await connection.fetchval("SELECT count FROM thanx.things WHERE name = $1", name)
        return found


async def test_transactions(dsn: str) -> None:
    """What a transaction did is there for the next one; an error in it undoes it, and goes on as it is."""
    async with opened(dsn) as database:

        async def failing() -> None:
            async with database.transaction() as connection:
                assert await connection.execute("UPDATE thanx.things SET count = 7") == "UPDATE 2"
                raise KeyError

        with pytest.raises(KeyError):
            await failing()
        assert await count(database) == 1
        async with database.transaction(synchronous_commit="off") as connection:
            assert await connection.fetchval("SHOW synchronous_commit") == "off"
            rows = await connection.fetch("SELECT name FROM thanx.things ORDER BY name")
            assert [row["name"] for row in rows] == ["a", "b"]
            assert await connection.fetchrow("SELECT * FROM thanx.things WHERE name = 'c'") is None
        async with database.transaction() as connection:
            assert await connection.fetchval("SHOW synchronous_commit") == "on"


async def test_an_ignored_error_does_not_look_like_success(dsn: str) -> None:
    """A transaction that the server rolls back at its end is an error."""
    async with opened(dsn) as database:

        async def ignoring() -> None:
            async with database.transaction() as connection:
                with pytest.raises(DatabaseError, match="duplicate key") as caught:
                    await connection.execute("INSERT INTO thanx.things VALUES ('a', 1)")
                assert (caught.value.trouble.problem, caught.value.trouble.code) == (Problem.OTHER, "23505")

        with pytest.raises(DatabaseError, match="rolled back"):
            await ignoring()


async def test_versions(dsn: str) -> None:
    """Missing, older and newer tables are told by name, with what to run; init and migrate do it once."""
    async with using(dsn) as old, using(dsn) as same, using(dsn, NEW) as new:
        for database in (old, new):
            with pytest.raises(DatabaseError, match=r"things are missing; run `.*\.init\(dsn\)` once"):
                await count(database)
            with pytest.raises(DatabaseError, match=r"missing; run `.*init"):
                await database.migrate()
        await asyncio.gather(old.init(), same.init())
        await old.init()
        for use in (count, Database.init):
            with pytest.raises(DatabaseError, match=r"version 1, and .* needs 2; run `.*migrate\(dsn"):
                await use(new)
        await new.migrate()
        await new.migrate()
        async with new.transaction() as connection:
            await connection.execute("INSERT INTO thanx.things VALUES ('a', 1, 'kind')")
        for use in (count, Database.init, Database.migrate):
            with pytest.raises(DatabaseError, match=r"version 2, and .* needs 1; update thanx_async"):
                await use(same)


async def test_a_schema_made_by_somebody_else(postgres: PostgresServer, database: str) -> None:
    """A user who may not create schemas can use one that was made for it, and is told when there is none."""
    name = f"app_{database}"
    postgres.sql(database, f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
    async with using(postgres.dsn(database).replace("thanx:", f"{name}:", 1)) as mine:
        with pytest.raises(DatabaseError, match="permission denied for database") as caught:
            await mine.init()
        assert caught.value.trouble.problem is Problem.DENIED
        postgres.sql(database, f"CREATE SCHEMA thanx AUTHORIZATION {name}")
        await mine.init()
        assert await count(mine) is None
    postgres.sql(database, f"DROP OWNED BY {name}")
    postgres.sql(database, f"DROP ROLE {name}")


async def test_a_restart_of_the_server(dsn: str, postgres: PostgresServer) -> None:
    """Connections that a restart has cut are replaced without an error, all of them."""
    async with opened(dsn) as database:
        await asyncio.gather(*[count(database) for _ in range(3)])
        postgres.stop(signal.SIGQUIT)
        postgres.start()
        assert await asyncio.gather(*[count(database) for _ in range(6)]) == [1] * 6


async def test_a_server_that_is_away(dsn: str, postgres: PostgresServer) -> None:
    """No server, and a server that stops within a transaction, are told as such; nothing was committed."""
    async with opened(dsn) as database:

        async def interrupted() -> None:
            async with database.transaction() as connection:
                await connection.execute("UPDATE thanx.things SET count = 5")
                postgres.stop(signal.SIGQUIT)

        with pytest.raises(DatabaseError) as caught:
            await interrupted()
        assert (caught.value.trouble.problem, caught.value.trouble.unsure) == (Problem.AWAY, True)
        with pytest.raises(DatabaseError, match="check that the server is running") as caught:
            await count(database)
        assert (caught.value.trouble.problem, caught.value.trouble.unsure) == (Problem.AWAY, False)
        postgres.start()
        assert await count(database) == 1


async def test_a_server_that_hangs() -> None:
    """A server that takes the connection and never answers is away after the timeout."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        database = database_of(f"postgresql://u:{PASSWORD}@127.0.0.1:{port}/db", timeout=0.1)
        with pytest.raises(DatabaseError, match=r"no answer within 0\.1 s") as caught:
            await count(database)
    assert caught.value.trouble.problem is Problem.AWAY


async def test_cancelled(dsn: str, postgres: PostgresServer, database: str) -> None:
    """A cancelled transaction is rolled back at once, and leaves a pool that works."""
    async with opened(dsn, connections=1) as store:
        began = asyncio.Event()

        async def work() -> None:
            async with store.transaction() as connection:
                await connection.execute("UPDATE thanx.things SET count = 9")
                began.set()
                await connection.execute("SELECT pg_sleep(60)")

        task = asyncio.create_task(work())
        await began.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await count(store) == 1


async def test_transactions_that_exclude_each_other(dsn: str) -> None:
    """A deadlock is a conflict: its victim may repeat the transaction."""
    async with opened(dsn) as database:
        both = asyncio.Barrier(2)

        async def work(*names: str) -> None:
            async with database.transaction() as connection:
                for name in names:
                    await connection.execute("UPDATE thanx.things SET count = 3 WHERE name = $1", name)
                    if name == names[0]:
                        await both.wait()

        done = await asyncio.gather(work("a", "b"), work("b", "a"), return_exceptions=True)
        (error,) = [result for result in done if isinstance(result, DatabaseError)]
        assert error.trouble.problem is Problem.CONFLICT


async def test_through_pgbouncer(pgbouncer: PgBouncer, postgres: PostgresServer, database: str) -> None:
    """In transaction mode more clients than connections of the server get their own answers."""
    async with opened(postgres.dsn(database, pgbouncer.port), connections=8) as store:

        async def work(number: int) -> int | None:
            async with store.transaction() as connection:
                await connection.execute("INSERT INTO thanx.things VALUES ($1, $2)", f"n{number}", number)
            return await count(store, f"n{number}")

        assert await asyncio.gather(*[work(number) for number in range(40)]) == [*range(40)]


def test_another_loop(dsn: str) -> None:
    """A database that was closed serves another loop; in use on two loops at once it is an error."""
    store = database_of(dsn)

    async def use() -> None:
        await store.init()
        assert await count(store) is None
        with pytest.raises(ConfigurationError, match="the store is open on another event loop"):
            await asyncio.to_thread(asyncio.run, count(store))
        await store.aclose()

    asyncio.run(use())
    asyncio.run(use())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_child(dsn: str) -> None:
    """A child connects anew, and takes no connection away from its parent."""

    async def use() -> None:
        async with opened(dsn) as store:
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    asyncio.set_event_loop(None)
                    asyncio._set_running_loop(None)
                    asyncio.run(count(store))
                    code = 0
                finally:
                    os._exit(code)
            assert await asyncio.to_thread(os.waitpid, child, 0) == (child, 0)
            assert await count(store) == 1

    asyncio.run(use())


@pytest.mark.parametrize(
    ("dsn", "phrase"),
    [
        (f"mysql://u:{PASSWORD}@localhost/db", r"^dsn must be a URL that begins with postgresql:// or"),
        (f"postgresql+asyncpg://u:{PASSWORD}@localhost/db", "begins with postgresql://"),
        (f"host=localhost password={PASSWORD}", "begins with postgresql://"),
        (f"postgresql://u:{PASSWORD}@x@localhost/db", "percent-encode"),
        (f"postgresql://u:1/{PASSWORD}@localhost/db", "percent-encode"),
        (f"postgresql://u:1#{PASSWORD}@localhost/db", "percent-encode"),
        (f"postgresql://u:[{PASSWORD}@localhost/db", "not a valid URL"),
        (f"postgresql://u:{PASSWORD}", "not a valid URL"),
        (f"postgresql://u:{PASSWORD}@localhost:70000/db", "not a valid URL"),
        (PASSWORD.encode(), "must be text, not bytes"),
    ],
)
def test_wrong_dsns(dsn: str, phrase: str) -> None:
    """A DSN that cannot be used is refused at once, and not shown."""
    with pytest.raises(ConfigurationError, match=phrase) as caught:
        database_of(dsn)
    clean(caught.value)
    assert caught.value.argument == "dsn"


def clean(error: BaseException) -> None:
    """Neither its texts nor its frames, causes and pickle hold the password."""
    for one in chain(error):
        assert PASSWORD not in f"{one} {one!r} {vars(one)}"
        for frame, _ in traceback.walk_tb(one.__traceback__):
            if "/tests/" not in frame.f_code.co_filename:
                assert PASSWORD not in "".join(map(shown, frame.f_locals.values()))
    assert PASSWORD.encode() not in pickle.dumps(error.args)


def shown(value: object) -> str:
    """The repr, as far as the object is complete enough to have one."""
    with suppress(AttributeError):
        return repr(value)
    return ""


@pytest.mark.parametrize(
    ("change", "phrase"),
    [
        (("thanx:", "nobody:"), 'password authentication failed for user "nobody"'),
        (("/test", "/absent"), "does not exist"),
        (("127.0.0.1", "no-such-host.invalid"), "check that the server is running"),
        (("/test", "/test?sslmode=wrong&x="), "sslmode"),
    ],
)
async def test_errors_do_not_show_the_password(
    dsn: str, change: tuple[str, str], phrase: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing about a failed connection tells the password, whatever failed."""
    caplog.set_level(logging.DEBUG)
    store = database_of(dsn.replace(*change, 1))
    assert PASSWORD not in repr(store) + repr(store.address)
    with pytest.raises(DatabaseError, match=phrase) as caught:
        await count(store)
    clean(caught.value)
    assert PASSWORD not in caplog.text
    with pytest.raises(ConfigurationError, match="password"):
        pickle.dumps(store.address)
    await store.aclose()


def test_addresses() -> None:
    """A server is named without its user, and its password is masked in any form."""
    address = ServerAddress("dsn", "postgres://u:p%23w@h1:1,[::1]:2/db?sslpassword=x1", SCHEMES)
    assert repr(address) == "<ServerAddress h1:1,[::1]:2/db>"
    assert address.masked("p%23w and p#w and x1") == "*** and *** and ***"
    assert ServerAddress("dsn", "postgres:///db?host=/run/pg", SCHEMES).label == "/run/pg/db"


async def test_a_cancelled_connection_does_not_show_the_password() -> None:
    """A cancellation while connecting has no frames that hold the password."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        port = server.getsockname()[1]
        task = asyncio.create_task(count(database_of(f"postgresql://u:{PASSWORD}@127.0.0.1:{port}/db")))
        connection, _ = await asyncio.get_running_loop().sock_accept(server)
        task.cancel()
        with pytest.raises(asyncio.CancelledError) as caught:
            await task
        connection.close()
    clean(caught.value)


async def test_a_connection_that_breaks_within_an_answer(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What asyncpg then calls an internal error means that the server is away; the next try connects anew."""
    async with opened(dsn) as database:
        with monkeypatch.context() as broken:

            async def fetchval(*_: object) -> None:
                raise asyncpg.InternalClientError("cannot switch to state 11")

            broken.setattr(asyncpg.Connection, "fetchval", fetchval)
            with pytest.raises(DatabaseError) as caught:
                await count(database)
        assert caught.value.trouble.problem is Problem.AWAY
        assert await count(database) == 1

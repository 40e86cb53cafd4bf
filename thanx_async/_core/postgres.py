"""PostgreSQL: connections, transactions, migrations, and the mapping of errors.

All statements run within transactions, and connections keep nothing between them. So pgbouncer may stand in
between, also in transaction mode. Source: pgbouncer.org/features.html.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import attrs

from thanx_async._core.addresses import ServerAddress
from thanx_async._core.errors import without_frames
from thanx_async._core.postgres_connection import (
    Connection,
    PooledConnection,
    in_transaction,
    roll_back,
    terminate,
    without_row,
)
from thanx_async._core.postgres_errors import (
    ERRORS,
    ErrorFactory,
    Problem,
    Trouble,
    asyncpg,
    trouble,
    trouble_of,
)
from thanx_async._core.tasks import Home, to_its_end

SCHEMES = ("postgresql", "postgres")
"""The schemes of a DSN."""

_VERSIONS = """
    CREATE TABLE IF NOT EXISTS thanx.versions (part text PRIMARY KEY, version integer NOT NULL)
"""
_LOCK = 0x7468616E78  # "thanx"; one migration at a time


@attrs.frozen
class Tables:
    """The tables of one part of the library, in the schema ``thanx``.

    Args:
        part: the name of the part.
        migrations: for each version of the tables, from 0, the SQL that leads to the next.
    """

    part: str
    migrations: Sequence[str] = attrs.field(repr=False)


_INHERITED: list[object] = []
"""Pools of a parent process. A forked child must not close them, not even by garbage collection."""


class Database:
    """The tables of one part of the library in a database, for one event loop at a time.

    The first transaction connects and checks the version of the tables. After a restart of the server,
    connections are made again.

    Args:
        address: the DSN.
        tables: the tables that transactions use.
        make_error: makes all errors that `Database` and its connections raise.
        what: the owner's name in messages, such as "the rate limiter".
        connections: the largest number of connections.
        timeout: how long a connection and each statement may take, in seconds.

    Raises:
        ConfigurationError: the DSN is invalid; the message does not show it.
    """

    def __init__(
        self,
        address: ServerAddress,
        tables: Tables,
        make_error: ErrorFactory,
        *,
        what: str,
        connections: int = 10,
        timeout: float = 30.0,
    ) -> None:
        self.address = address
        address.check()
        self._tables = tables
        self._make_error = make_error
        self._home = Home(what, f"async with {what}")
        self._connections = connections
        self._timeout = timeout
        self._opening = asyncio.Lock()
        self._pool: Any = None
        self._is_checked = False

    def __repr__(self) -> str:
        return f"<Database {self.address.label}>"

    @asynccontextmanager
    async def transaction(self, *, synchronous_commit: str | None = None) -> AsyncIterator[Connection]:
        """A transaction, READ COMMITTED. A cancellation rolls it back, unless the commit has begun.

        Args:
            synchronous_commit: the setting for this transaction, such as ``off``; None for the server's own.
        """
        async with self._transaction(synchronous_commit) as connection:
            if not self._is_checked:
                self._check(await self._version(connection))
                self._is_checked = True
            yield connection

    async def init(self) -> None:
        """Create the tables, if they are missing.

        The schema ``thanx`` is created, too; if it exists, the user needs the privilege CREATE on it.
        """
        async with self._transaction() as connection:
            await connection.fetchval("SELECT pg_advisory_xact_lock($1)", _LOCK)
            version = await self._version(connection)
            if version is not None:
                self._check(version)
                return
            if await connection.fetchval("SELECT to_regnamespace('thanx') IS NULL"):
                await connection.execute("CREATE SCHEMA thanx")
            await connection.execute(_VERSIONS)
            await self._migrate(connection, 0)

    async def migrate(self) -> None:
        """Bring tables of an older version to this one."""
        async with self._transaction() as connection:
            await connection.fetchval("SELECT pg_advisory_xact_lock($1)", _LOCK)
            version = await self._version(connection)
            if version is None or version > len(self._tables.migrations):
                self._check(version)
            await self._migrate(connection, version or 0)

    async def vacuum(self, table: str) -> None:
        """Vacuum a table of the schema ``thanx``, unless somebody else does. Nobody waits for it."""
        pool = await self._own_pool()
        raw = await self._connected(pool)
        try:
            await Connection(raw, self._explained).execute(
                f"VACUUM (SKIP_LOCKED, TRUNCATE FALSE) thanx.{table}"
            )
        finally:
            with suppress(*ERRORS):
                await pool.release(raw)

    async def aclose(self) -> None:
        """Close all connections. The next transaction connects again."""
        pool, self._pool = self._pool, None
        if pool is None or self._home.is_lost:
            return
        self._home.check()
        self._home.end()
        try:
            async with asyncio.timeout(self._timeout):
                await pool.close()
        except TimeoutError:
            pool.terminate()

    @asynccontextmanager
    async def _transaction(self, synchronous_commit: str | None = None) -> AsyncIterator[Connection]:
        begin = "BEGIN"
        if synchronous_commit is not None:
            begin += f"; SET LOCAL synchronous_commit = {synchronous_commit}"
        pool = await self._own_pool()
        raw = await self._begun(pool, begin)
        try:
            yield Connection(raw, self._explained)
            await to_its_end(self._commit(raw))
        except Exception:
            await roll_back(raw)
            raise
        except BaseException:
            if in_transaction(raw):
                terminate(raw)
            raise
        finally:
            with suppress(*ERRORS):  # the transaction has ended, whatever becomes of its connection
                await pool.release(raw)

    async def _own_pool(self) -> Any:
        """The pool of the running loop. A new loop, or a forked child, gets a pool of its own."""
        if not self._home.is_open or self._home.is_lost:
            if self._home.is_forked:
                _INHERITED.append(self._pool)
            self._home.end()
            self._home.enter()
            self._pool, self._opening = None, asyncio.Lock()
        self._home.check()
        async with self._opening:
            if self._pool is None:
                self._is_checked = False
                self._pool = await asyncpg.create_pool(
                    self.address.reveal(),
                    min_size=0,
                    max_size=self._connections,
                    timeout=self._timeout,
                    command_timeout=self._timeout,
                    statement_cache_size=0,  # pgbouncer may give each transaction another connection
                    connection_class=PooledConnection,
                )
            return self._pool

    async def _begun(self, pool: Any, begin: str) -> Any:
        """A connection on which a transaction has begun.

        After a restart of the server each idle connection fails once, and a new one takes its place.
        """
        for left in reversed(range(self._connections + 1)):
            raw = await self._connected(pool)
            try:
                await raw.execute(begin)
            except BaseException as error:
                terminate(raw)
                if not isinstance(error, ERRORS):
                    raise
                found = self._trouble(without_frames(error))
                if found.problem is not Problem.AWAY or not left:
                    raise self._make_error(found) from error
            else:
                return raw
        raise AssertionError  # pragma: no cover - the last turn returns or raises

    async def _connected(self, pool: Any) -> Any:
        try:
            return await pool.acquire()
        except ERRORS as error:
            raise self._explained(without_frames(error)) from error
        except asyncio.CancelledError as error:
            without_frames(error)  # they hold the password
            raise

    async def _commit(self, raw: Any) -> None:
        try:
            status = await raw.execute("COMMIT")
        except ERRORS as error:
            terminate(raw)
            found = self._trouble(without_row(error))
            unsure = found.problem is Problem.AWAY
            raise self._make_error(attrs.evolve(found, unsure=unsure)) from error
        if status != "COMMIT":  # an error within the transaction was ignored
            raise self._error(Problem.OTHER, "the transaction was rolled back")

    async def _version(self, connection: Connection) -> int | None:
        """The version of the tables; None if they are missing."""
        if await connection.fetchval("SELECT to_regclass('thanx.versions') IS NULL"):
            return None
        version: int | None = await connection.fetchval(
            "SELECT version FROM thanx.versions WHERE part = $1", self._tables.part
        )
        return version

    def _check(self, version: int | None) -> None:
        known, part = len(self._tables.migrations), self._tables.part
        if version is None:
            raise self._error(Problem.MISSING, f"the tables of the {part} are missing")
        differs = f"the tables of the {part} have version {version}, and this thanx_async needs {known}"
        if version != known:
            raise self._error(Problem.NEWER if version > known else Problem.OLDER, differs)

    async def _migrate(self, connection: Connection, version: int) -> None:
        for migration in self._tables.migrations[version:]:
            await connection.execute(migration)
        await connection.execute(
            "INSERT INTO thanx.versions (part, version) VALUES ($1, $2)"
            " ON CONFLICT (part) DO UPDATE SET version = excluded.version",
            self._tables.part,
            len(self._tables.migrations),
        )

    def _explained(self, error: Exception) -> Exception:
        return self._make_error(self._trouble(error))

    def _trouble(self, error: Exception) -> Trouble:
        return trouble_of(error, self.address, self._timeout)

    def _error(self, problem: Problem, detail: str) -> Exception:
        return self._make_error(trouble(problem, detail))

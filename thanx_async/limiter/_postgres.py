"""`PostgresRateLimiter`, for many machines, and the server side that keeps its state in one row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from uuid import uuid4

from thanx_async._core import checks
from thanx_async._core.addresses import ServerAddress
from thanx_async._core.errors import ConfigurationError
from thanx_async._core.messages import Message
from thanx_async._core.postgres import SCHEMES, Database, Tables
from thanx_async._core.postgres_errors import Problem, Trouble
from thanx_async.limiter._limits import THANX_RATE_LIMITS, RateLimit
from thanx_async.limiter._pacing import Pacing
from thanx_async.limiter._reserve import DEFAULT_RESERVE
from thanx_async.limiter._shared import Reading, SharedLimiter
from thanx_async.limiter._store import StoreAwayError

TIMEOUT = 5.0
"""How long the server may take to connect, and for each statement, in seconds."""

LIMITER_TABLES = Tables(
    "rate limiter",
    (
        """
        CREATE TABLE thanx.limiter (name text PRIMARY KEY, version uuid NOT NULL, state bytea NOT NULL)
            WITH (fillfactor = 25);
        ALTER TABLE thanx.limiter ALTER COLUMN state SET STORAGE MAIN
        """,  # room for the next versions in the page, and never a second table for long values
    ),
)

_READ = """
    SELECT version, state, extract(epoch FROM clock_timestamp())::float8 AS time
    FROM (VALUES ($1::text)) AS wanted (name) LEFT JOIN thanx.limiter USING (name)
"""
_CREATE = "INSERT INTO thanx.limiter VALUES ($1, $2, $3) ON CONFLICT DO NOTHING"
_UPDATE = "UPDATE thanx.limiter SET version = $2, state = $3 WHERE name = $1 AND version = $4"


class PostgresBackend:
    """A `Backend` in one row of the table ``thanx.limiter``."""

    def __init__(self, address: ServerAddress, name: str) -> None:
        self.label = f"{name!r} in PostgreSQL at {address.label}"
        self._name = name
        self._database = Database(
            address, LIMITER_TABLES, self._error, what="the rate limiter", connections=1, timeout=TIMEOUT
        )

    async def swap(self, decide: Callable[[Reading], bytes]) -> bool:
        """See `Backend.swap`. A crash may lose the last writes, which other processes then write again."""
        async with self._database.transaction(synchronous_commit="off") as connection:
            row = await connection.fetchrow(_READ, self._name)
            assert row is not None  # noqa: S101 - one row for the wanted name, with or without a state
            state, version = decide(Reading(row["state"], row["time"])), row["version"]
            if version is None:
                done = await connection.execute(_CREATE, self._name, uuid4(), state)
            else:
                done = await connection.execute(_UPDATE, self._name, uuid4(), state, version)
            return done.endswith(" 1")

    async def aclose(self) -> None:
        """See `Backend.aclose`."""
        await self._database.aclose()

    def _error(self, trouble: Trouble) -> ConfigurationError:
        if trouble.problem in {Problem.AWAY, Problem.CONFLICT}:
            message = f"the rate limiter cannot reach {self.label}: {trouble.detail}; {trouble.advice}"
            return StoreAwayError(message, store=self.label)
        start = f"the rate limiter cannot use {self.label}: {trouble.detail}; "
        return ConfigurationError(Message(start, trouble.advice), argument="dsn")


class PostgresRateLimiter(SharedLimiter):
    """A rate limiter for all processes of many machines that use the same PostgreSQL database, 14 or newer.

    The processes take turns. They share the log of requests, the pauses, and the measurements of the network,
    by the clock of the server. A request of a killed process counts as answered after 60 seconds. Each
    process can have limits of its own, and applies them to the requests of all processes.

    While the server does not answer, requests wait; `status` and one warning in the log say so. A limiter
    belongs to the event loop that uses it. Close it with `aclose`, or use it as ``async with``.

    Before first use, create the table once with `thanx_async.postgres.init`.

    Args:
        dsn: the address, as ``postgresql://user:password@host:port/database``. pgbouncer may stand in
            between, also in transaction mode.
        limits, strict, reserve: as for `LocalRateLimiter`.
        name: what the processes share, one name for each credential. It is stored as it is.

    Raises:
        ConfigurationError: an argument is invalid. Requests and `refresh` raise it if the table is missing or
            has another version, or if the server refuses the user.
    """

    def __init__(
        self,
        dsn: str,
        limits: Sequence[RateLimit] = THANX_RATE_LIMITS,
        *,
        strict: bool = True,
        reserve: float = DEFAULT_RESERVE,
        name: str = "default",
    ) -> None:
        address = ServerAddress("dsn", dsn, SCHEMES)
        del dsn  # no traceback shows it
        pacing = Pacing(limits, strict=strict, reserve=reserve)
        super().__init__(pacing, PostgresBackend(address, checks.text("name", name)))

"""PostgreSQL as a backend; needs the extra ``postgres``: ``pip install 'thanx_async[postgres]'``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from thanx_async._core.addresses import ServerAddress
from thanx_async._core.errors import ConfigurationError
from thanx_async._core.postgres import SCHEMES, Database
from thanx_async._core.postgres_errors import Trouble
from thanx_async.limiter import LIMITER_TABLES, PostgresRateLimiter

__all__ = ["PostgresRateLimiter", "init", "migrate"]

_ALL_TABLES = (LIMITER_TABLES,)


async def init(dsn: str) -> None:
    """Create the tables that are missing, in the schema ``thanx``. Tables that exist are not changed.

    Args:
        dsn: the address, of a user who may create the schema, or tables in it.

    Raises:
        ConfigurationError: the DSN is invalid, the server cannot be used, or tables have another version.
    """
    address = ServerAddress("dsn", dsn, SCHEMES)
    del dsn  # no traceback shows it
    await _each(address, Database.init)


async def migrate(dsn: str) -> None:
    """Bring tables that an older thanx_async made to this version. Stop its processes before.

    Args:
        dsn: the address, of the user who owns the tables.

    Raises:
        ConfigurationError: the DSN is invalid, the server cannot be used, or tables are missing or newer.
    """
    address = ServerAddress("dsn", dsn, SCHEMES)
    del dsn  # no traceback shows it
    await _each(address, Database.migrate)


async def _each(address: ServerAddress, change: Callable[[Database], Awaitable[None]]) -> None:
    def error(trouble: Trouble) -> ConfigurationError:
        message = f"cannot prepare PostgreSQL at {address.label}: {trouble.detail}; {trouble.advice}"
        return ConfigurationError(message, argument="dsn")

    for tables in _ALL_TABLES:
        database = Database(address, tables, error, what="the database", connections=1)
        try:
            await change(database)
        finally:
            await database.aclose()

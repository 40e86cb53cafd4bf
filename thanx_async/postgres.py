"""PostgreSQL as a backend; needs the extra ``postgres``: ``pip install 'thanx_async[postgres]'``."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable

from thanx_async._core import checks
from thanx_async._core.addresses import ServerAddress
from thanx_async._core.errors import ConfigurationError
from thanx_async._core.postgres import SCHEMES, Database
from thanx_async._core.postgres_errors import Trouble
from thanx_async.ledger import LEDGER_TABLES, Copied, PostgresLedger, copy_file
from thanx_async.limiter import LIMITER_TABLES, PostgresRateLimiter
from thanx_async.outbox import PostgresOutbox

__all__ = [
    "Copied",
    "PostgresLedger",
    "PostgresOutbox",
    "PostgresRateLimiter",
    "copy_outbox",
    "init",
    "migrate",
]

_ALL_TABLES = (LIMITER_TABLES, LEDGER_TABLES)


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


async def copy_outbox(path: str | os.PathLike[str], dsn: str) -> Copied:
    """Move a file of `SQLiteOutbox` or `SQLiteLedger`, with all its outboxes and runs, to PostgreSQL.

    Stop the processes that use the file, and create the tables with `init`. Everything is copied in one
    transaction: ids, batches with their numbers, keys and request bodies, and whoever waits. The file stays,
    and is marked as moved: opening it or writing to it raises a `LedgerError`. Delete it, and the files
    beside it, which name guests. A call that was interrupted can be repeated.

    Args:
        path: the file.
        dsn: the address of the database.

    Raises:
        LeaseError: a process is working on a run.
        LedgerError: the database has an outbox for the same campaign, merchant and variant, or a run with the
            same id, or the file or the database cannot be used. Unless the error is ``in_doubt``, nothing was
            copied, and the file can be used on.
    """
    place = checks.path("path", path)
    return await copy_file(place, dsn)


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

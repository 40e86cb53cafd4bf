"""The commands for the tables of outboxes in PostgreSQL."""

from __future__ import annotations

from pathlib import Path

from thanx_async._core.errors import ConfigurationError
from thanx_async.cli._options import Dsn, FileName
from thanx_async.cli._output import write
from thanx_async.cli._recorded import before_sending
from thanx_async.cli._status import ISSUED
from thanx_async.cli._store import Store


async def init(store: Store, /) -> int:
    """Create the tables in a PostgreSQL database, as a user who may do so.

    Parameters
    ----------
    store:
        The address of the database, as postgresql://user:password@host/database; by default THANX_STORE.
    """
    from thanx_async import postgres  # imports asyncpg

    await postgres.init(_database(store).url)
    write("The tables are there")
    return ISSUED


async def migrate(store: Store, /) -> int:
    """Bring tables that an older thanx-async made to this version. Stop its processes before.

    Parameters
    ----------
    store:
        The address of the database; by default THANX_STORE.
    """
    from thanx_async import postgres  # imports asyncpg

    await postgres.migrate(_database(store).url)
    write("The tables have this version")
    return ISSUED


async def copy(file: FileName, store: Store, /) -> int:
    """Move FILE, with all its outboxes and runs, to a PostgreSQL database. Stop its processes before.

    Parameters
    ----------
    file:
        The file of the outboxes.
    store:
        The address of the database; by default THANX_STORE.
    """
    from thanx_async import postgres  # imports asyncpg

    with before_sending():
        copied = await postgres.copy_outbox(file, _database(store).url)
    write(
        f"Copied {copied.runs:,} runs with {copied.batches:,} batches, and {copied.guests:,} guests, of whom"
        f" {copied.waiting:,} wait. {file} is not used any more: delete it, and the files beside it"
    )
    return ISSUED


def _database(store: Path | Dsn) -> Dsn:
    if not isinstance(store, Dsn):
        raise ConfigurationError(f"{store} is not the address of a database: it begins with postgresql://")
    return store

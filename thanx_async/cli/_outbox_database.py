"""The commands that prepare databases for outboxes, and move outboxes there."""

from __future__ import annotations

from pathlib import Path

from thanx_async._core.errors import ConfigurationError
from thanx_async.cli._options import Dsn, FileName
from thanx_async.cli._output import write
from thanx_async.cli._recorded import before_sending
from thanx_async.cli._status import ISSUED
from thanx_async.cli._store import Store
from thanx_async.cli._words import amount


async def init(*, store: Store) -> int:
    """Create the tables.

    Parameters
    ----------
    store:
        postgresql://...; by default THANX_STORE.
    """
    from thanx_async import postgres  # imports asyncpg

    await postgres.init(_database(store))
    write("The tables are there")
    return ISSUED


async def migrate(*, store: Store) -> int:
    """Bring the tables to this version.

    Parameters
    ----------
    store:
        postgresql://...; by default THANX_STORE.
    """
    from thanx_async import postgres  # imports asyncpg

    await postgres.migrate(_database(store))
    write("The tables have this version")
    return ISSUED


async def copy(file: FileName, /, store: Store) -> int:
    """Move a file to a database.

    Parameters
    ----------
    file:
        The file of the outboxes.
    store:
        postgresql://...; by default THANX_STORE.
    """
    from thanx_async import postgres  # imports asyncpg

    url = _database(store)
    with before_sending():
        copied = await postgres.copy_outbox(file, url)
    write(
        f"Copied {amount(copied.runs, 'run')} with {amount(copied.batches, 'batch')}, and"
        f" {amount(copied.guests, 'guest')}, of whom {copied.waiting:,} wait."
        f" {file} is not used any more: delete it, and the files beside it"
    )
    return ISSUED


def _database(store: Path | Dsn) -> str:
    if isinstance(store, Path):
        raise ConfigurationError(f"{store} is a file; give postgresql://...")
    return store.url

"""Where runs are recorded, and how far they have got."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from datetime import datetime
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, TypeAlias
from uuid import uuid4

from thanx_async._core.errors import ConfigurationError, LedgerError
from thanx_async._core.escaping import printable
from thanx_async.cli._options import Dsn
from thanx_async.cli._state import state_folder, state_path
from thanx_async.cli._words import amount
from thanx_async.client import ThanxClient
from thanx_async.ledger import LANES, BatchRecord, RunProgress, RunRecord, SQLiteLanes

if TYPE_CHECKING:
    from thanx_async.ledger import PostgresLanes

_OWN = "ledger.sqlite"

AnyLedger: TypeAlias = "SQLiteLanes | PostgresLanes"


@contextmanager
def before_sending() -> Iterator[None]:
    """Before anything is sent, a refusal of the ledger is a usage error."""
    try:
        yield
    except LedgerError as error:
        raise ConfigurationError(*error.args) from error


def open_ledger(place: Path | Dsn | None) -> AbstractAsyncContextManager[AnyLedger]:
    """The ledger in a file, which must exist, or in a database, or the user's own."""
    if isinstance(place, Path) and not place.exists():
        raise ConfigurationError(f"there is no ledger {place}")
    if isinstance(place, Path) and place.is_file() and not place.stat().st_size:
        raise ConfigurationError(f"{place} is an empty file, not a ledger")
    return new_ledger(place)


@asynccontextmanager
async def new_ledger(place: Path | Dsn | None) -> AsyncIterator[AnyLedger]:
    """The ledger in a file or a database, or the user's own. A file is created if needed."""
    async with AsyncExitStack() as stack:
        ledger = _ledger(place)
        with before_sending():
            await stack.enter_async_context(ledger)
        yield ledger


def _ledger(place: Path | Dsn | None) -> AnyLedger:
    if isinstance(place, Dsn):
        from thanx_async.ledger import PostgresLanes  # imports asyncpg

        return PostgresLanes(place.url)
    return SQLiteLanes(place or _own_ledger())


def path_of(ledger: AnyLedger) -> Path | None:
    """The ledger's file; None for a database."""
    return ledger.path if isinstance(ledger, SQLiteLanes) else None


def name_of(ledger: AnyLedger) -> str:
    """The ledger's file, or the address of its database without the password."""
    return str(ledger.path) if isinstance(ledger, SQLiteLanes) else ledger.label


def _own_ledger() -> Path:
    try:
        return state_folder() / _OWN
    except OSError as error:
        raise ConfigurationError(
            f"cannot write in {state_path()}, where runs are recorded ({error.strerror}): give --ledger PATH"
        ) from error


def run_id_of(file: str, client: ThanxClient, target: tuple[str, str, str]) -> str:
    """The run id for a file: the same for the same file, target and credential, whatever the file holds.

    A pipe gets a new run id each time.
    """
    path = Path(file).resolve()
    if not path.is_file():
        return uuid4().hex
    identity = "\n".join((str(path), client.base_url, client.client_id, *target))
    name = "".join(character if character.isprintable() else "_" for character in path.name).lstrip("-")
    return f"{name}-{hashlib.sha256(identity.encode(errors='surrogateescape')).hexdigest()[:10]}"


def command(words: str, ledger: AnyLedger, run_id: str = "") -> str:
    """A command about a recorded run, quoted as the user can type it."""
    if run_id:
        words += f" {quote(run_id)}"
    path = path_of(ledger)
    if path is None:
        words += " --ledger DSN"
    elif path != state_path() / _OWN:
        words += f" --ledger {_quoted(str(path))}"
    return f"`{words}`"


def _quoted(path: str) -> str:
    """The path as the user can type it: in a shell's escapes if it has control characters."""
    if printable(path) == path:
        return quote(path)
    shown = (
        f"\\x{byte:02x}" if byte in b"\\'" or not 32 <= byte < 127 else chr(byte)
        for byte in os.fsencode(path)
    )
    return f"$'{''.join(shown)}'"


async def earlier(ledger: AnyLedger, run_id: str | None) -> str:
    """The earlier progress of a run, "" if the run is new.

    Raises:
        ConfigurationError: the run is complete, so starting it again can't be intended.
    """
    known = await ledger.run(run_id) if run_id else None
    if known is None:
        return ""
    batches = await ledger.batches(known.run_id)
    if known.revoked_at is None and known.is_complete(batches):
        raise ConfigurationError(
            f"run {known.run_id} is already complete: {issued_by(batches):,} issued,"
            f" {guests(batches) - issued_by(batches):,} failed, on {date(known.changed_at)};"
            f" {command('resume', ledger, known.run_id)} reports on it. Nothing was sent. Put new guests in a"
            " file of their own: a new --run-id issues to everyone in this file again"
        )
    return (
        f"Continuing run {known.run_id} of {date(known.created_at)}: {states(RunProgress.of(known, batches))}"
    )


async def runs_of(ledger: AnyLedger, client: ThanxClient, target: tuple[str, str, str]) -> list[RunRecord]:
    """The runs with this target and credential, oldest first, without outboxes."""
    wanted = (client.base_url, client.client_id, target)
    return [
        run
        for run in await ledger.runs()
        if (run.base_url, run.client_id, run.target) == wanted and not run.run_id.startswith(LANES)
    ]


async def others(ledger: AnyLedger, client: ThanxClient, target: tuple[str, str, str]) -> str:
    """What to say if other runs have issued the same reward before, "" if none has."""
    count, runs = 0, []
    for known in await runs_of(ledger, client, target):
        if known.revoked_at is None and (sent := guests(await ledger.batches(known.run_id))):
            count += sent
            runs.append(known)
    if not runs:
        return ""
    what = f"Run {runs[0].run_id} of {date(runs[0].created_at)} has"
    if len(runs) > 1:
        what = f"{len(runs)} other runs, the last one {runs[-1].run_id} of {date(runs[-1].created_at)}, have"
    return (
        f"{what} issued this reward to {amount(count, 'guest')}. Guests of both get another one; --exclude"
        " FILE leaves them out, and --once everybody whom other runs with --once have issued to"
    )


async def known_run(ledger: AnyLedger, run_id: str) -> RunRecord:
    """The record of a run.

    Raises:
        ConfigurationError: the ledger has no such run.
    """
    record = await ledger.run(run_id)
    if record is None:
        raise ConfigurationError(
            f"the ledger {name_of(ledger)} knows no run {run_id!r}; see {command('ledger runs', ledger)}"
        )
    return record


def states(row: RunProgress) -> str:
    return f"{amount(row.finished, 'batch')} finished, {row.accepted:,} accepted, {row.in_doubt:,} in doubt"


def guests(batches: list[BatchRecord]) -> int:
    return sum(len(batch.positions) for batch in batches)


def issued_by(batches: list[BatchRecord]) -> int:
    return sum(batch.outcome.issued for batch in batches if batch.outcome)


def date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M")

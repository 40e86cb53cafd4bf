"""The client of the command line, and the rate limiter that its runs share."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from errno import EACCES
from math import inf
from pathlib import Path

from anyio import to_thread

from thanx_async._core.errors import ConfigurationError
from thanx_async.cli._options import Dsn
from thanx_async.cli._state import state_folder, state_path
from thanx_async.cli._status import warn
from thanx_async.client import ThanxClient
from thanx_async.emulator import Emulator
from thanx_async.limiter import LocalRateLimiter, RateLimiter, SQLiteRateLimiter
from thanx_async.retry import RetryPolicy

PATIENT = RetryPolicy(patience=inf)
"""Tries again until Ctrl-C."""
_BRIEF = RetryPolicy(max_attempts=5)


@asynccontextmanager
async def limiter_of(client_id: str, base_url: str, store: Path | Dsn | None) -> AsyncIterator[RateLimiter]:
    """A limiter shared by all runs with the same credential: of this user, or of all who use the database."""
    name = _name(client_id, base_url)
    if not isinstance(store, Dsn):
        yield await shared_limiter(name)
        return
    from thanx_async.limiter import PostgresRateLimiter  # imports asyncpg

    async with PostgresRateLimiter(store.url, name=name) as limiter:
        yield limiter


async def shared_limiter(name: str) -> RateLimiter:
    """A limiter shared by all of this user's runs with the same credential.

    Where its file can't be written, this run gets a limiter of its own, and the user a warning.

    Raises:
        ConfigurationError: the file is damaged or isn't a limiter's.
    """
    try:
        path = _created(name)
    except OSError as error:
        warn(
            f"warning: cannot write in {state_path()} ({error.strerror}), so this run does not know what"
            " other runs spend of the rate limits; XDG_STATE_HOME can name another directory"
        )
        return LocalRateLimiter()
    limiter = SQLiteRateLimiter(path)
    await limiter.refresh()
    return limiter


async def known_limiter() -> RateLimiter | None:
    """The limiter that this user's runs share, as far as it exists: nothing is created.

    None without a credential, before its first run, and, with a warning, where its file can't be used.
    """
    with suppress(ConfigurationError):
        client = ThanxClient.from_env()
        path = state_path() / _file_of(_name(client.client_id, client.base_url))
        if await to_thread.run_sync(path.is_file):
            limiter = SQLiteRateLimiter(path)
            try:
                await limiter.refresh()
            except ConfigurationError as error:
                warn(f"warning: it is not known what is spent of the rate limits: {error}")
            else:
                return limiter
    return None


def _file_of(name: str) -> str:
    return f"limits-{name}.sqlite3"


def _name(client_id: str, base_url: str) -> str:
    """The limiter's name for a credential, which it does not reveal."""
    return hashlib.sha256(f"{client_id}\n{base_url}".encode()).hexdigest()[:32]


def _created(name: str) -> Path:
    """The limiter's file, created if needed."""
    path = state_folder() / _file_of(name)
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:  # to open and close it would release the locks that others in the process have
        if not os.access(path, os.R_OK | os.W_OK):
            raise PermissionError(EACCES, os.strerror(EACCES)) from None
    return path


@asynccontextmanager
async def connect(
    *,
    emulator: bool = False,
    store: Path | Dsn | None = None,
    retry: RetryPolicy = _BRIEF,
) -> AsyncIterator[ThanxClient]:
    """A client configured from the environment, or a client of an embedded emulator.

    While Thanx gives no answer, it tries again as ``retry`` says: by default for some seconds.
    """
    if not emulator:
        unused = ThanxClient.from_env()
        async with (
            limiter_of(unused.client_id, unused.base_url, store) as limiter,
            ThanxClient.from_env(limiter=limiter, retry=retry) as client,
        ):
            yield client
        return
    async with (
        Emulator() as embedded,
        ThanxClient("emulator", "emulator", base_url=embedded.url) as client,
    ):
        yield client

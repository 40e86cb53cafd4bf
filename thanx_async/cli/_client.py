"""The client of the command line, and the rate limiter that its runs share."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import inf
from pathlib import Path

from thanx_async.cli._state import state_folder, state_path
from thanx_async.cli._status import warn
from thanx_async.client import ThanxClient
from thanx_async.emulator import Emulator
from thanx_async.limiter import LocalRateLimiter, RateLimiter, SQLiteRateLimiter
from thanx_async.retry import RetryPolicy


async def shared_limiter(client: ThanxClient) -> RateLimiter:
    """A limiter shared by all of this user's runs with the same credential.

    Where its file can't be written, this run gets a limiter of its own, and the user a warning.

    Raises:
        ConfigurationError: the file is damaged or isn't a limiter's.
    """
    try:
        path = _created(f"{os.environ.get('THANX_CLIENT_ID')}\n{client.base_url}")
    except OSError as error:
        warn(
            f"warning: cannot write in {state_path()} ({error.strerror}), so this run does not know what"
            " other runs spend of the rate limits; XDG_STATE_HOME can name another directory"
        )
        return LocalRateLimiter()
    limiter = SQLiteRateLimiter(path)
    await limiter.refresh()
    return limiter


def _created(credential: str) -> Path:
    """The limiter's file for a credential, created if needed; its name does not reveal the credential."""
    path = state_folder() / f"limits-{hashlib.sha256(credential.encode()).hexdigest()[:32]}.sqlite3"
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    return path


@asynccontextmanager
async def connect(*, emulator: bool = False, patient: bool = False) -> AsyncIterator[ThanxClient]:
    """A client configured from the environment, or a client of an embedded emulator.

    A ``patient`` one tries again until Ctrl-C while Thanx gives no answer, the others for some seconds.
    """
    if not emulator:
        limiter = await shared_limiter(ThanxClient.from_env())
        retry = RetryPolicy(patience=inf) if patient else RetryPolicy(max_attempts=5)
        async with ThanxClient.from_env(limiter=limiter, retry=retry) as client:
            yield client
        return
    async with (
        Emulator() as embedded,
        ThanxClient("emulator", "emulator", base_url=embedded.url) as client,
    ):
        yield client

"""The client of the command line, and the limiter that all its runs share."""

from __future__ import annotations

import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from platformdirs import user_state_path

from thanx_async.cli._status import warn
from thanx_async.client import ThanxClient
from thanx_async.emulator import Emulator
from thanx_async.limiter import LocalRateLimiter, RateLimiter, SQLiteRateLimiter


async def shared_limiter(client: ThanxClient) -> RateLimiter:
    """A limiter that all runs of this user with the same credential share; where that is not possible, one
    for this run alone and a warning.

    Raises:
        ConfigurationError: the file is damaged or not a limiter's.
    """
    directory = user_state_path("thanx-async", appauthor=False)
    try:
        path = _made(directory, f"{os.environ.get('THANX_CLIENT_ID')}\n{client.base_url}")
    except OSError as error:
        warn(
            f"warning: cannot write in {directory} ({error.strerror}), so this run does not know what others"
            " spend of the rate limits; XDG_STATE_HOME can name another directory"
        )
        return LocalRateLimiter()
    limiter = SQLiteRateLimiter(path)
    await limiter.refresh()
    return limiter


def _made(directory: Path, credential: str) -> Path:
    """The file of a credential, which its name does not tell, in a directory of this user only."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    directory.chmod(0o700)
    path = directory / f"limits-{hashlib.sha256(credential.encode()).hexdigest()[:32]}.sqlite3"
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    return path


@asynccontextmanager
async def connect(*, emulator: bool = False) -> AsyncIterator[ThanxClient]:
    """A client from the environment, with the rate limits shared by all runs; or one of an embedded
    emulator."""
    if not emulator:
        limiter = await shared_limiter(ThanxClient.from_env())
        async with ThanxClient.from_env(limiter=limiter) as client:
            yield client
        return
    async with (
        Emulator() as embedded,
        ThanxClient("emulator", "emulator", base_url=embedded.url) as client,
    ):
        yield client

"""The limiter of the command line: one file for each client id, so that runs know of each other."""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

from platformdirs import user_state_path

from thanx_async.limiter import LocalRateLimiter, RateLimiter, SQLiteRateLimiter


def shared_limiter(client_id: str, base_url: str) -> RateLimiter:
    """A limiter that all runs of this user with this credential share; where that is not possible, one for
    this run alone and a warning."""
    directory = user_state_path("thanx-async", appauthor=False)
    name = hashlib.sha256(f"{client_id}\n{base_url}".encode()).hexdigest()[:32]
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        directory.chmod(0o700)
        _check_writable(directory / f"limits-{name}.sqlite3")
    except OSError as error:
        sys.stderr.write(
            f"thanx-async: warning: cannot write to {directory} ({error.strerror}), so this run does not know"
            " what other runs have spent of the rate limits; set XDG_STATE_HOME to another directory\n"
        )
        return LocalRateLimiter()
    return SQLiteRateLimiter(directory / f"limits-{name}.sqlite3")


def _check_writable(path: Path) -> None:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))

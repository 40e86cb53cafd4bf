"""The folder where the command line keeps this user's ledger and rate limits."""

from __future__ import annotations

import stat
from pathlib import Path

import platformdirs

_PRIVATE = 0o700


def state_path() -> Path:
    """Where the folder is, or would be."""
    return platformdirs.user_state_path("thanx-async", appauthor=False)


def state_folder() -> Path:
    """The folder, created if needed, and accessible to this user only.

    Raises:
        OSError: it can't be created.
    """
    folder = state_path()
    folder.mkdir(mode=_PRIVATE, parents=True, exist_ok=True)
    if stat.S_IMODE(folder.stat().st_mode) != _PRIVATE:
        folder.chmod(_PRIVATE)
    return folder

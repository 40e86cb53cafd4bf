"""The folder where the command line keeps this user's ledger and rate limits."""

from __future__ import annotations

import os
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
    found = folder.lstat()
    if stat.S_ISDIR(found.st_mode) and is_own(found) and stat.S_IMODE(found.st_mode) != _PRIVATE:
        folder.chmod(_PRIVATE)
    return folder


def is_own(found: os.stat_result) -> bool:
    """Whether a file belongs to this user. Where files have no owners, each does."""
    return not hasattr(os, "geteuid") or found.st_uid == os.geteuid()

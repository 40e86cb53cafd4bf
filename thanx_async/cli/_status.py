"""How a command ends: its exit status, and what to do when nobody reads what it prints."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

ISSUED, SOME_FAILED, WRONG_USE, STOPPED = range(4)


def warn(text: str) -> None:
    """A line on standard error."""
    with suppress(OSError):
        sys.stderr.write(f"thanx-async: {text}\n")


def unread() -> None:
    """Whoever read standard output has gone: what is still printed goes nowhere, also at the exit."""
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123 - a device
        os.dup2(nowhere.fileno(), sys.stdout.fileno())

"""Exit statuses, warnings, and what to do when nobody reads standard output."""

from __future__ import annotations

import os
import sys
from contextlib import suppress

ISSUED, SOME_FAILED, USAGE_ERROR, STOPPED = range(4)


def warn(text: str) -> None:
    """Write a line to standard error."""
    with suppress(OSError):
        sys.stderr.write(f"thanx-async: {text}\n")


def discard_output() -> None:
    """Discard further standard output, whose reader has gone; flushing at exit would fail otherwise."""
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123 - a device
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
